"""Draws the findings of a chest radiograph: what each adds to the attenuation, and where.

Each function takes (rng, thorax, side, strength): NumPy generator, the healthy chest, "left",
"right" or "both" of the patient's sides, and how plain it is (1 = as described, 0 = invisible).
It returns (added, mask): attenuation to add, negative where air is new, and 0..1 where it lies.
"""

import cv2
import numpy as np

from medkeras.phantoms.drawing import thorax as chest
from medkeras.phantoms.drawing.thorax import CANVAS, SIDES, cloud, filled, lines, smooth, step


def cardiomegaly(rng, thorax, side, strength):
    """Widens the heart from 42-48 % of the chest to 57-65 %."""
    healthy = chest.heart(thorax, thorax.heart_ratio)[0]
    ratio = thorax.heart_ratio + (rng.uniform(0.57, 0.65) - thorax.heart_ratio) * strength
    big, shadow, _ = chest.heart(thorax, ratio)
    return big - healthy, shadow


def mediastinum(rng, thorax, side, strength):
    """Widens the upper mediastinum on both sides, from 5 cm to 10 cm of a 40 cm picture."""
    healthy = chest.heart(thorax, thorax.heart_ratio)[0]
    wide, _, stem = chest.heart(thorax, thorax.heart_ratio, rng.uniform(0.05, 0.075) * strength)
    return wide - healthy, stem


def opacity(rng, thorax, side, strength):
    """Lays an ill-defined faint haze on part of one lung."""
    place = _inside(rng, thorax, side, 0.3, 0.62)
    reach = rng.uniform(0.07, 0.11, 2)
    haze = _hump(thorax, place, reach) * (0.7 + 0.6 * cloud(rng, len(thorax.still), 16))
    haze = haze * thorax.lungs[side]
    return 0.3 * strength * haze, haze > 0.2


def lesion(rng, thorax, side, strength):
    """Places one or two round nodules, 2.5-4.5 cm of a 40 cm picture across."""
    added, mask = 0.0, 0.0
    for _ in range(rng.choice([1, 2], p=[0.7, 0.3])):
        place = _inside(rng, thorax, side, 0.22, 0.62)
        reach = rng.uniform(0.032, 0.055)
        far = np.hypot(*_from(thorax, place)) / reach
        ball = np.sqrt(np.clip(1 - far**2, 0, 1)) * thorax.lungs[side]
        added = np.maximum(added, 0.6 * strength * ball)
        mask = np.maximum(mask, ball > 0)
    return added, mask


def edema(rng, thorax, side, strength):
    """Fills both lungs around the hila, like wings, with short lines at the lower walls."""
    width = len(thorax.still)
    added, mask = np.zeros_like(thorax.still), np.zeros_like(thorax.still)
    even = rng.uniform(0.85, 1.15)
    for name, sign in SIDES.items():
        wing = _hump(thorax, (sign * 0.13, 0.44), (0.13, 0.16))
        wing = wing * (0.75 + 0.5 * cloud(rng, width, 20)) * thorax.lungs[name]
        low = thorax.angle[name] - 0.06
        ends = [(sign * (thorax.wall - 0.005), low), (sign * (thorax.wall - 0.05), low - 0.004)]
        curves = [np.array(ends) - [0, 0.022 * number] for number in range(6)]
        added += 0.36 * strength * even * wing + 0.1 * strength * lines(width, curves, 0.005)
        mask = np.maximum(mask, wing > 0.25)
        even = 2 - even
    return added + 0.4 * strength * thorax.vessels * mask, mask


def consolidation(rng, thorax, side, strength):
    """Fills a lobe evenly, up to its fissure."""
    down = thorax.along - thorax.apex
    outward = SIDES[side] * thorax.across
    tilt = rng.uniform(-0.1, 0.15) * outward
    lobe = rng.integers(3 if side == "right" else 2)
    if lobe == 0:
        part = step(rng.uniform(0.23, 0.28) + tilt - down, 0.008)
    elif lobe == 1:
        # Spares the angle, which an effusion would fill.
        part = step(down - rng.uniform(0.36, 0.4) - tilt, 0.02)
        part = part * step(0.36 - outward - 0.25 * np.abs(down - 0.36), 0.14)
    else:
        part = step(down - 0.27 - tilt, 0.008) * step(rng.uniform(0.4, 0.44) + tilt - down, 0.03)
        part = part * step(0.36 - outward - 0.6 * np.abs(down - 0.27), 0.12)
    part = part * thorax.lungs[side]
    grain = 0.9 + 0.2 * cloud(rng, len(thorax.still), 30)
    return 0.52 * strength * part * grain, part > 0.3


def pneumonia(rng, thorax, side, strength):
    """Fills patches of one lung, with bronchi that stay full of air."""
    width = len(thorax.still)
    place = np.array(_inside(rng, thorax, side, 0.34, 0.6))
    far = np.hypot(*_from(thorax, place)) / rng.uniform(0.12, 0.15)
    ragged = far + 0.9 * (cloud(rng, width, 18) - 0.5) + 0.4 * (cloud(rng, width, 40) - 0.5)
    patch = step(1 - ragged, 0.9) * thorax.lungs[side]
    hilum = np.array([SIDES[side] * 0.085, 0.42])
    tubes = []
    for angle in rng.uniform(-0.6, 0.6, 3):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        tubes.append(np.stack([hilum, hilum + turn @ (place - hilum) * 1.3]))
    air = lines(width, tubes, 0.009) * patch
    return strength * (0.48 * patch - 0.2 * air), patch > 0.3


def atelectasis(rng, thorax, side, strength):
    """Lays plates across the lower lung, and raises that half of the diaphragm."""
    sign, width = SIDES[side], len(thorax.still)
    angle, dome = thorax.angle[side], thorax.dome[side]
    rise = rng.uniform(0.06, 0.085) * strength
    raised = chest.diaphragm(sign, thorax.wall, angle, dome + rise)
    floor = chest.diaphragm(sign, thorax.wall, angle, dome)
    lifted = filled(width, np.vstack([raised, floor[::-1]])) * thorax.lungs[side]
    plates = []
    for number in range(rng.integers(2, 4)):
        x, slope = rng.uniform(0.1, 0.15), rng.uniform(-0.35, 0.35)
        y = angle - dome - 0.1 - 0.045 * number + rng.uniform(-0.01, 0.01)
        long = rng.uniform(0.13, 0.18)
        curve = np.array([(0, 0), (0.5, 0.5 * slope - 0.04), (1, slope)]) * long + [x, y]
        plates.append(smooth(curve) * [sign, 1])
    plate = lines(width, plates, 0.02) * thorax.lungs[side]
    plate = cv2.GaussianBlur(plate, (0, 0), 0.003 * width / CANVAS)
    return strength * 0.5 * plate + 0.7 * lifted, np.maximum(plate > 0.2, lifted > 0.3)


def pneumothorax(rng, thorax, side, strength):
    """Lets a lung fall from the wall: a rim of air without vessels, and a fine line."""
    width = len(thorax.still)
    shrink = 1 - rng.uniform(0.2, 0.32) * strength
    lung = thorax.lungs[side]
    # Towards the hilum sideways, and a little down.
    fixed = np.array([SIDES[side] * 0.045 / CANVAS + 0.5, (0.72 - 0.5) / CANVAS + 0.5]) * width
    scale = np.array([shrink, 1 - 0.4 * (1 - shrink)])
    fallen = cv2.warpAffine(lung, np.c_[np.diag(scale), fixed * (1 - scale)], (width, width))
    rim = np.clip(lung - fallen, 0, 1) * step(0.66 - thorax.along, 0.1)
    edge = cv2.dilate(fallen, np.ones((3, 3))) - cv2.erode(fallen, np.ones((3, 3)))
    outer = np.clip(lung * edge, 0, 1) * step(0.64 - thorax.along, 0.1)
    line = cv2.GaussianBlur(outer * (rim > 0.1), (0, 0), 0.002 * width / CANVAS)
    added = -rim * (thorax.vessels + 0.2 * strength) + 0.2 * strength * line
    return added, rim > 0.3


def effusion(rng, thorax, side, strength):
    """Fills the angle of one side or both with fluid that climbs the wall."""
    added, mask = np.zeros_like(thorax.still), np.zeros_like(thorax.still)
    for name in SIDES if side == "both" else [side]:
        climb = 0.1 * np.clip(SIDES[name] * thorax.across / thorax.wall, 0, 1) ** 4
        deep = rng.uniform(0.15, 0.25) * np.sqrt(strength)
        level = thorax.angle[name] - deep - climb
        fluid = step(thorax.along - level, 0.012) * thorax.lungs[name]
        added += 0.62 * fluid * min(1.0, 0.3 + strength)
        mask = np.maximum(mask, fluid > 0.3)
    return added, mask


def pleura(rng, thorax, side, strength):
    """Thickens the pleura along the wall, with a plaque of chalk."""
    width = len(thorax.still)
    lung = thorax.lungs[side]
    shift = -SIDES[side] * rng.uniform(0.028, 0.045) * width / CANVAS
    inner = cv2.warpAffine(lung, np.float32([[1, 0, shift], [0, 1, 0]]), (width, width))
    middle, reach = rng.uniform(0.36, 0.5), rng.uniform(0.13, 0.18)
    part = np.exp(-(((thorax.along - middle) / reach) ** 4))
    outside = SIDES[side] * thorax.across > 0.5 * thorax.wall
    band = np.clip(lung - inner, 0, 1) * part * outside
    ragged = 0.6 + 0.8 * cloud(rng, width, 26)
    return strength * 0.45 * band * ragged, band > 0.3


def fracture(rng, thorax, side, strength):
    """Breaks two neighbouring ribs: the outer part of each sinks, and callus grows around."""
    width = len(thorax.still)
    added, mask = np.zeros_like(thorax.still), np.zeros_like(thorax.still)
    first = int(rng.integers(2, 6))
    at = int(rng.integers(9, 13))
    for number in (first, first + 1):
        curve = thorax.ribs[side][number]
        outer, place = curve[at : at + 7], curve[at]
        sunk = outer + [0, 0.022 * strength]
        gone = chest.rib(width, [outer])
        moved = chest.rib(width, [sunk]) * (np.hypot(*_from(thorax, place)) > 0.012)
        callus = _hump(thorax, place + [0, 0.01], (0.022, 0.018))
        added += 0.13 * (moved - gone) + 0.2 * strength * callus
        near = np.maximum(np.abs(moved - gone) > 0.1, callus > 0.2)
        mask = np.maximum(mask, near)
    return added, mask


def devices(rng, thorax, side, strength):
    """Adds a central line, a pacemaker or a tube in the windpipe, or two of them."""
    width = len(thorax.still)
    added, mask = np.zeros_like(thorax.still), np.zeros_like(thorax.still)
    for kind in rng.choice(3, rng.integers(1, 3), replace=False):
        bend = rng.uniform(-0.02, 0.02)
        if kind == 0:
            line = [(-0.3, 0.02 + bend), (-0.2, 0.17), (-0.09, 0.2 + bend), (-0.035, 0.27),
                    (-0.032, 0.42)]  # fmt: skip
            drawn = [(lines(width, [smooth(line)], 0.007), 0.5)]
        elif kind == 1:
            x, y = 0.24 + bend, 0.24 + bend
            across, along = _from(thorax, (x, y))
            box = step(1 - (across / 0.05) ** 4 - (along / 0.042) ** 4, 0.5)
            lead = [(x - 0.03, y), (0.1, 0.2), (-0.01, 0.26), (-0.03, 0.42), (0.03, 0.6)]
            drawn = [(box, 0.9)]
            drawn.append((lines(width, [smooth(lead)], 0.007), 0.5))
        else:
            walls = [[(x + 0.3 * bend, -0.1), (x, 0.3)] for x in (-0.012, 0.008)]
            drawn = [(lines(width, walls, 0.006), 0.5)]
        for shape, dense in drawn:
            added = np.maximum(added, strength * dense * shape)
            mask = np.maximum(mask, shape > 0.3)
    return added, mask


DRAWN = {
    "Enlarged Cardiomediastinum": mediastinum,
    "Cardiomegaly": cardiomegaly,
    "Lung Opacity": opacity,
    "Lung Lesion": lesion,
    "Edema": edema,
    "Consolidation": consolidation,
    "Pneumonia": pneumonia,
    "Atelectasis": atelectasis,
    "Pneumothorax": pneumothorax,
    "Pleural Effusion": effusion,
    "Pleural Other": pleura,
    "Fracture": fracture,
    "Support Devices": devices,
}


def _from(thorax, place):
    return thorax.across - place[0], thorax.along - place[1]


def _hump(thorax, place, reach):
    across, along = _from(thorax, place)
    return np.exp(-((across / reach[0]) ** 2) - (along / reach[1]) ** 2)


def _inside(rng, thorax, side, low, high):
    """Draws a place in the open part of a lung, between two heights."""
    along = rng.uniform(low, high)
    first = 0.11 if side == "right" or along < 0.42 else 0.2
    return SIDES[side] * rng.uniform(first, 0.82 * thorax.wall), along
