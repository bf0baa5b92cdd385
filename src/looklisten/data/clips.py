"""One clip of a video and the boxes that people drew in it. Knows no file."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Box:
    """A rectangle that bounds one object at one time of a clip.

    Corners are in 0..1 of the frame's width and height.
    """

    clip_seconds: float
    """From the start of the clip."""
    x0: float
    y0: float
    x1: float
    y1: float
    label: str
    sounding: bool


@dataclass(frozen=True)
class VideoBox:
    """A box as a table of boxes gives it, with its time in the video."""

    video_seconds: float
    """From the start of the video."""
    x0: float
    y0: float
    x1: float
    y1: float
    label: str
    sounding: bool

    def in_clip(self, start_seconds: float) -> Box:
        """The box in a clip that begins at `start_seconds` of the video."""
        clip_seconds = self.video_seconds - start_seconds
        return Box(clip_seconds, self.x0, self.y0, self.x1, self.y1, self.label, self.sounding)


# eq=False, because comparing two arrays gives an array, not yes or no.
@dataclass(frozen=True, eq=False)
class Clip:
    """A stretch of at most 10 s of one video, with frames as JPEG and sound as int16 mono."""

    key: str
    video_id: str
    source: str
    start_seconds: float
    """Of the clip, from the start of the video."""
    frame_seconds: tuple[float, ...]
    """The time of each frame from the start of the clip."""
    frames: tuple[bytes, ...]
    waveform: NDArray[np.int16]
    sample_rate_hz: int
    labels: tuple[str, ...] = ()
    split: str = ""
    boxes: tuple[Box, ...] = ()
    marks: tuple[str, ...] = ()

    @property
    def duration_seconds(self) -> float:
        return len(self.waveform) / self.sample_rate_hz

    def __repr__(self) -> str:
        return (
            f"Clip({self.key!r}, {self.start_seconds:.3f} + {self.duration_seconds:.3f} s, "
            f"{len(self.frames)} frames, {self.sample_rate_hz} Hz, labels={list(self.labels)})"
        )
