"""Batches -> vectors of a frozen network, trained or not, or of a plain description. Knows tensors:
no file, no label.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from looklisten.config import Side
from looklisten.errors import ConfigError
from looklisten.inference.embedding.fingerprints import network_sha256
from looklisten.inference.embedding.options import Precision
from looklisten.inference.encoder import Encoder, encoder_of
from looklisten.inference.layers import TEXTURE, layer_width
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.model.l3net import L3Net
from looklisten.system.devices import choose_precision, to_device

BATCH_ROWS = {"cpu": 32, "cuda": 512, "mps": 128}
PIECE_BYTES = 8e6
"""On a CPU a batch goes through a network in pieces whose largest map takes about so much: larger
ones leave the caches, and where nobody called `keep_freed_memory` their memory is asked of the
system anew each time. Of the full-size ear 40 windows a second one by one, 20 by 32 (two cores); of
`tiny` 1,100 and 2,200 (LOG.md).
"""

ROUNDING = "16bit"
"""How a network rounds the sound that it gets."""


@dataclass(frozen=True, eq=False)
class Extractor:
    """What turns a batch of sounds `[batch, samples]` or frames `[batch, 3, side, side]` into
    vectors.
    """

    name: str
    encode: Callable[[Tensor], Tensor]
    width: int
    key: str = ""
    """A hash of all that the vectors depend on beside the files; where there is none, they are not
    kept.
    """
    device: str = "cpu"
    whole: bool = False
    """Whether it is given whole sounds, one at a time, rather than windows of a second."""
    summarized: bool = False
    """Whether a clip is classified once, by the means and deviations of its sub-clips' vectors,
    rather than sub-clip by sub-clip.
    """
    piece_rows: int = 0
    """How many rows of a batch are computed at a time; 0: all."""
    drawing: int = 0
    """Which drawing of one untrained network it is: those from 1 on share the row of the one
    before.
    """
    resize_pixels: int = 256
    crop_pixels: int = 224

    @property
    def batch_rows(self) -> int:
        """How many rows it is best given at a time."""
        return BATCH_ROWS[torch.device(self.device).type]

    def __call__(self, batch: Num[Tensor, "batch ..."]) -> Float[np.ndarray, "batch width"]:
        with torch.inference_mode():
            pieces = torch.split(batch, self.piece_rows or len(batch))
            return torch.cat(
                [self.encode(piece.to(self.device)).float().cpu() for piece in pieces]
            ).numpy()


def network_extractor(
    name: str, model: L3Net | Encoder, side: Side, layer: str = "conv4_2", device: str = "cpu"
) -> Extractor:
    """The vectors of `layer`, in the device's fastest precision. Raises ConfigError when the
    network has no such layer.
    """
    precision: Precision = (
        "bfloat16"
        if isinstance(model, L3Net) and choose_precision(device).value == "bfloat16"
        else "float32"
    )
    encoder = encoder_of(to_device(model, device), precision) if isinstance(model, L3Net) else model
    if layer not in encoder.layers.get(side, ()):
        raise ConfigError(
            f"there is no layer {layer!r} of {side} here; choose one of {', '.join(encoder.layers.get(side, ())) or 'none'}"
        )

    def encode(batch: Tensor) -> Tensor:
        return encoder.encode(side, batch, layer)

    # Vectors of sound that was not rounded to 16 bits may lie in a cache: they are others, and have
    # another name.
    rounding = f"-{ROUNDING}" if side == "audio" else ""
    return Extractor(
        name=name,
        encode=encode,
        width=layer_width(model, side, layer)
        if isinstance(model, L3Net)
        else encode(_blank(encoder, side)).shape[1],
        key=f"{network_sha256(encoder)[:16]}-{side}-{layer}-{precision}{rounding}"
        if isinstance(model, L3Net)
        else "",
        device=str(encoder.device),
        summarized=layer == TEXTURE,
        piece_rows=_piece_rows(model, side)
        if isinstance(model, L3Net) and encoder.device.type == "cpu"
        else 0,
        resize_pixels=encoder.resize_pixels,
        crop_pixels=encoder.crop_pixels,
    )


def _blank(encoder: Encoder, side: Side) -> Tensor:
    shape = (1, 48_000) if side == "audio" else (1, 3, encoder.crop_pixels, encoder.crop_pixels)
    return torch.zeros(
        shape, dtype=torch.int16 if side == "audio" else torch.uint8, device=encoder.device
    )


def _piece_rows(model: L3Net, side: Side) -> int:
    """How many rows have a first map, the largest one, of about `PIECE_BYTES`; it is counted in
    bfloat16.
    """
    pixels = (
        model.front_end(torch.zeros(1, WINDOW_SAMPLES)).numel()
        if side == "audio"
        else model.config.crop_pixels**2
    )
    return max(
        1, int(PIECE_BYTES / (2 * model.config.widths[0] * pixels / model.config.first_stride**2))
    )
