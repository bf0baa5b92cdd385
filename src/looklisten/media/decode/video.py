"""Video."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from looklisten.media.decode.clock import Clock
from looklisten.media.decode.dynamic_range import RangeMapper, is_high_range, needs_mapping
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.orientation import orientation_of
from looklisten.media.decode.packets import decode_packet
from looklisten.media.decode.records import (
    PICTURE_IN_PAST,
    DecodeReport,
    Frame,
    Packet,
    Planes,
    pad_to_even,
)

LOOKAHEAD_PACKETS = 20
"""Packets are decoded so many late; codecs put frames at most 16 out of order, so every earlier
time has been seen by then.
"""


HOLD_BINS = 2
"""A frame that is seen for longer than so many times the time between two wanted frames is held: a
still picture, a slide.
"""


class VideoDecoder:
    """Picks frames off the decoder by their timestamps and prepares the picked ones only."""

    def __init__(
        self,
        stream: av.VideoStream,
        clock: Clock,
        wanted: DecodeOptions,
        report: DecodeReport,
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
                bin_ = self._wanted.frame_bin(at)
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
        damaged = self._report.damaged_count
        frames = decode_packet(self._stream.codec_context, packet, self._report)
        at = self._clock.at(packet, self._stream) if packet is not None else None
        if at is not None and at < self._wanted.start_seconds:
            self._report.damaged_count = damaged  # a run-up may refer to frames that were not read
        elif at is not None and self._report.damaged_count == damaged:
            lasts = self._clock.lasts(packet, self._stream) or self._usual_seconds
            self._decoded_seconds = max(self._decoded_seconds, at + lasts)
        for frame in frames:
            if frame.width * frame.height > self._wanted.max_megapixels * 1e6:
                self._report.stop_reason = f"its frames grow to {frame.width} x {frame.height}"
                return
            yield from self._take(frame)

    def _wants(self, packet: Packet) -> bool:
        """Whether the frame of a packet is the first of its bin, or the last for long; all that
        could lie beside it have been fed.
        """
        at = self._clock.at(packet, self._stream)
        if at is None:
            return True
        bin_ = self._wanted.frame_bin(at)
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
            self._report.damaged_count += frame.is_corrupt
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
                self._report.add_lost(PICTURE_IN_PAST, min(shown, self._last_seconds - at))
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
            self._report.stop_reason = f"it is longer than {self._wanted.max_hours:g} hours"
        self.is_over = at >= self._wanted.stop_seconds
        if self._times:
            yield from self._nearest(at)
            self._before = at, at + shown, frame
            return
        bin_ = self._wanted.frame_bin(at)
        if bin_ > self._bin and at >= self._wanted.start_seconds and not self.is_over:
            self._bin, self._unused = bin_, None
            self._report.damaged_count += frame.is_corrupt
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
            self._report.flags.add("hdr")
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
        return pad_to_even(luma), np.ascontiguousarray(blue), np.ascontiguousarray(red)
