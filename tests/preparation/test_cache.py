import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medkeras.preparation import cache, conform

SHAPE = (8, 8, 1)


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    files = [tmp_path / "data" / f"{number}.png" for number in range(5)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (10, 12), dtype=np.uint8)).save(file)
    return pd.DataFrame({"image": [str(file) for file in files]})


@pytest.fixture
def loads(monkeypatch):
    """Counts how many pictures are decoded."""
    counted, load = [], conform.load

    def counting(path, shape):
        counted.append(path)
        return load(path, shape)

    monkeypatch.setattr(conform, "load", counting)
    return counted


def test_the_key_is_the_content_and_not_the_place(table, tmp_path):
    key = cache.key(table, SHAPE)
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    moved = table["image"].str.replace("/data/", "/moved/", regex=False)
    assert cache.key(pd.DataFrame({"image": moved}), SHAPE) == key


def test_a_known_hash_gives_the_key_that_reading_the_file_gives(table):
    from medkeras.files import decode

    known = table.assign(sha256=[decode.fingerprint(image) for image in table["image"]])
    assert cache.key(known, SHAPE) == cache.key(table, SHAPE)


def test_anything_that_changes_the_pixels_changes_the_key(table, monkeypatch):
    keys = {cache.key(table, SHAPE)}
    keys.add(cache.key(table, (8, 8, 3)))
    keys.add(cache.key(table, (8, 9, 1)))
    keys.add(cache.key(table.iloc[::-1], SHAPE))
    keys.add(cache.key(table.iloc[:-1], SHAPE))
    with monkeypatch.context() as context:
        context.setitem(conform.CONFIG, "version", 2)
        keys.add(cache.key(table, SHAPE))
    file = Path(table["image"][2])
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    keys.add(cache.key(table, SHAPE))
    assert len(keys) == 7


def test_stores_uint8_once_as_a_read_only_memory_map(table, loads):
    stored = cache.pictures(table, SHAPE)
    assert isinstance(stored, np.memmap) and stored.dtype == np.uint8
    assert stored.shape == (5, *SHAPE) and not stored.flags.writeable
    for picture, file in zip(stored, table["image"], strict=True):
        np.testing.assert_array_equal(picture, conform.load(file, SHAPE))
    loads.clear()
    cache.pictures(table, SHAPE)
    assert loads == []


def test_a_changed_picture_is_read_again_though_name_and_time_are_the_same(table):
    file = table["image"][0]
    cache.pictures(table, SHAPE)
    times = os.stat(file).st_atime_ns, os.stat(file).st_mtime_ns
    Image.fromarray(np.full((10, 12), 77, np.uint8)).save(file)
    os.utime(file, ns=times)
    assert (cache.pictures(table, SHAPE)[0] == 77).all()


@pytest.mark.parametrize("left", [0, 40, 129, -1])
def test_a_store_that_was_cut_short_is_computed_again(table, own_cache, loads, left):
    expected = np.array(cache.pictures(table, SHAPE))
    (file,) = (own_cache / "pictures").glob("*.npy")
    file.write_bytes(file.read_bytes()[:left])
    loads.clear()
    np.testing.assert_array_equal(cache.pictures(table, SHAPE), expected)
    assert len(loads) == 5


def test_a_store_of_another_kind_is_computed_again(table, own_cache):
    expected = np.array(cache.pictures(table, SHAPE))
    (file,) = (own_cache / "pictures").glob("*.npy")
    for wrong in (np.zeros((5, 8, 8, 3), np.uint8), expected.astype(np.float32)):
        np.save(file, wrong)
        np.testing.assert_array_equal(cache.pictures(table, SHAPE), expected)
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.testing.assert_array_equal(cache.pictures(table, SHAPE), expected)


def test_an_error_leaves_nothing_half_written(table, own_cache, monkeypatch):
    def failing(path, shape):
        raise OSError("disk")

    monkeypatch.setattr(conform, "load", failing)
    with pytest.raises(OSError, match="disk"):
        cache.pictures(table, SHAPE)
    assert [path for path in own_cache.rglob("*") if path.is_file()] == []


def test_nothing_is_written_into_the_data_folder(table, tmp_path, content_of):
    before = content_of(tmp_path / "data")
    cache.pictures(table, SHAPE)
    assert content_of(tmp_path / "data") == before


def test_progress_counts_up_to_all(table):
    told = []
    cache.pictures(table, SHAPE, lambda done, total: told.append((done, total)))
    assert told == [(number, 5) for number in range(1, 6)]
