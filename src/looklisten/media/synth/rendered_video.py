"""Frames and their sound -> an MP4 file, with the same bytes each time.

Knows encoding; does not know what the frames show.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from looklisten.media import SAMPLE_RATE_HZ

X264_OPTIONS = {
    "preset": "veryfast",
    "crf": "23",
    "threads": "1",
    # Without `mbtree=0` x264 gives other bytes from run to run for frames below some 200 pixels.
    # Without B-frames and looking ahead it is a third faster, and the files grow by 4 %.
    "x264-params": "mbtree=0:bframes=0:rc-lookahead=0",
}
_AAC_BITS_PER_SECOND = 128_000
AAC_FRAME_SAMPLES = 1024


@dataclass(frozen=True, eq=False)
class RenderedVideo:
    """One video: `frames` may be a generator, so that each is drawn when it is encoded."""

    frames: Iterable[NDArray[np.uint8]]
    """Each is uint8 `[side, side, 3]`, RGB."""
    sound: NDArray[np.floating[Any]]
    """`[samples]` in -1..1 at 48 kHz."""
    side_pixels: int
    frames_per_second: int

    def write(self, path: Path) -> None:
        """Encode as H.264 and AAC."""
        # "bitexact" leaves out the date and the version of the encoder.
        flags = {"fflags": "+bitexact", "movflags": "+faststart"}
        with av.open(path, "w", container_options=flags) as container:
            video = container.add_stream("libx264", self.frames_per_second, options=X264_OPTIONS)
            video.width = self.side_pixels
            video.height = self.side_pixels
            video.pix_fmt = "yuv420p"
            # One thread: with more the bytes depend on timing.
            audio_options = {"threads": "1", "aac_coder": "fast"}
            audio = container.add_stream(
                "aac", SAMPLE_RATE_HZ, layout="mono", options=audio_options
            )
            audio.bit_rate = _AAC_BITS_PER_SECOND
            seconds_per_frame = Fraction(1, self.frames_per_second)
            for number, pixels in enumerate(self.frames):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts = number
                frame.time_base = seconds_per_frame
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            seconds_per_sample = Fraction(1, SAMPLE_RATE_HZ)
            for start in range(0, len(self.sound), AAC_FRAME_SAMPLES):
                samples = self.sound[None, start : start + AAC_FRAME_SAMPLES]
                block = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                block.sample_rate = SAMPLE_RATE_HZ
                block.pts = start
                block.time_base = seconds_per_sample
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
