"""Opens every picture once before training starts, and lists all that is wrong with them."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import pandas as pd
import PIL

from medkeras.errors import DataError, Problem
from medkeras.files import atomic, decode
from medkeras.files.places import cache_folder

# Train, validation and test each need one.
PATIENTS_PER_CLASS = 3
# Verdicts of another decoder are not believed; raise the number when a rule of decode changes.
DECODER = f"1-pillow-{PIL.__version__}"


def checked(table: pd.DataFrame, skip_bad: bool = False, progress=None) -> pd.DataFrame:
    """Checks the pictures of a table.

    Each picture is decoded in full, because a truncated one opens without complaint. The
    verdict is kept by the content of the file, so a second check only reads the bytes.

    Args:
        table: rows with `image`, `path`, `patient` and `class`, from a reader.
        skip_bad: leave the broken pictures out instead of raising an error for them. Faults
            of a whole class still raise.
        progress: function of (pictures done, pictures in all), called after each, or None.

    Returns:
        A copy of the table, rows in the same order, with `sha256` of the file, `height` and
        `width` (of the upright picture). `attrs["skipped"]` lists the pictures left out,
        `attrs["notes"]` gains what a fixed rule changed, both as dicts of a `Problem`.

    Raises:
        DataError: all problems at once, those of whole classes first.
    """
    memory = _Memory()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        verdicts = []
        for verdict in pool.map(lambda image: _verdict(image, memory), table["image"]):
            verdicts.append(verdict)
            if progress:
                progress(len(verdicts), len(table))
    memory.save()

    result = table.copy()
    for column in ("sha256", "height", "width"):
        result[column] = [verdict.get(column) for verdict in verdicts]
    bad, notes = _per_picture(result, verdicts)
    broken = result["path"].isin({problem.path for problem in bad})
    kept = result[~broken].astype({"height": "int64", "width": "int64"}).reset_index(drop=True)
    whole = _per_class(table, kept)
    if whole or (bad and not skip_bad):
        raise DataError([*whole, *bad])
    kept.attrs = dict(table.attrs)
    kept.attrs["skipped"] = [problem.as_dict() for problem in bad]
    kept.attrs["notes"] = [*table.attrs.get("notes", []), *(note.as_dict() for note in notes)]
    return kept


def _verdict(image, memory):
    try:
        data = decode.read_bytes(image)
    except decode.Unreadable as fault:
        return {"sha256": None, "reason": fault.reason, "remedy": fault.remedy}
    suffix = PurePosixPath(image).suffix.lower()
    sha256 = hashlib.sha256(data).hexdigest()
    key = sha256 + suffix
    verdict = memory.get(key)
    if verdict is None:
        verdict = _decoded(data, suffix)
        memory.put(key, verdict)
    return {"sha256": sha256, **verdict}


def _decoded(data, suffix):
    try:
        picture = decode.decode(data, suffix)
    except decode.Unreadable as fault:
        return {"reason": fault.reason, "remedy": fault.remedy}
    height, width = picture.pixels.shape[:2]
    deep = picture.pixels.dtype.itemsize > 1
    return {"height": height, "width": width, "deep": deep, "notes": list(picture.notes)}


def _per_picture(table, verdicts):
    bad, notes = [], []
    depths = {verdict["deep"] for verdict in verdicts if "deep" in verdict}
    for path, verdict in zip(table["path"], verdicts, strict=True):
        if "reason" in verdict:
            bad.append(Problem(path, verdict["reason"], verdict["remedy"]))
        elif verdict["deep"] and len(depths) > 1:
            bad.append(
                Problem(
                    path,
                    "is a 16-bit picture among 8-bit ones, so its grey values mean another scale",
                    "convert it to 8 bit as the others were",
                )
            )
        else:
            notes += [Problem(path, note, "", "note") for note in verdict["notes"]]

    # The same bytes under two classes: one of the labels is wrong, and nobody knows which.
    broken = {problem.path for problem in bad}
    sound = table[~table["path"].isin(broken)]
    for _, rows in sound.groupby("sha256", sort=False):
        first = rows.drop_duplicates("class")
        if len(first) < 2:
            continue
        for path, name in zip(rows["path"], rows["class"], strict=True):
            other = first[first["class"] != name].iloc[0]
            bad.append(
                Problem(
                    path,
                    f"is {name}, but the identical file {other['path']} is {other['class']}",
                    "keep the one with the right class",
                )
            )
    return bad, notes


def _per_class(table, kept):
    before = table.groupby("class", sort=False)
    problems = []
    for name, rows in before:
        left = kept[kept["class"] == name]
        patients = left["patient"].nunique()
        if patients >= PATIENTS_PER_CLASS:
            continue
        broken = len(rows) - len(left)
        without = f" ({broken} of its {len(rows)} pictures are broken)" if broken else ""
        problems.append(
            Problem(
                name,
                f"is a class with {patients} {'patient' if patients == 1 else 'patients'} in "
                f"{len(left)} pictures{without}, expected at least {PATIENTS_PER_CLASS}: "
                "one each to train, validate and test",
                "add pictures of other patients, or remove the class",
            )
        )
    return problems


class _Memory:
    """Verdicts by content, kept between runs in the cache folder, which may be lost any time."""

    def __init__(self):
        self._file = cache_folder() / "verdicts" / f"{DECODER}.json"
        self._new = {}
        self._known = self._stored()

    def get(self, key):
        verdict = self._known.get(key)
        return verdict if _is_verdict(verdict) else None

    def put(self, key, verdict):
        self._new[key] = verdict

    def save(self):
        if not self._new:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # Read again: another run may have stored its own meanwhile.
            atomic.write_json(self._file, {**self._stored(), **self._new})
        except OSError:
            pass  # a full or read-only cache costs time, not the run

    def _stored(self):
        try:
            stored = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stored if isinstance(stored, dict) else {}


def _is_verdict(verdict):
    return isinstance(verdict, dict) and (
        {"reason", "remedy"} <= verdict.keys()
        or {"height", "width", "deep", "notes"} <= verdict.keys()
    )
