"""Risk factors are filled in and scaled by the training part; no other row is looked at."""

import numpy as np
import pandas as pd
import pytest

from medkeras.errors import UsageError
from medkeras.preparation import augment, risks


def table():
    nan = np.nan
    return pd.DataFrame(
        {
            "split": ["train", "train", "train", "val", "test"],
            "age": [50.0, 60.0, nan, nan, 9000.0],
            "alike": [1.0, 1.0, 1.0, 1.0, 2.0],
            "nobody": [nan, nan, nan, 3.0, nan],
        }
    )


def test_unknown_is_the_mean_of_the_training_part_and_known_is_scaled_by_it():
    scale = risks.learned(table(), ["age"])
    assert scale.mean == (55.0,) and scale.deviation == (5.0,)
    np.testing.assert_allclose(scale.values(table())[:, 0], [-1, 1, 0, 0, 1789])


def test_what_is_alike_or_unknown_everywhere_stays_finite():
    scale = risks.learned(table(), ["alike", "nobody"])
    np.testing.assert_array_equal(scale.values(table()), [[0, 0], [0, 0], [0, 0], [0, 3], [1, 0]])


def test_other_rows_change_nothing():
    other = table()
    other.loc[other["split"] != "train", ["age", "alike", "nobody"]] = -7.0
    columns = ["age", "alike", "nobody"]
    assert risks.learned(other, columns) == risks.learned(table(), columns)


def test_a_missing_factor_is_named_with_all_that_are_needed():
    scale = risks.learned(table(), ["age", "alike"])
    with pytest.raises(
        UsageError, match="no risk factor alike in the table; needed are age, alike"
    ):
        scale.values(table().drop(columns="alike"))


def test_the_data_gives_pictures_and_factors(tiny_data):
    plain = tiny_data(views=1)
    plain.table["age"] = np.arange(len(plain.table), dtype=float)
    data = risks.beside(plain, ["age"])
    pictures, factors = data.val.inputs(np.array([1, 0]))
    np.testing.assert_array_equal(pictures, plain.val.inputs(np.array([1, 0]))[0])
    np.testing.assert_array_equal(factors, data.risks.values(data.val.table)[[1, 0]])
    assert factors.dtype == np.float32 and data.without_test().risks == data.risks


def test_of_the_two_either_can_be_all_that_goes_in(tiny_data):
    plain = tiny_data(views=3, augment=augment.knee())
    plain.table["age"] = np.arange(len(plain.table), dtype=float)
    assert risks.beside(plain, ["age"], ("image",)) is plain
    alone = risks.beside(plain, ["age"], ("risk",))
    (factors,) = alone.train.inputs(np.array([2, 0]), view=1)
    np.testing.assert_array_equal(factors, alone.train.factors[[2, 0]])
    np.testing.assert_array_equal(alone.train.pictures(), plain.train.pictures())
    assert (alone.augment, alone.views) == (None, 1), "nobody sees a moved picture"
    assert not alone.without_test().seen and risks.beside(plain, ["age"]).augment
