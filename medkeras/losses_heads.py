"""Losses and live metrics of ordered grades, alone or beside a second question."""

import keras
import numpy as np
from keras import ops

from medkeras.errors import UsageError
from medkeras.losses import LiveCurves, accuracy, cross_entropy, ratio


def compiled_grades(model, optimizer, smoothing=0.0):
    """Compiles a model of ordered grades: cross-entropy, accuracy, mean absolute grade error.

    Args:
        model: ends in logits (batch, grades), of a linear or an ordinal head.
        optimizer: a Keras optimizer.
        smoothing: see `NeighbourCrossEntropy`; 0 for plain cross-entropy.

    Returns:
        The model. Its live metrics are `accuracy` and `grade_error`.
    """
    grades = model.output_shape[-1]
    watched = [accuracy(grades), GradeError(grades)]
    loss = NeighbourCrossEntropy(grades, smoothing) if smoothing else cross_entropy(grades)
    model.compile(optimizer, loss, metrics=watched)
    return model


def compiled_heads(model, optimizer, grade_weight=1.0, jsl_weight=1.0):
    """Compiles a model of a grade and of joint space loss (JSL).

    Args:
        model: ends in logits (batch, grades + 1), see `MultiTask`.
        optimizer: a Keras optimizer.
        grade_weight: see `MultiTask`.
        jsl_weight: see `MultiTask`.

    Returns:
        The model. Its live metrics are `grade_accuracy`, `grade_error`, `auc_jsl`,
        `sensitivity_jsl` and `specificity_jsl`.
    """
    grades = model.output_shape[-1] - 1
    watched = [GradeAccuracy(grades), GradeError(grades), LiveCurves(["jsl"], last=True)]
    model.compile(optimizer, MultiTask(grade_weight, jsl_weight, grades), metrics=watched)
    return model


@keras.saving.register_keras_serializable(package="medkeras")
class NeighbourCrossEntropy(keras.losses.Loss):
    """Cross-entropy of a grade, a share of which counts for the grades next to it.

    Readers who differ, mostly differ by one grade: a network that is sure of one of two learns
    noise. Labels are whole numbers (batch,), logits (batch, grades).

    Args:
        grades: number of grades.
        smoothing: the share, 0..1, half for each neighbour. The lowest and the highest grade have
            one neighbour, and keep the other half.
        name: of the loss.
    """

    def __init__(self, grades, smoothing=0.2, name="neighbour_cross_entropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.grades, self.smoothing = grades, smoothing

    def call(self, y_true, y_pred):
        beside = np.eye(self.grades, k=1) + np.eye(self.grades, k=-1)
        shares = self.smoothing / 2 * beside
        shares += np.diag(1 - shares.sum(axis=1))
        label = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        targets = ops.take(ops.convert_to_tensor(shares, y_pred.dtype), label, axis=0)
        return ops.categorical_crossentropy(targets, y_pred, from_logits=True)

    def get_config(self):
        return super().get_config() | {"grades": self.grades, "smoothing": self.smoothing}


@keras.saving.register_keras_serializable(package="medkeras")
class MultiTask(keras.losses.Loss):
    """Cross-entropy of a grade and binary cross-entropy of joint space loss (JSL), added up.

    Logits are (batch, grades + 1), that of JSL last; labels float (batch, 2): the grade from 0,
    then JSL 1 or 0. Each head is averaged over the rows of the batch whose label is known, so that
    a head with few labels counts in full. An unknown label (NaN) adds exactly nothing to the loss
    or to any gradient; a head without a known label has a loss of 0. In the published knee X-ray
    study both weights are 1, and all labels are known.

    Args:
        grade_weight: factor on the grade's part, at least 0.
        jsl_weight: factor on the part of JSL, at least 0.
        grades: number of grades.
        name: of the loss.

    Raises:
        UsageError: a weight is negative or not finite, or both are 0.
    """

    def __init__(self, grade_weight=1.0, jsl_weight=1.0, grades=5, name="multi_task", **kwargs):
        super().__init__(name=name, **kwargs)
        weights = (grade_weight, jsl_weight)
        if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
            raise UsageError(
                "grade_weight and jsl_weight must be at least 0, and one of them above 0; got "
                f"{grade_weight} and {jsl_weight}"
            )
        self.grade_weight, self.jsl_weight, self.grades = grade_weight, jsl_weight, grades

    def call(self, y_true, y_pred):
        known = ops.isfinite(y_true)
        # Replaced before anything is computed: NaN times 0 is NaN.
        label = ops.where(known, y_true, 0.0)
        grade = ops.where(known[:, :1], y_pred[:, : self.grades], 0.0)
        jsl = ops.where(known[:, 1], y_pred[:, self.grades], 0.0)
        graded = ops.sparse_categorical_crossentropy(
            ops.cast(label[:, 0], "int32"), grade, from_logits=True
        )
        lost = ops.softplus(jsl) - label[:, 1] * jsl
        weighted = self.grade_weight * _over_known(graded, known[:, 0])
        return weighted + self.jsl_weight * _over_known(lost, known[:, 1])

    def get_config(self):
        weights = {"grade_weight": self.grade_weight, "jsl_weight": self.jsl_weight}
        return super().get_config() | weights | {"grades": self.grades}


def _over_known(losses, known):
    """Scales losses so that their mean over all rows becomes that over the known ones."""
    known = ops.cast(known, losses.dtype)
    return known * losses / ops.maximum(ops.mean(known), 1e-9)


@keras.saving.register_keras_serializable(package="medkeras")
class GradeError(keras.metrics.Mean):
    """Mean distance of the likeliest grade from the true one; NaN where none is known so far.

    Args:
        grades: number of grades: the first logits. The grade is the first label; NaN is unknown.
        name: of the metric.
    """

    def __init__(self, grades, name="grade_error", **kwargs):
        super().__init__(name=name, **kwargs)
        self.grades = grades

    def update_state(self, y_true, y_pred, sample_weight=None):
        label = ops.reshape(ops.cast(y_true, "float32"), (ops.shape(y_pred)[0], -1))[:, 0]
        known = ops.isfinite(label)
        found = ops.cast(ops.argmax(y_pred[:, : self.grades], axis=-1), "float32")
        value = self.averaged(ops.abs(found - ops.where(known, label, 0.0)))
        super().update_state(value, sample_weight=ops.cast(known, "float32"))

    def averaged(self, distance):
        """Returns what is averaged, from distances in grades."""
        return distance

    def result(self):
        return ratio(self.total, self.count)

    def get_config(self):
        return super().get_config() | {"grades": self.grades}


@keras.saving.register_keras_serializable(package="medkeras")
class GradeAccuracy(GradeError):
    """Share of rows whose likeliest grade is the true one; NaN where none is known so far.

    Args:
        grades: as in `GradeError`.
        name: of the metric.
    """

    def __init__(self, grades, name="grade_accuracy", **kwargs):
        super().__init__(grades, name=name, **kwargs)

    def averaged(self, distance):
        return ops.cast(distance == 0, "float32")
