"""Writes made-up knee MRI with known lesions, in the layout of MRNet-v1.0.

    train/axial/0000.npy           uint8 (slices, size, size), any number of slices
    train/coronal/0000.npy
    train/sagittal/0000.npy
    valid/...                      numbers go on where train ends
    train-abnormal.csv             without header: number of four digits, 0 or 1
    train-acl.csv, train-meniscus.csv, valid-abnormal.csv, ...
    masks/acl/train/sagittal/0003.npy   uint8, 255 on the lesion; abnormal, acl, meniscus; only
                                   for exams that have one, and planes that show it
    truth.csv                      path, the lesions drawn, and the best score for each label
    phantom.json                   the arguments

How an exam comes about. One knee in space, of random proportions, turned, shifted and bent by a
little, left or right: femur, tibia, fibula, patella, cartilage, menisci, cruciate ligaments,
tendons, muscles, vessels and fat. It is sliced in three planes with the contrasts of MRNet's
series (sagittal T2 and axial proton density with fat suppressed, coronal T1), so the planes
agree. Each stack has its own number and place of slices, grain, coil shading, noise of a
magnitude picture, gain and gamma, drawn independently of the lesions. So mean brightness and
number of slices say nothing about the labels, and spread next to nothing: against the truth of
600 exams, the AUC of the spread of a plane was at most 0.54 (0.57 at difficulty 0).

A knee has any of three lesions. *acl*: the band through the notch is interrupted, swollen and
bright. *meniscus*: a bright cleft runs through the dark wedge, the inner one in two thirds, with a
small cyst at its rim. *other*: oedema of the marrow, fluid above the patella, or a cyst behind
the knee, a third each. On T1, fluid is dark, as in a real knee. An acl is torn in 0.3
of the knees, a meniscus in 0.6 of those and in 0.3 of the rest, so in 0.39; other lesions
come independently in 0.4; 0.71 have a lesion. (MRNet's training set: abnormal 0.81, acl 0.18,
meniscus 0.35; less extreme here so that a small set has all classes.)

How a label comes about. A reader calls each of the three lesions and is wrong with probability q,
`disagreement`, independently. The labels acl and meniscus are the calls; abnormal is 1 where any
of the three calls is. So a label depends on the picture through the true lesions t alone, and no
score ranks better than P(label = 1 | t), by the lemma of Neyman and Pearson: 1 - q or q for
acl and meniscus, 1 - (1 - q)^(3 - k) q^k for abnormal with k lesions. `truth.csv` holds that
score, and `ceiling` its AUC, the best that any model can reach: a sum over the 8 states of t.
Within a split, combinations of lesions are as frequent as expected, rounded up or down by chance,
and so are wrong calls with and without each lesion: even a small set has every class, and the
AUC of its ideal score is close to the ceiling.

`difficulty` (0 easy .. 1 hopeless) shrinks the lesions, takes their contrast and adds noise; it
leaves the ceiling, which supposes that every lesion is seen. Other shapes than the lesions are
those of a textbook, not of a patient: nothing learned here holds for real knees.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from medkeras.files import atomic
from medkeras.phantoms import folder
from medkeras.phantoms.drawing import knee_anatomy, scanner
from medkeras.phantoms.drawing.knee_lesions import LESIONS

LABELS = ("abnormal", "acl", "meniscus")
# Raised when the same arguments give other pictures, so that old folders are not reused.
GENERATOR = 1

ACL, OTHER = 0.3, 0.4
MENISCUS = {0: 0.3, 1: 0.6}  # without and with a torn acl
# Numbers of exams have four digits.
MOST_EXAMS = 10_000


def write(
    root,
    *,
    exams: int = 240,
    valid: int | None = None,
    size: int = 96,
    slices=(17, 61),
    difficulty: float = 0.3,
    disagreement: float = 0.05,
    seed: int = 0,
) -> Path:
    """Writes a phantom data set, or finds it already written with the same arguments.

    Args:
        root: folder to write; an existing one is replaced only if this function wrote it.
        exams: exams of both splits together, 2 to 10,000.
        valid: exams of the split `valid`; None takes a fifth. MRNet: exams=1250, valid=120.
        size: height and width in pixels, 32 or more; MRNet's is 256.
        slices: fewest and most slices of a plane, both included.
        difficulty: 0 (easy) .. 1 (hopeless).
        disagreement: probability that a reader is wrong about a lesion, 0 .. below 0.5.
        seed: 0 or more; the same arguments give the same bytes.

    Returns:
        The folder, complete.

    Raises:
        UsageError: an argument out of range, or `root` holds something else.
    """
    fewest, most = slices
    valid = max(1, exams // 5) if valid is None else valid
    _refuse(exams, valid, size, (fewest, most), difficulty, disagreement, seed)
    stamp = {
        "generator": GENERATOR,
        "exams": exams,
        "valid": valid,
        "size": size,
        "slices": [fewest, most],
        "difficulty": difficulty,
        "disagreement": disagreement,
        "seed": seed,
    }
    return folder.written(root, stamp, lambda base: _write_all(base, stamp))


def sample(root, size: int, exams: int = 400) -> Path:
    """Writes the sample data of the experiments: small, easy exams, 100 of them to test on."""
    return write(root, exams=exams, valid=100, size=size, slices=(8, 16), difficulty=0.1)


def ceiling(disagreement: float = 0.05) -> dict[str, float]:
    """Computes the AUC of the ideal observer, who sees every lesion.

    With states t, their probabilities P(t) and p(t) = P(label = 1 | t), the AUC is the chance
    that an exam of label 1 has a higher p than one of label 0, ties counting half: the sum over
    pairs (s, t) of P(s) p(s) P(t) (1 - p(t)) [p(s) > p(t)], divided by P(1) P(0).

    Args:
        disagreement: probability that a reader is wrong about a lesion, 0 .. below 0.5.

    Returns:
        {label: AUC}, 1 for every label where readers are never wrong.
    """
    states, chance = _states()
    result = {}
    for label, score in zip(LABELS, _scores(states, disagreement).T, strict=True):
        wins = np.heaviside(score[:, None] - score, 0.5)
        positive, negative = chance * score, chance * (1 - score)
        result[label] = float(positive @ wins @ negative / (positive.sum() * negative.sum()))
    return result


def _states():
    """The 8 combinations of lesions, (8, 3) of 0 and 1 by `LESIONS`, and their probabilities."""
    states = np.array(list(product((0, 1), repeat=3)))
    chance = [
        (ACL if acl else 1 - ACL)
        * (MENISCUS[acl] if meniscus else 1 - MENISCUS[acl])
        * (OTHER if other else 1 - OTHER)
        for acl, meniscus, other in states.tolist()
    ]
    return states, np.array(chance)


def _scores(states, disagreement):
    """P(label = 1 | lesions), (n, 3) by `LABELS`."""
    called = np.where(states == 1, 1 - disagreement, disagreement)
    scores = np.column_stack([1 - (1 - called).prod(axis=1), called[:, 0], called[:, 1]])
    # Lesions multiplied in another order must tie exactly.
    return scores.round(12)


def _cases(rng, count, disagreement):
    """Draws lesions (count, 3) by `LESIONS` and labels (count, 3) by `LABELS`."""
    states, chance = _states()
    lesions = states[np.searchsorted(np.cumsum(chance)[:-1], _even(rng, count), side="right")]
    calls = lesions.copy()
    for column, drawn in zip(calls.T, lesions.T, strict=True):
        for state in (0, 1):
            (exams,) = np.nonzero(drawn == state)
            column[exams] ^= _even(rng, len(exams)) < disagreement
    return lesions, np.column_stack([calls.any(axis=1), calls[:, 0], calls[:, 1]]).astype(int)


def _even(rng, count):
    """Draws uniform numbers that are spread evenly over 0..1, in random order."""
    return (rng.permutation(count) + rng.random()) / max(count, 1)


def _write_all(base, stamp):
    counts = {"train": stamp["exams"] - stamp["valid"], "valid": stamp["valid"]}
    for split in counts:
        for plane in scanner.PLANES:
            (base / split / plane).mkdir(parents=True)
            for label in LABELS:
                (base / "masks" / label / split / plane).mkdir(parents=True)

    truth, first = [], 0
    for place, (split, count) in enumerate(counts.items()):
        rng = np.random.default_rng([stamp["seed"], 0, place])
        lesions, labels = _cases(rng, count, stamp["disagreement"])
        numbers = [f"{first + exam:04d}" for exam in range(count)]
        for label, values in zip(LABELS, labels.T, strict=True):
            rows = pd.DataFrame({"exam": numbers, "label": values})
            rows.to_csv(
                base / f"{split}-{label}.csv", header=False, index=False, lineterminator="\n"
            )
        rows = pd.DataFrame(lesions, columns=LESIONS)
        rows.insert(0, "path", [f"{split}/{number}" for number in numbers])
        rows[[f"ideal_{label}" for label in LABELS]] = _scores(lesions, stamp["disagreement"])
        truth.append(rows)
        first += count
    truth = pd.concat(truth)
    atomic.write_csv(base / "truth.csv", truth)

    shown = [
        [name for name, drawn in zip(LESIONS, row, strict=True) if drawn]
        for row in truth[list(LESIONS)].to_numpy()
    ]
    # Threads: nearly all time is spent in NumPy, which lets the others run.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        one = partial(_write_exam, base, stamp)
        list(pool.map(one, range(len(truth)), truth["path"], shown))


def _write_exam(base, stamp, place, path, lesions):
    size, (fewest, most), difficulty = stamp["size"], stamp["slices"], stamp["difficulty"]
    rng = np.random.default_rng([stamp["seed"], 1, place])
    knee, pose = knee_anatomy.draw(rng, difficulty), scanner.lay(rng)
    split, number = path.split("/")
    for plane in scanner.PLANES:
        slices = int(rng.integers(fewest, most, endpoint=True))
        pixels, masks = scanner.scan(rng, knee, pose, plane, slices, size, lesions, difficulty)
        _save(base / split / plane / f"{number}.npy", pixels)
        if masks:
            masks["abnormal"] = np.any(list(masks.values()), axis=0)
        for label in LABELS:
            if label in masks and masks[label].any():
                mask = masks[label].astype(np.uint8) * 255
                _save(base / "masks" / label / split / plane / f"{number}.npy", mask)


def _save(path, pixels):
    # The folder becomes visible only when complete, so single files need no care of their own.
    np.save(path, pixels)


def _refuse(exams, valid, size, slices, difficulty, disagreement, seed):
    faults = {
        f"exams={exams}: expected 2 to {MOST_EXAMS}": not 2 <= exams <= MOST_EXAMS,
        f"valid={valid}: expected 1 to {exams - 1}": not 1 <= valid < exams,
        f"size={size}: expected 32 or more": size < 32,
        f"slices={slices}: expected 1 <= fewest <= most": not 1 <= slices[0] <= slices[1],
        f"difficulty={difficulty}: expected 0..1": not 0 <= difficulty <= 1,
        f"disagreement={disagreement}: expected 0 .. below 0.5": not 0 <= disagreement < 0.5,
        f"seed={seed}: expected 0 or more": seed < 0,
    }
    folder.refuse(faults)
