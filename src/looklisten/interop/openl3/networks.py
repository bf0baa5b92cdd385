"""OpenL3's networks as encoders: OpenL3's vectors, from sound or frames.

Knows tensors only.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Num
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from looklisten.config import Side
from looklisten.inference.towers import fused_form
from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.interop.openl3.layers import CHANNELS, FusedOpenL3, OpenL3Layers
from looklisten.interop.openl3.variants import OPENL3_SIDES, Variant
from looklisten.media.frames import FrameFit, frames_to_unit
from looklisten.media.front_ends import FRONT_ENDS
from looklisten.media.spectrogram import LogSpectrogram
from looklisten.model.backbones.vgg import CONV4_2_GRID

SIZES: dict[Side, dict[str, int]] = {
    side: {"pool4": CHANNELS[-1], "conv4_2": CHANNELS[-1] * rows * columns}
    for side, (rows, columns) in CONV4_2_GRID.items()
}
"""Length of the vectors of each layer: 512, and 6144 of sound or 8192 of images."""

CROP_PIXELS, RESIZE_PIXELS = 224, 256

# So few, because then all values between two layers stay in the cache of the CPU. The vectors are
# the same for any number (benchmarks/RESULTS.md).
CPU_ROWS = 2
"""Rows that a CPU computes at a time."""


class OpenL3Net(OpenL3Layers):
    """One tower of OpenL3 with its front end; an `Encoder` with one side.

    The input is sound at 48 kHz or frames, the output that of the last convolution.
    """

    def __init__(
        self,
        variant: Variant,
        frontend: str = "kapre",
        embedding_size: int | None = None,
        precision: str = "float32",
    ) -> None:
        super().__init__(variant.side)
        self.variant = variant
        self.frontend = frontend
        self.embedding_size = embedding_size
        self.precision = precision
        spec = FRONT_ENDS[variant.input_repr]
        # Librosa centers the windows of mel spectrograms on their times. OpenL3's linear
        # spectrogram begins with the sound for both front ends.
        if frontend == "librosa" and spec.mel_bands:
            spec = replace(spec, padding="center")
        self.front_end = LogSpectrogram(spec)

    def fused(self, dtype: torch.dtype) -> "FusedOpenL3":
        """The network with its present weights in a faster form, which computes in `dtype`."""
        return FusedOpenL3(self, dtype)

    def forward(
        self, image: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch 512 rows columns"]:
        """The last convolution before batch-norm and ReLU, as in OpenL3."""
        dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        return fused_form(self, dtype)(image)

    def vectors(
        self, image: Float[Tensor, "batch channels height width"], layer: str
    ) -> Float[Tensor, "batch features"]:
        """The vectors of `layer`, of a spectrogram or of frames in -1..1, in Keras's order."""
        rows_at_a_time = CPU_ROWS if image.device.type == "cpu" else len(image)
        grid = CONV4_2_GRID[self.variant.side] if layer == "conv4_2" else (1, 1)
        pooled = []
        for rows in torch.split(image, rows_at_a_time):
            pooled.append(functional.adaptive_max_pool2d(self(rows), grid))
        # Keras has the channels last.
        return torch.cat(pooled).float().permute(0, 2, 3, 1).flatten(1)

    # What an `Encoder` has.

    resize_pixels = RESIZE_PIXELS
    crop_pixels = CROP_PIXELS
    frame_fit: FrameFit = "crop"

    @property
    def layers(self) -> Mapping[Side, tuple[str, ...]]:
        return {self.variant.side: tuple(SIZES[self.variant.side])}

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def encode(
        self, side: Side, batch: Num[Tensor, "batch ..."], layer: str
    ) -> Float[Tensor, "batch features"]:
        """Vectors of seconds of sound or of frames.

        `pool4` has OpenL3's 512 values, `conv4_2` its 6144 of sound or 8192 of images. Raises
        OpenL3Error for another side, and for an unknown layer.
        """
        own_side = self.variant.side
        if side != own_side:
            raise OpenL3Error(
                f"openl3:{self.variant.name} is a network for {own_side}; "
                f"load {OPENL3_SIDES[side]}-… for {side}"
            )
        if layer not in SIZES[own_side]:
            raise OpenL3Error(
                f"there is no layer {layer!r}; the layers are {' and '.join(SIZES[own_side])}"
            )
        image = self.front_end(batch) if own_side == "audio" else frames_to_unit(batch) * 2 - 1
        return self.vectors(image, layer)

    # What OpenL3's users call.

    def layer_for(self, embedding_size: int | None) -> str:
        """The layer whose vectors have the size that the network was loaded with.

        Without such a size, the layer of size `embedding_size`. Raises OpenL3Error for an unknown
        size.
        """
        side = self.variant.side
        layer_of_size = {size: layer for layer, size in SIZES[side].items()}
        size = self.embedding_size or embedding_size or max(layer_of_size)
        if size not in layer_of_size:
            raise OpenL3Error(
                f"there is no embedding size {size!r} for {OPENL3_SIDES[side]}; "
                f"there are {max(layer_of_size)} and {min(layer_of_size)}"
            )
        return layer_of_size[size]

    @torch.inference_mode()
    def predict(
        self,
        batch: NDArray[Any],
        batch_size: int = 32,
        verbose: Any = 0,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """Vectors, as Keras's `predict` gives them.

        `batch`: what `preprocess_audio` returned, or frames `[n, 224, 224, 3]` in -1..1.
        """
        features = SIZES[self.variant.side][self.layer_for(None)]
        vectors = [np.zeros((0, features), np.float32)]  # so that an empty batch has a shape
        for start in range(0, len(batch), batch_size):
            vectors.append(self._predict_rows(batch[start : start + batch_size]))
        return np.concatenate(vectors)

    def _predict_rows(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        tensor = torch.from_numpy(np.ascontiguousarray(rows, np.float32)).to(self.device)
        # Windows of sound are `[n, 1, samples]`, frames have Keras's channels at the end.
        image = self.front_end(tensor[:, 0]) if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2)
        vectors: NDArray[np.float32] = self.vectors(image, self.layer_for(None)).cpu().numpy()
        return vectors
