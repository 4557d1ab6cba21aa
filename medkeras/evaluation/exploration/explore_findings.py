"""Counts of the findings of a table before training: each alone, together, and by age.

A finding is present (1), absent (0), uncertain (marked by a column, see `tables`) or blank:
nothing is said of it. Everything is counted over the rows of the table.
"""

import pandas as pd

from medkeras.evaluation.exploration import explore_people
from medkeras.preparation.uncertainty import flags
from medkeras.readers import tables

STATES = ("present", "uncertain", "absent", "blank")
# Says that none of the others is there, so it is none itself.
NONE = "No Finding"
MOST = 9


def counts(table, findings) -> pd.DataFrame:
    """Counts the rows of each state of each finding.

    Args:
        table: one column of 1, 0 or NaN a finding, and maybe `uncertain <finding>`.
        findings: names of the columns.

    Returns:
        DataFrame, a row a finding, its columns `STATES` and `patients`, those with it present in
        any row.
    """
    rows = {}
    for name in findings:
        value, uncertain = table[name], flags(table, tables.UNCERTAIN + name)
        present = value == 1
        rows[name] = {
            "present": present.sum(),
            "uncertain": uncertain.sum(),
            "absent": (value == 0).sum(),
            "blank": (value.isna() & ~uncertain).sum(),
            "patients": table.loc[present, "patient"].nunique(),
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*STATES, "patients"]).astype(int)


def tells_uncertain(table, findings) -> bool:
    """Says whether the table tells what is uncertain from what is not mentioned."""
    return any(tables.UNCERTAIN + name in table for name in findings)


def together(table, findings) -> pd.DataFrame:
    """Counts the rows in which two findings are both present; each alone on the diagonal."""
    present = (table[list(findings)] == 1).astype(int)
    return present.T.dot(present)


def combinations(table, findings, most=MOST) -> dict:
    """Counts which findings are present together in a row, and nothing else with them.

    Args:
        table: as in `counts`.
        findings: as in `counts`.
        most: combinations to list.

    Returns:
        "rows": the commonest, each with "names" (empty where none is present) and "n"; "all":
        how many different ones there are; "rest": rows of those that are not listed.
    """
    findings = list(findings)
    present = table[findings] == 1
    # Of equals, the one whose findings come first.
    sizes = present.groupby(findings).size().iloc[::-1]
    sizes = sizes.sort_values(ascending=False, kind="stable")
    rows = []
    for states, n in sizes.iloc[:most].items():
        states = states if isinstance(states, tuple) else (states,)
        names = [name for name, there in zip(findings, states, strict=True) if there]
        rows.append({"names": names, "n": int(n)})
    return {"rows": rows, "all": len(sizes), "rest": int(sizes.iloc[most:].sum())}


def numbers(table, findings) -> pd.Series:
    """Counts the rows with 0, 1, 2, ... findings present; "No Finding" is none."""
    return _present(table, findings).sum(axis=1).value_counts().sort_index()


def company(table, findings) -> pd.DataFrame:
    """Counts in how many rows each finding is the only one present, and in how many not.

    Returns:
        DataFrame, a row a finding: `alone`, `others`. "No Finding" is left out.
    """
    present = _present(table, findings)
    several = present.sum(axis=1) > 1
    found = {"alone": present[~several].sum(), "others": present[several].sum()}
    return pd.DataFrame(found).astype(int)


def ages(table, findings) -> pd.DataFrame | None:
    """Describes the ages of the rows in which each finding is present, by sex where known.

    Args:
        table: as in `counts`, with `age` and maybe `sex`.
        findings: as in `counts`.

    Returns:
        DataFrame: `finding` ("" for all rows), `sex` ("female", "male", or "all" without a
        column of it), `n` with a known age, `low`, `median`, `high`: quartiles, NaN where n is
        0. None without ages.
    """
    years = explore_people.ages(table)
    if years is None:
        return None
    sexes = {"all": pd.Series(True, table.index)}
    if "sex" in table and (table["sex"].notna() & years.notna()).any():
        sexes = {name: table["sex"] == code for code, name in explore_people.KINDS["sex"].items()}
    rows = []
    for finding in ("", *findings):
        there = (table[finding] == 1) if finding else pd.Series(True, table.index)
        for sex, own in sexes.items():
            described = explore_people.quartiles(years[there & own])
            rows.append({"finding": finding, "sex": sex, **described})
    return pd.DataFrame(rows).astype({name: float for name in ("low", "median", "high")})


def titles(table, findings) -> list:
    """Names what is present in each row, then what is uncertain, with a question mark.

    Returns:
        A list of names a row, or "unknown" where nothing is said of any finding.
    """
    rows = []
    present = table[list(findings)] == 1
    uncertain = pd.DataFrame({name: flags(table, tables.UNCERTAIN + name) for name in findings})
    silent = table[list(findings)].isna().all(axis=1) & ~uncertain.any(axis=1)
    for row in table.index:
        names = [name for name in findings if present.at[row, name]]
        names += [f"{name}?" for name in findings if uncertain.at[row, name]]
        rows.append("unknown" if silent[row] else names)
    return rows


def _present(table, findings):
    return table[[name for name in findings if name != NONE]] == 1
