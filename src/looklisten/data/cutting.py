"""One source -> its clips: stretches of at most ten seconds with both frames and sound.

Each clip has marks for what is wrong with it. It holds about one clip in memory, and
more where frames and sound are far apart in the file. Knows decoding and the record `Clip`; no
shard and no other source.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from looklisten.data.clips import Clip, VideoBox
from looklisten.data.options import CLIP_MARKS, PrepareOptions
from looklisten.data.sources import Source
from looklisten.errors import SourceError, TooShortError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.decode import decode_media
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import AudioChunk, DecodeReport, Frame
from looklisten.media.decode.video import HOLD_BINS
from looklisten.media.levels import is_silent

CLIPPED_SHARE = 0.001
"""A clip is clipped if more than this share of its samples is at full scale."""

BRIGHTNESS_CELLS = 16
"""Stillness and blackness are measured on a grid of so many cells in each direction."""

STILL_LEVELS = 2.0
"""A clip is still if the mean brightness of no cell changes by this much of 255."""

BLACK_LEVEL = 10.0
"""A clip is black if no cell is ever as bright as this of 255."""

SHORT_SECONDS = 2.0
"""A clip is short if two seconds of sound next to each other do not fit."""

SOUND_BEFORE_PICTURE = "sound before the picture begins"
SOUND_AFTER_PICTURE = "sound after the picture ends"
PICTURE_WITHOUT_SOUND = "picture without sound"
SHORTER_THAN_A_CLIP = "shorter than a clip"
TOO_FAR_APART = "picture and sound too far apart in the file"
"""Reasons in `ClipCutter.lost_seconds`; `media.decode.records` has those of decoding."""

MIN_LOST_SECONDS = 0.1
"""A smaller loss is the padding of a codec or the length of a frame, and is not counted."""

MAX_APART_SECONDS = 600.0
"""So far apart frames and sound of one moment may be in a file: memory holds what is between."""

MAX_WAITING_SOUND_SECONDS = 1800.0
"""So much sound waits in memory for the next frame: a slide may be on screen for this long."""

ROUNDING_SAMPLES = 1e-6
"""Times are floats: a count of samples this near to a whole number is that number."""

ROUNDING_SECONDS = 1e-9

SecondsSpan = tuple[float, float]
"""From second to second of the video."""


def cut(
    path: str | Path,
    source: Source,
    options: PrepareOptions,
    boxes: Sequence[VideoBox] = (),
    report: DecodeReport | None = None,
    max_clips: int | None = None,
) -> Iterator[Clip]:
    """The clips of one video; see `ClipCutter.cut`. The decoder writes `report`."""
    return ClipCutter(source, options, boxes, report or DecodeReport()).cut(path, max_clips)


@dataclass
class _Stretch:
    """Sound without a gap: the first sample is at `start_seconds`."""

    start_seconds: float
    chunks: deque[NDArray[np.int16]] = field(default_factory=deque)
    samples: int = 0

    def add(self, samples: NDArray[np.float32]) -> None:
        # Full scale, 1.0, becomes 32,768, which is one more than int16 holds.
        scaled = np.rint(samples * 2.0**15)
        self.chunks.append(np.clip(scaled, -(2**15), 2**15 - 1).astype(np.int16))
        self.samples += len(samples)

    def cut(self, samples: int) -> NDArray[np.int16]:
        """Take the first `samples` off."""
        # Only what is taken is copied: half an hour may wait here.
        taken = [np.zeros(0, np.int16)]
        missing = samples
        while missing and self.chunks:
            chunk = self.chunks.popleft()
            taken.append(chunk[:missing])
            if len(chunk) > missing:
                self.chunks.appendleft(chunk[missing:])
            missing -= len(taken[-1])
        self.samples -= samples - missing
        self.start_seconds += samples / SAMPLE_RATE_HZ
        return np.concatenate(taken)


@dataclass(frozen=True)
class _JpegFrame:
    at_seconds: float
    jpeg: bytes
    grid: NDArray[np.float32]
    """The mean brightness of each cell."""

    @classmethod
    def of(cls, frame: Frame, quality: int) -> "_JpegFrame":
        """Compressed at once, because a frame may wait in memory for its sound."""
        return cls(frame.at_seconds, frame.jpeg(quality), _brightness(frame.planes[0]))


@dataclass
class ClipCutter:
    """Cuts one source, and keeps its frames and sound that are not in a clip yet."""

    source: Source
    options: PrepareOptions
    boxes: Sequence[VideoBox] = ()
    report: DecodeReport = field(default_factory=DecodeReport)
    """Of the decoder, which writes it."""
    clip_count: int = 0
    """How many clips were cut so far."""
    lost_in_cutting: dict[str, float] = field(default_factory=dict)
    """Seconds that were decoded and that no clip holds, by reason."""
    cutting_stop_reason: str = ""
    """Why cutting ended before the end of the file; empty if it did not."""
    frames: deque[_JpegFrame] = field(default_factory=deque)
    stretches: deque[_Stretch] = field(default_factory=deque)
    last_frame: _JpegFrame | None = None
    """The last frame before the first of `frames`: it is on screen until that one comes."""
    first_frame_seconds: float = np.inf
    sound_spans: list[SecondsSpan] = field(default_factory=list)
    """Where there is sound."""
    clip_spans: list[SecondsSpan] = field(default_factory=list)
    """What is in a clip."""
    dropped_sound_spans: list[SecondsSpan] = field(default_factory=list)
    """Sound that was left out because no frame came for too long."""
    frames_dropped_until_seconds: float = -np.inf
    """Frames before this were left out because no sound came for too long."""
    longest_seconds: float = 0.0
    """The longest stretch that was too short for a clip."""
    damaged_count: int = 0
    """What of the report's damage is in clips already."""

    @property
    def stop_reason(self) -> str:
        """Why cutting or decoding ended before the end of the file; empty if neither did."""
        return self.cutting_stop_reason or self.report.stop_reason

    @property
    def lost_seconds(self) -> dict[str, float]:
        """Seconds that no clip holds, by reason: lost in decoding or in cutting."""
        return self.report.lost_seconds | self.lost_in_cutting

    def cut(self, path: str | Path, max_clips: int | None = None) -> Iterator[Clip]:
        """The clips of the file: consecutive stretches of `clip_seconds` with frames and sound.

        `path` is where the file is. A remainder shorter than `min_clip_seconds` is left out. If
        reading or cutting ends early (`stop_reason`), or `max_clips` are cut, the last clip is
        marked "truncated". `lost_seconds` is known at the end, also if an error is raised.

        Raises SourceError if the file is no video with image and sound, TooShortError if the two
        share less than a clip needs.
        """
        # The last clip waits, because only the end tells whether the file was complete.
        waiting: Clip | None = None
        # Frames and sound arrive in the order of the file; None comes after the last.
        events = decode_media(path, _decode_options(self.options, self.source), self.report)
        for event in chain(events, [None]):
            if isinstance(event, Frame):
                self.first_frame_seconds = min(self.first_frame_seconds, event.at_seconds)
                self.frames.append(_JpegFrame.of(event, self.options.jpeg_quality))
            elif event:
                self._add_sound(event)
            if event:
                self._limit_memory(event)
            is_over = event is None or bool(self.stop_reason)
            while self.clip_count != max_clips and (seconds := self._next_clip_seconds(is_over)):
                if waiting:
                    yield waiting
                waiting = self._next_clip(seconds)
                self.clip_count += 1
            if is_over or self.clip_count == max_clips:
                break
        is_truncated = self.clip_count == max_clips or bool(self.stop_reason)
        # After `max_clips` the rest of the file was not decoded, so its losses are not known.
        if self.clip_count != max_clips:
            self._count_lost()
        if not waiting:
            raise self._no_clip_error(path)
        if is_truncated:
            waiting = replace(waiting, marks=(*waiting.marks, "truncated"))
        yield waiting

    def _no_clip_error(self, path: str | Path) -> SourceError:
        reason = self.stop_reason or self.report.last_error
        sentence = (
            f"{path}: picture and sound share {self.longest_seconds:.3f} s, "
            f"a clip needs {self.options.min_clip_seconds:g} s{f'; {reason}' if reason else ''}"
        )
        # Skipped means that nothing is wrong with the file. So a damaged one fails, however short.
        is_damaged = self.stop_reason or self.report.damaged_count
        return SourceError(sentence) if is_damaged else TooShortError(sentence)

    def _add_sound(self, chunk: AudioChunk) -> None:
        last_seconds = self.sound_spans[-1][1] if self.sound_spans else -np.inf
        # Half a sample, because times are computed in floats: less is rounding and no gap.
        has_gap = chunk.start_seconds > last_seconds + 0.5 / SAMPLE_RATE_HZ
        # Without a gap a new stretch begins only when the last one is used up.
        if has_gap or not self.stretches:
            self.stretches.append(_Stretch(chunk.start_seconds))
        if has_gap:
            self.sound_spans.append((chunk.start_seconds, chunk.end_seconds))
        self.stretches[-1].add(chunk.samples)
        self.sound_spans[-1] = (self.sound_spans[-1][0], chunk.end_seconds)

    def _limit_memory(self, event: Frame | AudioChunk) -> None:
        """Drop the oldest frame or sound when too much of it waits for the other."""
        if self._comes_too_late(event):
            self.cutting_stop_reason = (
                f"picture and sound of one moment lie more than {MAX_APART_SECONDS:g} s apart "
                "in the file"
            )
        while self.frames and self._waiting_frame_seconds() > MAX_APART_SECONDS:
            self.last_frame = self.frames.popleft()
            self.frames_dropped_until_seconds = self.last_frame.at_seconds
        waiting_samples = sum(stretch.samples for stretch in self.stretches)
        if waiting_samples / SAMPLE_RATE_HZ > MAX_WAITING_SOUND_SECONDS:
            self._drop_oldest_second_of_sound()

    def _comes_too_late(self, event: Frame | AudioChunk) -> bool:
        """Whether what belongs to the event was dropped already."""
        if isinstance(event, Frame):
            if not self.dropped_sound_spans:
                return False
            return event.at_seconds < self.dropped_sound_spans[-1][1] - MIN_LOST_SECONDS
        return event.start_seconds < self.frames_dropped_until_seconds - MIN_LOST_SECONDS

    def _waiting_frame_seconds(self) -> float:
        return self.frames[-1].at_seconds - self.frames[0].at_seconds

    def _drop_oldest_second_of_sound(self) -> None:
        oldest = self.stretches[0]
        begin = oldest.start_seconds
        oldest.cut(min(oldest.samples, SAMPLE_RATE_HZ))
        follows_last_span = (
            bool(self.dropped_sound_spans) and self.dropped_sound_spans[-1][1] == begin
        )
        if follows_last_span:
            begin = self.dropped_sound_spans.pop()[0]
        self.dropped_sound_spans.append((begin, oldest.start_seconds))
        if not oldest.samples:
            self.stretches.popleft()

    def _next_clip_seconds(self, is_over: bool) -> float | None:
        """How long the next clip is, from the beginning of the first stretch; None: not known yet.

        What no clip can hold is dropped. `is_over`: no more frames or sound will come.
        """
        while self.stretches and np.isfinite(self.first_frame_seconds):
            stretch = self.stretches[0]
            is_closed = is_over or len(self.stretches) > 1
            early_seconds = self.first_frame_seconds - stretch.start_seconds
            early_samples = int(np.ceil(early_seconds * SAMPLE_RATE_HZ - ROUNDING_SAMPLES))
            if early_samples > 0:  # sound before the first frame
                if early_samples > stretch.samples and not is_closed:
                    return None
                stretch.cut(min(early_samples, stretch.samples))
            # These frames have no sound. The last one is still on screen when the sound begins.
            while self.frames and self.frames[0].at_seconds < stretch.start_seconds:
                self.last_frame = self.frames.popleft()
            frame_seconds = self.report.video_end_seconds - stretch.start_seconds
            shared_seconds = min(stretch.samples / SAMPLE_RATE_HZ, frame_seconds)
            if shared_seconds >= self.options.clip_seconds:
                return self.options.clip_seconds
            sound_is_used_up = is_closed and shared_seconds < frame_seconds
            if not is_over and not sound_is_used_up:
                return None
            # So that a stretch of just the minimum is not lost to rounding.
            if shared_seconds >= self.options.min_clip_seconds - ROUNDING_SECONDS:
                return shared_seconds
            self.longest_seconds = max(shared_seconds, self.longest_seconds)
            self.stretches.popleft()
        return None

    def _count_lost(self) -> None:
        """Count, by reason, what of the decoded frames and sound no clip holds."""
        start_seconds = self.source.start_seconds or 0.0
        video_end = max(self.report.video_end_seconds, start_seconds)
        video_start = max(min(self.first_frame_seconds, video_end), start_seconds)
        shared_seconds = _length(_within(self.sound_spans, video_start, video_end))
        apart_seconds = _length(_within(self.dropped_sound_spans, video_start, video_end))
        clip_seconds = _length(self.clip_spans)
        lost = {
            SOUND_BEFORE_PICTURE: _length(_within(self.sound_spans, -np.inf, video_start)),
            SOUND_AFTER_PICTURE: _length(_within(self.sound_spans, video_end, np.inf)),
            PICTURE_WITHOUT_SOUND: video_end - video_start - shared_seconds,
            TOO_FAR_APART: apart_seconds,
            SHORTER_THAN_A_CLIP: shared_seconds - apart_seconds - clip_seconds,
        }
        for reason, seconds in lost.items():
            if seconds > MIN_LOST_SECONDS:
                self.lost_in_cutting[reason] = seconds

    def _next_clip(self, seconds: float) -> Clip:
        """The clip of so many seconds at the beginning of the first stretch."""
        stretch = self.stretches[0]
        # Sound may begin before time 0, by the padding of its codec.
        start = max(stretch.start_seconds, 0.0)
        waveform = stretch.cut(int(seconds * SAMPLE_RATE_HZ + ROUNDING_SAMPLES))
        end = stretch.start_seconds
        # A shorter clip is the last one of its stretch.
        if seconds < self.options.clip_seconds:
            self.stretches.popleft()
        self.clip_spans.append((start, end))
        frames = self._frames_of_clip(start, end)
        # Damage since the last clip belongs to this one.
        is_damaged = self.report.damaged_count > self.damaged_count
        self.damaged_count = self.report.damaged_count
        is_duplicate = bool(self.source.same_as)
        grids = np.stack([frame.grid for frame in frames])
        boxes = [box for box in self.boxes if start <= box.video_seconds < end]
        return Clip(
            key=f"{self.source.path}@{start:.3f}",
            video_id=self.source.video_id or self.source.path,
            source=self.source.path,
            start_seconds=start,
            frame_seconds=tuple(frame.at_seconds - start for frame in frames),
            frames=tuple(frame.jpeg for frame in frames),
            waveform=waveform,
            sample_rate_hz=SAMPLE_RATE_HZ,
            labels=self.source.labels,
            split=self.source.split,
            boxes=tuple(box.in_clip(start) for box in boxes),
            marks=_clip_marks(grids, waveform, is_duplicate, is_damaged, self.report.flags),
        )

    def _frames_of_clip(self, start: float, end: float) -> list[_JpegFrame]:
        """The frames between two times, with the one that is on screen at the start."""
        frames = []
        while self.frames and self.frames[0].at_seconds < end:
            frames.append(self.frames.popleft())
        longest_wait = HOLD_BINS / self.options.frames_per_second
        comes_late = not frames or frames[0].at_seconds - start > longest_wait
        # A slide stays on screen until the next one comes.
        if self.last_frame and comes_late:
            frames.insert(0, replace(self.last_frame, at_seconds=start))
        self.last_frame = frames[-1]
        return frames


def _decode_options(options: PrepareOptions, source: Source) -> DecodeOptions:
    return DecodeOptions(
        frames_per_second=options.frames_per_second,
        shorter_side_pixels=options.shorter_side_pixels,
        start_seconds=source.start_seconds or 0.0,
        stop_seconds=np.inf if source.stop_seconds is None else source.stop_seconds,
        max_megapixels=options.max_megapixels,
        max_hours=options.max_hours,
    )


def _within(spans: Sequence[SecondsSpan], start: float, end: float) -> list[SecondsSpan]:
    """The parts of `spans` that are between `start` and `end`."""
    parts = []
    for span_start, span_end in spans:
        part = (max(span_start, start), min(span_end, end))
        if part[0] < part[1]:
            parts.append(part)
    return parts


def _length(spans: Sequence[SecondsSpan]) -> float:
    return sum(end - start for start, end in spans)


def _brightness(luma: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean brightness of 16 x 16 cells, fewer of a smaller frame; float32 `[rows, columns]`."""
    rows, columns = (min(BRIGHTNESS_CELLS, side) for side in luma.shape)
    height, width = luma.shape[0] // rows, luma.shape[1] // columns
    cells = luma[: rows * height, : columns * width].reshape(rows, height, columns, width)
    means: NDArray[np.float32] = cells.mean((1, 3), dtype=np.float32)
    return means


def _clip_marks(
    grids: NDArray[np.float32],
    waveform: NDArray[np.int16],
    is_duplicate: bool,
    is_damaged: bool,
    flags_of_file: Collection[str],
) -> tuple[str, ...]:
    """What is wrong with a clip. `grids`: brightness, `[frames, rows, columns]`."""
    full_scale = np.count_nonzero(waveform == 2**15 - 1) + np.count_nonzero(waveform == -(2**15))
    measured = {
        "silent": is_silent(waveform),
        "still": float(np.ptp(grids, axis=0).max()) < STILL_LEVELS,
        "black": float(grids.max()) < BLACK_LEVEL,
        "clipped": full_scale > CLIPPED_SHARE * len(waveform),
        "short": len(waveform) < SHORT_SECONDS * SAMPLE_RATE_HZ,
        "duplicate": is_duplicate,
        "damaged": is_damaged,
    }
    marks = []
    # In this order, because a set has none and the same clip must give the same bytes.
    for mark in CLIP_MARKS:
        if measured.get(mark) or mark in flags_of_file:
            marks.append(mark)
    return tuple(marks)
