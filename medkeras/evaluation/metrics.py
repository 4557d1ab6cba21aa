"""From `predictions.csv` to `metrics.json`: every number with its n and its interval.

Tasks and their columns (one `label_`, `logit_`, `probability_` triple per class):

    binary      one triple, named after the positive class; decided at probability >= 0.5
    multiclass  a one-hot triple per class; decided for the largest probability
    multilabel  a triple per label, NaN where the label is unknown; decided at >= 0.5
    ordinal     a one-hot triple per grade, in order; adds the quadratic-weighted kappa

What cannot be computed is null and says why; it never becomes 0 or 0.5, and means leave it out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, cohen_kappa_score, roc_auc_score

from medkeras.evaluation import calibration, statistics

PER_CLASS = ("auc", "sensitivity", "specificity", "accuracy", "pr_auc")
EXCLUSIVE = ("multiclass", "ordinal")


@dataclass(frozen=True)
class _Question:
    """One number asked of one split: its value, and how to recompute it on a resample."""

    value: float | None
    function: Callable
    n: int
    n_positive: int | None
    groups: list  # pictures (n,) bool: each group must have enough patients for an interval
    undefined: str  # why there is no value, if there is none
    share: bool = True  # of independent units: an exact interval exists at 0 and 1


def measured(predictions, task, majority=None, seed=0, resamples=statistics.RESAMPLES):
    """Computes everything in `metrics.json` from a table of predictions.

    Args:
        predictions: DataFrame as `predictions.csv`.
        task: "binary", "multiclass", "multilabel" or "ordinal".
        majority: index of the most frequent class of the training split; None if unknown.
        seed: of the bootstrap.
        resamples: number of bootstrap resamples of patients.

    Returns:
        A dict for JSON: the test split's numbers, and the validation split's in the same shape
        under "validation". The classes' numbers are one against the rest; "mean" is their
        unweighted mean over the classes in which they are defined.
    """
    parts = dict(tuple(predictions.groupby("split")))
    options = {"task": task, "majority": majority, "seed": seed, "resamples": resamples}
    none = predictions.iloc[:0]
    test = _measured(parts.get("test", none), split="test", **options)
    return test | {"validation": _measured(parts.get("val", none), split="val", **options)}


def read(path):
    """Reads a `predictions.csv`; patients and paths stay text, with their leading zeros."""
    return pd.read_csv(path, dtype={"path": str, "patient": str, "split": str})


def class_names(predictions):
    """Names of the classes that have a triple of columns, in order."""
    prefix = "label_"
    return [name[len(prefix) :] for name in predictions.columns if name.startswith(prefix)]


def arrays(predictions):
    """Labels, probabilities and class names of a table: (n, k) float, (n, k) float, k names."""
    names = class_names(predictions)
    labels = predictions[[f"label_{name}" for name in names]].to_numpy(dtype=float)
    probabilities = predictions[[f"probability_{name}" for name in names]].to_numpy(dtype=float)
    return labels, probabilities, names


def decided(probabilities, task):
    """The model's answer: (n, k) bool, one per row for exclusive classes."""
    if task not in EXCLUSIVE:
        return probabilities >= 0.5
    return np.arange(probabilities.shape[1]) == probabilities.argmax(axis=1)[:, None]


def brier(labels, probabilities, task):
    """Squared error of each picture's probabilities (Brier 1950).

    Exclusive classes: the sum over the classes, 0..2 as in Brier's paper. Binary: (p - y)^2 of
    the positive class, 0..1, half of Brier's sum. Multilabel: the mean over the known labels.

    Returns:
        (n,) whose mean is the Brier score.
    """
    squares = (probabilities - labels) ** 2
    if task in EXCLUSIVE:
        return squares.sum(axis=1)
    known = np.isfinite(squares)
    return np.where(known, squares, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def confidence(labels, probabilities, task):
    """What a calibration compares: predicted probability and whether it came true.

    Exclusive classes: the largest probability and whether that class was right (Guo et al.
    2017). Otherwise: every class's probability and its label, the known ones pooled.
    """
    if task in EXCLUSIVE:
        best = probabilities.argmax(axis=1)
        rows = np.arange(len(best))
        return probabilities[rows, best], labels[rows, best]
    known = np.isfinite(labels)
    return probabilities[known], labels[known]


def _measured(table, *, split, task, majority, seed, resamples):
    labels, probabilities, names = arrays(table)
    patients = table["patient"].astype(str).to_numpy()
    answers = decided(probabilities, task)
    asked = {
        (name, metric): question
        for k, name in enumerate(names)
        for metric, question in _of_class(labels[:, k], probabilities[:, k], answers[:, k]).items()
    }
    if task in EXCLUSIVE:
        asked["accuracy"] = _overall((labels * answers).sum(axis=1))
    elif task == "binary":
        asked["accuracy"] = asked[names[0], "accuracy"]
    if task == "ordinal":
        asked["kappa"] = _kappa(labels.argmax(axis=1), answers.argmax(axis=1), len(names))
    known = np.isfinite(labels).any(axis=1)
    asked["brier"] = _overall(brier(labels, probabilities, task), known, share=False)

    functions = {key: question.function for key, question in asked.items()}
    draws = statistics.bootstrap(functions, patients, resamples, seed) if len(table) else {}
    dropped = {}
    found = {key: _answer(key, asked[key], draws, patients, dropped) for key in asked}
    classes = {name: {metric: found[name, metric] for metric in PER_CLASS} for name in names}
    error = calibration.expected_error(*confidence(labels, probabilities, task))
    result = {
        "split": split,
        "task": task,
        "decision": "largest probability" if task in EXCLUSIVE else "probability >= 0.5",
        "classes": classes,
        "mean": {metric: _mean(classes, draws, metric, len(table)) for metric in PER_CLASS},
        "accuracy": found.get("accuracy", _entry(None, len(table), None, "many labels a picture")),
        "majority_accuracy": _majority(labels, task, majority),
        "brier": found["brier"],
        "ece": _entry(error, int(known.sum()), None, "nothing with a known label"),
    }
    if task == "ordinal":
        result["kappa"] = found["kappa"]
    return result | {
        "n": len(table),
        "n_patients": len(set(patients)),
        "bootstrap": {
            "unit": "patient",
            "resamples": resamples,
            "confidence": statistics.CONFIDENCE,
            "seed": seed,
            "fewest_patients": statistics.FEWEST_PATIENTS,
            "dropped": dropped,
        },
    }


def _of_class(labels, probabilities, answers):
    """The questions asked of one class against the rest, on the pictures with a known label."""
    known = np.isfinite(labels)
    positive, negative = known & (labels == 1), known & (labels == 0)
    n, n_positive, n_negative = int(known.sum()), int(positive.sum()), int(negative.sum())
    y, p = positive[known], probabilities[known]
    ranked = n_positive > 0 and n_negative > 0

    def question(value, function, groups, undefined, share=True):
        return _Question(value, function, n, n_positive, groups, undefined, share)

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


def _overall(per_picture, known=None, share=True):
    known = np.ones(len(per_picture), dtype=bool) if known is None else known
    n = int(known.sum())
    value = float(per_picture[known].mean()) if n else None
    function = statistics.share(per_picture, known)
    return _Question(value, function, n, None, [known], "nothing with a known label", share)


def _kappa(truth, answer, grades):
    n = len(truth)
    value = None
    if len(set(truth) | set(answer)) > 1:
        every = list(range(grades))
        value = float(cohen_kappa_score(truth, answer, labels=every, weights="quadratic"))
    function = statistics.quadratic_kappa(truth, answer, grades)
    return _Question(value, function, n, None, [np.ones(n, dtype=bool)], "one grade only", False)


def _answer(key, question, draws, patients, dropped):
    """Adds an interval, where at least ten patients stand behind every group that is needed."""
    entry = _entry(question.value, question.n, question.n_positive, question.undefined)
    behind = min(len(set(patients[group])) for group in question.groups)
    if entry["value"] is None or behind < statistics.FEWEST_PATIENTS:
        return entry
    low, high, lost = statistics.interval(draws[key])
    if lost:
        dropped["/".join(key) if isinstance(key, tuple) else key] = lost
    if low is not None and low == high:
        # Resampling finds nothing to vary: an interval of no width would claim too much.
        exact = question.share and entry["value"] in (0.0, 1.0)
        low, high = statistics.exact_interval(entry["value"], behind) if exact else (None, None)
    return entry | {"low": low, "high": high}


def _mean(classes, draws, metric, n):
    """Unweighted mean over the classes in which the metric is defined, with its interval."""
    defined = {name: c[metric] for name, c in classes.items() if c[metric]["value"] is not None}
    entry = _entry(
        np.mean([one["value"] for one in defined.values()]) if defined else None,
        n,
        None,
        "undefined in every class",
    )
    entry["n_classes"] = len(defined)
    if not defined or any(one["low"] is None for one in defined.values()):
        return entry
    values = np.mean([draws[name, metric] for name in defined], axis=0)
    low, high, _ = statistics.interval(values)
    if low is None or low == high:
        low = float(np.mean([one["low"] for one in defined.values()]))
        high = float(np.mean([one["high"] for one in defined.values()]))
    return entry | {"low": low, "high": high}


def _majority(labels, task, majority):
    """Accuracy of always answering the training split's most frequent class."""
    if majority is None or len(labels) == 0 or task == "multilabel":
        return None
    hits = labels[:, 0] == majority if task == "binary" else labels[:, majority]
    return float(hits.mean())


def _entry(value, n, n_positive, undefined):
    defined = value is not None and np.isfinite(value)
    entry = {"value": float(value) if defined else None, "low": None, "high": None}
    entry |= {"n": n, "n_positive": n_positive}
    return entry if defined else entry | {"undefined": undefined}
