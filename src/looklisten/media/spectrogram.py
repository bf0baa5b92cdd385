"""Waveform -> log-spectrogram, on the device.

A front end is one entry of `FRONT_ENDS`; all sizes are computed from it. Knows no file and no
network.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Integer, Num
from torch import Tensor, nn
from torch.nn import functional

from looklisten.errors import ConfigError
from looklisten.media import SAMPLE_RATE_HZ

WINDOW_SECONDS = 1.0
WINDOW_SAMPLES = round(WINDOW_SECONDS * SAMPLE_RATE_HZ)
INT16_FULL_SCALE = 2.0**15


def check_holds_window(clip_samples: int) -> None:
    """Raises ConfigError for a clip that is shorter than the second of sound of a pair."""
    if clip_samples < WINDOW_SAMPLES:
        raise ConfigError(
            f"a clip of {clip_samples / SAMPLE_RATE_HZ:.3f} s is shorter than the "
            f"{WINDOW_SECONDS:g} s of sound of a pair; prepare the videos again with "
            f"--min-clip-seconds {WINDOW_SECONDS:g}"
        )


@dataclass(frozen=True)
class FrontEnd:
    """The settings of a log-spectrogram.

    The steps are: fewer samples, short-time Fourier transform, magnitude, mel bands, logarithm,
    scale.
    """

    window_samples: int
    hop_samples: int
    fft_samples: int
    """All three count samples at `sample_rate_hz`."""
    floor: float
    """Lower magnitudes are raised to this before the logarithm."""
    added: float = 0.0
    """This is added to all magnitudes before the logarithm."""
    offset: float = 0.0
    scale: float = 1.0
    """The audio tower gets (logarithm + offset) / scale, unless `range_decibels` is set."""
    range_decibels: float = 0.0
    """If not 0, the input is in decibels relative to the maximum, and no lower than minus this."""
    padding: Literal["none", "end", "center"] = "none"
    """Zeros that are added.

    none: each transform has a full window of sound.
    end: at the end, so that there is a transform at every hop.
    center: half a window at both ends.
    """
    mel_bands: int = 0
    """0 means linear frequency."""
    mel_scale: Literal["htk", "slaney"] = "htk"
    """The formula from Hz to mel."""
    mel_bands_like: Literal["unit-sum", "librosa", "tensorflow"] = "unit-sum"
    """The triangles of the mel bands: over Hz, with equal sums over the bins; over Hz, with equal
    areas, as librosa's; or over mel, with peaks of 1, as TensorFlow's.
    """
    low_hz: float = 0.0
    """Where the lowest mel band begins."""
    high_hz: float = 0.0
    """Where the highest mel band ends; 0 for half of `sample_rate_hz`."""
    sample_rate_hz: int = SAMPLE_RATE_HZ
    """48 kHz divided by a whole number. The sound is low-passed, and fewer samples are kept."""
    low_pass_lobes: int = 5
    """Zero crossings on each side of the low-pass filter's peak.

    5: -6 dB at the new Nyquist frequency and -31 dB a quarter above. 32: -6 dB there, and -44 dB a
    sixteenth above.
    """
    columns_multiple_of: int = 1
    """Columns at both ends are omitted, so that the number of columns is a multiple of this."""
    needs_normalization: bool = False
    """Whether its values are far from mean 0 and deviation 1, so that a tower begins with a
    batch-norm.
    """
    unit_window: bool = False
    """Whether the window is divided by half its sum, so that a full-scale sine has magnitude 1."""

    @property
    def decimation(self) -> int:
        """One of so many samples at 48 kHz is kept."""
        return SAMPLE_RATE_HZ // self.sample_rate_hz

    @property
    def bins(self) -> int:
        return self.fft_samples // 2 + 1

    @property
    def bin_hz(self) -> float:
        return self.sample_rate_hz / self.fft_samples

    @property
    def bands(self) -> int:
        return self.mel_bands or self.bins

    def padding_samples(self, samples: int) -> tuple[int, int]:
        """Zeros before and after a sound of so many samples."""
        if self.padding == "center":
            return self.window_samples // 2, self.window_samples // 2
        if self.padding == "none":
            return 0, 0
        frames = -(-samples // self.hop_samples)  # rounded up, also for the sizes of an exporter
        padded_samples = (frames - 1) * self.hop_samples + self.window_samples
        return 0, padded_samples - samples


def _openl3_mel(bands: int) -> FrontEnd:
    return FrontEnd(
        window_samples=2048,
        hop_samples=242,
        fft_samples=2048,
        floor=1e-10,
        range_decibels=80.0,
        needs_normalization=True,
        padding="end",
        mel_bands=bands,
        mel_scale="slaney",
        mel_bands_like="librosa",
    )


FRONT_ENDS = {
    # Paper, section 3: windows of 0.01 s at half overlap, 257 bands, logarithm. The authors of the
    # paper gave ln(max(x, 1e-12)) / 5 to those of l3embedding. The window function is not
    # published; the re-implementations use Hann.
    "paper": FrontEnd(window_samples=480, hop_samples=240, fft_samples=512, floor=1e-12, scale=5.0),
    # For two cores: 16 kHz, windows of 25 ms every 10 ms, 64 mel bands. The floor is -86 dB of full
    # scale. Offset and scale are round numbers: with them, sounds of the synthetic world have the
    # mean 0.09 and the standard deviation 0.62.
    "compact": FrontEnd(
        sample_rate_hz=16_000,
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
    # OpenL3 0.4 (openl3/models.py): 10 log10 of magnitudes relative to the maximum of the second,
    # with a range of 80 dB, as in kapre 0.1.4. The mel filters are those that kapre 0.3.7 takes
    # from librosa. The sizes are 257 x 197, 128 x 199 and 256 x 199.
    "linear": FrontEnd(
        window_samples=512,
        hop_samples=242,
        fft_samples=512,
        floor=1e-10,
        range_decibels=80.0,
        needs_normalization=True,
    ),
    "mel128": _openl3_mel(128),
    "mel256": _openl3_mel(256),
    # That of YAMNet (github.com/tensorflow/models, research/audioset/yamnet). It was trained on
    # 0.96 s, 96 columns. One second has 98, so one is omitted at each end.
    "yamnet": FrontEnd(
        sample_rate_hz=16_000,
        low_pass_lobes=32,
        window_samples=400,
        hop_samples=160,
        fft_samples=512,
        floor=0.0,
        added=0.001,
        mel_bands=64,
        mel_bands_like="tensorflow",
        low_hz=125.0,
        high_hz=7500.0,
        columns_multiple_of=32,
        needs_normalization=True,
    ),
}


WINDOWS: dict[str, Callable[[int], Tensor]] = {
    "hann": torch.hann_window,
    "hamming": torch.hamming_window,
    "rectangular": torch.ones,
}


class LogSpectrogram(nn.Module):
    """A front end as a module without parameters, in float32 whatever the precision around it."""

    window: Tensor
    mel: Tensor
    low_pass: Tensor
    low_pass_block: Tensor

    def __init__(self, front_end: str | FrontEnd, window: str = "hann") -> None:
        """front_end: an entry of `FRONT_ENDS`, or its name. window: a name in `WINDOWS`."""
        super().__init__()
        spec = FRONT_ENDS[front_end] if isinstance(front_end, str) else front_end
        self.spec = spec
        weights = WINDOWS[window](spec.window_samples)
        if spec.unit_window:
            weights = weights / (weights.sum() / 2)
        mel = mel_filters(spec) if spec.mel_bands else torch.empty(0)
        # Not persistent: a checkpoint names the front end, and that gives these tensors again.
        self.register_buffer("window", weights, persistent=False)
        self.register_buffer("mel", mel, persistent=False)
        taps = low_pass(spec.decimation, spec.low_pass_lobes)
        self.register_buffer("low_pass", taps, persistent=False)
        block = low_pass_block(taps, spec.decimation)
        self.register_buffer("low_pass_block", block, persistent=False)

    def forward(
        self, waveforms: Num[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch 1 bands frames"]:
        """The log-spectrograms of waveforms at 48 kHz: int16, or floats in -1..1.

        With the front end `paper`, one second gives `[batch, 1, 257, 199]`.
        """
        spec = self.spec
        with torch.autocast(waveforms.device.type, enabled=False):
            waves = self.decimated(int16_to_float(waveforms))
            padded = functional.pad(waves, spec.padding_samples(waves.shape[-1]))
            magnitude = self.magnitude(padded)
            if spec.mel_bands:
                magnitude = magnitude @ self.mel
            magnitude = magnitude.clamp_min(spec.floor)
            if spec.added:
                magnitude = magnitude + spec.added
            log_spectrogram: Tensor
            if spec.range_decibels:
                log_spectrogram = relative_decibels(magnitude, spec)
            else:
                log_spectrogram = magnitude.log().add_(spec.offset).div_(spec.scale)
            log_spectrogram = omit_columns(log_spectrogram, spec.columns_multiple_of)
        return log_spectrogram.transpose(1, 2)[:, None]

    def decimated(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch fewer"]:
        """The sound with fewer samples, after a low-pass filter; unchanged without decimation."""
        decimation = self.spec.decimation
        if decimation == 1:
            return waves
        # As many samples as there are places where the filter's middle lies on the sound.
        kept_samples = (waves.shape[-1] - 1) // decimation + 1
        inputs, outputs = self.low_pass_block.shape
        blocks = -(-kept_samples // outputs)
        before = len(self.low_pass) // 2
        padded_samples = (blocks - 1) * outputs * decimation + inputs
        after = padded_samples - before - waves.shape[-1]
        padded = functional.pad(waves, (before, after))
        filtered = padded.unfold(-1, inputs, outputs * decimation) @ self.low_pass_block
        return filtered.flatten(1)[:, :kept_samples]

    def magnitude(
        self, waves: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch frames bins"]:
        """Magnitudes of the short-time Fourier transform of decimated sound."""
        spec = self.spec
        # The window gets the zeros that the transform needs, which costs less than to give them to
        # every frame. The last frame then reaches beyond the sound.
        added_samples = spec.fft_samples - spec.window_samples
        window = self.window
        if added_samples:
            window = functional.pad(window, (0, added_samples))
            waves = functional.pad(waves, (0, added_samples))
        frames = waves.unfold(-1, spec.fft_samples, spec.hop_samples) * window
        spectra = torch.fft.rfft(frames)
        # On a CPU this takes half of the time of `spectra.abs()`.
        least = spectra.real.new_full((), LEAST_POWER)
        power = torch.addcmul(least, spectra.real, spectra.real)
        return power.addcmul_(spectra.imag, spectra.imag).sqrt_()

    def band_hz(self) -> Float[Tensor, " bands"]:
        """The center frequency of each row of the spectrogram, in Hz."""
        spec = self.spec
        if spec.mel_bands:
            centers: Tensor = _mel_edges(spec)[1:-1]
            return centers
        bins: Tensor = torch.arange(spec.bands) * spec.bin_hz
        return bins


def relative_decibels(
    magnitude: Float[Tensor, "batch frames bands"], spec: FrontEnd
) -> Float[Tensor, "batch frames bands"]:
    """Decibels relative to the maximum of each row of the batch, at least -`range_decibels`.

    The formula is that of power, applied to magnitudes, as OpenL3 does.
    """
    levels = 10 * magnitude.log10()
    return (levels - levels.amax((1, 2), keepdim=True)).clamp_min(-spec.range_decibels)


def int16_to_float(
    waveforms: Integer[Tensor, "*batch samples"] | Float[Tensor, "*batch samples"],
) -> Float[Tensor, "*batch samples"]:
    """int16 samples as floats in -1..1; floats are in -1..1 already."""
    if waveforms.is_floating_point():
        return waveforms.float()
    return waveforms.float().div_(INT16_FULL_SCALE)


def round_to_int16(waveforms: Num[Tensor, "*batch samples"]) -> Float[Tensor, "*batch samples"]:
    """Sound as shards hold it: rounded to 16 bits and clipped at full scale, as floats in -1..1."""
    # Training reads 16-bit sound only. Its rounding noise, near -100 dB, is all that lies above the
    # Nyquist frequency of a source under 48 kHz, and the front end `paper` looks far below that.
    # So a network must get the same rounding where it is used. The formula is that of
    # `data/cutting.py`.
    if not waveforms.is_floating_point():
        return int16_to_float(waveforms)
    steps = (waveforms.float() * INT16_FULL_SCALE).round()
    return steps.clamp(-INT16_FULL_SCALE, INT16_FULL_SCALE - 1) / INT16_FULL_SCALE


LEAST_POWER = 1e-30
"""Added to the square of each magnitude: the gradient of a root is infinite at 0.

Its root is a thousandth of the lowest floor in `FRONT_ENDS`.
"""


def omit_columns(
    values: Float[Tensor, "batch columns bands"], multiple_of: int
) -> Float[Tensor, "batch fewer bands"]:
    """The middle columns, as many as possible of a multiple; too few columns stay as they are."""
    omitted = values.shape[1] % multiple_of
    if multiple_of == 1 or omitted == values.shape[1]:
        return values
    return values[:, omitted // 2 : values.shape[1] - (omitted - omitted // 2)]


def low_pass(decimation: int, lobes: int) -> Float[Tensor, " taps"]:
    """A low-pass filter for `decimation` times fewer samples, with unit gain at 0 Hz.

    `lobes`: zero crossings on each side of its peak.
    """
    half = lobes * decimation
    sinc = torch.sinc(torch.arange(-half, half + 1) / decimation)
    window = torch.hann_window(2 * half + 3, periodic=False)[1:-1]  # without the zeros at its ends
    taps = sinc * window
    return taps / taps.sum()


LOW_PASS_BLOCK_SAMPLES = 16
"""So many samples after decimation are one product of their sound with a matrix."""


def low_pass_block(
    taps: Float[Tensor, " taps"], decimation: int
) -> Float[Tensor, "inputs outputs"]:
    """A matrix that filters a block of sound; each column has the taps, `decimation` rows lower."""
    # One product for a whole block copies each sample once or twice; one for each output would
    # copy it `taps / decimation` times.
    outputs = LOW_PASS_BLOCK_SAMPLES
    block = taps.new_zeros((outputs - 1) * decimation + len(taps), outputs)
    for output in range(outputs):
        first = output * decimation
        block[first : first + len(taps), output] = taps
    return block


def _mel_edges(spec: FrontEnd) -> Float[Tensor, " edges"]:
    """Edges of the triangular bands, evenly spaced on the mel scale, in Hz."""
    to_mel, to_hz = MEL_SCALES[spec.mel_scale]
    low = to_mel(torch.tensor(spec.low_hz, dtype=torch.float64))
    high_hz = spec.high_hz or spec.sample_rate_hz / 2
    high = to_mel(torch.tensor(high_hz, dtype=torch.float64))
    # In float64, since the edges of narrow bands differ little.
    mels = torch.linspace(float(low), float(high), spec.mel_bands + 2, dtype=torch.float64)
    return to_hz(mels).float()


SLANEY_BREAK_HZ = 1000.0
SLANEY_MEL_HZ = 200 / 3
SLANEY_MELS_PER_E = 27 / math.log(6.4)
"""Linear below the break, logarithmic above (Slaney's Auditory Toolbox, 1998, section "mfcc")."""


def _slaney_mel(hz: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    above = (hz / SLANEY_BREAK_HZ).clamp_min(1).log() * SLANEY_MELS_PER_E
    return hz.clamp_max(SLANEY_BREAK_HZ) / SLANEY_MEL_HZ + above


def _slaney_hz(mel: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    above = mel - SLANEY_BREAK_HZ / SLANEY_MEL_HZ
    logarithmic = SLANEY_BREAK_HZ * (above / SLANEY_MELS_PER_E).exp()
    return torch.where(above > 0, logarithmic, mel * SLANEY_MEL_HZ)


def _htk_mel(hz: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    return 2595 * torch.log10(1 + hz / 700)


def _htk_hz(mel: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    hz: Tensor = 700 * (10 ** (mel / 2595) - 1)
    return hz


Conversion = Callable[[Tensor], Tensor]

MEL_SCALES: dict[str, tuple[Conversion, Conversion]] = {
    "htk": (_htk_mel, _htk_hz),
    "slaney": (_slaney_mel, _slaney_hz),
}
"""The formulas from Hz to mel and back."""


def mel_filters(spec: FrontEnd) -> Float[Tensor, "bins bands"]:
    """Triangles over the bins of the FFT, as `spec.mel_bands_like` says."""
    edges = _mel_edges(spec)
    bins = torch.arange(spec.bins) * spec.bin_hz
    if spec.mel_bands_like == "tensorflow":
        to_mel, _ = MEL_SCALES[spec.mel_scale]
        edges, bins = to_mel(edges), to_mel(bins)
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rise, fall).clamp_min(0)
    if spec.mel_bands_like == "tensorflow":
        return triangles
    # With unit area or unit sum, white noise has the same level in all bands.
    if spec.mel_bands_like == "unit-sum":
        # A band that is narrower than a bin may lie between two of them, and sums to 0.
        return triangles / triangles.sum(0).clamp_min(1e-9)
    area_hz = (edges[2:] - edges[:-2]) / 2
    return triangles / area_hz
