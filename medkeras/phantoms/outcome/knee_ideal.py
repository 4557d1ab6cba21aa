"""The best that any model can do on made-up knees: scores of an ideal observer, and their AUC.

An ideal observer knows the generating process and sees its part of the case without error: the
drawn quantities (`image`), the risk factors (`risk`), the risk factors and the grade that a
reader wrote down (`risk_grade`), or picture and risk factors (`both`). Its score is the chance
of the label, given that part; what it does not see is averaged over 200,000 simulated knees.
"""

from functools import lru_cache

import numpy as np
import pandas as pd

from medkeras.phantoms.outcome import knee_grade, risk

POPULATION = 200_000


def scores(knees: pd.DataFrame, factors: pd.DataFrame, risk_effect: float) -> pd.DataFrame:
    """Answers as the ideal observers would.

    Args:
        knees: rows of `knee_grade.draw`.
        factors: the same rows of `risk.draw`.
        risk_effect: 0 or more, as the knees were made with.

    Returns:
        DataFrame of chances, 0..1, the same rows: `oa` (reader's grade 2 or more, from the
        picture), `jsl_image`, `jsl_risk`, `jsl_risk_grade`, `jsl_both` (progression).
    """
    both, image, of_risk = risk.logits(knees, factors, risk_effect)
    others, images, risks = risk.logits(*_population(), risk_effect)
    start = float(others[0] - images[0] - risk_effect * risks[0])
    all_grades = _population()[0]["grade"].to_numpy()
    grade = knees["grade"].to_numpy()
    with_grade = np.empty(len(knees))
    for value in np.unique(grade):
        alike = images[all_grades == value]
        with_grade[grade == value] = _mean_chance(
            start + risk_effect * of_risk[grade == value], alike
        )
    return pd.DataFrame(
        {
            "oa": knee_grade.chances(knees["index"])[:, 2:].sum(axis=1),
            "jsl_image": _mean_chance(start + image, risk_effect * risks),
            "jsl_risk": _mean_chance(start + risk_effect * of_risk, images),
            "jsl_risk_grade": with_grade,
            "jsl_both": risk.chance(both),
        },
        index=knees.index,
    )


@lru_cache(maxsize=8)
def ceiling(risk_effect: float = 1.0) -> dict:
    """Says what the ideal observers reach on average, by simulation.

    The same 200,000 knees each time. Every knee counts as positive with its chance and as
    negative with the rest, so the coin that decides the label adds no noise: the standard
    error of each number is below 0.002.

    Args:
        risk_effect: 0 or more, as in `knee_xray.write`.

    Returns:
        dict of floats: `grade_accuracy` (of five grades), `oa_accuracy` and `oa` (AUC; grade 2
        or more); AUC of progression: `jsl_image`, `jsl_risk`, `jsl_risk_grade`, `jsl_both`;
        shares: `oa_share`, `jsl_share`. Size, noise and blanks lower what a model can reach
        and are not counted: these are upper bounds.
    """
    knees, factors = _population()
    grades = knee_grade.chances(knees["index"])
    given = scores(knees, factors, risk_effect)
    arthrosis, progression = given["oa"].to_numpy(), given["jsl_both"].to_numpy()
    result = {
        "grade_accuracy": grades.max(axis=1).mean(),
        "oa_accuracy": np.maximum(arthrosis, 1 - arthrosis).mean(),
        "oa": _auc(arthrosis, arthrosis),
    }
    for name in ("jsl_image", "jsl_risk", "jsl_risk_grade", "jsl_both"):
        result[name] = _auc(given[name].to_numpy(), progression)
    result |= {"oa_share": arthrosis.mean(), "jsl_share": progression.mean()}
    return {name: float(value) for name, value in result.items()}


@lru_cache(maxsize=1)
def _population():
    rng = np.random.default_rng(2021)
    return knee_grade.draw(rng, POPULATION // 2), risk.draw(rng, POPULATION // 2)


def _mean_chance(known, unknown):
    """Averages logistic(known + unknown) over all that `unknown` may be, for each known."""
    if not len(known):
        return np.empty(0)
    # Smooth in `known`, and its distribution enters through many quantiles: a table does.
    points = np.quantile(unknown, (np.arange(500) + 0.5) / 500)
    steps = np.linspace(known.min() - 1e-6, known.max() + 1e-6, 500)
    return np.interp(known, steps, risk.chance(steps[:, None] + points).mean(axis=1))


def _auc(score, chance):
    """AUC where each case is positive with its chance; ties count half."""
    values, where = np.unique(score, return_inverse=True)
    positive = np.bincount(where, chance, len(values))
    negative = np.bincount(where, 1 - chance, len(values))
    before = np.cumsum(negative) - negative
    return (positive * (before + negative / 2)).sum() / (positive.sum() * negative.sum())
