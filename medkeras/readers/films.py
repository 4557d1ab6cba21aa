"""Reads films of knees and the boxes of their joints, to train a locator on.

    films/1234567.png     both knees, the patient's right one at the left of the picture
    films/1234567R.png    one knee: R (or _R, _1) right, L (or _L, _2) left
    joints.csv            film, side, x, y, width, height: a row a knee; left upper corner and
                          size of the box around its joint in pixels of the film; side is right
                          or left (R, L, 1, 2); optional: patient

A film's name without the side is the patient. Where a patient has several films, fill the column
`patient` of joints.csv: they must stay together. Films without a box are left out, and counted.

Or a folder that `readers.dicom` wrote, with a joints.csv put into it: its column film holds paths
of images.csv, which names the patients. Boxes that were drawn on DICOM files fit the pictures of
an import with `--knees whole`, which cuts nothing; `--linkage FILE` says which file became which.
"""

import re
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from medkeras.errors import DataError, Problem
from medkeras.readers import folders, imported, listing

TABLE, FOLDER = "joints.csv", "films"
SIDES, CLASS = ("right", "left"), "film"
CODES = {"right": "right", "r": "right", "1": "right", "left": "left", "l": "left", "2": "left"}
NUMBERS = ("x", "y", "width", "height")
# Digits as the OAI gives them, or the id that an import gives a patient; then perhaps the side.
NAMED = re.compile(r"(\d+|[0-9a-f]{16})(?:_?([LR])|_([12]))?", re.IGNORECASE)
WHOLE = (
    "import them uncut, `python -m medkeras.readers.dicom IN OUT --knees whole --linkage FILE`, "
    "and put joints.csv into OUT with the names that FILE gives the films"
)


def read(root) -> pd.DataFrame:
    """Reads a folder of films as a table, one row per film.

    Args:
        root: the data folder, in one of the layouts above. Nothing is written there.

    Returns:
        DataFrame with the columns `path`, `image` (absolute path), `patient`, `side` ("right" or
        "left" where the name or images.csv says that it shows that knee alone, else ""), and
        for each side `right_x`, `right_y`, `right_width`, `right_height`, ...: the box in
        pixels, NaN where there is none. All are of the one class "film".

    Raises:
        DataError: everything wrong with files and rows, at once; its table holds the sound rows.
            What depends on the pixels is checked by `preparation.cutting`.
    """
    root = folders.start(root, fits)
    problems, notes = [], []
    rows = _rows(root, problems)
    known = (_imported if imported.fits(root) else _named)(root, problems)
    films = _boxed(rows, known, problems) if rows is not None else known.iloc[:0]
    without = len(known) - len(films)
    if without and rows is not None:
        reason = f"{without} of {len(known)} films have no box and were left out"
        notes.append(Problem(TABLE, reason, "", "note"))
    films.insert(1, "image", [f"{root}/{path}" for path in films["path"]])
    films = films.assign(label=0, **{"class": CLASS})
    films.attrs.update(classes=[CLASS], notes=[note.as_dict() for note in notes])
    if problems:
        raise DataError(problems, films)
    return films


def fits(root) -> bool:
    """Says whether a folder holds boxes of joints."""
    return (root / TABLE).is_file()


def columns(side: str) -> list[str]:
    """Names the columns of a side's box: x, y, width and height."""
    return [f"{side}_{name}" for name in NUMBERS]


def subject(stem: str) -> tuple[str | None, str]:
    """Reads the name of a film.

    Args:
        stem: without ending.

    Returns:
        (subject, None where it is no digits and no id of an import; "right" or "left" where the
        name says so, else "").
    """
    found = NAMED.fullmatch(stem)
    if not found:
        return None, ""
    return found[1], CODES.get((found[2] or found[3] or "").lower(), "")


def _rows(root, problems):
    """Reads joints.csv; None where it cannot be used."""
    if not fits(root):
        reason = f"has no {TABLE} with the boxes of the joints"
        problems.append(Problem(str(root), reason, "write film, side, x, y, width, height"))
        return None
    rows = listing.read_csv(root / TABLE, root, problems)
    missing = [name for name in ("film", "side", *NUMBERS) if rows is not None and name not in rows]
    if missing:
        problems.append(Problem(TABLE, f"has no column {', '.join(missing)}", "add it"))
        return None
    return rows


def _named(root, problems):
    """Lists the films of the folder: path, patient, side."""
    if not (root / FOLDER).is_dir():
        problems.append(Problem(FOLDER, "does not exist", "put the films there, PNG or JPEG"))
        return pd.DataFrame(columns=["path", "patient", "side"], dtype=object)
    paths = listing.pictures(root, problems, below=FOLDER)
    dicom = [path for path in paths if path.lower().endswith(".dcm")]
    if dicom:
        problems.append(Problem(FOLDER, f"holds {len(dicom)} DICOM files", WHOLE))
    found = []
    for path in paths:
        stem = PurePosixPath(path).stem
        patient, side = subject(stem)
        if path not in dicom:
            found.append((path, patient or stem, side))
    return pd.DataFrame(found, columns=["path", "patient", "side"], dtype=object)


def _imported(root, problems):
    """Lists the films of an import: path, patient, side."""
    table = listing.read_csv(root / imported.TABLE, root, problems)
    side = table["side"] if "side" in table else pd.Series("", table.index)
    table = table.assign(side=side.str.lower().map(CODES).fillna(""))
    table = table[~table["path"].str.lower().str.endswith(".npy")].reset_index(drop=True)
    there = listing.pictures(root, problems)
    matched = listing.match(table["path"], there, imported.TABLE, problems)
    table = table.loc[list(matched), ["path", "patient", "side"]]
    return table.assign(path=list(matched.values())).reset_index(drop=True)


def _boxed(rows, known, problems):
    """Gives each film the boxes of its rows; films without a sound one are left out."""
    names = list(dict.fromkeys(rows["film"]))
    found = []
    paths = listing.match(names, list(known["path"]), TABLE, found)
    without = set(known["path"]) - set(paths.values())
    # A film without a row is no mistake: some films have no boxes yet.
    problems += [problem for problem in found if problem.path not in without]
    path_of = {names[number]: path for number, path in paths.items()}
    known = known.set_index("path")
    boxes = pd.DataFrame(np.nan, known.index, [name for side in SIDES for name in columns(side)])
    patients = {}
    for row in rows.itertuples():
        path = path_of.get(row.film)
        if path is None:
            continue
        side, box, wrong = _box(row, boxes.loc[path], known.at[path, "side"])
        if wrong:
            problems.append(Problem(path, *wrong))
        else:
            boxes.loc[path, columns(side)] = box
        if getattr(row, "patient", ""):
            patients.setdefault(path, set()).add(row.patient)
    for path, named in patients.items():
        known.loc[path, "patient"] = min(named)
        if len(named) > 1:
            reason = f"has the patients {', '.join(sorted(named))} in {TABLE}"
            problems.append(Problem(path, reason, "keep the right one"))
    sound = boxes.notna().any(axis=1)
    return known.join(boxes)[sound].reset_index()


def _box(row, boxes, alone):
    """Reads a row of joints.csv: (side, box, None) or (None, None, (reason, remedy))."""
    side = CODES.get(row.side.lower())
    if side is None:
        return None, None, (f"has the side {row.side!r} in {TABLE}", "write right or left")
    if alone and alone != side:
        reason = f"shows the {alone} knee, but has a box of the {side} one in {TABLE}"
        return None, None, (reason, "correct the side, or the name of the film")
    if boxes[columns(side)].notna().any():
        return None, None, (f"has two boxes of the {side} knee in {TABLE}", "keep one row")
    cells = [getattr(row, name) for name in NUMBERS]
    box = pd.to_numeric(pd.Series(cells), errors="coerce").to_numpy(np.float64)
    if not np.isfinite(box).all():
        reason = f"has the {side} box {', '.join(cells)} in {TABLE}"
        return None, None, (reason, "write four numbers: x, y, width, height, in pixels")
    if min(box[:2]) < -1 or min(box[2:]) < 1:
        reason = f"has the {side} box {', '.join(cells)} in {TABLE}, which is not on the film"
        return None, None, (reason, "count pixels from the left upper corner; sizes are positive")
    return side, box, None
