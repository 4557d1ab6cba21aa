"""Paired differences of AUC: two models on the same exams, patients resampled for both at once."""

import numpy as np

from medkeras.evaluation import metrics, statistics

NOT_PAIRED = (
    "The runs are not paired, because no two that have a validation AUC were tested on the same "
    "pictures with the same labels and are scored by the same findings: what differs may be the "
    "pictures, not the models."
)


def part(predictions, split):
    """Returns the rows of one split in the order of their paths, so that runs can be paired."""
    own = predictions[predictions["split"] == split]
    return own.sort_values("path", kind="stable").reset_index(drop=True)


def same(first, second) -> bool:
    """Says whether two tables from `part` hold the same exams of the same patients and labels."""
    if metrics.class_names(first) != metrics.class_names(second):
        return False
    labels, others = metrics.arrays(first)[0], metrics.arrays(second)[0]
    keys = ["path", "patient"]
    return first[keys].equals(second[keys]) and np.array_equal(labels, others, equal_nan=True)


def difference(first, second, seed=0, classes=None) -> dict:
    """Computes the AUC of one model minus that of another, with its paired 95 % interval.

    Of several classes it is the mean over those in which the AUC is defined.

    Args:
        first: table from `part`.
        second: table of the other model, for which `same` holds.
        seed: of the bootstrap over patients.
        classes: names of those to look at; None for all.

    Returns:
        {"value", "low", "high", "n"}; the value is None where no AUC is defined, the interval
        where fewer than ten patients stand on either side of a class.
    """
    labels, ours, names = metrics.arrays(first)
    _, theirs, _ = metrics.arrays(second)
    asked = np.isin(names, names if classes is None else classes)
    patients = first["patient"].astype(str).to_numpy()
    entry = {"value": None, "low": None, "high": None, "n": len(first)}
    positive, negative = labels == 1, labels == 0
    defined = np.flatnonzero(positive.any(axis=0) & negative.any(axis=0) & asked)
    if not len(defined):
        return entry
    found = statistics.difference(
        _mean_auc(labels, ours, defined), _mean_auc(labels, theirs, defined), patients, seed=seed
    )
    entry["value"] = found["value"]
    behind = min(len(set(patients[side[:, k]])) for k in defined for side in (positive, negative))
    if behind < statistics.FEWEST_PATIENTS:
        return entry
    return entry | {"low": found["low"], "high": found["high"]}


def pairs(runs) -> tuple:
    """Compares runs that were tested on the same pictures with the best one on validation.

    Args:
        runs: list of `records.Record`.

    Returns:
        (the best run on validation, {name of another: `difference` to it}, sentences about what
        was not compared). The run is None where no two can be paired. Of runs that score a few of
        their findings a difference has "scored", that of the mean over these, and "findings",
        that of each. Findings that either run was never trained on are left out.
    """
    done = [run for run in runs if run.metrics and run.predictions is not None]
    tests = {run.name: part(run.predictions, "test") for run in done}
    groups = []
    for run in done:
        if run.validated is None or tests[run.name].empty:
            continue
        alike = [
            one
            for one in groups
            if one[0].scored == run.scored and same(tests[one[0].name], tests[run.name])
        ]
        alike[0].append(run) if alike else groups.append([run])
    group = max(groups, key=len, default=[])
    if len(group) < 2:
        return None, {}, [NOT_PAIRED] if len(done) > 1 else []
    best = max(group, key=lambda run: run.validated)
    found = {
        run.name: _of_runs(run, best, tests[run.name], tests[best.name])
        for run in group
        if run is not best
    }
    notes = []
    alone = [run.name for run in done if run not in group]
    if alone:
        notes.append(
            f"Not paired, because tested on other pictures or labels than {best.name}"
            f"{', scored by other findings' * bool(best.scored)} or without a validation AUC: "
            f"{', '.join(alone)}."
        )
    chose = part(best.predictions, "val")
    if not all(same(chose, part(run.predictions, "val")) for run in group):
        notes.append(
            f"The validation parts differ, so {best.name} may owe its place to an easier one."
        )
    never = sorted({name for run in group for name in run.untrained})
    if never:
        names = ", ".join(never)
        notes.append(f"Never trained in at least one run, so left out of its differences: {names}.")
    if any(run.untrained != best.untrained for run in group):
        notes.append(
            "The validation AUCs are not means over the same findings, for the runs were not "
            f"trained on the same ones: {best.name} may owe its place to that."
        )
    return best, found, notes


def words(entry) -> str:
    """Words a difference: "+0.020 (-0.010 to 0.050): no evidence of a difference"."""
    if entry["value"] is None:
        return f"undefined: {entry.get('undefined', 'one class is missing')}"
    text = f"{entry['value']:+.3f}"
    if entry["low"] is None:
        return f"{text}: too few patients for an interval"
    text = f"{text} ({entry['low']:.3f} to {entry['high']:.3f})"
    if not clear(entry):
        return f"{text}: no evidence of a difference"
    return f"{text}: {'higher' if entry['low'] > 0 else 'lower'}"


def clear(entry) -> bool:
    """Says whether the interval of a difference excludes zero."""
    return entry["low"] is not None and not entry["low"] <= 0 <= entry["high"]


def _of_runs(run, best, ours, theirs):
    """Differences over all findings that both runs were trained on, and of the scored ones."""
    never = {*run.untrained, *best.untrained}
    taught = [name for name in metrics.class_names(ours) if name not in never]
    found = difference(ours, theirs, classes=taught)
    if not best.scored:
        return found
    each = {name: difference(ours, theirs, classes=[name]) for name in best.scored}
    for name in never & set(each):
        nothing = {"value": None, "low": None, "high": None, "n": len(ours)}
        each[name] = nothing | {"undefined": "never trained in one of the two"}
    scored = difference(ours, theirs, classes=[name for name in each if name not in never])
    return found | {"scored": scored, "findings": each}


def _mean_auc(labels, scores, classes):
    parts = []
    for k in classes:
        known = np.isfinite(labels[:, k])
        parts.append((known, statistics.auc(labels[known, k] == 1, scores[known, k])))
    return lambda weights: np.mean([value(weights[:, known]) for known, value in parts], axis=0)
