"""Where windows of a second lie in a sound, and how they are cut from one that comes in pieces.
Knows samples, no network.

Every start is rounded from its exact time, never added up from a rounded hop: window number k does
not drift.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from looklisten.errors import ConfigError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.spectrogram import WINDOW_SAMPLES


@dataclass(frozen=True)
class WindowGrid:
    """Windows of `WINDOW_SAMPLES`, one every `hop_samples` (exact), the first with
    `padding_samples` of silence in front.
    """

    hop_samples: Fraction
    padding_samples: int = 0

    @staticmethod
    def of(hop_seconds: float | Fraction, center: bool = False) -> "WindowGrid":
        """`center` puts half a window of silence in front, so that window k has the moment k times
        the hop in its middle.

        A float is the decimal number that it prints as: 0.1 is a tenth. Raises ConfigError for a
        hop under a sample.
        """
        exact = hop_seconds if isinstance(hop_seconds, Fraction) else _decimal(hop_seconds)
        if exact * SAMPLE_RATE_HZ < 1:
            raise ConfigError(
                f"hop_seconds {float(hop_seconds):g} must be at least a sample of 1/{SAMPLE_RATE_HZ} s, such as 0.5"
            )
        return WindowGrid(exact * SAMPLE_RATE_HZ, WINDOW_SAMPLES // 2 if center else 0)

    def start(self, number: int) -> int:
        """The first sample of a window, from the sound's first sample; below zero where silence is
        in front.
        """
        return math.floor(number * self.hop_samples + Fraction(1, 2)) - self.padding_samples

    def count(self, samples: int) -> int:
        """How many windows cover a sound of so many samples, the last filled up with silence:
        `1 + ceil((samples + padding - window) / hop)`, and one where that is none.
        """
        over = samples + self.padding_samples - WINDOW_SAMPLES
        return 1 + max(math.ceil(over / self.hop_samples), 0)


def _decimal(seconds: float) -> Fraction:
    if not 0 < seconds < math.inf:
        raise ConfigError(f"hop_seconds {seconds:g} must be a number above 0, such as 0.5")
    return Fraction(repr(float(seconds)))


@dataclass(frozen=True, eq=False)
class Windows:
    """Neighbouring windows: the first sample of each, and the sound of each."""

    starts: Int64[np.ndarray, " n"]
    sound: Float32[np.ndarray, "n samples"]


@dataclass(frozen=True, eq=False)
class WindowVectors:
    """Neighbouring windows: the first sample of each, and the vector of each."""

    starts: Int64[np.ndarray, " n"]
    vectors: Float32[np.ndarray, "n features"]


class Buffer:
    """The end of a sound that comes in pieces; samples are known by their number from the sound's
    first.
    """

    def __init__(self, padding_samples: int = 0) -> None:
        self._pieces: list[NDArray[np.float32]] = [np.zeros(padding_samples, np.float32)]
        self._begin, self.end = -padding_samples, 0

    def push(self, wave: Float32[np.ndarray, " samples"]) -> None:
        self._pieces.append(wave)
        self.end += len(wave)

    def forget(self, begin: int) -> None:
        """Nobody will ask for samples before `begin` again. Room is made now and then, so that tiny
        pieces cost little.
        """
        begin = min(begin, self.end)
        if begin - self._begin >= WINDOW_SAMPLES:
            self._pieces = [self.take(begin, self.end).copy()]
            self._begin = begin

    def take(self, begin: int, end: int) -> Float32[np.ndarray, " samples"]:
        """The samples [begin, end), silence where the sound is over."""
        if len(self._pieces) > 1:
            self._pieces = [np.concatenate(self._pieces)]
        taken = self._pieces[0][begin - self._begin : end - self._begin]
        return np.pad(taken, (0, end - begin - len(taken)))


class WindowCutter:
    """Windows of a grid from a sound that is pushed in pieces of any length; holds little more than
    two windows and a piece.
    """

    def __init__(self, grid: WindowGrid) -> None:
        self._grid, self._next = grid, 0
        self._buffer = Buffer(grid.padding_samples)

    @property
    def samples(self) -> int:
        """How many were pushed."""
        return self._buffer.end

    def push(self, wave: Float32[np.ndarray, " samples"]) -> Windows:
        """The windows that are whole now."""
        self._buffer.push(wave)
        count = self._next
        while self._grid.start(count) + WINDOW_SAMPLES <= self._buffer.end:
            count += 1
        return self._cut(count)

    def finish(self) -> Windows:
        """The windows that are left, filled up with silence."""
        return self._cut(self._grid.count(self.samples))

    def _cut(self, stop: int) -> Windows:
        starts = [self._grid.start(number) for number in range(self._next, stop)]
        sound = [self._buffer.take(start, start + WINDOW_SAMPLES) for start in starts]
        self._next = max(stop, self._next)
        self._buffer.forget(self._grid.start(self._next))
        empty = np.zeros((0, WINDOW_SAMPLES), np.float32)
        return Windows(np.array(starts, np.int64), np.stack(sound) if sound else empty)
