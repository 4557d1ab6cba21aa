import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from medkeras.evaluation import combine
from medkeras.evaluation.numbers import metrics
from tests.evaluation import run_folders

PLANES = ("axial", "coronal", "sagittal")
EXAMS = run_folders.exams(("acl", "meniscus"), count=80)


def networks(folder, finding="acl", exams=EXAMS, planes=PLANES, **options):
    """A run a plane of one finding, each a little better than the one before."""
    own = exams[["path", "patient", "split", f"label_{finding}"]]
    return [
        run_folders.write(
            folder / f"{finding}-{k}",
            run_folders.predicted(own, 0.5 + 0.2 * k, 0.5 + 0.2 * k, seed=k),
            values={"task": finding, "planes": plane},
            **options,
        )
        for k, plane in enumerate(planes)
    ]


def content(folder):
    return json.loads((folder / "combination.json").read_text())


def logits(runs, finding="acl"):
    tables = [metrics.read(run / "predictions.csv") for run in runs]
    labels = tables[0][f"label_{finding}"].to_numpy()
    return np.column_stack([table[f"logit_{finding}"] for table in tables]), labels, tables[0]


def test_it_is_the_logistic_regression_of_the_validation_logits(tmp_path):
    runs = networks(tmp_path)
    combine.write(tmp_path, runs)
    x, y, table = logits(runs)
    val = (table["split"] == "val").to_numpy()
    scaler = StandardScaler().fit(x[val])
    model = LogisticRegression().fit(scaler.transform(x[val]), y[val])
    found = content(tmp_path)["findings"]["acl"]
    assert [own["name"] for own in found["inputs"]] == list(PLANES)
    np.testing.assert_allclose([own["coefficient"] for own in found["inputs"]], model.coef_[0])
    np.testing.assert_allclose([own["mean"] for own in found["inputs"]], x[val].mean(axis=0))
    np.testing.assert_allclose([own["scale"] for own in found["inputs"]], x[val].std(axis=0))
    assert found["intercept"] == pytest.approx(model.intercept_[0])
    assert found["n"]["val"] == 80 and found["n"]["val_positive"] == y[val].sum()
    written = metrics.read(tmp_path / "predictions.csv").set_index("path")
    expected = model.predict_proba(scaler.transform(x))[:, 1]
    np.testing.assert_allclose(written.loc[table["path"], "probability_acl"], expected, rtol=1e-6)
    assert (written.loc[table["path"], "split"] == table["split"].to_numpy()).all()
    assert content(tmp_path)["software"]["scikit-learn"]


def test_test_exams_have_no_part_in_the_coefficients(tmp_path):
    runs = networks(tmp_path)
    combine.write(tmp_path, runs)
    before, table = content(tmp_path)["findings"]["acl"], None
    for run in runs:
        table = metrics.read(run / "predictions.csv")
        test = table["split"] == "test"
        table.loc[test, "label_acl"] = 1 - table.loc[test, "label_acl"]
        table.loc[test, ["logit_acl", "probability_acl"]] *= 0.3
        table.to_csv(run / "predictions.csv", index=False)
    combine.write(tmp_path, runs)
    after = content(tmp_path)["findings"]["acl"]
    assert after["inputs"] == before["inputs"] and after["intercept"] == before["intercept"]
    assert after["difference"] != before["difference"]


def test_three_planes_that_err_apart_are_better_than_each(tmp_path):
    # Every plane sees another third of the tears.
    exams = run_folders.exams(count=150)
    runs = []
    for k, plane in enumerate(PLANES):
        table = run_folders.predicted(exams, 0, 0, seed=k)
        sees = (np.arange(len(table)) % 3 == k) & (table["label_acl"] == 1)
        table["logit_acl"] += 4 * sees
        table["probability_acl"] = 1 / (1 + np.exp(-table["logit_acl"]))
        runs.append(run_folders.write(tmp_path / plane, table))
    said = combine.write(tmp_path, runs)
    found = json.loads((tmp_path / "metrics.json").read_text())
    auc = found["classes"]["acl"]["auc"]
    x, y, table = logits(runs)
    test = (table["split"] == "test").to_numpy()
    assert all(auc["low"] > roc_auc_score(y[test], x[test, k]) for k in range(3))
    gap = content(tmp_path)["findings"]["acl"]["difference"]
    assert gap["low"] > 0 and "higher" in said
    assert f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})" in said


def test_the_reference_is_the_best_network_on_validation(tmp_path):
    own = EXAMS[["path", "patient", "split", "label_acl"]]
    runs = [
        run_folders.write(tmp_path / "flattered", run_folders.predicted(own, 2.0, 0.2, seed=0)),
        run_folders.write(tmp_path / "modest", run_folders.predicted(own, 0.5, 2.0, seed=1)),
    ]
    combine.write(tmp_path, runs)
    assert content(tmp_path)["findings"]["acl"]["difference"]["from"] == "flattered"


def test_findings_stand_side_by_side(tmp_path):
    runs = [*networks(tmp_path), *networks(tmp_path, "meniscus")]
    said = combine.write(tmp_path, runs)
    table = metrics.read(tmp_path / "predictions.csv")
    assert metrics.class_names(table) == ["acl", "meniscus"] and len(table) == 160
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert (
        found["task"] == "multilabel"
        and "fitted on the validation" in (found["validation"]["note"])
    )
    test = table[table["split"] == "test"]
    for name in ("acl", "meniscus"):
        exact = roc_auc_score(test[f"label_{name}"], test[f"probability_{name}"])
        assert found["classes"][name]["auc"]["value"] == pytest.approx(exact)
        assert sum(line.startswith(f"{name} ") for line in said.splitlines()) == 4
    assert "flatter" in said
    alone = tmp_path / "alone"
    alone.mkdir()
    combine.write(alone, runs[:3])
    assert json.loads((alone / "metrics.json").read_text())["task"] == "binary"


def test_an_exam_unknown_to_a_finding_is_left_out_of_it_alone(tmp_path):
    runs = [*networks(tmp_path), *networks(tmp_path, "meniscus", exams=EXAMS.iloc[5:-5])]
    combine.write(tmp_path, runs)
    table = metrics.read(tmp_path / "predictions.csv")
    assert table["label_acl"].notna().all() and table["label_meniscus"].isna().sum() == 10
    found = json.loads((tmp_path / "metrics.json").read_text())["classes"]
    assert (found["acl"]["auc"]["n"], found["meniscus"]["auc"]["n"]) == (80, 75)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda table: table[table["path"] != "0007"], "exam 0007 is missing"),
        (lambda table: table.replace({"path": {"0007": "0007b"}}), "exam 0007 is missing"),
        (lambda table: flipped(table, "0009"), "exam 0009 has another label"),
        (lambda table: moved(table, "0011"), "exam 0011 has another split"),
        (lambda table: pd.concat([table, table.iloc[:1]]), "predicts 0000 twice"),
        (lambda table: table.assign(logit_acl=np.nan), "has no logit of 0080"),
        (lambda table: table.assign(label_x=0, logit_x=0, probability_x=0), "several findings"),
        (None, "has no predictions.csv"),
    ],
)
def test_runs_that_do_not_belong_together_are_named(tmp_path, capsys, spoil, words):
    runs = networks(tmp_path)
    path = runs[2] / "predictions.csv"
    table = metrics.read(path)
    path.unlink()
    if spoil:
        spoil(table).to_csv(path, index=False)
    out = tmp_path / "out"
    assert combine.main([*map(str, runs), "--out", str(out)]) == 3
    said = capsys.readouterr().err
    assert words in said and "acl-2" in said and not list(out.iterdir())


def flipped(table, path):
    return table.assign(label_acl=table["label_acl"] ^ (table["path"] == path))


def moved(table, path):
    return table.assign(split=table["split"].where(table["path"] != path, "test"))


@pytest.mark.parametrize(("positive", "enough"), [(0, False), (3, False), (4, True)])
def test_too_few_validation_exams_leave_a_finding_undefined(tmp_path, positive, enough):
    few = EXAMS.assign(
        label_acl=np.where(EXAMS.index < 80, EXAMS.index < positive, EXAMS.index % 2)
    )
    runs = [*networks(tmp_path, exams=few), *networks(tmp_path, "meniscus")]
    said = combine.write(tmp_path, runs)
    found = content(tmp_path)["findings"]["acl"]
    table = metrics.read(tmp_path / "predictions.csv")
    assert ("undefined" not in found) == ("acl: undefined" not in said) == enough
    assert (metrics.class_names(table) == ["acl", "meniscus"]) == enough
    assert sum(line.startswith("acl ") for line in said.splitlines()) == 3 + enough


def test_nothing_to_combine_ends_with_3(tmp_path, capsys):
    runs = networks(tmp_path, exams=EXAMS[EXAMS["split"] == "test"])
    assert combine.main([*map(str, runs), "--out", str(tmp_path / "out")]) == 3
    assert "acl: 0 positive validation exam(s), at least 4" in capsys.readouterr().err


def test_a_run_is_not_overwritten_and_a_grid_stands_for_its_runs(tmp_path, capsys):
    grid = run_folders.write(tmp_path / "grid")
    runs = networks(grid)
    before = (runs[0] / "predictions.csv").read_bytes()
    assert combine.main([str(grid), "--out", str(runs[0])]) == 2
    assert "holds a run" in capsys.readouterr().err
    assert (runs[0] / "predictions.csv").read_bytes() == before
    assert combine.main([str(grid), "--out", str(tmp_path / "out")]) == 0
    names = [own["run"] for own in content(tmp_path / "out")["findings"]["acl"]["inputs"]]
    assert names == ["acl-0", "acl-1", "acl-2"]
    assert combine.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2


def test_networks_of_the_same_plane_are_named_by_their_folders(tmp_path):
    runs = networks(tmp_path, planes=("axial", "axial"))
    combine.write(tmp_path, runs)
    found = content(tmp_path)["findings"]["acl"]["inputs"]
    assert [own["name"] for own in found] == ["acl-0", "acl-1"]


def test_sample_data_are_marked(tmp_path):
    assert "Synthetic" in combine.write(tmp_path, networks(tmp_path, synthetic=True))
    assert content(tmp_path)["synthetic"] is True
