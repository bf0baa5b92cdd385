"""What a user passes (a file, an image, an array) -> vectors with their times. Knows no label.

Here it is decided what a source is. `stream` embeds sound, `images` embeds images and frames.
Python calls `embed` with keywords; everything inside takes them as one `EmbedOptions`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, Unpack, overload

import numpy as np
from PIL import Image

from looklisten.config import Side
from looklisten.errors import ConfigError, SourceError
from looklisten.inference.embedding.arguments import Embeddable, is_file, single_source
from looklisten.inference.embedding.images import (
    FrameBatches,
    embed_stills,
    embed_video_frames,
    frame_decoding,
    images_of,
)
from looklisten.inference.embedding.options import EmbedChoices, EmbedOptions, SideChoice
from looklisten.inference.embedding.records import AlignedEmbeddings, Embeddings, concatenate
from looklisten.inference.embedding.stream import audio_stream, embed_sound
from looklisten.inference.embedding.windows import WindowGrid
from looklisten.inference.encoder import Encoder, encoder_of
from looklisten.media.decode.records import DecodeReport, Frame
from looklisten.media.images import image_from_pillow, read_image
from looklisten.media.isolation.readers import TimeGrid, is_image, read_media, read_streams
from looklisten.media.spectrogram import WINDOW_SAMPLES, WINDOW_SECONDS
from looklisten.media.waveform import (
    ArrayResampler,
    SampleRate,
    checked_media,
    read_waveform_chunks,
    samples_first,
)
from looklisten.model.l3net import L3Net
from looklisten.option_checks import check_one_of


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


def embed_blocks(
    source: Embeddable,
    encoder: Encoder,
    options: EmbedOptions,
    side: SideChoice,
    sample_rate_hz: SampleRate | None = None,
) -> Iterator[Embeddings]:
    """What `embed` gives, in consecutive blocks, at least one.

    A long recording needs no more memory than a short one.
    """
    check_one_of(SideChoice, side=side)
    source = single_source(source)
    if isinstance(source, (str, Path)):
        return _embed_file(source, encoder, options, side)
    if isinstance(source, Image.Image):
        if side == "audio":
            raise SourceError("an image has no sound")
        image = image_from_pillow(source, encoder.resize_pixels)
        return embed_stills([image], "an image", encoder, options)
    if sample_rate_hz is not None and side != "vision":
        chunks = ArrayResampler(sample_rate_hz).push(samples_first(source), is_last=True)
        return embed_sound(chunks, "an array of sound", encoder, options)
    if side == "audio":
        raise ConfigError("an array of sound needs its rate: pass sample_rate_hz, such as 44100")
    return embed_stills(images_of(source, encoder), "an array of images", encoder, options)


def _embed_file(
    path: str | Path, encoder: Encoder, options: EmbedOptions, side: SideChoice
) -> Iterator[Embeddings]:
    if not is_file(path):
        raise SourceError(f"there is no file {path}")
    if is_image(path):
        if side == "audio":
            raise SourceError(f"{path} is an image and has no sound")
        image = read_image(path, encoder.resize_pixels)
        return embed_stills([image], str(path), encoder, options)
    report = DecodeReport()
    if side == "auto":
        side = default_side(path, encoder)
    if side == "audio":
        chunks = read_waveform_chunks(path, report)
        return embed_sound(chunks, str(path), encoder, options, report)
    return embed_video_frames(path, encoder, options, report)


def default_side(path: str | Path, encoder: Encoder) -> Side:
    """The sound if the file has sound and the network an audio side, else the images."""
    if "audio" not in encoder.layers:
        return "vision"
    streams = read_streams(path)
    # A file that has neither gets the error for missing sound.
    return "audio" if streams.has_audio or not streams.has_video else "vision"


def embed_aligned(source: Embeddable, encoder: Encoder, options: EmbedOptions) -> AlignedEmbeddings:
    """Both sides of a video at the same times, in one pass over the file."""
    source = single_source(source)
    if not isinstance(source, (str, Path)) or is_image(source):
        raise ConfigError(
            "align needs a video, which has two sides; pass the path of one, or embed without align"
        )
    name = str(source)
    report = DecodeReport()
    audio = audio_stream(encoder, options, name)
    frames = FrameBatches(encoder, options, name)
    # Frames are wanted at the middles of the windows that `audio` really gives. Dense windows begin
    # at multiples of a step, other windows at any sample.
    grid = WindowGrid.of(options.hop_seconds, options.center)
    offset_samples = WINDOW_SAMPLES // 2 - grid.padding_samples
    middles = TimeGrid(grid.hop_samples, audio.step_samples, offset_samples)
    audio_blocks: list[Embeddings] = []
    frame_blocks: list[Embeddings] = []
    media = read_media(source, frame_decoding(encoder, audio=True), report, middles)
    for event in checked_media(media, report):
        if isinstance(event, Frame):
            frame_blocks.extend(frames.add(event))
        else:
            audio_blocks.append(audio.push(event))
    for kind, count in (("sound", audio.samples), ("frame", frames.count)):
        if not count:
            raise SourceError(f"{source} holds no {kind}{report.why_nothing()}")
    audio_rows = concatenate([*audio_blocks, audio.push(is_last=True)])
    frame_rows = concatenate([*frame_blocks, frames.finish()])
    # After the end of the frames the last one is the nearest.
    nearest = np.minimum(np.arange(len(audio_rows)), len(frame_rows) - 1)
    aligned_frames = replace(
        frame_rows,
        vectors=frame_rows.vectors[nearest],
        start_seconds=audio_rows.start_seconds,
        window_seconds=WINDOW_SECONDS,
        centered=options.center,
    )
    return AlignedEmbeddings(
        audio=audio_rows.with_losses(report),
        vision=aligned_frames.with_losses(report),
        frame_seconds=frame_rows.start_seconds[nearest],
    )
