"""Runs made of several: the folds of a cross-validation, and the two nulls of the null control.

Each part is a run of the same page in a folder of its own, and complete in itself. What they say
together is read from their `metrics.json`.
"""

from dataclasses import dataclass

import pandas as pd

from medkeras.errors import Leaking
from medkeras.files import atomic
from medkeras.files.places import cache_folder
from medkeras.preparation import control
from medkeras.training import folder as folders


@dataclass(frozen=True)
class Part:
    """One of several runs.

    Args:
        name: of its folder.
        words: what it is, for the terminal.
        fold: (k, K), or None.
        null: "permuted" or "noise", or None.
    """

    name: str
    words: str
    fold: tuple[int, int] | None = None
    null: str | None = None


def of(flags) -> list[Part]:
    """Returns the parts that the flags ask for; none for a single run."""
    if flags.folds:
        number = flags.folds
        return [
            Part(f"fold-{k + 1}", f"part {k + 1} of {number} is held out", fold=(k, number))
            for k in range(number)
        ]
    if flags.null_control:
        return [
            Part(null, f"{words}; nothing can be learned", null=null)
            for null, words in control.NULLS.items()
        ]
    return []


def nulled(table, run) -> pd.DataFrame:
    """Makes a table one without anything to learn, where the run is a null.

    Args:
        table: from the audit.
        run: `.part`, `.seed`, `.experiment`.
    """
    null = run.part and run.part.null
    if null == "permuted":
        return control.permuted(table, run.seed)
    if null == "noise":
        place = cache_folder() / "noise" / f"{run.experiment}-{run.seed}"
        return control.noise(table, run.seed, place)
    return table


def summary(folder, parts) -> str:
    """Writes down what the parts found together, and says it.

    Folds: `folds.csv`, a row a fold. Nulls: `null_control.json`.

    Args:
        folder: of the whole run.
        parts: from `of`, all finished.

    Returns:
        A few lines for the terminal.

    Raises:
        Leaking: the score of a null lies above chance.
    """
    rows = [{"part": part.name} | _score(folder / part.name) for part in parts]
    if parts[0].fold:
        return _of_folds(folder, pd.DataFrame(rows))
    return _of_nulls(folder, rows)


def _score(folder):
    found = folders.read(folder / "metrics.json")
    if not found:
        return dict.fromkeys(("n", "auc", "auc_low", "auc_high", "accuracy"))
    auc = found["mean"]["auc"]
    return {
        "n": found["n"],
        "auc": auc["value"],
        "auc_low": auc["low"],
        "auc_high": auc["high"],
        "accuracy": found["accuracy"]["value"],
    }


def _of_folds(folder, table):
    atomic.write_csv(folder / "folds.csv", table)
    lines = [f"{len(table)} folds (folds.csv):"]
    for name in ("auc", "accuracy"):
        values = table[name].dropna().astype(float)
        if len(values) > 1:
            lines.append(
                f"  {name}: mean {values.mean():.3f}, standard deviation {values.std():.3f}, "
                f"from {values.min():.3f} to {values.max():.3f} in {len(values)} folds"
            )
    return "\n".join(lines)


def _of_nulls(folder, rows):
    for row in rows:
        row["verdict"] = _verdict(row["auc"], row["auc_low"], row["auc_high"])
    atomic.write_json(folder / "null_control.json", {"chance": 0.5, "nulls": rows})
    lines = [f"  {row['part']}: {row['verdict']}" for row in rows]
    if any(row["auc_low"] is not None and row["auc_low"] > 0.5 for row in rows):
        raise Leaking(
            "\n".join(
                [
                    "the null control failed: the test part is recognised where there is nothing "
                    "to learn, so pictures of it, or of its patients, reach training",
                    *lines,
                ]
            )
        )
    return "\n".join(["null control passed (null_control.json):", *lines])


def _verdict(value, low, high):
    if value is None:
        return "no AUC was found: the page wrote no metrics.json, or one class is missing"
    if low is None:
        return f"AUC {value:.2f}, too few patients for an interval: nothing is shown"
    said = f"AUC {value:.2f} ({low:.2f}-{high:.2f})"
    if low > 0.5:
        return f"{said}, chance (0.50) lies below the interval"
    if high < 0.5:
        return f"{said}, below chance: no leak, but an odd split; try another --seed"
    return f"{said} includes chance (0.50)"
