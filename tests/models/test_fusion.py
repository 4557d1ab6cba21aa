import json

import keras
import numpy as np
import pytest

from medkeras.errors import UsageError
from medkeras.losses import compiled
from medkeras.losses_heads import compiled_heads
from medkeras.models import imagenet, transfer
from medkeras.models.fusion import alone, image_and_risk, multitask
from medkeras.models.recipe import rebuild

value = keras.ops.convert_to_numpy
SHAPE = (16, 16, 1)
VGG16 = 14_714_688  # of the 13 convolutions
USES = [("image",), ("risk",), ("image", "risk")]
rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (3, *SHAPE)).astype("float32")
RISKS = rng.normal(size=(3, 14)).astype("float32")


@pytest.fixture
def joint(small_backbones):
    """Builds `image_and_risk` on a backbone of two convolutions."""

    def build(image_shape=SHAPE, *further, backbone="unit", weights=None, **options):
        return image_and_risk(image_shape, *further, backbone=backbone, weights=weights, **options)

    return build


@pytest.fixture
def two_heads(small_backbones):
    """Builds `multitask` on a backbone of two convolutions."""

    def build(image_shape=SHAPE, *further, backbone="unit", weights=None, **options):
        return multitask(image_shape, *further, backbone=backbone, weights=weights, **options)

    return build


def given(model):
    """What a model takes, in its order."""
    named = {"image": PIXELS, "risk": RISKS}
    found = [named[one.name] for one in model.inputs]
    return found[0] if len(found) == 1 else found


def stored(model, folder):
    """Stores a model as a finished run does."""
    folder.mkdir()
    (folder / "predictor.json").write_text(json.dumps({"recipe": model.recipe}), encoding="utf-8")
    model.save(folder / "model.keras")
    return folder


def weights_of(model, prefix="conv"):
    return [w for x in model.layers if x.name.startswith(prefix) for w in x.get_weights()]


def same(first, second):
    return all((a == b).all() for a, b in zip(first, second, strict=True))


def learning(model):
    return {layer.name for layer in model.layers if layer.trainable_variables}


# The architecture


def test_the_published_joint_network():
    model = image_and_risk(weights=None)
    assert model.count_params() == VGG16 + (14 * 128 + 128) + (640 + 1)
    assert sum(isinstance(x, keras.layers.Conv2D) for x in model.layers) == 13
    assert [one.shape for one in model.inputs] == [(None, 224, 224, 3), (None, 14)]
    assert model.get_layer("pooling").output.shape == (None, 512)
    assert model.get_layer("risk_dense").activation is keras.activations.linear
    assert model.get_layer("logits").input.shape == (None, 640)
    assert model.output.shape == (None, 1)
    assert model.get_layer(model.feature_map).output.shape == (None, 14, 14, 512)
    assert learning(model) == {"risk_dense", "logits"}


def test_the_published_network_of_two_heads():
    model = multitask((32, 32, 3), weights=None)
    assert model.count_params() == VGG16 + 2_565 + 513
    grade, jsl = model.get_layer("grade"), model.get_layer("jsl")
    assert grade.input is jsl.input
    assert grade.input.shape == (None, 512)
    assert (grade.units, jsl.units) == (5, 1)
    assert model.output.shape == (None, 6)
    assert len(learning(model)) == 13 + 2


def test_models_are_flat_and_end_in_logits(joint, two_heads):
    for model in (joint(dropout=0.2), two_heads(dropout=0.2, ordinal=True)):
        assert model.layers[-1].name == "logits"
        assert not [x for x in model.layers if isinstance(x, (keras.Model, keras.layers.Lambda))]
        assert model.get_layer("head_dropout").rate == 0.2
        assert (model.feature_map, model.weights_origin) == ("conv2", "random")


@pytest.mark.parametrize("use", USES)
def test_a_part_that_is_not_used_is_not_there(use, joint):
    model = joint(use=use)
    assert [one.name for one in model.inputs] == list(use)
    assert model.feature_map == ("conv2" if "image" in use else None)
    names = {layer.name for layer in model.layers}
    assert ("risk_dense" in names) == ("risk" in use)
    assert ("conv1" in names) == ("image" in use)
    width = 5 * ("image" in use) + 128 * ("risk" in use)
    assert model.get_layer("logits").input.shape == (None, width)
    assert model(given(model)).shape == (3, 1)


def test_the_parts_add_up_to_the_whole(joint):
    both = joint()
    image, risk = joint(use=("image",)), joint(use=("risk",))
    for one in (image, risk):
        for layer in one.layers[:-1]:
            layer.set_weights(both.get_layer(layer.name).get_weights())
    kernel, bias = both.get_layer("logits").get_weights()
    image.get_layer("logits").set_weights([kernel[:5], bias])
    risk.get_layer("logits").set_weights([kernel[5:], 0 * bias])
    found = value(image(PIXELS)) + value(risk(RISKS))
    np.testing.assert_allclose(value(both([PIXELS, RISKS])), found, rtol=1e-5, atol=1e-6)


def test_risk_factors_alone_ask_nobody_for_weights(monkeypatch):
    monkeypatch.setattr(imagenet, "file", lambda name: pytest.fail("asked for a file"))
    model = image_and_risk(use=("risk",))
    assert model.weights_origin == "random"
    assert model.count_params() == 14 * 128 + 128 + 128 + 1


def test_raw_grey_pixels_are_those_of_the_backbone_alone(joint, small_backbones):
    model = joint(use=("image",))
    alone = small_backbones["unit"](SHAPE, 1, weights=None)
    alone.set_weights(model.get_weights())
    np.testing.assert_allclose(value(model(PIXELS)), value(alone(PIXELS)), rtol=1e-5)


@pytest.mark.parametrize("ordinal", [False, True])
def test_the_logits_are_those_of_the_grade_then_of_joint_space_loss(ordinal, two_heads):
    model = two_heads(ordinal=ordinal)
    outputs = [model.get_layer(name).output for name in ("grade", "jsl")]
    grade, jsl = keras.Model(model.input, outputs)(PIXELS)
    found = value(model(PIXELS))
    np.testing.assert_array_equal(found, np.hstack([value(grade), value(jsl)]))
    total = np.exp(found[:, :5]).sum(axis=1)
    assert (np.abs(total - 1) < 1e-5).all() == ordinal


@pytest.mark.parametrize("ordinal", [False, True])
@pytest.mark.parametrize(("head", "own"), [("grade", slice(5)), ("jsl", slice(5, None))])
def test_a_head_alone_answers_as_beside_the_other(head, own, ordinal, two_heads, tmp_path):
    both = two_heads(ordinal=ordinal, dropout=0.2)
    one = alone(both, head)
    expected = value(both(PIXELS))[:, own]
    np.testing.assert_array_equal(value(one(PIXELS)), expected)
    assert (one.feature_map, one.weights_origin) == ("conv2", "random")
    assert both.recipe["arguments"]["head"] is None, "the model of both is as it was"

    stored(one, tmp_path / "run")
    again = rebuild(json.loads(json.dumps(one.recipe)))
    again.load_weights(tmp_path / "run" / "model.keras")
    assert [layer.name for layer in again.layers] == [layer.name for layer in one.layers]
    assert again.layers[-1].name == again.name == head
    np.testing.assert_array_equal(value(again(PIXELS)), expected)


# Training


def test_frozen_or_not_is_a_setting_and_the_trunk_keeps_to_it(joint, two_heads):
    labels = np.array([[0, 1], [4, np.nan], [np.nan, 0]], "float32")
    for build, compiling, y in (
        (joint, compiled, labels[:, 1:] == 1),
        (two_heads, compiled_heads, labels),
    ):
        for frozen in (True, False):
            model = build(frozen=frozen)
            before, heads = weights_of(model), model.get_weights()
            compiling(model, keras.optimizers.Adam(1e-2)).run_eagerly = True
            found = model.train_on_batch(given(model), y.astype("float32"), return_dict=True)
            assert np.isfinite(found["loss"])
            assert same(weights_of(model), before) == frozen
            assert not same(model.get_weights(), heads)


# Saving and weights


@pytest.mark.parametrize("use", USES)
def test_a_joint_network_is_rebuilt_from_its_recipe(use, joint, tmp_path):
    model = joint(SHAPE, 14, 2, units=6, dropout=0.1, use=use)
    stored(model, tmp_path / "run")
    again = rebuild(json.loads(json.dumps(model.recipe)))
    again.load_weights(tmp_path / "run" / "model.keras")
    assert again.recipe == model.recipe
    assert model.recipe["function"] == "fusion.image_and_risk"
    np.testing.assert_array_equal(value(again(given(again))), value(model(given(model))))


@pytest.mark.parametrize("ordinal", [False, True])
def test_a_network_of_two_heads_is_rebuilt_from_its_recipe(ordinal, two_heads, tmp_path):
    model = two_heads(SHAPE, 4, ordinal=ordinal, dropout=0.1)
    stored(model, tmp_path / "run")
    again = rebuild(json.loads(json.dumps(model.recipe)))
    again.load_weights(tmp_path / "run" / "model.keras")
    assert again.recipe == model.recipe
    np.testing.assert_array_equal(value(again(PIXELS)), value(model(PIXELS)))


def test_a_run_gives_its_trunk_from_grades_to_risk_factors_and_on(
    small_backbones, joint, two_heads, tmp_path
):
    grades = small_backbones["unit"](SHAPE, 5, ordinal=True, weights=None)
    second = joint(weights=str(stored(grades, tmp_path / "grades")))
    third = two_heads(weights=stored(second, tmp_path / "joint"))
    fourth = joint(weights=stored(alone(third, "jsl"), tmp_path / "jsl"))
    for one in (second, third, fourth):
        assert same(weights_of(one), weights_of(grades))
    assert third.weights_origin.startswith("run joint sha256 ")
    with pytest.raises(UsageError, match="run .*grades.*vgg16"):
        transfer.vgg16((32, 32, 1), weights=tmp_path / "grades")


# Arguments


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"use": ()}, "use must be"),
        ({"use": "image"}, "use must be"),
        ({"use": ("risk", "image")}, "use must be"),
        ({"use": ("image", "age")}, "age"),
        ({"risks": 0}, "risks"),
        ({"units": 0}, "units"),
        ({"backbone": "alexnet"}, "unknown backbone 'alexnet'"),
        ({"dropout": 1.0}, "dropout"),
        ({"classes": 0}, "class"),
        ({"image_shape": (4, 4, 1)}, "at least 8"),
    ],
)
def test_an_argument_of_the_joint_network_that_cannot_be_used_is_named(arguments, named, joint):
    with pytest.raises(UsageError, match=named):
        joint(**arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"backbone": "alexnet"}, "unknown backbone 'alexnet'"),
        ({"grades": 0}, "class"),
        ({"head": "kl"}, "head must be None, grade or jsl; got 'kl'"),
        ({"grades": 2, "ordinal": True}, "at least 3 grades"),
        ({"weights": "absent.weights.h5"}, "does not exist; expected unit"),
    ],
)
def test_an_argument_of_two_heads_that_cannot_be_used_is_named(arguments, named, two_heads):
    with pytest.raises(UsageError, match=named):
        two_heads(**arguments)
