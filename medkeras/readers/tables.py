"""What a table holds: the agreement between readers and everything behind them.

A data set is a pandas DataFrame, one row per picture, or per exam of several volumes:

    path       name of the row, relative to the data root, "/" between the parts; an exam's
               is its folder and number, `train/0042`
    image      absolute path of the file; an exam has one such column per plane instead, named
               in `attrs["images"]`
    patient    who it shows, a string; the path where nobody knows
    split      optional: the published side, "train", "val" or "test"
    mask       optional: absolute path of the known lesion, or None

Labels come in two kinds. A multi-class set has the whole number `label` (0..k-1) and its name
`class`, all names in `attrs["classes"]`. A multi-label set has one column of 1.0, 0.0 or NaN
(unknown) per finding, named in `attrs["labels"]`; where a set tells "uncertain" from "not
mentioned", a column `uncertain <finding>` (bool) marks the former. `attrs["notes"]` lists what
the report should say, as dicts of a `Problem`. More columns, such as `age`, are the reader's to
describe.
"""

import pandas as pd

from medkeras.errors import DataError, Problem, UsageError

UNCERTAIN = "uncertain "  # and the name of a finding: a column


def files(table: pd.DataFrame) -> list[str]:
    """Returns the columns that hold files: `image`, or one per plane of an exam."""
    return list(table.attrs.get("images", ["image"]))


def labels(table: pd.DataFrame) -> list[str]:
    """Returns the columns that hold labels: `label`, or one per finding."""
    return list(table.attrs.get("labels", ["label"]))


def classes(table: pd.DataFrame) -> list[str] | None:
    """Returns the class names in the order of `label`; None for a multi-label table."""
    if "labels" in table.attrs:
        return None
    if "classes" in table.attrs:
        return list(table.attrs["classes"])
    return list(table.sort_values("label", kind="stable")["class"].unique())


def single(table: pd.DataFrame, finding: str) -> pd.DataFrame:
    """Makes a two-class table of one finding of a multi-label table.

    Divide the patients first: then all findings share one split.

    Args:
        table: rows of a multi-label set.
        finding: one of `attrs["labels"]`, such as "acl".

    Returns:
        The rows where it is known, with `label` (0 or 1) and `class` ("no acl" or "acl") instead
        of the columns of all findings. `attrs["notes"]` says how many rows were left out.

    Raises:
        UsageError: the table has no such finding.
        DataError: of the rows to train on, none has it or all have it.
    """
    known = table.attrs.get("labels", [])
    if finding not in known:
        named = ", ".join(known) or "none: its rows have classes"
        raise UsageError(f"no finding {finding!r} in the table; it has {named}")
    result = table[table[finding].notna()].reset_index(drop=True)
    value = result[finding].astype("int64")
    learned = value[result["split"] == "train"] if "split" in result else value
    if learned.nunique() < 2:
        has = "has no" if learned.empty else f"is {learned.iloc[0]} in every"
        reason = f"{has} row to train on, expected 0 and 1"
        raise DataError([Problem(finding, reason, "choose another finding, or add rows")])
    if "split" in table and set(table["split"]) > set(result["split"]):
        reason = "is unknown in every row to validate or to test on"
        raise DataError([Problem(finding, reason, "choose another finding, or add rows")])
    names = [f"no {finding}", finding]
    result = result.drop(columns=known)
    result["label"], result["class"] = value, value.map(dict(enumerate(names)))
    attrs = {name: kept for name, kept in table.attrs.items() if name != "labels"}
    notes = list(attrs.get("notes", []))
    if len(result) < len(table):
        reason = f"is unknown in {len(table) - len(result)} of {len(table)} rows, left out"
        notes.append(Problem(finding, reason, "", "note").as_dict())
    result.attrs = {**attrs, "classes": names, "notes": notes}
    return result
