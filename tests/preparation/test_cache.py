import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medkeras.errors import DataError
from medkeras.files import decode, volume
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


@pytest.fixture
def exams(tmp_path):
    """Five exams of two planes, 2 to 6 slices of 10 x 10 pixels, values 30 to 199."""
    rng = np.random.default_rng(0)
    columns = {plane: [] for plane in ("axial", "coronal")}
    for plane, files in columns.items():
        (tmp_path / "data" / plane).mkdir(parents=True)
        for number in range(5):
            files.append(str(tmp_path / "data" / plane / f"{number:04d}.npy"))
            slices = int(rng.integers(2, 7))
            np.save(files[-1], rng.integers(30, 200, (slices, 10, 10), dtype=np.uint8))
    table = pd.DataFrame(columns)
    table.attrs["images"] = list(columns)
    return table


@pytest.fixture
def reads(monkeypatch):
    """Lists which volumes are decoded."""
    listed, read = [], volume.volume

    def counting(path):
        listed.append(path)
        return read(path)

    monkeypatch.setattr(volume, "volume", counting)
    return listed


def key_of(table, plane="axial", size=10, stretch=False):
    return cache.volumes_key(table, plane, size, stretch)


def test_volumes_lie_one_after_the_other_in_a_read_only_memory_map(exams, reads):
    stored = cache.volumes(exams, "axial", 8)
    expected = [conform.volume(np.load(file), 8) for file in exams["axial"]]
    assert isinstance(stored.pixels, np.memmap) and not stored.pixels.flags.writeable
    assert stored.pixels.dtype == np.uint8 and stored.key == key_of(exams, size=8)
    np.testing.assert_array_equal(stored.pixels, np.concatenate(expected))
    assert stored.lengths.tolist() == [len(one) for one in expected]
    for row, one in enumerate(expected):
        np.testing.assert_array_equal(stored.volume(row), one)
    assert sorted(reads) == list(exams["axial"]), "each file once, and no other plane"


def test_a_second_opening_decodes_and_writes_nothing(exams, reads, own_cache, content_of):
    first = cache.volumes(exams, "axial", 10)
    before = content_of(own_cache)
    reads.clear()
    second = cache.volumes(exams, "axial", 10)
    assert reads == [] and content_of(own_cache) == before and len(before) == 2
    np.testing.assert_array_equal(first.starts, second.starts)


def test_volumes_of_any_kind_are_stored_as_conform_makes_them(exams):
    for number, dtype in enumerate(["int16", "float32", "uint16"]):
        pixels = np.load(exams["axial"][number])
        np.save(exams["axial"][number], pixels.astype(dtype) * 3)
    for stretch in (False, True):
        stored = cache.volumes(exams, "axial", 10, stretch)
        for row, file in enumerate(exams["axial"]):
            expected = conform.volume(np.load(file), 10, stretch)
            np.testing.assert_array_equal(stored.volume(row), expected)


def test_the_key_of_a_plane_is_its_own_content(exams, tmp_path):
    before = {plane: key_of(exams, plane) for plane in exams}
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    moved = exams.apply(lambda files: files.str.replace("/data/", "/moved/", regex=False))
    assert {plane: key_of(moved, plane) for plane in exams} == before
    file = Path(exams["axial"][2])
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    assert key_of(exams, "axial") != before["axial"]
    assert key_of(exams, "coronal") == before["coronal"]


def test_anything_that_changes_a_volume_changes_its_key(exams, monkeypatch):
    keys = {key_of(exams), key_of(exams, "coronal"), key_of(exams, size=12)}
    keys |= {key_of(exams, stretch=True), key_of(exams[::-1]), key_of(exams[:-1])}
    with monkeypatch.context() as context:
        context.setitem(conform.VOLUME_CONFIG, "version", 2)
        keys.add(key_of(exams))
    assert len(keys) == 7
    assert key_of(exams.assign(acl=1.0, split="train")) == key_of(exams)


def test_known_hashes_of_a_plane_give_the_key_that_reading_gives(exams, monkeypatch):
    known = exams.assign(
        sha256="of all planes of the exam together",
        sha256_axial=[decode.fingerprint(file) for file in exams["axial"]],
    )
    single = known[["axial"]].assign(sha256=known["sha256_axial"])
    single.attrs["images"] = ["axial"]
    expected, coronal = key_of(exams), key_of(exams, "coronal")
    assert key_of(known, "coronal") == coronal
    with monkeypatch.context() as context:
        context.setattr(decode, "fingerprint", lambda path: pytest.fail("read again"))
        assert key_of(known) == key_of(single) == expected


@pytest.mark.parametrize("which", ["*[0-9a-f].npy", "*.starts.npy"])
@pytest.mark.parametrize("left", [None, 0, 40, -1])
def test_volumes_that_were_cut_short_are_decoded_again(exams, own_cache, reads, which, left):
    expected = np.array(cache.volumes(exams, "axial", 10).pixels)
    (file,) = (own_cache / "volumes").glob(which)
    if left is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:left])
    reads.clear()
    stored = cache.volumes(exams, "axial", 10)
    np.testing.assert_array_equal(stored.pixels, expected)
    assert len(reads) == 5 and stored.starts[-1] == len(expected)


def test_starts_of_other_volumes_are_not_believed(exams, own_cache, reads):
    expected = cache.volumes(exams, "axial", 10)
    (file,) = (own_cache / "volumes").glob("*.starts.npy")
    for wrong in (expected.starts * 2, expected.starts[:-1], expected.starts.astype(np.float64)):
        np.save(file, wrong)
        stored = cache.volumes(exams, "axial", 10)
        np.testing.assert_array_equal(stored.starts, expected.starts)


@pytest.mark.parametrize("content", ["constant", "NaN", "one slice", "text"])
def test_a_volume_that_cannot_be_used_is_named_and_leaves_nothing_behind(exams, own_cache, content):
    file = exams["axial"][3]
    pixels = {
        "constant": np.full((3, 10, 10), 7, np.uint8),
        "NaN": np.full((3, 10, 10), np.nan, np.float32),
        "one slice": np.zeros((1, 10, 10), np.uint8),
        "text": None,
    }[content]
    if pixels is None:
        Path(file).write_text("no volume")
    else:
        np.save(file, pixels)
    for stretch in (False, True):
        with pytest.raises(DataError, match="0003.npy"):
            cache.volumes(exams, "axial", 10, stretch)
    assert [path for path in own_cache.rglob("*") if path.is_file()] == []


def test_few_volumes_are_in_memory_at_a_time(exams, monkeypatch):
    many = pd.concat([exams] * 20, ignore_index=True)
    many.attrs = exams.attrs
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    begun, ahead, read = [], [], volume.volume

    def counting(path):
        begun.append(path)
        return read(path)

    monkeypatch.setattr(volume, "volume", counting)
    cache.volumes(many, "axial", 10, progress=lambda done, total: ahead.append(len(begun) - done))
    assert len(ahead) == 100 and max(ahead) < 8


def test_progress_counts_up_to_all_volumes(exams):
    told = []
    cache.volumes(exams, "coronal", 10, progress=lambda done, total: told.append((done, total)))
    assert told == [(number, 5) for number in range(1, 6)]
