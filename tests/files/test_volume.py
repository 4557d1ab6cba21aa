import io
import os
import struct
import zipfile

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkeras.files import child, volume
from medkeras.files.foreign import Unreadable

KNEE = np.random.default_rng(0).integers(0, 256, (5, 12, 10), dtype=np.uint8)


def saved(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npy(header, pixels=b"", version=(1, 0)):
    """Writes a file by hand, so that the header can say anything."""
    text = header.encode() if isinstance(header, str) else repr(header).encode()
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + pixels


def told(shape=(5, 12, 10), descr="|u1", fortran=False, **more):
    return {"descr": descr, "fortran_order": fortran, "shape": shape, **more}


def read(tmp_path, data, name="a.npy"):
    path = tmp_path / name
    path.write_bytes(data)
    return volume.volume(path)


@pytest.mark.parametrize("dtype", volume.DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_listed_dtype_and_order_comes_back_as_saved(tmp_path, dtype, order):
    array = np.asarray(KNEE.astype(dtype), order=order)
    if dtype != "uint8" and dtype != "uint16":
        array = array - array.dtype.type(100)
    for stored in (array, array.astype(array.dtype.newbyteorder(">"))):
        made = read(tmp_path, saved(stored))
        np.testing.assert_array_equal(made.pixels, array)
        assert made.pixels.dtype == np.dtype(dtype) and made.pixels.dtype.isnative
        assert made.pixels.flags.c_contiguous and not made.pixels.flags.writeable
        assert made.notes == ()


def test_facts_for_the_audit():
    array = KNEE.astype(np.int16) - 128
    array[3] = 7
    facts, pictures = child.run("volume", saved(array))
    assert (facts["slices"], facts["height"], facts["width"]) == (5, 12, 10)
    assert (facts["dtype"], facts["constant_slices"]) == ("int16", 1)
    assert (facts["low"], facts["high"]) == (array.min(), array.max())
    assert facts["notes"] == ["1 of 5 slices are constant"]
    assert pictures == []


@pytest.mark.parametrize("dtype", volume.DTYPES)
def test_the_thumbnail_shows_the_middle_slice(dtype):
    array = np.zeros((3, 128, 64), dtype)
    array[1, :64, :32] = array[2] = 100
    _, (small,) = child.run("volume", saved(array), thumbnail=True)
    assert small.dtype == np.uint8 and small.shape == (64, 64)
    assert (small[:32, :32] == 255).all()
    assert small.sum() == 255 * 32 * 32


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer, not the volume"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG"),
        (b"\0" * 128 + b"DICM", "is a DICOM file"),
        (b"0.5 0.7", "is no NumPy array"),
        (b"\x80\x04\x95\x05", "is a pickle: it contains Python objects"),
        (b"PK\x03\x04\x14\0", r"is a zip archive \(.npz\), which is never opened"),
        (b"\x93NUMPY", "has a damaged header"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "has a damaged header"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "has a damaged header"),
        (npy(told(), KNEE.tobytes(), (3, 0)), "version 3.0"),
        (npy(told(), KNEE.tobytes(), (9, 0)), "damaged header|version 9.0"),
        (npy("(" * 5000), "has a damaged header"),
        (npy("{'descr': __import__('os').system('true')}"), "has a damaged header"),
        (npy(told(extra=1)), "has a damaged header"),
        (npy(told("no shape")), "has a damaged header"),
        (npy(told(descr="nonsense")), "has a damaged header"),
        (npy(told(descr="|O")), "contains Python objects"),
        (npy(told(descr=[("a", "|O"), ("b", "|u1")])), "contains Python objects"),
        (npy(told(descr=[("a", "|u1")])), "holds void8 values"),
        (npy(told(descr="|b1")), "holds bool values, expected uint8"),
        (npy(told(descr="<i8")), "holds int64 values"),
        (npy(told(descr="<c8")), "holds complex64 values"),
        (npy(told(descr="<M8[s]")), r"holds datetime64\[s\] values"),
        (npy(told(descr="<U4")), "holds str128 values"),
        (npy(told((12, 10))), r"shape \(12, 10\), expected three"),
        (npy(told((5, 12, 10, 3))), "expected three"),
        (npy(told(())), "expected three"),
        (npy(told((0, 12, 10))), "has 0 slices"),
        (npy(told((1, 12, 10)), bytes(120)), "has 1 slices, expected 2 to 1000"),
        (npy(told((1001, 1, 1)), bytes(1001)), "has 1001 slices"),
        (npy(told((-5, 12, 10))), "has -5 slices"),
        (npy(told((5, 0, 10))), "slices of 0 x 10 pixels"),
        (npy(told((5, -12, -10)), KNEE.tobytes()), "slices of -12 x -10 pixels"),
        (npy(told((5, 12, 10)), KNEE.tobytes()[:-1]), "is truncated"),
        (npy(told((5, 12, 10)), KNEE.tobytes() + b"\0"), "has bytes after its end"),
        (npy(told((5, 12, 10), "<f8"), KNEE.tobytes()), "is truncated"),
        (npy(told((1000, 6000, 6000), "<f8"), b"x"), "is truncated"),
        (npy(told((1000, 2**62, 2**62), "<f8"), b"x"), "pixels, expected 1 to"),
        (npy(told((10**100, 12, 10))), "slices, expected 2 to 1000"),
        (saved(np.full((4, 3, 2), 7, np.uint8)), "is constant: every pixel is 7"),
        (saved(np.zeros((4, 3, 2), np.float32)), "is constant: every pixel is 0"),
    ],
)
def test_refusals_say_what_was_found(tmp_path, data, reason):
    with pytest.raises(Unreadable, match=reason) as caught:
        read(tmp_path, data)
    assert caught.value.remedy and len(caught.value.reason) < 200


@pytest.mark.parametrize("data", [saved(KNEE), saved(KNEE.astype(">f4"), allow_pickle=False)])
def test_cut_files_are_refused(data):
    for cut in np.linspace(0, len(data) - 1, 20, dtype=int):
        with pytest.raises(Unreadable):
            child.run("volume", data[:cut])


def test_nothing_is_unpickled(tmp_path):
    marker = tmp_path / "marker"

    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(marker),))

    data = saved(np.array([Bomb()] * 8, dtype=object).reshape(2, 2, 2), allow_pickle=True)
    pickled = data[data.index(b"\n") + 1 :]
    for content in (data, pickled, data.replace(b"|O", b"O8")):
        with pytest.raises(Unreadable, match="Python objects|damaged header"):
            read(tmp_path, content)
        with pytest.raises(Unreadable, match="Python objects|damaged header"):
            volume.task(content)
    assert not marker.exists()


def test_an_archive_is_refused_by_name_and_by_content(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(told((50, 1000, 1000)), bytes(50_000_000)))
    data = (tmp_path / "bomb.npz").read_bytes()
    for name in ("bomb.npz", "bomb.npy"):
        with pytest.raises(Unreadable, match="never opened") as caught:
            read(tmp_path, data, name)
        assert "numpy.save" in caught.value.remedy


@pytest.mark.parametrize("name", ["a.NPY", "a.Npy"])
def test_endings_in_capitals_are_read(tmp_path, name):
    np.testing.assert_array_equal(read(tmp_path, saved(KNEE), name).pixels, KNEE)


@pytest.mark.parametrize("name", ["a", "a.png", "a.npy.bak"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(Unreadable, match="expected .npy"):
        read(tmp_path, saved(KNEE), name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_slices_that_are_not_finite_are_named(value, dtype):
    array = KNEE.astype(dtype)
    array[1, 3, 4] = array[4, 0, 0] = value
    with pytest.raises(Unreadable, match=r"slices 1, 4 \(the first is 0\)"):
        child.run("volume", saved(array))
    many = np.full((40, 2, 2), value, dtype)
    with pytest.raises(Unreadable, match="8, 9 and 30 more"):
        child.run("volume", saved(many))


def test_negative_values_are_fine(tmp_path):
    array = KNEE.astype(np.float32) - 1000
    np.testing.assert_array_equal(read(tmp_path, saved(array)).pixels, array)


def test_constant_slices_are_counted_in_a_note(tmp_path):
    array = KNEE.copy()
    array[0], array[4] = 0, 255
    assert read(tmp_path, saved(array)).notes == ("2 of 5 slices are constant",)


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "loop.npy").symlink_to(tmp_path / "loop.npy")
    (tmp_path / "folder.npy").mkdir()
    for name in ("absent.npy", "loop.npy", "folder.npy"):
        with pytest.raises(Unreadable):
            volume.volume(tmp_path / name)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bytes_give_a_volume_or_a_refusal(data):
    content = bytearray(saved(KNEE.astype(np.float16)))
    for _ in range(data.draw(st.integers(1, 6))):
        # Mostly in the header, where it matters.
        at = data.draw(st.integers(0, 140) | st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    try:
        facts, _ = volume.task(bytes(content))
    except Unreadable as fault:
        assert fault.reason and fault.remedy
    else:
        assert facts["slices"] * facts["height"] * facts["width"] == KNEE.size


@pytest.mark.parametrize("pair", [(-1.7e308, 1.7e308), (0, 5e-324), (1, 1 + 2**-52)])
def test_the_widest_and_the_narrowest_range_are_scaled(pair):
    array = np.array(pair * 4).reshape(2, 2, 2)
    made = volume.scaled(array, *volume.extent(array)[:2])
    np.testing.assert_array_equal(made.ravel(), [0, 1] * 4)


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        arrays.array_shapes(min_dims=3, max_dims=3, max_side=4),
    )
)
def test_scaling_ends_at_0_and_1_or_refuses(array):
    try:
        low, high, constant = volume.extent(array)
    except Unreadable as fault:
        values = np.unique(array)
        assert len(values) == 1 or not np.isfinite(array).all()
        assert "constant" in fault.reason or "NaN" in fault.reason
    else:
        made = volume.scaled(array, low, high)
        assert np.isfinite(made).all()
        assert made.min() == 0 and made.max() == 1
        assert constant == sum(len(np.unique(slice_)) == 1 for slice_ in array)
