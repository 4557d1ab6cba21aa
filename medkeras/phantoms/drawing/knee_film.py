"""Takes X-rays of made-up knees: a film of both, and a picture of each joint alone.

A film is 350 mm wide. The patient faces us, so the right knee is at the left of the picture,
and the medial sides meet in the middle. Each leg is shifted, turned and magnified by its own
amount. The box of a joint is an upright square, 92 mm of the knee wide before magnification,
around a point 5 mm above the tibial plateau; the picture of a joint alone shows the same view,
a little off the box as a locator would be.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from medkeras.phantoms.drawing import knee_bones

WIDTH = 350.0
JOINT = 92.0
ABOVE = 5.0


@dataclass(frozen=True)
class View:
    """How one leg lies before the film.

    Args:
        across: distance from the middle of the film to the joint, mm on the film.
        along: height of the joint, from -1 (as high as a joint may be) to 1 (as low).
        scale: magnification.
        turn: degrees, as seen in the picture.
        right: whether it is the right leg.
        off: what the picture of the joint alone is off: x and y in shares of its side, scale.
    """

    across: float
    along: float
    scale: float
    turn: float
    right: bool
    off: tuple


def views(rng, difficulty: float) -> list[View]:
    """Draws how both legs of a patient lie, right one first.

    Args:
        rng: NumPy generator.
        difficulty: 0..1, more turning.
    """
    along, scale = rng.uniform(-0.8, 0.8), rng.uniform(0.92, 1.1)
    return [
        View(
            across=rng.uniform(70, 105),
            along=along + rng.uniform(-0.2, 0.2),
            scale=scale * rng.uniform(0.98, 1.02),
            turn=rng.normal(0, 2.5 + 5 * difficulty),
            right=right,
            off=(rng.uniform(-0.04, 0.04), rng.uniform(-0.06, 0.06), rng.uniform(0.98, 1.02)),
        )
        for right in (True, False)
    ]


def box(seen: View, shape) -> tuple:
    """Returns left, top, width and height of a joint on a film of `shape`, in pixels."""
    height, width = shape
    pixel = WIDTH / width
    side = JOINT * seen.scale / pixel
    x = width / 2 + (-1 if seen.right else 1) * seen.across / pixel
    # Anywhere in the middle half of the film, as far as the box stays on it.
    room = min(height / 4, max(0.0, (height - side) / 2))
    y = height / 2 + seen.along * room
    return x - side / 2, y - side / 2, side, side


def joint(rng, knee, seen: View, size: int, difficulty: float) -> np.ndarray:
    """Takes a picture of one joint.

    Args:
        rng: NumPy generator of exposure and noise.
        knee: what to show, a `knee_bones.Knee`.
        seen: how it lies.
        size: height and width in pixels.
        difficulty: 0..1, more noise and blur.

    Returns:
        float32 (size, size), 0 (black) .. 1.
    """
    finer = max(2, round(384 / size))
    full = size * finer
    x, y, stretch = seen.off
    camera = _camera(seen, (full * (0.5 + x), full * (0.5 + y)), stretch * full / JOINT)
    return _exposed(
        rng, _averaged(knee_bones.attenuation(knee, camera, (full, full)), finer), difficulty
    )


def film(rng, knees, views, shape, difficulty: float) -> np.ndarray:
    """Takes a film of both knees of a patient.

    Args:
        rng: NumPy generator of exposure and noise.
        knees: both, each a `knee_bones.Knee`.
        views: how they lie, in the same order.
        shape: (height, width) of the film in pixels.
        difficulty: 0..1, more noise and blur.

    Returns:
        float32 of `shape`, 0 (black) .. 1.
    """
    finer = 2
    full = (shape[0] * finer, shape[1] * finer)
    total = np.zeros(full, np.float32)
    for knee, seen in zip(knees, views, strict=True):
        left, top, side, _ = box(seen, full)
        camera = _camera(seen, (left + side / 2, top + side / 2), side / JOINT)
        total += knee_bones.attenuation(knee, camera, full)
    return _marked(rng, _exposed(rng, _averaged(total, finer), difficulty))


def _camera(seen, centre, scale):
    """Matrix from millimetres of the knee to pixels; the joint comes to lie at `centre`."""
    turn = np.deg2rad(seen.turn)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    # x runs to the medial side: to the right in the picture of a right knee.
    linear = scale * turned @ np.diag([1.0 if seen.right else -1.0, 1.0])
    camera = np.eye(3)
    camera[:2, :2] = linear
    # Pixel centres lie at whole numbers.
    camera[:2, 2] = np.array(centre) - 0.5 - linear @ [0, -ABOVE]
    return camera


def _averaged(attenuation, finer):
    height, width = attenuation.shape
    absorbed = 1 - np.exp(-1.3 * attenuation)
    return cv2.resize(absorbed, (width // finer, height // finer), interpolation=cv2.INTER_AREA)


def _exposed(rng, absorbed, difficulty):
    """Window of a viewer, gamma, gradient, blur and noise: nothing here knows the grade."""
    # A window of its own for each film. One fitted to the picture would tell how much of it the
    # gap takes up.
    low, high = rng.uniform(0.05, 0.3), rng.uniform(0.84, 0.95)
    picture = np.clip((absorbed - low) / (high - low), 0, 1.1) ** rng.uniform(0.9, 1.5)
    height, width = picture.shape
    down, right = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    gradient = right * np.cos(angle) + down * np.sin(angle)
    picture = rng.uniform(0.03, 0.12) * (1 + 0.5 * gradient) + rng.uniform(0.7, 0.85) * picture
    blur = 0.4 + 0.3 * difficulty + 3 * difficulty**4
    picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), blur)
    noise = rng.standard_normal((height, width), dtype=np.float32)
    noise *= 0.006 + 0.05 * difficulty + 0.2 * difficulty**4
    return np.clip(picture + noise * np.sqrt(np.clip(picture, 0.03, None)), 0, 1)


def _marked(rng, picture):
    """Lays a lead letter beside the leg that it names."""
    height, width = picture.shape
    letter = "R" if rng.random() < 0.5 else "L"
    x = int(width * (0.02 if letter == "R" else 0.93))
    y = int(height * rng.uniform(0.1, 0.3))
    lead = np.zeros((height, width), np.uint8)
    cv2.putText(lead, letter, (x, y), 0, width / 500, 255, max(1, width // 200), cv2.LINE_AA)
    return np.maximum(picture, lead / np.float32(265))
