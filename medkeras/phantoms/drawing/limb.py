"""Anatomy of a made-up limb, and its injury: attenuation of X-rays on a canvas."""

from dataclasses import dataclass

import cv2
import numpy as np

OVERSAMPLE = 4
# Side of the canvas a limb is drawn on, in picture sides: a turned view still finds bone.
CANVAS = 1.5


@dataclass(frozen=True)
class Limb:
    """A patient's anatomy on the canvas.

    Args:
        fragments: (attenuation, shift, turn) of each rigid piece; shift (across, along) in
            sides of the picture, turn in degrees, both as seen from the front.
        still: attenuation of what does not move.
        soft: attenuation of the soft tissue.
        broken: 1 where the bone is broken, one picture per fragment.
        centre: canvas point (x, y) of the injury, around which pieces turn.
    """

    fragments: list
    still: np.ndarray
    soft: np.ndarray
    broken: list
    centre: tuple


def draw(rng, name, size, difficulty) -> Limb:
    """Draws an anatomy, and breaks it as the class says.

    Args:
        rng: NumPy generator.
        name: "healthy", "fractured" or "beyond_repair".
        size: side of the pictures to come, in pixels.
        difficulty: 0..1.
    """
    side = int(CANVAS * size * OVERSAMPLE)
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side * CANVAS - CANVAS / 2
    along, across = axis[:, None], axis[None, :]
    two = rng.random() < 0.5
    width = rng.uniform(0.07, 0.085) if two else rng.uniform(0.1, 0.13)
    apart = rng.uniform(2.5, 2.9) * width if two else 0.0
    joint = rng.uniform(0.4, 0.52)
    traits = {
        "bend": rng.uniform(-0.12, 0.12),
        "flare": rng.uniform(0.5, 0.9),
        "cortex": rng.uniform(0.22, 0.36),
        "marrow": rng.uniform(0.25, 0.45),
        "plate": joint - rng.uniform(0.05, 0.08) if rng.random() < 0.8 * difficulty else None,
    }
    spongy = _spongy(rng, side, size)
    density = rng.uniform(0.95, 1.25)
    bones = []
    for place, slim in [(-apart / 2, 1.0), (apart / 2, rng.uniform(0.7, 0.95))][: 1 + two]:
        shaft = _bone(along, across - place, width * slim, joint, traits, spongy)
        bones.append(density * shaft)
    still = density * _opposite(along, across, width, apart, joint, traits, spongy)

    half = rng.uniform(1.8, 2.4) * width + apart / 2
    waist = half * (1 + rng.uniform(0.05, 0.2) * np.cos(5 * along + rng.uniform(0, 6)))
    soft = np.sqrt(np.clip(1 - ((across - traits["bend"] * along**2) / waist) ** 2, 0, None))
    soft = rng.uniform(0.2, 0.4) * soft * (1 + 0.1 * (spongy - 0.5))

    # The same numbers are drawn for every class.
    injury = rng.uniform(-0.16, 0.12)
    hurt = int(rng.integers(len(bones)))
    both = rng.random() < (0.7 if name == "beyond_repair" else 0.25)
    fragments, broken = [], []
    if name == "healthy":
        still = still + sum(bones)
    else:
        whole = bones if both else [bones[hurt]]
        still = still + sum(bone for bone in bones if not any(bone is other for other in whole))
        # The joint moves with the far part of the bone that carries it.
        moved = sum(whole)
        comminuted = name == "beyond_repair"
        cells, zone = _cells(rng, along, across, injury, width, comminuted, difficulty)
        for cell in range(cells.max() + 1):
            part = moved * (cells == cell)
            fragments.append((part, *_push(rng, cell, width, comminuted, difficulty)))
            broken.append(((part > 0.05) & zone).astype(np.float32))
    x = (traits["bend"] * injury**2 + CANVAS / 2) / CANVAS * side
    return Limb(fragments, still, soft, broken, (x, (injury + CANVAS / 2) / CANVAS * side))


def _bone(along, across, width, joint, traits, spongy):
    """Attenuation of a long bone that ends at `joint` with a rounded head."""
    near = np.clip((along - joint + 0.34) / 0.34, 0, 1)
    near = near * near * (3 - 2 * near)
    head = width * 1.1
    inside = np.sqrt(np.clip(1 - (np.clip(along - joint + head, 0, None) / head) ** 2, 0, 1))
    radius = width * (1 + traits["flare"] * near) * inside + 1e-6
    distance = (across - traits["bend"] * along**2) / radius
    cortex = traits["cortex"] * (1 - 0.75 * near)
    wall = np.sqrt(np.clip(1 - distance**2, 0, None))
    hollow = np.sqrt(np.clip((1 - cortex) ** 2 - distance**2, 0, None))
    filled = traits["marrow"] + (0.75 - traits["marrow"]) * near * (0.7 + 0.6 * spongy)
    bone = (wall - (1 - filled) * hollow) * np.minimum(radius / width, 1.3)
    if traits["plate"] is not None:
        bone = bone * (1 - 0.3 * np.exp(-(((along - traits["plate"]) / 0.008) ** 2)))
    return bone.astype(np.float32)


def _opposite(along, across, width, apart, joint, traits, spongy):
    """Attenuation of the bone on the other side of the joint."""
    gap = joint + 0.025
    mirrored = dict(traits, bend=0.0, plate=None)
    middle = traits["bend"] * joint**2
    return _bone(-along, across - middle, width * 0.9 + apart / 2, -gap, mirrored, spongy)


def _spongy(rng, side, size):
    """Smooth noise in 0..1, the grain of spongy bone."""
    coarse = rng.random((size // 2, size // 2), dtype=np.float32)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def _cells(rng, along, across, injury, width, comminuted, difficulty):
    """Numbers the rigid pieces: 0 near, 1 far, 2.. between; and says where the break runs."""
    slope = float(rng.choice([-1, 1])) * rng.uniform(0.25, 0.9)
    jag = width * (
        0.10 * np.sin(across / width * rng.uniform(4, 6) + rng.uniform(0, 6))
        + 0.05 * np.sin(across / width * rng.uniform(10, 14) + rng.uniform(0, 6))
    )
    line = along - injury - slope * across - jag
    if not comminuted:
        cells = (line > 0).astype(np.int8) + np.zeros_like(across, dtype=np.int8)
        return cells, np.abs(line) < 0.25 * width
    reach = width * rng.uniform(0.9, 1.4)
    other = along - injury + 0.5 * slope * across + jag
    cells = np.where(line > reach, 1, 2).astype(np.int8)
    cells[other < -reach] = 0
    between = cells == 2
    count = rng.integers(2, 4, endpoint=True)
    points = np.stack(
        [injury + rng.uniform(-1, 1, count) * reach, rng.uniform(-1, 1, count) * width], axis=1
    )
    u = np.broadcast_to(along, between.shape)[between]
    v = np.broadcast_to(across + jag, between.shape)[between]
    cells[between] = 2 + np.argmin([(u - a) ** 2 + (v - b) ** 2 for a, b in points], axis=0)
    return cells, between | (np.abs(line - reach) < 0.2 * width)


def _push(rng, cell, width, comminuted, difficulty):
    """Draws how a piece moves: shift (across, along) and turn."""
    ease = 1 - difficulty
    signs = rng.choice([-1, 1], 2)
    amount = rng.uniform(0.7, 1.3, 3)
    if cell == 0:
        return (0.0, 0.0), 0.0
    if cell == 1 and not comminuted:
        across = (0.02 + 0.85 * ease) * width * amount[0] * signs[0]
        gap = (0.002 + 0.034 * ease) * amount[1]
        return (across, gap), (0.3 + 12 * ease) * amount[2] * signs[1]
    if cell == 1:
        across = (0.02 + 1.2 * ease) * width * amount[0] * signs[0]
        gap = (0.002 + 0.08 * ease) * amount[1]
        return (across, gap), (0.3 + 18 * ease) * amount[2] * signs[1]
    across = (0.02 + 1.0 * ease) * width * amount[0] * signs[0]
    along = 0.05 * ease * (amount[1] - 0.6)
    return (across, along), (0.5 + 50 * ease) * amount[2] * signs[1]
