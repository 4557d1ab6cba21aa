r"""Films of both knees, cut into a right and a left one.

A film shows both knees where its laterality says B; or where it names no side, its body part is
the knee, it is a frontal one, and it is at least 1.15 times as wide as high (the film of one knee
is upright, that of both lies). It is a frontal one where its view says so; where no view is
named, where its rows lead to the patient's right or left (PatientOrientation such as "L\F").
Where rows lead anywhere else, as on a lateral film, it is never cut. Every film that might show
both and was not cut says so in its notes.

Where PatientOrientation says which side of the patient the rows lead to, it decides which half is
which. Else the rule for frontal films does: the patient's right is at the left of the picture.

The cut is at the darkest column of the middle fifth, the gap between the knees; of several
equally dark ones, at the one nearest to the middle.
"""

import numpy as np

MODES = ("auto", "split", "whole")
WIDE = 1.15
FRONTAL = {"AP", "PA"}
# What a film of knees may be called.
LEGS = {"", "KNEE", "LEG", "EXTREMITY", "PATELLA"}


def both(tags: dict, shape: tuple[int, int], mode: str = "auto") -> bool:
    """Says whether a film is to be cut.

    Args:
        tags: allow-listed tags of the film.
        shape: (rows, columns).
        mode: "auto" for the rule above, "whole" for never, "split" for every film of a knee or
            an unnamed part of the leg that names no single side.
    """
    toward = _toward(tags["orientation"])
    if mode == "whole" or tags["side"] in ("R", "L") or toward not in ("", "R", "L"):
        return False
    if mode == "split":
        return tags["body_part"] in LEGS
    if tags["body_part"] != "KNEE":
        return False
    frontal = tags["view"] in FRONTAL or (not tags["view"] and toward)
    return tags["side"] == "B" or bool(frontal and wide(shape))


def uncut(tags: dict, shape: tuple[int, int]) -> list[str]:
    """Returns notes on a film that was not cut.

    Args:
        tags: allow-listed tags of the film.
        shape: (rows, columns).
    """
    if tags["side"] == "B":
        return ["says that it shows both sides, but was not cut"]
    if tags["side"] or tags["body_part"] != "KNEE":
        return []
    if wide(shape):
        return ["a knee without side, wide enough for both knees, but was not cut"]
    return ["a knee without side"]


def wide(shape: tuple[int, int]) -> bool:
    """Says whether a picture of a knee, (rows, columns), lies as films of both do."""
    return shape[1] >= WIDE * shape[0]


def halves(grey: np.ndarray, orientation: str = "") -> tuple[dict[str, np.ndarray], list[str]]:
    r"""Cuts a film of both knees.

    Args:
        grey: grey values (rows, columns), bone bright.
        orientation: where rows and columns lead, such as "L\F", or "".

    Returns:
        {"R": right half, "L": left half} of the patient, and notes.
    """
    columns = grey.shape[1]
    means = grey.mean(axis=0, dtype=np.float64)
    # Smoothed, so that the gap counts and not a scratch.
    reach = max(columns // 100, 1)
    kernel = np.ones(2 * reach + 1) / (2 * reach + 1)
    means = np.convolve(np.pad(means, reach, mode="edge"), kernel, mode="valid")
    low, high = int(0.4 * columns), max(int(0.6 * columns), int(0.4 * columns) + 1)
    middle = means[low:high]
    darkest = low + np.flatnonzero(middle <= middle.min() + 1e-9)
    cut = int(darkest[np.abs(darkest - columns / 2).argmin()])
    cut = min(max(cut, 1), columns - 1)
    toward = _toward(orientation)
    notes = [f"film of both knees, cut at column {cut}"]
    if toward not in ("R", "L"):
        notes.append("the patient's right is taken to be at the left of the picture")
    left, right = grey[:, :cut], grey[:, cut:]
    # Rows that lead to the patient's right end at the right.
    return ({"R": right, "L": left} if toward == "R" else {"R": left, "L": right}), notes


def _toward(orientation):
    """Returns where the rows lead: R, L, A, P, H, F, or "" where unknown."""
    return orientation.partition("\\")[0]
