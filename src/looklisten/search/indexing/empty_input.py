"""Inputs that hold nothing to find: silence, noise, hum, black or uniform frames, random pixels.

Numbers in, decisions out. No network is trained on such inputs, so its answers to them mean
nothing.
"""

from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int16, UInt8
from numpy.typing import NDArray

from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.empty_sounds import MAINS_HZ
from looklisten.media.levels import is_silent

NOISE_WINDOW_SAMPLES = 1024
NOISE_LOWEST_HZ = 100.0
"""Below are hum and offsets; above 16 kHz is what codecs cut off."""
NOISE_THIRDS_OF_OCTAVES = 22
MOST_NOISE_DECIBELS = 0.5
"""How far the spectrum of plain noise is from a straight line. 1,853 seconds of real clips were at
0.56 or more, noise at 0.37 or less (LOG.md)."""
MOST_NOISE_CHANGE = 0.11
"""The deviation of the level over time, as a part of its mean."""

_LEAST_POWER = 1e-9

HUM_LOWEST_HZ, HUM_HIGHEST_HZ = 20.0, 2_000.0
HUM_LINE_HZ = 3.0
"""A line of hum takes so much on both sides of a multiple of the mains' frequency."""
LOUDEST_MULTIPLE = 10
"""The loudest line of hum is one of so many first multiples of the mains' frequency."""
LOW_MULTIPLES = 4
LEAST_LOW_POWER = 0.1
"""Of hum so much of the power is at the first LOW_MULTIPLES, which tells it from a higher tone."""
MOST_MAINS_DEVIATION = 0.005
"""Of the mains' frequency, as a part of it. No low note of a piano lies as near to a multiple."""
MOST_POWER_BESIDE_HUM = 1e-3
"""As a part of all power: 30 dB below it. Of 1,856 seconds of real clips the nearest was 14 dB
below (LOG.md)."""
LAST_LONE_MULTIPLE = 2
"""A single line at a higher multiple is a tone that somebody may look for."""
HUM_SCREEN_SAMPLES = 8
"""The mean of so many samples is one, where most sounds are found to be no hum."""
HUM_SCREEN_TOLERANCE = 5.0
"""So many times as much may be beside the lines there: means dampen lines and fold the rest."""

BLACK_FRAME_LEVEL = 20
"""Of 255: a frame whose brightest parts are not above this is black."""
UNIFORM_DEVIATION = 2.0
"""Of 255: in a frame of one color the pixels deviate by less."""
STILL_DIFFERENCE = 1.0
"""Of 255: the mean difference of small copies of two frames that show the same."""
LEAST_PIXEL_CORRELATION = 0.3
"""Of neighboring pixels. In pictures of anything it is above 0.8, in random pixels it is 0."""


def is_plain_noise(waveform: Int16[np.ndarray, " samples"]) -> bool:
    """Whether a second of sound at 48 kHz is steady white, pink or brown noise and nothing else.

    The spectrum of such noise in decibels is a straight line over the logarithm of the frequency.
    Rain, surf and applause are not so plain, and what is recorded has the shape of a microphone.
    """
    count = len(waveform) // NOISE_WINDOW_SAMPLES
    if count < 2 or is_silent(waveform):
        return False
    windows = waveform[: count * NOISE_WINDOW_SAMPLES].reshape(count, -1).astype(np.float64)
    spectra = np.abs(np.fft.rfft(windows * np.hanning(NOISE_WINDOW_SAMPLES), axis=1)) ** 2
    bins_of_bands = _bins_of_bands()
    power = np.maximum(spectra.mean(0), _LEAST_POWER)
    decibels = np.array([10 * np.log10(power[bins].mean()) for bins in bins_of_bands])
    octaves = np.array([np.log2(bins.mean()) for bins in bins_of_bands])
    # A band of many bins has a more certain level.
    weights = np.array([len(bins) for bins in bins_of_bands])
    line = np.polyval(np.polyfit(octaves, decibels, 1, w=np.sqrt(weights)), octaves)
    distance = float(np.sqrt(np.average((decibels - line) ** 2, weights=weights)))
    # Without whitening, the few bins of the lowest frequencies would decide for pink noise.
    all_bins = np.concatenate(bins_of_bands)
    levels = (spectra[:, all_bins] / power[all_bins]).mean(1)
    change = float(levels.std() / levels.mean())
    return distance <= MOST_NOISE_DECIBELS and change <= MOST_NOISE_CHANGE


def is_plain_hum(waveform: Int16[np.ndarray, " samples"]) -> bool:
    """Whether a second of sound at 48 kHz is hum of the mains and nothing else.

    Its spectrum has lines at multiples of 50 or 60 Hz alone, low ones among them. A recording of a
    humming machine has more in it, and other tones are sounds that one may look for.
    """
    if is_silent(waveform):
        return False
    # An eighth of the rate is enough to refuse nearly all other sounds, in a quarter of the time.
    used_samples = len(waveform) // HUM_SCREEN_SAMPLES * HUM_SCREEN_SAMPLES
    means = waveform[:used_samples].reshape(-1, HUM_SCREEN_SAMPLES).mean(1, dtype=np.float32)
    return _is_hum(
        means, SAMPLE_RATE_HZ // HUM_SCREEN_SAMPLES, HUM_SCREEN_TOLERANCE * MOST_POWER_BESIDE_HUM
    ) and _is_hum(waveform, SAMPLE_RATE_HZ, MOST_POWER_BESIDE_HUM)


def _is_hum(sound: NDArray[Any], rate_hz: int, most_beside: float) -> bool:
    """Whether at most `most_beside` of the power is beside the lines of hum."""
    sound = sound - sound.mean(dtype=np.float64)
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    hz = np.fft.rfftfreq(len(sound), 1 / rate_hz)
    power[hz < HUM_LOWEST_HZ] = 0.0
    most_power = most_beside * power.sum()
    loudest_bin = int(power.argmax())
    around = slice(max(loudest_bin - 2, 0), loudest_bin + 3)
    if not power[around].any():
        return False
    loudest_hz = float(np.average(hz[around], weights=power[around]))
    is_one_line = power[np.abs(hz - loudest_hz) > HUM_LINE_HZ].sum() <= most_power
    for mains_hz in MAINS_HZ:
        multiple = round(loudest_hz / mains_hz)
        if not 1 <= multiple <= (LAST_LONE_MULTIPLE if is_one_line else LOUDEST_MULTIPLE):
            continue
        if abs(loudest_hz / multiple - mains_hz) > MOST_MAINS_DEVIATION * mains_hz:
            continue
        nearest_multiple_hz = mains_hz * np.rint(hz / mains_hz)
        is_beside = (np.abs(hz - nearest_multiple_hz) > HUM_LINE_HZ) | (hz > HUM_HIGHEST_HZ)
        is_low = hz <= LOW_MULTIPLES * mains_hz + HUM_LINE_HZ
        if (
            power[is_beside].sum() <= most_power
            and power[is_low].sum() >= LEAST_LOW_POWER * power.sum()
        ):
            return True
    return False


@cache
def _bins_of_bands() -> list[NDArray[np.intp]]:
    """The bins of the spectrum in each third of an octave that has some."""
    hz = np.fft.rfftfreq(NOISE_WINDOW_SAMPLES, 1 / SAMPLE_RATE_HZ)
    edges = NOISE_LOWEST_HZ * 2 ** (np.arange(NOISE_THIRDS_OF_OCTAVES + 1) / 3)
    bands = np.digitize(hz, edges)
    bins_of_bands = [np.flatnonzero(bands == band) for band in range(1, len(edges))]
    return [bins for bins in bins_of_bands if len(bins)]


def is_black(gray: Float[np.ndarray, "height width"]) -> bool:
    """Whether a frame is black, from a small gray copy of 0..255."""
    return bool(np.percentile(gray, 99) <= BLACK_FRAME_LEVEL)


def is_uniform(gray: Float[np.ndarray, "height width"]) -> bool:
    """Whether a frame has one color all over, from a small gray copy of 0..255."""
    return bool(gray.std() < UNIFORM_DEVIATION)


def is_pixel_noise(pixels: UInt8[np.ndarray, "height width 3"]) -> bool:
    """Whether neighboring pixels of a picture have nothing to do with each other."""
    gray = pixels.mean(2, dtype=np.float64)
    gray -= gray.mean()
    power = float((gray * gray).mean())
    if power < UNIFORM_DEVIATION**2:
        return False
    across = float((gray[:, 1:] * gray[:, :-1]).mean()) / power
    down = float((gray[1:] * gray[:-1]).mean()) / power
    return max(across, down) < LEAST_PIXEL_CORRELATION


def are_equal_pictures(
    first: Float[np.ndarray, "height width"], second: Float[np.ndarray, "height2 width2"]
) -> bool:
    """Whether two frames show the same, from small gray copies of 0..255."""
    if first.shape != second.shape:
        return False
    return float(np.abs(first - second).mean()) < STILL_DIFFERENCE


def are_equal_sounds(
    first: Int16[np.ndarray, " samples"], second: Int16[np.ndarray, " samples"]
) -> bool:
    """Whether two seconds hold the same: both silence, or samples that differ by 40 dB less."""
    if is_silent(first) or is_silent(second):
        return is_silent(first) and is_silent(second)
    difference = first.astype(np.float64) - second.astype(np.float64)
    power = np.square(first.astype(np.float64)).mean()
    return bool(np.square(difference).mean() < 1e-4 * power)
