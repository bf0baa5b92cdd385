"""What a user passes (a file, an array, a tensor) -> `Embeddings`, block by block.

Knows media and an encoder, no output.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from looklisten.config import Side
from looklisten.data.options import PrepareOptions
from looklisten.errors import ConfigError, SourceError
from looklisten.inference.embedding.arguments import Embeddable, is_file, single_source
from looklisten.inference.embedding.options import EmbedOptions, SideChoice
from looklisten.inference.embedding.records import (
    AlignedEmbeddings,
    Embeddings,
    concatenate,
    normalize_rows,
)
from looklisten.inference.embedding.stream import embed_audio_pieces
from looklisten.inference.embedding.windows import WindowGrid
from looklisten.inference.encoder import Encoder, choose_layer, encode_rows
from looklisten.media.arrays import as_tensor
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import DecodeReport, Frame
from looklisten.media.frames import decode_jpeg, fit_square, stack
from looklisten.media.images import fit_image, image_from_pillow, read_image
from looklisten.media.isolation.readers import TimeGrid, is_image, read_media, read_streams
from looklisten.media.spectrogram import WINDOW_SAMPLES, WINDOW_SECONDS
from looklisten.media.waveform import (
    SampleRate,
    checked_media,
    read_waveform_chunks,
    resample_array,
)
from looklisten.option_checks import check_one_of

AUDIO_ARRAY = "an array of sound"
IMAGE_ARRAY = "an array of images"


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
        return _embed_images([image], "an image", encoder, options)
    if sample_rate_hz is not None and side != "vision":
        chunks = resample_array(source, sample_rate_hz)
        return _embed_audio(chunks, AUDIO_ARRAY, encoder, options)
    if side == "audio":
        raise ConfigError("an array of sound needs its rate: pass sample_rate_hz, such as 44100")
    return _embed_images(images_of(source, encoder), IMAGE_ARRAY, encoder, options)


def _embed_file(
    path: str | Path, encoder: Encoder, options: EmbedOptions, side: SideChoice
) -> Iterator[Embeddings]:
    if not is_file(path):
        raise SourceError(f"there is no file {path}")
    if is_image(path):
        if side == "audio":
            raise SourceError(f"{path} is an image and has no sound")
        image = read_image(path, encoder.resize_pixels)
        return _embed_images([image], str(path), encoder, options)
    report = DecodeReport()
    if side == "auto":
        side = default_side(path, encoder)
    if side == "audio":
        chunks = read_waveform_chunks(path, report)
        return _embed_audio(chunks, str(path), encoder, options, report)
    return _embed_video_frames(path, encoder, options, report)


def default_side(path: str | Path, encoder: Encoder) -> Side:
    """The sound if the file has sound and the network an audio side, else the images."""
    if "audio" not in encoder.layers:
        return "vision"
    streams = read_streams(path)
    # A file that has neither gets the error for missing sound.
    return "audio" if streams.has_audio or not streams.has_video else "vision"


def _embed_audio(
    chunks: Iterator[Float[np.ndarray, " samples"]],
    name: str,
    encoder: Encoder,
    options: EmbedOptions,
    report: DecodeReport | None = None,
) -> Iterator[Embeddings]:
    audio = embed_audio_pieces(encoder, options, name)
    for chunk in chunks:
        block = audio.push(chunk)
        # A chunk may be shorter than a window and complete none.
        if len(block):
            yield block
    if not audio.samples:
        raise SourceError(f"{name} holds no sound{_decoding_problem(report)}")
    yield _with_losses(audio.finish(), report)


def _with_losses(last_block: Embeddings, report: DecodeReport | None) -> Embeddings:
    """The last block of a source, with what decoding reported."""
    if report is None:
        return last_block
    return replace(
        last_block, stop_reason=report.stop_reason, lost_seconds=dict(report.lost_seconds)
    )


def _decoding_problem(report: DecodeReport | None) -> str:
    problem = report and (report.stop_reason or report.last_error)
    return f" that can be decoded; {problem}" if problem else ""


def _embed_images(
    images: Iterable[UInt8[Tensor, "height width 3"]],
    name: str,
    encoder: Encoder,
    options: EmbedOptions,
) -> Iterator[Embeddings]:
    # The images of an array are in memory already, so they are one block.
    squares = [fit_square(image, encoder.crop_pixels, encoder.frame_fit) for image in images]
    if not squares:
        raise SourceError(f"{name} is empty")
    yield _embed_squares(squares, [0.0] * len(squares), name, encoder, options)


def _embed_squares(
    squares: list[UInt8[Tensor, "side side 3"]],
    seconds: list[float],
    name: str,
    encoder: Encoder,
    options: EmbedOptions,
) -> Embeddings:
    layer = choose_layer(encoder, "vision", options.layer)
    rows = encode_rows(encoder, "vision", layer, stack(squares), options.batch_size)
    vectors = rows.numpy()
    return Embeddings(
        vectors=normalize_rows(vectors) if options.normalize else vectors,
        start_seconds=np.array(seconds),
        source=name,
        side="vision",
        layer=layer,
        window_seconds=0.0,
    )


def images_of(pixels: NDArray[Any], encoder: Encoder) -> Iterator[UInt8[Tensor, "height width 3"]]:
    """The images of an array, resized. Raises SourceError, one sentence, for other arrays."""
    _check_image_shape(list(pixels.shape))
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32, copy=False)
    elif pixels.dtype != np.uint8:
        raise SourceError(
            f"images are uint8, or floats in 0..1, and this array is {pixels.dtype.name}"
        )
    for image_pixels in pixels if pixels.ndim == 4 else [pixels]:
        image = as_tensor(image_pixels)
        if image.is_floating_point():
            is_inside = (image >= 0) & (image <= 1)
            if not bool(is_inside.all()):
                raise SourceError(
                    "images of floats lie in 0..1, and these do not; divide them, or pass uint8"
                )
            # Image by image: a copy of all of them would take as much memory as the array.
            image = (image * 255).round().to(torch.uint8)
        yield fit_image(image, encoder.resize_pixels)


def _check_image_shape(shape: list[int]) -> None:
    dimensions = len(shape)
    if dimensions in (3, 4) and shape[-1] == 3 and 0 not in shape:
        return
    advice = ""
    if dimensions < 3:
        advice = "; for sound pass sample_rate_hz"
    elif shape[-3] == 3:
        advice = "; put the colors last, as array.transpose(1, 2, 0) does for one image"
    raise SourceError(
        f"images are [height, width, 3] or [n, height, width, 3], and this array is {shape}{advice}"
    )


def _embed_video_frames(
    path: str | Path, encoder: Encoder, options: EmbedOptions, report: DecodeReport
) -> Iterator[Embeddings]:
    """The frames of a video nearest to multiples of the hop."""
    times = TimeGrid(WindowGrid.of(options.hop_seconds).hop_samples)
    batches = _FrameBatches(encoder, options, str(path))
    for frame in read_media(path, _decode_options(encoder, audio=False), report, times):
        assert isinstance(frame, Frame)
        yield from batches.add(frame)
    if not batches.count:
        raise SourceError(f"{path} holds no frame{_decoding_problem(report)}")
    yield _with_losses(batches.finish(), report)


def _decode_options(encoder: Encoder, audio: bool) -> DecodeOptions:
    # The size of frames in shards, so that a file and its shards give the same vectors.
    stored_pixels = PrepareOptions().shorter_side_pixels
    return DecodeOptions(shorter_side_pixels=max(stored_pixels, encoder.resize_pixels), audio=audio)


class _FrameBatches:
    """Collects the frames of one video and embeds them in batches."""

    def __init__(self, encoder: Encoder, options: EmbedOptions, name: str) -> None:
        self._encoder = encoder
        self._options = options
        self._name = name
        # The frames that a network is trained on went through JPEG, so these do too.
        self._jpeg_quality = PrepareOptions().jpeg_quality
        self._squares: list[Tensor] = []
        self._seconds: list[float] = []
        self.count = 0

    def add(self, frame: Frame) -> Iterator[Embeddings]:
        """The full batch before this frame, if there is one."""
        # A batch waits for the next frame, so that `finish` always has a frame to embed.
        if len(self._squares) == self._options.batch_size:
            yield self._embed()
        pixels = decode_jpeg(frame.jpeg(self._jpeg_quality), self._encoder.resize_pixels)
        side, fit = self._encoder.crop_pixels, self._encoder.frame_fit
        self._squares.append(fit_square(pixels, side, fit))
        self._seconds.append(frame.at_seconds)
        self.count += 1

    def finish(self) -> Embeddings:
        """The last batch; there must have been a frame."""
        return self._embed()

    def _embed(self) -> Embeddings:
        embeddings = _embed_squares(
            self._squares, self._seconds, self._name, self._encoder, self._options
        )
        self._squares = []
        self._seconds = []
        return embeddings


def embed_aligned(source: Embeddable, encoder: Encoder, options: EmbedOptions) -> AlignedEmbeddings:
    """Both sides of a video at the same times, in one pass over the file."""
    source = single_source(source)
    if not isinstance(source, (str, Path)) or is_image(source):
        raise ConfigError(
            "align needs a video, which has two sides; pass the path of one, or embed without align"
        )
    name = str(source)
    report = DecodeReport()
    audio = embed_audio_pieces(encoder, options, name)
    frames = _FrameBatches(encoder, options, name)
    # Frames are wanted at the middles of the windows that `audio` really gives. Dense windows begin
    # at multiples of a step, other windows at any sample.
    grid = WindowGrid.of(options.hop_seconds, options.center)
    offset_samples = WINDOW_SAMPLES // 2 - grid.padding_samples
    middles = TimeGrid(grid.hop_samples, audio.step_samples, offset_samples)
    audio_blocks: list[Embeddings] = []
    frame_blocks: list[Embeddings] = []
    media = read_media(source, _decode_options(encoder, audio=True), report, middles)
    for event in checked_media(media, report):
        if isinstance(event, Frame):
            frame_blocks.extend(frames.add(event))
        else:
            audio_blocks.append(audio.push(event))
    for kind, count in (("sound", audio.samples), ("frame", frames.count)):
        if not count:
            raise SourceError(f"{source} holds no {kind}{_decoding_problem(report)}")
    audio_rows = concatenate([*audio_blocks, _with_losses(audio.finish(), report)])
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
        audio=_with_losses(audio_rows, report),
        vision=_with_losses(aligned_frames, report),
        frame_seconds=frame_rows.start_seconds[nearest],
    )
