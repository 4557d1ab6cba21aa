"""Paired differences of AUC: two models on the same exams, patients resampled for both at once.

Where none is found it is said how large one must be to be found: 80 % of true differences of the
size `DETECTED` x standard error are, at a level of 5 % (Bloom, "Minimum Detectable Effects",
Evaluation Review 1995).
"""

from itertools import combinations

import numpy as np

from medkeras.evaluation.numbers import grades, metrics, statistics

DETECTED = 1.96 + 0.84  # quantiles of the normal distribution, 97.5 % and 80 %
NUMBERS = ("low", "high", "p", "standard_error", "detectable")
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
        "value", its interval "low" and "high", "p" (two-sided), "standard_error", "detectable"
        (the smallest difference that would probably have been shown) and "n". The value is None
        where no AUC is defined, all but n where fewer than ten patients stand on either side of a
        class.
    """
    labels, ours, names = metrics.arrays(first)
    _, theirs, _ = metrics.arrays(second)
    asked = np.isin(names, names if classes is None else classes)
    patients = first["patient"].astype(str).to_numpy()
    positive, negative = labels == 1, labels == 0
    defined = np.flatnonzero(positive.any(axis=0) & negative.any(axis=0) & asked)
    if not len(defined):
        return _nothing(first)
    both = (_mean_auc(labels, ours, defined), _mean_auc(labels, theirs, defined))
    groups = [side[:, k] for k in defined for side in (positive, negative)]
    return _entry(both, patients, groups, seed)


def pairs(runs) -> tuple:
    """Compares runs that were tested on the same pictures with the best one on validation.

    Args:
        runs: list of `records.Record`.

    Returns:
        (the best run on validation, {name of another: `difference` to it}, sentences about what
        was not compared). The run is None where no two can be paired. Of runs that score a few of
        their findings a difference has "scored", that of the mean over these, and "findings",
        that of each. Findings that either run was never trained on are left out. Of runs of grades
        it has "grades", those of their numbers by name.
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


def every(runs) -> dict:
    """Compares each of several runs with all before it.

    Args:
        runs: list of `records.Record`, all tested on the same pictures.

    Returns:
        {(name of a run, name of one before it): `difference`, the first minus the second, as in
        `pairs`}.
    """
    tests = {run.name: part(run.predictions, "test") for run in runs}
    return {
        (run.name, other.name): _of_runs(run, other, tests[run.name], tests[other.name])
        for other, run in combinations(runs, 2)
    }


def words(entry) -> str:
    """Words a difference: "+0.020 (-0.010 to 0.050), p = 0.212: no evidence of a difference"."""
    if entry["value"] is None:
        return f"undefined: {entry.get('undefined', 'one class is missing')}"
    text = f"{entry['value']:+.3f}"
    if entry["low"] is None:
        return f"{text}: too few patients for an interval"
    chance = f"p = {entry['p']:.3f}" if entry["p"] >= 0.001 else "p < 0.001"
    text = f"{text} ({entry['low']:.3f} to {entry['high']:.3f}), {chance}"
    if clear(entry):
        return f"{text}: {'higher' if entry['low'] > 0 else 'lower'}"
    text = f"{text}: no evidence of a difference"
    if not entry["detectable"]:  # two models that answer alike
        return text
    return f"{text} (a difference below {entry['detectable']:.3f} could not have been shown)"


def kinds(entry) -> dict:
    """Returns what a difference from `pairs` or `every` consists of, by name."""
    if "scored" in entry:
        return {"mean of the scored findings": entry["scored"], "mean of all findings": entry}
    if "grades" in entry:
        return {"mean AUC of the grades": entry, **entry["grades"]}
    return {"test AUC": entry}


def clear(entry) -> bool:
    """Says whether the interval of a difference excludes zero."""
    return entry["low"] is not None and not entry["low"] <= 0 <= entry["high"]


def _of_runs(run, best, ours, theirs):
    """Differences over all findings that both runs were trained on, and of the scored ones."""
    never = {*run.untrained, *best.untrained}
    taught = [name for name in metrics.class_names(ours) if name not in never]
    found = difference(ours, theirs, classes=taught)
    if grades.named(run.metrics) and grades.named(best.metrics):
        found["grades"] = _of_grades(run.metrics, best.metrics, ours, theirs)
    if not best.scored:
        return found
    each = {name: difference(ours, theirs, classes=[name]) for name in best.scored}
    for name in never & set(each):
        each[name] = _nothing(ours) | {"undefined": "never trained in one of the two"}
    scored = difference(ours, theirs, classes=[name for name in each if name not in never])
    return found | {"scored": scored, "findings": each}


def _of_grades(run, best, ours, theirs):
    """Differences of what both runs' metrics say of their grades, by name."""
    names = [name for name in grades.named(run) if name in grades.named(best)]
    lowest = run["oa"]["from"] if len(names) > 2 else None
    mine, others = (grades.asked(*metrics.arrays(own)[:2], lowest) for own in (ours, theirs))
    patients, found = ours["patient"].astype(str).to_numpy(), {}
    for name, one, other in zip(names, mine.values(), others.values(), strict=True):
        both, defined = (one.function, other.function), None not in (one.value, other.value)
        found[name] = _entry(both, patients, one.groups) if defined else _nothing(ours)
    return found


def _nothing(table):
    return {"value": None, **dict.fromkeys(NUMBERS), "n": len(table)}


def _entry(both, patients, groups, seed=0):
    """Judges the difference of two statistics; `groups` of pictures must have enough patients."""
    found = statistics.difference(*both, patients, seed=seed)
    entry = dict.fromkeys(NUMBERS) | {"value": found["value"], "n": len(patients)}
    if min(len(set(patients[group])) for group in groups) < statistics.FEWEST_PATIENTS:
        return entry
    found["detectable"] = DETECTED * found["standard_error"]
    return entry | {name: found[name] for name in NUMBERS}


def _mean_auc(labels, scores, classes):
    parts = []
    for k in classes:
        known = np.isfinite(labels[:, k])
        parts.append((known, statistics.auc(labels[known, k] == 1, scores[known, k])))
    return lambda weights: np.mean([value(weights[:, known]) for known, value in parts], axis=0)
