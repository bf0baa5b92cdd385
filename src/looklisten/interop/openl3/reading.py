"""Reads media files into the sound, the frames and the images that OpenL3's networks take.

Sound and frames come a chunk at a time. Does not embed.
"""

import logging
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.interop.openl3.networks import RESIZE_PIXELS
from looklisten.interop.openl3.pillow_images import read_pixels
from looklisten.interop.openl3.resampling import KaiserBest
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import DecodeReport, Frame
from looklisten.media.frames import resize
from looklisten.media.isolation.parent import call_isolated
from looklisten.media.isolation.readers import read_audio_chunks, read_media

# No video has as many frames per second, so every frame is kept. OpenL3 reads a file to its end.
EVERY_FRAME = DecodeOptions(
    frames_per_second=1e6, shorter_side_pixels=RESIZE_PIXELS, audio=False, max_hours=np.inf
)
# The resampler is OpenL3's, because another one changes the vectors (docs/openl3.md).
SOUND = DecodeOptions(video=False, make_resampler=KaiserBest)

_log = logging.getLogger("looklisten")


def read_openl3_sound(path: str) -> Iterator[NDArray[np.float32]]:
    """Mono sound at 48 kHz in chunks, on the clock of the file: late sound follows silence.

    Raises SourceError.
    """
    report = DecodeReport()
    samples = 0
    for chunk in read_audio_chunks(path, SOUND, report):
        yield chunk
        samples += len(chunk)
    _check_count(path, report, samples, "sound")


def read_openl3_frames(path: str, times: list[float]) -> Iterator[NDArray[np.uint8]]:
    """Every frame as `[height, width, 3]`, with a shorter side of 256 pixels.

    The time of each frame in seconds is appended to `times`. Raises SourceError.
    """
    report = DecodeReport()
    for frame in read_media(path, EVERY_FRAME, report):
        assert isinstance(frame, Frame)
        times.append(frame.at_seconds)
        yield resize(torch.from_numpy(frame.rgb()), RESIZE_PIXELS).numpy()
    _check_count(path, report, len(times), "image")


def _check_count(path: str, report: DecodeReport, count: int, kind: str) -> None:
    if not count:
        reason = report.stop_reason or report.last_error or "it is empty"
        raise OpenL3Error(f"{path} holds no {kind} that can be decoded ({reason})")
    if report.stop_reason:
        _log.warning("%s: %s; what comes before is embedded", path, report.stop_reason)


def read_openl3_image(path: str) -> NDArray[np.uint8]:
    """The upright image of a file as `[height, width, 3]`; of an animation the first image.

    Raises OpenL3Error when the file cannot be read.
    """
    pixels: NDArray[np.uint8] = call_isolated(read_pixels, path, source=path)
    return pixels
