"""What lies in a folder of DICOM files: every header read, copies found, the work planned."""

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from medkeras.errors import Problem
from medkeras.files import child, decode
from medkeras.files.foreign import MAX_BYTES
from medkeras.files.volume import MAX_SLICES, MIN_SLICES
from medkeras.readers import dicom_series, listing

# A patient with more than these is noted.
MAX_STUDIES = 20


@dataclass
class Import:
    """What became of every file.

    Args:
        images: one row per picture or volume, columns `dicom_write.COLUMNS`.
        problems: one per file that was not imported; severity "error" for a damaged or refused
            picture, "note" for what is no picture, or a copy.
        written: for each imported file (relative to IN) the paths in OUT that show it.
        copies: for each copy the path of the file that was imported instead.
        directories: number of DICOMDIR files.
        hidden: number of hidden entries left out.
    """

    images: pd.DataFrame = None
    problems: list[Problem] = field(default_factory=list)
    written: dict[str, list[str]] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    directories: int = 0
    hidden: int = 0


@dataclass
class Task:
    """One film or volume to write.

    Args:
        name: path below the folder to write, without ending.
        paths: its files, relative to the source, in order.
        facts: of each file, as `medkeras.files.dicom.task` returns them.
        volume: how its slices or frames are ordered; None for a film.
        notes: what was noticed of it beyond its own facts.
    """

    name: str
    paths: list[str]
    facts: list[dict]
    volume: dicom_series.Volume | None = None
    notes: list[str] = field(default_factory=list)


def read(source: Path, path: str, options: dict, *, pixels: bool):
    """Reads one file in a decoder process.

    Args:
        source: the folder.
        path: of the file, relative to it.
        options: of `medkeras.files.dicom.task`.
        pixels: decode the pixels too.

    Returns:
        (facts, arrays) as `medkeras.files.dicom.task`, or (`Problem`, []).
    """
    try:
        data = decode.read_bytes(source / path)
        facts, arrays = child.run("dicom", data, suffix=Path(path).suffix, pixels=pixels, **options)
    except decode.Unreadable as fault:
        return Problem(path, fault.reason, fault.remedy), []
    except MemoryError:
        return Problem(path, "needs more memory than there is", "close other programs"), []
    # Ids become names of folders, and a decoder that a file took over can answer anything.
    for name in facts.get("ids", {}).values():
        if not re.fullmatch("[0-9a-f]{16}", str(name)):
            return Problem(path, "confuses the decoder", "export it again, or remove it"), []
    return facts, arrays


def files(source: Path, done: Import) -> list[str]:
    """Lists the files below a folder, links among the problems.

    Args:
        source: the folder.
        done: grows by problems and the number of hidden entries.

    Returns:
        Paths relative to the folder, in natural order.
    """
    found = []

    def unreadable(fault):
        name = Path(fault.filename).relative_to(source).as_posix()
        done.problems.append(Problem(name, "cannot be listed", "allow reading it"))

    for folder, folders, names in os.walk(source, onerror=unreadable):
        here = Path(folder)
        done.hidden += sum(map(listing.hidden, [*folders, *names]))
        folders[:] = [name for name in folders if not listing.hidden(name)]
        for name in [*folders, *names]:
            path = (here / name).relative_to(source).as_posix()
            if listing.hidden(name):
                continue
            if (here / name).is_symlink():
                done.problems.append(
                    Problem(path, "is a link, which is not followed", "put the file itself there")
                )
            elif name in names:
                found.append(path)
    return sorted(found, key=listing.natural)


def pictures(surveyed: dict, done: Import) -> dict[str, dict]:
    """Keeps the facts of films and slices.

    Args:
        surveyed: of each path the facts or the `Problem`.
        done: grows by what is no picture.
    """
    facts = {}
    for path, found in surveyed.items():
        if isinstance(found, Problem):
            done.problems.append(found)
        elif found["kind"] == "directory":
            done.directories += 1
        elif found["kind"] == "other":
            done.problems.append(Problem(path, found["reason"], found["remedy"], "note"))
        else:
            facts[path] = found
    return facts


def drop_copies(source: Path, facts: dict, options: dict, done: Import) -> None:
    """Takes files with the SOPInstanceUID of another file out of the facts.

    The first of several with the same pixels, patient and study stays; else none does.

    Args:
        source: the folder.
        facts: of each path; shrinks.
        options: of `medkeras.files.dicom.task`.
        done: grows by what is taken out.
    """
    same = {}
    for path, fact in facts.items():
        same.setdefault(fact["ids"]["image"], []).append(path)
    for paths in same.values():
        if len(paths) == 1:
            continue
        pixels = {}
        for path in paths:
            found, arrays = read(source, path, options, pixels=True)
            if isinstance(found, Problem):
                done.problems.append(found)
                del facts[path]
            else:
                pixels[path] = hashlib.sha256(arrays[0].tobytes()).digest()
        ids = [facts[path]["ids"] for path in pixels]
        values = {
            "pixels": pixels.values(),
            "patients": [each["patient"] for each in ids],
            "studies": [each["study"] for each in ids],
        }
        different = [what for what, found in values.items() if len(set(found)) > 1]
        if different:
            done.problems += same_problem(
                pixels,
                f"is one of {len(pixels)} files with the same SOPInstanceUID, but different "
                + " and ".join(different),
                "keep the right one, remove the others",
            )
            for path in pixels:
                del facts[path]
            continue
        for path in list(pixels)[1:]:
            del facts[path]
            done.copies[path] = next(iter(pixels))
            done.problems.append(
                Problem(
                    path,
                    "is a copy of another file: same SOPInstanceUID, same pixels",
                    "nothing to do",
                    "note",
                )
            )


def tasks(facts: dict, done: Import) -> list[Task]:
    """Plans what is written.

    Args:
        facts: of each path.
        done: grows by the slices that make no volume.

    Returns:
        The tasks in the order of their names: neither the rows of the table nor the times of
        the pictures shall tell how the files were sorted, which may be by patients' names.
    """
    volumes = [task for task in _volumes(facts, done) if _readable(task, done)]
    made = sorted([*_films(facts), *volumes], key=lambda task: task.name)
    studies = {}
    for fact in facts.values():
        studies.setdefault(fact["ids"]["patient"], set()).add(fact["ids"]["study"])
    for task in made:
        if len(studies[task.facts[0]["ids"]["patient"]]) > MAX_STUDIES:
            task.notes.append(
                f"its patient has more than {MAX_STUDIES} studies: the id may stand for many"
            )
    return made


def same_problem(paths, reason: str, remedy: str) -> list[Problem]:
    """Makes the same problem of each file."""
    return [Problem(path, reason, remedy) for path in paths]


def _films(facts):
    return [
        Task(_name(fact, "image"), [path], [fact])
        for path, fact in facts.items()
        if fact["kind"] == "film"
    ]


def _volumes(facts, done):
    made, series = [], {}
    for path, fact in facts.items():
        if fact["kind"] == "film":
            continue
        if fact["shape"][0] > 1:
            volume = dicom_series.frames(fact["places"])
            made.append(Task(_name(fact, "image"), [path], [fact], volume))
        else:
            series.setdefault(_name(fact, "series"), []).append(path)
    for name, paths in series.items():
        found, refused = dicom_series.volumes([facts[path] for path in paths])
        for number, volume in enumerate(found, 1):
            chosen = [paths[place] for place in volume.slices]
            volume.slices = list(range(len(chosen)))
            made.append(
                Task(
                    f"{name}_{number}" if len(found) > 1 else name,
                    chosen,
                    [facts[path] for path in chosen],
                    volume,
                )
            )
        for places, reason in refused:
            done.problems += same_problem(
                [paths[place] for place in places],
                f"is of a series that is no volume: {reason}",
                "export the series again",
            )
    return made


def _readable(task, done):
    """Says whether a volume can be decoded here and read again; if not, why is a problem."""
    frames, rows, columns = task.facts[0]["shape"]
    slices = len(task.paths) * frames
    if slices < MIN_SLICES:
        # Localizers and screenshots of a scanner: usual beside a series, and no fault of it.
        reason = f"is {slices} slice alone, which is no volume"
        done.problems += [Problem(path, reason, "nothing to do", "note") for path in task.paths]
        return False
    reason = ""
    if slices > MAX_SLICES:
        reason = f"is of a volume of {slices} slices, at most {MAX_SLICES} are read"
    elif slices * rows * columns * 4 > MAX_BYTES:
        reason = f"is of a volume of {slices} x {rows} x {columns} pixels, too large to decode"
    if reason:
        done.problems += same_problem(
            task.paths, reason, "export the series anew, whole and of usual size"
        )
    return not reason


def _name(fact, kind):
    ids = fact["ids"]
    return f"{ids['patient']}/{ids['study']}/{ids[kind]}"
