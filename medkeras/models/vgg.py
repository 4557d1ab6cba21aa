"""VGG19 with a batch norm after every convolution, as in torchvision, which Keras has not.

The convolutions of configuration E of Simonyan and Zisserman (ICLR 2015), without the
classifier: 20,035,392 parameters that learn and 11,008 moving statistics. Each block ends in a
2 x 2 max pool; at 224 x 224 pixels the last map is 7 x 7 x 512.

| block | convolutions (3 x 3, with bias) | output at 224 |
|---|---|---|
| 1 | 2 x 64 | 112 x 112 x 64 |
| 2 | 2 x 128 | 56 x 56 x 128 |
| 3 | 4 x 256 | 28 x 28 x 256 |
| 4 | 4 x 512 | 14 x 14 x 512 |
| 5 | 4 x 512 | 7 x 7 x 512 |

Random weights are He's (uniform). `medkeras.models.convert` writes ImageNet weights.
"""

import keras

BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # filters, convolutions


def vgg19_bn(input_tensor) -> keras.Model:
    """Builds the network on a tensor of standardised RGB.

    Args:
        input_tensor: (batch, height, width, 3), at least 32 pixels a side.

    Returns:
        A model from the tensor's input to the last map; layers are named `block1_conv1`,
        `block1_bn1`, `block1_relu1`, ..., `block5_pool`.
    """
    x = input_tensor
    for block, (filters, convolutions) in enumerate(BLOCKS, start=1):
        for i in range(1, convolutions + 1):
            x = keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                kernel_initializer="he_uniform",
                name=f"block{block}_conv{i}",
            )(x)
            x = keras.layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, name=f"block{block}_bn{i}"
            )(x)
            x = keras.layers.ReLU(name=f"block{block}_relu{i}")(x)
        x = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    return keras.Model(keras.utils.get_source_inputs(input_tensor), x, name="vgg19_bn")


def torch_names() -> dict:
    """Lists what torchvision calls the layers with weights: {`block1_conv1`: `features.0`}."""
    names, number = {}, 0
    for block, (_, convolutions) in enumerate(BLOCKS, start=1):
        for i in range(1, convolutions + 1):
            names[f"block{block}_conv{i}"] = f"features.{number}"
            names[f"block{block}_bn{i}"] = f"features.{number + 1}"
            number += 3  # with the ReLU
        number += 1  # the pool
    return names
