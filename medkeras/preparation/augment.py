"""Augmentation: one composed affine on one uint8 picture, a pure function of its number.

A picture's transform depends on (seed, view, index) alone, so that every run, resume
and cached feature sees the same pictures. All moves are composed into one matrix and
the picture is sampled once, which is faster and blurs less than one pass a move. The
slices of an exam's plane are moved alike: they stay a volume.
"""

import zlib
from dataclasses import asdict, dataclass, replace

import cv2
import numpy as np

_BORDERS = {"nearest": cv2.BORDER_REPLICATE, "constant": cv2.BORDER_CONSTANT}
_MIRROR = 3  # which number of a draw decides on `flip_horizontal`


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
        stretch: (lowest, highest) factor of the width, and one drawn anew of the height.
        erase: longest side of a rectangle, as a share of the picture's, that is painted over with
            the mean grey value in half of the draws; its shortest is a third of that (random
            erasing, Zhong et al., arXiv 1708.04896).
    """

    rotation: float = 0.0
    flip_horizontal: bool = False
    flip_vertical: bool = False
    shear: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    brightness: tuple[float, float] = (1.0, 1.0)
    fill: str = "nearest"
    stretch: tuple[float, float] = (1.0, 1.0)
    erase: float = 0.0

    def config(self) -> dict:
        """Returns the settings as JSON values."""
        found = {**asdict(self), "brightness": list(self.brightness)}
        later = {"stretch": list(found.pop("stretch")), "erase": found.pop("erase")}
        # Left out where they are off, so that features stored before they existed are found.
        off = {"stretch": [1.0, 1.0], "erase": 0.0}
        return found | {name: value for name, value in later.items() if value != off[name]}

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
        return self.moved(picture[None], _drawn(seed, view, index))[0]

    def moved(self, pictures: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """Moves pictures, all of them alike.

        Args:
            pictures: uint8 (n, height, width) or (n, height, width, channels).
            draw: fifteen numbers in -1..1; ten where nothing is erased.

        Returns:
            uint8 array of the same shape.
        """
        height, width = pictures.shape[1:3]
        matrix = self.matrix(draw, height, width)
        how = {"flags": cv2.INTER_LINEAR, "borderMode": _BORDERS[self.fill]}
        result = np.empty(pictures.shape, np.uint8)
        for target, one in zip(result, pictures, strict=True):
            cv2.warpAffine(one, matrix, (width, height), dst=target, **how)
        if self.brightness != (1.0, 1.0):
            low, high = self.brightness
            factor = low + (high - low) * (draw[7] + 1) / 2
            levels = np.clip(np.arange(256) * factor, 0, 255).astype(np.uint8)
            result = cv2.LUT(result.reshape(len(result) * height, -1), levels)
        result = result.reshape(pictures.shape)
        if self.erase and draw[10] < 0:
            self._erase(result, (draw[11:] + 1) / 2)
        return result

    def _erase(self, pictures, share):
        """Paints a rectangle over, in place; its sides and its corner are `share` (4,) in 0..1."""
        size = np.array(pictures.shape[1:3])
        high, wide = (size * self.erase * (1 + 2 * share[:2]) / 3).astype(int)
        top, left = ((size - (high, wide)) * share[2:]).astype(int)
        grey = pictures.mean((1, 2)).astype(np.uint8)
        pictures[:, top : top + high, left : left + wide] = grey[:, None, None]

    def matrix(self, draw: np.ndarray, height: int, width: int) -> np.ndarray:
        """Composes the moves about the centre of the picture.

        Args:
            draw: numbers in -1..1: seven, or ten where there is `stretch`.
            height: of the picture, pixels.
            width: of the picture, pixels.

        Returns:
            (2, 3) matrix from source to target pixels.
        """
        angle, shear = np.deg2rad(self.rotation * draw[0]), np.deg2rad(self.shear * draw[1])
        zoom = np.full(2, 1 + self.zoom * draw[2])
        if self.stretch != (1.0, 1.0):
            low, high = self.stretch
            zoom *= low + (high - low) * (draw[8:10] + 1) / 2
        mirror_x = -1 if self.flip_horizontal and draw[_MIRROR] < 0 else 1
        mirror_y = -1 if self.flip_vertical and draw[4] < 0 else 1
        rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        skew = np.array([[1, -np.sin(shear)], [0, np.cos(shear)]])
        linear = rotate @ skew @ np.diag(zoom * (mirror_x, mirror_y))
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        shift = self.shift * draw[5:7] * (width, height)
        return np.column_stack([linear, centre + shift - linear @ centre])


@dataclass(frozen=True)
class Exam:
    """Random moves of an exam's volumes: the slices of a plane are moved alike.

    Args:
        moves: drawn once for each exam and plane, but for its `flip_horizontal`.
        mirror: take the knee for one of the other side in half of the draws, one draw for all
            planes. Axial and coronal slices are mirrored left to right; sagittal ones would
            only come in the opposite order, which pooling over slices does not see.
        per_slice: draw everything anew for each slice, which tears the volume apart.
        flip_sagittal: mirror sagittal slices too, front to back, which no knee does.
    """

    moves: Affine
    mirror: bool = True
    per_slice: bool = False
    flip_sagittal: bool = False

    def config(self) -> dict:
        """Returns the settings as JSON values."""
        return {**asdict(self), "moves": self.moves.config()}

    def apply(self, volume: np.ndarray, plane: str, seed: int, view: int, index: int) -> np.ndarray:
        """Moves the slices of one exam and plane.

        Args:
            volume: uint8 (slices, height, width).
            plane: its name, such as "sagittal".
            seed: of the run, >= 0.
            view: number of the view, >= 0.
            index: row of the exam in the table, >= 0.

        Returns:
            uint8 array of the same shape.
        """
        flips = self.mirror and (self.flip_sagittal or plane != "sagittal")
        moves = replace(self.moves, flip_horizontal=flips)
        # Any name has a number, and the same one in every process.
        numbers = (seed, view, index, zlib.crc32(plane.encode()))
        if self.per_slice:
            slices = [
                moves.moved(one[None], _drawn(*numbers, number))
                for number, one in enumerate(volume)
            ]
            return np.concatenate(slices)
        draw = _drawn(*numbers)
        draw[_MIRROR] = _drawn(seed, view, index)[_MIRROR]
        return moves.moved(volume, draw)


def _drawn(*numbers):
    # New moves take further numbers: the first stay what they are, and so do old views.
    return np.random.default_rng(numbers).uniform(-1, 1, size=15)


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


def chest(rotation=7.0, zoom=0.07, shift=0.07, *, flip_horizontal=False) -> Affine:
    """Builds the augmentation for frontal chest radiographs.

    A published study on CheXpert turned by up to 7 degrees, cut 224 of 256 pixels at random and
    mirrored half of the pictures. The cut showed the chest larger in training than in validation;
    here it varies by as much about the same size. Mirrored, the heart lies on the right, which is
    a finding of its own, so the flip is off.

    Args:
        rotation: degrees, either way.
        zoom: see `Affine`.
        shift: share of width and of height, either way.
        flip_horizontal: see `Affine`.
    """
    return Affine(rotation, flip_horizontal, zoom=zoom, shift=shift)


def knee(
    rotation=5.0, zoom=0.05, shift=0.05, *, brightness=(1.0, 1.0), flip_horizontal=True, erase=0.0
) -> Affine:
    """Builds the augmentation for frontal radiographs of single knees.

    A published study turned by up to 5 degrees. A mirrored left knee is a right one, and grade and
    joint space loss ask for neither side; a knee is never upside down. Zoom and shift stay within
    what a crop around the joint leaves open.

    Args:
        rotation: degrees, either way.
        zoom: see `Affine`.
        shift: share of width and of height, either way.
        brightness: see `Affine`; films are exposed differently.
        flip_horizontal: see `Affine`; off where left knees were mirrored before.
        erase: see `Affine`; a grade is seen in several places, at both edges of the joint.
    """
    moves = {"zoom": zoom, "shift": shift, "brightness": brightness, "erase": erase}
    return Affine(rotation, flip_horizontal, **moves)


def knee_mri(
    rotation=10.0,
    shift=0.11,
    stretch=(1.0, 1.2),
    mirror=True,
    per_slice=False,
    *,
    flip_sagittal=False,
    fill="constant",
) -> Exam:
    """Builds the augmentation for knee MRI exams of several planes.

    The ranges are those of a published network of three AlexNets on MRNet: turned by up to
    10 degrees, shifted by up to 11 %, magnified by up to 1.2 in width and height apart,
    mirrored in half of the cases, black beyond the border. A knee lies so or so in the coil,
    knees differ in size and proportions, and a mirrored left knee is a right one. Grey values
    stay: the bright fluid is what is looked for.

    There every slice drew its own moves (`per_slice=True`, `flip_sagittal=True` gives just
    that). So neighbours no longer fitted together, sagittal knees bent backwards, and one
    exam was seen from both sides at once. Here an exam is drawn once for each plane: planes
    are scanned one after the other, and the patient moves in between.

    Args:
        rotation: degrees, either way.
        shift: share of width and of height, either way.
        stretch: (lowest, highest) factor of width and of height.
        mirror: see `Exam`.
        per_slice: see `Exam`.
        flip_sagittal: see `Exam`.
        fill: see `Affine`.
    """
    moves = Affine(rotation=rotation, shift=shift, stretch=tuple(stretch), fill=fill)
    return Exam(moves, mirror, per_slice, flip_sagittal)
