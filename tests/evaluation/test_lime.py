"""LIME: finds what a model looks at, where that is known."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import pairwise_distances

from medkeras.evaluation.heat import lime

SHAPE = (40, 48, 1)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(60, 200, SHAPE, dtype=np.uint8)


def linear(segments, weights):
    """Probabilities of two findings: the second a linear function of which regions are shown."""

    def predict(pictures):
        regions = range(segments.max() + 1)
        shown = [(pictures[:, segments == k] > 0).any(axis=(1, 2)) for k in regions]
        answer = 0.5 + np.stack(shown, axis=1) @ weights
        return np.stack([np.full(len(pictures), 0.5), answer], axis=1)

    return predict


def test_weights_of_a_linear_model_are_recovered(picture):
    segments = lime.superpixels(picture, 20)
    weights = np.random.default_rng(1).normal(0, 0.02, segments.max() + 1)
    found = lime.explain(linear(segments, weights), picture, 1, samples=600, segments=20)
    np.testing.assert_array_equal(found.segments, segments)
    np.testing.assert_allclose(found.weights, weights[segments], atol=2e-3)
    assert found.weights.dtype == np.float32 and found.weights.shape == SHAPE[:2]
    assert found.r2 > 0.99 and found.fair


def test_the_patch_that_a_model_looks_at_is_found(picture):
    picture[8:16, 24:40] = 250
    patch = np.zeros(SHAPE[:2], bool)
    patch[8:16, 24:40] = True

    def predict(pictures):
        return pictures[:, patch].mean(axis=1) / 255

    found = lime.explain(predict, picture, 0, samples=300)
    assert patch[found.weights == found.weights.max()].mean() > 0.8 and found.fair
    assert np.abs(found.weights[patch]).mean() > 5 * np.abs(found.weights[~patch]).mean()


def test_hidden_regions_become_their_mean_where_that_is_asked_for(picture):
    picture = np.repeat(picture, 3, axis=2)
    picture[..., 1] //= 2
    segments, asked = lime.superpixels(picture, 9), []

    def predict(pictures):
        asked.append(pictures)
        return np.zeros((len(pictures), 1))

    lime.explain(predict, picture, 0, samples=10, segments=9, hide="mean")
    for one in asked[0]:
        for k in range(segments.max() + 1):
            own, before = one[segments == k], picture[segments == k]
            hidden = (own == own[0]).all()
            assert hidden or (own == before).all()
            np.testing.assert_allclose(own.mean(axis=0), before.mean(axis=0), atol=0.51)
    assert (asked[0] != picture).any()


def test_a_model_that_is_not_linear_is_called_a_poor_fit(picture):
    def predict(pictures):  # the parity of a few pixels
        return (pictures[:, ::9, ::9, 0] > 0).sum(axis=(1, 2))[:, None] % 2

    found = lime.explain(predict, picture, 0, samples=300)
    assert found.r2 < lime.FAIR and not found.fair


def test_a_model_that_never_changes_its_mind_has_no_fit(picture):
    found = lime.explain(lambda pictures: np.full((len(pictures), 1), 0.3), picture, 0, samples=60)
    assert np.isnan(found.r2) and not found.fair and np.abs(found.weights).max() < 1e-9


def test_pictures_that_hide_little_count_most(picture):
    # The regression of the published code, in its own words.
    segments, asked = lime.superpixels(picture, 12), []

    def predict(pictures):
        asked.append(pictures)
        return (pictures.mean(axis=(1, 2)) / 100) ** 3

    found = lime.explain(predict, picture, 0, samples=120, segments=12)
    regions = range(segments.max() + 1)
    asked = np.concatenate(asked)
    shown = np.stack([(asked[:, segments == k] > 0).any(axis=(1, 2)) for k in regions], axis=1)
    far = pairwise_distances(shown.astype(float), shown[:1].astype(float), metric="cosine").ravel()
    near = np.sqrt(np.exp(-(far**2) / 0.25**2))
    answers = (asked.mean(axis=(1, 2, 3)) / 100) ** 3
    line = Ridge(alpha=1).fit(shown, answers, sample_weight=near)
    np.testing.assert_allclose(found.weights, line.coef_[segments], rtol=1e-5, atol=1e-8)
    assert found.r2 == pytest.approx(line.score(shown, answers, sample_weight=near))
    assert 0.5 < found.r2 < 0.99


def test_the_same_seed_gives_the_same_bytes(picture):
    segments = lime.superpixels(picture)
    predict = linear(segments, np.random.default_rng(1).normal(size=segments.max() + 1))
    one, again, other = (lime.explain(predict, picture, 1, samples=80, seed=s) for s in (3, 3, 4))
    assert one.weights.tobytes() == again.weights.tobytes() and one.r2 == again.r2
    assert one.weights.tobytes() != other.weights.tobytes()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_first_picture_asked_about_is_the_whole_one(channels):
    picture = np.random.default_rng(0).integers(1, 255, (32, 32, channels), dtype=np.uint8)
    asked = []

    def predict(pictures):
        asked.append(pictures)
        return np.zeros((len(pictures), 1))

    lime.explain(predict, picture, 0, samples=2 * lime.BATCH + 1)
    assert [len(one) for one in asked] == [lime.BATCH, lime.BATCH, 1]
    assert asked[0].dtype == np.uint8 and asked[0].shape[1:] == picture.shape
    np.testing.assert_array_equal(asked[0][0], picture)
    hidden = (np.concatenate(asked)[1:] == 0).all(axis=3)
    assert 0.4 < hidden.mean() < 0.6


@pytest.mark.parametrize("pixels", ["flat", "noise", "steps"])
def test_superpixels_cover_any_picture_without_gaps(pixels):
    picture = {
        "flat": np.full((64, 48, 1), 7, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (64, 48, 1), dtype=np.uint8),
        "steps": np.repeat(np.arange(0, 256, 4, np.uint8), 48).reshape(64, 48, 1),
    }[pixels]
    found = lime.superpixels(picture, 50)
    assert found.shape == (64, 48) and 25 <= len(np.unique(found)) <= 80
    np.testing.assert_array_equal(np.unique(found), np.arange(found.max() + 1))
