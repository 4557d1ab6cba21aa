"""What grades alone are asked: equal to scikit-learn, both knees of a patient drawn together."""

import json
from html import escape

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, mean_absolute_error, roc_auc_score

from medkeras.evaluation import compare, records, report
from medkeras.evaluation.evaluate import evaluate
from medkeras.evaluation.numbers import grades, metrics, paired
from medkeras.evaluation.writing import markdown, pages
from medkeras.preparation import pipeline
from tests.evaluation import run_folders

NAMES = ("0", "1", "2", "3", "4")


def answered(seed=0, patients=60, knees=2, strength=1.0):
    """A table as `predictions.csv`, of val and test patients with some knees each."""
    rng = np.random.default_rng(seed)
    rows = 2 * patients * knees
    truth = np.random.default_rng(1).integers(0, 5, rows)
    raw = rng.normal(size=(rows, 5)) - strength * np.abs(np.arange(5) - truth[:, None])
    chance = metrics.probabilities(raw, "ordinal")
    table = pd.DataFrame(
        {
            "path": [f"{n:04d}.png" for n in range(rows)],
            "patient": [f"p{n // knees:04d}" for n in range(rows)],
            "split": np.repeat(["val", "test"], rows // 2),
        }
    )
    for k, name in enumerate(NAMES):
        table[f"label_{name}"] = (truth == k).astype(int)
        table[f"logit_{name}"], table[f"probability_{name}"] = raw[:, k], chance[:, k]
    return table


def test_the_numbers_of_every_resample_are_those_of_sklearn():
    labels, chances, _ = metrics.arrays(answered())
    truth, answer = labels.argmax(axis=1), chances.argmax(axis=1)
    weights = np.random.default_rng(0).integers(0, 3, (5, len(truth))).astype(float)
    asked = grades.asked(labels, chances, positive_from=2)
    late = chances[:, 2:].sum(axis=1)
    for row, w in enumerate(weights):
        theirs = {
            "kappa": cohen_kappa_score(truth, answer, weights="quadratic", sample_weight=w),
            "grade_error": mean_absolute_error(truth, answer, sample_weight=w),
            "oa": roc_auc_score(truth >= 2, late, sample_weight=w),
        }
        for name, value in theirs.items():
            assert asked[name].function(weights)[row] == pytest.approx(value, abs=1e-12)
    assert asked["grade_error"].value == pytest.approx(mean_absolute_error(truth, answer))
    assert asked["oa"].value == pytest.approx(roc_auc_score(truth >= 2, late))


def test_both_knees_of_a_patient_are_drawn_together():
    single = answered(knees=1)
    twice = pd.concat([single, single.assign(path="other " + single["path"])])
    one, two, apart = (
        metrics.measured(table, "ordinal", resamples=200, positive_from=2)
        for table in (single, twice, twice.assign(patient=range(len(twice))))
    )
    for name, own in grades.named(one).items():
        ends, width = (own["low"], own["high"]), own["high"] - own["low"]
        same, narrow = grades.named(two)[name], grades.named(apart)[name]
        assert (same["low"], same["high"]) == pytest.approx(ends) and same["n"] == 2 * own["n"]
        assert own["low"] < own["value"] < own["high"]
        assert narrow["high"] - narrow["low"] < 0.85 * width


def test_only_grades_have_these_numbers_and_only_where_asked():
    table = answered(patients=12)
    plain = metrics.measured(table, "ordinal", resamples=20)
    assert "oa" not in plain and list(grades.named(plain)) == [
        "quadratic-weighted kappa",
        "mean absolute grade error",
    ]
    asked = metrics.measured(table, "ordinal", resamples=20, positive_from=3)
    assert asked["oa"]["from"] == 3 and "AUC of grade 3 or more" in grades.named(asked)
    assert asked["validation"]["oa"]["auc"]["value"] != asked["oa"]["auc"]["value"]
    json.dumps(asked, allow_nan=False)
    classes = metrics.measured(table, "multiclass", resamples=20)
    assert grades.named(classes) == {} and "kappa" not in classes
    for task, grade in (("multiclass", 2), ("ordinal", 0), ("ordinal", 5)):
        with pytest.raises(ValueError, match="positive_from"):
            metrics.measured(table, task, resamples=20, positive_from=grade)


def test_a_grade_that_all_have_reached_has_no_auc():
    table = answered(patients=12)
    table = table[table["label_0"] + table["label_1"] == 0]
    found = metrics.measured(table, "ordinal", resamples=20, positive_from=2)
    assert found["oa"]["auc"]["value"] is None
    assert found["oa"]["auc"]["undefined"] == "0 negatives"


def test_report_and_card_say_them(small_table, small_model, small_run):
    data, model, run = pipeline.images(small_table(), (24, 24, 1), 8), small_model(), small_run()
    scores = evaluate(model, data, run, task="ordinal", positive_from=1)
    page = report.write(run, model, data, scores).read_text()
    card = (run.folder / "README.md").read_text()
    stored = json.loads((run.folder / "metrics.json").read_text())
    assert stored["oa"]["from"] == 1 and stored["oa"]["auc"]["low"] is not None
    for name, entry in {
        "quadratic-weighted kappa": stored["kappa"],
        "mean absolute grade error": stored["grade_error"],
        "AUC of grade fractured or more": stored["oa"]["auc"],
    }.items():
        assert f"{name} {pages.number(entry)}" in page and f"<span>{name}" in page
        assert f"{name} {markdown.entry(entry)}" in card


def test_a_comparison_has_them_beside_the_auc(tmp_path):
    for name, strength in (("softmax", 0.6), ("ordinal", 1.2)):
        table = answered(strength=strength)
        folder = run_folders.write(tmp_path / name, table)
        found = metrics.measured(table, "ordinal", resamples=50, positive_from=2)
        (folder / "metrics.json").write_text(json.dumps(found))
    binary = run_folders.write(tmp_path / "other", run_folders.predicted(run_folders.exams()))
    said = compare.write(tmp_path, [tmp_path / "softmax", tmp_path / "ordinal", binary])
    rows = pd.read_csv(tmp_path / "comparison.csv").set_index("run")
    page = (tmp_path / "comparison.html").read_text()
    stored = json.loads((tmp_path / "ordinal" / "metrics.json").read_text())
    for column, entry in (
        ("kappa", stored["kappa"]),
        ("grade_error", stored["grade_error"]),
        ("oa_auc", stored["oa"]["auc"]),
    ):
        assert rows[column]["ordinal"] == entry["value"] and np.isnan(rows[column]["other"])
        assert rows[f"{column}_low"]["ordinal"] == entry["low"]
        ends = f"{entry['low']:.3f} to {entry['high']:.3f}"
        for text in (said, page):
            assert f"{entry['value']:.3f} ({ends})" in text
    assert "AUC of grade 2 or more (95 %)" in said
    gaps = paired.pairs(records.read([tmp_path / "softmax", tmp_path / "ordinal"]))[1]
    for name, entry in gaps["softmax"]["grades"].items():
        assert f"softmax: {name} {paired.words(entry)}" in said
        assert (
            f"<td>{escape(paired.words(entry))}</td>" in (tmp_path / "comparison.html").read_text()
        )
        assert rows[f"difference {name}"]["softmax"] == pytest.approx(entry["value"])


def test_runs_are_compared_by_each_number_of_their_grades(tmp_path):
    found = {}
    for name, strength, lowest in (("a", 1.5, 2), ("b", 0.3, 2), ("c", 0.8, 3)):
        table = answered(strength=strength, seed=len(found))
        found[name] = metrics.measured(table, "ordinal", resamples=20, positive_from=lowest)
        folder = run_folders.write(tmp_path / name, table)
        (folder / "metrics.json").write_text(json.dumps(found[name]))
    best, gaps, _ = paired.pairs(records.read([tmp_path / name for name in found]))
    assert best.name == "a"
    names, ours = grades.named(found["b"]), gaps["b"]["grades"]
    assert list(ours) == list(names)
    for name, entry in ours.items():
        gap = names[name]["value"] - grades.named(found["a"])[name]["value"]
        assert entry["value"] == pytest.approx(gap)
        assert entry["low"] < gap < entry["high"] and entry["n"] == 120
    worse = "mean absolute grade error"
    assert paired.words(ours[worse]).endswith(": higher") and list(gaps["c"]["grades"]) == [
        "quadratic-weighted kappa",
        worse,
    ], "others count from another grade on"
