"""Placement."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


MAX_GAP_SECONDS = 1.0
"""A shorter hole in the sound is filled with silence (a lost packet); in a longer one there is no
sound, and no clip.
"""


@dataclass(frozen=True, eq=False)
class PlacedBlock:
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


class BlockPlacer:
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

    def feed(
        self, at: float | None, samples: int, rate_hz: int, block: Any
    ) -> Iterator[PlacedBlock]:
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

    def rest(self) -> Iterator[PlacedBlock]:
        """The blocks that still wait."""
        while self._waiting:
            yield self._place()

    def _place(self) -> PlacedBlock:
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
        return PlacedBlock(block, samples, rate_hz, shift, start)

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
