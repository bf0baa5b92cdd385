"""Sound, images and videos -> vectors with their times. Knows no label.

Python calls `embed` with keywords; everything inside takes them as one `EmbedOptions`.
"""

from dataclasses import replace
from typing import Literal, Unpack, overload

from looklisten.inference.embedding.arguments import Embeddable
from looklisten.inference.embedding.inputs import embed_aligned, embed_blocks
from looklisten.inference.embedding.options import EmbedChoices, EmbedOptions, SideChoice
from looklisten.inference.embedding.records import AlignedEmbeddings, Embeddings, concatenate
from looklisten.inference.encoder import Encoder, encoder_of
from looklisten.media.waveform import SampleRate
from looklisten.model.l3net import L3Net


@overload
def embed(
    source: Embeddable,
    model: L3Net | Encoder,
    side: SideChoice = ...,
    sample_rate_hz: SampleRate | None = ...,
    align: Literal[False] = ...,
    options: EmbedOptions | None = ...,
    **choices: Unpack[EmbedChoices],
) -> Embeddings: ...


@overload
def embed(
    source: Embeddable,
    model: L3Net | Encoder,
    side: SideChoice = ...,
    sample_rate_hz: SampleRate | None = ...,
    *,
    align: Literal[True],
    options: EmbedOptions | None = ...,
    **choices: Unpack[EmbedChoices],
) -> AlignedEmbeddings: ...


def embed(
    source: Embeddable,
    model: L3Net | Encoder,
    side: SideChoice = "auto",
    sample_rate_hz: SampleRate | None = None,
    align: bool = False,
    options: EmbedOptions | None = None,
    **choices: Unpack[EmbedChoices],
) -> Embeddings | AlignedEmbeddings:
    """Vectors of a sound, an image or a video.

    `source`: the path of a file; an image of Pillow; sound as `[samples]`, `[samples, channels]` or
        `[channels, samples]` with `sample_rate_hz`; or images as `[height, width, 3]` or
        `[n, height, width, 3]`, uint8 or floats in 0..1, without it. Arrays of any library, tensors
        and lists are accepted. Of sound the longer axis is time, integers are scaled to -1..1, and
        channels are averaged.
    `side`: `auto` takes the sound of a file that has sound, else its images.
    `align`: vectors of both sides of a video at the same times.
    `choices`: fields of `EmbedOptions`, such as `layer` and `hop_seconds`; they go before
        `options`.

    Sound has `1 + ceil((samples - 48000) / hop)` windows of one second at 48 kHz, at least one;
    silence fills the last. Of a video the frames nearest to multiples of the hop are taken. The
    same source gives the same vectors; on a CPU in float32 also the same bits, alone or with
    others, at once or as a stream.

    Raises SourceError for a source that cannot be embedded, ConfigError for choices that the
    network does not support.
    """
    options = replace(options or EmbedOptions(), **choices)
    encoder = encoder_of(model, options.precision)
    if align:
        return embed_aligned(source, encoder, options)
    return concatenate(embed_blocks(source, encoder, options, side, sample_rate_hz))
