"""Writes made-up bone X-rays with known fractures, as class folders.

    healthy/p017_2.png            grey, 8 bit
    fractured/...
    beyond_repair/...
    patients.csv                  path, patient, class
    masks/fractured/p003_1.png    white where the bone is broken; none for healthy
    phantom.json                  the arguments

How a picture comes about. A patient has one class and one limb: one or two long bones with a
joint at one end, drawn once, slightly bent, as the thickness that a ray crosses in a tube of
dense cortex around sparse marrow, with spongy bone near the joint, sometimes a growth plate,
and an injury. *Fractured*: one jagged oblique line divides a bone, and the far part is moved
and turned by a little. *Beyond repair*: two lines and random cells between them divide the
bone into four to six fragments that are scattered, with the far part moved far. Each fragment
is moved as a rigid body and the thicknesses are added, so overlaps are bright and gaps dark,
as in a projection. Every picture of a patient is another view of the same anatomy and
injury: turned, scaled, shifted, flipped, the displacement seen from another angle.

Soft tissue of a random width surrounds the bone; brightness = 1 - exp(-attenuation), then the
window of a viewer, gamma, background gradient, blur and noise that grows with brightness, all
drawn independently of the class, and sometimes a side marker. So mean and spread of the
brightness, size, format and name say nothing about the class; patient numbers are shuffled.

The labels are the truth, so the best score any reader of the pictures can reach is an AUC of 1 for
every class (`ceiling`); difficulty limits only how much of the injury can be seen.

`difficulty` (0 easy .. 1 hopeless) shrinks displacement, gap and angulation and raises the
noise; the injury itself is never absent. Drawn at four times the size, then averaged.
"""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from medkeras.files import atomic
from medkeras.phantoms import folder
from medkeras.phantoms.drawing import film, limb

CLASSES = ("healthy", "fractured", "beyond_repair")
# Raised when the same arguments give other pictures, so that old folders are not reused.
GENERATOR = 1


def write(
    root,
    *,
    classes=CLASSES,
    patients: int = 240,
    pictures_per_patient=(1, 2),
    size: int = 96,
    difficulty: float = 0.3,
    seed: int = 0,
) -> Path:
    """Writes a phantom data set, or finds it already written with the same arguments.

    Args:
        root: folder to write; an existing one is replaced only if this function wrote it.
        classes: names out of "healthy", "fractured", "beyond_repair".
        patients: patients of all classes together, spread evenly.
        pictures_per_patient: fewest and most pictures of a patient, both included.
        size: height and width in pixels, 32 or more.
        difficulty: 0 (easy) .. 1 (hopeless).
        seed: 0 or more; the same arguments give the same bytes.

    Returns:
        The folder, complete.

    Raises:
        UsageError: an argument out of range, or `root` holds something else.
    """
    classes = tuple(classes)
    fewest, most = pictures_per_patient
    _refuse(classes, patients, fewest, most, size, difficulty, seed)
    stamp = {
        "generator": GENERATOR,
        "classes": list(classes),
        "patients": patients,
        "pictures_per_patient": [fewest, most],
        "size": size,
        "difficulty": difficulty,
        "seed": seed,
    }
    return folder.written(
        root,
        stamp,
        lambda base: _write_all(base, classes, patients, (fewest, most), size, difficulty, seed),
    )


def ceiling(classes=CLASSES) -> dict[str, float]:
    """Returns the AUC of an ideal observer, who sees every injury: 1 for each class.

    Args:
        classes: names out of "healthy", "fractured", "beyond_repair".
    """
    return dict.fromkeys(classes, 1.0)


def _write_all(base, classes, patients, per_patient, size, difficulty, seed):
    numbers = np.random.default_rng([seed, 0]).permutation(patients)
    rows = []
    for name in classes:
        (base / name).mkdir(parents=True)
        if name != "healthy":
            (base / "masks" / name).mkdir(parents=True)
    for number in range(patients):
        rng = np.random.default_rng([seed, 1, number])
        name = classes[number % len(classes)]
        anatomy = limb.draw(rng, name, size, difficulty)
        patient = f"p{numbers[number]:03d}"
        for picture in range(rng.integers(per_patient[0], per_patient[1], endpoint=True)):
            file = f"{name}/{patient}_{picture + 1}.png"
            pixels, mask = _view(rng, anatomy, size, difficulty)
            folder.save(base / file, pixels)
            if name != "healthy":
                folder.save(base / "masks" / file, mask)
            rows.append((file, patient, name))
    table = pd.DataFrame(rows, columns=["path", "patient", "class"]).sort_values("path")
    atomic.write_csv(base / "patients.csv", table)


def _view(rng, anatomy, size, difficulty):
    """Projects a limb onto a film: pixels and mask, both uint8 (size, size)."""
    full = size * limb.OVERSAMPLE
    camera = _camera(rng, anatomy, full, difficulty)
    # A displacement seen from the side is shorter.
    seen = rng.uniform(0.65, 1.0)
    bone = film.warp(anatomy.still, camera, full)
    mask = np.zeros((full, full), np.float32)
    for (part, shift, turn), broken in zip(anatomy.fragments, anatomy.broken, strict=True):
        move = _movement(anatomy, shift, turn * seen, seen, full)
        bone += film.warp(part, camera @ move, full)
        mask = np.maximum(mask, film.warp(broken, camera @ move, full))
    attenuation = bone + film.warp(anatomy.soft, camera, full)

    picture = cv2.resize(1 - np.exp(-attenuation), (size, size), interpolation=cv2.INTER_AREA)
    pixels = film.expose(rng, picture, size, difficulty)
    mask = (cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA) > 0.3).astype(np.uint8)
    # The gaps between the pieces belong to the break.
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, [2 * (size // 20) + 1] * 2)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, reach, borderType=cv2.BORDER_REPLICATE)
    return pixels, cv2.dilate(mask, np.ones((3, 3), np.uint8)) * 255


def _camera(rng, anatomy, full, difficulty):
    """Matrix from canvas to film: turned, scaled, flipped and shifted around the injury."""
    side = anatomy.still.shape[0]
    turn = np.deg2rad(rng.normal(0, 4 + 20 * difficulty) + 90 * (rng.random() < 0.2 * difficulty))
    scale = rng.uniform(0.88, 1.12)
    stretch = scale * np.array([rng.uniform(0.85, 1.1) * rng.choice([-1, 1]), rng.choice([-1, 1])])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = rotation * stretch
    goal = full * (0.5 + rng.uniform(-0.04, 0.04, 2))
    point = np.array([side / 2, side / 2])
    return film.matrix(linear, goal - linear @ point)


def _movement(anatomy, shift, turn, seen, full):
    """Matrix that moves a piece on the canvas around the injury."""
    angle = np.deg2rad(turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array(anatomy.centre)
    offset = np.array([shift[0] * seen, shift[1]]) * full
    return film.matrix(rotation, centre + offset - rotation @ centre)


def _refuse(classes, patients, fewest, most, size, difficulty, seed):
    unknown = [name for name in classes if name not in CLASSES]
    faults = {
        f"classes={classes}: expected different ones of {CLASSES}": unknown
        or not classes
        or len(set(classes)) < len(classes),
        f"patients={patients}: expected at least one per class": patients < len(classes),
        f"pictures_per_patient={(fewest, most)}: expected 1 <= fewest <= most": not (
            1 <= fewest <= most
        ),
        f"size={size}: expected 32 or more": size < 32,
        f"difficulty={difficulty}: expected 0..1": not 0 <= difficulty <= 1,
        f"seed={seed}: expected 0 or more": seed < 0,
    }
    folder.refuse(faults)
