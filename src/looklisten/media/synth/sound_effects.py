"""The last steps of every synthetic sound: spectral tilt, background noise, level.

Arrays in, arrays out. Knows no class and no file.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

SoundArray = NDArray[np.floating[Any]]
"""A mono waveform, `[samples]`."""

LOWEST_TILTED_HZ = 40
"""Below this frequency the tilt is constant; at 0 Hz its logarithm would be infinite."""

TILT_CENTER_HZ = 1000
"""The frequency that a tilt leaves unchanged."""

PEAK = 0.98
"""The largest sample that a leveled sound may have."""


def rms(sound: SoundArray) -> float:
    """The root mean square of the samples, never quite zero."""
    # Sounds are divided by it, silent ones too.
    return float(np.sqrt(np.mean(sound**2)) + 1e-9)


def fast_size(samples: int) -> int:
    """The next length, `samples` or more, whose Fourier transform is fast."""
    size: int = fft.next_fast_len(samples, real=True)
    return size


# All videos of a set have the same length, so the same few sizes come again and again.
@lru_cache(maxsize=16)
def octaves_from_center(samples: int, sample_rate_hz: int) -> NDArray[np.float32]:
    """How many octaves each frequency of `rfft` lies above 1 kHz; it cannot be written to."""
    frequencies = fft.rfftfreq(samples, 1 / sample_rate_hz)
    octaves = np.log2(np.maximum(frequencies, LOWEST_TILTED_HZ) / TILT_CENTER_HZ)
    octaves = octaves.astype(np.float32)
    octaves.flags.writeable = False
    return octaves


def gains(decibels: SoundArray) -> SoundArray:
    """The factors of these decibels."""
    # exp2 of float32 takes a third of the time of a power of ten.
    factors: SoundArray = np.exp2(decibels * np.float32(np.log2(10) / 20))
    return factors


def tilted(sound: SoundArray, sample_rate_hz: int, decibels_per_octave: float) -> SoundArray:
    """The sound with its spectrum tilted around 1 kHz."""
    size = fast_size(len(sound))
    octaves = octaves_from_center(size, sample_rate_hz)
    spectrum = fft.rfft(sound, size) * gains(octaves * decibels_per_octave)
    tilted_sound: SoundArray = fft.irfft(spectrum, size)[: len(sound)]
    return tilted_sound


def with_noise(
    rng: np.random.Generator,
    sound: SoundArray,
    sample_rate_hz: int,
    noise_db: float,
    noise_slope: float,
) -> SoundArray:
    """The sound at RMS 1, with noise of `noise_db` decibels relative to it.

    The noise falls by `3 * noise_slope` decibels an octave: 0 is white, 1 is pink.
    """
    white = rng.standard_normal(len(sound), dtype=np.float32)
    noise = tilted(white, sample_rate_hz, -3 * noise_slope)
    mixed: SoundArray = sound / rms(sound) + noise / rms(noise) * 10 ** (noise_db / 20)
    return mixed


def leveled(sound: SoundArray, loudness_db: float) -> NDArray[np.float32]:
    """The sound with an RMS of `loudness_db` below full scale, or quieter where it would clip."""
    scaled = sound * (10 ** (loudness_db / 20) / rms(sound))
    peak = float(np.abs(scaled).max())
    return (scaled * min(1, PEAK / peak)).astype(np.float32)
