"""Builds a backbone on a picture.

It starts at raw pixels (0..255): the preprocessing that its ImageNet weights expect comes first,
and stays where the weights are random.
"""

import re

import keras

from medkeras import layers
from medkeras.models import backbones


def build(name, image, frozen=True) -> keras.Model:
    """Builds a backbone on a picture, with random weights.

    Args:
        name: a key of `backbones.SPECIFICATIONS`.
        image: tensor of raw pixels that opens a model (batch, height, width, 1 or 3).
        frozen: True freezes every layer, batch norms included, and leaves dropouts out: in frozen
            layers too they would give a picture other features at every step. False: every layer
            learns, and batch norms forget as fast as PyTorch's (momentum 0.9).

    Returns:
        A flat model without top, its layers named the same in every process.
    """
    specification = backbones.SPECIFICATIONS[name]
    model = specification.build(specification.preprocess(layers.grey_to_rgb(image)))
    if frozen and any(isinstance(layer, keras.layers.Dropout) for layer in model.layers):
        model = keras.models.clone_model(model, [image], clone_function=_without_dropout)
    _rename(model)
    for layer in model.layers:
        layer.trainable = not frozen
        if not frozen and isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = layers.MOMENTUM
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            # EfficientNet's, which stands at 0 and 1 until weights are loaded.
            layer.adapt_mean.assign(backbones.MEAN)
            layer.adapt_variance.assign(backbones.DEVIATION)
            layer.finalize_state()
    return model


def _without_dropout(layer):
    config = layer.get_config()
    if isinstance(layer, keras.layers.Dropout):
        config["rate"] = 0.0
    return type(layer).from_config(config)


def _rename(model):
    """Renumbers the names that Keras counts up over a whole process (`conv2d_94`).

    They become those of a fresh process, so that names in histograms and checks of what is
    cached do not depend on which models were built before.
    """
    counted = {}
    for layer in model.operations:
        kind = re.sub("([a-z])([A-Z])", r"\1_\2", type(layer).__name__)
        kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind).replace("__", "_").lower()
        found = re.fullmatch(rf"{kind}(?:_(\d+))?", layer.name)
        if found:
            counted.setdefault(kind, []).append((int(found[1] or 0), layer))
    for kind, numbered in counted.items():
        for i, (_, layer) in enumerate(sorted(numbered, key=lambda pair: pair[0])):
            layer.name = f"{kind}_{i}" if i else kind
