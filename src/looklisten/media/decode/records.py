"""What decoding gives."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from looklisten.media import SAMPLE_RATE_HZ

Packet = Any  # av.Packet, whose stubs have a parameter that the class has not


Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


SOUND_IN_PAST = "sound with timestamps that had passed"
PICTURE_IN_PAST = "picture with timestamps that had passed"
UNREAD_FILE = "a second file appended to the first"
"""Reasons of `DecodeReport.add_lost`; `data.cutting` has the others."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture, shown over [at, end): upright, with square pixels, as a JPEG file stores it.

    `planes` are luma `[height, width]` and two of chroma at half the resolution, uint8, full range,
    ITU-R BT.601.
    """

    at_seconds: float
    end_seconds: float
    planes: Planes

    def jpeg(self, quality: int) -> bytes:
        """The picture as a JPEG file, without a detour through RGB."""
        data: bytes = simplejpeg.encode_jpeg_yuv_planes(*self.planes, quality, fastdct=False)
        return data

    def rgb(self) -> NDArray[np.uint8]:
        """The picture as `[height, width, 3]`; each chroma sample stands for the four pixels that
        it was taken from.
        """
        height, width = self.planes[0].shape
        luma, blue, red = (plane.astype(np.float32) for plane in self.planes)
        blue, red = (
            np.repeat(np.repeat(plane - 128, 2, 0), 2, 1)[:height, :width] for plane in (blue, red)
        )
        pixels = np.stack(
            [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue],
            axis=-1,
        )
        rounded: NDArray[np.uint8] = np.rint(pixels).clip(0, 255).astype(np.uint8)
        return rounded


@dataclass(frozen=True, eq=False)
class AudioChunk:
    """A stretch of mono sound: `samples` float32 `[n]`. It follows the one before without a gap, or
    over MAX_GAP_SECONDS later.
    """

    start_seconds: float
    samples: NDArray[np.float32]

    @property
    def end_seconds(self) -> float:
        return self.start_seconds + len(self.samples) / SAMPLE_RATE_HZ


@dataclass
class DecodeReport:
    """What a decoding pass met: filled while `decode` runs."""

    damaged_count: int = 0
    """Packets that could not be decoded and frames that the decoder had to mend."""
    stop_reason: str = ""
    """Why decoding ended before the file did; empty when it did not."""
    last_error: str = ""
    """FFmpeg's last line."""
    video_end_seconds: float = 0.0
    audio_end_seconds: float = 0.0
    lost_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of the wanted stretch that no frame, sound or clip holds, by reason."""
    flags: set[str] = field(default_factory=set)
    """Marks (`data.cutting.MARKS`) that decoding found and that hold for every clip of the file."""

    skipped_streams: list[str] = field(default_factory=list)
    """Streams of the kinds that were wanted and that were not chosen, each in a few words."""
    source: str = ""
    """The file's path, for sentences."""

    def add_lost(self, reason: str, seconds: float) -> None:
        """Count seconds that are left out, so that no loss is silent."""
        self.lost_seconds[reason] = self.lost_seconds.get(reason, 0.0) + seconds


@dataclass(frozen=True)
class StreamKinds:
    """Which streams a file has that can be decoded."""

    has_video: bool
    has_audio: bool


def pad_to_even(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same plane in memory of even height and width, its edge repeated: libjpeg-turbo reads
    that far.
    """
    height, width = plane.shape
    if not (height % 2 or width % 2):
        return np.ascontiguousarray(plane)
    return np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")[:height, :width]
