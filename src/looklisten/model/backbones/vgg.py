"""The backbone of the paper: a VGG-like convolutional network (figure 2). Knows tensors only."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import ModelConfig, Side
from looklisten.errors import ConfigError
from looklisten.model.backbones.backbone import (
    LAST_MAP,
    Backbone,
    FusedTower,
    Layer,
    StreamingTower,
    TowerOutput,
)

CONV4_2_GRID: dict[Side, tuple[int, int]] = {"audio": (4, 3), "vision": (4, 4)}
"""What conv4_2 is max-pooled to: 4 x 3 cells of a spectrogram (bands, time), 4 x 4 of a frame.

At the paper's sizes these are pools of 8 x 8 (32 x 24 x 512 to 6144 values) and of 7 x 7
(28 x 28 x 512 to 8192 values; paper, sections 4.1 and 4.2).
"""


class Block(nn.Module):
    """Twice convolution 3 x 3, batch-norm, ReLU; no biases, since batch-norm removes them."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Float[Tensor, "batch in rows columns"]) -> tuple[Tensor, Tensor]:
        """The second convolution before and after batch-norm; its ReLU is left to the caller."""
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        raw = self.conv2(x)
        return raw, self.bn2(raw)


class Vgg(Backbone):
    """Blocks of `widths` filters, 2 x 2 max-pooling between them, and a maximum over all positions.

    Pooling has no padding. `normalized_input` puts a batch-norm before the first block. The last
    `pools_keeping_columns` pools halve the rows alone. `side` decides what conv4_2 is.
    """

    weight_settings = ("widths", "first_stride")

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int] = (64, 128, 256, 512),
        first_stride: int = 1,
        normalized_input: bool = False,
        pools_keeping_columns: int = 0,
        side: Side = "vision",
    ) -> None:
        super().__init__()
        self._settings = {
            "in_channels": in_channels,
            "widths": list(widths),
            "first_stride": first_stride,
            "normalized_input": normalized_input,
            "pools_keeping_columns": pools_keeping_columns,
            "side": side,
        }
        self.input_norm = nn.BatchNorm2d(in_channels) if normalized_input else nn.Identity()
        self.blocks = nn.ModuleList()
        for index, width in enumerate(widths):
            stride = 1 if index else first_stride
            self.blocks.append(Block(in_channels, width, stride))
            in_channels = width
        square_pools = len(widths) - 1 - pools_keeping_columns
        self.pools = ((2, 2),) * square_pools + ((2, 1),) * pools_keeping_columns
        """Rows and columns that each pool reduces to one."""

        self.features = widths[-1]
        # Only the first convolution and the square pools make a map narrower.
        self.stride = first_stride * 2**square_pools
        self.block_widths = tuple(widths)
        self.peak_values_per_pixel = widths[0] / first_stride**2
        # The paper pools conv4_2 of sound before batch-norm and ReLU, and of frames after them.
        conv4_2_map = "conv4_2" if side == "audio" else LAST_MAP
        self.layers = {
            "pool4": Layer(self.features),
            "conv4_2": Layer(self.features, CONV4_2_GRID[side], conv4_2_map),
        }

    @staticmethod
    def check(config: ModelConfig) -> None:
        blocks = len(config.widths)
        if config.crop_pixels < config.first_stride * 2 ** (blocks - 1):
            raise ConfigError(
                f"model.crop_pixels {config.crop_pixels} leaves nothing after {blocks} blocks"
            )
        if config.pools_keeping_time >= blocks:
            raise ConfigError(
                f"model.pools_keeping_time {config.pools_keeping_time}: "
                f"{blocks} blocks have {blocks - 1} pools"
            )

    @classmethod
    def from_config(
        cls, config: ModelConfig, side: Side, in_channels: int, normalized_input: bool
    ) -> "Vgg":
        pools_keeping_columns = config.pools_keeping_time if side == "audio" else 0
        return cls(
            in_channels,
            config.widths,
            config.first_stride,
            normalized_input,
            pools_keeping_columns,
            side,
        )

    def settings(self) -> dict[str, Any]:
        return dict(self._settings)

    @torch.no_grad()
    def inflate_input(self, frames: int) -> None:
        """Begin with a first convolution that treats the frames in the channels as their mean.

        So the network learns motion on top of what one frame shows ("Quo Vadis", Carreira and
        Zisserman 2017, section 2.4).
        """
        if frames == 1:
            return
        weight = self._block(0).conv1.weight
        of_one_frame, *_ = weight.chunk(frames, dim=1)
        # He's variance depends on the number of input channels. Filters of one frame alone would
        # have `frames` times the variance of those that were drawn for all frames.
        of_one_frame = of_one_frame * frames**0.5
        weight.copy_(of_one_frame.repeat(1, frames, 1, 1) / frames)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> TowerOutput:
        x = self.input_norm(x)
        for index in range(len(self.blocks)):
            raw, x = self._run_block(index, x)
        last_map = functional.relu(x, inplace=True)
        vector = torch.amax(last_map, dim=(2, 3))
        return TowerOutput(last_map, vector, named_maps={"conv4_2": raw})

    def map_columns(self, columns: int) -> int:
        """How many columns the last map has; rows too, where no pool keeps the columns."""
        for index in range(len(self.blocks)):
            if index:
                columns = columns // self.pools[index - 1][1]
            columns = (columns - 1) // self._block(index).conv1.stride[0] + 1
        return columns

    def block_maps(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Iterator[Float[Tensor, "batch features rows columns"]]:
        """The second convolution of each block, before batch-norm and ReLU.

        It gives one map at a time, because all of them are large.
        """
        x = self.input_norm(x)
        for index in range(len(self.blocks)):
            raw, x = self._run_block(index, x)
            yield raw

    def streaming(self, layer: Layer, dtype: torch.dtype) -> StreamingTower:
        # Imported here, because `vgg_streaming` imports the blocks of this file.
        from looklisten.model.backbones.vgg_streaming import StreamingVgg

        return StreamingVgg(self, dtype, raw=layer.map_name != LAST_MAP)

    def fused(self, dtype: torch.dtype) -> FusedTower:
        # Imported here, because `vgg_fused` imports the blocks of this file.
        from looklisten.model.backbones.vgg_fused import FusedVgg

        return FusedVgg(self, dtype)

    def _block(self, index: int) -> Block:
        block = self.blocks[index]
        assert isinstance(block, Block)
        return block

    def _run_block(self, index: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pool, if it is not the first block, and convolve twice.

        The result is the second convolution before and after batch-norm, without its ReLU.
        """
        if index:
            x = functional.max_pool2d(x, self.pools[index - 1])
            # ReLU and maximum commute, and after the pool there are fewer values.
            x = functional.relu(x, inplace=True)
        raw_and_map: tuple[Tensor, Tensor] = self.blocks[index](x)
        return raw_and_map
