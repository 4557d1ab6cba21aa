"""Exams of several volumes to batches: slices one after the other, and whose they are.

Exams differ in their number of slices. A batch holds the slices of all its exams without
padding, which would double the work, and beside them the number of the exam of each; what
depends on an exam then depends on nothing else in its batch.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from medkeras.errors import UsageError
from medkeras.preparation import cache, conform, pipeline
from medkeras.readers import tables

INDEX = "_exam"  # behind the name of a plane: the input that says whose its slices are


class Part(pipeline.Part):
    """One side of the split, its rows exams."""

    def inputs(self, rows, view: int | None = None) -> list[np.ndarray]:
        """Gathers what the model takes.

        Args:
            rows: positions in this part, (m,).
            view: number of the augmented view; None for the slices as stored.

        Returns:
            In the order of `data.planes` the slices of each plane, uint8 (slices of all m
            exams, height, width, 1), then in the same order the exam of each slice, int32
            (slices,), 0..m-1.
        """
        pixels = [self._pixels(plane, self.rows[rows], view) for plane in self.data.planes]
        return pixels + [self.given(rows, plane) for plane in self.data.planes]

    def given(self, rows, source: str) -> np.ndarray:
        """Says whose the slices of a batch are, 0..m-1, for a plane or the input named after it."""
        lengths = self.lengths(source)[rows]
        return np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)

    def _pixels(self, plane, exams, view):
        stored, augment = self.data.stored[plane], self.data.augment
        volumes = [stored.volume(exam) for exam in exams]
        if augment is not None and view is not None:
            volumes = [
                augment.apply(volume, plane, self.data.seed, view, int(exam))
                for volume, exam in zip(volumes, exams, strict=True)
            ]
        none = np.asarray(stored.pixels[:0])  # for a batch without exams
        return np.concatenate([none, *volumes])[..., None]

    def lengths(self, source: str) -> np.ndarray:
        """Counts how many entries of a model's input each exam has: its slices, int64 (n,)."""
        return self.data.stored[source.removesuffix(INDEX)].lengths[self.rows]

    def pictures(self, rows=slice(None)) -> np.ndarray:
        """Gathers the middle slice of the first plane: uint8 (n, height, width, 1), as stored."""
        stored = self.data.stored[self.data.planes[0]]
        middle = stored.starts[:-1] + stored.lengths // 2
        return np.asarray(stored.pixels[middle[self.rows[rows]]])[..., None]

    def volume(self, row: int, plane: str) -> np.ndarray:
        """Returns the slices of one exam as stored, uint8 (slices, height, width), read-only."""
        return self.data.stored[plane].volume(self.rows[row])


@dataclass(frozen=True)
class Data(pipeline.Data):
    """A split data set of exams, the slices of its planes stored.

    Args:
        table: one row an exam.
        stored: plane -> `cache.Slices`.
        augment: `augment.Exam` for the training part, or None.
        planes: names of the planes, in the order of the model's inputs.
        stretch: whether 8-bit volumes were spread over 0..255; see `conform.volume`.
    """

    planes: tuple = ()
    stretch: bool = False

    unit = "exam"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, 1) of a slice."""
        return (*self.stored[self.planes[0]].pixels.shape[1:], 1)

    @property
    def preprocessing(self) -> dict:
        """Says what was done to the pixels, for `predictor.json`."""
        return {**conform.volume_config(self.stretch), "planes": list(self.planes)}

    def key_of(self, source: str) -> str:
        """Names what is stored for one of the model's inputs: a plane, or whose its slices are."""
        return self.stored[source.removesuffix(INDEX)].key

    def _part(self, name):
        plain = super()._part(name)
        return Part(plain.name, plain.rows, self)


def volumes(
    table,
    image_shape,
    batch_size,
    *,
    planes=None,
    findings=(),
    stretch=False,
    augment=None,
    views=None,
    seed=0,
    workers=2,
    progress=None,
) -> Data:
    """Stores the volumes of a split table of exams and makes its three parts.

    Args:
        table: from `splits.by_patient`, with one column of files a plane; either of one class a
            row (see `tables.single`), or of several findings.
        image_shape: (height, width, 1) of a slice, height and width equal.
        batch_size: exams a training step.
        planes: those to read, in the order of the model's inputs; None for all of the table.
        findings: label columns to be told at once; () for one class a row.
        stretch: spread the grey values of each 8-bit volume over 0..255; those of others are.
        augment: from `augment.knee_mri`, applied to the training part only; None for none.
        views: as in `pipeline.images`.
        seed: of the augmentation.
        workers: training batches made at the same time.
        progress: called with volumes stored and in all, or None.

    Returns:
        The data set.

    Raises:
        UsageError: slices that are not square and grey, or columns that the table lacks.
    """
    planes, findings = tuple(planes or tables.files(table)), tuple(findings)
    _refuse(table, image_shape, planes, findings)
    table = table.reset_index(drop=True)
    stored = {}
    for place, plane in enumerate(planes):

        def shown(done, total, place=place):
            if progress:
                progress(place * total + done, len(planes) * total)

        stored[plane] = cache.volumes(table, plane, image_shape[0], stretch, shown)
    key = hashlib.sha256(json.dumps([(p, stored[p].key) for p in planes]).encode()).hexdigest()
    return Data(
        table,
        stored,
        key[:40],
        batch_size,
        augment,
        1 if augment is None else views,
        seed,
        workers,
        findings=findings,
        planes=planes,
        stretch=stretch,
    )


def _refuse(table, image_shape, planes, findings):
    if len(image_shape) != 3 or image_shape[0] != image_shape[1] or image_shape[2] != 1:
        raise UsageError(f"image_shape {image_shape}: slices are (size, size, 1), square and grey")
    known = tables.files(table)
    for plane in planes:
        if plane not in known:
            raise UsageError(f"no plane {plane!r} in the table; it has {', '.join(known)}")
    known = tables.labels(table)
    for finding in findings:
        if finding not in known:
            raise UsageError(f"no finding {finding!r} in the table; it has {', '.join(known)}")
    if not findings and "label" not in table:
        raise UsageError(
            f"rows have findings ({', '.join(known)}), not classes: name them as `findings`, or "
            "choose one with `tables.single`"
        )
