"""How `prepare` cuts and stores clips.

Imports neither NumPy nor PyTorch, so that the command line can use it.
"""

from dataclasses import dataclass
from typing import Literal

from looklisten.errors import OptionError
from looklisten.media.decode.options import DecodeOptions
from looklisten.option_checks import check_above_zero, check_at_least

CLIP_MARKS = (
    "silent",
    "still",
    "black",
    "clipped",
    "short",
    "duplicate",
    "truncated",
    "damaged",
    "out-of-phase",
    "hdr",
)
"""What can be wrong with a clip; the column `marks` of a shard holds these words."""

LabelSource = Literal["table", "folder"]
"""Where a label comes from: a table's column `label`, or the name of the video's folder."""

Engine = Literal["local", "ray"]
"""What runs the batches: this machine, or a Ray cluster that is running."""


@dataclass(frozen=True)
class PrepareOptions:
    """How clips are cut and stored; the index records it: other options give other shards."""

    clip_seconds: float = 10.0
    """Longest clip."""
    min_clip_seconds: float = 1.0
    """Shortest clip; a shorter stretch is left out."""
    frames_per_second: float = DecodeOptions.frames_per_second
    """Frames stored per second, at their own timestamps."""
    shorter_side_pixels: int = DecodeOptions.shorter_side_pixels
    """Frames are scaled down to this shorter side, never up."""
    jpeg_quality: int = 90
    """From 1 to 100."""
    shard_megabytes: int = 256
    """Largest shard file."""
    skip: tuple[str, ...] = ()
    """Leave out clips with one of these marks: silent, still, black, clipped, short, duplicate,
    truncated, damaged, out-of-phase, hdr."""
    max_megapixels: float = DecodeOptions.max_megapixels
    """A video with larger frames is refused."""
    max_hours: float = DecodeOptions.max_hours
    """A longer video is cut off at this length."""

    def __post_init__(self) -> None:
        check_above_zero(clip_seconds=self.clip_seconds)
        if not 0 < self.min_clip_seconds <= self.clip_seconds:
            raise OptionError(
                f"min_clip_seconds {self.min_clip_seconds:g} must be above 0 and at most "
                f"clip_seconds, which is {self.clip_seconds:g}",
                "min_clip_seconds",
            )
        check_above_zero(
            frames_per_second=self.frames_per_second,
            max_megapixels=self.max_megapixels,
            max_hours=self.max_hours,
        )
        check_at_least(
            1,
            shorter_side_pixels=self.shorter_side_pixels,
            shard_megabytes=self.shard_megabytes,
        )
        if not 1 <= self.jpeg_quality <= 100:
            raise OptionError(
                f"jpeg_quality {self.jpeg_quality} must be from 1 to 100", "jpeg_quality"
            )
        for mark in self.skip:
            if mark not in CLIP_MARKS:
                raise OptionError(
                    f"there is no mark {mark!r} to skip; the marks are {', '.join(CLIP_MARKS)}"
                )
