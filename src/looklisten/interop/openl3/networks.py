"""OpenL3's networks as it builds them in Keras (openl3/models.py, 0.4.2), and their pooled vectors.
Knows tensors only.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Num
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.interop.openl3.variants import WORDS, Side, Variant
from looklisten.media.frames import frames_to_unit
from looklisten.media.spectrogram import FRONT_ENDS, LogSpectrogram
from looklisten.model.backbones.vgg import CONV4_2_GRID

CHANNELS = (64, 64, 128, 128, 256, 256, 512, 512)
"""Filters of each convolution; 2 x 2 max-pooling stands behind every second one but the last."""
EPSILON = 1e-3
"""Keras's own, of every batch-norm."""
LATE_NORM = 1
"""In the picture's tower this convolution is followed by ReLU, then batch-norm; all others the
other way round.
"""

SIZES: dict[Side, dict[str, int]] = {
    side: {"pool4": CHANNELS[-1], "conv4_2": CHANNELS[-1] * rows * columns}
    for side, (rows, columns) in CONV4_2_GRID.items()
}
"""Length of the vectors of each layer: 512, and 6144 of sound or 8192 of pictures."""

CROP_PIXELS, RESIZE_PIXELS = 224, 256

MIN_CHANNELS = 2
"""A single channel has no layout that PyTorch could know for channels-last, and a CPU convolves it
ten times as slowly as two.
"""

CPU_ROWS = 2
"""Rows that a processor computes at a time; the vectors are the same for any number
(benchmarks/RESULTS.md).
"""


def halved(
    x: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels rows columns"]:
    """2 x 2 max-pooling, the odd last row or column left out: `max_pool2d(x, 2)`, which on a CPU
    takes five times as long.
    """
    rows, columns = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    x = torch.maximum(x[:, :, 0:rows:2], x[:, :, 1:rows:2])
    return torch.maximum(x[..., 0:columns:2], x[..., 1:columns:2])


def with_zeros(
    x: Float[Tensor, "batch channels height width"], channels: int
) -> Float[Tensor, "batch more height width"]:
    """`x` with channels of zeros behind its own, channels-last."""
    if x.shape[1] == channels:
        return x
    return functional.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1])).contiguous(
        memory_format=torch.channels_last
    )


class OpenL3Net(nn.Module):
    """One tower of OpenL3 with its front end: sound at 48 kHz, or frames, to the last convolution.
    An `Encoder` of one side.
    """

    def __init__(
        self,
        variant: Variant,
        frontend: str = "kapre",
        embedding_size: int | None = None,
        precision: str = "float32",
    ) -> None:
        super().__init__()
        self.variant, self.frontend, self.embedding_size, self.precision = (
            variant,
            frontend,
            embedding_size,
            precision,
        )
        spec = FRONT_ENDS[variant.input_repr]
        # Librosa centers the transforms of mel spectrograms; OpenL3 has its linear one begin with
        # the sound, as kapre's.
        self.front_end = LogSpectrogram(
            replace(spec, padding="center") if frontend == "librosa" and spec.mel_bands else spec
        )
        channels = (1 if variant.side == "audio" else 3, *CHANNELS)
        self.first_channels = channels[0]
        self.input_norm = nn.BatchNorm2d(channels[0], EPSILON)
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1) for i, o in zip(channels, CHANNELS, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(o, EPSILON) for o in CHANNELS[:-1])
        self.late_norm = LATE_NORM if variant.side == "vision" else -1

    def fused(self) -> "OpenL3Net":
        """The same network in evaluation mode, each batch-norm that follows a convolution
        multiplied into it. Changes this one.
        """
        self.eval()
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=False)):
            if index != self.late_norm and isinstance(norm, nn.BatchNorm2d):
                assert isinstance(conv, nn.Conv2d)
                self.convs[index], self.norms[index] = fuse_conv_bn_eval(conv, norm), nn.Identity()
        first = self.convs[0]
        assert isinstance(first, nn.Conv2d)
        first.in_channels = self.first_channels = max(first.in_channels, MIN_CHANNELS)
        first.weight = nn.Parameter(with_zeros(first.weight, self.first_channels))
        return self

    def forward(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch 512 rows columns"]:
        """The last convolution, before batch-norm and ReLU, which OpenL3 takes its vectors from."""
        x = with_zeros(self.input_norm(image), self.first_channels)
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=False)):
            is_late = index == self.late_norm
            x = norm(functional.relu(conv(x))) if is_late else norm(conv(x))
            x = halved(x) if index % 2 else x
            x = (
                x if is_late else functional.relu(x, inplace=True)
            )  # behind the pooling, which it commutes with: on fewer values
        last: Tensor = self.convs[-1](x)
        return last

    def vectors(
        self, image: Float[Tensor, "batch channels height width"], layer: str
    ) -> Float[Tensor, "batch features"]:
        """The last convolution of a spectrogram, or of frames in -1..1, max-pooled to `layer` and
        laid out in Keras's order.
        """
        bf16 = (
            torch.autocast(image.device.type, torch.bfloat16)
            if self.precision == "bfloat16"
            else contextlib.nullcontext()
        )
        grid = CONV4_2_GRID[self.variant.side] if layer == "conv4_2" else (1, 1)
        # A processor is fastest where what lies between the layers stays in its cache.
        parts = torch.split(image, CPU_ROWS if image.device.type == "cpu" else len(image))
        with bf16:
            pooled = [
                functional.adaptive_max_pool2d(
                    self(part.contiguous(memory_format=torch.channels_last)), grid
                )
                for part in parts
            ]
        return torch.cat(pooled).float().permute(0, 2, 3, 1).flatten(1)

    # What an `Encoder` has.

    resize_pixels = RESIZE_PIXELS
    crop_pixels = CROP_PIXELS

    @property
    def layers(self) -> Mapping[Side, tuple[str, ...]]:
        return {self.variant.side: tuple(SIZES[self.variant.side])}

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def encode(
        self, side: Side, batch: Num[Tensor, "batch ..."], layer: str
    ) -> Float[Tensor, "batch features"]:
        """Vectors of seconds of sound or of frames: `pool4` is OpenL3's 512, `conv4_2` its 6144 or
        8192.

        Raises OpenL3Error for the side or a layer that this network lacks.
        """
        own = self.variant.side
        if side != own:
            raise OpenL3Error(
                f"openl3:{self.variant.name} is a network for {own}; load {WORDS[side]}-… for {side}"
            )
        if layer not in SIZES[own]:
            raise OpenL3Error(
                f"there is no layer {layer!r}; the layers are {' and '.join(SIZES[own])}"
            )
        return self.vectors(
            self.front_end(batch) if own == "audio" else frames_to_unit(batch) * 2 - 1, layer
        )

    # What OpenL3's users call.

    def layer_for(self, embedding_size: int | None) -> str:
        """The layer whose vectors have the size that the network was loaded with, or else this one;
        raises OpenL3Error.
        """
        sizes = {size: name for name, size in SIZES[self.variant.side].items()}
        size = self.embedding_size or embedding_size or max(sizes)
        if size not in sizes:
            raise OpenL3Error(
                f"there is no embedding size {size!r} for {WORDS[self.variant.side]}; there are {max(sizes)} and {min(sizes)}"
            )
        return sizes[size]

    @torch.inference_mode()
    def predict(
        self,
        batch: NDArray[Any],
        batch_size: int = 32,
        verbose: Any = 0,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """As Keras's: vectors of what `preprocess_audio` returned, or of frames `[n, 224, 224, 3]`
        in -1..1.
        """
        rows = [
            self._predicted(batch[start : start + batch_size])
            for start in range(0, len(batch), batch_size)
        ]
        return np.concatenate(
            [np.zeros((0, SIZES[self.variant.side][self.layer_for(None)]), np.float32), *rows]
        )

    def _predicted(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        given = torch.from_numpy(np.ascontiguousarray(rows, np.float32)).to(self.device)
        image = self.front_end(given[:, 0]) if given.ndim == 3 else given.permute(0, 3, 1, 2)
        vectors: NDArray[np.float32] = self.vectors(image, self.layer_for(None)).cpu().numpy()
        return vectors
