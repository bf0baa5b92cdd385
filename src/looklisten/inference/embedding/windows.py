"""Windows of a sound: where they begin, how they are cut from chunks, and their vectors.

Windows have one second. Each start is rounded from its exact time, never summed up from a rounded
hop, so window number k does not drift. Knows samples and an encoder; opens no file.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from looklisten.errors import ConfigError, SourceError
from looklisten.inference.embedding.options import EmbedOptions
from looklisten.inference.embedding.records import Embeddings, audio_embeddings
from looklisten.inference.encoder import Encoder, choose_layer, encode_rows
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.records import DecodeReport
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.media.waveform import NO_SAMPLES

ONE_HALF = Fraction(1, 2)


@dataclass(frozen=True)
class WindowGrid:
    """Windows of `WINDOW_SAMPLES`, one every `hop_samples`, which is exact.

    The sound has `padding_samples` of silence before it.
    """

    hop_samples: Fraction
    padding_samples: int = 0

    @staticmethod
    def of(hop_seconds: float | Fraction, center: bool = False) -> "WindowGrid":
        """The grid of a hop.

        `center` puts half a window of silence before the sound. The middle of window k is then
        k times the hop. Raises ConfigError for a hop under one sample.
        """
        if isinstance(hop_seconds, Fraction):
            exact_seconds = hop_seconds
        else:
            exact_seconds = _exact_decimal(hop_seconds)
        hop_samples = exact_seconds * SAMPLE_RATE_HZ
        if hop_samples < 1:
            raise ConfigError(
                f"hop_seconds {float(hop_seconds):g} must be at least one sample "
                f"(1/{SAMPLE_RATE_HZ} s), such as 0.5"
            )
        return WindowGrid(hop_samples, WINDOW_SAMPLES // 2 if center else 0)

    def start(self, number: int) -> int:
        """The first sample of a window; below zero where it begins in the padding."""
        return math.floor(number * self.hop_samples + ONE_HALF) - self.padding_samples

    def count(self, samples: int) -> int:
        """Number of windows that cover a sound, at least one; silence fills the last.

        It is `1 + ceil((samples + padding - window) / hop)`.
        """
        after_first = samples + self.padding_samples - WINDOW_SAMPLES
        return 1 + max(math.ceil(after_first / self.hop_samples), 0)


def _exact_decimal(seconds: float) -> Fraction:
    """The decimal number that a float prints as: 0.1 is one tenth."""
    if not 0 < seconds < math.inf:
        raise ConfigError(f"hop_seconds {seconds:g} must be a number above 0, such as 0.5")
    # `repr` is the shortest decimal number that gives this float.
    return Fraction(repr(float(seconds)))


@dataclass(frozen=True, eq=False)
class Windows:
    """Consecutive windows: the first sample of each, and its sound."""

    starts: Int64[np.ndarray, " n"]
    waveforms: Float32[np.ndarray, "n samples"]


class SampleBuffer:
    """The end of a sound that comes in pieces; samples are numbered from the start of the sound."""

    def __init__(self, padding_samples: int = 0) -> None:
        self._pieces: list[NDArray[np.float32]] = [np.zeros(padding_samples, np.float32)]
        self._start = -padding_samples
        self.end = 0

    def push(self, waveform: Float32[np.ndarray, " samples"]) -> None:
        self._pieces.append(waveform)
        self.end += len(waveform)

    def drop_before(self, start: int) -> None:
        """Allow samples before `start` to be dropped."""
        start = min(start, self.end)
        # Copying for each tiny piece would cost more than keeping a second of sound.
        if start - self._start >= WINDOW_SAMPLES:
            self._pieces = [self.take(start, self.end).copy()]
            self._start = start

    def take(self, start: int, end: int) -> Float32[np.ndarray, " samples"]:
        """The samples [start, end), with silence after the end of the sound."""
        # Only here, so that pushing many tiny pieces stays cheap.
        if len(self._pieces) > 1:
            self._pieces = [np.concatenate(self._pieces)]
        samples = self._pieces[0][start - self._start : end - self._start]
        return np.pad(samples, (0, end - start - len(samples)))


class WindowCutter:
    """Cuts the windows of a grid from sound that is pushed in pieces of any length.

    `push` gives a multiple of `batch_windows`; the other windows wait for more. It holds little
    more than these, two windows and one piece.
    """

    def __init__(self, grid: WindowGrid, batch_windows: int = 1) -> None:
        self._grid = grid
        self._batch_windows = batch_windows
        self._next_number = 0
        self._buffer = SampleBuffer(grid.padding_samples)
        # Windows that are cut and wait for a full batch: the first sample of each, and its sound.
        self._starts: list[int] = []
        self._waveforms: list[Float32[np.ndarray, " samples"]] = []

    @property
    def samples(self) -> int:
        """Number of samples that were pushed."""
        return self._buffer.end

    def push(
        self, waveform: Float32[np.ndarray, " samples"] = NO_SAMPLES, is_last: bool = False
    ) -> Windows:
        """The full batches of windows that this piece completes, perhaps none.

        `is_last`: nothing follows. All windows come then, and silence fills the last.
        """
        self._buffer.push(waveform)
        stop_number = self._next_number
        if is_last:
            stop_number = self._grid.count(self.samples)
        else:
            while self._grid.start(stop_number) + WINDOW_SAMPLES <= self._buffer.end:
                stop_number += 1
        for number in range(self._next_number, stop_number):
            start = self._grid.start(number)
            self._starts.append(start)
            self._waveforms.append(self._buffer.take(start, start + WINDOW_SAMPLES))
        self._next_number = stop_number
        self._buffer.drop_before(self._grid.start(stop_number))
        count = len(self._starts)
        if not is_last:
            count -= count % self._batch_windows
        starts = np.array(self._starts[:count], np.int64)
        waveforms = np.array(self._waveforms[:count], np.float32)
        del self._starts[:count], self._waveforms[:count]
        return Windows(starts, waveforms.reshape(count, WINDOW_SAMPLES))


class WindowedAudio:
    """Embeds a sound that comes in chunks: each window goes through the audio tower by itself.

    `report`: of the decoding that gives the chunks. `batch_windows`: vectors come in multiples of
    this number; the other windows wait.
    """

    step_samples = 1
    """Starts of windows are multiples of this number of samples."""

    def __init__(
        self,
        encoder: Encoder,
        options: EmbedOptions,
        source: str,
        report: DecodeReport,
        batch_windows: int,
    ) -> None:
        self._encoder = encoder
        self._options = options
        self._source = source
        self._report = report
        self._layer = choose_layer(encoder, "audio", options.layer)
        grid = WindowGrid.of(options.hop_seconds, options.center)
        self._cutter = WindowCutter(grid, batch_windows)

    @property
    def samples(self) -> int:
        """Number of samples that came."""
        return self._cutter.samples

    def embed(
        self, chunks: Iterable[Float32[np.ndarray, " samples"]] = (), is_last: bool = False
    ) -> Iterator[Embeddings]:
        """The windows that these chunks complete, in blocks, at least one.

        `is_last`: nothing follows. All windows come then, and silence fills the last. Raises
        SourceError where there is no sound.
        """
        for chunk, is_end in with_end(chunks, is_last):
            windows = self._cutter.push(chunk, is_end)
            if is_end:
                check_has_sound(self.samples, self._source, self._report)
            rows = torch.from_numpy(windows.waveforms)
            batch_size = self._options.batch_size
            vectors = encode_rows(self._encoder, "audio", self._layer, rows, batch_size).numpy()
            block = audio_embeddings(
                windows.starts, vectors, self._source, self._layer, self._options
            )
            yield block.with_losses(self._report)


def with_end(
    chunks: Iterable[Float32[np.ndarray, " samples"]], is_last: bool
) -> Iterator[tuple[Float32[np.ndarray, " samples"], bool]]:
    """Each chunk with whether the sound ends there; after them one without samples."""
    for chunk in chunks:
        yield chunk, False
    yield NO_SAMPLES, is_last


def check_has_sound(samples: int, source: str, report: DecodeReport) -> None:
    """Raises SourceError for a sound of no length."""
    if not samples:
        raise SourceError(f"{source} holds no sound{report.why_nothing()}")
