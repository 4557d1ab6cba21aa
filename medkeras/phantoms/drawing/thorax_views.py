"""Puts a made-up chest on film, from the front and from the side."""

from dataclasses import replace

import cv2
import numpy as np

from medkeras.phantoms.drawing import film, thorax_findings
from medkeras.phantoms.drawing import thorax as chest
from medkeras.phantoms.drawing.thorax import CANVAS, OVERSAMPLE

# An AP film lies behind the patient, and magnifies what is in front.
AP_HEART = 1.05
# Where the tag lies, in shares of the picture: left, top, right, bottom.
TAG = (0.02, 0.02, 0.36, 0.1)
# These are harder than tissue; all other findings lie where air was, and cannot add up to more.
HARD = ("Fracture", "Support Devices")


def frontal(rng, thorax, findings: dict, size: int, difficulty: float, *, ap: bool, tag: bool):
    """Makes a frontal radiograph.

    Args:
        rng: NumPy generator of position, exposure and noise; what it draws does not depend on
            the findings, so the same one gives the same picture without them.
        thorax: the healthy chest.
        findings: name -> (generator, side, strength), see `thorax_findings`.
        size: side of the picture in pixels.
        difficulty: 0..1, more noise and blur.
        ap: taken from the front, the film behind the back.
        tag: show the tag.

    Returns:
        uint8 (size, size), and a mask of the same shape (0 or 255) for each finding.
    """
    thorax = replace(thorax, magnified=AP_HEART if ap else 1.0)
    matrix = _camera(rng, size)
    inside = thorax.vessels + chest.heart(thorax, thorax.heart_ratio)[0]
    healthy = _absorbed(thorax, inside, 0.0, matrix, size)
    soft, hard, masks = inside, 0.0, {}
    for name, (own, side, strength) in findings.items():
        added, where = thorax_findings.DRAWN[name](own, thorax, side, strength)
        soft, hard = (soft, hard + added) if name in HARD else (soft + added, hard)
        masks[name] = (_seen(np.asarray(where), matrix, size) > 0.4).astype(np.uint8) * 255
    picture = _absorbed(thorax, soft, hard, matrix, size) if findings else healthy
    return _expose(rng, picture, healthy, size, difficulty, tag), masks


def lateral(rng, thorax, findings: dict, size: int, difficulty: float, *, tag: bool) -> np.ndarray:
    """Makes a lateral radiograph, front on the left, simpler than the frontal one.

    The heart is big or not, an effusion fills the angle at the back, and anything else in the
    lungs is one haze in the middle. Arguments as in `frontal`; returns uint8 (size, size).
    """
    side = len(thorax.still)
    x, y = thorax.across, thorax.along
    matrix = _camera(rng, size)
    outline = [(-0.26, 0.2), (-0.1, 0.07), (0.2, 0.06), (0.32, 0.2), (0.35, 0.5), (0.33, 0.8),
               (0.32, 1.2), (-0.33, 1.2), (-0.33, 0.8), (-0.33, 0.45)]  # fmt: skip
    body = chest.filled(side, chest.smooth(outline, closed=True))
    lung = [(-0.14, 0.17), (0.02, 0.11), (0.2, 0.16), (0.27, 0.35), (0.29, 0.6), (0.27, 0.83),
            (0.1, 0.72), (-0.1, 0.68), (-0.25, 0.74), (-0.27, 0.5), (-0.23, 0.3)]  # fmt: skip
    lungs = chest.filled(side, chest.smooth(lung, closed=True))
    spine = np.exp(-(((x - 0.2 - 0.07 * np.sin(3.5 * y)) / 0.045) ** 4))
    spine = spine * (0.25 + 0.12 * np.cos(2 * np.pi * y / 0.065))
    breastbone = 0.15 * np.exp(-(((x + 0.29 + 0.05 * (0.5 - y)) / 0.014) ** 2)) * (y < 0.6)
    curve = chest.smooth([(0.27, 0.12), (0.1, 0.21), (-0.1, 0.28), (-0.25, 0.25)])
    curves = [curve + [0, 0.065 * number] for number in range(9)]
    bones = body * (spine + breastbone + 0.07 * chest.rib(side, curves, 0.018))
    thick = body * (1 + 0.5 * chest.step(y - 0.7, 0.3) + 0.3 * chest.step(0.16 - y, 0.2))
    # The vessels of both sides, one behind the other, cross everywhere.
    branches = 0.9 * lungs * cv2.GaussianBlur(thorax.vessels[:, ::-1], (0, 0), 0.006 * side)
    still = 1.2 * thick - 0.75 * lungs + bones + branches

    def heart(wide):
        along, across = y - 0.56, x + 0.11 + 0.35 * (y - 0.56)
        place = np.hypot(across / (0.11 * wide), along / (0.16 * (0.5 + 0.5 * wide)))
        return 0.45 * lungs * chest.step(1 - place, 0.25)

    normal = heart(thorax.heart_ratio / 0.45)
    added = normal
    if "Cardiomegaly" in findings:
        added = heart(thorax.heart_ratio / 0.45 + 0.45 * findings["Cardiomegaly"][2])
    for name, (_, _, strength) in findings.items():
        if name == "Pleural Effusion":
            level = 0.83 - 0.2 * np.sqrt(strength) - 0.2 * np.clip(x - 0.15, 0, None)
            added = added + 0.6 * lungs * chest.step(y - level, 0.02) * (x > -0.05)
        elif name in ("Edema", "Consolidation", "Pneumonia", "Lung Opacity", "Atelectasis"):
            haze = np.exp(-(((x - 0.04) / 0.1) ** 2) - ((y - 0.48) / 0.12) ** 2)
            added = added + 0.25 * strength * haze * lungs
    healthy, picture = (
        1 - np.exp(-1.2 * np.clip(_seen(still + part, matrix, size), 0, None))
        for part in (normal, np.minimum(added, 0.7))
    )
    return _expose(rng, picture, healthy, size, difficulty, tag)


def _camera(rng, size):
    """Draws how the patient stands before the film: (3, 3) matrix from canvas to picture."""
    turn = np.deg2rad(rng.normal(0, 1.8))
    scale = rng.uniform(0.92, 1.07) * np.array([rng.uniform(0.96, 1.04), 1.0])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = rotation * scale
    middle = int(CANVAS * size) * OVERSAMPLE / 2
    goal = size * OVERSAMPLE * (0.5 + rng.uniform(-0.025, 0.025, 2))
    return film.matrix(linear, goal - linear @ [middle, middle])


def _seen(picture, matrix, size):
    full = film.warp(picture.astype(np.float32), matrix, size * OVERSAMPLE)
    return cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA)


def _absorbed(thorax, soft, hard, matrix, size):
    """Returns the share of the rays absorbed, float32 (size, size)."""
    most = np.maximum(0.95 * thorax.air, 0.2)
    soft = np.minimum(soft, most + 0.05 * np.tanh((soft - most) / 0.05))
    return 1 - np.exp(-1.2 * np.clip(_seen(thorax.still + soft + hard, matrix, size), 0, None))


def _expose(rng, picture, healthy, size, difficulty, tag):
    """Makes a film of it; the window fits the healthy picture, so no finding moves it."""
    top = np.quantile(healthy, rng.uniform(0.94, 0.99))
    picture = np.minimum(picture / top, 1 + 0.04 * np.tanh((picture / top - 1) / 0.04))
    picture = rng.uniform(0.75, 0.93) * np.clip(picture, 0, None) ** rng.uniform(0.8, 1.7)
    across, along = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32)] * 2)
    angle = rng.uniform(0, 2 * np.pi)
    picture = picture * (1 + 0.05 * (across * np.cos(angle) + along * np.sin(angle)))
    picture = rng.uniform(0.0, 0.1) + picture
    marks = np.zeros((size, size), np.uint8)
    shown, x = rng.random() < 0.5, int(rng.uniform(0.86, 0.93) * size)
    if shown:
        # The patient's left, which is the right of the picture.
        _text(marks, "L", (x, int(0.1 * size)), 0.06 * size)
    if tag:
        left, top, right, bottom = (round(share * size) for share in TAG)
        picture[top:bottom, left:right] = 0.05
        _text(marks, "PORTABLE", (left + size // 60, bottom - size // 50), 0.043 * size)
    picture = np.maximum(picture, marks / 255)
    picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.4 + 0.3 * difficulty)
    noise = rng.standard_normal((size, size), dtype=np.float32)
    picture += (0.004 + 0.05 * difficulty) * np.sqrt(np.clip(picture, 0.03, None)) * noise
    return np.clip(picture * 255, 0, 255).round().astype(np.uint8)


def _text(marks, words, corner, high):
    # Capitals of this font are 21 pixels high at scale 1.
    cv2.putText(marks, words, corner, 0, high / 21, 235, 1 + int(high / 20), cv2.LINE_AA)
