"""Inputs that hold nothing to find: silence, white noise, black or uniform frames, random pixels.

Numbers in, decisions out. No network is trained on such inputs, so its answers to them mean
nothing.
"""

import numpy as np
from jaxtyping import Float, Int16, UInt8

from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.levels import is_silent

NOISE_WINDOW_SAMPLES = 1024
NOISE_BAND_HZ = (100.0, 16_000.0)
"""Below are hum and offsets, above what codecs cut off."""
NOISE_BANDS = 48
LEAST_NOISE_FLATNESS = 0.9
"""Of the spectrum, averaged over a second. Rain, surf and applause are far below it."""
MOST_NOISE_CHANGE = 0.1
"""The deviation of the level over time, as a part of its mean."""

BLACK_FRAME_LEVEL = 20
"""Of 255: a frame whose brightest parts are not above this is black."""
UNIFORM_DEVIATION = 2.0
"""Of 255: in a frame of one color the pixels deviate by less."""
STILL_DIFFERENCE = 1.0
"""Of 255: the mean difference of small copies of two frames that show the same."""
LEAST_PIXEL_CORRELATION = 0.3
"""Of neighboring pixels. In pictures of anything it is above 0.8, in random pixels it is 0."""


def is_white_noise(waveform: Int16[np.ndarray, " samples"]) -> bool:
    """Whether a second of sound at 48 kHz is steady noise with a flat spectrum, and nothing else.

    The flatness is the geometric mean of the power in bands over its arithmetic mean: 1 for white
    noise.
    """
    count = len(waveform) // NOISE_WINDOW_SAMPLES
    if count < 2 or is_silent(waveform):
        return False
    windows = waveform[: count * NOISE_WINDOW_SAMPLES].reshape(count, -1).astype(np.float64)
    spectra = np.abs(np.fft.rfft(windows * np.hanning(NOISE_WINDOW_SAMPLES), axis=1)) ** 2
    hz = np.fft.rfftfreq(NOISE_WINDOW_SAMPLES, 1 / SAMPLE_RATE_HZ)
    in_band = (hz >= NOISE_BAND_HZ[0]) & (hz <= NOISE_BAND_HZ[1])
    power = spectra[:, in_band]
    bands = [band.mean() for band in np.array_split(power.mean(0), NOISE_BANDS)]
    flatness = float(np.exp(np.log(np.maximum(bands, 1e-9)).mean()) / np.mean(bands))
    levels = power.mean(1)
    change = float(levels.std() / levels.mean())
    return flatness >= LEAST_NOISE_FLATNESS and change <= MOST_NOISE_CHANGE


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
