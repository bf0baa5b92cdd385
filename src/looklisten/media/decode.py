"""A media file -> its frames and its sound on one clock, in one decoding pass.

A time is presentation timestamp x time base minus the container's start: one origin for both streams, so a late sound stays
late. Frame counts and nominal rates are never used for time. Knows no clip, no shard and no network.
"""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import av
import numpy as np
import simplejpeg
import soxr
from av.container import InputContainer
from av.format import Flags
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

from looklisten.errors import SourceError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.downmix import Mixer, zero_level
from looklisten.media.dynamic_range import RangeMapper, is_high_range, needs_mapping
from looklisten.media.orientation import orientation_of
from looklisten.media.sample_planes import SamplePlanes
from looklisten.media.stream_choice import (
    chosen_picture,
    chosen_sound,
    is_encrypted,
    is_still,
    is_tiled_still,
    photograph_advice,
    picture_streams,
    related_sound,
    sound_streams,
)

RESYNC_SECONDS = 0.010
"""A sound frame this far from where counting samples puts it is moved to its timestamp; less is the container's rounding."""

MAX_GAP_SECONDS = 1.0
"""A shorter hole in the sound is filled with silence (a lost packet); in a longer one there is no sound, and no clip."""

DISCONTINUITY_SECONDS = 10.0
"""Where a broadcast stream's timestamps jump by more than this, its clock was set anew and goes on (ffmpeg's own threshold)."""

LOOKAHEAD_PACKETS = 20
"""Packets are decoded so many late; codecs put frames at most 16 out of order, so every earlier time has been seen by then."""

SEEK_PREROLL_SECONDS = (1.0, 5.0, 25.0)
"""Decoding begins so much before a wanted stretch, for decoders that need a run-up; more where no key frame comes in time."""

TS_DISCONT: Any = Flags.ts_discont.value
"""The flag of formats whose timestamps may jump."""

HONEST_HEADERS = frozenset({"mov", "matroska", "avi", "flv", "asf"})
"""Formats whose header says how long the file is; of others FFmpeg guesses it from what is there."""

Packet = Any  # av.Packet, whose stubs have a parameter that the class has not
Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture, shown over [at, end): upright, with square pixels, as a JPEG file stores it.

    `planes` are luma `[height, width]` and two of chroma at half the resolution, uint8, full range, ITU-R BT.601.
    """

    at_seconds: float
    end_seconds: float
    planes: Planes

    def jpeg(self, quality: int) -> bytes:
        """The picture as a JPEG file, without a detour through RGB."""
        data: bytes = simplejpeg.encode_jpeg_yuv_planes(*self.planes, quality, fastdct=False)
        return data

    def rgb(self) -> NDArray[np.uint8]:
        """The picture as `[height, width, 3]`; each chroma sample stands for the four pixels that it was taken from."""
        height, width = self.planes[0].shape
        luma, blue, red = (plane.astype(np.float32) for plane in self.planes)
        blue, red = (np.repeat(np.repeat(plane - 128, 2, 0), 2, 1)[:height, :width] for plane in (blue, red))
        pixels = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=-1)
        rounded: NDArray[np.uint8] = np.rint(pixels).clip(0, 255).astype(np.uint8)
        return rounded


@dataclass(frozen=True, eq=False)
class Sound:
    """A stretch of mono sound: `samples` float32 `[n]`. It follows the one before without a gap, or over MAX_GAP_SECONDS later."""

    start_seconds: float
    samples: NDArray[np.float32]

    @property
    def end_seconds(self) -> float:
        return self.start_seconds + len(self.samples) / SAMPLE_RATE_HZ


@dataclass
class Report:
    """What a decoding pass met: filled while `decode` runs."""

    damaged: int = 0
    """Packets that could not be decoded and frames that the decoder had to mend."""
    broken_off: str = ""
    """Why decoding ended before the file did; empty when it did not."""
    last_error: str = ""
    """FFmpeg's last line."""
    video_end_seconds: float = 0.0
    audio_end_seconds: float = 0.0
    clips: int = 0
    """How many clips were cut so far, counted by who cuts."""
    lost_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of the wanted stretch that no frame, sound or clip holds, by reason."""
    marks: set[str] = field(default_factory=set)
    """Marks (`data.cutting.MARKS`) that decoding found and that hold for every clip of the file."""

    passed_over: list[str] = field(default_factory=list)
    """Streams of the kinds that were wanted and that were not chosen, each in a few words."""
    source: str = ""
    """The file's path, for sentences."""

    def lose(self, reason: str, seconds: float) -> None:
        """Count seconds that are left out, so that no loss is silent."""
        self.lost_seconds[reason] = self.lost_seconds.get(reason, 0.0) + seconds


@runtime_checkable
class Resampler(Protocol):
    """A stream of samples that comes at one rate and leaves at 48 kHz, in pieces."""

    def resample_chunk(self, samples: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]: ...


def soxr_hq(rate_hz: int) -> Resampler:
    """The resampler of everything that looklisten's own networks hear."""
    stream: Resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, "float32", "HQ")
    return stream


@dataclass(frozen=True)
class Wanted:
    """What to take from a file.

    At most `frames_per_second` frames, their shorter side at most `shorter_side_pixels`, of the stretch [start, stop). The
    limits are against files that unfold to more than a machine holds.
    """

    frames_per_second: float = 5.0
    shorter_side_pixels: int = 256
    start_seconds: float = 0.0
    stop_seconds: float = np.inf
    max_megapixels: float = 40.0
    max_hours: float = 24.0
    max_streams: int = 64
    picture: bool = True
    sound: bool = True
    """Which of the two streams to decode; one that is not wanted need not be there."""
    resampler: Callable[[int], Resampler] = soxr_hq
    """Makes the resampler from a rate in Hz, for sound that is not at 48 kHz."""
    skip_unneeded: bool = True
    """Leave frames undecoded that nobody wants and no other frame refers to. The result is the same either way."""

    def bin(self, seconds: float) -> int:
        """Of all frames that fall into one bin, the first is kept."""
        return int(np.floor(seconds * self.frames_per_second + 1e-3))


@dataclass(frozen=True)
class Streams:
    """Which streams a file has that can be decoded."""

    picture: bool
    sound: bool


def find_streams(path: str | Path) -> Streams:
    """What of picture and sound a file has; a cover is no picture. Raises SourceError when it is no media."""
    with opened(path, Wanted(), Report()) as container:
        return Streams(bool(picture_streams(container)), bool(sound_streams(container)))


def decode(
    path: str | Path, wanted: Wanted, report: Report | None = None, nearest_to: Iterator[float] | None = None
) -> Iterator[Frame | Sound]:
    """Frames and sound of a file as they come out of the decoder; each of the two in the order of time.

    With `nearest_to`, seconds that rise, the frames are not those of `wanted.frames_per_second` but for each of these times the
    nearest one, as long as the picture lasts.

    A packet that cannot be decoded is left out and counted in `report`; when the file itself breaks off, what came before is
    kept and `report.broken_off` says why. Raises SourceError when the file is no media, lacks a wanted stream, or has more pixels
    or streams than a limit allows.
    """
    report = report if report is not None else Report()
    with opened(path, wanted, report) as container:
        video, audio = wanted_streams(container, path, wanted, report)
        if video and nearest_to and is_still(container, video):
            nearest_to = itertools.islice(nearest_to, 1)
        clock = Clock(container, [stream for stream in (video, audio) if stream])
        takers: dict[int, _Pictures | _Waves] = {}
        if video:
            takers[video.index] = _Pictures(video, clock, wanted, report, nearest_to)
        if audio:
            takers[audio.index] = _Waves(audio, clock, wanted, report)
        try:
            for packet in clock.packets(wanted.start_seconds):
                yield from takers[packet.stream_index].feed(packet)
                if all(taker.is_over for taker in takers.values()) or report.broken_off:
                    break
        except av.FFmpegError as error:
            report.last_error = _last_line(error)
            report.broken_off = f"reading it broke off: {report.last_error}"
        for taker in takers.values():
            yield from taker.rest()
        if not report.broken_off and wanted.stop_seconds == np.inf:
            report.broken_off = _missing_end(container, video, report)


def read_sound(path: str | Path, max_hours: float = 24.0) -> NDArray[np.float32]:
    """The sound of a media file, whether or not it has a picture, mono at 48 kHz: float32 `[samples]` in -1..1.

    Sound alone needs no clock: samples follow one another whatever their timestamps say, which for Ogg Vorbis jump by over
    RESYNC_SECONDS at some pages. What of a damaged file can be decoded is taken. Raises SourceError when there is no sound in it.
    """
    wanted, report = Wanted(stop_seconds=max_hours * 3600, picture=False), Report()
    with opened(path, wanted, report) as container:
        _, audio = wanted_streams(container, path, wanted)
        assert audio is not None
        waves = _Waves(audio, None, wanted, report)
        pieces: list[NDArray[np.float32]] = []
        try:
            for packet in container.demux(audio):
                if packet.size and not waves.is_over:
                    pieces.extend(sound.samples for sound in waves.feed(packet))
        except av.FFmpegError as error:
            report.last_error = _last_line(error)
        pieces.extend(sound.samples for sound in waves.rest())
    if not any(len(piece) for piece in pieces):
        raise SourceError(f"{path} has no sound that can be decoded{f': {report.last_error}' if report.last_error else ''}")
    return np.concatenate(pieces)


def opened(path: str | Path, wanted: Wanted, report: Report) -> InputContainer:
    report.source = str(path)
    try:
        # A playlist that is named like a video must not make this process read other files or hosts.
        options = {"protocol_whitelist": "file,crypto,data", "max_streams": str(wanted.max_streams)}
        return av.open(str(path), metadata_errors="ignore", options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        report.last_error = _last_line(error)
        kind = "video" if wanted.picture else "sound"
        raise SourceError(f"{path} cannot be opened as {kind}: {report.last_error}{photograph_advice(path)}") from error


def _last_line(error: BaseException) -> str:
    log = getattr(error, "log", None)
    return str(log[2]).strip() if log else str(getattr(error, "strerror", None) or error)


def _missing_end(container: InputContainer, video: av.VideoStream | None, report: Report) -> str:
    """What of the file is not there, going by its header."""
    if container.format.name.split(",")[0] not in HONEST_HEADERS:
        return ""
    counted = video.frames / float(video.average_rate) if video and video.average_rate else 0.0  # AVI's duration is that of what is there
    declared = max((container.duration or 0) / av.time_base, counted)
    got = max(report.video_end_seconds, report.audio_end_seconds)
    if got >= declared - max(1.0, 0.02 * declared):
        return ""
    return f"it ends after {got:.1f} s of the {declared:.1f} s that its header declares"


def wanted_streams(
    container: InputContainer, path: str | Path, wanted: Wanted, report: Report | None = None
) -> tuple[av.VideoStream | None, av.AudioStream | None]:
    """The stream of pictures and the stream of sound that are meant (`stream_choice`), where they are wanted.

    What is passed over is written into `report`. Raises SourceError when a wanted one is not there, is encrypted or is too large.
    """
    if len(container.streams) >= wanted.max_streams:
        raise SourceError(
            f"{path} has {len(container.streams)} streams or more; at most {wanted.max_streams} are allowed{photograph_advice(path)}"
        )
    videos, audios = picture_streams(container), sound_streams(container)
    both = "; both picture and sound are needed" if wanted.picture and wanted.sound else ""
    if wanted.picture and not wanted.sound and is_tiled_still(container, videos):
        raise SourceError(f"{path} is a photograph stored in tiles, which cannot be put together here{photograph_advice(path)}")
    for kind, is_wanted, found in (("picture", wanted.picture, videos), ("sound", wanted.sound, audios)):
        if is_wanted and not found:
            raise SourceError(f"{path} has no {kind} stream that can be decoded{both}")
    # The picture is chosen even if it is not wanted: in a broadcast of several programs it decides on the sound.
    picture = chosen_picture(videos) if videos else None
    related = related_sound(container, videos, picture.stream) if picture and len(videos) > 1 and len(audios) > 1 else None
    sound = chosen_sound(audios, related) if audios else None
    video = picture.stream if picture and wanted.picture else None
    audio = sound.stream if sound and wanted.sound else None
    if report is not None:
        chosen = ((picture, wanted.picture), (sound, wanted.sound))
        report.passed_over = [words for choice, is_wanted in chosen if choice and is_wanted for words in choice.passed_over]
    for stream in filter(None, (video, audio)):
        if is_encrypted(stream):
            raise SourceError(_encrypted(str(path), stream.type))
    if video and video.width * video.height > wanted.max_megapixels * 1e6:
        raise SourceError(f"{path} has frames of {video.width} x {video.height}; at most {wanted.max_megapixels:g} megapixels are allowed")
    for stream in filter(None, (video, audio)):
        stream.codec_context.thread_count = 1  # one file, one thread: many files at once use the cores better
    return video, audio


class Clock:
    """Seconds from the container's start, the same for all streams; keeps on where a broadcast sets its clock anew.

    Where decoding begins late, it begins at a key frame of the first of `streams`.
    """

    def __init__(self, container: InputContainer, streams: Sequence[av.VideoStream | av.AudioStream]) -> None:
        self._container, self._streams = container, tuple(streams)
        self._tick_seconds = {s.index: float(s.time_base) if s.time_base else 0.0 for s in self._streams}
        self._last_seconds: dict[int, float] = {}
        self._shift_seconds = 0.0
        start: int | None = container.start_time
        starts = [float(s.start_time * s.time_base) for s in self._streams if s.start_time is not None and s.time_base]
        self._origin_seconds = start / av.time_base if start is not None else min(starts, default=0.0)

    def at(self, timed: Packet | av.VideoFrame | av.AudioFrame, stream: av.VideoStream | av.AudioStream) -> float | None:
        """When a packet or frame of `stream` is to be shown or heard; None when it does not say.

        Ticks are the stream's: what a decoder gives at the very end carries no time base of its own.
        """
        return None if timed.pts is None else timed.pts * self._tick_seconds[stream.index] - self._origin_seconds

    def lasts(self, timed: Packet | av.VideoFrame, stream: av.VideoStream) -> float:
        """How long a packet or frame says it lasts; 0 when it does not say."""
        return (timed.duration or 0) * self._tick_seconds[stream.index]

    def packets(self, start_seconds: float) -> Iterator[Packet]:
        """The packets of the streams, from a key frame before `start_seconds` on where the file can be searched."""
        may_jump = bool(self._container.format.flags & TS_DISCONT)
        first, begun = self._streams[0], not self._seek(start_seconds)
        for packet in self._container.demux(*self._streams):
            if not packet.size:  # demux ends with an empty packet a stream; the decoders are flushed by hand
                continue
            begun = begun or (packet.stream is first and packet.is_keyframe)
            if packet.stream is first and not begun:
                continue
            if may_jump:
                self._join(packet)
            yield packet

    def _seek(self, start_seconds: float) -> bool:
        """Go to where decoding must begin to have the frame at `start_seconds`; False when that is where the file begins."""
        for preroll in SEEK_PREROLL_SECONDS:
            target = start_seconds - preroll
            if target <= 0:
                break
            with contextlib.suppress(av.FFmpegError):
                self._container.seek(int((target + self._origin_seconds) * av.time_base))
                first = next(
                    (self.at(p, self._streams[0]) for p in self._container.demux(self._streams[0]) if p.size and p.is_keyframe), None
                )
                if first is not None and first <= start_seconds:
                    self._container.seek(int((target + self._origin_seconds) * av.time_base))
                    return True
        if start_seconds > SEEK_PREROLL_SECONDS[0]:  # something was read already
            self._container.seek(int((self._origin_seconds - DISCONTINUITY_SECONDS) * av.time_base))
        return False

    def _join(self, packet: Packet) -> None:
        """Move a packet behind the one before it where the stream's own clock jumped."""
        tick = self._tick_seconds[packet.stream_index]
        if packet.dts is None or not tick:
            return
        at = packet.dts * tick + self._shift_seconds
        jump = at - self._last_seconds.get(packet.stream_index, at)
        if abs(jump) > DISCONTINUITY_SECONDS:
            self._shift_seconds -= jump
            at -= jump
        self._last_seconds[packet.stream_index] = at
        ticks = round(self._shift_seconds / tick)
        packet.dts += ticks
        if packet.pts is not None:
            packet.pts += ticks


class _Pictures:
    """Picks frames off the decoder by their timestamps and prepares the picked ones only."""

    def __init__(
        self, stream: av.VideoStream, clock: Clock, wanted: Wanted, report: Report, nearest_to: Iterator[float] | None = None
    ) -> None:
        self._stream, self._clock, self._wanted, self._report = stream, clock, wanted, report
        self._times = nearest_to
        self._next_seconds = next(nearest_to, np.inf) if nearest_to else np.inf
        self._before: tuple[float, float, av.VideoFrame] | None = None
        self._usual_seconds = 1 / float(stream.average_rate) if stream.average_rate else 0.04
        self._waiting: deque[Packet] = deque()
        self._first_of_bin: dict[int, float] = {}
        self._last_seconds = -np.inf
        self._fed_seconds = 0.0
        self._bin: float = -np.inf
        self._scaler = VideoReformatter()
        self._range = RangeMapper(stream.codec_context)
        self._decodes_all = True
        self.is_over = False

    def feed(self, packet: Packet) -> Iterator[Frame]:
        at = self._clock.at(packet, self._stream)
        if at is not None:
            self._fed_seconds = max(self._fed_seconds, at + (self._clock.lasts(packet, self._stream) or self._usual_seconds))
            bin_ = self._wanted.bin(at)
            self._first_of_bin[bin_] = min(at, self._first_of_bin.get(bin_, at))
        self._waiting.append(packet)
        if len(self._waiting) > LOOKAHEAD_PACKETS:
            yield from self._decode(self._waiting.popleft())

    def rest(self) -> Iterator[Frame]:
        """What still waits, here and in the decoder."""
        while self._waiting:
            yield from self._decode(self._waiting.popleft())
        yield from self._decode(None)
        yield from self._nearest(np.inf)
        end = max(self._report.video_end_seconds, self._fed_seconds)
        self._report.video_end_seconds = min(end, self._wanted.stop_seconds)

    def _decode(self, packet: Packet | None) -> Iterator[Frame]:
        if self._wanted.skip_unneeded and packet is not None and not self._times:
            needed = self._wants(packet)
            if needed != self._decodes_all:
                self._stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
                self._decodes_all = needed
        for frame in decoded(self._stream.codec_context, packet, self._report):
            if frame.width * frame.height > self._wanted.max_megapixels * 1e6:
                self._report.broken_off = f"its frames grow to {frame.width} x {frame.height}"
                return
            yield from self._take(frame)

    def _wants(self, packet: Packet) -> bool:
        """Whether the frame of a packet is the first of its bin; all that could come before it have been fed."""
        at = self._clock.at(packet, self._stream)
        if at is None:
            return True
        bin_ = self._wanted.bin(at)
        if len(self._first_of_bin) > 256:
            self._first_of_bin = {b: t for b, t in self._first_of_bin.items() if b > bin_ - 64}
        return at <= self._first_of_bin.get(bin_, at)

    def _take(self, frame: av.VideoFrame) -> Iterator[Frame]:
        at = self._clock.at(frame, self._stream)
        if at is None:
            at = self._last_seconds + self._usual_seconds if np.isfinite(self._last_seconds) else 0.0
        if at <= self._last_seconds:
            return
        self._last_seconds = at
        shown = self._clock.lasts(frame, self._stream) or self._usual_seconds
        self._report.video_end_seconds = min(at + shown, self._wanted.stop_seconds)
        if at > self._wanted.max_hours * 3600:
            self._report.broken_off = f"it is longer than {self._wanted.max_hours:g} hours"
        self.is_over = at >= self._wanted.stop_seconds
        if self._times:
            yield from self._nearest(at)
            self._before = at, at + shown, frame
            return
        bin_ = self._wanted.bin(at)
        if bin_ > self._bin and at >= self._wanted.start_seconds and not self.is_over:
            self._bin = bin_
            self._report.damaged += frame.is_corrupt
            yield Frame(at, at + shown, self._upright(frame))

    def _nearest(self, at: float) -> Iterator[Frame]:
        """The frame before this one, for every time that it is nearest to; at infinity, for every time until it ends."""
        if not self._before or not self._times:
            return
        before, end, picture = self._before
        last = end if at == np.inf else (before + at) / 2
        planes = self._upright(picture) if self._next_seconds < last else None
        while planes and self._next_seconds < last:
            yield Frame(before, end, planes)
            self._next_seconds = next(self._times, np.inf)

    def _upright(self, frame: av.VideoFrame) -> Planes:
        """Square pixels, never larger than the source in any direction, turned as the display matrix says."""
        aspect = float(self._stream.sample_aspect_ratio or self._stream.codec_context.sample_aspect_ratio or 1) or 1.0
        seen = (frame.width, frame.height / aspect) if aspect >= 1 else (frame.width * aspect, frame.height)
        scale = min(1.0, self._wanted.shorter_side_pixels / min(seen))
        width, height = (max(round(side * scale), 1) for side in seen)
        orientation = orientation_of(frame)
        if is_high_range(self._stream.codec_context):
            self._report.marks.add("hdr")
        if needs_mapping(self._stream.codec_context):
            frame = self._range.mapped(frame, width, height, "AREA")
        scaled = self._scaler.reformat(
            frame,
            width=width,
            height=height,
            format="yuvj420p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range="JPEG",
            interpolation="AREA",
            threads=1,
        )
        stored: tuple[Any, ...] = scaled.planes
        planes = (np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height, : p.width] for p in stored)
        luma, blue, red = map(orientation.upright, planes)
        return _evenly_stored(luma), np.ascontiguousarray(blue), np.ascontiguousarray(red)


def _evenly_stored(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same plane in memory of even height and width, its edge repeated: libjpeg-turbo reads that far."""
    height, width = plane.shape
    if not (height % 2 or width % 2):
        return np.ascontiguousarray(plane)
    return np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")[:height, :width]


def decoded(codec: Any, packet: Packet | None, report: Report) -> list[Any]:
    """The frames that a packet completes; None flushes the decoder. Raises SourceError when the packet is encrypted."""
    if packet is not None and packet.has_sidedata("encryption_info"):
        raise SourceError(_encrypted(report.source, codec.type))
    try:
        frames: list[Any] = codec.decode(packet)
    except av.FFmpegError as error:
        if isinstance(error, av.EOFError):
            return []
        report.damaged += 1
        report.last_error = _last_line(error)
        return []
    return frames


def _encrypted(source: str, kind: str) -> str:
    name = {"video": "picture", "audio": "sound"}[kind]
    return f"{source} has an encrypted {name} stream; decrypt the file with the tool of its publisher first, or take another copy"


class _Waves:
    """Puts decoded sound on the clock: mono, small gaps filled with silence, overlaps cut, resampled.

    Decoders give some 20 ms at a time; about a second is gathered before anything is computed.
    """

    def __init__(self, stream: av.AudioStream, clock: Clock | None, wanted: Wanted, report: Report) -> None:
        self._stream, self._clock, self._wanted, self._report = stream, clock, wanted, report
        self._kind: tuple[str, tuple[str, ...], int] | None = None
        self._gathered: list[list[NDArray[Any]]] = []
        self._gathered_samples = 0
        self._reader = SamplePlanes()
        self._mixer: Mixer | None = None
        self._resampler: Resampler | None = None
        self._expected_seconds = -np.inf
        self._start_seconds = 0.0
        self._emitted = 0
        self.is_over = False

    def feed(self, packet: Packet | None) -> Iterator[Sound]:
        for frame in decoded(self._stream.codec_context, packet, self._report):
            yield from self._take(frame)

    def rest(self) -> Iterator[Sound]:
        """What the decoder, the gathering and the resampler still hold."""
        yield from self.feed(None)
        yield from self._end()

    def _take(self, frame: av.AudioFrame) -> Iterator[Sound]:
        names = tuple(channel.name for channel in frame.layout.channels)
        kind = (frame.format.name, names, frame.sample_rate)
        try:
            planes, each = self._reader.read(frame)
        except ValueError as error:
            self._report.damaged += 1
            self._report.last_error = str(error)
            return
        at = self._clock.at(frame, self._stream) if self._clock else None
        if at is None:
            at = max(self._expected_seconds, 0.0)
        drift = at - self._expected_seconds
        if kind != self._kind or drift > MAX_GAP_SECONDS:
            yield from self._end()
            self._kind = kind
            if drift > MAX_GAP_SECONDS:
                self._expected_seconds = self._start_seconds = at
                self._emitted, drift = 0, 0.0
            if frame.sample_rate != SAMPLE_RATE_HZ:
                self._resampler = self._wanted.resampler(frame.sample_rate)
        samples = frame.samples
        if abs(drift) > RESYNC_SECONDS:
            shift = max(round(drift * frame.sample_rate), -samples)
            samples += shift
            if shift > 0:
                planes = [np.concatenate([np.full(shift * each, zero_level(plane), plane.dtype), plane]) for plane in planes]
            else:
                planes = [plane[-shift * each :] for plane in planes]
        self._gathered.append(planes)
        self._gathered_samples += samples
        self._expected_seconds += samples / frame.sample_rate
        self.is_over = at >= self._wanted.stop_seconds
        if self._gathered_samples >= frame.sample_rate:
            yield from self._flush()

    def _flush(self) -> Iterator[Sound]:
        if self._gathered and self._kind:
            _, names, rate_hz = self._kind
            if self._mixer is None or self._mixer.channels != names:
                self._mixer = Mixer(names, rate_hz)
            samples = self._mixer.mix([np.concatenate(plane) for plane in zip(*self._gathered, strict=True)])
            if self._mixer.was_out_of_phase:
                self._report.marks.add("out-of-phase")
            self._gathered, self._gathered_samples = [], 0
            yield from self._emit(self._resampler.resample_chunk(samples) if self._resampler else samples)

    def _end(self) -> Iterator[Sound]:
        yield from self._flush()
        if self._resampler:
            yield from self._emit(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
            self._resampler = None

    def _emit(self, samples: NDArray[np.float32]) -> Iterator[Sound]:
        start = self._start_seconds + self._emitted / SAMPLE_RATE_HZ
        self._emitted += len(samples)
        early = int(np.ceil((self._wanted.start_seconds - start) * SAMPLE_RATE_HZ - 1e-6)) if start < self._wanted.start_seconds else 0
        keep = min((self._wanted.stop_seconds - start) * SAMPLE_RATE_HZ + 1e-6, len(samples))
        if early < int(keep):
            sound = Sound(start + early / SAMPLE_RATE_HZ, samples[early : int(keep)])
            self._report.audio_end_seconds = sound.end_seconds
            yield sound
