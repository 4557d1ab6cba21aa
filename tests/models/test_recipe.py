import json

import keras
import numpy as np
import pytest

from medkeras.errors import UsageError
from medkeras.models import custom_cnn
from medkeras.models.recipe import rebuild, recipe


def test_a_recipe_holds_every_argument_but_the_weights():
    model = custom_cnn.v2((16, 16, 1), units=(8, 4))
    assert json.loads(json.dumps(model.recipe)) == {
        "function": "custom_cnn.v2",
        "arguments": {
            "image_shape": [16, 16, 1],
            "classes": 1,
            "units": [8, 4],
            "dropout": 0.4,
            "channels": None,
        },
    }


def test_a_rebuilt_model_has_the_same_recipe_and_layers():
    model = custom_cnn.v2((16, 16, 1), units=(8, 4))
    again = rebuild(json.loads(json.dumps(model.recipe)))
    assert again.recipe == model.recipe
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    assert again.count_params() == model.count_params()


def test_numbers_of_numpy_are_stored_as_numbers():
    model = custom_cnn.v2((16, 16, 1), units=(8,), dropout=np.float32(0.5))
    assert json.loads(json.dumps(model.recipe))["arguments"]["dropout"] == 0.5


@recipe
def _foreign(image_shape, extra=None):
    return keras.Sequential([keras.Input(image_shape)])


def test_a_function_from_elsewhere_is_recorded_but_never_rebuilt():
    model = _foreign((3,))
    assert model.recipe["function"] == "test_recipe._foreign"
    with pytest.raises(UsageError, match="unknown model function"):
        rebuild(model.recipe)


def test_an_argument_that_json_lacks_is_refused():
    with pytest.raises(UsageError, match="extra"):
        _foreign((3,), extra=object())


@pytest.mark.parametrize(
    "recorded",
    [
        None,
        {},
        {"function": "custom_cnn.v1"},
        {"function": "custom_cnn.v1", "arguments": {}, "module": "os"},
        {"function": "os.system", "arguments": {"command": "true"}},
        {"function": "custom_cnn._wide", "arguments": {}},
        {"function": "custom_cnn.keras", "arguments": {}},
        {"function": ["custom_cnn.v1"], "arguments": {}},
        {"function": "custom_cnn.v1", "arguments": []},
        {"function": "custom_cnn.v1", "arguments": {"colour": 1}},
        {"function": "transfer.xception", "arguments": {"weights": "/etc/passwd"}},
        {"function": "custom_cnn.v1", "arguments": {"image_shape": "wide"}},
        {"function": "custom_cnn.v1", "arguments": {"classes": "many"}},
        {"function": "custom_cnn.v2", "arguments": {"units": 5}},
    ],
)
def test_what_is_not_a_recipe_is_refused(recorded):
    with pytest.raises(UsageError):
        rebuild(recorded)
