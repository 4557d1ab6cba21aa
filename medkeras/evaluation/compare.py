"""Several runs side by side: their curves, their settings, and what they reach on the test part.

    python -m medkeras.evaluation.compare RUN RUN ... --out comparison
    python -m medkeras.evaluation.compare saved_models/knee_mri_grid/20250101-120000-ab12

A folder of several runs, a grid or folds, stands for its runs; without --out the comparison is
written there. Writes comparison.html, comparison.png and comparison.csv; no run is changed.

Where runs were tested on the same pictures, each is compared with the one that was best on the
validation part: by the paired difference of test AUC, patients resampled. The test part never
chooses. The intervals are not widened for the number of runs. Where no difference is found, it is
said how large one would have to be.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from medkeras import commands
from medkeras.errors import MedkerasError
from medkeras.evaluation import compare_rows, records
from medkeras.evaluation.figures import curves
from medkeras.evaluation.numbers import paired
from medkeras.evaluation.writing.pages import aligned, rendered
from medkeras.files import atomic
from medkeras.preparation import control
from medkeras.training.folder import refuse_files

TEMPLATE = Path(__file__).with_name("compare.html.j2")


def write(folder, members, each_pair=False) -> str:
    """Writes the comparison of runs into a folder.

    Args:
        folder: it must exist; an older comparison in it is replaced.
        members: folders of the runs, finished or not.
        each_pair: compares each run with all before it, as an ablation asks, instead of all with
            the one that was best on the validation part; writes comparison_pairs.csv too.

    Returns:
        The table in words and where the comparison lies, for the terminal.

    Raises:
        UsageError: a folder is no run.
        DataError: a file of a run cannot be read.
    """
    folder, runs = Path(folder), records.read(members)
    settings = differing(runs)
    best, differences, notes = paired.pairs(runs)
    scored = best.scored if best else []
    rows = compare_rows.numbers(runs, best, differences)
    atomic.write_csv(folder / "comparison.csv", compare_rows.table(settings, rows))
    drawn = curves.compared(runs)
    atomic.write_bytes(folder / "comparison.png", drawn)
    shown = compare_rows.shown(runs, settings, rows)
    notes = [*_remarks(runs), *notes]
    chosen = "mean AUC of the scored findings" if scored else "AUC"
    gaps = differences
    if each_pair and best:
        pairs = paired.every([run for run in runs if run is best or run.name in differences])
        atomic.write_csv(folder / "comparison_pairs.csv", compare_rows.pairs(pairs))
        gaps = {" minus ".join(names): entry for names, entry in pairs.items()}
    kinds = list(dict.fromkeys(kind for entry in gaps.values() for kind in paired.kinds(entry)))
    worded = {
        name: {kind: paired.words(one) for kind, one in paired.kinds(entry).items()}
        for name, entry in gaps.items()
    }
    context = {
        "table": shown,
        "figure": drawn,
        "unfinished": [run.name for run in runs if run.missing],
        "best": best,
        "chosen": chosen,
        "kinds": kinds,
        "differences": worded,
        "findings": {name: entry.get("findings", {}) for name, entry in gaps.items()},
        "each_pair": each_pair,
        "scored": scored,
        "clear": paired.clear,
        "notes": notes,
        "synthetic": any(run.synthetic for run in runs),
        "date": datetime.now(UTC).strftime("%d %B %Y"),
    }
    page = folder / "comparison.html"
    atomic.write_text(page, rendered(TEMPLATE, context))
    lines = [aligned(shown), ""]
    if best:
        which = f"which was best on the validation part ({chosen} {best.validated:.3f} there)"
        what = "of each pair of runs, among them" if each_pair else "minus that of"
        lines.append(f"Test AUC {what} {best.name}, {which}:")
        for name, said in worded.items():
            for kind, words in said.items():
                lines.append(f"  {name}: {f'{kind} ' if len(kinds) > 1 else ''}{words}")
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


def main(arguments=None) -> int:
    """Runs the command line above; returns its exit code."""
    parser = commands.parser("python -m medkeras.evaluation.compare", __doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the comparison")
    parser.add_argument("--each-pair", action="store_true", help="compare each pair of runs")
    given = parser.parse_args(arguments)
    try:
        several = [run for run in given.runs if records.expanded([run]) != [run.resolve()]]
        out = given.out or (several[0] if len(several) == 1 else Path("comparison"))
        refuse_files(out)
        out.mkdir(parents=True, exist_ok=True)
        print(write(out, given.runs, given.each_pair))
    except MedkerasError as fault:
        print(fault, file=sys.stderr)
        return fault.exit_code
    return 0


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
    for names in dict.fromkeys(tuple(run.scored) for run in runs if run.scored):
        found.append(f"Scored, as the unweighted mean of their AUCs: {', '.join(names)}.")
    for run in runs:
        null = run.environment.get("data", {}).get("null_control")
        if null:
            found.append(f"{run.name} is a null control, {control.NULLS[null]}.")
    return found


if __name__ == "__main__":
    sys.exit(main())
