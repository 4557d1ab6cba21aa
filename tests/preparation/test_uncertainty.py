"""Uncertain and unmentioned labels: what training sees of them, and what measuring never does."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from medkeras import losses
from medkeras.errors import DataError, UsageError
from medkeras.preparation import pipeline, uncertainty

FINDINGS = ("Edema", "Fracture")
PARTS = ("train", "train", "train", "train", "train", "val", "val", "test")


def table():
    """Edema is 1, 0, blank, uncertain, uncertain in train; Fracture is never mentioned there."""
    nan = np.nan
    edema = [1, 0, nan, nan, nan, 1, nan, nan]
    uncertain = [False, False, False, True, True, False, True, False]
    paths = [f"train/patient{n}/study1/view1_frontal.jpg" for n in range(7)]
    columns = {
        "path": [*paths, "valid/patient7/study1/view1_frontal.jpg"],
        "patient": [f"patient{n}" for n in range(8)],
        "split": PARTS,
        "Edema": edema,
        "Fracture": [nan] * 7 + [0.0],
        "uncertain Edema": uncertain,
        "uncertain Fracture": [False] * 8,
    }
    found = pd.DataFrame(columns)
    found.attrs["labels"] = list(FINDINGS)
    return found


def data(word, rows=None):
    rows = table() if rows is None else rows
    policy = uncertainty.Policy(dict.fromkeys(FINDINGS, word), seed=3)
    stored = np.zeros((len(rows), 4, 4, 1), np.uint8)
    return pipeline.Data(rows, stored, "key", 2, findings=FINDINGS, policy=policy)


@pytest.mark.parametrize(("word", "value"), [("ignore", np.nan), ("zeros", 0), ("ones", 1)])
def test_a_word_decides_what_an_uncertain_label_counts_as(word, value):
    found = data(word).train.targets()
    np.testing.assert_array_equal(found[:, 0], np.float32([1, 0, np.nan, value, value]))


def test_soft_labels_are_drawn_from_their_range_once_or_every_epoch():
    once, anew = data("soft").train, data("soft-each-epoch").train
    for part in (once, anew):
        drawn = part.targets(epoch=1)[3:, 0]
        assert np.all((drawn >= 0.55) & (drawn <= 0.85)) and drawn[0] != drawn[1]
        np.testing.assert_array_equal(drawn, part.targets([3, 4], epoch=1)[:, 0])
    np.testing.assert_array_equal(once.targets(epoch=0), once.targets(epoch=1))
    assert np.all(anew.targets(epoch=0)[3:, 0] != anew.targets(epoch=1)[3:, 0])


def test_a_third_class_has_a_second_half_of_targets_and_logits():
    found = data("multiclass")
    assert found.outputs == 4
    nan = np.nan
    expected = np.float32([[1, 0], [0, 0], [nan, nan], [0.5, 1], [0.5, 1]])
    np.testing.assert_array_equal(found.train.targets()[:, [0, 2]], expected)


@pytest.mark.parametrize("word", uncertainty.WORDS)
def test_what_selects_and_what_is_measured_are_known_labels(word):
    found = data(word)
    targets = found.val.targets()
    np.testing.assert_array_equal(targets[:, 0], np.float32([1, np.nan]))
    assert targets.shape == (2, found.outputs) and np.isnan(targets[:, 2:]).all()
    for part in (found.train, found.val, found.test):
        np.testing.assert_array_equal(part.labels[:, 0], part.table["Edema"].astype(np.float32))


@pytest.mark.parametrize("word", uncertainty.WORDS)
def test_no_target_is_below_zero_or_above_one(word):
    for part in (data(word).train, data(word).val, data(word).test):
        targets = part.targets()
        assert not np.any((targets < 0) | (targets > 1))


def test_blanks_of_reports_become_absent_and_what_nobody_mentions_stays_unknown():
    found = uncertainty.blanks_as(table(), 0.0)
    nan = np.nan
    np.testing.assert_array_equal(found["Edema"], [1, 0, 0, nan, nan, 1, nan, nan])
    assert found["blank Edema"].tolist() == [False, False, True] + [False] * 5
    assert found["Fracture"].isna()[:7].all() and not found["blank Fracture"].any()
    assert found["uncertain Edema"].equals(table()["uncertain Edema"])


def test_what_became_of_the_labels_is_counted():
    found = data("ones", uncertainty.blanks_as(table(), 0.0))
    edema, fracture = uncertainty.counts(found).to_dict("records")
    assert [edema[name] for name in ("present", "absent", "blank", "uncertain", "unknown")] == [
        1,
        1,
        1,
        2,
        0,
    ]
    assert (edema["policy"], edema["effect"]) == ("ones", "counted as present")
    assert fracture["unknown"] == 5
    assert found.untrained == ["Fracture"]


def test_a_finding_without_a_positive_target_cannot_be_learned():
    rows = table()
    rows.loc[0, "Edema"] = 0.0
    assert data("ignore", rows).untrained == list(FINDINGS)
    assert data("ones", rows).untrained == ["Fracture"]


def test_a_sweep_sees_no_mark_of_the_test_part():
    rows = table()
    rows.loc[7, "uncertain Edema"] = True
    hidden = data("ignore", rows).without_test().table
    assert not hidden["uncertain Edema"][7] and hidden["Edema"].isna()[7]


def test_the_policy_is_set_for_all_findings_or_for_one():
    fixed = {"uncertain": "soft", "uncertain Fracture": "zeros"}

    def choice(name, values, default):
        if fixed.get(name, default) not in values:
            raise UsageError(name)
        return fixed.get(name, default)

    run = SimpleNamespace(fixed=fixed, choice=choice, seed=5)
    policy = uncertainty.chosen(run, FINDINGS, "ignore")
    assert policy.words == {"Edema": "soft", "Fracture": "zeros"} and policy.seed == 5


def test_a_third_class_costs_what_the_softmax_says():
    labels = np.float32([[1, 0, 0.5, 1, np.nan], [0, 0, 1, np.nan, np.nan]]).reshape(1, 10)
    logits = np.float32([[0.7, -1.2, 0.4, 2.0, 9.0], [-0.3, 1.1, 0.9, 5.0, 7.0]]).reshape(1, 10)
    found = float(losses.UncertainCrossEntropy()(labels, logits))
    a, b = logits.reshape(2, 5).astype(np.float64)
    total = np.log(1 + np.exp(a) + np.exp(b))
    by_hand = [total[0] - a[0], total[1], total[2] - b[2], np.log1p(np.exp(-a[3]))]
    assert found == pytest.approx(np.mean(by_hand), rel=1e-6)


def test_a_left_out_label_changes_no_gradient_of_a_third_class():
    import tensorflow as tf

    labels = np.float32([[1, np.nan, 0, np.nan]])
    gradients = []
    for ignored in (-40.0, 3.0, 1e20):
        values = tf.constant(np.float32([[0.5, ignored, 0.2, ignored]]))
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = losses.UncertainCrossEntropy([2.0, 3.0])(labels, values)
        gradients.append(tape.gradient(loss, values).numpy())
    assert np.all(gradients[0][0, [1, 3]] == 0) and np.all(gradients[0][0, [0, 2]] != 0)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, gradients[0])


def test_a_soft_label_is_on_neither_side_of_a_live_curve():
    labels, logits = np.float32([[1], [0], [0.7]]), np.float32([[1], [-1], [9]])
    metric = losses.LiveCurves()
    metric.update_state(labels, logits)
    assert {float(value) for value in metric.result().values()} == {1.0}


@pytest.mark.parametrize("code", [-1.0, 0.5, 2.0])
def test_a_code_in_place_of_unknown_is_refused(code):
    rows = table()
    rows.loc[3, "Edema"] = code
    with pytest.raises(DataError, match=f"Edema.*is {code:g} in 1 rows"):
        data("ignore", rows)
