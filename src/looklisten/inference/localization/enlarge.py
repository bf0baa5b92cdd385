"""Bilinear enlargement of heat maps. Knows numbers only."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def enlarge_map(values: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """A map `[rows, columns]` in another size `[height, width]`, bilinear.

    Cells and pixels are areas: the center of a cell keeps the cell's value.
    """
    # Plain NumPy, in one thread: an overlay video enlarges one map for every frame, and PyTorch's
    # threads cost more than they save on maps of this size.
    above, below, row_share = _neighbors(values.shape[0], height)
    left, right, column_share = _neighbors(values.shape[1], width)
    cells = values.astype(np.float32)
    rows = cells[:, left] + (cells[:, right] - cells[:, left]) * column_share
    enlarged: NDArray[np.float32] = (rows[below] - rows[above]) * row_share[:, None]
    enlarged += rows[above]
    return enlarged


# All frames of a video have one size, so the positions are computed once.
@lru_cache(maxsize=64)
def _neighbors(
    cells: int, pixels: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each pixel the two cells whose centers are next to it, and the share of the second."""
    pixel_centers = (np.arange(pixels) + 0.5) * cells / pixels - 0.5
    positions = np.clip(pixel_centers, 0, cells - 1)
    first = positions.astype(np.intp)
    second = np.minimum(first + 1, cells - 1)
    return first, second, (positions - first).astype(np.float32)
