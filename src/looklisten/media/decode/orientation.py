"""How a stored picture must be turned to be seen upright: the display matrix of its file."""

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """What brings a picture upright: first `is_mirrored` (left and right change places), then turns
    to the left.
    """

    is_mirrored: bool = False
    quarter_turns: int = 0

    @property
    def swaps_sides(self) -> bool:
        """Whether the upright picture is as wide as the stored one is high."""
        return self.quarter_turns % 2 == 1

    def upright(self, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A plane `[height, width]`, or `[width, height]` where the sides change; a view, nothing
        is copied.
        """
        mirrored = plane[:, ::-1] if self.is_mirrored else plane
        return np.rot90(mirrored, self.quarter_turns)


def orientation_of(frame: Any) -> Orientation:
    """The orientation that a decoded video frame carries."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # Side data of a kind that PyAV does not know hides all of it. The angle can still be asked
        # for, a mirror cannot.
        return Orientation(False, round(frame.rotation / 90) % 4)
    if matrix is None:
        return Orientation()
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    return orientation_of_matrix(a, b, c, d)


def orientation_of_matrix(a: float, b: float, c: float, d: float) -> Orientation:
    """The orientation of a matrix as MP4 files have it (ISO 14496-12, 8.3.2): x' = a x + c y and y'
    = b x + d y, y downwards.

    An angle between two quarter turns becomes the nearer one. A matrix that maps to a line or a
    point says nothing.
    """
    determinant = a * d - b * c
    if not determinant:
        return Orientation()
    is_mirrored = determinant < 0
    if is_mirrored:  # what is left of the matrix once left and right have changed places
        a, b = -a, -b
    quarter_turns = round(-math.atan2(b, a) / (math.pi / 2)) % 4
    return Orientation(is_mirrored, quarter_turns)
