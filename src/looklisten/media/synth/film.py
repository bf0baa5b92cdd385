"""A drawn picture track and its sound -> an MP4 file with the same bytes each time. Knows no scene."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from looklisten.media import SAMPLE_RATE_HZ

X264 = {"preset": "veryfast", "crf": "23", "threads": "1", "x264-params": "mbtree=0"}
"""Without macroblock trees: at frames under some 200 pixels x264's fast path for them gave other
bytes from run to run.
"""
AAC_SAMPLES = 1024


@dataclass(frozen=True, eq=False)
class Film:
    """What one video shows and sounds: `pictures` are `[side, side, 3]` uint8, `sound` `[samples]`
    in -1..1 at 48 kHz.
    """

    pictures: Iterable[NDArray[np.uint8]]
    sound: NDArray[np.floating[Any]]
    side_pixels: int
    frames_per_second: int

    def write(self, path: Path) -> None:
        """Encode as H.264 + AAC. One thread and no date, so that the bytes are the same each time."""
        with av.open(
            path, "w", container_options={"fflags": "+bitexact", "movflags": "+faststart"}
        ) as container:
            video = container.add_stream("libx264", self.frames_per_second, options=X264)
            video.width = video.height = self.side_pixels
            video.pix_fmt = "yuv420p"
            audio = container.add_stream(
                "aac", SAMPLE_RATE_HZ, layout="mono", options={"threads": "1", "aac_coder": "fast"}
            )
            audio.bit_rate = 128_000
            for index, pixels in enumerate(self.pictures):
                picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                picture.pts, picture.time_base = index, Fraction(1, self.frames_per_second)
                container.mux(video.encode(picture))
            container.mux(video.encode(None))
            for start in range(0, len(self.sound), AAC_SAMPLES):
                block = av.AudioFrame.from_ndarray(
                    self.sound[None, start : start + AAC_SAMPLES], format="fltp", layout="mono"
                )
                block.sample_rate, block.pts, block.time_base = (
                    SAMPLE_RATE_HZ,
                    start,
                    Fraction(1, SAMPLE_RATE_HZ),
                )
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
