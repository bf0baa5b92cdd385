"""A media file -> its frames and its sound on one clock, in one decoding pass.

A time is presentation timestamp x time base minus the container's start: one origin for both
streams, so a late sound stays late. Frame counts and nominal rates are never used for time. Knows
no clip, no shard and no network.
"""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
from looklisten.media.decode.dynamic_range import RangeMapper, is_high_range, needs_mapping
from looklisten.media.decode.file_end import counts_frames, second_file, written_bytes
from looklisten.media.decode.orientation import orientation_of
from looklisten.media.decode.sample_planes import SamplePlanes
from looklisten.media.decode.stream_choice import (
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
from looklisten.media.downmix import Mixer, zero_level

RESYNC_SECONDS = 0.010
"""Timestamps of sound this far from where counting samples puts it are no rounding of the
container.
"""

SETTLE_SECONDS = 0.5
"""So much sound is looked at before it is moved to its timestamps: they must agree with each other,
or differ to one side.
"""

DRIFT_SECONDS = 0.040
"""Where timestamps oscillate, sound is moved when their median over SETTLE_SECONDS is this far off;
people notice more than that.
"""

HARD_SECONDS = 0.100
"""Timestamps this far off are no oscillation, also where less than SETTLE_SECONDS of sound is left
to look at.
"""

STEP_BACK_SECONDS = 1.0
"""Where the timestamps of packets go back by more than this, another part of a joined file begins.
No reordering is longer.
"""

FEWEST_PACKETS, MOST_PACKETS = 4, 500
"""So many packets after such a step are looked at: a single wrong timestamp is no new part."""

MAX_GAP_SECONDS = 1.0
"""A shorter hole in the sound is filled with silence (a lost packet); in a longer one there is no
sound, and no clip.
"""

MAX_HOLE_SECONDS = 600.0
"""Sound that pauses for longer is not filled with silence: a timestamp is damaged, or the file is
to be cut there.
"""

DISCONTINUITY_SECONDS = 10.0
"""Where a broadcast stream's timestamps jump by more than this, its clock was set anew and goes on
(ffmpeg's own threshold).
"""

PAUSE_SECONDS = 60.0
"""Where the picture is so far ahead of the sound in the file, sound that was gathered is given out."""

LOOKAHEAD_PACKETS = 20
"""Packets are decoded so many late; codecs put frames at most 16 out of order, so every earlier
time has been seen by then.
"""

SEEK_PREROLL_SECONDS = (1.0, 5.0, 25.0)
"""Decoding begins so much before a wanted stretch, for decoders that need a run-up; more where no
key frame comes in time.
"""

HOLD_BINS = 2
"""A frame that is seen for longer than so many times the time between two wanted frames is held: a
still picture, a slide.
"""

TS_DISCONT: Any = Flags.ts_discont.value
"""The flag of formats whose timestamps may jump."""

STREAM_LENGTHS = frozenset({"mov", "flac", "aiff", "au", "mp3"})
"""Formats whose header says how long each stream is (of MP3 only some, `counts_frames`); in MOV and
MP4 after the edit list.
"""

FILE_LENGTHS = frozenset({"matroska", "avi", "flv"})
"""Formats whose header says how long the longest of all streams is. Of other formats FFmpeg guesses
it from what is there.
"""

BYTE_LENGTHS = frozenset({"wav", "w64", "caf", "asf"})
"""Formats of which FFmpeg says the length of what is there, and whose structure says how many bytes
there should be.
"""

SOUND_IN_PAST = "sound with timestamps that had passed"
PICTURE_IN_PAST = "picture with timestamps that had passed"
UNREAD_FILE = "a second file appended to the first"
"""Reasons of `Report.lose`; `data.cutting` has the others."""

Packet = Any  # av.Packet, whose stubs have a parameter that the class has not
Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture, shown over [at, end): upright, with square pixels, as a JPEG file stores it.

    `planes` are luma `[height, width]` and two of chroma at half the resolution, uint8, full range,
    ITU-R BT.601.
    """

    at_seconds: float
    end_seconds: float
    planes: Planes

    def jpeg(self, quality: int) -> bytes:
        """The picture as a JPEG file, without a detour through RGB."""
        data: bytes = simplejpeg.encode_jpeg_yuv_planes(*self.planes, quality, fastdct=False)
        return data

    def rgb(self) -> NDArray[np.uint8]:
        """The picture as `[height, width, 3]`; each chroma sample stands for the four pixels that
        it was taken from.
        """
        height, width = self.planes[0].shape
        luma, blue, red = (plane.astype(np.float32) for plane in self.planes)
        blue, red = (
            np.repeat(np.repeat(plane - 128, 2, 0), 2, 1)[:height, :width] for plane in (blue, red)
        )
        pixels = np.stack(
            [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue],
            axis=-1,
        )
        rounded: NDArray[np.uint8] = np.rint(pixels).clip(0, 255).astype(np.uint8)
        return rounded


@dataclass(frozen=True, eq=False)
class Sound:
    """A stretch of mono sound: `samples` float32 `[n]`. It follows the one before without a gap, or
    over MAX_GAP_SECONDS later.
    """

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

    def resample_chunk(
        self, samples: NDArray[np.float32], last: bool = False
    ) -> NDArray[np.float32]: ...


def soxr_hq(rate_hz: int) -> Resampler:
    """The resampler of everything that looklisten's own networks hear."""
    stream: Resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, "float32", "HQ")
    return stream


@dataclass(frozen=True)
class Wanted:
    """What to take from a file.

    At most `frames_per_second` frames, their shorter side at most `shorter_side_pixels`, of the
    stretch [start, stop). The limits are against files that unfold to more than a machine holds.
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
    """Leave frames undecoded that nobody wants and no other frame refers to. The result is the same
    either way.
    """

    def bin(self, seconds: float) -> int:
        """Of all frames that fall into one bin, the first is kept."""
        return int(np.floor(seconds * self.frames_per_second + 1e-3))


@dataclass(frozen=True)
class Streams:
    """Which streams a file has that can be decoded."""

    picture: bool
    sound: bool


def find_streams(path: str | Path) -> Streams:
    """What of picture and sound a file has; a cover is no picture. Raises SourceError when it is no
    media.
    """
    with opened(path, Wanted(), Report()) as container:
        return Streams(bool(picture_streams(container)), bool(sound_streams(container)))


def decode(
    path: str | Path,
    wanted: Wanted,
    report: Report | None = None,
    nearest_to: Iterator[float] | None = None,
) -> Iterator[Frame | Sound]:
    """Frames and sound of a file as they come out of the decoder; each of the two in the order of
    time.

    With `nearest_to`, seconds that rise, the frames are not those of `wanted.frames_per_second` but
    for each of these times the nearest one, as long as the picture lasts.

    A packet that cannot be decoded is left out and counted in `report`; when the file itself breaks
    off, what came before is kept and `report.broken_off` says why. Raises SourceError when the file
    is no media, lacks a wanted stream, or has more pixels or streams than a limit allows.
    """
    report = report if report is not None else Report()
    with opened(path, wanted, report) as container:
        video, audio = wanted_streams(container, path, wanted, report)
        if video and nearest_to and is_still(container, video):
            nearest_to = itertools.islice(nearest_to, 1)
        clock = Clock(container, [stream for stream in (video, audio) if stream])
        end = _FileEnd(path, container, clock, wanted)
        takers: dict[int, _Pictures | _Waves] = {}
        if video:
            pictures = takers[video.index] = _Pictures(video, clock, wanted, report, nearest_to)
        if audio:
            waves = takers[audio.index] = _Waves(audio, clock, wanted, report)
        try:
            for packet in clock.packets(wanted.start_seconds):
                yield from takers[packet.stream_index].feed(packet)
                if video and audio and packet.stream_index == video.index:
                    ahead_seconds = clock.reached_seconds.get(
                        video.index, 0.0
                    ) - clock.reached_seconds.get(audio.index, 0.0)
                    if ahead_seconds > PAUSE_SECONDS:
                        yield from waves.pause()
                if all(taker.is_over for taker in takers.values()) or report.broken_off:
                    break
        except av.FFmpegError as error:
            report.last_error = _last_line(error)
            report.broken_off = f"reading it broke off: {report.last_error}"
        missing = report.broken_off or end.missing_packets()
        if video and not missing:
            pictures.ends_seconds = end.declared_seconds(video)
        for taker in takers.values():
            yield from taker.rest()
        report.broken_off = report.broken_off or missing or end.undecoded_rest(video, audio, report)
        if not report.broken_off and (unread_seconds := end.unread_seconds()):
            report.lose(UNREAD_FILE, unread_seconds)


def opened(path: str | Path, wanted: Wanted, report: Report) -> InputContainer:
    report.source = str(path)
    try:
        # A playlist that is named like a video must not make this process read other files or
        # hosts.
        options = {"protocol_whitelist": "file,crypto,data", "max_streams": str(wanted.max_streams)}
        return av.open(str(path), metadata_errors="ignore", options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        report.last_error = _last_line(error)
        kind = "video" if wanted.picture else "sound"
        raise SourceError(
            f"{path} cannot be opened as {kind}: {report.last_error}{photograph_advice(path)}"
        ) from error


def _last_line(error: BaseException) -> str:
    log = getattr(error, "log", None)
    return str(log[2]).strip() if log else str(getattr(error, "strerror", None) or error)


def on_clock(events: Iterable[Frame | Sound]) -> Iterator[Frame | NDArray[np.float32]]:
    """Decoded sound without its times: its first sample is at 0 s, and where there is no sound
    there is silence.

    Pieces are float32 `[samples]` at 48 kHz. Frames pass through. Raises SourceError, one sentence,
    where there is no sound for more than MAX_HOLE_SECONDS before sound begins or goes on.
    """
    done = 0
    for event in events:
        if isinstance(event, Frame):
            yield event
            continue
        missing = round(event.start_seconds * SAMPLE_RATE_HZ) - done
        if missing > MAX_HOLE_SECONDS * SAMPLE_RATE_HZ:
            raise SourceError(_hole(done / SAMPLE_RATE_HZ, event.start_seconds))
        yield from silence(missing)
        yield event.samples
        done += max(missing, 0) + len(event.samples)


def _hole(stops_seconds: float, goes_on_seconds: float) -> str:
    """The sentence about sound that pauses for too long."""
    if not stops_seconds:
        return f"its sound begins only at {goes_on_seconds:.0f} s; cut the file there, for example with ffmpeg -ss"
    return f"its sound stops at {stops_seconds:.0f} s and goes on at {goes_on_seconds:.0f} s; cut the file there"


def silence(samples: int) -> Iterator[NDArray[np.float32]]:
    """So many zeros, in pieces of a second at most; none when the number is below 1."""
    for start in range(0, samples, SAMPLE_RATE_HZ):
        yield np.zeros(min(SAMPLE_RATE_HZ, samples - start), np.float32)


def sound_pieces(
    path: str | Path, wanted: Wanted, report: Report | None = None
) -> Iterator[NDArray[np.float32]]:
    """The sound of a file from its beginning on, mono at 48 kHz, in pieces of about a second:
    float32 `[samples]`.

    The one reader of sound: what begins late comes late, and holes are silent. What of a damaged
    file can be decoded is taken. Raises SourceError.
    """
    for piece in on_clock(decode(path, replace(wanted, picture=False), report)):
        assert not isinstance(piece, Frame)
        yield piece


def read_sound(path: str | Path, max_hours: float = 24.0) -> NDArray[np.float32]:
    """All of `sound_pieces` in one array, at most `max_hours` of it. Raises SourceError when there
    is no sound in the file.
    """
    report = Report()
    pieces = list(sound_pieces(path, Wanted(stop_seconds=max_hours * 3600), report))
    if not any(len(piece) for piece in pieces):
        why = f": {report.last_error}" if report.last_error else ""
        raise SourceError(f"{path} has no sound that can be decoded{why}")
    return np.concatenate(pieces)


class _FileEnd:
    """Whether a file was read to its end: what each decoded stream declares, against what was read
    of it.

    A file is broken when packets are missing or do not decode, not when its headers disagree.
    """

    def __init__(
        self, path: str | Path, container: InputContainer, clock: "Clock", wanted: Wanted
    ) -> None:
        self._container, self._clock, self._wanted = container, clock, wanted
        self._path = path
        self._format = container.format.name.split(",")[0]
        self._size_bytes = container.size
        self._written_bytes = written_bytes(path, self._format)
        self._counts_frames = self._format != "mp3" or counts_frames(path)

    def declared_seconds(self, stream: av.VideoStream | av.AudioStream) -> float | None:
        """Where a stream ends on the clock by its own header; None when that does not say."""
        if (
            self._format not in STREAM_LENGTHS
            or not self._counts_frames
            or not stream.duration
            or not stream.time_base
        ):
            return None
        return (
            float(((stream.start_time or 0) + stream.duration) * stream.time_base)
            - self._clock.origin_seconds
        )

    def missing_packets(self) -> str:
        """What was not read of the wanted stretch; empty when nothing lacks, or when nobody can
        know.
        """
        if (
            self._written_bytes is not None
            and self._written_bytes <= self._size_bytes
            and not self._stopped_early()
        ):
            return ""
        for stream in self._clock.streams:
            reached = self._clock.reached_seconds.get(stream.index, 0.0)
            declared = self.declared_seconds(stream)
            if declared is None and self._format in FILE_LENGTHS:
                reached, declared = self._clock.last_seconds, self._file_seconds()
            if declared is None and self._format in BYTE_LENGTHS and self._written_bytes:
                declared = reached * self._written_bytes / self._size_bytes
            if declared and self._lacks(reached, declared):
                return f"it ends after {reached:.1f} s of the {declared:.1f} s that its header declares"
        cut_within_page = self._format == "ogg" and self._written_bytes is not None
        if cut_within_page and self._clock.last_seconds < self._wanted.stop_seconds:
            return f"it ends after {self._clock.last_seconds:.1f} s, in the middle of a page of Ogg"
        return ""

    def unread_seconds(self) -> float:
        """About how long a second file is that was appended to this one and that FFmpeg does not
        read; 0 without one.
        """
        end_byte = (
            self._clock.last_byte if self._format in ("flv", "matroska") else self._written_bytes
        )
        begin = second_file(self._path, self._format, end_byte or self._clock.last_byte)
        if (
            begin is None
            or self._clock.last_byte > begin
            or self._wanted.stop_seconds < self._clock.last_seconds
        ):
            return 0.0
        return self._clock.last_seconds * (self._size_bytes - begin) / begin

    def undecoded_rest(
        self, video: av.VideoStream | None, audio: av.AudioStream | None, report: Report
    ) -> str:
        """Which stream has packets at its end that do not decode; empty when all do."""
        for kind, stream, got in (
            ("picture", video, report.video_end_seconds),
            ("sound", audio, report.audio_end_seconds),
        ):
            reached = self._clock.reached_seconds.get(stream.index, 0.0) if stream else 0.0
            if self._lacks(got, reached):
                return f"its {kind} cannot be decoded after {got:.1f} s of {reached:.1f} s"
        return ""

    def _lacks(self, got_seconds: float, declared_seconds: float) -> bool:
        """Whether more lacks of the wanted stretch than headers are wrong by."""
        end = min(declared_seconds, self._wanted.stop_seconds)
        return end > self._wanted.start_seconds and got_seconds < end - max(1.0, 0.02 * end)

    def _file_seconds(self) -> float | None:
        """What the header of the file declares; AVI's own duration is that of what is there, so its
        frames are counted.
        """
        videos = self._container.streams.video if self._format == "avi" else ()
        counted = [
            video.frames / float(video.average_rate) for video in videos if video.average_rate
        ]
        return max([*counted, (self._container.duration or 0) / av.time_base]) or None

    def _stopped_early(self) -> bool:
        """Whether FFmpeg gave up reading though the file goes on: much of it lies behind the last
        packet.
        """
        declared, reached = self._file_seconds(), self._clock.last_seconds
        if self._format not in FILE_LENGTHS or not declared or not self._lacks(reached, declared):
            return False
        unread = self._size_bytes - self._clock.last_byte
        return unread > 0.5 * self._clock.last_byte * (declared - reached) / max(reached, 1.0)


def wanted_streams(
    container: InputContainer, path: str | Path, wanted: Wanted, report: Report | None = None
) -> tuple[av.VideoStream | None, av.AudioStream | None]:
    """The stream of pictures and the stream of sound that are meant (`stream_choice`), where they
    are wanted.

    What is passed over is written into `report`. Raises SourceError when a wanted one is not there,
    is encrypted or is too large.
    """
    if len(container.streams) >= wanted.max_streams:
        raise SourceError(
            f"{path} has {len(container.streams)} streams or more; at most {wanted.max_streams} are allowed{photograph_advice(path)}"
        )
    videos, audios = picture_streams(container), sound_streams(container)
    both = "; both picture and sound are needed" if wanted.picture and wanted.sound else ""
    if wanted.picture and not wanted.sound and is_tiled_still(container, videos):
        raise SourceError(
            f"{path} is a photograph stored in tiles, which cannot be put together here{photograph_advice(path)}"
        )
    for kind, is_wanted, found in (
        ("picture", wanted.picture, videos),
        ("sound", wanted.sound, audios),
    ):
        if is_wanted and not found:
            raise SourceError(f"{path} has no {kind} stream that can be decoded{both}")
    # The picture is chosen even if it is not wanted: in a broadcast of several programs it decides
    # on the sound.
    picture = chosen_picture(videos) if videos else None
    related = (
        related_sound(container, videos, picture.stream)
        if picture and len(videos) > 1 and len(audios) > 1
        else None
    )
    sound = chosen_sound(audios, related) if audios else None
    video = picture.stream if picture and wanted.picture else None
    audio = sound.stream if sound and wanted.sound else None
    if report is not None:
        chosen = ((picture, wanted.picture), (sound, wanted.sound))
        report.passed_over = [
            words
            for choice, is_wanted in chosen
            if choice and is_wanted
            for words in choice.passed_over
        ]
    for stream in filter(None, (video, audio)):
        if is_encrypted(stream):
            raise SourceError(_encrypted(str(path), stream.type))
    if video and video.width * video.height > wanted.max_megapixels * 1e6:
        raise SourceError(
            f"{path} has frames of {video.width} x {video.height}; at most {wanted.max_megapixels:g} megapixels are allowed"
        )
    for stream in filter(None, (video, audio)):
        stream.codec_context.thread_count = (
            1  # one file, one thread: many files at once use the cores better
        )
    return video, audio


class Clock:
    """Seconds from the container's start, the same for all streams; goes on where a file's own
    clock jumps.

    Where decoding begins late, it begins at a key frame of the first of `streams`.
    """

    def __init__(
        self, container: InputContainer, streams: Sequence[av.VideoStream | av.AudioStream]
    ) -> None:
        self._container, self.streams = container, tuple(streams)
        self._tick_seconds = {
            s.index: float(s.time_base) if s.time_base else 0.0 for s in self.streams
        }
        start: int | None = container.start_time
        starts = [
            float(s.start_time * s.time_base)
            for s in self.streams
            if s.start_time is not None and s.time_base
        ]
        self.origin_seconds = (
            start / av.time_base if start is not None else min(starts, default=0.0)
        )
        self._joins: _Joins | None = None
        self._may_jump = bool(container.format.flags & TS_DISCONT)
        self.reached_seconds: dict[int, float] = {}
        """Where the packets of each stream end that were read so far, by its index."""
        self.last_seconds = 0.0
        """Where the packets of any stream end, also of those that are not decoded where the
        format's length counts them.
        """
        self.last_byte = 0
        """Where in the file they end."""

    @property
    def parts_seconds(self) -> list[float]:
        """Where the parts of a joined file begin on this clock, but for the first."""
        return (
            [begin - self.origin_seconds for begin in self._joins.begins_seconds]
            if self._joins
            else []
        )

    def at(
        self, timed: Packet | av.VideoFrame | av.AudioFrame, stream: av.VideoStream | av.AudioStream
    ) -> float | None:
        """When a packet or frame of `stream` is to be shown or heard; None when it does not say.

        Ticks are the stream's: what a decoder gives at the very end carries no time base of its
        own.
        """
        return (
            None
            if timed.pts is None
            else timed.pts * self._tick_seconds[stream.index] - self.origin_seconds
        )

    def lasts(self, timed: Packet | av.VideoFrame, stream: av.VideoStream) -> float:
        """How long a packet or frame says it lasts; 0 when it does not say."""
        return (timed.duration or 0) * self._tick_seconds[stream.index]

    def packets(self, start_seconds: float) -> Iterator[Packet]:
        """The packets of the streams, from a key frame before `start_seconds` on where the file can
        be searched.
        """
        if (
            self._may_jump
        ):  # what the file calls a time may be there twice, so it is read from its beginning
            packets = self._from_key_frame(start_seconds, self._joined(self._demuxed()))
        else:
            packets = self._joined(self._sought(start_seconds))
        for packet in packets:
            at = self.at(packet, packet.stream)
            if at is not None:
                end = at + (packet.duration or 0) * self._tick_seconds[packet.stream_index]
                self.reached_seconds[packet.stream_index] = max(
                    end, self.reached_seconds.get(packet.stream_index, end)
                )
                self.last_seconds = max(self.last_seconds, end)
            yield packet

    def _demuxed(self) -> Iterator[Packet]:
        """The packets of the streams as they lie in the file."""
        names = self._container.format.name.split(",")
        wanted = () if FILE_LENGTHS.intersection(names) else self.streams
        for packet in self._container.demux(*wanted):
            if (
                not packet.size
            ):  # demux ends with an empty packet a stream; the decoders are flushed by hand
                continue
            if packet.pos is not None:
                self.last_byte = max(self.last_byte, packet.pos + packet.size)
            if packet.stream_index in self._tick_seconds:
                yield packet
            elif packet.pts is not None and packet.time_base:
                end = (
                    float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    - self.origin_seconds
                )
                self.last_seconds = max(self.last_seconds, end)

    def _joined(self, packets: Iterator[Packet]) -> Iterator[Packet]:
        """The packets with times of one clock, where the file is made of parts that have one each."""
        joins = _Joins(self._tick_seconds, self._may_jump)
        self._joins = joins
        try:
            for packet in packets:
                yield from joins.feed(packet)
        except av.FFmpegError:
            yield from joins.rest()
            raise
        yield from joins.rest()

    def _sought(self, start_seconds: float) -> Iterator[Packet]:
        """The packets from a key frame of the first stream on that lies before `start_seconds`."""
        first, begun = self.streams[0], not self._seek(start_seconds)
        for packet in self._demuxed():
            begun = begun or (packet.stream is first and packet.is_keyframe)
            if packet.stream is not first or begun:
                yield packet

    def _from_key_frame(self, start_seconds: float, packets: Iterator[Packet]) -> Iterator[Packet]:
        """`packets` without those before the last key frame of the first stream that is a run-up
        before `start_seconds`.
        """
        first, target = self.streams[0], start_seconds - SEEK_PREROLL_SECONDS[0]
        waiting: list[Packet] = []
        begun = target <= 0
        for packet in packets:
            if begun:
                yield packet
                continue
            at = self.at(packet, first) if packet.stream is first else None
            if at is not None and at <= target and packet.is_keyframe:
                waiting.clear()
            waiting.append(packet)
            begun = at is not None and at > target
            if begun:
                yield from waiting
        if not begun:
            yield from waiting

    def _seek(self, start_seconds: float) -> bool:
        """Go to where decoding must begin to have the frame at `start_seconds`; False when that is
        where the file begins.
        """
        first = self.streams[0]
        for preroll in SEEK_PREROLL_SECONDS:
            target = start_seconds - preroll
            if target <= 0:
                break
            with contextlib.suppress(av.FFmpegError):
                self._container.seek(int((target + self.origin_seconds) * av.time_base))
                found = next(
                    (
                        self.at(p, first)
                        for p in self._container.demux(first)
                        if p.size and p.is_keyframe
                    ),
                    None,
                )
                if found is not None and found <= start_seconds:
                    self._container.seek(int((target + self.origin_seconds) * av.time_base))
                    return True
        if start_seconds > SEEK_PREROLL_SECONDS[0]:  # something was read already
            self._container.seek(int((self.origin_seconds - DISCONTINUITY_SECONDS) * av.time_base))
        return False


class _Joins:
    """Makes one clock of those of the parts of a joined file: a part begins where the part before
    it ended.

    A part begins where the times of a stream go back by STEP_BACK_SECONDS, or ahead by
    DISCONTINUITY_SECONDS where the format lets them jump. All streams that step there are moved by
    the same time, so that they stay in sync; none overlaps.
    """

    def __init__(self, tick_seconds: dict[int, float], may_jump_ahead: bool) -> None:
        self._tick_seconds, self._may_jump_ahead = tick_seconds, may_jump_ahead
        self._shifts_seconds = [0.0]
        self.begins_seconds: list[float] = []
        """Where each part but the first begins, moved."""
        self._part: dict[int, int] = {}
        """Which part each stream is in."""
        self._last: dict[int, tuple[float, float]] = {}
        """When the last packet of each stream begins and ends, by the file's own times."""
        self._waiting: list[tuple[Packet, bool]] = []
        """Packets since the first stream stepped; the second says whether they belong to the new
        part.
        """
        self._begins: dict[int, float] = {}
        """When the new part begins in each stream that has reached it, by its own times."""
        self._new: dict[int, tuple[float, float]] = {}
        """As `_last`, of the new part."""

    def feed(self, packet: Packet) -> list[Packet]:
        """The packets that are certain now, moved."""
        stream, at = packet.stream_index, self._time(packet)
        if at is None:
            if not self._waiting:
                return [self._moved(packet, self._part.get(stream, len(self._shifts_seconds) - 1))]
            self._waiting.append((packet, stream in self._begins))
            return []
        if self._waiting:
            return self._wait(packet, at)
        newest = len(self._shifts_seconds) - 1
        part = self._part.setdefault(stream, newest)
        if part < newest and self._is_nearer(
            at, stream, [self._last[s] for s, p in self._part.items() if p == newest]
        ):
            part = self._part[stream] = newest
        elif stream in self._last and self._steps(packet, at, self._last[stream]):
            return self._wait(packet, at)
        self._last[stream] = self._span(packet, at, self._last.get(stream))
        return [self._moved(packet, part)]

    def rest(self) -> list[Packet]:
        """The packets that still wait."""
        return self._settle() if self._waiting else []

    def _time(self, packet: Packet) -> float | None:
        ticks = packet.dts if packet.dts is not None else packet.pts
        tick = self._tick_seconds[packet.stream_index]
        return ticks * tick if ticks is not None and tick else None

    def _span(
        self, packet: Packet, at: float, last: tuple[float, float] | None
    ) -> tuple[float, float]:
        """When a packet begins and ends; one that does not say how long it lasts, lasts as long as
        the one before.
        """
        lasts = (packet.duration or 0) * self._tick_seconds[packet.stream_index]
        if not lasts and last:
            lasts = max(min(at - last[0], STEP_BACK_SECONDS), 0.0)
        return at, at + lasts

    def _steps(self, packet: Packet, at: float, last: tuple[float, float]) -> bool:
        """Whether a packet lies so far from the one before that another part begins."""
        begin, end = last
        reordered = 20 * (end - begin) if packet.dts is None else 0.0
        return begin - at > max(STEP_BACK_SECONDS, reordered) or (
            self._may_jump_ahead and at - end > DISCONTINUITY_SECONDS
        )

    def _is_nearer(self, at: float, stream: int, newer: list[tuple[float, float]]) -> bool:
        """Whether a time goes on from another stream's newer part rather than from its own stream's
        last packet.
        """
        if stream not in self._last:
            return bool(newer)
        return min((abs(at - end) for _, end in newer), default=np.inf) < abs(
            at - self._last[stream][1]
        )

    def _wait(self, packet: Packet, at: float) -> list[Packet]:
        """Keep a packet until it is certain that a new part has begun and where."""
        stream = packet.stream_index
        first_stepping = next(iter(self._begins), stream)
        is_new = (
            stream in self._begins
            or not self._begins
            or self._is_nearer(at, stream, list(self._new.values()))
        )
        if stream in self._begins and self._steps_home(packet, at):
            return self._forget(packet, at)
        if is_new:
            self._begins.setdefault(stream, at)
            self._new[stream] = self._span(packet, at, self._new.get(stream))
        else:
            self._last[stream] = self._span(packet, at, self._last.get(stream))
        self._waiting.append((packet, is_new))
        if len(self._waiting) > MOST_PACKETS:
            return self._settle()
        seen = sum(new and waiting.stream_index == first_stepping for waiting, new in self._waiting)
        spans = self._new[first_stepping][1] - self._begins[first_stepping]
        if seen >= FEWEST_PACKETS and (len(self._begins) == len(self._tick_seconds) or spans > 2.0):
            return self._settle()
        return []

    def _steps_home(self, packet: Packet, at: float) -> bool:
        """Whether a stream that stepped goes on where it was before: then the step was a wrong
        timestamp.
        """
        stream = packet.stream_index
        if stream not in self._last:
            return False
        return (
            abs(at - self._last[stream][1]) < STEP_BACK_SECONDS
            and abs(at - self._new[stream][1]) > STEP_BACK_SECONDS
        )

    def _forget(self, packet: Packet, at: float) -> list[Packet]:
        """No new part: all that waited is passed on with the times that it has."""
        waiting = [waited for waited, _ in self._waiting]
        self._waiting, self._begins, self._new = [], {}, {}
        self._last[packet.stream_index] = self._span(packet, at, self._last[packet.stream_index])
        newest = len(self._shifts_seconds) - 1
        return [
            self._moved(waited, self._part.get(waited.stream_index, newest))
            for waited in [*waiting, packet]
        ]

    def _settle(self) -> list[Packet]:
        """The new part begins where the old one has ended in every stream that steps."""
        newest = len(self._shifts_seconds) - 1
        ends = {
            s: self._last[s][1] + self._shifts_seconds[self._part[s]]
            for s in self._begins
            if s in self._last
        }
        self._shifts_seconds.append(max(end - self._begins[s] for s, end in ends.items()))
        self.begins_seconds.append(min(self._begins.values()) + self._shifts_seconds[-1])
        moved = []
        for packet, is_new in self._waiting:
            moved.append(
                self._moved(
                    packet, newest + 1 if is_new else self._part.get(packet.stream_index, newest)
                )
            )
        for stream, last in self._new.items():
            self._part[stream], self._last[stream] = newest + 1, last
        self._waiting, self._begins, self._new = [], {}, {}
        return moved

    def _moved(self, packet: Packet, part: int) -> Packet:
        tick = self._tick_seconds[packet.stream_index]
        ticks = round(self._shifts_seconds[part] / tick) if tick else 0
        if ticks:
            if packet.dts is not None:
                packet.dts += ticks
            if packet.pts is not None:
                packet.pts += ticks
        return packet


class _Pictures:
    """Picks frames off the decoder by their timestamps and prepares the picked ones only."""

    def __init__(
        self,
        stream: av.VideoStream,
        clock: Clock,
        wanted: Wanted,
        report: Report,
        nearest_to: Iterator[float] | None = None,
    ) -> None:
        self._stream, self._clock, self._wanted, self._report = stream, clock, wanted, report
        self._times = nearest_to
        self._next_seconds = next(nearest_to, np.inf) if nearest_to else np.inf
        self._before: tuple[float, float, av.VideoFrame] | None = None
        self._usual_seconds = 1 / float(stream.average_rate) if stream.average_rate else 0.04
        self._waiting: deque[Packet] = deque()
        self._first_of_bin: dict[int, float] = {}
        self._fed_times: deque[float] = deque(maxlen=4 * LOOKAHEAD_PACKETS)
        self._hold_seconds = HOLD_BINS / wanted.frames_per_second
        self._unused: tuple[float, av.VideoFrame] | None = None
        """The last frame and when it begins, when it was not the first of its bin."""
        self._end_seconds = 0.0
        self.ends_seconds: float | None = None
        """Where the whole stream says that it ends; the last frame is shown until then."""
        self._last_seconds = -np.inf
        self._decoded_seconds = 0.0
        self._bin: float = -np.inf
        self._scaler = VideoReformatter()
        self._range = RangeMapper(stream.codec_context)
        self._decodes_all = True
        self.is_over = False

    def feed(self, packet: Packet) -> Iterator[Frame]:
        at = self._clock.at(packet, self._stream)
        if at is not None:
            self._fed_times.append(at)
            if at >= self._wanted.start_seconds:
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
        end = max(self._end_seconds, self._decoded_seconds)
        if self.ends_seconds is not None and self.ends_seconds > end + self._hold_seconds:
            end = self.ends_seconds
            if self._before:
                self._before = self._before[0], end, self._before[2]
        self._report.video_end_seconds = min(end, self._wanted.stop_seconds)
        if self._times:
            yield from self._nearest(np.inf)
        elif not self.is_over:
            yield from self._held_until(self._report.video_end_seconds)

    def _decode(self, packet: Packet | None) -> Iterator[Frame]:
        if self._wanted.skip_unneeded and packet is not None and not self._times:
            needed = self._wants(packet)
            if needed != self._decodes_all:
                self._stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
                self._decodes_all = needed
        damaged = self._report.damaged
        frames = decoded(self._stream.codec_context, packet, self._report)
        at = self._clock.at(packet, self._stream) if packet is not None else None
        if at is not None and at < self._wanted.start_seconds:
            self._report.damaged = damaged  # a run-up may refer to frames that were not read
        elif at is not None and self._report.damaged == damaged:
            lasts = self._clock.lasts(packet, self._stream) or self._usual_seconds
            self._decoded_seconds = max(self._decoded_seconds, at + lasts)
        for frame in frames:
            if frame.width * frame.height > self._wanted.max_megapixels * 1e6:
                self._report.broken_off = f"its frames grow to {frame.width} x {frame.height}"
                return
            yield from self._take(frame)

    def _wants(self, packet: Packet) -> bool:
        """Whether the frame of a packet is the first of its bin, or the last for long; all that
        could lie beside it have been fed.
        """
        at = self._clock.at(packet, self._stream)
        if at is None:
            return True
        bin_ = self._wanted.bin(at)
        if len(self._first_of_bin) > 256:
            self._first_of_bin = {b: t for b, t in self._first_of_bin.items() if b > bin_ - 64}
        if self._wanted.start_seconds <= at <= self._first_of_bin.get(bin_, at):
            return True
        later = min((time for time in self._fed_times if time > at), default=np.inf)
        return self._is_held(at, later)

    def _is_held(self, at: float, later: float) -> bool:
        """Whether a frame of time `at` is on screen long before the next one comes, in the wanted
        stretch.
        """
        return later > max(at, self._wanted.start_seconds) + self._hold_seconds

    def _held_until(self, later: float) -> Iterator[Frame]:
        """The last frame, when it was left out but is to be seen for long until the next one."""
        if self._unused and self._is_held(self._unused[0], later):
            at, frame = self._unused
            self._unused = None
            self._report.damaged += frame.is_corrupt
            yield Frame(at, later, self._upright(frame))

    def _take(self, frame: av.VideoFrame) -> Iterator[Frame]:
        at = self._clock.at(frame, self._stream)
        if at is None:
            at = (
                self._last_seconds + self._usual_seconds if np.isfinite(self._last_seconds) else 0.0
            )
        shown = self._clock.lasts(frame, self._stream) or self._usual_seconds
        if at <= self._last_seconds:
            if self._wanted.start_seconds <= at < self._last_seconds - shown:
                self._report.lose(PICTURE_IN_PAST, min(shown, self._last_seconds - at))
            return
        if not self._times:
            yield from self._held_until(at)
        self._last_seconds = at
        self._end_seconds = min(at + shown, self._wanted.stop_seconds)
        # Until the next frame says how long this one was seen, no clip is cut beyond it.
        self._report.video_end_seconds = min(
            at + min(shown, self._hold_seconds), self._wanted.stop_seconds
        )
        if at > self._wanted.max_hours * 3600:
            self._report.broken_off = f"it is longer than {self._wanted.max_hours:g} hours"
        self.is_over = at >= self._wanted.stop_seconds
        if self._times:
            yield from self._nearest(at)
            self._before = at, at + shown, frame
            return
        bin_ = self._wanted.bin(at)
        if bin_ > self._bin and at >= self._wanted.start_seconds and not self.is_over:
            self._bin, self._unused = bin_, None
            self._report.damaged += frame.is_corrupt
            yield Frame(at, at + shown, self._upright(frame))
        else:
            self._unused = at, frame

    def _nearest(self, at: float) -> Iterator[Frame]:
        """The frame before this one, for every time that it is nearest to; at infinity, for every
        time until it ends.
        """
        if not self._before or not self._times:
            return
        before, end, picture = self._before
        last = end if at == np.inf else (before + at) / 2
        planes = self._upright(picture) if self._next_seconds < last else None
        while planes and self._next_seconds < last:
            yield Frame(before, end, planes)
            self._next_seconds = next(self._times, np.inf)

    def _upright(self, frame: av.VideoFrame) -> Planes:
        """Square pixels, never larger than the source in any direction, turned as the display
        matrix says.
        """
        aspect = (
            float(
                self._stream.sample_aspect_ratio
                or self._stream.codec_context.sample_aspect_ratio
                or 1
            )
            or 1.0
        )
        seen = (
            (frame.width, frame.height / aspect)
            if aspect >= 1
            else (frame.width * aspect, frame.height)
        )
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
        planes = (
            np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height, : p.width]
            for p in stored
        )
        luma, blue, red = map(orientation.upright, planes)
        return _evenly_stored(luma), np.ascontiguousarray(blue), np.ascontiguousarray(red)


def _evenly_stored(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same plane in memory of even height and width, its edge repeated: libjpeg-turbo reads
    that far.
    """
    height, width = plane.shape
    if not (height % 2 or width % 2):
        return np.ascontiguousarray(plane)
    return np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")[:height, :width]


def decoded(codec: Any, packet: Packet | None, report: Report) -> list[Any]:
    """The frames that a packet completes; None flushes the decoder. Raises SourceError when the
    packet is encrypted.
    """
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


@dataclass(frozen=True, eq=False)
class Placed:
    """A block of sound and where it goes: after the block before it, or at `start_seconds`."""

    block: Any
    samples: int
    rate_hz: int
    shift_samples: int
    """Silence before the block; below zero, so many samples of its beginning are left out."""
    start_seconds: float | None
    """Where the block begins when it does not follow the one before: at the very beginning or
    behind a long gap.
    """


class Follower:
    """Decides where blocks of sound go, by their timestamps and the number of their samples.

    Samples follow one another while timestamps only oscillate, as those of programs that stamp with
    the wall clock do. Where timestamps agree with each other on another place for SETTLE_SECONDS,
    or differ by DRIFT_SECONDS in the median, the sound is moved there: a lost packet becomes
    silence, an overlap is cut off.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[float | None, int, int, Any]] = deque()
        self._waiting_seconds = 0.0
        self._expected_seconds = -np.inf

    def feed(self, at: float | None, samples: int, rate_hz: int, block: Any) -> Iterator[Placed]:
        """Take a block that says to be heard at second `at`; give those that are placed by now."""
        if samples <= 0:
            return
        self._waiting.append((at, samples, rate_hz, block))
        self._waiting_seconds += samples / rate_hz
        while self._waiting_seconds - self._waiting[0][1] / self._waiting[0][2] >= SETTLE_SECONDS:
            yield self._place()

    @property
    def waits(self) -> bool:
        """Whether blocks wait to be placed."""
        return bool(self._waiting)

    @property
    def end_seconds(self) -> float:
        """Where the next block is expected."""
        return self._expected_seconds + self._waiting_seconds

    def rest(self) -> Iterator[Placed]:
        """The blocks that still wait."""
        while self._waiting:
            yield self._place()

    def _place(self) -> Placed:
        """The first block that waits."""
        start = None
        if not np.isfinite(self._expected_seconds):
            start = self._expected_seconds = self._beginning()
            drift = 0.0
        else:
            drift = self._drift()
            if drift > MAX_GAP_SECONDS:
                self._expected_seconds += drift
                start, drift = self._expected_seconds, 0.0
        _, samples, rate_hz, block = self._waiting.popleft()
        self._waiting_seconds -= samples / rate_hz
        shift = max(round(drift * rate_hz), -samples)
        self._expected_seconds += (samples + shift) / rate_hz
        return Placed(block, samples, rate_hz, shift, start)

    def _drifts(self) -> NDArray[np.float64]:
        """How much later than expected each block that waits says to be heard, seconds."""
        expected, drifts = self._expected_seconds, []
        for at, samples, rate_hz, _ in self._waiting:
            if at is not None:
                drifts.append(at - expected)
            expected += samples / rate_hz
        return np.array(drifts)

    def _beginning(self) -> float:
        """Where the first block begins: where it says, or where the others agree on when their
        times oscillate.
        """
        self._expected_seconds = 0.0
        drifts = self._drifts()
        if not len(drifts) or self._waiting[0][0] is None:
            return 0.0
        oscillate = len(drifts) > 1 and RESYNC_SECONDS < np.ptp(drifts[1:]) < HARD_SECONDS
        return float(np.median(drifts) if oscillate else drifts[0])

    def _drift(self) -> float:
        """By how much the first block that waits is to be moved, seconds."""
        at = self._waiting[0][0]
        first = 0.0 if at is None else at - self._expected_seconds
        if abs(first) <= RESYNC_SECONDS:
            return 0.0
        drifts = self._drifts()
        agree = np.ptp(drifts) <= RESYNC_SECONDS
        enough = self._waiting_seconds >= SETTLE_SECONDS / 2 or abs(first) > HARD_SECONDS
        if agree and enough:
            return first
        soon = float(np.median(drifts[:5]))
        medians = np.array([np.median(drifts), soon]) * np.sign(first)
        return soon if medians.min() > DRIFT_SECONDS else 0.0


class _Waves:
    """Puts decoded sound on the clock: mono, short gaps filled with silence, overlaps cut,
    resampled.

    Decoders give some 20 ms at a time; about a second is gathered before anything is computed.
    """

    def __init__(
        self, stream: av.AudioStream, clock: Clock, wanted: Wanted, report: Report
    ) -> None:
        self._stream, self._clock, self._wanted, self._report = stream, clock, wanted, report
        self._kind: tuple[str, tuple[str, ...], int] | None = None
        self._follower = Follower()
        self._parts = 0
        self._late_seconds = 0.0
        """By how much the parts of a joined file begin later than their packets say."""
        self._gathered: list[list[NDArray[Any]]] = []
        self._gathered_samples = 0
        self._reader = SamplePlanes()
        self._mixer: Mixer | None = None
        self._resampler: Resampler | None = None
        self._start_seconds = 0.0
        self._emitted = 0
        self.is_over = False

    def feed(self, packet: Packet | None) -> Iterator[Sound]:
        damaged = self._report.damaged
        frames = decoded(self._stream.codec_context, packet, self._report)
        at = self._clock.at(packet, self._stream) if packet is not None else None
        if at is not None and at < self._wanted.start_seconds:
            self._report.damaged = damaged  # a run-up may refer to packets that were not read
        for frame in frames:
            yield from self._take(frame)

    def pause(self) -> Iterator[Sound]:
        """What was gathered, when no more sound may come for long."""
        if self._gathered or self._follower.waits or self._resampler:
            yield from self._end()

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
        if kind != self._kind:
            yield from self._end()
            self._kind = kind
        at = self._behind_parts(self._clock.at(frame, self._stream))
        for placed in self._follower.feed(at, frame.samples, frame.sample_rate, (planes, each)):
            yield from self._place(placed)
        self.is_over = at is not None and at >= self._wanted.stop_seconds

    def _behind_parts(self, at: float | None) -> float | None:
        """Where a file of sound alone is joined of parts, each begins where the samples before it
        end.

        The last packets of a part may have no times, as in FLAC; what they hold is known only when
        it is decoded.
        """
        if at is None or len(self._clock.streams) > 1:
            return at
        while (
            self._parts < len(self._clock.parts_seconds)
            and at >= self._clock.parts_seconds[self._parts] - RESYNC_SECONDS
        ):
            self._parts += 1
            self._late_seconds = max(self._follower.end_seconds - at, self._late_seconds)
        return at + self._late_seconds

    def _place(self, placed: Placed) -> Iterator[Sound]:
        """Gather a block of samples, with silence before it or its beginning cut off where its
        place asks for that.
        """
        planes, each = placed.block
        rate_hz = placed.rate_hz
        shift = placed.shift_samples
        if placed.start_seconds is not None:
            yield from self._close()
            self._start_seconds, self._emitted = placed.start_seconds, 0
        if self._resampler is None and rate_hz != SAMPLE_RATE_HZ:
            self._resampler = self._wanted.resampler(rate_hz)
        if shift > 0:
            planes = [
                np.concatenate([np.full(shift * each, zero_level(plane), plane.dtype), plane])
                for plane in planes
            ]
        elif shift < 0:
            planes = [plane[-shift * each :] for plane in planes]
            if self._follower.end_seconds > self._wanted.start_seconds:
                self._report.lose(SOUND_IN_PAST, -shift / rate_hz)
        self._gathered.append(planes)
        self._gathered_samples += placed.samples + shift
        if self._gathered_samples >= rate_hz:
            yield from self._flush()

    def _flush(self) -> Iterator[Sound]:
        if self._gathered and self._kind:
            _, names, rate_hz = self._kind
            if self._mixer is None or self._mixer.channels != names:
                self._mixer = Mixer(names, rate_hz)
            samples = self._mixer.mix(
                [np.concatenate(plane) for plane in zip(*self._gathered, strict=True)]
            )
            if self._mixer.was_out_of_phase:
                self._report.marks.add("out-of-phase")
            self._gathered, self._gathered_samples = [], 0
            yield from self._emit(
                self._resampler.resample_chunk(samples) if self._resampler else samples
            )

    def _end(self) -> Iterator[Sound]:
        for placed in self._follower.rest():
            yield from self._place(placed)
        yield from self._close()

    def _close(self) -> Iterator[Sound]:
        """End a stretch of sound: what was gathered and what the resampler holds."""
        yield from self._flush()
        if self._resampler:
            yield from self._emit(
                self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            )
            self._resampler = None

    def _emit(self, samples: NDArray[np.float32]) -> Iterator[Sound]:
        start = self._start_seconds + self._emitted / SAMPLE_RATE_HZ
        self._emitted += len(samples)
        early = (
            int(np.ceil((self._wanted.start_seconds - start) * SAMPLE_RATE_HZ - 0.05))
            if start < self._wanted.start_seconds
            else 0
        )
        keep = min((self._wanted.stop_seconds - start) * SAMPLE_RATE_HZ + 1e-6, len(samples))
        if early < int(keep):
            sound = Sound(start + early / SAMPLE_RATE_HZ, samples[early : int(keep)])
            self._report.audio_end_seconds = sound.end_seconds
            yield sound
