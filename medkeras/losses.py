"""Losses and their live metrics, all computed from logits.

Models end in linear logits; softmax and sigmoid live in evaluation and serving. (The published
bone X-ray study passed `from_logits=True` over a softmax, which trains on twice-squashed scores
wherever Keras does not happen to look through the activation.)

Live metrics draw curves; what is reported is computed exactly from `predictions.csv`.
"""

import keras
import numpy as np
from keras import ops


def cross_entropy(outputs):
    """Returns the cross-entropy of integer class labels.

    Args:
        outputs: number of logits: 1 for two classes with labels 0 and 1, else one a class.

    Returns:
        A Keras loss: binary for one output, sparse categorical for more.
    """
    if outputs == 1:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def accuracy(outputs):
    """Returns the accuracy metric that goes with `cross_entropy`, named "accuracy".

    Args:
        outputs: number of logits. One logit says class 1 where it is above 0, which is a
            probability above one half.

    Returns:
        A fresh Keras metric.
    """
    if outputs == 1:
        return keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
    return keras.metrics.SparseCategoricalAccuracy(name="accuracy")


def compiled(model, optimizer, *, curves=False):
    """Compiles a classifier: cross-entropy of its logits, accuracy as the live metric.

    Args:
        model: ends in logits (batch, outputs).
        optimizer: a Keras optimizer.
        curves: with one logit, watch AUC, sensitivity and specificity too.

    Returns:
        The model.
    """
    outputs = model.output_shape[-1]
    watched = [accuracy(outputs), *([LiveCurves()] if curves and outputs == 1 else [])]
    model.compile(optimizer, cross_entropy(outputs), metrics=watched)
    return model


def compiled_findings(model, optimizer, findings, positive_weight=None):
    """Compiles a model of many findings: masked cross-entropy, and three curves a finding.

    Args:
        model: ends in logits (batch, findings), or (batch, 2 findings) where a finding may be
            uncertain as a third class.
        optimizer: a Keras optimizer.
        findings: their names, in the order of the logits.
        positive_weight: see `MaskedCrossEntropy`.

    Returns:
        The model.
    """
    third_class = model.output_shape[-1] == 2 * len(findings)
    loss = UncertainCrossEntropy if third_class else MaskedCrossEntropy
    model.compile(optimizer, loss(positive_weight), metrics=[LiveCurves(findings)])
    return model


def positive_weights(labels) -> list[float]:
    """Computes negatives / positives of each finding, which makes both weigh the same in all.

    Args:
        labels: of the training part, (n, findings), 1, 0 or NaN.

    Returns:
        A weight a finding; 1 where positives or negatives are missing.
    """
    positive, negative = np.sum(labels == 1, axis=0), np.sum(labels == 0, axis=0)
    defined = (positive > 0) & (negative > 0)
    return np.where(defined, negative / np.maximum(positive, 1), 1.0).tolist()


@keras.saving.register_keras_serializable(package="medkeras")
class MaskedCrossEntropy(keras.losses.Loss):
    """Binary cross-entropy of each finding, averaged over the known labels of a row.

    An unknown label (NaN) adds exactly nothing to the loss or to any gradient; a row without a
    known label has a loss of 0. Labels may be soft, between 0 and 1.

    Args:
        positive_weight: factor on the positive part, one a finding; None for 1.
        name: of the loss.
    """

    def __init__(self, positive_weight=None, name="masked_cross_entropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.positive_weight = positive_weight

    def call(self, y_true, y_pred):
        weight = 1.0 if self.positive_weight is None else ops.cast(self.positive_weight, "float32")
        known = ops.isfinite(y_true)
        # Replaced before anything is computed: NaN times 0 is NaN.
        label = ops.where(known, y_true, 0.0)
        positive, negative = ops.softplus(-y_pred), ops.softplus(y_pred)
        return _mean(weight * label * positive + (1 - label) * negative, known)

    def get_config(self):
        return super().get_config() | {"positive_weight": self.positive_weight}


@keras.saving.register_keras_serializable(package="medkeras")
class UncertainCrossEntropy(MaskedCrossEntropy):
    """Cross-entropy of present, absent and uncertain (the "U-MultiClass" of Irvin et al. 2019).

    A finding has two logits: a, present against absent, and b, uncertain against absent. The
    three chances are softmax(a, 0, b); sigmoid(a) is that of present among the known ones, so
    evaluation needs the first half of the logits alone. Labels come in halves too: y, and u, which
    is 1 for uncertain and 0 for known. Where u is unknown (NaN), the finding has two classes and
    the loss is that of `MaskedCrossEntropy`; where y is, it adds nothing.

    Args:
        positive_weight: as in `MaskedCrossEntropy`.
        name: of the loss.
    """

    def __init__(self, positive_weight=None, name="uncertain_cross_entropy", **kwargs):
        super().__init__(positive_weight, name=name, **kwargs)

    def call(self, y_true, y_pred):
        weight = 1.0 if self.positive_weight is None else ops.cast(self.positive_weight, "float32")
        (label, third), (present, uncertain) = ops.split(y_true, 2, -1), ops.split(y_pred, 2, -1)
        known, three = ops.isfinite(label), ops.isfinite(third)
        label, third = ops.where(known, label, 0.0), ops.where(three, third, 0.0)
        # So small a logit has no part in the sum, and no gradient.
        uncertain = ops.where(three, uncertain, -1e9)
        total = ops.logaddexp(ops.softplus(present), uncertain)
        two = weight * label * (total - present) + (1 - label) * total
        return _mean((1 - third) * two + third * (total - uncertain), known)


def _mean(losses, known):
    """Averages each row over what is known; 0 where nothing is."""
    number = ops.maximum(ops.sum(ops.cast(known, losses.dtype), axis=-1), 1.0)
    return ops.sum(ops.where(known, losses, 0.0), axis=-1) / number


@keras.saving.register_keras_serializable(package="medkeras")
class LiveCurves(keras.metrics.Metric):
    """AUC, sensitivity and specificity of each finding, all in one pass over the logits.

    The AUC is that of counts at 401 logits between -10 and 10; Keras's own has its thresholds at
    equal steps of probability, blind to the small ones. A finding is found where its logit is
    above 0. NaN where there are no positives or negatives so far; a label that is neither 0 nor 1,
    unknown or soft, counts on neither side.

    The result is a dict, `auc_<finding>` and so on; for the finding "" bare `auc`.

    Args:
        findings: names of the first logits, in their order; any further logits are not read.
        last: True: names of the last logits and labels; any before them are not read.
        name: of the metric.
    """

    def __init__(self, findings=("",), last=False, name="curves", **kwargs):
        super().__init__(name=name, **kwargs)
        self.findings, self.last = list(findings), last
        self.thresholds = np.linspace(-10, 10, 401, dtype=np.float32)
        shape = (len(self.findings), 402)
        self.positives = self.add_weight(shape=shape, initializer="zeros", name="positives")
        self.negatives = self.add_weight(shape=shape, initializer="zeros", name="negatives")

    def update_state(self, y_true, y_pred, sample_weight=None):
        count = len(self.findings)
        read = slice(-count, None) if self.last else slice(count)
        logit = ops.cast(y_pred[:, read], "float32")
        label = ops.reshape(ops.cast(y_true, "float32"), (ops.shape(y_pred)[0], -1))[:, read]
        place = ops.searchsorted(ops.convert_to_tensor(self.thresholds), ops.reshape(logit, (-1,)))
        # (rows, findings, bins): each logit is 1 in its bin.
        bins = ops.one_hot(ops.reshape(place, ops.shape(logit)), 402)
        for counts, value in ((self.positives, 1.0), (self.negatives, 0.0)):
            counted = ops.cast(ops.equal(label, value), "float32")
            counts.assign_add(ops.sum(bins * counted[:, :, None], axis=0))

    def result(self):
        positives, negatives = ops.sum(self.positives, axis=1), ops.sum(self.negatives, axis=1)
        # A positive wins against all negatives in lower bins, half against those in its own.
        lower = ops.cumsum(self.negatives, axis=1) - self.negatives / 2
        wins = ops.sum(self.positives * lower, axis=1)
        above = self.thresholds.size // 2 + 1  # first bin above the logit 0
        measured = {
            "auc": ratio(wins, positives * negatives),
            "sensitivity": ratio(ops.sum(self.positives[:, above:], axis=1), positives),
            "specificity": ratio(ops.sum(self.negatives[:, :above], axis=1), negatives),
        }
        return {
            f"{kind}_{finding}" if finding else kind: values[k]
            for k, finding in enumerate(self.findings)
            for kind, values in measured.items()
        }

    def get_config(self):
        return super().get_config() | {"findings": self.findings, "last": self.last}


def flat(results: dict) -> dict:
    """Lays out results of metrics that have several, as `LiveCurves` has, by name."""
    found = {}
    for name, value in results.items():
        found |= value if isinstance(value, dict) else {name: value}
    return found


def ratio(part, whole):
    """Computes part / whole of tensors; NaN where whole is 0."""
    return ops.where(whole > 0, part / ops.maximum(whole, 1.0), np.nan)
