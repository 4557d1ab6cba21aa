"""The pages on knee MRI, end to end, in small: on a written phantom, in this process."""

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medkeras.files import volume
from medkeras.models import recipe
from medkeras.phantoms import knee_mri
from medkeras.preparation import conform
from medkeras.readers import mrnet

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
SIZE = 64
# Page -> flags, planes, findings.
PAGES = {
    "mrnet_views": (
        ["--set", "variant=relu", "--set", "task=meniscus", "--set", "planes=sagittal"],
        ["sagittal"],
        ["meniscus"],
    ),
    "mrnet_triple": (["--set", "slices=attention"], list(mrnet.PLANES), list(mrnet.LABELS)),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mri") / "MRNet"
    return knee_mri.write(folder, exams=24, valid=10, size=SIZE, slices=(2, 3), difficulty=0.0)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs_and_leaves_a_folder_that_is_whole_and_true(name, whole, root, tmp_path):
    flags, planes, findings = PAGES[name]
    out = tmp_path / "run"
    page = EXPERIMENTS / f"{name}.py"
    options = ["--image-size", SIZE, "--epochs", 1, "--weights", "none", *flags]
    whole(page, root, out, *options)

    predictor, metrics, used = (
        json.loads((out / file).read_text())
        for file in ("predictor.json", "metrics.json", "hyperparameters.json")
    )
    assert predictor["task"] == ("binary" if len(findings) == 1 else "multilabel")
    assert used["values"].items() >= dict(flag.split("=") for flag in flags[1::2]).items()
    predictions = pd.read_csv(out / "predictions.csv", dtype={"path": str, "patient": str})
    for finding in findings:
        labels_are_true(root, predictions, finding)
        tested = predictions[predictions["split"] == "test"]
        expected = roc_auc_score(tested[f"label_{finding}"], tested[f"probability_{finding}"])
        auc = metrics["classes"][finding]["auc"]
        assert auc["value"] == pytest.approx(expected, abs=1e-6) and auc["n"] == 10
    the_predictor_gives_the_same_answers(out, root, predictor, predictions, planes, findings)

    history = pd.read_csv(out / "history.csv")
    suffix = [""] if len(findings) == 1 else [f"_{finding}" for finding in findings]
    for kind in ("auc", "sensitivity", "specificity"):
        assert {f"val_{kind}{end}" for end in suffix} <= set(history)
    curves = EventAccumulator(str(out / "tensorboard" / "train"), size_guidance={"tensors": 0})
    curves.Reload()
    tags = curves.Tags()["tensors"]
    model = recipe.rebuild(predictor["recipe"])
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            for tag in (f"weights/{layer.name}/kernel", f"biases/{layer.name}/bias",
                        f"gradients/{layer.name}/kernel"):  # fmt: skip
                assert tag in tags
    index = pd.read_csv(out / "explanations" / "index.csv")
    assert set(index["finding"]) == set(findings)
    for file in index["file"]:
        for plane in planes:
            heat = np.load(out / "explanations" / file.replace(".png", f"_{plane}.npy"))
            assert heat.ndim == 3 and (heat >= 0).all()
    for file in ("report.html", "README.md"):
        text = (out / file).read_text()
        assert "exams" in text and not [path for path in predictions["path"] if path in text]


def labels_are_true(root, predictions, finding):
    truth = {}
    for part in ("train", "valid"):
        rows = pd.read_csv(root / f"{part}-{finding}.csv", header=None, dtype={0: str})
        truth |= {f"{part}/{exam}": label for exam, label in rows.itertuples(index=False)}
    assert predictions[f"label_{finding}"].tolist() == [truth[p] for p in predictions["path"]]
    tested = predictions["split"] == "test"
    assert tested.sum() == 10 and predictions.loc[tested, "path"].str.startswith("valid/").all()


def the_predictor_gives_the_same_answers(out, root, predictor, predictions, planes, findings):
    """Rebuilds the model without foreign code and predicts exam by exam from the files alone."""
    model = recipe.rebuild(predictor["recipe"])
    model.load_weights(out / "model.keras")
    stretch = predictor["preprocessing"] == dict(
        predictor["preprocessing"], **conform.volume_config(True)
    )
    assert stretch == (len(findings) == 1) and predictor["preprocessing"]["planes"] == planes
    for row in predictions.iloc[::5].itertuples():
        part, exam = row.path.split("/")
        read = [volume.volume(root / part / plane / f"{exam}.npy").pixels for plane in planes]
        slices = [conform.volume(pixels, SIZE, stretch) for pixels in read]
        inputs = [one[..., None].astype("float32") for one in slices]
        inputs += [np.zeros(len(one), "int32") for one in slices]
        (logits,) = keras.ops.convert_to_numpy(model(inputs, training=False))
        written = [getattr(row, f"logit_{finding}") for finding in findings]
        np.testing.assert_allclose(logits, written, atol=1e-4)


def test_the_grid_runs_its_members_and_compares_them(start, root, tmp_path):
    # Two of its five runs: the page itself, with three lines less.
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "mrnet_views.py").write_text((EXPERIMENTS / "mrnet_views.py").read_text())
    lines = (EXPERIMENTS / "mrnet_grid.py").read_text().splitlines()
    members = [line for line in lines if line.startswith('    {"variant"')]
    assert len(members) == 5
    page = folder / "mrnet_grid.py"
    page.write_text("\n".join(line for line in lines if line not in members[2:]) + "\n")

    options = ["--image-size", 32, "--epochs", 2, "--set", "planes=coronal"]
    said = start(page, "--data", root, "--out", tmp_path / "grid", *options)
    out = tmp_path / "grid"
    for file in ("comparison.png", "comparison.html", "comparison.csv"):
        assert (out / file).stat().st_size > 0, file
    table = pd.read_csv(out / "comparison.csv")
    assert table["variant"].tolist() == ["basic", "relu"]
    assert table["learning_rate"].tolist() == [1e-6, 1e-5]
    runs = [out / name for name in table["run"]]
    for run, auc in zip(runs, table["test_auc"], strict=True):
        assert json.loads((run / "status.json").read_text())["status"] == "finished"
        assert json.loads((run / "predictor.json").read_text())["inputs"][0] == "coronal"
        found = json.loads((run / "metrics.json").read_text())["mean"]["auc"]["value"]
        assert auc == pytest.approx(found, abs=1e-6)
    assert "comparison.html" in said
