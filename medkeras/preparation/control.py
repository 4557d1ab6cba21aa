"""The null control: what a pipeline finds where there is nothing to find.

The same experiment is run on labels permuted by patient, and on pictures of noise. Neither holds
anything to learn for new patients; a score whose interval excludes chance shows that the pipeline
lets pictures of the test part, or of their patients, into training. Two public systems did so:
oversampling before the split, and a split by knee instead of by patient.
"""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from medkeras.readers import tables

NULLS = {"permuted": "labels permuted by patient", "noise": "pictures of noise"}
# Side of a noise picture, and slices of a noise volume: small, for the pipeline resizes.
SIZE, SLICES, GRAIN = 64, 8, 16


def permuted(table, seed) -> pd.DataFrame:
    """Gives each patient the labels of another, drawn at random.

    Patients that the audit joined (column `group`) are treated as one. A patient with several
    labels gives those of the first picture.

    Args:
        table: from a reader.
        seed: of the permutation.

    Returns:
        A copy with other labels; known lesions (`mask`) are gone.
    """
    columns = [*tables.labels(table), *(["class"] if "class" in table else [])]
    # How a finding is uncertain may tell that it is there.
    columns += [name for name in table if name.startswith("uncertain ")]
    who = table["group" if "group" in table else "patient"]
    firsts = table[columns].groupby(who, sort=True).head(1).set_index(who[~who.duplicated()])
    firsts = firsts.sort_index()
    shuffled = firsts.iloc[np.random.default_rng(seed).permutation(len(firsts))]
    shuffled.index = firsts.index
    result = table.drop(columns="mask", errors="ignore")
    result.attrs = {**table.attrs, "lesions": False}
    for column in columns:
        drawn = who.map(shuffled[column])
        result[column] = drawn.astype(table[column].dtype)
    return result


def noise(table, seed, folder) -> pd.DataFrame:
    """Replaces every picture or volume by noise; labels and patients stay.

    Each patient has a pattern of his own, and each picture a little noise of its own on top, as
    pictures of one person resemble each other: a split that divides patients is found out too.

    Args:
        table: from a reader.
        seed: of the noise.
        folder: where the pictures are written.

    Returns:
        A copy whose files lie in `folder`, with their `sha256`; known lesions (`mask`) are gone.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    result = table.drop(columns="mask", errors="ignore")
    result.attrs = {**table.attrs, "lesions": False}
    who = table["group" if "group" in table else "patient"]
    hashes = [hashlib.sha256() for _ in range(len(table))]
    for column in tables.files(table):
        written, own_hashes = [], []
        for row, (path, patient, file) in enumerate(
            zip(table["path"], who, table[column], strict=True)
        ):
            pattern = _pattern(file, seed, column, patient)
            own = np.random.default_rng(_number(seed, column, path)).normal(0, 12, pattern.shape)
            pixels = np.clip(pattern + own, 0, 255).astype(np.uint8)
            name = f"{_number(column, path):064x}{'.npy' if pixels.ndim == 3 else '.png'}"
            _save(folder / name, pixels)
            hashes[row].update(pixels.tobytes())
            own_hashes.append(hashlib.sha256(pixels.tobytes()).hexdigest())
            written.append(str(folder / name))
        result[column] = written
        if f"sha256_{column}" in result:
            result[f"sha256_{column}"] = own_hashes
    result["sha256"] = [found.hexdigest() for found in hashes]
    return result


def _pattern(file, seed, column, patient):
    rng = np.random.default_rng(_number(seed, column, patient))
    volume = Path(file).suffix == ".npy"
    coarse = rng.uniform(40, 215, (GRAIN, GRAIN, SLICES if volume else 1)).astype(np.float32)
    large = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return np.moveaxis(large, -1, 0) if volume else large


def _number(*words):
    return int.from_bytes(hashlib.sha256("\0".join(map(str, words)).encode()).digest())


def _save(path, pixels):
    # Made again by every control, so a half written file of a killed one does no harm.
    if pixels.ndim == 3:
        np.save(path, pixels, allow_pickle=False)
    else:
        path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
