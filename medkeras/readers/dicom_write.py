"""Writes films as PNG and volumes as npy, the row that describes each, and the folder at once."""

import os
import secrets
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from medkeras.errors import Problem
from medkeras.files import atomic, dicom_tags, grey
from medkeras.readers import dicom_knees, dicom_survey

COLUMNS = (
    *("path", "patient", "study", "series", "modality", "body_part", "side", "view", "plane"),
    *("intent", "sex", "age", "slices", "rows", "columns", "row_spacing", "column_spacing"),
    *("slice_spacing", "slice_thickness", "kvp", "magnetic_field_strength", "repetition_time"),
    *("echo_time", "photometric", "inverted", "bits_stored", "bits", "voi", "window_center"),
    *("window_width", "burned_in", "notes"),
)


def table(rows: list[dict]) -> pd.DataFrame:
    """Puts the rows of a `Writer` into a table with the columns `COLUMNS`."""
    made = pd.DataFrame(rows, columns=list(COLUMNS))
    # Whole numbers stay whole beside the unknown.
    return made.astype({"age": "Int64", "slices": "Int64"})


def refused(problems: list[Problem], key: bytes) -> pd.DataFrame:
    """Puts problems into a table sorted by `file`, a keyed hash: a name may hold a patient's."""
    rows = [
        (dicom_tags.keyed(key, "file", p.path), p.severity, p.reason, p.remedy) for p in problems
    ]
    made = pd.DataFrame(rows, columns=["file", "severity", "reason", "remedy"])
    return made.sort_values("file", ignore_index=True)


@contextmanager
def complete(out: Path, wanted):
    """Yields a folder whose content stands in `out` when the block ends without an error.

    It lies beside `out`, or in it where it exists: that may be a mount point, which nothing can
    take the place of. Whoever writes into it must have ended with the block.

    Args:
        out: the folder to write, resolved; absent or empty.
        wanted: function that says at the end whether there is anything to keep.

    Yields:
        Path of the folder.
    """
    there = out.exists()
    name = f".{secrets.token_hex(6)}.tmp"
    unfinished = out / name if there else out.with_name(f".{out.name}{name}")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        if wanted():
            if there:
                _move(unfinished, out)
            else:
                os.replace(unfinished, out)
            atomic.sync_folder(out if there else out.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move(folder, out):
    # The table last: where it is, everything is.
    names = sorted(os.listdir(folder), key=lambda name: name == "images.csv")
    try:
        for name in names:
            os.rename(folder / name, out / name)
    except BaseException:
        for name in names:
            if not (folder / name).exists():
                os.rename(out / name, folder / name)
        raise


class Writer:
    """Decodes and writes one task after the other, from several threads.

    Args:
        source: the folder with the files.
        folder: the folder to write below.
        options: of `medkeras.files.dicom.task`.
        knees: one of `dicom_knees.MODES`.
        stopping: once set, nothing more is decoded, and a task begun gives nothing.
    """

    def __init__(
        self, source: Path, folder: Path, options: dict, knees: str, stopping: threading.Event
    ):
        self.source, self.folder, self.options, self.knees = source, folder, options, knees
        self.stopping = stopping

    def __call__(self, task: dicom_survey.Task) -> tuple[list[dict], list[Problem]]:
        try:
            return self._written(task)
        except MemoryError:
            return [], dicom_survey.same_problem(
                task.paths, "needs more memory than there is", "close other programs"
            )

    def _written(self, task):
        results = []
        for path in task.paths:
            if self.stopping.is_set():
                return [], []
            results.append(dicom_survey.read(self.source, path, self.options, pixels=True))
        problems = [found for found, _ in results if isinstance(found, Problem)]
        if problems:
            damaged = {problem.path for problem in problems}
            problems += dicom_survey.same_problem(
                [path for path in task.paths if path not in damaged],
                "belongs to a volume with a damaged slice",
                "replace that slice",
            )
            return [], problems
        facts = [{**found, "notes": [*found["notes"], *task.notes]} for found, _ in results]
        arrays = [arrays[0] for _, arrays in results]
        if task.volume:
            return [self._volume(task, facts, arrays)], []
        return self._film(task, facts[0], arrays[0]), []

    def _film(self, task, facts, pixels):
        tags, notes = facts["tags"], list(facts["notes"])
        parts = {tags["side"]: pixels}
        cut = dicom_knees.both(tags, pixels.shape, self.knees)
        if cut:
            parts, more = dicom_knees.halves(pixels, tags["orientation"])
            notes += more
        else:
            notes += dicom_knees.uncut(tags, pixels.shape)
        rows = []
        for side, part in parts.items():
            path = f"{task.name}_{side}.png" if cut else f"{task.name}.png"
            with self._open(path) as file:
                Image.fromarray(part).save(file, "PNG")
            row = self._row(path, facts, part.shape, facts["voi"], facts["window"], notes)
            rows.append({**row, "side": side})
        return rows

    def _volume(self, task, facts, arrays):
        values = np.concatenate(arrays)
        frames = [window for fact in facts for window in fact["windows"]]
        if len(facts) == 1:
            values = values[task.volume.slices]
        notes = [*task.volume.notes, *dict.fromkeys(n for fact in facts for n in fact["notes"])]
        limits = np.array([fact["limits"] for fact in facts])
        voi, window, pixels = self._windowed(
            values, frames, [limits.min(), limits.max()], facts[0]["inverted"], notes
        )
        path = f"{task.name}.npy"
        with self._open(path) as file:
            np.save(file, pixels, allow_pickle=False)
        row = self._row(path, facts[0], pixels.shape[1:], voi, window, notes)
        return {
            **row,
            "slices": len(pixels),
            "plane": task.volume.plane,
            "slice_spacing": task.volume.spacing,
        }

    def _windowed(self, values, windows, limits, inverted, notes):
        voi, bits = self.options["voi"], self.options["bits"]
        if voi == "none" or np.isnan(values).all():
            window = grey.between(*limits)
            return voi, window, grey.rendered(values, window, bits=bits, inverted=inverted)
        if voi == "first":
            functions = {window[0] if window else None for window in windows}
            if len(functions) == 1 and None not in functions:
                window = (windows[0][0], *np.median([w[1:] for w in windows], axis=0).tolist())
                pixels = grey.rendered(values, window, bits=bits, inverted=inverted)
                if not grey.shows_nothing(values, pixels):
                    if any(other != windows[0] for other in windows):
                        notes.append("the slices' windows differ, their median used")
                    return window[0].lower(), window, pixels
            notes.append("no usable window for all slices, percentiles used")
        window = grey.by_percentile(values)
        pixels = grey.rendered(values, window, bits=bits, inverted=inverted)
        return "percentile", window, pixels

    @contextmanager
    def _open(self, path):
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic.writing(target) as temporary, open(temporary, "wb") as file:
            yield file

    def _row(self, path, facts, shape, voi, window, notes):
        tags = facts["tags"]
        spacing = tags["pixel_spacing"] or (None, None)
        row = {name: tags[name] for name in COLUMNS if name in tags}
        row |= {name: facts["ids"][name] for name in ("patient", "study", "series")}
        row.update(
            path=path,
            slices=1,
            rows=shape[0],
            columns=shape[1],
            row_spacing=spacing[0],
            column_spacing=spacing[1],
            inverted=facts["inverted"],
            bits_stored=facts["bits_stored"],
            bits=self.options["bits"],
            voi=voi,
            window_center=window[1],
            window_width=window[2],
            side="" if tags["side"] == "B" else tags["side"],
            notes="; ".join(notes),
        )
        return row
