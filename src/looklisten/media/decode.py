"""A media file -> its frames and its sound on one clock, in one decoding pass.

A time is presentation timestamp x time base minus the container's start: one origin for both streams, so a late sound stays
late. Frame counts and nominal rates are never used for time. Knows no clip, no shard and no network.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import soxr
from av.container import InputContainer
from av.stream import Disposition
from numpy.typing import NDArray

from looklisten.errors import SourceError
from looklisten.media import SAMPLE_RATE_HZ

RESYNC_SECONDS = 0.010
"""A sound frame this far from where counting samples puts it is moved to its timestamp; less is the container's rounding."""

CHANNEL_WEIGHTS = {"LFE": 0.0, "FC": 0.7071, "BL": 0.5, "BR": 0.5, "SL": 0.5, "SR": 0.5, "BC": 0.5}
"""Downmix to mono: front channels whole, centre at -3 dB, surrounds at -6 dB, no effects channel; then normalised to sum 1."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture: `pixels` uint8 `[height, width, 3]` RGB, upright and with square pixels, shown over [at, end)."""

    at_seconds: float
    end_seconds: float
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Sound:
    """A stretch of mono sound: `samples` float32 `[n]`, following the stretch before without a gap."""

    start_seconds: float
    samples: NDArray[np.float32]


@dataclass
class Report:
    """What a decoding pass met: filled while `decode` runs."""

    damaged_packets: int = 0
    truncated: bool = False
    last_error: str = ""
    video_end_seconds: float = 0.0


@dataclass
class Wanted:
    """What to take from a file: at most `frames_per_second` frames, their shorter side at most `shorter_side_pixels`."""

    frames_per_second: float = 5.0
    shorter_side_pixels: int = 256
    sample_rate_hz: int = SAMPLE_RATE_HZ


def decode(path: str | Path, wanted: Wanted, report: Report | None = None) -> Iterator[Frame | Sound]:
    """Frames and sound of a file as they come out of the decoder; each of the two in the order of time.

    A packet that cannot be decoded is left out and counted in `report`; when the file itself breaks off, what came before is
    kept and `report.truncated` is set. Raises SourceError when the file is no media, or lacks a picture or a sound stream.
    """
    report = report if report is not None else Report()
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be opened as video: {_last_line(error)}") from error
    with container:
        video, audio = _streams(container, path)
        origin = _origin(container, video, audio)
        pictures = _Pictures(video, origin, wanted, report)
        waves = _Waves(audio, origin, wanted.sample_rate_hz)
        for packet in _packets(container, video, audio, report):
            try:
                decoded: list[Any] = packet.decode()
            except av.FFmpegError as error:
                report.damaged_packets += 1
                report.last_error = _last_line(error)
                continue
            for frame in decoded:
                if isinstance(frame, av.VideoFrame):
                    yield from pictures.take(frame)
                elif isinstance(frame, av.AudioFrame):
                    yield from waves.take(frame)
        yield from waves.rest()


def _last_line(error: BaseException) -> str:
    log = getattr(error, "log", None)
    return str(log[2]).strip() if log else str(getattr(error, "strerror", None) or error)


def _packets(container: InputContainer, video: av.VideoStream, audio: av.AudioStream, report: Report) -> Iterator[Any]:
    try:
        yield from container.demux(video, audio)
    except av.FFmpegError as error:
        report.truncated = True
        report.last_error = _last_line(error)


def _streams(container: InputContainer, path: str | Path) -> tuple[av.VideoStream, av.AudioStream]:
    """The first stream of pictures (not a cover) and the first of sound that this FFmpeg can decode."""
    videos = [s for s in container.streams.video if s.codec_context and not s.disposition & Disposition.attached_pic]
    audios = [s for s in container.streams.audio if s.codec_context]
    for kind, found in (("picture", videos), ("sound", audios)):
        if not found:
            raise SourceError(f"{path} has no {kind} stream that can be decoded; both picture and sound are needed")
    video, audio = videos[0], audios[0]
    for stream in (video, audio):
        stream.codec_context.thread_count = 1  # one file, one thread: many files at once use the cores better
    return video, audio


def _origin(container: InputContainer, *streams: av.VideoStream | av.AudioStream) -> float:
    start: int | None = container.start_time
    if start is not None:
        return start / av.time_base
    starts = [float(s.start_time * s.time_base) for s in streams if s.start_time is not None and s.time_base]
    return min(starts, default=0.0)


@dataclass
class _Pictures:
    """Picks frames off the decoder by their timestamps and makes upright RGB of the picked ones only."""

    stream: av.VideoStream
    origin_seconds: float
    wanted: Wanted
    report: Report
    _next_seconds: float = field(default=-np.inf)
    _last_seconds: float = field(default=-np.inf)

    def take(self, frame: av.VideoFrame) -> Iterator[Frame]:
        usual = 1 / float(self.stream.average_rate) if self.stream.average_rate else 0.04
        if frame.pts is not None and frame.time_base:
            at = float(frame.pts * frame.time_base) - self.origin_seconds
        else:
            at = self._last_seconds + usual if np.isfinite(self._last_seconds) else 0.0
        if at <= self._last_seconds:
            return
        self._last_seconds = at
        shown = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else usual
        self.report.video_end_seconds = at + shown
        if at < self._next_seconds - 1e-4:
            return
        rate = self.wanted.frames_per_second
        self._next_seconds = (np.floor(at * rate + 1e-3) + 1) / rate
        yield Frame(at, at + shown, _upright(frame, self.stream, self.wanted.shorter_side_pixels))


def _upright(frame: av.VideoFrame, stream: av.VideoStream, shorter_side_pixels: int) -> NDArray[np.uint8]:
    """RGB with square pixels, never larger than the source in any direction, turned as the display matrix says."""
    aspect = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1) or 1.0
    width, height = (frame.width, frame.height / aspect) if aspect >= 1 else (frame.width * aspect, frame.height)
    scale = min(1.0, shorter_side_pixels / min(width, height))
    scaled = frame.reformat(
        width=max(round(width * scale), 1),
        height=max(round(height * scale), 1),
        format="rgb24",
        interpolation="AREA",
    )
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), turns))


@dataclass
class _Waves:
    """Puts decoded sound on the clock: mono, gaps filled with silence, overlaps cut, resampled."""

    stream: av.AudioStream
    origin_seconds: float
    sample_rate_hz: int
    _rate_hz: int = 0
    _resampler: soxr.ResampleStream | None = None
    _expected_seconds: float | None = None
    _start_seconds: float = 0.0
    _emitted: int = 0

    def take(self, frame: av.AudioFrame) -> Iterator[Sound]:
        samples = _mono(frame)
        if frame.pts is not None and frame.time_base:
            at = float(frame.pts * frame.time_base) - self.origin_seconds
        else:
            at = self._expected_seconds or 0.0
        if self._expected_seconds is None:
            self._expected_seconds = self._start_seconds = at
        drift = at - self._expected_seconds
        if abs(drift) > RESYNC_SECONDS:
            shift = round(drift * frame.sample_rate)
            samples = np.concatenate([np.zeros(shift, np.float32), samples]) if shift > 0 else samples[-shift:]
        self._expected_seconds += len(samples) / frame.sample_rate
        if frame.sample_rate != self._rate_hz:
            yield from self.rest()
            self._rate_hz = frame.sample_rate
            self._resampler = None
            if self._rate_hz != self.sample_rate_hz:
                self._resampler = soxr.ResampleStream(self._rate_hz, self.sample_rate_hz, 1, "float32", "HQ")
        yield from self._emit(self._resampler.resample_chunk(samples) if self._resampler else samples)

    def rest(self) -> Iterator[Sound]:
        """What the resampler still holds."""
        if self._resampler:
            yield from self._emit(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
            self._resampler = None

    def _emit(self, samples: NDArray[np.float32]) -> Iterator[Sound]:
        if len(samples):
            yield Sound(self._start_seconds + self._emitted / self.sample_rate_hz, samples)
            self._emitted += len(samples)


def _mono(frame: av.AudioFrame) -> NDArray[np.float32]:
    """The weighted mean of the channels, float32 `[samples]` in -1..1."""
    array = frame.to_ndarray()
    channels = frame.layout.channels
    if not frame.format.is_planar:
        array = array.reshape(-1, len(channels)).T
    scale = {"uint8": 128.0, "int16": 2.0**15, "int32": 2.0**31, "int64": 2.0**63}.get(array.dtype.name, 1.0)
    planes = array.astype(np.float32)
    if array.dtype == np.uint8:
        planes -= 128
    weights = np.array([CHANNEL_WEIGHTS.get(channel.name, 1.0) for channel in channels], np.float32)
    if not weights.sum():
        weights[:] = 1
    mono: NDArray[np.float32] = (weights / (weights.sum() * scale)) @ planes
    return np.nan_to_num(mono.astype(np.float32))
