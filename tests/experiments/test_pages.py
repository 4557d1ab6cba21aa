"""Each experiment once, end to end, in small: on a written phantom, in this process."""

import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medkeras.models import backbones, recipe
from medkeras.preparation import conform
from tests.experiments import contract

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
KNEE = ("locate", "kl_grade", "hog", "jsl", "jsl_risk", "jsl_ablation", "multitask")
CHEST = ("densenet", "efficientnet", "combined", "policies")
EXPERIMENTS = ROOT / "experiments"

# Page -> classes and side of its phantom, flags.
PAGES = {
    "bone_cnn_v1": (2, 32, ["--tune", "2", "--set", "dropout=0.5"]),
    "bone_cnn_v2": (2, 32, ["--set", "variation=M3", "--set", "grey=true"]),
    "bone_cnn_v3": (3, 32, ["--set", "units=64-32"]),
    "bone_backbones": (3, 32, ["--set", "backbone=densenet_tiny"]),
    "bone_inception": (3, 75, ["--set", "head=l2"]),
    "bone_xception": (3, 71, ["--set", "units=256"]),
}
STAGES = {"bone_inception": 2, "bone_xception": 2}


def test_every_page_is_started_here():
    elsewhere = {
        "mrnet": {"mrnet_views", "mrnet_triple", "mrnet_grid"},
        "chexpert": {f"chexpert_{name}" for name in CHEST},
        "knee": {f"knee_{name}" for name in KNEE},
    }
    written = {page.stem for page in EXPERIMENTS.glob("*.py")}
    assert written == set(PAGES).union(*elsewhere.values())
    for family, pages in elsewhere.items():
        tests = "".join(path.read_text() for path in HERE.glob(f"test_{family}*.py"))
        assert not [page for page in pages if f'"{page}' not in tests]


@pytest.fixture(autouse=True)
def small_inception(monkeypatch):
    """A few layers stand in for InceptionV3, which takes half a minute to trace."""

    def build(x):
        y = keras.layers.Conv2D(6, 3, strides=4, use_bias=False, name="conv2d")(x)
        y = keras.layers.BatchNormalization(name="batch_normalization")(y)
        y = keras.layers.Conv2D(6, 3, activation="relu", name="mixed9")(y)
        y = keras.layers.Conv2D(6, 3, activation="relu", name="mixed10")(y)
        return keras.Model(keras.utils.get_source_inputs(x), y)

    small = replace(backbones.SPECIFICATIONS["inception_v3"], build=build)
    monkeypatch.setitem(backbones.SPECIFICATIONS, "inception_v3", small)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs_and_leaves_a_folder_that_is_whole_and_true(
    name, start, phantom_folder, tmp_path, content_of
):
    classes, size, flags = PAGES[name]
    # Nine patients a class: at least one each to validate and to test, five to train.
    root = phantom_folder(classes, size, patients=9 * classes)
    before, out = content_of(root), tmp_path / "run"
    said = start(
        EXPERIMENTS / f"{name}.py",
        *["--data", root, "--out", out, "--image-size", size, "--epochs", 1],
        *["--weights", "none", *flags],
    )
    assert said.splitlines()[-1] == str(out)
    assert content_of(root) == before, "the data folder is as it was"
    keras.utils.clear_session()

    for file in contract.FILES:
        assert (out / file).stat().st_size > 0, file
    assert list((out / "explanations").iterdir()) and list((out / "tensorboard").iterdir())
    assert not [path.name for path in out.rglob("*") if ".tmp" in path.name]

    status, facts, predictor, metrics = (
        json.loads((out / file).read_text())
        for file in ("status.json", "environment.json", "predictor.json", "metrics.json")
    )
    stages = STAGES.get(name, 1)
    assert (status["status"], status["stage"], status["epoch"]) == ("finished", stages, 1)
    assert facts["weights_origin"] == "random" and facts["data"]["sample"] is False
    history = pd.read_csv(out / "history.csv")
    assert history["stage"].tolist() == list(range(1, stages + 1))
    split = split_is_true(out, root)
    predictions = pd.read_csv(out / "predictions.csv")
    predictions_are_true(predictions, predictor, split)
    metrics_are_true(metrics, predictions, predictor)
    the_predictor_gives_the_same_answers(out, root, predictor, predictions)
    curves = EventAccumulator(str(out / "tensorboard" / "train"), size_guidance={"tensors": 0})
    curves.Reload()
    tags = curves.Tags()["tensors"]
    assert "epoch/loss" in tags
    for kind in ("weights", "biases", "gradients"):
        assert f"{kind}/logits/{'bias' if kind == 'biases' else 'kernel'}" in tags
    values = json.loads((out / "hyperparameters.json").read_text())["values"]
    for pair in flags[1::2]:
        if "=" in pair:
            key, text = pair.split("=")
            assert str(values[key]).lower() == text.lower()
    report = (out / "report.html").read_text()
    assert "http://" not in report.replace("http://www.w3.org", "") and "<img" in report
    if "--tune" in flags:
        trials = pd.read_csv(out / "tuning" / "trials.csv")
        assert len(trials) == 2 and set(trials["status"]) == {"COMPLETED"}
        assert set(trials["dropout"]) == {0.5}
        best = trials.loc[trials["score"].idxmin()]
        assert values["learning_rate"] == pytest.approx(best["learning_rate"])


def split_is_true(out, root):
    """Every picture once, no patient on two sides, every class on each."""
    split = pd.read_csv(out / "split.csv")
    truth = pd.read_csv(root / "patients.csv").set_index("path")
    assert sorted(split["path"]) == sorted(truth.index)
    assert split["patient"].tolist() == truth["patient"][split["path"]].tolist()
    assert split["class"].tolist() == truth["class"][split["path"]].tolist()
    assert split.groupby("patient")["split"].nunique().max() == 1
    assert (split.groupby(["class"])["split"].nunique() == 3).all()
    return split


def predictions_are_true(predictions, predictor, split):
    """One row a validation and test picture, its label, and a probability of its logits."""
    expected = split[split["split"] != "train"].set_index("path")
    assert sorted(predictions["path"]) == sorted(expected.index)
    ordered = expected.loc[predictions["path"]]
    assert predictions["split"].tolist() == ordered["split"].tolist()
    assert predictions["patient"].tolist() == ordered["patient"].tolist()
    names = named(predictor)
    logits = predictions[[f"logit_{name}" for name in names]].to_numpy()
    chances = predictions[[f"probability_{name}" for name in names]].to_numpy()
    for name in names:
        label = (ordered["class"] == name).astype(int).tolist()
        assert predictions[f"label_{name}"].tolist() == label
    if len(names) == 1:
        expected = 1 / (1 + np.exp(-logits))
    else:
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(chances, expected, rtol=1e-6, atol=1e-9)


def named(predictor):
    return [predictor["positive"]] if predictor["task"] == "binary" else predictor["labels"]


def metrics_are_true(metrics, predictions, predictor):
    """Recomputes each class's AUC on both sides, from probabilities by scikit-learn."""
    for side, found in (("test", metrics), ("val", metrics["validation"])):
        rows = predictions[predictions["split"] == side]
        for name in named(predictor):
            auc = found["classes"][name]["auc"]
            label, chance = rows[f"label_{name}"], rows[f"probability_{name}"]
            assert auc["value"] == pytest.approx(roc_auc_score(label, chance), abs=1e-6)
            assert (auc["n"], auc["n_positive"]) == (len(rows), label.sum())
            if auc["low"] is not None:  # None where there are too few patients
                assert auc["low"] <= auc["value"] <= auc["high"]


def the_predictor_gives_the_same_answers(out, root, predictor, predictions):
    """Rebuilds the model without foreign code and predicts from the files alone."""
    model = recipe.rebuild(predictor["recipe"])
    model.load_weights(out / "model.keras")
    shape = tuple(predictor["image_shape"])
    assert predictor["preprocessing"].items() >= conform.CONFIG.items()
    pictures = np.stack([conform.load(root / path, shape) for path in predictions["path"]])
    logits = model(pictures.astype("float32"), training=False)
    written = predictions[[f"logit_{name}" for name in named(predictor)]].to_numpy()
    np.testing.assert_allclose(logits, written, atol=1e-4)


def test_a_new_experiment_is_a_copy_with_three_lines_changed(start, phantom_folder, tmp_path):
    page = tmp_path / "experiments" / "bone_mine.py"
    page.parent.mkdir()
    lines = (EXPERIMENTS / "bone_cnn_v1.py").read_text().splitlines()
    changes = {
        "    model = custom_cnn.v1(image_shape, outputs, dropout=dropout)": (
            "    model = custom_cnn.v3(image_shape, outputs, units=(16,), dropout=dropout)"
        ),
        '    learning_rate = hp.Float("learning_rate", 2e-4, 3e-3, sampling="log", default=1e-3)': (
            '    learning_rate = hp.Choice("learning_rate", [5e-4, 5e-3])'
        ),
        "BATCH_SIZE = 32": "BATCH_SIZE = 8",
    }
    assert all(lines.count(line) == 1 for line in changes)
    page.write_text("\n".join(changes.get(line, line) for line in lines) + "\n")
    root = phantom_folder(3, 32, patients=27)
    start(page, "--data", root, "--image-size", 32, "--epochs", 1, "--set", "learning_rate=0.005")
    (out,) = (tmp_path / "saved_models" / "bone_mine").iterdir()
    predictor = json.loads((out / "predictor.json").read_text())
    assert predictor["recipe"]["function"] == "custom_cnn.v3" and len(predictor["labels"]) == 3
    used = json.loads((out / "hyperparameters.json").read_text())
    assert used["values"]["learning_rate"] == 0.005 and used["batch_size"] == 8
    assert all((out / file).exists() for file in contract.FILES)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", PAGES)
def test_the_sample_run_of_a_page_says_that_it_is_one(name, start, tmp_path):
    out = tmp_path / "run"
    said = start(
        EXPERIMENTS / f"{name}.py", "--sample", "--out", out, "--epochs", 2, "--weights", "none"
    )
    assert "synthetic" in said
    assert json.loads((out / "environment.json").read_text())["data"]["sample"] is True
    assert "synthetic" in (out / "report.html").read_text().lower()
    assert "synthetic" in (out / "README.md").read_text().lower()
