"""Predictions of runs with one finding each, checked to be of the same exams."""

import numpy as np

from medkeras.errors import DataError, Problem
from medkeras.evaluation.numbers import metrics

KEYS = ["split", "path", "patient"]
KINDS = ["label", "logit", "probability"]


def finding(run) -> str:
    """Returns the one finding of a run.

    Args:
        run: `records.Record`.

    Raises:
        DataError: it has several, or has predicted nothing yet.
    """
    if run.predictions is None:
        raise DataError([Problem(run.name, "has no predictions.csv", "finish it, or leave it out")])
    names = metrics.class_names(run.predictions)
    if len(names) > 1:
        reason = f"has several findings ({', '.join(names)}), where one a run is combined"
        raise DataError([Problem(run.name, reason, "leave it out")])
    return names[0]


def tables(runs) -> list:
    """Returns what runs predict for the validation and the test part, in the same order.

    Args:
        runs: list of `records.Record` with the same finding.

    Returns:
        A DataFrame a run: `KEYS`, label, logit, probability.

    Raises:
        DataError: a run has other exams, labels or another split than the first one; names the
            run and the first such exam.
    """
    found = [_table(run) for run in runs]
    for run, table in zip(runs[1:], found[1:]):
        _check(run, table, runs[0], found[0])
    return found


def names(runs) -> list[str]:
    """Names runs of a finding by their planes, or by their folders.

    Folders where a run's planes are not known, or two runs have the same ones.
    """
    found = []
    for run in runs:
        known = run.settings
        plane = known.get("planes", known.get("plane"))
        found.append("+".join(map(str, plane)) if isinstance(plane, list) else plane)
    return found if all(found) and len(set(found)) == len(found) else [run.name for run in runs]


def _table(run):
    """Validation and test rows of a run in the order of split and path, columns without name."""
    named = {f"{kind}_{finding(run)}": kind for kind in KINDS}
    table = run.predictions.rename(columns=named)[[*KEYS, *KINDS]]
    table = table[table["split"].isin(["val", "test"])].sort_values(["split", "path"])
    twice = table["path"][table["path"].duplicated()]
    if len(twice):
        raise DataError([Problem(run.name, f"predicts {twice.iloc[0]} twice", "make it again")])
    broken = table["path"][~np.isfinite(table["logit"])]
    if len(broken):
        raise DataError([Problem(run.name, f"has no logit of {broken.iloc[0]}", "make it again")])
    return table.reset_index(drop=True)


def _check(run, table, first, other):
    """Raises DataError, with the first exam in which a run differs from the first run."""
    both = other.merge(table, on="path", how="outer", suffixes=("", "_here"), indicator=True)
    here, there = both["_merge"] == "right_only", both["_merge"] == "left_only"
    unlike = {
        f"is not in {first.name}": here,
        f"is missing, and in {first.name}": there,
    }
    for what in ("split", "patient", "label"):
        ours, theirs = both[f"{what}_here"], both[what]
        differs = (ours != theirs) & ~(ours.isna() & theirs.isna()) & ~here & ~there
        unlike[f"has another {what} than in {first.name}"] = differs
    exams = {int(np.flatnonzero(rows)[0]): said for said, rows in unlike.items() if rows.any()}
    if exams:
        row = min(exams)
        reason = f"exam {both['path'][row]} {exams[row]}"
        raise DataError([Problem(run.name, reason, "train the runs of a finding on one split")])
