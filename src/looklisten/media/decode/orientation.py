"""How a stored frame must be turned to be upright: the display matrix of its file."""

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """What makes a frame upright: first a mirror (left becomes right), then turns to the left."""

    is_mirrored: bool = False
    quarter_turns: int = 0

    @property
    def swaps_sides(self) -> bool:
        """Whether the upright frame is as wide as the stored one is high."""
        return self.quarter_turns % 2 == 1

    def upright(self, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A plane `[height, width]`, or `[width, height]` where the sides change.

        The result is a view; nothing is copied.
        """
        mirrored = plane[:, ::-1] if self.is_mirrored else plane
        return np.rot90(mirrored, self.quarter_turns)


def orientation_of(frame: Any) -> Orientation:
    """The orientation that a decoded video frame has."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # Where a frame has side data of a kind that PyAV does not know, PyAV gives none of it. The
        # angle can still be read, a mirror cannot.
        return Orientation(False, round(frame.rotation / 90) % 4)
    if matrix is None:
        return Orientation()
    # The rows are a b u, c d v, x y w; only a to d turn and mirror.
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    return orientation_of_matrix(a, b, c, d)


def orientation_of_matrix(a: float, b: float, c: float, d: float) -> Orientation:
    """The orientation of a matrix of an MP4 file (ISO 14496-12, 8.3.2).

    The matrix means x' = a x + c y and y' = b x + d y, with y downwards. An angle between two
    quarter turns becomes the nearer one. A matrix that maps to a line or a point means nothing.
    """
    determinant = a * d - b * c
    if not determinant:
        return Orientation()
    is_mirrored = determinant < 0
    if is_mirrored:
        # The matrix that remains when left and right have changed places.
        a, b = -a, -b
    quarter_turns = round(-math.atan2(b, a) / (math.pi / 2)) % 4
    return Orientation(is_mirrored, quarter_turns)
