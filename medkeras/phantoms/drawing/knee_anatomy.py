"""Anatomy of a made-up knee in space.

Coordinates in mm around the middle of the joint: x to the outer (lateral) side, y to the back,
z up. Shapes are drawn one over the other, so the order of `parts` matters.
"""

from dataclasses import dataclass

import numpy as np

from medkeras.phantoms.drawing import knee_lesions
from medkeras.phantoms.drawing.solids import Part, Solid, capsule, cut, ellipsoid, grown, joined


@dataclass(frozen=True)
class Knee:
    """An anatomy, with every lesion ready, drawn or not.

    Args:
        parts: healthy anatomy in the order of drawing.
        lesions: {name out of `knee_lesions.LESIONS`: parts drawn over it}.
    """

    parts: list
    lesions: dict


def draw(rng, difficulty) -> Knee:
    """Draws an anatomy and its lesions.

    Args:
        rng: NumPy generator; the same numbers are drawn whichever lesions will be shown.
        difficulty: 0 (lesions large and of full contrast) .. 1 (hardly there).
    """

    def about(value, spread=0.06):
        return value * (1 + spread * rng.uniform(-1, 1))

    condyle = about(17.0), about(28.0), about(21.0)
    apart = condyle[0] + about(9.0, 0.15)
    top = 2.5 + condyle[2]
    femur = joined(
        ellipsoid((-apart, 5, top), condyle),
        ellipsoid((apart, 4, top), np.multiply(condyle, (1.0, 1.04, 1.0))),
        ellipsoid((0, -4, top + 17), (about(36), about(21), about(22))),
        capsule((0, -3, 48), (0, -6, 100), about(15)),
    )
    slope = rng.uniform(0.04, 0.12)
    plateau = _plateau(apart + condyle[0] - 1, about(27), slope)
    tibia = joined(
        plateau,
        ellipsoid((0, 2, -8), (about(9), 7, about(7, 0.2))),
        capsule((0, 0, -30), (0, 5, -100), about(16)),
        capsule((0, -17, -28), (0, -9, -44), 9),
        blend=6.0,
    )
    fibula = joined(
        ellipsoid((36, 17, -26), (about(8), about(9), about(9))),
        capsule((37, 18, -35), (34, 18, -100), about(5.5)),
    )
    high = about(27, 0.15)
    patella = joined(
        ellipsoid((0, -39, high), (about(21), about(8), about(19))),
        ellipsoid((0, -35, high), (5, about(8), 15)),
        blend=8.0,
    )
    menisci = {
        side: _meniscus(side, apart, about(17.5), about(23), about(11, 0.1), slope)
        for side in (-1, 1)
    }
    acl = np.array([-2, -9, -5]), np.array([about(5, 0.3), 17, about(22)])
    thick = about(4.6, 0.12)

    bone = (("cortex", 0), ("marrow", -1.6))
    parts = [
        *_soft_tissue(rng, about),
        *_tendons(high, about),
        Part(ellipsoid((0, -28, 44), (15, rng.uniform(1.5, 4), about(13, 0.2))), (("fluid", 0),)),
        Part(ellipsoid((0, 2, -2), (apart + 14, 25, about(4, 0.2))), (("synovium", 0),), 2.0),
        Part(ellipsoid((0, -35, -4), (26, 8, 20)), (("fat", 0),), 4.0),
        Part(ellipsoid((0, 8, 10), (13, 21, 17)), (("synovium", 0),), 3.0),
        Part(_facing(grown(femur, 2.8)), (("cartilage", 0),)),
        Part(femur, bone),
        Part(_raised(plateau, 2.4), (("cartilage", 0),)),
        Part(tibia, bone),
        Part(fibula, bone),
        Part(cut(grown(patella, 3.0), lambda x, y, z: -38 - y), (("cartilage", 0),)),
        Part(patella, bone),
        Part(menisci[-1], (("meniscus", 0),)),
        Part(menisci[1], (("meniscus", 0),)),
        Part(_posterior_cruciate(about), (("tendon", 0),)),
        Part(capsule(*acl, thick, (1.15, 1, 1), waist=0.8), (("ligament", 0),)),
    ]
    lesions = {
        "acl": knee_lesions.ruptured(rng, difficulty, *acl, thick),
        "meniscus": knee_lesions.torn(rng, difficulty, menisci, apart),
        "other": knee_lesions.other(rng, difficulty, apart, top, femur, tibia),
    }
    return Knee(parts, lesions)


def _plateau(wide, deep, slope):
    """Flat on top, falling to the back by `slope`, with rounded corners."""

    def distance(x, y, z):
        # Between an ellipse and a rectangle: the fourth root of fourth powers.
        across, along = (x / wide) ** 2, ((y - 3) / deep) ** 2
        side = (np.sqrt(np.sqrt(across**2 + across * along + along**2)) - 1) * deep
        # Narrower downwards, as the metaphysis is.
        low = np.clip(-11 - z, 0, None)
        side = 3 + side + 0.3 * low * low / (low + 8)
        tall = np.abs(z + 32 + slope * y) - 24
        # Edges rounded over 3 mm.
        outside = np.sqrt(np.clip(side, 0, None) ** 2 + np.clip(tall, 0, None) ** 2)
        return np.clip(np.maximum(side, tall), None, 0) + outside - 3

    return Solid(distance, np.array([-wide, 3 - deep, -62]), np.array([wide, 3 + deep, 0]))


def _raised(plateau, by):
    """The cartilage on both sides of the plateau's middle."""

    def distance(x, y, z):
        return np.maximum(plateau.distance(x, y, z - by) + 0.8, np.maximum(7 - np.abs(x), -9 - z))

    return Solid(distance, plateau.low, plateau.high + by)


def _facing(solid):
    """What of the femur's cartilage faces another bone: not the notch, not the shaft."""

    def limit(x, y, z):
        notch = np.minimum(9.5 - np.abs(x), y + 14)
        return np.maximum(notch, z - 24 + 0.5 * np.clip(y, -24, 24))

    return cut(solid, limit)


def _meniscus(side, apart, wide, deep, tall, slope):
    """Wedge, thick at the rim and sharp inside, bent to a C that opens to the notch."""

    def distance(x, y, z):
        u, v = side * x - apart, y - 3
        ring = np.sqrt((u / wide) ** 2 + (v / deep) ** 2)
        floor = -2.6 - slope * y
        wedge = np.maximum(floor - z, z - floor - tall * (ring - 0.38) / 0.62)
        opening = np.maximum(u + 7, np.abs(v) - 11)
        return np.maximum(np.maximum((ring - 1) * wide, wedge), -opening)

    low = np.array([side * apart - wide, 3 - deep, -6])
    return Solid(distance, low, low + [2 * wide, 2 * deep, 6 + tall])


def _posterior_cruciate(about):
    thick = about(4.8, 0.1)
    points = [(0, 29, -12), (-3, 27, 3), (-5, 18, 13), (-7, 5, 18)]
    rods = [capsule(a, b, thick) for a, b in zip(points[:-1], points[1:], strict=True)]
    return joined(*rods, blend=2.0)


def _soft_tissue(rng, about):
    wide, deep, fat = about(54), about(56), rng.uniform(4, 10)

    def leg(by):
        def distance(x, y, z):
            taper = 1 + 0.0015 * z + 0.02 * np.cos(z / 22)
            return (np.sqrt((x / wide) ** 2 + ((y - 4) / deep) ** 2) - taper) * 50 + by

        return Solid(distance, np.full(3, -120.0), np.full(3, 120.0))

    muscles = [
        ((-19, 36, -8), (-17, 40, -110), 15),
        ((19, 37, -8), (18, 40, -110), 15),
        ((4, 26, -38), (6, 26, -110), 14),
        ((27, -10, -42), (25, -8, -110), 12),
        ((-31, 34, 2), (-27, 40, 110), 11),
        ((33, 34, 6), (27, 40, 110), 11),
        ((-34, -10, 38), (-26, -16, 110), 14),
        ((35, -14, 46), (27, -18, 110), 13),
        ((0, -31, 74), (0, -28, 120), 13),
    ]
    vein = rng.uniform(3, 6.5)
    return [
        Part(leg(0.0), (("skin", 0), ("fat", -1.5))),
        Part(leg(fat), (("septum", 0), ("deep fat", -0.8))),
        *(Part(capsule(a, b, about(r)), (("septum", 0.8), ("muscle", 0))) for a, b, r in muscles),
        Part(capsule((3, 35, -110), (0, 31, 110), vein), (("vein", 0),)),
        Part(capsule((-6, 31, -110), (-4, 27, 110), about(3.6)), (("artery", 0),)),
        *_veins(rng, wide - fat / 2, deep - fat / 2),
    ]


def _veins(rng, wide, deep):
    """Veins under the skin: how much is bright in a picture must not depend on lesions alone."""
    count = rng.integers(0, 5, endpoint=True)
    for angle, radius in zip(rng.uniform(0, 2 * np.pi, 5), rng.uniform(1.2, 3.4, 5), strict=True):
        ends = []
        # Under the skin of a leg that is narrower below.
        for z, share in ((-110, 0.8), (110, 1.1)):
            turned = angle + rng.uniform(-0.25, 0.25)
            ends.append((share * wide * np.cos(turned), 4 + share * deep * np.sin(turned), z))
        if count > 0:
            yield Part(capsule(*ends, radius), (("vein", 0),))
        count -= 1


def _tendons(high, about):
    front = {"stretch": (3.5, 1.0, 1.0)}
    return [
        Part(capsule((0, -42, high + 15), (0, -37, 110), about(3.4), **front), (("tendon", 0),)),
        Part(capsule((0, -44, high - 14), (0, -29, -36), about(2.8), **front), (("tendon", 0),)),
        Part(capsule((-46, 2, 30), (-40, -2, -42), 1.7, (1, 3.5, 1)), (("tendon", 0),)),
        Part(capsule((45, 6, 26), (38, 17, -24), 1.8, (1, 1.5, 1)), (("tendon", 0),)),
    ]
