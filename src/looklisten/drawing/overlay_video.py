"""The overlay video: each frame with its heat map over it, the spectrogram below, the sound.

Between two maps, the heat map is interpolated linearly in time. Every frame of the source is
in the video once. Knows localizations and pixels, no network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from looklisten.drawing.heatmap_colors import FloatArray, overlay_planes
from looklisten.drawing.spectrogram_strip import ScrollingSpectrogram, axis_ticks
from looklisten.errors import ConfigError
from looklisten.inference.localization.records import Localization
from looklisten.media.decode.records import Planes
from looklisten.media.isolation.readers import read_video_info, redraw_video
from looklisten.media.redraw import VideoInfo
from looklisten.system.progress import Progress, no_progress

MIN_WIDTH_PIXELS = 480
MAX_SIDE_PIXELS = 1280
"""Narrower frames are enlarged to the minimum width; no side of a frame exceeds the maximum."""

SCROLL_SECONDS = 10.0
"""Visible length of the spectrogram of longer videos, which scrolls."""

FULL_VIEW_SECONDS = 1.2 * SCROLL_SECONDS
"""The spectrogram of a video up to this length is visible as a whole."""

HOLD_SECONDS = 0.5
"""Maps are also shown this long before the start and after the end of a clip."""

# Luma of the canvas, of the axis, and of text and cursor.
BACKGROUND_LUMA = 22
AXIS_LUMA = 130
TEXT_LUMA = 220

NO_COLOR = 128
"""Chroma of gray."""


def overlay(
    source: str | Path,
    localizations: Sequence[Localization],
    out: str | Path,
    progress: Progress = no_progress,
    video_info: VideoInfo | None = None,
) -> Path:
    """Write the video `out` (MP4, H.264) with the maps that `localize` gave for the file `source`.

    It has all frames of the source at their times, and its sound. Sound in AAC, MP3, Opus, FLAC and
    similar codecs is copied, other sound becomes AAC. The video is at least 480 pixels wide. Narrow
    frames are enlarged to that width, but no side of a frame exceeds 1,280 pixels. Five maps per
    second (`every_seconds=0.2`) look smooth. When writing fails, no file is left. Without
    `video_info` the file is opened once more for it.

    Raises SourceError when the file has no video with sound, ConfigError when `localizations` is
    empty or `out` does not end in .mp4 or .m4v.
    """
    if not localizations:
        raise ConfigError("there are no maps to draw; pass what ll.localize gave for this video")
    if Path(out).suffix.lower() not in (".mp4", ".m4v"):
        mp4_name = Path(out).with_suffix(".mp4").name
        raise ConfigError(f"{out}: the overlay is an MP4 file; name it {mp4_name}")
    canvas = _Canvas(video_info or read_video_info(source), localizations)
    redraw_video(source, out, canvas.frame_size, canvas.size, canvas.draw, progress)
    return Path(out)


@dataclass(frozen=True, eq=False)
class _FrameHeat:
    """What is drawn over the frame of one time."""

    heat: FloatArray
    probability: float | None
    """Probability that frame and sound correspond; None where there is no sound."""


class _Timeline:
    """The map and the probability at any time of the video."""

    def __init__(self, localizations: Sequence[Localization]) -> None:
        self._localizations = sorted(localizations, key=lambda item: item.at_seconds)
        self._times = np.array([item.at_seconds for item in self._localizations])
        clips = {item.clip_seconds for item in localizations}
        self._clip_starts = np.array([start for start, _ in clips])
        self._clip_ends = np.array([end for _, end in clips])
        self.end_seconds = float(self._clip_ends.max())
        self._no_heat = np.zeros_like(self._localizations[0].frame_map.values)

    def at(self, seconds: float) -> _FrameHeat:
        if not self._has_sound(seconds):
            return _FrameHeat(self._no_heat, None)
        after = int(np.searchsorted(self._times, seconds, side="right"))
        before = self._localizations[max(after - 1, 0)]
        later = self._localizations[min(after, len(self._localizations) - 1)]
        span_seconds = later.at_seconds - before.at_seconds
        share = 0.0
        if span_seconds > 0:
            share = float(np.clip((seconds - before.at_seconds) / span_seconds, 0, 1))
        nearest = later if share >= 0.5 else before
        if before.frame_map.values.shape != later.frame_map.values.shape:
            # The video changes the size of its frames here, so the two maps cannot be mixed.
            share = 0.0
            before = later = nearest
        difference = later.frame_map.values - before.frame_map.values
        heat: FloatArray = before.frame_map.values + np.float32(share) * difference
        probability = before.probability + share * (later.probability - before.probability)
        return _FrameHeat(heat, None if nearest.weight == 0 else probability)

    def _has_sound(self, seconds: float) -> bool:
        is_after_start = seconds >= self._clip_starts - HOLD_SECONDS
        is_before_end = seconds <= self._clip_ends + HOLD_SECONDS
        return bool((is_after_start & is_before_end).any())


class _Canvas:
    """One frame of the overlay video: its layout, and drawing it."""

    def __init__(self, source: VideoInfo, localizations: Sequence[Localization]) -> None:
        self._timeline = _Timeline(localizations)
        self._length_seconds = max(source.duration_seconds, self._timeline.end_seconds)
        # The frame is at the top, in the middle of the width.
        enlargement = max(1.0, MIN_WIDTH_PIXELS / source.width)
        reduction = MAX_SIDE_PIXELS / max(source.width, source.height)
        scale = min(enlargement, reduction)
        self.frame_size = (_even(source.width * scale), _even(source.height * scale))
        frame_width, frame_height = self.frame_size
        width = max(frame_width, MIN_WIDTH_PIXELS)
        self._frame_left = _even((width - frame_width) / 2 - 1) if width > frame_width else 0
        # Below the frame: a line of text, the spectrogram, the labels of its time axis.
        self._font_pixels = int(np.clip(width / 42, 13, 20))
        self._margin = _even(self._font_pixels)
        line_height = _even(2 * self._font_pixels)
        spectrogram_height = _even(np.clip(0.17 * width, 96, 180))
        self._text_top = frame_height
        self._spectrogram_top = self._text_top + line_height
        self._axis_top = self._spectrogram_top + spectrogram_height
        self.size = (width, self._axis_top + line_height)
        visible_seconds = SCROLL_SECONDS
        if self._length_seconds <= FULL_VIEW_SECONDS:
            visible_seconds = self._length_seconds
        self._spectrogram = ScrollingSpectrogram(
            localizations, spectrogram_height, width - 2 * self._margin, visible_seconds
        )

    def draw(self, at_seconds: float, frame: Planes, canvas: Planes) -> None:
        """Fill the planes `canvas` for the frame of time `at_seconds`."""
        for plane, value in zip(canvas, (BACKGROUND_LUMA, NO_COLOR, NO_COLOR), strict=True):
            plane[:] = value
        frame_heat = self._timeline.at(at_seconds)
        frame_area = _rectangle(canvas, self._frame_left, 0, *self.frame_size)
        overlay_planes(frame, frame_heat.heat, frame_area)
        answer = "no sound"
        if frame_heat.probability is not None:
            answer = f"corresponds: {round(100 * frame_heat.probability)} %"
        middle = self._text_top + self._font_pixels
        right = self.size[0] - self._margin
        self._write(canvas, _clock(at_seconds, 1), self._margin, middle, 0.0, TEXT_LUMA)
        self._write(canvas, answer, right, middle, 1.0, TEXT_LUMA)
        self._draw_spectrogram(at_seconds, canvas)

    def _draw_spectrogram(self, at_seconds: float, canvas: Planes) -> None:
        spectrogram = self._spectrogram
        # The cursor is in the middle, except near the ends of the video.
        latest_start = max(self._length_seconds - spectrogram.visible_seconds, 0)
        centered_start = at_seconds - spectrogram.visible_seconds / 2
        start_seconds = float(np.clip(centered_start, 0, latest_start))
        luma, blue, red = spectrogram.visible_part(start_seconds)
        height, width = luma.shape
        area = _rectangle(canvas, self._margin, self._spectrogram_top, width, height)
        area[0][:] = luma
        area[1][:] = blue[::2, ::2]
        area[2][:] = red[::2, ::2]
        # The cursor is one column of chroma wide, which is two of luma.
        cursor = int((at_seconds - start_seconds) * spectrogram.pixels_per_second / 2)
        cursor = min(cursor, width // 2 - 1)
        area[0][:, 2 * cursor : 2 * cursor + 2] = TEXT_LUMA
        area[1][:, cursor] = NO_COLOR
        area[2][:, cursor] = NO_COLOR
        label_count = width // (5 * self._font_pixels)
        last_column = self._margin + width - 1
        text_middle = self._axis_top + self._font_pixels + 2
        for tick in axis_ticks(start_seconds, spectrogram.visible_seconds, label_count):
            offset = round((tick - start_seconds) * spectrogram.pixels_per_second)
            x = self._margin + offset
            canvas[0][self._axis_top : self._axis_top + 4, min(x, last_column)] = AXIS_LUMA
            decimals = 0 if tick % 1 == 0 else 1
            self._write(canvas, _clock(tick, decimals), x, text_middle, 0.5, AXIS_LUMA)

    def _write(
        self, canvas: Planes, text: str, x: int, middle: int, anchor: float, luma: int
    ) -> None:
        """Write `text`, vertically centered at `middle`. `anchor`: 0 puts its left edge at `x`, 0.5
        its center, 1 its right edge.

        Text that would leave the canvas is moved inwards.
        """
        coverage = _text_coverage(text, self._font_pixels)
        height, width = coverage.shape
        rightmost = self.size[0] - width - 2
        left = int(np.clip(x - anchor * width, 2, rightmost))
        top = middle - height // 2
        area = canvas[0][top : top + height, left : left + width]
        contrast = (luma - BACKGROUND_LUMA) / 255
        brightness = (coverage * contrast).astype(np.uint8)
        np.maximum(area, BACKGROUND_LUMA + brightness, out=area)


def _rectangle(canvas: Planes, left: int, top: int, width: int, height: int) -> Planes:
    """Views of the planes inside a rectangle. Its position and size must be even."""
    luma, blue, red = canvas
    rows = slice(top, top + height)
    columns = slice(left, left + width)
    chroma_rows = slice(top // 2, (top + height) // 2)
    chroma_columns = slice(left // 2, (left + width) // 2)
    return (
        luma[rows, columns],
        blue[chroma_rows, chroma_columns],
        red[chroma_rows, chroma_columns],
    )


def _even(pixels: float) -> int:
    # Chroma has half the resolution of luma, so sizes and positions are even.
    return 2 * max(round(pixels / 2), 1)


def _clock(seconds: float, decimals: int) -> str:
    """A time as minutes:seconds, or hours:minutes:seconds; with one decimal or none."""
    tenths = int(seconds * 10 + 1e-6)
    minutes, tenths = divmod(tenths, 600)
    clock = f"{tenths // 10:02d}"
    if decimals:
        clock += f".{tenths % 10}"
    if minutes < 60:
        return f"{minutes}:{clock}"
    return f"{minutes // 60}:{minutes % 60:02d}:{clock}"


@lru_cache(maxsize=256)
def _text_coverage(text: str, size: int) -> NDArray[np.uint8]:
    """How much of each pixel the text covers, 0..255; all texts of one size have one height."""
    # Matplotlib brings this font, so it is on every machine.
    font_file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ImageFont.truetype(str(font_file), size)
    width = round(font.getlength(text)) + 1
    height = round(1.3 * size)
    image = Image.new("L", (width, height))
    drawer = ImageDraw.Draw(image)
    drawer.text((0, image.height / 2), text, fill=255, font=font, anchor="lm")
    return np.asarray(image)
