"""Sound, images and videos -> vectors with their times, the same alone or in a batch. Knows no
label.
"""

from fractions import Fraction
from typing import Literal, overload

from looklisten.inference.embedding.arguments import Source
from looklisten.inference.embedding.inputs import aligned, parts
from looklisten.inference.embedding.options import Precision, SideChoice
from looklisten.inference.embedding.records import AlignedEmbeddings, Embeddings, joined
from looklisten.inference.embedding.stream import BATCH_SIZE, HOP_SECONDS, How
from looklisten.inference.encoder import Encoder, encoder_of
from looklisten.media.waveform import SampleRate
from looklisten.model.l3net import L3Net


@overload
def embed(
    source: Source,
    model: L3Net | Encoder,
    side: SideChoice = ...,
    layer: str | None = ...,
    hop_seconds: float | Fraction = ...,
    center: bool = ...,
    normalize: bool = ...,
    dense: bool = ...,
    batch_size: int = ...,
    sample_rate_hz: SampleRate | None = ...,
    precision: Precision = ...,
    align: Literal[False] = ...,
) -> Embeddings: ...


@overload
def embed(
    source: Source,
    model: L3Net | Encoder,
    side: SideChoice = ...,
    layer: str | None = ...,
    hop_seconds: float | Fraction = ...,
    center: bool = ...,
    normalize: bool = ...,
    dense: bool = ...,
    batch_size: int = ...,
    sample_rate_hz: SampleRate | None = ...,
    precision: Precision = ...,
    *,
    align: Literal[True],
) -> AlignedEmbeddings: ...


def embed(
    source: Source,
    model: L3Net | Encoder,
    side: SideChoice = "auto",
    layer: str | None = None,
    hop_seconds: float | Fraction = HOP_SECONDS,
    center: bool = False,
    normalize: bool = False,
    dense: bool = False,
    batch_size: int = BATCH_SIZE,
    sample_rate_hz: SampleRate | None = None,
    precision: Precision = "float32",
    align: bool = False,
) -> Embeddings | AlignedEmbeddings:
    """Vectors of any sound, picture or video; with `align` those of both sides of a video on the
    same times.

    `source`: a file; a picture of Pillow; sound as `[samples]`, `[samples, channels]` or
        `[channels, samples]` with `sample_rate_hz` (the longer axis is time, integers are scaled,
        channels averaged); or pictures as `[height, width, 3]` or `[n, height, width, 3]`, uint8 or
        floats in 0..1, without it. Numbers may be an array of any library, a tensor or a list.

    `side`: `auto` takes the sound where there is one, else the picture. `layer`: pool4 (512-D),
        conv4_2 (6144-D of sound, 8192-D of pictures), aligned (128-D), texture (7680-D, of sound).
        Sound gives `1 + ceil((samples - 48000) / hop)` windows of a second at 48 kHz, the last
        filled up with silence, at least one; `center` puts half a second of silence in front, so
        that window k has the moment k times `hop_seconds` in its middle. Of a video's picture the
        frames nearest to multiples of `hop_seconds` are taken.
    `normalize`: unit vectors. `dense`: sound in one run of the tower (see `dense.py`). `precision`:
        float32, or the faster bfloat16. The same source gives the same vectors; on a CPU in float32
        to the bit, alone or in company, whole or streamed.

    Raises SourceError for a source that cannot be what it should be, ConfigError for choices that
    cannot be met.
    """
    how = How(layer, hop_seconds, center, normalize, dense, batch_size)
    encoder = encoder_of(model, precision)
    if align:
        return aligned(source, encoder, how)
    return joined(parts(source, encoder, how, side, sample_rate_hz))
