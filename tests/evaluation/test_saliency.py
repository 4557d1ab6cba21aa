"""Saliency: the absolute gradient at the pixels, in the gallery beside Grad-CAM."""

import io
import json

import keras
import numpy as np
import pytest
from PIL import Image

from medkeras.evaluation import explain
from medkeras.evaluation.heat import saliency
from medkeras.preparation import pipeline

SHAPE = (6, 5, 3)


def linear(outputs, risks=0):
    """A model that is linear in its pixels, and its kernel (height, width, channels, outputs)."""
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE, name="image")
    inputs, x = image, keras.layers.Flatten()(image)
    if risks:
        inputs = [image, keras.Input((risks,), name="risk")]
        x = keras.layers.Concatenate()([x, inputs[1]])
    model = keras.Model(inputs, keras.layers.Dense(outputs, name="logits")(x))
    kernel = keras.ops.convert_to_numpy(model.get_layer("logits").kernel)
    return model, kernel[: np.prod(SHAPE)].reshape(*SHAPE, outputs)


def pictures(n=5):
    return np.random.default_rng(0).integers(0, 256, (n, *SHAPE), dtype=np.uint8)


@pytest.mark.parametrize(("outputs", "risks"), [(3, 0), (1, 0), (2, 4)])
def test_of_a_linear_model_it_is_the_size_of_the_weights(outputs, risks):
    model, kernel = linear(outputs, risks)
    batch, targets = pictures(), np.arange(5) % max(outputs, 2)
    batches = [batch[:3], batch[3:]]
    if risks:
        batches = [[own, np.ones((len(own), risks), np.float32)] for own in batches]
    found = saliency.maps(model, batches, targets)
    assert found.dtype == np.float32 and found.shape == (5, *SHAPE[:2])
    expected = np.abs(kernel).max(axis=2)[..., np.minimum(targets, outputs - 1)]
    np.testing.assert_allclose(found, np.moveaxis(expected, -1, 0), rtol=1e-6)


def test_it_does_not_depend_on_the_other_pictures_of_a_batch(small_model):
    batch = np.random.default_rng(0).integers(0, 256, (6, 24, 24, 1), dtype=np.uint8)
    targets = np.array([0, 1, 2, 2, 1, 0])
    together = saliency.maps(small_model(), [batch], targets)
    apart = saliency.maps(small_model(), [batch[:1], batch[1:4], batch[4:]], targets)
    assert together.max() > 0
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-7)
    assert saliency.maps(small_model(), [], []).shape == (0, 24, 24)


def test_the_gallery_shows_it_where_asked(small_table, small_model, small_run):
    data, model = pipeline.images(small_table(), (24, 24, 1), 8), small_model()
    run = small_run()
    plain = explain.grad_cam(model, data, run, most=3)
    assert not (run.folder / "explanations" / "saliency.npy").exists()
    asked = explain.grad_cam(model, data, run, most=3, saliency=True)
    maps = np.load(run.folder / "explanations" / "saliency.npy", allow_pickle=False)
    assert maps.shape == (3, 24, 24) and maps.dtype == np.float32
    assert asked.scores.items() > plain.scores.items() and "pixel" in asked.scores["saliency"]
    scores = json.loads((run.folder / "explanations" / "scores.json").read_text())
    assert scores["saliency"] == asked.scores["saliency"]
    classes = list(data.classes)
    for fine, before, after in zip(maps, plain.items, asked.items, strict=True):
        without, shown = (np.asarray(Image.open(io.BytesIO(i.png))) for i in (before, after))
        side = shown.shape[0]
        assert shown.shape[1] == without.shape[1] + side + 4 and before.path == after.path
        np.testing.assert_array_equal(shown[20:160, :side], without[20:160, :side])
        panel = shown[:, 2 * side + 8 : 3 * side + 8]
        brightest = np.unravel_index(fine.argmax(), fine.shape)
        centre = [int((place + 0.5) * side / 24) for place in brightest]
        assert panel[*centre].sum() > 550 > panel.sum(axis=2).mean()
        (row,) = np.flatnonzero(data.test.table["path"] == after.path)
        target = np.array([classes.index(after.predicted)])
        alone = saliency.maps(model, [data.test.pictures(np.array([row]))], target)
        np.testing.assert_allclose(alone[0], fine, rtol=1e-4, atol=1e-7)
