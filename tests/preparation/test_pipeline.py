from dataclasses import replace

import numpy as np
import pytest

from medkeras.preparation import augment, pipeline


def test_an_order_is_a_permutation_of_seed_stage_and_epoch():
    orders = {}
    for number in [(0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1)]:
        order = pipeline.order(50, *number)
        assert sorted(order) == list(range(50))
        np.testing.assert_array_equal(order, pipeline.order(50, *number))
        orders[number] = tuple(order)
    assert len(set(orders.values())) == 4
    assert tuple(range(50)) not in orders.values()


def batch(step):
    step = int(step)
    rows = np.arange(2 if step % 4 == 3 else 3)  # the last batch of an epoch is short
    return [np.full((len(rows), 4), step, np.uint8) + rows[:, None].astype(np.uint8)], rows


def listed(stream):
    return [(x.numpy().tolist(), y.numpy().tolist()) for x, y in stream]


@pytest.mark.parametrize("first", [1, 4, 7, 11])
def test_a_stream_that_starts_later_is_the_tail_of_the_whole(first):
    whole = listed(pipeline.stream(batch, 0, 12))
    assert len(whole) == 12
    assert listed(pipeline.stream(batch, first, 12)) == whole[first:]


def test_batches_keep_their_order_with_any_number_of_workers():
    assert listed(pipeline.stream(batch, 0, 12, 1)) == listed(pipeline.stream(batch, 0, 12, 4))


def test_the_number_of_steps_is_known():
    assert pipeline.stream(batch, 3, 12).cardinality().numpy() == 9


def test_inputs_are_float32_and_bare_where_there_is_one():
    (x, y) = next(iter(pipeline.stream(batch, 0, 2)))
    assert x.dtype.name == "float32" and y.dtype.name == "int64"
    two = pipeline.as_tensors(([np.zeros(2, np.uint8), np.ones(2, np.uint8)], np.zeros(2), 1.0))
    assert len(two) == 3 and isinstance(two[0], tuple) and len(two[0]) == 2


def test_weights_come_through():
    def weighted(step):
        inputs, labels = batch(step)
        return inputs, labels, labels.astype(np.float32) / 2

    _, labels, weights = next(iter(pipeline.stream(weighted, 0, 2)))
    np.testing.assert_allclose(weights, labels.numpy() / 2)


def test_validation_and_test_are_in_order_and_as_stored(tiny_data):
    data = tiny_data(augment=augment.radiograph(), views=2)
    for part in (data.val, data.test):
        assert list(part.rows) == sorted(part.rows)
        batches = [pictures for (pictures,) in part.batches()]
        np.testing.assert_array_equal(np.concatenate(batches), data.stored[part.rows])
        np.testing.assert_array_equal(part.pictures(), data.stored[part.rows])
        assert max(map(len, batches)) <= data.batch_size


def test_every_picture_is_on_one_side(tiny_data):
    data = tiny_data()
    rows = np.concatenate([data.train.rows, data.val.rows, data.test.rows])
    assert sorted(rows) == list(range(24)) and len(data.train) == 16


def test_a_view_is_that_of_the_row_in_the_table(tiny_data):
    data = tiny_data(augment=augment.radiograph(), views=2, seed=4)
    (made,) = data.train.inputs(np.array([5, 2]), view=1)
    for picture, row in zip(made, data.train.rows[[5, 2]], strict=True):
        np.testing.assert_array_equal(picture, data.augment.apply(data.stored[row], 4, 1, int(row)))
    assert not np.array_equal(made, data.train.inputs(np.array([5, 2]), view=0)[0])
    stored = data.train.inputs(np.array([5, 2]))[0]
    np.testing.assert_array_equal(stored, data.stored[data.train.rows[[5, 2]]])


def test_without_augmentation_a_view_is_the_stored_picture(tiny_data):
    data = tiny_data()
    np.testing.assert_array_equal(
        data.train.inputs(np.array([1]), 3)[0][0], data.stored[data.train.rows[1]]
    )


def test_without_test_labels_and_pictures_are_out_of_reach(tiny_data):
    data = tiny_data()
    hidden = data.without_test()
    with pytest.raises(PermissionError, match="test"):
        hidden.test  # noqa: B018
    of_test = hidden.table[hidden.table["split"] == "test"]
    assert set(of_test["label"]) == {-1} and set(of_test["class"]) == {""}
    assert hidden.classes == data.classes
    np.testing.assert_array_equal(hidden.val.labels, data.val.labels)
    assert set(data.test.labels) == {0, 1}, "the data set itself is as it was"


def test_classes_are_those_of_the_training_part(tiny_data):
    data = tiny_data(classes=3, pictures=36)
    data.table.loc[data.table["split"] != "train", "class"] = "other"
    assert data.classes == ["class0", "class1", "class2"]


def test_a_table_that_lists_its_classes_keeps_those_that_no_picture_has(tiny_data):
    data = tiny_data(classes=3, pictures=36)
    data.table.attrs["classes"] = ["class0", "class1", "class2", "class3"]
    hidden = data.without_test()
    assert data.classes == hidden.classes == data.table.attrs["classes"]
    assert data.outputs == hidden.outputs == 4


def test_two_classes_need_one_logit(tiny_data):
    assert tiny_data().outputs == 1
    assert tiny_data(classes=4, pictures=48).outputs == 4


def test_images_reads_a_written_phantom(phantom_folder, content_of):
    from medkeras.preparation import cache, splits
    from medkeras.readers import bone

    root = phantom_folder()
    before = content_of(root)
    table = splits.by_patient(bone.read(root), seed=0)
    data = pipeline.images(table.sample(frac=1, random_state=1), (24, 20, 1), 4, augment=None)
    assert data.image_shape == (24, 20, 1) and data.classes == ["healthy", "fractured"]
    assert data.views == 1, "one view is all there is without augmentation"
    assert data.key == cache.key(data.table, (24, 20, 1))
    assert list(data.table.index) == list(range(len(table)))
    assert content_of(root) == before


def test_many_findings_keep_their_unknown_labels(tiny_data):
    data = tiny_data()
    table = data.table.assign(oedema=[1.0, np.nan, 0.0] * 8, effusion=0.0)
    table.attrs["labels"] = ["oedema", "effusion"]
    many = replace(data, table=table, findings=("oedema", "effusion"))
    assert (many.task, many.outputs, many.classes) == ("multilabel", 2, ["oedema", "effusion"])
    assert many.train.labels.dtype == np.float32
    expected = table.loc[table["split"] == "train", ["oedema", "effusion"]]
    np.testing.assert_array_equal(many.train.labels, expected)
    hidden = many.without_test().table
    assert hidden.loc[hidden["split"] == "test", ["oedema", "effusion"]].isna().all(axis=None)
    assert data.task == "binary"


def test_whole_numbers_stay_and_pictures_become_floats():
    batch = [np.zeros((3, 2), np.uint8), np.array([0, 0, 1], np.int32)], np.ones(2)
    (pictures, exam), labels = pipeline.as_tensors(batch)
    assert pictures.dtype == "float32" and exam.dtype == "int32" and len(labels) == 2
