"""Films cut into knees, decoded once: a uint8 memory map of what a locator sees.

A film is decoded and cut in one go, whichever of its knees have boxes, and beside the pictures
stands where on the film each knee lies.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
import PIL

from medkeras.errors import DataError, Problem
from medkeras.files import atomic, decode
from medkeras.files.places import cache_folder
from medkeras.preparation import cache, halves
from medkeras.readers import dicom_knees, films

# Pixels that a box may reach beyond its film: what rounding does.
SLACK = 1.0
PLACE = ("start", "half_height", "half_width", "film_width")


def knees(table, image_shape, progress=None) -> tuple[pd.DataFrame, np.ndarray, str]:
    """Cuts the films of a table, or finds them cut.

    A film with boxes of both knees is cut, and so is any that is as wide as films of both are
    (see `dicom_knees.wide`) and does not show one side alone.

    Args:
        table: one row a film, from `readers.films`; with `sha256` where it is known.
        image_shape: (height, width, 1) of the pictures.
        progress: called with films done and in all, or None.

    Returns:
        A table with one row a knee that has a box: the columns of its film, `side`, `PLACE` in
        pixels, and `halves.BOX`; the pictures, uint8 (rows, height, width, 1), read-only; and a
        key that names them.

    Raises:
        DataError: boxes that reach beyond their film, or lie in the other half.
    """
    table = table.reset_index(drop=True)
    listed = [
        (film, side)
        for film in range(len(table))
        for side in films.SIDES
        if np.isfinite(table[f"{side}_x"].iloc[film])
    ]
    contents = table["sha256"] if "sha256" in table else map(decode.fingerprint, table["image"])
    recipe = {
        "films": list(contents),
        "knees": listed,
        "side": table["side"].tolist(),
        "image_shape": list(image_shape),
        "halves": halves.CONFIG,
        "pillow": PIL.__version__,
        "opencv": cv2.__version__,
    }
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:40]
    path = cache_folder() / "knees" / f"{key}.npy"
    shape = (len(listed), *image_shape)
    if _opened(path, shape) is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _store(table, listed, path, shape, progress)
    stored, places = _opened(path, shape)
    return _boxed(table, listed, places), stored, key


def _opened(path, shape):
    stored = cache.opened(path, shape, np.uint8)
    places = cache.opened(_places_of(path), (shape[0], len(PLACE)), np.int64)
    return None if stored is None or places is None else (stored, np.array(places))


def _places_of(path):
    return path.with_suffix(".places.npy")


def _store(table, listed, path, shape, progress):
    places = np.zeros((len(listed), len(PLACE)), np.int64)
    of_film = {}
    for knee, (film, side) in enumerate(listed):
        of_film.setdefault(film, {})[side] = knee

    with atomic.writing(path) as temporary:
        target = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)

        def one(film):
            pixels = decode.picture(table["image"].iloc[film]).pixels
            for half in _halves(pixels, table["side"].iloc[film], list(of_film[film])):
                knee = of_film[film].get(half.side)
                if knee is not None:
                    target[knee] = half.picture(pixels, shape[1:])
                    places[knee] = half.start, half.height, half.width, pixels.shape[1]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done, _ in enumerate(pool.map(one, of_film), start=1):
                if progress:
                    progress(done, len(of_film))
        target.flush()
    with atomic.writing(_places_of(path)) as temporary:
        np.save(temporary, places)


def _halves(pixels, side, boxed):
    if len(boxed) == 2 or (not side and dicom_knees.wide(pixels.shape[:2])):
        return halves.both(pixels)
    return [halves.whole(pixels, boxed[0])]


def _boxed(table, listed, places):
    """Makes the table of knees, each box as shares of its half."""
    rows = table.iloc[[film for film, _ in listed]].reset_index(drop=True)
    rows["side"] = [side for _, side in listed]
    rows[list(PLACE)] = places
    boxes, problems = np.empty((len(listed), 4), np.float32), []
    for knee, (film, side) in enumerate(listed):
        box = table.loc[film, films.columns(side)].to_numpy(np.float64)
        start, height, width, film_width = places[knee].tolist()
        boxes[knee] = halves.Half(side, start, height, width).shares(box)
        problem = _problem(box, boxes[knee], side, (height, film_width))
        if problem:
            problems.append(Problem(rows["path"].iloc[knee], *problem))
    if problems:
        raise DataError(problems)
    rows[list(halves.BOX)] = boxes
    sides = [name for side in films.SIDES for name in films.columns(side)]
    rows = rows.drop(columns=[*sides, "label", "class"])
    attrs = {name: value for name, value in table.attrs.items() if name != "classes"}
    rows.attrs = {**attrs, "labels": list(halves.BOX)}
    return rows


def _problem(box, shares, side, shape):
    """Returns reason and remedy where a box cannot be that of its knee."""
    x, y, across, down = box
    height, width = shape
    if x + across > width + SLACK or y + down > height + SLACK:
        said = f"{x:g} + {across:g} by {y:g} + {down:g}"
        return (
            f"has a box of the {side} knee ({said}) that reaches beyond its {width} x {height} "
            "pixels",
            "correct it: x, y, width and height count pixels of this file",
        )
    if not 0 <= shares[0] <= 1:
        reason = f"has the box of the {side} knee in the other half of the picture"
        return reason, "correct its side: the patient's right is at the left of the picture"
    return None
