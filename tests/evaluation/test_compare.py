import json
import re
from html import escape
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medkeras.evaluation import compare, records
from medkeras.evaluation.numbers import metrics, paired
from tests.evaluation import run_folders

EXAMS = run_folders.exams()


def three(folder):
    """Runs on the same exams: `a` is best on validation, `b` on test, `c` nowhere."""
    values = [{"rate": rate, "patience": n} for rate, n in ((1e-5, 3), (1e-6, 3), (1e-6, 1))]
    strengths = {"a": (2.0, 0.5), "b": (0.5, 2.0), "c": (0.6, 0.4)}
    return [
        run_folders.write(
            folder / name,
            run_folders.predicted(EXAMS, *strengths[name], seed=k),
            values=values[k],
            epochs=run_folders.history(best=3 + k),
        )
        for k, name in enumerate(strengths)
    ]


def test_the_numbers_are_those_in_the_files(tmp_path):
    runs = three(tmp_path)
    said = compare.write(tmp_path, runs)
    table = pd.read_csv(tmp_path / "comparison.csv").set_index("run")
    for k, run in enumerate(runs):
        row, best = table.loc[run.name], 2 + k
        history = pd.read_csv(run / "history.csv")
        assert (row["epochs"], row["best_epoch"]) == (6, best + 1)
        for when, at in (("best", best), ("last", 5)):
            for side, prefix in (("train", ""), ("validation", "val_")):
                for what in ("loss", "auc"):
                    assert row[f"{side}_{what}_{when}"] == history[f"{prefix}{what}"][at]
        scores = json.loads((run / "metrics.json").read_text())["mean"]["auc"]
        assert row["test_auc"] == scores["value"] and row["test_n"] == scores["n"] == 60
        assert (row["test_auc_low"], row["test_auc_high"]) == (scores["low"], scores["high"])
        assert f"{scores['value']:.3f} ({scores['low']:.3f} to {scores['high']:.3f})" in said
    assert list(table["rate"]) == [1e-5, 1e-6, 1e-6] and "batch_size" not in table


def test_the_reference_is_the_best_on_validation_and_never_looks_at_test(tmp_path):
    best, found, _ = paired.pairs(records.read(three(tmp_path)))
    assert best.name == "a" and set(found) == {"b", "c"}
    tests = [
        pd.read_csv(tmp_path / name / "predictions.csv").query("split == 'test'") for name in "ab"
    ]
    aucs = [roc_auc_score(test["label_acl"], test["probability_acl"]) for test in tests]
    assert found["b"]["value"] == pytest.approx(aucs[1] - aucs[0]) and aucs[1] > aucs[0] + 0.1
    assert 0 < found["b"]["low"] < found["b"]["value"] < found["b"]["high"]
    assert re.search(r"\), p (= 0\.\d{3}|< 0\.001): higher$", paired.words(found["b"]))
    assert found["c"]["low"] < 0 < found["c"]["high"] and found["c"]["p"] > 0.05
    unseen = f"a difference below {found['c']['detectable']:.3f} could not have been shown"
    assert paired.words(found["c"]).endswith(f": no evidence of a difference ({unseen})")
    # A paired interval knows that both were asked about the same patients.
    itself = paired.difference(*[paired.part(best.predictions, "test")] * 2)
    assert (itself["value"], itself["low"], itself["high"]) == (0, 0, 0)
    assert paired.words(itself).endswith("p = 1.000: no evidence of a difference")


def test_a_difference_as_large_as_said_is_found_in_four_of_five_test_parts():
    found, said = 0, []
    rng = np.random.default_rng(7)
    for _ in range(60):
        # Both models see the same noise, one a stronger signal.
        label, shared = np.arange(120) % 2, rng.normal(size=120)
        tables = []
        for strength in (0.75, 1.2):
            p = strength * label + shared + 0.5 * rng.normal(size=120)
            table = pd.DataFrame({"path": range(120), "patient": range(120), "label_a": label})
            tables.append(table.assign(probability_a=p))
        entry = paired.difference(*tables)
        said.append(entry["detectable"])
        found += paired.clear(entry)
    truth = NormalDist().cdf(1.2 / 2.5**0.5) - NormalDist().cdf(0.75 / 2.5**0.5)
    assert np.mean(said) == pytest.approx(truth, rel=0.1)
    assert 0.65 < found / 60 < 0.95


def test_an_ablation_compares_each_pair(tmp_path):
    runs = three(tmp_path)
    said = compare.write(tmp_path, runs, each_pair=True)
    table = pd.read_csv(tmp_path / "comparison_pairs.csv")
    assert [*zip(table["run"], table["minus"])] == [("b", "a"), ("c", "a"), ("c", "b")]
    tests = {run.name: paired.part(metrics.read(run / "predictions.csv"), "test") for run in runs}
    page = (tmp_path / "comparison.html").read_text()
    for row in table.to_dict("records"):
        entry = paired.difference(tests[row["run"]], tests[row["minus"]])
        assert row["difference"] == pytest.approx(entry["value"])
        assert (row["of"], row["n"]) == ("test AUC", 60)
        for name in paired.NUMBERS:
            assert row[f"difference_{name}"] == pytest.approx(entry[name])
        words = f"{row['run']} minus {row['minus']}"
        assert f"{words}: {paired.words(entry)}" in said and f"<td>{words}</td>" in page
        assert escape(paired.words(entry)) in page
    assert compare.main([*map(str, runs), "--out", str(tmp_path / "new"), "--each-pair"]) == 0
    assert (tmp_path / "new" / "comparison_pairs.csv").is_file()


def test_the_order_of_the_rows_in_a_file_does_not_matter(tmp_path):
    runs = three(tmp_path)
    before = paired.pairs(records.read(runs))[1]
    table = pd.read_csv(runs[1] / "predictions.csv", dtype=str)
    table.sample(frac=1, random_state=0).to_csv(runs[1] / "predictions.csv", index=False)
    assert paired.pairs(records.read(runs))[1] == before


def test_too_few_patients_have_no_interval_and_one_class_no_difference():
    few = run_folders.exams(count=12)
    one, two = (paired.part(run_folders.predicted(few, seed=seed), "test") for seed in (0, 1))
    entry = paired.difference(one, two)
    assert entry["value"] is not None and entry["low"] is None
    assert "too few patients" in paired.words(entry)
    same = [table.assign(label_acl=1) for table in (one, two)]
    assert paired.words(paired.difference(*same)).startswith("undefined")


def test_labels_are_averaged_and_unknown_ones_left_out(tmp_path):
    findings = ("abnormal", "acl")
    exams = run_folders.exams(findings)
    exams["label_acl"] = exams["label_acl"].astype(float).where(exams.index % 7 > 0)
    epochs = run_folders.history(labels=findings)
    epochs.loc[0, "auc_acl"] = np.nan
    runs = [
        run_folders.write(tmp_path / name, run_folders.predicted(exams, seed=k), epochs=epochs)
        for k, name in enumerate("ab")
    ]
    said = compare.write(tmp_path, runs)
    assert "mean over the labels of that epoch" in said
    curve = records.read(runs)[0].curves()["auc"]
    assert curve[0] == epochs["auc_abnormal"][0]
    assert curve[3] == pytest.approx(epochs.loc[3, ["auc_abnormal", "auc_acl"]].mean())
    best, found, _ = paired.pairs(records.read(runs))
    other = next(run for run in "ab" if run != best.name)
    values = [
        json.loads((tmp_path / name / "metrics.json").read_text())["mean"]["auc"]["value"]
        for name in (other, best.name)
    ]
    assert found[other]["value"] == pytest.approx(values[0] - values[1])


@pytest.mark.parametrize("change", ["another split", "other labels", "another finding"])
def test_runs_tested_on_something_else_are_not_paired(tmp_path, change):
    table = run_folders.predicted(EXAMS, seed=1)
    if change == "another split":
        table["split"] = table["split"].to_numpy()[::-1]
    if change == "other labels":
        table.loc[table.index[-1], "label_acl"] = 1 - table["label_acl"].iloc[-1]
    if change == "another finding":
        table.columns = table.columns.str.replace("acl", "meniscus")
    runs = [
        run_folders.write(tmp_path / "a", run_folders.predicted(EXAMS)),
        run_folders.write(tmp_path / "b", table),
    ]
    said = compare.write(tmp_path, runs)
    assert "The runs are not paired" in said and "minus" not in said
    assert "No two runs can be paired" in (tmp_path / "comparison.html").read_text()
    third = run_folders.write(tmp_path / "c", run_folders.predicted(EXAMS, seed=2))
    said = compare.write(tmp_path, [*runs, third])
    assert re.search(r"Not paired, because .*: b\.", said) and said.count("minus") == 1


def test_other_validation_exams_are_pointed_out(tmp_path):
    table = run_folders.predicted(EXAMS, seed=1)
    runs = [
        run_folders.write(tmp_path / "a", run_folders.predicted(EXAMS)),
        run_folders.write(tmp_path / "b", table[table["path"] != "0003"]),
    ]
    assert "The validation parts differ" in compare.write(tmp_path, runs)


def test_an_unfinished_run_is_shown_as_far_as_it_got(tmp_path):
    runs = three(tmp_path)
    (runs[1] / "metrics.json").unlink()
    begun = run_folders.write(tmp_path / "begun", status="interrupted")
    (begun / "history.csv").unlink()
    said = compare.write(tmp_path, [*runs, begun])
    assert "b (unfinished: no metrics.json)" in said
    assert "begun (unfinished: no metrics.json, interrupted)" in said
    table = pd.read_csv(tmp_path / "comparison.csv").set_index("run")
    assert table["status"]["b"].startswith("unfinished") and table["status"]["a"] == "finished"
    assert np.isnan(table["test_auc"]["b"]) and table["best_epoch"]["b"] == 4
    assert table["epochs"]["begun"] == 0 and np.isnan(table["best_epoch"]["begun"])


def test_the_best_epoch_is_the_one_that_training_kept(tmp_path):
    epochs = run_folders.history(epochs=4)
    epochs["val_loss"] = [0.3, 0.5, 0.4, 0.39995]  # the last one improves by less than min_delta
    epochs["stage"] = [1, 2, 2, 2]
    run = run_folders.write(tmp_path / "a", epochs=epochs)
    hyper = json.loads((run / "hyperparameters.json").read_text())
    (run / "hyperparameters.json").write_text(json.dumps(hyper | {"stage_2": run_folders.STAGE}))
    assert records.read([run])[0].best() == 2
    assert "counted over all stages" in compare.write(tmp_path, [run])
    rising = run_folders.STAGE | {"monitor": "val_auc", "mode": "max"}
    (run / "hyperparameters.json").write_text(json.dumps({"stage_2": rising}))
    assert records.read([run])[0].best() == 3


def test_settings_that_say_the_same_are_shown_once(tmp_path):
    runs = three(tmp_path)
    for run, patience in zip(runs, (3, 3, 1)):
        path = run / "hyperparameters.json"
        content = json.loads(path.read_text())
        content["stage_1"] = content["stage_1"] | {"patience": patience, "optimizer": str(run)}
        path.write_text(json.dumps(content))
    found = compare.differing(records.read(runs))
    assert found[0] == {"rate": 1e-5, "patience": 3}
    settings = [{"rate": 1, "epochs": 5}, {"rate": 2, "epochs": 6}]
    runs = [
        run_folders.write(tmp_path / f"epochs-{k}", values=own) for k, own in enumerate(settings)
    ]
    compare.write(tmp_path, runs)
    table = pd.read_csv(tmp_path / "comparison.csv")
    assert list(table["epochs"]) == [6, 6] and list(table["epochs (set)"]) == [5, 6]


def test_sample_data_are_marked_in_page_and_figure(tmp_path):
    table = run_folders.predicted(EXAMS)
    real = run_folders.write(tmp_path / "real" / "run", table)
    compare.write(tmp_path, [real])
    page, figure = (tmp_path / "comparison.html").read_text(), tmp_path / "comparison.png"
    assert "ynthetic" not in page and not re.search(r'(?:src|href)="(?!data:)', page)
    plain = figure.read_bytes()
    sample = run_folders.write(tmp_path / "sample" / "run", table, synthetic=True)
    compare.write(tmp_path, [sample])
    assert "Synthetic sample data" in (tmp_path / "comparison.html").read_text()
    assert figure.read_bytes() != plain and plain.startswith(b"\x89PNG")
    assert [run.name for run in records.read([real, sample])] == ["real/run", "sample/run"]


def test_a_grid_stands_for_its_runs(tmp_path, capsys):
    grid = run_folders.write(tmp_path / "grid")
    three(grid)
    assert compare.main([str(grid)]) == 0
    table = pd.read_csv(grid / "comparison.csv")
    assert list(table["run"]) == ["a", "b", "c"] and "Test AUC minus that of a" in (
        capsys.readouterr().out
    )
    assert compare.main([str(grid / "b"), str(grid), "--out", str(tmp_path / "new" / "out")]) == 0
    table = pd.read_csv(tmp_path / "new" / "out" / "comparison.csv")
    assert list(table["run"]) == ["b", "a", "c"], "none is shown twice"


@pytest.mark.parametrize("what", ["nowhere", "empty", "file"])
def test_a_folder_that_is_no_run_ends_with_2(tmp_path, capsys, what):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    out = tmp_path / "out"
    assert compare.main([str(tmp_path / what), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert what in line and not out.exists()


def test_a_damaged_file_is_named(tmp_path, capsys):
    (run,) = three(tmp_path)[:1]
    whole = {path.name: path.read_bytes() for path in run.iterdir()}
    for name, content in {
        "metrics.json": b'{"mean": 3}',
        "status.json": b"{",
        "history.csv": b"stage,loss\n1,low\n",
        "predictions.csv": b"path,patient\n1,2\n",
        "environment.json": b"\xff",
    }.items():
        (run / name).write_bytes(content)
        assert compare.main([str(run), "--out", str(tmp_path)]) == 3
        assert name in capsys.readouterr().err
        (run / name).write_bytes(whole[name])


def test_metrics_and_pairs_agree_on_what_an_auc_is(tmp_path):
    table = run_folders.predicted(EXAMS, seed=4)
    other = run_folders.predicted(EXAMS, seed=5)
    gap = paired.difference(paired.part(table, "test"), paired.part(other, "test"))["value"]
    one, two = (
        metrics.measured(own, "binary", resamples=10)["mean"]["auc"]["value"]
        for own in (table, other)
    )
    assert gap == pytest.approx(one - two)
