"""metrics.json: what it holds, and what it says where nothing can be computed."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medkeras.evaluation.numbers import calibration, metrics

KEYS = {"value", "low", "high", "n", "n_positive"}


def predictions(probabilities, labels, names, patients=None, split="test"):
    """A table of predictions from (n, k) probabilities and labels."""
    probabilities = np.asarray(probabilities, dtype=float).reshape(len(probabilities), -1)
    labels = np.asarray(labels, dtype=float).reshape(probabilities.shape)
    patients = np.arange(len(labels)) if patients is None else patients
    table = {"path": [f"{n}.png" for n in range(len(labels))], "patient": patients, "split": split}
    for k, name in enumerate(names):
        table |= {f"label_{name}": labels[:, k], f"logit_{name}": 0.0}
        table[f"probability_{name}"] = probabilities[:, k]
    return pd.DataFrame(table)


def three_classes(n=90, seed=0):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 3, n)
    raw = generator.random((n, 3)) + 0.8 * np.eye(3)[truth]
    return raw / raw.sum(axis=1, keepdims=True), np.eye(3)[truth]


@pytest.mark.parametrize("labels", [0, 1])
@pytest.mark.parametrize("constant", [True, False])
def test_one_class_is_undefined_and_never_a_number(labels, constant):
    p = np.full(30, 0.7) if constant else np.linspace(0.1, 0.9, 30)
    found = metrics.measured(predictions(p, np.full(30, labels), ["bad"]), "binary", resamples=50)
    auc = found["classes"]["bad"]["auc"]
    assert auc["value"] is None and auc["low"] is None
    assert auc["undefined"] == ("0 negatives" if labels else "0 positives")
    assert found["mean"]["auc"]["value"] is None and found["mean"]["auc"]["n_classes"] == 0
    gone = "specificity" if labels else "sensitivity"
    assert found["classes"]["bad"][gone]["value"] is None
    json.dumps(found, allow_nan=False)


def test_absent_class_is_left_out_of_the_mean():
    p, labels = three_classes()
    keep = labels[:, 2] == 0
    found = metrics.measured(
        predictions(p[keep], labels[keep], ["a", "b", "c"]), "multiclass", resamples=50
    )
    assert found["classes"]["c"]["auc"]["value"] is None
    own = [found["classes"][name]["auc"]["value"] for name in "ab"]
    assert found["mean"]["auc"]["n_classes"] == 2
    assert found["mean"]["auc"]["value"] == pytest.approx(np.mean(own))


def test_numbers_are_those_of_the_definitions():
    p, labels = three_classes()
    table = predictions(p, labels, ["a", "b", "c"], patients=np.arange(90) // 3)
    found = metrics.measured(table, "multiclass", majority=1, resamples=200)
    truth, answer = labels.argmax(axis=1), p.argmax(axis=1)
    a = found["classes"]["a"]
    assert a["auc"]["value"] == roc_auc_score(truth == 0, p[:, 0])
    assert a["sensitivity"]["value"] == pytest.approx((answer == 0)[truth == 0].mean())
    assert a["specificity"]["value"] == pytest.approx((answer != 0)[truth != 0].mean())
    assert a["auc"]["n"] == 90 and a["auc"]["n_positive"] == (truth == 0).sum()
    assert found["accuracy"]["value"] == pytest.approx((answer == truth).mean())
    assert found["majority_accuracy"] == pytest.approx((truth == 1).mean())
    assert found["brier"]["value"] == pytest.approx(((p - labels) ** 2).sum(axis=1).mean())
    assert found["n"] == 90 and found["n_patients"] == 30
    for name in "abc":
        for metric in metrics.PER_CLASS:
            entry = found["classes"][name][metric]
            assert set(entry) == KEYS and entry["low"] <= entry["value"] <= entry["high"]


def test_binary_has_one_triple_and_decides_at_a_half():
    p, y = np.array([0.5, 0.49, 0.9, 0.2]), np.array([1, 1, 0, 0])
    found = metrics.measured(predictions(p, y, ["fractured"]), "binary", majority=0, resamples=20)
    assert list(found["classes"]) == ["fractured"]
    assert found["classes"]["fractured"]["sensitivity"]["value"] == 0.5
    assert found["accuracy"]["value"] == 0.5 and found["majority_accuracy"] == 0.5


def test_few_patients_give_a_value_and_no_interval():
    p, labels = three_classes(n=90)
    table = predictions(p, labels, ["a", "b", "c"], patients=np.arange(90) // 11)  # 9 patients
    found = metrics.measured(table, "multiclass", resamples=50)
    assert found["classes"]["a"]["auc"]["value"] is not None
    assert found["classes"]["a"]["auc"]["low"] is None
    assert found["mean"]["auc"]["low"] is None and found["accuracy"]["low"] is None


def test_a_perfect_answer_still_has_an_interval_with_width():
    y = np.arange(40) % 2
    found = metrics.measured(predictions(0.1 + 0.8 * y, y, ["bad"]), "binary", resamples=100)
    for metric in ("auc", "sensitivity", "specificity", "accuracy"):
        entry = found["classes"]["bad"][metric]
        assert entry["value"] == entry["high"] == 1 and 0.7 < entry["low"] < 1, metric


def test_unknown_labels_are_masked():
    p, y = np.linspace(0, 1, 40), (np.arange(40) % 3 == 0).astype(float)
    y[::5] = np.nan
    found = metrics.measured(predictions(p, y, ["mass"]), "multilabel", resamples=50)
    known = np.isfinite(y)
    auc = found["classes"]["mass"]["auc"]
    assert auc["value"] == roc_auc_score(y[known], p[known]) and auc["n"] == known.sum()


def test_ordinal_adds_kappa():
    p, labels = three_classes()
    names = ["0", "1", "2"]
    perfect = metrics.measured(predictions(labels, labels, names), "ordinal", resamples=50)
    assert perfect["kappa"]["value"] == 1
    real = metrics.measured(predictions(p, labels, names), "ordinal", resamples=50)
    assert real["kappa"]["low"] < real["kappa"]["value"] < real["kappa"]["high"]


def test_validation_has_the_same_shape():
    p, labels = three_classes()
    both = [predictions(p, labels, ["a", "b", "c"], split=split) for split in ("val", "test")]
    found = metrics.measured(pd.concat(both), "multiclass", majority=0, resamples=50)
    inner = dict(found["validation"])
    assert set(inner) == set(found) - {"validation"} and inner["split"] == "val"


def test_written_and_read_back_gives_the_same_numbers(tmp_path):
    p, labels = three_classes()
    table = predictions(
        p.round(6), labels, ["a", "b", "c"], patients=[f"{n:03d}" for n in range(90)]
    )
    table.to_csv(tmp_path / "predictions.csv", index=False)
    back = metrics.read(tmp_path / "predictions.csv")
    assert back["patient"].iloc[7] == "007"
    first, second = (metrics.measured(t, "multiclass", resamples=50) for t in (table, back))
    assert first == second


def test_bins_of_equal_mass_and_their_error():
    generator = np.random.default_rng(0)
    p = generator.random(5000)
    honest = (generator.random(5000) < p).astype(float)
    table = calibration.reliability(p, honest)
    assert len(table) == 10 and set(table["n"]) == {500}
    assert (table["low"] <= table["observed"]).all() and (table["observed"] <= table["high"]).all()
    assert calibration.expected_error(p, honest) < 0.03
    assert calibration.expected_error(np.full(100, 0.9), np.r_[np.ones(60), np.zeros(40)]) == (
        pytest.approx(0.3)
    )
    assert np.isnan(calibration.expected_error([], []))


def test_a_row_without_a_known_label_does_not_flatter_the_brier_score():
    table = pd.DataFrame(
        {
            "path": ["a", "b", "c"],
            "patient": ["a", "b", "c"],
            "split": "test",
            "label_oedema": [1.0, np.nan, 0.0],
            "logit_oedema": [0.0, 3.0, 0.0],
            "probability_oedema": [0.5, 0.95, 0.5],
        }
    )
    found = metrics.measured(table, "multilabel", resamples=10)
    assert (found["brier"]["value"], found["brier"]["n"], found["ece"]["n"]) == (0.25, 2, 2)
