"""Slices to volumes: which slices of a series belong together, and in which order.

The rules, in this order:

1. Slices of another size, another direction (a cosine differs by more than 0.01), another
   photometric interpretation, pixel spacing or echo time (by more than 1 %) are another volume: a
   localizer of three planes is three, two echoes are two.
2. Slices are sorted by their place along the normal of the slices, row x column direction, from
   low to high: sagittal ones with rows to the back and columns to the feet run from the
   patient's left to the right.
3. Where every place has the same number of slices (time points, echoes without echo time), each
   place's first slice by InstanceNumber makes the first volume, the second one the second, and so
   on. Any other repetition is refused. Slices lie at the same place where they are nearer
   together than a tenth of a slice's thickness (1 mm where unknown) or, where that is smaller,
   of the largest step.
4. Where a slice does not say where it lies, the order is InstanceNumber; where that is missing
   or repeated, the series is refused.

Frames of a multi-frame file are one volume: sorted by place where all places differ, else in the
order of the file.
"""

import math
from dataclasses import dataclass, field

import numpy as np

# Nearer together than this part of a slice, or than this (mm), two slices lie at the same place.
SAME_PART = 0.1
SAME_PLACE = 0.01
THICKNESS = 1.0
SAME_DIRECTION = 0.01
SAME_VALUE = 0.01


@dataclass
class Volume:
    """Slices in order.

    Args:
        slices: numbers of the slices, as the caller counts them.
        spacing: distance between neighbours (mm, the median), or None where unknown.
        plane: "sagittal", "coronal", "axial", or "" where unknown.
        notes: what a rule decided.
    """

    slices: list[int]
    spacing: float | None = None
    plane: str = ""
    notes: list[str] = field(default_factory=list)


def volumes(facts: list[dict]) -> tuple[list[Volume], list[tuple[list[int], str]]]:
    """Divides the single-frame files of one series into volumes.

    Args:
        facts: of each file, as `medkeras.files.dicom.task` returns them.

    Returns:
        The volumes, in the order of their first InstanceNumber; and what is refused, as
        (numbers of the slices, reason).
    """
    made, refused = [], []
    groups = _alike(facts)
    for group in groups:
        try:
            found = _ordered(group, facts)
        except ValueError as fault:
            refused.append((group, str(fault)))
            continue
        for volume in found:
            if len(groups) > 1:
                volume.notes.append(
                    "its series has slices of several directions, sizes or echo times"
                )
        made += found
    return made, refused


def frames(places: list) -> Volume:
    """Orders the frames of a multi-frame file.

    Args:
        places: of each frame [x, y, z, six cosines] or None, from `dicom_tags.place`.

    Returns:
        The frames as one volume.
    """
    volume = Volume(list(range(len(places))))
    if len(places) == 1:
        volume.plane = _plane(places[0]) if places[0] else ""
        return volume
    if None in places or not all(_same_direction(places[0], place) for place in places):
        volume.notes.append("frames in the order of the file: their places are unknown")
        return volume
    volume.plane = _plane(places[0])
    heights = _heights(places)
    order = np.argsort(heights, kind="stable")
    steps = np.diff(heights[order])
    if steps.min() < _reach(steps):
        volume.notes.append("frames in the order of the file: several lie at the same place")
        return volume
    volume.slices = order.tolist()
    _note_steps(volume, steps)
    return volume


def _alike(facts):
    groups = []
    for number in sorted(range(len(facts)), key=lambda number: _instance(facts[number])):
        fact = facts[number]
        for group in groups:
            first = facts[group[0]]
            if (
                fact["shape"][1:] == first["shape"][1:]
                and fact["tags"]["photometric"] == first["tags"]["photometric"]
                and _same_direction(first["places"][0], fact["places"][0])
                and _same_values(first["tags"], fact["tags"])
            ):
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def _ordered(group, facts):
    places = [facts[number]["places"][0] for number in group]
    if None in places:
        return [_by_instance(group, facts)]
    heights = _heights(places)
    order = np.argsort(heights, kind="stable").tolist()
    reach = _reach(np.diff(heights[order]), facts[group[0]]["tags"]["slice_thickness"])
    stacks = [[order[0]]]
    for number in order[1:]:
        if heights[number] - heights[stacks[-1][0]] < reach:
            stacks[-1].append(number)
        else:
            stacks.append([number])
    # The group is in the order of InstanceNumber, and so are the slices at one place.
    stacks = [sorted(stack) for stack in stacks]
    deep = {len(stack) for stack in stacks}
    if len(deep) > 1:
        raise ValueError(
            f"{len(group)} slices lie at {len(stacks)} places, some of them more than once"
        )
    (depth,) = deep
    if depth > 1:
        instances = [[_instance(facts[group[number]]) for number in stack] for stack in stacks]
        if any(len(set(stack)) < depth for stack in instances):
            raise ValueError(f"{depth} slices at each place have the same InstanceNumber")
    made = []
    for number in range(depth):
        chosen = [stack[number] for stack in stacks]
        volume = Volume([group[place] for place in chosen], plane=_plane(places[0]))
        if len(chosen) > 1:
            _note_steps(volume, np.diff(heights[chosen]))
        if depth > 1:
            volume.notes.append(
                f"{depth} slices at each place, taken apart by InstanceNumber: number {number + 1}"
            )
        made.append(volume)
    return made


def _by_instance(group, facts):
    instances = [facts[number]["tags"]["instance"] for number in group]
    if len(group) > 1 and (None in instances or len(set(instances)) < len(group)):
        raise ValueError(
            f"{len(group)} slices say neither where they lie nor, each its own, which number "
            "they have"
        )
    notes = ["sorted by InstanceNumber: places unknown"] if len(group) > 1 else []
    return Volume(list(group), notes=notes)


def _instance(fact):
    number = fact["tags"]["instance"]
    return -1 if number is None else number


def _heights(places):
    row, column = np.array(places[0][3:6]), np.array(places[0][6:9])
    return np.array([place[:3] for place in places]) @ np.cross(row, column)


def _same_direction(first, second):
    if first is None or second is None:
        return first is None and second is None
    return bool(np.abs(np.subtract(first[3:], second[3:])).max() <= SAME_DIRECTION)


def _same_values(first, second):
    pairs = [(first["echo_time"], second["echo_time"])]
    pairs += zip(*(tags["pixel_spacing"] or (None, None) for tags in (first, second)))
    return all(
        one == other if None in (one, other) else math.isclose(one, other, rel_tol=SAME_VALUE)
        for one, other in pairs
    )


def _reach(steps, thickness=None):
    """Returns how near (mm) two slices must be to lie at the same place."""
    # Slices may overlap, so the steps count too. Not their median: where several slices lie at
    # each place, that is the step within a place.
    return max(SAME_PLACE, SAME_PART * min(thickness or THICKNESS, steps.max(initial=0)))


def _plane(place):
    normal = np.cross(place[3:6], place[6:9])
    return ("sagittal", "coronal", "axial")[int(np.abs(normal).argmax())]


def _note_steps(volume, steps):
    volume.spacing = float(np.median(steps))
    missing = int((steps > 1.5 * volume.spacing).sum())
    if missing:
        volume.notes.append(f"{missing} gaps between slices: some may be missing")
