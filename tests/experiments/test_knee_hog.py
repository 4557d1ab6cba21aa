"""The classical baseline of the KL grade, end to end, in small."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from medkeras.evaluation import compare
from medkeras.phantoms import knee_xray
from medkeras.serving import predict

PAGE = Path(__file__).resolve().parents[2] / "experiments" / "knee_hog.py"
NAMES = [f"probability_{grade}" for grade in range(5)]


def test_the_page_leaves_a_folder_that_is_whole_and_true(whole, tmp_path, capsys):
    root = knee_xray.write_grades(tmp_path / "knee", patients=32, size=32)
    out = tmp_path / "run"
    options = ["--image-size", 32, "--epochs", 1, "--set", "cell=8"]
    assert "frozen part computed once" in whole(PAGE, root, out, *options)

    facts = json.loads((out / "environment.json").read_text())
    assert facts["weights_origin"] == "none: fixed filters"
    predictions = pd.read_csv(out / "predictions.csv", dtype={"path": str, "patient": str})
    the_numbers_follow_from_the_predictions(out, predictions)
    the_command_gives_the_same_answers(out, root, predictions)
    for file in ("report.html", "README.md"):
        text = (out / file).read_text()
        assert not [name for name in predictions["patient"] if name in text]

    shutil.copytree(out, tmp_path / "again")
    folders = [str(out), str(tmp_path / "again"), "--out", str(tmp_path / "both")]
    assert compare.main(folders) == 0
    assert "+0.000" in capsys.readouterr().out, "it can be compared: with itself it is equal"


def the_numbers_follow_from_the_predictions(out, predictions):
    metrics = json.loads((out / "metrics.json").read_text())
    tested = predictions[predictions["split"] == "test"]
    truth = tested[[f"label_{grade}" for grade in range(5)]].to_numpy().argmax(axis=1)
    chances = tested[NAMES].to_numpy()
    answer = chances.argmax(axis=1)
    kappa = cohen_kappa_score(truth, answer, weights="quadratic", labels=range(5))
    assert metrics["kappa"]["value"] == pytest.approx(kappa, abs=1e-6)
    error = np.abs(truth - answer).mean()
    assert metrics["grade_error"]["value"] == pytest.approx(error, abs=1e-6)
    assert metrics["oa"]["from"] == 2
    auc = roc_auc_score(truth >= 2, chances[:, 2:].sum(axis=1))
    assert metrics["oa"]["auc"]["value"] == pytest.approx(auc, abs=1e-6)


def the_command_gives_the_same_answers(out, root, predictions):
    rows = predictions.iloc[::4]
    answers = predict.probabilities(out, [root / path for path in rows["path"]])
    found = [[one["probabilities"][str(grade)] for grade in range(5)] for one in answers]
    np.testing.assert_allclose(found, rows[NAMES], atol=1e-5)
