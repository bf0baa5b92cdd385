"""Sounds that belong to no frame: silence, noise and hum. Seeds in, samples out."""

import numpy as np
from jaxtyping import Float, Int16

from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.levels import SILENT_DECIBELS
from looklisten.media.waveform import FULL_SCALE

NOISE_SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}
"""The amplitude of each noise falls as the frequency to this power."""
EMPTY_SOUND_KINDS = ("silence", *NOISE_SLOPES, "hum")
LOUDNESS_DECIBELS = (SILENT_DECIBELS + 10, -10.0)
"""Noise and hum have a loudness (root mean square, of full scale) in this range."""
HISS_DECIBELS = (-100.0, SILENT_DECIBELS - 10)
"""The loudness of silence: a faint hiss. Even at -100 dB one sample in eight is not zero."""
LOWEST_NOISE_HZ = 20.0
"""Below, the amplitude stays constant. Else brown noise would be mostly what nobody hears."""
MAINS_HZ = (50, 60)
HUM_HARMONICS = 12


def draw_empty_sound(seed: int, samples: int) -> Int16[np.ndarray, " samples"]:
    """A sound at 48 kHz of a random kind of `EMPTY_SOUND_KINDS` and of random loudness.

    The same seed gives the same sound. Raises ValueError for fewer than 2 samples.
    """
    if samples < 2:
        raise ValueError(f"an empty sound needs at least 2 samples, not {samples}")
    rng = np.random.default_rng(seed)
    kind = EMPTY_SOUND_KINDS[rng.integers(len(EMPTY_SOUND_KINDS))]
    if kind == "hum":
        waveform = _hum(rng, samples)
    else:
        waveform = _noise(rng, samples, NOISE_SLOPES.get(kind, 0.0))
    decibels = rng.uniform(*(HISS_DECIBELS if kind == "silence" else LOUDNESS_DECIBELS))
    loudness = np.sqrt(np.mean(waveform**2))
    scaled = waveform * (FULL_SCALE["int16"] * 10 ** (decibels / 20) / loudness)
    limits = np.iinfo(np.int16)
    rounded: Int16[np.ndarray, " samples"] = (
        scaled.round().clip(limits.min, limits.max).astype(np.int16)
    )
    return rounded


def _noise(rng: np.random.Generator, samples: int, slope: float) -> Float[np.ndarray, " samples"]:
    """Gaussian noise whose amplitude falls as the frequency to the power `slope`."""
    spectrum = np.fft.rfft(rng.normal(size=samples))
    frequencies_hz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE_HZ)
    spectrum /= np.maximum(frequencies_hz, LOWEST_NOISE_HZ) ** slope
    # No constant offset, which cannot be heard.
    spectrum[0] = 0.0
    return np.fft.irfft(spectrum, samples)


def _hum(rng: np.random.Generator, samples: int) -> Float[np.ndarray, " samples"]:
    """Hum of the mains: a frequency and its harmonics, of random strengths and phases."""
    seconds = np.arange(samples) / SAMPLE_RATE_HZ
    harmonics = np.arange(1, HUM_HARMONICS + 1)[:, None]
    # Higher harmonics are weaker.
    amplitudes = rng.uniform(0.0, 1.0, harmonics.shape) / harmonics
    phases = rng.uniform(0.0, 2 * np.pi, harmonics.shape)
    turns = 2 * np.pi * MAINS_HZ[rng.integers(len(MAINS_HZ))] * harmonics * seconds
    waveform: Float[np.ndarray, " samples"] = (amplitudes * np.sin(turns + phases)).sum(0)
    return waveform
