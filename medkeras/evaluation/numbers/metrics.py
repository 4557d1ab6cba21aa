"""From `predictions.csv` to `metrics.json`: every number with its n and its interval.

Tasks and their columns (one `label_`, `logit_`, `probability_` triple per class):

    binary      one triple, named after the positive class; decided at probability >= 0.5
    multiclass  a one-hot triple per class; decided for the largest probability
    multilabel  a triple per label, NaN where the label is unknown; decided at >= 0.5
    ordinal     a one-hot triple per grade, in order; adds the quadratic-weighted kappa, the mean
                absolute grade error and, where asked for, the AUC of reaching a grade ("oa")

A multilabel table may have a column `uncertain_<finding>` (1 or 0): then the finding has
`auc_bounds` besides; and `study`, whose pictures have one report together.

What cannot be computed is null and says why; it never becomes 0 or 0.5, and means leave it out.
"""

import numpy as np
import pandas as pd

from medkeras.evaluation.numbers import (
    bounds,
    calibration,
    grades,
    questions,
    scored_mean,
    statistics,
)

PER_CLASS = ("auc", "sensitivity", "specificity", "accuracy", "pr_auc")
EXCLUSIVE = ("multiclass", "ordinal")


def measured(
    predictions,
    task,
    majority=None,
    seed=0,
    resamples=statistics.RESAMPLES,
    scored=(),
    untrained=(),
    positive_from=None,
):
    """Computes everything in `metrics.json` from a table of predictions.

    Args:
        predictions: DataFrame as `predictions.csv`.
        task: "binary", "multiclass", "multilabel" or "ordinal".
        majority: index of the most frequent class of the training split; None if unknown.
        seed: of the bootstrap.
        resamples: number of bootstrap resamples of patients.
        scored: findings whose mean is reported on its own, under "scored".
        untrained: findings that training could not teach: their numbers are null, and every
            mean leaves them out.
        positive_from: grade from which on a picture counts as positive, 1..k-1, such as 2 for
            osteoarthritis by KL grades: adds the AUC of that. None for no such number.

    Returns:
        A dict for JSON: the test split's numbers, and the validation split's in the same shape
        under "validation". The classes' numbers are one against the rest; "mean" is their
        unweighted mean over the classes in which they are defined.
    """
    strange = {*scored, *untrained} - set(class_names(predictions))
    if strange:
        raise ValueError(f"no predictions of {sorted(strange)}")
    count = len(class_names(predictions)) if task == "ordinal" else 0
    if positive_from is not None and positive_from not in range(1, count):
        known = f"1 to {count - 1}" if count else "None: only grades have an order"
        raise ValueError(f"positive_from={positive_from}, expected {known}")
    parts = dict(tuple(predictions.groupby("split")))
    options = {"task": task, "majority": majority, "seed": seed, "resamples": resamples}
    options |= {"scored": list(scored), "untrained": list(untrained)}
    options |= {"positive_from": positive_from}
    none = predictions.iloc[:0]
    test = _measured(parts.get("test", none), split="test", **options)
    return test | {"validation": _measured(parts.get("val", none), split="val", **options)}


def read(path):
    """Reads a `predictions.csv`; patients and paths stay text, with their leading zeros."""
    texts = ("path", "patient", "split", "study")
    return pd.read_csv(path, dtype=dict.fromkeys(texts, str))


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


def probabilities(values, task) -> np.ndarray:
    """Turns logits (n, k) into probabilities (n, k): softmax, or one sigmoid each."""
    values = np.asarray(values, dtype=np.float64)
    if task in EXCLUSIVE:
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
    return 0.5 * (1 + np.tanh(values / 2))


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


def _measured(table, *, split, task, majority, seed, resamples, scored, untrained, positive_from):
    labels, chances, names = arrays(table)
    patients = table["patient"].astype(str).to_numpy()
    answers = decided(chances, task)
    taught = np.array([name not in untrained for name in names], dtype=bool)
    asked = {
        (name, metric): question if taught[k] else questions.never(question)
        for k, name in enumerate(names)
        for metric, question in questions.of_class(
            labels[:, k], chances[:, k], answers[:, k]
        ).items()
    }
    if task in EXCLUSIVE:
        asked["accuracy"] = questions.overall((labels * answers).sum(axis=1))
    elif task == "binary":
        asked["accuracy"] = asked[names[0], "accuracy"]
    if task == "ordinal":
        asked |= grades.asked(labels, chances, positive_from)
    judged = np.where(taught, labels, np.nan)
    known = np.isfinite(judged).any(axis=1)
    asked["brier"] = questions.overall(brier(judged, chances, task), known, share=False)

    draws, dropped = questions.drawn(asked, patients, resamples, seed), {}
    found = questions.answered(asked, draws, patients, dropped)
    classes = {name: {metric: found[name, metric] for metric in PER_CLASS} for name in names}
    for name in names:
        classes[name] |= _bounds(table, name, name in untrained)
    error = calibration.expected_error(*confidence(judged, chances, task))
    many = questions.entry(None, len(table), None, "many labels a picture")
    result = {
        "split": split,
        "task": task,
        "decision": "largest probability" if task in EXCLUSIVE else "probability >= 0.5",
        "classes": classes,
        "mean": {m: questions.mean(classes, draws, m, len(table)) for m in PER_CLASS},
        "accuracy": found.get("accuracy", many),
        "majority_accuracy": _majority(labels, task, majority),
        "brier": found["brier"],
        "ece": questions.entry(error, int(known.sum()), None, "nothing with a known label"),
    }
    if task == "ordinal":
        result |= grades.entries(found, positive_from)
    if task == "multilabel":
        result["untrained"] = untrained
    if scored:
        result["scored"] = scored_mean.means(classes, draws, scored, len(table))
        if "study" in table:
            options = (resamples, seed, dropped)
            result["scored"]["by_study"] = scored_mean.by_study(table, scored, untrained, *options)
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


def _bounds(table, name, untrained):
    """How far the AUC moves with the labels that are uncertain; empty where none is."""
    column = f"uncertain_{name}"
    if column not in table or not table[column].any():
        return {}
    uncertain = table[column].to_numpy(bool)
    found = {"low": None, "high": None, "n_uncertain": int(uncertain.sum())}
    if untrained:
        return {"auc_bounds": found | {"undefined": questions.NEVER}}
    ends = bounds.auc(table[f"label_{name}"], table[f"probability_{name}"], uncertain)
    if ends is None:
        return {"auc_bounds": found | {"undefined": "one class in every resolution"}}
    return {"auc_bounds": found | dict(zip(("low", "high"), ends))}


def _majority(labels, task, majority):
    """Accuracy of always answering the training split's most frequent class."""
    if majority is None or len(labels) == 0 or task == "multilabel":
        return None
    hits = labels[:, 0] == majority if task == "binary" else labels[:, majority]
    return float(hits.mean())
