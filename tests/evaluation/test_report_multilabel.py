"""The report of many findings and of exams: unknown and undefined said, rows called by name."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from medkeras.evaluation import mistakes, report
from medkeras.evaluation.evaluate import Scores
from medkeras.evaluation.figures import canvas, curves, plots
from medkeras.evaluation.heat.gallery import Explained, Gallery
from medkeras.evaluation.numbers import metrics
from medkeras.evaluation.writing import summary
from medkeras.preparation import exams, pipeline
from medkeras.preparation.cache import Slices
from medkeras.readers import tables

SIZE, ROWS = 12, 150
FINDINGS = ("acl", "No Effusion", "fracture", "<b>rare</b>")
PLANES = ("axial", "sagittal")


def labelled():
    """A split table: one finding is always known, one often not, one never positive in test."""
    rng = np.random.default_rng(4)
    number = np.arange(ROWS)
    table = pd.DataFrame(
        {
            "path": [f"patient-{n:03d}/{n}.png" for n in number],
            "patient": [f"patient-{n // 2:03d}" for n in number],
            "split": [("train", "train", "val", "test", "test")[n // 2 % 5] for n in number],
        }
    )
    for finding, share in zip(FINDINGS, (0.4, 0.5, 0.3, 0.1), strict=True):
        table[finding] = (rng.random(ROWS) < share).astype(float)
    table.loc[rng.random(ROWS) < 0.4, "No Effusion"] = np.nan
    table.loc[table["split"] == "test", "fracture"] = 0.0
    table["<b>rare</b>"] = np.nan
    table.attrs["labels"] = list(FINDINGS)
    return table


def in_memory(table, unit, findings=()):
    rng, more = np.random.default_rng(5), {"batch_size": 8, "findings": findings}
    if unit == "picture":
        stored = rng.integers(0, 255, (len(table), SIZE, SIZE, 1), dtype=np.uint8)
        return pipeline.Data(table, stored, "key", **more)
    slices = rng.integers(0, 255, (3 * len(table), SIZE, SIZE), dtype=np.uint8)
    stored = Slices(slices, 3 * np.arange(len(table) + 1), "key")
    return exams.Data(table, dict.fromkeys(PLANES, stored), "key", planes=PLANES, **more)


def scored(data, seed=6):
    """Scores of answers that tell the first finding, or the only one, and no other."""
    rng, names = np.random.default_rng(seed), data.classes[1 if data.task == "binary" else 0 :]
    tables_of = []
    for part in (data.val, data.test):
        labels = part.labels.reshape(len(part), -1).astype(float)
        table = part.table[["path", "patient"]].assign(split=part.name)
        for k, name in enumerate(names):
            logit = rng.normal(size=len(part)) + (4 * labels[:, k] - 2 if k == 0 else 0)
            table[f"label_{name}"] = labels[:, k]
            table[f"logit_{name}"] = logit
            table[f"probability_{name}"] = 1 / (1 + np.exp(-logit))
        tables_of.append(table)
    predictions = pd.concat(tables_of, ignore_index=True)
    majority = None if data.findings else 0
    found = metrics.measured(predictions, data.task, majority, resamples=200)
    return Scores(predictions, found, data.task, list(data.classes))


def explained(**games):
    shown = {"png": b"png", "file": "00_acl.png", "path": "patient-000/1.png"}
    said = {"true": "acl", "predicted": "no acl", "probability": 0.8, "finding": "acl"}
    item = Explained(**shown, **said, evidence=True, lesion=True)
    return Gallery("conv5", [item], {"pointing_game": games["acl"], "findings": games})


def game(value):
    bounds = {"low": value - 0.2, "high": value + 0.2}
    return {"value": value, **bounds, "n": 31, "n_patients": 23, "chance": 0.013}


@pytest.fixture
def written(small_model, small_run):
    """Function of a data set: the report and the card, without pictures and styles."""

    def write(data, history=None):
        run = small_run(folder=f"run-{data.unit}-{data.task}")
        (run.folder / "hyperparameters.json").write_text('{"units": 64, "decay": null}')
        (run.folder / "environment.json").write_text('{"weights_origin": null}')
        history = history or {"epoch": [1, 2], "loss": [0.3, 0.2], "val_loss": [0.4, 0.3]}
        pd.DataFrame(history).to_csv(run.folder / "history.csv", index=False)
        scores, model = scored(data), small_model(data.outputs)
        cams = explained(acl=game(0.5), **({"fracture": None} if data.findings else {}))
        page = report.write(run, model, data, scores, cams).read_text()
        page = re.sub(r"<style>.*?</style>|data:image/png;base64,[\w+/=]*", "", page, flags=re.S)
        return SimpleNamespace(
            page=page, card=(run.folder / "README.md").read_text(), scores=scores, data=data
        )

    return write


def test_a_page_of_findings_says_what_is_unknown_and_names_nobody(written):
    history = {"epoch": [1, 2], "auc_acl": [0.6, 0.7], "val_auc_acl": [None, 0.6]}
    found = written(in_memory(labelled(), "exam", FINDINGS), history)
    for text in (found.page, found.card):
        assert "0 positives" in text and "2 of 4 findings" in text
        assert not re.search(r"\b(None|nan|NaN)\b", text)
        assert "patient-0" not in text and ".png" not in text and "majority" not in text
        assert "ccuracy of" not in text and "right answers" not in text
        assert "No Effusion" in text and "exams" in text
        assert "<b>rare" not in text and "&lt;b&gt;rare&lt;/b&gt;" in text
        assert not re.search("picture", text, re.IGNORECASE)
    assert "undefined<br><small>0 positives" in found.page
    assert "undefined: no known lesions" in found.page
    assert "middle slice of its axial plane" in found.page and 'class="montages"' in found.page
    assert 'id="confusion"' not in found.page and "Confusion" not in found.page
    mean = found.scores.metrics["mean"]["auc"]
    assert mean["n_classes"] == 2 and f"<b>{mean['value']:.2f}</b>" in found.page
    assert "<b>1 of 4</b>" in found.page and "<b>2 of 4</b>" in found.page


def test_a_page_of_findings_in_pictures_has_no_exams(written):
    found = written(in_memory(labelled(), "picture", FINDINGS[:2]))
    for text in (found.page, found.card):
        assert "pictures" in text and "exam" not in text
    assert 'class="montages"' in found.page and "middle slice" not in found.page


def test_a_page_of_one_finding_in_exams_reads_as_two_classes_of_exams(written):
    table = tables.single(labelled(), "acl").reset_index(drop=True)
    found = written(in_memory(table, "exam"))
    for text in (found.page, found.card):
        assert "exams" in text and not re.search("picture", text, re.IGNORECASE)
        assert "no acl" in text and "finding</th>" not in text
    assert "test exams rightly" in found.page and "always answering" in found.card
    assert "Confusion matrix" in found.page


def test_counts_of_findings_are_those_of_the_table():
    table = labelled()
    data = in_memory(table, "exam", FINDINGS[:2])
    found = summary.counts(data)
    assert found["parts"] == ["training", "validation", "test", "all"]
    names = [row["name"] for row in found["rows"]]
    assert names == [*FINDINGS[:2], "all exams"]
    for row in found["rows"][:2]:
        for cell in row["cells"]:
            own = table if cell["part"] == "all" else table[table["split"] == cell["part"]]
            positive = own[own[row["name"]] == 1]
            assert cell["n"] == len(positive)
            assert cell["patients"] == positive["patient"].nunique()
            assert cell["known"] == own[row["name"]].notna().sum()
            assert cell["unknown"] == own[row["name"]].isna().sum()
    assert found["rows"][1]["cells"][0]["unknown"] > 0
    assert [cell["n"] for cell in found["rows"][2]["cells"]][-1] == ROWS


def test_counts_of_classes_have_no_unknown():
    data = in_memory(tables.single(labelled(), "acl").reset_index(drop=True), "picture")
    found = summary.counts(data)
    assert [row["name"] for row in found["rows"]] == ["no acl", "acl", "all"]
    assert all("known" not in cell for row in found["rows"] for cell in row["cells"])
    assert sum(row["cells"][0]["n"] for row in found["rows"][:2]) == len(data.train)


def test_verdict_says_where_the_interval_of_each_finding_lies():
    intervals = {"a": (0.6, 0.9), "b": (0.4, 0.6), "c": (0.1, 0.4), "d": (None, None)}
    classes = {
        name: {"auc": {"value": 0.5, "low": low, "high": high}}
        for name, (low, high) in intervals.items()
    }
    classes["e"] = {"auc": {"value": None, "low": None, "high": None}}
    scores = SimpleNamespace(metrics={"classes": classes})
    found = summary.verdict(scores, SimpleNamespace(findings=tuple(classes)))
    for place, name in zip(("above", "around", "below", "few", "undefined"), "abcde", strict=True):
        assert found[place] == [name]
    assert "for 1 of 5 findings: a." in found["words"] and "includes 0.5 for b:" in found["words"]
    few = SimpleNamespace(metrics={"classes": {name: classes[name] for name in "de"}})
    words = summary.verdict(few, SimpleNamespace(findings=("d", "e")))["words"]
    assert "No finding has an interval" in words and "above" not in words


def test_right_and_wrong_answers_agree_with_the_metrics():
    scores = scored(in_memory(labelled(), "picture", FINDINGS))
    test = scores.predictions[scores.predictions["split"] == "test"]
    for row in mistakes.outcomes(*metrics.arrays(test)):
        own = scores.metrics["classes"][row["name"]]
        positive, negative = row["tp"] + row["fn"], row["fp"] + row["tn"]
        assert positive == own["auc"]["n_positive"] and positive + negative == own["auc"]["n"]
        assert positive + negative + row["unknown"] == len(test)
        assert positive == 0 or row["tp"] / positive == own["sensitivity"]["value"]
        assert negative == 0 or row["tn"] / negative == own["specificity"]["value"]


@pytest.mark.parametrize("findings", [FINDINGS, tuple("abcdefghijklmno")])
def test_mistakes_are_the_surest_of_each_finding(findings):
    rng, table = np.random.default_rng(0), labelled()
    for name in set(findings) - set(FINDINGS):
        table[name] = rng.integers(0, 2, ROWS).astype(float)
    data = in_memory(table, "picture", findings)
    scores = scored(data)
    found = mistakes.surest(data, scores, synthetic=True)
    assert 0 < len(found) <= mistakes.MOST and all(one["png"] for one in found)
    best = {}
    for one in found:
        name = one["true"].removeprefix("no ") if one["true"] not in findings else one["true"]
        row = scores.predictions.iloc[one["line"] - 2]
        assert row["split"] == "test" and {one["true"], one["predicted"]} == {name, f"no {name}"}
        assert row[f"label_{name}"] == (one["true"] == name)
        best[name] = max(best.get(name, 0), one["probability"])
    for name, probability in best.items():
        test = scores.predictions[scores.predictions["split"] == "test"]
        label, chance = test[f"label_{name}"], test[f"probability_{name}"]
        wrong = ((chance >= 0.5) != (label == 1)) & label.notna()
        assert probability == np.maximum(chance, 1 - chance)[wrong].max()


@pytest.fixture
def figure_of(monkeypatch):
    """Function of a plot and its arguments: the figure that would have been drawn."""
    monkeypatch.setattr(canvas, "png", lambda figure, synthetic: figure)
    return lambda plot, *arguments: plot(*arguments)


def test_curves_share_a_panel_by_kind_and_leave_gaps(figure_of):
    findings = ("Effusion", "Pleural_Effusion")
    history = {"epoch": [1, 2, 3], "loss": [3, 2, 1], "val_loss": [3, 2, 2]}
    for name in (f"{kind}_{finding}" for kind in ("auc", "sensitivity") for finding in findings):
        history |= {name: [0.5, 0.6, 0.7], f"val_{name}": [0.5, 0.6, 0.8]}
    history["val_auc_Effusion"] = [0.5, np.nan, 0.7]
    figure = figure_of(curves.learned, pd.DataFrame(history), False, findings)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["loss", "auc, by finding", "sensitivity, by finding"]
    drawn = [list(np.isnan(line.get_ydata())) for line in figure.axes[1].lines]
    assert drawn == [[False, True, False], *[[False] * 3] * 3]
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["Effusion", "Pleural Effusion", "validation", "training"]


def test_many_findings_show_validation_alone(figure_of):
    findings = tuple("abcdefgh")
    history = {name: [0.5, 0.6] for k in findings for name in (f"auc_{k}", f"val_auc_{k}")}
    figure = figure_of(curves.learned, pd.DataFrame(history), False, findings)
    assert len(figure.axes[0].lines) == len(findings)


@pytest.mark.parametrize("plot", ["roc", "precision_recall"])
def test_curves_without_positives_are_called_undefined(figure_of, plot):
    labels = np.array([[1, 0, np.nan], [0, 0, np.nan], [1, np.nan, np.nan], [0, 0, np.nan]])
    chances, more = np.linspace(0, 1, 12).reshape(4, 3), [np.arange(4)] * (plot == "roc")
    figure = figure_of(getattr(plots, plot), labels, chances, ["a", "b", "c"], *more)
    named = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert named[1:] == ["b  undefined", "c  undefined"] and re.match(r"a  0\.\d\d", named[0])


def test_bars_of_findings_add_up_to_the_part(figure_of):
    table = labelled()
    figure = figure_of(plots.finding_counts, table, FINDINGS)
    for axis, (_, own) in zip(figure.axes, table.groupby("split", sort=False), strict=False):
        widths = np.array([bar.get_width() for bar in axis.patches]).reshape(3, len(FINDINGS))
        assert (widths.sum(axis=0) == len(own)).all()
        assert list(widths[0]) == [(own[name] == 1).sum() for name in FINDINGS]


def test_grid_names_findings_in_two_short_lines(figure_of):
    pictures = np.zeros((4, 4, 4, 1), np.uint8)
    titles = [["acl"], [], ["Enlarged Cardiomediastinum", "Edema", "Fracture"], "unknown"]
    (axis,) = figure_of(plots.grid, pictures, titles).axes
    shown = [text.get_text() for text in axis.texts]
    assert shown[:2] == ["acl", "none"] and shown[3] == "unknown"
    lines = shown[2].split("\n")
    assert len(lines) == 2 and all(len(line) <= plots.TITLE for line in lines)
