"""Mono sound at 48 kHz, in pieces -> vectors of its windows, as if the whole sound came at once.

Knows sound and an encoder; opens no file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray

from looklisten.errors import ConfigError, SourceError
from looklisten.inference.embedding.dense import DenseAudio
from looklisten.inference.embedding.options import EmbedChoices, EmbedOptions
from looklisten.inference.embedding.records import Embeddings, audio_embeddings, concatenate
from looklisten.inference.embedding.windows import WindowCutter, WindowGrid
from looklisten.inference.encoder import (
    Encoder,
    choose_layer,
    encode_rows,
    encoder_of,
    rows_at_once,
)
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.arrays import plain_array
from looklisten.media.decode.records import DecodeReport
from looklisten.media.waveform import (
    NO_SAMPLES,
    ArrayResampler,
    SampleRate,
    Waveform,
    samples_first,
)
from looklisten.model.l3net import L3Net


class WindowedAudio:
    """Embeds sound that is pushed in pieces: each window goes through the audio tower by itself.

    `push` gives the vectors of a multiple of `batch_windows` windows; the others wait for more.
    """

    step_samples = 1
    """Starts of windows are multiples of this number of samples."""

    def __init__(
        self, encoder: Encoder, options: EmbedOptions, source: str, batch_windows: int
    ) -> None:
        self._encoder = encoder
        self._options = options
        self._source = source
        self._layer = choose_layer(encoder, "audio", options.layer)
        grid = WindowGrid.of(options.hop_seconds, options.center)
        self._cutter = WindowCutter(grid, batch_windows)

    @property
    def samples(self) -> int:
        """Number of samples that were pushed."""
        return self._cutter.samples

    def push(
        self, waveform: Float32[np.ndarray, " samples"] = NO_SAMPLES, is_last: bool = False
    ) -> Embeddings:
        """The windows that are complete now, perhaps none.

        `is_last`: nothing follows. All windows come then, and silence fills the last.
        """
        windows = self._cutter.push(waveform, is_last)
        rows = torch.from_numpy(windows.waveforms)
        batch_size = self._options.batch_size
        vectors = encode_rows(self._encoder, "audio", self._layer, rows, batch_size).numpy()
        return audio_embeddings(windows.starts, vectors, self._source, self._layer, self._options)


def audio_stream(
    encoder: Encoder, options: EmbedOptions, source: str, batch_windows: int | None = None
) -> WindowedAudio | DenseAudio:
    """The object that embeds a sound piece by piece.

    `batch_windows`: windows wait until so many are there; by default as many as are computed at
    once.
    """
    if options.dense:
        return DenseAudio(encoder, options, source)
    if batch_windows is None:
        batch_windows = rows_at_once(encoder, "audio", options.batch_size)
    return WindowedAudio(encoder, options, source, batch_windows)


def embed_sound(
    chunks: Iterable[Float32[np.ndarray, " samples"]],
    name: str,
    encoder: Encoder,
    options: EmbedOptions,
    report: DecodeReport | None = None,
) -> Iterator[Embeddings]:
    """The vectors of a mono sound at 48 kHz, in consecutive blocks, at least one.

    `report`: of the decoding that gives the chunks. Raises SourceError where there is no sound.
    """
    report = report or DecodeReport()
    audio = audio_stream(encoder, options, name)
    for chunk in chunks:
        block = audio.push(chunk)
        # A chunk may be shorter than a window and complete none.
        if len(block):
            yield block
    if not audio.samples:
        raise SourceError(f"{name} holds no sound{report.why_nothing()}")
    yield audio.push(is_last=True).with_losses(report)


class StreamingEmbedder:
    """Embeds sound while it comes in: from a microphone, a socket, or a file that is read in parts.

        stream = ll.StreamingEmbedder(model, sample_rate_hz=44100)
        for samples in microphone:
            embeddings = stream.push(samples)
            ...  # embeddings.start_seconds, embeddings.vectors
        embeddings = stream.finish()

    All vectors together are those that `ll.embed` gives for the whole sound: exactly on a CPU, up
    to rounding on a GPU. It keeps two seconds of sound in memory. If `dense`, it keeps two seconds
    of the tower's feature map. `choices` are fields of `EmbedOptions`; they override `options`.
    """

    def __init__(
        self,
        model: L3Net | Encoder,
        sample_rate_hz: SampleRate = SAMPLE_RATE_HZ,
        options: EmbedOptions | None = None,
        **choices: Unpack[EmbedChoices],
    ) -> None:
        options = replace(options or EmbedOptions(), **choices)
        encoder = encoder_of(model, options.precision)
        # No window waits for others, so that a vector comes as early as possible.
        self._audio = audio_stream(encoder, options, "a stream", batch_windows=1)
        self._resampler = ArrayResampler(sample_rate_hz)
        self._is_finished = False

    def push(self, samples: Waveform) -> Embeddings:
        """The windows that these samples complete, perhaps none.

        `samples` are the next `[samples]` or `[samples, channels]`, of any number. Raises
        SourceError if samples are not valid sound, ConfigError after `finish`.
        """
        # A piece may be shorter than its number of channels, so its longer axis says nothing.
        array = samples_first(plain_array(samples), first_is_time=True)
        return self._push(array)

    def finish(self) -> Embeddings:
        """The remaining windows; silence fills the last. Raises SourceError for no sound."""
        return self._push(NO_SAMPLES, is_last=True)

    def _push(self, array: NDArray[Any], is_last: bool = False) -> Embeddings:
        if self._is_finished:
            raise ConfigError(
                "this stream is finished; make a new StreamingEmbedder for another sound"
            )
        self._is_finished = is_last
        blocks = [self._audio.push(chunk) for chunk in self._resampler.push(array, is_last)]
        if is_last and not self._audio.samples:
            raise SourceError("the sound is empty; push samples before you finish")
        # The resampler may give no chunk yet, and there must be a block to concatenate.
        return concatenate([*blocks, self._audio.push(is_last=is_last)])
