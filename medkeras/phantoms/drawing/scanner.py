"""A made-up MR scanner: an anatomy in, grey stacks of slices in three planes out."""

from dataclasses import dataclass

import numpy as np

PLANES = ("axial", "coronal", "sagittal")
FIELD = 106.0  # side of a slice in mm
# Patient axes (0 right-left, 1 front-back, 2 up-down) that slices, rows and columns run along.
AXES = {"sagittal": (0, 2, 1), "coronal": (1, 2, 0), "axial": (2, 1, 0)}
# First and last slice in mm along the first of these axes.
REACH = {"sagittal": (-42, 42), "coronal": (-46, 50), "axial": (-42, 54)}

# Signal, 0..1: T2 with fat suppressed, T1, proton density with fat suppressed.
SEQUENCE = {"sagittal": 0, "coronal": 1, "axial": 2}
SIGNAL = {
    "air": (0.0, 0.0, 0.0),
    "skin": (0.35, 0.40, 0.40),
    "fat": (0.30, 0.78, 0.30),
    "deep fat": (0.33, 0.72, 0.34),
    "septum": (0.14, 0.55, 0.18),
    "muscle": (0.42, 0.34, 0.45),
    "vein": (0.90, 0.20, 0.85),
    "artery": (0.05, 0.08, 0.08),
    "marrow": (0.36, 0.67, 0.37),
    "cortex": (0.04, 0.10, 0.06),
    "cartilage": (0.60, 0.42, 0.66),
    "fluid": (0.85, 0.28, 0.85),
    "synovium": (0.46, 0.66, 0.48),
    "meniscus": (0.04, 0.10, 0.07),
    "tendon": (0.05, 0.12, 0.08),
    "ligament": (0.10, 0.18, 0.13),
    "rupture": (0.90, 0.32, 0.85),
    "tear": (0.95, 0.68, 0.90),
    "oedema": (0.68, 0.40, 0.70),
    "effusion": (0.95, 0.22, 0.92),
}
"""Grey values of the tissues, from nothing (0) to the brightest (1), by `SEQUENCE`."""


@dataclass(frozen=True)
class Pose:
    """Where a knee lies in the scanner.

    Args:
        linear: (3, 3) from patient mm to knee mm: turn, size, and left or right knee.
        shift: (3,) patient mm of the knee's middle.
        bends: (3, 3, 2) amplitude in mm and phase of a slow wave that moves axis i along axis j.
    """

    linear: np.ndarray
    shift: np.ndarray
    bends: np.ndarray


def lay(rng) -> Pose:
    """Draws a pose: turned by some degrees, shifted by some mm, of another size, either side."""
    turn = np.eye(3)
    for axis, degrees in enumerate((7, 4, 9)):
        angle = np.deg2rad(rng.uniform(-degrees, degrees))
        a, b = [other for other in range(3) if other != axis]
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    size = rng.uniform(0.93, 1.08)
    flip = np.diag([rng.choice([-1.0, 1.0]), 1, 1])
    bends = np.stack([rng.uniform(-1.5, 1.5, (3, 3)), rng.uniform(0, 6, (3, 3))], axis=-1)
    bends[range(3), range(3), 0] = 0
    return Pose(flip @ turn / size, rng.uniform(-5, 5, 3), bends)


def scan(rng, knee, pose, plane, slices, size, lesions, difficulty):
    """Makes one stack of slices.

    Args:
        rng: NumPy generator of slice positions, exposure and noise; it draws the same numbers
            whatever the lesions.
        knee: `knee_anatomy.Knee`.
        pose: where it lies.
        plane: one of `PLANES`.
        slices: number of slices.
        size: height and width in pixels.
        lesions: names of the lesions to show.
        difficulty: 0..1, more noise.

    Returns:
        uint8 (slices, size, size), and {lesion: bool array of that shape}.
    """
    first, last = REACH[plane]
    gap = (last - first) / max(slices - 1, 1)
    stack = np.linspace(first, last, slices) + rng.uniform(-0.3, 0.3) * gap
    line = ((np.arange(size) + 0.5) / size - 0.5) * FIELD
    axes = AXES[plane]
    # Up is the first row.
    lines = [stack, -line if axes[1] == 2 else line, line]
    grid = _Grid(pose, axes, lines)
    levels = rng.uniform(0.88, 1.12, len(SIGNAL))
    signal = {
        name: np.float32(values[SEQUENCE[plane]] * level)
        for (name, values), level in zip(SIGNAL.items(), levels, strict=True)
    }

    picture = np.full(grid.shape, signal["air"], np.float32)
    pixel = FIELD / size
    for part in knee.parts:
        _paint(picture, grid, part, signal, pixel)
    masks = {}
    for name in lesions:
        masks[name] = np.zeros(grid.shape, bool)
        for part in knee.lesions[name]:
            _paint(picture, grid, part, signal, pixel, masks[name])
    return _exposed(rng, picture, axes, lines, difficulty), masks


class _Grid:
    """Knee coordinates of all points of a stack, and boxes of it.

    A pose moves points by sums of functions of one patient axis each, so the coordinates are
    sums of three small arrays.
    """

    def __init__(self, pose, axes, lines):
        self.shape = tuple(len(line) for line in lines)
        self.pose, self.axes, self.lines = pose, axes, lines
        terms = []
        for place, (axis, line) in enumerate(zip(axes, lines, strict=True)):
            amplitude, phase = pose.bends[:, axis, :, None].transpose(1, 0, 2)
            moved = amplitude * np.sin(line / 24 + phase)
            moved[axis] += line - pose.shift[axis]
            outline = [3, 1, 1, 1]
            outline[place + 1] = len(line)
            terms.append((pose.linear @ moved).astype(np.float32).reshape(outline))
        self.knee = terms[0] + terms[1] + terms[2]

    def box(self, low, high):
        """Slices of the index that hold all points of a box of knee coordinates, or None."""
        corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), -1)
        points = np.linalg.solve(self.pose.linear, corners.reshape(-1, 3).T).T + self.pose.shift
        slack = np.abs(self.pose.bends[..., 0]).sum(1)
        low, high = points.min(0) - slack, points.max(0) + slack
        found = []
        for axis, line in zip(self.axes, self.lines, strict=True):
            (inside,) = np.nonzero((line >= low[axis]) & (line <= high[axis]))
            if not len(inside):
                return None
            found.append(slice(inside[0], inside[-1] + 1))
        return tuple(found)


def _paint(picture, grid, part, signal, pixel, mask=None):
    soft = max(pixel, part.soft)
    margin = soft + max(outwards for _, outwards in part.coats)
    box = grid.box(part.solid.low - margin, part.solid.high + margin)
    if box is None:
        return
    distance = part.solid.distance(*grid.knee[(slice(None), *box)])
    for tissue, outwards in part.coats:
        # Part of a pixel at the surface, so that edges are smooth.
        share = np.clip(0.5 - (distance - outwards) / soft, 0, 1)
        if mask is not None:
            # The mask is exactly what a lesion changes, so its faintest edge is left out.
            share *= share > 0.2
            mask[box] |= share > 0
        picture[box] += np.float32(part.strength) * share * (signal[tissue] - picture[box])


def _exposed(rng, picture, axes, lines, difficulty):
    """Adds grain, shading of the coil, noise of a magnitude picture and a window: uint8."""
    picture *= 1 + np.float32(rng.uniform(0.01, 0.03)) * _grain(rng, lines)
    picture *= _shading(rng, axes, lines)
    # Noise in the real and the imaginary channel; the picture is the magnitude.
    sigma = np.float32(rng.uniform(0.015, 0.03) + 0.07 * difficulty)
    picture += sigma * rng.standard_normal(picture.shape, dtype=np.float32)
    picture *= picture
    picture += (sigma * rng.standard_normal(picture.shape, dtype=np.float32)) ** 2
    gain, gamma = rng.uniform(0.75, 1.15), rng.uniform(0.8, 1.25)
    picture = 255 * np.float32(gain) * picture ** np.float32(gamma / 2)
    return np.clip(picture, 0, 255, out=picture).round().astype(np.uint8)


def _grain(rng, lines):
    """A sum of waves through space in random directions, about -3..3."""
    grain = np.float32(0)
    for _ in range(8):
        direction = rng.standard_normal(3)
        steps = direction / np.linalg.norm(direction) * 2 * np.pi / rng.uniform(4, 12)
        # cos of a sum is the real part of a product of three short arrays.
        a, b, c = (
            np.exp(1j * step * line).astype(np.complex64)
            for step, line in zip(steps, lines, strict=True)
        )
        front = (a * np.complex64(np.exp(1j * rng.uniform(0, 6))))[:, None] * b
        grain = grain + front.real[..., None] * c.real - front.imag[..., None] * c.imag
    return grain


def _shading(rng, axes, lines):
    """Slow brightness over the picture, and flare near two elements of the coil.

    How much of a picture is bright is thereby ruled by chance and not by fluid in a lesion.
    """
    slow = [
        1 + rng.uniform(-0.15, 0.15) * line / 50 + rng.uniform(0, 0.15) * (line / 50) ** 2
        for line in lines
    ]
    shading = _product(slow)
    for _ in range(2):
        angle, height, width = rng.uniform(0, 2 * np.pi), rng.uniform(-40, 40), rng.uniform(12, 24)
        place = (52 * np.cos(angle), 4 + 54 * np.sin(angle), height)
        near = [
            np.exp(-(((line - place[axis]) / width) ** 2) / 2)
            for axis, line in zip(axes, lines, strict=True)
        ]
        near[0] = near[0] * rng.uniform(0, 2)
        shading = shading + _product(near)
    return shading


def _product(lines):
    a, b, c = (np.asarray(line, np.float32) for line in lines)
    return a[:, None, None] * b[:, None] * c
