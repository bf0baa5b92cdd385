"""The functions that read a user's files, each in another process (`isolation.parent`).

A file that crashes a decoder then costs one file. The verbs and the Python functions call these.
`prepare` decodes in its own worker processes and calls `media.decode` there directly.
"""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from looklisten.errors import SourceError
from looklisten.media import SAMPLE_RATE_HZ, image_files
from looklisten.media import file_facts as in_process_facts
from looklisten.media import redraw as in_process_redraw
from looklisten.media.decode import decode as in_process
from looklisten.media.decode.frame_planes import pad_to_even
from looklisten.media.decode.open import open_media
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import AudioChunk, DecodeReport, Frame, Planes, StreamKinds
from looklisten.media.file_facts import FileFacts, FileLimits, WantedSide
from looklisten.media.isolation.parent import call_isolated, stream_isolated
from looklisten.media.redraw import SourceFrame, VideoInfo
from looklisten.system.files import atomic_write
from looklisten.system.progress import Progress, no_progress

Draw = Callable[[float, Planes, Planes], None]
"""Called with the time of a frame, its planes, and the planes of the canvas that it fills."""


@dataclass(frozen=True)
class TimeGrid:
    """Rising times without end. Each follows from its number alone, so that no error adds up.

    Time n is n x `hop_samples`, exactly. With `step_samples` it is rounded to a whole sample, then
    to a multiple of `step_samples`, and `offset_samples` are added.
    """

    hop_samples: Fraction
    step_samples: int | None = None
    offset_samples: int = 0

    def seconds(self, number: int) -> float:
        """The time of this number, in seconds."""
        exact = number * self.hop_samples
        if self.step_samples is None:
            return float(exact / SAMPLE_RATE_HZ)
        half = Fraction(1, 2)
        # Not `round`, which takes every other half down: the grid would be uneven.
        samples = floor(exact + half)
        steps = floor(Fraction(samples, self.step_samples) + half)
        return (steps * self.step_samples + self.offset_samples) / SAMPLE_RATE_HZ

    def __iter__(self) -> Iterator[float]:
        number = 0
        while True:
            yield self.seconds(number)
            number += 1


def read_streams(path: str | Path) -> StreamKinds:
    """`decode.list_streams` in another process."""
    kinds: StreamKinds = call_isolated(in_process.list_streams, _path_elsewhere(path), source=path)
    return kinds


def read_media(
    path: str | Path,
    options: DecodeOptions,
    report: DecodeReport | None = None,
    nearest_to: TimeGrid | None = None,
) -> Iterator[Frame | AudioChunk]:
    """`decode.decode_media` in another process.

    `nearest_to` is a record here, since an iterator cannot be sent.
    """
    events = stream_isolated(
        _decode_media,
        _path_elsewhere(path),
        options,
        nearest_to,
        source=path,
        report=report or DecodeReport(),
    )
    # A loop that is left early then stops the job in the other process.
    with closing(events):
        for event in events:
            yield _with_even_luma(event) if isinstance(event, Frame) else event


def _decode_media(
    path: str | Path, options: DecodeOptions, nearest_to: TimeGrid | None, report: DecodeReport
) -> Iterator[Frame | AudioChunk]:
    """What `read_media` runs in the other process."""
    times = iter(nearest_to) if nearest_to else None
    yield from in_process.decode_media(path, options, report, times)


def _with_even_luma(frame: Frame) -> Frame:
    """The frame with its luma stored as the JPEG encoder needs it.

    An array that came through a pipe is stored tightly, so the padding of the decoder is lost.
    """
    luma, blue, red = frame.planes
    if not (luma.shape[0] % 2 or luma.shape[1] % 2):
        return frame
    return replace(frame, planes=(pad_to_even(luma), blue, red))


def read_audio_chunks(
    path: str | Path, options: DecodeOptions, report: DecodeReport | None = None
) -> Iterator[NDArray[np.float32]]:
    """`decode.decode_audio_chunks` in another process."""
    events = read_media(path, replace(options, video=False), report)
    for event in in_process.continuous_audio(events):
        assert not isinstance(event, Frame)
        yield event


def read_audio(path: str | Path, max_hours: float = DecodeOptions.max_hours) -> NDArray[np.float32]:
    """`decode.decode_audio` in another process."""
    samples: NDArray[np.float32] = call_isolated(
        in_process.decode_audio, _path_elsewhere(path), max_hours, source=path
    )
    return samples


def is_image(path: str | Path) -> bool:
    """`image_files.begins_as_image` in another process."""
    return bool(call_isolated(image_files.begins_as_image, _path_elsewhere(path), source=path))


def read_file_facts(path: str | Path, limits: FileLimits) -> FileFacts:
    """`file_facts.read_facts` in another process."""
    facts: FileFacts = call_isolated(
        in_process_facts.read_facts, _path_elsewhere(path), limits, source=path
    )
    return facts


def read_file(
    path: str | Path,
    limits: FileLimits,
    side_choice: WantedSide,
    options: DecodeOptions,
    image_pixels: int,
    nearest_to: TimeGrid | None = None,
    report: DecodeReport | None = None,
) -> Generator[Any, None, None]:
    """`FileFacts`, then the content of the file, in one job that opens it once.

    Of an image the content is what `read_image_pixels(path, image_pixels)` gives; of a sound or a
    video what `read_media` gives. Raises SourceError for a file that exceeds a limit.
    """
    events = stream_isolated(
        _decode_file,
        _path_elsewhere(path),
        limits,
        side_choice,
        options,
        image_pixels,
        nearest_to,
        source=path,
        report=report or DecodeReport(),
    )
    with closing(events):
        for event in events:
            yield _with_even_luma(event) if isinstance(event, Frame) else event


def _decode_file(
    path: str | Path,
    limits: FileLimits,
    side_choice: WantedSide,
    options: DecodeOptions,
    image_pixels: int,
    nearest_to: TimeGrid | None,
    report: DecodeReport,
) -> Iterator[FileFacts | NDArray[np.uint8] | Frame | AudioChunk]:
    """What `read_file` runs in the other process."""
    facts = in_process_facts.image_facts(path, limits)
    if facts is not None:
        yield facts
        yield image_files.decode_image(path, image_pixels)
        return
    with open_media(path, options, report) as container:
        facts = in_process_facts.media_facts(container, path, limits)
        yield facts
        side = facts.side(side_choice)
        options = replace(options, audio=side != "vision", video=side != "audio")
        times = iter(nearest_to) if nearest_to else None
        yield from in_process.decode_media(path, options, report, times, opened=container)


def read_image_pixels(path: str | Path, shorter_side_pixels: int) -> NDArray[np.uint8]:
    """`image_files.decode_image` in another process."""
    pixels: NDArray[np.uint8] = call_isolated(
        image_files.decode_image, _path_elsewhere(path), shorter_side_pixels, source=path
    )
    return pixels


def read_video_info(path: str | Path) -> VideoInfo:
    """`redraw.measure_video` in another process."""
    info: VideoInfo = call_isolated(
        in_process_redraw.measure_video, _path_elsewhere(path), source=path
    )
    return info


def redraw_video(
    source: str | Path,
    out: str | Path,
    frame_size: tuple[int, int],
    canvas_size: tuple[int, int],
    draw: Draw,
    progress: Progress = no_progress,
) -> int:
    """Write the video `out`, with a canvas for each frame of `source`; returns their number.

    frame_size, canvas_size: width and height, even numbers.
    draw: is called in this process with a frame in `frame_size`, and fills the canvas.

    The file is complete or does not exist. Another process decodes and encodes
    (`redraw.redraw_frames`).
    """
    width, height = canvas_size
    canvas: Planes = (
        np.empty((height, width), np.uint8),
        np.empty((height // 2, width // 2), np.uint8),
        np.empty((height // 2, width // 2), np.uint8),
    )
    with atomic_write(Path(out)) as scratch:
        frames = stream_isolated(
            in_process_redraw.redraw_frames,
            _path_elsewhere(source),
            scratch.absolute(),
            frame_size,
            canvas_size,
            source=source,
            answers=True,
        )
        with closing(frames):
            return _draw_all(frames, canvas, draw, progress)


def _draw_all(
    frames: Generator[SourceFrame | None, Planes | None, int],
    canvas: Planes,
    draw: Draw,
    progress: Progress,
) -> int:
    last_second = 0
    total_seconds = 0
    answer: Planes | None = None
    while True:
        try:
            frame = frames.send(answer)
        except StopIteration as stopped:
            progress(max(total_seconds, last_second), max(total_seconds, last_second))
            return int(stopped.value)
        # The last item has no frame: it is there to take the canvas of the frame before.
        if frame is None:
            continue
        total_seconds = frame.total_seconds
        if frame.at_seconds >= last_second + 1:
            last_second = int(frame.at_seconds)
            progress(last_second, max(total_seconds, last_second))
        draw(frame.at_seconds, frame.planes, canvas)
        # One canvas serves all frames, since it goes into the pipe before the next one is drawn.
        answer = canvas


def _path_elsewhere(path: str | Path) -> str:
    """The path as another process understands it: of a file that is open here, its real path.

    Raises SourceError for a pipe, which this process alone can read.
    """
    text = str(path)
    # Names such as /dev/stdin or /dev/fd/3 mean another file in each process.
    if not text.startswith(("/dev/", "/proc/")):
        return text
    real = os.path.realpath(text)
    # The real path of a pipe is a name such as `pipe:[4026]`, which is no file.
    if not os.path.exists(real):  # noqa: PTH110
        raise SourceError(f"{path} is a pipe, which can be read only once; save it as a file first")
    return real
