"""A video -> the same video drawn anew: every frame once, at its own time, and the sound as it was.
Frames pass, none is kept.

Knows timestamps, codecs and MP4; who asks for the frames draws them. Colors are ITU-R BT.601,
limited range, as H.264 players expect of a stream that says so.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from looklisten.errors import SourceError
from looklisten.media.decode.clock import Clock
from looklisten.media.decode.dynamic_range import RangeMapper, needs_mapping
from looklisten.media.decode.open import open_media, select_streams
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.orientation import orientation_of
from looklisten.media.decode.packets import decode_packet
from looklisten.media.decode.placement import BlockPlacer, PlacedBlock
from looklisten.media.decode.records import DecodeReport, Packet, Planes

COPIED_SOUND = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"})
"""Sound that an MP4 file holds as it is; other sound becomes AAC. MP2 fits too, but no browser
plays it.
"""

AAC_RATES_HZ = frozenset(
    {96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000}
)
AAC_BITS_A_SECOND = 192_000

GAP_SECONDS = 0.02
"""Sound to be encoded that is so far off its timestamp is put there, with silence in between or its
beginning cut off.
"""

FINEST_TICK = Fraction(1, 1_000_000)
COARSE_TICK = Fraction(1, 90_000)
"""What times are counted in where the source counts finer than `FINEST_TICK`."""

H264 = {"preset": "veryfast", "crf": "20", "g": "50"}
"""Fast, hardly to be told from lossless by eye, and a key frame every two seconds or so, to jump
to.
"""


@dataclass(frozen=True)
class VideoInfo:
    """The size in which a video is seen, upright and with square pixels, and how long it says it is
    (0: it does not say).
    """

    width: int
    height: int
    duration_seconds: float


def measure_video(source: str | Path) -> VideoInfo:
    """What the first frame of a video measures. Raises SourceError when there is none."""
    with open_media(source, DecodeOptions(), report := DecodeReport()) as container:
        video, _ = select_streams(container, source, DecodeOptions(), report)
        assert video is not None
        for packet in container.demux(video):
            for frame in decode_packet(
                video.codec_context, packet if packet.size else None, report
            ):
                aspect = (
                    float(video.sample_aspect_ratio or video.codec_context.sample_aspect_ratio or 1)
                    or 1.0
                )
                size = (
                    (frame.width, frame.height / aspect)
                    if aspect >= 1
                    else (frame.width * aspect, frame.height)
                )
                width, height = (
                    max(round(side), 1)
                    for side in (size[::-1] if orientation_of(frame).swaps_sides else size)
                )
                return VideoInfo(width, height, (container.duration or 0) / av.time_base)
    raise SourceError(
        f"{source} has no frame that can be decoded{f': {report.last_error}' if report.last_error else ''}"
    )


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """A frame of the source that is to be drawn: when, of how many seconds, and its planes in the
    size that was asked for.
    """

    at_seconds: float
    total_seconds: int
    picture: Planes


def redraw_frames(
    source: str | Path, out: str | Path, picture: tuple[int, int], canvas: tuple[int, int]
) -> Generator[SourceFrame | None, Planes | None, int]:
    """Write `out`, an H.264 MP4 file with a frame of `canvas` (width, height) for every frame of
    `source`; returns how many.

    Yields each frame of the source in the size `picture`, at last None, and takes what was drawn of
    the frame before: a canvas. So frames are decoded while others are drawn. Both are planes of
    luma and, at half the resolution, chroma. All sizes are even. Sound of `COPIED_SOUND` is copied
    packet by packet, other sound encoded. Of a file that breaks off, what came before is drawn.
    Raises SourceError when the source lacks picture or sound.
    """
    report = DecodeReport()
    with open_media(source, DecodeOptions(), report) as container:
        video, audio = select_streams(container, source, DecodeOptions(), report)
        assert video is not None
        assert audio is not None
        clock = Clock(container, [video, audio])
        video.codec_context.thread_count = 0
        total_seconds = round((container.duration or 0) / av.time_base)
        with av.open(str(out), "w", "mp4", options=_MP4) as film:
            frames = _Frames(film, video, clock, picture, canvas, total_seconds, report)
            copied = audio.codec.canonical_name in COPIED_SOUND
            sound = _Copied(film, audio, clock) if copied else _Encoded(film, audio, clock, report)
            for packet in _packets(clock, report):
                if packet.stream_index == video.index:
                    yield from frames.feed(packet)
                else:
                    film.mux(sound.feed(packet))
            yield from frames.rest()
            film.mux(sound.rest())
    return frames.count


_MP4 = {"movflags": "+faststart", "strict": "experimental"}


def _packets(clock: Clock, report: DecodeReport) -> Iterator[Packet]:
    try:
        yield from clock.packets(0.0)
    except av.FFmpegError as error:
        report.last_error = str(error)


class _Frames:
    """Decodes, has drawn and encodes the picture."""

    def __init__(
        self,
        film: OutputContainer,
        stream: av.VideoStream,
        clock: Clock,
        picture: tuple[int, int],
        canvas: tuple[int, int],
        total_seconds: int,
        report: DecodeReport,
    ) -> None:
        self._film, self._stream, self._clock, self._report = film, stream, clock, report
        self._picture, self._canvas, self._total_seconds = picture, canvas, total_seconds
        self._scaler = VideoReformatter()
        self._range = RangeMapper(stream.codec_context)
        tick = stream.time_base or COARSE_TICK
        self._tick = tick if tick >= FINEST_TICK else COARSE_TICK
        rate = stream.average_rate or Fraction(25)
        self._usual_seconds = float(1 / rate)
        self._encoder: Any = film.add_stream("libx264", rate.limit_denominator(1001), options=H264)
        self._encoder.width, self._encoder.height = canvas
        self._encoder.pix_fmt = "yuv420p"
        context = self._encoder.codec_context
        context.time_base = self._tick
        context.colorspace, context.color_range = Colorspace.ITU601, ColorRange.MPEG
        self._at_seconds = 0.0
        self.count = 0
        self._last_ticks: int | None = None
        self._waiting: tuple[int, int] | None = None
        """When the last frame that was given away begins and how long it lasts, in ticks."""

    def feed(self, packet: Packet | None) -> Generator[SourceFrame | None, Planes | None, None]:
        for frame in decode_packet(self._stream.codec_context, packet, self._report):
            yield from self._take(frame)

    def rest(self) -> Generator[SourceFrame | None, Planes | None, None]:
        yield from self.feed(None)
        if self._waiting:
            self._encode((yield None))
        self._film.mux(self._encoder.encode(None))

    def _take(self, frame: av.VideoFrame) -> Generator[SourceFrame | None, Planes | None, None]:
        at = self._clock.at(frame, self._stream)
        if at is None:
            at = self._at_seconds + self._usual_seconds if self.count else 0.0
        ticks = round(at / self._tick)
        if self._last_ticks is not None and ticks <= self._last_ticks:
            return
        self._at_seconds, self._last_ticks, self.count = at, ticks, self.count + 1
        drawn = yield SourceFrame(at, self._total_seconds, self._upright(frame))
        if self._waiting:
            self._encode(drawn)
        self._waiting = (
            ticks,
            round((self._clock.lasts(frame, self._stream) or self._usual_seconds) / self._tick),
        )

    def _encode(self, drawn: Planes | None) -> None:
        """What was drawn of the frame that waits."""
        if not self._waiting or drawn is None:
            return
        canvas = av.VideoFrame(*self._canvas, "yuv420p")
        for plane, values in zip(_planes(canvas), drawn, strict=True):
            plane[:] = values
        canvas.pts, canvas.duration = self._waiting
        canvas.time_base = self._tick
        self._film.mux(self._encoder.encode(canvas))

    def _upright(self, frame: av.VideoFrame) -> Planes:
        orientation = orientation_of(frame)
        width, height = self._picture[::-1] if orientation.swaps_sides else self._picture
        interpolation = "AREA" if width < frame.width else "BILINEAR"
        if needs_mapping(self._stream.codec_context):
            frame = self._range.mapped(frame, width, height, interpolation)
        scaled = self._scaler.reformat(
            frame,
            width=width,
            height=height,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range="MPEG",
            interpolation=interpolation,
            threads=1,
        )
        luma, blue, red = map(orientation.upright, _planes(scaled))
        return luma, blue, red


def _planes(frame: av.VideoFrame) -> Planes:
    """The planes of a frame, without copying: what is written there is in the frame."""
    stored: tuple[Any, ...] = frame.planes
    luma, blue, red = (
        np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height, : p.width] for p in stored
    )
    return luma, blue, red


class _Copied:
    """Passes packets of sound on, moved onto the clock."""

    def __init__(self, film: OutputContainer, stream: av.AudioStream, clock: Clock) -> None:
        self._stream, self._clock = stream, clock
        self._copy = film.add_stream_from_template(stream)
        self._last: int | None = None

    def feed(self, packet: Packet) -> list[Packet]:
        at = self._clock.at(packet, self._stream)
        if at is None or packet.dts is None:
            return []
        moved = round(at / self._stream.time_base) - packet.pts  # type: ignore[operator]
        packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
        if self._last is not None and packet.dts <= self._last:
            return []
        self._last, packet.stream = packet.dts, self._copy
        return [packet]

    def rest(self) -> list[Packet]:
        return []


class _Encoded:
    """Decodes sound and encodes it as AAC, holes filled with silence."""

    def __init__(
        self, film: OutputContainer, stream: av.AudioStream, clock: Clock, report: DecodeReport
    ) -> None:
        self._stream, self._clock, self._report = stream, clock, report
        rate = stream.codec_context.sample_rate
        self._rate_hz = rate if rate in AAC_RATES_HZ else 48_000
        self._layout = "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo"
        self._encoder: Any = film.add_stream("aac", self._rate_hz, layout=self._layout)
        self._encoder.bit_rate = AAC_BITS_A_SECOND
        self._kind: tuple[str, str, int] | None = None
        self._graph: Any = None
        self._follower = BlockPlacer()
        self._end_seconds = 0.0
        """Where the frames end that were placed so far."""

    def feed(self, packet: Packet | None) -> list[Packet]:
        packets: list[Packet] = []
        for frame in decode_packet(self._stream.codec_context, packet, self._report):
            at = self._clock.at(frame, self._stream)
            for placed in self._follower.feed(at, frame.samples, frame.sample_rate, frame):
                packets += self._take(placed)
        return packets

    def rest(self) -> list[Packet]:
        packets = self.feed(None)
        for placed in self._follower.rest():
            packets += self._take(placed)
        return [*packets, *self._drain(), *self._encoder.encode(None)]

    def _take(self, placed: PlacedBlock) -> list[Packet]:
        """Resample and encode a frame where it was placed, not where its timestamp says: that may
        oscillate.
        """
        frame, packets = placed.block, []
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            packets += self._drain()
            self._kind, self._graph = kind, self._resampling(frame)
        shift_seconds = placed.shift_samples / placed.rate_hz
        begin = (
            self._end_seconds + shift_seconds
            if placed.start_seconds is None
            else placed.start_seconds
        )
        self._end_seconds = begin + placed.samples / placed.rate_hz
        frame.time_base = Fraction(1, frame.sample_rate)
        frame.pts = round(begin * frame.sample_rate)
        self._graph.push(frame)
        return [*packets, *self._encode()]

    def _resampling(self, frame: AudioFrame) -> Any:
        graph = av.filter.Graph()
        source = graph.add_abuffer(
            sample_rate=frame.sample_rate,
            format=frame.format,
            layout=frame.layout,
            time_base=Fraction(1, frame.sample_rate),
        )
        onto_clock = graph.add("aresample", f"{self._rate_hz}:async=1:min_hard_comp={GAP_SECONDS}")
        wanted = graph.add(
            "aformat",
            f"sample_fmts=fltp:sample_rates={self._rate_hz}:channel_layouts={self._layout}",
        )
        graph.link_nodes(source, onto_clock, wanted, graph.add("abuffersink")).configure()
        graph.set_audio_frame_size(self._encoder.codec_context.frame_size or 1024)
        return graph

    def _drain(self) -> list[Packet]:
        if self._graph is None:
            return []
        self._graph.push(None)
        return self._encode()

    def _encode(self) -> list[Packet]:
        packets: list[Packet] = []
        try:
            while True:
                packets += self._encoder.encode(self._graph.pull())
        except (av.BlockingIOError, av.EOFError):
            return packets
