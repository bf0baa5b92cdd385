"""The video stream of a file -> the frames that are asked for, upright and scaled."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from looklisten.media.decode.clock import Clock
from looklisten.media.decode.dynamic_range import RangeMapper, is_high_range, needs_mapping
from looklisten.media.decode.frame_planes import (
    displayed_size,
    pad_to_even,
    square_pixel_size,
    stored_planes,
)
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.orientation import orientation_of
from looklisten.media.decode.packets import decode_packet
from looklisten.media.decode.records import OLD_FRAMES, DecodeReport, Frame, Packet, Planes

LOOKAHEAD_PACKETS = 20
"""How many packets are read before the first of them is decoded.

Codecs put frames at most 16 out of order, so every earlier time has been read by then.
"""

HOLD_BINS = 2
"""A frame that is shown longer than this many bins is "held", such as a slide. It is taken even if
it is not the first of its bin. A bin is 1 / frames_per_second.
"""

USUAL_SECONDS = 0.04
"""The duration of a frame where neither it nor its stream declares one."""

REMEMBERED_BINS = 256
"""When `_first_of_bin` has more entries than this, its old entries are deleted."""

RECENT_BINS = 64
"""An entry is old when its bin is at least this many bins before the current one."""


@dataclass(frozen=True, eq=False)
class _Decoded:
    """A decoded frame that is not scaled yet, on screen during [at_seconds, end_seconds)."""

    at_seconds: float
    end_seconds: float
    frame: av.VideoFrame


class VideoDecoder:
    """Decodes the packets of one video stream; scales only the frames that are taken.

    Without `nearest_to` it takes the first frame of each bin, and held frames. With `nearest_to` it
    takes the nearest frame for each of these times.
    """

    def __init__(
        self,
        stream: av.VideoStream,
        clock: Clock,
        options: DecodeOptions,
        report: DecodeReport,
        nearest_to: Iterator[float] | None = None,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._options = options
        self._report = report
        self._times = nearest_to
        self._next_time = next(nearest_to, np.inf) if nearest_to else np.inf
        self._before: _Decoded | None = None
        """With `nearest_to`: the last frame."""
        rate = stream.average_rate
        self._usual_seconds = 1 / float(rate) if rate else USUAL_SECONDS
        self._waiting: deque[Packet] = deque()
        self._first_of_bin: dict[int, float] = {}
        """The earliest time in each bin, of the packets that were read."""
        self._read_times: deque[float] = deque(maxlen=4 * LOOKAHEAD_PACKETS)
        self._hold_seconds = HOLD_BINS / options.frames_per_second
        self._unused: _Decoded | None = None
        """The last frame, if it was not taken as the first of its bin."""
        self._end_seconds = 0.0
        self.declared_end_seconds: float | None = None
        """Where the stream declares to end; the last frame stays on screen until then."""
        self._last_seconds = -np.inf
        self._decoded_seconds = 0.0
        """Where the packets end that could be decoded."""
        self._last_bin: float = -np.inf
        # One for the whole file. PyAV's default is one a frame, with as many threads as cores.
        self._scaler = VideoReformatter()
        self._range_mapper = RangeMapper(stream.codec_context)
        self._decodes_all = True
        self.is_over = False

    def feed(self, packet: Packet) -> Iterator[Frame]:
        """Take a packet; yield the frames of the packet that has waited longest."""
        seconds = self._clock.seconds_of(packet, self._stream)
        if seconds is not None:
            self._read_times.append(seconds)
            if seconds >= self._options.start_seconds:
                number = self._options.frame_bin(seconds)
                self._first_of_bin[number] = min(seconds, self._first_of_bin.get(number, seconds))
        self._waiting.append(packet)
        if len(self._waiting) > LOOKAHEAD_PACKETS:
            yield from self._decode(self._waiting.popleft())

    def finish(self) -> Iterator[Frame]:
        """The frames that still wait, here and in the decoder."""
        while self._waiting:
            yield from self._decode(self._waiting.popleft())
        yield from self._decode(None)
        end = max(self._end_seconds, self._decoded_seconds)
        declared = self.declared_end_seconds
        if declared is not None and declared > end + self._hold_seconds:
            end = declared
            if self._before:
                self._before = replace(self._before, end_seconds=end)
        self._report.video_end_seconds = min(end, self._options.stop_seconds)
        if self._times:
            yield from self._nearest(np.inf)
        elif not self.is_over:
            yield from self._held_until(self._report.video_end_seconds)

    def _decode(self, packet: Packet | None) -> Iterator[Frame]:
        if self._options.skip_unneeded and packet is not None and not self._times:
            self._set_skipping(not self._is_needed(packet))
        damaged_before = self._report.damaged_count
        frames = decode_packet(self._stream.codec_context, packet, self._report)
        self._note_decoded(packet, damaged_before)
        for frame in frames:
            # The header was checked when the file was opened, but frames may grow later.
            if frame.width * frame.height > self._options.max_megapixels * 1e6:
                self._report.stop_reason = f"its frames grow to {frame.width} x {frame.height}"
                return
            yield from self._take(frame)

    def _set_skipping(self, skips: bool) -> None:
        """Tell the decoder to skip, or not to skip, frames that no other frame refers to."""
        decodes_all = not skips
        # Only on a change: the assignment costs more than the comparison.
        if decodes_all != self._decodes_all:
            self._stream.codec_context.skip_frame = "DEFAULT" if decodes_all else "NONREF"
            self._decodes_all = decodes_all

    def _note_decoded(self, packet: Packet | None, damaged_before: int) -> None:
        """Update how far decoding succeeded. Damage before start_seconds is not counted."""
        start = None
        if packet is not None:
            start = self._clock.seconds_of(packet, self._stream)
        if start is None:
            return
        if start < self._options.start_seconds:
            # A packet of the run-up may refer to frames that were not read: that is no damage.
            self._report.damaged_count = damaged_before
        elif self._report.damaged_count == damaged_before:
            declared = self._clock.duration_seconds(packet, self._stream)
            end = start + (declared or self._usual_seconds)
            self._decoded_seconds = max(self._decoded_seconds, end)

    def _is_needed(self, packet: Packet) -> bool:
        """Whether the frame of a packet may be taken: as the first of its bin, or as a held one.

        All packets that could lie next to it in time have been read.
        """
        seconds = self._clock.seconds_of(packet, self._stream)
        if seconds is None:
            return True
        number = self._options.frame_bin(seconds)
        if len(self._first_of_bin) > REMEMBERED_BINS:
            oldest = number - RECENT_BINS
            self._first_of_bin = {n: t for n, t in self._first_of_bin.items() if n > oldest}
        first = self._first_of_bin.get(number, seconds)
        if self._options.start_seconds <= seconds <= first:
            return True
        next_seconds = min((time for time in self._read_times if time > seconds), default=np.inf)
        return self._is_held(seconds, next_seconds)

    def _is_held(self, seconds: float, next_seconds: float) -> bool:
        """Whether a frame is shown longer than HOLD_BINS bins; time before start_seconds does not
        count.
        """
        return next_seconds > max(seconds, self._options.start_seconds) + self._hold_seconds

    def _held_until(self, next_seconds: float) -> Iterator[Frame]:
        """Yield the last frame if it is held and was not taken yet."""
        unused = self._unused
        if unused and self._is_held(unused.at_seconds, next_seconds):
            self._unused = None
            self._report.damaged_count += unused.frame.is_corrupt
            yield Frame(unused.at_seconds, next_seconds, self._scaled(unused.frame))

    def _take(self, frame: av.VideoFrame) -> Iterator[Frame]:
        seconds = self._seconds_of_frame(frame)
        duration = self._clock.duration_seconds(frame, self._stream) or self._usual_seconds
        if seconds <= self._last_seconds:
            if self._options.start_seconds <= seconds < self._last_seconds - duration:
                self._report.add_lost(OLD_FRAMES, duration)
            return
        if not self._times:
            yield from self._held_until(seconds)
        self._note_end(seconds, duration)
        decoded = _Decoded(seconds, seconds + duration, frame)
        if self._times:
            yield from self._nearest(seconds)
            self._before = decoded
            return
        number = self._options.frame_bin(seconds)
        if number > self._last_bin and seconds >= self._options.start_seconds and not self.is_over:
            self._last_bin = number
            self._unused = None
            self._report.damaged_count += frame.is_corrupt
            yield Frame(seconds, decoded.end_seconds, self._scaled(frame))
        else:
            self._unused = decoded

    def _seconds_of_frame(self, frame: av.VideoFrame) -> float:
        """The time of a frame; without a timestamp it follows the frame before it."""
        seconds = self._clock.seconds_of(frame, self._stream)
        if seconds is not None:
            return seconds
        return self._last_seconds + self._usual_seconds if np.isfinite(self._last_seconds) else 0.0

    def _note_end(self, seconds: float, duration: float) -> None:
        """Record the end of the video so far, and whether decoding must stop."""
        stop_seconds = self._options.stop_seconds
        self._last_seconds = seconds
        self._end_seconds = min(seconds + duration, stop_seconds)
        # How long this frame is on screen is known only when the next one comes. A clip must not
        # reach beyond that, so no more than the hold is reported.
        shortest_end = seconds + min(duration, self._hold_seconds)
        self._report.video_end_seconds = min(shortest_end, stop_seconds)
        if seconds > self._options.max_hours * 3600:
            self._report.stop_reason = f"it is longer than {self._options.max_hours:g} hours"
        self.is_over = seconds >= stop_seconds

    def _nearest(self, next_seconds: float) -> Iterator[Frame]:
        """Yield the previous frame once for each requested time that is nearest to it.

        If `next_seconds` is infinite, there is no next frame: yield it for each time before its
        end.
        """
        if not self._before or not self._times:
            return
        before = self._before
        if next_seconds == np.inf:
            last_time = before.end_seconds
        else:
            last_time = (before.at_seconds + next_seconds) / 2
        if self._next_time >= last_time:
            return
        planes = self._scaled(before.frame)
        while self._next_time < last_time:
            yield Frame(before.at_seconds, before.end_seconds, planes)
            self._next_time = next(self._times, np.inf)

    def _scaled(self, frame: av.VideoFrame) -> Planes:
        """The planes of a frame, upright, with square pixels, not larger than it is stored."""
        sides = square_pixel_size(self._stream, frame)
        scale = min(1.0, self._options.shorter_side_pixels / min(sides))
        width, height = (max(round(side * scale), 1) for side in sides)
        orientation = orientation_of(frame)
        if self._report.frame_size is None:
            self._report.frame_size = displayed_size(self._stream, frame)
        codec = self._stream.codec_context
        if is_high_range(codec):
            self._report.flags.add("hdr")
        if needs_mapping(codec):
            frame = self._range_mapper.mapped(frame, width, height, "AREA")
        # The planes of a JPEG file, so that the encoder takes them without RGB in between.
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
        luma, blue, red = map(orientation.upright, stored_planes(scaled))
        return pad_to_even(luma), np.ascontiguousarray(blue), np.ascontiguousarray(red)
