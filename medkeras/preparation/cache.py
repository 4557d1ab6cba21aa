"""Pictures decoded once: a uint8 memory map keyed by content and preprocessing.

Decoding costs milliseconds a picture and every epoch would pay it again; a memory
map of the resized uint8 pictures is read at memory speed, opens in under a
millisecond and takes a quarter of the room of float32.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import PIL

from medkeras.files import atomic, decode
from medkeras.files.places import cache_folder
from medkeras.preparation import conform

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
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:40]


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
