"""Backbones of a few weights, for what is the same for all of them."""

import keras
import pytest

from medkeras.models import backbones, imagenet, transfer


def tiny(x):
    """A backbone of two convolutions and a batch norm."""
    y = keras.layers.Conv2D(4, 3, strides=2, name="conv1")(x)
    y = keras.layers.BatchNormalization(name="conv1_bn")(y)
    y = keras.layers.Conv2D(5, 3, strides=2, activation="relu", name="conv2")(y)
    return keras.Model(keras.utils.get_source_inputs(x), y)


@pytest.fixture
def small_backbones(monkeypatch):
    """Adds the backbones bgr, unit and other, alike but for preprocessing and pooling.

    Returns their functions, as `transfer` has them, by name.
    """
    kinds = {
        "bgr": (backbones._centred_bgr, "flatten"),
        "unit": (backbones._to_unit, "avg"),
        "other": (backbones._to_unit, "avg"),
    }
    for name, (preprocess, pooling) in kinds.items():
        specification = backbones.Backbone(name, tiny, preprocess, "conv2", 16, 8, pooling)
        monkeypatch.setitem(backbones.SPECIFICATIONS, name, specification)
        monkeypatch.setitem(imagenet.CONVERTED, name, "a command")
    return {name: transfer._classifier_on(name) for name in kinds}
