"""YAMNet, an audio backbone with weights that were trained on AudioSet's labels.

Plakal and Ellis, 2019: MobileNet v1 (Howard et al. 2017) over log-mel spectrograms of 0.96 s. Knows
tensors and its published file.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.model.backbones.backbone import FixedBackbone, Layer, TowerOutput, pool
from looklisten.model.backbones.same_padding import FusedSameConvolution, SamePaddingConv2d
from looklisten.model.backbones.tflite import (
    CONVOLUTION,
    DEPTHWISE_CONVOLUTION,
    FULLY_CONNECTED,
    TfliteLayer,
    read_tflite,
)
from looklisten.model.published_weights import (
    WEIGHTS_MIRROR_VARIABLE,
    PublishedClasses,
    PublishedWeights,
)
from looklisten.system.published_files import PublishedFile

YAMNET_NAME = "yamnet"
AUDIOSET_CLASSES = 521
STEM_WIDTH = 32
BLOCKS = (
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (2, 1024),
    (1, 1024),
)
"""Stride and channels of each block."""
YAMNET_STRIDE = 32
FINE_BLOCK = 11
"""The last block before the last stride: its map has twice the rows and columns of the last one."""
BLOCK11 = f"block{FINE_BLOCK}"


class SeparableBlock(nn.Module):
    """One filter for each channel and ReLU, then a 1 x 1 convolution and ReLU.

    It has no batch-norm: the weights and biases of the published file have it multiplied in.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.filter = SamePaddingConv2d(
            in_channels, in_channels, 3, stride, groups=in_channels, bias=True
        )
        self.mix = SamePaddingConv2d(in_channels, width, 1, bias=True)

    def forward(
        self, x: Float[Tensor, "batch in rows columns"]
    ) -> Float[Tensor, "batch width map_rows map_columns"]:
        filtered = functional.relu(self.filter(x), inplace=True)
        return functional.relu(self.mix(filtered), inplace=True)


class Yamnet(FixedBackbone):
    """Log-mel spectrograms to 1,024 features; the vector is their mean over all positions.

    The named map `block11` has 512 channels and twice the rows and columns of the last map.
    """

    sides = ("audio",)
    front_end = "yamnet"
    pooling = "mean"

    class_weight: Float[Tensor, "classes features"]
    class_bias: Float[Tensor, " classes"]

    def __init__(self) -> None:
        super().__init__()
        self.stem = SamePaddingConv2d(1, STEM_WIDTH, 3, 2, bias=True)
        self.blocks = nn.ModuleList()
        width = STEM_WIDTH
        for stride, block_width in BLOCKS:
            self.blocks.append(SeparableBlock(width, block_width, stride))
            width = block_width
        # Buffers, because no objective trains the classes of AudioSet.
        self.register_buffer("class_weight", torch.zeros(AUDIOSET_CLASSES, width))
        self.register_buffer("class_bias", torch.zeros(AUDIOSET_CLASSES))

        self.features = width
        self.classes = AUDIOSET_CLASSES
        self.stride = YAMNET_STRIDE
        # The largest map: that of the first block, on half the rows and columns of the input.
        self.peak_values_per_pixel = BLOCKS[0][1] / 4
        self.layers = {
            "mean": Layer(width, pooling="mean"),
            "maximum": Layer(width),
            # Of a second its map has 4 x 6 positions, so each cell of the grid has 2 x 2.
            BLOCK11: Layer(BLOCKS[FINE_BLOCK - 1][1], (2, 3), BLOCK11, "mean"),
        }

    def forward(self, x: Float[Tensor, "batch 1 bands columns"]) -> TowerOutput:
        x = functional.relu(self.stem(x), inplace=True)
        named_maps = {}
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if number == FINE_BLOCK:
                named_maps[BLOCK11] = x
        return TowerOutput(x, pool(x, self.pooling), named_maps, self.pooling)

    def class_scores(
        self, vectors: Float[Tensor, "*batch features"]
    ) -> Float[Tensor, "*batch classes"]:
        """The score from 0 to 1 of each of AudioSet's 521 classes, of `TowerOutput.vector`."""
        return functional.linear(vectors, self.class_weight, self.class_bias).sigmoid()

    def map_columns(self, columns: int) -> int:
        # Each of the five strides rounds up.
        return -(-columns // YAMNET_STRIDE)

    def fused(self, dtype: torch.dtype) -> "FusedYamnet":
        return FusedYamnet(self, dtype)


class FusedYamnet:
    """A copy of `tower` for inference in `dtype`: ReLU inside the convolutions."""

    def __init__(self, tower: Yamnet, dtype: torch.dtype) -> None:
        self._stem = FusedSameConvolution(tower.stem, None, dtype, "relu")
        self._blocks = []
        for block in tower.blocks:
            assert isinstance(block, SeparableBlock)
            convolutions = (block.filter, block.mix)
            self._blocks.append(
                [FusedSameConvolution(c, None, dtype, "relu") for c in convolutions]
            )

    def __call__(self, x: Float[Tensor, "batch 1 bands columns"]) -> TowerOutput:
        x = self._stem(x)
        named_maps = {}
        for number, (filter_, mix) in enumerate(self._blocks, 1):
            x = mix(filter_(x))
            if number == FINE_BLOCK:
                named_maps[BLOCK11] = x
        return TowerOutput(x, pool(x, Yamnet.pooling), named_maps, Yamnet.pooling)


def read_yamnet(path: Path) -> dict[str, Tensor]:
    """The state of a `Yamnet` from a TFLite file. Weights in 8 bits become floats.

    Raises an error of any kind for a file that is damaged or of another network.
    """
    layers = read_tflite(path)
    with torch.device("meta"):
        state = Yamnet().state_dict()
    names = ["stem"]
    for number in range(len(BLOCKS)):
        names += [f"blocks.{number}.filter", f"blocks.{number}.mix"]
    convolutions = [layer for layer in layers if layer.operator != FULLY_CONNECTED]
    # The mel bands may be a fully-connected layer as well; the classes are the last one.
    classes = [layer for layer in layers if layer.operator == FULLY_CONNECTED][-1:]
    tensors: dict[str, Tensor] = {}
    # Their number is checked below, with the shapes.
    for name, layer in zip(names, convolutions, strict=False):
        tensors |= {f"{name}.weight": _weight(layer), f"{name}.bias": _bias(layer)}
    for layer in classes:
        tensors |= {"class_weight": _weight(layer), "class_bias": _bias(layer)}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if len(convolutions) != len(names) or shapes != {k: v.shape for k, v in state.items()}:
        raise ValueError("its layers are not those of YAMNet")
    return tensors


def read_audioset_classes(path: Path) -> tuple[Tensor, Tensor]:
    """Weight and bias of the layer of AudioSet's classes. Raises as `read_yamnet` does."""
    state = read_yamnet(path)
    return state["class_weight"], state["class_bias"]


def _weight(layer: TfliteLayer) -> Tensor:
    """The weight as PyTorch orders it, with frequency before time."""
    weight = torch.from_numpy(layer.weight)
    if layer.operator == CONVOLUTION:  # out, time, frequency, in
        weight = weight.permute(0, 3, 2, 1)
    if layer.operator == DEPTHWISE_CONVOLUTION:  # 1, time, frequency, out
        weight = weight.permute(3, 0, 2, 1)
    return weight.contiguous()


def _bias(layer: TfliteLayer) -> Tensor:
    # A missing bias is empty, so the check of the shapes refuses it.
    return torch.empty(0) if layer.bias is None else torch.from_numpy(layer.bias)


Yamnet.published = PublishedWeights(
    file=PublishedFile(
        name="lite-model_yamnet_classification_tflite_1.tflite",
        title=YAMNET_NAME,
        address="https://storage.googleapis.com/download.tensorflow.org/models/tflite/"
        "task_library/audio_classification/android/",
        digest="sha256:10c95ea3eb9a7bb4cb8bddf6feb023250381008177ac162ce169694d05c317de",
        size_mb=4.1,
        license="Apache-2.0",
        cache_name="backbones",
        mirror_variable=WEIGHTS_MIRROR_VARIABLE,
        local_names=("yamnet.tflite",),
    ),
    read=read_yamnet,
    sha256="957ffe81dae499e4b9a3090147b90b1d291a7b54037c6fd58e7393236b1d6ebc",
    trained_by="Google",
    trained_on="AudioSet (5,800 hours of YouTube videos), with labels of its 521 classes",
    # A second of sound may have several classes.
    classes=PublishedClasses(
        names_file="audioset.txt",
        read=read_audioset_classes,
        sha256="bd4992e2fd56754a7bfb60070e8b8af184385f7fd86b5d9f0d0133b8b7e315ac",
        as_scores=torch.sigmoid,
    ),
)
