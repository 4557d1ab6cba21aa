"""Volumes in `.npy` files, as MRNet has them: slices of one exam and plane, or a named refusal.

A header is parsed in a child process and believed only where it agrees with the file to the
byte; Python objects are never loaded, archives never opened.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from medkeras.files import child
from medkeras.files.decode import read_bytes
from medkeras.files.foreign import MAX_PIXELS, Unreadable, named, refuse_lost

DTYPES = ("uint8", "uint16", "int16", "float16", "float32", "float64")
# Of a slice at least: two make a volume, and one that is read as many would allocate gigabytes.
MIN_SLICES, MAX_SLICES = 2, 1000
THUMBNAIL = 64
SHOWN = 10
AGAIN = "copy or download it again"
SAVE = "save it with numpy.save as one array of numbers (slices, height, width)"


@dataclass(frozen=True)
class Volume:
    """The slices of one exam and plane.

    Args:
        pixels: (slices, height, width), one of `DTYPES` in native byte order, finite, not
            constant, read-only.
        notes: what is unusual and handled by a fixed rule, one sentence each.
    """

    pixels: np.ndarray
    notes: tuple[str, ...] = ()


def volume(path) -> Volume:
    """Reads a `.npy` volume.

    Args:
        path: the file.

    Returns:
        The volume. Its pixels lie in the bytes that were checked, so a file that is replaced
        meanwhile changes nothing.

    Raises:
        Unreadable: not one whole array of finite numbers (slices, height, width), 2 to 1000
            slices, not constant.
    """
    data = read_bytes(path)
    facts, _ = child.run("volume", data, suffix=Path(path).suffix)
    return Volume(_viewed(data, facts), tuple(facts["notes"]))


def task(data: bytes, suffix: str = ".npy", thumbnail: bool = False) -> tuple[dict, list]:
    """Checks a volume for `child.run("volume", data, suffix=...)`.

    Args:
        data: the file's content.
        suffix: ending of its name with the dot.
        thumbnail: whether to return a picture of the middle slice.

    Returns:
        {"slices", "height", "width", "dtype", "low" and "high" (of all pixels),
        "constant_slices" (how many), "notes", and for `volume` where the pixels lie: "offset"
        (bytes), "stored" (dtype with byte order), "fortran" (order)} and, if asked, [uint8
        (64, 64), 0 and 255 being the lowest and highest pixel of the volume], else [].

    Raises:
        Unreadable: as in `volume`.
    """
    if suffix.lower() == ".npz":
        raise Unreadable("is an .npz archive, which is never opened", SAVE)
    if suffix.lower() != ".npy":
        raise Unreadable(f"has a name that ends in {suffix or 'nothing'}, expected .npy", SAVE)
    shape, fortran, dtype, offset = _header(data)
    _refuse_shape(shape, dtype, len(data) - offset)
    facts = {"slices": shape[0], "height": shape[1], "width": shape[2], "dtype": dtype.name}
    facts |= {"offset": offset, "stored": dtype.str, "fortran": fortran}
    pixels = _viewed(data, facts)
    low, high, constant = extent(pixels)
    facts |= {"low": low, "high": high, "constant_slices": constant, "notes": []}
    if constant:
        facts["notes"].append(f"{constant} of {shape[0]} slices are constant")
    return facts, [_thumbnail(pixels, low, high)] if thumbnail else []


def extent(pixels: np.ndarray) -> tuple[float, float, int]:
    """Measures a volume.

    Args:
        pixels: (slices, height, width), any of `DTYPES`.

    Returns:
        (lowest pixel, highest pixel, how many slices are constant).

    Raises:
        Unreadable: NaN or infinite pixels, with the numbers of their slices counted from 0; or
            all pixels are equal.
    """
    rows = pixels.reshape(len(pixels), -1)
    low, high = rows.min(axis=1), rows.max(axis=1)
    # A minimum is NaN where any pixel is.
    bad = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))
    if len(bad):
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        listed = ", ".join(map(str, bad[:SHOWN])) + more
        raise Unreadable(
            f"holds NaN or infinite values in slices {listed} (the first is 0)",
            "repair what wrote it, and write it again",
        )
    if low.min() == high.max():
        raise Unreadable(
            f"is constant: every pixel is {low[0]:g}", "write it again from the original"
        )
    return float(low.min()), float(high.max()), int((low == high).sum())


def scaled(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Maps `low`..`high` to 0..1, as float64; any two different finite numbers will do."""
    # Their difference may be infinite where that of their halves is not.
    part = 1.0 if math.isfinite(high - low) else 0.5
    low, high = low * part, high * part
    return (pixels * np.float64(part) - low) / (high - low)


def _header(data):
    if data.startswith(b"PK\x03\x04"):
        raise Unreadable("is a zip archive (.npz), which is never opened", SAVE)
    if data.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        raise Unreadable("is a pickle: it contains Python objects, which are never loaded", SAVE)
    if not data.startswith(b"\x93NUMPY"):
        refuse_lost(data, "volume")
        raise Unreadable(f"is {named(data) or 'no NumPy array'}", SAVE)
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        header = read(file) if read else None
    except Exception as fault:  # the header is a Python literal, which fails in many ways
        reason = " ".join(str(fault).split())[:100]
        raise Unreadable(f"has a damaged header: {reason}", AGAIN) from fault
    if header is None:
        raise Unreadable(f"is a NumPy file of version {version[0]}.{version[1]}", SAVE)
    return *header, file.tell()


def _refuse_shape(shape, dtype, found):
    if dtype.hasobject:
        raise Unreadable("contains Python objects, which are never loaded", SAVE)
    if dtype.name not in DTYPES:
        raise Unreadable(f"holds {dtype.name} values, expected {', '.join(DTYPES)}", SAVE)
    if len(shape) != 3:
        raise Unreadable(
            f"has the shape {shape}, expected three sizes: slices, height, width", SAVE
        )
    if min(shape[1:]) < 1 or shape[1] * shape[2] > MAX_PIXELS:
        raise Unreadable(
            f"has slices of {shape[1]} x {shape[2]} pixels, expected 1 to {MAX_PIXELS:,}", SAVE
        )
    if not MIN_SLICES <= shape[0] <= MAX_SLICES:
        raise Unreadable(
            f"has {shape[0]} slices, expected {MIN_SLICES} to {MAX_SLICES}",
            "check the exam; the order is (slices, height, width)",
        )
    expected = math.prod(shape) * dtype.itemsize
    if found != expected:
        what = "is truncated" if found < expected else "has bytes after its end"
        raise Unreadable(
            f"{what}: its header promises {expected:,} bytes of pixels, {found:,} follow", AGAIN
        )


def _viewed(data, facts):
    dtype = np.dtype(facts["stored"])
    shape = facts["slices"], facts["height"], facts["width"]
    flat = np.frombuffer(data, dtype, offset=facts["offset"])
    pixels = flat.reshape(shape, order="F" if facts["fortran"] else "C")
    pixels = np.ascontiguousarray(pixels, dtype.newbyteorder("="))
    pixels.flags.writeable = False
    return pixels


def _thumbnail(pixels, low, high):
    grey = scaled(pixels[len(pixels) // 2], low, high).astype(np.float32)
    small = Image.fromarray(grey).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.rint(np.asarray(small) * 255).astype(np.uint8)
