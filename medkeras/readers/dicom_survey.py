"""What lies in a folder of DICOM files: every header read, copies found, the work planned."""

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from medkeras.errors import Problem
from medkeras.files import child, decode
from medkeras.readers import dicom_series, listing


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
    """

    name: str
    paths: list[str]
    facts: list[dict]
    volume: dicom_series.Volume | None = None


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
        facts, arrays = child.run("dicom", data, pixels=pixels, **options)
    except decode.Unreadable as fault:
        return Problem(path, fault.reason, fault.remedy), []
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

    The first of several with the same pixels stays; of those with different pixels none does.

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
        if len(set(pixels.values())) > 1:
            for path in pixels:
                del facts[path]
                done.problems.append(
                    Problem(
                        path,
                        f"is one of {len(pixels)} files with the same SOPInstanceUID, but "
                        "different pixels",
                        "keep the right one, remove the others",
                    )
                )
            continue
        for path in list(pixels)[1:]:
            del facts[path]
            done.copies[path] = next(iter(pixels))
            done.problems.append(
                Problem(
                    path,
                    "is a copy of an imported file: same SOPInstanceUID, same pixels",
                    "nothing to do",
                    "note",
                )
            )


def tasks(facts: dict, done: Import) -> list[Task]:
    """Plans what is written.

    Args:
        facts: of each path.
        done: grows by the slices that make no volume.
    """
    return [*_films(facts), *_volumes(facts, done)]


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
            done.problems += [
                Problem(
                    paths[place],
                    f"is of a series that is no volume: {reason}",
                    "export the series again",
                )
                for place in places
            ]
    return made


def _name(fact, kind):
    ids = fact["ids"]
    return f"{ids['patient']}/{ids['study']}/{ids[kind]}"
