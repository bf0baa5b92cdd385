"""A heat map enlarged bilinearly, on one thread. Knows numbers only."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def enlarged(values: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """A map at the size of what it covers, bilinear, pixels as areas. In one thread: a film has one
    for every frame.
    """
    above, below, down = _neighbors(values.shape[0], height)
    left, right, along = _neighbors(values.shape[1], width)
    rows = values.astype(np.float32)
    rows = rows[:, left] + (rows[:, right] - rows[:, left]) * along
    whole: NDArray[np.float32] = (rows[below] - rows[above]) * down[:, None]
    whole += rows[above]
    return whole


@lru_cache(maxsize=64)
def _neighbors(
    cells: int, pixels: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each pixel the cells whose centers it lies between, and what share of the way it is to
    the second.
    """
    place = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    first = place.astype(np.intp)
    return first, np.minimum(first + 1, cells - 1), (place - first).astype(np.float32)
