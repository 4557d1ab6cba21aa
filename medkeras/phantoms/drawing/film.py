"""From attenuation to a radiograph: views of a canvas, exposure and noise."""

import cv2
import numpy as np


def matrix(linear, offset) -> np.ndarray:
    """Returns the (3, 3) matrix of `linear` (2, 2) followed by a shift of `offset` (2,)."""
    moved = np.eye(3)
    moved[:2, :2], moved[:2, 2] = linear, offset
    return moved


def warp(picture, matrix, side) -> np.ndarray:
    """Moves a picture by a (3, 3) matrix onto a square of `side` pixels, black elsewhere."""
    return cv2.warpAffine(picture, matrix[:2], (side, side), flags=cv2.INTER_LINEAR)


def expose(rng, picture, size, difficulty) -> np.ndarray:
    """Makes a radiograph of absorbed rays; nothing here knows the class.

    Args:
        rng: NumPy generator of exposure, gamma, background gradient, side marker and noise.
        picture: share of the rays absorbed, float (size, size), 0..1.
        size: side in pixels.
        difficulty: 0..1, more noise and blur.

    Returns:
        uint8 (size, size).
    """
    # As a viewer does: the brightest few per cent fill the window, whatever they show. Without
    # it, overlapping fragments would give the class away by the maximum alone.
    top = np.quantile(picture, rng.uniform(0.95, 0.99))
    picture = np.minimum(picture / top, 1 + 0.03 * np.tanh((picture / top - 1) / 0.03))
    picture = rng.uniform(0.7, 1.1) * np.clip(picture, 0, None) ** rng.uniform(0.8, 1.5)
    across, along = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32)] * 2)
    angle = rng.uniform(0, 2 * np.pi)
    gradient = 1 + 0.5 * (across * np.cos(angle) + along * np.sin(angle))
    picture = rng.uniform(0.02, 0.09) * gradient + rng.uniform(0.75, 0.9) * picture
    if rng.random() < 0.3:
        corner = (int(rng.choice([0.04, 0.86]) * size), int(rng.choice([0.14, 0.96]) * size))
        letter = str(rng.choice(["L", "R"]))
        marker = np.zeros((size, size), np.uint8)
        cv2.putText(marker, letter, corner, 0, size / 280, 230, 1 + size // 160, cv2.LINE_AA)
        picture = np.maximum(picture, marker / 255)
    picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.45 + 0.3 * difficulty)
    noise = rng.standard_normal((size, size), dtype=np.float32)
    picture += (0.004 + 0.05 * difficulty) * np.sqrt(np.clip(picture, 0.03, None)) * noise
    return np.clip(picture * 255, 0, 255).round().astype(np.uint8)
