"""Knees and the boxes of their joints, to batches.

Pictures and boxes of the training part are moved together. Some pictures are replaced by ones
without a joint (see `jointless`), whose box is NaN.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from medkeras.preparation import cutting, halves, jointless, pipeline
from medkeras.preparation.augment import Affine


@dataclass(frozen=True)
class Moves(Affine):
    """Random moves of knees, and how many are replaced by pictures without a joint.

    Args:
        jointless: share of the pictures that are replaced, 0..1.
    """

    jointless: float = 0.0

    def drawn(self, seed: int, view: int, row: int) -> tuple:
        """Draws what becomes of a picture, a pure function of its number.

        Returns:
            (ten numbers in -1..1 for `matrix`, a kind of `jointless` or None, a generator).
        """
        rng = np.random.default_rng((seed, view, row))
        draw, replaced = rng.uniform(-1, 1, size=10), rng.random() < self.jointless
        return draw, str(rng.choice(list(jointless.KINDS))) if replaced else None, rng


def moves(rotation=5.0, shift=0.08, zoom=0.15, brightness=(0.7, 1.3), jointless=0.25) -> Moves:
    """Builds the augmentation of knees: how legs and exposures differ.

    Args:
        rotation: degrees, either way.
        shift: share of width and of height, either way.
        zoom: largest relative change of size, either way.
        brightness: (lowest, highest) factor on the grey values.
        jointless: see `Moves`.
    """
    given = {"shift": shift, "zoom": zoom, "brightness": tuple(brightness)}
    return Moves(rotation, jointless=jointless, **given)


def moved(boxes, matrix, height: int, width: int) -> np.ndarray:
    """Moves boxes with their picture.

    The centre goes where its pixel goes. The size follows zoom alone: an upright box around a
    joint that is turned by a few degrees is as large as before.

    Args:
        boxes: (..., 4) as `halves.BOX`.
        matrix: (2, 3) from source to target pixels, as `Affine.matrix`.
        height: of the picture, pixels.
        width: of the picture, pixels.

    Returns:
        float32 of the shape of `boxes`.
    """
    size = np.array([width, height])
    # Pixel centres lie at whole numbers.
    centres = boxes[..., :2] * size - 0.5
    centres = (centres @ matrix[:, :2].T + matrix[:, 2] + 0.5) / size
    sizes = boxes[..., 2:] * np.linalg.norm(matrix[:, :2], axis=0)
    return np.concatenate([centres, sizes], axis=-1).astype(np.float32)


class Part(pipeline.Part):
    """One side of the split, its rows knees."""

    @cached_property
    def labels(self) -> np.ndarray:
        """The boxes as stored, float32 (n, 4), see `halves.BOX`."""
        return self.table[list(halves.BOX)].to_numpy(np.float32)

    def targets(self, rows=slice(None), epoch: int = 0) -> np.ndarray:
        """Returns the boxes as an epoch shows them.

        Args:
            rows: positions in this part, (m,).
            epoch: number of the epoch.

        Returns:
            float32 (m, 4), NaN where the picture has no joint.
        """
        data, found = self.data, self.labels[rows].copy()
        if self.name != "train" or data.augment is None:
            return found
        view = epoch if data.views is None else epoch % data.views
        height, width, _ = data.image_shape
        for place, row in enumerate(self.rows[rows]):
            draw, kind, _ = data.augment.drawn(data.seed, view, int(row))
            matrix = data.augment.matrix(draw, height, width)
            found[place] = np.nan if kind else moved(found[place], matrix, height, width)
        return found

    def inputs(self, rows, view: int | None = None) -> list[np.ndarray]:
        """Gathers what the model takes.

        Args:
            rows: positions in this part, (m,).
            view: number of the augmented view; None for the pictures as stored.

        Returns:
            One array, uint8 (m, height, width, 1).
        """
        data, gathered = self.data, self.pictures(rows)
        if data.augment is None or view is None:
            return [gathered]
        shown = []
        for picture, box, row in zip(gathered, self.labels[rows], self.rows[rows], strict=True):
            draw, kind, rng = data.augment.drawn(data.seed, view, int(row))
            if kind:
                picture = jointless.made(kind, picture, box, rng)
            shown.append(data.augment.moved(picture[None], draw)[0])
        return [np.stack(shown)]


@dataclass(frozen=True)
class Data(pipeline.Data):
    """A split data set of knees with the boxes of their joints.

    Args:
        table: one row a knee, from `cutting.knees`.
        augment: `Moves` for the training part, or None.
    """

    unit = "knee"
    task = "location"
    classes = halves.BOX

    @property
    def preprocessing(self) -> dict:
        """What was done to the pixels, for `predictor.json`."""
        return dict(halves.CONFIG)

    def without_test(self) -> "Data":
        """Returns the same data with the test part out of reach, for selection."""
        table = self.table.copy()
        table.loc[table["split"] == "test", list(halves.BOX)] = np.nan
        return replace(self, table=table, hidden=("test",))

    def _part(self, name):
        plain = super()._part(name)
        return Part(plain.name, plain.rows, self)


def films(table, image_shape, batch_size, *, augment=None, seed=0, workers=2, progress=None):
    """Cuts the films of a split table and makes its three parts.

    Args:
        table: one row a film, from `readers.films` and `splits.by_patient`.
        image_shape: (height, width, 1) of what the model sees of a knee.
        batch_size: knees a training step.
        augment: from `moves`, applied to the training part only, anew each epoch; or None.
        seed: of the augmentation.
        workers: training batches made at the same time.
        progress: called with films cut and in all, or None.

    Returns:
        `Data`.

    Raises:
        DataError: see `cutting.knees`.
    """
    knees, stored, key = cutting.knees(table, image_shape, progress)
    views = 1 if augment is None else None
    return Data(knees, stored, key, batch_size, augment, views, seed, workers)
