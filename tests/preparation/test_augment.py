import json

import cv2
import numpy as np
import pytest

from medkeras.preparation import augment


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(1, 256, (15, 21, 1), dtype=np.uint8)


def smooth(size=41):
    """A bright blob off the centre on grey: rotation moves it without aliasing."""
    blob = np.zeros((size, size), np.float32)
    blob[size // 4, size // 2] = 1
    blob = cv2.GaussianBlur(blob, (0, 0), 2.5)
    return (40 + 200 * blob / blob.max()).astype(np.uint8)[:, :, None]


ONE = dict(
    rotation={"rotation": 30.0},
    shear={"shear": 15.0},
    zoom={"zoom": 0.2},
    shift={"shift": 0.1},
    flip_horizontal={"flip_horizontal": True},
    flip_vertical={"flip_vertical": True},
    brightness={"brightness": (0.5, 1.5)},
)


@pytest.mark.parametrize("move", ONE)
def test_a_view_is_a_function_of_seed_view_and_index(picture, move):
    moves = augment.Affine(**ONE[move])
    for number in range(8):
        first = moves.apply(picture, 3, number, 7)
        moves.apply(picture, 0, 0, 0)
        np.testing.assert_array_equal(moves.apply(picture, 3, number, 7), first)
        assert first.shape == picture.shape and first.dtype == np.uint8


def test_views_seeds_and_pictures_differ(picture):
    moves = augment.radiograph()
    numbers = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 2, 0), (0, 0, 2)]
    made = {moves.apply(picture, *number).tobytes() for number in numbers}
    assert len(made) == len(numbers)


def test_no_move_leaves_the_picture_as_it_is(picture):
    for view in range(5):
        np.testing.assert_array_equal(augment.Affine().apply(picture, 0, view, 0), picture)


def test_flips_alone_are_exact(picture):
    moves = augment.Affine(flip_horizontal=True, flip_vertical=True)
    options = {
        (left, up): np.flip(picture, [axis for axis, on in ((1, left), (0, up)) if on])
        for left in (False, True)
        for up in (False, True)
    }
    seen = []
    for view in range(200):
        made = moves.apply(picture, 0, view, 0)
        seen += [how for how, expected in options.items() if np.array_equal(made, expected)]
    assert len(seen) == 200
    for how in options:
        assert 25 < seen.count(how) < 80, f"{how} should come up in a quarter of the views"


def test_a_quarter_turn_is_exact():
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 1), dtype=np.uint8)
    moves = augment.Affine(rotation=90)
    draw = np.array([1, 0, 0, 1, 1, 0, 0, 0.0])
    made = cv2.warpAffine(picture, moves.matrix(draw, 16, 16), (16, 16), flags=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(made, np.rot90(picture[:, :, 0], -1))


@pytest.mark.parametrize("move", ["rotation", "shear", "zoom", "flip_horizontal", "flip_vertical"])
def test_moves_keep_the_centre(move):
    moves = augment.Affine(**ONE[move])
    for height, width in ((16, 16), (15, 21)):
        for view in range(20):
            draw = np.random.default_rng(view).uniform(-1, 1, 8)
            centre = np.array([(width - 1) / 2, (height - 1) / 2, 1])
            np.testing.assert_allclose(moves.matrix(draw, height, width) @ centre, centre[:2])


def test_rotation_stays_within_its_range_and_uses_it():
    moves = augment.radiograph(flip_horizontal=False, flip_vertical=False)
    angles = []
    for view in range(300):
        draw = np.random.default_rng((0, view, 0)).uniform(-1, 1, 8)
        linear = moves.matrix(draw, 20, 20)[:, :2]
        np.testing.assert_allclose(linear @ linear.T, np.eye(2), atol=1e-12)
        angles.append(np.rad2deg(np.arctan2(linear[1, 0], linear[0, 0])))
    assert -30 <= min(angles) < -28 and 28 < max(angles) <= 30
    assert abs(np.mean(angles)) < 3


def test_the_picture_turns_by_the_angle_of_its_matrix():
    picture = smooth()
    moves = augment.Affine(rotation=30)
    height, width = picture.shape[:2]
    for view in range(6):
        made = moves.apply(picture, 0, view, 0)
        draw = np.random.default_rng((0, view, 0)).uniform(-1, 1, 8)
        top = np.array([width // 2, height // 4, 1])
        expected = moves.matrix(draw, height, width) @ top
        y, x = np.unravel_index(made[:, :, 0].argmax(), (height, width))
        np.testing.assert_allclose((x, y), expected, atol=1.5)


def test_all_moves_are_one_matrix_the_product_of_the_single_ones():
    height, width = 30, 40
    together = augment.Affine(**{k: v for one in ONE.values() for k, v in one.items()})
    order = ["shift", "rotation", "shear", "zoom", "flip_horizontal", "flip_vertical"]
    for view in range(20):
        draw = np.random.default_rng(view).uniform(-1, 1, 8)
        product = np.eye(3)
        for move in order:
            single = augment.Affine(**ONE[move]).matrix(draw, height, width)
            product = product @ np.vstack([single, [0, 0, 1]])
        np.testing.assert_allclose(together.matrix(draw, height, width), product[:2], atol=1e-9)


def test_zoom_and_shift_keep_to_their_ranges():
    zoom, shift = augment.Affine(zoom=0.2), augment.Affine(shift=0.1)
    for view in range(50):
        draw = np.random.default_rng(view).uniform(-1, 1, 8)
        scale = zoom.matrix(draw, 20, 20)[0, 0]
        assert 0.8 <= scale <= 1.2
        x, y = shift.matrix(draw, 20, 40)[:, 2]
        assert abs(x) <= 4 and abs(y) <= 2


def test_brightness_scales_and_never_wraps_around():
    bright = np.full((4, 4, 1), 200, np.uint8)
    moves = augment.Affine(brightness=(0.5, 2.0))
    values = [int(moves.apply(bright, 0, view, 0)[0, 0, 0]) for view in range(60)]
    assert min(values) < 120 and max(values) == 255 and min(values) >= 100


def test_a_radiograph_turns_and_flips_and_nothing_else():
    config = augment.radiograph().config()
    assert config == {
        "rotation": 30.0,
        "flip_horizontal": True,
        "flip_vertical": True,
        "shear": 0.0,
        "zoom": 0.0,
        "shift": 0.0,
        "brightness": [1.0, 1.0],
        "fill": "nearest",
    }
    # The grey values of a uniform film stay what they are: brightness is off.
    film = np.full((12, 12, 1), 91, np.uint8)
    for view in range(10):
        np.testing.assert_array_equal(augment.radiograph().apply(film, 0, view, 0), film)


def test_the_other_moves_can_be_switched_on(picture):
    plain = augment.radiograph(0, False, False)
    for move in ({"shear": 10}, {"zoom": 0.3}, {"shift": 0.2}, {"brightness": [0.5, 0.9]}):
        moved = augment.radiograph(0, False, False, **move)
        assert not np.array_equal(moved.apply(picture, 0, 1, 2), plain.apply(picture, 0, 1, 2))


def test_fill_says_what_lies_beyond_the_border():
    film = np.full((20, 20, 1), 200, np.uint8)
    black = augment.radiograph(30, fill="constant")
    made = np.stack([black.apply(film, 0, view, 0) for view in range(5)])
    assert (made == 0).any() and (made[:, 8:12, 8:12] == 200).all()


def test_three_channels_move_together(picture):
    colour = np.repeat(picture, 3, axis=2)
    made = augment.radiograph().apply(colour, 0, 3, 1)
    for channel in range(3):
        np.testing.assert_array_equal(
            made[:, :, channel], augment.radiograph().apply(picture, 0, 3, 1)[:, :, 0]
        )


def test_a_view_is_one_warp_by_the_first_numbers_of_its_draw(picture):
    # What was stored of earlier views stays true when moves are added.
    moves = augment.Affine(rotation=20, shear=5, zoom=0.1, shift=0.1, flip_horizontal=True)
    height, width = picture.shape[:2]
    for view in range(5):
        eight = np.random.default_rng((3, view, 7)).uniform(-1, 1, size=8)
        expected = cv2.warpAffine(
            picture,
            moves.matrix(eight, height, width),
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        np.testing.assert_array_equal(moves.apply(picture, 3, view, 7)[:, :, 0], expected)
    assert "stretch" not in moves.config()


def test_stretch_magnifies_width_and_height_apart_about_the_centre():
    moves, found = augment.Affine(stretch=(1.0, 1.2)), []
    for view in range(300):
        draw = np.random.default_rng(view).uniform(-1, 1, 10)
        matrix = moves.matrix(draw, 15, 21)
        np.testing.assert_allclose(matrix @ (10, 7, 1), (10, 7))
        assert matrix[0, 1] == matrix[1, 0] == 0
        found.append(np.diag(matrix))
    wide, high = np.array(found).T
    for factors in (wide, high):
        assert 1 <= factors.min() < 1.01 and 1.19 < factors.max() <= 1.2
        assert abs(factors.mean() - 1.1) < 0.01
    assert abs(np.corrcoef(wide, high)[0, 1]) < 0.15
    assert moves.config()["stretch"] == [1.0, 1.2]


def test_half_of_the_draws_paint_a_rectangle_over_alike_in_all_slices(volume):
    moves, plain = augment.Affine(erase=0.5), augment.Affine()
    sides, erased = [], 0
    for view in range(300):
        draw = np.random.default_rng(view).uniform(-1, 1, 15)
        found = moves.moved(volume, draw)
        changed = (found != plain.moved(volume, draw)).any(axis=0)
        erased += changed.any()
        if changed.any():
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            box = found[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            grey = volume.mean((1, 2)).astype(np.uint8)
            np.testing.assert_array_equal(box, np.broadcast_to(grey[:, None, None], box.shape))
            sides += [box.shape[1], box.shape[2]]
    assert 120 < erased < 180
    assert min(sides) >= 3 and max(sides) in (9, 10), "from a sixth to half of 20 pixels"
    assert moves.config()["erase"] == 0.5 and "erase" not in plain.config()
    coloured = volume[0, :, :, None].repeat(3, axis=2) // np.array([1, 2, 4], np.uint8)
    views = [moves.apply(coloured, 0, view, 0) for view in range(20)]
    assert not all(np.array_equal(one, coloured) for one in views)


@pytest.fixture
def volume():
    return np.random.default_rng(1).integers(1, 256, (4, 20, 20), dtype=np.uint8)


PLANES = ("axial", "coronal", "sagittal")
ONLY_MIRRORED = augment.knee_mri(rotation=0, shift=0, stretch=(1, 1))


@pytest.mark.parametrize("per_slice", [False, True])
def test_an_exam_is_a_function_of_seed_view_index_and_plane(volume, per_slice):
    moves = augment.knee_mri(per_slice=per_slice)
    made = {}
    for number in [("axial", 0, 0, 1), ("coronal", 0, 0, 1), ("axial", 1, 0, 1)] + [
        ("axial", 0, 1, 1),
        ("axial", 0, 0, 2),
    ]:
        made[number] = moves.apply(volume, *number)
        assert made[number].shape == volume.shape and made[number].dtype == np.uint8
    assert len({one.tobytes() for one in made.values()}) == len(made)
    for number, one in reversed(made.items()):
        np.testing.assert_array_equal(moves.apply(volume, *number), one)


def test_the_slices_of_a_plane_move_alike_and_per_slice_they_do_not(volume):
    volume[:] = volume[0]
    together, torn = augment.knee_mri(), augment.knee_mri(per_slice=True)
    for plane in PLANES:
        moved = together.apply(volume, plane, 0, 3, 5)
        assert not np.array_equal(moved[0], volume[0])
        np.testing.assert_array_equal(moved, np.broadcast_to(moved[0], moved.shape))
        assert len({one.tobytes() for one in torn.apply(volume, plane, 0, 3, 5)}) == len(volume)


def test_a_slice_moves_as_it_would_in_another_volume(volume):
    for per_slice in (False, True):
        moves = augment.knee_mri(per_slice=per_slice)
        whole = moves.apply(volume, "axial", 0, 1, 2)
        np.testing.assert_array_equal(moves.apply(volume[:2], "axial", 0, 1, 2), whole[:2])


def test_an_exam_is_mirrored_in_all_its_planes_or_in_none(volume):
    mirrored = 0
    for index in range(200):
        axial, coronal, sagittal = (
            ONLY_MIRRORED.apply(volume, plane, 0, 0, index) for plane in PLANES
        )
        flipped = np.array_equal(axial, volume[:, :, ::-1])
        np.testing.assert_array_equal(axial, volume[:, :, ::-1] if flipped else volume)
        np.testing.assert_array_equal(coronal, axial)
        np.testing.assert_array_equal(sagittal, volume, "a knee does not bend forwards")
        mirrored += flipped
    assert 75 < mirrored < 125


def test_mirroring_can_be_switched_off_and_for_sagittal_slices_on(volume):
    off = augment.knee_mri(0, 0, (1, 1), mirror=False)
    on = augment.knee_mri(0, 0, (1, 1), flip_sagittal=True)
    for index in range(10):
        for plane in PLANES:
            np.testing.assert_array_equal(off.apply(volume, plane, 0, 0, index), volume)
        np.testing.assert_array_equal(
            on.apply(volume, "sagittal", 0, 0, index), on.apply(volume, "axial", 0, 0, index)
        )


def test_a_chest_is_never_mirrored_unless_asked():
    picture = np.zeros((32, 32, 1), np.uint8)
    picture[:, 20:] = 255
    shown = [augment.chest().apply(picture, 0, view, 1) for view in range(30)]
    assert all(one[16, 30, 0] == 255 and one[16, 1, 0] == 0 for one in shown)
    flipped = [augment.chest(flip_horizontal=True).apply(picture, 0, v, 1) for v in range(30)]
    assert 5 < sum(one[16, 30, 0] == 0 for one in flipped) < 25


def test_a_knee_may_be_the_other_one_but_stays_upright():
    picture = np.zeros((32, 32, 1), np.uint8)
    picture[:12, :12] = 255
    shown = [augment.knee().apply(picture, 0, view, 1) for view in range(30)]
    left = sum(one[4, 4, 0] == 255 for one in shown)
    assert 5 < left < 25 and left + sum(one[4, 27, 0] == 255 for one in shown) == 30


def test_planes_are_turned_apart(volume):
    moves = augment.knee_mri(mirror=False)
    made = [moves.apply(volume, plane, 0, 0, 0).tobytes() for plane in PLANES]
    assert len(set(made)) == 3


def test_the_published_ranges_are_the_defaults():
    config = augment.knee_mri().config()
    assert config == {
        "moves": {
            **augment.Affine().config(),
            "rotation": 10.0,
            "shift": 0.11,
            "stretch": [1.0, 1.2],
            "fill": "constant",
        },
        "mirror": True,
        "per_slice": False,
        "flip_sagittal": False,
    }
    # Written down as JSON, and read back the same.
    assert json.loads(json.dumps(config)) == config


def test_an_exam_that_lies_in_a_memory_map_can_be_moved(volume, tmp_path):
    np.save(tmp_path / "one.npy", volume)
    stored = np.load(tmp_path / "one.npy", mmap_mode="r")
    made = augment.knee_mri().apply(stored, "axial", 0, 1, 2)
    assert type(made) is np.ndarray and made.flags.writeable
    np.testing.assert_array_equal(made, augment.knee_mri().apply(volume, "axial", 0, 1, 2))
