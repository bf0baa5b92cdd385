"""A file of a client -> rows for the towers: windows of sound, and squares of frames.

The rows are those of `ll.embed`, so the vectors are too. Knows media, no network.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor

from looklisten.config import Side
from looklisten.data.options import PrepareOptions
from looklisten.errors import SourceError
from looklisten.inference.embedding.options import SideChoice
from looklisten.inference.embedding.windows import WindowCutter, WindowGrid
from looklisten.inference.encoder import Encoder
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import DecodeReport, Frame
from looklisten.media.file_facts import FileFacts
from looklisten.media.frames import decode_jpeg, fit_square, stack
from looklisten.media.images import read_image
from looklisten.media.isolation.readers import TimeGrid, read_media
from looklisten.media.levels import is_silent
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.media.waveform import checked_media
from looklisten.search.indexing.source_reader import as_int16
from looklisten.serving.decoding import Watch

MAX_ROWS = 4096
"""More windows or frames of one request are refused: choose a longer hop."""


@dataclass(frozen=True, eq=False)
class SideRows:
    """Rows of one side of a file, in the order of time."""

    side: Side
    rows: Num[Tensor, "rows ..."]
    start_seconds: list[float]
    stop_reason: str


@dataclass(frozen=True, eq=False)
class PairRows:
    """Frames with the second of sound around each."""

    frames: Num[Tensor, "pairs 3 side side"]
    waveforms: Num[Tensor, "pairs samples"]
    frame_seconds: list[float]
    sound_seconds: list[float]
    silent: list[bool]


def read_side(watch: Watch, side: SideChoice, hop_seconds: float, encoder: Encoder) -> SideRows:
    """The windows or the frames of a file. Raises SourceError."""
    facts = watch.facts()
    if side == "auto":
        side = "audio" if facts.has_audio and "audio" in encoder.layers else "vision"
    _check_has(facts, side, watch)
    sound = _Sound(watch, hop_seconds)
    frames = _Frames(watch, encoder)
    report = DecodeReport()
    if facts.kind == "image":
        frames.add_image()
    else:
        times = TimeGrid(WindowGrid.of(hop_seconds).hop_samples)
        options = replace(_options(encoder, watch), audio=side == "audio", video=side == "vision")
        grid = times if side == "vision" else None
        _read(watch, options, report, grid, sound, frames)
    if side == "audio":
        waveforms, starts = sound.finish(report)
        return SideRows("audio", waveforms, starts, report.stop_reason)
    squares, seconds = frames.finish(report)
    return SideRows("vision", squares, seconds, report.stop_reason)


def read_clip_pairs(watch: Watch, every_seconds: float, encoder: Encoder) -> PairRows:
    """The seconds of a video with the frame nearest to the middle of each. Raises SourceError."""
    facts = watch.facts()
    for side in ("audio", "vision"):
        _check_has(facts, side, watch)
    sound = _Sound(watch, every_seconds)
    frames = _Frames(watch, encoder)
    report = DecodeReport()
    _read(watch, _options(encoder, watch), report, _middles(every_seconds), sound, frames)
    return joined_pairs(sound.finish(report, with_padded=False), frames.finish(report))


def read_sound(watch: Watch, every_seconds: float) -> tuple[Tensor, list[float]]:
    """The seconds of a sound, or of the sound of a video. Raises SourceError."""
    _check_has(watch.facts(), "audio", watch)
    sound = _Sound(watch, every_seconds)
    report = DecodeReport()
    options = replace(_limited(watch), video=False)
    _read(watch, options, report, None, sound, None)
    return sound.finish(report, with_padded=False)


def read_picture(
    watch: Watch, every_seconds: float, encoder: Encoder
) -> tuple[Tensor, list[float]]:
    """A picture, or the frames of a video. Raises SourceError."""
    facts = watch.facts()
    _check_has(facts, "vision", watch)
    frames = _Frames(watch, encoder)
    report = DecodeReport()
    if facts.kind == "image":
        frames.add_image()
    else:
        options = replace(_options(encoder, watch), audio=False)
        _read(watch, options, report, _middles(every_seconds), None, frames)
    return frames.finish(report)


def joined_pairs(
    sound: tuple[Tensor, list[float]], picture: tuple[Tensor, list[float]]
) -> PairRows:
    """Each second of sound with the frame of the same number; the last frame stays."""
    waveforms, sound_seconds = sound
    squares, frame_seconds = picture
    numbers = np.minimum(np.arange(len(waveforms)), len(squares) - 1)
    silent = [is_silent(as_int16(waveform.numpy())) for waveform in waveforms]
    return PairRows(
        frames=squares[torch.from_numpy(numbers)],
        waveforms=waveforms,
        frame_seconds=[frame_seconds[number] for number in numbers],
        sound_seconds=sound_seconds,
        silent=silent,
    )


def _check_has(facts: FileFacts, side: str, watch: Watch) -> None:
    if side == "audio" and not facts.has_audio:
        reason = "an image, which has no sound" if facts.kind == "image" else "without sound"
        raise SourceError(f"{watch.file.path} is {reason}")
    if side == "vision" and not facts.has_video:
        raise SourceError(f"{watch.file.path} has neither a picture nor a video")


def _limited(watch: Watch) -> DecodeOptions:
    limits = watch.limits
    return DecodeOptions(max_megapixels=limits.max_megapixels, max_streams=limits.max_streams + 1)


def _options(encoder: Encoder, watch: Watch) -> DecodeOptions:
    # The size of frames in shards, so that a file and its shards give the same vectors.
    stored_pixels = PrepareOptions().shorter_side_pixels
    pixels = max(stored_pixels, encoder.resize_pixels)
    return replace(_limited(watch), shorter_side_pixels=pixels)


def _middles(every_seconds: float) -> TimeGrid:
    """The middles of the seconds of sound."""
    grid = WindowGrid.of(every_seconds)
    return TimeGrid(grid.hop_samples, step_samples=1, offset_samples=WINDOW_SAMPLES // 2)


def _read(
    watch: Watch,
    options: DecodeOptions,
    report: DecodeReport,
    grid: TimeGrid | None,
    sound: "_Sound | None",
    frames: "_Frames | None",
) -> None:
    """Read a file into both collectors."""
    events: Iterator[Frame | np.ndarray] = checked_media(
        read_media(watch.file.path, options, report, grid)
    )
    for event in events:
        if isinstance(event, Frame):
            watch.check(event.at_seconds)
            if frames:
                frames.add(event)
        elif sound:
            sound.push(event)
            watch.check(sound.seconds)


class _Sound:
    """Collects the windows of a sound."""

    def __init__(self, watch: Watch, hop_seconds: float) -> None:
        self._name = watch.file.path
        self._cutter = WindowCutter(WindowGrid.of(hop_seconds))
        self._starts: list[np.ndarray] = []
        self._waveforms: list[np.ndarray] = []
        self._count = 0

    @property
    def seconds(self) -> float:
        return self._cutter.samples / SAMPLE_RATE_HZ

    def push(self, samples: np.ndarray) -> None:
        windows = self._cutter.push(samples)
        self._starts.append(windows.starts)
        self._waveforms.append(windows.waveforms)
        self._count += len(windows.starts)
        _check_count(self._count)

    def finish(self, report: DecodeReport, with_padded: bool = True) -> tuple[Tensor, list[float]]:
        """All windows, and the second at which each begins.

        `with_padded`: also those that are mostly the silence after the end.
        """
        if not self._cutter.samples:
            problem = report.stop_reason or report.last_error or "it is empty"
            raise SourceError(f"{self._name} holds no sound that can be decoded: {problem}")
        last = self._cutter.finish()
        waveforms = np.concatenate([*self._waveforms, last.waveforms])
        starts = np.concatenate([*self._starts, last.starts])
        if not with_padded:
            # A window that is mostly padding says nothing of the sound.
            is_full = (starts == 0) | (starts + WINDOW_SAMPLES // 2 <= self._cutter.samples)
            waveforms, starts = waveforms[is_full], starts[is_full]
        return torch.from_numpy(waveforms), (starts / SAMPLE_RATE_HZ).tolist()


class _Frames:
    """Collects frames as squares."""

    def __init__(self, watch: Watch, encoder: Encoder) -> None:
        self._path = watch.file.path
        self._encoder = encoder
        # The frames that a network is trained on went through JPEG, so these do too.
        self._jpeg_quality = PrepareOptions().jpeg_quality
        self._squares: list[Tensor] = []
        self._seconds: list[float] = []

    def add_image(self) -> None:
        """The file as one picture."""
        self._take(read_image(self._path, self._encoder.resize_pixels), 0.0)

    def add(self, frame: Frame) -> None:
        """The next frame of a video."""
        pixels = decode_jpeg(frame.jpeg(self._jpeg_quality), self._encoder.resize_pixels)
        self._take(pixels, frame.at_seconds)
        _check_count(len(self._squares))

    def _take(self, pixels: Tensor, seconds: float) -> None:
        square = fit_square(pixels, self._encoder.crop_pixels, self._encoder.frame_fit)
        self._squares.append(square)
        self._seconds.append(seconds)

    def finish(self, report: DecodeReport) -> tuple[Tensor, list[float]]:
        """All squares `[n, 3, side, side]`, and the time of each."""
        if not self._squares:
            problem = report.stop_reason or report.last_error or "it is empty"
            raise SourceError(f"{self._path} holds no frame that can be decoded: {problem}")
        return stack(self._squares), self._seconds


def _check_count(count: int) -> None:
    if count > MAX_ROWS:
        raise SourceError(
            f"the file has more than {MAX_ROWS} windows or frames; choose a longer hop_seconds"
        )
