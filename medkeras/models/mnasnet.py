"""MNASNet-B1, found by search for speed on a phone, with torchvision's layers; Keras has none.

Tan et al., "MnasNet: Platform-aware neural architecture search for mobile", CVPR 2019,
arXiv:1807.11626, depth multiplier 1.0, as torchvision's `mnasnet1_0`, without the classifier:
3,102,312 parameters that learn. At 224 x 224 pixels:

| block | layers | kernel | expansion | output |
|---|---|---|---|---|
| stem | convolution, stride 2 | 3 | | 112 x 112 x 32 |
| 0 | depthwise, projection | 3 | | 112 x 112 x 16 |
| 1 | 3 inverted residuals, stride 2 | 3 | 3 | 56 x 56 x 24 |
| 2 | 3, stride 2 | 5 | 3 | 28 x 28 x 40 |
| 3 | 3, stride 2 | 5 | 6 | 14 x 14 x 80 |
| 4 | 2 | 3 | 6 | 14 x 14 x 96 |
| 5 | 4, stride 2 | 5 | 6 | 7 x 7 x 192 |
| 6 | 1 | 3 | 6 | 7 x 7 x 320 |
| top | convolution | 1 | | 7 x 7 x 1280 |

Random weights are He's (normal, by the outputs). `medkeras.models.convert` writes ImageNet weights.
"""

import keras

# Kernel, stride of the first, expansion, filters, inverted residuals.
BLOCKS = (
    (3, 2, 3, 24, 3),
    (5, 2, 3, 40, 3),
    (5, 2, 6, 80, 3),
    (3, 1, 6, 96, 2),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
MOMENTUM = 0.9997  # of the batch norms, as published


def mnasnet(input_tensor) -> keras.Model:
    """Builds the network on a tensor of standardised RGB.

    Args:
        input_tensor: (batch, height, width, 3), at least 32 pixels a side.

    Returns:
        A model from the tensor's input to the last map; layers are named `stem_conv`, ...,
        `block1a_expand_conv`, `block1a_dwconv`, `block1a_project_conv`, ..., `top_relu`.
    """
    x = _convolved(input_tensor, "stem_", 32, 3, 2)
    x = _depthwise(x, "block0_", 3, 1)
    x = _convolved(x, "block0_project_", 16, 1, activated=False)
    for block, (size, stride, expansion, filters, repeats) in enumerate(BLOCKS, start=1):
        for i in range(repeats):
            name = f"block{block}{'abcd'[i]}_"
            x = _inverted_residual(x, name, size, 1 if i else stride, expansion, filters)
    x = _convolved(x, "top_", 1280, 1)
    return keras.Model(keras.utils.get_source_inputs(input_tensor), x, name="mnasnet")


def torch_names() -> dict:
    """Lists what torchvision calls the layers with weights: {`stem_conv`: `layers.0`}."""
    names = {
        "stem_conv": "layers.0",
        "stem_bn": "layers.1",
        "block0_dwconv": "layers.3",
        "block0_bn": "layers.4",
        "block0_project_conv": "layers.6",
        "block0_project_bn": "layers.7",
    }
    parts = ("expand_conv", 0), ("expand_bn", 1), ("dwconv", 3), ("bn", 4)
    parts += ("project_conv", 6), ("project_bn", 7)
    for block, (*_, repeats) in enumerate(BLOCKS, start=1):
        for i in range(repeats):
            for part, number in parts:
                names[f"block{block}{'abcd'[i]}_{part}"] = f"layers.{block + 7}.{i}.layers.{number}"
    return names | {"top_conv": "layers.14", "top_bn": "layers.15"}


def _inverted_residual(x, name, size, stride, expansion, filters):
    y = _convolved(x, f"{name}expand_", x.shape[-1] * expansion, 1)
    y = _depthwise(y, name, size, stride)
    y = _convolved(y, f"{name}project_", filters, 1, activated=False)
    if stride == 1 and x.shape[-1] == filters:
        return keras.layers.Add(name=f"{name}add")([x, y])
    return y


def _convolved(x, name, filters, size, stride=1, *, activated=True):
    x, padding = _padded(x, name, size, stride)
    x = keras.layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=_he(),
        name=f"{name}conv",
    )(x)
    return _normed(x, name, activated)


def _depthwise(x, name, size, stride):
    x, padding = _padded(x, f"{name}dw", size, stride)
    x = keras.layers.DepthwiseConv2D(
        size,
        strides=stride,
        padding=padding,
        use_bias=False,
        depthwise_initializer=_he(),
        name=f"{name}dwconv",
    )(x)
    return _normed(x, name, True)


def _padded(x, name, size, stride):
    """Pads evenly before a stride, as PyTorch does; Keras's "same" pads less on the left."""
    if stride == 1:
        return x, "same"
    return keras.layers.ZeroPadding2D(size // 2, name=f"{name}pad")(x), "valid"


def _normed(x, name, activated):
    x = keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=1e-5, name=f"{name}bn")(x)
    return keras.layers.ReLU(name=f"{name}relu")(x) if activated else x


def _he():
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
