"""The VGG backbone over a spectrogram that grows to the right, one strip of columns at a time.

It gives the map that the tower would give for the whole spectrogram. Every convolution keeps the
last columns of its input, so nothing is computed twice. Knows a tower, no sound.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from looklisten.model.backbones.vgg import Block, Vgg
from looklisten.model.fused_convolution import FusedConvolution
from looklisten.model.pooling import max_pooled


class _Convolution:
    """A fused convolution that keeps the last columns of its input."""

    def __init__(
        self, convolution: nn.Conv2d, norm: nn.BatchNorm2d | None, dtype: torch.dtype
    ) -> None:
        # Rows are padded as in the tower; columns are not, because the neighbors are there.
        is_raw = norm is None
        self._fused = FusedConvolution(
            convolution, norm, dtype, "none" if is_raw else "relu", padding=(1, 0)
        )
        self._last_columns: Tensor | None = None

    def __call__(
        self, x: Float[Tensor, "1 in rows columns"]
    ) -> Float[Tensor, "1 out new_rows new_columns"]:
        if self._last_columns is None:
            # The zero padding left of the spectrogram.
            self._last_columns = x.new_zeros(*x.shape[:3], 1)
        x = torch.cat([self._last_columns, x], 3)
        y = self._fused(x)
        first_unused = self._fused.stride[1] * y.shape[3]
        self._last_columns = x[..., first_unused:].contiguous(memory_format=torch.channels_last)
        return y


class _Pooling:
    """Max-pooling of `shape`, 2 x 2 or 2 x 1. A column without its neighbor waits for it."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._waiting: Tensor | None = None

    def __call__(
        self, x: Float[Tensor, "1 features rows columns"]
    ) -> Float[Tensor, "1 features new_rows new_columns"]:
        if self._waiting is not None:
            x = torch.cat([self._waiting, x], 3)
        self._waiting = None
        if x.shape[3] % self._shape[1]:
            self._waiting = x[..., -1:].contiguous(memory_format=torch.channels_last)
        return max_pooled(x, self._shape)


class StreamingVgg:
    """The last map of `tower`, column after column; if `raw`, before batch-norm and ReLU.

    Left of the spectrogram are zeros. Where the strips begin changes the result only by rounding.
    A strip must be wide enough that every layer gets a column.
    """

    def __init__(self, tower: Vgg, dtype: torch.dtype, raw: bool) -> None:
        self._dtype = dtype
        self._layers: list[_Convolution | _Pooling] = []
        self.lookahead_columns = _lookahead_columns(tower)
        last = len(tower.blocks) - 1
        for index, block in enumerate(tower.blocks):
            assert isinstance(block, Block)
            if index:
                self._layers.append(_Pooling(tower.pools[index - 1]))
            self._layers.append(_Convolution(block.conv1, block.bn1, dtype))
            last_norm = None if raw and index == last else block.bn2
            self._layers.append(_Convolution(block.conv2, last_norm, dtype))

    def push(
        self, columns: Float[Tensor, "1 channels rows columns"]
    ) -> Float[Tensor, "1 features map_rows map_columns"]:
        """The columns of the map that these columns complete."""
        x = columns.to(self._dtype, memory_format=torch.channels_last)
        for layer in self._layers:
            x = layer(x)
        return x


def _lookahead_columns(tower: Vgg) -> int:
    """Input columns that a position of the last map needs after its own first column.

    Before that column it needs `tower.stride - 1` columns fewer than after it.
    """
    lookahead, jump = 0, 1
    for index, block in enumerate(tower.blocks):
        assert isinstance(block, Block)
        if index:
            columns = tower.pools[index - 1][1]
            lookahead += (columns - 1) * jump
            jump *= columns
        for convolution in (block.conv1, block.conv2):
            lookahead += jump
            jump *= convolution.stride[0]
    return lookahead
