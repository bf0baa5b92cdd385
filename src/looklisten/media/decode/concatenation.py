"""Concatenation."""

import numpy as np

from looklisten.media.decode.records import Packet

STEP_BACK_SECONDS = 1.0
"""Where the timestamps of packets go back by more than this, another part of a joined file begins.
No reordering is longer.
"""


FEWEST_PACKETS, MOST_PACKETS = 4, 500
"""So many packets after such a step are looked at: a single wrong timestamp is no new part."""


DISCONTINUITY_SECONDS = 10.0
"""Where a broadcast stream's timestamps jump by more than this, its clock was set anew and goes on
(ffmpeg's own threshold).
"""


class Concatenation:
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
