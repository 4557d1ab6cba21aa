"""Intervals and paired differences by resampling patients, for all resamples at once.

Pictures of one patient resemble each other, so whole patients are drawn with replacement: a
resample is a row of weights, how often each picture counts. Every statistic here is a function of
weights (b, n) that returns (b,) values, NaN where it is undefined; nothing loops over resamples.
"""

import numpy as np
import pandas as pd

RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST_PATIENTS = 10
CELLS = 2_000_000  # weights held at once: 16 MB each for a handful of arrays


def resampled(patients, resamples=RESAMPLES, seed=0):
    """Yields weights of patient resamples, a bounded chunk at a time.

    Args:
        patients: (n,) name of each picture's patient.
        resamples: number of resamples in all.
        seed: the same seed gives the same resamples.

    Yields:
        Arrays (b, n): how often each picture counts in each resample.
    """
    codes, names = pd.factorize(np.asarray(patients, dtype=object))
    count = len(names)
    generator = np.random.default_rng(seed)
    chunk = max(1, CELLS // max(len(codes), 1))
    for start in range(0, resamples if count else 0, chunk):
        size = min(chunk, resamples - start)
        drawn = generator.integers(count, size=(size, count))
        flat = (drawn + count * np.arange(size)[:, None]).ravel()
        times = np.bincount(flat, minlength=size * count).reshape(size, count)
        yield times[:, codes].astype(float)


def bootstrap(statistics, patients, resamples=RESAMPLES, seed=0):
    """Computes statistics on the same resamples of patients.

    Args:
        statistics: {name: function of weights (b, n) -> (b,)}.
        patients: (n,) name of each picture's patient.
        resamples: number of resamples.
        seed: of the resamples.

    Returns:
        {name: (resamples,) values}, NaN where a resample leaves the statistic undefined.
    """
    parts = {name: [] for name in statistics}
    for weights in resampled(patients, resamples, seed):
        for name, statistic in statistics.items():
            parts[name].append(statistic(weights))
    return {name: np.concatenate(p) if p else np.empty(0) for name, p in parts.items()}


def interval(values, confidence=CONFIDENCE):
    """Percentile interval of bootstrap values (Efron and Tibshirani 1993, chapter 13).

    Returns:
        (low, high, number of undefined resamples that were dropped); low and high are None
        where fewer than half of the resamples are defined.
    """
    defined = values[np.isfinite(values)]
    dropped = len(values) - len(defined)
    if len(defined) == 0 or dropped > len(values) / 2:
        return None, None, dropped
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high), dropped


def exact_interval(value, units, confidence=CONFIDENCE):
    """Interval of a share that came out as exactly 0 or 1, where resampling gives no width.

    Clopper and Pearson (1934) on independent units. For an AUC of 1 the units are the disjoint
    (positive, negative) patient pairs: each is a fair draw of "ranked rightly", and all were.

    Args:
        value: 0.0 or 1.0.
        units: number of independent units (patients, or disjoint pairs of patients).

    Returns:
        (low, high).
    """
    bound = ((1 - confidence) / 2) ** (1 / units)
    return (bound, 1.0) if value >= 0.5 else (0.0, 1 - bound)


def difference(statistic_a, statistic_b, patients, resamples=RESAMPLES, seed=0):
    """Paired bootstrap of a difference: both models on the same resampled patients.

    Args:
        statistic_a: function of weights (b, n) -> (b,) of the first model.
        statistic_b: the same of the second, on the same pictures in the same order.
        patients: (n,) name of each picture's patient.

    Returns:
        {"value", "low", "high", "p", "standard_error", "dropped"}: a minus b, its interval, the
        two-sided p-value (twice the smaller share of resamples on one side of zero, at least
        1/resamples) and the standard deviation over the resamples.
    """
    both = {"a": statistic_a, "b": statistic_b}
    values = bootstrap(both, patients, resamples, seed)
    gaps = values["a"] - values["b"]
    low, high, dropped = interval(gaps)
    once = np.ones((1, len(patients)))
    value = float(statistic_a(once)[0] - statistic_b(once)[0])
    gaps = gaps[np.isfinite(gaps)]
    found = {"value": value, "low": low, "high": high, "p": None, "standard_error": None}
    if len(gaps):
        smaller = min((gaps <= 0).mean(), (gaps >= 0).mean())
        found["p"] = float(min(1.0, max(2 * smaller, 1 / len(gaps))))
        found["standard_error"] = float(gaps.std())
    return found | {"dropped": dropped}


def auc(positive, scores):
    """Exact area under the ROC curve, ties counted half, as a function of weights.

    The Mann-Whitney form (Hanley and McNeil 1982): the weighted share of (positive, negative)
    pairs in which the positive scores higher.
    """
    order, starts = _ties(scores)
    is_positive = np.asarray(positive, dtype=bool)[order]

    def value(weights):
        ordered = weights[:, order]
        ups = np.add.reduceat(ordered * is_positive, starts, axis=1)
        downs = np.add.reduceat(ordered * ~is_positive, starts, axis=1)
        below = np.cumsum(downs, axis=1) - downs / 2
        return _ratio((ups * below).sum(axis=1), ups.sum(axis=1) * downs.sum(axis=1))

    return value


def average_precision(positive, scores):
    """Area under the precision-recall curve as a step function, as a function of weights."""
    order, starts = _ties(-np.asarray(scores, dtype=float))
    is_positive = np.asarray(positive, dtype=bool)[order]

    def value(weights):
        ordered = weights[:, order]
        ups = np.add.reduceat(ordered * is_positive, starts, axis=1)
        everyone = np.cumsum(np.add.reduceat(ordered, starts, axis=1), axis=1)
        precision = np.cumsum(ups, axis=1) / np.maximum(everyone, 1e-300)
        return _ratio((ups * precision).sum(axis=1), ups.sum(axis=1))

    return value


def share(hits, among=None):
    """Weighted share of hits: sensitivity, specificity, accuracy, as a function of weights.

    Args:
        hits: (n,) what counts, 0..1.
        among: (n,) bool, the pictures asked about; None for all.
    """
    hits = np.asarray(hits, dtype=float)
    among = np.ones(len(hits)) if among is None else np.asarray(among, dtype=float)
    return lambda weights: _ratio(weights @ (hits * among), weights @ among)


def quadratic_kappa(truth, answer, grades):
    """Cohen's kappa with quadratic weights (Cohen 1968), as a function of weights.

    Args:
        truth: (n,) grade 0..grades-1.
        answer: (n,) predicted grade.
        grades: number of grades.
    """
    steps = np.arange(grades)
    cost = (steps[:, None] - steps[None, :]) ** 2 / max(grades - 1, 1) ** 2
    of_truth = np.eye(grades)[np.asarray(truth, dtype=int)]
    of_answer = np.eye(grades)[np.asarray(answer, dtype=int)]
    seen_cost = cost[np.asarray(truth, dtype=int), np.asarray(answer, dtype=int)]

    def value(weights):
        total = weights.sum(axis=1)
        rows, columns = weights @ of_truth, weights @ of_answer
        expected = np.einsum("bi,ij,bj->b", rows, cost, columns)
        return 1 - _ratio((weights @ seen_cost) * total, expected)

    return value


def _ties(scores):
    """Ascending order of scores, and where each run of equal scores starts in it."""
    scores = np.asarray(scores, dtype=float)
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def _ratio(above, below):
    """Quotient that is NaN, without a warning, where the divisor is 0."""
    result = np.full(np.shape(above), np.nan)
    return np.divide(above, below, out=result, where=np.asarray(below) > 0)
