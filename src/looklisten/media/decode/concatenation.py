"""Puts the parts of a concatenated file on one clock.

Files that were joined byte by byte have parts whose timestamps begin anew. Here each part begins
where the part before it ended. Knows the timestamps of packets; decodes nothing.
"""

import math
from collections.abc import Sequence

from looklisten.media.decode.records import Packet

STEP_BACK_SECONDS = 1.0
"""Where timestamps of packets go back by more than this, a part begins. No reordering is longer."""

DISCONTINUITY_SECONDS = 10.0
"""Where a broadcast stream's timestamps jump ahead by more than this, its clock was set anew.

This is FFmpeg's own threshold.
"""

FEWEST_PACKETS = 4
MOST_PACKETS = 500
"""So many packets after a step are examined, since a single wrong timestamp is no new part."""

NEW_PART_SECONDS = 2.0
"""A new part is certain when the stream that stepped first continues for so long."""

REORDERED_PACKETS = 20
"""Packets without a decoding timestamp may be out of order by so many durations."""

Span = tuple[float, float]
"""When a packet begins and ends, by the file's own times."""


class Concatenation:
    """Shifts the timestamps of the packets of each part.

    A part begins where the times of a stream go back by STEP_BACK_SECONDS, or ahead by
    DISCONTINUITY_SECONDS where the format allows jumps. A jump ahead to where another stream is
    already is no part but a hole: the picture was lost and the sound went on, or the reverse. All
    streams of a part are shifted by the same time, so that they stay in sync; no stream overlaps
    itself.
    """

    def __init__(self, tick_seconds: dict[int, float], may_jump_ahead: bool) -> None:
        self._tick_seconds = tick_seconds
        self._may_jump_ahead = may_jump_ahead
        self._shifts_seconds = [0.0]
        """How far each part is shifted."""
        self.part_starts_seconds: list[float] = []
        """Where each part but the first begins, shifted."""
        self._part: dict[int, int] = {}
        """Which part each stream is in."""
        self._last: dict[int, Span] = {}
        """The span of the last packet of each stream."""
        self._waiting: list[tuple[Packet, bool]] = []
        """Packets since the first stream stepped, each with whether it belongs to the new part."""
        self._new_starts: dict[int, float] = {}
        """Where the new part begins in each stream that has reached it, by its own times."""
        self._new_last: dict[int, Span] = {}
        """As `_last`, of the new part."""

    @property
    def _newest_part(self) -> int:
        return len(self._shifts_seconds) - 1

    def feed(self, packet: Packet) -> list[Packet]:
        """Take a packet; return the shifted packets whose part is certain now."""
        stream = packet.stream_index
        start = self._start_of(packet)
        if start is None:
            if self._waiting:
                self._waiting.append((packet, stream in self._new_starts))
                return []
            return [self._shifted(packet, self._part.get(stream, self._newest_part))]
        if self._waiting:
            return self._wait(packet, start)
        part = self._part.setdefault(stream, self._newest_part)
        if part < self._newest_part and self._continues_newest_part(start, stream):
            # The other streams stepped before; this one follows without a step of its own.
            part = self._part[stream] = self._newest_part
        elif stream in self._last and self._is_step(packet, start, self._last[stream]):
            return self._wait(packet, start)
        self._last[stream] = self._span(packet, start, self._last.get(stream))
        return [self._shifted(packet, part)]

    def finish(self) -> list[Packet]:
        """The packets that still wait."""
        return self._begin_part() if self._waiting else []

    def _start_of(self, packet: Packet) -> float | None:
        # Decoding times rise within a part; presentation times of a video go back and forth.
        ticks = packet.dts if packet.dts is not None else packet.pts
        tick = self._tick_seconds[packet.stream_index]
        return ticks * tick if ticks is not None and tick else None

    def _span(self, packet: Packet, start: float, last: Span | None) -> Span:
        """When a packet begins and ends; without a duration it lasts as long as the one before."""
        duration = (packet.duration or 0) * self._tick_seconds[packet.stream_index]
        if not duration and last:
            duration = max(min(start - last[0], STEP_BACK_SECONDS), 0.0)
        return start, start + duration

    def _is_step(self, packet: Packet, start: float, last: Span) -> bool:
        """Whether a packet lies so far from the one before it that a new part begins."""
        last_start, last_end = last
        reordering = REORDERED_PACKETS * (last_end - last_start) if packet.dts is None else 0.0
        if last_start - start > max(STEP_BACK_SECONDS, reordering):
            return True
        if not self._may_jump_ahead or start - last_end <= DISCONTINUITY_SECONDS:
            return False
        return not self._was_reached(start, packet.stream_index)

    def _was_reached(self, start: float, stream: int) -> bool:
        """Whether another stream of the same part came near a time, or passed it, step by step."""
        part = self._part[stream]
        others = [other for other, own in self._part.items() if own == part and other != stream]
        return any(start - self._last[other][1] <= DISCONTINUITY_SECONDS for other in others)

    def _continues_newest_part(self, start: float, stream: int) -> bool:
        newest = [self._last[s] for s, part in self._part.items() if part == self._newest_part]
        return self._is_nearer(start, stream, newest)

    def _is_nearer(self, start: float, stream: int, newer: Sequence[Span]) -> bool:
        """Whether a time is nearer to the ends of `newer` packets than to its own stream's last."""
        if stream not in self._last:
            return bool(newer)
        distance = min((abs(start - end) for _, end in newer), default=math.inf)
        return distance < abs(start - self._last[stream][1])

    def _wait(self, packet: Packet, start: float) -> list[Packet]:
        """Hold a packet back until it is certain that a new part has begun, and where."""
        stream = packet.stream_index
        first_stepping = next(iter(self._new_starts), stream)
        if stream in self._new_starts and self._returns(packet, start):
            return self._cancel_part(packet, start)
        is_new = (
            stream in self._new_starts
            or not self._new_starts
            or self._is_nearer(start, stream, list(self._new_last.values()))
        )
        if is_new:
            self._new_starts.setdefault(stream, start)
            self._new_last[stream] = self._span(packet, start, self._new_last.get(stream))
        else:
            self._last[stream] = self._span(packet, start, self._last.get(stream))
        self._waiting.append((packet, is_new))
        if len(self._waiting) > MOST_PACKETS or self._is_certain(first_stepping):
            return self._begin_part()
        return []

    def _is_certain(self, first_stepping: int) -> bool:
        """Whether enough packets of the new part were seen, in all streams or for long enough."""
        count = 0
        for packet, is_new in self._waiting:
            count += is_new and packet.stream_index == first_stepping
        if count < FEWEST_PACKETS:
            return False
        if len(self._new_starts) == len(self._tick_seconds):
            return True
        new_seconds = self._new_last[first_stepping][1] - self._new_starts[first_stepping]
        return new_seconds > NEW_PART_SECONDS

    def _returns(self, packet: Packet, start: float) -> bool:
        """Whether a stream that stepped continues where it was: the step was a wrong timestamp."""
        stream = packet.stream_index
        if stream not in self._last:
            return False
        from_old = abs(start - self._last[stream][1])
        from_new = abs(start - self._new_last[stream][1])
        return from_old < STEP_BACK_SECONDS and from_new > STEP_BACK_SECONDS

    def _cancel_part(self, packet: Packet, start: float) -> list[Packet]:
        """There is no new part: release what waits, in the parts that the streams are in."""
        stream = packet.stream_index
        released = [waiting for waiting, _ in self._waiting]
        released.append(packet)
        self._forget_waiting()
        self._last[stream] = self._span(packet, start, self._last[stream])
        newest = self._newest_part
        return [self._shifted(each, self._part.get(each.stream_index, newest)) for each in released]

    def _begin_part(self) -> list[Packet]:
        """The new part begins where the old one has ended in every stream that steps."""
        old_part = self._newest_part
        shifts = []
        for stream, new_start in self._new_starts.items():
            if stream in self._last:
                end = self._last[stream][1] + self._shifts_seconds[self._part[stream]]
                shifts.append(end - new_start)
        # The largest shift: then no stream overlaps itself.
        self._shifts_seconds.append(max(shifts))
        self.part_starts_seconds.append(min(self._new_starts.values()) + self._shifts_seconds[-1])
        released = []
        for packet, is_new in self._waiting:
            part = old_part + 1 if is_new else self._part.get(packet.stream_index, old_part)
            released.append(self._shifted(packet, part))
        for stream, last in self._new_last.items():
            self._part[stream] = old_part + 1
            self._last[stream] = last
        self._forget_waiting()
        return released

    def _forget_waiting(self) -> None:
        self._waiting = []
        self._new_starts = {}
        self._new_last = {}

    def _shifted(self, packet: Packet, part: int) -> Packet:
        tick = self._tick_seconds[packet.stream_index]
        ticks = round(self._shifts_seconds[part] / tick) if tick else 0
        if ticks:
            if packet.dts is not None:
                packet.dts += ticks
            if packet.pts is not None:
                packet.pts += ticks
        return packet
