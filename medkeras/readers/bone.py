"""Reads bone X-rays in one of four layouts, told apart by what lies at the root.

FracAtlas (4,083 pictures, 717 of them fractured; the patients are not published):

    dataset.csv                        image_id, fractured (1 / 0), optional group, ...
    images/Fractured/IMG0000019.jpg
    images/Non_fractured/IMG0000000.jpg

    Classes: Non_fractured = 0, Fractured = 1. Abedeen et al., "FracAtlas: A Dataset for
    Fracture Classification, Localization and Segmentation of Musculoskeletal Radiographs",
    Scientific Data 10, 521 (2023), doi 10.6084/m9.figshare.22363012, CC BY 4.0.

MURA-v1.1 (40,561 pictures, 14,863 studies, 12,173 patients, 7 parts of the arm):

    train/XR_WRIST/patient00001/study1_positive/image1.png
    valid/XR_WRIST/patient11185/study1_negative/image1.png

    Classes: negative = 0, positive = 1, where positive means abnormal, not only fractured.
    `valid` is the published test part. The patient is the name of its folder. Rajpurkar et
    al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal Radiographs",
    arXiv 1712.06957.

Class folders, any names, as many classes as there are:

    Healthy_bones/*.png
    Fractured_bones/*.jpg
    labels.csv                         optional: path, patient, class

    or the same below `train/`, with `test/` or `valid/` (or both) as published parts. A
    class whose name says healthy is 0, the others follow in natural order; numbered names
    keep the order of their numbers. A csv at the root with a column path, image, image_id,
    file or filename gives the patient (first of patient, patient_id, source_group, group).
    Without a csv, names that are all like `9001695L.png` give what stands before the side.
    Else each picture stands alone, and its patient is its path. Folders named like patients or
    studies are refused: they are a part of some other set.

Imported from DICOM: `images.csv` with a column `class` that you filled (see `imported`).

In every layout `masks/<path of the picture, ending .png>` may hold the known lesion in
white. Hidden folders are left out.
"""

import re
from collections import Counter
from pathlib import PurePosixPath

import pandas as pd

from medkeras.errors import DataError, Problem
from medkeras.readers import folders, imported, listing

TRAIN_PARTS = {"train", "training"}
VALID_PARTS = {"valid", "val", "validation"}
TEST_PARTS = {"test", "testing"}
PARTS = TRAIN_PARTS | VALID_PARTS | TEST_PARTS
STUDY = re.compile(r"study[^/]*_(positive|negative)", re.IGNORECASE)
# As MURA, CheXpert and imports name the folders of patients and studies.
PERSON = re.compile(r"(patient|study)[-_ ]?\d+(_(positive|negative))?|[0-9a-f]{16}", re.IGNORECASE)


def read(root) -> pd.DataFrame:
    """Reads a folder of bone X-rays as a table, one row per picture.

    Args:
        root: the data folder, in one of the layouts above. Nothing is written there.

    Returns:
        DataFrame with the columns `image` (absolute path), `path` (relative to the root),
        `patient`, `label` (0..k-1) and `class`; `split` ("train", "val", "test") where a
        split is published; `mask` (absolute path or None) where there is a folder `masks`.
        `attrs["notes"]` holds what the report should say, `attrs["classes"]` the class
        names in the order of their labels.

    Raises:
        DataError: everything wrong with the layout, at once.
    """
    root = folders.existing(root)
    problems, notes = [], []
    paths = listing.pictures(root, problems, skip=("masks",))
    table, order = _layout(root)(root, paths, problems, notes)
    problems.extend(_class_problems(table, order, paths, root))

    table["label"] = table["class"].map({name: label for label, name in enumerate(order)})
    table["image"] = [str(root / path) for path in table["path"]]
    columns = ["image", "path", "patient", "label", "class"]
    if "split" in table:
        columns.append("split")
    if (root / "masks").is_dir():
        masks = [root / "masks" / PurePosixPath(path).with_suffix(".png") for path in table["path"]]
        table["mask"] = pd.Series(
            [str(mask) if mask.is_file() else None for mask in masks], dtype=object
        )
        columns.append("mask")
    table = table[columns].reset_index(drop=True)
    table.attrs.update(notes=[note.as_dict() for note in notes], classes=list(order))
    if problems:
        raise DataError(problems, table)
    return table


def _layout(root):
    if (root / "images").is_dir() and (root / "dataset.csv").is_file():
        return _fracatlas
    if (root / "dataset.csv").is_file():
        header = listing.read_csv(root / "dataset.csv", root, [])
        if header is not None and {"image_id", "fractured"} <= set(header.columns):
            return _fracatlas
    if any(True for pattern in ("XR_*", "train/XR_*", "valid/XR_*") for _ in root.glob(pattern)):
        return _mura
    return imported.rows if imported.fits(root) else _class_folders


def _fracatlas(root, paths, problems, notes):
    order = ["Non_fractured", "Fractured"]
    empty = pd.DataFrame(columns=["path", "patient", "class"], dtype=object)
    rows = listing.read_csv(root / "dataset.csv", root, problems)
    if rows is None:
        return empty, order
    for column in ("image_id", "fractured"):
        if column not in rows:
            problems.append(
                Problem("dataset.csv", f"has no column {column!r}", "take the published file")
            )
    if not (root / "images").is_dir():
        problems.append(Problem("images", "does not exist", "put the pictures below it"))
    if problems and ("image_id" not in rows or "fractured" not in rows):
        return empty, order

    paths = [path for path in paths if path.startswith("images/")]
    matched = listing.match(rows["image_id"], paths, "dataset.csv", problems)
    values = rows["fractured"].map({"0": 0, "1": 1, "0.0": 0, "1.0": 1})
    records = []
    patients = _patients(rows, matched, "dataset.csv", notes)
    for row, path in matched.items():
        if pd.isna(values.iloc[row]):
            problems.append(
                Problem(
                    path,
                    f"has fractured = {rows['fractured'].iloc[row]!r} in dataset.csv",
                    "write 1 for fractured, 0 for not",
                )
            )
            continue
        name = order[int(values.iloc[row])]
        folder = PurePosixPath(path).parent.name
        if folder in order and folder != name:
            problems.append(_conflict(path, folder, name, "dataset.csv"))
        records.append((path, patients[row], name))
    return _in_order(records, paths), order


def _mura(root, paths, problems, notes):
    records, parts = [], []
    for path in paths:
        above = path.split("/")[:-1]
        part = above[0] if not above or not above[0].startswith("XR_") else ""
        body = above[1:] if part else above
        study = STUDY.fullmatch(body[2]) if len(body) == 3 else None
        if not study or not body[0].startswith("XR_") or (part and part not in PARTS):
            problems.append(
                Problem(
                    path,
                    "does not lie in XR_*/patient*/study*_positive or study*_negative",
                    "restore the layout of MURA, or move the picture away",
                )
            )
            continue
        records.append((path, body[1], study[1].lower()))
        parts.append(part)
    table = _in_order(records, paths)
    _add_split(table, parts)
    return table, ["negative", "positive"]


def _class_folders(root, paths, problems, notes):
    top = sorted(folder.name for folder in folders.inside(root) if folder.name != "masks")
    parts = [name for name in top if name.lower() in PARTS]
    if parts and len(parts) < len(top):
        others = [name for name in top if name not in parts]
        problems.append(
            Problem(
                others[0],
                f"lies beside the parts {', '.join(parts)}",
                "move the class folders into the parts, or out of them",
            )
        )
    depth = 2 if parts else 1
    inside = [path for path in paths if path.count("/") >= depth]
    for path in paths:
        if path.count("/") < depth:
            problems.append(Problem(path, "lies in no class folder", "move it into one"))
    above = [path.split("/") for path in inside]
    names = [steps[depth - 1] for steps in above]
    person = next(filter(PERSON.fullmatch, names), None)
    if person:
        reason = f"holds a folder {person}, named like a patient or a study, expected classes"
        remedy = "name the folder of the whole data set; see data/README.md for the layouts"
        raise DataError([Problem(str(root), reason, remedy)])
    table = pd.DataFrame({"path": inside, "class": names}, dtype=object)
    table["patient"] = _patients_of(root, table, problems, notes)
    _add_split(table, [steps[0].lower() for steps in above] if parts else [])
    bases = [root / part for part in parts] or [root]
    named = {folder.name for base in bases for folder in folders.inside(base)}
    named -= {"masks", *parts}
    return table, listing.class_order(named)


def _patients_of(root, table, problems, notes):
    frames = []
    for file in sorted(root.glob("*.csv")):
        if listing.hidden(file.name):
            continue
        faults = []
        frame = listing.read_csv(file, root, faults)
        lists_pictures = frame is not None and listing.first_column(frame, listing.PATH_COLUMNS)
        if lists_pictures:
            frames.append((file.name, frame))
        # A table about something else may have faults of its own; an unreadable one may be ours.
        if lists_pictures or frame is None:
            problems.extend(faults)
    if len(frames) > 1:
        files = ", ".join(name for name, _ in frames)
        problems.append(
            Problem(files, "each list pictures; which one counts is not known", "keep one of them")
        )
    if frames:
        source, rows = frames[0]
        column = listing.first_column(rows, listing.PATH_COLUMNS)
        matched = listing.match(rows[column], list(table["path"]), source, problems)
        classes = dict(zip(table["path"], table["class"], strict=True))
        problems.extend(_class_conflicts(rows, matched, classes, source))
        patients = _patients(rows, matched, source, notes)
        by_path = {path: patients[row] for row, path in matched.items()}
        return [by_path.get(path, path) for path in table["path"]]

    sides = [listing.KNEE.fullmatch(PurePosixPath(path).stem) for path in table["path"]]
    if sides and all(sides):
        return [side[1] for side in sides]
    notes.append(_alone("no csv names the patients"))
    return list(table["path"])


def _patients(rows, matched, source, notes):
    column = listing.first_column(rows, listing.PATIENT_COLUMNS)
    if column is None:
        notes.append(_alone(f"{source} has no column {', '.join(listing.PATIENT_COLUMNS)}"))
        return matched
    cells = rows[column]
    unknown = sum(not cells.iloc[row] for row in matched)
    if unknown:
        notes.append(_alone(f"{unknown} rows of {source} have no {column}"))
    return {row: cells.iloc[row] or path for row, path in matched.items()}


def _alone(reason):
    return Problem(
        "patient",
        f"{reason}: those pictures stand alone, so one patient may be on two sides of the split",
        "add a csv with the columns path and patient",
        "note",
    )


def _class_conflicts(rows, matched, classes, source):
    column = listing.first_column(rows, ("class", "label"))
    if column is None:
        return []
    known = {name.lower(): name for name in classes.values()}
    # A column of codes must at least mean one class per code.
    votes = {}
    for row, path in matched.items():
        votes.setdefault(rows[column].iloc[row], Counter())[classes[path]] += 1
    meaning = {
        cell: known.get(cell.lower(), count.most_common(1)[0][0]) for cell, count in votes.items()
    }
    return [
        _conflict(path, classes[path], rows[column].iloc[row], source)
        for row, path in matched.items()
        if rows[column].iloc[row] and meaning[rows[column].iloc[row]] != classes[path]
    ]


def _conflict(path, folder, named, source):
    return Problem(
        path,
        f"lies in {folder}, but {source} calls it {named}",
        "correct the row, or move the picture",
    )


def _add_split(table, parts):
    kinds = {
        part: "train" if part in TRAIN_PARTS else "val" if part in VALID_PARTS else "test"
        for part in set(parts)
    }
    sides = folders.published(kinds)
    if sides:
        table["split"] = [sides[part] for part in parts]


def _in_order(records, paths):
    place = {path: number for number, path in enumerate(paths)}
    records = sorted(records, key=lambda record: place[record[0]])
    return pd.DataFrame(records, columns=["path", "patient", "class"], dtype=object)


def _class_problems(table, order, paths, root):
    if not paths:
        return [Problem(str(root), "holds no pictures", "put PNG or JPEG files into class folders")]
    found = set(table["class"])
    problems = [
        Problem(name, "is a class without pictures", "add pictures, or remove the class")
        for name in order
        if name not in found
    ]
    if len(order) < 2:
        inner = sorted({path.split("/")[1] for path in table["path"] if path.count("/") > 1})
        remedy = "put the pictures of each class into a folder of its own"
        if len(order) == 1 and len(inner) > 1:
            remedy = f"name the folder that holds the classes: --data {root / order[0]}"
        problems.append(
            Problem(str(root), f"has {len(order)} class folders, expected at least 2", remedy)
        )
    if "split" in table:
        trained = set(table["class"][table["split"] == "train"])
        problems.extend(
            Problem(name, "is a class without training pictures", "add some, or remove the class")
            for name in order
            if name in found - trained
        )
    return problems
