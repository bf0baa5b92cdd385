"""How the twelve fixed classes look: a silhouette and a texture, as functions over the plane.

Knows no size and no position. Coordinates are in object units: the silhouette lies inside the disc
of radius 1, x points right and y points down.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating[Any]]
Color = tuple[float, float, float]
"""Red, green, blue in 0..1."""
Field = Callable[[Plane, Plane], Plane]
"""(x, y) -> a value at each point."""


@dataclass(frozen=True)
class Shape:
    """What the objects of one class have in common to the eye."""

    silhouette: Field
    """Positive inside, negative outside, about linear near the edge so that edges can be soft."""
    texture: Field
    """From 0 (the dark color) to 1 (the bright color)."""
    colors: tuple[Color, Color] | None = None
    """Bright and dark color of the class; None if each object has its own."""


def _polar(x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """(radius, angle) of each point."""
    return np.hypot(x, y), np.arctan2(y, x)


def _wave(phase: Plane) -> Plane:
    """A cosine with flat tops, from 0 to 1: stripes with soft edges."""
    stripes: Plane = np.clip(0.5 + 1.2 * np.cos(phase), 0, 1)
    return stripes


def _petals(lobes: int, inner: float, outer: float) -> Field:
    def silhouette(x: Plane, y: Plane) -> Plane:
        radius, angle = _polar(x, y)
        return inner + (outer - inner) * np.abs(np.cos(lobes * angle / 2)) - radius

    return silhouette


def _star(x: Plane, y: Plane) -> Plane:
    radius, angle = _polar(x, y)
    tip = np.abs((angle * 5 / (2 * np.pi)) % 1 - 0.5) * 2
    return 0.38 + 0.62 * tip**1.5 - radius


def _ring(x: Plane, y: Plane) -> Plane:
    return 0.24 - np.abs(np.hypot(x, y) - 0.74)


def _cross(x: Plane, y: Plane) -> Plane:
    ax, ay = np.abs(x), np.abs(y)
    return np.minimum(0.95 - np.maximum(ax, ay), 0.3 - np.minimum(ax, ay))


def _crescent(x: Plane, y: Plane) -> Plane:
    return np.minimum(0.97 - np.hypot(x, y), np.hypot(x - 0.5, y) - 0.72)


def _heart(x: Plane, y: Plane) -> Plane:
    y = 0.15 - y
    return 0.95 - np.hypot(x * 1.12, y * 1.15 - 0.62 * np.sqrt(np.abs(x)))


def _triangle(x: Plane, y: Plane) -> Plane:
    return np.minimum(0.48 - y, 0.48 + 0.5 * y - 0.866 * np.abs(x))


def _gear(x: Plane, y: Plane) -> Plane:
    radius, angle = _polar(x, y)
    return np.minimum(0.8 + 0.16 * np.tanh(4 * np.cos(9 * angle)) - radius, radius - 0.3)


def _drop(x: Plane, y: Plane) -> Plane:
    width = 0.62 * np.sqrt(np.clip(1 - ((y - 0.3) / 0.67) ** 2, 0, None))
    tail = 0.57 * np.clip((y + 1) / 1.3, 0, 1) ** 1.3
    return np.where(y > 0.3, width, tail) - np.abs(x)


def _hourglass(x: Plane, y: Plane) -> Plane:
    return np.minimum(0.88 - np.abs(y), 0.1 + 0.68 * np.abs(y) - np.abs(x))


def _arrow(x: Plane, y: Plane) -> Plane:
    head = np.minimum(0.2 - y, 0.75 + 0.85 * y - np.abs(x))
    shaft = np.minimum(0.24 - np.abs(x), np.minimum(y + 0.2, 0.95 - y))
    return np.maximum(head, shaft)


def _spiral(x: Plane, y: Plane) -> Plane:
    radius, angle = _polar(x, y)
    winding = (radius * 2.1 - angle / (2 * np.pi)) % 1
    return np.minimum(0.27 - np.abs(winding - 0.5), 0.98 - radius) * 0.5


def _dots(x: Plane, y: Plane) -> Plane:
    return np.clip(0.5 + 1.5 * (np.cos(13 * x) * np.cos(13 * y) - 0.3), 0, 1)


def _checks(x: Plane, y: Plane) -> Plane:
    return np.clip(0.5 + 3 * np.sin(10 * x) * np.sin(10 * y), 0, 1)


def _spokes(x: Plane, y: Plane) -> Plane:
    return _wave(14 * _polar(x, y)[1])


def _rings(x: Plane, y: Plane) -> Plane:
    return _wave(17 * np.hypot(x, y))


def _sectors(x: Plane, y: Plane) -> Plane:
    return _wave(3 * _polar(x, y)[1])


def _grid(x: Plane, y: Plane) -> Plane:
    columns = _wave(13 * x) * (np.abs(np.cos(6.5 * x)) > 0.8)
    rows = np.cos(6.5 * y) ** 2 > 0.75
    return np.maximum(columns, rows).astype(np.float32)


def _diagonal_stripes(x: Plane, y: Plane) -> Plane:
    return _wave(11 * (x + y))


def _wavy_stripes(x: Plane, y: Plane) -> Plane:
    return _wave(12 * y + 2.5 * np.sin(7 * x))


def _fade(x: Plane, y: Plane) -> Plane:
    return np.clip(0.5 + 0.6 * y, 0, 1)


def _dark_center(x: Plane, y: Plane) -> Plane:
    return (np.hypot(x, y) > 0.42).astype(np.float32)


def _chevrons(x: Plane, y: Plane) -> Plane:
    return _wave(14 * (np.abs(x) + y))


def _tiles(x: Plane, y: Plane) -> Plane:
    return _wave(23 * x) * _wave(19 * y)


# The order of the classes decides which class a seed gives to a video: append, never reorder.
SHAPES: dict[str, Shape] = {
    "star": Shape(_star, _rings),
    "ring": Shape(_ring, _spokes),
    "cross": Shape(_cross, _checks),
    "crescent": Shape(_crescent, _dots),
    "heart": Shape(_heart, _diagonal_stripes),
    "triangle": Shape(_triangle, _wavy_stripes),
    "gear": Shape(_gear, _sectors),
    "drop": Shape(_drop, _fade),
    "hourglass": Shape(_hourglass, _grid),
    "flower": Shape(_petals(6, 0.5, 1.0), _dark_center),
    "arrow": Shape(_arrow, _chevrons),
    "spiral": Shape(_spiral, _tiles),
}
"""The shape of each fixed class, by the name of the class."""
