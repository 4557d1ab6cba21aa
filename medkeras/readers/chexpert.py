"""Reads chest X-rays in the layout of CheXpert: 14 findings, with unknown and uncertain ones.

CheXpert-v1.0, or CheXpert-v1.0-small with smaller pictures (224,316 pictures of 65,240
patients; commonly counted as 223,414 rows in train.csv, whose labels were mined from reports,
and 234 in valid.csv, labelled by three radiologists):

    train.csv      Path, Sex, Age, Frontal/Lateral, AP/PA, then one column of each finding
    valid.csv
    train/patient00001/study1/view1_frontal.jpg
    valid/patient64541/study1/view1_frontal.jpg

    `Path` begins with the name of the release, `CheXpert-v1.0-small/train/...`; what stands
    before `train/` or `valid/` is ignored, so the folder may have any name.

Labels, in this order: No Finding, Enlarged Cardiomediastinum, Cardiomegaly, Lung Opacity, Lung
Lesion, Edema, Consolidation, Pneumonia, Atelectasis, Pneumothorax, Pleural Effusion, Pleural
Other, Fracture, Support Devices. The csv codes and what the table holds:

    csv      finding    uncertain <finding>
    1.0      1.0        False      present
    0.0      0.0        False      absent
    -1.0     NaN        True       mentioned as uncertain
    blank    NaN        False      not mentioned

A -1 is no number to train on, so none is in the table; a policy for either kind of unknown is
the experiment's to choose, in sight. Irvin et al., "CheXpert: A Large Chest Radiograph Dataset
with Uncertainty Labels and Expert Comparison", AAAI 2019, arXiv 1901.07031. Research use only,
under Stanford's agreement.

The folder may be the one that holds `train.csv`, or the one around it. `valid` is the published
test part beside `train`. Any other file or folder there, such as `masks`, is left alone.
"""

import os

import pandas as pd

from medkeras.errors import DataError, Problem
from medkeras.readers import folders, listing
from medkeras.readers.tables import UNCERTAIN

LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
# The five that the published competition ranked models by.
SCORED = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
VIEWS = ("frontal", "lateral")
PARTS = {"train": "train", "valid": "test"}
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS)
CODES = {"1.0": 1.0, "1": 1.0, "0.0": 0.0, "0": 0.0, "-1.0": -1.0, "-1": -1.0, "": float("nan")}
SEXES = {"female": "F", "male": "M"}
OLDEST = 120
PLACE = r"^(?:.*?/)?((train|valid)/(patient[^/\x00]+)/(study[^/\x00]+)/[^/\x00]+)$"


def read(root, views: str = "frontal") -> pd.DataFrame:
    """Reads a folder of chest X-rays as a table, one row per picture.

    Args:
        root: the data folder, in the layout above. Nothing is written there.
        views: "frontal" (default: the pictures that models of 14 findings are trained on),
            "lateral" or "all". The other pictures are counted in the notes.

    Returns:
        DataFrame with the columns `path`, `image` (absolute path), `patient`
        ("patient00001"), `study`, `view` ("frontal", "lateral"), `sex` ("F", "M", NaN), `age`
        (years as published, NaN where blank), `projection` ("AP", "PA", NaN); 14 findings
        (1.0, 0.0, NaN) and `uncertain <finding>` (bool) of each; and, where both parts are
        there, `split` ("train" or "test"). `attrs["labels"]` names the findings.

        A row whose picture is missing stays, so that the audit counts it among the broken ones,
        which `--skip-bad` leaves out.

    Raises:
        DataError: everything wrong with the layout, at once, rows named by their pictures; its
            table holds the other rows. That none of the pictures is there is one problem.
    """
    if views not in (*VIEWS, "all"):
        raise ValueError(f"views={views!r}: expected 'frontal', 'lateral' or 'all'")
    root = folders.start(root, fits)
    problems, notes = [], []
    parts = [part for part in PARTS if (root / f"{part}.csv").is_file() or (root / part).is_dir()]
    if "train" not in parts:
        reason = "does not exist, so there is nothing to train on"
        problems.append(Problem("train.csv", reason, "put train.csv and train/ into the folder"))
    pieces = [_part(root, part, views, problems, notes) for part in parts]
    table = pd.concat([_empty(), *pieces], ignore_index=True) if pieces else _empty()
    table.insert(1, "image", [f"{root}/{path}" for path in table["path"]])
    if len(parts) > 1:
        table["split"] = table["path"].str.partition("/")[0].map(PARTS)
    if table.empty and not problems:
        what = "pictures" if views == "all" else f"{views} pictures"
        problems.append(Problem(str(root), f"holds no {what}", "add some, rows and files"))
    _remark(table, notes)
    table.attrs.update(labels=list(LABELS), notes=[note.as_dict() for note in notes])
    if problems:
        raise DataError(problems, table)
    return table


def fits(root) -> bool:
    """Says whether a folder holds a csv of CheXpert."""
    for source in [root / f"{part}.csv" for part in PARTS]:
        if not source.is_file():
            continue
        try:
            with open(source, encoding="utf-8-sig", errors="replace") as file:
                # More than a line: `sep=;` may stand before the header.
                header = file.read(10_000).lower()
        except OSError:
            continue
        if "path" in header and "frontal/lateral" in header:
            return True
    return False


def _part(root, part, views, problems, notes):
    source = f"{part}.csv"
    if not (root / source).is_file():
        reason = f"does not exist, but there is a folder {part}"
        problems.append(Problem(source, reason, "add the published csv, or remove the folder"))
        return _empty()
    rows = listing.read_csv(root / source, root, problems)
    if rows is None:
        return _empty()
    missing = [name for name in COLUMNS if name.lower() not in rows]
    if missing:
        reason = f"has no column {', '.join(missing)}"
        problems.append(Problem(source, reason, "take the published file, all columns of it"))
        return _empty()

    rows = _placed(rows, part, source, problems)
    table, bad = _decoded(rows, source, problems)
    bad |= _repeated(table, rows, source, problems)
    chosen = table["view"].isin(VIEWS if views == "all" else [views])
    # Rows whose view is unknown are reported already.
    left_out = int((~chosen & table["view"].notna()).sum())
    if left_out:
        other = " and ".join(view for view in VIEWS if view != views)
        reason = f"{left_out} {other} pictures are left out, {views} ones are read"
        notes.append(Problem(source, reason, "", "note"))

    there = listing.pictures(root, problems, below=part)
    found = table["path"].isin(there)
    if len(table) and not found.any():
        reason = f"names {len(table)} pictures, none of which is there (the first: "
        reason += f"{table['path'][0]})"
        problems.append(Problem(source, reason, "put the folders of the pictures beside the csv"))
        return table[found]
    # What is there and yet not listed, such as a link to a folder, must not be opened.
    refused = [path for path in table["path"][chosen & ~found] if os.path.lexists(root / path)]
    problems.extend(_unmatched(table["path"], refused, there, source))
    return table[chosen & ~bad & ~table["path"].isin(refused)]


def _placed(rows, part, source, problems):
    """Splits each Path into columns, and drops the rows whose Path is no picture's."""
    paths = rows["path"].str.replace("\\", "/", regex=False)
    places = paths.str.extract(PLACE)
    places.columns = ["place", "part", "patient", "study"]
    strange = places["part"] != part
    for path in paths[strange]:
        reason = f"in {source} is not a picture in {part}/patient*/study*/"
        problems.append(Problem(path or source, reason, "correct the row, or remove it"))
    return pd.concat([rows, places], axis=1)[~strange].reset_index(drop=True)


def _decoded(rows, source, problems):
    """Returns the table of what the cells mean, and which rows have one that means nothing."""
    path = rows["place"]
    bad = pd.Series(False, index=rows.index)

    def refuse(wrong, column, remedy):
        nonlocal bad
        bad = bad | wrong
        cells = rows.loc[wrong, column.lower()]
        problems.extend(
            Problem(name, f"has {column} = {listing.shown([cell])} in {source}", remedy)
            for name, cell in zip(path[wrong], cells, strict=True)
        )

    view = rows["frontal/lateral"].str.lower()
    refuse(~view.isin(VIEWS), "Frontal/Lateral", "write Frontal or Lateral")
    sex = rows["sex"].str.lower()
    refuse(~sex.isin([*SEXES, "", "unknown"]), "Sex", "write Female or Male, or nothing")
    age = pd.to_numeric(rows["age"], errors="coerce")
    possible = (rows["age"] == "") | age.between(0, OLDEST)
    refuse(~possible, "Age", f"write years, 0 to {OLDEST}, or nothing")
    columns = {
        "path": path,
        "patient": rows["patient"],
        "study": rows["study"],
        "view": view.where(view.isin(VIEWS)),
        "sex": sex.map(SEXES),
        "age": age.astype("float64"),
        "projection": rows["ap/pa"].where(rows["ap/pa"].isin(["AP", "PA"])),
    }
    uncertain = {}
    for label in LABELS:
        cells = rows[label.lower()]
        refuse(~cells.isin(CODES), label, "write 1, 0 or -1, or nothing where not mentioned")
        value = cells.map(CODES)
        columns[label] = value.where(value >= 0).astype("float64")
        uncertain[UNCERTAIN + label] = value == -1
    return pd.DataFrame({**columns, **uncertain}), bad


def _repeated(table, rows, source, problems):
    again = table["path"].duplicated(keep=False)
    if again.any():
        cells = rows[again].drop(columns=["path"])
        for path, own in cells.groupby("place", sort=False):
            same = len(own.drop_duplicates()) == 1
            how = "with the same cells" if same else "with different cells"
            reason = f"stands in {source} {len(own)} times, {how}"
            problems.append(Problem(path, reason, "keep the row that is right"))
    return table["path"].duplicated()


def _unmatched(paths, refused, there, source):
    problems = [
        Problem(
            path,
            f"is named in {source}, but is no picture in the data folder",
            "put the picture itself there, or remove the row",
        )
        for path in refused
    ]
    named = set(paths)
    problems.extend(
        Problem(path, f"has no row in {source}", "add a row, or remove the picture")
        for path in there
        if path not in named
    )
    return problems


def _remark(table, notes):
    """Notes what a reader of the numbers should know."""
    uncertain = table[[UNCERTAIN + label for label in LABELS]].to_numpy(bool)
    unknown_projection = (table["view"] == "frontal") & table["projection"].isna()
    for where, count, reason in [
        ("findings", uncertain.sum(), "are uncertain (-1): unknown here, and marked as such"),
        ("age", (table["age"] == 0).sum(), "pictures are of the age 0, which may mean unknown"),
        ("sex", table["sex"].isna().sum(), "pictures are of unknown sex"),
        ("projection", unknown_projection.sum(), "frontal pictures are neither AP nor PA"),
    ]:
        if count:
            notes.append(Problem(where, f"{count} {reason}", "", "note"))


def _empty():
    cells = [*(column.lower() for column in COLUMNS), "place", "patient", "study"]
    return _decoded(pd.DataFrame(columns=cells, dtype=object), "", [])[0]
