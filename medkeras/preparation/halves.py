"""The halves of a film of both knees, and where in them a joint lies.

What a locator sees of a knee is made here, for training and for use alike: a film of both knees
is cut at the gap between them (see `readers.dicom_knees`), left halves are mirrored, so that the
medial side is always at the right of the picture, and all are padded to be square.

Boxes come in two forms. On a film: x and y of the left upper corner, width and height, in pixels.
To a model: x and y of the centre, width and height, as shares of the padded picture that it sees.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from medkeras.preparation import conform
from medkeras.readers import dicom_knees

BOX = ("box_x", "box_y", "box_width", "box_height")
# Part of what names stored halves, and of `predictor.json`.
CONFIG = conform.CONFIG | {
    "cut": "films of both knees, at the darkest column of the middle fifth (1)",
    "mirrored": "left halves, so that the medial side is at the right of the picture",
    "padded": "halves, black on both sides, to be square: a knee keeps its shape",
}


@dataclass(frozen=True)
class Half:
    """The part of a film that shows one knee; a film of one knee is a half of its own.

    Args:
        side: "right" or "left" knee of the patient.
        start: its first column on the film.
        height: of the film, pixels.
        width: of the half, pixels.
    """

    side: str
    start: int
    height: int
    width: int

    def picture(self, film: np.ndarray, image_shape) -> np.ndarray:
        """Returns what a model sees of a film: uint8 of `image_shape`, (height, width, 1)."""
        seen = film[:, self.start : self.start + self.width]
        seen = seen[:, ::-1] if self.side == "left" else seen
        (left, top), square = self._border, self._square
        padded = np.zeros((square, square, *film.shape[2:]), film.dtype)
        padded[top : top + self.height, left : left + self.width] = seen
        return conform.conform(padded, image_shape)

    def shares(self, box) -> np.ndarray:
        """Turns a box on the film into one for a model, float32 (4,)."""
        x, y, across, down = map(float, box)
        x = x - self.start
        x = self.width - x - across if self.side == "left" else x
        left, top = self._border
        centre = x + left + across / 2, y + top + down / 2
        return np.float32([*centre, across, down]) / np.float32(self._square)

    def place(self, box) -> tuple[float, float, float, float]:
        """Turns a model's box into one on the film, x, y, width and height."""
        x, y, across, down = (float(number) * self._square for number in box)
        left, top = self._border
        x, y = x - across / 2 - left, y - down / 2 - top
        x = self.width - x - across if self.side == "left" else x
        return self.start + x, y, across, down

    def inside(self, box) -> float:
        """Returns the share of a box on the film that lies on this half, 0..1."""
        x, y, across, down = box
        x -= self.start
        width = min(x + across, self.width) - max(x, 0)
        height = min(y + down, self.height) - max(y, 0)
        return max(width, 0) * max(height, 0) / max(across * down, 1e-9)

    def joint(self, film: np.ndarray, box, size: int, margin: float = 0.0) -> np.ndarray:
        """Cuts a square around a box, black where it reaches beyond this half.

        Args:
            film: grey, (height, width).
            box: on the film.
            size: height and width of the picture in pixels.
            margin: share of the box's longer side that is added on each side.

        Returns:
            uint8 (size, size).
        """
        x, y, across, down = box
        side = max(round(max(across, down) * (1 + 2 * margin)), 1)
        left = round(x - self.start + across / 2 - side / 2)
        top = round(y + down / 2 - side / 2)
        seen = film[:, self.start : self.start + self.width]
        inner_left, inner_top = max(left, 0), max(top, 0)
        part = seen[inner_top : max(top + side, 0), inner_left : max(left + side, 0)]
        square = np.zeros((side, side), film.dtype)
        square[inner_top - top :, inner_left - left :][: part.shape[0], : part.shape[1]] = part
        return conform.conform(square, (size, size, 1))[..., 0]

    @property
    def _square(self):
        return max(self.height, self.width)

    @property
    def _border(self):
        return (self._square - self.width) // 2, (self._square - self.height) // 2


def both(film: np.ndarray) -> list[Half]:
    """Cuts a film of both knees; the patient's right is at the left of the picture.

    Args:
        film: decoded, (height, width) or (height, width, 3), bones bright.

    Returns:
        The right and the left half.
    """
    parts, _ = dicom_knees.halves(grey(film))
    (height, right), left = parts["R"].shape, parts["L"].shape[1]
    return [Half("right", 0, height, right), Half("left", right, height, left)]


def whole(film: np.ndarray, side: str) -> Half:
    """Takes a film of one knee as it is.

    Args:
        film: decoded, (height, width) or (height, width, 3).
        side: "right" or "left".
    """
    return Half(side, 0, *film.shape[:2])


def grey(film: np.ndarray) -> np.ndarray:
    """Makes a decoded film grey, (height, width)."""
    return cv2.cvtColor(film, cv2.COLOR_RGB2GRAY) if film.ndim == 3 else film


def overlap(one, other) -> np.ndarray:
    """Computes the intersection of boxes over their union (IoU).

    Args:
        one: boxes (..., 4) as `BOX`.
        other: the same.

    Returns:
        (...), 0..1; NaN where a box is unknown.
    """
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    low = np.maximum(one[..., :2] - one[..., 2:] / 2, other[..., :2] - other[..., 2:] / 2)
    high = np.minimum(one[..., :2] + one[..., 2:] / 2, other[..., :2] + other[..., 2:] / 2)
    both = np.prod(np.maximum(high - low, 0), axis=-1)
    return both / (np.prod(one[..., 2:], axis=-1) + np.prod(other[..., 2:], axis=-1) - both)
