"""Several backbones side by side on one picture, and one linear layer on all their features.

The combined network of the chest X-ray study, at 224 x 224 pixels with fourteen findings:

| backbone | read by | features |
|---|---|---|
| densenet121 | average | 1,024 |
| densenet169 | average | 1,664 |
| densenet201 | average | 1,920 |
| mnasnet | average | 1,280 |
| vgg19_bn | flatten (7 x 7 x 512) | 25,088 |
| vgg19 | flatten (7 x 7 x 512) | 25,088 |
| all | concatenation | 56,064 |

There every layer learned (`frozen=False`). Different here: each backbone has the preprocessing
that its ImageNet weights expect, where the study standardised the pixels once with the mean and
deviation of its own pictures; and a VGG's map of another size than 7 x 7 is flattened as it is.
"""

import keras

from medkeras import layers
from medkeras.errors import UsageError
from medkeras.models import pretrained, trunk
from medkeras.models.backbones import SPECIFICATIONS
from medkeras.models.recipe import recipe

PUBLISHED = ("densenet121", "densenet169", "densenet201", "mnasnet", "vgg19_bn", "vgg19")


@recipe
def combined(
    image_shape=(224, 224, 3),
    classes=14,
    *,
    trunks=PUBLISHED,
    frozen=True,
    dropout=0.0,
    weights="imagenet",
):
    """Builds one linear layer on the features of several backbones.

    The model is flat. The layers of a backbone have its name before their own, such as
    `densenet121_conv1_conv`; no two backbones share a layer.

    Args:
        image_shape: (height, width, channels), pixels; one channel is repeated to three.
        classes: number of logits.
        trunks: names of backbones, each once; see `transfer.BACKBONES`.
        frozen: as in `transfer.backbone`, for all of them.
        dropout: dropout rate before the logits, 0..1.
        weights: as in `transfer.backbone`; "auto" warns for each backbone that starts from random
            weights. A run must hold each of the backbones, alone or combined; a file is for one
            backbone alone.

    Returns:
        An uncompiled functional model, raw pixels (batch, *image_shape) in, logits
        (batch, classes) out. `model.feature_map` names the first backbone's layer for Grad-CAM,
        `model.weights_origin` says for each backbone where its weights came from.

    Raises:
        UsageError: where an argument or the weights cannot be used.
        ResourceError: where `weights="imagenet"` finds neither cache nor network.
    """
    _check(trunks)
    smallest = max(SPECIFICATIONS[name].smallest for name in trunks)
    image = layers.image_input(image_shape, smallest)
    built = {name: trunk.build(name, image, frozen) for name in trunks}
    origins = pretrained.load_each(built, weights)

    features = []
    for name, model in built.items():
        for operation in model.operations:
            if not isinstance(operation, keras.layers.InputLayer):
                operation.name = f"{name}_{operation.name}"
        pooling = SPECIFICATIONS[name].pooling
        features.append(layers.pooled(model.output, pooling, f"{name}_pooling"))
    x = features[0]
    if len(features) > 1:
        x = keras.layers.Concatenate(name="features")(features)
    x = layers.dropout(x, dropout, "head_dropout")
    model = keras.Model(image, layers.logits(x, classes), name="combined")
    model.feature_map = f"{trunks[0]}_{SPECIFICATIONS[trunks[0]].feature_map}"
    model.weights_origin = _told(origins)
    return model


def _check(trunks):
    named = isinstance(trunks, (tuple, list)) and all(isinstance(name, str) for name in trunks)
    if not named or not trunks or len(set(trunks)) != len(trunks):
        raise UsageError(f"trunks must be names of backbones, each once; got {trunks!r}")
    unknown = [name for name in trunks if name not in SPECIFICATIONS]
    if unknown:
        known = ", ".join(SPECIFICATIONS)
        raise UsageError(f"unknown backbone {unknown[0]!r} in trunks; known: {known}")


def _told(origins):
    """Writes which backbones came from where: "mnasnet: random; vgg16, vgg19: imagenet"."""
    names = {}
    for name, origin in origins.items():
        names.setdefault(origin, []).append(name)
    return "; ".join(f"{', '.join(together)}: {origin}" for origin, together in names.items())
