"""What is torn or swollen in a made-up knee; coordinates are those of `knee_anatomy`."""

import math

import numpy as np

from medkeras.phantoms.drawing.solids import Part, Solid, capsule, cut, ellipsoid, grown

LESIONS = ("acl", "meniscus", "other")


def ruptured(rng, difficulty, start, end, thick):
    """Draws a torn cruciate ligament: a swollen, frayed gap in the middle of the band.

    Args:
        rng: NumPy generator.
        difficulty: 0 (large, of full contrast) .. 1 (hardly there).
        start: (3,) end of the band on the tibia, mm.
        end: (3,) its end on the femur.
        thick: half the thickness of the band, mm.

    Returns:
        The parts to draw over the healthy knee.
    """
    size, strength = _size_and_strength(difficulty)
    place = start + rng.uniform(0.42, 0.62) * (end - start)
    axis = (end - start) / np.linalg.norm(end - start)
    half = size * rng.uniform(9.5, 12.5) * axis
    phase = rng.uniform(0, 6, 2).tolist()
    swollen = capsule(place - half * 0.5, place + half * 0.5, size * 1.75 * thick, (1.2, 1, 1))

    def frayed(x, y, z):
        wave = np.sin(0.55 * (y + z) + phase[0]) + np.sin(0.6 * (y - z) + 0.4 * x + phase[1])
        return swollen.distance(x, y, z) + size * 0.9 * wave

    shape = Solid(frayed, swollen.low - 2, swollen.high + 2)
    return [Part(shape, (("rupture", 0),), 1.5, strength)]


def torn(rng, difficulty, menisci, apart):
    """Draws a torn meniscus: a cleft through the wedge from its back to its side.

    Args:
        rng: NumPy generator.
        difficulty: 0 (large, of full contrast) .. 1 (hardly there).
        menisci: {-1: inner, 1: outer solid}.
        apart: x of the middle of the outer one, mm.

    Returns:
        The cleft, and a small cyst at the rim behind it.
    """
    size, strength = _size_and_strength(difficulty)
    side = -1 if rng.random() < 0.65 else 1
    middle, reach = math.radians(rng.uniform(50, 80)), math.radians(50 * size)
    steep = rng.uniform(-0.5, 0.9)
    depth, width = rng.uniform(11, 13), size * rng.uniform(2.4, 3.0)
    meniscus = grown(menisci[side], 0.8)
    swollen = size * rng.uniform(5.5, 7.0)
    rim = np.array([side * (apart + 18 * np.cos(middle)), 3 + 23 * np.sin(middle), 2.5])

    def distance(x, y, z):
        u, v = side * x - apart, y - 3
        ring = np.sqrt(u**2 + (0.77 * v) ** 2)
        cleft = np.abs((z - 1.5) - steep * (ring - depth)) / math.hypot(1, steep) - width
        # Along the C: how far the angle from its middle is from that of the tear.
        turn = np.cos(np.arctan2(0.77 * v, u) - middle)
        sector = (math.cos(reach) - turn) * 14
        return np.maximum(np.maximum(meniscus.distance(x, y, z), cleft), sector)

    cleft = Solid(distance, meniscus.low, meniscus.high)
    cyst = ellipsoid(rim, np.full(3, swollen))
    return [Part(shape, (("tear", 0),), 1.0, strength) for shape in (cleft, cyst)]


def other(rng, difficulty, apart, top, femur, tibia):
    """Draws oedema of the marrow, fluid above the patella or a cyst behind the knee.

    Args:
        rng: NumPy generator.
        difficulty: 0 (large, of full contrast) .. 1 (hardly there).
        apart: x of the middle of the outer condyle, mm.
        top: z of the middle of the condyles, mm.
        femur: its solid; oedema stays within the bone.
        tibia: the same.

    Returns:
        The parts to draw over the healthy knee.
    """
    size, strength = _size_and_strength(difficulty)
    kind = str(rng.choice(["oedema", "effusion", "cyst"]))
    side = rng.choice([-1, 1])
    radius = size * rng.uniform(11, 14, 3)
    upper = rng.random() < 0.6
    place = np.array([side * apart, rng.uniform(-8, 14), top - 8 if upper else -20])
    pouch = size * np.array([20, 5.0, 17]) * rng.uniform(0.9, 1.15)
    bag = size * np.array([8, 7.0, 17]) * rng.uniform(0.9, 1.15)
    if kind == "oedema":
        bone = femur if upper else tibia
        patch = cut(ellipsoid(place, radius), lambda x, y, z: bone.distance(x, y, z) + 1.7)
        return [Part(patch, (("oedema", 0),), 6.0, strength)]
    if kind == "effusion":
        shape = ellipsoid((0, -30, 43), pouch)
    else:
        shape = ellipsoid((-22, 39, 4), bag)
    return [Part(shape, (("effusion", 0),), 1.5, strength)]


def _size_and_strength(difficulty):
    """Factor of lengths, and share of the healthy signal that a lesion replaces."""
    return 1 - 0.45 * difficulty, 1 - 0.95 * difficulty
