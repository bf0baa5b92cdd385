"""The layers of OpenL3's networks as OpenL3 builds them in Keras (openl3/models.py, 0.4.2).

Knows tensors only.
"""

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from looklisten.config import Side
from looklisten.model.fused_convolution import FusedConvolution
from looklisten.model.pooling import max_pooled

CHANNELS = (64, 64, 128, 128, 256, 256, 512, 512)
"""Filters of each convolution; max-pooling follows every second one but the last."""
POOL = (2, 2)
EPSILON, MOMENTUM = 1e-3, 0.01
"""Of every batch-norm: the defaults of Keras, whose momentum 0.99 is 0.01 in PyTorch's words."""
# After all other convolutions batch-norm comes before ReLU. The weights were trained so.
LATE_NORM = 1
"""In the vision tower, batch-norm comes after ReLU behind this convolution."""


class OpenL3Layers(nn.Module):
    """The layers of one tower of OpenL3, under the names that its weights have here."""

    def __init__(self, side: Side) -> None:
        super().__init__()
        channels = (1 if side == "audio" else 3, *CHANNELS)
        self.input_norm = nn.BatchNorm2d(channels[0], EPSILON, MOMENTUM)
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, padding=1)
            for inputs, outputs in zip(channels, CHANNELS, strict=False)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(width, EPSILON, MOMENTUM) for width in CHANNELS[:-1]
        )
        self.late_norm = LATE_NORM if side == "vision" else -1


class FusedOpenL3:
    """The network of `net` with its present weights, for inference in `dtype`."""

    def __init__(self, net: OpenL3Layers, dtype: torch.dtype) -> None:
        # Copies, because the modules of the network may change later.
        self._input_norm = deepcopy(net.input_norm).eval()
        self._late_norm: nn.Module = nn.Identity()
        self._late_index = net.late_norm
        self._convolutions = []
        for index, convolution in enumerate(net.convs):
            assert isinstance(convolution, nn.Conv2d)
            is_last = index == len(net.convs) - 1
            norm: nn.Module | None = None
            if index == net.late_norm:
                self._late_norm = deepcopy(net.norms[index]).eval()
            elif not is_last:
                norm = net.norms[index]
            assert norm is None or isinstance(norm, nn.BatchNorm2d)
            fused = FusedConvolution(
                convolution, norm, dtype, activation="none" if is_last else "relu"
            )
            self._convolutions.append(fused)

    def __call__(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch 512 rows columns"]:
        x: Tensor = self._input_norm(image)
        last = len(self._convolutions) - 1
        for index, convolution in enumerate(self._convolutions):
            x = convolution(x)
            if index == self._late_index:
                x = self._late_norm(x)
            if index % 2 and index < last:
                x = max_pooled(x, POOL)
        return x
