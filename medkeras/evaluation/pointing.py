"""The pointing game: does the hottest point of a map lie in the known lesion?"""

import numpy as np
from PIL import Image

from medkeras.evaluation import statistics
from medkeras.evaluation.overlays import resized
from medkeras.files import decode


def masks(table, shape):
    """Reads the known lesions, stretched to the pictures' shape as the pictures were.

    Args:
        table: rows with a column `mask` (file or None), or without that column.
        shape: (height, width).

    Returns:
        {row number: bool (height, width)} of the masks that mark anything.
    """
    found = {}
    for row, path in enumerate(table.get("mask", [])):
        if not isinstance(path, str):
            continue
        pixels = decode.picture(path).pixels
        mask = (pixels if pixels.ndim == 2 else pixels.max(axis=2)) > 0
        image = Image.fromarray(mask).resize(shape[::-1], Image.Resampling.NEAREST)
        if np.asarray(image).any():
            found[row] = np.asarray(image)
    return found


def game(maps, masks, patients, seed=0) -> dict:
    """Scores how often the hottest point lies in the lesion (Zhang et al. 2016, no tolerance).

    Args:
        maps: n maps (h, w), of the true class.
        masks: n bool (height, width), the known lesions.
        patients: (n,) patient of each.
        seed: of the bootstrap.

    Returns:
        {"pointing_game": {value, low, high, n, n_patients, chance, target}}; chance is the mean
        share of the picture that the lesion covers. A map without evidence is a miss.
    """
    if len(masks) == 0:
        return {"pointing_game": None, "reason": "no known lesion masks"}
    hits = np.zeros(len(masks))
    for n, (coarse, mask) in enumerate(zip(maps, masks, strict=True)):
        fine = resized(coarse, mask.shape)
        hits[n] = fine.max() > 0 and mask.flat[fine.argmax()]
    entry = {"value": float(hits.mean()), "low": None, "high": None, "n": len(hits)}
    entry |= {
        "n_patients": len(set(patients)),
        "chance": float(np.mean([mask.mean() for mask in masks])),
        "target": "true class",
    }
    if entry["n_patients"] >= statistics.FEWEST_PATIENTS:
        if entry["value"] in (0.0, 1.0):
            bounds = statistics.exact_interval(entry["value"], entry["n_patients"])
        else:
            share = {"hits": statistics.share(hits)}
            bounds = statistics.interval(statistics.bootstrap(share, patients, seed=seed)["hits"])
        entry["low"], entry["high"] = bounds[:2]
    return {"pointing_game": entry}
