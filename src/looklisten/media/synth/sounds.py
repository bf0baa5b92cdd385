"""What every made-up sound is finished with: level, spectral tilt, noise behind it. Arrays in,
arrays out.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Sound = NDArray[np.floating[Any]]


def rms(sound: Sound) -> float:
    """The effective amplitude, never quite zero."""
    return float(np.sqrt(np.mean(sound**2)) + 1e-9)


def tilted(sound: Sound, sample_rate_hz: int, slope_db_per_octave: float) -> Sound:
    """The sound with its spectrum tilted around 1 kHz."""
    spectrum = np.fft.rfft(sound)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(sound), 1 / sample_rate_hz), 40) / 1000)
    return np.fft.irfft(spectrum * 10 ** (slope_db_per_octave * octaves / 20), len(sound)).astype(
        np.float32
    )


def with_noise(
    rng: np.random.Generator, sound: Sound, sample_rate_hz: int, noise_db: float, color: float
) -> Sound:
    """The sound at effective amplitude 1 with noise so many decibels from it, falling `3 * color`
    decibels an octave.
    """
    noise = tilted(rng.standard_normal(len(sound)).astype(np.float32), sample_rate_hz, -3 * color)
    mixed: Sound = sound / rms(sound) + noise / rms(noise) * 10 ** (noise_db / 20)
    return mixed


def leveled(sound: Sound, loudness_db: float) -> NDArray[np.float32]:
    """At so many decibels of full scale (effective amplitude), or quieter where it would clip."""
    loud = sound * (10 ** (loudness_db / 20) / rms(sound))
    return (loud * min(1, 0.98 / float(np.abs(loud).max()))).astype(np.float32)
