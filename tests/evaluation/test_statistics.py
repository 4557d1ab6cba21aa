"""The vectorised statistics are scikit-learn's, and the intervals hold what they promise."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, cohen_kappa_score, roc_auc_score

from medkeras.evaluation.numbers import statistics


def _clustered(generator, patients, pictures=3, gap=1.0):
    """Pictures of a patient share a label and part of their score."""
    label = np.repeat(generator.integers(0, 2, patients), pictures)
    own = np.repeat(generator.normal(size=patients), pictures)
    score = gap * label + own + 0.5 * generator.normal(size=len(label))
    return label, score, np.repeat(np.arange(patients), pictures)


def test_auc_is_sklearns_with_sample_weights_and_ties():
    generator = np.random.default_rng(0)
    labels, scores = generator.integers(0, 2, 80), generator.integers(0, 12, 80) / 12
    weights = generator.integers(0, 4, (20, 80)).astype(float)

    ours = statistics.auc(labels, scores)(weights)

    theirs = [roc_auc_score(labels, scores, sample_weight=w) for w in weights]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_average_precision_is_sklearns_with_sample_weights_and_ties():
    generator = np.random.default_rng(1)
    labels, scores = generator.integers(0, 2, 80), generator.integers(0, 12, 80) / 12
    weights = generator.integers(0, 4, (20, 80)).astype(float)

    ours = statistics.average_precision(labels, scores)(weights)

    theirs = [average_precision_score(labels, scores, sample_weight=w) for w in weights]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_kappa_is_sklearns_with_sample_weights():
    generator = np.random.default_rng(2)
    truth, answer = generator.integers(0, 5, 90), generator.integers(0, 5, 90)
    weights = generator.integers(0, 4, (10, 90)).astype(float)

    ours = statistics.quadratic_kappa(truth, answer, 5)(weights)

    theirs = [
        cohen_kappa_score(truth, answer, weights="quadratic", sample_weight=w) for w in weights
    ]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_resamples_draw_whole_patients():
    patients = np.array(["a", "b", "a", "c", "b", "a"])
    weights = np.concatenate(list(statistics.resampled(patients, 500, seed=3)))
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights[:, [0, 1, 3]].mean(axis=0) == pytest.approx([1, 1, 1], abs=0.15)


def test_resamples_do_not_depend_on_the_chunk(monkeypatch):
    patients = np.arange(40) // 2
    whole = np.concatenate(list(statistics.resampled(patients, 100, seed=4)))
    monkeypatch.setattr(statistics, "CELLS", 7 * 40)
    chunks = list(statistics.resampled(patients, 100, seed=4))
    assert max(len(chunk) for chunk in chunks) == 7
    np.testing.assert_array_equal(whole, np.concatenate(chunks))


def test_undefined_resamples_are_dropped_and_counted():
    labels, patients = np.array([1, 0, 0, 0]), np.array(list("abcd"))
    draws = statistics.bootstrap({"auc": statistics.auc(labels, np.arange(4))}, patients)["auc"]
    _, _, dropped = statistics.interval(draws)
    assert dropped == np.isnan(draws).sum() and 0.25 < dropped / len(draws) < 0.38  # (3/4)^4


def test_auc_interval_covers_the_truth_on_clustered_data():
    generator = np.random.default_rng(5)
    label, score, _ = _clustered(generator, 60_000)
    truth = roc_auc_score(label, score)
    inside = naive = 0
    for repeat in range(300):
        label, score, patients = _clustered(generator, 60)
        statistic = {"auc": statistics.auc(label, score)}
        draws = statistics.bootstrap(statistic, patients, 400, repeat)["auc"]
        low, high, _ = statistics.interval(draws)
        inside += low <= truth <= high
        by_picture = np.arange(len(label))
        draws = statistics.bootstrap(statistic, by_picture, 400, repeat)["auc"]
        low, high, _ = statistics.interval(draws)
        naive += low <= truth <= high
    assert 0.90 <= inside / 300 <= 0.98
    assert naive / 300 < 0.85, "resampling pictures should be shown to be too narrow"


def test_exact_interval_at_the_ends():
    low, high = statistics.exact_interval(1.0, 20)
    assert high == 1.0 and low**20 == pytest.approx(0.025)
    assert statistics.exact_interval(0.0, 20) == (0.0, pytest.approx(1 - low))


def test_paired_difference_is_narrower_than_two_models_apart():
    generator = np.random.default_rng(6)
    label, score, patients = _clustered(generator, 80)
    better = score + 0.5 * label
    a, b = statistics.auc(label, better), statistics.auc(label, score)
    found = statistics.difference(a, b, patients, seed=1)
    assert found["value"] == pytest.approx(
        roc_auc_score(label, better) - roc_auc_score(label, score)
    )
    assert found["low"] > 0 and found["p"] < 0.05
    width = (found["high"] - found["low"]) / 2
    assert 1.96 * found["standard_error"] == pytest.approx(width, rel=0.1)
    same = statistics.difference(b, b, patients)
    assert same["low"] == same["high"] == same["standard_error"] == 0 and same["p"] == 1
