"""A file of a user -> its moments: both vectors, tags, marks and a thumbnail.

Another process decodes the file. Knows media and an encoder, no store.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import Float32, Int16, UInt8
from numpy.typing import NDArray
from torch import Tensor

from looklisten.data.options import PrepareOptions
from looklisten.errors import SourceError
from looklisten.inference.embedding.windows import WindowCutter, WindowGrid, Windows
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import DecodeReport, Frame
from looklisten.media.frames import decode_jpeg, resize
from looklisten.media.images import read_image
from looklisten.media.isolation.readers import TimeGrid, is_image, read_media, read_streams
from looklisten.media.levels import is_silent
from looklisten.media.spectrogram import INT16_FULL_SCALE, WINDOW_SAMPLES, WINDOW_SECONDS
from looklisten.media.waveform import check_samples, checked_media
from looklisten.search.indexing.empty_input import (
    are_equal_pictures,
    are_equal_sounds,
    is_black,
    is_pixel_noise,
    is_plain_hum,
    is_plain_noise,
    is_uniform,
)
from looklisten.search.indexing.moment_encoder import ROWS_AT_ONCE, EncodedInput, MomentEncoder
from looklisten.search.moments import Mark

THUMBNAIL_PIXELS = 128
"""The shorter side of a thumbnail."""
THUMBNAIL_QUALITY = 75
GRAY_PIXELS = 32
"""The shorter side of the gray copies that frames are compared in."""

SaveThumbnail = Callable[[float, bytes], str]
"""Stores a JPEG file of a time in seconds; returns its name."""
Advance = Callable[[float], None]
"""Called with the seconds of the file that are done."""


@dataclass(frozen=True, eq=False)
class ReadMoment:
    """One moment of a source, before it has an id."""

    seconds: float
    """Start of its second of sound; its frame is the one nearest to the middle of that second."""
    marks: tuple[Mark, ...]
    frame: EncodedInput | None
    """None without a picture, and for a black one or random pixels."""
    sound: EncodedInput | None
    """None without sound, and for silence, plain noise or hum."""
    thumbnail: str | None


@dataclass(frozen=True, eq=False)
class ReadSource:
    """What reading one file gave."""

    moments: list[ReadMoment]
    seconds: float
    """Length of what was decoded; 0 for an image."""
    stop_reason: str
    """Why reading ended before the end of the file; empty if it did not."""


@dataclass(eq=False)
class _Row:
    """One side of one moment."""

    marks: set[Mark] = field(default_factory=set)
    encoded: EncodedInput | None = None
    thumbnail: str | None = None
    repeats: bool = False
    """Whether it is the same as in the moment before."""


def read_source(
    path: Path,
    encoder: MomentEncoder,
    every_seconds: float,
    save_thumbnail: SaveThumbnail | None = None,
    advance: Advance | None = None,
) -> ReadSource:
    """The moments of a sound, an image or a video.

    Raises SourceError for a file with neither sound nor a picture that can be decoded, and
    DecoderLostError for one that ends the decoder.
    """
    frames = _FrameRows(encoder, every_seconds, save_thumbnail)
    if is_image(path):
        frames.add(read_image(path, encoder.resize_pixels))
        return ReadSource(_joined(frames.finish(), [], every_seconds), 0.0, "")
    sounds = _SoundRows(encoder, every_seconds)
    report = DecodeReport()
    kinds = read_streams(path)
    if not (kinds.has_audio or kinds.has_video):
        raise SourceError(f"{path} holds neither sound nor a picture")
    options = _decode_options(encoder, kinds.has_audio, kinds.has_video)
    media = read_media(path, options, report, _middles(every_seconds))
    for event in checked_media(media):
        if isinstance(event, Frame):
            frames.add(_pixels(event, encoder))
        else:
            sounds.push(event)
        if advance:
            advance(max(sounds.seconds, frames.count * every_seconds))
    # Frames are taken at the middles of seconds, which a very short video does not reach.
    if kinds.has_video and not frames.count:
        _add_first_frame(path, encoder, frames)
    if not sounds.seconds and not frames.count:
        problem = report.stop_reason or report.last_error or "it is empty"
        raise SourceError(
            f"{path} holds neither sound nor a picture that can be decoded: {problem}"
        )
    moments = _joined(frames.finish(), sounds.finish(), every_seconds)
    seconds = max(sounds.seconds, report.video_end_seconds)
    return ReadSource(moments, seconds, report.stop_reason)


def read_moment(path: Path, at_seconds: float, encoder: MomentEncoder) -> ReadMoment:
    """The second of sound from `at_seconds` on, with the frame nearest to its middle.

    Raises SourceError where the file has nothing at that time.
    """
    kinds = read_streams(path)
    end_seconds = at_seconds + WINDOW_SECONDS
    options = replace(
        _decode_options(encoder, kinds.has_audio, kinds.has_video),
        start_seconds=at_seconds,
        stop_seconds=end_seconds,
    )
    # Zeros remain where the file has no samples, for example after the end of the sound.
    waveform = np.zeros(WINDOW_SAMPLES, np.float32)
    sounds = _SoundRows(encoder, WINDOW_SECONDS)
    middle_seconds = at_seconds + WINDOW_SECONDS / 2
    nearest: Frame | None = None
    nearest_seconds = np.inf
    has_sound = False
    for event in read_media(path, options):
        if isinstance(event, Frame):
            distance_seconds = abs(event.at_seconds - middle_seconds)
            if distance_seconds < nearest_seconds:
                nearest, nearest_seconds = event, distance_seconds
            continue
        # The time decides where samples go, because the sound may have gaps.
        first = max(round((event.start_seconds - at_seconds) * SAMPLE_RATE_HZ), 0)
        samples = event.samples[: WINDOW_SAMPLES - first]
        waveform[first : first + len(samples)] = samples
        has_sound = has_sound or len(samples) > 0
    if nearest is None and not has_sound:
        raise SourceError(
            f"{path} has neither sound nor a picture at {at_seconds:g} s; choose a time within it"
        )
    frames = _FrameRows(encoder, WINDOW_SECONDS)
    if nearest is not None:
        frames.add(_pixels(nearest, encoder))
    if has_sound:
        sounds.push(check_samples(waveform, round(at_seconds * SAMPLE_RATE_HZ)))
    (moment,) = _joined(frames.finish(), sounds.finish(), WINDOW_SECONDS)
    return replace(moment, seconds=at_seconds)


def _decode_options(encoder: MomentEncoder, has_audio: bool, has_video: bool) -> DecodeOptions:
    # The size of frames in shards, so that a file and its shards give the same vectors.
    stored_pixels = PrepareOptions().shorter_side_pixels
    pixels = max(stored_pixels, encoder.resize_pixels)
    return DecodeOptions(shorter_side_pixels=pixels, audio=has_audio, video=has_video)


def _middles(every_seconds: float) -> TimeGrid:
    """The middles of the seconds of sound."""
    grid = WindowGrid.of(every_seconds)
    return TimeGrid(grid.hop_samples, step_samples=1, offset_samples=WINDOW_SAMPLES // 2)


def _pixels(frame: Frame, encoder: MomentEncoder) -> UInt8[Tensor, "height width 3"]:
    # The frames that a network is trained on went through JPEG, so these do too.
    return decode_jpeg(frame.jpeg(PrepareOptions().jpeg_quality), encoder.resize_pixels)


def _add_first_frame(path: Path, encoder: MomentEncoder, frames: "_FrameRows") -> None:
    """The first frame of a video that ends before the middle of its first second."""
    options = _decode_options(encoder, has_audio=False, has_video=True)
    for frame in read_media(path, options):
        assert isinstance(frame, Frame)
        frames.add(_pixels(frame, encoder))
        return


class _FrameRows:
    """The frames of one source, encoded in batches; equal ones are encoded once."""

    def __init__(
        self,
        encoder: MomentEncoder,
        every_seconds: float,
        save_thumbnail: SaveThumbnail | None = None,
    ) -> None:
        self._encoder = encoder
        self._every_seconds = every_seconds
        self._save_thumbnail = save_thumbnail
        self._rows: list[_Row] = []
        self._first_equal: list[int] = []
        """For each row the row whose frame it repeats, or itself."""
        self._gray: NDArray[np.float32] | None = None
        self._waiting: list[tuple[int, Tensor]] = []

    @property
    def count(self) -> int:
        return len(self._rows)

    def add(self, pixels: UInt8[Tensor, "height width 3"]) -> None:
        """The frame of the next moment."""
        number = len(self._rows)
        gray = resize(pixels, GRAY_PIXELS).float().mean(2).numpy()
        # Compared with the first of equal frames, so that a slow fade does not count as still.
        if self._gray is not None and are_equal_pictures(gray, self._gray):
            before = self._rows[-1]
            self._rows.append(_Row({"still", *before.marks}, None, before.thumbnail, repeats=True))
            self._first_equal.append(self._first_equal[-1])
            return
        self._gray = gray
        self._first_equal.append(number)
        row = _Row()
        if self._save_thumbnail:
            seconds = number * self._every_seconds
            row.thumbnail = self._save_thumbnail(seconds, thumbnail_jpeg(pixels))
        self._rows.append(row)
        if is_black(gray) or is_uniform(gray):
            row.marks.add("black")
            return
        if "vision" not in self._encoder.sides:
            return
        # A tower takes noise for a texture, so searches with textures would find it.
        if is_pixel_noise(pixels.numpy()):
            return
        self._waiting.append((number, pixels))
        # Frames of one source may have several sizes; crops of them have one.
        if len(self._waiting) == ROWS_AT_ONCE:
            self._encode()

    def _encode(self) -> None:
        encoded = self._encoder.encode_frames([pixels for _, pixels in self._waiting])
        for (number, _), row in zip(self._waiting, encoded, strict=True):
            self._rows[number].encoded = row
        self._waiting = []

    def finish(self) -> list[_Row]:
        """One row for each frame."""
        self._encode()
        # After `_encode`, because a frame that others repeat may be in the last batch.
        for number, first in enumerate(self._first_equal):
            self._rows[number].encoded = self._rows[first].encoded
        return self._rows


class _SoundRows:
    """The seconds of sound of one source, encoded in batches."""

    def __init__(self, encoder: MomentEncoder, every_seconds: float) -> None:
        self._encoder = encoder
        self._grid = WindowGrid.of(every_seconds)
        self._cutter = WindowCutter(self._grid)
        self._rows: list[_Row] = []
        self._before: Int16[np.ndarray, " samples"] | None = None
        self._waiting: list[tuple[_Row, Float32[np.ndarray, " samples"]]] = []

    @property
    def seconds(self) -> float:
        """The sound so far."""
        return self._cutter.samples / SAMPLE_RATE_HZ

    def push(self, samples: Float32[np.ndarray, " samples"]) -> None:
        self._add(self._cutter.push(samples))

    def _add(self, windows: Windows) -> None:
        for start, waveform in zip(windows.starts, windows.waveforms, strict=True):
            # A window that is mostly padding is no moment, but a short sound has one all the same.
            if start and start + WINDOW_SAMPLES // 2 > self._cutter.samples:
                return
            sixteen_bits = as_int16(waveform)
            row = _Row()
            if self._before is not None:
                row.repeats = are_equal_sounds(sixteen_bits, self._before)
            self._before = sixteen_bits
            self._rows.append(row)
            if is_silent(sixteen_bits):
                row.marks.add("silent")
                continue
            if "audio" not in self._encoder.sides:
                continue
            # Searches with rain or waves would find noise, and those with hum anything.
            if is_plain_noise(sixteen_bits) or is_plain_hum(sixteen_bits):
                continue
            self._waiting.append((row, waveform))
            if len(self._waiting) == ROWS_AT_ONCE:
                self._encode()

    def _encode(self) -> None:
        waiting = self._waiting
        self._waiting = []
        if not waiting:
            return
        encoded = self._encoder.encode_sounds(np.stack([waveform for _, waveform in waiting]))
        for (row, _), result in zip(waiting, encoded, strict=True):
            row.encoded = result

    def finish(self) -> list[_Row]:
        """One row for each second of sound; none without sound."""
        if self._cutter.samples:
            self._add(self._cutter.push(is_last=True))
        self._encode()
        return self._rows


def _joined(frames: list[_Row], sounds: list[_Row], every_seconds: float) -> list[ReadMoment]:
    """Both sides of each moment; a side may end before the other."""
    moments = []
    for number in range(max(len(frames), len(sounds))):
        sides = [rows[number] for rows in (frames, sounds) if number < len(rows)]
        frame = frames[number] if number < len(frames) else None
        sound = sounds[number] if number < len(sounds) else None
        marks = {mark for side in sides for mark in side.marks}
        # Both sides must repeat: in a talk over one slide the sound changes.
        if all(side.repeats for side in sides):
            marks.add("duplicate")
        moments.append(
            ReadMoment(
                seconds=round(number * every_seconds, 3),
                marks=tuple(sorted(marks)),
                frame=frame.encoded if frame else None,
                sound=sound.encoded if sound else None,
                thumbnail=frame.thumbnail if frame else None,
            )
        )
    return moments


def as_int16(waveform: Float32[np.ndarray, " samples"]) -> Int16[np.ndarray, " samples"]:
    """Sound of -1..1 as samples of 16 bits."""
    steps = np.rint(waveform * np.float32(INT16_FULL_SCALE))
    clipped = steps.clip(-INT16_FULL_SCALE, INT16_FULL_SCALE - 1)
    samples: NDArray[np.int16] = clipped.astype(np.int16)
    return samples


def thumbnail_jpeg(pixels: UInt8[Tensor, "height width 3"]) -> bytes:
    """A small JPEG file of a frame."""
    small = np.ascontiguousarray(resize(pixels, min(THUMBNAIL_PIXELS, *pixels.shape[:2])).numpy())
    data: bytes = simplejpeg.encode_jpeg(small, THUMBNAIL_QUALITY, "RGB")
    return data
