"""What a user passes (a file, an image, an array) -> vectors with their times. Knows no label.

Here it is decided what a source is. `windows` embeds sound, `images` embeds images and frames.
Python calls `embed` with keywords; everything inside takes them as one `EmbedOptions`.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import numpy as np
from PIL import Image

from looklisten.config import Side
from looklisten.errors import ConfigError, SourceError
from looklisten.inference.embedding.aligned import embed_aligned
from looklisten.inference.embedding.images import embed_stills, embed_video_frames, images_of
from looklisten.inference.embedding.many_sources import items_of
from looklisten.inference.embedding.options import EmbedChoices, EmbedOptions, SideChoice
from looklisten.inference.embedding.records import AlignedEmbeddings, Embeddings, concatenate
from looklisten.inference.embedding.stream import audio_stream
from looklisten.inference.encoder import Encoder, encoder_of
from looklisten.media.arrays import is_array_like, is_numeric, not_embeddable
from looklisten.media.decode.records import DecodeReport
from looklisten.media.images import image_from_pillow, read_image
from looklisten.media.isolation.readers import is_image, read_streams
from looklisten.media.waveform import (
    ArrayResampler,
    SampleRate,
    Waveform,
    read_waveform_chunks,
)
from looklisten.model.l3net import L3Net
from looklisten.option_checks import check_one_of

if TYPE_CHECKING:
    Embeddable = str | os.PathLike[str] | Waveform | Image.Image
else:
    # `embed` checks types at runtime: it accepts more, and its errors say what to do.
    Embeddable = Any
"""The path of a file, an image of Pillow, or an array.

An array is sound (with `sample_rate_hz`) or images (without). It may be a tensor, a list, or an
array of another library that has `__array__` or DLPack.
"""

MAX_PATH_BYTES = 4096
"""More bytes are the content of a file, not its path."""


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
    path = path_of(source)
    if path is None:
        _check_single(source)
    if align:
        return embed_aligned(path, encoder, options)
    check_one_of(SideChoice, side=side)
    if path is not None:
        return concatenate(embed_file(path, encoder, options, side))
    if isinstance(source, Image.Image):
        if side == "audio":
            raise SourceError("an image has no sound")
        image = image_from_pillow(source, encoder.resize_pixels)
        return embed_stills([image], "an image", encoder, options)
    assert not isinstance(source, (str, os.PathLike))
    if sample_rate_hz is not None and side != "vision":
        chunks = ArrayResampler(sample_rate_hz).push(source, is_last=True)
        audio = audio_stream(encoder, options, "an array of sound")
        return concatenate(audio.embed(chunks, is_last=True))
    if side == "audio":
        raise ConfigError("an array of sound needs its rate: pass sample_rate_hz, such as 44100")
    return embed_stills(images_of(source, encoder), "an array of images", encoder, options)


def path_of(source: Any) -> str | Path | None:
    """The path of a file, if a source is one; raises SourceError for the contents of a file."""
    if isinstance(source, str):
        # Strings of NumPy are a class of their own, which not every library accepts.
        return str(source)
    if isinstance(source, os.PathLike):
        return Path(os.fsdecode(source))
    if isinstance(source, bytes):
        return _path_of_bytes(source)
    if is_array_like(source) and not is_numeric(source):
        # An array of no dimension may hold a path.
        array = np.asarray(source)
        return path_of(array.item()) if array.ndim == 0 else None
    return None


def _check_single(source: Any) -> None:
    """Refuse what is neither an image nor numbers.

    Raises SourceError for another type, ConfigError for a collection.
    """
    if isinstance(source, Image.Image) or is_numeric(source):
        return
    if isinstance(source, (list, tuple)):
        if not source:
            raise not_embeddable(source, "it is empty")
        # Lists of lists of numbers are one array.
        if all(isinstance(row, (list, tuple)) for row in source):
            return
    if items_of(source) is not None:
        raise ConfigError(
            "embed takes one source, and this is a collection; ll.Embedder(model).encode takes many"
        )
    # Tables of pandas have NaN where a path is missing. Only NaN differs from itself.
    if isinstance(source, float) and source != source:
        raise not_embeddable(source, "it is NaN, so a value is missing there")
    raise not_embeddable(source)


def embed_file(
    path: str | Path, encoder: Encoder, options: EmbedOptions, side: SideChoice
) -> Iterator[Embeddings]:
    """The vectors of a file in consecutive blocks, at least one, as `embed` gives them.

    A long recording needs no more memory than a short one.
    """
    if not is_file(path):
        raise SourceError(f"there is no file {path}")
    if is_image(path):
        if side == "audio":
            raise SourceError(f"{path} is an image and has no sound")
        image = read_image(path, encoder.resize_pixels)
        yield embed_stills([image], str(path), encoder, options)
        return
    report = DecodeReport()
    if side == "auto":
        side = default_side(path, encoder)
    if side == "audio":
        chunks = read_waveform_chunks(path, report)
        yield from audio_stream(encoder, options, str(path), report).embed(chunks, is_last=True)
    else:
        yield from embed_video_frames(path, encoder, options, report)


def is_file(path: str | Path) -> bool:
    """Whether there is such a file. Raises SourceError for a name that the system refuses."""
    try:
        return Path(path).is_file()
    except OSError as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror}") from None


def default_side(path: str | Path, encoder: Encoder) -> Side:
    """The sound if the file has sound and the network an audio side, else the images."""
    if "audio" not in encoder.layers:
        return "vision"
    streams = read_streams(path)
    # A file that has neither gets the error for missing sound.
    return "audio" if streams.has_audio or not streams.has_video else "vision"


def _path_of_bytes(name: bytes) -> Path:
    """The file that bytes name, as in paths that are not UTF-8."""
    if len(name) > MAX_PATH_BYTES or b"\0" in name:
        raise not_embeddable(
            name, "these are the contents of a file; write them to a file and pass its path"
        )
    return Path(os.fsdecode(name))
