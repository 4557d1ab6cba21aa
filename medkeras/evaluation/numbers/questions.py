"""Single numbers of an evaluation: the value, its interval, or why there is none."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from sklearn.metrics import average_precision_score, cohen_kappa_score, roc_auc_score

from medkeras.evaluation.numbers import statistics

NEVER = "never trained: no positive (or no negative) label in the training part"


@dataclass(frozen=True)
class Question:
    """One number asked of one split: its value, and how to recompute it on a resample."""

    value: float | None
    function: Callable
    n: int
    n_positive: int | None
    groups: list  # pictures (n,) bool: each group must have enough patients for an interval
    undefined: str  # why there is no value, if there is none
    share: bool = True  # of independent units: an exact interval exists at 0 and 1


def of_class(labels, probabilities, answers) -> dict[str, Question]:
    """Asks about one class against the rest, on the pictures with a known label.

    Args:
        labels: (n,) 1, 0 or NaN.
        probabilities: (n,).
        answers: (n,) bool.

    Returns:
        Questions by metric.
    """
    known = np.isfinite(labels)
    positive, negative = known & (labels == 1), known & (labels == 0)
    n, n_positive, n_negative = int(known.sum()), int(positive.sum()), int(negative.sum())
    y, p = positive[known], probabilities[known]
    ranked = n_positive > 0 and n_negative > 0

    def question(value, function, groups, undefined, share=True):
        return Question(value, function, n, n_positive, groups, undefined, share)

    def share(hits, among, undefined):
        value = float(hits[among].mean()) if among.any() else None
        return question(value, statistics.share(hits, among), [among], undefined)

    def curve(measure, area, undefined, defined, is_share):
        value = float(measure(y, p)) if defined else None
        on_known = area(y, p) if defined else None
        return question(
            value,
            lambda w: on_known(w[:, known]) if defined else np.full(len(w), np.nan),
            [positive, negative] if ranked else [positive],
            undefined,
            is_share,
        )

    missing = "0 positives" if n_positive == 0 else "0 negatives"
    return {
        "auc": curve(roc_auc_score, statistics.auc, missing, ranked, True),
        "sensitivity": share(answers, positive, "0 positives"),
        "specificity": share(~answers, negative, "0 negatives"),
        "accuracy": share(np.where(positive, answers, ~answers), known, "no known labels"),
        "pr_auc": curve(
            average_precision_score,
            statistics.average_precision,
            "0 positives",
            n_positive > 0,
            False,
        ),
    }


def overall(per_picture, known=None, share=True) -> Question:
    """Asks for the mean of a number that each picture has.

    Args:
        per_picture: (n,).
        known: (n,) bool, the pictures asked about; None for all.
        share: whether it is 0 or 1 of each picture.
    """
    known = np.ones(len(per_picture), dtype=bool) if known is None else known
    n = int(known.sum())
    value = float(per_picture[known].mean()) if n else None
    function = statistics.share(per_picture, known)
    return Question(value, function, n, None, [known], "nothing with a known label", share)


def kappa(truth, answer, grades) -> Question:
    """Asks for the quadratic-weighted kappa of (n,) grades and (n,) answers."""
    n = len(truth)
    value = None
    if len(set(truth) | set(answer)) > 1:
        every = list(range(grades))
        value = float(cohen_kappa_score(truth, answer, labels=every, weights="quadratic"))
    function = statistics.quadratic_kappa(truth, answer, grades)
    return Question(value, function, n, None, [np.ones(n, dtype=bool)], "one grade only", False)


def never(question) -> Question:
    """Makes the question of a finding that training could not teach: it has no value."""
    return replace(question, value=None, undefined=NEVER)


def drawn(asked, patients, resamples, seed) -> dict:
    """Answers the questions that have a value on the same resamples of patients.

    Args:
        asked: questions by name.
        patients: (n,) patient of each picture.
        resamples: their number.
        seed: of the bootstrap.

    Returns:
        (resamples,) values by name.
    """
    functions = {key: one.function for key, one in asked.items() if one.value is not None}
    return statistics.bootstrap(functions, patients, resamples, seed) if functions else {}


def answered(asked, draws, patients, dropped) -> dict:
    """Gives each value an interval, where ten patients stand behind every group it needs.

    Args:
        asked: questions by name.
        draws: from `drawn`.
        patients: (n,) patient of each picture.
        dropped: dict that the numbers of undefined resamples are added to.

    Returns:
        Entries of `metrics.json` by name.
    """
    return {key: _answer(key, one, draws, patients, dropped) for key, one in asked.items()}


def mean(classes, draws, metric, n) -> dict:
    """Averages a metric over the classes in which it is defined, unweighted.

    Args:
        classes: {class: {metric: entry}}.
        draws: from `drawn`, by (class, metric).
        metric: its name.
        n: number of pictures.

    Returns:
        An entry with `n_classes`; its interval is of the mean on the same resamples.
    """
    defined = {name: c[metric] for name, c in classes.items() if c[metric]["value"] is not None}
    value = np.mean([one["value"] for one in defined.values()]) if defined else None
    found = entry(value, n, None, "undefined in every class") | {"n_classes": len(defined)}
    if not defined or any(one["low"] is None for one in defined.values()):
        return found
    low, high, _ = statistics.interval(np.mean([draws[name, metric] for name in defined], axis=0))
    if low is None or low == high:
        low = float(np.mean([one["low"] for one in defined.values()]))
        high = float(np.mean([one["high"] for one in defined.values()]))
    return found | {"low": low, "high": high}


def entry(value, n, n_positive, undefined) -> dict:
    """Makes an entry of `metrics.json` without an interval: value and n, or why there is none."""
    defined = value is not None and np.isfinite(value)
    found = {"value": float(value) if defined else None, "low": None, "high": None}
    found |= {"n": n, "n_positive": n_positive}
    return found if defined else found | {"undefined": undefined}


def _answer(key, question, draws, patients, dropped):
    found = entry(question.value, question.n, question.n_positive, question.undefined)
    behind = min(len(set(patients[group])) for group in question.groups)
    if found["value"] is None or behind < statistics.FEWEST_PATIENTS:
        return found
    low, high, lost = statistics.interval(draws[key])
    if lost:
        dropped["/".join(key) if isinstance(key, tuple) else key] = lost
    if low is not None and low == high:
        # Resampling finds nothing to vary: an interval of no width would claim too much.
        exact = question.share and found["value"] in (0.0, 1.0)
        low, high = statistics.exact_interval(found["value"], behind) if exact else (None, None)
    return found | {"low": low, "high": high}
