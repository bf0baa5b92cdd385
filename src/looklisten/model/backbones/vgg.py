"""VGG."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.model.backbones.backbone import TowerOutput


class Block(nn.Module):
    """Twice convolution 3 x 3, batch-norm, ReLU; no biases, since batch-norm removes them."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Float[Tensor, "batch in rows columns"]) -> tuple[Tensor, Tensor]:
        """(second convolution's raw output, the same after batch-norm and ReLU)."""
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        raw = self.conv2(x)
        return raw, functional.relu(self.bn2(raw))


class Vgg(nn.Module):
    """Blocks of `widths` filters with 2 x 2 max-pooling (no padding) between them and a maximum
    over all places at the end.

    `normalized_input` puts a batch-norm before them, for inputs that are far from mean 0 and
    deviation 1. The last `pools_keeping_columns` pools halve the rows alone.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int] = (64, 128, 256, 512),
        first_stride: int = 1,
        normalized_input: bool = False,
        pools_keeping_columns: int = 0,
    ) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(in_channels) if normalized_input else nn.Identity()
        inputs = (in_channels, *widths[:-1])
        strides = (first_stride, *(1 for _ in widths[1:]))
        self.blocks = nn.ModuleList(
            Block(i, w, s) for i, w, s in zip(inputs, widths, strides, strict=True)
        )
        self.features = widths[-1]
        pools = len(widths) - 1
        self.pools = ((2, 2),) * (pools - pools_keeping_columns) + ((2, 1),) * pools_keeping_columns
        """Rows and columns that each pool makes one of."""
        self.reduction = first_stride * 2 ** (pools - pools_keeping_columns)
        """Columns of the input between neighbouring places of the last map."""

    @torch.no_grad()
    def inflate(self, times: int) -> None:
        """Begin with a first convolution that treats `times` pictures side by side in the channels
        as their mean.

        So motion is learnt on top of what one picture shows ("Quo Vadis", Carreira & Zisserman
        2017, section 2.4).
        """
        if times > 1:
            block = self.blocks[0]
            assert isinstance(block, Block)
            weight = block.conv1.weight
            first, *_ = weight.chunk(times, dim=1)
            # Filters of one picture as He draws them have `times` times the variance of those drawn
            # for all.
            weight.copy_((first * times**0.5).repeat(1, times, 1, 1) / times)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> TowerOutput:
        x = self.input_norm(x)
        for index in range(len(self.blocks)):
            raw, x = self._block(index, x)
        return TowerOutput(conv4_2=raw, map=x, vector=torch.amax(x, dim=(2, 3)))

    def places(self, columns: int) -> int:
        """How many columns the last map has for an input of so many; rows too, where no pool keeps
        the columns.
        """
        for index, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            if index:
                columns = columns // self.pools[index - 1][1]
            columns = (columns - 1) // block.conv1.stride[0] + 1
        return columns

    def raw_maps(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Iterator[Float[Tensor, "batch features rows columns"]]:
        """What the second convolution of each block gives, before batch-norm and ReLU, one after
        the other: all are large.
        """
        x = self.input_norm(x)
        for index in range(len(self.blocks)):
            raw, x = self._block(index, x)
            yield raw

    def _block(self, index: int, x: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.blocks[index](
            functional.max_pool2d(x, self.pools[index - 1]) if index else x
        )
        return found
