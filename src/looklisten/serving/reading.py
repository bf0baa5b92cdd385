"""A file of a client -> rows for the towers: windows of sound, and squares of frames.

The rows are those of `ll.embed`, so the vectors are too. Knows media, no network.
"""

from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Num
from numpy.typing import NDArray
from torch import Tensor

from looklisten.config import Side
from looklisten.data.options import PrepareOptions
from looklisten.errors import SourceError
from looklisten.inference.embedding.options import SideChoice
from looklisten.inference.embedding.windows import WindowCutter, WindowGrid
from looklisten.inference.encoder import Encoder
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode.records import DecodeReport, Frame
from looklisten.media.file_facts import FileFacts, WantedSide
from looklisten.media.frames import decode_jpeg, fit_square, stack
from looklisten.media.images import fit_image
from looklisten.media.isolation.readers import TimeGrid, read_file
from looklisten.media.levels import is_silent
from looklisten.media.spectrogram import WINDOW_SAMPLES
from looklisten.media.waveform import checked_media
from looklisten.search.indexing.source_reader import as_int16
from looklisten.serving.decoding import FileReading

MAX_ROWS = 1300
"""More windows or frames of one request are refused: so many windows take 250 MB of memory."""


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


def read_side(
    reading: FileReading, side: SideChoice, hop_seconds: float, encoder: Encoder
) -> SideRows:
    """The windows or the frames of a file. Raises SourceError."""
    if side == "auto" and "audio" not in encoder.layers:
        side = "vision"
    sound = _Sound(reading, hop_seconds)
    frames = _Frames(reading, encoder)
    report = DecodeReport()
    grid = TimeGrid(WindowGrid.of(hop_seconds).hop_samples)
    if _read(reading, side, grid, report, sound, frames) == "audio":
        waveforms, starts = sound.finish(report)
        return SideRows("audio", waveforms, starts, report.stop_reason)
    squares, seconds = frames.finish(report)
    return SideRows("vision", squares, seconds, report.stop_reason)


def read_clip_pairs(reading: FileReading, every_seconds: float, encoder: Encoder) -> PairRows:
    """The seconds of a video with the frame nearest to the middle of each. Raises SourceError."""
    sound = _Sound(reading, every_seconds)
    frames = _Frames(reading, encoder)
    report = DecodeReport()
    _read(reading, "both", _middles(every_seconds), report, sound, frames)
    return joined_pairs(sound.finish(report, with_padded=False), frames.finish(report))


def read_sound(reading: FileReading, every_seconds: float) -> tuple[Tensor, list[float]]:
    """The seconds of a sound, or of the sound of a video. Raises SourceError."""
    sound = _Sound(reading, every_seconds)
    report = DecodeReport()
    _read(reading, "audio", None, report, sound, None)
    return sound.finish(report, with_padded=False)


def read_picture(
    reading: FileReading, every_seconds: float, encoder: Encoder
) -> tuple[Tensor, list[float]]:
    """A picture, or the frames of a video. Raises SourceError."""
    frames = _Frames(reading, encoder)
    report = DecodeReport()
    _read(reading, "vision", _middles(every_seconds), report, None, frames)
    return frames.finish(report)


def joined_pairs(
    sound: tuple[Tensor, list[float]], picture: tuple[Tensor, list[float]]
) -> PairRows:
    """Each second of sound with the frame of the same number; the last frame stays."""
    waveforms, sound_seconds = sound
    squares, frame_seconds = picture
    # A picture has one frame, so every second of the sound gets that one.
    numbers = np.minimum(np.arange(len(waveforms)), len(squares) - 1)
    silent = [is_silent(as_int16(waveform.numpy())) for waveform in waveforms]
    return PairRows(
        frames=squares[torch.from_numpy(numbers)],
        waveforms=waveforms,
        frame_seconds=[frame_seconds[number] for number in numbers],
        sound_seconds=sound_seconds,
        silent=silent,
    )


def _check_has(facts: FileFacts, side_choice: WantedSide, reading: FileReading) -> None:
    if side_choice in ("audio", "both") and not facts.has_audio:
        reason = "an image, which has no sound" if facts.kind == "image" else "without sound"
        raise SourceError(f"{reading.file.path} is {reason}")
    if side_choice in ("vision", "both") and not facts.has_video:
        raise SourceError(f"{reading.file.path} has neither a picture nor a video")


def _middles(every_seconds: float) -> TimeGrid:
    """The middles of the seconds of sound."""
    grid = WindowGrid.of(every_seconds)
    return TimeGrid(grid.hop_samples, step_samples=1, offset_samples=WINDOW_SAMPLES // 2)


def _read(
    reading: FileReading,
    side_choice: WantedSide,
    grid: TimeGrid | None,
    report: DecodeReport,
    sound: "_Sound | None",
    frames: "_Frames | None",
) -> WantedSide:
    """Read a file into both collectors; returns the side that was read."""
    options = reading.limits.options
    image_pixels = 0
    if frames:
        options = replace(options, shorter_side_pixels=frames.decoded_pixels)
        image_pixels = frames.image_pixels
    events = read_file(
        reading.file.path, reading.limits, side_choice, options, image_pixels, grid, report
    )
    with closing(events):
        facts = next(events)
        assert isinstance(facts, FileFacts)
        _check_has(facts, side_choice, reading)
        if facts.kind == "image":
            assert frames
            frames.add_image(next(events))
            return "vision"
        for event in checked_media(events):
            if isinstance(event, Frame):
                reading.check(event.at_seconds)
                if frames:
                    frames.add(event)
            elif sound:
                sound.push(event)
                reading.check(sound.seconds)
    return facts.side(side_choice)


class _Sound:
    """Collects the windows of a sound."""

    def __init__(self, reading: FileReading, hop_seconds: float) -> None:
        self._name = reading.file.path
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
        last = self._cutter.push(is_last=True)
        waveforms = np.concatenate([*self._waveforms, last.waveforms])
        starts = np.concatenate([*self._starts, last.starts])
        if not with_padded:
            # A window that is mostly padding says nothing of the sound.
            is_full = (starts == 0) | (starts + WINDOW_SAMPLES // 2 <= self._cutter.samples)
            waveforms, starts = waveforms[is_full], starts[is_full]
        return torch.from_numpy(waveforms), (starts / SAMPLE_RATE_HZ).tolist()


class _Frames:
    """Collects frames as squares."""

    def __init__(self, reading: FileReading, encoder: Encoder) -> None:
        self._path = reading.file.path
        self._encoder = encoder
        # The frames that a network is trained on went through JPEG, so these do too.
        self._jpeg_quality = PrepareOptions().jpeg_quality
        self._squares: list[Tensor] = []
        self._seconds: list[float] = []

    @property
    def decoded_pixels(self) -> int:
        """The shorter side that frames are decoded to."""
        # The size of frames in shards, so that a file and its shards give the same vectors.
        return max(PrepareOptions().shorter_side_pixels, self._encoder.resize_pixels)

    @property
    def image_pixels(self) -> int:
        """The shorter side that an image needs."""
        return self._encoder.resize_pixels

    def add_image(self, pixels: NDArray[np.uint8]) -> None:
        """The file as one picture."""
        image = fit_image(torch.from_numpy(pixels), self.image_pixels)
        self._take(image, 0.0)

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
