"""A small network that finds the joint in a picture of one knee, and says how sure it is.

Convolutions make five maps of 16 x 16 cells (at 128 x 128 pixels). A softmax over the cells of a
map gives each a share, and the mean of their places, weighted so, is a point of the picture: the
soft-argmax of Nibali et al., "Numerical Coordinate Regression with Convolutional Neural Networks",
arXiv 1801.07372 (2018).

    four maps      left, right, upper and lower edge of the box, one number each
    the fifth      the joint's centre; beside its cells stands one more place, "nowhere"
    confidence     what the cells near the centre of the box have together of the fifth map

So confidence is low where nothing looks like a joint, because "nowhere" takes the whole, and where
two places do, because the centre of the box is near neither. Edges are told by where they are: a
size, read off one place, was several times as far off as they are.

At (128, 128, 1): 172,438 parameters.
"""

import keras
import numpy as np
from keras import ops

from medkeras import layers
from medkeras.models.recipe import recipe

NEAR = 0.125  # of the picture's width and height, either way
LEAST = 1e-6  # of which a logarithm is taken


@recipe
def locator(image_shape=(128, 128, 1), *, filters=16, dropout=0.0):
    """Builds the network.

    Args:
        image_shape: (height, width, channels), pixels, at least 32 a side.
        filters: feature maps of the first block; the others have two and four times as many.
        dropout: rate of whole feature maps before the five maps, 0..1.

    Returns:
        An uncompiled functional model, raw pixels (batch, *image_shape) in; out (batch, 5): x and
        y of the centre, width and height as shares of the picture, and the confidence, 0..1.
    """
    image = layers.image_input(image_shape, smallest=32)
    x = layers.rescale(image)
    for block, times in enumerate((1, 2, 4), start=1):
        x = _block(x, times * filters, f"block{block}", strides=2)
    # Kernels with holes see far: a joint is told from other bones by what lies around it.
    for block, holes in enumerate((1, 2, 4, 2), start=4):
        y = _block(x, 4 * filters, f"block{block}", dilation_rate=holes)
        x = keras.layers.Add(name=f"block{block}_add")([x, y])
    x = keras.layers.SpatialDropout2D(dropout, name="dropout")(x) if dropout else x
    x = keras.layers.Conv2D(5, 1, name="maps")(x)
    # In full precision: a place needs more digits than bfloat16 has.
    return keras.Model(image, Answer(dtype="float32", name="answer")(x), name="locator")


def _block(x, filters, name, **options):
    convolution = {"padding": "same", "use_bias": False, "kernel_initializer": "he_uniform"}
    x = keras.layers.Conv2D(filters, 3, name=f"{name}_conv", **convolution, **options)(x)
    x = keras.layers.BatchNormalization(momentum=layers.MOMENTUM, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


@keras.saving.register_keras_serializable(package="medkeras")
class Answer(keras.layers.Layer):
    """Makes a box and a confidence of five maps: (batch, h, w, 5) in, (batch, 5) out."""

    def build(self, shape):
        height, width = shape[1:3]
        down, across = ((np.arange(n, dtype="float32") + 0.5) / n for n in (height, width))
        self.places = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
        self.nowhere = self.add_weight(shape=(1,), initializer="zeros", name="nowhere")

    def call(self, maps):
        scores = ops.reshape(maps, (-1, len(self.places), 5))
        edges = ops.softmax(scores[..., 1:], axis=1)
        x = ops.einsum("bnk,n->bk", edges[..., :2], self.places[:, 0])
        y = ops.einsum("bnk,n->bk", edges[..., 2:], self.places[:, 1])
        centre = ops.stack([ops.mean(x, -1), ops.mean(y, -1)], axis=-1)
        # Which of two maps is left or upper is theirs to learn: no order, no dead gradient.
        size = ops.stack([ops.abs(x[:, 1] - x[:, 0]), ops.abs(y[:, 1] - y[:, 0])], axis=-1)
        nowhere = ops.broadcast_to(self.nowhere, ops.shape(scores[:, 0, :1]))
        shares = ops.softmax(ops.concatenate([scores[..., 0], nowhere], axis=-1), axis=-1)
        away = ops.max(ops.abs(self.places[None] - centre[:, None]), axis=-1)
        near = ops.where(away <= NEAR, shares[:, :-1], 0.0)
        return ops.concatenate([centre, size, ops.sum(near, -1, keepdims=True)], axis=-1)

    def compute_output_shape(self, shape):
        return (shape[0], 5)


def compiled(model, optimizer):
    """Compiles a locator: `LocationLoss`, and the mean overlap of boxes as the live metric.

    Args:
        model: ends in (batch, 5).
        optimizer: a Keras optimizer.
    """
    model.compile(optimizer, LocationLoss(), metrics=[MeanOverlap()])
    return model


def overlap(one, other):
    """Computes the intersection over union of boxes (..., 4): centre x and y, width, height."""
    low = ops.maximum(one[..., :2] - one[..., 2:] / 2, other[..., :2] - other[..., 2:] / 2)
    high = ops.minimum(one[..., :2] + one[..., 2:] / 2, other[..., :2] + other[..., 2:] / 2)
    both = ops.prod(ops.maximum(high - low, 0.0), axis=-1)
    total = ops.prod(one[..., 2:], axis=-1) + ops.prod(other[..., 2:], axis=-1)
    return both / ops.maximum(total - both, LEAST)


@keras.saving.register_keras_serializable(package="medkeras")
class LocationLoss(keras.losses.Loss):
    """Distance of the boxes and cross-entropy of the confidence.

    Where there is a joint: 1 - IoU, the mean error of the four numbers, in widths and heights of
    the true box (it pulls a box that does not overlap yet), and the cross-entropy of a confidence
    that should be 1. Where the true box is NaN: that of one that should be 0.
    """

    def __init__(self, name="location", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        known, true = _known(y_true)
        box, sure = y_pred[:, :4], y_pred[:, 4]
        sizes = ops.concatenate([true[:, 2:], true[:, 2:]], axis=-1)
        error = ops.mean(ops.abs(box - true) / sizes, axis=-1)
        placed = 1 - overlap(true, box) + error - ops.log(sure + LEAST)
        return ops.where(known, placed, -ops.log(ops.maximum(1 - sure, 0.0) + LEAST))


@keras.saving.register_keras_serializable(package="medkeras")
class MeanOverlap(keras.metrics.Mean):
    """Mean IoU of true and found boxes, where there is a joint."""

    def __init__(self, name="iou", **kwargs):
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true, y_pred, sample_weight=None):
        known, true = _known(y_true)
        found = overlap(true, y_pred[:, :4])
        super().update_state(found, sample_weight=ops.cast(known, "float32"))


def _known(boxes):
    """Which boxes there are, and all of them, with some box where there is none."""
    known = ops.all(ops.isfinite(boxes), axis=-1)
    # Replaced before anything is computed: NaN times 0 is NaN.
    return known, ops.where(known[:, None], boxes, 0.5)
