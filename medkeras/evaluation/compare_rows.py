"""The table of a comparison: what each run was set to, what it reached, and the differences."""

import json

import pandas as pd

from medkeras.evaluation.numbers import grades, paired
from medkeras.evaluation.writing.pages import number

LONGEST = 40  # characters of a setting that are shown
SIDES = {"train": "", "validation": "val_"}


def numbers(runs, best, differences) -> list[dict]:
    """Collects the numbers of each run, None where there are none.

    Args:
        runs: list of `records.Record`.
        best: the run that the others were compared with, or None.
        differences: from `paired.pairs`.
    """
    scored, rows = best.scored if best else [], []
    for run in runs:
        row = _row(run) | _difference("difference", differences.get(run.name))
        row["difference_from"] = best.name if run.name in differences else None
        if any(run.scored for run in runs):
            row |= _of_scored(run, differences, scored)
        if any(grades.named(run.metrics) for run in runs):
            row |= _of_grades(run, differences.get(run.name, {}))
        rows.append(row)
    return rows


def table(settings, rows) -> pd.DataFrame:
    """Makes the table of comparison.csv: a row a run, settings before numbers."""
    found = []
    for own, row in zip(settings, rows):
        # A setting may have the name of another column.
        own = {name if name not in row else f"{name} (set)": own[name] for name in own}
        found.append({"run": row["run"], "status": row["status"], **own, **row})
    return pd.DataFrame(found)


def pairs(differences) -> pd.DataFrame:
    """Makes the table of comparison_pairs.csv: of each pair of runs the first minus the second.

    Args:
        differences: from `paired.every`.
    """
    rows = [
        {"run": run, "minus": other, "of": kind, **_difference("difference", one), "n": one["n"]}
        for (run, other), entry in differences.items()
        for kind, one in paired.kinds(entry).items()
    ]
    return pd.DataFrame(rows)


def _row(run):
    """Numbers of a run alone."""
    curves, best = run.curves(), run.best()
    epochs = len(curves)
    row = {"run": run.name, "status": run.missing or "finished", "epochs": epochs}
    row["best_epoch"] = None if best is None else best + 1
    for when, at in (("best", best), ("last", epochs - 1 if epochs else None)):
        for what in ("loss", "auc"):
            for side, prefix in SIDES.items():
                value = None if at is None else curves[prefix + what][at]
                row[f"{side}_{what}_{when}"] = None if pd.isna(value) else float(value)
    row["kept_validation_auc"] = run.validated
    tested = run.metrics["mean"]["auc"] if run.metrics else {}
    return row | _columns("test_auc", tested) | {"test_n": tested.get("n")}


def _of_scored(run, differences, scored):
    """Numbers of the findings that runs score: the mean, its difference and that of each."""
    found = differences.get(run.name, {})
    row = _columns("scored_auc", run.metrics["scored"]["auc"] if run.scored else None)
    row |= _difference("scored_difference", found.get("scored"))
    for name in scored:
        row |= _difference(f"difference {name}", found.get("findings", {}).get(name))
    return row


def _of_grades(run, difference):
    """Numbers that only grades have, and their differences."""
    found = run.metrics
    row = _columns("kappa", found.get("kappa")) | _columns("grade_error", found.get("grade_error"))
    row |= _columns("oa_auc", found.get("oa", {}).get("auc"))
    for name, entry in difference.get("grades", {}).items():
        row |= _difference(f"difference {name}", entry)
    return row


def _columns(name, entry, more=()):
    """A number and its interval as columns, empty where there is none."""
    ends = {"value": "", **{key: f"_{key}" for key in ("low", "high", *more)}}
    return {f"{name}{end}": (entry or {}).get(key) for key, end in ends.items()}


def _difference(name, entry):
    """A difference as columns."""
    return _columns(name, entry, ("p", "standard_error", "detectable"))


def shown(runs, settings, rows) -> list[list[str]]:
    """Makes the table as text, for the page and the terminal; its first row is the head."""
    names = list(settings[0])
    several = any(run.scored for run in runs)
    tested = ["scored test AUC (95 %)", "of all (95 %)"] if several else ["test AUC (95 %)"]
    of_grades = list(dict.fromkeys(name for run in runs for name in grades.named(run.metrics)))
    # What was found stands first: settings can be many and wide.
    head = ["run", *tested, *(f"{name} (95 %)" for name in of_grades), "n", *names]
    head += ["epochs", "best", "loss at best", "AUC at best", "loss at last", "AUC at last"]
    found = [head]
    for run, values, row in zip(runs, settings, rows):
        cells = [run.name]
        if several:
            cells.append(number(run.metrics["scored"]["auc"], 3) if run.scored else "-")
        cells.append(number(run.metrics["mean"]["auc"], 3) if run.metrics else "unfinished")
        own = grades.named(run.metrics)
        cells += [number(own[name], 3) if name in own else "-" for name in of_grades]
        cells += [_number(row["test_n"], "d"), *(_short(values[name]) for name in names)]
        cells += [str(row["epochs"]), _number(row["best_epoch"], "d")]
        for when in ("best", "last"):
            for what in ("loss", "auc"):
                sides = [_number(row[f"{side}_{what}_{when}"], ".3f") for side in SIDES]
                cells.append(" / ".join(sides))
        found.append(cells)
    return found


def _number(value, form):
    return "-" if value is None else f"{value:{form}}"


def _short(value):
    if value is None:
        return "-"
    text = f"{value:g}" if isinstance(value, float) else value
    text = text if isinstance(text, str) else json.dumps(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
