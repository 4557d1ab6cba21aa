"""Grad-CAM: equal to its definition and to tf-explain, honest about empty maps."""

import json

import numpy as np
import pytest
from PIL import Image

from medkeras.evaluation import explain
from medkeras.evaluation.heat import overlays, pointing
from medkeras.preparation import pipeline

SHAPE = (24, 24, 1)


def pictures(n=7):
    return np.random.default_rng(0).integers(0, 256, (n, *SHAPE), dtype=np.uint8)


@pytest.mark.parametrize("outputs", [1, 3])
def test_maps_agree_with_tf_explain(small_model, outputs):
    model, batch = small_model(outputs), pictures()
    targets = np.arange(len(batch)) % max(outputs, 2)
    ours = explain.heat(model, [batch[:4], batch[4:]], "c2", targets)
    theirs = explain.heat(model, [batch[:4], batch[4:]], "c2", targets, backend="tf-explain")
    assert ours.max() > 0 and ours.shape == (7, 12, 12)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_maps_are_the_analytic_ones_of_an_average_pooled_head(small_model):
    # With global average pooling and a dense head, the weights are the kernel over the area.
    import keras

    model, batch = small_model(3), pictures()
    targets = np.array([0, 1, 2, 0, 1, 2, 0])
    features = keras.Model(model.input, model.get_layer("c2").output)
    activations = features(batch.astype("float32")).numpy()
    kernel = model.get_layer("logits").kernel.numpy()
    expected = np.einsum("nhwc,cn->nhw", activations, kernel[:, targets]) / 144
    found = explain.heat(model, [batch], "c2", targets)
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-4, atol=1e-6)


def test_frozen_and_bfloat16_models_are_explained(small_model):
    model, half = small_model(), small_model(dtype="mixed_bfloat16")
    half.set_weights(model.get_weights())
    for layer in model.layers:
        layer.trainable = False
    targets = np.zeros(7, dtype=int) + 1
    whole = explain.heat(model, [pictures()], "c2", targets)
    rough = explain.heat(half, [pictures()], "c2", targets)
    assert rough.dtype == np.float32
    assert np.corrcoef(whole.ravel(), rough.ravel())[0, 1] > 0.99


def test_a_model_that_knows_more_than_the_picture_is_explained(small_model):
    # Risk factors that enter the last layer add a constant: the picture's part is as without.
    import keras

    alone, batch = small_model(1), pictures()
    risk = keras.Input((3,), name="risk")
    added = keras.layers.Dense(1, name="risk_dense")(risk)
    both = keras.Model(
        [alone.input, risk], keras.layers.Add(name="sum")([alone.output, added]), name="both"
    )
    factors = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    targets = np.arange(7) % 2
    found = explain.heat(both, [[batch[:4], factors[:4]], [batch[4:], factors[4:]]], "c2", targets)
    assert found.max() > 0
    np.testing.assert_allclose(found, explain.heat(alone, [batch], "c2", targets), rtol=1e-5)


def test_layer_without_a_map_is_refused(small_model):
    with pytest.raises(ValueError, match="feature map"):
        explain.heat(small_model(), [pictures()], "pool", np.zeros(7, dtype=int))


def test_empty_map_stays_empty_and_says_so():
    picture = np.full(SHAPE, 100, np.uint8)
    drawn = overlays.panel(picture, np.zeros((12, 12), np.float32))
    hot = overlays.panel(picture, np.eye(12, dtype=np.float32))
    from io import BytesIO

    empty, full = (np.asarray(Image.open(BytesIO(png)), dtype=int) for png in (drawn, hot))
    below = slice(40, None)  # under the words "no positive evidence"
    width = empty.shape[0]
    np.testing.assert_array_equal(empty[below, :width], empty[below, -width:])
    assert (full[below, :width] != full[below, -width:]).any()
    assert (empty[:40, :width] != empty[:40, -width:]).any()


def test_pointing_game_counts_hits_against_chance():
    masks = [np.zeros((20, 20), bool) for _ in range(12)]
    maps = [np.zeros((10, 10), np.float32) for _ in range(12)]
    for n in range(12):
        masks[n][4:8, 4:8] = True
        if n < 6:
            maps[n][2:4, 2:4] = 1  # in the lesion
        elif n < 9:
            maps[n][8, 8] = 1  # elsewhere; the last three have no evidence at all
    game = pointing.game(maps, masks, np.arange(12))["pointing_game"]
    assert game["value"] == 0.5 and game["chance"] == pytest.approx(0.04) and game["n"] == 12
    assert game["low"] < 0.5 < game["high"]
    assert pointing.game([], [], [])["pointing_game"] is None


def test_gallery_shows_mistakes_of_the_test_part_only(small_table, small_model, small_run):
    table, run = small_table(), small_run()
    data = pipeline.images(table, SHAPE, 5)
    gallery = explain.grad_cam(small_model(), data, run, most=9)
    folder = run.folder / "explanations"

    test = set(table.loc[table["split"] == "test", "path"])
    assert len(gallery.items) == 9 and {item.path for item in gallery.items} <= test
    assert any(not item.correct for item in gallery.items)
    assert {item.file for item in gallery.items} == {p.name for p in folder.glob("*.png")}
    raw = np.load(folder / "maps.npy", allow_pickle=False)
    assert raw.shape == (9, 12, 12) and raw.dtype == np.float32 and (raw >= 0).all()
    assert len((folder / "index.csv").read_text().splitlines()) == 10
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["pointing_game"]["n"] == (table["label"][table["split"] == "test"] > 0).sum()
    assert 0.05 < scores["pointing_game"]["chance"] < 0.07  # 36 of 576 pixels


def test_without_masks_the_score_is_null_with_a_reason(small_table, small_model, small_run):
    run = small_run()
    data = pipeline.images(small_table(("a", "b")).drop(columns="mask"), SHAPE, 8)
    gallery = explain.grad_cam(small_model(1), data, run, most=4)
    assert gallery.scores["pointing_game"] is None and gallery.scores["reason"]


def test_surest_mistakes_come_first():
    labels = np.array([0, 0, 0, 0, 1, 1])
    answers = np.array([0, 1, 1, 0, 1, 1])
    chosen = explain.picked(labels, answers, np.array([0.9, 0.6, 0.8, 0.7, 0.5, 0.9]), 4)
    assert list(chosen) == [2, 0, 5, 4]
