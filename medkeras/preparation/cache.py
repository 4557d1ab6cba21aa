"""Pictures and volumes decoded once: a uint8 memory map keyed by content and preprocessing.

Decoding costs milliseconds a picture and every epoch would pay it again; a memory
map of the resized uint8 pictures is read at memory speed, opens in under a
millisecond and takes a quarter of the room of float32. The slices of all volumes of a
plane lie one after the other, without padding.
"""

import hashlib
import json
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import PIL

from medkeras.errors import DataError, Problem
from medkeras.files import atomic, decode, volume
from medkeras.files.foreign import Unreadable
from medkeras.files.places import cache_folder
from medkeras.preparation import conform
from medkeras.readers import tables

CONFIG = conform.CONFIG


def key(table, image_shape) -> str:
    """Names the stored pictures of a table: changes with any byte, order, shape or recipe.

    Args:
        table: rows with `sha256`, or `image` to compute it from.
        image_shape: (height, width, channels).

    Returns:
        40 hexadecimal digits.
    """
    contents = table["sha256"] if "sha256" in table else map(decode.fingerprint, table["image"])
    recipe = {
        "pictures": list(contents),
        "image_shape": list(image_shape),
        "conform": conform.CONFIG,
        "pillow": PIL.__version__,
        "opencv": cv2.__version__,
    }
    return _name(recipe)


def volumes_key(table, plane: str, size: int, stretch: bool) -> str:
    """Names the stored volumes of a plane: changes with their bytes, order, size or recipe.

    Args:
        table: rows with the column `plane`; see `volumes`.
        plane: column of files.
        size: height and width.
        stretch: see `conform.volume`.

    Returns:
        40 hexadecimal digits, the same ones whatever the other planes hold.
    """
    recipe = {
        "volumes": _contents(table, plane),
        "size": size,
        "conform": conform.volume_config(stretch),
        "opencv": cv2.__version__,
    }
    return _name(recipe)


def pictures(table, image_shape, progress=None) -> np.ndarray:
    """Opens the stored pictures of a table, and stores them first where they are not.

    Args:
        table: one row a picture, with `image` (file) and, if known, `sha256` (content).
        image_shape: (height, width, channels).
        progress: called with the number of pictures done and the total, or None.

    Returns:
        Read-only memory map, uint8, (rows, height, width, channels).
    """
    path = cache_folder() / "pictures" / f"{key(table, image_shape)}.npy"
    shape = (len(table), *image_shape)
    stored = opened(path, shape, np.uint8)
    if stored is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.writing(path) as temporary:
            _store(list(table["image"]), temporary, shape, progress)
        stored = opened(path, shape, np.uint8)
    return stored


def volumes(table, plane: str, size: int, stretch: bool = False, progress=None) -> "Slices":
    """Opens the stored volumes of one plane, and stores them first where they are not.

    Args:
        table: one row an exam, with the column `plane` (file). Its content is known by the column
            `sha256_<plane>`, or `sha256` where there is one plane; else it is read.
        plane: column of files.
        size: height and width of the stored slices.
        stretch: see `conform.volume`.
        progress: called with the number of volumes done and the total, or None.

    Returns:
        The slices of all exams.

    Raises:
        DataError: a file that the audit would have refused.
    """
    key = volumes_key(table, plane, size, stretch)
    path = cache_folder() / "volumes" / f"{key}.npy"
    stored = _opened_volumes(path, len(table), size)
    if stored is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _store_volumes(list(table[plane]), path, size, stretch, progress)
        stored = _opened_volumes(path, len(table), size)
    return Slices(*stored, key)


def opened(path: Path, shape, dtype) -> np.ndarray | None:
    """Opens a stored array, or returns None where it is missing, cut short or another one."""
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return stored if stored.shape == tuple(shape) and stored.dtype == dtype else None


def _store(files, path, shape, progress):
    target = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)

    def one(index):
        target[index] = conform.load(files[index], shape[1:])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(one, range(len(files))), start=1):
            if progress:
                progress(done, len(files))
    target.flush()


def _store_volumes(files, path, size, stretch, progress):
    def one(file):
        try:
            return conform.volume(volume.volume(file).pixels, size, stretch)
        except Unreadable as fault:
            raise DataError([Problem(str(file), fault.reason, fault.remedy)]) from fault

    starts = np.zeros(len(files) + 1, np.int64)
    with atomic.writing(path) as temporary, open(temporary, "wb") as target:
        # How many slices there are shows at the end; NumPy leaves room for their number.
        _write_header(target, (0, size, size))
        for done, pixels in enumerate(_in_order(one, files), start=1):
            starts[done] = starts[done - 1] + len(pixels)
            target.write(pixels)
            if progress:
                progress(done, len(files))
        target.seek(0)
        _write_header(target, (int(starts[-1]), size, size))
    with atomic.writing(_starts_of(path)) as temporary:
        np.save(temporary, starts)


def _write_header(file, shape):
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _in_order(function, items):
    """Yields what `function` makes of each item, computed in threads, only few ahead."""
    count = os.cpu_count() or 1
    waiting = deque()
    with ThreadPoolExecutor(count) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _opened_volumes(path, count, size):
    starts = opened(_starts_of(path), (count + 1,), np.int64)
    if starts is None:
        return None
    pixels = opened(path, (starts[-1], size, size), np.uint8)
    return None if pixels is None else (pixels, np.array(starts))


def _starts_of(path):
    return path.with_suffix(".starts.npy")


def _contents(table, plane):
    known = "sha256" if tables.files(table) == [plane] else f"sha256_{plane}"
    if known in table:
        return list(table[known])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(decode.fingerprint, table[plane]))


def _name(recipe):
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Slices:
    """The volumes of one plane, one after the other.

    Args:
        pixels: read-only memory map, uint8 (slices of all exams, size, size).
        starts: int64 (exams + 1,): exam i has the slices starts[i] to starts[i + 1] - 1.
        key: names the content, see `volumes_key`.
    """

    pixels: np.ndarray
    starts: np.ndarray
    key: str

    @property
    def lengths(self) -> np.ndarray:
        """Number of slices of each exam, int64 (exams,)."""
        return np.diff(self.starts)

    def volume(self, row: int) -> np.ndarray:
        """Returns the slices of one exam, uint8 (slices, size, size), read-only."""
        return np.asarray(self.pixels[self.starts[row] : self.starts[row + 1]])
