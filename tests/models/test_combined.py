import json
import logging

import keras
import numpy as np
import pytest

from medkeras.errors import UsageError
from medkeras.models import imagenet
from medkeras.models.combined import PUBLISHED, combined
from medkeras.models.recipe import rebuild

value = keras.ops.convert_to_numpy
COUNTS = {  # of Keras's documentation and torchvision's models, without classifier
    "densenet121": 7_037_504,
    "densenet169": 12_642_880,
    "densenet201": 18_321_984,
    "mnasnet": 3_102_312 + 37_920,
    "vgg19_bn": 20_035_392 + 11_008,
    "vgg19": 20_024_384,
}


@pytest.fixture(scope="module")
def published():
    return combined((224, 224, 1), weights=None, frozen=False)


TWO = ("unit", "bgr")


@pytest.fixture
def two(small_backbones):
    model = combined((16, 16, 1), 2, trunks=TWO, weights=None)
    for layer in model.layers:  # a batch norm that was never used is like any other
        layer.set_weights(
            [w + np.random.default_rng(1).random(w.shape) for w in layer.get_weights()]
        )
    return model


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1)).astype("float32")


def stored(model, folder):
    """Stores a model as a finished run does."""
    folder.mkdir()
    (folder / "predictor.json").write_text(json.dumps({"recipe": model.recipe}), encoding="utf-8")
    model.save(folder / "model.keras")
    return folder


def weights_of(model, prefix):
    return {
        layer.name.removeprefix(prefix): layer.get_weights()
        for layer in model.layers
        if layer.weights and layer.name != "logits" and layer.name.startswith(prefix)
    }


def same(first, second):
    return first.keys() == second.keys() and all(
        (a == b).all() for name in first for a, b in zip(first[name], second[name], strict=True)
    )


# The architecture


def test_the_published_network_has_the_published_features(published):
    widths = [published.get_layer(f"{name}_pooling").output.shape[-1] for name in PUBLISHED]
    assert widths == [1024, 1664, 1920, 1280, 25_088, 25_088]
    assert published.get_layer("logits").input.shape == (None, 56_064)
    assert published.output.shape == (None, 14)
    assert published.feature_map == "densenet121_relu"
    assert published.get_layer("densenet121_relu").output.shape == (None, 7, 7, 1024)


def test_the_published_backbones_are_whole_and_apart(published):
    names = [operation.name for operation in published.operations]
    assert len(set(names)) == len(names)
    counted = dict.fromkeys(PUBLISHED, 0)
    for layer in published.layers:
        if layer.weights and layer.name != "logits":
            (name,) = [
                n
                for n in PUBLISHED
                if layer.name.startswith(f"{n}_")
                and not (n == "vgg19" and layer.name.startswith("vgg19_bn_"))
            ]
            counted[name] += layer.count_params()
    assert counted == COUNTS
    assert not [x for x in published.layers if isinstance(x, (keras.Model, keras.layers.Lambda))]


def test_where_all_learns_batch_norms_learn_and_forget_as_in_pytorch(published):
    norms = [x for x in published.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {(x.momentum, x.trainable) for x in norms} == {(0.9, True)}
    assert len(published.trainable_variables) == sum(
        len(x.weights) - 2 * isinstance(x, keras.layers.BatchNormalization)
        for x in published.layers
    )


def test_frozen_only_the_linear_layer_learns(two):
    learning = {id(v) for v in two.trainable_variables}
    assert learning == {id(v) for v in two.get_layer("logits").weights}


def test_each_backbone_computes_as_it_does_alone(two, small_backbones, pixels):
    found = keras.Model(two.input, two.get_layer("features").output)(pixels)
    expected = []
    for name, pooling in (("unit", "avg"), ("bgr", "flatten")):
        alone = small_backbones[name]((16, 16, 1), pooling=pooling, weights=None)
        for layer, weights in weights_of(two, f"{name}_").items():
            alone.get_layer(layer).set_weights(weights)
        expected.append(keras.Model(alone.input, alone.get_layer("pooling").output)(pixels))
    np.testing.assert_allclose(value(found), np.concatenate(expected, axis=1), rtol=1e-5)


# Saving and weights


def test_it_is_rebuilt_from_its_recipe(two, pixels, tmp_path):
    two.save_weights(tmp_path / "two.weights.h5")
    again = rebuild(json.loads(json.dumps(two.recipe)))
    again.load_weights(tmp_path / "two.weights.h5")
    assert again.recipe == two.recipe
    np.testing.assert_array_equal(value(again(pixels)), value(two(pixels)))


def test_a_run_gives_its_backbones_alone_or_together(two, small_backbones, tmp_path):
    run = stored(two, tmp_path / "two")

    alone = small_backbones["bgr"]((16, 16, 1), weights=str(run))
    both = combined((16, 16, 1), 1, trunks=("bgr", "unit"), weights=run)

    assert same(weights_of(alone, ""), weights_of(two, "bgr_"))
    for name in TWO:
        assert same(weights_of(both, f"{name}_"), weights_of(two, f"{name}_"))
    assert both.weights_origin.startswith("bgr, unit: run two sha256 ")
    with pytest.raises(UsageError, match="combined.combined, which has no backbone other"):
        combined((16, 16, 1), trunks=("unit", "other"), weights=run)


def test_a_run_of_one_backbone_gives_it_to_a_combination_of_one(small_backbones, tmp_path):
    first = small_backbones["unit"]((16, 16, 1), weights=None)
    second = combined((16, 16, 1), trunks=("unit",), weights=stored(first, tmp_path / "one"))
    assert same(weights_of(first, ""), weights_of(second, "unit_"))


def test_a_file_is_for_one_backbone(small_backbones, tmp_path):
    path = tmp_path / "x.weights.h5"
    with pytest.raises(UsageError, match=r"a file holds one backbone.*unit, bgr"):
        combined((16, 16, 1), trunks=TWO, weights=path)
    with pytest.raises(UsageError, match="does not exist; expected unit"):
        combined((16, 16, 1), trunks=("unit",), weights=path)


def test_auto_warns_for_each_backbone_without_weights(
    small_backbones, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    unit = small_backbones["unit"]((16, 16, 3), weights=None)
    (tmp_path / "models").mkdir()
    keras.Model(unit.input, unit.get_layer("conv2").output).save_weights(imagenet.converted("unit"))

    with caplog.at_level(logging.WARNING, "medkeras"):
        model = combined((16, 16, 1), trunks=("unit", "bgr", "other"), weights="auto")

    said = [record.getMessage() for record in caplog.records]
    assert ["RANDOM" in one for one in said] == [True, True]
    assert ["weights of bgr:" in said[0], "weights of other:" in said[1]] == [True, True]
    assert model.weights_origin == "unit: imagenet; bgr, other: random"
    assert same(weights_of(unit, ""), weights_of(model, "unit_"))


# Arguments


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"trunks": ("unit", "alexnet")}, "alexnet"),
        ({"trunks": ()}, "trunks"),
        ({"trunks": "unit"}, "trunks"),
        ({"trunks": ("unit", "unit")}, "each once"),
        ({"trunks": (16,)}, "trunks"),
        ({"trunks": ("unit", "xception")}, "at least 71"),
        ({"dropout": 1.0}, "dropout"),
        ({"classes": 0}, "class"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(arguments, named, small_backbones):
    arguments = {"image_shape": (16, 16, 1), "trunks": ("unit",), "weights": None} | arguments
    with pytest.raises(UsageError, match=named):
        combined(**arguments)
