"""How `prepare` cuts and stores clips.

Imports neither NumPy nor PyTorch, so that the command line can use it.
"""

from dataclasses import dataclass
from typing import Literal

from looklisten.errors import ConfigError

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
    frames_per_second: float = 5.0
    """Frames stored per second, at their own timestamps."""
    shorter_side_pixels: int = 256
    """Frames are scaled down to this shorter side, never up."""
    jpeg_quality: int = 90
    """From 1 to 100."""
    shard_megabytes: int = 256
    """Largest shard file."""
    skip: tuple[str, ...] = ()
    """Leave out clips with one of these marks: silent, still, black, clipped, short, duplicate,
    truncated, damaged, out-of-phase, hdr."""
    max_megapixels: float = 40.0
    """A video with larger frames is refused."""
    max_hours: float = 24.0
    """A longer video is cut off at this length."""

    def __post_init__(self) -> None:
        if not 0 < self.min_clip_seconds <= self.clip_seconds:
            raise ConfigError("min_clip_seconds must be above 0 and at most clip_seconds")
        for name in (
            "frames_per_second",
            "shorter_side_pixels",
            "shard_megabytes",
            "max_megapixels",
            "max_hours",
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0")
        if not 1 <= self.jpeg_quality <= 100:
            raise ConfigError(f"jpeg_quality {self.jpeg_quality} is not in 1..100")
        for mark in self.skip:
            if mark not in CLIP_MARKS:
                raise ConfigError(
                    f"there is no mark {mark!r} to skip; the marks are {', '.join(CLIP_MARKS)}"
                )
