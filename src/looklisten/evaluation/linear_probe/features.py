"""Batches of sounds or frames -> vectors, by a frozen network or by a simple description.

Knows tensors only: no file and no label.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from looklisten.config import Side
from looklisten.errors import ConfigError
from looklisten.inference.embedding.options import Precision
from looklisten.inference.encoder import Encoder, NetworkEncoder, encoder_of, vector_length
from looklisten.inference.towers import TEXTURE
from looklisten.media.frames import FrameFit
from looklisten.model.l3net import L3Net
from looklisten.model.network_key import network_key
from looklisten.system.devices import choose_precision, to_device

# By kind of device.
BATCH_ROWS = {"cpu": 32, "cuda": 512, "mps": 128}


@dataclass(frozen=True, eq=False)
class FeatureExtractor:
    """Turns sounds `[batch, samples]` or frames `[batch, 3, side, side]` into vectors."""

    name: str
    """What the table of results calls it."""
    encode: Callable[[Tensor], Tensor]
    width: int
    """Numbers of a vector."""
    key: str = ""
    """A hash of all that the vectors depend on except the files; without it they are not stored."""
    device: str = "cpu"
    whole_clips: bool = False
    """Whether it takes whole sounds, one at a time, instead of windows of one second."""
    summarizes_clips: bool = False
    """Whether each clip is classified once, by the mean and deviation of its windows' vectors."""
    chunk_rows: int = 0
    """How many rows of a batch are computed at a time; 0 for all."""
    repetition: int = 0
    """Numbers the untrained networks of several seeds; all of them share one row of the table."""
    resize_pixels: int = 256
    """How frames are prepared, as in `config.ModelConfig`; these two as well:"""
    crop_pixels: int = 224
    frame_fit: FrameFit = "crop"

    @property
    def batch_rows(self) -> int:
        """How many rows at a time are fast on its device."""
        return BATCH_ROWS[torch.device(self.device).type]

    def __call__(self, batch: Num[Tensor, "batch ..."]) -> Float[np.ndarray, "batch width"]:
        with torch.inference_mode():
            vectors = []
            for chunk in torch.split(batch, self.chunk_rows or len(batch)):
                encoded = self.encode(chunk.to(self.device))
                vectors.append(encoded.float().cpu())
            return torch.cat(vectors).numpy()


def network_extractor(
    name: str,
    model: L3Net | Encoder,
    side: Side,
    layer: str = "conv4_2",
    device: str = "cpu",
    precision: Precision | None = None,
) -> FeatureExtractor:
    """The vectors of one layer of a network.

    `precision`: of an L3Net; by default the fastest one of the device.

    Raises ConfigError if the network has no such layer.
    """
    if not isinstance(model, L3Net):
        _check_layer(model, side, layer)
        return _extractor_of_encoder(name, model, side, layer)
    fast = choose_precision(device).value == "bfloat16"
    precision = precision or ("bfloat16" if fast else "float32")
    encoder = encoder_of(to_device(model, device), precision)
    assert isinstance(encoder, NetworkEncoder)
    _check_layer(encoder, side, layer)
    extractor = _extractor_of_encoder(name, encoder, side, layer)
    weights = network_key(model)[:16]
    on_cpu = encoder.device.type == "cpu"
    return replace(
        extractor,
        key=f"{weights}-{side}-{layer}-{precision}",
        chunk_rows=encoder.rows_in_cache(side) if on_cpu else 0,
    )


def _check_layer(encoder: Encoder, side: Side, layer: str) -> None:
    layers = encoder.layers.get(side, ())
    if layer not in layers:
        raise ConfigError(
            f"this network has no layer {layer!r} of {side}; choose {', '.join(layers) or 'none'}"
        )


def _extractor_of_encoder(name: str, encoder: Encoder, side: Side, layer: str) -> FeatureExtractor:
    def encode(batch: Tensor) -> Tensor:
        return encoder.encode(side, batch, layer)

    return FeatureExtractor(
        name=name,
        encode=encode,
        width=vector_length(encoder, side, layer),
        device=str(encoder.device),
        summarizes_clips=layer == TEXTURE,
        resize_pixels=encoder.resize_pixels,
        crop_pixels=encoder.crop_pixels,
        frame_fit=encoder.frame_fit,
    )
