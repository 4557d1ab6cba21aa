"""Which films of knees lie in a folder, whose they are, and which knees they show.

Three kinds of folder, also mixed but for the second: pictures named after the subject (see
`readers.films`), a folder that `readers.dicom` wrote, and DICOM files, which are imported as
`readers.dicom` does, into a folder that is thrown away afterwards.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medkeras.errors import Problem
from medkeras.files import decode, dicom_tags
from medkeras.files.dicom import SUFFIXES
from medkeras.files.foreign import Unreadable
from medkeras.preparation import halves
from medkeras.readers import (
    dicom,
    dicom_knees,
    dicom_private,
    dicom_survey,
    films,
    imported,
    listing,
)

RENAME = "name it by the subject's digits, and R or L where it shows one knee alone"


@dataclass(frozen=True)
class Film:
    """A picture to crop.

    Args:
        name: what tables call it: the path in the folder; of DICOM the path an import gives it.
        image: file to read.
        subject: digits, or the id of an import.
        side: "right" or "left" where it shows that knee alone, else "".
        cut: whether it was cut already where it showed both.
    """

    name: str
    image: Path
    subject: str
    side: str
    cut: bool = False


def found(folder: Path, work: Path, progress=None) -> tuple[list[Film], list[Problem], dict]:
    """Finds the films in a folder.

    Args:
        folder: to look in. Nothing is written there.
        work: folder that DICOM files are imported below, apart from `folder`.
        progress: called with steps of an import done and in all, or None.

    Returns:
        The films in natural order; a problem of each file that is none; and for DICOM files, by
        the path in `folder`, the keyed hash that tables call them by: a name may hold a
        patient's.
    """
    if imported.fits(folder):
        return *_imported(folder), {}
    named, problems = _named(folder)
    if not _has_dicom(folder):
        return named, problems, {}
    done = dicom.convert(folder, work / "import", progress=progress)
    refused = [problem for problem in done.problems if problem.severity == "error"]
    key = dicom_private.secret()
    hashes = {problem.path: dicom_tags.keyed(key, "file", problem.path) for problem in refused}
    if done.written:
        more, others = _imported(work / "import")
        named, problems = named + more, problems + others
    return named, problems + refused, hashes


def opened(film: Film) -> tuple[list, Problem | None]:
    """Decodes a film and says which knees it shows.

    Args:
        film: from `found`.

    Returns:
        A tuple of the film, its grey pixels and a `halves.Half` for each knee, and None; or none
        and what is wrong.
    """
    try:
        pixels = halves.grey(decode.picture(film.image).pixels)
    except Unreadable as fault:
        return [], Problem(film.name, fault.reason, fault.remedy)
    wide = dicom_knees.wide(pixels.shape)
    if film.cut and not film.side:
        reason = "shows a knee, or two, of unknown side"
        return [], Problem(film.name, reason, "import frontal films of both with --knees split")
    if film.side and wide and not film.cut:
        reason = f"is named as a {film.side} knee, but is as wide as a film of both"
        return [], Problem(film.name, reason, RENAME)
    if film.side:
        return [(film, pixels, halves.whole(pixels, film.side))], None
    if not wide:
        reason = "shows one knee, and its name does not say which"
        return [], Problem(film.name, reason, RENAME)
    return [(film, pixels, half) for half in halves.both(pixels)], None


def _named(folder):
    problems, result = [], []
    for path in listing.pictures(folder, problems):
        if path.lower().endswith(SUFFIXES):
            continue
        subject, side = films.subject(PurePosixPath(path).stem)
        if subject is None:
            problems.append(Problem(path, "is not named by a subject", RENAME))
        else:
            result.append(Film(path, folder / path, subject, side))
    return result, problems


def _imported(folder):
    problems = []
    table = listing.read_csv(folder / imported.TABLE, folder, problems)
    table = table[~table["path"].str.lower().str.endswith(".npy")].reset_index(drop=True)
    there = listing.pictures(folder, problems)
    matched = listing.match(table["path"], there, imported.TABLE, problems)
    result = []
    for row, path in matched.items():
        side = table["side"].iloc[row] if "side" in table else ""
        side = films.CODES.get(side.lower(), "")
        result.append(Film(path, folder / path, table["patient"].iloc[row], side, cut=True))
    return result, problems


def _has_dicom(folder):
    paths = dicom_survey.files(folder, dicom_survey.Import())
    return any(path.lower().endswith(SUFFIXES) or _begins_as_dicom(folder / path) for path in paths)


def _begins_as_dicom(path):
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
