"""Bounds of the AUC over uncertain labels: every resolution looked at, against the short cut."""

import numpy as np
import pytest

from medkeras.evaluation.numbers import bounds

NAN = np.nan


def every_auc(labels, scores, uncertain):
    """The AUC of each of the 2^m resolutions, by counting pairs; NaN where a class is missing."""
    m = int(uncertain.sum())
    resolved = np.arange(2**m)[:, None] >> np.arange(m) & 1
    filled = np.repeat(labels[None], 2**m, axis=0)
    filled[:, uncertain] = resolved
    wins = (scores[:, None] > scores) + 0.5 * (scores[:, None] == scores)
    ones, zeros = (filled == 1).astype(float), (filled == 0).astype(float)
    pairs = ones.sum(axis=1) * zeros.sum(axis=1)
    ranked = np.einsum("bi,ij,bj->b", ones, wins, zeros, optimize=True)
    return np.divide(ranked, pairs, out=np.full(2**m, NAN), where=pairs > 0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("grades", [4, 1000])  # many ties, hardly any
def test_bounds_are_those_of_all_4096_resolutions(seed, grades):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.r_[np.full(12, NAN), np.ones(7), np.zeros(9), np.full(4, NAN)])
    uncertain = np.zeros(32, bool)
    uncertain[np.flatnonzero(np.isnan(labels))[:12]] = True
    scores = rng.integers(0, grades, 32) / grades
    assert (len(set(scores)) == 4) == (grades == 4)

    found = bounds.auc(labels, scores, uncertain)

    every = every_auc(labels, scores, uncertain)
    assert found == pytest.approx((every.min(), every.max()), abs=1e-12)


@pytest.mark.parametrize("known", [[], [1.0], [0.0, 0.0]])
def test_a_class_without_a_known_label_may_come_from_the_uncertain_ones(known):
    rng = np.random.default_rng(len(known))
    labels = np.r_[np.full(8, NAN), known]
    scores, uncertain = rng.integers(0, 5, len(labels)) / 5, np.isnan(labels)

    every = every_auc(labels, scores, uncertain)
    assert bounds.auc(labels, scores, uncertain) == pytest.approx(
        (np.nanmin(every), np.nanmax(every)), abs=1e-12
    )


def test_without_two_classes_in_any_resolution_there_are_no_bounds():
    scores, none = np.array([0.1, 0.2, 0.3]), np.zeros(3, bool)
    assert bounds.auc([NAN, NAN, NAN], scores, none) is None
    assert bounds.auc([NAN, NAN, NAN], scores, none | [True, False, False]) is None
    assert bounds.auc([1, 1, NAN], scores, none) is None
    assert bounds.auc([], [], []) is None


def test_without_an_uncertain_label_both_are_the_auc():
    labels, scores = np.array([1, 0, 1, 0, NAN]), np.array([0.9, 0.5, 0.5, 0.1, 0.2])
    assert bounds.auc(labels, scores, np.zeros(5, bool)) == (0.875, 0.875)
    assert bounds.auc(labels, scores, np.isfinite(labels)) == (0.875, 0.875), "known ones stay"


def test_the_auc_of_the_known_labels_alone_may_lie_outside():
    labels, scores = np.array([1, 0, 1, 0, NAN]), np.array([0.9, 0.7, 0.3, 0.1, 0.5])
    low, high = bounds.auc(labels, scores, np.isnan(labels))
    assert (low, high) == (pytest.approx(4 / 6), pytest.approx(4 / 6)) and high < 0.75


def test_many_uncertain_labels_take_no_time():
    rng = np.random.default_rng(0)
    labels = rng.choice([0.0, 1.0, NAN], 100_000)
    low, high = bounds.auc(labels, rng.random(100_000), np.isnan(labels))
    assert 0 < low < 0.5 < high < 1
