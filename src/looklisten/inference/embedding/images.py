"""Images and frames of videos -> vectors. Knows media and an encoder, no sound."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from looklisten.data.options import PrepareOptions
from looklisten.errors import SourceError
from looklisten.inference.embedding.options import EmbedOptions
from looklisten.inference.embedding.records import Embeddings, normalize_rows
from looklisten.inference.embedding.windows import WindowGrid
from looklisten.inference.encoder import Encoder, choose_layer, encode_rows
from looklisten.media.arrays import as_tensor, plain_array
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import DecodeReport, Frame
from looklisten.media.frames import decode_jpeg, fit_square, stack
from looklisten.media.images import fit_image
from looklisten.media.isolation.readers import TimeGrid, read_media


def embed_stills(
    images: Iterable[UInt8[Tensor, "height width 3"]],
    name: str,
    encoder: Encoder,
    options: EmbedOptions,
) -> Embeddings:
    """The vectors of images that are resized. Raises SourceError if there is none."""
    squares = [fit_square(image, encoder.crop_pixels, encoder.frame_fit) for image in images]
    if not squares:
        raise SourceError(f"{name} is empty")
    return _embed_squares(squares, [0.0] * len(squares), name, encoder, options)


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


def images_of(array: Any, encoder: Encoder) -> Iterator[UInt8[Tensor, "height width 3"]]:
    """The images of an array, resized. Raises SourceError, one sentence, for other arrays."""
    pixels = plain_array(array)
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


def embed_video_frames(
    path: str | Path, encoder: Encoder, options: EmbedOptions, report: DecodeReport
) -> Iterator[Embeddings]:
    """The frames of a video nearest to multiples of the hop."""
    times = TimeGrid(WindowGrid.of(options.hop_seconds).hop_samples)
    batches = FrameBatches(encoder, options, str(path))
    for frame in read_media(path, frame_decoding(encoder, audio=False), report, times):
        assert isinstance(frame, Frame)
        yield from batches.add(frame)
    if not batches.count:
        raise SourceError(f"{path} holds no frame{report.why_nothing()}")
    yield batches.finish().with_losses(report)


def frame_decoding(encoder: Encoder, audio: bool) -> DecodeOptions:
    """How a video is decoded for its frames, and with `audio` for its sound too."""
    # The size of frames in shards, so that a file and its shards give the same vectors.
    stored_pixels = PrepareOptions().shorter_side_pixels
    return DecodeOptions(shorter_side_pixels=max(stored_pixels, encoder.resize_pixels), audio=audio)


class FrameBatches:
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
