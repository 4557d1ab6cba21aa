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
        "AUC 0.750 (no interval: too few patients, or answers all alike)"
    )


def test_grades_say_kappa_too_and_heads_each_their_own(tmp_path):
    grades = {
        "task": "ordinal",
        "classes": {"0": {}, "1": {}},
        "accuracy": entry(0.5, 0.4, 0.6),
        "kappa": entry(0.25, 0.1, 0.375),
        "mean": {"auc": entry(0.75, 0.7, 0.8)},
    }
    said = "accuracy 0.500 (0.400 to 0.600), kappa 0.250 (0.100 to 0.375), mean AUC 0.750 "
    assert f"patients): {said}" in told(tmp_path, **grades)
    loss = grades | {"task": "binary", "classes": {"jsl": {}}, "n": 5, "n_patients": 4}
    del loss["kappa"]
    heads = {"kl": grades | {"n": 8, "n_patients": 6}, "jsl": loss}
    assert told(tmp_path, task="multitask", heads=heads) == (
        f"test part: kl (n = 8, 6 patients): {said}(0.700 to 0.800); jsl (n = 5, 4 patients): "
        "accuracy 0.500 (0.400 to 0.600), AUC 0.750 (0.700 to 0.800)"
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
