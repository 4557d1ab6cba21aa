"""What only grades are asked, because they have an order: kappa, grade error, reaching a grade.

The AUC of reaching a grade takes the probability of that grade and all above it together: from
KL grade 2 on, osteoarthritis is called present.
"""

import numpy as np

from medkeras.evaluation.numbers import questions


def asked(labels, chances, positive_from=None) -> dict:
    """Asks for the numbers of one part.

    Args:
        labels: (n, k), one-hot, grades in order.
        chances: (n, k) probabilities.
        positive_from: grade from which on a picture counts as positive, 1..k-1, or None.

    Returns:
        `questions.Question` by name.
    """
    truth, answer = labels.argmax(axis=1), chances.argmax(axis=1)
    error = np.abs(answer - truth)
    found = {
        "kappa": questions.kappa(truth, answer, labels.shape[1]),
        "grade_error": questions.overall(error, share=False),
    }
    if positive_from is not None:
        reached = (truth >= positive_from).astype(float)
        chance = chances[:, positive_from:].sum(axis=1)
        found["oa"] = questions.of_class(reached, chance, chance >= 0.5)["auc"]
    return found


def entries(answered, positive_from=None) -> dict:
    """Arranges the answers as `metrics.json` holds them.

    Args:
        answered: entries by name, of what `asked` asked.
        positive_from: as there.
    """
    found = {name: answered[name] for name in ("kappa", "grade_error")}
    if positive_from is not None:
        found["oa"] = {"from": positive_from, "auc": answered["oa"]}
    return found


def named(found) -> dict:
    """Returns the entries of grades under the names that readers know; {} of other tasks.

    Args:
        found: content of `metrics.json`.
    """
    if "grade_error" not in found:
        return {}
    shown = {
        "quadratic-weighted kappa": found["kappa"],
        "mean absolute grade error": found["grade_error"],
    }
    if "oa" in found:
        lowest = list(found["classes"])[found["oa"]["from"]]
        shown[f"AUC of grade {lowest} or more"] = found["oa"]["auc"]
    return shown
