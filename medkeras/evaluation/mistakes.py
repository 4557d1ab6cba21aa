"""What the model got wrong in the test part: counts per finding, and the surest mistakes."""

import numpy as np

from medkeras.evaluation.heat import overlays
from medkeras.evaluation.numbers import metrics

MOST = 12


def decisions(labels, chances, task):
    """Reduces exclusive classes to numbers.

    Args:
        labels: (n, k), one column for two classes.
        chances: (n, k) probabilities.
        task: "binary", "multiclass" or "ordinal".

    Returns:
        Class numbers, answered class numbers and the probabilities of the answers, (n,) each.
    """
    if task == "binary":
        labels, chances = np.hstack([1 - labels, labels]), np.hstack([1 - chances, chances])
    return labels.argmax(axis=1), chances.argmax(axis=1), chances.max(axis=1)


def outcomes(labels, chances, names) -> list[dict]:
    """Counts right and wrong answers for each finding.

    Args:
        labels: (n, k) 1, 0 or NaN for unknown.
        chances: (n, k) probabilities.
        names: of the k findings.

    Returns:
        For each finding its `name` and the numbers `tp`, `fn`, `fp`, `tn`, `unknown`.
    """
    answers = metrics.decided(chances, "multilabel")
    there, absent = labels == 1, labels == 0
    cells = {
        "tp": there & answers,
        "fn": there & ~answers,
        "fp": absent & answers,
        "tn": absent & ~answers,
        "unknown": np.isnan(labels),
    }
    return [
        {"name": name} | {cell: int(hits[:, k].sum()) for cell, hits in cells.items()}
        for k, name in enumerate(names)
    ]


def surest(data, scores, synthetic) -> list[dict]:
    """Shows the most confident mistakes of the test part; of findings the surest of each.

    Args:
        data: `pipeline.Data`.
        scores: from `evaluate.evaluate`.
        synthetic: whether the pictures are phantoms, which they then say.

    Returns:
        At most 12: `png`, `line` of predictions.csv, `true`, `predicted`, `probability` of the
        answer; an absent finding is called "no" and its name.
    """
    test = scores.predictions[scores.predictions["split"] == "test"]
    if test.empty:
        return []
    labels, chances, names = metrics.arrays(test)
    if scores.task == "multilabel":
        found = _of_findings(labels, chances, names)
    else:
        found = _of_classes(labels, chances, scores)
    return [
        {
            "png": overlays.thumbnail(data.test.pictures(np.array([row]))[0], synthetic),
            "line": int(test.index[row]) + 2,  # of predictions.csv, whose first line is the head
            "true": true,
            "predicted": predicted,
            "probability": probability,
        }
        for row, true, predicted, probability in found
    ]


def _of_classes(labels, chances, scores):
    truth, answers, certainty = decisions(labels, chances, scores.task)
    order = np.argsort(-certainty, kind="stable")
    wrong = order[truth[order] != answers[order]][:MOST]
    names = scores.classes
    return [(row, names[truth[row]], names[answers[row]], certainty[row]) for row in wrong]


def _of_findings(labels, chances, names):
    answers = metrics.decided(chances, "multilabel")
    certainty = np.where(answers, chances, 1 - chances)
    wrong = np.isfinite(labels) & (answers != (labels == 1))
    each, chosen = max(1, MOST // len(names)), []
    for k in range(len(names)):
        order = np.argsort(-certainty[:, k], kind="stable")
        chosen += [(row, k) for row in order[wrong[order, k]][:each]]
    kept = set(sorted(chosen, key=lambda place: -certainty[place])[:MOST])
    return [
        (row, _said(labels[row, k], names[k]), _said(answers[row, k], names[k]), certainty[row, k])
        for row, k in chosen
        if (row, k) in kept
    ]


def _said(there, name):
    return name if there else f"no {name}"
