"""Convolutions of 3 x 3 with a quarter of the multiplications, in float32 on a CPU.

The method is F(4 x 4, 3 x 3) of Lavin and Gray ("Fast algorithms for convolutional neural
networks", 2016): tiles of 6 x 6 positions give 4 x 4 results, by one product for each of their 36
frequencies. Its rounding error is some five times that of a direct convolution, 2e-6 of the result.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

TILE = 4
"""Rows and columns of the result that one tile gives."""
PATCH = TILE + 2
"""Rows and columns of the input that it needs."""
STRIP_TILES = 8
"""Rows of tiles that are computed together, so that their values stay in the caches."""

INPUT_TRANSFORM = torch.tensor(
    [
        [4.0, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float32,
)
WEIGHT_TRANSFORM = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float32,
)
RESULT_TRANSFORM = torch.tensor(
    [
        [1.0, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ],
    dtype=torch.float32,
)
"""The matrices B, G and A of the paper, transposed where it transposes them."""


class WinogradConvolution:
    """A convolution of 3 x 3 with stride 1 and padding 1, and ReLU if `relu`."""

    def __init__(
        self, weight: Float[Tensor, "out in 3 3"], bias: Float[Tensor, " out"], relu: bool
    ) -> None:
        self._out_channels, in_channels = weight.shape[:2]
        # A matrix on the rows and then on the columns of a tile is one matrix on its positions.
        both_axes = torch.kron(WEIGHT_TRANSFORM, WEIGHT_TRANSFORM)
        positions = weight.permute(2, 3, 1, 0).reshape(9, -1)
        self._weight = (both_axes @ positions).view(PATCH**2, in_channels, self._out_channels)
        self._input_transform = torch.kron(INPUT_TRANSFORM, INPUT_TRANSFORM)
        self._result_transform = torch.kron(RESULT_TRANSFORM, RESULT_TRANSFORM)
        self._bias = bias
        self._relu = relu

    def __call__(
        self, x: Float[Tensor, "batch in rows columns"]
    ) -> Float[Tensor, "batch out rows columns"]:
        # Row by row, so that a result does not depend on the other rows of the batch.
        return torch.cat([self._convolve(row) for row in torch.split(x, 1)])

    def _convolve(
        self, x: Float[Tensor, "1 in rows columns"]
    ) -> Float[Tensor, "1 out rows columns"]:
        rows, columns = x.shape[2:]
        tile_rows = -(-rows // TILE)  # rounded up
        tile_columns = -(-columns // TILE)
        right = tile_columns * TILE + 1 - columns
        bottom = tile_rows * TILE + 1 - rows
        padded = functional.pad(x[0].permute(1, 2, 0), (0, 0, 1, right, 1, bottom))
        result = x.new_empty(tile_rows, TILE, tile_columns, TILE, self._out_channels)
        for start in range(0, tile_rows, STRIP_TILES):
            strip = result[start : start + STRIP_TILES]
            first_row = start * TILE
            last_row = (start + len(strip)) * TILE + 2
            tiles = self._tiles(padded[first_row:last_row])
            size = (TILE, TILE, len(strip), tile_columns, self._out_channels)
            torch.add(tiles.view(size).permute(2, 0, 3, 1, 4), self._bias, out=strip)
        tiled = result.view(tile_rows * TILE, tile_columns * TILE, self._out_channels)
        y = tiled[:rows, :columns]
        if self._relu:
            functional.relu_(y)
        return y.permute(2, 0, 1)[None]

    def _tiles(
        self, strip: Float[Tensor, "rows columns in"]
    ) -> Float[Tensor, "positions tiles_and_channels"]:
        """The results of all tiles of a strip, position by position."""
        channels = strip.shape[2]
        patches = strip.unfold(0, PATCH, TILE).unfold(1, PATCH, TILE)
        positions = patches.permute(3, 4, 0, 1, 2).reshape(PATCH**2, -1)
        frequencies = (self._input_transform @ positions).view(PATCH**2, -1, channels)
        products = torch.bmm(frequencies, self._weight)
        return self._result_transform @ products.view(PATCH**2, -1)
