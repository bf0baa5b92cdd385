"""Waveform -> log-spectrogram, on the device, one picture a second of sound.

A front end is a row of `FRONT_ENDS`; every size is computed from it. Knows no file and no network.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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
    """Perhaps fewer samples, short-time Fourier transform, magnitude, perhaps mel bands, logarithm,
    scale.
    """

    window_samples: int
    hop_samples: int
    fft_samples: int
    """Of the decimated sound, as the two above."""
    floor: float
    """Magnitudes below are raised to it before the logarithm."""
    offset: float = 0.0
    scale: float = 1.0
    """(logarithm + offset) / scale is what the tower sees ..."""
    range_decibels: float = 0.0
    """... or, where this is not 0, decibels below the loudest place of the whole picture, at most
    so many.
    """
    padding: Literal["none", "end", "center"] = "none"
    """Zeros: none, so that every transform has a whole window; at the end, for a transform at every
        hop; or half a window at both ends.
    """
    mel_bands: int = 0
    """0: linear frequency."""
    mel_scale: Literal["htk", "slaney"] = "htk"
    """The formula from Hz to mel. Bands of `slaney` weigh alike by area over Hz, as librosa's;
    those of `htk` by sum over bins.
    """
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

    def padding_samples(self, samples: int) -> tuple[int, int]:
        """Zeros before and after a sound of so many samples."""
        if self.padding == "center":
            return self.window_samples // 2, self.window_samples // 2
        frames = -(-samples // self.hop_samples)
        return 0, (
            frames - 1
        ) * self.hop_samples + self.window_samples - samples if self.padding == "end" else 0


def _openl3_mel(bands: int) -> FrontEnd:
    return FrontEnd(
        window_samples=2048,
        hop_samples=242,
        fft_samples=2048,
        floor=1e-10,
        range_decibels=80.0,
        padding="end",
        mel_bands=bands,
        mel_scale="slaney",
    )


FRONT_ENDS = {
    # Paper, section 3: windows of 0.01 s at half overlap, 257 bands, logarithm; ln(max(x, 1e-12)) /
    # 5 as its authors told the makers of l3embedding. The window function is untold; Hann is what
    # the re-implementations use.
    "paper": FrontEnd(window_samples=480, hop_samples=240, fft_samples=512, floor=1e-12, scale=5.0),
    # For two cores: 16 kHz, windows of 25 ms every 10 ms, 64 mel bands. The floor is -86 dB of full
    # scale; offset and scale are round numbers that bring the synthetic world's sounds to mean
    # 0.09, deviation 0.62.
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
    # OpenL3 0.4 (openl3/models.py): magnitudes, 10 log10 of them relative to the second's maximum,
    # 80 dB of range, as kapre 0.1.4 had it; mel filters as its kapre 0.3.7 takes them from librosa.
    # 257 x 197, 128 x 199 and 256 x 199.
    "linear": FrontEnd(
        window_samples=512, hop_samples=242, fft_samples=512, floor=1e-10, range_decibels=80.0
    ),
    "mel128": _openl3_mel(128),
    "mel256": _openl3_mel(256),
}


WINDOWS: dict[str, Callable[[int], Tensor]] = {
    "hann": torch.hann_window,
    "hamming": torch.hamming_window,
    "rectangular": torch.ones,
}


class LogSpectrogram(nn.Module):
    """A front end, of `FRONT_ENDS` by its name, as a module without parameters: in float32 whatever
    the precision around it.
    """

    window: Tensor
    mel: Tensor
    low_pass: Tensor

    def __init__(self, front_end: str | FrontEnd, window: str = "hann") -> None:
        super().__init__()
        self.spec = spec = FRONT_ENDS[front_end] if isinstance(front_end, str) else front_end
        weights = WINDOWS[window](spec.window_samples)
        if spec.unit_window:
            weights = weights / (weights.sum() / 2)
        self.register_buffer("window", weights, persistent=False)
        self.register_buffer(
            "mel", mel_filters(spec) if spec.mel_bands else torch.empty(0), persistent=False
        )
        self.register_buffer("low_pass", low_pass(spec.decimation), persistent=False)

    def forward(
        self, waveforms: Num[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch 1 bands frames"]:
        """int16, or floats in -1..1, at 48 kHz; one second gives `[batch, 1, 257, 199]` with the
        front end `paper`.
        """
        spec = self.spec
        with torch.autocast(waveforms.device.type, enabled=False):
            waves = self.decimated(int16_to_float(waveforms))
            magnitude = self.magnitude(functional.pad(waves, spec.padding_samples(waves.shape[-1])))
            if spec.mel_bands:
                magnitude = magnitude @ self.mel
            magnitude = magnitude.clamp_min(spec.floor)
            image: Tensor = (
                relative_decibels(magnitude, spec)
                if spec.range_decibels
                else (magnitude.log() + spec.offset) / spec.scale
            )
        return image.transpose(1, 2)[:, None]

    def decimated(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch fewer"]:
        """Every so manieth sample, behind the low-pass filter; all of them where there is no
        decimation.
        """
        if self.spec.decimation == 1:
            return waves
        half = len(self.low_pass) // 2
        return (
            functional.pad(waves, (half, half)).unfold(-1, len(self.low_pass), self.spec.decimation)
            @ self.low_pass
        )

    def magnitude(
        self, waves: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch frames bins"]:
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


def relative_decibels(
    magnitude: Float[Tensor, "batch frames bands"], spec: FrontEnd
) -> Float[Tensor, "batch frames bands"]:
    """0 at the loudest place of each row, and no lower than `range_decibels` below; decibels of
    power, applied to magnitudes.
    """
    levels = 10 * magnitude.log10()
    return (levels - levels.amax((1, 2), keepdim=True)).clamp_min(-spec.range_decibels)


def int16_to_float(
    waveforms: Integer[Tensor, "*batch samples"] | Float[Tensor, "*batch samples"],
) -> Float[Tensor, "*batch samples"]:
    """int16 to -1..1; floats are -1..1 already."""
    return (
        waveforms.float() if waveforms.is_floating_point() else waveforms.float() / INT16_FULL_SCALE
    )


def round_to_int16(waveforms: Num[Tensor, "*batch samples"]) -> Float[Tensor, "*batch samples"]:
    """Sound as shards hold it: rounded to 16 bits and cut off at full scale, as floats in -1..1.

    int16 stays as it is. Training reads nothing but 16-bit sound. Its rounding noise, near -100 dB,
    is all that lies above the Nyquist frequency of a source under 48 kHz, and the front end `paper`
    looks far below that. So a network must get the same rounding where it is used. The formula is
    that of `data/cutting.py`.
    """
    if not waveforms.is_floating_point():
        return int16_to_float(waveforms)
    steps = (waveforms.float() * INT16_FULL_SCALE).round()
    return steps.clamp(-INT16_FULL_SCALE, INT16_FULL_SCALE - 1) / INT16_FULL_SCALE


LOW_PASS_LOBES = 5
"""Zero crossings on each side of the low-pass filter's peak: -6 dB at the new Nyquist frequency,
-31 dB a quarter above.
"""


def low_pass(decimation: int) -> Float[Tensor, " taps"]:
    """A sinc under a Hann window that passes what `decimation` times fewer samples can hold, unit
    gain at 0 Hz.
    """
    half = LOW_PASS_LOBES * decimation
    taps = (
        torch.sinc(torch.arange(-half, half + 1) / decimation)
        * torch.hann_window(2 * half + 3, periodic=False)[1:-1]
    )
    return taps / taps.sum()


def _mel_edges(spec: FrontEnd) -> Float[Tensor, " edges"]:
    """Edges of the triangular bands, evenly spaced on the mel scale, in Hz."""
    to_mel, to_hz = MEL_SCALES[spec.mel_scale]
    low, high = (
        to_mel(torch.tensor(hz, dtype=torch.float64)) for hz in (spec.low_hz, spec.rate_hz / 2)
    )
    return to_hz(
        torch.linspace(float(low), float(high), spec.mel_bands + 2, dtype=torch.float64)
    ).float()


SLANEY_BREAK_HZ, SLANEY_MEL_HZ, SLANEY_MELS_PER_E = 1000.0, 200 / 3, 27 / math.log(6.4)
"""Linear below the break, logarithmic above (Slaney's Auditory Toolbox, 1998, section "mfcc")."""


def _slaney_mel(hz: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    above = (hz / SLANEY_BREAK_HZ).clamp_min(1).log() * SLANEY_MELS_PER_E
    return hz.clamp_max(SLANEY_BREAK_HZ) / SLANEY_MEL_HZ + above


def _slaney_hz(mel: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    above = mel - SLANEY_BREAK_HZ / SLANEY_MEL_HZ
    return torch.where(
        above > 0, SLANEY_BREAK_HZ * (above / SLANEY_MELS_PER_E).exp(), mel * SLANEY_MEL_HZ
    )


MEL_SCALES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "htk": (
        lambda hz: 2595 * torch.log10(1 + hz / 700),
        lambda mel: 700 * (10 ** (mel / 2595) - 1),
    ),
    "slaney": (_slaney_mel, _slaney_hz),
}
"""From Hz to mel, and back."""


def mel_filters(spec: FrontEnd) -> Float[Tensor, "bins bands"]:
    """Triangles over the FFT's bins, each of unit area, so that noise of one level has one level in
    all bands.
    """
    edges = _mel_edges(spec)
    bins = torch.arange(spec.bins) * spec.bin_hz
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rise, fall).clamp_min(0)
    area = (
        triangles.sum(0).clamp_min(1e-9)
        if spec.mel_scale == "htk"
        else (edges[2:] - edges[:-2]) / 2
    )
    return triangles / area
