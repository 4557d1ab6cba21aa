import json

import keras
import numpy as np
import pytest

from medkeras.errors import UsageError
from medkeras.models import custom_cnn
from medkeras.models.recipe import rebuild

value = keras.ops.convert_to_numpy
TRUNK = 1_117_952  # parameters of v2 before its dense layers, three channels


def v2_parameters(flat, units, classes=1):
    first, second = units
    return TRUNK + flat * first + 4 * first + first * second + 4 * second + (second + 1) * classes


def test_v1_is_the_published_network():
    model = custom_cnn.v1()
    assert model.get_layer("flatten").output.shape == (None, 3136)
    assert model.count_params() == 456_993
    assert model.output_shape == (None, 1)


@pytest.mark.parametrize("name", ["M3", "M4"])
def test_v2_is_the_published_network(name):
    units = custom_cnn.V2_VARIATIONS[name]["units"]
    model = custom_cnn.v2(units=units)
    assert model.get_layer("flatten").output.shape == (None, 200_704)
    assert model.count_params() == v2_parameters(200_704, units)
    assert f"{model.count_params():,}" in custom_cnn.__doc__


@pytest.mark.parametrize("units", [(1024, 512), (512, 128)])
def test_wide_heads_in_small(units):
    model = custom_cnn.v2((32, 32, 3), units=units)
    assert model.count_params() == v2_parameters(4 * 4 * 256, units)
    assert f"{v2_parameters(200_704, units):,}" in custom_cnn.__doc__


def test_v2_defaults_to_the_published_widths_and_v3_to_three_classes():
    v2, v3 = custom_cnn.v2((32, 32, 3)), custom_cnn.v3((32, 32, 3))
    assert v2.recipe["arguments"]["units"] == [1024, 512]
    assert v3.output_shape == (None, 3)
    assert v3.count_params() == v2_parameters(4 * 4 * 256, (512, 128), classes=3)


def test_greyscale_differs_in_the_first_kernel_only():
    grey, colour = (custom_cnn.v2((32, 32, c), units=(8, 4)) for c in (1, 3))
    assert colour.count_params() - grey.count_params() == 7 * 7 * 2 * 64


def test_initializers_are_the_published_ones():
    model = custom_cnn.v3((32, 32, 3), units=(8, 4))
    kernels = [layer for layer in model.layers if hasattr(layer, "kernel")]
    found = {layer.name: layer.kernel_initializer.__class__.__name__ for layer in kernels}
    others = {name for name, initializer in found.items() if initializer == "GlorotUniform"}
    assert others == {"block1_conv1", "logits"}
    assert set(found.values()) == {"GlorotUniform", "HeUniform"}


@pytest.mark.parametrize("build", [custom_cnn.v1, custom_cnn.v2, custom_cnn.v3])
def test_every_network_explains_itself_and_survives_saving(build, tmp_path):
    small = {} if build is custom_cnn.v1 else {"units": (8, 4)}
    model = build((32, 40, 1), **small)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 40, 1)).astype("float32")
    model.save(tmp_path / "model.keras")

    again = rebuild(json.loads(json.dumps(model.recipe)))
    again.load_weights(tmp_path / "model.keras")

    np.testing.assert_array_equal(value(again(pixels)), value(model(pixels)))
    assert len(model.get_layer(model.feature_map).output.shape) == 4
    assert (model.input.name, model.layers[-1].name) == ("image", "logits")
    assert model.weights_origin == "random"


def test_raw_pixels_are_rescaled_inside():
    model = custom_cnn.v1((32, 32, 1))
    scaled = keras.Model(model.input, model.get_layer("rescale").output)
    assert float(scaled(np.full((1, 32, 32, 1), 255.0))[0, 0, 0, 0]) == 1.0


def test_a_picture_too_small_is_refused():
    with pytest.raises(UsageError, match="at least 32"):
        custom_cnn.v1((31, 64, 1))
