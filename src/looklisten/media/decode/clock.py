"""Clock."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import av
from av.container import InputContainer
from av.format import Flags

from looklisten.media.decode.concatenation import (
    DISCONTINUITY_SECONDS,
    Concatenation,
)
from looklisten.media.decode.records import (
    Packet,
)

SEEK_PREROLL_SECONDS = (1.0, 5.0, 25.0)
"""Decoding begins so much before a wanted stretch, for decoders that need a run-up; more where no
key frame comes in time.
"""


TS_DISCONT: Any = Flags.ts_discont.value
"""The flag of formats whose timestamps may jump."""


FILE_LENGTHS = frozenset({"matroska", "avi", "flv"})
"""Formats whose header says how long the longest of all streams is. Of other formats FFmpeg guesses
it from what is there.
"""


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
        self._joins: Concatenation | None = None
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
        joins = Concatenation(self._tick_seconds, self._may_jump)
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
