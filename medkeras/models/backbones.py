"""What differs between the backbones.

A new backbone is an entry of `SPECIFICATIONS`, a line in `transfer.py`, and one in `imagenet.py`,
which says where its weights come from.
"""

from dataclasses import dataclass

import keras
from keras import applications

from medkeras import layers
from medkeras.models.densenet import densenet_tiny
from medkeras.models.mnasnet import mnasnet
from medkeras.models.vgg import vgg19_bn

# Of ImageNet's pixels in 0..1, red, green and blue.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """What differs between backbones.

    Args:
        title: name and source in words.
        build: function from a preprocessed tensor to the network without top, a `keras.Model`.
        preprocess: function from raw RGB tensors to what the ImageNet weights expect.
        feature_map: last layer with a map worth explaining.
        side: of the pictures it was published with, pixels.
        smallest: image side that the network needs at least, pixels.
        pooling: how its own classifier reads the last map: "avg" or "flatten".
    """

    title: str
    build: object
    preprocess: object
    feature_map: str
    side: int = 224
    smallest: int = 32
    pooling: str = "avg"


def _keras(constructor):
    def build(x):
        return constructor(
            include_top=False, weights=None, input_tensor=x, input_shape=tuple(x.shape[1:])
        )

    return build


def _to_unit(x):
    return layers.rescale(x, 1 / 127.5, -1.0)


def _standardised(x):
    scale = [1 / (255 * s) for s in DEVIATION]
    return layers.rescale(x, scale, [-m / s for m, s in zip(MEAN, DEVIATION, strict=True)])


def _centred_bgr(x):
    return layers.rescale(keras.ops.flip(x, axis=-1), 1.0, [-103.939, -116.779, -123.68])


def _half_standardised(x):
    """Makes EfficientNet's own normalisation that of `_standardised`.

    It subtracts the mean but divides by the root of the deviation only: the weights hold
    deviations where Keras's layer takes variances (tensorflow/tensorflow issue 49930). Keras
    divides once more where it loads the weights itself; here that comes before.
    """
    roots = [s**0.5 for s in DEVIATION]
    offset = [255 * m * (1 - 1 / root) for m, root in zip(MEAN, roots, strict=True)]
    return layers.rescale(x, [1 / root for root in roots], offset)


def _as_is(x):
    return x  # EfficientNetV2 rescales and normalises by itself


def _densenet(depth):
    return Backbone(
        f"DenseNet{depth} (Huang et al. 2017)",
        _keras(getattr(applications, f"DenseNet{depth}")),
        _standardised,
        "relu",
    )


def _efficientnet(number, side):
    return Backbone(
        f"EfficientNet-B{number} (Tan and Le 2019)",
        _keras(getattr(applications, f"EfficientNetB{number}")),
        _half_standardised,
        "top_activation",
        side=side,
    )


SPECIFICATIONS = {
    "inception_v3": Backbone(
        "InceptionV3 (Szegedy et al. 2016)",
        _keras(applications.InceptionV3),
        _to_unit,
        "mixed10",
        side=299,
        smallest=75,
    ),
    "xception": Backbone(
        "Xception (Chollet 2017)",
        _keras(applications.Xception),
        _to_unit,
        "block14_sepconv2_act",
        side=299,
        smallest=71,
    ),
    "resnet50": Backbone(
        "ResNet50 (He et al. 2016)",
        _keras(applications.ResNet50),
        _centred_bgr,
        "conv5_block3_out",
    ),
    "vgg16": Backbone(
        "VGG16 (Simonyan and Zisserman 2015)",
        _keras(applications.VGG16),
        _centred_bgr,
        "block5_conv3",
        pooling="flatten",
    ),
    "vgg19": Backbone(
        "VGG19 (Simonyan and Zisserman 2015)",
        _keras(applications.VGG19),
        _centred_bgr,
        "block5_conv4",
        pooling="flatten",
    ),
    "vgg19_bn": Backbone(
        "VGG19 with batch norm (Simonyan and Zisserman 2015, with the norms of torchvision)",
        vgg19_bn,
        _standardised,
        "block5_relu4",
        pooling="flatten",
    ),
    "densenet121": _densenet(121),
    "densenet169": _densenet(169),
    "densenet201": _densenet(201),
    "densenet_tiny": Backbone(
        "a DenseNet of 20 convolutions, to be trained from random weights",
        densenet_tiny,
        _standardised,
        "relu",
    ),
    "mobilenet_v2": Backbone(
        "MobileNetV2 (Sandler et al. 2018)",
        _keras(applications.MobileNetV2),
        _to_unit,
        "out_relu",
    ),
    "mnasnet": Backbone(
        "MNASNet-B1 (Tan et al. 2019)",
        mnasnet,
        _standardised,
        "top_relu",
    ),
    "efficientnet_v2_b0": Backbone(
        "EfficientNetV2-B0 (Tan and Le 2021)",
        _keras(applications.EfficientNetV2B0),
        _as_is,
        "top_activation",
    ),
    "efficientnet_b0": _efficientnet(0, 224),
    "efficientnet_b1": _efficientnet(1, 240),
    "efficientnet_b2": _efficientnet(2, 260),
    "efficientnet_b3": _efficientnet(3, 300),
    "efficientnet_b4": _efficientnet(4, 380),
    "efficientnet_b5": _efficientnet(5, 456),
    "efficientnet_b6": _efficientnet(6, 528),
    "efficientnet_b7": _efficientnet(7, 600),
}
