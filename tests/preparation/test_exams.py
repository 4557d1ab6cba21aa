import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medkeras.errors import DataError, UsageError
from medkeras.preparation import audit, augment, conform, control, exams, splits
from medkeras.readers import mrnet, tables

PLANES = ["axial", "coronal", "sagittal"]
FINDINGS = ["abnormal", "acl", "meniscus"]
SIZE = 12
SHAPE = (SIZE, SIZE, 1)


@pytest.fixture
def table(tmp_path):
    """Nine exams of 2 to 5 slices; six are trained on. No two slices are alike."""
    rng = np.random.default_rng(0)
    rows = []
    for exam in range(9):
        row = {"path": f"train/{exam:04d}", "patient": f"{exam:04d}"}
        for plane in PLANES:
            row[plane] = str(tmp_path / "data" / plane / f"{exam:04d}.npy")
            Path(row[plane]).parent.mkdir(parents=True, exist_ok=True)
            shape = (int(rng.integers(2, 6)), SIZE, SIZE)
            np.save(row[plane], rng.integers(20, 200, shape, dtype=np.uint8))
        row |= {"abnormal": 1.0, "acl": float(exam % 2), "meniscus": float(exam % 3 == 0)}
        row["split"] = ("train", "val", "train", "train", "test", "train")[exam % 6]
        rows.append(row)
    table = pd.DataFrame(rows)
    table.loc[[2, 3], "acl"] = np.nan
    table.attrs = {"images": PLANES, "labels": FINDINGS, "notes": []}
    return table


@pytest.fixture
def opened(table):
    def make(batch_size=2, **options):
        return exams.volumes(table, SHAPE, batch_size, **{"findings": FINDINGS, **options})

    return make


def slices(table, row, plane):
    return np.load(table[plane][row])


def test_a_batch_is_the_slices_of_its_exams_in_order_and_whose_they_are(table, opened):
    part = opened().train
    rows = np.array([3, 0, 5])
    *pixels, axial, coronal, sagittal = part.inputs(rows)
    for plane, found, index in zip(PLANES, pixels, (axial, coronal, sagittal), strict=True):
        expected = [slices(table, row, plane) for row in part.rows[rows]]
        np.testing.assert_array_equal(found, np.concatenate(expected)[..., None])
        assert index.tolist() == [n for n, one in enumerate(expected) for _ in one]
        assert found.dtype == np.uint8 and index.dtype == np.int32
        assert type(found) is type(index) is np.ndarray


@pytest.mark.parametrize("view", [None, 1])
def test_an_exam_is_the_same_in_any_batch(opened, view):
    part = opened(augment=augment.knee_mri()).train
    together = part.inputs(np.arange(len(part)), view)
    for row in range(len(part)):
        alone = part.inputs(np.array([row]), view)
        for plane in range(3):
            of_row = together[plane][together[3 + plane] == row]
            np.testing.assert_array_equal(alone[plane], of_row)
            assert set(alone[3 + plane]) == {0}


def test_batches_hold_every_exam_once_and_in_order(table, opened):
    part = opened(batch_size=4).train
    batches = list(part.batches())
    assert [batch[3].max() + 1 for batch in batches] == [4, 2]
    for number, plane in enumerate(PLANES):
        expected = np.concatenate([slices(table, row, plane) for row in part.rows])
        found = np.concatenate([batch[number] for batch in batches])
        np.testing.assert_array_equal(found[..., 0], expected)


def test_a_batch_may_be_empty(opened):
    pixels, index = opened(planes=["axial"]).val.inputs(np.array([], int))
    assert pixels.shape == (0, *SHAPE) and index.shape == (0,)


def test_a_view_is_that_of_the_exams_row_in_the_whole_table(table, opened):
    moves = augment.knee_mri()
    data = opened(augment=moves, views=3, seed=4)
    made = data.train.inputs(np.array([4, 1]), view=2)
    for number, plane in enumerate(PLANES):
        for place, row in enumerate(data.train.rows[[4, 1]]):
            expected = moves.apply(slices(table, row, plane), plane, 4, 2, int(row))
            np.testing.assert_array_equal(made[number][made[3 + number] == place, ..., 0], expected)
    again = data.train.inputs(np.array([4, 1]), view=2)
    assert all(np.array_equal(one, other) for one, other in zip(made, again, strict=True))
    other = data.train.inputs(np.array([4, 1]), view=1)
    assert not np.array_equal(made[0], other[0])


def test_without_a_view_or_augmentation_exams_are_as_stored(opened):
    plain, moved = opened(), opened(augment=augment.knee_mri(), views=2)
    assert plain.views == 1 and moved.views == 2
    for data, view in ((moved, None), (plain, 7)):
        for found, stored in zip(
            data.train.inputs(np.array([1]), view), plain.train.inputs(np.array([1])), strict=True
        ):
            np.testing.assert_array_equal(found, stored)


def test_lengths_say_how_many_slices_an_exam_has(opened):
    part = opened().train
    for number, plane in enumerate(PLANES):
        index = part.inputs(np.arange(len(part)))[3 + number]
        for source in (plane, f"{plane}_exam"):
            assert part.lengths(source).tolist() == np.bincount(index).tolist()


def test_a_picture_is_the_middle_slice_of_the_first_plane(table, opened):
    part = opened(planes=["coronal", "axial"]).val
    pictures = part.pictures()
    assert pictures.shape == (len(part), *SHAPE) and type(pictures) is np.ndarray
    for row, picture in zip(part.rows, pictures, strict=True):
        volume = slices(table, row, "coronal")
        np.testing.assert_array_equal(picture[..., 0], volume[len(volume) // 2])
    np.testing.assert_array_equal(part.pictures(np.array([1])), pictures[[1]])
    np.testing.assert_array_equal(part.volume(1, "axial"), slices(table, part.rows[1], "axial"))


def test_only_the_planes_asked_for_are_read(table, opened, own_cache):
    for file in [*table["axial"], *table["coronal"]]:
        Path(file).unlink()
    data = opened(planes=("sagittal",))
    pixels, index = data.val.inputs(np.array([0]))
    np.testing.assert_array_equal(pixels[..., 0], slices(table, data.val.rows[0], "sagittal"))
    assert data.planes == ("sagittal",) and data.image_shape == SHAPE
    assert len(list((own_cache / "volumes").iterdir())) == 2


@pytest.mark.parametrize("plane", PLANES)
def test_the_key_changes_with_the_pixels_of_any_plane(table, opened, plane):
    before = opened()
    changed = slices(table, 3, plane)
    changed[0, 0, 0] ^= 1
    np.save(table[plane][3], changed)
    after = opened()
    assert after.key != before.key
    for source in PLANES:
        assert (after.key_of(source) != before.key_of(source)) == (source == plane)
        assert after.key_of(f"{source}_exam") == after.key_of(source)


def test_the_key_is_what_is_stored_and_nothing_else(table, opened):
    key = opened().key
    others = {opened(stretch=True).key, opened(planes=["axial"]).key, opened(planes=PLANES[1:]).key}
    others.add(exams.volumes(table, (16, 16, 1), 2, findings=FINDINGS).key)
    assert len(others | {key}) == 5
    assert opened(batch_size=1, seed=3, findings=["acl"], augment=augment.knee_mri()).key == key


def test_stretched_volumes_span_0_to_255(table, opened):
    data = opened(stretch=True)
    for row in range(len(data.train)):
        for plane in PLANES:
            volume = data.train.volume(row, plane)
            assert volume.min() == 0 and volume.max() == 255
    assert data.preprocessing == {**conform.volume_config(True), "planes": PLANES}
    assert opened().preprocessing == {**conform.volume_config(), "planes": PLANES}
    assert json.loads(json.dumps(data.preprocessing)) == data.preprocessing


def test_without_test_labels_and_exams_are_out_of_reach(opened):
    for data in (opened(), opened(findings=["acl"])):
        hidden = data.without_test()
        with pytest.raises(PermissionError, match="test"):
            hidden.test  # noqa: B018
        assert hidden.planes == data.planes and hidden.key == data.key
        of_test = hidden.table["split"] == "test"
        assert hidden.table.loc[of_test, list(data.findings)].isna().all(axis=None)
        np.testing.assert_array_equal(hidden.val.inputs(np.array([0]))[0], data.val.inputs([0])[0])
        assert len(data.test) > 0, "the data set itself is as it was"


def test_findings_are_labels_of_1_0_or_nan(table, opened):
    data = opened()
    assert (data.task, data.outputs, data.classes, data.unit) == ("multilabel", 3, FINDINGS, "exam")
    assert data.train.labels.dtype == np.float32
    np.testing.assert_array_equal(data.train.labels, table.iloc[data.train.rows][FINDINGS])
    assert np.isnan(data.train.labels).any()


def test_progress_counts_the_volumes_of_all_planes(opened):
    told = []
    opened(progress=lambda done, total: told.append((done, total)))
    assert told == [(number, 27) for number in range(1, 28)]


def test_what_cannot_be_asked_for_is_refused(table, opened):
    for shape in ((12, 16, 1), (12, 12, 3), (12, 12)):
        with pytest.raises(UsageError, match="square"):
            exams.volumes(table, shape, 2, findings=FINDINGS)
    with pytest.raises(UsageError, match="'oblique'.*axial, coronal, sagittal"):
        opened(planes=["axial", "oblique"])
    with pytest.raises(UsageError, match="'tumour'.*abnormal, acl, meniscus"):
        opened(findings=["acl", "tumour"])
    with pytest.raises(UsageError, match="tables.single"):
        opened(findings=())


def test_a_single_finding_makes_two_classes_of_the_rows_where_it_is_known(table, opened):
    single = tables.single(table, "acl")
    data = exams.volumes(single, SHAPE, 2)
    assert (data.task, data.outputs, data.classes) == ("binary", 1, ["no acl", "acl"])
    assert tables.classes(single) == ["no acl", "acl"] and tables.files(single) == PLANES
    known = table.drop(index=[2, 3])
    assert list(single["path"]) == list(known["path"])
    assert single["label"].dtype == np.int64 and list(single["label"]) == list(known["acl"])
    assert not set(FINDINGS) & set(single), "hidden test labels would show through"
    (note,) = single.attrs["notes"]
    assert note["path"] == "acl" and "2 of 9 rows" in note["reason"]
    assert note["severity"] == "note"
    assert table.attrs["notes"] == [] and "labels" in table.attrs and "label" not in table


def test_all_findings_share_one_split(table):
    split = table.set_index("path")["split"]
    for finding in ("acl", "meniscus"):
        single = tables.single(table, finding).set_index("path")
        assert (single["split"] == split[single.index]).all()
    assert tables.single(table, "meniscus").attrs["notes"] == []


def test_a_finding_that_cannot_be_learned_is_refused(table):
    with pytest.raises(UsageError, match="'tumour'.*abnormal, acl, meniscus"):
        tables.single(table, "tumour")
    with pytest.raises(DataError, match="abnormal: is 1 in every row to train on"):
        tables.single(table, "abnormal")
    table.loc[table["split"] == "train", "acl"] = np.nan
    with pytest.raises(DataError, match="acl: has no row to train on"):
        tables.single(table, "acl")
    with pytest.raises(UsageError, match="has none"):
        tables.single(pd.DataFrame({"label": [0, 1], "class": ["a", "b"]}), "acl")


def test_a_written_phantom_comes_through(tmp_path, content_of):
    from medkeras.phantoms import knee_mri

    root = knee_mri.write(tmp_path / "mri", exams=15, valid=4, size=32, slices=(2, 6))
    before = content_of(root)
    table = audit.checked(mrnet.read(root), resplit=True)
    divided = splits.by_patient(table, seed=0)
    data = exams.volumes(divided, (32, 32, 1), 4, findings=FINDINGS, augment=augment.knee_mri())
    for plane in PLANES:
        assert data.stored[plane].lengths.tolist() == list(table[f"slices_{plane}"])
    parts = data.train, data.val, data.test
    assert sum(map(len, parts)) == 15
    for part in parts:
        for inputs in part.batches():
            assert [one.shape[1:] for one in inputs] == [(32, 32, 1)] * 3 + [()] * 3
    assert content_of(root) == before

    # The null control: what the audit knew of the real volumes must not bring them back.
    noisy = exams.volumes(control.noise(divided, 0, tmp_path / "noise"), (32, 32, 1), 4,
                          findings=FINDINGS)  # fmt: skip
    for plane in PLANES:
        assert noisy.key_of(plane) != data.key_of(plane)
        assert noisy.stored[plane].lengths.tolist() == [control.SLICES] * 15
