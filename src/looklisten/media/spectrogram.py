"""Waveform -> log-spectrogram, on the device, as a `FrontEnd` says. Knows no file, no network."""

import math
from collections.abc import Callable
from fractions import Fraction

import torch
from jaxtyping import Float, Integer, Num
from torch import Tensor, nn
from torch.nn import functional

from looklisten.errors import ConfigError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.front_ends import FrontEnd, find_front_end
from looklisten.system.devices import float32_by_default

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

    @float32_by_default()
    def __init__(self, front_end: str | FrontEnd, window: str = "hann") -> None:
        """front_end: the settings, or their name. window: a name in `WINDOWS`."""
        super().__init__()
        spec = find_front_end(front_end) if isinstance(front_end, str) else front_end
        self.spec = spec
        weights = WINDOWS[window](spec.window_samples)
        if spec.like_kaldi:
            # One sample more before its last one is omitted: the window ends as it begins.
            weights = WINDOWS[window](spec.window_samples - 1)
            weights = torch.cat([weights, weights[:1]])
        if spec.unit_window:
            weights = weights / (weights.sum() / 2)
        mel = mel_filters(spec) if spec.mel_bands else torch.empty(0)
        # Not persistent: a checkpoint names the front end, and that gives these tensors again.
        self.register_buffer("window", weights, persistent=False)
        self.register_buffer("mel", mel, persistent=False)
        taps = low_pass(spec.decimation.numerator, spec.low_pass_lobes)
        self.register_buffer("low_pass", taps, persistent=False)
        block = low_pass_block(taps, spec.decimation, LOW_PASS_BLOCK_SAMPLES)
        self.register_buffer("low_pass_block", block, persistent=False)

    def forward(
        self, waveforms: Num[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch 1 bands frames"]:
        """The log-spectrograms of waveforms at 48 kHz: int16, or floats in -1..1.

        With the front end `paper`, one second gives `[batch, 1, 257, 199]`.
        """
        spec = self.spec
        with torch.autocast(waveforms.device.type, enabled=False):
            waves = self.resampled(int16_to_float(waveforms))
            padded = functional.pad(waves, spec.padding_samples(waves.shape[-1]))
            magnitude = self.power(padded) if spec.like_kaldi else self.magnitude(padded)
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

    def resampled(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch fewer"]:
        """The sound at the rate of the front end, after a low-pass filter."""
        decimation = self.spec.decimation
        if decimation == 1:
            return waves
        inputs, outputs = self.low_pass_block.shape
        padded, kept_samples = self.padded_to_blocks(waves, inputs, outputs)
        step = int(outputs * decimation)
        filtered = padded.unfold(-1, inputs, step) @ self.low_pass_block
        return filtered.flatten(1)[:, :kept_samples]

    def padded_to_blocks(
        self, waves: Float[Tensor, "batch samples"], inputs: int, outputs: int
    ) -> tuple[Float[Tensor, "batch padded"], int]:
        """The sound with zeros for whole blocks of the low-pass filter, and the samples it gives.

        A block makes `outputs` samples of `inputs` samples.
        """
        up, down = self.spec.decimation.denominator, self.spec.decimation.numerator
        # As many samples as there are places where the filter's middle lies on the sound.
        kept_samples = (waves.shape[-1] - 1) * up // down + 1
        blocks = -(-kept_samples // outputs)
        before = len(self.low_pass) // 2 // up
        padded_samples = (blocks - 1) * (outputs // up * down) + inputs
        after = padded_samples - before - waves.shape[-1]
        return functional.pad(waves, (before, after)), kept_samples

    def magnitude(
        self, waves: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch frames bins"]:
        """Magnitudes of the short-time Fourier transform of resampled sound."""
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

    def power(self, waves: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frames bins"]:
        """Squared magnitudes of resampled sound, each window prepared as by Kaldi."""
        frames = waves.unfold(-1, self.spec.window_samples, self.spec.hop_samples)
        spectra = torch.fft.rfft(self.weighted(frames), self.spec.fft_samples)
        power: Tensor = spectra.real.square() + spectra.imag.square()
        return power

    def weighted(self, frames: Float[Tensor, "*batch samples"]) -> Float[Tensor, "*batch samples"]:
        """Windows of sound as the Fourier transform gets them."""
        window = self.window.to(frames.dtype)
        if not self.spec.like_kaldi:
            return frames * window
        frames = frames - frames.mean(-1, keepdim=True)
        # The first sample stands for the one before it.
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        return (frames - PREEMPHASIS * before) * window

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


PREEMPHASIS = 0.97
"""So much of the sample before is subtracted from each one, which lifts high frequencies."""

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


def low_pass(down: int, lobes: int) -> Float[Tensor, " taps"]:
    """A low-pass filter that leaves every `down`-th sample independent, with unit gain at 0 Hz.

    `lobes`: zero crossings on each side of its peak.
    """
    half = lobes * down
    sinc = torch.sinc(torch.arange(-half, half + 1) / down)
    window = torch.hann_window(2 * half + 3, periodic=False)[1:-1]  # without the zeros at its ends
    taps = sinc * window
    return taps / taps.sum()


LOW_PASS_BLOCK_SAMPLES = 16
"""At least so many samples after resampling are one product of their sound with a matrix."""


def low_pass_block(
    taps: Float[Tensor, " taps"], decimation: Fraction, least_outputs: int
) -> Float[Tensor, "inputs outputs"]:
    """A matrix that filters a block of sound and keeps one sample of every `decimation`."""
    # The taps lie `up` times closer than the samples of the sound, so that one filter has the
    # weights for outputs between two samples. With up = 1 every column has all taps.
    up, down = decimation.denominator, decimation.numerator
    # One product for a whole block copies each sample once or twice; one for each output would
    # copy it `taps / decimation` times. After `up` outputs the weights repeat.
    outputs = -(-least_outputs // up) * up
    half = len(taps) // 2
    before = half // up
    last_input = ((outputs - 1) * down + half) // up
    block = taps.new_zeros(before + last_input + 1, outputs)
    input_places = torch.arange(-before, last_input + 1) * up
    for output in range(outputs):
        tap_numbers = input_places - output * down + half
        is_inside = (tap_numbers >= 0) & (tap_numbers < len(taps))
        # Of `up` taps one meets a sample, so the gain would be 1 / up.
        block[is_inside, output] = taps[tap_numbers[is_inside]] * up
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
