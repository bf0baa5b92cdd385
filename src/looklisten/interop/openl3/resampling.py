"""Resamples sound to 48 kHz as OpenL3 does, all at once or in chunks. Knows samples only.

The filter is the Kaiser-windowed sinc of resampy 0.4's `kaiser_best` ("Digital Audio Resampling",
J. O. Smith).
"""

from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

OPENL3_RATE_HZ = 48_000
"""The rate that OpenL3 was trained at. It never moves, whatever rate other sound has here."""
OPENL3_WINDOW_SAMPLES = OPENL3_RATE_HZ
"""OpenL3 hears one second."""

# The constants are resampy's. A spectrogram of 80 dB shows the filter of a resampler: with the one
# of soxr, vectors of 44.1 kHz sound differ by an angle of 0.04 (cosine 0.9992).
ZERO_CROSSINGS = 50
"""Zero crossings of the sinc on each side."""
BETA = 12.984585247040012
"""The shape of the Kaiser window."""
ROLLOFF = 0.9173473712608761
"""The cut-off frequency, as a fraction of the lower Nyquist frequency."""

OUTPUT_CHUNK_SAMPLES = OPENL3_RATE_HZ // 10
"""Waveform computed at a time, so that the intermediate values fit into the processor's cache."""

Waveform = NDArray[np.float32]


class KaiserBest:
    """Resamples a stream of samples at `rate_hz` to 48 kHz, with silence before and after it."""

    def __init__(self, rate_hz: int) -> None:
        common = gcd(rate_hz, OPENL3_RATE_HZ)
        self._up, self._down = OPENL3_RATE_HZ // common, rate_hz // common
        narrowing = min(1.0, OPENL3_RATE_HZ / rate_hz)
        self._reach = ceil(ZERO_CROSSINGS / narrowing)
        # Row p has the weights of the input around an output that lies p / up of a sample after
        # an input sample.
        phases = np.arange(self._up)[:, None] / self._up
        offsets = phases - np.arange(1 - self._reach, self._reach + 1)
        inside = np.abs(offsets) * narrowing / ZERO_CROSSINGS
        window = np.i0(BETA * np.sqrt(np.clip(1 - inside**2, 0, None))) / np.i0(BETA)
        taps = narrowing * ROLLOFF * np.sinc(ROLLOFF * narrowing * offsets) * window * (inside <= 1)
        self._taps = taps.astype(np.float32)
        self._buffer = np.zeros(self._reach - 1, np.float32)
        """The input that is still needed, from sample `_buffer_start - _reach + 1` on."""
        self._buffer_start = 0
        self._input_samples = 0
        self._output_samples = 0

    def resample_chunk(self, samples: Waveform, last: bool = False) -> Waveform:
        """The new output after the next `samples` of the input.

        With `last` the output ends; its length is that of the input times 48000 / rate, rounded
        down.
        """
        silence = np.zeros(self._reach if last else 0, np.float32)
        self._buffer = np.concatenate([self._buffer, samples, silence])
        self._input_samples += len(samples)
        if last:
            ready = self._input_samples * self._up // self._down
        else:
            # An output needs `_reach` samples after the one that it follows.
            complete = (self._input_samples - self._reach) * self._up // self._down
            ready = max(complete, self._output_samples)
        chunks = [np.zeros(0, np.float32)]
        for start in range(self._output_samples, ready, OUTPUT_CHUNK_SAMPLES):
            chunks.append(self._outputs(start, min(start + OUTPUT_CHUNK_SAMPLES, ready)))
        self._output_samples = ready
        next_start = ready * self._down // self._up
        self._buffer = self._buffer[next_start - self._buffer_start :]
        self._buffer_start = next_start
        return np.concatenate(chunks)

    def _outputs(self, start: int, stop: int) -> Waveform:
        input_samples, phases = np.divmod(np.arange(start, stop) * self._down, self._up)
        windows = np.lib.stride_tricks.sliding_window_view(self._buffer, 2 * self._reach)
        inputs = windows[input_samples - self._buffer_start]
        outputs: Waveform = np.einsum("nk,nk->n", inputs, self._taps[phases])
        return outputs


def resampled(samples: Waveform, rate_hz: int) -> Waveform:
    """A complete sound at 48 kHz."""
    if rate_hz == OPENL3_RATE_HZ:
        return samples
    return KaiserBest(rate_hz).resample_chunk(samples, last=True)
