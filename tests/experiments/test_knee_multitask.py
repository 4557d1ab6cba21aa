"""The page of two heads: one run for both, and one for each head that is whole by itself."""

import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from medkeras.errors import UsageError
from medkeras.evaluation import records, report_figures
from medkeras.models import fusion, stored
from medkeras.phantoms import knee_xray
from medkeras.readers import knee
from medkeras.serving import predict
from medkeras.training import lineage
from tests.experiments import contract

PAGE = Path(__file__).resolve().parents[2] / "experiments" / "knee_multitask.py"
SIZE, TEXTS = 32, {"path": str, "patient": str}
pytestmark = pytest.mark.usefixtures("small_backbones")


@pytest.fixture
def root(tmp_path):
    """Knees of which some have no later film, and some no grade."""
    folder = tmp_path / "knee"
    knee_xray.write(folder, patients=40, size=SIZE, films=None, unfollowed=0.2)
    table = pd.read_csv(folder / "JSL.csv", dtype=str)
    table.loc[::7, "BL_KL_grade"] = None
    table.to_csv(folder / "JSL.csv", index=False)
    return folder


def options(*more):
    settings = ["--set", "backbone=mobilenet_v2", "--set", "head=ordinal"]
    return ["--image-size", SIZE, "--epochs", 1, "--weights", "none", *settings, *more]


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_the_page_leaves_a_run_and_one_for_each_head(
    start, root, tmp_path, content_of, monkeypatch
):
    # The reports of heads are those of any run: tests/evaluation looks at their figures.
    monkeypatch.setattr(report_figures, "drawn", lambda *given: {})
    before, out = content_of(root), tmp_path / "run"
    said = start(PAGE, "--data", root, "--out", out, *options())
    assert said.splitlines()[-1] == str(out) and "test part: kl (n = " in said
    assert content_of(root) == before, "the data folder is as it was"
    keras.utils.clear_session()
    for file in contract.FILES:
        for folder in (out, out / "kl", out / "jsl"):
            assert (folder / file).stat().st_size > 0, file
    truth = knee.read(root).set_index("path")[["kl", "jsl"]]
    tables = {name: pd.read_csv(out / name / "predictions.csv", dtype=TEXTS) for name in truth}
    both = pd.read_csv(out / "predictions.csv", dtype=TEXTS)
    the_rows_are_those_with_a_known_label(tables, both, truth, out)
    the_numbers_follow_from_the_predictions(tables, out)
    each_head_serves_and_the_whole_says_which(tables, root, out)
    runs_start_from_the_whole_and_from_a_head(out)
    patients = set(both["patient"])
    for folder in (out, out / "kl", out / "jsl"):
        for file in ("report.html", "README.md"):
            text = (folder / file).read_text()
            assert "http://" not in text.replace("http://www.w3.org", "")
            assert not [who for who in patients if who in text]
    report = (out / "report.html").read_text()
    assert 'href="kl/report.html"' in report and 'href="jsl/report.html"' in report
    for name in truth:
        unknown = int(truth[name].isna().sum())
        assert unknown and f"<td>{unknown}</td>" in report


def the_rows_are_those_with_a_known_label(tables, both, truth, out):
    split = pd.read_csv(out / "split.csv", dtype=TEXTS).set_index("path")
    assert len(split) == len(truth) and split[["kl", "jsl"]].equals(truth.loc[split.index])
    judged = split[split["split"] != "train"]
    for name, table in tables.items():
        known = judged[judged[name].notna()]
        assert sorted(table["path"]) == sorted(known.index)
        labels = table.filter(like="label_").to_numpy()
        given = labels.argmax(axis=1) if name == "kl" else labels[:, 0]
        np.testing.assert_array_equal(given, known[name].loc[table["path"]])
        own = both.dropna(subset=table.columns[3])[table.columns].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, table, check_dtype=False)
        assert both.loc[~both["path"].isin(table["path"]), table.columns[3:]].isna().all(axis=None)
        kept = pd.read_csv(out / name / "split.csv", dtype=TEXTS)
        assert len(kept) == len(split), "the trunk has seen them all"
        history = pd.read_csv(out / name / "history.csv").columns
        marks = {"kl": ("grade", "jsl"), "jsl": ("jsl", "grade")}[name]
        assert [any(mark in column for column in history) for mark in marks] == [True, False]
    assert sorted(both["path"]) == sorted({*tables["kl"]["path"], *tables["jsl"]["path"]})


def the_numbers_follow_from_the_predictions(tables, out):
    metrics = read(out, "metrics.json")
    assert metrics["task"] == "multitask" and list(metrics["heads"]) == ["kl", "jsl"]
    tested = {name: table[table["split"] == "test"] for name, table in tables.items()}
    for name, own in metrics["heads"].items():
        assert own == read(out / name, "metrics.json") and own["n"] == len(tested[name])
    truth = tested["kl"].filter(like="label_").to_numpy().argmax(axis=1)
    chances = tested["kl"].filter(like="probability_").to_numpy()
    kappa = cohen_kappa_score(truth, chances.argmax(axis=1), weights="quadratic")
    found = metrics["heads"]["kl"]
    assert found["task"] == "ordinal" and found["kappa"]["value"] == pytest.approx(kappa)
    area = roc_auc_score(truth >= 2, chances[:, 2:].sum(axis=1))
    assert found["oa"]["auc"]["value"] == pytest.approx(area, abs=1e-6)
    area = roc_auc_score(tested["jsl"]["label_jsl"], tested["jsl"]["probability_jsl"])
    found = metrics["heads"]["jsl"]["classes"]["jsl"]["auc"]
    assert found["value"] == pytest.approx(area, abs=1e-6)
    records_of_both = records.read([out])
    assert [run.missing for run in records_of_both] == ["", ""], "each can be compared"
    assert {run.folder.name for run in records_of_both} == {"kl", "jsl"}


def each_head_serves_and_the_whole_says_which(tables, root, out):
    for name, table in tables.items():
        rows = table.iloc[::5]
        answered = predict.probabilities(out / name, [root / path for path in rows["path"]])
        written = rows.filter(like="probability_").to_numpy()
        found = [list(answer["probabilities"].values()) for answer in answered]
        np.testing.assert_allclose(np.array(found)[:, -written.shape[1] :], written, atol=1e-5)
    assert list(answered[0]["probabilities"]) == ["no jsl", "jsl"]
    with pytest.raises(UsageError, match=r"ask .*kl or .*jsl"):
        predict.probabilities(out, [root / tables["kl"]["path"][0]])


def runs_start_from_the_whole_and_from_a_head(out):
    model, predictor = stored.load(out)
    assert list(predictor["heads"]) == ["kl", "jsl"] and model.output_shape == (None, 6)
    expected = model.get_layer("conv").get_weights()
    split = pd.read_csv(out / "split.csv", dtype=TEXTS)
    for folder in (out, out / "kl", out / "jsl"):
        again = fusion.multitask((SIZE, SIZE, 1), backbone="mobilenet_v2", weights=str(folder))
        for array, other in zip(again.get_layer("conv").get_weights(), expected, strict=True):
            np.testing.assert_array_equal(array, other)
        pd.testing.assert_frame_equal(lineage.follow(folder, split), split)


@pytest.mark.slow
def test_a_run_stopped_before_its_heads_were_judged_goes_on_to_the_same_bytes(
    start, root, tmp_path, content_of
):
    whole, out = tmp_path / "whole", tmp_path / "run"
    for folder in (whole, out):
        start(PAGE, "--data", root, "--out", folder, *options())
        keras.utils.clear_session()
    for file in ("kl/metrics.json", "jsl/model.keras", "predictions.csv", "report.html"):
        (out / file).unlink()
    status = read(out, "status.json") | {"status": "interrupted"}
    (out / "status.json").write_text(json.dumps(status))
    said = start(PAGE, "--out", out, "--resume")
    assert "epoch 1/" not in said
    for file in ("predictions.csv", "metrics.json", "kl/metrics.json", "jsl/predictions.csv"):
        assert (out / file).read_bytes() == (whole / file).read_bytes(), file
