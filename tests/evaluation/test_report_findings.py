"""The report of findings with uncertain labels: scored ones first, every gap in plain words."""

import re
from dataclasses import replace

import numpy as np
import pytest

from medkeras.evaluation import report
from medkeras.evaluation.evaluate import Scores
from medkeras.evaluation.figures import canvas, forest
from medkeras.evaluation.numbers import metrics
from medkeras.evaluation.writing import findings
from medkeras.preparation import uncertainty
from tests.evaluation.many_findings import FINDINGS, SCORED, in_memory, predicted


def scores_of(data):
    table = predicted(data=data)
    given = {"scored": SCORED, "untrained": data.untrained, "resamples": 100}
    return Scores(table, metrics.measured(table, "multilabel", **given), "multilabel", [*FINDINGS])


def rows(text):
    """Cells of each row of all tables of a page, without markup."""
    found = re.findall(r"<tr[^>]*>(.*?)</tr>", text, re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in found]
    return [[" ".join(re.sub("<[^>]+>", " ", one).split()) for one in row] for row in cells]


def test_page_and_card_say_all_of_every_finding(small_model, small_run):
    data = in_memory("ones")
    data.policy.words["Edema"] = "soft"
    scores, run = scores_of(data), small_run()
    path, found = report.write(run, small_model(data.outputs), data, scores), scores.metrics
    page = re.sub(r"<style>.*?</style>|data:image/png;base64,[\w+/=]*", "", path.read_text())
    card = (run.folder / "README.md").read_text().replace("\\", "")
    table = [row for row in rows(page.partition('id="results"')[2]) if row]
    assert [row[0] for row in table[:6]] == [
        "Atelectasis scored",
        "Edema scored",
        "mean of the scored",
        "mean of the scored, by study",
        "Fracture",
        "Pneumonia",
    ]
    own = found["classes"]["Edema"]
    low, high = (own["auc_bounds"][end] for end in ("low", "high"))
    n_uncertain = own["auc_bounds"]["n_uncertain"]
    assert table[1][1:3] == [str(own["auc"]["n"]), str(own["auc"]["n_positive"])]
    for cell, metric in zip((3, 5, 6, 7), ("auc", "sensitivity", "specificity", "pr_auc")):
        entry = own[metric]
        said = f"{entry['value']:.2f} {entry['low']:.2f} to {entry['high']:.2f}"
        assert table[1][cell] == said
    assert table[1][4] == f"{low:.2f} to {high:.2f} {n_uncertain} uncertain"
    auc = "{value:.3f} ({low:.3f} to {high:.3f})".format(**own["auc"])
    assert f"| {auc} | {low:.3f} to {high:.3f}, {n_uncertain} uncertain |" in card
    assert table[4][3].startswith("undefined: never trained") and len(table[4]) == 4
    section = page.partition('id="labels"')[2].partition("<h2")[0]
    edema = next(row for row in rows(section) if row[:1] == ["Edema"])
    assert edema[-1] == "drawn once from 0.55 to 0.85" and 'href="#labels"' in page
    assert f"({edema[-1]})" in card and "(counted as present)" in card
    assert "a convention and no reading of the picture" in section
    for text in (page, card):
        assert "Fracture (never present in the training part)" in text
        assert "patient-0" not in text and "train/p0" not in text
        assert not re.search(r"\b(None|nan|NaN)\b", text)
    assert "2 of the 2 scored" in card
    mean, by_study = found["scored"]["auc"], found["scored"]["by_study"]["auc"]
    assert f"<b>{mean['value']:.2f}</b>" in page and f"**{mean['value']:.3f} (" in card
    assert f"by study {by_study['value']:.2f} (" in page
    assert f"by study {by_study['value']:.3f} (" in card and "40 studies" in page + card
    answered = page.partition("rightly found")[2].partition("</table>")[0]
    assert "Edema" in answered and "Fracture" not in answered


def test_counts_of_labels_are_those_of_the_training_part():
    data = in_memory("zeros")
    found, train = findings.labels(data), data.train.table
    assert [row["finding"] for row in found["rows"]] == list(FINDINGS)
    for row in found["rows"]:
        name, blank = row["finding"], train[f"blank {row['finding']}"]
        assert row["uncertain"] == train[f"uncertain {name}"].sum()
        assert row["blank"] == blank.sum() and (train[name][blank] == 0).all()
        assert row["present"] == (train[name] == 1).sum()
    assert sum(found["total"].values()) == len(train) * len(FINDINGS)
    assert found["effect"] == "counted as absent" and found["blank_as"] == "absent"
    for part, own in zip(found["parts"], (data.val.table, data.test.table), strict=True):
        assert part["labels"] == len(own) * len(FINDINGS)
        for kind in ("uncertain", "blank"):
            assert part[kind] == sum(own[f"{kind} {name}"].sum() for name in FINDINGS) > 0


def test_labels_that_nobody_touched_have_no_section():
    data = in_memory()
    assert findings.labels(data)["effect"] == "left out: no gradient"
    plain = data.table.drop(columns=[name for name in data.table if name.startswith("blank ")])
    assert findings.labels(replace(data, table=plain, policy=None)) is None
    assert findings.labels(replace(data, table=plain))["blank_as"] is None
    present = uncertainty.blanks_as(plain.assign(Edema=np.nan), 1.0)
    assert findings.labels(replace(data, table=present))["blank_as"] == "present"


def test_what_was_never_trained_is_said_and_shown_nowhere():
    data = in_memory("ones")
    scores = scores_of(data)
    assert data.untrained == ["Fracture"]
    assert findings.never(data, scores.metrics) == ["Fracture (never present in the training part)"]
    always = data.table.assign(Fracture=1.0, **{"uncertain Fracture": False})
    never = {"untrained": ["Fracture"]}
    assert "never absent" in findings.never(replace(data, table=always), never)[0]
    unknown = replace(data, table=data.table.assign(Fracture=np.nan))
    assert "never present nor absent" in findings.never(unknown, never)[0]
    shown = findings.judged(scores).predictions
    assert shown["label_Fracture"].isna().all() and scores.predictions["label_Fracture"].any()
    assert shown["label_Edema"].equals(scores.predictions["label_Edema"])


def test_forest_has_a_line_for_each_finding(monkeypatch):
    monkeypatch.setattr(canvas, "png", lambda figure, synthetic: figure)
    found = scores_of(in_memory("ones")).metrics
    axis = forest.aucs(found, findings.ordered(found), SCORED).axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == [
        *SCORED,
        "Fracture",
        "Pneumonia",
    ]
    said = [text.get_text().strip() for text in axis.texts]
    assert len(said) == 1 and said[0].startswith("undefined: never trained")
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axis.patches]
    bounds = [found["classes"][name]["auc_bounds"] for name in SCORED]
    assert bars == [pytest.approx((own["low"], own["high"])) for own in bounds]
    points = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o"]
    shown = [found["classes"][name]["auc"]["value"] for name in (*SCORED, "Pneumonia")]
    assert points == shown and axis.get_xlim()[0] < min(*points, 0.5)
