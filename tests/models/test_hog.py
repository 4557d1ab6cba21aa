import json

import keras
import numpy as np
import pytest
from skimage.feature import hog as reference

from medkeras.errors import UsageError
from medkeras.models import hog
from medkeras.models.recipe import rebuild
from medkeras.training import cut

value = keras.ops.convert_to_numpy
RNG = np.random.default_rng(0)
PICTURES = {
    "noise": RNG.integers(0, 256, (3, 37, 50, 1)),
    # Edges at just 0, 45 and 90 degrees, and none at all.
    "few greys": RNG.integers(0, 3, (3, 37, 50, 1)) * 90,
    "no whole numbers": RNG.normal(128, 40, (3, 37, 50, 1)),
}


def features(pictures, **settings):
    model = hog.linear(pictures.shape[1:], **settings)
    described = keras.Model(model.input, model.get_layer("flatten").output)
    return value(described(pictures.astype("float32")))


@pytest.mark.parametrize("cell, orientations, block", [(8, 9, 2), (7, 8, 1), (5, 12, 3)])
@pytest.mark.parametrize("kind", PICTURES)
def test_the_features_are_those_of_scikit_image(kind, cell, orientations, block):
    pictures = PICTURES[kind].astype("float32")
    found = features(pictures, cell=cell, orientations=orientations, block=block)
    sizes = (cell, cell), (block, block)
    expected = [
        reference(one[..., 0].astype("float64"), orientations, *sizes, "L2-Hys") for one in pictures
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_exposure_and_contrast_do_not_matter_and_a_flat_picture_has_no_edges():
    pictures = np.stack([np.full((24, 24, 1), 70), RNG.integers(0, 100, (24, 24, 1))])
    found = features(pictures, cell=6)
    np.testing.assert_allclose(features(2 * pictures + 30, cell=6), found, atol=1e-5)
    assert found[0].max() < 1e-6 and found[1].max() > 0.1


def test_only_a_line_is_learned_and_what_is_before_it_is_computed_once():
    model = hog.linear((24, 24, 1), cell=6)
    assert [v.path for v in model.trainable_variables] == ["logits/kernel", "logits/bias"]
    assert model.get_layer("flatten").output.shape[1:] == (3 * 3 * 4 * 9,)
    ((source, tensors),) = cut.cut(model).fixed.items()
    assert (source, *map(cut.source_of, tensors)) == ("image", "flatten")


def test_the_gradient_at_the_pixels_is_finite_where_nothing_changes():
    import tensorflow as tf

    model, flat = hog.linear((24, 24, 1), cell=6), tf.fill((1, 24, 24, 1), 50.0)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        logit = model(flat)[0, 0]
    assert np.isfinite(value(tape.gradient(logit, flat))).all()


@pytest.mark.parametrize("ordinal", [False, True])
def test_a_model_survives_saving_and_its_recipe_rebuilds_it(ordinal, tmp_path):
    model = hog.linear((24, 30, 1), 5, cell=6, orientations=8, ordinal=ordinal, weights="auto")
    model.save(tmp_path / "model.keras")
    again = rebuild(json.loads(json.dumps(model.recipe)))
    again.load_weights(tmp_path / "model.keras")
    pictures = RNG.integers(0, 256, (4, 24, 30, 1)).astype("float32")
    np.testing.assert_array_equal(value(again(pictures)), value(model(pictures)))
    assert model.output_shape == (None, 5) and model.weights_origin == "none: fixed filters"
    assert keras.Model.from_config(model.get_config()).count_params() == model.count_params()


@pytest.mark.parametrize("weights", ["imagenet", "saved_models/knee_kl_grade/run", "a.weights.h5"])
def test_weights_to_start_from_are_refused(weights):
    with pytest.raises(UsageError, match=f"--weights {weights}.* leave it out"):
        hog.linear((24, 24, 1), cell=6, weights=weights)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"image_shape": (24, 24, 3)}, "grey pictures"),
        ({"image_shape": (24, 11, 1)}, "at least 12"),
        ({"cell": 0}, "cell must be a whole number of at least 1; got 0"),
        ({"orientations": 4.5}, "orientations must be a whole number"),
        ({"block": 0}, "block must be a whole number"),
    ],
)
def test_what_cannot_be_described_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        hog.linear(**{"image_shape": (24, 24, 1), "cell": 6, **settings})
