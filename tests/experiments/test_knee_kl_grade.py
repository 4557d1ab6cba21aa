"""The page of grades: two stages, both heads, either layout; its folder is whole and true."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from medkeras.readers import knee
from medkeras.serving import predict

PAGE = Path(__file__).resolve().parents[2] / "experiments" / "knee_kl_grade.py"
SIZE = 32
pytestmark = pytest.mark.usefixtures("small_backbones")


def knees(folder, grades):
    """Both knees of eight patients a grade, which is the same and told by the grey value."""
    rng = np.random.default_rng(0)
    for number in range(8 * len(grades)):
        grade = grades[number % len(grades)]
        for side in "LR":
            path = folder / grade / f"{number:07d}{side}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 40, (SIZE, SIZE)) + 40 * int(grade)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.mark.parametrize("head, grades", [("ordinal", "01234"), ("softmax", "0124")])
def test_a_page_of_grades_leaves_a_folder_that_is_whole_and_true(head, grades, whole, tmp_path):
    """Also where no knee has one of the middle grades: its probability is still the fourth."""
    root, out = knees(tmp_path / "knee", grades), tmp_path / "run"
    settings = ["--set", "backbone=mobilenet_v2", "--set", f"head={head}"]
    options = ["--image-size", SIZE, "--epochs", 1, "--weights", "none", *settings]
    said = whole(PAGE, root, out, *options)
    assert pd.read_csv(out / "history.csv")["stage"].tolist() == [1, 2]
    assert "frozen part computed once" in said

    texts = {"path": str, "patient": str}
    split = pd.read_csv(out / "split.csv", dtype=texts)
    assert len(split) == 16 * len(grades) and split.groupby("patient")["split"].nunique().max() == 1
    predictions = pd.read_csv(out / "predictions.csv", dtype=texts)
    tested = predictions[predictions["split"] == "test"]
    truth = tested["path"].str[0].astype(int).to_numpy()
    chances = tested[[f"probability_{grade}" for grade in knee.GRADES]].to_numpy()
    answers, metrics = chances.argmax(axis=1), json.loads((out / "metrics.json").read_text())
    kappa = cohen_kappa_score(truth, answers, weights="quadratic")
    area = roc_auc_score(truth >= 2, chances[:, 2:].sum(axis=1))
    assert metrics["accuracy"]["value"] == pytest.approx((answers == truth).mean())
    assert metrics["kappa"]["value"] == pytest.approx(kappa)
    assert metrics["grade_error"]["value"] == pytest.approx(np.abs(answers - truth).mean())
    assert metrics["oa"]["auc"]["value"] == pytest.approx(area, abs=1e-6)

    recipe = json.loads((out / "predictor.json").read_text())["recipe"]
    assert recipe["arguments"]["ordinal"] == (head == "ordinal")
    answered = predict.probabilities(out, [root / path for path in tested["path"]])
    found = [list(answer["probabilities"].values()) for answer in answered]
    np.testing.assert_allclose(found, chances, atol=1e-5)
    assert np.load(out / "explanations" / "saliency.npy").shape[1:] == (SIZE, SIZE)
    for file in ("report.html", "README.md"):
        text = (out / file).read_text()
        assert "kappa" in text and "its mirror image" in text
        assert not [who for who in predictions["patient"] if who in text]
