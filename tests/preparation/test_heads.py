"""Two labels a knee: what is unknown in one head is out of that head alone."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from medkeras.errors import DataError, UsageError
from medkeras.preparation import heads

N = np.nan
# Of every six pictures four train, one validates, one tests.
KL = [0, 1, N, 3, 0, 2, 4, 0, 2, 2, N, N, 1, 1, N, 0, 3, 4]
JSL = [1, 0, 0, N, 1, 1, N, 1, 0, 0, 0, N, 0, 0, 1, 1, N, 0]


@pytest.fixture
def plain(tiny_data):
    def make(kl=KL, jsl=JSL):
        data = tiny_data(pictures=18, views=1)
        kl, jsl = np.array(kl), np.array(jsl)
        one_hot = np.where(np.isnan(kl), N, kl == 1)
        table = data.table.drop(columns=["label", "class"])
        table = table.assign(kl=kl, jsl=jsl, kl_1=one_hot, age=50.0)
        table.attrs = {"labels": ["jsl"], "notes": ["a note"]}
        return replace(data, table=table)

    return make


def test_targets_are_the_grade_and_joint_space_loss_or_unknown(plain):
    data = heads.both(plain())
    for part in (data.train, data.val, data.test):
        expected = np.column_stack([KL, JSL])[part.rows].astype(np.float32)
        np.testing.assert_array_equal(part.targets(), expected)
        assert part.targets().dtype == np.float32
    np.testing.assert_array_equal(data.train.targets(np.array([6, 2])), [[2, 0], [N, 0]])
    assert (data.task, data.outputs, data.classes) == ("multitask", 6, (*"01234", "jsl"))
    assert data.table.attrs["labels"] == ["kl", "jsl"], "both are kept with the split"


@pytest.mark.parametrize(("name", "labels"), [("kl", KL), ("jsl", JSL)])
def test_a_head_is_judged_by_the_knees_whose_label_is_known(name, labels, plain):
    data = heads.both(plain())
    view = data.head(name)
    for side in ("train", "val", "test"):
        own, whole = getattr(view, side), getattr(data, side)
        known = np.flatnonzero(np.isfinite(np.array(labels)[whole.rows]))
        expected = np.array(labels)[whole.rows][known]
        np.testing.assert_array_equal(own.labels, expected)
        assert own.labels.dtype == np.int64
        np.testing.assert_array_equal(own.pictures(), whole.pictures(known))
        np.testing.assert_array_equal(own.inputs(np.array([0]))[0], whole.pictures(known[:1]))
        assert own.table["path"].tolist() == whole.table["path"].iloc[known].tolist()
        named = [view.classes[label] for label in own.labels]
        assert own.table["class"].tolist() == named
    assert view.image_shape == data.image_shape
    assert "labels" not in view.table.attrs and view.table.attrs["notes"] == ["a note"]


def test_heads_have_all_their_classes(plain):
    data = heads.both(plain())
    grades, loss = data.head("kl"), data.head("jsl")
    assert 4 in KL and 4 in data.train.table["kl"].to_numpy()
    assert grades.classes == list("01234") == grades.table.attrs["classes"]
    assert (grades.task, grades.outputs) == ("multiclass", 5)
    assert loss.classes == ["no jsl", "jsl"] == loss.table.attrs["classes"]
    assert (loss.task, loss.outputs) == ("binary", 1)
    few = heads.both(plain(kl=[min(grade, 1) for grade in KL])).head("kl")
    assert few.classes == list("01234") and few.outputs == 5


def test_what_is_stored_for_one_head_is_not_taken_for_the_other(plain):
    data = heads.both(plain())
    assert len({data.key, data.head("kl").key, data.head("jsl").key}) == 3
    whole = heads.both(plain(kl=np.nan_to_num(KL), jsl=np.nan_to_num(JSL)))
    assert whole.head("kl").key == whole.head("jsl").key, "the same pictures"


def test_selection_sees_no_test_picture_and_no_test_label(plain):
    data = heads.both(plain())
    hidden = data.without_test()
    for one in (hidden, hidden.head("kl"), hidden.head("jsl")):
        with pytest.raises(PermissionError, match="hidden"):
            _ = one.test
    for one in (hidden.head("kl"), hidden.head("jsl")):
        assert set(one.table["split"]) == {"train", "val"}
    tested = hidden.table[hidden.table["split"] == "test"]
    assert tested[["kl", "jsl", "kl_1"]].isna().all(axis=None) and tested["age"].notna().all()
    np.testing.assert_array_equal(hidden.train.targets(), data.train.targets())
    np.testing.assert_array_equal(hidden.val.targets(), data.val.targets())
    assert data.test.table["kl"].notna().any(), "the data given is as it was"


def test_a_head_that_cannot_be_trained_chosen_by_or_judged_is_refused(plain):
    side = pd.Series(["train", "train", "train", "train", "val", "test"] * 3)
    kl = np.where(side == "test", N, KL)
    jsl = np.where(side == "val", 0.0, JSL)
    with pytest.raises(DataError) as found:
        heads.both(plain(kl=kl, jsl=jsl))
    said = [(problem.path, problem.reason) for problem in found.value.problems]
    assert said == [
        ("kl", "has 0 different known values in the part test, expected 1 or more"),
        ("jsl", "has 1 different known values in the part val, expected 2 or more"),
    ]
    with pytest.raises(DataError, match="jsl.*0 different known values in the part train"):
        heads.both(plain(jsl=np.where(side == "train", N, JSL)))


def test_class_folders_of_grades_are_refused(tiny_data):
    with pytest.raises(UsageError, match=r"no column kl and no jsl .* need a folder with JSL\.csv"):
        heads.both(tiny_data())
