"""The choices of one decoding pass.

Imports neither NumPy nor FFmpeg, so that the shell reads the defaults quickly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from looklisten.media import SAMPLE_RATE_HZ


@runtime_checkable
class ChunkResampler(Protocol):
    """Resamples one stream of mono samples to 48 kHz, chunk by chunk."""

    # The arrays are float32 `[samples]`. Their type is not named, since that would import NumPy.
    def resample_chunk(self, samples: Any, last: bool = False) -> Any: ...


def soxr_high_quality(rate_hz: int) -> ChunkResampler:
    """The resampler of looklisten's own networks: soxr with the quality HQ."""
    # Only here, so that the shell reads the defaults without importing NumPy.
    import soxr

    stream: ChunkResampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, "float32", "HQ")
    return stream


@dataclass(frozen=True)
class DecodeOptions:
    """What to decode of a media file, and the limits for it.

    The limits protect from files that would unfold to more than a machine can hold.
    """

    frames_per_second: float = 5.0
    """Of all frames in one bin of 1 / frames_per_second, the first is taken."""
    shorter_side_pixels: int = 256
    """Larger frames are scaled down to this; smaller frames keep their size."""
    start_seconds: float = 0.0
    stop_seconds: float = math.inf
    """Frames and sound in [start_seconds, stop_seconds) are taken."""
    max_megapixels: float = 40.0
    max_hours: float = 24.0
    max_streams: int = 64
    video: bool = True
    """Whether to decode the video stream; if not, the file may lack one."""
    audio: bool = True
    """Whether to decode the audio stream; if not, the file may lack one."""
    make_resampler: Callable[[int], ChunkResampler] = soxr_high_quality
    """Makes the resampler for sound of a rate in Hz other than 48 kHz."""
    skip_unneeded: bool = True
    """Do not decode frames that are not taken and that no other frame needs.

    The result is the same either way.
    """

    def frame_bin(self, seconds: float) -> int:
        """The number of the bin that a time belongs to."""
        # Times of frames are rounded to the ticks of their container: without the tolerance, a
        # frame at 0.1999 s would belong to the bin before the one it was meant for.
        return math.floor(seconds * self.frames_per_second + 1e-3)
