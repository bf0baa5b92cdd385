"""The video of what was found: its own pictures under the glow of the map, its own sound, the
spectrogram with a cursor below.

Maps come from `localize`; between two moments they are mixed in proportion to time. Every frame of
the source is in it once.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from looklisten.drawing.heatmap_colors import overlay_planes
from looklisten.drawing.spectrogram_strip import Strip, marks
from looklisten.errors import ConfigError
from looklisten.inference.localization.localize import Localization
from looklisten.media.decode.records import Planes
from looklisten.media.isolation.readers import read_video_info, redraw_video
from looklisten.media.redraw import VideoInfo
from looklisten.system.progress import Progress, no_progress

LEAST_WIDTH, MOST_SIDE = 480, 1280
"""Smaller pictures are enlarged to so many pixels, larger ones made smaller."""

WINDOW_SECONDS = 10.0
"""How much of the spectrogram is seen at once; in longer videos it passes under the cursor."""

UNHEARD_SECONDS = 0.5
"""So long before the first and after the last sound of a clip a map still holds; beyond, there is
nothing to look for.
"""

BACKGROUND, DIM, BRIGHT = 22, 130, 220
"""Luma of what is around picture and spectrogram, of the axis, and of words and the cursor."""


def overlay(
    source: str | Path,
    found: Sequence[Localization],
    out: str | Path,
    progress: Progress = no_progress,
) -> Path:
    """Write the video `out` (MP4: H.264 with the source's sound) of `found`, what `localize` found
    in the file `source`.

    It has the source's frames at the source's times, each once, and its sound: AAC, MP3, Opus, FLAC
    and their like packet by packet, other sound as AAC. Pictures are at least 480 pixels wide and
    at most 1,280 in either direction. Five maps a second (`every_seconds=0.2`, one for each stored
    frame) look smooth. `out` is there whole or not at all.

    Raises SourceError when the file is no video with picture and sound, ConfigError when there is
    nothing to show.
    """
    if not found:
        raise ConfigError("there are no maps to draw; give what localize found in this video")
    if Path(out).suffix.lower() not in (".mp4", ".m4v"):
        raise ConfigError(
            f"{out}: the overlay is an MP4 file; name it {Path(out).with_suffix('.mp4').name}"
        )
    sheet = _Sheet(read_video_info(source), _Maps(found), found)
    redraw_video(source, out, sheet.picture, sheet.canvas, sheet.draw, progress)
    return Path(out)


def without_pictures(one: Localization, keep_frame: bool = False) -> Localization:
    """The same without the clip's stored frames, nor its own unless `keep_frame`: all that a film
    needs, and small enough to keep for hours of video.
    """
    moment = replace(one.moment, clip=replace(one.moment.clip, frames=(), frame_seconds=()))
    if not keep_frame:
        nothing = moment.frame.new_empty((0, 0, 3))  # not a slice, which would keep all of it
        moment = replace(moment, frame=nothing, vision_input=nothing)
    return replace(one, moment=moment)


class _Maps:
    """The map and the probability at any time."""

    def __init__(self, found: Sequence[Localization]) -> None:
        self._found = sorted(found, key=lambda one: one.at_seconds)
        self._times = np.array([one.at_seconds for one in self._found])
        self._silent = [one.weight == 0 for one in self._found]
        spans = {
            (clip.start_seconds, clip.start_seconds + clip.duration_seconds)
            for clip in (one.moment.clip for one in found)
        }
        self._heard = np.array(sorted(spans))
        self.end_seconds = float(self._heard.max())
        self.dark = np.zeros_like(self._found[0].frame_map.values)

    def at(self, seconds: float) -> tuple[NDArray[np.float32], float | None]:
        """The map, and the probability that sound and picture belong together: None where there is
        nothing to hear.
        """
        if not (
            (self._heard[:, 0] - UNHEARD_SECONDS <= seconds)
            & (seconds <= self._heard[:, 1] + UNHEARD_SECONDS)
        ).any():
            return self.dark, None
        after = int(np.searchsorted(self._times, seconds, side="right"))
        sides = max(after - 1, 0), min(after, len(self._found) - 1)
        before, later = (self._found[side] for side in sides)
        span = later.at_seconds - before.at_seconds
        share = float(np.clip((seconds - before.at_seconds) / span, 0, 1)) if span > 0 else 0.0
        if (
            before.frame_map.values.shape != later.frame_map.values.shape
        ):  # the picture changed its size
            share, before, later = 0.0, *[later if share >= 0.5 else before] * 2
        heat: NDArray[np.float32] = before.frame_map.values + np.float32(share) * (
            later.frame_map.values - before.frame_map.values
        )
        probability = before.probability + share * (later.probability - before.probability)
        return heat, None if self._silent[sides[share >= 0.5]] else probability


class _Sheet:
    """A frame of the film: where everything is, and the drawing of it."""

    def __init__(self, source: VideoInfo, maps: _Maps, found: Sequence[Localization]) -> None:
        scale = min(
            max(1.0, LEAST_WIDTH / source.width), MOST_SIDE / max(source.width, source.height)
        )
        self.picture = _even(source.width * scale), _even(source.height * scale)
        width = max(self.picture[0], LEAST_WIDTH)
        self._font = int(np.clip(width / 42, 13, 20))
        line, strip = _even(2 * self._font), _even(np.clip(0.17 * width, 96, 180))
        self._left = _even((width - self.picture[0]) / 2 - 1) if width > self.picture[0] else 0
        self._margin = _even(self._font)
        self._words, self._top = self.picture[1], self.picture[1] + line
        self._axis = self._top + strip
        self.canvas = width, self._axis + line
        self._maps, self._length = maps, max(source.duration_seconds, maps.end_seconds)
        window = self._length if self._length <= 1.2 * WINDOW_SECONDS else WINDOW_SECONDS
        self._strip = Strip(found, strip, width - 2 * self._margin, window)

    def draw(self, at_seconds: float, picture: Planes, canvas: Planes) -> None:
        for plane, value in zip(canvas, (BACKGROUND, 128, 128), strict=True):
            plane[:] = value
        heat, probability = self._maps.at(at_seconds)
        overlay_planes(picture, heat, _inside(canvas, self._left, 0, *self.picture))
        belongs = (
            "no sound" if probability is None else f"belongs: {probability:.0%}".replace("%", " %")
        )
        middle = self._words + self._font
        self._write(canvas, _clock(at_seconds, 1), self._margin, middle, 0.0, BRIGHT)
        self._write(canvas, belongs, self.canvas[0] - self._margin, middle, 1.0, BRIGHT)
        self._draw_strip(at_seconds, canvas)

    def _draw_strip(self, at_seconds: float, canvas: Planes) -> None:
        strip = self._strip
        start = float(
            np.clip(
                at_seconds - strip.window_seconds / 2,
                0,
                max(self._length - strip.window_seconds, 0),
            )
        )
        luma, blue, red = strip.window(start)
        height, width = luma.shape
        shown = _inside(canvas, self._margin, self._top, width, height)
        for plane, drawn in zip((luma, blue[::2, ::2], red[::2, ::2]), shown, strict=True):
            drawn[:] = plane
        cursor = min(int((at_seconds - start) * strip.pixels_per_second / 2), width // 2 - 1)
        for plane, value, columns in zip(shown, (BRIGHT, 128, 128), (2, 1, 1), strict=True):
            plane[:, cursor * columns : (cursor + 1) * columns] = value
        for second in marks(start, strip.window_seconds, width // (5 * self._font)):
            x = self._margin + round((second - start) * strip.pixels_per_second)
            canvas[0][self._axis : self._axis + 4, min(x, self._margin + width - 1)] = DIM
            self._write(
                canvas,
                _clock(second, 0 if second % 1 == 0 else 1),
                x,
                self._axis + self._font + 2,
                0.5,
                DIM,
            )

    def _write(
        self, canvas: Planes, words: str, x: int, middle: int, anchor: float, luma: int
    ) -> None:
        """Words around `middle`, of which the share `anchor` lies left of `x`; moved inwards where
        they would leave the canvas.
        """
        letters = _letters(words, self._font)
        height, width = letters.shape
        left, top = (
            int(np.clip(x - anchor * width, 2, self.canvas[0] - width - 2)),
            middle - height // 2,
        )
        place = canvas[0][top : top + height, left : left + width]
        np.maximum(
            place, BACKGROUND + (letters * ((luma - BACKGROUND) / 255)).astype(np.uint8), out=place
        )


def _inside(canvas: Planes, left: int, top: int, width: int, height: int) -> Planes:
    """The planes of an even rectangle."""
    y, u, v = (
        plane[top // share : (top + height) // share, left // share : (left + width) // share]
        for plane, share in zip(canvas, (1, 2, 2), strict=True)
    )
    return y, u, v


def _even(pixels: float) -> int:
    return 2 * max(round(pixels / 2), 1)


def _clock(seconds: float, decimals: int) -> str:
    """Minutes and seconds, and hours where there are some."""
    tenths = int(seconds * 10 + 1e-6)
    minutes, rest = divmod(tenths, 600)
    told = f"{rest // 10:02d}" + (f".{rest % 10}" if decimals else "")
    return f"{minutes // 60}:{minutes % 60:02d}:{told}" if minutes >= 60 else f"{minutes}:{told}"


@lru_cache(maxsize=256)
def _letters(words: str, size: int) -> NDArray[np.uint8]:
    """Words as coverage in 0..255, in the font that comes with matplotlib; all of one height."""
    font = ImageFont.truetype(
        str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size
    )
    image = Image.new("L", (round(font.getlength(words)) + 1, round(1.3 * size)))
    ImageDraw.Draw(image).text((0, image.height / 2), words, fill=255, font=font, anchor="lm")
    return np.asarray(image)
