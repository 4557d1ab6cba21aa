"""Solid shapes as signed distances, which slices of any plane and resolution can sample."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Solid:
    """A shape in space.

    Args:
        distance: function of coordinates x, y, z in mm (float arrays that broadcast) that returns
            the distance to the surface in mm, about right near it, negative inside.
        low: (3,) lowest x, y, z of a box around the shape.
        high: (3,) highest.
    """

    distance: Callable
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Part:
    """Something that is drawn.

    Args:
        solid: its shape.
        coats: (tissue, outwards in mm) from the outer coat to the core.
        soft: width of the surface in mm, at least a pixel.
        strength: share of what was there before that it replaces, 0..1.
    """

    solid: Solid
    coats: tuple
    soft: float = 0.0
    strength: float = 1.0


def ellipsoid(centre, semi) -> Solid:
    """Returns an ellipsoid with semi-axes along x, y and z, both arguments (3,) in mm."""
    # Plain numbers keep the coordinates' precision; NumPy's would raise it.
    a, b, c = map(float, centre)
    u, v, w = map(float, semi)

    def distance(x, y, z):
        # Of first order, exact on the surface (Quilez, "ellipsoid SDF").
        p, q, r = ((x - a) / u) ** 2, ((y - b) / v) ** 2, ((z - c) / w) ** 2
        square = p + q + r
        slope = np.sqrt(p / u**2 + q / v**2 + r / w**2)
        return (square - np.sqrt(square)) / (slope + np.float32(1e-6))

    return Solid(distance, np.subtract(centre, semi), np.add(centre, semi))


def capsule(start, end, radius, stretch=(1.0, 1.0, 1.0), waist=1.0) -> Solid:
    """Returns a rod with round ends.

    Args:
        start: (3,) centre of one end, mm.
        end: (3,) centre of the other.
        radius: half the thickness at the ends, mm.
        stretch: (3,) factors that thicken the rod along x, y and z, 1 or more.
        waist: share of the radius that is left in the middle.
    """
    start, end, stretch = (np.asarray(v, np.float32) for v in (start, end, stretch))
    axis, radius = (end - start) / stretch, float(radius)
    axis_square = float(axis @ axis)

    def distance(x, y, z):
        p, q, r = ((v - o) / s for v, o, s in zip((x, y, z), start, stretch, strict=True))
        along = np.clip((p * axis[0] + q * axis[1] + r * axis[2]) / axis_square, 0, 1)
        far = (p - along * axis[0]) ** 2 + (q - along * axis[1]) ** 2 + (r - along * axis[2]) ** 2
        thick = radius if waist == 1 else radius * (1 - (1 - waist) * 4 * along * (1 - along))
        return np.sqrt(far) - thick

    reach = radius * stretch
    return Solid(distance, np.minimum(start, end) - reach, np.maximum(start, end) + reach)


def joined(*solids, blend=4.0) -> Solid:
    """Returns shapes fused into one, edges between them rounded over `blend` mm."""

    def distance(x, y, z):
        result = solids[0].distance(x, y, z)
        for solid in solids[1:]:
            other = solid.distance(x, y, z)
            near = np.clip(blend - np.abs(result - other), 0, None)
            result = np.minimum(result, other) - near * near * np.float32(0.25 / blend)
        return result

    low = np.min([solid.low for solid in solids], axis=0) - blend / 4
    return Solid(distance, low, np.max([solid.high for solid in solids], axis=0) + blend / 4)


def cut(solid, limit) -> Solid:
    """Returns what of a shape lies where the function `limit` of x, y, z is negative too."""
    return Solid(
        lambda x, y, z: np.maximum(solid.distance(x, y, z), limit(x, y, z)), solid.low, solid.high
    )


def grown(solid, by) -> Solid:
    """Returns a shape with its surface moved outwards by `by` mm."""
    return Solid(lambda x, y, z: solid.distance(x, y, z) - by, solid.low - by, solid.high + by)
