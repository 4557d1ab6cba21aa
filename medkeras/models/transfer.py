"""Classifiers on ImageNet backbones.

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

Those of the chest X-ray study, with fourteen findings, where every layer learned:

    densenet121(shape, 14, units=500, hidden="linear", dropout=0.9, frozen=False)
    efficientnet_b5((456, 456, 3), 14, frozen=False)

Its third network is `medkeras.models.combined`.

That of the knee X-ray study for five grades, where every layer learned, and the same trunk with a
head that knows the grades' order:

    vgg16(shape, 5, frozen=False)
    vgg16(shape, 5, frozen=False, ordinal=True)

Its networks for risk factors and for two questions are in `medkeras.models.fusion`.
"""

import keras

from medkeras import layers
from medkeras.errors import UsageError
from medkeras.models import pretrained, trunk
from medkeras.models.backbones import SPECIFICATIONS
from medkeras.models.recipe import recipe

HIDDEN = ("bn_relu", "linear")


def _classifier_on(name):
    """Makes the function of a backbone, `inception_v3(image_shape, classes, ...)`."""
    side = SPECIFICATIONS[name].side

    def function(
        image_shape=(side, side, 3), classes=3, *,
        units=0, dropout=0.0, l2=0.0, pooling="avg", cut=None, weights="imagenet",
        frozen=True, hidden="bn_relu", ordinal=False,
    ):  # fmt: skip
        image = layers.image_input(image_shape, SPECIFICATIONS[name].smallest)
        model = trunk.build(name, image, frozen)
        origin = pretrained.load(model, name, weights)
        for layer in model.layers:
            _regularize(layer, l2)

        x = layers.pooled(_output(model, name, cut), pooling)
        x = _head(x, units, hidden, dropout, l2)
        model = keras.Model(image, layers.logits(x, classes, l2=l2, ordinal=ordinal), name=name)
        model.feature_map = cut or SPECIFICATIONS[name].feature_map
        model.weights_origin = origin
        return model

    function.__name__ = function.__qualname__ = name  # a recipe names it
    function.__doc__ = f"Builds a classifier on {SPECIFICATIONS[name].title}; see `backbone`."
    return recipe(function)


BACKBONES = {name: _classifier_on(name) for name in SPECIFICATIONS}

inception_v3 = BACKBONES["inception_v3"]
xception = BACKBONES["xception"]
resnet50 = BACKBONES["resnet50"]
vgg16 = BACKBONES["vgg16"]
vgg19 = BACKBONES["vgg19"]
vgg19_bn = BACKBONES["vgg19_bn"]
densenet121 = BACKBONES["densenet121"]
densenet169 = BACKBONES["densenet169"]
densenet201 = BACKBONES["densenet201"]
densenet_tiny = BACKBONES["densenet_tiny"]
mobilenet_v2 = BACKBONES["mobilenet_v2"]
mnasnet = BACKBONES["mnasnet"]
efficientnet_v2_b0 = BACKBONES["efficientnet_v2_b0"]
efficientnet_b0 = BACKBONES["efficientnet_b0"]
efficientnet_b1 = BACKBONES["efficientnet_b1"]
efficientnet_b2 = BACKBONES["efficientnet_b2"]
efficientnet_b3 = BACKBONES["efficientnet_b3"]
efficientnet_b4 = BACKBONES["efficientnet_b4"]
efficientnet_b5 = BACKBONES["efficientnet_b5"]
efficientnet_b6 = BACKBONES["efficientnet_b6"]
efficientnet_b7 = BACKBONES["efficientnet_b7"]


def backbone(name, *args, **kwargs):
    """Builds a classifier on the backbone of that name.

    The model is flat: `get_layer` reaches every layer, under the same name in every process.

    Args:
        name: a key of `BACKBONES`.
        image_shape: (height, width, channels), pixels; one channel is repeated to three. The
            default is the size that the backbone was published with.
        classes: number of logits; 1 for two classes.
        units: width of a block before the logits; 0 for none.
        dropout: dropout rate before the logits, 0..1.
        l2: L2 factor on every kernel; a backbone layer's part counts once it is unfrozen.
        pooling: "avg", "max" (global) or "flatten".
        cut: name of the backbone layer whose output feeds the head; None for the last.
        weights: "imagenet" (Keras's cache or the network, else an error), "auto" (the same,
            else a warning and random weights), None or "none" (random), the path of a
            weights file of this backbone without top (`.weights.h5`, or Keras 2's `.h5`), or
            the folder of a run with this backbone, alone or among those of `combined`.
        frozen: True freezes every layer of the backbone, batch norms included, and leaves its
            dropouts out; unfreeze layer by layer. False: every layer learns, batch norms compute
            with the statistics of the batch (momentum 0.9) and an EfficientNet drops whole blocks
            at the published rates.
        hidden: what the block of `units` is: "bn_relu" (dense, batch norm, ReLU) or "linear" (a
            dense layer without activation).
        ordinal: True where the classes are ordered grades: one score and thresholds on it, see
            `layers.OrdinalLogits`.

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


def _head(x, units, hidden, dropout, l2):
    if hidden not in HIDDEN:
        raise UsageError(f"hidden must be one of {', '.join(HIDDEN)}; got {hidden!r}")
    if units and hidden == "linear":
        kernel = layers.regularizer(l2)
        x = keras.layers.Dense(units, kernel_regularizer=kernel, name="head_dense")(x)
    elif units:
        x = layers.dense_bn(x, units, "head", l2=l2)
    return layers.dropout(x, dropout, "head_dropout")


def _output(model, name, cut):
    if cut is None:
        return model.output
    if cut not in [layer.name for layer in model.layers]:
        last = model.layers[-1].name
        raise UsageError(f"{name} has no layer {cut!r} to cut at; its last layer is {last!r}")
    return model.get_layer(cut).output


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
