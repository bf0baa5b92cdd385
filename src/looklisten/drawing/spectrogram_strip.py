"""The spectrogram of a whole video as one strip with its map over it, cut to what a window shows,
and its axis of time.

Built in pieces of a window's length when they are looked at, so that a long video costs no more
than a short one.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from looklisten.drawing.heatmap_colors import overlaid, to_planes
from looklisten.inference.localization.enlarge import enlarged
from looklisten.inference.localization.localize import Localization
from looklisten.media.decode.records import Planes
from looklisten.media.spectrogram import WINDOW_SECONDS

SOUND = colormaps["bone"]
LOOKED_AT = 200
"""Seconds whose loudness sets the contrast, spread over the video."""


class Strip:
    """`height` pixels high, `pixels_per_second` wide a second; where no second was heard it is
    black.
    """

    def __init__(
        self, found: Sequence[Localization], height: int, width: int, window_seconds: float
    ) -> None:
        self.window_seconds, self.pixels_per_second = window_seconds, width / window_seconds
        self._height, self._width = height, width
        self._found = sorted(found, key=_start)
        self._starts = np.array([_start(one) for one in self._found])
        heard = [one.spectrogram for one in self._found[:: -(-len(found) // LOOKED_AT)]]
        self._low, self._high = np.percentile(np.stack(heard), [2, 99.8])
        self._piece = lru_cache(maxsize=2)(self._built)

    def window(self, start_seconds: float) -> Planes:
        """Luma and chroma, at the full resolution, of the window that begins at `start_seconds`."""
        first = round(start_seconds * self.pixels_per_second)
        number, within = divmod(first, self._width)
        pieces = [self._piece(number), *([self._piece(number + 1)] if within else [])]
        y, u, v = (
            np.concatenate(planes, axis=1)[:, within : within + self._width]
            for planes in zip(*pieces, strict=True)
        )
        return y, u, v

    def _built(self, number: int) -> Planes:
        """Overlapping seconds are averaged, those that reach in from the neighboring pieces too."""
        start, second = number * self._width, round(WINDOW_SECONDS * self.pixels_per_second)
        total = np.zeros((3, self._height, self._width + 2 * second), np.float32)
        low, high = ((start + pixels) / self.pixels_per_second for pixels in (-second, self._width))
        for one in self._found[
            np.searchsorted(self._starts, low) : np.searchsorted(self._starts, high)
        ]:
            at = round(_start(one) * self.pixels_per_second) - start + second
            heard = ((one.spectrogram - self._low) / max(self._high - self._low, 1e-6)).clip(0, 1)
            total[:, :, at : at + second] += [
                enlarged(heard, self._height, second),
                enlarged(one.sound_map.values, self._height, second),
                np.ones((self._height, second), np.float32),
            ]
        sound, heat, times = total[:, ::-1, second:-second]
        sound, heat = sound / times.clip(1), heat / times.clip(1)
        picture = (
            overlaid(SOUND(sound)[..., :3].astype(np.float32), heat)
            * np.minimum(times, 1)[..., None]
        )
        return to_planes(picture)


def _start(one: Localization) -> float:
    return one.moment.clip.start_seconds + one.moment.start_seconds


def marks(start_seconds: float, seconds: float, at_most: int) -> NDArray[np.float64]:
    """The round times in a window that an axis names: `at_most` or fewer, so that they have room."""
    step = next(
        step
        for step in (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 3600)
        if seconds / step <= at_most
    )
    return (
        np.arange(
            np.ceil(start_seconds / step - 1e-9),
            np.floor((start_seconds + seconds) / step + 1e-9) + 1,
        )
        * step
    )
