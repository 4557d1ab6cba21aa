"""Counts of a table before training: patients, their pictures, ages, sex and projection.

Everything is counted over the rows of the table; what it has no column of is left out.
"""

import numpy as np
import pandas as pd

from medkeras.evaluation.writing.summary import PARTS

KINDS = {
    "view": {"frontal": "frontal", "lateral": "lateral"},
    "sex": {"F": "female", "M": "male"},
    "projection": {"AP": "AP", "PA": "PA"},
}
DECADE = 10  # years


def parts(table) -> dict[str, pd.DataFrame]:
    """Returns the rows of each published part by its name, or all rows as "all"."""
    if "split" not in table:
        return {"all": table}
    return {
        name: table[table["split"] == part]
        for part, name in PARTS.items()
        if part in set(table["split"])
    }


def alone(table) -> bool:
    """Says whether no patient is known, so that each row stands for one."""
    return bool((table["patient"].astype(str) == table["path"].astype(str)).all())


def ages(table) -> pd.Series | None:
    """Returns years, NaN where unknown; None where the table has none.

    An age of 0 counts as unknown: it stands where nothing was entered.
    """
    if "age" not in table or not (table["age"] > 0).any():
        return None
    return table["age"].where(table["age"] > 0).astype(float)


def records(table) -> pd.Series:
    """Counts the patients with one row, two rows, ...: the number of rows is the index."""
    return table.groupby("patient").size().value_counts().sort_index()


def by_decade(table) -> pd.DataFrame | None:
    """Counts rows and patients by decade of age.

    Args:
        table: with `age` and `patient`.

    Returns:
        DataFrame, its index the first year of each decade: `rows`; `patients`, those with a row
        at that age; `mean`, rows for each of them. None without ages.
    """
    years = ages(table)
    if years is None:
        return None
    decade = (years // DECADE * DECADE).dropna().astype(int)
    grouped = table.loc[decade.index, "patient"].groupby(decade)
    found = pd.DataFrame({"rows": grouped.size(), "patients": grouped.nunique()})
    return found.assign(mean=found["rows"] / found["patients"])


def quartiles(values) -> dict:
    """Returns "n", "low", "median" and "high" of the known values; None each where none is."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    bounds = np.percentile(known, [25, 50, 75]).tolist() if len(known) else [None] * 3
    return {"n": len(known), **dict(zip(("low", "median", "high"), bounds, strict=True))}


def characteristics(table, unit="picture") -> dict:
    """Describes the rows of each part, and of all together, as the first table of a paper does.

    Args:
        table: from a reader.
        unit: what a row is.

    Returns:
        "parts": names, "all" last where there are several. "rows": a `name` and one cell a part
        each. A cell has "n", and "of" where it is a share; or `quartiles`; or "mean" and "most".
    """
    split = parts(table)
    split |= {"all": table} if len(split) > 1 else {}
    rows = [(f"{unit}s", [{"n": len(own)} for own in split.values()])]
    if not alone(table):
        rows += _patients(split, unit)
    if ages(table) is not None:
        years = [ages(table).loc[own.index] for own in split.values()]
        rows.append(("age, years: median (quartiles)", [quartiles(own) for own in years]))
        if ages(table).isna().any():
            unknown = [{"n": int(own.isna().sum()), "of": len(own)} for own in years]
            rows.append(("age unknown", unknown))
    for column, names in KINDS.items():
        rows += _shares(split, column, names)
    return {
        "parts": list(split),
        "rows": [{"name": name, "cells": cells} for name, cells in rows],
    }


def _patients(split, unit):
    yield "patients", [{"n": own["patient"].nunique()} for own in split.values()]
    if all("study" in own for own in split.values()):
        studies = [len(own[["patient", "study"]].drop_duplicates()) for own in split.values()]
        yield "studies", [{"n": n} for n in studies]
    each = [own.groupby("patient").size() for own in split.values()]
    yield f"{unit}s a patient: mean (most)", [{"mean": n.mean(), "most": n.max()} for n in each]
    alone = [{"n": int((n == 1).sum()), "of": len(n)} for n in each]
    yield f"patients with one {unit}", alone


def _shares(split, column, names):
    """Counts the rows of each value of a column; nothing where a table is of one kind only."""
    if not all(column in own for own in split.values()):
        return
    # AP and PA are ways to take a frontal picture.
    if column == "projection" and all("view" in own for own in split.values()):
        split = {part: own[own["view"] != "lateral"] for part, own in split.items()}
    every = pd.concat([own[column] for own in split.values()])
    if every.isna().all() or (column == "view" and every.nunique() < 2):
        return
    rows = [
        (name, [own[column] == value for own in split.values()]) for value, name in names.items()
    ]
    if every.isna().any():
        rows.append((f"{column} unknown", [own[column].isna() for own in split.values()]))
    for name, those in rows:
        yield name, [{"n": int(one.sum()), "of": len(one)} for one in those]
