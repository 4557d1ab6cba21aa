import keras
import numpy as np
import pytest

from medkeras.models import locator, recipe
from medkeras.preparation import halves


def peaks(*places, shape=(16, 16), height=30.0):
    """Five maps with one peak each for left, right, top, bottom; the first with any number."""
    maps = np.zeros((1, *shape, 5), np.float32)
    centres, (left, right, top, bottom) = places[:-4], places[-4:]
    for row, column in centres:
        maps[0, row, column, 0] = height
    maps[0, 8, left, 1] = maps[0, 8, right, 2] = height
    maps[0, top, 8, 3] = maps[0, bottom, 8, 4] = height
    return maps


def answered(maps):
    return keras.ops.convert_to_numpy(locator.Answer()(maps))[0]


def test_the_answer_is_where_the_peaks_are():
    x, y, width, height, confidence = answered(peaks((7, 9), 6, 12, 3, 11))
    assert (x, y) == pytest.approx(((6.5 + 12.5) / 32, (3.5 + 11.5) / 32), abs=1e-4)
    assert (width, height) == pytest.approx((6 / 16, 8 / 16), abs=1e-4)
    assert confidence == pytest.approx(1, abs=1e-3)


def test_which_map_is_left_or_right_does_not_matter():
    one, other = (answered(peaks((7, 9), *ends)) for ends in ((6, 12, 3, 11), (12, 6, 11, 3)))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_confidence_is_low_where_nothing_or_too_much_looks_like_a_joint():
    flat = peaks(6, 12, 3, 11)
    flat[..., 0] = -10
    assert answered(flat)[4] < 0.01, "nowhere"
    assert answered(peaks((7, 1), (7, 15), 6, 12, 3, 11))[4] < 0.01, "two places"
    assert answered(peaks((7, 14), 6, 12, 3, 11))[4] < 0.01, "elsewhere than the box"


def test_the_network_has_the_parameters_that_are_written_down():
    assert locator.locator().count_params() == 172_438
    assert "172,438" in locator.__doc__


def test_it_is_rebuilt_from_its_recipe_and_gives_the_same_answers(tmp_path):
    model = locator.compiled(locator.locator((32, 48, 1), filters=4), keras.optimizers.Adam())
    model.save(tmp_path / "model.keras")
    again = recipe.rebuild(model.recipe)
    again.load_weights(tmp_path / "model.keras")
    pictures = np.random.default_rng(0).uniform(0, 255, (3, 32, 48, 1)).astype("float32")
    one, other = (keras.ops.convert_to_numpy(each(pictures)) for each in (model, again))
    np.testing.assert_array_equal(one, other)
    assert one.shape == (3, 5) and (one >= 0).all() and (one <= 1).all()


def test_overlap_agrees_with_that_of_the_evaluation():
    one, other = np.random.default_rng(1).uniform(0.2, 0.6, (2, 50, 4))
    found = keras.ops.convert_to_numpy(locator.overlap(one, other))
    np.testing.assert_allclose(found, halves.overlap(one, other), atol=1e-6)


def test_the_loss_is_lowest_for_the_true_box_and_for_no_confidence_where_there_is_none():
    loss = locator.LocationLoss(reduction=None)
    box = [0.5, 0.4, 0.3, 0.2]
    nothing = [np.nan] * 4
    true = np.float32([box, box, box, nothing, nothing])
    off = [0.6, 0.4, 0.3, 0.2]
    given = np.float32([[*box, 1], [*off, 1], [*box, 0.5], [*box, 0], [*off, 0.5]])
    right, away, unsure, refused, doubted = keras.ops.convert_to_numpy(loss(true, given))
    assert right == pytest.approx(0, abs=1e-4) and refused == pytest.approx(0, abs=1e-4)
    assert away > 0.4 and unsure == pytest.approx(np.log(2), abs=1e-4)
    assert doubted == pytest.approx(np.log(2), abs=1e-4), "the box does not matter there"


def test_the_metric_leaves_pictures_without_a_joint_out():
    metric = locator.MeanOverlap()
    box = [0.5, 0.5, 0.2, 0.4]
    metric.update_state(
        np.float32([box, [np.nan] * 4]), np.float32([[0.6, 0.5, 0.2, 0.4, 1], [*box, 1]])
    )
    assert float(metric.result()) == pytest.approx(1 / 3, abs=1e-5)
