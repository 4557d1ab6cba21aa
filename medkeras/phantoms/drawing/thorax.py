"""Anatomy of a made-up chest, seen from the front: attenuation of X-rays on a canvas.

Lengths are sides of the picture. `across` runs from the midline, positive towards the patient's
left, which is the right of the picture; `along` runs from the top.
"""

from dataclasses import dataclass

import cv2
import numpy as np

OVERSAMPLE = 2
# Side of the canvas, in picture sides: a turned or shrunken view still finds body.
CANVAS = 1.3
SIDES = {"right": -1, "left": 1}
RIBS = 9


@dataclass(frozen=True)
class Thorax:
    """A patient's chest, the same in every study.

    Args:
        across: (1, side) and
        along: (side, 1), where the pixels of the canvas are.
        wall: half the inner width of the chest.
        apex: where the lungs begin, along.
        angle: where they end at the wall, per side, along.
        dome: how far the diaphragm rises above that, per side.
        heart_ratio: width of the heart over that of the chest, without disease.
        lungs: 0..1 per side, (side, side).
        ribs: points (across, along) of the posterior ribs, per side.
        air: attenuation that the air of the lungs takes away.
        still: attenuation of all but heart, mediastinum and vessels; the air is taken off.
        vessels: attenuation of the vessels of both lungs.
        magnified: how much bigger the film shows the heart, which lies in front.
    """

    across: np.ndarray
    along: np.ndarray
    wall: float
    apex: float
    angle: dict
    dome: dict
    heart_ratio: float
    lungs: dict
    ribs: dict
    air: np.ndarray
    still: np.ndarray
    vessels: np.ndarray
    magnified: float = 1.0


def draw(rng, size: int, female: bool, age: int) -> Thorax:
    """Draws a healthy chest.

    Args:
        rng: NumPy generator.
        size: side of the pictures to come, in pixels.
        female: adds breasts.
        age: years; bones lose mineral from 40 on.
    """
    side = int(CANVAS * size) * OVERSAMPLE
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side * CANVAS - CANVAS / 2
    across, along = axis[None, :], axis[:, None] + 0.5
    wall, apex = rng.uniform(0.345, 0.385), rng.uniform(0.09, 0.13)
    angle = {"right": rng.uniform(0.72, 0.78)}
    angle["left"] = angle["right"] + rng.uniform(-0.005, 0.02)
    dome = {"right": rng.uniform(0.085, 0.12)}
    dome["left"] = dome["right"] - rng.uniform(0.01, 0.03)
    lungs = {name: _lung(side, sign, wall, apex, angle[name], dome[name])
             for name, sign in SIDES.items()}  # fmt: skip
    ribs = {name: _ribs(sign, wall, apex, angle["right"]) for name, sign in SIDES.items()}

    bone = rng.uniform(0.85, 1.15) * (1.1 - 0.004 * max(age - 40, 0))
    still = _body(rng, across, along, side, wall, angle["right"])
    air = sum(lungs.values()) * (0.62 + 0.2 * np.exp(-(((along - 0.45) / 0.3) ** 2)))
    air *= rng.uniform(0.85, 1.0)
    still = still - air + bone * _skeleton(rng, across, along, side, wall, apex, ribs)
    if female:
        still += _breasts(rng, across, along, side, wall)
    still += _gas(rng, across, along, side, angle["left"], dome["left"])
    # The windpipe, a little to the patient's right of the aorta.
    still -= 0.22 * np.exp(-(((across + 0.004) / 0.017) ** 4)) * step(0.34 - along, 0.03)
    vessels = _vessels(rng, side, lungs)
    ratio, still = rng.uniform(0.42, 0.48), still.astype(np.float32)
    return Thorax(across, along, wall, apex, angle, dome, ratio, lungs, ribs, air, still, vessels)


def heart(thorax: Thorax, ratio: float, widened: float = 0.0):
    """Draws heart and mediastinum.

    Args:
        thorax: the chest they lie in.
        ratio: width of the heart over that of the chest, before magnification.
        widened: added to either side of the upper mediastinum.

    Returns:
        Attenuation, silhouette of the heart and of the upper mediastinum, each (side, side).
    """
    side = thorax.still.shape[0]
    wide = 2 * thorax.wall * ratio * thorax.magnified
    right, left = 0.34 * wide, 0.66 * wide
    low = thorax.angle["left"] - 0.055
    # A big heart is also a tall one, but starts at the same great vessels.
    points = [
        (-0.045, 0.37), (-0.8 * right, 0.44), (-right, 0.53), (-0.93 * right, low - 0.05),
        (-0.6 * right, low + 0.02), (0.3 * left, low + 0.012), (0.85 * left, low),
        (left, low - 0.055), (0.86 * left, low - 0.15), (0.55 * left, 0.42), (0.055, 0.35),
    ]  # fmt: skip
    shadow = filled(side, smooth(points, closed=True))
    w = widened
    stem = [
        (-0.045 - 0.4 * w, -0.1), (-0.045 - 0.6 * w, 0.12), (-0.052 - w, 0.22),
        (-0.05 - w, 0.34), (-0.045, 0.46), (0.06, 0.46), (0.058 + w, 0.36), (0.056 + w, 0.31),
        (0.078 + w, 0.27), (0.07 + w, 0.23), (0.045 + 0.6 * w, 0.15), (0.045 + 0.4 * w, -0.1),
    ]  # fmt: skip
    vessels = filled(side, smooth(stem, closed=True)) * step(0.5 - thorax.along, 0.1)
    in_lung = sum(thorax.lungs.values())
    middle = np.exp(-((thorax.across / 0.5) ** 2))
    joined = np.maximum(0.62 * shadow, 0.5 * vessels)
    # Where no lung was taken away there is less to add.
    return joined * middle * (0.3 + 0.7 * in_lung), shadow, vessels


def step(distance, edge: float = 0.006):
    """Rises from 0 to 1 where `distance` turns positive, over a width of `edge`."""
    share = np.clip(distance / edge + 0.5, 0, 1)
    return share * share * (3 - 2 * share)


def smooth(points, closed: bool = False, steps: int = 12) -> np.ndarray:
    """Lays a Catmull-Rom curve through points (across, along)."""
    points = np.asarray(points, np.float64)
    before = np.roll(points, 1, 0) if closed else np.vstack([points[:1], points[:-1]])
    after = np.roll(points, -1, 0) if closed else np.vstack([points[1:], points[-1:]])
    last = np.roll(points, -2, 0) if closed else np.vstack([points[2:], points[-1:], points[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    p, q, r, s = (part[:, None, :] for part in (before, points, after, last))
    curve = q + 0.5 * t * ((r - p) + t * ((2 * p - 5 * q + 4 * r - s) + t * (3 * (q - r) + s - p)))
    return curve.reshape(-1, 2) if closed else curve[:-1].reshape(-1, 2)


def filled(side: int, points) -> np.ndarray:
    """Fills an outline: float32 (side, side), 0..1, edges as soft as a film's."""
    canvas = np.zeros((side, side), np.uint8)
    cv2.fillPoly(canvas, [_pixels(side, points)], 255, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), 0.0035 * side / CANVAS)


def lines(side: int, curves, width: float) -> np.ndarray:
    """Draws curves of one width: float32 (side, side), 0..1."""
    canvas = np.zeros((side, side), np.uint8)
    thick = max(1, round(width * side / CANVAS))
    curves = [_pixels(side, curve) for curve in curves]
    cv2.polylines(canvas, curves, False, 255, thick, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255


def cloud(rng, side: int, cells: int) -> np.ndarray:
    """Smooth noise, float32 (side, side), mostly 0..1, `cells` bumps across."""
    return cv2.resize(rng.random((cells, cells), np.float32), (side, side), None, 0, 0, 2)


def _pixels(side, points):
    """Canvas positions with four binary places, as OpenCV takes them."""
    points = np.asarray(points, np.float64) - [0.0, 0.5]
    return np.round(((points / CANVAS + 0.5) * side - 0.5) * 16).astype(np.int32)


def diaphragm(sign, wall, angle, dome) -> np.ndarray:
    """Returns the points of one half of the diaphragm, from the wall to the heart."""
    u = np.linspace(0, 1, 40)
    down = angle - 0.04 * u - dome * (4 * u * (1 - u)) ** 0.75
    return np.stack([sign * (wall + (0.04 - wall) * u), down], axis=1)


def _lung(side, sign, wall, apex, angle, dome):
    top = [
        (0.04, angle - 0.04), (0.042, 0.5), (0.042, 0.36), (0.045, 0.22), (0.065, apex + 0.035),
        (0.125, apex), (0.19, apex + 0.02), (0.74 * wall, apex + 0.09), (0.89 * wall, apex + 0.2),
        (0.97 * wall, apex + 0.34), (wall, 0.6), (wall, angle),
    ]  # fmt: skip
    outline = smooth(top) * [sign, 1]
    return filled(side, np.vstack([outline, diaphragm(sign, wall, angle, dome)]))


def _body(rng, across, along, side, wall, angle):
    fat = rng.uniform(0.05, 0.13)
    half = wall + fat
    arm = rng.uniform(0.0, 0.06)
    outline = [
        (0.1, -0.2), (0.1, -0.03), (0.14, 0.035), (0.28, 0.075 + arm), (0.45, 0.11 + arm),
        (0.62, 0.2 + arm), (0.7, 0.5), (0.6, 0.5 + arm), (half + 0.05, 0.36 + arm),
        (half, 0.42 + arm), (half - 0.01, 0.6), (half, 0.8), (half + 0.01, 1.2),
    ]  # fmt: skip
    right = smooth(outline)
    body = filled(side, np.vstack([right, right[::-1] * [-1, 1]]))
    thick = np.sqrt(np.clip(1 - (across / (half + 0.03)) ** 2, 0.1, None))
    shoulder = 0.35 + 0.25 * step(0.2 - np.abs(along - 0.18), 0.2)
    belly = rng.uniform(0.3, 0.5) * step(along - angle + 0.1, 0.3)
    return body * np.maximum((0.95 + belly) * thick + 0.15, shoulder)


def _ribs(sign, wall, apex, angle):
    curves = []
    for number in range(RIBS):
        start = apex + 0.03 + (angle - apex - 0.06) * number / RIBS
        # The chest is narrow at the top, and the ribs are short there.
        reach = wall * (0.62 + 0.4 * min(1, (number + 0.3) / 3))
        u = np.linspace(0.1, 1, 24)
        fall = (0.045 + 0.006 * number) * u**2 - 0.035 * np.sin(np.pi * u**0.8) + 0.05 * u**9
        curves.append(np.stack([sign * reach * u, start + fall], axis=1))
    return curves


def _skeleton(rng, across, along, side, wall, apex, ribs):
    back = [curve for name in SIDES for curve in ribs[name]]
    bones = rib(side, back)
    front = []
    for name, sign in SIDES.items():
        for curve in ribs[name][1:7]:
            u = np.linspace(0, 1, 16)
            x, y = sign * wall * (0.99 - 0.6 * u), curve[-1, 1] + 0.01
            front.append(np.stack([x, y + 0.07 * u - 0.035 * np.sin(np.pi * u)], axis=1))
    bones += 0.55 * rib(side, front)
    collars = []
    rise = rng.uniform(-0.03, 0.02)
    for sign in SIDES.values():
        collar = [(0.03, 0.195), (0.1, 0.175), (0.2, 0.155 - rise), (0.3, 0.15 - rise),
                  (0.38, 0.13 - rise)]  # fmt: skip
        collars.append(smooth(collar) * [sign, 1] + [0, apex - 0.11])
    bones += 1.5 * rib(side, collars, 0.026)
    blades = [
        smooth([(0.5, 0.12), (0.42, 0.16), (0.36, 0.24), (0.35, 0.36), (0.4, 0.4)]) * [sign, 1]
        for sign in SIDES.values()
    ]
    bones += 0.5 * lines(side, blades, 0.014)
    # Vertebral bodies and the discs between them.
    spine = np.exp(-((np.abs(across) / 0.036) ** 6))
    bones += spine * (1.1 + 0.5 * np.cos(2 * np.pi * along / 0.052 + rng.uniform(0, 6)))
    return 0.125 * cv2.GaussianBlur(bones, (0, 0), 0.002 * side / CANVAS)


def rib(side: int, curves, width: float = 0.021) -> np.ndarray:
    """Draws ribs: a band with a brighter rim, about 1 (side, side)."""
    band, core = lines(side, curves, width), lines(side, curves, 0.45 * width)
    return band - 0.25 * core


def _breasts(rng, across, along, side, wall):
    low, reach = rng.uniform(0.63, 0.72), rng.uniform(0.14, 0.18)
    found = np.zeros((side, side), np.float32)
    for sign in SIDES.values():
        far = np.hypot((sign * across - 0.6 * wall) / 1.15, along - low + reach)
        # Thick below, fading upwards.
        found += step(reach - far, 0.012) * np.clip((along - low + 1.6 * reach) / reach, 0, 1.2)
    return rng.uniform(0.1, 0.2) * found


def _gas(rng, across, along, side, angle, dome):
    """Air in the stomach, under the left half of the diaphragm, and in the bowel."""
    found = np.zeros((side, side), np.float32)
    amount = 0.4 if rng.random() < 0.6 else 0.0
    x, y, reach = rng.uniform(0.13, 0.2), angle - dome + 0.075, rng.uniform(0.03, 0.05)
    bubble = step(1 - np.hypot((across - x) / (1.7 * reach), (along - y) / reach), 0.2)
    found += amount * bubble * step(y + 0.3 * reach - along, 0.01)
    for _ in range(4):
        x, y, reach = rng.uniform([0.0, angle + 0.05, 0.02], [0.3, 1.0, 0.04])
        found += 0.15 * step(1 - np.hypot(across - x, along - y) / reach, 0.4)
    return -found


def _vessels(rng, side, lungs):
    """Branches from both hila, thinner towards the wall."""
    curves = {0.012: [], 0.008: [], 0.005: []}
    for sign in SIDES.values():
        root = np.array([0.085, 0.42])
        for number in range(11):
            # From upwards over outwards to downwards.
            heading = np.deg2rad(-80 + 16 * number + rng.uniform(-8, 8))
            long = rng.uniform(0.16, 0.27)
            # Not all from one point: that would be a star.
            place = root + [0.0, rng.uniform(-0.05, 0.05)]
            for width, part in [(0.012, 0.35), (0.008, 0.4), (0.005, 0.5)]:
                ends = []
                for fork in (0.0, float(rng.choice([-1, 1])) * rng.uniform(0.4, 0.7)):
                    way = np.array([np.cos(heading + fork), np.sin(heading + fork)])
                    bend = way[::-1] * [-1, 1] * rng.normal(0, 0.025)
                    end = place + part * long * (1 if fork == 0 else 0.6) * way
                    curves[width].append(smooth([place, (place + end) / 2 + bend, end]) * [sign, 1])
                    ends.append(end)
                place = ends[0]
    dense = {0.012: 0.13, 0.008: 0.1, 0.005: 0.07}
    found = np.max([dense[w] * lines(side, curves[w], w) for w in dense], axis=0)
    hila = [smooth([(s * 0.07, 0.36), (s * 0.095, 0.42), (s * 0.085, 0.5)]) for s in SIDES.values()]
    found = np.maximum(found, 0.2 * lines(side, hila, 0.035))
    found = cv2.GaussianBlur(found, (0, 0), 0.0025 * side / CANVAS)
    grain = 0.03 * (cloud(rng, side, 60) - 0.5)
    return (found + grain) * sum(lungs.values())
