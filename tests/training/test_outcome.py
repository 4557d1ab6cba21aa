"""The line that ends a run in the terminal says what metrics.json says."""

import json

from medkeras.training import outcome


def entry(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "undefined": "0 positives"}


def told(folder, **metrics):
    (folder / "metrics.json").write_text(json.dumps({"n": 9, "n_patients": 7} | metrics))
    return outcome.line(folder)


def test_classes_say_accuracy_and_auc(tmp_path):
    said = told(
        tmp_path,
        task="binary",
        classes={"a": {}},
        accuracy=entry(0.5, 0.4, 0.6),
        mean={"auc": entry(0.75)},
    )
    assert said == (
        "test part (n = 9, 7 patients): accuracy 0.500 (0.400 to 0.600), "
        "AUC 0.750 (no interval: too few patients)"
    )


def test_findings_say_the_mean_of_the_scored(tmp_path):
    both = {"a": {}, "b": {}}
    metrics = {"task": "multilabel", "classes": both, "mean": {"auc": entry(None)}}
    assert told(tmp_path, **metrics).endswith("mean AUC undefined (0 positives)")
    metrics["scored"] = {"auc": entry(0.8, 0.7, 0.9)}
    assert told(tmp_path, **metrics).endswith(
        "mean AUC of the scored findings 0.800 (0.700 to 0.900)"
    )


def test_a_page_without_such_numbers_says_nothing(tmp_path):
    assert outcome.line(tmp_path) is None
    assert told(tmp_path, mean={"iou": entry(0.9), "auc": entry(None)}) is None
