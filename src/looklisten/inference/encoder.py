"""Encoders: the one interface through which all embedding code gets vectors from a network.

`NetworkEncoder` wraps an L3Net; `interop` has encoders for networks of other projects. Knows
tensors only.
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
from looklisten.inference.layers import (
    TEXTURE,
    check_layer,
    layer_width,
    layers_of,
    side_vectors,
    texture,
)
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.model.l3net import L3Net
from looklisten.system.devices import to_device
from looklisten.system.processes import single_thread_after_fork


@runtime_checkable
class Encoder(Protocol):
    """What embedding needs to know of a network.

    Sound comes as windows of one second at 48 kHz, frames as squares.
    """

    @property
    def layers(self) -> Mapping[Side, tuple[str, ...]]:
        """For each side that it encodes, the layers to choose from, the usual one first."""

    @property
    def resize_pixels(self) -> int:
        """The shorter side that a frame is resized to."""

    @property
    def crop_pixels(self) -> int:
        """The side of the square that is then cropped from the center of the frame."""

    @property
    def device(self) -> torch.device:
        """The device that batches must be on."""

    def encode(
        self, side: Side, batch: Num[Tensor, "batch ..."], layer: str
    ) -> Float[Tensor, "batch features"]:
        """Vectors in float32.

        `batch`: waveforms `[batch, samples]`, int16 or floats in -1..1, or frames
        `[batch, 3, side, side]`, uint8.
        """


@dataclass(frozen=True, eq=False)
class NetworkEncoder:
    """An `L3Net` as an `Encoder`; the network must be in evaluation mode."""

    model: L3Net
    precision: Precision = "float32"

    @property
    def layers(self) -> Mapping[Side, tuple[str, ...]]:
        return {"audio": layers_of(self.model, "audio"), "vision": layers_of(self.model, "vision")}

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
    def autocast(self) -> torch.autocast:
        """The context that the towers compute in."""
        is_bfloat16 = self.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=is_bfloat16)

    def encode(
        self, side: Side, batch: Num[Tensor, "batch ..."], layer: str
    ) -> Float[Tensor, "batch features"]:
        with self.autocast:
            if layer == TEXTURE and side == "audio":
                return texture(self.model, batch)
            if side == "audio":
                return side_vectors(self.model, self.model.listen(batch), side, layer)
            if batch.shape[1] == 3:
                # A network of several frames gets one frame repeated: a scene without motion.
                batch = batch.repeat(1, self.model.config.frames_per_pair, 1, 1)
            return side_vectors(self.model, self.model.look(batch), side, layer)


def encoder_of(model: L3Net | Encoder, precision: Precision = "float32") -> Encoder:
    """`model` as an `Encoder`. An `L3Net` is put into evaluation mode and channels-last.

    Raises ConfigError for another object, and for a `precision` with an encoder that has its own.
    """
    single_thread_after_fork()
    if isinstance(model, L3Net):
        device = next(model.parameters()).device
        return NetworkEncoder(to_device(model.eval(), str(device)), precision)
    if not isinstance(model, Encoder):
        raise ConfigError(
            f"embedding needs a network, such as ll.load gives, and this is {type(model).__name__}"
        )
    if precision != "float32":
        raise ConfigError(f"{type(model).__name__} has its own precision; omit `precision`")
    return model


def choose_layer(encoder: Encoder, side: Side, layer: str | None) -> str:
    """`layer`, or the usual one of that side if it is None.

    Raises ConfigError, one sentence, when the network has no such side or layer.
    """
    if side not in encoder.layers:
        raise ConfigError(
            f"this network has no {side} side; it encodes {' and '.join(encoder.layers)}"
        )
    known_layers = encoder.layers[side]
    if layer is not None and layer not in known_layers:
        if isinstance(encoder, NetworkEncoder):
            # It explains why a layer is missing, such as `aligned`.
            check_layer(encoder.model, side, layer)
        raise ConfigError(
            f"this network has no layer {layer!r} of {side}; it has {', '.join(known_layers)}"
        )
    return layer or known_layers[0]


def vector_length(encoder: Encoder, side: Side, layer: str) -> int:
    """The length of a layer's vectors."""
    if isinstance(encoder, NetworkEncoder):
        return layer_width(encoder.model, side, layer)
    # Another encoder does not say it, so it encodes a silent or black input once.
    if side == "audio":
        empty = torch.zeros(1, WINDOW_SAMPLES)
    else:
        empty = torch.zeros(1, 3, encoder.crop_pixels, encoder.crop_pixels, dtype=torch.uint8)
    return encode_rows(encoder, side, layer, empty, 1).shape[1]


@torch.inference_mode()
def encode_rows(
    encoder: Encoder, side: Side, layer: str, rows: Num[Tensor, "rows ..."], batch_size: int
) -> Float[Tensor, "rows features"]:
    """Vectors of any number of rows, on the CPU. A vector does not depend on the other rows."""
    vectors = _encoded_batches(encoder, side, layer, rows, batch_size)
    return torch.cat([batch.float().cpu() for batch in vectors])


def _encoded_batches(
    encoder: Encoder, side: Side, layer: str, rows: Num[Tensor, "rows ..."], batch_size: int
) -> Iterator[Float[Tensor, "batch features"]]:
    # Libraries choose other kernels for other batch sizes, with other rounding. On a CPU a batch is
    # therefore one row, which keeps all cores busy. Elsewhere batches are filled up to a power of
    # two with empty rows; the difference that is left is rounding.
    step = 1 if encoder.device.type == "cpu" else batch_size
    for start in range(0, len(rows), step):
        batch = rows[start : start + step]
        filled_size = 1 << (len(batch) - 1).bit_length()
        empty = batch.new_zeros(filled_size - len(batch), *batch.shape[1:])
        filled = torch.cat([batch, empty]) if len(empty) else batch
        vectors = encoder.encode(side, filled.to(encoder.device), layer)
        yield vectors[: len(batch)]
