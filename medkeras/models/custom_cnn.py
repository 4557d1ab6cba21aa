"""The convolutional networks of the bone X-ray study, trained from scratch.

Layer by layer as published, except that the division by 255 is inside and the output is a
logit: sigmoid and softmax live in evaluation and serving, and the loss takes logits.
Every convolution is padded "same"; pools are 2x2. At 224 x 224 x 3, one class:

| model | dense layers | parameters |
|---|---|---|
| v1 | 128, 64 | 456,993 |
| v2 | 1024, 512 | 207,169,793 |
| v2 M1 (RMSprop), M2 (Adam) | 512, 128 | 103,946,625 |
| v2 M3 | 128, 64 | 26,817,089 |
| v2 M4 | 64, 32 | 13,965,473 |

The greyscale variation takes `image_shape=(224, 224, 1)`.
"""

import keras

from medkeras import layers
from medkeras.models.recipe import recipe

# Published variations of v2: dense widths and the optimizer they were trained with.
V2_VARIATIONS = {
    "published": {"units": (1024, 512), "optimizer": "adam"},
    "M1": {"units": (512, 128), "optimizer": "rmsprop"},
    "M2": {"units": (512, 128), "optimizer": "adam"},
    "M3": {"units": (128, 64), "optimizer": "adam"},
    "M4": {"units": (64, 32), "optimizer": "adam"},
}


@recipe
def v1(image_shape=(224, 224, 3), classes=1, *, dropout=0.4):
    """Builds the first network: five narrow convolutions and two dense layers.

    Args:
        image_shape: (height, width, channels), pixels, at least 32 a side.
        classes: number of logits; 1 for two classes.
        dropout: rate before the dense layers, 0..1.

    Returns:
        An uncompiled functional model, raw pixels (batch, *image_shape) in, logits
        (batch, classes) out.
    """
    image = layers.image_input(image_shape, smallest=32)
    x = layers.rescale(image)
    for block, filters in enumerate((32, 32, 32, 32, 64), start=1):
        x = layers.conv_block(
            x,
            filters,
            3,
            f"block{block}",
            batch_norm=False,
            kernel_initializer="glorot_uniform",
        )
    x = layers.dropout(x, dropout, "dropout")
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(128, activation="relu", name="dense1")(x)
    x = keras.layers.Dense(64, activation="relu", name="dense2")(x)
    return _finished(image, layers.logits(x, classes), "block5_conv1", "custom_cnn_v1")


@recipe
def v2(image_shape=(224, 224, 3), classes=1, *, units=(1024, 512), dropout=0.4, channels=None):
    """Builds the second network: a wider trunk with batch norms, and dense + batch norm.

    Args:
        image_shape: (height, width, channels), pixels, at least 8 a side.
        classes: number of logits; 1 for two classes.
        units: widths of the dense blocks; `V2_VARIATIONS` lists the published ones.
        dropout: rate before the dense blocks, 0..1.
        channels: that the first convolution sees: 3 repeats a grey picture; None for those
            of `image_shape`.

    Returns:
        An uncompiled functional model, raw pixels (batch, *image_shape) in, logits
        (batch, classes) out.
    """
    return _wide(image_shape, classes, units, dropout, "custom_cnn_v2", channels)


@recipe
def v3(image_shape=(224, 224, 3), classes=3, *, units=(512, 128), dropout=0.4):
    """Builds the third network: v2's trunk for three classes, with narrower dense blocks.

    Args:
        image_shape: (height, width, channels), pixels, at least 8 a side.
        classes: number of logits.
        units: widths of the dense blocks.
        dropout: rate before the dense blocks, 0..1.

    Returns:
        An uncompiled functional model, raw pixels (batch, *image_shape) in, logits
        (batch, classes) out.
    """
    return _wide(image_shape, classes, units, dropout, "custom_cnn_v3")


def _wide(image_shape, classes, units, dropout, name, channels=None):
    image = layers.image_input(image_shape, smallest=8)
    x = layers.rescale(layers.grey_to_rgb(image) if channels == 3 else image)
    x = layers.conv_block(x, 64, 7, "block1", kernel_initializer="glorot_uniform")
    x = layers.conv_block(x, 128, 3, "block2", convs=2)
    x = layers.conv_block(x, 256, 3, "block3", convs=2)
    x = layers.dropout(x, dropout, "dropout")
    x = keras.layers.Flatten(name="flatten")(x)
    for block, width in enumerate(units, start=1):
        x = layers.dense_bn(x, width, f"head{block}")
    return _finished(image, layers.logits(x, classes), "block3_conv2", name)


def _finished(image, logits, feature_map, name):
    model = keras.Model(image, logits, name=name)
    model.feature_map = feature_map
    model.weights_origin = "random"
    return model
