"""The pages on joint space loss, in small; slowly, what the ablation shows of a known effect."""

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medkeras.models import stored, transfer
from medkeras.phantoms import knee_xray
from medkeras.readers import knee
from medkeras.serving import predict
from tests.experiments import contract

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
SIZE = 32
TEXTS = {"path": str, "patient": str}
SMALL = ["--image-size", SIZE, "--epochs", 1, "--set", "backbone=mobilenet_v2"]
pytestmark = pytest.mark.usefixtures("small_backbones")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("oai") / "knee"
    return knee_xray.write(folder, patients=48, size=SIZE, films=None, unfollowed=0.1)


@pytest.fixture
def grades(root, tmp_path):
    """What a run on grades leaves of its trunk and split, which are not those of these pages."""
    keras.utils.set_random_seed(7)
    folder = tmp_path / "grades"
    folder.mkdir()
    model = transfer.mobilenet_v2((SIZE, SIZE, 1), 5, weights=None)
    model.save(folder / "model.keras")
    (folder / "predictor.json").write_text(json.dumps({"recipe": model.recipe}))
    patients = knee.read(root)["patient"].unique()
    sides = ["train"] * 24 + ["val"] * 6 + ["test"] * 6 + [None] * 12
    table = pd.DataFrame({"patient": patients, "split": sides}).dropna()
    table.to_csv(folder / "split.csv", index=False)
    return folder


def test_a_run_from_the_picture_starts_from_grades_and_follows_their_split(
    start, root, grades, tmp_path, content_of
):
    before, out = content_of(root), tmp_path / "run"
    said = start(
        EXPERIMENTS / "knee_jsl.py", "--data", root, "--out", out, "--weights", grades, *SMALL
    )
    assert content_of(root) == before, "the data folder is as it was"
    assert "frozen part computed once" in said and said.splitlines()[-1] == str(out)
    assert pd.read_csv(out / "history.csv")["stage"].tolist() == [1, 2]
    predictions = the_folder_is_whole_and_true(out, root)
    of_grades = pd.read_csv(grades / "split.csv", dtype=str).set_index("patient")["split"]
    split = pd.read_csv(out / "split.csv", dtype=TEXTS)
    known = split[split["patient"].isin(of_grades.index)]
    assert known["split"].tolist() == of_grades[known["patient"]].tolist()
    assert len(known) < len(split) and set(split["split"]) == {"train", "val", "test"}
    assert not np.allclose(kernel(out), kernel(grades)), "in the end all layers learn"

    answers = predict.probabilities(out, [root / path for path in predictions["path"]])
    found = [answer["probabilities"]["jsl"] for answer in answers]
    np.testing.assert_allclose(found, predictions["probability_jsl"], atol=1e-5)
    assert np.load(out / "explanations" / "saliency.npy").shape[1:] == (SIZE, SIZE)


def test_pictures_risk_factors_and_both_are_compared_on_the_same_knees(
    start, root, grades, tmp_path
):
    out, page = tmp_path / "grid", EXPERIMENTS / "knee_jsl_ablation.py"
    said = start(page, "--data", root, "--out", out, "--weights", grades, *SMALL)
    uses = ("image", "risk", "both")
    assert pd.read_csv(out / "comparison.csv")["use"].tolist() == list(uses)
    pairs = pd.read_csv(out / "comparison_pairs.csv")
    named = [("risk", "image"), ("both", "image"), ("both", "risk")]
    assert list(zip(pairs["run"], pairs["minus"])) == named and pairs["n"].nunique() == 1
    assert all(f"{run} minus {other}: " in said for run, other in named)
    tables = {use: the_folder_is_whole_and_true(out / use, root) for use in uses}
    for use in uses[1:]:
        columns = [*TEXTS, "split", "label_jsl"]
        pd.testing.assert_frame_equal(tables[use][columns], tables["image"][columns])
        assert not np.allclose(tables[use]["logit_jsl"], tables["image"]["logit_jsl"])
    for use in ("image", "both"):
        np.testing.assert_array_equal(kernel(out / use), kernel(grades)), "frozen"
        assert (out / use / "explanations" / "saliency.npy").is_file()
    assert "other ways than relu" in (out / "both" / "report.html").read_text()
    assert not (out / "risk" / "explanations").exists()
    text = (out / "risk" / "report.html").read_text()
    assert "The model sees no picture" in text and "receives 14 risk factors: age" in text
    assert "Grad-CAM" not in text and "as the model receives" not in text

    risks = tmp_path / "risks.csv"
    knee.read(root)[["path", *knee.RISK_FACTORS]].to_csv(risks, index=False)
    for use in ("risk", "both"):
        tested = tables[use][tables[use]["split"] == "test"]
        answers = predict.probabilities(out / use, [root / path for path in tested["path"]], risks)
        found = [answer["probabilities"]["jsl"] for answer in answers]
        np.testing.assert_allclose(found, tested["probability_jsl"], atol=1e-5)


@pytest.mark.slow
def test_the_grade_can_be_left_out_and_the_trunk_learn_too(start, root, tmp_path):
    out, settings = tmp_path / "run", ["--set", "factors=without_grade", "--set", "frozen=false"]
    options = ["--weights", "none", *SMALL, *settings]
    start(EXPERIMENTS / "knee_jsl_risk.py", "--data", root, "--out", out, *options)
    predictor = json.loads((out / "predictor.json").read_text())
    assert predictor["risks"]["columns"] == list(knee.RISK_FACTORS[:9])
    assert pd.read_csv(out / "history.csv")["stage"].tolist() == [1, 2]


def the_folder_is_whole_and_true(out, root):
    """Checks what every run leaves; returns its predictions."""
    for file in contract.FILES:
        assert (out / file).stat().st_size > 0, file
    split = pd.read_csv(out / "split.csv", dtype=TEXTS)
    assert split.groupby("patient")["split"].nunique().max() == 1
    truth = pd.read_csv(root / "JSL.csv")
    outcome = truth.set_index("complete_images/" + truth["ID"] + ".png")["JSL_Prog"].dropna()
    assert set(split["path"]) == set(outcome.index), "only knees whose outcome is known"
    predictions = pd.read_csv(out / "predictions.csv", dtype=TEXTS)
    assert predictions["label_jsl"].tolist() == outcome[predictions["path"]].tolist()
    tested = predictions[predictions["split"] == "test"]
    label, chance = tested["label_jsl"], tested["probability_jsl"]
    found = json.loads((out / "metrics.json").read_text())["classes"]["jsl"]
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(label, chance), abs=1e-6)
    assert found["sensitivity"]["value"] == pytest.approx((chance[label == 1] >= 0.5).mean())
    assert found["specificity"]["value"] == pytest.approx((chance[label == 0] < 0.5).mean())
    left = len(truth) - len(outcome)
    for file in ("report.html", "README.md"):
        text = (out / file).read_text()
        assert "jsl" in text and not [who for who in predictions["patient"] if who in text]
    assert f"unknown in {left} of {len(truth)} rows" in (out / "report.html").read_text()
    return predictions


def kernel(run):
    model, _ = stored.load(run)
    return model.get_layer("conv").kernel.numpy()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_effect_of_risk_factors_is_shown_and_where_there_is_none_nothing(start, tmp_path):
    # A trunk of random features sees next to nothing, so the grade would tell what it does not.
    options = ["--set", "factors=without_grade", "--weights", "none", *SMALL[:2], *SMALL[4:]]
    said = {}
    for effect in (1.0, 0.0):
        root = tmp_path / f"knee-{effect}"
        knee_xray.write(root, patients=1200, size=SIZE, films=None, risk_effect=effect)
        out, page = tmp_path / f"grid-{effect}", EXPERIMENTS / "knee_jsl_ablation.py"
        start(page, "--data", root, "--out", out, *options)
        pairs = pd.read_csv(out / "comparison_pairs.csv").set_index(["run", "minus"])
        said[effect] = pairs.loc[("both", "image")], (out / "comparison.html").read_text()
    pair, page = said[1.0]
    assert pair["difference_low"] > 0.05 and "higher" in page
    pair, page = said[0.0]
    assert pair["difference_low"] < 0 < pair["difference_high"] and pair["difference_p"] > 0.05
    assert "no evidence of a difference (a difference below" in page
