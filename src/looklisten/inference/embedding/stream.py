"""Sound that comes in pieces -> vectors of its windows, the same as of the whole. Knows sound and
an encoder, no file.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float32

from looklisten.errors import ConfigError, SourceError
from looklisten.inference.embedding.dense import DenseSound
from looklisten.inference.embedding.options import Precision
from looklisten.inference.embedding.records import Embeddings, unit
from looklisten.inference.embedding.windows import WindowCutter, WindowGrid, Windows, WindowVectors
from looklisten.inference.encoder import (
    Encoder,
    choose_layer,
    encode_rows,
    encoder_of,
    vector_length,
)
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.spectrogram import WINDOW_SECONDS
from looklisten.media.waveform import ArrayResampler, SampleRate, Waveform, samples_first
from looklisten.model.l3net import L3Net

HOP_SECONDS = 0.5
"""The usual hop: whatever is shorter than half a second lies whole in some window."""

BATCH_SIZE = 32


@dataclass(frozen=True)
class How:
    """The choices that every way of embedding shares; `layer` None is the usual one of the side."""

    layer: str | None = None
    hop_seconds: float | Fraction = HOP_SECONDS
    center: bool = False
    normalize: bool = False
    dense: bool = False
    batch_size: int = BATCH_SIZE

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size {self.batch_size} must be at least 1")

    @property
    def grid(self) -> WindowGrid:
        return WindowGrid.of(self.hop_seconds, self.center)


class PlainSound:
    """Every window through the tower by itself. `gather` windows are waited for before any is
    computed.
    """

    def __init__(
        self, encoder: Encoder, layer: str, grid: WindowGrid, batch_size: int, gather: bool
    ) -> None:
        self._encoder, self._layer, self._grid, self._batch_size = encoder, layer, grid, batch_size
        self._gather = batch_size if gather else 1
        self._cutter = WindowCutter(grid)
        self._waiting: list[Windows] = []

    @cached_property
    def features(self) -> int:
        return vector_length(self._encoder, "audio", self._layer)

    @property
    def samples(self) -> int:
        return self._cutter.samples

    def start(self, number: int) -> int:
        return self._grid.start(number)

    def push(self, wave: Float32[np.ndarray, " samples"]) -> WindowVectors:
        return self._add(self._cutter.push(wave), self._gather)

    def finish(self) -> WindowVectors:
        return self._add(self._cutter.finish(), 1)

    def _add(self, windows: Windows, at_least: int) -> WindowVectors:
        if len(windows.starts):
            self._waiting.append(windows)
        if sum(len(some.starts) for some in self._waiting) < at_least:
            return WindowVectors(np.zeros(0, np.int64), np.zeros((0, self.features), np.float32))
        starts, sound = (
            np.concatenate([getattr(some, what) for some in self._waiting])
            for what in ("starts", "sound")
        )
        self._waiting = []
        return WindowVectors(starts, self._vectors(sound))

    def _vectors(
        self, sound: Float32[np.ndarray, "n samples"]
    ) -> Float32[np.ndarray, "n features"]:
        vectors: Float32[np.ndarray, "n features"] = encode_rows(
            self._encoder, "audio", self._layer, torch.from_numpy(sound), self._batch_size
        ).numpy()
        return vectors


def sound_vectors(encoder: Encoder, how: How, gather: bool = True) -> PlainSound | DenseSound:
    """The plain way, or the dense one."""
    layer = choose_layer(encoder, "audio", how.layer)
    if how.dense:
        return DenseSound(encoder, layer, how.grid)
    return PlainSound(
        encoder, layer, how.grid, how.batch_size, gather and encoder.device.type != "cpu"
    )


def as_embeddings(new: WindowVectors, source: str, encoder: Encoder, how: How) -> Embeddings:
    """The record of windows of a sound."""
    return Embeddings(
        vectors=unit(new.vectors) if how.normalize else new.vectors,
        start_seconds=new.starts / SAMPLE_RATE_HZ,
        source=source,
        side="audio",
        layer=choose_layer(encoder, "audio", how.layer),
        window_seconds=WINDOW_SECONDS,
        centered=how.center,
    )


class StreamingEmbedder:
    """Vectors of a sound while it comes in: from a microphone, a socket, a file that is read in
    pieces.

        stream = ll.StreamingEmbedder(model, sample_rate_hz=44100)
        for samples in microphone:
            found = stream.push(samples)
            ...  # found.start_seconds, found.vectors
        found = stream.finish()

    `push` gives the windows that are complete, `finish` the rest, the last filled up with silence;
    together they are, to the bit, what `ll.embed` gives of the whole. It holds two windows of sound
    (dense: of map) and no vector.
    """

    def __init__(
        self,
        model: L3Net | Encoder,
        sample_rate_hz: SampleRate = SAMPLE_RATE_HZ,
        layer: str | None = None,
        hop_seconds: float | Fraction = HOP_SECONDS,
        center: bool = False,
        normalize: bool = False,
        dense: bool = False,
        batch_size: int = BATCH_SIZE,
        precision: Precision = "float32",
    ) -> None:
        self._how = How(layer, hop_seconds, center, normalize, dense, batch_size)
        self._encoder = encoder_of(model, precision)
        self._sound = sound_vectors(self._encoder, self._how, gather=False)
        self._resampler = ArrayResampler(sample_rate_hz)
        self._is_over = False

    def push(self, samples: Waveform) -> Embeddings:
        """The windows that these samples complete, perhaps none.

        `samples` are the next `[samples]` or `[samples, channels]`, of any number. Raises
        SourceError for what cannot be sound, ConfigError after `finish`.
        """
        self._check_open()
        return self._record(
            [
                self._sound.push(piece)
                for piece in self._resampler.push(samples_first(samples, first_is_time=True))
            ]
        )

    def finish(self) -> Embeddings:
        """The windows that are left. Raises SourceError when nothing was pushed."""
        self._check_open()
        self._is_over = True
        new = [self._sound.push(piece) for piece in self._resampler.finish()]
        if not self._sound.samples:
            raise SourceError("the sound is empty; push samples before you finish")
        return self._record([*new, self._sound.finish()])

    def _check_open(self) -> None:
        if self._is_over:
            raise ConfigError(
                "this stream is finished; make a new StreamingEmbedder for another sound"
            )

    def _record(self, new: list[WindowVectors]) -> Embeddings:
        starts = np.concatenate([np.zeros(0, np.int64), *(part.starts for part in new)])
        vectors = np.concatenate(
            [np.zeros((0, self._sound.features), np.float32), *(part.vectors for part in new)]
        )
        return as_embeddings(WindowVectors(starts, vectors), "a stream", self._encoder, self._how)
