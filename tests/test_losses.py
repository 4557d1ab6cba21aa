"""Losses and live metrics against NumPy and scikit-learn, with unknown labels in between."""

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medkeras import losses
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
