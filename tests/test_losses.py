"""Losses and live metrics against NumPy and scikit-learn, with unknown labels in between."""

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medkeras import losses, losses_heads
from medkeras.errors import UsageError
from medkeras.training.optimizers import CoupledAdam


def batch(rows=40, findings=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (rows, findings)).astype(np.float32)
    labels[rng.random(labels.shape) < 0.3] = np.nan
    return labels, rng.normal(0, 3, labels.shape).astype(np.float32)


def by_hand(labels, logits, weight=1.0):
    chance = 1 / (1 + np.exp(-logits.astype(np.float64)))
    each = -(weight * labels * np.log(chance) + (1 - labels) * np.log(1 - chance))
    known = np.isfinite(labels)
    return (np.where(known, each, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)).mean()


@pytest.mark.parametrize("weight", [None, [0.3, 4.0, 1.5]])
def test_loss_is_the_mean_over_known_labels(weight):
    labels, logits = batch()
    found = float(losses.MaskedCrossEntropy(weight)(labels, logits))
    assert found == pytest.approx(by_hand(labels, logits, np.array(weight or 1.0)), rel=1e-5)


def test_an_unknown_label_changes_no_gradient_whatever_its_logit():
    import tensorflow as tf

    labels, logits = batch(4)
    labels[1, 2] = labels[3] = np.nan
    gradients = []
    for unknown in (-50.0, 3.0, 1e30):
        logits[1, 2] = logits[3, 0] = unknown
        values = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = losses.MaskedCrossEntropy([1.0, 2.0, 3.0])(labels, values)
        gradients.append(tape.gradient(loss, values).numpy())
    for gradient in gradients:
        assert np.all(gradient[~np.isfinite(labels)] == 0) and np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient, gradients[0])
    assert np.abs(gradients[0]).sum() > 0


def test_loss_stays_finite_for_huge_logits_and_without_any_label():
    loss = losses.MaskedCrossEntropy()
    assert float(loss(np.array([[1.0, 0.0]]), np.array([[-800.0, 800.0]]))) == 800.0
    assert float(loss(np.array([[np.nan]]), np.array([[5.0]]))) == 0.0


def test_weights_come_from_known_labels_and_stay_defined():
    labels = np.array([[1, 0, 1], [0, 0, np.nan], [0, np.nan, 0], [np.nan, 0, 0]], np.float32)
    assert losses.positive_weights(labels) == [2.0, 1.0, 2.0]


def results(model):
    return losses.flat(model.get_metrics_result())


def watched(labels, logits):
    model = keras.Sequential([keras.Input((labels.shape[1],)), keras.layers.Identity()])
    names = [f"f{k}" for k in range(labels.shape[1])]
    losses.compiled_findings(model, keras.optimizers.SGD(), names)
    for start in range(0, len(labels), 7):
        rows = slice(start, start + 7)
        model.test_step((logits[rows], labels[rows]))
    return {name: float(value) for name, value in results(model).items()}


def test_live_metrics_equal_the_exact_ones_over_several_batches():
    labels, logits = batch(200)
    found = watched(labels, logits)
    for k in range(3):
        known = np.isfinite(labels[:, k])
        y, z = labels[known, k], logits[known, k]
        assert found[f"auc_f{k}"] == pytest.approx(roc_auc_score(y, z), abs=5e-3)
        assert found[f"sensitivity_f{k}"] == pytest.approx((z[y == 1] > 0).mean(), abs=1e-6)
        assert found[f"specificity_f{k}"] == pytest.approx((z[y == 0] <= 0).mean(), abs=1e-6)


def test_live_metrics_are_undefined_with_one_class():
    labels, logits = batch(20)
    labels[:, 1] = np.where(np.isfinite(labels[:, 1]), 0.0, np.nan)
    found = watched(labels, logits)
    assert np.isnan(found["auc_f1"]) and np.isnan(found["sensitivity_f1"])
    assert 0 <= found["specificity_f1"] <= 1 and 0 <= found["auc_f0"] <= 1


def test_two_classes_get_the_same_curves_where_they_are_asked_for():
    labels, logits = batch(60, 1)
    labels = np.nan_to_num(labels[:, 0]).astype(np.int64)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
    losses.compiled(model, keras.optimizers.SGD(), curves=True)
    model.test_step((logits, labels))
    found = {name: float(value) for name, value in results(model).items()}
    assert found["auc"] == pytest.approx(roc_auc_score(labels, logits[:, 0]), abs=5e-3)
    assert found["sensitivity"] == pytest.approx((logits[labels == 1] > 0).mean(), abs=1e-6)
    assert set(found) == {"loss", "accuracy", "auc", "sensitivity", "specificity"}


def test_compile_settings_survive_being_stored():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    optimizer = CoupledAdam(1e-3, decay=0.01)
    losses.compiled_findings(model, optimizer, ["a", "b"], positive_weight=[2.0, 3.0])
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    other.compile_from_config(model.get_compile_config())
    assert other.loss.positive_weight == [2.0, 3.0] and other.optimizer.decay == 0.01
    other.test_step((np.ones((1, 2), np.float32), np.ones((1, 2), np.float32)))
    assert {"auc_a", "specificity_b"} <= set(results(other))


def test_coupled_decay_is_adam_on_a_gradient_with_the_weights_in_it():
    weight, rate, decay = np.array([1.0, -2.0, 0.5], np.float32), 0.1, 0.2
    ours, plain = keras.Variable(weight), keras.Variable(weight)
    coupled, adam = CoupledAdam(rate, decay=decay), keras.optimizers.Adam(rate)
    for gradient in np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32):
        coupled.apply([gradient], [ours])
        adam.apply([gradient + decay * plain.numpy()], [plain])
    np.testing.assert_allclose(ours.numpy(), plain.numpy(), rtol=1e-6)
    assert not np.allclose(ours.numpy(), weight)


# Grades, alone and beside joint space loss


def heads(rows=40, seed=0):
    """Labels of both heads with unknown ones among them, and logits."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, 5, rows), rng.integers(0, 2, rows)], 1).astype(np.float32)
    labels[rng.random(labels.shape) < 0.3] = np.nan
    return labels, rng.normal(0, 2, (rows, 6)).astype(np.float32)


def heads_by_hand(labels, logits):
    """Mean cross-entropy of each head over the rows that it knows."""
    (grade, jsl), logits = labels.T, logits.astype(np.float64)
    graded, asked = np.flatnonzero(np.isfinite(grade)), np.flatnonzero(np.isfinite(jsl))
    softmax = np.exp(logits[:, :5]) / np.exp(logits[:, :5]).sum(1, keepdims=True)
    chance = 1 / (1 + np.exp(-logits[:, 5]))
    first = -np.log(softmax[graded, grade[graded].astype(int)]).mean()
    second = -np.log(np.where(jsl == 1, chance, 1 - chance)[asked]).mean()
    return first, second


def test_the_loss_of_two_heads_is_the_weighted_sum_of_their_means():
    labels, logits = heads()
    first, second = heads_by_hand(labels, logits)
    assert first != pytest.approx(second, rel=0.1)
    found = float(losses_heads.MultiTask()(labels, logits))
    assert found == pytest.approx(first + second, rel=1e-5)
    found = float(losses_heads.MultiTask(2.0, 0.5)(labels, logits))
    assert found == pytest.approx(2 * first + 0.5 * second, rel=1e-5)


def test_an_unknown_label_of_a_head_changes_no_gradient_whatever_its_logit():
    import tensorflow as tf

    labels, logits = heads(6)
    labels[:] = [[1, 0], [np.nan, 1], [3, np.nan], [np.nan, np.nan], [4, 1], [0, 0]]
    unknown = np.hstack([np.isnan(labels[:, :1])] * 5 + [np.isnan(labels[:, 1:])])
    gradients, values = [], []
    for other in (-50.0, 3.0, 1e30, np.inf, np.nan):
        logits[unknown] = other
        given = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(given)
            loss = losses_heads.MultiTask(0.7, 1.3)(labels, given)
        gradients.append(tape.gradient(loss, given).numpy())
        values.append(loss.numpy())
    for gradient, loss in zip(gradients, values, strict=True):
        assert np.all(gradient[unknown] == 0) and np.all(gradient[~unknown] != 0)
        np.testing.assert_array_equal(gradient, gradients[0])
        assert loss == values[0]


def test_a_head_without_labels_costs_nothing():
    labels, logits = heads()
    first, second = heads_by_hand(labels, logits)
    for column, left in ((0, second), (1, first)):
        alone = labels.copy()
        alone[:, column] = np.nan
        assert float(losses_heads.MultiTask()(alone, logits)) == pytest.approx(left, rel=1e-5)
    assert float(losses_heads.MultiTask()(labels + np.nan, logits)) == 0.0


def test_two_heads_stay_finite_for_huge_logits():
    labels, logits = np.array([[0, 0]], np.float32), np.array([[0, 0, 0, 0, 1e4, 1e4]], np.float32)
    assert float(losses_heads.MultiTask()(labels, logits)) == 2e4


@pytest.mark.parametrize("weights", [(-1.0, 1.0), (0.0, 0.0), (1.0, float("nan"))])
def test_impossible_weights_of_heads_are_named(weights):
    with pytest.raises(UsageError, match="grade_weight and jsl_weight"):
        losses_heads.MultiTask(*weights)


def measured(model, labels, logits):
    for start in range(0, len(labels), 7):
        rows = slice(start, start + 7)
        model.test_step((logits[rows], labels[rows]))
    return {name: float(value) for name, value in results(model).items()}


def test_live_metrics_of_two_heads_are_over_known_labels():
    labels, logits = heads(100)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Identity()])
    losses_heads.compiled_heads(model, keras.optimizers.SGD())
    found = measured(model, labels, logits)

    graded, asked = np.isfinite(labels[:, 0]), np.isfinite(labels[:, 1])
    error = np.abs(logits[graded, :5].argmax(1) - labels[graded, 0])
    y, z = labels[asked, 1], logits[asked, 5]
    assert found.pop("loss") > 0
    assert found == pytest.approx(
        {
            "grade_accuracy": (error == 0).mean(),
            "grade_error": error.mean(),
            "auc_jsl": roc_auc_score(y, z),
            "sensitivity_jsl": (z[y == 1] > 0).mean(),
            "specificity_jsl": (z[y == 0] <= 0).mean(),
        },
        abs=5e-3,
    )


def test_live_metrics_of_unknown_grades_are_undefined():
    labels, logits = heads(20)
    labels[:, 0] = np.nan
    model = keras.Sequential([keras.Input((6,)), keras.layers.Identity()])
    losses_heads.compiled_heads(model, keras.optimizers.SGD())
    found = measured(model, labels, logits)
    assert np.isnan(found["grade_accuracy"]) and np.isnan(found["grade_error"])
    assert 0 <= found["auc_jsl"] <= 1


def test_grades_alone_are_watched_by_accuracy_and_distance():
    labels, logits = heads(60)
    labels = np.nan_to_num(labels[:, 0]).astype(np.int64)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Identity()])
    losses_heads.compiled_grades(model, keras.optimizers.SGD())
    found = measured(model, labels, logits[:, :5])
    error = np.abs(logits[:, :5].argmax(1) - labels)
    assert found["accuracy"] == pytest.approx((error == 0).mean())
    assert found["grade_error"] == pytest.approx(error.mean())
    assert set(found) == {"loss", "accuracy", "grade_error"}


def test_smoothed_grades_share_with_their_neighbours():
    labels, logits = heads(60)
    labels = np.nan_to_num(labels[:, 0]).astype(np.int64)
    logits = logits[:, :5] - np.logaddexp.reduce(logits[:, :5], axis=1, keepdims=True)
    expected = []
    for label, row in zip(labels, logits):
        beside = [grade for grade in (label - 1, label + 1) if 0 <= grade <= 4]
        kept = 1 - 0.15 * len(beside)
        expected.append(-kept * row[label] - 0.15 * row[beside].sum())
    loss = losses_heads.NeighbourCrossEntropy(5, 0.3)
    for shape in ((-1,), (-1, 1)):
        found = float(loss(labels.reshape(shape), logits.astype(np.float32)))
        assert found == pytest.approx(np.mean(expected), rel=1e-5)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert (again.grades, again.smoothing) == (5, 0.3)
    plain = losses_heads.NeighbourCrossEntropy(5, 0.0)
    one = losses.cross_entropy(5)(labels, logits.astype(np.float32))
    assert float(plain(labels, logits.astype(np.float32))) == pytest.approx(float(one), rel=1e-6)


def test_compile_settings_of_heads_survive_being_stored():
    model, other = (keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)]) for _ in range(2))
    losses_heads.compiled_heads(model, keras.optimizers.SGD(), 2.0, 0.0)
    other.compile_from_config(model.get_compile_config())
    loss = other.loss
    assert (loss.grade_weight, loss.jsl_weight, loss.grades) == (2.0, 0.0, 3)
    other.set_weights(model.get_weights())
    batch = np.ones((3, 2), np.float32), np.array([[2, 1], [0, 0], [np.nan, 1]], np.float32)
    model.test_step(batch)
    other.test_step(batch)
    assert results(other) == results(model)
