"""Reads the table of knees of the Osteoarthritis Initiative (OAI): grade, progression, risks.

4,163 knees with all of it (2,812 without progression, 1,351 with):

    JSL.csv                            one row per knee, columns below
    complete_images/9001897_1.png      <subject>_<side>, side 1 right, 2 left

    ID                 <subject>_<side>, as the picture; the subject is digits, or the 16
                       hexadecimal digits of a patient that `dicom` imported
    JSL_Prog           1 where the medial joint space lost 0.7 mm or more in 48 months, else 0
    BL_KL_grade        KL grade at baseline, 0..4
    Age, BMI           years, kg/m2
    Sex                1 male, 2 female
    Race               0 other, 1 White, 2 Black, 3 Asian
    Knee_Injury        1 or 0
    Alignment_degree   degrees
    Alignmnet_TRIN     not read; the name is published so

    The codes are those usual for the OAI: compare them with the description of your release.
    The label is `jsl`, the progression; the grade stands beside it as `kl`. Each cell may be
    blank, which is unknown: NaN, in all columns that come of it. Nothing is filled in here:
    what stands for an unknown value is to be learned from the training side alone.
"""

from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from medkeras.errors import Problem
from medkeras.readers import listing

SIDES = {"1": "right", "2": "left"}
# Digits, or a patient that `dicom` imported under a pseudonym.
SUBJECT = r"(\d+|[0-9a-f]{16})"
TABLE, PICTURES = "JSL.csv", "complete_images"
# Inputs of the models that know more than the picture, in their order.
RISK_FACTORS = (
    *("age", "female", "bmi", "injury", "alignment"),
    *(f"race_{race}" for race in range(4)),
    *(f"kl_{grade}" for grade in range(5)),
)
UNKNOWN = ("", "na", "nan")
# Column of the table -> its values: a few codes, or lowest and highest.
CODED = {
    "JSL_Prog": (0, 1),
    "BL_KL_grade": (0, 1, 2, 3, 4),
    "Sex": (1, 2),
    "Race": (0, 1, 2, 3),
    "Knee_Injury": (0, 1),
}
MEASURED = {"Age": (0, 120), "BMI": (8, 100), "Alignment_degree": (-45, 45)}


def fits(root) -> bool:
    """Says whether a folder holds the table."""
    return (root / TABLE).is_file()


def table(root, problems: list[Problem], notes: list[Problem]) -> pd.DataFrame:
    """Reads the table and finds its pictures.

    Args:
        root: the data folder, resolved.
        problems: list that grows by everything wrong.
        notes: list that grows by how often a value is unknown.

    Returns:
        DataFrame with the columns `path`, `patient`, `side` ("left", "right"), `jsl`, `kl` and
        `RISK_FACTORS`, rows in the order of the table.
    """
    columns = ["path", "patient", "side", "jsl", "kl", *RISK_FACTORS]
    empty = pd.DataFrame(columns=columns, dtype=object)
    if not (root / TABLE).is_file():
        reason = f"does not exist, but there is a folder {PICTURES}"
        problems.append(Problem(TABLE, reason, "add the table"))
        return empty
    rows = listing.read_csv(root / TABLE, root, problems)
    if rows is None:
        return empty
    missing = [name for name in ("ID", *CODED, *MEASURED) if name.lower() not in rows]
    if missing:
        reason = f"has no column {', '.join(missing)}"
        problems.append(Problem(TABLE, reason, "add it; unknown cells may be blank"))
        return empty
    if not (root / PICTURES).is_dir():
        problems.append(Problem(PICTURES, "does not exist", "put <subject>_<side>.png below it"))
        return empty

    paths = listing.pictures(root, problems, below=PICTURES)
    named = {PurePosixPath(path).stem: path for path in paths}
    cells = [named.get(knee, f"{PICTURES}/{knee}.png") for knee in rows["id"]]
    matched = listing.match(cells, paths, TABLE, problems)
    value = {name: _numbers(rows, name, problems) for name in (*CODED, *MEASURED)}
    knees = rows["id"].str.extract(rf"^{SUBJECT}_([12])$")
    for knee in rows["id"][knees[0].isna()]:
        reason = f"in {TABLE} is not <subject>_1 (right) or <subject>_2 (left)"
        problems.append(Problem(knee or TABLE, reason, "correct the ID, and the picture's name"))
    result = pd.DataFrame(
        {
            "path": pd.Series(matched, dtype=object).reindex(rows.index),
            "patient": knees[0],
            "side": knees[1].map(SIDES),
            "jsl": value["JSL_Prog"],
            "kl": value["BL_KL_grade"],
            **_factors(value),
        }
    )
    problems.extend(_unlike(knees[0], value))
    result = result.dropna(subset=["path", "patient"]).reset_index(drop=True)
    for name in ("jsl", "kl", *RISK_FACTORS[:5], "race_0"):
        unknown = int(result[name].isna().sum())
        if unknown:
            what = name.removesuffix("_0")
            knees = "1 knee" if unknown == 1 else f"{unknown} knees"
            # Reports show the reason alone.
            notes.append(Problem(TABLE, f"{what} is unknown for {knees}", "", "note"))
    return result


def factors(rows, problems: list[Problem]) -> pd.DataFrame | None:
    """Reads the risk factors of such a table, with or without progression, pictures apart.

    Args:
        rows: from `listing.read_csv`.
        problems: list that grows by every cell that is no value.

    Returns:
        DataFrame with the columns `RISK_FACTORS`, rows in the order of the table; None where it
        lacks a column of the OAI.
    """
    named = [name for name in ("ID", *CODED, *MEASURED) if name != "JSL_Prog"]
    if not {name.lower() for name in named} <= set(rows):
        return None
    value = {name: _numbers(rows, name, problems) for name in named[1:]}
    return pd.DataFrame(_factors(value), index=rows.index)


def _factors(value):
    return {
        "age": value["Age"],
        "female": value["Sex"] - 1,
        "bmi": value["BMI"],
        "injury": value["Knee_Injury"],
        "alignment": value["Alignment_degree"],
        **_one_hot("race", value["Race"], 4),
        **_one_hot("kl", value["BL_KL_grade"], 5),
    }


def _numbers(rows, name, problems):
    """Returns the values of a column, NaN where unknown, and reports what is no value."""
    cells = rows[name.lower()]
    value = pd.to_numeric(cells, errors="coerce")
    unknown = cells.str.lower().isin(UNKNOWN)
    if name in CODED:
        possible, expected = value.isin(CODED[name]), " or ".join(map(str, CODED[name]))
    else:
        low, high = MEASURED[name]
        possible, expected = value.between(low, high), f"a number from {low} to {high}"
    wrong = ~possible & ~unknown
    for knee, cell in zip(rows["id"][wrong], cells[wrong], strict=True):
        remedy = f"write {expected}, or nothing where it is unknown"
        problems.append(Problem(knee, f"has {name} = {listing.shown([cell])} in {TABLE}", remedy))
    return value.where(possible).astype("float64")


def _one_hot(name, value, count):
    return {
        f"{name}_{code}": (value == code).astype("float64").where(value.notna(), np.nan)
        for code in range(count)
    }


def _unlike(patient, value):
    """Finds patients whose knees have different sexes or races."""
    for name in ("Sex", "Race"):
        kinds = value[name].groupby(patient).nunique()
        for who in kinds.index[kinds > 1]:
            reason = f"has a different {name} for each knee in {TABLE}"
            yield Problem(f"patient {who}", reason, "correct one of the rows")
