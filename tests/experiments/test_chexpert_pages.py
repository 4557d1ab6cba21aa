"""The pages on chest X-rays, end to end, in small: on a written phantom, in this process.

A few layers stand in for the large backbones, which take half a minute to trace: tests/models
builds them, and the bone pages run some of them whole.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medkeras.models import recipe
from medkeras.phantoms import chest
from medkeras.preparation import conform, uncertainty
from medkeras.readers import chexpert

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
SIZE = 32
pytestmark = pytest.mark.usefixtures("small_backbones")
# Page -> flags.
PAGES = {
    "chexpert_densenet": ["head=simple", "uncertain=ones", "uncertain Edema=multiclass"],
    "chexpert_efficientnet": ["scale=b0", "frozen=true", "uncertain=soft-each-epoch"],
    "chexpert_combined": ["trunks=mobilenet_v2", "uncertain=zeros"],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chest") / "CheXpert-v1.0-small"
    return chest.write(folder, patients=24, valid_patients=12, size=SIZE, difficulty=0.0)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_runs_and_leaves_a_folder_that_is_whole_and_true(name, whole, root, tmp_path):
    flags = [word for setting in PAGES[name] for word in ("--set", setting)]
    out = tmp_path / "run"
    options = ["--image-size", SIZE, "--epochs", 1, "--weights", "none", *flags]
    whole(EXPERIMENTS / f"{name}.py", root, out, *options)

    predictor, metrics, used = (
        json.loads((out / file).read_text())
        for file in ("predictor.json", "metrics.json", "hyperparameters.json")
    )
    assert predictor["task"] == "multilabel" and predictor["labels"] == list(chexpert.LABELS)
    settings = dict(flag.split("=") for flag in PAGES[name])
    said = {key: str(value).lower() for key, value in used["values"].items()}
    assert said.items() >= settings.items()
    predictions = pd.read_csv(out / "predictions.csv", dtype={"path": str, "patient": str})
    the_labels_are_those_of_the_csv(root, predictions)
    the_numbers_follow_from_the_predictions(metrics, predictions)
    the_predictor_gives_the_same_answers(out, root, predictor, predictions)
    for file in ("report.html", "README.md"):
        text = (out / file).read_text()
        assert "uncertain" in text and not [who for who in predictions["patient"] if who in text]
    assert len(pd.read_csv(out / "explanations" / "index.csv"))


def the_labels_are_those_of_the_csv(root, predictions):
    """The test part is the published valid part, whole; a -1 is nowhere."""
    rows = pd.concat([pd.read_csv(root / f"{part}.csv") for part in ("train", "valid")])
    rows = rows.set_index(rows["Path"].str.partition("/")[2])
    tested = predictions["split"] == "test"
    assert tested.sum() == 12 and predictions.loc[tested, "path"].str.startswith("valid/").all()
    for finding in chexpert.LABELS:
        stated = rows.loc[predictions["path"], finding].to_numpy()
        mentioned = rows.loc[rows.index.str.startswith("train"), finding].notna().any()
        blank = np.isnan(stated) & ~tested & mentioned  # valid has no blank cells here
        expected = np.where(stated == -1, np.nan, np.where(blank, 0.0, stated))
        np.testing.assert_array_equal(predictions[f"label_{finding}"], expected)
        if f"uncertain_{finding}" in predictions:
            np.testing.assert_array_equal(predictions[f"uncertain_{finding}"], stated == -1)


def the_numbers_follow_from_the_predictions(metrics, predictions):
    tested, aucs = predictions[predictions["split"] == "test"], []
    for finding in chexpert.LABELS:
        entry, label = metrics["classes"][finding]["auc"], tested[f"label_{finding}"]
        if label.nunique() < 2 or finding in metrics["untrained"]:
            assert entry["value"] is None and entry["undefined"]
            continue
        expected = roc_auc_score(label, tested[f"probability_{finding}"])
        assert entry["value"] == pytest.approx(expected, abs=1e-6) and entry["n"] == 12
        aucs += [expected] * (finding in chexpert.SCORED)
    scored = metrics["scored"]
    assert scored["auc"]["value"] == pytest.approx(np.mean(aucs), abs=1e-6)
    assert scored["auc"]["n_classes"] == len(aucs)


def the_predictor_gives_the_same_answers(out, root, predictor, predictions):
    model = recipe.rebuild(predictor["recipe"])
    model.load_weights(out / "model.keras")
    for row in predictions.iloc[::9].to_dict("records"):
        pixels = conform.load(root / row["path"], (SIZE, SIZE, 1))
        (logits,) = keras.ops.convert_to_numpy(model(pixels[None].astype("float32")))
        written = [row[f"logit_{finding}"] for finding in chexpert.LABELS]
        np.testing.assert_allclose(logits[: len(written)], written, atol=1e-3)


def test_policies_are_run_and_compared_on_the_same_test_part(start, root, tmp_path):
    # Two of its five runs: the page itself, with fewer words.
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "chexpert_densenet.py").write_text((EXPERIMENTS / "chexpert_densenet.py").read_text())
    text = (EXPERIMENTS / "chexpert_policies.py").read_text()
    every = '("ignore", "zeros", "ones", "soft", "multiclass")'
    assert text.count(every) == 1 and set(json.loads(f"[{every[1:-1]}]")) < {*uncertainty.WORDS}
    page = folder / "chexpert_policies.py"
    page.write_text(text.replace(every, '("ignore", "ones")'))

    out = tmp_path / "grid"
    options = ["--image-size", SIZE, "--epochs", 1, "--weights", "none"]
    said = start(page, "--data", root, "--out", out, *options)
    table = pd.read_csv(out / "comparison.csv")
    assert table["uncertain"].tolist() == ["ignore", "ones"]
    ignored, counted = (pd.read_csv(out / word / "predictions.csv") for word in ("ignore", "ones"))
    kept = [name for name in ignored if not name.startswith(("logit_", "probability_"))]
    pd.testing.assert_frame_equal(ignored[kept], counted[kept])
    assert not np.allclose(ignored["logit_Edema"], counted["logit_Edema"]), "the policy acts"
    assert (out / "comparison.html").is_file() and "comparison.html" in said
