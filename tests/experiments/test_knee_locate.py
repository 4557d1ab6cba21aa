"""The page that finds joints: once in small, and slowly with its goal."""

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from medkeras.files import decode
from medkeras.models import stored
from medkeras.phantoms import knee_xray
from medkeras.preparation import halves
from medkeras.serving import crop

PAGE = Path(__file__).resolve().parents[2] / "experiments" / "knee_locate.py"
BOX = ["x", "y", "width", "height"]


def test_the_page_leaves_a_folder_that_is_whole_and_true(whole, tmp_path):
    root = knee_xray.write(tmp_path / "knee", patients=14, size=32, film=(96, 128))
    out = tmp_path / "run"
    options = ["--image-size", 32, "--epochs", 1, "--set", "filters=8"]
    whole(PAGE, root, out, *options)

    texts = {"path": str, "patient": str}
    predictions = pd.read_csv(out / "predictions.csv", dtype=texts)
    split = pd.read_csv(out / "split.csv", dtype=texts)
    truth = pd.read_csv(root / "joints.csv").replace({"side": {1: "right", 2: "left"}})
    assert len(split) == 28 and split.groupby("patient")["split"].nunique().max() == 1
    assert set(predictions["split"]) == {"val", "test"}
    expected = truth.set_index(["film", "side"]).loc[zip(predictions["path"], predictions["side"])]
    np.testing.assert_allclose(predictions[[f"true_{n}" for n in BOX]], expected[BOX], atol=0.02)
    metrics = json.loads((out / "metrics.json").read_text())
    tested = predictions[predictions["split"] == "test"]
    assert metrics["n"] == len(tested)
    assert metrics["mean"]["iou"]["value"] == pytest.approx(tested["iou"].mean())
    assert metrics["accuracy"]["value"] == pytest.approx((tested["iou"] >= 0.8).mean())
    found, true = (centred(tested[[f"{kind}_{n}" for n in BOX]]) for kind in ("found", "true"))
    np.testing.assert_allclose(tested["iou"], halves.overlap(found, true), atol=0.01)

    model, predictor = stored.load(out)
    assert predictor["task"] == "location"
    row = tested.iloc[-1]
    film = halves.grey(decode.picture(root / row["path"]).pixels)
    half = {half.side: half for half in halves.both(film)}[row["side"]]
    picture = half.picture(film, tuple(predictor["image_shape"]))[None].astype("float32")
    (answer,) = keras.ops.convert_to_numpy(model(picture, training=False))
    place = [row[f"found_{name}"] for name in BOX]
    np.testing.assert_allclose(half.place(answer[:4]), place, atol=0.05)
    assert answer[4] == pytest.approx(row["confidence"], abs=1e-4)
    for file in ("report.html", "README.md"):
        text = (out / file).read_text()
        assert "knees" in text and not [name for name in predictions["patient"] if name in text]
        assert "http://" not in text


def centred(boxes):
    boxes = boxes.to_numpy()
    return np.column_stack([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]])


@pytest.mark.slow
def test_joints_of_held_out_films_are_found_and_cropped(start, tmp_path):
    start(PAGE, "--sample", "--out", tmp_path / "run")
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Synthetic sample data" in report
    held = knee_xray.write(tmp_path / "held", patients=60, size=32, seed=77)
    done = crop.crop(held / "films", tmp_path / "knees", tmp_path / "run")
    truth = pd.read_csv(held / "joints.csv").replace({"side": {1: "right", 2: "left"}})
    truth["film"] = truth["film"].str.removeprefix("films/")
    both = truth.merge(done.crops, on=["film", "side"], suffixes=("_true", ""))
    iou = halves.overlap(centred(both[BOX]), centred(both[[f"{n}_true" for n in BOX]]))
    assert len(both) >= 0.9 * len(truth), "few knees are listed instead"
    assert (iou >= 0.8).sum() >= 0.95 * len(both)
