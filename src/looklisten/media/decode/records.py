"""What decoding gives: frames, chunks of sound, and a report on what was lost.

The records can be sent to another process (`media.isolation.messages`). They know no clip.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from looklisten.media import SAMPLE_RATE_HZ

OLD_AUDIO = "sound with timestamps that had passed"
OLD_FRAMES = "frames with timestamps that had passed"
APPENDED_FILE = "a second file appended to the first"
"""Reasons in `DecodeReport.lost_seconds`."""
AUDIO_HOLE = "no sound between sounds, filled with silence"
"""The reason for `DecodeReport.audio_hole_seconds`, where `continuous_audio` fills the gaps."""
LEAST_HOLE_SECONDS = 0.1
"""A shorter gap in the sound is rounding of timestamps."""

Packet = Any
"""An `av.Packet`. PyAV's type stubs give it a type parameter that the class lacks at runtime."""

Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
"""Luma `[height, width]` and two planes of chroma at half the resolution."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video, on screen during [at_seconds, end_seconds).

    It is upright and has square pixels. Colors are as in a JPEG file: full range, ITU-R BT.601.
    """

    at_seconds: float
    end_seconds: float
    planes: Planes

    def jpeg(self, quality: int) -> bytes:
        """The frame as a JPEG file."""
        # The planes go to the encoder as they are: a conversion to RGB and back would round twice.
        data: bytes = simplejpeg.encode_jpeg_yuv_planes(*self.planes, quality, fastdct=False)
        return data

    def rgb(self) -> NDArray[np.uint8]:
        """The frame as RGB, `[height, width, 3]`."""
        height, width = self.planes[0].shape
        luma = self.planes[0].astype(np.float32)
        blue = _enlarged_chroma(self.planes[1], height, width)
        red = _enlarged_chroma(self.planes[2], height, width)
        channels = [
            luma + 1.402 * red,
            luma - 0.344136 * blue - 0.714136 * red,
            luma + 1.772 * blue,
        ]
        pixels = np.stack(channels, axis=-1)
        rounded: NDArray[np.uint8] = np.rint(pixels).clip(0, 255).astype(np.uint8)
        return rounded


def _enlarged_chroma(plane: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """A plane of chroma, centered at 0, with each sample repeated for its four pixels."""
    centered = plane.astype(np.float32) - 128
    rows = np.repeat(centered, 2, axis=0)
    return np.repeat(rows, 2, axis=1)[:height, :width]


@dataclass(frozen=True, eq=False)
class AudioChunk:
    """Consecutive samples of mono sound at 48 kHz: float32 `[samples]`.

    A chunk follows the one before without a gap, or after a gap of more than MAX_GAP_SECONDS.
    """

    start_seconds: float
    samples: NDArray[np.float32]

    @property
    def end_seconds(self) -> float:
        return self.start_seconds + len(self.samples) / SAMPLE_RATE_HZ


@dataclass
class DecodeReport:
    """What happened in one decoding pass.

    Only the decoder writes it, which may run in another process; the caller reads it. What a caller
    meets itself, such as a reason of its own to stop, it keeps itself.
    """

    damaged_count: int = 0
    """Packets that could not be decoded, and frames that the decoder had to repair."""
    stop_reason: str = ""
    """Why decoding ended before the end of the file; empty when it reached the end."""
    last_error: str = ""
    """The last line that FFmpeg logged."""
    video_end_seconds: float = 0.0
    """Where the last decoded frame ends."""
    audio_end_seconds: float = 0.0
    """Where the last decoded sound ends."""
    lost_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds that should have been decoded and were not, by reason."""
    audio_hole_seconds: float = 0.0
    """Length of all gaps between sounds that are no rounding of timestamps."""
    flags: set[str] = field(default_factory=set)
    """Properties of the whole file that every clip of it shares: `hdr`, `out-of-phase`."""
    skipped_streams: list[str] = field(default_factory=list)
    """Streams of a decoded kind that were not chosen, each described in a few words."""
    source_name: str = ""
    """The path of the file, for sentences."""
    frame_size: tuple[int, int] | None = None
    """Width and height of the first decoded frame, upright, with square pixels, not scaled."""
    declared_seconds: float = 0.0
    """Length of the file as its container declares it; 0 if it declares none."""

    def add_lost(self, reason: str, seconds: float) -> None:
        """Count seconds that are left out, so that no loss is silent."""
        self.lost_seconds[reason] = self.lost_seconds.get(reason, 0.0) + seconds

    def why_nothing(self) -> str:
        """Why a file gave nothing, as the end of a sentence "... holds no sound"; empty if it was
        read to its end without a problem.
        """
        problem = self.stop_reason or self.last_error
        return f" that can be decoded; {problem}" if problem else ""


@dataclass(frozen=True)
class StreamKinds:
    """Which kinds of streams a file has that can be decoded."""

    has_video: bool
    has_audio: bool
