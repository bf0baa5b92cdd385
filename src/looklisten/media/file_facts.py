"""What a file is and how large it would unfold, read from its head without decoding it.

Imports no PyTorch, so that a decoder process starts fast.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer
from PIL import Image

from looklisten.errors import SourceError
from looklisten.media.decode.open import open_media
from looklisten.media.decode.options import DecodeOptions
from looklisten.media.decode.records import DecodeReport
from looklisten.media.decode.stream_choice import audio_streams, video_streams
from looklisten.media.image_files import image_size

FileKind = Literal["image", "media"]
WantedSide = Literal["auto", "audio", "vision", "both"]
"""What is read of a file that may have sound and frames."""


@dataclass(frozen=True)
class FileFacts:
    """What a file says of itself; a damaged file may say what is not true."""

    kind: FileKind
    width: int
    """Of the image or of the largest video stream; 0 without one."""
    height: int
    streams: int
    seconds: float
    """Declared length; 0 where none is declared."""
    has_video: bool
    has_audio: bool

    def side(self, side_choice: WantedSide) -> WantedSide:
        """The side that is read: of `auto` the sound if there is any, else the frames."""
        if side_choice != "auto":
            return side_choice
        return "audio" if self.has_audio or not self.has_video else "vision"


@dataclass(frozen=True)
class FileLimits:
    """How large a file may say that it is."""

    max_megapixels: float
    max_seconds: float
    max_streams: int

    @property
    def options(self) -> DecodeOptions:
        """The options of decoding with these limits."""
        # One more than allowed, so that a file with just enough is not refused.
        return DecodeOptions(max_megapixels=self.max_megapixels, max_streams=self.max_streams + 1)


def read_facts(path: str | Path, limits: FileLimits) -> FileFacts:
    """What a file is. Raises SourceError when it cannot be opened, or exceeds a limit."""
    facts = image_facts(path, limits)
    if facts is not None:
        return facts
    with open_media(path, limits.options, DecodeReport()) as container:
        return media_facts(container, path, limits)


def image_facts(path: str | Path, limits: FileLimits) -> FileFacts | None:
    """What an image is; None for a file that is no image. Raises SourceError for a large one."""
    try:
        size = image_size(path)
    except Image.DecompressionBombError:
        raise _too_many_pixels(path, None, limits) from None
    if size is None:
        return None
    _check_pixels(path, size, limits)
    return FileFacts("image", *size, streams=1, seconds=0.0, has_video=True, has_audio=False)


def media_facts(container: InputContainer, path: str | Path, limits: FileLimits) -> FileFacts:
    """What an open sound or video is. Raises SourceError where it exceeds a limit."""
    # FFmpeg reads no stream beyond the limit of the options, so a file may have more.
    if len(container.streams) > limits.max_streams:
        raise SourceError(
            f"{path} has {len(container.streams)} streams or more; "
            f"at most {limits.max_streams} are allowed"
        )
    videos = video_streams(container)
    largest = max(((video.width, video.height) for video in videos), default=(0, 0))
    _check_pixels(path, largest, limits)
    seconds = (container.duration or 0) / av.time_base
    if seconds > limits.max_seconds:
        raise too_long(path, limits.max_seconds)
    return FileFacts(
        kind="media",
        width=largest[0],
        height=largest[1],
        streams=len(container.streams),
        seconds=seconds,
        has_video=bool(videos),
        has_audio=bool(audio_streams(container)),
    )


def _check_pixels(path: str | Path, size: tuple[int, int], limits: FileLimits) -> None:
    if size[0] * size[1] > limits.max_megapixels * 1e6:
        raise _too_many_pixels(path, size, limits)


def too_long(path: str | Path, max_seconds: float) -> SourceError:
    """The error for a file that is longer than it may be."""
    return SourceError(f"{path} is too long; at most {max_seconds:g} s are allowed")


def _too_many_pixels(
    path: str | Path, size: tuple[int, int] | None, limits: FileLimits
) -> SourceError:
    named_size = f"{size[0]} x {size[1]} pixels" if size else "too many pixels"
    return SourceError(
        f"{path} has {named_size}; at most {limits.max_megapixels:g} megapixels are allowed"
    )
