"""Runs of many findings compared: by the scored ones, whatever the policy of uncertain labels."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from medkeras.evaluation import compare, records
from medkeras.evaluation.numbers import metrics, paired
from tests.evaluation import run_folders

FINDINGS, SCORED = ("edema", "fracture", "mass"), ("mass", "edema")
EXAMS = run_folders.exams(FINDINGS)


def two(folder, **judged):
    """`ignore` is best by the scored findings on validation, `ones` by all of them."""
    strengths = {"ignore": (2.0, 0.0, 2.0), "ones": (1.6, 3.0, 1.6)}
    written = []
    for seed, (name, strength) in enumerate(strengths.items()):
        tables = [
            run_folders.predicted(EXAMS[["path", "patient", "split", f"label_{finding}"]], s, s, k)
            for k, (finding, s) in enumerate(zip(FINDINGS, strength), 3 * seed)
        ]
        table = pd.concat([tables[0], *(own.iloc[:, 3:] for own in tables[1:])], axis=1)
        given = {"scored": SCORED, **judged.get(name, {})}
        values = {"uncertain": name, "rate": 1e-4}
        written.append(run_folders.write(folder / name, table, values=values, **given))
    return written


def test_the_scored_mean_on_validation_chooses(tmp_path):
    runs = records.read(two(tmp_path))
    overall = {run.name: run.metrics["validation"]["mean"]["auc"]["value"] for run in runs}
    assert overall["ones"] > overall["ignore"]
    best, found, _ = paired.pairs(runs)
    assert best.name == "ignore"
    assert best.validated == best.metrics["validation"]["scored"]["auc"]["value"]
    ours, theirs = (run.metrics for run in sorted(runs, key=lambda run: run is best))
    for kind, entry in (("scored", found["ones"]["scored"]), ("mean", found["ones"])):
        gap = ours[kind]["auc"]["value"] - theirs[kind]["auc"]["value"]
        assert entry["value"] == pytest.approx(gap) and entry["low"] < gap < entry["high"]
    assert list(found["ones"]["findings"]) == list(SCORED)
    for name, entry in found["ones"]["findings"].items():
        aucs = [own["classes"][name]["auc"]["value"] for own in (ours, theirs)]
        assert entry["value"] == pytest.approx(aucs[0] - aucs[1])


def test_runs_that_differ_in_their_policy_are_paired_and_it_is_shown(tmp_path):
    said = compare.write(tmp_path, two(tmp_path))
    table = pd.read_csv(tmp_path / "comparison.csv").set_index("run")
    assert list(table["uncertain"]) == ["ignore", "ones"] and "rate" not in table
    assert not re.search("[Nn]ot paired", said) and "ones: mean of the scored findings " in said
    assert "Scored, as the unweighted mean of their AUCs: mass, edema." in said
    page = (tmp_path / "comparison.html").read_text()
    assert page.count("<th>mass</th><th>edema</th>") == 1 and "fracture" not in page
    for name in ("ignore", "ones"):
        stored = json.loads((tmp_path / name / "metrics.json").read_text())
        auc = stored["scored"]["auc"]
        assert table["scored_auc"][name] == auc["value"]
        assert f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})" in said
        assert f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})" in page
        chose = stored["validation"]["scored"]["auc"]["value"]
        assert table["kept_validation_auc"][name] == chose
    assert f"mean AUC of the scored findings {table['kept_validation_auc']['ignore']:.3f}" in page
    assert np.isnan(table["scored_difference"]["ignore"])
    for kind, column in (("scored_difference", "scored_auc"), ("difference", "test_auc")):
        gap = table[column]["ones"] - table[column]["ignore"]
        assert table[kind]["ones"] == pytest.approx(gap)
    assert table["difference mass_low"]["ones"] < table["difference mass"]["ones"]


def test_what_one_run_never_learned_is_in_no_difference(tmp_path):
    said = compare.write(tmp_path, two(tmp_path, ones={"untrained": ["edema"]}))
    assert "left out of its differences: edema" in said and "not means over the same" in said
    best, found, _ = paired.pairs(records.read([tmp_path / "ignore", tmp_path / "ones"]))
    (other,) = found.values()
    assert other["findings"]["edema"]["value"] is None
    assert "never trained" in paired.words(other["findings"]["edema"])
    assert other["scored"]["value"] == other["findings"]["mass"]["value"]
    second = next(name for name in ("ignore", "ones") if name != best.name)
    tests = [
        paired.part(metrics.read(tmp_path / name / "predictions.csv"), "test")
        for name in (second, best.name)
    ]
    both = paired.difference(*tests, classes=["fracture", "mass"])
    assert other["value"] == both["value"]


def test_runs_scored_by_other_findings_are_not_paired(tmp_path):
    said = compare.write(tmp_path, two(tmp_path, ones={"scored": ["mass"]}))
    assert "The runs are not paired" in said
    (tmp_path / "none").mkdir()
    said = compare.write(tmp_path / "none", two(tmp_path / "none", ones={"scored": ()}))
    assert "The runs are not paired" in said and " - " in said


def test_a_scored_mean_that_is_damaged_is_named(tmp_path, capsys):
    run = two(tmp_path)[0]
    stored = json.loads((run / "metrics.json").read_text())
    for broken in ({"auc": stored["mean"]["auc"]}, {"findings": SCORED}, {"findings": "mass"}, 3):
        (run / "metrics.json").write_text(json.dumps(stored | {"scored": broken}))
        assert compare.main([str(run), "--out", str(tmp_path)]) == 3
        assert "metrics.json" in capsys.readouterr().err
