"""The files of an evaluation: complete, deterministic, recomputable."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest

from medkeras import errors
from medkeras.evaluation.evaluate import evaluate, logits, probabilities
from medkeras.evaluation.numbers import metrics
from medkeras.preparation import pipeline

SHAPE = (24, 24, 1)


def test_files_hold_every_picture_and_can_be_recomputed(small_table, small_model, small_run):
    table, run = small_table(), small_run()
    data = pipeline.images(table, SHAPE, 5)
    scores = evaluate(small_model(), data, run)

    written = pd.read_csv(run.folder / "predictions.csv")
    rows = pd.concat([table[table["split"] == part] for part in ("val", "test")])
    assert list(written["path"]) == list(rows["path"])
    assert list(written["split"]) == list(rows["split"])
    names = data.classes
    triples = [f"{kind}_{name}" for name in names for kind in ("label", "logit", "probability")]
    assert list(written.columns) == ["path", "patient", "split", *triples]
    labels = written[[f"label_{name}" for name in names]].to_numpy()
    np.testing.assert_array_equal(labels.argmax(axis=1), rows["label"])
    logits = written[[f"logit_{name}" for name in names]].to_numpy()
    chances = written[[f"probability_{name}" for name in names]].to_numpy()
    np.testing.assert_allclose(probabilities(logits, "multiclass"), chances, atol=1e-7)

    again = metrics.measured(
        metrics.read(run.folder / "predictions.csv"), "multiclass", 0, run.seed
    )
    assert again == json.loads((run.folder / "metrics.json").read_text()) == scores.metrics
    predictor = json.loads((run.folder / "predictor.json").read_text())
    assert predictor["labels"] == names and predictor["recipe"]["function"] == "custom_cnn.v1"
    assert predictor["calibration"] is None and predictor["format"] == 1


def test_same_model_gives_the_same_bytes(small_table, small_model, small_run):
    data, model = pipeline.images(small_table(), SHAPE, 5), small_model()
    for folder in ("one", "two"):
        evaluate(model, data, small_run(folder=folder))
    root = small_run(folder="three").folder.parent
    for name in ("predictions.csv", "metrics.json", "predictor.json"):
        assert (root / "one" / name).read_bytes() == (root / "two" / name).read_bytes()


def test_mirrored_is_the_mean_of_the_picture_and_its_mirror_image(small_model):
    model, rng = small_model(), np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    pictures[:, :, :8] = 0  # one side is not like the other
    one, other = (logits(model, [[asked]]) for asked in (pictures, pictures[:, :, ::-1]))
    assert np.abs(one - other).max() > 1e-5, "else this test shows nothing"
    found = logits(model, [[pictures]], views=2)
    np.testing.assert_allclose(found, (one + other) / 2, rtol=1e-5, atol=1e-6)


def test_six_views_are_both_images_at_three_sizes(small_model):
    model, rng, answers = small_model(), np.random.default_rng(1), []
    pictures = rng.integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    centre = ((SHAPE[1] - 1) / 2, (SHAPE[0] - 1) / 2)
    for zoom in (1.0, 0.92, 1.08):
        matrix = cv2.getRotationMatrix2D(centre, 0, zoom)
        how = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
        sized = [cv2.warpAffine(one.astype("f4"), matrix, SHAPE[1::-1], **how) for one in pictures]
        sized = np.stack(sized).reshape(pictures.shape)
        answers += [logits(model, [[asked]]) for asked in (sized, sized[:, :, ::-1])]
    found = logits(model, [[pictures]], views=6)
    spread = np.ptp(answers, axis=0).max()
    assert np.abs(found - np.mean(answers, axis=0)).max() < 0.02 * spread
    with pytest.raises(ValueError, match="expected one of 1, 2, 6"):
        logits(model, [[pictures]], views=3)


def test_two_classes_have_one_triple_named_after_the_positive(small_table, small_model, small_run):
    data = pipeline.images(small_table(("normal", "fractured")), SHAPE, 8)
    scores = evaluate(small_model(1), data, small_run())
    assert scores.task == "binary" and metrics.class_names(scores.predictions) == ["fractured"]
    truth = scores.predictions["path"].str.startswith("class1")
    np.testing.assert_array_equal(scores.predictions["label_fractured"], truth)


def test_prediction_that_is_not_a_number_names_the_file(small_table, small_model, small_run):
    data, model, run = pipeline.images(small_table(), SHAPE, 8), small_model(), small_run()
    model.get_layer("logits").bias.assign([np.nan, 0, 0])
    with pytest.raises(errors.Diverged, match=r"class0/3\.png"):
        evaluate(model, data, run)
    assert not (run.folder / "predictions.csv").exists()


def test_model_with_other_outputs_than_classes_is_refused(small_table, small_model, small_run):
    data = pipeline.images(small_table(), SHAPE, 8)
    with pytest.raises(ValueError, match="2 logits"):
        evaluate(small_model(2), data, small_run())
