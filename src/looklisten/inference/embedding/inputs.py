"""What a user hands over (a file, an array, a tensor) -> `Embeddings`, part after part. Knows media
and an encoder.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from looklisten.config import Side
from looklisten.data.options import PrepareOptions
from looklisten.errors import ConfigError, SourceError
from looklisten.inference.embedding.arguments import Source, is_file, one_source
from looklisten.inference.embedding.dense import DenseSound
from looklisten.inference.embedding.options import SideChoice
from looklisten.inference.embedding.records import AlignedEmbeddings, Embeddings, joined, unit
from looklisten.inference.embedding.stream import How, as_embeddings, sound_vectors
from looklisten.inference.encoder import Encoder, choose_layer, encode_rows
from looklisten.media.arrays import as_tensor, plain_array
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import DecodeReport, Frame
from looklisten.media.frames import crop, decode_jpeg, stack
from looklisten.media.images import fit_image, image_from_pillow, read_image
from looklisten.media.isolation.readers import TimeGrid, is_image, read_media, read_streams
from looklisten.media.spectrogram import WINDOW_SAMPLES, WINDOW_SECONDS
from looklisten.media.waveform import (
    SampleRate,
    Waveform,
    checked_media,
    read_waveform_chunks,
    resample_array,
)


def parts(
    source: Source,
    encoder: Encoder,
    how: How,
    side: SideChoice,
    sample_rate_hz: SampleRate | None = None,
) -> Iterator[Embeddings]:
    """What `embed` gives, piece after piece: a long recording needs no more memory than a short
    one. At least one part.
    """
    source = one_source(source)
    if isinstance(source, Image.Image):
        if side == "audio":
            raise SourceError("a picture has no sound")
        return _pictures(
            [image_from_pillow(source, encoder.resize_pixels)], "a picture", encoder, how
        )
    if not isinstance(source, (str, Path)):
        if sample_rate_hz is not None and side != "vision":
            return _sound(resample_array(source, sample_rate_hz), "an array of sound", encoder, how)
        if side == "audio":
            raise ConfigError(
                "an array of sound needs its rate: give sample_rate_hz, such as 44100"
            )
        return _pictures(pictures_of(source, encoder), "an array of pictures", encoder, how)
    if not is_file(source):
        raise SourceError(f"there is no file {source}")
    if is_image(source):
        if side == "audio":
            raise SourceError(f"{source} is a picture and has no sound")
        return _pictures([read_image(source, encoder.resize_pixels)], str(source), encoder, how)
    report = DecodeReport()
    if (side if side != "auto" else usual_side(source, encoder)) == "audio":
        return _sound(read_waveform_chunks(source, report), str(source), encoder, how, report)
    return _frames(source, encoder, how, report)


def usual_side(path: str | Path, encoder: Encoder) -> Side:
    """Sound where a file has it and the network hears, else its picture."""
    streams = read_streams(path)
    return (
        "audio"
        if "audio" in encoder.layers and (streams.has_audio or not streams.has_video)
        else "vision"
    )


def _sound(
    pieces: Iterator[Float[np.ndarray, " samples"]],
    name: str,
    encoder: Encoder,
    how: How,
    report: DecodeReport | None = None,
) -> Iterator[Embeddings]:
    sound = sound_vectors(encoder, how)
    for piece in pieces:
        new = sound.push(piece)
        if len(new.starts):
            yield as_embeddings(new, name, encoder, how)
    if not sound.samples:
        raise SourceError(f"{name} holds no sound{_why(report)}")
    yield replace(
        as_embeddings(sound.finish(), name, encoder, how),
        broken_off=report.stop_reason if report else "",
    )


def _why(report: DecodeReport | None) -> str:
    why = report and (report.stop_reason or report.last_error)
    return f" that can be decoded; {why}" if why else ""


def _pictures(
    pixels: Iterable[UInt8[Tensor, "height width 3"]], name: str, encoder: Encoder, how: How
) -> Iterator[Embeddings]:
    squares = [crop(picture, encoder.crop_pixels, 0.5, 0.5) for picture in pixels]
    if not squares:
        raise SourceError(f"{name} is empty")
    yield _seen(squares, np.zeros(len(squares)), name, encoder, how)


def _seen(
    squares: list[UInt8[Tensor, "side side 3"]],
    seconds: NDArray[np.float64],
    name: str,
    encoder: Encoder,
    how: How,
) -> Embeddings:
    layer = choose_layer(encoder, "vision", how.layer)
    vectors: NDArray[np.float32] = encode_rows(
        encoder, "vision", layer, stack(squares), how.batch_size
    ).numpy()
    return Embeddings(
        unit(vectors) if how.normalize else vectors, seconds, name, "vision", layer, 0.0
    )


def pictures_of(array: Waveform, encoder: Encoder) -> Iterator[UInt8[Tensor, "height width 3"]]:
    """The pictures of an array, resized. Raises SourceError, one sentence, for what cannot be
    pictures.
    """
    pixels = plain_array(array)
    shape = list(pixels.shape)
    if pixels.ndim not in (3, 4) or shape[-1] != 3 or not pixels.size:
        advice = "; for sound give sample_rate_hz" if pixels.ndim < 3 else ""
        if pixels.ndim >= 3 and shape[-3] == 3:
            advice = "; put the colors last, as array.transpose(1, 2, 0) does of one picture"
        raise SourceError(
            f"pictures are [height, width, 3] or [n, height, width, 3], and this array is {shape}{advice}"
        )
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32, copy=False)
    elif pixels.dtype != np.uint8:
        raise SourceError(
            f"pictures are uint8, or floats in 0..1, and these are {pixels.dtype.name}"
        )
    for part in pixels if pixels.ndim == 4 else [pixels]:
        picture = as_tensor(part)
        if picture.is_floating_point():
            if not bool(((picture >= 0) & (picture <= 1)).all()):
                raise SourceError(
                    "pictures of floats lie in 0..1, and these do not; divide them, or give uint8"
                )
            picture = (picture * 255).round().to(torch.uint8)
        yield fit_image(picture, encoder.resize_pixels)


def _frames(
    path: str | Path, encoder: Encoder, how: How, report: DecodeReport
) -> Iterator[Embeddings]:
    """The frames of a video nearest to multiples of the hop."""
    times = TimeGrid(how.grid.hop_samples)
    film = _Film(encoder, how, str(path))
    for frame in read_media(path, _wanted(encoder, audio=False), report, times):
        assert isinstance(frame, Frame)
        yield from film.add(frame)
    if not film.count:
        raise SourceError(f"{path} holds no picture{_why(report)}")
    yield replace(film.rest(), broken_off=report.stop_reason)


def _wanted(encoder: Encoder, audio: bool) -> DecodeOptions:
    return DecodeOptions(
        shorter_side_pixels=max(PrepareOptions().shorter_side_pixels, encoder.resize_pixels),
        audio=audio,
    )


class _Film:
    """Frames of one video, gathered into batches. They go through JPEG, as those that a network is
    trained on do.
    """

    def __init__(self, encoder: Encoder, how: How, name: str) -> None:
        self._encoder, self._how, self._name = encoder, how, name
        self._squares: list[Tensor] = []
        self._seconds: list[float] = []
        self.count = 0

    def add(self, frame: Frame) -> Iterator[Embeddings]:
        pixels = decode_jpeg(frame.jpeg(PrepareOptions().jpeg_quality), self._encoder.resize_pixels)
        self._squares.append(crop(pixels, self._encoder.crop_pixels, 0.5, 0.5))
        self._seconds.append(frame.at_seconds)
        self.count += 1
        if len(self._squares) > self._how.batch_size:
            last = self._squares.pop(), self._seconds.pop()
            yield self.rest()
            self._squares, self._seconds = [last[0]], [last[1]]

    def rest(self) -> Embeddings:
        """What waits: something always does, once a frame was added."""
        return _seen(self._squares, np.array(self._seconds), self._name, self._encoder, self._how)


def aligned(source: Source, encoder: Encoder, how: How) -> AlignedEmbeddings:
    """Both sides in one pass over the file."""
    source = one_source(source)
    if not isinstance(source, (str, Path)) or is_image(source):
        raise ConfigError(
            "only a video has two sides to align; give the path of one, or leave align away"
        )
    report, name = DecodeReport(), str(source)
    sound, film = sound_vectors(encoder, how), _Film(encoder, how, name)
    step_samples = sound.step_samples if isinstance(sound, DenseSound) else 1
    middles = TimeGrid(
        how.grid.hop_samples, step_samples, WINDOW_SAMPLES // 2 - how.grid.padding_samples
    )
    heard: list[Embeddings] = []
    seen: list[Embeddings] = []
    for event in checked_media(read_media(source, _wanted(encoder, audio=True), report, middles)):
        if isinstance(event, Frame):
            seen.extend(film.add(event))
        else:
            heard.append(as_embeddings(sound.push(event), name, encoder, how))
    for kind, count in (("sound", sound.samples), ("picture", film.count)):
        if not count:
            raise SourceError(f"{source} holds no {kind}{_why(report)}")
    audio = replace(
        joined([*heard, as_embeddings(sound.finish(), name, encoder, how)]),
        broken_off=report.stop_reason,
    )
    vision = joined([*seen, film.rest()])
    # Where the picture ends first, its last frame is the nearest from there on.
    rows = np.minimum(np.arange(len(audio)), len(vision) - 1)
    return AlignedEmbeddings(
        audio=audio,
        vision=replace(
            vision,
            vectors=vision.vectors[rows],
            start_seconds=audio.start_seconds,
            window_seconds=WINDOW_SECONDS,
            centered=how.center,
            broken_off=report.stop_reason,
        ),
        frame_seconds=vision.start_seconds[rows],
    )
