"""Sound at any rate -> 48 kHz as OpenL3's resampler does it, all at once or in pieces. Knows
samples only.

Decibels over 80 dB show a resampler's own filter, so with another one (soxr's) vectors of 44.1 kHz
sound are off by an angle of 0.04 (cosine 0.9992). This is the Kaiser-windowed sinc of resampy 0.4's
`kaiser_best` ("Digital Audio Resampling", J. O. Smith).
"""

from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

from looklisten.media import SAMPLE_RATE_HZ

ZEROS = 50
"""Zero crossings of the sinc on each side, ..."""
BETA = 12.984585247040012
"""... the shape of the Kaiser window over them, ..."""
ROLLOFF = 0.9173473712608761
"""... and where the sinc cuts off, as a fraction of the lower Nyquist frequency (resampy's own
constants).
"""

AT_ONCE = SAMPLE_RATE_HZ // 10
"""Samples computed at a time, so that what lies between fits into the processor's cache."""

Samples = NDArray[np.float32]


class KaiserBest:
    """A stream of samples at `rate_hz` to one at 48 kHz; silence before its beginning and after its
    end.
    """

    def __init__(self, rate_hz: int) -> None:
        common = gcd(rate_hz, SAMPLE_RATE_HZ)
        self._up, self._down = SAMPLE_RATE_HZ // common, rate_hz // common
        narrowing = min(1.0, SAMPLE_RATE_HZ / rate_hz)
        self._reach = ceil(ZEROS / narrowing)
        # Row p weighs the input around an output that falls p / up of a sample behind one of the
        # input's.
        offsets = np.arange(self._up)[:, None] / self._up - np.arange(
            1 - self._reach, self._reach + 1
        )
        inside = np.abs(offsets) * narrowing / ZEROS
        window = np.i0(BETA * np.sqrt(np.clip(1 - inside**2, 0, None))) / np.i0(BETA)
        taps = narrowing * ROLLOFF * np.sinc(ROLLOFF * narrowing * offsets) * window * (inside <= 1)
        self._taps = taps.astype(np.float32)
        self._held = np.zeros(self._reach - 1, np.float32)
        """Of the input what is still needed; begins at sample `_given` - reach + 1 of it."""
        self._given = self._taken = self._made = 0

    def resample_chunk(self, samples: Samples, last: bool = False) -> Samples:
        """What the stream yields now that `samples` are there; with `last` all that is left: length
        times 48000 / rate, rounded down.
        """
        self._held = np.concatenate(
            [self._held, samples, np.zeros(self._reach if last else 0, np.float32)]
        )
        self._taken += len(samples)
        whole = self._taken * self._up // self._down
        # An output needs `reach` samples behind the one it follows.
        ready = (
            whole if last else max((self._taken - self._reach) * self._up // self._down, self._made)
        )
        pieces = [
            self._outputs(start, min(start + AT_ONCE, ready))
            for start in range(self._made, ready, AT_ONCE)
        ]
        self._made = ready
        done = ready * self._down // self._up
        self._held, self._given = self._held[done - self._given :], done
        return np.concatenate([np.zeros(0, np.float32), *pieces])

    def _outputs(self, start: int, stop: int) -> Samples:
        places, phases = np.divmod(np.arange(start, stop) * self._down, self._up)
        around = np.lib.stride_tricks.sliding_window_view(self._held, 2 * self._reach)[
            places - self._given
        ]
        made: Samples = np.einsum("nk,nk->n", around, self._taps[phases])
        return made


def resampled(samples: Samples, rate_hz: int) -> Samples:
    """All of a sound at 48 kHz."""
    return (
        samples
        if rate_hz == SAMPLE_RATE_HZ
        else KaiserBest(rate_hz).resample_chunk(samples, last=True)
    )
