"""Encoders: the one interface through which all embedding code gets vectors from a network.

`NetworkEncoder` wraps an L3Net; `interop` has encoders for networks of other projects. Knows
tensors only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Num
from torch import Tensor

from looklisten.config import Side
from looklisten.errors import ConfigError
from looklisten.inference.embedding.options import Precision
from looklisten.inference.towers import (
    TEXTURE,
    check_layer,
    layer_width,
    layers_of,
    listen,
    look,
    side_vectors,
    texture,
)
from looklisten.media.frames import FrameFit
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.model.l3net import L3Net
from looklisten.system.processes import single_thread_after_fork

# Larger maps do not fit in the processor's caches. Unless `keep_freed_memory` was called, their
# memory is also requested from the system each time. The full-size audio tower computes 40 windows
# a second one by one and 20 in chunks of 32 on two cores; that of `tiny` 1,100 and 2,200 (LOG.md).
MAX_MAP_BYTES = 8e6
"""On a CPU a batch is computed in chunks whose largest feature map takes about this many bytes."""
# A row alone does not keep a core busy: most of the time goes into starting small operations.
SMALL_TOWER_ROWS = 8
"""Rows of a batch on a CPU, where the maps of so many rows fit into its caches."""


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
        """The side of the square that it then becomes."""

    @property
    def frame_fit(self) -> FrameFit:
        """How it becomes that square."""

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


@runtime_checkable
class TextEncoder(Encoder, Protocol):
    """An encoder that also has vectors of texts, in the space of its layer `aligned`."""

    def encode_text(self, texts: Sequence[str], side: Side) -> Float[Tensor, "texts features"]:
        """Unit vectors of texts, to be compared with those of `side`, on the CPU."""


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
    def frame_fit(self) -> FrameFit:
        return self.model.config.frame_fit

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def autocast(self) -> torch.autocast:
        """The context that the towers compute in."""
        is_bfloat16 = self.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=is_bfloat16)

    @property
    def dtype(self) -> torch.dtype:
        """The type of numbers that the towers compute with."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def encode(
        self, side: Side, batch: Num[Tensor, "batch ..."], layer: str
    ) -> Float[Tensor, "batch features"]:
        with self.autocast:
            if layer == TEXTURE and side == "audio":
                return texture(self.model, batch)
            if side == "audio":
                output = listen(self.model, batch, self.dtype)
                return side_vectors(self.model, output, side, layer)
            if batch.shape[1] == 3:
                # A network of several frames gets one frame repeated: a scene without motion.
                batch = batch.repeat(1, self.model.config.frames_per_pair, 1, 1)
            return side_vectors(self.model, look(self.model, batch, self.dtype), side, layer)

    @cached_property
    def _spectrogram_pixels(self) -> int:
        silence = torch.zeros(1, WINDOW_SAMPLES, dtype=torch.float32, device=self.device)
        spectrogram: Tensor = self.model.front_end(silence)
        return spectrogram.numel()

    def rows_in_cache(self, side: Side) -> int:
        """How many rows a CPU computes at a time: those whose largest map fits into its caches."""
        frame_pixels = self.model.config.crop_pixels**2
        input_pixels = self._spectrogram_pixels if side == "audio" else frame_pixels
        values_per_row = self.model.tower(side).peak_values_per_pixel * input_pixels
        # bfloat16 has two bytes; in float32 the map is twice as large.
        bytes_per_row = 2 * values_per_row
        return max(1, int(MAX_MAP_BYTES / bytes_per_row))


def encoder_of(model: L3Net | Encoder, precision: Precision = "float32") -> Encoder:
    """`model` as an `Encoder`. An `L3Net` is put into evaluation mode.

    Nothing else of it changes, since other threads may be reading its weights.
    Raises ConfigError for another object, and for a `precision` with an encoder that has its own.
    """
    single_thread_after_fork()
    if isinstance(model, L3Net):
        return NetworkEncoder(model.eval(), precision)
    if isinstance(model, NetworkEncoder) and model.precision == precision:
        return model
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
        empty = torch.zeros(1, WINDOW_SAMPLES, dtype=torch.float32)
    else:
        empty = torch.zeros(1, 3, encoder.crop_pixels, encoder.crop_pixels, dtype=torch.uint8)
    return encode_rows(encoder, side, layer, empty, 1).shape[1]


@torch.inference_mode()
def encode_rows(
    encoder: Encoder, side: Side, layer: str, rows: Num[Tensor, "rows ..."], batch_size: int
) -> Float[Tensor, "rows features"]:
    """Vectors of any number of rows, on the CPU. A vector does not depend on the other rows.

    `layer`: as `choose_layer` gives it.
    """
    if not len(rows):
        return torch.zeros(0, vector_length(encoder, side, layer), dtype=torch.float32)
    at_once = rows_at_once(encoder, side, batch_size)
    # Libraries choose other kernels for other batch sizes, with other rounding. On a CPU all
    # batches therefore have one size. Elsewhere they are filled up to a power of two; the
    # difference that is left is rounding.
    is_cpu = encoder.device.type == "cpu"
    vectors = []
    for batch in torch.split(rows, at_once):
        filled_rows = at_once if is_cpu else 1 << (len(batch) - 1).bit_length()
        empty = batch.new_zeros(filled_rows - len(batch), *batch.shape[1:])
        filled = torch.cat([batch, empty]) if len(empty) else batch
        of_batch = encoder.encode(side, filled.to(encoder.device), layer)[: len(batch)]
        # To the CPU at once, so that a GPU holds the vectors of one batch only.
        vectors.append(of_batch.float().cpu())
    return torch.cat(vectors)


def rows_at_once(encoder: Encoder, side: Side, batch_size: int) -> int:
    """The size of a batch: `batch_size`, but fixed on a CPU.

    There it is 1, or `SMALL_TOWER_ROWS` for the sound of small towers.
    """
    if encoder.device.type != "cpu":
        # A GPU computes a batch almost as fast as one row.
        return batch_size
    # One picture often comes alone, as a file, and would then cost as much as a full batch.
    if side == "vision" or not isinstance(encoder, NetworkEncoder):
        return 1
    fits = encoder.rows_in_cache(side) >= SMALL_TOWER_ROWS
    return SMALL_TOWER_ROWS if fits else 1
