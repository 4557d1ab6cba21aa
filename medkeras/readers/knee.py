"""Reads knee X-rays in one of two layouts, told apart by what lies at the root.

Single knees in class folders of their Kellgren-Lawrence (KL) grade, as published by Chen (224x224;
commonly counted as 5,778 / 826 / 1,656 in train, val and test, and 1,526 in auto_test):

    train/0/9001695L.png       subject and side (L left, R right); grade 0..4
    val/4/9003126R.png
    test/2/...
    auto_test/2/...            automatic crops of the knees in test: left out, and noted
    labels.csv                 optional: path, patient_id, side, kl

    or the folders 0..4 directly in the root. Classes are always the five grades "0" to "4",
    also where no picture has one of them, so that label 4 is grade 4 in every set. A published
    part `test` is the test side; where there is none, `val` is. Chen, "Knee Osteoarthritis
    Severity Grading Dataset", Mendeley Data (2018), doi 10.17632/56rmx5bjcr.1, CC BY 4.0,
    from the Osteoarthritis Initiative (OAI).

A table of the OAI, one row per knee, beside single knees; `oai` describes its columns:

    JSL.csv
    complete_images/9001897_1.png      <subject>_<side>, side 1 right, 2 left

The subject is digits, or the 16 hexadecimal digits of a patient that `dicom` imported: name its
`<patient>/<study>/<image>_L.png` so, `<patient>L.png`. The id of the image would make each film
a patient of its own.

In both layouts the subject is the patient: both knees stay on one side of a split. The folder
may be the one described, or the one around it. Other folders beside `complete_images`, and
`masks`, are left alone.
"""

from pathlib import PurePosixPath

import pandas as pd

from medkeras.errors import DataError, Problem
from medkeras.readers import folders, listing, oai

GRADES = ("0", "1", "2", "3", "4")
PARTS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
COPIES = "auto_test"
SIDES = {"l": "left", "r": "right"} | oai.SIDES
# Inputs of the models that know more than the picture, in their order.
RISK_FACTORS = oai.RISK_FACTORS


def read(root) -> pd.DataFrame:
    """Reads a folder of single knees as a table, one row per knee.

    Args:
        root: the data folder, in one of the layouts above. Nothing is written there.

    Returns:
        DataFrame with the columns `path`, `image` (absolute path), `patient` and `side`
        ("left", "right"). Class folders: `label` (0..4), `class` ("0".."4") and, where a split
        is published, `split`. A table: `jsl` (1.0, 0.0, NaN), `kl` (0..4 or NaN) and the 14
        `RISK_FACTORS` as they are, unscaled, NaN where unknown; `attrs["labels"]` is ["jsl"].

    Raises:
        DataError: everything wrong with the layout, at once; its table holds the sound rows.
    """
    root = folders.start(root, fits)
    problems, notes = [], []
    tabled = oai.fits(root) or (root / oai.PICTURES).is_dir()
    table = (oai.table if tabled else _class_folders)(root, problems, notes)
    table.insert(1, "image", [f"{root}/{path}" for path in table["path"]])
    table.attrs.update(notes=[note.as_dict() for note in notes])
    table.attrs.update({"labels": ["jsl"]} if tabled else {"classes": list(GRADES)})
    if problems:
        raise DataError(problems, table)
    return table


def grades(root) -> pd.DataFrame:
    """Reads either layout for the grade alone: as class folders are read.

    Args:
        root: as in `read`.

    Returns:
        DataFrame with `label` (0..4) and `class` as `read` returns of class folders. Of a table,
        the knees whose grade is known; their number without is a note of `read`.

    Raises:
        DataError: as in `read`.
    """
    try:
        return _graded(read(root))
    except DataError as fault:
        raise DataError(fault.problems, _graded(fault.table)) from None


def _graded(table):
    if "label" in table:
        return table
    known = table[table["kl"].notna()].drop(columns=["jsl", *RISK_FACTORS]).reset_index(drop=True)
    label = known.pop("kl").astype("int64")
    known.attrs = {"notes": table.attrs["notes"], "classes": list(GRADES)}
    return known.assign(label=label, **{"class": label.astype(str)})


def fits(root) -> bool:
    """Says whether a folder holds a table of the OAI, or grades with names of knees."""
    if oai.fits(root):
        return True
    inside = folders.inside(root)
    parts = [folder for folder in inside if folder.name in PARTS]
    grades = [grade for base in parts or [root] for grade in folders.inside(base)]
    return any(grade.name in GRADES and _has_knees(grade) for grade in grades)


def _has_knees(grade):
    names = [PurePosixPath(path) for path in listing.pictures(grade, [])]
    return bool(names) and all(listing.KNEE.fullmatch(name.stem) for name in names)


def _class_folders(root, problems, notes):
    parts = [folder.name for folder in folders.inside(root) if folder.name in PARTS]
    paths = listing.pictures(root, problems, skip=("masks", COPIES))
    if not paths:
        reason = "holds no pictures"
        problems.append(Problem(str(root), reason, "put them into folders named 0 to 4"))
    if (root / COPIES).is_dir():
        copies = len(listing.pictures(root, [], below=COPIES))
        reason = f"holds {copies} automatic crops of the knees in test, which are left out"
        notes.append(Problem(COPIES, reason, "", "note"))
    records, depth = [], 2 if parts else 1
    for path in paths:
        *above, name = path.split("/")
        knee = listing.KNEE.fullmatch(PurePosixPath(name).stem)
        if len(above) != depth or above[-1] not in GRADES or (parts and above[0] not in parts):
            place = f"{' or '.join(parts)}/0..4" if parts else "0..4"
            problems.append(Problem(path, f"lies outside {place}", "move it to its KL grade"))
        elif not knee:
            reason = "is not named <subject>L or <subject>R"
            problems.append(Problem(path, reason, "rename it: the name says whose knee it is"))
        else:
            grade = int(above[-1])
            records.append((path, knee[1], SIDES[knee[2].lower()], grade, str(grade), above[0]))
    columns = ["path", "patient", "side", "label", "class", "part"]
    table = pd.DataFrame(records, columns=columns).astype({"label": "int64"})
    problems.extend(_twice(table))
    if (root / "labels.csv").is_file():
        _compare(root, table, problems)
    sides = folders.published({part: PARTS[part] for part in parts})
    _absent(table, parts, sides, problems, notes)
    if sides:
        table["split"] = table["part"].map(sides)
    return table.drop(columns="part")


def _twice(table):
    """Finds knees that lie in folders of different grades."""
    for (patient, side), own in table.groupby(["patient", "side"], sort=False):
        if own["label"].nunique() > 1:
            reason = f"lies in grades {', '.join(own['class'])}: {', '.join(own['path'])}"
            yield Problem(f"{side} knee of {patient}", reason, "keep the right one")


def _compare(root, table, problems):
    """Compares an optional csv with what folders and names say."""
    rows = listing.read_csv(root / "labels.csv", root, problems)
    if rows is None:
        return
    if "path" not in rows:
        problems.append(Problem("labels.csv", "has no column 'path'", "add it"))
        return
    matched = listing.match(rows["path"], list(table["path"]), "labels.csv", problems)
    by_path = table.set_index("path")
    for row, path in matched.items():
        for column, own in (("patient_id", "patient"), ("side", "side"), ("kl", "class")):
            cell = rows[column].iloc[row] if column in rows else ""
            if column == "side":
                cell = SIDES.get(cell.lower(), cell.lower())
            here = by_path.at[path, own]
            if cell and cell.removesuffix(".0") != here:
                what = f"lies in {here}" if column == "kl" else f"has {own} {here} in its name"
                reason = f"{what}, but labels.csv says {column} = {cell}"
                problems.append(Problem(path, reason, "correct the row, or move the picture"))


def _absent(table, parts, sides, problems, notes):
    found = set(table["class"])
    for grade in GRADES if found else ():
        if grade not in found:
            reason = "is a grade that no knee has; the labels of the others stay as they are"
            notes.append(Problem(grade, reason, "", "note"))
    for part in parts:
        for grade in sorted(found - set(table["class"][table["part"] == part])):
            if sides and part == "train":
                reason = "is a class without training pictures"
                problems.append(Problem(grade, reason, "add some, or remove the class"))
            elif sides:
                reason = f"has no pictures of grade {grade}; labels stay the grades"
                notes.append(Problem(part, reason, "", "note"))
