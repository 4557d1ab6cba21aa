"""The pointing game: does the hottest point of a map lie in the known lesion?"""

from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from medkeras.evaluation.heat.overlays import resized
from medkeras.evaluation.numbers import statistics
from medkeras.files import decode, volume

UNKNOWN = "no known lesion masks"


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
        mask = _stretched((pixels if pixels.ndim == 2 else pixels.max(axis=2)) > 0, shape)
        if mask.any():
            found[row] = mask
    return found


def marked(row, finding, shape):
    """Reads the known lesion of one finding of a picture, stretched as the picture was.

    That of `<root>/valid/patient00301/study1/view1_frontal.jpg` is
    `<root>/masks/Pleural_Effusion/valid/patient00301/study1/view1_frontal.png`, as
    `phantoms.chest` writes it. What cannot be read is no mask, as in `lesions`.

    Args:
        row: of the table, with `path` and `image`.
        finding: "Pleural Effusion", ...
        shape: (height, width).

    Returns:
        bool (height, width), or None where nothing is marked.
    """
    if not row["image"].endswith("/" + row["path"]):
        return None
    place = PurePosixPath(finding.replace(" ", "_"), row["path"]).with_suffix(".png")
    try:
        pixels = decode.picture(Path(row["image"].removesuffix(row["path"]), "masks", place)).pixels
    except decode.Unreadable:
        return None
    mask = _stretched((pixels if pixels.ndim == 2 else pixels.max(axis=2)) > 0, shape)
    return mask if mask.any() else None


def lesions(exam, finding, volumes) -> dict:
    """Reads the known lesions of an exam, stretched as its slices were.

    A lesion of `<root>/valid/axial/0042.npy` is `<root>/masks/<finding>/valid/axial/0042.npy`,
    as `phantoms.knee_mri` writes it. What cannot be read, or has another number of slices, is no
    mask: the folder belongs to the user, who may keep anything there.

    Args:
        exam: row of the table; `exam[plane]` is the file of that plane.
        finding: "acl", ...
        volumes: {plane: (slices, height, width)}, the exam as the model sees it.

    Returns:
        {plane: bool (slices, height, width)} of the planes on which a lesion is marked.
    """
    found = {}
    for plane, pixels in volumes.items():
        file = Path(exam[plane])
        root = file.parents[2]
        try:
            marked = volume.volume(root / "masks" / finding / file.relative_to(root)).pixels > 0
        except volume.Unreadable:
            continue
        if len(marked) == len(pixels):
            marked = np.stack([_stretched(one, pixels.shape[1:]) for one in marked])
            if marked.any():
                found[plane] = marked
    return found


def hits(maps, lesion) -> tuple[bool, bool]:
    """Says whether the hottest point of an exam's maps lies in the lesion.

    Each slice's map is enlarged to the picture, bilinear; nothing is mixed across slices.

    Args:
        maps: {plane: (slices, h, w)}, not negative.
        lesion: {plane: bool (slices, height, width)} of one plane or more.

    Returns:
        (whether it lies in the lesion, whether it lies on a slice that shows the lesion); no
        and no without any evidence.
    """
    shape = next(iter(lesion.values())).shape[1:]
    hottest, found = 0.0, (False, False)
    for plane, slices in maps.items():
        for number, coarse in enumerate(slices):
            fine = resized(coarse, shape)
            place = fine.argmax()
            if fine.flat[place] > hottest:
                hottest = fine.flat[place]
                mask = lesion[plane][number] if plane in lesion else np.zeros(shape, bool)
                found = bool(mask.flat[place]), bool(mask.any())
    return found


def exam_game(maps, lesion, volumes) -> dict:
    """Plays `hits` on one exam.

    Args:
        maps: as in `hits`.
        lesion: as in `hits`.
        volumes: {plane: (slices, height, width)} of all planes, with or without a lesion.

    Returns:
        {point, point_chance, slice, slice_chance}: the two answers, and how likely each is for
        a random point: the lesion's share of the exam, and of its slices.
    """
    point, on_slice = hits(maps, lesion)
    marked = [one.any(axis=(1, 2)) for one in lesion.values()]
    return {
        "point": point,
        "point_chance": _sum(lesion.values()) / sum(one.size for one in volumes.values()),
        "slice": on_slice,
        "slice_chance": _sum(marked) / sum(len(one) for one in volumes.values()),
    }


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
    # A picture is an exam of one slice.
    inside = [
        hits({"picture": coarse[None]}, {"picture": mask[None]})[0]
        for coarse, mask in zip(maps, masks, strict=True)
    ]
    entry = scored(inside, [mask.mean() for mask in masks], patients, seed)
    if entry is None:
        return {"pointing_game": None, "reason": UNKNOWN}
    return {"pointing_game": entry | {"target": "true class"}}


def by_finding(played, findings, seed=0) -> dict:
    """Scores hits of each finding, and all together.

    Args:
        played: (finding, whether it was a hit, chance of a random point, patient) of each map.
        findings: names; one without maps gets None.
        seed: of the bootstrap.

    Returns:
        {"findings": {name: entry}, "pointing_game": entry}, see `scored`; with a "reason" where
        there are no maps at all.
    """

    def score(rows):
        return scored(*(list(column) for column in zip(*rows)), seed) if rows else None

    own = {name: score([row[1:] for row in played if row[0] == name]) for name in findings}
    reason = {} if played else {"reason": UNKNOWN}
    return {"findings": own, "pointing_game": score([row[1:] for row in played]), **reason}


def scored(right, chances, patients, seed=0) -> dict | None:
    """Puts an interval over patients around a share of hits.

    Args:
        right: (n,) whether each map points at its lesion.
        chances: (n,) how likely a random point would.
        patients: (n,) patient of each.
        seed: of the bootstrap.

    Returns:
        {value, low, high, n, n_patients, chance}, low and high None with too few patients;
        or None without any maps.
    """
    if len(right) == 0:
        return None
    right = np.asarray(right, dtype=float)
    entry = {"value": float(right.mean()), "low": None, "high": None, "n": len(right)}
    entry |= {"n_patients": len(set(patients)), "chance": float(np.mean(chances))}
    if entry["n_patients"] >= statistics.FEWEST_PATIENTS:
        if entry["value"] in (0.0, 1.0):
            bounds = statistics.exact_interval(entry["value"], entry["n_patients"])
        else:
            share = {"right": statistics.share(right)}
            bounds = statistics.interval(statistics.bootstrap(share, patients, seed=seed)["right"])
        entry["low"], entry["high"] = bounds[:2]
    return entry


def _stretched(mask, shape):
    image = Image.fromarray(mask).resize(shape[::-1], Image.Resampling.NEAREST)
    return np.asarray(image)


def _sum(masks):
    return sum(int(one.sum()) for one in masks)
