import numpy as np
import pytest
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
