"""Anatomy of a made-up knee seen from the front: attenuation of X-rays, drawn at any scale.

Points are in millimetres of a knee of standard size, 80 mm wide: x runs from the lateral to the
medial side with 0 at the midline, y from the hip to the foot with 0 at the tibial plateau.
"""

from dataclasses import dataclass

import cv2
import numpy as np

CORNERS = ("medial tibia", "lateral tibia", "medial femur", "lateral femur")
# The middle of each compartment, where its joint space is narrowest.
MEDIAL, LATERAL = 21.0, -21.0
# Millimetres of bone texture around the joint, and its grains per millimetre.
REACH, GRAIN = 180, 1.25


@dataclass(frozen=True)
class Knee:
    """One knee, ready to be drawn.

    Args:
        shape: what both knees of the patient share: widths, heights, densities.
        medial: narrowest medial joint space, mm.
        lateral: narrowest lateral joint space, mm.
        spurs: length of the bone spur at each of `CORNERS`, mm.
        sclerosis: how much denser the medial plateau is than in health, 0..1.
        patella: middle of the knee cap (x, y), mm.
        texture: grain of the spongy bone, float32, square, around 0.
    """

    shape: dict
    medial: float
    lateral: float
    spurs: tuple
    sclerosis: float
    patella: tuple
    texture: np.ndarray


def shape(rng) -> dict:
    """Draws what both knees of a patient share."""
    return {
        "femur": rng.uniform(0.94, 1.05),
        "tibia": rng.uniform(0.94, 1.05),
        "shaft": rng.uniform(0.85, 1.15),
        "rounding": rng.uniform(10, 18),
        "notch": rng.uniform(10, 17),
        "dish": rng.uniform(0.3, 1.6),
        "spines": rng.uniform(4, 10, 2),
        "apart": rng.uniform(3.5, 6),
        "rim": rng.uniform(1.5, 4.5),
        "flare": rng.uniform(25, 37),
        "scar": rng.uniform(-34, -26),
        "fibula": (rng.uniform(-37, -32), rng.uniform(9, 16)),
        "cap": (rng.uniform(18, 23), rng.uniform(19, 25)),
        "bone": rng.uniform(0.8, 1.1),
        "cortex": rng.uniform(0.25, 0.45),
        "soft": rng.uniform(52, 64),
    }


def knee(rng, shared: dict, truth) -> Knee:
    """Draws one knee.

    Args:
        rng: NumPy generator.
        shared: what `shape` gave for the patient.
        truth: has `medial`, `lateral` and `osteophyte`, mm; the longest spur is as long as
            `osteophyte`, the others are 50 to 90 % of it.
    """
    share = rng.uniform(0.5, 0.9, 4)
    share[rng.integers(4)] = 1.0
    side = int(REACH * GRAIN)
    grain = rng.standard_normal((side, side), dtype=np.float32)
    # Spongy bone runs along the leg; larger patches are denser than others.
    streaks = cv2.GaussianBlur(grain, (0, 0), sigmaX=0.45, sigmaY=1.2)
    patches = cv2.GaussianBlur(grain, (0, 0), 9)
    return Knee(
        shape=shared,
        medial=truth.medial,
        lateral=truth.lateral,
        spurs=tuple(share * truth.osteophyte),
        sclerosis=float(np.clip((4.0 - truth.medial) / 3.2, 0, 1)),
        patella=(rng.normal(-1.5, 2.5), rng.normal(-37, 3)),
        texture=streaks / streaks.std() + patches / patches.std(),
    )


def attenuation(knee: Knee, camera, size) -> np.ndarray:
    """Projects a knee.

    Args:
        knee: what to draw.
        camera: (3, 3) matrix from millimetres to pixels, of a turn, a scale and a shift.
        size: (height, width) in pixels.

    Returns:
        float32 (height, width), 0 where only air is.
    """
    scale = np.sqrt(abs(np.linalg.det(camera[:2, :2])))
    grain = np.diag([1 / GRAIN, 1 / GRAIN, 1.0])
    grain[:2, 2] = -REACH / 2
    # Mirrored beyond its edges, which no locator may see.
    texture = cv2.warpAffine(
        knee.texture, (camera @ grain)[:2], size[::-1], borderMode=cv2.BORDER_REFLECT
    )
    bones = np.zeros(size, np.float32)
    for outline, share in _outlines(knee):
        depth = _depth(outline, camera, size, scale)
        # A shell of dense bone around a spongy filling, as thick as the ray is long in it.
        inside = np.minimum(depth / 0.7, 1)
        shell = knee.shape["cortex"] * np.exp(-depth / 1.8)
        filling = 0.45 + 0.55 * (1 - np.exp(-depth / 9))
        bones += share * inside * (shell + filling * (1 + 0.14 * texture))
    bones += _lines(knee, camera, size, scale) * (1 + 0.1 * texture)
    return knee.shape["bone"] * bones + _soft(knee, camera, size)


def plateau(knee: Knee, x) -> np.ndarray:
    """Returns the height of the tibial plateau without its spines, mm, at x."""
    x = np.abs(np.asarray(x, float))
    return knee.shape["dish"] * (1 - ((x - MEDIAL) / 17) ** 2).clip(-1)


def condyles(knee: Knee, x) -> np.ndarray:
    """Returns the height of the lower end of the femur, mm, at x.

    Each condyle is rounded so that the joint space under it is narrowest in its middle.
    """
    x = np.asarray(x, float)
    # From one compartment to the other over the notch.
    medial = np.clip((x + 7) / 14, 0, 1)
    space = knee.lateral + (knee.medial - knee.lateral) * medial
    u = (np.abs(x) - MEDIAL) / (17.5 * knee.shape["femur"])
    inner, outer = np.clip(-u, 0, 1), np.clip(u, 0, 1)
    rise = knee.shape["notch"] * (1 - np.cos(np.pi * np.clip(inner, 0, 1) ** 1.4)) / 2
    rise += knee.shape["rounding"] * (1 - (1 - outer**2.6) ** (1 / 2.6))
    return plateau(knee, x) - space - rise


def _outlines(knee):
    """Yields (outline in mm, density) of femur, tibia, fibula and knee cap."""
    s = knee.shape
    x = np.linspace(1, -1, 161)
    across = x * (MEDIAL + 17.4 * s["femur"])
    bottom = np.stack([across, condyles(knee, across)], 1)
    sides = []
    for sign, top in ((1, bottom[0]), (-1, bottom[-1])):
        wall = [(41, top[1] - 9), (41.5, -30), (37, -42), (28, -57)]
        wall += [(20 * s["shaft"], -80), (17 * s["shaft"], -150), (17 * s["shaft"], -260)]
        wall = [(sign * s["femur"] * a, b) for a, b in wall]
        sides.append(_smooth(np.array([top, *wall])))
    femur = np.concatenate([sides[0][::-1], bottom, sides[1]])
    femur = _spur(femur, knee.spurs[2], 1, bottom[0, 1] * 0.55, 0.55)
    yield _spur(femur, knee.spurs[3], -1, bottom[-1, 1] * 0.55, 0.55), 1.0

    across = x * 37 * s["tibia"]
    peaks = zip(s["spines"], (s["apart"], -s["apart"]), strict=True)
    height = sum(high * np.exp(-(((across - at) / 3.2) ** 2)) for high, at in peaks)
    top = np.stack([across, plateau(knee, across) - height], 1)
    sides = []
    for sign, edge in ((1, top[0]), (-1, top[-1])):
        wall = [(38.5, 3), (38, 11), (35, 20), (s["flare"], 40), (20 * s["shaft"], 68)]
        wall += [(15 * s["shaft"], 110), (14 * s["shaft"], 260)]
        wall = [(sign * s["tibia"] * a, b) for a, b in wall]
        sides.append(_smooth(np.array([edge, *wall])))
    tibia = np.concatenate([sides[0][::-1], top, sides[1]])
    tibia = _spur(tibia, knee.spurs[0], 1, 2.5, -0.3)
    yield _spur(tibia, knee.spurs[1], -1, 2.5, -0.3), 1.0

    x, y = s["fibula"]
    head = [(-3, 0), (3, 1), (8, 8), (8, 16), (4, 28), (4, 80), (5, 260)]
    head += [(-5, 260), (-5, 80), (-5, 28), (-9, 15), (-8, 6), (-3, 0)]
    yield _smooth(np.array(head) * [0.95, 1] + [x, y]), 0.5

    turn = np.linspace(0, 2 * np.pi, 60)
    x, y = knee.patella
    yield np.stack([x + s["cap"][0] * np.cos(turn), y + s["cap"][1] * np.sin(turn)], 1), 0.22


def _smooth(points):
    """Cuts the corners of a line, and leaves its ends."""
    for _ in range(3):
        near, far = points[:-1], points[1:]
        cut = np.stack([0.75 * near + 0.25 * far, 0.25 * near + 0.75 * far], 1).reshape(-1, 2)
        points = np.concatenate([points[:1], cut, points[-1:]])
    return points


def _spur(outline, length, sign, at, towards):
    """Pulls an outline outwards at the height `at`, and towards the joint, into a lip."""
    near = np.exp(-(((outline[:, 1] - at) / 2.6) ** 2)) * (sign * outline[:, 0] > 27)
    edge = np.clip((sign * outline[:, 0] - 27) / 8, 0, 1)
    shift = length * (near * edge)[:, None]
    return outline + shift * [sign, towards]


def _depth(outline, camera, size, scale):
    """Distance of every pixel to the outline in mm, 0 outside of it."""
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [_pixels(outline, camera)], 255, shift=4)
    return cv2.distanceTransform(mask, cv2.DIST_L2, 3) / np.float32(scale)


def _lines(knee, camera, size, scale):
    """Dense bone that the rays meet edge on: plateaus, roof of the notch, growth scars."""
    s = knee.shape
    width = 37 * s["tibia"]
    lines, canvas = [], np.zeros(size, np.float32)
    for sign, sclerosis in ((1, knee.sclerosis), (-1, 0.0)):
        # Load thickens the plate under the middle of the plateau.
        x = sign * np.linspace(7, width - 0.5, 40)
        y = plateau(knee, x)
        plate = 1.6 + 4 * sclerosis * np.sin(np.linspace(0, np.pi, 40))
        lens = np.concatenate([np.stack([x, y], 1), np.stack([x, y + plate], 1)[::-1]])
        drawn = np.zeros(size, np.uint8)
        cv2.fillPoly(drawn, [_pixels(lens, camera)], 255, shift=4)
        canvas += drawn * np.float32((0.4 + 0.25 * sclerosis) / 255)
        # The rear rim of the plateau lies a little lower than the front one.
        lines.append((x, y + s["rim"], 0.9, 0.25))
        x = sign * np.linspace(9, 34, 40)
        lines.append((x, condyles(knee, x) - 0.8, 1.0, 0.3))
    x = np.linspace(-13, 13, 30)
    lines.append((x, -s["notch"] - 7 + 0.05 * x**2, 1.2, 0.2))
    x = np.linspace(-30, 30, 40)
    lines.append((x, s["scar"] - 4 * np.cos(x / 6), 1.0, 0.1))
    lines.append((x * 0.9, 22 + 2 * np.cos(x / 7), 1.0, 0.1))
    for x, y, thick, dense in lines:
        stroke = _pixels(np.stack([x, y], 1), camera)
        drawn = np.zeros(size, np.uint8)
        cv2.polylines(drawn, [stroke], False, 255, max(1, round(thick * scale)), shift=4)
        canvas = np.maximum(canvas, drawn * np.float32(dense / 255))
    return cv2.GaussianBlur(canvas, (0, 0), 0.5 * scale)


def _soft(knee, camera, size):
    """Attenuation of muscle, fat and skin: a column, wider towards the hip."""
    back = np.linalg.inv(camera)
    rows, columns = np.ogrid[: size[0], : size[1]]
    x = (back[0, 0] * columns + back[0, 1] * rows + back[0, 2]).astype(np.float32)
    y = (back[1, 0] * columns + back[1, 1] * rows + back[1, 2]).astype(np.float32)
    half = knee.shape["soft"] * (1 + 0.12 * np.tanh(-y / 60) - 0.06 * np.exp(-((y / 25) ** 2)))
    return 0.5 * np.sqrt(np.clip(1 - (x / half) ** 2, 0, None)) ** 0.7


def _pixels(points, camera):
    """Moves points in mm to pixels, as whole sixteenths."""
    moved = points @ camera[:2, :2].T + camera[:2, 2]
    return np.round(moved * 16).astype(np.int32)
