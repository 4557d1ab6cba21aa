"""Whom a run has seen is not judged by again."""

import pandas as pd
import pytest

from medkeras.errors import DataError
from medkeras.training import lineage


def run(folder, **sides):
    """Writes what a run keeps of its split: patients by side, two rows each."""
    folder.mkdir()
    (folder / "predictor.json").write_text("{}")
    rows = [(who, side) for side, whole in sides.items() for who in whole.split() * 2]
    pd.DataFrame(rows, columns=["patient", "split"]).to_csv(folder / "split.csv", index=False)
    return folder


def table(**sides):
    """A table of patients whose ids are numbers."""
    rows = [(int(who), side) for side, whole in sides.items() for who in whole.split()]
    return pd.DataFrame(rows, columns=["patient", "split"])


def test_a_patient_trained_on_is_found_on_either_judging_side(tmp_path):
    before = run(tmp_path / "grades", train="1 2 3", val="4", test="5")
    lineage.check(before, table(train="1 2 5 9", val="4", test="6"))
    with pytest.raises(DataError) as found:
        lineage.check(before, table(train="1", val="3", test="2 1 7"))
    val, test = found.value.problems
    assert val.reason == "was trained on 1 of the 1 patients of the val part" and val.remedy
    assert test.reason == "was trained on 2 of the 3 patients of the test part" and test.remedy


def test_ids_are_texts(tmp_path):
    before = run(tmp_path / "grades", train="007 NA")
    lineage.check(before, pd.DataFrame({"patient": ["7"], "split": ["test"]}))
    for who in ("007", "NA"):
        with pytest.raises(DataError, match="1 of the 1"):
            lineage.check(before, pd.DataFrame({"patient": [who], "split": ["val"]}))


def test_weights_that_are_no_run_ask_for_nothing(tmp_path):
    (tmp_path / "vgg16.weights.h5").touch()
    own = table(train="1", test="2")
    for weights in (None, "auto", "imagenet", tmp_path / "vgg16.weights.h5", tmp_path):
        lineage.check(weights, own)
        lineage.keep(weights, tmp_path)
        assert lineage.follow(weights, own) is own
    assert not (tmp_path / lineage.KEPT).exists()


def test_the_runs_before_are_remembered_when_they_are_gone(tmp_path):
    first = run(tmp_path / "grades", train="1 2", val="3", test="4")
    second = run(tmp_path / "image", train="5", val="3", test="4")
    lineage.keep(first, second)
    (first / "split.csv").unlink()
    third = run(tmp_path / "both", train="6", val="3", test="4")
    lineage.keep(second, third)
    for one in (second, third):
        with pytest.raises(DataError, match="1 of the 2 patients of the test part"):
            lineage.check(one, table(train="7", val="3", test="2 4"))


def test_who_follows_a_run_is_judged_by_nobody_it_knows(tmp_path):
    before = run(tmp_path / "grades", train="1 2 3 4", val="5 6", test="7 8")
    own = table(train="1 5 7 11 12", val="2 8 13", test="3 6 14")
    moved = lineage.follow(before, own)
    lineage.check(before, moved)
    assert moved.groupby("split")["patient"].agg(list).to_dict() == {
        "train": [1, 11, 12, 2, 3],
        "val": [5, 13, 6],
        "test": [7, 8, 14],
    }
    assert own["split"].value_counts()["train"] == 5, "the table given is as it was"


def test_patients_whose_pictures_are_copies_move_together(tmp_path):
    before = run(tmp_path / "grades", train="1", val="2", test="3")
    own = table(train="9", val="2", test="3 1 8").assign(group=["a", "b", "c", "d", "d"])
    assert lineage.follow(before, own)["split"].tolist() == ["train", "val", "test", *["train"] * 2]


def test_what_cannot_be_followed_is_said(tmp_path):
    before = run(tmp_path / "grades", train="1 2 3")
    with pytest.raises(DataError, match="none is left for the part val"):
        lineage.follow(before, table(train="1", val="2", test="3 4"))
    for damaged in ("path,split\n1,train\n", "", None):
        if damaged is None:
            (before / "split.csv").unlink()
        else:
            (before / "split.csv").write_text(damaged)
        with pytest.raises(DataError, match="nothing says whom"):
            lineage.check(before, table(train="1", test="2"))
