"""Several runs side by side: their curves, their settings, and what they reach on the test part.

    python -m medkeras.evaluation.compare RUN RUN ... --out comparison
    python -m medkeras.evaluation.compare saved_models/knee_mri_grid/20250101-120000-ab12

A folder of several runs, a grid or folds, stands for its runs; without --out the comparison is
written there. Writes comparison.html, comparison.png and comparison.csv; no run is changed.

Where runs were tested on the same pictures, each is compared with the one that was best on the
validation part: by the paired difference of test AUC, patients resampled. The test part never
chooses. The intervals are not widened for the number of runs.
"""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from medkeras.errors import MedkerasError, UsageError
from medkeras.evaluation import curves, paired, records
from medkeras.evaluation.pages import number, rendered
from medkeras.files import atomic
from medkeras.preparation import control

TEMPLATE = Path(__file__).with_name("compare.html.j2")
LONGEST = 40  # characters of a setting that are shown
SIDES = {"train": "", "validation": "val_"}


def write(folder, members) -> str:
    """Writes the comparison of runs into a folder.

    Args:
        folder: it must exist; an older comparison in it is replaced.
        members: folders of the runs, finished or not.

    Returns:
        The table in words and where the comparison lies, for the terminal.

    Raises:
        UsageError: a folder is no run.
        DataError: a file of a run cannot be read.
    """
    folder, runs = Path(folder), records.read(members)
    settings = differing(runs)
    best, differences, notes = paired.pairs(runs)
    rows = [_row(run) | _columns("difference", differences.get(run.name)) for run in runs]
    for row in rows:
        row["difference_from"] = best.name if row["run"] in differences else None
    atomic.write_csv(folder / "comparison.csv", _table(settings, rows))
    drawn = curves.compared(runs)
    atomic.write_bytes(folder / "comparison.png", drawn)
    shown = _shown(runs, settings, rows)
    notes = [*_remarks(runs), *notes]
    worded = {name: paired.words(entry) for name, entry in differences.items()}
    context = {
        "table": shown,
        "figure": drawn,
        "unfinished": [run.name for run in runs if run.missing],
        "best": best,
        "differences": worded,
        "notes": notes,
        "synthetic": any(run.synthetic for run in runs),
        "date": datetime.now(UTC).strftime("%d %B %Y"),
    }
    page = folder / "comparison.html"
    atomic.write_text(page, rendered(TEMPLATE, context))
    lines = [aligned(shown), ""]
    if best:
        lines.append(
            f"Test AUC minus that of {best.name}, which was best on the validation part "
            f"(AUC {best.validated:.3f} there):"
        )
        lines += [f"  {name}: {said}" for name, said in worded.items()]
    return "\n".join([*lines, *notes, f"comparison: {page}"])


def differing(runs) -> list[dict]:
    """Returns each run's settings, those in which the runs differ; None where it has none.

    A setting that says the same as one before it, such as a rule of training that a
    hyperparameter fixes, is left out, and so is what follows from the others.
    """
    every = [run.settings for run in runs]
    kept = {}
    for name in dict.fromkeys(name for own in every for name in own):
        told = {json.dumps(own[name], sort_keys=True) for own in every if name in own}
        values = [own.get(name) for own in every]
        if len(told) > 1 and not (name.startswith("stage_") and values in kept.values()):
            kept[name] = values
    return [{name: values[k] for name, values in kept.items()} for k in range(len(runs))]


def aligned(rows) -> str:
    """Formats rows of text as columns, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))]
        ).rstrip()
        for row in rows
    )


def main(arguments=None) -> int:
    """Runs the command line above; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the comparison")
    given = parser.parse_args(arguments)
    try:
        several = [run for run in given.runs if records.expanded([run]) != [run.resolve()]]
        out = given.out or (several[0] if len(several) == 1 else Path("comparison"))
        if any(path.exists() and not path.is_dir() for path in [out, *out.parents]):
            raise UsageError(f"--out {out}: is a file, or lies below one")
        out.mkdir(parents=True, exist_ok=True)
        print(write(out, given.runs))
    except MedkerasError as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    return 0


def _table(settings, rows):
    table = []
    for own, row in zip(settings, rows):
        # A setting may have the name of another column.
        own = {name if name not in row else f"{name} (set)": own[name] for name in own}
        table.append({"run": row["run"], "status": row["status"], **own, **row})
    return pd.DataFrame(table)


def _row(run):
    """Numbers of a run, None where there are none: the columns of comparison.csv."""
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


def _columns(name, entry):
    """A number and its interval as columns, empty where there is none."""
    ends = {"value": "", "low": "_low", "high": "_high"}
    return {f"{name}{end}": (entry or {}).get(key) for key, end in ends.items()}


def _shown(runs, settings, rows):
    """The table as text, for the page and the terminal; its first row is the head."""
    names = list(settings[0])
    head = ["run", *names, "epochs", "best", "loss at best", "AUC at best"]
    head += ["loss at last", "AUC at last", "test AUC (95 %)", "n"]
    table = [head]
    for run, own, row in zip(runs, settings, rows):
        cells = [run.name, *(_short(own[name]) for name in names)]
        cells += [str(row["epochs"]), _number(row["best_epoch"], "d")]
        for when in ("best", "last"):
            for what in ("loss", "auc"):
                sides = [_number(row[f"{side}_{what}_{when}"], ".3f") for side in SIDES]
                cells.append(" / ".join(sides))
        cells.append(number(run.metrics["mean"]["auc"], 3) if run.metrics else "unfinished")
        table.append([*cells, _number(row["test_n"], "d")])
    return table


def _number(value, form):
    return "-" if value is None else f"{value:{form}}"


def _short(value):
    if value is None:
        return "-"
    text = f"{value:g}" if isinstance(value, float) else value
    text = text if isinstance(text, str) else json.dumps(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _remarks(runs):
    """Sentences without which the table or the figure could be misread."""
    found = ["Pairs of numbers are training / validation; best is the epoch that was kept."]
    if any(run.missing for run in runs):
        named = "; ".join(f"{run.name} ({run.missing})" for run in runs if run.missing)
        found.append(f"Not finished, so shown as far as they got: {named}.")
    if any("stage" in run.history and run.history["stage"].nunique() > 1 for run in runs):
        found.append("Epochs are counted over all stages; the best is one of the last stage.")
    if any("auc" not in run.history and run.curves()["auc"].notna().any() for run in runs):
        found.append("AUC over the epochs is the mean over the labels of that epoch.")
    if any(len(run.metrics.get("classes", ())) > 1 for run in runs):
        found.append("Test AUC is the mean over the labels or classes in which it is defined.")
    for run in runs:
        null = run.environment.get("data", {}).get("null_control")
        if null:
            found.append(f"{run.name} is a null control, {control.NULLS[null]}.")
    return found


if __name__ == "__main__":
    sys.exit(main())
