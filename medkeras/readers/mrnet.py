"""Reads knee MRI exams in the layout of MRNet: three planes, three findings.

MRNet-v1.0 (1,370 exams; 1,130 to train on, 120 to validate, 120 kept back by Stanford):

    train-abnormal.csv                 no header: 0000,1 (exam, 1 found / 0 not found)
    train-acl.csv
    train-meniscus.csv
    train/axial/0000.npy               uint8 (slices, 256, 256), 17 to 61 slices
    train/coronal/0000.npy
    train/sagittal/0000.npy
    valid-abnormal.csv, ...            the same for exams 1130 to 1249
    valid/axial/1130.npy, ...

    Labels: abnormal, acl (a tear of the anterior cruciate ligament), meniscus (a tear), each
    1.0, 0.0 or NaN where its cell is empty. Bien et al., "Deep-learning-assisted diagnosis for
    knee magnetic resonance imaging: Development and retrospective validation of MRNet", PLOS
    Medicine 15(11), e1002699 (2018). Research use only, under Stanford's agreement.

The folder may be the one that holds `train`, or the one around it; one part alone will do.
`valid` is the published test part beside `train`. Exams are strings: `0001` is not `1`. Only
where a whole csv lost its zeros, as spreadsheets make it, are its exams found by number. A
header row is left out. Both are noted.

MRNet names no patients, so each exam stands for one. For own exams an optional `patients.csv`
with the columns path (`train/0001`, or `0001`) and patient says who is who. Any other file or
folder beside the parts, such as `masks`, is left alone.
"""

import re

import pandas as pd

from medkeras.errors import DataError, Problem
from medkeras.readers import folders, listing

PLANES = ("axial", "coronal", "sagittal")
LABELS = ("abnormal", "acl", "meniscus")
PARTS = {"train": "train", "valid": "test"}
VALUES = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "": float("nan")}
NUMBER = re.compile(r"[0-9]{1,18}")


def read(root) -> pd.DataFrame:
    """Reads a folder of knee MRI exams as a table, one row per exam.

    Args:
        root: the data folder, in the layout above. Nothing is written there.

    Returns:
        DataFrame with the columns `path` (`train/0042`), `axial`, `coronal`, `sagittal`
        (absolute paths), `patient`, `abnormal`, `acl`, `meniscus` (1.0, 0.0, or NaN where
        unknown) and, where both parts are there, `split` ("train" or "test").
        `attrs["images"]` names the planes, `attrs["labels"]` the findings.

    Raises:
        DataError: everything wrong with the layout, at once, exams and planes named; its
            table holds the exams that are complete.
    """
    root = folders.start(root, fits)
    problems, notes = [], []
    parts = [part for part in PARTS if (root / part).is_dir() or _csvs(root, part)]
    if not parts:
        raise DataError(
            [Problem(str(root), "holds neither train nor valid", "restore the layout of MRNet")]
        )
    records = [record for part in parts for record in _part(root, part, problems, notes)]
    columns = ["path", *PLANES, *LABELS]
    table = pd.DataFrame(records, columns=columns).astype({label: "float64" for label in LABELS})
    table.insert(1 + len(PLANES), "patient", _patients(root, table, problems, notes))
    if len(parts) > 1:
        table["split"] = [PARTS[path.partition("/")[0]] for path in table["path"]]
    table = table.dropna(subset=list(PLANES)).reset_index(drop=True)
    notes.extend(_doubts(table))
    table.attrs.update(
        images=list(PLANES), labels=list(LABELS), notes=[note.as_dict() for note in notes]
    )
    if problems:
        raise DataError(problems, table)
    return table


def fits(root) -> bool:
    """Says whether a folder holds a part of MRNet."""
    return any(
        _csvs(root, part) or any((root / part / plane).is_dir() for plane in PLANES)
        for part in PARTS
    )


def _csvs(root, part):
    return [label for label in LABELS if (root / f"{part}-{label}.csv").is_file()]


def _part(root, part, problems, notes):
    """Lists the exams of a part as tuples of path, volumes and labels, and all their faults."""
    volumes = {plane: _volumes(root, part, plane, problems) for plane in PLANES}
    known = {exam for found in volumes.values() for exam in found or ()}
    if not known:
        problems.append(
            Problem(part, "holds no volumes", f"put them into {part}/axial, coronal and sagittal")
        )
        return []
    labels = {label: _labels(root, part, label, known, problems, notes) for label in LABELS}
    listed = {exam for found in labels.values() for exam in found or ()}
    records = []
    for exam in sorted(known | listed, key=listing.natural):
        problems.extend(_exam(part, exam, volumes, labels))
        found = [(volumes[plane] or {}).get(exam) for plane in PLANES]
        files = [str(root / path) if path else None for path in found]
        values = [(labels[label] or {}).get(exam) for label in LABELS]
        records.append((f"{part}/{exam}", *files, *values))
    return records


def _volumes(root, part, plane, problems):
    """Returns exam -> relative path; None where the whole plane is missing."""
    place = f"{part}/{plane}"
    if not (root / place).is_dir():
        if any((root / part / other).is_dir() for other in PLANES):
            reason = "does not exist, expected one volume of each exam in it"
            problems.append(Problem(place, reason, "add the folder of this plane"))
        return None
    found = {}
    for path in listing.files(root, problems, {".npy"}, below=place):
        name = path.removeprefix(place + "/")
        if "/" in name:
            problems.append(Problem(path, f"lies too deep, expected in {place}", "move it up"))
        else:
            found[name[: -len(".npy")]] = path
    if not found:
        problems.append(Problem(place, "holds no volumes", "add NNNN.npy, one of each exam"))
    return found or None


def _exam(part, exam, volumes, labels):
    """Returns what is missing of one exam."""
    name = f"{part}/{exam}"
    expected = [plane for plane in PLANES if volumes[plane] is not None]
    missing = [plane for plane in expected if exam not in volumes[plane]]
    read = [label for label in LABELS if labels[label] is not None]
    without = [f"{part}-{label}.csv" for label in read if exam not in labels[label]]
    faults = []
    if missing == expected:
        sources = ", ".join(f"{part}-{label}.csv" for label in read if exam in labels[label])
        reason = f"is named in {sources}, but has no volume in {', '.join(missing)}"
        faults.append(Problem(name, reason, "add its volumes, or remove the rows"))
    elif missing:
        reason = f"has no {' and no '.join(missing)} volume"
        files = ", ".join(f"{part}/{plane}/{exam}.npy" for plane in missing)
        faults.append(Problem(name, reason, f"add {files}, or remove the whole exam"))
    if without and missing != expected:
        reason = f"has no row in {', '.join(without)}"
        faults.append(Problem(name, reason, "add a row, or remove its volumes"))
    return faults


def _labels(root, part, label, known, problems, notes):
    """Returns exam -> 1.0, 0.0 or NaN; None where the csv says nothing about these exams."""
    source = f"{part}-{label}.csv"
    if not (root / source).is_file():
        problems.append(Problem(source, "does not exist", "add it: one row `0000,1` per exam"))
        return None
    rows = listing.read_rows(root / source, root, problems)
    if rows is None:
        return None
    if len(rows[0]) > 1 and rows[0][1] not in VALUES and not any(map(str.isdigit, rows[0][0])):
        reason = f"begins with a header, {listing.shown(rows[0])}, which is left out"
        notes.append(Problem(source, reason, "", "note"))
        rows = rows[1:]
    good = []
    for row in rows:
        if len(row) < 2 or any(row[2:]) or not row[0]:
            reason = f"row {listing.shown(row)} is not an exam and its label"
            problems.append(Problem(source, reason, "write it like `0000,1`"))
        else:
            good.append(row[:2])
    exams = _restored([exam for exam, _ in good], part, source, known, problems, notes)
    if good and not known & set(exams):
        reason = f"names {len(good)} exams, none of which is there (the first: {good[0][0]})"
        problems.append(Problem(source, reason, f"use the csv that belongs to {part}"))
        return None

    cells = {}
    for exam, (_, cell) in zip(exams, good, strict=True):
        cells.setdefault(exam, []).append(cell)
        if cell not in VALUES:
            reason = f"has {label} = {listing.shown([cell])} in {source}"
            remedy = "write 1 or 0, or nothing where it is unknown"
            problems.append(Problem(f"{part}/{exam}", reason, remedy))
    for exam, own in cells.items():
        if len(own) > 1:
            values = sorted(set(own))
            reason = f"stands in {source} {len(own)} times"
            if len(values) > 1:
                reason += f", as {' and as '.join(value or 'unknown' for value in values)}"
            problems.append(Problem(f"{part}/{exam}", reason, "keep the row that is right"))
    return {exam: VALUES.get(own[0]) for exam, own in cells.items()}


def _restored(exams, part, source, known, problems, notes):
    """Returns the names that the volumes have for exams whose zeros a spreadsheet dropped."""
    by_number = {}
    for exam in known:
        if NUMBER.fullmatch(exam):
            by_number.setdefault(int(exam), []).append(exam)
    restored = {
        exam: by_number[int(exam)][0]
        for exam in exams
        if exam not in known and NUMBER.fullmatch(exam) and len(by_number.get(int(exam), ())) == 1
    }
    if any(exam.startswith("0") and exam in known for exam in exams):
        for exam, right in restored.items():
            reason = f"is written {exam!r} in {source}, without its zeros"
            problems.append(Problem(f"{part}/{right}", reason, f"write {right}"))
    elif restored:
        reason = f"has lost the zeros before {len(restored)} exams, which are found by number"
        notes.append(Problem(source, reason, "keep exams as text in spreadsheets", "note"))
    return [restored.get(exam, exam) for exam in exams]


def _patients(root, table, problems, notes):
    if not (root / "patients.csv").is_file():
        reason = (
            "MRNet does not say who is shown: each exam counts as a patient, so two exams of one "
            "knee may be on two sides of the split"
        )
        remedy = "where you know it, add patients.csv with the columns path and patient"
        notes.append(Problem("patient", reason, remedy, "note"))
        return table["path"]
    rows = listing.read_csv(root / "patients.csv", root, problems)
    missing = [] if rows is None else [name for name in ("path", "patient") if name not in rows]
    for name in missing:
        problems.append(Problem("patients.csv", f"has no column {name!r}", "add it"))
    if rows is None or missing:
        return table["path"]
    matched = listing.match(rows["path"], list(table["path"]), "patients.csv", problems)
    by_path = {path: rows["patient"].iloc[row] for row, path in matched.items()}
    for path in [path for path, patient in by_path.items() if not patient]:
        problems.append(Problem(path, "has no patient in patients.csv", "fill the cell"))
    return pd.Series([by_path.get(path) for path in table["path"]], dtype=object)


def _doubts(table):
    odd = table["path"][(table["abnormal"] == 0) & table[["acl", "meniscus"]].eq(1).any(axis=1)]
    if odd.empty:
        return []
    named = ", ".join(odd[:3]) + (", ..." if len(odd) > 3 else "")
    reason = "abnormal is 0 where there is a tear"
    return [Problem(named, reason, "have these labels checked", "note")]
