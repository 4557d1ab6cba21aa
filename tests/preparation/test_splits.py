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
    table = table_of({f"p{n}": [n % 3] * (1 + n % 4) for n in range(1500)})
    divided = splits.by_patient(table, seed=0)
    found = divided.groupby(["class", "split"]).size().unstack()
    # Each of 500 patients is drawn by a hash: three standard deviations are 0.05.
    assert found["test"].div(found.sum(axis=1)).sub(0.15).abs().le(0.05).all()
    rest = found["train"] + found["val"]
    # Within half of the largest patient, who has four pictures.
    assert found["val"].sub(rest * 0.15 / 0.85).abs().le(2).all()


def test_seeds_give_other_splits_and_the_same_seed_the_same():
    table = table_of({f"p{n}": [n % 2] for n in range(100)})
    first = sides(splits.by_patient(table, seed=0))
    assert first == sides(splits.by_patient(table, seed=0))
    other = sides(splits.by_patient(table, seed=1))
    assert sum(first[patient] != other[patient] for patient in first) > 20


@settings(max_examples=60, deadline=None)
@given(st.integers(30, 60), st.integers(1, 60), st.integers(0, 5))
def test_more_patients_move_nobody_into_or_out_of_the_test_part(before, further, seed):
    labels_of = {f"p{n}": [n % 2] * (1 + n % 3) for n in range(before)}
    divided = splits.by_patient(table_of(labels_of), seed=seed)
    first = {patient: side == "test" for patient, side in sides(divided).items()}
    labels_of |= {f"new{n}": [n % 2, (n + 1) % 2] for n in range(further)}
    after = sides(splits.by_patient(table_of(labels_of), seed=seed))
    moved = [patient for patient in first if first[patient] != (after[patient] == "test")]
    # A class that chance left without a test patient was lent one, and it was said.
    assert len(moved) <= len(divided.attrs["notes"])


def test_more_patients_move_few_between_training_and_validation():
    labels_of = {f"p{n}": [n % 2] for n in range(200)}
    before = sides(splits.by_patient(table_of(labels_of), seed=0))
    labels_of.update({f"new{n}": [n % 2] for n in range(10)})
    after = sides(splits.by_patient(table_of(labels_of), seed=0))
    assert sum(before[patient] != after[patient] for patient in before) <= 6


def test_three_patients_of_a_class_are_enough_and_two_are_not():
    plenty = {f"p{n}": [0] for n in range(20)}
    for seed in range(10):
        few = {**plenty, "a": [1], "b": [1, 1], "c": [1]}
        divided = splits.by_patient(table_of(few), seed=seed)
        assert sorted(sides(divided)[patient] for patient in "abc") == ["test", "train", "val"]
    with pytest.raises(DataError, match="c1: needs a patient .* has train 1, val 1, test 0"):
        splits.by_patient(table_of({**plenty, "a": [1], "b": [1, 1]}), seed=0)


def findings_of(patients, seed=0):
    """Builds a multi-label table: a rare finding, a common one, one that nobody has."""
    rng = np.random.default_rng(seed)
    patient = np.repeat([f"p{n:04d}" for n in range(patients)], rng.integers(1, 4, patients))
    table = pd.DataFrame({"patient": patient, "path": [f"{n}.png" for n in range(len(patient))]})
    rare = rng.random(len(table)) < 0.04
    table["Rare"] = np.where(rng.random(len(table)) < 0.3, np.nan, rare.astype(float))
    table["Common"] = (rng.random(len(table)) < 0.5).astype(float)
    table["Never"] = np.nan
    table.attrs["labels"] = ["Rare", "Common", "Never"]
    return table


def test_many_labels_are_spread_at_once():
    table = findings_of(600)
    divided = splits.by_patient(table, seed=0)
    assert divided.groupby("patient")["split"].nunique().eq(1).all()
    rest = divided[divided["split"] != "test"]
    for name in ("Rare", "Common"):
        for value in (0, 1):
            of_value = rest[rest[name] == value]
            share = (of_value["split"] == "val").mean()
            assert abs(share - 0.15 / 0.85) < 0.03 + 2 / len(of_value), (name, value)
    counted = splits.counts(divided).set_index(["class", "split"])["pictures"]
    assert counted["Rare", "all"] == (table["Rare"] == 1).sum()
    assert counted["Never", "all"] == 0 and counted["all", "all"] == len(table)


@settings(max_examples=40, deadline=None)
@given(tables(), st.integers(2, 4), st.integers(0, 3))
def test_folds_test_everyone_once_and_divide_nobody(table, number, seed):
    try:
        parts = [splits.by_patient(table, seed=seed, fold=(k, number)) for k in range(number)]
    except DataError:
        few = splits._groups(table).groupby(table["class"]).nunique().min()
        assert few < number + 9, "only where a class has too few groups of patients"
        return
    tested = sum((part["split"] == "test").astype(int) for part in parts)
    assert tested.eq(1).all()
    for part in parts:
        assert part.groupby("patient")["split"].nunique().eq(1).all()
        assert part.groupby("class")["split"].nunique().eq(3).all()


def test_folds_are_even_in_every_class():
    table = table_of({f"p{n}": [n % 3] * (1 + n % 4) for n in range(300)})
    parts = [splits.by_patient(table, seed=0, fold=(k, 5)) for k in range(5)]
    found = pd.concat([part[part["split"] == "test"]["class"].value_counts() for part in parts])
    assert found.between(50 - 4, 50 + 4).all()


def test_a_class_with_fewer_patients_than_folds_is_refused_with_the_counts():
    table = table_of({**{f"p{n}": [0] for n in range(20)}, "a": [1], "b": [1], "c": [1]})
    with pytest.raises(DataError, match="c1: has 3 patients, expected at least 5 for 5 folds"):
        splits.by_patient(table, seed=0, fold=(0, 5))


def test_with_a_published_test_side_the_folds_validate():
    table = published({f"p{n}": [n % 2] for n in range(40)}, [f"p{n}" for n in range(10)])
    parts = [splits.by_patient(table, seed=0, fold=(k, 3)) for k in range(3)]
    assert all((part["split"] == "test").equals(table["split"] == "test") for part in parts)
    validated = sum((part["split"] == "val").astype(int) for part in parts)
    assert validated.equals((table["split"] == "train").astype(int))


def test_patients_that_the_audit_joined_stay_together():
    table = table_of({f"p{n}": [n % 2] for n in range(40)})
    table["group"] = table["patient"].replace({"p7": "p1", "p30": "p1"})
    for seed in range(8):
        found = sides(splits.by_patient(table, seed=seed))
        assert found["p1"] == found["p7"] == found["p30"]


def test_a_copy_under_a_new_name_takes_nobody_out_of_the_test_part():
    table = table_of({f"p{n:02d}": [n % 2] for n in range(60)})
    before = sides(splits.by_patient(table, seed=0))
    tested = [patient for patient in before if before[patient] == "test"]
    for patient in tested:
        copy = table[table["patient"] == patient].assign(patient=f"a{patient}", path="copy.png")
        both = pd.concat([table, copy], ignore_index=True)
        after = sides(splits.by_patient(both, seed=0))
        assert after[patient] == after[f"a{patient}"] == "test"


def test_a_rare_finding_is_tested_on_and_it_is_said():
    table = findings_of(200)
    table["Rare"] = table["patient"].isin(["p0003", "p0050", "p0100"]).astype(float)
    said = 0
    for seed in range(12):
        divided = splits.by_patient(table, seed=seed)
        found = divided[divided["Rare"] == 1].groupby("split")["patient"].nunique()
        assert found["test"] >= 1
        said += any(note["path"] == "Rare = 1.0" for note in divided.attrs["notes"])
    assert 3 < said < 12, "chance alone leaves three patients out of the test part in 61 %"


def test_too_few_patients_and_unknown_ones_are_refused():
    table = findings_of(2)
    with pytest.raises(DataError, match="the data: needs a patient on every side"):
        splits.by_patient(table, seed=0)
    table = table_of({f"p{n}": [n % 2] for n in range(40)})
    table.loc[3, "patient"] = None
    with pytest.raises(DataError, match="3.png: has no patient"):
        splits.by_patient(table, seed=0)


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
    with pytest.raises(DataError, match="p0, p30.*copies"):
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
    tested = table[(table["split"] == "test") & (table["class"] == "c1")]
    assert counted.loc[("c1", "test")].tolist() == [len(tested), len(tested) // 3]


def test_real_groups_and_copies_stay_together(shared):
    for name, copies, every in (("bones_fracatlas", 2, 1), ("bones_sr2022", 0, 2)):
        table = bone.read(shared / "data" / name)
        # Some of the groups, as it takes seconds to decode all of them.
        groups = sorted(set(table["patient"]))[::every]
        table = table[table["patient"].isin(groups)].reset_index(drop=True)
        table = audit.checked(table, skip_bad=True)
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
