"""Waveform -> log-spectrogram, on the device, one picture a second of sound.

A front end is a row of `FRONT_ENDS`; every size is computed from it. Knows no file and no network.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer, Num
from torch import Tensor, nn
from torch.nn import functional

from looklisten.media import SAMPLE_RATE_HZ

WINDOW_SECONDS = 1.0
WINDOW_SAMPLES = round(WINDOW_SECONDS * SAMPLE_RATE_HZ)
INT16_FULL_SCALE = 2.0**15


@dataclass(frozen=True)
class FrontEnd:
    """Perhaps fewer samples, short-time Fourier transform without padding, magnitude, perhaps mel bands, logarithm, scale."""

    window_samples: int
    hop_samples: int
    fft_samples: int
    """Of the decimated sound, as the two above."""
    floor: float
    """Magnitudes below are raised to it before the logarithm."""
    offset: float
    scale: float
    """(logarithm + offset) / scale is what the tower sees."""
    mel_bands: int = 0
    """0: linear frequency."""
    low_hz: float = 0.0
    decimation: int = 1
    """Every so manieth sample is kept, behind a low-pass filter."""
    unit_window: bool = False
    """Whether the window is divided by half its sum, so that a full-scale sine has magnitude 1."""

    @property
    def rate_hz(self) -> float:
        return SAMPLE_RATE_HZ / self.decimation

    @property
    def bins(self) -> int:
        return self.fft_samples // 2 + 1

    @property
    def bin_hz(self) -> float:
        return self.rate_hz / self.fft_samples

    @property
    def bands(self) -> int:
        return self.mel_bands or self.bins


FRONT_ENDS = {
    # Paper, section 3: windows of 0.01 s at half overlap, 257 bands, logarithm; ln(max(x, 1e-12)) / 5 as its authors told
    # the makers of l3embedding. The window function is untold; Hann is what the re-implementations use.
    "paper": FrontEnd(window_samples=480, hop_samples=240, fft_samples=512, floor=1e-12, offset=0.0, scale=5.0),
    # For two cores: 16 kHz, windows of 25 ms every 10 ms, 64 mel bands. The floor is -86 dB of full scale; offset and scale
    # are round numbers that bring the synthetic world's sounds to mean 0.09, deviation 0.62.
    "compact": FrontEnd(
        decimation=3,
        window_samples=400,
        hop_samples=160,
        fft_samples=512,
        floor=5e-5,
        offset=6.5,
        scale=2.0,
        mel_bands=64,
        low_hz=60.0,
        unit_window=True,
    ),
}


WINDOWS: dict[str, Callable[[int], Tensor]] = {
    "hann": torch.hann_window,
    "hamming": torch.hamming_window,
    "rectangular": torch.ones,
}


class LogSpectrogram(nn.Module):
    """The front end `name` as a module without parameters, computed in float32 whatever the precision around it."""

    window: Tensor
    mel: Tensor
    low_pass: Tensor

    def __init__(self, name: str, window: str = "hann") -> None:
        super().__init__()
        self.spec = spec = FRONT_ENDS[name]
        weights = WINDOWS[window](spec.window_samples)
        if spec.unit_window:
            weights = weights / (weights.sum() / 2)
        self.register_buffer("window", weights, persistent=False)
        self.register_buffer("mel", mel_filters(spec) if spec.mel_bands else torch.empty(0), persistent=False)
        self.register_buffer("low_pass", low_pass(spec.decimation), persistent=False)

    def forward(self, waveforms: Num[Tensor, "batch samples"]) -> Float[Tensor, "batch 1 bands frames"]:
        """int16, or floats in -1..1, at 48 kHz; one second gives `[batch, 1, 257, 199]` with the front end `paper`."""
        spec = self.spec
        with torch.autocast(waveforms.device.type, enabled=False):
            magnitude = self.magnitude(self.decimated(to_unit(waveforms)))
            if spec.mel_bands:
                magnitude = magnitude @ self.mel
            image: Tensor = (magnitude.clamp_min(spec.floor).log() + spec.offset) / spec.scale
        return image.transpose(1, 2)[:, None]

    def decimated(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch fewer"]:
        """Every so manieth sample, behind the low-pass filter; all of them where there is no decimation."""
        if self.spec.decimation == 1:
            return waves
        half = len(self.low_pass) // 2
        return functional.pad(waves, (half, half)).unfold(-1, len(self.low_pass), self.spec.decimation) @ self.low_pass

    def magnitude(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frames bins"]:
        """Of the short-time Fourier transform of decimated sound."""
        frames = waves.unfold(-1, self.spec.window_samples, self.spec.hop_samples) * self.window
        magnitude: Tensor = torch.fft.rfft(frames, self.spec.fft_samples).abs()
        return magnitude

    def band_hz(self) -> Float[Tensor, " bands"]:
        """The centre frequency of each row of the spectrogram, in Hz."""
        spec = self.spec
        if spec.mel_bands:
            centers: Tensor = _mel_edges(spec)[1:-1]
            return centers
        bins: Tensor = torch.arange(spec.bands) * spec.bin_hz
        return bins


def to_unit(waveforms: Integer[Tensor, "*batch samples"] | Float[Tensor, "*batch samples"]) -> Float[Tensor, "*batch samples"]:
    """int16 to -1..1; floats are -1..1 already."""
    return waveforms.float() if waveforms.is_floating_point() else waveforms.float() / INT16_FULL_SCALE


LOW_PASS_LOBES = 5
"""Zero crossings on each side of the low-pass filter's peak: -6 dB at the new Nyquist frequency, -31 dB a quarter above."""


def low_pass(decimation: int) -> Float[Tensor, " taps"]:
    """A sinc under a Hann window that passes what `decimation` times fewer samples can hold, unit gain at 0 Hz."""
    half = LOW_PASS_LOBES * decimation
    taps = torch.sinc(torch.arange(-half, half + 1) / decimation) * torch.hann_window(2 * half + 3, periodic=False)[1:-1]
    return taps / taps.sum()


def _mel_edges(spec: FrontEnd) -> Float[Tensor, " edges"]:
    """Edges of the triangular bands, evenly spaced on the HTK mel scale, in Hz."""
    low, high = (2595 * torch.log10(torch.tensor(1 + hz / 700, dtype=torch.float64)) for hz in (spec.low_hz, spec.rate_hz / 2))
    mels = torch.linspace(float(low), float(high), spec.mel_bands + 2, dtype=torch.float64)
    return (700 * (10 ** (mels / 2595) - 1)).float()


def mel_filters(spec: FrontEnd) -> Float[Tensor, "bins bands"]:
    """Triangles over the FFT's bins, each of unit area, so that noise of one level has one level in all bands."""
    edges = _mel_edges(spec)
    bins = torch.arange(spec.bins) * spec.bin_hz
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rise, fall).clamp_min(0)
    return triangles / triangles.sum(0).clamp_min(1e-9)
