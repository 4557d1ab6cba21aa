"""Runs made of several: the folds of a cross-validation, the nulls of the null control, a grid.

Each part is a run of the same page in a folder of its own, and complete in itself. What they say
together is read from the files in their folders.
"""

import hashlib
import re
from argparse import Namespace
from dataclasses import dataclass
from statistics import NormalDist

import pandas as pd

from medkeras.errors import ControlFailed, UsageError
from medkeras.files import atomic
from medkeras.files.places import cache_folder
from medkeras.preparation import control
from medkeras.training import folder as folders
from medkeras.training import outcome

CHANCE = 0.5
LONGEST = 80  # characters of a folder's name
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # on Windows


@dataclass(frozen=True)
class Part:
    """One of several runs.

    Args:
        name: of its folder.
        words: what it is, for the terminal.
        fold: (k, K), or None.
        null: "permuted" or "noise", or None.
        values: settings by name that a run of a grid has fixed, or None.
    """

    name: str
    words: str
    fold: tuple[int, int] | None = None
    null: str | None = None
    values: dict | None = None


def of(flags) -> list[Part]:
    """Returns the parts that the flags ask for; none for a single run.

    Args:
        flags: from `commandline.parse`; `.grid` is a list of dicts, one a run, from the page.

    Raises:
        UsageError: a flag that makes several runs of its own, or sets what the grid sets.
    """
    if flags.grid:
        return _of_grid(flags)
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


def _of_grid(flags):
    count = len(flags.grid)
    others = {"folds": flags.folds, "null-control": flags.null_control, "tune": flags.tune}
    for flag, given in others.items():
        if given:
            raise UsageError(f"--{flag}: this page is a grid of {count} runs already; leave it out")
    own = {name for values in flags.grid for name in values}
    for pair in flags.set:
        name = pair.split("=", 1)[0]
        if name in own:
            raise UsageError(
                f"--set {name}: the grid of this page sets it for each of its {count} runs; "
                "leave it out, or change the grid"
            )
    parts = []
    for number, values in enumerate(flags.grid, 1):
        name = _folder_name(values.values(), {part.name.lower() for part in parts})
        said = ", ".join(f"{key} {value}" for key, value in values.items())
        parts.append(Part(name, f"run {number} of {count}, {said}", values=values))
    return parts


def _folder_name(values, taken):
    """Names a folder by values; safe on every system, and not `taken`, which is in lower case."""
    text = re.sub(r"[^A-Za-z0-9.+-]+", "_", "-".join(map(str, values)))
    text = text[:LONGEST].rstrip(".")
    if not text[:1].isalnum() or DEVICES.match(text):
        text = f"run-{text}"
    name, number = text, 1
    while name.lower() in taken:
        number += 1
        name = f"{text}-{number}"
    return name


def same_grid(flags, stored) -> None:
    """Refuses to go on with a grid that is not the one that was begun.

    Args:
        flags: of this call.
        stored: flags of the call that began the run; empty where it was killed before.

    Raises:
        UsageError: the page holds another grid now.
    """
    if stored and stored.get("grid", []) != flags.grid:
        raise UsageError(
            "the grid of this page is not what it was when the run began: "
            "restore it, or start another run with another --out"
        )


def flags_of(flags, part) -> Namespace:
    """Returns the flags of one part: a run of a grid has its values as if each came by `--set`."""
    if part.values is None:
        return flags
    pairs = [f"{name}={value}" for name, value in part.values.items()]
    return Namespace(**{**vars(flags), "grid": [], "set": [*flags.set, *pairs]})


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
        content = hashlib.sha256("".join(table["sha256"]).encode()).hexdigest()[:16]
        place = cache_folder() / "noise" / f"{run.experiment}-{run.seed}-{content}"
        return control.noise(table, run.seed, place)
    return table


def summary(folder, parts, compare=None) -> str:
    """Writes down what the parts found together, and says it.

    Folds: `folds.csv`, a row a fold. Nulls: `null_control.json`. A null fails where its AUC, the
    mean or where that has no interval any class's, lies above chance by a 99 % interval: of
    honest pipelines about one in a hundred does. It is inconclusive where no AUC has an interval.
    A grid: what `compare` writes.

    Args:
        folder: of the whole run.
        parts: from `of`, all finished.
        compare: function of (folder, folders of the runs) that compares the runs of a grid,
            writes into the folder and returns what to say; None compares nothing.

    Returns:
        A few lines for the terminal.

    Raises:
        ControlFailed: a null found something, or could not be judged.
    """
    if parts[0].values is not None:
        done = f"{len(parts)} runs of the grid are finished"
        said = compare(folder, [folder / part.name for part in parts]) if compare else None
        return f"{done}:\n{said}" if said else done
    if parts[0].fold:
        return _of_folds(folder, parts)
    return _of_nulls(folder, parts)


def _of_folds(folder, parts):
    rows, tested = [], set()
    for part in parts:
        found = folders.read(folder / part.name / "metrics.json")
        auc = outcome.overall(found) if found else dict.fromkeys(("value", "low", "high"))
        rows.append(
            {
                "part": part.name,
                "n": found.get("n"),
                "auc": auc["value"],
                "auc_low": auc["low"],
                "auc_high": auc["high"],
                "accuracy": found["accuracy"]["value"] if found else None,
            }
        )
        split = pd.read_csv(folder / part.name / "split.csv", dtype=str)
        tested.add(tuple(split.loc[split["split"] == "test", "path"]))
    table = pd.DataFrame(rows)
    atomic.write_csv(folder / "folds.csv", table)
    lines = [f"{len(table)} folds (folds.csv):"]
    for name in ("auc", "accuracy"):
        values = table[name].dropna().astype(float)
        if len(values) > 1:
            lines.append(
                f"  {name}: mean {values.mean():.3f}, standard deviation {values.std():.3f}, "
                f"from {values.min():.3f} to {values.max():.3f} in {len(values)} folds"
            )
    if len(tested) == 1:
        lines.append(
            "  the published test part is the same in all of them: they differ in what was "
            "trained and validated on; with --resplit every patient is tested on once"
        )
    return "\n".join(lines)


def _of_nulls(folder, parts):
    nulls = [{"null": part.null, **_judged(folder / part.name)} for part in parts]
    outcomes = {null["outcome"] for null in nulls}
    worst = next(word for word in ("failed", "inconclusive", "passed") if word in outcomes)
    content = {"chance": CHANCE, "outcome": worst, "nulls": nulls}
    atomic.write_json(folder / "null_control.json", content)
    lines = [f"null control {worst} (null_control.json):"]
    lines += [f"  {null['null']}: {null['words']}" for null in nulls]
    if worst == "failed":
        lines.append(
            "  the test part is recognised where there is nothing to learn: look for pictures of "
            "it, or of its patients, in training; about one honest pipeline in a hundred is "
            "accused by chance, so try another --seed and --out too"
        )
    if worst == "inconclusive":
        lines.append("  a leak would not have been seen: more patients are needed")
    if worst != "passed":
        raise ControlFailed("\n".join(lines))
    return "\n".join(lines)


def _judged(folder):
    """Judges a null by its metrics: outcome, words, the AUCs with 99 % intervals."""
    found = folders.read(folder / "metrics.json")
    if not found:
        return {"outcome": "inconclusive", "words": "the page wrote no metrics.json", "auc": {}}
    mean = {"mean": outcome.overall(found)}
    asked = mean if mean["mean"]["low"] is not None else _classes(found)
    asked = {name: auc for name, auc in asked.items() if auc["low"] is not None}
    aucs = {name: _wider(auc, len(asked)) for name, auc in asked.items()}
    if not aucs:
        words = "too few patients for an interval, or one class is missing"
        return {"outcome": "inconclusive", "words": words, "auc": {}}
    worst = max(aucs, key=lambda name: aucs[name]["low"])
    value, low, high = (aucs[worst][key] for key in ("value", "low", "high"))
    leaks = low > CHANCE
    said = f"AUC {value:.2f} ({low:.2f}-{high:.2f})" + (f" of {worst}" if worst != "mean" else "")
    where = "chance (0.50) lies below the interval" if leaks else "includes chance (0.50)"
    if high < CHANCE:
        where = "below chance: no leak, but an odd split; try another --seed"
    return {
        "outcome": "failed" if leaks else "passed",
        "words": f"{said}, {where}{_unlearned(folder)}",
        "auc": aucs,
    }


def _classes(found):
    return {name: own["auc"] for name, own in found["classes"].items()}


def _wider(auc, looked_at):
    # From 95 to 99 % as a normal one would widen: two nulls, and a heavy accusation. The worst of
    # several is as rare as one alone only where each has its share of the error (Bonferroni).
    normal = NormalDist()
    wider = normal.inv_cdf(1 - 0.005 / looked_at) / normal.inv_cdf(0.975)
    return {
        "value": auc["value"],
        "low": auc["value"] - wider * (auc["value"] - auc["low"]),
        "high": auc["value"] + wider * (auc["high"] - auc["value"]),
    }


def _unlearned(folder):
    """Says so where the model did not even learn its training part, for then no leak shows."""
    losses = pd.read_csv(folder / "history.csv")["loss"]
    if losses.min() > 0.9 * losses.iloc[0]:
        return "; but the training loss hardly fell: train longer, or a leak may not show"
    return ""
