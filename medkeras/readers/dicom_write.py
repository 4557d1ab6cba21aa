"""Writes films as PNG and volumes as npy, and the row that describes each."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from medkeras.errors import Problem
from medkeras.files import atomic, grey
from medkeras.readers import dicom_knees, dicom_survey

COLUMNS = (
    *("path", "patient", "study", "series", "modality", "body_part", "side", "view", "plane"),
    *("sex", "age", "slices", "rows", "columns", "row_spacing", "column_spacing"),
    *("slice_spacing", "slice_thickness", "kvp", "magnetic_field_strength", "repetition_time"),
    *("echo_time", "photometric", "inverted", "bits_stored", "bits", "voi", "window_center"),
    *("window_width", "burned_in", "notes"),
)


def table(rows: list[dict]) -> pd.DataFrame:
    """Puts the rows of a `Writer` into a table with the columns `COLUMNS`."""
    made = pd.DataFrame(rows, columns=list(COLUMNS))
    # Whole numbers stay whole beside the unknown.
    return made.astype({"age": "Int64", "slices": "Int64"})


class Writer:
    """Decodes and writes one task after the other, from several threads.

    Args:
        source: the folder with the files.
        folder: the folder to write below.
        options: of `medkeras.files.dicom.task`.
        knees: one of `dicom_knees.MODES`.
    """

    def __init__(self, source: Path, folder: Path, options: dict, knees: str):
        self.source, self.folder, self.options, self.knees = source, folder, options, knees

    def __call__(self, task: dicom_survey.Task) -> tuple[list[dict], list[Problem]]:
        results = [
            dicom_survey.read(self.source, path, self.options, pixels=True) for path in task.paths
        ]
        problems = [found for found, _ in results if isinstance(found, Problem)]
        if problems:
            damaged = {problem.path for problem in problems}
            problems += [
                Problem(path, "belongs to a volume with a damaged slice", "replace that slice")
                for path in task.paths
                if path not in damaged
            ]
            return [], problems
        facts = [found for found, _ in results]
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
        elif tags["body_part"] == "KNEE" and not tags["side"]:
            notes.append("a knee without side")
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
        if np.isnan(values).all():
            return (
                voi,
                grey.between(*limits),
                grey.rendered(values, grey.between(*limits), bits=bits),
            )
        if voi == "none":
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
