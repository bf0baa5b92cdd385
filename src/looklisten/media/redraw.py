"""A video -> a new video with each frame drawn anew, at its own time, with the same sound.

Knows timestamps, codecs and MP4; the caller draws the frames. Frames are passed on one by one.
Colors are ITU-R BT.601 in limited range, as players of H.264 expect of a stream that declares so.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from looklisten.errors import SourceError
from looklisten.media.decode.clock import Clock
from looklisten.media.decode.dynamic_range import RangeMapper, needs_mapping
from looklisten.media.decode.frame_planes import displayed_size, stored_planes
from looklisten.media.decode.open import open_media, select_streams
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.orientation import orientation_of
from looklisten.media.decode.packets import decode_packet
from looklisten.media.decode.placement import BlockPlacer, PlacedBlock
from looklisten.media.decode.records import DecodeReport, Packet, Planes

COPIED_CODECS = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"})
"""Sound that is copied into an MP4 file; other sound is encoded as AAC.

MP2 would fit too, but no browser plays it.
"""

AAC_RATES_HZ = frozenset(
    {96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000}
)
AAC_BITS_PER_SECOND = 192_000

MIN_CORRECTED_GAP_SECONDS = 0.02
"""Sound this far off its timestamp is moved there before it is encoded."""

FINEST_TICK = Fraction(1, 1_000_000)
COARSE_TICK = Fraction(1, 90_000)
"""The unit of times where the source has none, or one finer than FINEST_TICK."""

H264_OPTIONS = {"preset": "veryfast", "crf": "20", "g": "50"}
"""Fast and nearly lossless to the eye. Key frames every two seconds or so make seeking quick."""

MP4_OPTIONS = {"movflags": "+faststart", "strict": "experimental"}

USUAL_RATE = Fraction(25)
"""Frames per second where the source declares no rate."""


@dataclass(frozen=True)
class VideoInfo:
    """The size of a video, upright and with square pixels, and the duration that it declares."""

    width: int
    height: int
    duration_seconds: float
    """0 if the file declares none."""


def measure_video(source: str | Path) -> VideoInfo:
    """The size of the first frame of a video. Raises SourceError when there is none."""
    report = DecodeReport()
    options = DecodeOptions()
    with open_media(source, options, report) as container:
        video, _ = select_streams(container, source, options, report)
        assert video is not None
        for packet in container.demux(video):
            frames = decode_packet(video.codec_context, packet if packet.size else None, report)
            if frames:
                width, height = displayed_size(video, frames[0])
                return VideoInfo(width, height, (container.duration or 0) / av.time_base)
    reason = f": {report.last_error}" if report.last_error else ""
    raise SourceError(f"{source} has no frame that can be decoded{reason}")


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """A frame of the source that is to be drawn."""

    at_seconds: float
    total_seconds: int
    """How long the source is, as it declares."""
    planes: Planes
    """The frame in the size that was asked for."""


FrameGenerator = Generator[SourceFrame | None, Planes | None, None]
"""Yields frames to draw and takes what was drawn of the frame before."""


def redraw_frames(
    source: str | Path, out: str | Path, frame_size: tuple[int, int], canvas_size: tuple[int, int]
) -> Generator[SourceFrame | None, Planes | None, int]:
    """Write `out`, an H.264 MP4 file with one canvas for each frame of `source`.

    frame_size, canvas_size: width and height, even numbers.

    Yields each frame of the source in `frame_size`, and at last None. Takes the canvas of the frame
    before, so that frames are decoded while others are drawn. Returns the number of frames. Of a
    file that ends too early, what came before is drawn. Raises SourceError when the source lacks
    video or sound.
    """
    report = DecodeReport()
    options = DecodeOptions()
    with open_media(source, options, report) as container:
        video, audio = select_streams(container, source, options, report)
        assert video is not None
        assert audio is not None
        clock = Clock(container, [video, audio])
        # One file is decoded here, so that all cores may work on it.
        video.codec_context.thread_count = 0
        total_seconds = round((container.duration or 0) / av.time_base)
        with av.open(str(out), "w", "mp4", options=MP4_OPTIONS) as output:
            frames = _FrameRedrawer(
                output, video, clock, frame_size, canvas_size, total_seconds, report
            )
            sound: _CopiedAudio | _EncodedAudio
            if audio.codec.canonical_name in COPIED_CODECS:
                sound = _CopiedAudio(output, audio, clock)
            else:
                sound = _EncodedAudio(output, audio, clock, report)
            for packet in _packets(clock, report):
                if packet.stream_index == video.index:
                    yield from frames.feed(packet)
                else:
                    output.mux(sound.feed(packet))
            yield from frames.finish()
            output.mux(sound.finish())
    return frames.count


def _packets(clock: Clock, report: DecodeReport) -> Iterator[Packet]:
    try:
        yield from clock.packets(0.0)
    except av.FFmpegError as error:
        report.last_error = str(error)


class _FrameRedrawer:
    """Decodes the video, has its frames drawn and encodes the canvases."""

    def __init__(
        self,
        output: OutputContainer,
        stream: av.VideoStream,
        clock: Clock,
        frame_size: tuple[int, int],
        canvas_size: tuple[int, int],
        total_seconds: int,
        report: DecodeReport,
    ) -> None:
        self._output = output
        self._stream = stream
        self._clock = clock
        self._report = report
        self._frame_size = frame_size
        self._canvas_size = canvas_size
        self._total_seconds = total_seconds
        self._scaler = VideoReformatter()
        self._range_mapper = RangeMapper(stream.codec_context)
        tick = stream.time_base or COARSE_TICK
        self._tick = tick if tick >= FINEST_TICK else COARSE_TICK
        rate = stream.average_rate or USUAL_RATE
        self._usual_seconds = float(1 / rate)
        self._encoder = self._add_encoder(rate)
        self._last_seconds = 0.0
        self._last_ticks: int | None = None
        self._undrawn: tuple[int, int] | None = None
        """Start and duration in ticks of the frame that is being drawn."""
        self.count = 0

    def _add_encoder(self, rate: Fraction) -> Any:
        # 1001 is the denominator of the rates of NTSC, such as 30000/1001.
        rate = rate.limit_denominator(1001)
        encoder: Any = self._output.add_stream("libx264", rate, options=H264_OPTIONS)
        encoder.width, encoder.height = self._canvas_size
        encoder.pix_fmt = "yuv420p"
        context = encoder.codec_context
        context.time_base = self._tick
        context.colorspace = Colorspace.ITU601
        context.color_range = ColorRange.MPEG
        return encoder

    def feed(self, packet: Packet | None) -> FrameGenerator:
        """Decode a packet; None flushes the decoder."""
        for frame in decode_packet(self._stream.codec_context, packet, self._report):
            yield from self._take(frame)

    def finish(self) -> FrameGenerator:
        """The frames that the decoder still holds; then the encoder is flushed."""
        yield from self.feed(None)
        if self._undrawn:
            self._encode((yield None))
        self._output.mux(self._encoder.encode(None))

    def _take(self, frame: av.VideoFrame) -> FrameGenerator:
        seconds = self._clock.seconds_of(frame, self._stream)
        if seconds is None:
            seconds = self._last_seconds + self._usual_seconds if self.count else 0.0
        ticks = round(seconds / self._tick)
        if self._last_ticks is not None and ticks <= self._last_ticks:
            return  # two frames at one time cannot be stored
        self._last_seconds = seconds
        self._last_ticks = ticks
        self.count += 1
        canvas = yield SourceFrame(seconds, self._total_seconds, self._upright(frame))
        if self._undrawn:
            self._encode(canvas)
        duration = self._clock.duration_seconds(frame, self._stream) or self._usual_seconds
        self._undrawn = ticks, round(duration / self._tick)

    def _encode(self, canvas: Planes | None) -> None:
        """Encode what was drawn of the frame before."""
        if not self._undrawn or canvas is None:
            return
        frame = av.VideoFrame(*self._canvas_size, "yuv420p")
        for plane, values in zip(stored_planes(frame), canvas, strict=True):
            plane[:] = values
        frame.pts, frame.duration = self._undrawn
        frame.time_base = self._tick
        self._output.mux(self._encoder.encode(frame))

    def _upright(self, frame: av.VideoFrame) -> Planes:
        orientation = orientation_of(frame)
        width, height = self._frame_size
        if orientation.swaps_sides:
            width, height = height, width
        interpolation = "AREA" if width < frame.width else "BILINEAR"
        if needs_mapping(self._stream.codec_context):
            frame = self._range_mapper.mapped(frame, width, height, interpolation)
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
        luma, blue, red = map(orientation.upright, stored_planes(scaled))
        return luma, blue, red


class _CopiedAudio:
    """Copies packets of sound, with times on the clock."""

    def __init__(self, output: OutputContainer, stream: av.AudioStream, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._copy = output.add_stream_from_template(stream)
        self._last_ticks: int | None = None

    def feed(self, packet: Packet) -> list[Packet]:
        """The packets to write for a packet of the source."""
        seconds = self._clock.seconds_of(packet, self._stream)
        if seconds is None or packet.dts is None:
            return []
        shift = round(seconds / self._stream.time_base) - packet.pts  # type: ignore[operator]
        packet.pts += shift
        packet.dts += shift
        # FFmpeg refuses to write decoding times that do not rise.
        if self._last_ticks is not None and packet.dts <= self._last_ticks:
            return []
        self._last_ticks = packet.dts
        packet.stream = self._copy
        return [packet]

    def finish(self) -> list[Packet]:
        """Nothing: no packet waits."""
        return []


class _EncodedAudio:
    """Decodes sound and encodes it as AAC; gaps are filled with silence."""

    def __init__(
        self, output: OutputContainer, stream: av.AudioStream, clock: Clock, report: DecodeReport
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._report = report
        rate_hz = stream.codec_context.sample_rate
        self._rate_hz = rate_hz if rate_hz in AAC_RATES_HZ else 48_000
        self._layout = "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo"
        self._encoder: Any = output.add_stream("aac", self._rate_hz, layout=self._layout)
        self._encoder.bit_rate = AAC_BITS_PER_SECOND
        self._source_format: tuple[str, str, int] | None = None
        self._graph: Any = None
        self._placer = BlockPlacer()
        self._end_seconds = 0.0
        """Where the frames end that were placed so far."""

    def feed(self, packet: Packet | None) -> list[Packet]:
        """The packets to write for a packet of the source; None flushes the decoder."""
        packets: list[Packet] = []
        for frame in decode_packet(self._stream.codec_context, packet, self._report):
            start = self._clock.seconds_of(frame, self._stream)
            for placed in self._placer.feed(start, frame.samples, frame.sample_rate, frame):
                packets += self._take(placed)
        return packets

    def finish(self) -> list[Packet]:
        """The packets of what still waits; then the encoder is flushed."""
        packets = self.feed(None)
        for placed in self._placer.finish():
            packets += self._take(placed)
        packets += self._drain()
        packets += self._encoder.encode(None)
        return packets

    def _take(self, placed: PlacedBlock) -> list[Packet]:
        """Resample and encode a frame where it was placed; its own timestamp may oscillate."""
        frame = placed.block
        packets: list[Packet] = []
        source_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if source_format != self._source_format:
            packets += self._drain()
            self._source_format = source_format
            self._graph = self._resampling_graph(frame)
        start = placed.start_seconds
        if start is None:
            start = self._end_seconds + placed.shift_samples / placed.rate_hz
        self._end_seconds = start + placed.samples / placed.rate_hz
        frame.time_base = Fraction(1, frame.sample_rate)
        frame.pts = round(start * frame.sample_rate)
        self._graph.push(frame)
        return [*packets, *self._encode()]

    def _resampling_graph(self, frame: AudioFrame) -> Any:
        """A filter graph of FFmpeg: it fills gaps and brings sound to what the encoder takes."""
        graph = av.filter.Graph()
        source = graph.add_abuffer(
            sample_rate=frame.sample_rate,
            format=frame.format,
            layout=frame.layout,
            time_base=Fraction(1, frame.sample_rate),
        )
        resampling = f"{self._rate_hz}:async=1:min_hard_comp={MIN_CORRECTED_GAP_SECONDS}"
        target = f"sample_fmts=fltp:sample_rates={self._rate_hz}:channel_layouts={self._layout}"
        graph.link_nodes(
            source,
            graph.add("aresample", resampling),
            graph.add("aformat", target),
            graph.add("abuffersink"),
        ).configure()
        graph.set_audio_frame_size(self._encoder.codec_context.frame_size or 1024)
        return graph

    def _drain(self) -> list[Packet]:
        """The packets of what the graph still holds."""
        if self._graph is None:
            return []
        self._graph.push(None)
        return self._encode()

    def _encode(self) -> list[Packet]:
        packets: list[Packet] = []
        try:
            while True:
                packets += self._encoder.encode(self._graph.pull())
        except (av.BlockingIOError, av.EOFError):  # the graph has no more frames for now
            return packets
