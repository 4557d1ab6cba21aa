"""Networks of the knee X-ray study: a picture beside risk factors, and two heads on one trunk.

The published ones, at 224 x 224 pixels on the 13 convolutions of VGG16 (14,714,688 parameters):

| network | layers | parameters behind the trunk |
|---|---|---|
| `image_and_risk()` | average 512, beside 14 -> 128; together 640 -> 1 | 1,920 + 641 |
| `multitask(weights=...)` | average 512 -> 5 grades, and 512 -> 1 joint space loss | 2,565 + 513 |

There the trunk of the first came from the network for grades, `transfer.vgg16`, and was frozen or
learned in a second stage; that of the second learned from ImageNet's weights. Different here: raw
pixels go in and are centred as the ImageNet weights expect; the study divided them by 255.
"""

import keras

from medkeras import layers
from medkeras.errors import UsageError
from medkeras.models import pretrained, trunk
from medkeras.models.backbones import SPECIFICATIONS
from medkeras.models.recipe import recipe

USES = (("image",), ("risk",), ("image", "risk"))
HEADS = ("grade", "jsl")


@recipe
def image_and_risk(
    image_shape=(224, 224, 3),
    risks=14,
    classes=1,
    *,
    backbone="vgg16",
    units=128,
    dropout=0.0,
    frozen=True,
    use=("image", "risk"),
    weights="imagenet",
):
    """Builds one linear layer on what a picture and a person's risk factors say.

    The parts can be left out, for three networks that differ in nothing else. The layer of the
    risk factors has no activation, so together with the last it is linear in them.

    Args:
        image_shape: (height, width, channels), pixels; one channel is repeated to three.
        risks: number of risk factors, about 0 on average with a deviation of about 1.
        classes: number of logits; 1 for two classes.
        backbone: a key of `transfer.BACKBONES`.
        units: width of the risk factors' layer, at least 1.
        dropout: dropout rate before the logits, 0..1.
        frozen: as in `transfer.backbone`.
        use: ("image",), ("risk",) or ("image", "risk").
        weights: as in `transfer.backbone`; not read where no picture is used.

    Returns:
        An uncompiled functional model, logits (batch, classes) out. In go raw pixels
        (batch, *image_shape), then risk factors (batch, risks), or the one of them that is used.
        `model.feature_map` names the layer for Grad-CAM, None without a picture,
        `model.weights_origin` says where the backbone's weights came from.

    Raises:
        UsageError: where an argument or the weights cannot be used.
        ResourceError: where `weights="imagenet"` finds neither cache nor network.
    """
    if tuple(use) not in USES:
        raise UsageError(f"use must be one of {', '.join(map(str, USES))}; got {use!r}")
    if min(risks, units) < 1:
        raise UsageError(f"risks and units must be at least 1; got {risks} and {units}")
    inputs, features, layer, origin = [], [], None, "random"
    if "image" in use:
        image, pooled, origin = _pooled(image_shape, backbone, frozen, weights)
        inputs.append(image)
        features.append(pooled)
        layer = SPECIFICATIONS[backbone].feature_map
    if "risk" in use:
        risk = keras.Input((risks,), dtype="float32", name="risk")
        inputs.append(risk)
        features.append(keras.layers.Dense(units, name="risk_dense")(risk))

    x = features[0]
    if len(features) > 1:
        x = keras.layers.Concatenate(name="features")(features)
    x = layers.dropout(x, dropout, "head_dropout")
    inputs = inputs[0] if len(inputs) == 1 else inputs
    model = keras.Model(inputs, layers.logits(x, classes), name="image_and_risk")
    model.feature_map = layer
    model.weights_origin = origin
    return model


@recipe
def multitask(
    image_shape=(224, 224, 3),
    grades=5,
    *,
    backbone="vgg16",
    ordinal=False,
    dropout=0.0,
    frozen=False,
    head=None,
    weights="imagenet",
):
    """Builds a head for the grade and one for joint space loss on the same features.

    The heads are the layers "grade" and "jsl"; "logits" lays one behind the other. One of them
    can be left out; `alone` takes a trained model apart so.

    Args:
        image_shape: (height, width, channels), pixels; one channel is repeated to three.
        grades: number of grades, from 0.
        backbone: a key of `transfer.BACKBONES`.
        ordinal: whether the grade's head knows their order; see `layers.OrdinalLogits`.
        dropout: dropout rate before both heads, 0..1.
        frozen: as in `transfer.backbone`.
        head: None for both heads, "grade" or "jsl" for one alone.
        weights: as in `transfer.backbone`.

    Returns:
        An uncompiled functional model, raw pixels (batch, *image_shape) in, logits
        (batch, grades + 1) out, that of joint space loss last, or those of the one head;
        `losses_heads.compiled_heads` compiles the two. `model.feature_map` names the layer for
        Grad-CAM, `model.weights_origin` says where the backbone's weights came from.

    Raises:
        UsageError: where an argument or the weights cannot be used.
        ResourceError: where `weights="imagenet"` finds neither cache nor network.
    """
    if head not in (None, *HEADS):
        raise UsageError(f"head must be None, {' or '.join(HEADS)}; got {head!r}")
    image, x, origin = _pooled(image_shape, backbone, frozen, weights)
    x = layers.dropout(x, dropout, "head_dropout")
    logits = []
    if head != "jsl":
        logits.append(layers.logits(x, grades, ordinal=ordinal, name="grade"))
    if head != "grade":
        logits.append(layers.logits(x, 1, name="jsl"))
    if head is None:
        logits = [keras.layers.Concatenate(dtype="float32", name="logits")(logits)]
    model = keras.Model(image, logits[0], name=head or "multitask")
    model.feature_map = SPECIFICATIONS[backbone].feature_map
    model.weights_origin = origin
    return model


def alone(model, head) -> keras.Model:
    """Takes one head out of a model of two, with the trunk that both stand on.

    Args:
        model: from `multitask`.
        head: "grade" or "jsl".

    Returns:
        A model with the layers of the given one, so that it answers the same. Its recipe is that
        of `multitask(..., head=head)`.
    """
    one = keras.Model(model.input, model.get_layer(head).output, name=head)
    one.recipe = model.recipe | {"arguments": model.recipe["arguments"] | {"head": head}}
    one.feature_map, one.weights_origin = model.feature_map, model.weights_origin
    return one


def _pooled(image_shape, backbone, frozen, weights):
    """Opens a model with a picture: its input, the average of its features, their origin."""
    if backbone not in SPECIFICATIONS:
        known = ", ".join(SPECIFICATIONS)
        raise UsageError(f"unknown backbone {backbone!r}; known: {known}")
    image = layers.image_input(image_shape, SPECIFICATIONS[backbone].smallest)
    model = trunk.build(backbone, image, frozen)
    origin = pretrained.load(model, backbone, weights)
    return image, layers.pooled(model.output, "avg"), origin
