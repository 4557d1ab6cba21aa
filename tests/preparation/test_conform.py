import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medkeras.files import decode
from medkeras.preparation import cache, conform


def test_each_shape_comes_out_as_asked_in_uint8():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (20, 30), dtype=np.uint8)
    colour = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    deep = rng.integers(0, 65536, (20, 30), dtype=np.uint16)
    for pixels in (grey, colour, deep):
        for shape in ((16, 24, 1), (40, 60, 3), (20, 30, 1)):
            made = conform.conform(pixels, shape)
            assert made.shape == shape and made.dtype == np.uint8


def test_a_picture_of_the_right_size_is_left_as_it_is():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(conform.conform(pixels, (3, 4, 1))[:, :, 0], pixels)
    three = conform.conform(pixels, (3, 4, 3))
    for channel in range(3):
        np.testing.assert_array_equal(three[:, :, channel], pixels)


def test_colour_becomes_luminance():
    pixels = np.zeros((1, 3, 3), np.uint8)
    pixels[0, 0, 0] = pixels[0, 1, 1] = pixels[0, 2, 2] = 200
    made = conform.conform(pixels, (1, 3, 1))[0, :, 0]
    np.testing.assert_array_equal(made, np.round([0.299 * 200, 0.587 * 200, 0.114 * 200]))


def test_sixteen_bits_are_scaled_and_not_cut_off():
    pixels = np.array([[0, 257, 257 * 100], [65535, 128, 129]], np.uint16)
    made = conform.conform(pixels, (2, 3, 1))[:, :, 0]
    np.testing.assert_array_equal(made, [[0, 1, 100], [255, 0, 1]])


def test_shrinking_averages_areas():
    pixels = np.array([[0, 100, 7, 7], [100, 200, 7, 7]], np.uint8)
    np.testing.assert_array_equal(conform.conform(pixels, (1, 2, 1))[:, :, 0], [[100, 7]])


def test_the_pixels_belong_to_the_version_that_is_written_down():
    # Whoever changes these pixels raises the version, or stored pictures go stale.
    ramp = np.add.outer(np.arange(6) * 10, np.arange(4) * 3).astype(np.uint8)
    small = conform.conform(ramp, (2, 2, 1))[:, :, 0].tolist()
    large = conform.conform(ramp[:2, :2], (2, 4, 1))[:, :, 0].tolist()
    assert (conform.CONFIG["version"], small, large) == (
        1,
        [[12, 18], [42, 48]],
        [[0, 1, 2, 3], [10, 11, 12, 13]],
    )


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_training_and_serving_see_the_same_pixels(tmp_path, mode):
    import pandas as pd

    rng = np.random.default_rng(1)
    shape = (21, 33) if mode == "L" else (21, 33, 3)
    file = tmp_path / "one.png"
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(file)
    served = conform.load(file, (16, 16, 1))
    trained = cache.pictures(pd.DataFrame({"image": [str(file)]}), (16, 16, 1))[0]
    np.testing.assert_array_equal(trained, served)
    np.testing.assert_array_equal(served, conform.conform(decode.picture(file).pixels, (16, 16, 1)))


def test_a_broken_file_says_why(tmp_path):
    (tmp_path / "one.png").write_bytes(b"")
    with pytest.raises(decode.Unreadable, match="empty"):
        conform.load(tmp_path / "one.png", (16, 16, 1))


def test_a_volume_in_eight_bits_stays_as_stored():
    pixels = np.random.default_rng(2).integers(40, 90, (4, 16, 16), dtype=np.uint8)
    made = conform.volume(pixels, 16)
    np.testing.assert_array_equal(made, pixels)
    assert made.dtype == np.uint8 and made.flags.writeable


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float16", "float32", "float64"])
def test_other_volumes_span_0_to_255_over_all_their_slices(dtype):
    pixels = np.zeros((3, 8, 8), dtype)
    pixels[1], pixels[2] = 100, 200
    pixels[0, 0, 0] = 50
    if dtype.startswith(("int", "float")):
        pixels -= 120
    made = conform.volume(pixels, 8)
    np.testing.assert_array_equal(np.unique(made), [0, 64, 128, 255])
    # One scale for the exam: a slice that is dark stays dark.
    assert made[0].max() == 64 and made[1].min() == 128 and made[2].min() == 255


@pytest.mark.parametrize("size", [5, 12, 40])
def test_slices_are_resized_like_pictures(size):
    pixels = np.random.default_rng(3).integers(0, 256, (2, 12, 20), dtype=np.uint8)
    made = conform.volume(pixels, size)
    for one, slice_ in zip(made, pixels):
        np.testing.assert_array_equal(one, conform.conform(slice_, (size, size, 1))[:, :, 0])
    # The same grey values in another type are at most a rounding away.
    pixels[0, 0, :2] = 0, 255
    apart = conform.volume(pixels.astype(np.float32), size).astype(int) - conform.volume(
        pixels, size
    )
    assert np.abs(apart).max() <= 1


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_constant_volume_is_refused(dtype, value):
    with pytest.raises(decode.Unreadable, match="is constant"):
        conform.volume(np.full((3, 4, 4), value, dtype), 4)


@settings(max_examples=300, deadline=None)
@given(
    arrays.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        arrays.array_shapes(min_dims=3, max_dims=3, max_side=6),
    ),
    st.integers(1, 9),
)
def test_any_floats_give_grey_values_or_a_named_refusal(pixels, size):
    try:
        made = conform.volume(pixels, size)
    except decode.Unreadable as fault:
        assert fault.reason and fault.remedy
        assert not np.isfinite(pixels).all() or pixels.min() == pixels.max()
    else:
        assert made.dtype == np.uint8 and made.shape == (len(pixels), size, size)
        if pixels.shape[1:] == (size, size):
            assert made.min() == 0 and made.max() == 255


def test_the_volume_belongs_to_the_version_that_is_written_down():
    # Whoever changes these pixels raises the version, or stored volumes go stale.
    ramp = np.add.outer(np.arange(2) * 100, np.add.outer(np.arange(4) * 10, np.arange(4) * 3))
    made = conform.volume(ramp.astype(np.int16) - 50, 2).tolist()
    assert (conform.VOLUME_CONFIG["version"], made) == (
        1,
        [[[12, 23], [49, 60]], [[195, 206], [232, 243]]],
    )


def test_a_stretched_volume_spans_0_to_255_over_all_its_slices():
    pixels = np.random.default_rng(2).integers(41, 90, (4, 16, 16), dtype=np.uint8)
    pixels[0, 0, 0], pixels[3, 5, 5] = 40, 90
    made = conform.volume(pixels, 16, stretch=True)
    assert made[0, 0, 0] == made.min() == 0 and made[3, 5, 5] == made.max() == 255
    np.testing.assert_array_equal(made, np.rint((pixels - 40.0) / 50 * 255))
    # What spans it already is left as it is, and so are volumes that are stretched in any case.
    np.testing.assert_array_equal(conform.volume(made, 16, stretch=True), made)
    deep = pixels.astype(np.int16) * 9 - 700
    np.testing.assert_array_equal(conform.volume(deep, 16), made)
    np.testing.assert_array_equal(conform.volume(deep, 16, stretch=True), made)


@pytest.mark.parametrize("size", [5, 40])
def test_a_stretched_volume_is_resized_after_stretching(size):
    pixels = np.random.default_rng(3).integers(100, 120, (2, 12, 12), dtype=np.uint8)
    low, high = pixels.min(), pixels.max()
    spread = (pixels - np.float64(low)) / (high - low) * 255
    made = conform.volume(pixels, size, stretch=True)
    for one, slice_ in zip(made, spread, strict=True):
        expected = conform.conform(slice_.astype(np.float32), (size, size, 1))[:, :, 0]
        np.testing.assert_allclose(one, expected, atol=0.51)


@pytest.mark.parametrize("pixels", [np.full((2, 3, 3), 9, np.uint8), np.full((2, 3, 3), np.nan)])
def test_what_cannot_be_stretched_is_refused(pixels):
    with pytest.raises(decode.Unreadable, match="is constant|NaN"):
        conform.volume(pixels, 3, stretch=True)


def test_whether_volumes_are_stretched_is_written_down():
    assert conform.volume_config() == conform.VOLUME_CONFIG
    stretched = conform.volume_config(stretch=True)
    assert stretched != conform.VOLUME_CONFIG and stretched.keys() == conform.VOLUME_CONFIG.keys()
