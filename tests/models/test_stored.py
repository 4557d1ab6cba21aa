import json

import keras
import numpy as np
import pytest

from medkeras.errors import UsageError
from medkeras.models import custom_cnn, stored


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Writes what a finished run keeps of its model."""
    folder = tmp_path_factory.mktemp("run")
    keras.utils.set_random_seed(0)
    model = custom_cnn.v1((32, 32, 1), 3)
    model.save(folder / "model.keras")
    (folder / "predictor.json").write_text(json.dumps({"recipe": model.recipe, "labels": ["a"]}))
    return folder, model


def test_a_finished_run_answers_as_it_did(finished):
    folder, model = finished
    again, predictor = stored.load(folder)
    batch = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1)).astype("float32")
    np.testing.assert_array_equal(again(batch), model(batch))
    assert predictor["labels"] == ["a"] and again.feature_map == model.feature_map


def test_what_is_no_finished_run_is_named(finished, tmp_path):
    for folder, words in [
        (tmp_path / "none", "is not a folder"),
        (tmp_path, "has no predictor.json and no model.keras, so it is not finished"),
    ]:
        with pytest.raises(UsageError, match=words):
            stored.load(folder)
    recipe = json.loads((finished[0] / "predictor.json").read_text())["recipe"]
    other = recipe | {"arguments": recipe["arguments"] | {"classes": 5}}
    (tmp_path / "model.keras").write_bytes((finished[0] / "model.keras").read_bytes())
    for text in ("{", "[]", "{}", '{"recipe": null}', json.dumps({"recipe": other})):
        (tmp_path / "predictor.json").write_text(text)
        with pytest.raises(UsageError, match="is damaged, or not of this version"):
            stored.load(tmp_path)
