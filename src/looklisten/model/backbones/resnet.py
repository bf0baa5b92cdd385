"""A small residual tower for both sides, from scratch, with the blocks of `model.widths`.

He et al., "Deep Residual Learning", 2016, with the stem in its first block. Knows tensors only.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import ModelConfig, Side
from looklisten.errors import ConfigError
from looklisten.model.backbones.backbone import Backbone, Layer, TowerOutput, pool


class ResidualBlock(nn.Module):
    """Twice convolution 3 x 3 and batch-norm; the input is added before the last ReLU.

    With a stride the input comes through a mean over the stride and a 1 x 1 convolution.
    """

    def __init__(self, in_channels: int, width: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if in_channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width)
            )

    def forward(
        self, x: Float[Tensor, "batch in rows columns"]
    ) -> Float[Tensor, "batch width map_rows map_columns"]:
        residual = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        residual = self.bn2(self.conv2(residual))
        if self.stride != (1, 1):
            # Rounded up, as the convolution with padding 1 does.
            x = functional.avg_pool2d(x, self.stride, ceil_mode=True)
        return functional.relu(residual + self.shortcut(x))


class ResNet(Backbone):
    """A residual block of each width; each but the first halves rows and columns.

    The last `pools_keeping_columns` blocks halve the rows alone. `normalized_input` puts a
    batch-norm before the first block.
    """

    weight_settings = ("widths", "first_stride")

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int] = (64, 128, 256, 512),
        first_stride: int = 1,
        normalized_input: bool = False,
        pools_keeping_columns: int = 0,
    ) -> None:
        super().__init__()
        self._settings = {
            "in_channels": in_channels,
            "widths": list(widths),
            "first_stride": first_stride,
            "normalized_input": normalized_input,
            "pools_keeping_columns": pools_keeping_columns,
        }
        self.input_norm = nn.BatchNorm2d(in_channels) if normalized_input else nn.Identity()
        square_blocks = len(widths) - 1 - pools_keeping_columns
        self.strides = (first_stride, *(2,) * square_blocks, *(1,) * pools_keeping_columns)
        """How many columns each block makes one."""
        self.blocks = nn.ModuleList()
        for number, (width, columns) in enumerate(zip(widths, self.strides, strict=True)):
            stride = (2, columns) if number else (first_stride, first_stride)
            self.blocks.append(ResidualBlock(in_channels, width, stride))
            in_channels = width

        self.features = widths[-1]
        self.stride = first_stride * 2**square_blocks
        self.peak_values_per_pixel = widths[0] / first_stride**2
        self.layers = {"pool4": Layer(self.features), "grid": Layer(self.features, (4, 3))}

    @staticmethod
    def check(config: ModelConfig) -> None:
        blocks = len(config.widths)
        if config.pools_keeping_time >= blocks:
            raise ConfigError(
                f"model.pools_keeping_time {config.pools_keeping_time}: "
                f"{blocks} blocks have {blocks - 1} strides"
            )

    @classmethod
    def from_config(
        cls, config: ModelConfig, side: Side, in_channels: int, normalized_input: bool
    ) -> "ResNet":
        keeping_columns = config.pools_keeping_time if side == "audio" else 0
        return cls(
            in_channels, config.widths, config.first_stride, normalized_input, keeping_columns
        )

    def settings(self) -> dict[str, Any]:
        return dict(self._settings)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> TowerOutput:
        x = self.input_norm(x)
        for block in self.blocks:
            x = block(x)
        return TowerOutput(map=x, vector=pool(x))

    def map_columns(self, columns: int) -> int:
        for stride in self.strides:
            columns = -(-columns // stride)
        return columns
