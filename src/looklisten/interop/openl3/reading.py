"""Media files -> the sound, the frames and the pictures that OpenL3's networks take, a piece at a
time. Embeds nothing.
"""

import logging
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from looklisten.interop.openl3.errors import OpenL3Error
from looklisten.interop.openl3.networks import RESIZE_PIXELS
from looklisten.interop.openl3.picture_files import read_pixels
from looklisten.interop.openl3.resampling import KaiserBest
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import DecodeReport, Frame
from looklisten.media.frames import resize
from looklisten.media.isolation.parent import call_isolated
from looklisten.media.isolation.readers import read_audio_chunks, read_media

EVERY_FRAME = DecodeOptions(
    frames_per_second=1e6, shorter_side_pixels=RESIZE_PIXELS, audio=False, max_hours=np.inf
)
SOUND = DecodeOptions(video=False, make_resampler=KaiserBest)

log = logging.getLogger(__name__)


def read_sound(path: str) -> Iterator[NDArray[np.float32]]:
    """Mono sound at 48 kHz in pieces, from the file's beginning on: what begins late comes late.
    Raises SourceError.
    """
    report, reached = DecodeReport(), 0
    for piece in read_audio_chunks(path, SOUND, report):
        yield piece
        reached += len(piece)
    _check(path, report, reached, "sound")


def read_frames(path: str, times: list[float]) -> Iterator[NDArray[np.uint8]]:
    """Every frame `[height, width, 3]`, its shorter side 256; when each is shown is put into
    `times`. Raises SourceError.
    """
    report = DecodeReport()
    for frame in read_media(path, EVERY_FRAME, report):
        assert isinstance(frame, Frame)
        times.append(frame.at_seconds)
        yield resize(torch.from_numpy(frame.rgb()), RESIZE_PIXELS).numpy()
    _check(path, report, len(times), "picture")


def _check(path: str, report: DecodeReport, got: int, kind: str) -> None:
    if not got:
        raise OpenL3Error(
            f"{path} holds no {kind} that can be decoded ({report.stop_reason or report.last_error or 'it is empty'})"
        )
    if report.stop_reason:
        log.warning("%s: %s; what came before it is embedded", path, report.stop_reason)


def read_picture(path: str) -> NDArray[np.uint8]:
    """`[height, width, 3]`, upright, of eight bits; of an animated file the first picture. Raises
    OpenL3Error.
    """
    pixels: NDArray[np.uint8] = call_isolated(read_pixels, path, source=path)
    return pixels
