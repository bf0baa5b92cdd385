"""One clock for the streams of a file: seconds from the container's start.

A time is presentation timestamp x time base minus the container's start. All streams share this
origin, so late sound stays late. Counts of frames and nominal rates never make a time.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import av
from av.container import InputContainer
from av.format import Flags

from looklisten.media.decode.concatenation import DISCONTINUITY_SECONDS, Concatenation
from looklisten.media.decode.records import Packet

SEEK_PREROLL_SECONDS = (1.0, 5.0, 25.0)
"""Decoding begins this long before `start_seconds`, for decoders that need a run-up.

The next value is tried where no key frame comes in time.
"""

TIMES_MAY_JUMP: Any = Flags.ts_discont.value
"""The flag of container formats whose timestamps may jump."""

FILE_LENGTHS = frozenset({"matroska", "avi", "flv"})
"""Formats whose header tells how long the longest stream is. For others FFmpeg estimates it."""


class Clock:
    """Times of packets and frames; continues where the file's own clock jumps.

    Where decoding begins late, it begins at a key frame of the first of `streams`. The packets of
    `undecoded` streams are not given. Where the format's times may jump, they tell a jump of the
    clock from a hole in a stream, so that the times of one stream do not depend on which are read.
    """

    def __init__(
        self,
        container: InputContainer,
        streams: Sequence[av.VideoStream | av.AudioStream],
        undecoded: Sequence[av.VideoStream | av.AudioStream] = (),
    ) -> None:
        self._container = container
        self.streams = tuple(streams)
        self._may_jump = bool(container.format.flags & TIMES_MAY_JUMP)
        self._undecoded = tuple(undecoded) if self._may_jump else ()
        self._tick_seconds: dict[int, float] = {}
        stream_starts: list[float] = []
        for stream in self.streams + self._undecoded:
            self._tick_seconds[stream.index] = float(stream.time_base) if stream.time_base else 0.0
            if stream.start_time is not None and stream.time_base:
                stream_starts.append(float(stream.start_time * stream.time_base))
        start: int | None = container.start_time
        if start is not None:
            self.origin_seconds = start / av.time_base
        else:
            self.origin_seconds = min(stream_starts, default=0.0)
        self._concatenation: Concatenation | None = None
        self.read_until_seconds: dict[int, float] = {}
        """Per stream index: where the packets end that were read so far."""
        self.last_seconds = 0.0
        """Where the packets of all streams end that were read so far.

        Where the format declares the length of the file, this counts streams that are not decoded.
        """
        self.last_byte = 0
        """Where the packets end in the file that were read so far."""

    @property
    def part_starts_seconds(self) -> list[float]:
        """Where the parts of a concatenated file begin on this clock, without the first part."""
        if self._concatenation is None:
            return []
        return [start - self.origin_seconds for start in self._concatenation.part_starts_seconds]

    def seconds_of(
        self, timed: Packet | av.VideoFrame | av.AudioFrame, stream: av.VideoStream | av.AudioStream
    ) -> float | None:
        """The presentation time of a packet or a frame of `stream`; None where it has none."""
        # The ticks are those of the stream, since the last frames of a decoder have no time base.
        if timed.pts is None:
            return None
        seconds: float = timed.pts * self._tick_seconds[stream.index] - self.origin_seconds
        return seconds

    def duration_seconds(self, timed: Packet | av.VideoFrame, stream: av.VideoStream) -> float:
        """The duration that a packet or a frame declares; 0 where it declares none."""
        return (timed.duration or 0) * self._tick_seconds[stream.index]

    def packets(self, start_seconds: float) -> Iterator[Packet]:
        """The packets of the streams, from a key frame before `start_seconds` on.

        From the beginning of the file where it cannot be searched.
        """
        if self._may_jump:
            # The same time may occur twice in such a file, so it is read from its beginning.
            packets = self._from_key_frame(start_seconds, self._on_one_clock(self._demuxed()))
        else:
            packets = self._on_one_clock(self._sought(start_seconds))
        undecoded = {stream.index for stream in self._undecoded}
        for packet in packets:
            if packet.stream_index in undecoded:
                continue
            start = self.seconds_of(packet, packet.stream)
            if start is not None:
                index = packet.stream_index
                end = start + (packet.duration or 0) * self._tick_seconds[index]
                self.read_until_seconds[index] = max(end, self.read_until_seconds.get(index, end))
                self.last_seconds = max(self.last_seconds, end)
            yield packet

    def _demuxed(self) -> Iterator[Packet]:
        """The packets of the streams, decoded or not, in the order of the file."""
        names = self._container.format.name.split(",")
        # Where the header declares the length of the longest stream, packets of all streams are
        # read, to know whether the file is complete.
        # To `demux`, no streams means all of them.
        streams_on_clock = self.streams + self._undecoded
        streams = () if FILE_LENGTHS.intersection(names) else streams_on_clock
        for packet in self._container.demux(*streams):
            # PyAV ends with an empty packet a stream. It would flush the decoder, which the
            # decoders of this package do themselves.
            if not packet.size:
                continue
            if packet.pos is not None:
                self.last_byte = max(self.last_byte, packet.pos + packet.size)
            if packet.stream_index in self._tick_seconds:
                yield packet
            elif packet.pts is not None and packet.time_base:
                end_ticks = packet.pts + (packet.duration or 0)
                end = float(end_ticks * packet.time_base) - self.origin_seconds
                self.last_seconds = max(self.last_seconds, end)

    def _on_one_clock(self, packets: Iterator[Packet]) -> Iterator[Packet]:
        """The packets with times of one clock, also where the file was concatenated from parts."""
        concatenation = Concatenation(self._tick_seconds, self._may_jump)
        self._concatenation = concatenation
        try:
            for packet in packets:
                yield from concatenation.feed(packet)
        except av.FFmpegError:
            # What was read before the error is still decoded.
            yield from concatenation.finish()
            raise
        yield from concatenation.finish()

    def _sought(self, start_seconds: float) -> Iterator[Packet]:
        """The packets after a seek, from the first key frame of the first stream on."""
        first = self.streams[0]
        has_key_frame = not self._seek(start_seconds)
        for packet in self._demuxed():
            if packet.stream is first and packet.is_keyframe:
                has_key_frame = True
            if packet.stream is not first or has_key_frame:
                yield packet

    def _from_key_frame(self, start_seconds: float, packets: Iterator[Packet]) -> Iterator[Packet]:
        """`packets` from the last key frame on that leaves a run-up before `start_seconds`."""
        first = self.streams[0]
        target = start_seconds - SEEK_PREROLL_SECONDS[0]
        waiting: list[Packet] = []
        has_begun = target <= 0
        for packet in packets:
            if has_begun:
                yield packet
                continue
            seconds = self.seconds_of(packet, first) if packet.stream is first else None
            if seconds is not None and seconds <= target and packet.is_keyframe:
                # Decoding can begin at this key frame, so no packet before it is needed.
                waiting.clear()
            waiting.append(packet)
            has_begun = seconds is not None and seconds > target
            if has_begun:
                yield from waiting
        if not has_begun:
            yield from waiting

    def _seek(self, start_seconds: float) -> bool:
        """Seek to a key frame before `start_seconds`; False when reading begins with the file."""
        for preroll in SEEK_PREROLL_SECONDS:
            target = start_seconds - preroll
            if target <= 0:
                break
            with contextlib.suppress(av.FFmpegError):
                self._seek_to(target)
                key_frame = self._next_key_frame_seconds()
                if key_frame is not None and key_frame <= start_seconds:
                    self._seek_to(target)  # the search has read packets
                    return True
        if start_seconds > SEEK_PREROLL_SECONDS[0]:
            # The search has read packets: return to the beginning. Times before the origin exist.
            self._seek_to(-DISCONTINUITY_SECONDS)
        return False

    def _seek_to(self, seconds: float) -> None:
        self._container.seek(int((seconds + self.origin_seconds) * av.time_base))

    def _next_key_frame_seconds(self) -> float | None:
        """The time of the next key frame of the first stream."""
        first = self.streams[0]
        for packet in self._container.demux(first):
            if packet.size and packet.is_keyframe:
                return self.seconds_of(packet, first)
        return None
