import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medkeras.errors import DataError
from medkeras.files import decode
from medkeras.preparation import boxes, cutting, halves, jointless
from medkeras.readers import films

SIZE = 64


def drawn(box, shape=(SIZE, SIZE)):
    """A picture with a bright rectangle; box as shares."""
    picture = np.full(shape, 20, np.uint8)
    height, width = shape
    left, right = (round((box[0] + end * box[2] / 2) * width) for end in (-1, 1))
    top, bottom = (round((box[1] + end * box[3] / 2) * height) for end in (-1, 1))
    picture[top:bottom, left:right] = 220
    return picture


def seen(picture):
    """Centre and size of what is bright, as shares."""
    rows, columns = np.nonzero(picture > 120)
    height, width = picture.shape
    ends = [columns.min(), columns.max() + 1], [rows.min(), rows.max() + 1]
    return np.array(
        [
            (columns.mean() + 0.5) / width,
            (rows.mean() + 0.5) / height,
            np.ptp(ends[0]) / width,
            np.ptp(ends[1]) / height,
        ]
    )


@pytest.fixture
def knees():
    """Makes data of rectangles that are their own boxes."""

    def make(count=12, **options):
        rng = np.random.default_rng(3)
        known = np.round(rng.uniform(0.35, 0.6, (count, 4)) * SIZE / 2) * 2 / SIZE
        table = pd.DataFrame(known.astype(np.float32), columns=list(halves.BOX))
        table["path"] = table["patient"] = [f"p{n}" for n in range(count)]
        table["split"] = [("train", "train", "val", "test")[n % 4] for n in range(count)]
        stored = np.stack([drawn(box) for box in known])[..., None]
        key = hashlib.sha256(stored.tobytes()).hexdigest()
        return boxes.Data(table, stored, key, 4, views=None, **options)

    return make


@pytest.fixture
def filmed(tmp_path):
    """Writes films and returns their table, as `films.read` has it."""

    def make(pictures, rows):
        (tmp_path / "films").mkdir()
        for name, pixels in pictures.items():
            Image.fromarray(pixels).save(tmp_path / "films" / name)
        text = ["film,side,x,y,width,height", *rows]
        (tmp_path / "joints.csv").write_text("\n".join(text) + "\n")
        return films.read(tmp_path)

    return make


@pytest.mark.parametrize("side", ("right", "left"))
def test_a_box_comes_back_from_what_the_model_sees(side):
    for half in (halves.Half(side, 30, 90, 40), halves.Half(side, 0, 40, 90)):
        box = (half.start + 7.5, 11.0, 12.0, 20.0)
        np.testing.assert_allclose(half.place(half.shares(box)), box, atol=1e-4)


@pytest.mark.parametrize("side", ("right", "left"))
def test_the_model_s_box_lies_where_its_picture_shows_it(side):
    half, film = halves.Half(side, 30, 60, 40), np.zeros((60, 100), np.uint8)
    film[12:40, 36:52] = 255
    picture = half.picture(film, (120, 120, 1))[..., 0]
    np.testing.assert_allclose(seen(picture), half.shares((36, 12, 16, 28)), atol=0.01)


def test_both_knees_of_a_symmetric_film_look_alike():
    right = np.full((60, 50), 90, np.uint8)
    right[20:40, 10:40] = 200
    right[25:35, 35:40] = 250  # medial
    right[:, 46:] = 10  # half of the gap
    film = np.hstack([right, right[:, ::-1]])
    one, other = halves.both(film)
    assert (one.side, one.start, one.width) == ("right", 0, 50)
    assert (other.side, other.start, other.width) == ("left", 50, 50)
    pair = [half.picture(film, (60, 60, 1)) for half in (one, other)]
    np.testing.assert_array_equal(*pair)
    assert np.nonzero(pair[0] > 240)[1].mean() > 30, "the medial side is at the right"
    places = one.shares((10, 20, 30, 20)), other.shares((60, 20, 30, 20))
    np.testing.assert_allclose(*places, atol=1e-6)


def test_overlap_of_known_boxes():
    one = np.array([0.5, 0.5, 0.2, 0.4])
    assert halves.overlap(one, one) == pytest.approx(1)
    assert halves.overlap(one, one + [0.1, 0, 0, 0]) == pytest.approx(1 / 3)
    assert halves.overlap(one, [0.9, 0.5, 0.2, 0.4]) == 0
    assert np.isnan(halves.overlap(one, np.full(4, np.nan)))


def test_a_rectangle_and_its_box_are_moved_together():
    moves, box = boxes.moves(rotation=0, shift=0.1, zoom=0.2), np.array([0.4, 0.55, 0.3, 0.4])
    picture = drawn(box, (256, 256))
    for number in range(10):
        draw, _, _ = moves.drawn(1, 2, number)
        shown = moves.moved(picture[None, ..., None], draw)[0, ..., 0]
        moved = boxes.moved(box, moves.matrix(draw, 256, 256), 256, 256)
        np.testing.assert_allclose(seen(shown), moved, atol=0.008)


def test_a_turned_rectangle_keeps_its_centre_and_the_size_of_its_box():
    moves, box = boxes.moves(rotation=20, shift=0.1, zoom=0), np.array([0.4, 0.55, 0.3, 0.4])
    for number in range(10):
        draw, _, _ = moves.drawn(1, 2, number)
        shown = moves.moved(drawn(box, (256, 256))[None, ..., None], draw)[0, ..., 0]
        moved = boxes.moved(box, moves.matrix(draw, 256, 256), 256, 256)
        np.testing.assert_allclose(seen(shown)[:2], moved[:2], atol=0.008)
        np.testing.assert_allclose(moved[2:], box[2:], atol=1e-6)


def test_an_epoch_s_pictures_and_targets_fit_and_repeat(knees):
    data = knees(augment=boxes.moves(rotation=0, shift=0.05, zoom=0.1, jointless=0.0), seed=4)
    rows = np.arange(len(data.train))
    for epoch in (0, 1):
        (shown,), targets = data.train.inputs(rows, epoch), data.train.targets(rows, epoch)
        for picture, box in zip(shown, targets, strict=True):
            np.testing.assert_allclose(seen(picture[..., 0]), box, atol=0.03)
    again = data.train.targets(rows, 1)
    np.testing.assert_array_equal(again, targets)
    assert np.abs(targets - data.train.targets(rows, 0)).max() > 0.01, "each epoch draws anew"
    np.testing.assert_array_equal(data.val.targets(epoch=1), data.val.labels)
    np.testing.assert_array_equal(data.train.inputs(rows)[0], data.train.pictures())


def test_replaced_pictures_have_no_box_and_the_others_have_one(knees):
    data = knees(80, augment=boxes.moves(rotation=0, shift=0, zoom=0, jointless=0.5), seed=1)
    rows = np.arange(len(data.train))
    (shown,), targets = data.train.inputs(rows, 0), data.train.targets(rows, 0)
    none = np.isnan(targets).any(axis=1)
    assert 8 < none.sum() < 32 and np.isnan(targets[none]).all()
    for picture, box in zip(shown[~none], targets[~none], strict=True):
        np.testing.assert_allclose(seen(picture[..., 0]), box, atol=0.02)


@pytest.mark.parametrize("kind", jointless.KINDS)
def test_pictures_without_a_joint_are_others_of_the_same_shape(kind):
    box = np.array([0.4, 0.55, 0.3, 0.4])
    picture = drawn(box)[..., None]
    picture[:5] += 17
    made = jointless.made(kind, picture, box, np.random.default_rng(0))
    assert made.shape == picture.shape and made.dtype == np.uint8
    assert (made != picture).mean() > 0.05


def test_selection_never_sees_the_test_part(knees):
    data = knees().without_test()
    assert data.table.loc[data.table["split"] == "test", list(halves.BOX)].isna().all(axis=None)
    with pytest.raises(PermissionError):
        data.test  # noqa: B018


def test_films_are_cut_once_and_each_box_lies_in_its_half(filmed, monkeypatch):
    both = np.full((40, 80), 90, np.uint8)
    both[:, 36:42] = 0
    both[10:26, 8:24] = both[12:28, 52:68] = 240
    single = np.full((50, 40), 90, np.uint8)
    single[20:36, 12:28] = 240
    rows = ["1.png,right,8,10,16,16", "1.png,left,52,12,16,16", "2.png,left,12,20,16,16"]
    table = filmed({"1.png": both, "2.png": single}, rows).assign(split="train")
    data = boxes.films(table, (80, 80, 1), 2)
    assert data.table["side"].tolist() == ["right", "left", "left"]
    assert data.table["half_width"].tolist() == [40, 40, 40]
    assert data.table["path"].tolist() == ["films/1.png", "films/1.png", "films/2.png"]
    for picture, box in zip(data.train.pictures(), data.train.labels, strict=True):
        np.testing.assert_allclose(seen(picture[..., 0]), box, atol=0.03)

    monkeypatch.setattr(decode, "picture", None)
    again = boxes.films(table, (80, 80, 1), 2)
    assert again.key == data.key
    pd.testing.assert_frame_equal(again.table, data.table)
    np.testing.assert_array_equal(again.stored, data.stored)


def test_a_wide_film_with_one_box_is_cut_all_the_same(filmed):
    film = np.full((40, 80), 90, np.uint8)
    film[:, 38:42] = 0
    table, stored, _ = cutting.knees(filmed({"1.png": film}, ["1.png,L,50,5,9,9"]), (32, 32, 1))
    assert table["start"].tolist() == [40] and len(stored) == 1


def test_boxes_off_their_half_are_refused_all_at_once(filmed):
    film = np.full((40, 80), 90, np.uint8)
    film[:, 38:42] = 0
    rows = ["1.png,right,50,5,9,9", "2.png,left,60,5,30,9", "3.png,left,50,30,9,19"]
    rows += ["4.png,right,9,5,9,9", "4.png,left,50,5,9,9"]
    table = filmed({f"{n}.png": film for n in (1, 2, 3, 4)}, rows)
    with pytest.raises(DataError) as fault:
        cutting.knees(table, (32, 32, 1))
    found = {problem.path: problem.reason for problem in fault.value.problems}
    assert set(found) == {"films/1.png", "films/2.png", "films/3.png"}
    assert "other half" in found["films/1.png"]
    assert "beyond" in found["films/2.png"] and "80 x 40" in found["films/3.png"]


def test_a_joint_is_cut_out_square_and_black_beyond_the_half():
    film = np.full((60, 100), 100, np.uint8)
    film[20:40, 50:70] = 200
    half = halves.Half("left", 45, 60, 55)
    picture = half.joint(film, (50, 20, 20, 20), 40)
    assert picture.shape == (40, 40) and (picture == 200).all()
    wide = half.joint(film, (50, 20, 20, 20), 40, margin=0.5)
    assert (wide[:, 5:] >= 100).all() and (wide[:, :5] == 0).all() and wide[20, 25] == 200
    assert half.inside((50, 20, 20, 20)) == 1
    assert half.inside((35, 20, 20, 20)) == pytest.approx(0.5)
