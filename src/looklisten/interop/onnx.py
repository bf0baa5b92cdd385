"""Writes a tower with its front end as ONNX: seconds of sound or frames in, vectors out.

A file is written only if onnxruntime gives PyTorch's vectors. Needs `looklisten[onnx]`.
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
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
from looklisten.inference.towers import pooled_layer, side_vectors
from looklisten.interop.pretrained import describe
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.spectrogram import (
    WINDOW_SAMPLES,
    LogSpectrogram,
    low_pass_block,
    round_to_int16,
)
from looklisten.model.backbones import Layer
from looklisten.model.checkpoint import Checkpoint
from looklisten.model.l3net import L3Net
from looklisten.system.files import atomic_write

INPUT_NAME: dict[Side, str] = {"audio": "waveforms", "vision": "frames"}
OUTPUT_NAME = "vectors"
MAX_RELATIVE_DIFFERENCE = 1e-3
"""Largest difference between the vectors of onnxruntime and PyTorch, over the largest value.

Measured 1e-6 to 3e-4 (docs/interchange.md).
"""

EXPORTER_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
"""The loggers of PyTorch's exporter and of the packages that it uses."""

FrontEndFactory = Callable[[str, str], LogSpectrogram]

RECORDING_NOISE = 1e-4
"""Amplitude of noise in a quiet recording: -80 dB of full scale, three steps of 16-bit sound."""


class ConvolvedSpectrogram(LogSpectrogram):
    """The same front end with the Fourier transform as a convolution."""

    # Few runtimes have a Fourier transform. It is linear, so a convolution with the transforms of
    # single samples computes the same.

    impulses: Tensor
    low_pass_kernels: Tensor

    def __init__(self, front_end: str, window: str = "hann") -> None:
        super().__init__(front_end, window)
        # In double precision, because the rounding of float32 shows in quiet bins.
        single_samples = torch.eye(self.spec.window_samples, dtype=torch.float64)
        spectra = torch.fft.rfft(self.weighted(single_samples), self.spec.fft_samples)
        impulses = torch.cat([spectra.real, spectra.imag], 1).T[:, None].float()
        self.register_buffer("impulses", impulses, persistent=False)
        # The smallest block: one kernel for each output before the weights repeat.
        block = low_pass_block(self.low_pass, self.spec.decimation, 1)
        self.register_buffer("low_pass_kernels", block.T[:, None].clone(), persistent=False)

    def resampled(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch fewer"]:
        decimation = self.spec.decimation
        if decimation == 1:
            return waves
        outputs, _, inputs = self.low_pass_kernels.shape
        padded, kept_samples = self.padded_to_blocks(waves, inputs, outputs)
        filtered = functional.conv1d(
            padded[:, None], self.low_pass_kernels, stride=decimation.numerator
        )
        return filtered.transpose(1, 2).flatten(1)[:, :kept_samples]

    def magnitude(
        self, waves: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch frames bins"]:
        return self.power(waves).sqrt()

    def power(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frames bins"]:
        spectra = functional.conv1d(waves[:, None], self.impulses, stride=self.spec.hop_samples)
        real, imaginary = spectra.transpose(1, 2).chunk(2, -1)
        return real.square() + imaginary.square()


class TowerVectors(nn.Module):
    """One side of a network, from its raw input to the vector of one layer.

    Uses only operations that ONNX has.
    """

    def __init__(self, network: L3Net, side: Side, layer: str, front_end: LogSpectrogram) -> None:
        super().__init__()
        self.network = network
        self.side = side
        self.layer = layer
        self.front_end = front_end

    def forward(self, batch: Num[Tensor, "batch ..."]) -> Float[Tensor, "batch features"]:
        if self.side == "audio":
            output = self.network.audio(self.front_end(round_to_int16(batch)))
        else:
            output = self.network.look(batch)
        pooled_from = pooled_layer(self.network, self.side, self.layer)
        if pooled_from.grid == (1, 1):
            return side_vectors(self.network, output, self.side, self.layer)
        return pool_in_cells(output.map_of(pooled_from), pooled_from).flatten(1)


def pool_in_cells(
    image: Float[Tensor, "batch channels height width"], layer: Layer
) -> Float[Tensor, "batch channels rows columns"]:
    """`image`, pooled to the grid of `layer`, computed cell by cell."""
    # ONNX has no pooling whose cells differ in size.
    (height, width), (rows, columns) = image.shape[2:], layer.grid
    pool = Tensor.mean if layer.pooling == "mean" else Tensor.amax
    rows_BCRW = torch.stack([pool(image[:, :, cell], 2) for cell in _cells(height, rows)], 2)
    return torch.stack([pool(rows_BCRW[..., cell], 3) for cell in _cells(width, columns)], 3)


def _cells(length: int, count: int) -> list[slice]:
    """`count` cells over `length` positions, as PyTorch's adaptive pooling cuts them."""
    cells = []
    for number in range(count):
        start = number * length // count
        stop = -(-(number + 1) * length // count)  # rounded up: neighboring cells may overlap
        cells.append(slice(start, stop))
    return cells


def write_onnx(
    network: L3Net,
    side: Side,
    layer: str,
    path: Path,
    checkpoint: Checkpoint | None = None,
    make_front_end: FrontEndFactory = ConvolvedSpectrogram,
) -> float:
    """Write one tower; return the largest relative difference between its vectors and PyTorch's.

    The input is `waveforms`, float32 `[batch, 48000]` in -1..1 at 48 kHz, or `frames`, uint8
    `[batch, 3, pixels, pixels]`. The output is `vectors`. The metadata of the file hold what a
    `config.json` says.

    checkpoint: where the network comes from, if it comes from a checkpoint.
    make_front_end: builds the front end from the names of front end and window.

    Raises ConfigError without the extra, for a layer that the network does not have, and when the
    vectors differ by more than `MAX_RELATIVE_DIFFERENCE`.
    """
    pooled_layer(network, side, layer)  # raises if the network has no such layer
    encoder = encoder_of(network)
    trial = trial_batch(network, side)
    with torch.inference_mode():
        expected = encoder.encode(side, trial, layer).numpy()
    front_end = make_front_end(network.config.front_end, network.config.window)
    with _exporter() as onnx:
        program = torch.onnx.export(
            TowerVectors(network, side, layer, front_end).eval(),
            (trial[:2],),
            # The older exporter is deprecated.
            dynamo=True,
            input_names=[INPUT_NAME[side]],
            output_names=[OUTPUT_NAME],
            # Any number of rows.
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            verbose=False,
        )
        assert program is not None
        graph = program.model_proto
        onnx.helper.set_model_props(graph, _metadata(network, side, layer, checkpoint))
    data = graph.SerializeToString()
    # A second time with one row, because the exporter may have fixed the number of rows.
    difference = max(
        _relative_difference(data, trial, expected),
        _relative_difference(data, trial[-1:], expected[-1:]),
    )
    # `not <=`, so that NaN is refused too.
    if not difference <= MAX_RELATIVE_DIFFERENCE:
        raise ConfigError(
            f"{path} is not written: onnxruntime's vectors differ from PyTorch's by "
            f"{difference:.2g} of their largest value, more than {MAX_RELATIVE_DIFFERENCE:g}; "
            "please report this with the versions that `looklisten doctor` prints"
        )
    # Written last, so that a file that exists has passed the comparison.
    with atomic_write(path) as scratch:
        scratch.write_bytes(data)
    return difference


def _metadata(
    network: L3Net, side: Side, layer: str, checkpoint: Checkpoint | None
) -> dict[str, str]:
    """The metadata properties of the file."""
    properties = {
        "side": side,
        "layer": layer,
        "config": json.dumps(describe(network, checkpoint)),
    }
    if side == "audio":
        properties["sample_rate_hz"] = str(SAMPLE_RATE_HZ)
    else:
        properties["resize_pixels"] = str(network.config.resize_pixels)
    return properties


def _relative_difference(
    data: bytes, batch: Tensor, expected: Float[np.ndarray, "batch features"]
) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (graph_input,) = session.get_inputs()
    (vectors,) = session.run(None, {graph_input.name: batch.numpy()})
    largest_value = max(np.abs(expected).max(), np.finfo(np.float32).tiny)
    return float(np.abs(vectors - expected).max() / largest_value)


def trial_batch(network: L3Net, side: Side) -> Num[Tensor, "batch ..."]:
    """The batch that an export is tested on.

    Sounds: loud and soft noise, tones, a sweep, each with the noise of a recording, and silence.
    Frames: noise, a ramp and black.
    """
    generator = torch.Generator().manual_seed(0)
    if side == "vision":
        pixels = network.config.crop_pixels
        noise = torch.randint(256, (1, 3, pixels, pixels), generator=generator, dtype=torch.uint8)
        ramp = torch.linspace(0, 255, pixels).to(torch.uint8).expand(1, 3, pixels, pixels)
        frames = torch.cat([noise, ramp, torch.zeros_like(noise)])
        return frames.repeat(1, network.config.frames_per_pair, 1, 1)
    seconds = torch.arange(WINDOW_SAMPLES) / SAMPLE_RATE_HZ
    noise = torch.rand(2, WINDOW_SAMPLES, generator=generator) * 2 - 1
    harmonics = [torch.sin(2 * torch.pi * 440 * k * seconds) / k for k in range(1, 9)]
    tones = torch.stack(harmonics).sum(0) / 4
    sweep = 0.5 * torch.sin(2 * torch.pi * (100 * seconds + 5000 * seconds**2))
    silence = torch.zeros(WINDOW_SAMPLES)
    sounds = torch.stack([0.9 * noise[0], 1e-3 * noise[1], tones, sweep, silence])
    # A pure sine has only rounding 100 dB below its peak, and the logarithm of the front end reads
    # it: two correct programs then differ. The noise of a recording is louder than that rounding.
    floor = RECORDING_NOISE * (torch.rand(sounds.shape, generator=generator) * 2 - 1)
    floor[-1] = 0  # digital silence has no noise
    return (sounds + floor).clamp(-1, 1)


@contextlib.contextmanager
def _exporter() -> Iterator[Any]:
    """The package `onnx`, with PyTorch's exporter silenced; errors of both become one sentence."""
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"the format onnx needs onnx, onnxruntime and onnxscript ({error}): "
            "pip install 'looklisten[onnx]'"
        ) from None
    try:
        with _quiet_loggers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of its own code
            yield onnx
    except torch.onnx.OnnxExporterError as error:
        cause = str(error.__cause__ or error).strip().splitlines()[-1]
        raise ConfigError(
            f"PyTorch {torch.__version__} could not write this network as ONNX: {cause}"
        ) from error


@contextlib.contextmanager
def _quiet_loggers() -> Iterator[None]:
    """Log only errors of the exporter, until the block ends. A level that a user set stays."""
    loggers = [logging.getLogger(name) for name in EXPORTER_LOGGERS]
    quiet = [logger for logger in loggers if logger.level == logging.NOTSET]
    for logger in quiet:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger in quiet:
            logger.setLevel(logging.NOTSET)
