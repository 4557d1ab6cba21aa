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
