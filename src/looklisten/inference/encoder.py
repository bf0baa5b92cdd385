"""The one door through which vectors come out of a network: ours, or one of another house (`interop`). Knows tensors only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Num
from torch import Tensor

from looklisten.inference.layers import Side, side_vectors
from looklisten.model.l3net import DistanceFusion, L3Net


@runtime_checkable
class Encoder(Protocol):
    """What embedding needs to know of a network. Sound comes as windows of a second at 48 kHz, frames as squares."""

    @property
    def layers(self) -> Mapping[Side, tuple[str, ...]]:
        """For each side that it encodes, the layers to choose from, the usual one first."""

    @property
    def resize_pixels(self) -> int:
        """The shorter side that a frame is resized to ..."""

    @property
    def crop_pixels(self) -> int:
        """... before the square of so many pixels is cut out of its middle."""

    @property
    def device(self) -> torch.device:
        """Where batches are wanted."""

    def encode(self, side: Side, batch: Num[Tensor, "batch ..."], layer: str) -> Float[Tensor, "batch features"]:
        """Vectors in float32: of waveforms `[batch, samples]`, int16 or floats in -1..1, or of frames `[batch, 3, side, side]`, uint8."""


@dataclass(frozen=True, eq=False)
class NetworkEncoder:
    """An `L3Net` as an `Encoder`; it must be in evaluation mode."""

    model: L3Net

    @property
    def layers(self) -> Mapping[Side, tuple[str, ...]]:
        own = ("pool4", "conv4_2", "aligned") if isinstance(self.model.fusion, DistanceFusion) else ("pool4", "conv4_2")
        return {"audio": own, "vision": own}

    @property
    def resize_pixels(self) -> int:
        return self.model.config.resize_pixels

    @property
    def crop_pixels(self) -> int:
        return self.model.config.crop_pixels

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def encode(self, side: Side, batch: Num[Tensor, "batch ..."], layer: str) -> Float[Tensor, "batch features"]:
        tower = self.model.listen(batch) if side == "audio" else self.model.look(batch)
        return side_vectors(self.model, tower, side, layer)


def encoder_of(model: L3Net | Encoder) -> Encoder:
    """`model` as an `Encoder`."""
    return NetworkEncoder(model.eval()) if isinstance(model, L3Net) else model
