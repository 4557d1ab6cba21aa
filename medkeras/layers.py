"""The layer library that all models share: blocks as functions on tensors.

Every layer is named after its block (`block1_conv1`, `head_bn`), so that histograms, Grad-CAM
and `get_layer` find the same name in every process. Only layers of Keras are used, and
three for which Keras has none: `SlicePooling`, `GreyConv2D` and `OrdinalLogits`.
"""

import math

import keras
from keras import ops

from medkeras.errors import UsageError

# Keras's 0.99 needs several hundred steps before the running statistics mean anything; a
# hospital's few hundred pictures give ten steps an epoch.
MOMENTUM = 0.9

SLICES = ("max", "mean", "attention")
ATTENTION_UNITS = 128  # of Ilse et al. 2018
GAIN = 30.0  # of an ordinal head's thresholds over their weights
LEAST_STEP = 1e-4  # between the thresholds of an ordinal head: every grade keeps a probability


def image_input(image_shape, smallest=1, name="image"):
    """Opens a model: raw pixels, 0..255.

    Args:
        image_shape: (height, width, channels), pixels; channels 1 (grey) or 3 (RGB).
        smallest: height and width that the model needs at least, pixels.
        name: of the layer.

    Returns:
        A symbolic tensor (batch, height, width, channels).

    Raises:
        UsageError: where the shape is none of these, or too small.
    """
    shape = tuple(image_shape)
    good = len(shape) == 3 and all(isinstance(n, int) for n in shape) and shape[2] in (1, 3)
    if not good or min(shape[:2]) < smallest:
        raise UsageError(
            f"image_shape must be (height, width, 1 or 3) with at least {smallest} pixels "
            f"a side for this model; got {image_shape!r}"
        )
    return keras.Input(shape, dtype="float32", name=name)


def rescale(x, scale=1 / 255, offset=0.0, name="rescale"):
    """Computes x * scale + offset, with one number or one for each channel."""
    return keras.layers.Rescaling(scale, offset, name=name)(x)


def grey_to_rgb(x, name="grey_to_rgb"):
    """Repeats one channel to three; leaves three as they are."""
    if x.shape[-1] == 3:
        return x
    return keras.layers.Concatenate(name=name)([x, x, x])


def conv_block(
    x, filters, size, name, *, convs=1, batch_norm=True, kernel_initializer="he_uniform"
):
    """Applies convolutions with ReLU, then batch norm, then 2x2 max pooling.

    Args:
        x: tensor (batch, height, width, channels).
        filters: feature maps of each convolution.
        size: side of the kernel, pixels; the padding is "same".
        name: prefix of the layers `_conv1`, ..., `_bn`, `_pool`.
        convs: number of convolutions.
        batch_norm: False leaves the batch norm out.
        kernel_initializer: initializer of the kernels.

    Returns:
        A tensor (batch, height // 2, width // 2, filters).
    """
    for i in range(convs):
        x = keras.layers.Conv2D(
            filters,
            size,
            padding="same",
            activation="relu",
            kernel_initializer=kernel_initializer,
            name=f"{name}_conv{i + 1}",
        )(x)
    if batch_norm:
        x = keras.layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_bn")(x)
    return keras.layers.MaxPooling2D(2, name=f"{name}_pool")(x)


def applied(stack, x) -> dict:
    """Applies layers one after the other; the same layers can be applied to several tensors.

    A pool is left out where its window is larger than the map, so that a network made for large
    pictures also takes small ones. The weights are the same either way.

    Args:
        stack: list of layers.
        x: tensor (batch, height, width, channels).

    Returns:
        The output of each layer by the layer's name, in order.
    """
    outputs = {}
    for layer in stack:
        pools = isinstance(layer, keras.layers.MaxPooling2D)
        if pools and min(x.shape[1:3]) < layer.pool_size[0]:
            continue
        x = outputs[layer.name] = layer(x)
    return outputs


def pool_slices(x, exam, how, name):
    """Makes one vector of an exam's slices, however many there are, without padding.

    Args:
        x: tensor (slices, features): the slices of all exams of a batch, one exam after another.
        exam: integer tensor (slices,): the exam of each slice, 0, 1, ...; sorted, none left out.
        how: "max", "mean", or "attention" (Ilse, Tomczak and Welling, "Attention-based deep
            multiple instance learning", ICML 2018, without gates): the slices weighted by the
            softmax, over the exam, of w . tanh(V x + b); V has 128 rows.
        name: of the layer; prefix of the attention's layers `_tanh` (V, b) and `_score` (w).

    Returns:
        A tensor (exams, features), float32 under any precision policy.

    Raises:
        UsageError: for another word.
    """
    if how not in SLICES:
        raise UsageError(f"slices must be one of {', '.join(SLICES)}; got {how!r}")
    inputs = [x, exam]
    if how == "attention":
        x = keras.layers.Dense(
            ATTENTION_UNITS, activation="tanh", dtype="float32", name=f"{name}_tanh"
        )(x)
        # A bias would be the same for every slice, and softmax ignores that.
        scores = keras.layers.Dense(1, use_bias=False, dtype="float32", name=f"{name}_score")(x)
        inputs.append(scores)
    return SlicePooling(how, dtype="float32", name=name)(inputs)


def dense_bn(x, units, name, *, l2=0.0):
    """Applies a dense layer without bias (the norm has its own), batch norm and ReLU.

    Args:
        x: tensor (batch, features).
        units: width.
        name: prefix of the layers `_dense`, `_bn`, `_relu`.
        l2: L2 factor on the kernel; 0 for none.

    Returns:
        A tensor (batch, units).
    """
    x = keras.layers.Dense(
        units,
        use_bias=False,
        kernel_initializer="he_uniform",
        kernel_regularizer=regularizer(l2),
        name=f"{name}_dense",
    )(x)
    x = keras.layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def pooled(x, how, name="pooling"):
    """Makes one vector of a map.

    Args:
        x: tensor (batch, height, width, channels).
        how: "avg", "max" (both over the whole map) or "flatten".
        name: of the layer.

    Returns:
        A tensor (batch, features).

    Raises:
        UsageError: for another word.
    """
    if how == "avg":
        return keras.layers.GlobalAveragePooling2D(name=name)(x)
    if how == "max":
        return keras.layers.GlobalMaxPooling2D(name=name)(x)
    if how == "flatten":
        return keras.layers.Flatten(name=name)(x)
    raise UsageError(f'pooling must be "avg", "max" or "flatten"; got {how!r}')


def dropout(x, rate, name):
    """Applies dropout; at rate 0 adds no layer, so that the output stays a fixed function."""
    if not 0 <= rate < 1:
        raise UsageError(f"dropout must be at least 0 and below 1; got {rate}")
    return keras.layers.Dropout(rate, name=name)(x) if rate else x


def logits(x, outputs, *, l2=0.0, ordinal=False, name="logits"):
    """Ends a model, or one of its heads, in float32 under any precision policy.

    Args:
        x: tensor (batch, features).
        outputs: number of logits, at least 1; grades of an ordinal head, at least 3.
        l2: L2 factor on the kernel; 0 for none.
        ordinal: False for a linear layer. True for a score, a linear layer named `NAME_score`
            without bias (the thresholds are that), and `OrdinalLogits` of it.
        name: of the last layer.

    Returns:
        A tensor (batch, outputs).
    """
    if outputs < 1:
        raise UsageError(f"a model needs at least one class to tell apart; got {outputs}")
    given = {"kernel_regularizer": regularizer(l2), "dtype": "float32"}
    if not ordinal:
        return keras.layers.Dense(outputs, name=name, **given)(x)
    score = keras.layers.Dense(1, use_bias=False, name=f"{name}_score", **given)(x)
    return OrdinalLogits(outputs, dtype="float32", name=name)(score)


def regularizer(l2):
    """Returns an L2 regularizer of that factor, or None for 0."""
    return keras.regularizers.L2(l2) if l2 else None


@keras.saving.register_keras_serializable("medkeras")
class SlicePooling(keras.layers.Layer):
    """Pools slices of the same exam; see `pool_slices`.

    Args:
        how: "max", "mean" or "attention".
        **kwargs: of every layer.
    """

    def __init__(self, how, **kwargs):
        super().__init__(**kwargs)
        self.how = how
        self.supports_jit = False  # XLA wants to know the number of exams beforehand

    def call(self, inputs):
        """Pools [features (slices, n), exam (slices,)] and, for attention, scores (slices, 1)."""
        x, exam, *scores = inputs
        if self.how == "max":
            return ops.segment_max(x, exam, sorted=True)
        if self.how == "mean":
            weights = ops.ones_like(x[:, :1])
        else:
            # The largest weight of an exam is 1: nothing overflows, no sum is 0.
            largest = ops.stop_gradient(ops.segment_max(scores[0], exam, sorted=True))
            weights = ops.exp(scores[0] - ops.take(largest, exam, axis=0))
        total = ops.segment_sum(weights, exam, sorted=True)
        return ops.segment_sum(weights * x, exam, sorted=True) / total

    def get_config(self):
        """Returns what the layer is made of."""
        return super().get_config() | {"how": self.how}


@keras.saving.register_keras_serializable("medkeras")
class GreyConv2D(keras.layers.Conv2D):
    """Convolves three channels, or one as if it were repeated to three, in a third of the work.

    The kernel has three channels either way; summed over them, it gives the same for grey, and
    the gradient of each channel is that of the sum.
    """

    def build(self, input_shape):
        """Makes the kernel of three channels."""
        super().build((*input_shape[:-1], 3))
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def convolution_op(self, inputs, kernel):
        """Convolves with the kernel, or with its sum over the channels."""
        if inputs.shape[-1] == 1:
            kernel = ops.sum(kernel, axis=2, keepdims=True)
        return super().convolution_op(inputs, kernel)


@keras.saving.register_keras_serializable("medkeras")
class OrdinalLogits(keras.layers.Layer):
    """Makes the log-probabilities of ordered grades from one score s: proportional odds.

    P(grade >= k) = sigmoid(s - t_k), with thresholds t_1 < t_2 < ... (McCullagh, "Regression
    models for ordinal data", J. R. Statist. Soc. B 42, 1980). With weights `first` and `steps`,
    t_1 = GAIN first, and each of the others lies softplus(GAIN step) + LEAST_STEP above the one
    before it. So P(grade >= k) falls with k and rises with s, whatever the weights. At the start
    they lie 1 apart, around 0.

    A network that comes to see more spreads its scores, and the thresholds must follow. Adam moves
    every weight by about the learning rate a step; at one that suits a whole network, thresholds
    that were weights themselves would stand still. `GAIN` lets them keep up.

    Softmax of the output is the distribution of the grades, so losses, evaluation and explanations
    take the output as they take any logits.

    Args:
        grades: number of grades, at least 3.
        **kwargs: of every layer.

    Raises:
        UsageError: for fewer grades, or for other than one score a row.
    """

    def __init__(self, grades, **kwargs):
        super().__init__(**kwargs)
        if grades < 3:
            raise UsageError(
                f"an ordinal head needs at least 3 grades; got {grades}: one logit tells two apart"
            )
        self.grades = grades

    def build(self, input_shape):
        """Makes the weights of the thresholds."""
        if input_shape[-1] != 1:
            raise UsageError(f"OrdinalLogits takes scores (batch, 1); got {tuple(input_shape)}")
        first = keras.initializers.Constant((1 - self.grades / 2) / GAIN)
        self.first = self.add_weight(shape=(1,), initializer=first, name="first")
        # The inverse of softplus, for steps of 1.
        step = keras.initializers.Constant(math.log(math.expm1(1 - LEAST_STEP)) / GAIN)
        self.steps = self.add_weight(shape=(self.grades - 2,), initializer=step, name="steps")

    def call(self, score):
        """Computes log-probabilities (batch, grades) from scores (batch, 1)."""
        steps = ops.softplus(GAIN * self.steps) + LEAST_STEP
        above = score - GAIN * self.first
        above = ops.concatenate([above, above - ops.cumsum(steps)], axis=1)  # s - t_k
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), and a - b is a step.
        reached, missed = ops.log_sigmoid(above), ops.log_sigmoid(-above)
        between = reached[:, :-1] + missed[:, 1:] + ops.log(-ops.expm1(-steps))
        found = ops.concatenate([missed[:, :1], between, reached[:, -1:]], axis=1)
        # They sum to 1 but for rounding, which is large where thresholds lie very far apart.
        return ops.log_softmax(found, axis=1)

    def get_config(self):
        """Returns what the layer is made of."""
        return super().get_config() | {"grades": self.grades}
