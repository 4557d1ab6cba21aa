"""AlexNet's convolutions with torchvision's widths.

Keras has no AlexNet. `stack` builds the `features` part of torchvision's (Krizhevsky, "One weird
trick for parallelizing convolutional neural networks", arXiv:1404.5997, 2014), without the
classifier; 2,469,696 parameters. At 256 x 256 pixels:

| layers | kernel | stride | padding | output |
|---|---|---|---|---|
| conv1, relu1 | 11 | 4 | 2 | 63 x 63 x 64 |
| pool1 (max) | 3 | 2 | 0 | 31 x 31 x 64 |
| conv2, relu2 | 5 | 1 | 2 | 31 x 31 x 192 |
| pool2 (max) | 3 | 2 | 0 | 15 x 15 x 192 |
| conv3, relu3 | 3 | 1 | 1 | 15 x 15 x 384 |
| conv4, relu4 | 3 | 1 | 1 | 15 x 15 x 256 |
| conv5, relu5 | 3 | 1 | 1 | 15 x 15 x 256 |
| pool5 (max) | 3 | 2 | 0 | 7 x 7 x 256 |

Random weights are He's (uniform). `medkeras.models.convert` writes ImageNet weights.
"""

import keras

from medkeras.layers import GreyConv2D

CONVOLUTIONS = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}  # torch: features.N


def stack(prefix="") -> list:
    """Builds the layers in order, to be applied by `layers.applied`.

    Args:
        prefix: of every layer's name, such as "axial_".

    Returns:
        A list of layers for tensors (batch, height, width, 3); each use shares their weights.
    """

    def conv(number, filters, size, **options):
        kind = GreyConv2D if number == 1 else keras.layers.Conv2D
        return [
            kind(
                filters,
                size,
                kernel_initializer="he_uniform",
                name=f"{prefix}conv{number}",
                **options,
            ),
            keras.layers.ReLU(name=f"{prefix}relu{number}"),
        ]

    def pool(number):
        return keras.layers.MaxPooling2D(3, 2, name=f"{prefix}pool{number}")

    return [
        # With a stride, "same" pads less on the left than on the right; PyTorch pads evenly.
        keras.layers.ZeroPadding2D(2, name=f"{prefix}pad1"),
        *conv(1, 64, 11, strides=4),
        pool(1),
        *conv(2, 192, 5, padding="same"),
        pool(2),
        *conv(3, 384, 3, padding="same"),
        *conv(4, 256, 3, padding="same"),
        *conv(5, 256, 3, padding="same"),
        pool(5),
    ]


def torch_names() -> dict:
    """Lists what torchvision calls the layers with weights: {`conv1`: `features.0`}."""
    return {name: f"features.{number}" for name, number in CONVOLUTIONS.items()}
