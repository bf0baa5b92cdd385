"""Which of a network's layers is the vector of a frame or of a second of sound. Knows tensors only."""

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn import functional

from looklisten.config import Side
from looklisten.errors import ConfigError
from looklisten.model.backbones.backbone import TowerOutput
from looklisten.model.fusions import MIN_NORM, AlignedFusion, DistanceFusion
from looklisten.model.l3net import L3Net

GRID: dict[Side, tuple[int, int]] = {"audio": (4, 3), "vision": (4, 4)}
"""What conv4_2 is max-pooled to: 4 bands x 3 moments of sound, 4 x 4 of a frame. At the paper's
sizes these are pools of 8 x 8 (32 x 24 x 512 -> 6144) and of 7 x 7 (28 x 28 x 512 -> 8192; paper,
sections 4.1 and 4.2).
"""

TEXTURE = "texture"
"""The layer of sound that is made of all blocks."""
TEXTURE_BANDS = 4
"""Parts of the frequency axis that a texture tells apart."""


def texture(
    model: L3Net, waveforms: Num[Tensor, "batch samples"]
) -> Float[Tensor, "batch features"]:
    """How every unit of every block behaves over time: its mean and deviation in each of `TEXTURE_BANDS`
    parts of the frequency axis.

    Of the second convolutions, before batch-norm and ReLU; float32; block by block, means before
    deviations, unit by unit. Sounds such as rain or applause are recognized by such statistics of
    simple filters (McDermott and Simoncelli, "Sound texture perception via statistics of the
    auditory periphery", 2011), which a maximum over time loses.
    """
    statistics = []
    for raw in model.audio.raw_maps(model.spectrogram(waveforms)):
        bands = functional.adaptive_avg_pool2d(raw, (TEXTURE_BANDS, raw.shape[3])).float()
        deviation, mean = torch.std_mean(bands, dim=3, correction=0)
        statistics += [mean.flatten(1), deviation.flatten(1)]
    return torch.cat(statistics, 1)


def side_vectors(
    model: L3Net, tower: TowerOutput, side: Side, layer: str
) -> Float[Tensor, "batch features"]:
    """One vector a row, float32, from what the tower of `side` said.

    `pool4`: each unit's maximum over all places. `conv4_2`: the last convolution max-pooled to
        `GRID`; of sound before batch-norm and ReLU, of frames after (paper, sections 4.1 and 4.2).
        `aligned`: the unit vector in the space that both sides share. Raises ConfigError when the
        network has no such layer.
    """
    check_layer(model, layer)
    if layer == "conv4_2":
        return functional.adaptive_max_pool2d(
            image_of(tower, side, layer).float(), GRID[side]
        ).flatten(1)
    return vectors_from_pooled(model, tower.vector.float(), side, layer)


def check_layer(model: L3Net, layer: str) -> None:
    """Raises ConfigError, one sentence, when the network has no such layer."""
    if layer == TEXTURE:
        raise ConfigError(
            "texture is a layer of windows of sound, embedded one by one: not of frames, not dense, not of an ONNX file"
        )
    if layer not in ("pool4", "conv4_2", "aligned"):
        raise ConfigError(
            f"there is no layer {layer!r}; the layers are pool4, conv4_2, aligned and, of sound, texture"
        )
    if layer == "aligned" and not isinstance(model.fusion, DistanceFusion):
        lacking = (
            "which has no one vector of a frame"
            if isinstance(model.fusion, AlignedFusion)
            else "whose two sides share no space"
        )
        raise ConfigError(
            f'this network was trained with fusion "{model.config.fusion}", {lacking}; '
            f'train one with model.fusion = "distance" (recipe tiny, contrastive or ave) for aligned vectors'
        )


def image_of(
    tower: TowerOutput, side: Side, layer: str
) -> Float[Tensor, "batch features rows columns"]:
    """The map that a layer is pooled from."""
    return tower.conv4_2 if layer == "conv4_2" and side == "audio" else tower.map


def grid_of(side: Side, layer: str) -> tuple[int, int]:
    """What the map is pooled to, rows and columns."""
    return GRID[side] if layer == "conv4_2" else (1, 1)


def vectors_from_pooled(
    model: L3Net, pooled: Float[Tensor, "batch pooled"], side: Side, layer: str
) -> Float[Tensor, "batch features"]:
    """A layer's vectors from its map, pooled: the same, but for `aligned`."""
    if layer != "aligned":
        return pooled
    assert isinstance(model.fusion, DistanceFusion)
    head = model.fusion.vision if side == "vision" else model.fusion.audio
    return functional.normalize(head(pooled).float(), dim=-1, eps=MIN_NORM)


def layer_width(model: L3Net, side: Side, layer: str) -> int:
    """The length of the vectors of `side_vectors`, or of `texture`."""
    if layer == TEXTURE:
        return 2 * TEXTURE_BANDS * sum(model.config.widths)
    rows, columns = GRID[side]
    features = model.config.widths[-1]
    return {
        "pool4": features,
        "conv4_2": features * rows * columns,
        "aligned": model.config.fusion_width,
    }[layer]
