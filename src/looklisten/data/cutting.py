"""One source -> its clips: where both streams exist, in stretches of at most ten seconds, with a
mark for what is wrong with each.

Holds one clip's worth of media in memory. Knows decoding and the record `Clip`; no shard, no other
source.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
"""A clip is clipped when so many of its samples stand at full scale."""

STILL_LEVELS = 2.0
"""A clip is still when no cell of a 16 x 16 grid over the frame changes its mean brightness by more
than so many of 255.
"""

BLACK_LEVEL = 10.0
"""A clip is black when no cell of that grid is ever brighter than this of 255."""

SHORT_SECONDS = 2.0
"""A clip is short when two seconds of sound beside each other do not fit."""

GRID = 16

SOUND_BEFORE_PICTURE = "sound before the picture begins"
SOUND_AFTER_PICTURE = "sound after the picture ends"
PICTURE_WITHOUT_SOUND = "picture without sound"
SHORTER_THAN_A_CLIP = "shorter than a clip"
TOO_FAR_APART = "picture and sound too far apart in the file"
"""Reasons of `CutReport.add_lost`; `media.decode` has those of timestamps that had passed."""

LEAST_LOST_SECONDS = 0.1
"""Less than this by one reason is the padding of a codec or the length of a frame, and is not
counted.
"""

MAX_APART_SECONDS = 600.0
"""How far picture and sound of one moment may lie apart in a file; what is between them is held in
memory.
"""

MAX_STILL_SECONDS = 1800.0
"""How much sound waits in memory for the next picture: a slide may be shown for so long."""


@dataclass
class CutReport(DecodeReport):
    """What decoding and cutting one source met: filled while `cut` runs."""

    clips: int = 0
    """How many clips were cut so far."""


def cut(
    path: str | Path,
    source: Source,
    settings: PrepareOptions,
    boxes: Sequence[VideoBox] = (),
    report: CutReport | None = None,
    at_most: int | None = None,
) -> Iterator[Clip]:
    """The clips of one video: consecutive stretches of `clip_seconds` wherever picture and sound
    both exist.

    `path` is where the file lies. What is left shorter than `min_clip_seconds` is left out.
    `at_most` clips are made, the last then marked truncated, as it is when the file breaks off
    (`report.stop_reason`). Seconds that no clip holds are counted by reason in
    `report.lost_seconds`, also when an error is raised. Raises SourceError when the file is no
    video with picture and sound, TooShortError when the two share less than a clip needs.
    """
    report = report if report is not None else CutReport()
    held: Clip | None = (
        None  # the last clip waits, because only the end tells whether the file was whole
    )
    cutter = _Cutter(source, settings, boxes, report)
    for clip in _stretches(path, source, settings, cutter):
        if held:
            yield held
        held, report.clips = clip, report.clips + 1
        if report.clips == at_most:
            report.stop_reason = "no more was asked for"
            break
    else:
        cutter.count_lost()
    if held:
        yield replace(held, marks=(*held.marks, "truncated")) if report.stop_reason else held
    else:
        why = report.stop_reason or report.last_error
        kind = SourceError if report.stop_reason or report.damaged_count else TooShortError
        shared = f"picture and sound share {cutter.longest_seconds:.3f} s, a clip needs {settings.min_clip_seconds:g} s"
        raise kind(f"{path}: {shared}{f'; {why}' if why else ''}")


def _stretches(
    path: str | Path, source: Source, settings: PrepareOptions, cutter: "_Cutter"
) -> Iterator[Clip]:
    wanted = DecodeOptions(
        settings.frames_per_second,
        settings.shorter_side_pixels,
        source.start_seconds or 0.0,
        np.inf if source.stop_seconds is None else source.stop_seconds,
        settings.max_megapixels,
        settings.max_hours,
    )
    for event in decode_media(path, wanted, cutter.report):
        cutter.add(event)
        yield from cutter.clips()
        if cutter.report.stop_reason:
            break
    yield from cutter.clips(over=True)


@dataclass
class _Stretch:
    """Sound without a gap: the first sample is at `start_seconds`."""

    start_seconds: float
    chunks: deque[NDArray[np.int16]] = field(default_factory=deque)
    samples: int = 0

    @property
    def end_seconds(self) -> float:
        return self.start_seconds + self.samples / SAMPLE_RATE_HZ

    def add(self, samples: NDArray[np.float32]) -> None:
        self.chunks.append(
            np.clip(np.rint(samples * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
        )
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
class _Picture:
    at_seconds: float
    jpeg: bytes
    grid: NDArray[np.float32]


@dataclass
class _Cutter:
    """Pictures and sound of one source that are not in a clip yet."""

    source: Source
    settings: PrepareOptions
    boxes: Sequence[VideoBox]
    report: CutReport
    pictures: deque[_Picture] = field(default_factory=deque)
    stretches: deque[_Stretch] = field(default_factory=deque)
    shown: _Picture | None = None
    """The last picture before the first of `pictures`: it is on screen until that one comes."""
    first_picture_seconds: float = np.inf
    heard: list[tuple[float, float]] = field(default_factory=list)
    """Where there is sound, from second to second."""
    in_clips: list[tuple[float, float]] = field(default_factory=list)
    given_up: list[tuple[float, float]] = field(default_factory=list)
    """Sound that was left out because no picture came for too long."""
    no_sound_before_seconds: float = -np.inf
    """Pictures before this were left out because no sound came for too long."""
    longest_seconds: float = 0.0
    """Of all that was too short for a clip, how long the longest was."""
    damaged: int = 0
    """What of the report's damage is in clips already."""

    def add(self, event: Frame | AudioChunk) -> None:
        if isinstance(event, Frame):
            self.first_picture_seconds = min(self.first_picture_seconds, event.at_seconds)
            self.pictures.append(
                _Picture(
                    event.at_seconds, event.jpeg(self.settings.jpeg_quality), _grid(event.planes[0])
                )
            )
        else:
            last_seconds = self.heard[-1][1] if self.heard else -np.inf
            if event.start_seconds > last_seconds + 0.5 / SAMPLE_RATE_HZ:
                self.stretches.append(_Stretch(event.start_seconds))
                self.heard.append((event.start_seconds, event.end_seconds))
            elif not self.stretches:
                self.stretches.append(_Stretch(event.start_seconds))
            self.stretches[-1].add(event.samples)
            self.heard[-1] = self.heard[-1][0], event.end_seconds
        self._limit(event)

    def _limit(self, event: Frame | AudioChunk) -> None:
        """Let go of the oldest picture or sound when too much of it waits for the other."""
        if isinstance(event, Frame):
            came_too_late = (
                bool(self.given_up) and event.at_seconds < self.given_up[-1][1] - LEAST_LOST_SECONDS
            )
        else:
            came_too_late = event.start_seconds < self.no_sound_before_seconds - LEAST_LOST_SECONDS
        if came_too_late:
            self.report.stop_reason = f"picture and sound of one moment lie more than {MAX_APART_SECONDS:g} s apart in the file"
        while (
            self.pictures
            and self.pictures[-1].at_seconds - self.pictures[0].at_seconds > MAX_APART_SECONDS
        ):
            self.shown = self.pictures.popleft()
            self.no_sound_before_seconds = self.shown.at_seconds
        waiting = sum(stretch.samples for stretch in self.stretches) / SAMPLE_RATE_HZ
        if waiting > MAX_STILL_SECONDS:
            oldest = self.stretches[0]
            begin = oldest.start_seconds
            oldest.cut(min(oldest.samples, SAMPLE_RATE_HZ))
            if self.given_up and self.given_up[-1][1] == begin:
                begin = self.given_up.pop()[0]
            self.given_up.append((begin, oldest.start_seconds))
            if not oldest.samples:
                self.stretches.popleft()

    def clips(self, over: bool = False) -> Iterator[Clip]:
        """What can be cut now; all that is left when decoding is `over`."""
        while self.stretches and np.isfinite(self.first_picture_seconds):
            stretch, closed = self.stretches[0], over or len(self.stretches) > 1
            early = int(
                np.ceil(
                    (self.first_picture_seconds - stretch.start_seconds) * SAMPLE_RATE_HZ - 1e-6
                )
            )
            if early > 0:  # sound before the picture begins
                if early > stretch.samples and not closed:
                    return
                stretch.cut(min(early, stretch.samples))
            while self.pictures and self.pictures[0].at_seconds < stretch.start_seconds:
                self.shown = self.pictures.popleft()
            picture_seconds = self.report.video_end_seconds - stretch.start_seconds
            shared = min(stretch.samples / SAMPLE_RATE_HZ, picture_seconds)
            if shared >= self.settings.clip_seconds:
                yield self._clip(stretch, self.settings.clip_seconds)
            elif over or (closed and shared < picture_seconds):
                if shared >= self.settings.min_clip_seconds - 1e-9:
                    yield self._clip(stretch, shared)
                self.longest_seconds = max(shared, self.longest_seconds)
                self.stretches.popleft()
            else:
                return

    def count_lost(self) -> None:
        """Count in the report, by reason, what of picture and sound no clip holds."""
        picture_end = max(self.report.video_end_seconds, self.source.start_seconds or 0.0)
        picture_begin = max(
            min(self.first_picture_seconds, picture_end), self.source.start_seconds or 0.0
        )
        shared = _within(self.heard, picture_begin, picture_end)
        apart = _length(_within(self.given_up, picture_begin, picture_end))
        lost = {
            SOUND_BEFORE_PICTURE: _length(_within(self.heard, -np.inf, picture_begin)),
            SOUND_AFTER_PICTURE: _length(_within(self.heard, picture_end, np.inf)),
            PICTURE_WITHOUT_SOUND: picture_end - picture_begin - _length(shared),
            TOO_FAR_APART: apart,
            SHORTER_THAN_A_CLIP: _length(shared) - apart - _length(self.in_clips),
        }
        for reason, seconds in lost.items():
            if seconds > LEAST_LOST_SECONDS:
                self.report.add_lost(reason, seconds)

    def _clip(self, stretch: _Stretch, seconds: float) -> Clip:
        """The next `seconds`. A picture that was there before stays on screen until the next one
        comes.
        """
        begin, wave = (
            max(stretch.start_seconds, 0.0),
            stretch.cut(int(seconds * SAMPLE_RATE_HZ + 1e-6)),
        )
        end = stretch.start_seconds
        self.in_clips.append((begin, end))
        inside = []
        while self.pictures and self.pictures[0].at_seconds < end:
            inside.append(self.pictures.popleft())
        comes_late = (
            not inside or inside[0].at_seconds - begin > HOLD_BINS / self.settings.frames_per_second
        )
        if self.shown and comes_late:
            inside.insert(0, replace(self.shown, at_seconds=begin))
        self.shown = inside[-1]
        damaged, self.damaged = self.report.damaged_count > self.damaged, self.report.damaged_count
        return Clip(
            key=f"{self.source.path}@{begin:.3f}",
            video_id=self.source.video_id or self.source.path,
            source=self.source.path,
            start_seconds=begin,
            frame_seconds=tuple(picture.at_seconds - begin for picture in inside),
            frames=tuple(picture.jpeg for picture in inside),
            waveform=wave,
            sample_rate_hz=SAMPLE_RATE_HZ,
            labels=self.source.labels,
            split=self.source.split,
            boxes=tuple(
                box.in_clip(begin) for box in self.boxes if begin <= box.video_seconds < end
            ),
            marks=_marks(
                np.stack([picture.grid for picture in inside]),
                wave,
                bool(self.source.same_as),
                damaged,
                self.report.flags,
            ),
        )


def _within(
    spans: Sequence[tuple[float, float]], begin: float, end: float
) -> list[tuple[float, float]]:
    """The parts of `spans`, in seconds, that lie between `begin` and `end`."""
    parts = [(max(first, begin), min(last, end)) for first, last in spans]
    return [(first, last) for first, last in parts if first < last]


def _length(spans: Sequence[tuple[float, float]]) -> float:
    return sum(last - first for first, last in spans)


def _grid(luma: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean brightness of 16 x 16 cells, fewer where the picture is smaller; float32 `[rows,
    columns]`.
    """
    rows, columns = (min(GRID, side) for side in luma.shape)
    height, width = luma.shape[0] // rows, luma.shape[1] // columns
    cells = luma[: rows * height, : columns * width].reshape(rows, height, columns, width)
    means: NDArray[np.float32] = cells.mean((1, 3), dtype=np.float32)
    return means


def _marks(
    grids: NDArray[np.float32],
    wave: NDArray[np.int16],
    duplicate: bool,
    damaged: bool,
    of_file: Collection[str],
) -> tuple[str, ...]:
    """What a user wants to know of a clip: `grids` are `[frames, rows, columns]`, `of_file` the
    marks that decoding found.
    """
    is_so = {
        "silent": is_silent(wave),
        "still": float(np.ptp(grids, axis=0).max()) < STILL_LEVELS,
        "black": float(grids.max()) < BLACK_LEVEL,
        "clipped": (np.count_nonzero(wave == 2**15 - 1) + np.count_nonzero(wave == -(2**15)))
        > CLIPPED_SHARE * len(wave),
        "short": len(wave) < SHORT_SECONDS * SAMPLE_RATE_HZ,
        "duplicate": duplicate,
        "damaged": damaged,
    }
    return tuple(mark for mark in CLIP_MARKS if is_so.get(mark) or mark in of_file)
