"""The functions that read a user's files, each in another process (`decoder_process`): same names,
same results.

Verbs and the Python door call these. `prepare` calls the functions of `decode` directly, as it has
a process of its own around each source (`data.worker`).
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
from looklisten.media import redraw as redrawing
from looklisten.media.decode import decode as direct
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import (
    AudioChunk,
    DecodeReport,
    Frame,
    Planes,
    StreamKinds,
    pad_to_even,
)
from looklisten.media.isolation.parent import call_isolated, stream_isolated
from looklisten.media.redraw import VideoInfo
from looklisten.system.files import atomic_write
from looklisten.system.progress import Progress, no_progress


@dataclass(frozen=True)
class TimeGrid:
    """Seconds that rise without end, of which number n follows from n alone, so that none drifts.

    The plain ones are multiples of `hop_samples` (exact). With `step_samples` each is rounded to a
    whole sample, then to a multiple of `step_samples`, and `offset_samples` are added.
    """

    hop_samples: Fraction
    step_samples: int | None = None
    offset_samples: int = 0

    def at(self, number: int) -> float:
        exact = number * self.hop_samples
        if self.step_samples is None:
            return float(exact / SAMPLE_RATE_HZ)
        whole = floor(exact + Fraction(1, 2))
        steps = floor(Fraction(whole, self.step_samples) + Fraction(1, 2))
        return (steps * self.step_samples + self.offset_samples) / SAMPLE_RATE_HZ

    def __iter__(self) -> Iterator[float]:
        number = 0
        while True:
            yield self.at(number)
            number += 1


def read_streams(path: str | Path) -> StreamKinds:
    """`decode.find_streams`."""
    streams: StreamKinds = call_isolated(direct.list_streams, _elsewhere(path), source=path)
    return streams


def read_media(
    path: str | Path,
    wanted: DecodeOptions,
    report: DecodeReport | None = None,
    nearest_to: TimeGrid | None = None,
) -> Iterator[Frame | AudioChunk]:
    """`decode.decode`; `nearest_to` is a record here, since an iterator cannot go to another
    process.
    """
    with closing(
        stream_isolated(
            _decode_near_times,
            _elsewhere(path),
            wanted,
            nearest_to,
            source=path,
            report=report or DecodeReport(),
        )
    ) as events:
        for event in events:
            yield _evenly(event) if isinstance(event, Frame) else event


def _decode_near_times(
    path: str | Path, wanted: DecodeOptions, nearest_to: TimeGrid | None, report: DecodeReport
) -> Iterator[Frame | AudioChunk]:
    """What `decode` runs in the other process."""
    yield from direct.decode_media(path, wanted, report, iter(nearest_to) if nearest_to else None)


def _evenly(frame: Frame) -> Frame:
    """The frame with its brightness stored as the JPEG encoder needs it; a copy through a pipe is
    stored tightly.
    """
    luma, blue, red = frame.planes
    return (
        frame
        if not (luma.shape[0] % 2 or luma.shape[1] % 2)
        else replace(frame, planes=(pad_to_even(luma), blue, red))
    )


def read_audio_chunks(
    path: str | Path, wanted: DecodeOptions, report: DecodeReport | None = None
) -> Iterator[NDArray[np.float32]]:
    """`decode.sound_pieces`."""
    for piece in direct.continuous_audio(read_media(path, replace(wanted, video=False), report)):
        assert not isinstance(piece, Frame)
        yield piece


def read_audio(path: str | Path, max_hours: float = 24.0) -> NDArray[np.float32]:
    """`decode.read_sound`."""
    sound: NDArray[np.float32] = call_isolated(
        direct.decode_audio, _elsewhere(path), max_hours, source=path
    )
    return sound


def is_image(path: str | Path) -> bool:
    """`image_files.begins_as_image`."""
    return bool(call_isolated(image_files.begins_as_image, _elsewhere(path), source=path))


def read_image_pixels(path: str | Path, shorter_side_pixels: int) -> NDArray[np.uint8]:
    """`image_files.decode_image`."""
    pixels: NDArray[np.uint8] = call_isolated(
        image_files.decode_image, _elsewhere(path), shorter_side_pixels, source=path
    )
    return pixels


def read_video_info(path: str | Path) -> VideoInfo:
    """`redraw.outline`."""
    found: VideoInfo = call_isolated(redrawing.measure_video, _elsewhere(path), source=path)
    return found


def redraw_video(
    source: str | Path,
    out: str | Path,
    picture: tuple[int, int],
    canvas: tuple[int, int],
    draw: Callable[[float, Planes, Planes], None],
    progress: Progress = no_progress,
) -> int:
    """`redraw.redrawn`: write the video `out`, there whole or not at all; returns how many frames
    it has.

    `draw(at_seconds, picture, canvas)` is called in this process. It gets the source's frame in the
    size `picture` and fills the canvas; both are planes of luma and, at half the resolution,
    chroma.
    """
    width, height = canvas
    planes = tuple(np.empty((height // share, width // share), np.uint8) for share in (1, 2, 2))
    with atomic_write(Path(out)) as scratch:
        job = stream_isolated(
            redrawing.redraw_frames,
            _elsewhere(source),
            scratch.absolute(),
            picture,
            canvas,
            source=source,
            answers=True,
        )
        with closing(job) as frames:
            return _drawn(frames, planes, draw, progress)  # type: ignore[arg-type]


def _drawn(
    frames: Generator[Any, Any, Any],
    planes: Planes,
    draw: Callable[[float, Planes, Planes], None],
    progress: Progress,
) -> int:
    last = total = 0
    answer = None
    while True:
        try:
            shown = frames.send(answer)
        except StopIteration as end:
            progress(max(total, last), max(total, last))
            return int(end.value)
        if shown is None:
            continue
        total = shown.total_seconds
        if shown.at_seconds >= last + 1:
            last = int(shown.at_seconds)
            progress(last, max(total, last))
        draw(shown.at_seconds, shown.picture, planes)
        answer = planes


def _elsewhere(path: str | Path) -> str:
    """The path as another process understands it: of a file that is open here, its real name.

    Raises SourceError for a pipe, which this process alone can read.
    """
    text = str(path)
    if not text.startswith(("/dev/", "/proc/")):
        return text
    real = os.path.realpath(text)
    if not os.path.exists(real):  # noqa: PTH110
        raise SourceError(f"{path} is a pipe, which can be read only once; save it as a file first")
    return real
