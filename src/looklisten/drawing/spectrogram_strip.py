"""The spectrogram of a whole video with its heat maps over it, one visible part at a time.

It is drawn in sections as wide as the visible part, when they are needed. So a long video needs no
more memory than a short one. Knows localizations, no file.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from looklisten.drawing.heatmap_colors import FloatArray, RgbImage, overlay_image, rgb_to_planes
from looklisten.inference.localization.enlarge import enlarge_map
from looklisten.inference.localization.records import Localization
from looklisten.media.decode.records import Planes
from looklisten.media.spectrogram import WINDOW_SECONDS

SPECTROGRAM_COLORS = colormaps["bone"]

CONTRAST_MOMENTS = 200
"""Moments whose levels set the contrast, spread over the video."""

CONTRAST_PERCENTILES = (2, 99.8)
"""The darkest and the brightest level; one click does not make everything else dark."""

TICK_STEPS_SECONDS = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 3600)


class ScrollingSpectrogram:
    """Visible parts of a spectrogram, each `visible_seconds` long.

    A part is `height` x `width` pixels. It is black where no moment has sound. `localizations`: at
    least one, in any order.
    """

    def __init__(
        self,
        localizations: Sequence[Localization],
        height: int,
        width: int,
        visible_seconds: float,
    ) -> None:
        self.visible_seconds = visible_seconds
        self.pixels_per_second = width / visible_seconds
        self._height = height
        self._width = width
        self._localizations = sorted(localizations, key=_start_seconds)
        self._starts = np.array([_start_seconds(item) for item in self._localizations])
        every = math.ceil(len(localizations) / CONTRAST_MOMENTS)
        spectrograms = [item.spectrogram for item in self._localizations[::every]]
        low, high = np.percentile(np.stack(spectrograms), CONTRAST_PERCENTILES)
        self._low = low
        self._high = high
        # A visible part is as wide as a section, so it lies in two sections at most.
        self._section = lru_cache(maxsize=2)(self._draw_section)

    def visible_part(self, start_seconds: float) -> Planes:
        """The part that begins at `start_seconds`: luma and chroma, each `[height, width]`.

        Unlike in a frame of a video, chroma has the full resolution.
        """
        number, offset = divmod(round(start_seconds * self.pixels_per_second), self._width)
        luma, blue, red = self._section(number)
        if not offset:
            return luma, blue, red
        next_luma, next_blue, next_red = self._section(number + 1)
        columns = slice(offset, offset + self._width)
        return (
            np.concatenate([luma, next_luma], axis=1)[:, columns],
            np.concatenate([blue, next_blue], axis=1)[:, columns],
            np.concatenate([red, next_red], axis=1)[:, columns],
        )

    def _draw_section(self, number: int) -> Planes:
        """Section `number` of the spectrogram, `width` pixels wide, as planes."""
        first_pixel = number * self._width
        window = round(WINDOW_SECONDS * self.pixels_per_second)
        # A window more on either side, for moments that begin or end in a neighboring section.
        shape = (self._height, self._width + 2 * window)
        sound_sum = np.zeros(shape, np.float32)
        heat_sum = np.zeros(shape, np.float32)
        count = np.zeros(shape, np.float32)
        for localization in self._between(first_pixel - window, first_pixel + self._width):
            start_pixel = round(_start_seconds(localization) * self.pixels_per_second)
            left = start_pixel - first_pixel + window
            columns = slice(left, left + window)
            levels = stretch_contrast(localization.spectrogram, self._low, self._high)
            sound_sum[:, columns] += enlarge_map(levels, self._height, window)
            heat_sum[:, columns] += localization.sound_map.enlarged(self._height, window)
            count[:, columns] += 1
        # Row 0 holds the lowest frequency. Reversed, it is at the bottom.
        inside = slice(window, -window)
        count = count[::-1, inside]
        # Windows of neighboring moments overlap, so each pixel is a mean.
        sound = sound_sum[::-1, inside] / count.clip(1)
        heat = heat_sum[::-1, inside] / count.clip(1)
        spectrogram: RgbImage = SPECTROGRAM_COLORS(sound)[..., :3].astype(np.float32)
        has_sound = np.minimum(count, 1)[..., None]
        return rgb_to_planes(overlay_image(spectrogram, heat) * has_sound)

    def _between(self, first_pixel: int, stop_pixel: int) -> Sequence[Localization]:
        """The localizations whose second of sound begins in [first_pixel, stop_pixel)."""
        first = np.searchsorted(self._starts, first_pixel / self.pixels_per_second)
        stop = np.searchsorted(self._starts, stop_pixel / self.pixels_per_second)
        return self._localizations[first:stop]


def stretch_contrast(values: FloatArray, low: float, high: float) -> NDArray[Any]:
    """Values from `low` to `high` as 0..1."""
    # A silent sound has equal values.
    span = max(high - low, 1e-6)
    stretched: NDArray[Any] = (values - low) / span
    return stretched.clip(0, 1)


def _start_seconds(localization: Localization) -> float:
    return localization.sound_start_seconds


def axis_ticks(start_seconds: float, seconds: float, most_steps: int) -> NDArray[np.float64]:
    """The times to label on an axis of `seconds`, in seconds: multiples of one step.

    The step is the smallest of TICK_STEPS_SECONDS of which at most `most_steps` cover the axis. So
    labels as wide as the axis / `most_steps` do not overlap. The largest step must be enough.
    """
    step = next(step for step in TICK_STEPS_SECONDS if seconds / step <= most_steps)
    # Rounding must not lose a tick that lies exactly on an end.
    first = np.ceil(start_seconds / step - 1e-9)
    last = np.floor((start_seconds + seconds) / step + 1e-9)
    return np.arange(first, last + 1) * step
