"""Looks: twelve silhouettes, each with its inner texture, as functions over the plane. Knows no
colour, size or place.
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
"""(x, y) in object units, the silhouette inside the unit disc -> a value at each point."""


@dataclass(frozen=True)
class Look:
    """`silhouette` is positive inside and falls about linearly through its edge; `texture` is in
    0..1.
    """

    silhouette: Field
    texture: Field
    colors: tuple[Color, Color] | None = None
    """Bright and dark, where they belong to the class; None where any will do."""


def _polar(x: Plane, y: Plane) -> tuple[Plane, Plane]:
    return np.hypot(x, y), np.arctan2(y, x)


def _wave(phase: Plane) -> Plane:
    """A cosine with flattened tops, 0..1: stripes with soft edges."""
    stripes: Plane = np.clip(0.5 + 1.2 * np.cos(phase), 0, 1)
    return stripes


def _petals(lobes: int, inner: float, outer: float) -> Field:
    def silhouette(x: Plane, y: Plane) -> Plane:
        r, angle = _polar(x, y)
        return inner + (outer - inner) * np.abs(np.cos(lobes * angle / 2)) - r

    return silhouette


def _star(x: Plane, y: Plane) -> Plane:
    r, angle = _polar(x, y)
    tip = np.abs((angle * 5 / (2 * np.pi)) % 1 - 0.5) * 2
    return 0.38 + 0.62 * tip**1.5 - r


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
    r, angle = _polar(x, y)
    return np.minimum(0.8 + 0.16 * np.tanh(4 * np.cos(9 * angle)) - r, r - 0.3)


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
    r, angle = _polar(x, y)
    turn = (r * 2.1 - angle / (2 * np.pi)) % 1
    return np.minimum(0.27 - np.abs(turn - 0.5), 0.98 - r) * 0.5


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
    return np.maximum(
        _wave(13 * x) * (np.abs(np.cos(6.5 * x)) > 0.8), np.cos(6.5 * y) ** 2 > 0.75
    ).astype(np.float32)


LOOKS: dict[str, Look] = {
    "star": Look(_star, _rings),
    "ring": Look(_ring, _spokes),
    "cross": Look(_cross, _checks),
    "crescent": Look(_crescent, _dots),
    "heart": Look(_heart, lambda x, y: _wave(11 * (x + y))),
    "triangle": Look(_triangle, lambda x, y: _wave(12 * y + 2.5 * np.sin(7 * x))),
    "gear": Look(_gear, _sectors),
    "drop": Look(_drop, lambda x, y: np.clip(0.5 + 0.6 * y, 0, 1)),
    "hourglass": Look(_hourglass, _grid),
    "flower": Look(_petals(6, 0.5, 1.0), lambda x, y: (np.hypot(x, y) > 0.42).astype(np.float32)),
    "arrow": Look(_arrow, lambda x, y: _wave(14 * (np.abs(x) + y))),
    "spiral": Look(_spiral, lambda x, y: _wave(23 * x) * _wave(19 * y)),
}
"""Each class of the world by name, in the order that seeds draw them."""
