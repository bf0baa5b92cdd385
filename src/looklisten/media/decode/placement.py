"""Decides where decoded blocks of sound go on the clock. Knows times and counts, no samples."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESYNC_SECONDS = 0.010
"""Where timestamps and the count of samples differ by less, the container has rounded."""

SETTLE_SECONDS = 0.5
"""So much sound is examined before it is moved to its timestamps."""

DRIFT_SECONDS = 0.040
"""Where timestamps oscillate, sound is moved when their median is this far off.

People notice more than that.
"""

HARD_SECONDS = 0.100
"""Timestamps this far off are no oscillation, even where less than SETTLE_SECONDS is left."""

MAX_GAP_SECONDS = 1.0
"""A shorter gap in the sound (a lost packet) is filled with silence.

In a longer gap there is no sound, and no clip.
"""

SOON_BLOCKS = 5
"""The blocks whose median tells where the sound is going next."""


@dataclass(frozen=True, eq=False)
class PlacedBlock:
    """A block of sound and its place: behind the block before it, or at `start_seconds`."""

    block: Any
    samples: int
    rate_hz: int
    shift_samples: int
    """Samples of silence before the block; if negative, so many of its first samples are cut."""
    start_seconds: float | None
    """Where the block begins, if it is the first one or follows a long gap."""


@dataclass(frozen=True, eq=False)
class _Block:
    start_seconds: float | None
    """When the block begins by its timestamp."""
    samples: int
    rate_hz: int
    content: Any

    @property
    def duration_seconds(self) -> float:
        return self.samples / self.rate_hz


class BlockPlacer:
    """Places blocks of sound by their timestamps and by the number of their samples.

    Blocks follow one another without a gap while their timestamps only oscillate, as those of
    programs do that take them from the wall clock. Sound is moved where timestamps agree on another
    time for SETTLE_SECONDS, or differ by DRIFT_SECONDS in the median. A lost packet becomes
    silence, an overlap is cut.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Block] = deque()
        self._waiting_seconds = 0.0
        self._expected_seconds = -np.inf
        """Where the first waiting block begins, if it follows the block before it."""

    def feed(
        self, start_seconds: float | None, samples: int, rate_hz: int, content: Any
    ) -> Iterator[PlacedBlock]:
        """Take a block with its timestamp; yield the blocks that are placed by now."""
        if samples <= 0:
            return
        self._waiting.append(_Block(start_seconds, samples, rate_hz, content))
        self._waiting_seconds += samples / rate_hz
        while self._waiting_seconds - self._waiting[0].duration_seconds >= SETTLE_SECONDS:
            yield self._place_first()

    @property
    def has_waiting(self) -> bool:
        """Whether blocks wait to be placed."""
        return bool(self._waiting)

    @property
    def end_seconds(self) -> float:
        """Where the next block is expected."""
        return self._expected_seconds + self._waiting_seconds

    def finish(self) -> Iterator[PlacedBlock]:
        """The blocks that still wait."""
        while self._waiting:
            yield self._place_first()

    def _place_first(self) -> PlacedBlock:
        start: float | None = None
        drift = 0.0
        if not np.isfinite(self._expected_seconds):
            start = self._expected_seconds = self._first_start()
        else:
            drift = self._drift()
            if drift > MAX_GAP_SECONDS:
                self._expected_seconds += drift
                start = self._expected_seconds
                drift = 0.0
        block = self._waiting.popleft()
        self._waiting_seconds -= block.duration_seconds
        # A block cannot lose more than it has; the blocks after it lose the rest.
        shift = max(round(drift * block.rate_hz), -block.samples)
        self._expected_seconds += (block.samples + shift) / block.rate_hz
        return PlacedBlock(block.content, block.samples, block.rate_hz, shift, start)

    def _drifts(self) -> NDArray[np.float64]:
        """For each waiting block with a timestamp: how much later it is than expected, seconds."""
        expected = self._expected_seconds
        drifts = []
        for block in self._waiting:
            if block.start_seconds is not None:
                drifts.append(block.start_seconds - expected)
            expected += block.duration_seconds
        return np.array(drifts)

    def _first_start(self) -> float:
        """Where the sound begins: at the first timestamp, or at their median if they oscillate."""
        # Counted from 0, each drift is a time at which the sound may begin.
        self._expected_seconds = 0.0
        drifts = self._drifts()
        if not len(drifts) or self._waiting[0].start_seconds is None:
            return 0.0
        oscillates = len(drifts) > 1 and RESYNC_SECONDS < np.ptp(drifts[1:]) < HARD_SECONDS
        return float(np.median(drifts) if oscillates else drifts[0])

    def _drift(self) -> float:
        """How far the first waiting block is to be moved, seconds."""
        start = self._waiting[0].start_seconds
        first_drift = 0.0 if start is None else start - self._expected_seconds
        if abs(first_drift) <= RESYNC_SECONDS:
            return 0.0
        drifts = self._drifts()
        agree = np.ptp(drifts) <= RESYNC_SECONDS
        # Near the end of the sound, few timestamps are left to agree or to have a median.
        are_many = self._waiting_seconds >= SETTLE_SECONDS / 2
        if agree and (are_many or abs(first_drift) > HARD_SECONDS):
            return first_drift
        # The timestamps disagree. The sound is moved only if they are off to the same side, both
        # now and over all that waits.
        soon_drift = float(np.median(drifts[:SOON_BLOCKS]))
        medians = np.array([np.median(drifts), soon_drift]) * np.sign(first_drift)
        tolerated = DRIFT_SECONDS if are_many else HARD_SECONDS
        return soon_drift if medians.min() > tolerated else 0.0
