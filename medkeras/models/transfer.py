"""Classifiers on frozen ImageNet backbones.

Each function below takes the same arguments; `backbone` explains them and picks by name.
The preprocessing that the ImageNet weights expect is part of the model, so raw pixels
(0..255) go in. A backbone built with random weights keeps the same preprocessing.

The published heads of the bone X-ray study, at 224 x 224 with three classes:

    inception_v3(shape, cut="mixed7", pooling="flatten")                       # plain
    inception_v3(shape, cut="mixed7", pooling="flatten", l2=1e-6)              # mod 1
    inception_v3(shape, cut="mixed7", pooling="flatten", l2=1e-6, units=1024, dropout=0.4)
    xception(shape)                                                            # plain
    xception(shape, l2=1e-6, units=1024, dropout=0.4)                          # mod 1

There the pixels were divided by 255 for every backbone, and the L2 factor sat on frozen
layers, where it does nothing; here it counts as soon as a layer is unfrozen.
"""

import re
from dataclasses import dataclass

import keras
from keras import applications

from medkeras import layers
from medkeras.errors import UsageError
from medkeras.models import pretrained
from medkeras.models.recipe import recipe


@dataclass(frozen=True)
class Backbone:
    """What differs between backbones.

    Args:
        build: constructor in `keras.applications`.
        preprocess: function from raw RGB tensors to what the ImageNet weights expect.
        smallest: image side that the network needs at least, pixels.
        feature_map: last layer with a map worth explaining.
    """

    build: object
    preprocess: object
    smallest: int
    feature_map: str


def _to_unit(x):
    return layers.rescale(x, 1 / 127.5, -1.0)


def _standardised(x):
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    scale = [1 / (255 * s) for s in deviation]
    return layers.rescale(x, scale, [-m / s for m, s in zip(mean, deviation, strict=True)])


def _centred_bgr(x):
    return layers.rescale(keras.ops.flip(x, axis=-1), 1.0, [-103.939, -116.779, -123.68])


def _as_is(x):
    return x  # EfficientNetV2 rescales and normalises by itself


_SPECIFICATIONS = {
    "inception_v3": Backbone(applications.InceptionV3, _to_unit, 75, "mixed10"),
    "xception": Backbone(applications.Xception, _to_unit, 71, "block14_sepconv2_act"),
    "resnet50": Backbone(applications.ResNet50, _centred_bgr, 32, "conv5_block3_out"),
    "vgg16": Backbone(applications.VGG16, _centred_bgr, 32, "block5_conv3"),
    "densenet121": Backbone(applications.DenseNet121, _standardised, 32, "relu"),
    "mobilenet_v2": Backbone(applications.MobileNetV2, _to_unit, 32, "out_relu"),
    "efficientnet_v2_b0": Backbone(applications.EfficientNetV2B0, _as_is, 32, "top_activation"),
}


# Every function hands its arguments on by name: `locals()` is exactly them.


@recipe
def inception_v3(
    image_shape=(299, 299, 3), classes=3, *,
    units=0, dropout=0.0, l2=0.0, pooling="avg", cut=None, weights="imagenet",
):  # fmt: skip
    """Builds a classifier on InceptionV3 (Szegedy et al. 2016); see `backbone`."""
    return _transfer("inception_v3", **locals())


@recipe
def xception(
    image_shape=(299, 299, 3), classes=3, *,
    units=0, dropout=0.0, l2=0.0, pooling="avg", cut=None, weights="imagenet",
):  # fmt: skip
    """Builds a classifier on Xception (Chollet 2017); see `backbone`."""
    return _transfer("xception", **locals())


@recipe
def resnet50(
    image_shape=(224, 224, 3), classes=3, *,
    units=0, dropout=0.0, l2=0.0, pooling="avg", cut=None, weights="imagenet",
):  # fmt: skip
    """Builds a classifier on ResNet50 (He et al. 2016); see `backbone`."""
    return _transfer("resnet50", **locals())


@recipe
def vgg16(
    image_shape=(224, 224, 3), classes=3, *,
    units=0, dropout=0.0, l2=0.0, pooling="avg", cut=None, weights="imagenet",
):  # fmt: skip
    """Builds a classifier on VGG16 (Simonyan and Zisserman 2015); see `backbone`."""
    return _transfer("vgg16", **locals())


@recipe
def densenet121(
    image_shape=(224, 224, 3), classes=3, *,
    units=0, dropout=0.0, l2=0.0, pooling="avg", cut=None, weights="imagenet",
):  # fmt: skip
    """Builds a classifier on DenseNet121 (Huang et al. 2017); see `backbone`."""
    return _transfer("densenet121", **locals())


@recipe
def mobilenet_v2(
    image_shape=(224, 224, 3), classes=3, *,
    units=0, dropout=0.0, l2=0.0, pooling="avg", cut=None, weights="imagenet",
):  # fmt: skip
    """Builds a classifier on MobileNetV2 (Sandler et al. 2018); see `backbone`."""
    return _transfer("mobilenet_v2", **locals())


@recipe
def efficientnet_v2_b0(
    image_shape=(224, 224, 3), classes=3, *,
    units=0, dropout=0.0, l2=0.0, pooling="avg", cut=None, weights="imagenet",
):  # fmt: skip
    """Builds a classifier on EfficientNetV2-B0 (Tan and Le 2021); see `backbone`.

    Its stochastic depth is off: dropouts stay active in frozen layers, which would give a
    picture other features at every step.
    """
    return _transfer("efficientnet_v2_b0", **locals())


BACKBONES = {
    "inception_v3": inception_v3,
    "xception": xception,
    "resnet50": resnet50,
    "vgg16": vgg16,
    "densenet121": densenet121,
    "mobilenet_v2": mobilenet_v2,
    "efficientnet_v2_b0": efficientnet_v2_b0,
}


def backbone(name, *args, **kwargs):
    """Builds a classifier on the frozen backbone of that name.

    Every layer of the backbone is frozen, batch norms included; unfreeze layer by layer. The
    model is flat: `get_layer` reaches every layer, under the same name in every process.

    Args:
        name: a key of `BACKBONES`.
        image_shape: (height, width, channels), pixels; one channel is repeated to three.
        classes: number of logits; 1 for two classes.
        units: width of a dense + batch-norm block before the logits; 0 for none.
        dropout: dropout rate before the logits, 0..1.
        l2: L2 factor on every kernel; a backbone layer's part counts once it is unfrozen.
        pooling: "avg", "max" (global) or "flatten".
        cut: name of the backbone layer whose output feeds the head; None for the last.
        weights: "imagenet" (Keras's cache or the network, else an error), "auto" (the same,
            else a warning and random weights), None or "none" (random), the path of a
            weights file of this backbone without top (`.weights.h5`, or Keras 2's `.h5`), or
            the folder of a run with this backbone.

    Returns:
        An uncompiled functional model, raw pixels (batch, *image_shape) in, logits
        (batch, classes) out. `model.feature_map` names the layer for Grad-CAM,
        `model.weights_origin` says where the weights came from.

    Raises:
        UsageError: where an argument or the weights file cannot be used.
        ResourceError: where `weights="imagenet"` finds neither cache nor network.
    """
    if name not in BACKBONES:
        raise UsageError(f"unknown backbone {name!r}; known: {', '.join(BACKBONES)}")
    return BACKBONES[name](*args, **kwargs)


def _transfer(name, image_shape, classes, units, dropout, l2, pooling, cut, weights):
    specification = _SPECIFICATIONS[name]
    image = layers.image_input(image_shape, specification.smallest)
    trunk = _trunk(specification, image)
    origin = pretrained.load(trunk, name, weights)
    for layer in trunk.layers:
        layer.trainable = False
        _regularize(layer, l2)

    x = _pooled(_output(trunk, name, cut), pooling)
    if units:
        x = layers.dense_bn(x, units, "head", l2=l2)
    x = layers.dropout(x, dropout, "head_dropout")
    model = keras.Model(trunk.inputs[0], layers.logits(x, classes, l2=l2), name=name)
    model.feature_map = cut or specification.feature_map
    model.weights_origin = origin
    return model


def _trunk(specification, image):
    """Builds the backbone on the image, flat, its names the same in every process."""
    x = specification.preprocess(layers.grey_to_rgb(image))
    trunk = specification.build(
        include_top=False, weights=None, input_tensor=x, input_shape=tuple(x.shape[1:])
    )
    if any(isinstance(layer, keras.layers.Dropout) for layer in trunk.layers):
        trunk = keras.models.clone_model(trunk, clone_function=_without_dropout)
    _rename(trunk)
    return trunk


def _without_dropout(layer):
    config = layer.get_config()
    if isinstance(layer, keras.layers.Dropout):
        config["rate"] = 0.0
    return type(layer).from_config(config)


def _rename(trunk):
    """Renumbers the names that Keras counts up over a whole process (`conv2d_94`).

    They become those of a fresh process, so that names in histograms and checks of what is
    cached do not depend on which models were built before.
    """
    counted = {}
    for layer in trunk.operations:
        kind = re.sub("([a-z])([A-Z])", r"\1_\2", type(layer).__name__)
        kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind).replace("__", "_").lower()
        found = re.fullmatch(rf"{kind}(?:_(\d+))?", layer.name)
        if found:
            counted.setdefault(kind, []).append((int(found[1] or 0), layer))
    for kind, numbered in counted.items():
        for i, (_, layer) in enumerate(sorted(numbered, key=lambda pair: pair[0])):
            layer.name = f"{kind}_{i}" if i else kind


def _output(trunk, name, cut):
    if cut is None:
        return trunk.output
    if cut not in [layer.name for layer in trunk.layers]:
        last = trunk.layers[-1].name
        raise UsageError(f"{name} has no layer {cut!r} to cut at; its last layer is {last!r}")
    return trunk.get_layer(cut).output


def _pooled(x, pooling):
    if pooling == "avg":
        return keras.layers.GlobalAveragePooling2D(name="pooling")(x)
    if pooling == "max":
        return keras.layers.GlobalMaxPooling2D(name="pooling")(x)
    if pooling == "flatten":
        return keras.layers.Flatten(name="pooling")(x)
    raise UsageError(f'pooling must be "avg", "max" or "flatten"; got {pooling!r}')


def _regularize(layer, l2):
    """Sets L2 on every kernel of a built layer.

    Keras sums the losses over the variables and stores the layers' attributes, so both are
    set. Frozen variables do not count.
    """
    for part in ("kernel", "depthwise", "pointwise"):
        if l2 and hasattr(layer, f"{part}_regularizer"):
            setattr(layer, f"{part}_regularizer", layers.regularizer(l2))
    for kernel in ("kernel", "depthwise_kernel", "pointwise_kernel"):
        variable = getattr(layer, kernel, None)
        if l2 and variable is not None:
            variable.regularizer = layers.regularizer(l2)
