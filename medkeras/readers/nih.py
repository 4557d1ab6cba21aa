"""Reads chest X-rays in the layout of NIH ChestX-ray14: 14 findings, and boxes of some.

112,120 pictures of 30,805 patients, as published:

    Data_Entry_2017.csv      or Data_Entry_2017_v2020.csv: Image Index, Finding Labels, Follow-up #,
                             Patient ID, Patient Age, Patient Gender, View Position, ...
    BBox_List_2017.csv       optional: radiologists' boxes of 880 pictures
    train_val_list.txt       optional, both: the published split, a file name a line
    test_list.txt
    images_001/images/00000001_000.png     1024 x 1024, anywhere below, also beside the csv

`Finding Labels` are joined by "|" and were mined from reports: what is not listed counts as
absent, and nothing is uncertain. The size and spacing in the last columns, whose header is broken
by commas of its own, are those of the film before it was reduced; nothing here needs them. Ages
are years, or `058Y`, `013M`, `028D`; those above 120 are unknown. A later release, in which the
pictures lie reduced, has the same boxes.

Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks", CVPR 2017, arXiv
1705.02315. Free to use; credit the NIH Clinical Center and the paper.

The folder may be the one that holds the csv, or the one around it. Folders named `masks` are
left alone.
"""

import pandas as pd

from medkeras.errors import DataError, Problem
from medkeras.readers import folders, listing

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
NONE = "No Finding"
LABELS = (NONE, *FINDINGS)
# What CheXpert calls it; None where it has no such column.
AS_CHEXPERT = {
    "No Finding": "No Finding",
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Effusion": "Pleural Effusion",
    "Emphysema": None,
    "Fibrosis": None,
    "Hernia": None,
    "Infiltration": "Lung Opacity",
    "Mass": "Lung Lesion",
    "Nodule": "Lung Lesion",
    "Pleural_Thickening": "Pleural Other",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
}
ENTRIES = "Data_Entry_2017*.csv"
BOXES = "BBox_List_2017.csv"
IN_BOXES = {"Infiltrate": "Infiltration"}  # as the list of boxes calls it
LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}
COLUMNS = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
)
SIZE = 1024  # height and width of the published pictures, and the scale of the boxes
AGE = r"0*(\d{1,3})([YMD]?)"
YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "D": 1 / 365.25}
OLDEST = 120


def read(root) -> pd.DataFrame:
    """Reads a folder of chest X-rays as a table, one row per picture.

    Args:
        root: the data folder, in the layout above. Nothing is written there.

    Returns:
        DataFrame with the columns `path`, `image` (absolute path), `patient` (the number, as
        text), `study` (number of the follow-up, as text), `view` ("frontal"), `sex` ("F", "M",
        NaN), `age` (years, NaN where unknown), `projection` ("AP", "PA", NaN); `LABELS` (1.0,
        0.0); and, where both lists are there, `split` ("train" or "test").

        A row whose picture is missing stays, so that the audit counts it among the broken ones,
        which `--skip-bad` leaves out.

    Raises:
        DataError: everything wrong with the layout, at once, rows named by their pictures; its
            table holds the other rows. That none of the pictures is there is one problem.
    """
    root, problems, notes = folders.start(root, fits), [], []
    source, rows = _entries(root, problems, notes)
    there = [] if problems else _pictures(root, problems)
    table, good = _decoded(rows, source, problems, notes)
    table = _placed(table, good, there, source, problems)
    table.insert(1, "image", [f"{root}/{path}" for path in table["path"]])
    _split(root, table, problems)
    table.attrs.update(labels=list(LABELS), notes=[note.as_dict() for note in notes])
    if problems:
        raise DataError(problems, table)
    return table


def boxes(root) -> pd.DataFrame:
    """Reads the radiologists' boxes.

    Args:
        root: as in `read`.

    Returns:
        DataFrame with the columns `path`, `finding` (one of `FINDINGS`), `x`, `y` (upper left
        corner), `width` and `height`, in pixels of the published picture of `SIZE`; a row a box.
        Boxes of pictures that are not there are left out, and counted in `attrs["notes"]`.

    Raises:
        DataError: there is no list of boxes, or it cannot be read.
    """
    root, problems = folders.start(root, fits), []
    if not (root / BOXES).is_file():
        raise DataError([Problem(BOXES, "does not exist", "put the published list there")])
    # Not by its header, in which one name stands for four columns.
    rows = listing.read_rows(root / BOXES, root, problems) or []
    places = {path.rpartition("/")[2]: path for path in _pictures(root, problems)}
    found, missing = [], 0
    for cells in rows[1:]:
        box = _box(cells)
        if box is None:
            reason = f"has the row {listing.shown(cells)}, expected a picture, one of the findings "
            reason += "and x, y, width and height of a box in the picture"
            problems.append(Problem(BOXES, reason, "correct the row, or remove it"))
        elif cells[0] in places:
            found.append((places[cells[0]], *box))
        else:
            missing += 1
    if problems:
        raise DataError(problems)
    table = pd.DataFrame(found, columns=["path", "finding", "x", "y", "width", "height"])
    reason = f"{missing} boxes are of pictures that are not there, and left out"
    table.attrs["notes"] = [Problem(BOXES, reason, "", "note").as_dict()] if missing else []
    return table


def fits(root) -> bool:
    """Says whether a folder holds the csv of ChestX-ray14."""
    return any(path.is_file() for path in root.glob(ENTRIES))


def _pictures(root, problems):
    return listing.pictures(root, problems, skip=("masks",))


def _entries(root, problems, notes):
    """Reads the csv: (its name, its rows with the columns above; none where it cannot be read)."""
    empty = pd.DataFrame(columns=[name.lower() for name in COLUMNS], dtype=object)
    sources = sorted(path for path in root.glob(ENTRIES) if path.is_file())
    if not sources:
        reason = "does not exist, so nothing is known of the pictures"
        problems.append(Problem(ENTRIES, reason, "put the published csv into the folder"))
        return ENTRIES, empty
    source = sources[-1].name
    if len(sources) > 1:
        others = ", ".join(path.name for path in sources[:-1])
        notes.append(Problem(source, f"is read, {others} is not", "", "note"))
    rows = listing.read_csv(root / source, root, problems)
    if rows is None:
        return source, empty
    missing = [name for name in COLUMNS if name.lower() not in rows]
    if missing:
        reason = f"has no column {', '.join(missing)}"
        problems.append(Problem(source, reason, "take the published file, all columns of it"))
        return source, empty
    return source, rows


def _decoded(rows, source, problems, notes):
    """Returns the table of what the cells mean, and which rows have none that means nothing."""
    cells = {name: rows[name.lower()] for name in COLUMNS}
    names = [set(cell.split("|")) for cell in cells["Finding Labels"]]
    ages = cells["Patient Age"].str.upper().str.extract(f"^{AGE}$")
    years = ages[0].astype("float64") * ages[1].map(YEARS)
    sound = {
        "Image Index": (cells["Image Index"] != "", "name the picture"),
        "Finding Labels": (
            pd.Series([_listed(own) for own in names], rows.index, bool),
            f"write out of {', '.join(LABELS)}, with | between; No Finding alone",
        ),
        "Patient ID": (cells["Patient ID"] != "", "write the number of the patient"),
        "Patient Age": (years.notna() | (cells["Patient Age"] == ""), "write years, or nothing"),
        "Patient Gender": (cells["Patient Gender"].isin(["F", "M", ""]), "write F or M"),
    }
    good = pd.Series(True, rows.index)
    for column, (right, remedy) in sound.items():
        for picture, cell in zip(cells["Image Index"][~right], cells[column][~right], strict=True):
            reason = f"has {column} = {listing.shown([cell])} in {source}"
            problems.append(Problem(picture or source, reason, remedy))
        good &= right
    impossible, projection = years > OLDEST, cells["View Position"]
    for where, count, reason in [
        ("age", impossible.sum(), f"pictures have an age above {OLDEST}: unknown here"),
        ("sex", (cells["Patient Gender"] == "").sum(), "pictures are of unknown sex"),
        ("projection", (~projection.isin(["AP", "PA"])).sum(), "pictures are neither AP nor PA"),
    ]:
        if count:
            notes.append(Problem(where, f"{count} {reason}", "", "note"))
    columns = {
        "path": cells["Image Index"],
        "patient": cells["Patient ID"],
        "study": cells["Follow-up #"],
        "view": "frontal",
        "sex": cells["Patient Gender"].replace("", float("nan")),
        "age": years.mask(impossible),
        "projection": projection.where(projection.isin(["AP", "PA"])),
        **{label: [float(label in own) for own in names] for label in LABELS},
    }
    return pd.DataFrame(columns, index=rows.index), good


def _listed(names):
    return names <= set(LABELS) and (NONE not in names or len(names) == 1)


def _placed(table, good, there, source, problems):
    """Finds the file of each good row; a row without one keeps the bare name."""
    places = {}
    for path in there:
        places.setdefault(path.rpartition("/")[2], []).append(path)
    names = table["path"]
    for name in names[names.duplicated() & good].unique():
        problems.append(Problem(name, f"stands in {source} more than once", "keep one row"))
    for name, paths in places.items():
        if len(paths) > 1:
            reason = f"is the name of {len(paths)} files: {', '.join(paths[:3])}"
            problems.append(Problem(name, reason, "keep one of them"))
    known = set(names)
    if len(names) and known.isdisjoint(places):
        reason = f"names {len(names)} pictures, none of which is there (the first: {names[0]})"
        problems.append(Problem(source, reason, "put the pictures below the folder of the csv"))
        return table[:0]
    for name, paths in places.items():
        if name not in known:
            reason = f"has no row in {source}"
            problems.append(Problem(paths[0], reason, "add a row, or remove the picture"))
    found = names.map(lambda name: places.get(name, [name])[0])
    return table.assign(path=found)[good & ~names.duplicated()].reset_index(drop=True)


def _split(root, table, problems):
    """Adds the published split, where both lists are there."""
    lists = {name: side for name, side in LISTS.items() if (root / name).is_file()}
    if len(lists) == 1:
        (there,), missing = lists, set(LISTS) - set(lists)
        reason = f"does not exist, but {there} does"
        problems.append(Problem(*missing, reason, "add it, or remove the other one"))
    if len(lists) < 2:
        return
    sides = {}
    for name, side in lists.items():
        for cells in listing.read_rows(root / name, root, problems) or []:
            sides.setdefault(cells[0], set()).add(side)
    for path in table["path"]:
        own = sides.get(path.rpartition("/")[2], ())
        if len(own) != 1:
            reason = f"stands in {'both' if own else 'none'} of {' and '.join(LISTS)}"
            problems.append(Problem(path, reason, "keep it in one list"))
    names = table["path"].str.rpartition("/")[2]
    table["split"] = [min(sides.get(name, {"train"})) for name in names]


def _box(cells):
    """Returns (finding, x, y, width, height) of a row, or None where it says something else."""
    try:
        x, y, width, height = map(float, cells[2:6])
    except ValueError:
        return None
    finding = IN_BOXES.get(cells[1], cells[1])
    inside = max(x, y) < SIZE and min(x + width, y + height) > 0 and min(width, height) > 0
    return (finding, x, y, width, height) if inside and finding in FINDINGS else None
