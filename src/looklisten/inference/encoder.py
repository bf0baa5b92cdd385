"""The one door through which vectors come out of a network: ours, or one of another house
(`interop`). Knows tensors only.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Num
from torch import Tensor

from looklisten.config import Side
from looklisten.errors import ConfigError
from looklisten.inference.embedding.options import Precision
from looklisten.inference.layers import TEXTURE, check_layer, layer_width, side_vectors, texture
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.model.fusions import DistanceFusion
from looklisten.model.l3net import L3Net
from looklisten.system.devices import to_device
from looklisten.system.processes import single_thread_after_fork


@runtime_checkable
class Encoder(Protocol):
    """What embedding needs to know of a network. Sound comes as windows of a second at 48 kHz,
    frames as squares.
    """

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

    def encode(
        self, side: Side, batch: Num[Tensor, "batch ..."], layer: str
    ) -> Float[Tensor, "batch features"]:
        """Vectors in float32: of waveforms `[batch, samples]`, int16 or floats in -1..1, or of
        frames `[batch, 3, side, side]`, uint8.
        """


@dataclass(frozen=True, eq=False)
class NetworkEncoder:
    """An `L3Net` as an `Encoder`; it must be in evaluation mode. A network that sees several frames
    at once sees one standing still.
    """

    model: L3Net
    precision: Precision = "float32"

    @property
    def layers(self) -> Mapping[Side, tuple[str, ...]]:
        own = (
            ("pool4", "conv4_2", "aligned")
            if isinstance(self.model.fusion, DistanceFusion)
            else ("pool4", "conv4_2")
        )
        return {"audio": (*own, TEXTURE), "vision": own}

    @property
    def resize_pixels(self) -> int:
        return self.model.config.resize_pixels

    @property
    def crop_pixels(self) -> int:
        return self.model.config.crop_pixels

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def arithmetic(self) -> torch.autocast:
        """The context that the towers compute in."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )

    def encode(
        self, side: Side, batch: Num[Tensor, "batch ..."], layer: str
    ) -> Float[Tensor, "batch features"]:
        with self.arithmetic:
            if side == "audio":
                if layer == TEXTURE:
                    return texture(self.model, batch)
                return side_vectors(self.model, self.model.listen(batch), side, layer)
            # A single picture stands for neighbouring frames in which nothing moves.
            times = self.model.config.frames_per_pair if batch.shape[1] == 3 else 1
            return side_vectors(
                self.model, self.model.look(batch.repeat(1, times, 1, 1)), side, layer
            )


def encoder_of(model: L3Net | Encoder, precision: Precision = "float32") -> Encoder:
    """`model` as an `Encoder`. An `L3Net` is put into evaluation mode and channels-last; another
    `Encoder` has a precision of its own.
    """
    single_thread_after_fork()
    if isinstance(model, L3Net):
        return NetworkEncoder(
            to_device(model.eval(), str(next(model.parameters()).device)), precision
        )
    if not isinstance(model, Encoder):
        raise ConfigError(
            f"a network is needed to embed with, such as ll.load gives, and this is {type(model).__name__}"
        )
    if precision != "float32":
        raise ConfigError(
            f"{type(model).__name__} has a precision of its own; leave `precision` away"
        )
    return model


def choose_layer(encoder: Encoder, side: Side, layer: str | None) -> str:
    """`layer`, or the usual one of that side. Raises ConfigError, one sentence, when the network
    has no such side or layer.
    """
    if side not in encoder.layers:
        raise ConfigError(
            f"this network has no {side} side; it encodes {' and '.join(encoder.layers)}"
        )
    known = encoder.layers[side]
    if layer is not None and layer not in known:
        if isinstance(encoder, NetworkEncoder):
            check_layer(encoder.model, layer)
        raise ConfigError(
            f"this network has no layer {layer!r} of {side}; it has {', '.join(known)}"
        )
    return layer or known[0]


def vector_length(encoder: Encoder, side: Side, layer: str) -> int:
    """The length of a layer's vectors; of an encoder of another house it is found by encoding
    nothing once.
    """
    if isinstance(encoder, NetworkEncoder):
        return layer_width(encoder.model, side, layer)
    pixels = encoder.crop_pixels
    nothing = (
        torch.zeros(1, WINDOW_SAMPLES)
        if side == "audio"
        else torch.zeros(1, 3, pixels, pixels, dtype=torch.uint8)
    )
    return encode_rows(encoder, side, layer, nothing, 1).shape[1]


@torch.inference_mode()
def encode_rows(
    encoder: Encoder, side: Side, layer: str, rows: Num[Tensor, "rows ..."], batch_size: int
) -> Float[Tensor, "rows features"]:
    """Vectors of any number of rows, on the CPU; a row's vector does not depend on the rows beside
    it.

    Libraries choose other kernels for other batch sizes. So a batch on a CPU is one row, which
    fills the cores; elsewhere batches are filled up to a power of two with empty rows, and what is
    left of the difference is rounding.
    """
    return torch.cat(
        [vectors.float().cpu() for vectors in _batches(encoder, side, layer, rows, batch_size)]
    )


def _batches(
    encoder: Encoder, side: Side, layer: str, rows: Num[Tensor, "rows ..."], batch_size: int
) -> Iterator[Float[Tensor, "some features"]]:
    step = 1 if encoder.device.type == "cpu" else batch_size
    for start in range(0, len(rows), step):
        batch = rows[start : start + step]
        empty = batch.new_zeros((1 << (len(batch) - 1).bit_length()) - len(batch), *batch.shape[1:])
        full = torch.cat([batch, empty]) if len(empty) else batch
        yield encoder.encode(side, full.to(encoder.device), layer)[: len(batch)]
