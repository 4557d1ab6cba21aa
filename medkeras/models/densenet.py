"""A DenseNet small enough to learn from a few hundred pictures on a CPU.

`keras.applications` has DenseNets of 121 layers and more. This is the same network (Huang et al.,
"Densely Connected Convolutional Networks", CVPR 2017) with two layers a block, named as there:

| layers | output at 64 x 64 pixels |
|---|---|
| conv1: 7 x 7, stride 2, batch norm, ReLU; pool1: max 3 x 3, stride 2 | 16 x 16 x 64 |
| conv2: dense block; pool2: 1 x 1 convolution to half the channels, mean 2 x 2 | 8 x 8 x 64 |
| conv3, pool3 | 4 x 4 x 64 |
| conv4, pool4 | 2 x 2 x 64 |
| conv5, bn, relu | 2 x 2 x 128 |

A layer of a block is batch norm, ReLU, 1 x 1 convolution to 128 channels, batch norm, ReLU, 3 x 3
convolution to 32, and its output is joined to the channels of its input. 419,776 parameters.
"""

import keras

GROWTH = 32
EPSILON = 1.001e-5  # as in keras.applications


def densenet_tiny(x) -> keras.Model:
    """Builds the network on a tensor of standardised RGB.

    Args:
        x: (batch, height, width, 3), at least 32 pixels a side.

    Returns:
        A model from the tensor's input to the last map.
    """
    image = keras.utils.get_source_inputs(x)
    x = _conv(x, 64, 7, "conv1_conv", strides=2)
    x = _norm_relu(x, "conv1")
    x = keras.layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    for block in (2, 3, 4, 5):
        for layer in (1, 2):
            x = _dense_layer(x, f"conv{block}_block{layer}")
        if block < 5:
            x = _norm_relu(x, f"pool{block}")
            x = _conv(x, x.shape[-1] // 2, 1, f"pool{block}_conv")
            x = keras.layers.AveragePooling2D(2, name=f"pool{block}_pool")(x)
    x = keras.layers.BatchNormalization(epsilon=EPSILON, name="bn")(x)
    x = keras.layers.ReLU(name="relu")(x)
    return keras.Model(image, x, name="densenet_tiny")


def _dense_layer(x, name):
    y = _norm_relu(x, f"{name}_0")
    y = _conv(y, 4 * GROWTH, 1, f"{name}_1_conv")
    y = _norm_relu(y, f"{name}_1")
    y = _conv(y, GROWTH, 3, f"{name}_2_conv")
    return keras.layers.Concatenate(name=f"{name}_concat")([x, y])


def _norm_relu(x, name):
    x = keras.layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _conv(x, filters, size, name, strides=1):
    return keras.layers.Conv2D(
        filters, size, strides=strides, padding="same", use_bias=False, name=name
    )(x)
