"""A tower with its front end as ONNX: a second of sound or a frame in, its vector out, any number
at once. Needs `looklisten[onnx]`.

The Fourier transform becomes a convolution with the transforms of single samples, since few
runtimes have one of their own; everything else of the front end is the front end's own code. A file
is only written when onnxruntime gives PyTorch's vectors.
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import Side
from looklisten.errors import ConfigError
from looklisten.inference.encoder import encoder_of
from looklisten.inference.layers import pooled_layer, side_vectors
from looklisten.interop.pretrained import describe
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.spectrogram import WINDOW_SAMPLES, LogSpectrogram, round_to_int16
from looklisten.model.checkpoint import Checkpoint
from looklisten.model.l3net import L3Net
from looklisten.system.files import atomic_write

INPUT: dict[Side, str] = {"audio": "waveforms", "vision": "frames"}
OUTPUT = "vectors"
MAX_RELATIVE_DIFFERENCE = 1e-3
"""Between onnxruntime's vectors and PyTorch's, over the largest value of a batch; measured 1e-6 to
3e-4 (docs/interchange.md).
"""

RECORDING_NOISE = 1e-4
"""Amplitude of noise in a quiet recording: -80 dB of full scale, three steps of 16-bit sound."""


class ConvolvedSpectrogram(LogSpectrogram):
    """The same front end with the Fourier transform as a convolution."""

    impulses: Tensor

    def __init__(self, front_end: str, window: str = "hann") -> None:
        super().__init__(front_end, window)
        spectra = torch.fft.rfft(torch.diag(self.window.double()), self.spec.fft_samples)
        self.register_buffer(
            "impulses",
            torch.cat([spectra.real, spectra.imag], 1).T[:, None].float(),
            persistent=False,
        )

    def decimated(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch fewer"]:
        if self.spec.decimation == 1:
            return waves
        taps = self.low_pass[None, None]
        return functional.conv1d(
            waves[:, None], taps, stride=self.spec.decimation, padding=len(self.low_pass) // 2
        )[:, 0]

    def magnitude(
        self, waves: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch frames bins"]:
        spectra = functional.conv1d(waves[:, None], self.impulses, stride=self.spec.hop_samples)
        real, imaginary = spectra.transpose(1, 2).chunk(2, -1)
        return (real.square() + imaginary.square()).sqrt()


class TowerVectors(nn.Module):
    """One side of a network, from what a program has to the vector of one layer, in operations that
    ONNX knows.
    """

    def __init__(self, network: L3Net, side: Side, layer: str) -> None:
        super().__init__()
        self.network, self.side, self.layer = network, side, layer
        self.front_end = ConvolvedSpectrogram(network.config.front_end, network.config.window)

    def forward(self, batch: Num[Tensor, "batch ..."]) -> Float[Tensor, "batch features"]:
        if self.side == "audio":
            output = self.network.audio(self.front_end(round_to_int16(batch)))
        else:
            output = self.network.look(batch)
        pooled_from = pooled_layer(self.network, self.side, self.layer)
        if pooled_from.grid == (1, 1):
            return side_vectors(self.network, output, self.side, self.layer)
        return max_in_cells(output.map_of(pooled_from), *pooled_from.grid).flatten(1)


def max_in_cells(
    image: Float[Tensor, "batch channels height width"], rows: int, columns: int
) -> Float[Tensor, "batch channels rows columns"]:
    """What `adaptive_max_pool2d` gives, cell by cell: ONNX has no pooling whose cells differ in
    size.
    """
    height, width = image.shape[2:]

    def cells(length: int, count: int) -> Iterator[slice]:
        return (slice(i * length // count, -(-(i + 1) * length // count)) for i in range(count))

    rows_BCRW = torch.stack([image[:, :, cell].amax(2) for cell in cells(height, rows)], 2)
    return torch.stack([rows_BCRW[..., cell].amax(3) for cell in cells(width, columns)], 3)


def write_onnx(
    network: L3Net, side: Side, layer: str, path: Path, saved: Checkpoint | None = None
) -> float:
    """Write one tower and return how far onnxruntime's vectors are from PyTorch's, over the largest
    value.

    Input `waveforms`, float32 `[batch, 48000]` in -1..1 at 48 kHz, or `frames`, uint8 `[batch, 3,
    side, side]`; output `vectors`. The file says of itself what a `config.json` says, with its side
    and layer; `saved` is the checkpoint it comes from. Raises ConfigError without the extra, for a
    layer that the network lacks, and when the vectors differ by more than 1e-3.
    """
    pooled_layer(network, side, layer)  # raises where the network has no such layer
    encoder = encoder_of(network)
    trial = trial_batch(network, side)
    with torch.inference_mode():
        truth = encoder.encode(side, trial, layer).numpy()
    with _exporter() as onnx:
        program = torch.onnx.export(
            TowerVectors(network, side, layer).eval(),
            (trial[:2],),
            dynamo=True,
            input_names=[INPUT[side]],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            verbose=False,
        )
        assert program is not None
        graph = program.model_proto
        onnx.helper.set_model_props(graph, _about(network, side, layer, saved))
    data = graph.SerializeToString()
    difference = max(_difference(data, trial, truth), _difference(data, trial[-1:], truth[-1:]))
    if not difference <= MAX_RELATIVE_DIFFERENCE:
        raise ConfigError(
            f"{path} is not written: onnxruntime's vectors differ from PyTorch's by {difference:.2g} of their largest value, "
            f"more than {MAX_RELATIVE_DIFFERENCE:g}; please report this with the versions that `looklisten doctor` prints"
        )
    with atomic_write(path) as scratch:
        scratch.write_bytes(data)
    return difference


def _about(network: L3Net, side: Side, layer: str, saved: Checkpoint | None) -> dict[str, str]:
    """What the file says of itself (the model's metadata properties)."""
    contract = (
        {"sample_rate_hz": str(SAMPLE_RATE_HZ)}
        if side == "audio"
        else {"resize_pixels": str(network.config.resize_pixels)}
    )
    return {"side": side, "layer": layer, "config": json.dumps(describe(network, saved))} | contract


def _difference(data: bytes, batch: Tensor, truth: Float[np.ndarray, "batch features"]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    (vectors,) = session.run(None, {name: batch.numpy()})
    return float(
        np.abs(vectors - truth).max() / max(np.abs(truth).max(), np.finfo(np.float32).tiny)
    )


def trial_batch(network: L3Net, side: Side) -> Num[Tensor, "batch ..."]:
    """What an export is tried on: noise loud and soft, tones, a sweep, each with the noise of a
    recording, and silence; or pictures.

    The noise matters. A pure sine has nothing but rounding a hundred decibels below its peak, and
    the front end's logarithm looks there too: two right programs then differ.
    """
    chance = torch.Generator().manual_seed(0)
    if side == "vision":
        pixels = network.config.crop_pixels
        noise = torch.randint(256, (1, 3, pixels, pixels), generator=chance, dtype=torch.uint8)
        ramp = torch.linspace(0, 255, pixels).to(torch.uint8).expand(1, 3, pixels, pixels)
        return torch.cat([noise, ramp, torch.zeros_like(noise)]).repeat(
            1, network.config.frames_per_pair, 1, 1
        )
    seconds = torch.arange(WINDOW_SAMPLES) / SAMPLE_RATE_HZ
    noise = torch.rand(2, WINDOW_SAMPLES, generator=chance) * 2 - 1
    tones = (
        torch.stack([torch.sin(2 * torch.pi * 440 * k * seconds) / k for k in range(1, 9)]).sum(0)
        / 4
    )
    sweep = 0.5 * torch.sin(2 * torch.pi * (100 * seconds + 5000 * seconds**2))
    sounds = torch.stack(
        [0.9 * noise[0], 1e-3 * noise[1], tones, sweep, torch.zeros(WINDOW_SAMPLES)]
    )
    floor = RECORDING_NOISE * (torch.rand(sounds.shape, generator=chance) * 2 - 1)
    floor[-1] = 0  # digital silence has none
    return (sounds + floor).clamp(-1, 1)


@contextlib.contextmanager
def _exporter() -> Iterator[Any]:
    """The package `onnx`, with PyTorch's exporter kept quiet; what stops either becomes one
    sentence.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"the format onnx needs onnx, onnxruntime and onnxscript ({error}): pip install 'looklisten[onnx]'"
        ) from None
    talk = logging.getLogger("torch.onnx")
    level = talk.level
    talk.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch to itself
            yield onnx
    except torch.onnx.OnnxExporterError as error:
        cause = str(error.__cause__ or error).strip().splitlines()[-1]
        raise ConfigError(
            f"PyTorch {torch.__version__} could not write this network as ONNX: {cause}"
        ) from error
    finally:
        talk.setLevel(level)
