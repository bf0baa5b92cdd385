"""Sound that comes in pieces -> vectors of its windows, as if the whole sound came at once.

Knows sound and an encoder; opens no file.
"""

from dataclasses import replace
from typing import Unpack

from looklisten.errors import ConfigError, SourceError
from looklisten.inference.embedding.dense import DenseAudio
from looklisten.inference.embedding.options import EmbedChoices, EmbedOptions
from looklisten.inference.embedding.records import Embeddings, concatenate
from looklisten.inference.embedding.windows import WindowedAudio
from looklisten.inference.encoder import Encoder, encoder_of, rows_at_once
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.records import DecodeReport
from looklisten.media.waveform import NO_SAMPLES, ArrayResampler, SampleRate, Waveform
from looklisten.model.l3net import L3Net


def audio_stream(
    encoder: Encoder,
    options: EmbedOptions,
    source: str,
    report: DecodeReport | None = None,
    batch_windows: int | None = None,
) -> WindowedAudio | DenseAudio:
    """The object that embeds a mono sound at 48 kHz, chunk by chunk.

    `source`: the name of the sound, for the vectors and for errors.
    `report`: what the decoder that gives the chunks met.
    `batch_windows`: vectors come in multiples of this number, by default as many as are computed at
        once. Not used with `options.dense`, where vectors come as soon as they are known.
    """
    report = report or DecodeReport()
    if options.dense:
        return DenseAudio(encoder, options, source, report)
    if batch_windows is None:
        batch_windows = rows_at_once(encoder, "audio", options.batch_size)
    return WindowedAudio(encoder, options, source, report, batch_windows)


class StreamingEmbedder:
    """Embeds sound while it comes in: from a microphone, a socket, or a file that is read in parts.

        stream = ll.StreamingEmbedder(model, sample_rate_hz=44100)
        for samples in microphone:
            embeddings = stream.push(samples)
            ...  # embeddings.start_seconds, embeddings.vectors
        embeddings = stream.finish()

    All vectors together are those that `ll.embed` gives for the whole sound: exactly on a CPU, up
    to rounding on a GPU. However long the sound is, only its last few seconds are in memory.
    `choices` are fields of `EmbedOptions`; they override `options`.
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
        # A piece may be shorter than its number of channels, so its longer axis says nothing.
        self._resampler = ArrayResampler(sample_rate_hz, first_is_time=True)
        self._is_finished = False

    def push(self, samples: Waveform) -> Embeddings:
        """The vectors of the windows that these samples complete, perhaps none.

        `samples` are the next `[samples]` or `[samples, channels]`, of any number. Raises
        SourceError if samples are not valid sound, ConfigError after `finish`.
        """
        return self._push(samples)

    def finish(self) -> Embeddings:
        """The vectors of the remaining windows; silence fills the last.

        Raises SourceError if no samples were pushed, ConfigError after `finish`.
        """
        return self._push(NO_SAMPLES, is_last=True)

    def _push(self, samples: Waveform, is_last: bool = False) -> Embeddings:
        if self._is_finished:
            raise ConfigError(
                "this stream is finished; make a new StreamingEmbedder for another sound"
            )
        self._is_finished = is_last
        if is_last and not self._resampler.samples:
            raise SourceError("the sound is empty; push samples before you finish")
        return concatenate(self._audio.embed(self._resampler.push(samples, is_last), is_last))
