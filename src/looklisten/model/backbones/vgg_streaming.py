"""A tower over a picture that goes on to the right without end: the very map of the whole picture,
a strip at a time.

Every convolution keeps the last columns it saw, so nothing is computed twice and nothing but those
columns is held. Knows a tower, no sound.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.model.backbones.vgg import Block, Vgg


class _Convolution:
    """A convolution with batch-norm inside its weights, ReLU behind it; without both when `raw`."""

    def __init__(
        self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype, raw: bool
    ) -> None:
        weight, bias = (
            convolution.weight,
            torch.zeros(len(convolution.weight), device=convolution.weight.device),
        )
        if not raw:
            assert norm.running_var is not None and norm.running_mean is not None
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight, bias = (
                weight * scale[:, None, None, None],
                norm.bias - norm.running_mean * scale,
            )
        self._weight = weight.to(dtype, memory_format=torch.channels_last)
        self._bias, self._raw, self._stride = bias.to(dtype), raw, convolution.stride
        self._held: Tensor | None = None

    def __call__(
        self, x: Float[Tensor, "1 in rows columns"]
    ) -> Float[Tensor, "1 out new_rows new_columns"]:
        if self._held is None:  # the zeros left of the picture
            self._held = x.new_zeros(*x.shape[:3], 1)
        x = torch.cat([self._held, x], 3)
        y = functional.conv2d(x, self._weight, self._bias, self._stride, (1, 0))
        self._held = x[..., self._stride[1] * y.shape[3] :].contiguous(
            memory_format=torch.channels_last
        )
        return y if self._raw else functional.relu(y, inplace=True)


class _Pooling:
    """Max-pooling of `shape`, 2 x 2 or 2 x 1; a column that lacks its neighbour waits for it."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        self._held: Tensor | None = None

    def __call__(
        self, x: Float[Tensor, "1 features rows columns"]
    ) -> Float[Tensor, "1 features new_rows new_columns"]:
        x = x if self._held is None else torch.cat([self._held, x], 3)
        odd = x.shape[3] % self._shape[1]
        self._held = x[..., -1:].contiguous(memory_format=torch.channels_last) if odd else None
        return functional.max_pool2d(x, self._shape)


class StreamingVgg:
    """The last map of `tower` (`raw`: before batch-norm and ReLU), column after column; left of the
    picture are zeros.

    What `push` gives depends on where strips begin only by rounding. A strip must be wide enough
    that every layer gets a column.
    """

    def __init__(self, tower: Vgg, dtype: torch.dtype, raw: bool) -> None:
        self._dtype = dtype
        self._layers: list[_Convolution | _Pooling] = []
        last = len(tower.blocks) - 1
        for index, block in enumerate(tower.blocks):
            assert isinstance(block, Block)
            self._layers += [_Pooling(tower.pools[index - 1])] if index else []
            self._layers.append(_Convolution(block.conv1, block.bn1, dtype, raw=False))
            self._layers.append(
                _Convolution(block.conv2, block.bn2, dtype, raw=raw and index == last)
            )

    def push(
        self, columns: Float[Tensor, "1 channels rows columns"]
    ) -> Float[Tensor, "1 features map_rows map_columns"]:
        """The columns of the map that these complete."""
        x = columns.to(self._dtype, memory_format=torch.channels_last)
        for layer in self._layers:
            x = layer(x)
        return x


def reach(tower: Vgg) -> int:
    """How many columns behind its first own one a place of the last map sees; it sees one less than
    `reduction` fewer before it.
    """
    after, jump = 0, 1
    for index, block in enumerate(tower.blocks):
        assert isinstance(block, Block)
        if index:
            columns = tower.pools[index - 1][1]
            after, jump = after + (columns - 1) * jump, columns * jump
        for convolution in (block.conv1, block.conv2):
            after, jump = after + jump, jump * convolution.stride[0]
    return after
