import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkeras.errors import DataError
from medkeras.preparation import audit, splits
from medkeras.readers import bone


def table_of(labels_of, copies=()):
    """Builds a table from {patient: labels of its pictures}; copies: pairs of equal rows."""
    rows = [(patient, label) for patient, labels in labels_of.items() for label in labels]
    table = pd.DataFrame(rows, columns=["patient", "label"])
    table["class"] = "c" + table["label"].astype(str)
    table["path"] = [f"{number}.png" for number in range(len(table))]
    table["sha256"] = [f"hash {number}" for number in range(len(table))]
    for first, second in copies:
        table.loc[second, "sha256"] = table.loc[first, "sha256"]
    return table


def sides(table):
    return table.groupby("patient")["split"].unique().map(lambda found: found.item()).to_dict()


@st.composite
def tables(draw):
    patients = draw(st.integers(9, 40))
    labels_of = {
        f"p{number}": draw(st.lists(st.integers(0, 2), min_size=1, max_size=4))
        for number in range(patients)
    }
    size = sum(map(len, labels_of.values()))
    row = st.integers(0, size - 1)
    return table_of(labels_of, draw(st.lists(st.tuples(row, row), max_size=4)))


@settings(max_examples=80, deadline=None)
@given(tables(), st.integers(0, 5))
def test_no_patient_and_no_copy_is_divided(table, seed):
    try:
        divided = splits.by_patient(table, seed=seed)
    except DataError as fault:
        # Only where a class really has too few groups of patients that can be separated.
        joined = splits._groups(table)
        few = [name for name, rows in joined.groupby(table["class"]) if rows.nunique() < 9]
        assert few, fault
        return
    assert divided.groupby("patient")["split"].nunique().eq(1).all()
    assert divided.groupby("sha256")["split"].nunique().eq(1).all()
    assert divided.groupby("class")["split"].nunique().eq(3).all()
    assert divided["path"].tolist() == table["path"].tolist()


@settings(max_examples=40, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(table, random):
    order = list(range(len(table)))
    random.shuffle(order)
    try:
        expected = splits.by_patient(table, seed=3)
    except DataError:
        return
    shuffled = splits.by_patient(table.iloc[order], seed=3)
    assert shuffled["split"].to_dict() == expected["split"].to_dict()


def test_shares_hold_in_every_class():
    table = table_of({f"p{n}": [n % 3] * (1 + n % 4) for n in range(300)})
    divided = splits.by_patient(table, seed=0)
    found = divided.groupby(["class", "split"]).size().unstack()
    shares = found.div(found.sum(axis=1), axis=0)
    # Within half of the largest patient, who has four of a class's 250 pictures.
    assert shares["test"].sub(0.15).abs().le(2 / 250).all()
    assert shares["val"].sub(0.15).abs().le(2 / 250).all()


def test_seeds_give_other_splits_and_the_same_seed_the_same():
    table = table_of({f"p{n}": [n % 2] for n in range(100)})
    first = sides(splits.by_patient(table, seed=0))
    assert first == sides(splits.by_patient(table, seed=0))
    other = sides(splits.by_patient(table, seed=1))
    assert sum(first[patient] != other[patient] for patient in first) > 20


def test_more_patients_move_few():
    labels_of = {f"p{n}": [n % 2] for n in range(200)}
    before = sides(splits.by_patient(table_of(labels_of), seed=0))
    labels_of.update({f"new{n}": [n % 2] for n in range(10)})
    after = sides(splits.by_patient(table_of(labels_of), seed=0))
    assert sum(before[patient] != after[patient] for patient in before) <= 12


def test_three_patients_of_a_class_are_enough_and_two_are_not():
    plenty = {f"p{n}": [0] for n in range(20)}
    divided = splits.by_patient(table_of({**plenty, "a": [1], "b": [1, 1], "c": [1]}), seed=0)
    assert sorted(sides(divided)[patient] for patient in "abc") == ["test", "train", "val"]
    with pytest.raises(DataError, match="c1: needs a patient .* has train 1, val 1, test 0"):
        splits.by_patient(table_of({**plenty, "a": [1], "b": [1, 1]}), seed=0)


def test_copies_leave_a_class_with_too_few():
    labels_of = {**{f"p{n}": [0] for n in range(9)}, "a": [1], "b": [1], "c": [1]}
    with pytest.raises(DataError, match="c1"):
        splits.by_patient(table_of(labels_of, copies=[(9, 10)]), seed=0)


def published(labels_of, test):
    table = table_of(labels_of)
    table["split"] = np.where(table["patient"].isin(test), "test", "train")
    return table


def test_a_published_test_side_stays():
    labels_of = {f"p{n}": [n % 2] for n in range(40)}
    table = published(labels_of, [f"p{n}" for n in range(10)])
    divided = splits.by_patient(table, seed=0)
    assert (divided["split"] == "test").equals(table["split"] == "test")
    assert (divided["split"] == "val").sum() == 4
    again = splits.by_patient(table, seed=0, resplit=True)
    assert not (again["split"] == "test").equals(table["split"] == "test")


def test_a_published_validation_side_stays_too():
    table = published({f"p{n}": [n % 2] for n in range(40)}, [f"p{n}" for n in range(10)])
    table.loc[table["patient"].isin(["p20", "p21", "p22"]), "split"] = "val"
    assert splits.by_patient(table, seed=0)["split"].equals(table["split"])


def test_a_published_split_that_divides_patients_is_refused():
    table = published({f"p{n}": [n % 2, n % 2] for n in range(40)}, [f"p{n}" for n in range(10)])
    table.loc[0, "split"] = "train"
    table.loc[79, "split"] = "test"
    with pytest.raises(DataError) as caught:
        splits.by_patient(table, seed=0)
    assert {problem.path for problem in caught.value.problems} == {"patient p0", "patient p39"}
    assert all("--resplit" in problem.remedy for problem in caught.value.problems)
    assert sides(splits.by_patient(table, seed=0, resplit=True))


def test_a_published_split_with_copies_on_two_sides_is_refused():
    table = published({f"p{n}": [n % 2] for n in range(40)}, [f"p{n}" for n in range(10)])
    table.loc[30, "sha256"] = table.loc[0, "sha256"]
    with pytest.raises(DataError, match="p0, p30.*identical"):
        splits.by_patient(table, seed=0)


def test_unknown_sides_and_shares_are_refused():
    table = table_of({f"p{n}": [n % 2] for n in range(40)})
    with pytest.raises(DataError, match="holds"):
        splits.by_patient(table.assign(split="holdout"), seed=0)
    with pytest.raises(ValueError, match="test=0.7"):
        splits.by_patient(table, seed=0, test=0.7, validation=0.4)


def test_counts_add_up():
    table = splits.by_patient(table_of({f"p{n}": [n % 2] * 3 for n in range(40)}), seed=0)
    counted = splits.counts(table).set_index(["class", "split"])
    assert counted.loc[("all", "all")].tolist() == [120, 40]
    assert counted.loc[("c0", ["train", "val", "test"]), "pictures"].sum() == 60
    assert counted.loc[("c1", "test")].tolist() == [9, 3]


def test_real_groups_and_copies_stay_together(shared):
    for name, copies in (("bones_fracatlas", 2), ("bones_sr2022", 0)):
        table = audit.checked(bone.read(shared / "data" / name), skip_bad=True)
        assert table["sha256"].duplicated().sum() == copies
        for seed in range(5):
            divided = splits.by_patient(table, seed=seed)
            assert divided.groupby("patient")["split"].nunique().eq(1).all()
            assert divided.groupby("sha256")["split"].nunique().eq(1).all()


def test_a_leak_in_a_published_split_is_found(shared):
    table = bone.read(shared / "data" / "nih64")
    with pytest.raises(DataError) as caught:
        splits.by_patient(table, seed=0)
    assert len(caught.value.problems) == 15
