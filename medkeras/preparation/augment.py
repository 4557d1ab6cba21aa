"""Augmentation: one composed affine on one uint8 picture, a pure function of its number.

A picture's transform depends on (seed, view, index) alone, so that every run, resume
and cached feature sees the same pictures. All moves are composed into one matrix and
the picture is sampled once, which is faster and blurs less than one pass a move.
"""

from dataclasses import asdict, dataclass

import cv2
import numpy as np

_BORDERS = {"nearest": cv2.BORDER_REPLICATE, "constant": cv2.BORDER_CONSTANT}


@dataclass(frozen=True)
class Affine:
    """Random moves of a picture, each drawn uniformly from its range.

    Args:
        rotation: largest rotation in degrees, either way.
        flip_horizontal: mirror left and right in half of the draws.
        flip_vertical: mirror top and bottom in half of the draws.
        shear: largest shear in degrees, either way.
        zoom: largest relative change of size, either way: 0.2 gives 0.8..1.2.
        shift: largest shift as a share of width and of height, either way.
        brightness: (lowest, highest) factor on the grey values.
        fill: what lies beyond the border: "nearest" pixel or "constant" 0.
    """

    rotation: float = 0.0
    flip_horizontal: bool = False
    flip_vertical: bool = False
    shear: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    brightness: tuple[float, float] = (1.0, 1.0)
    fill: str = "nearest"

    def config(self) -> dict:
        """Returns the settings as JSON values."""
        return {**asdict(self), "brightness": list(self.brightness)}

    def apply(self, picture: np.ndarray, seed: int, view: int, index: int) -> np.ndarray:
        """Moves one picture.

        Args:
            picture: uint8 (height, width, channels).
            seed: of the run, >= 0.
            view: number of the view, >= 0.
            index: row of the picture in the table, >= 0.

        Returns:
            uint8 array of the same shape.
        """
        draw = np.random.default_rng((seed, view, index)).uniform(-1, 1, size=8)
        height, width = picture.shape[:2]
        moved = cv2.warpAffine(
            picture,
            self.matrix(draw, height, width),
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=_BORDERS[self.fill],
        )
        if self.brightness != (1.0, 1.0):
            low, high = self.brightness
            factor = low + (high - low) * (draw[7] + 1) / 2
            levels = np.clip(np.arange(256) * factor, 0, 255).astype(np.uint8)
            moved = cv2.LUT(moved, levels)
        return moved.reshape(picture.shape)

    def matrix(self, draw: np.ndarray, height: int, width: int) -> np.ndarray:
        """Composes the moves about the centre of the picture.

        Args:
            draw: seven or more numbers in -1..1.
            height: of the picture, pixels.
            width: of the picture, pixels.

        Returns:
            (2, 3) matrix from source to target pixels.
        """
        angle, shear = np.deg2rad(self.rotation * draw[0]), np.deg2rad(self.shear * draw[1])
        zoom = 1 + self.zoom * draw[2]
        mirror_x = -1 if self.flip_horizontal and draw[3] < 0 else 1
        mirror_y = -1 if self.flip_vertical and draw[4] < 0 else 1
        rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        skew = np.array([[1, -np.sin(shear)], [0, np.cos(shear)]])
        linear = rotate @ skew @ np.diag([zoom * mirror_x, zoom * mirror_y])
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        shift = self.shift * draw[5:7] * (width, height)
        return np.column_stack([linear, centre + shift - linear @ centre])


def radiograph(
    rotation=30.0,
    flip_horizontal=True,
    flip_vertical=True,
    *,
    shear=0.0,
    zoom=0.0,
    shift=0.0,
    brightness=(1.0, 1.0),
    fill="nearest",
) -> Affine:
    """Builds the augmentation for bone radiographs.

    A limb is filmed at any angle and from either side, so rotation and both flips keep
    the label. The other moves exist and are off: shear and zoom change the angle and
    the gap of a fracture, which is what is to be judged; shifts push a fracture near
    the border out of the picture; brightness is exposure, and the batch norms and the
    grey-value spread of real films already cover it.

    Args:
        rotation: degrees, either way.
        flip_horizontal: see `Affine`.
        flip_vertical: see `Affine`.
        shear: see `Affine`.
        zoom: see `Affine`.
        shift: see `Affine`.
        brightness: see `Affine`.
        fill: see `Affine`.
    """
    return Affine(
        rotation, flip_horizontal, flip_vertical, shear, zoom, shift, tuple(brightness), fill
    )
