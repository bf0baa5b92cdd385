"""The record of a set with boxes around what sounds. Knows names and boxes; reads no file."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from looklisten.data.clips import Box

BoxesByClip = dict[str, tuple[Box, ...]]
"""The boxes of each clip, by the clip's name."""


@dataclass(frozen=True, kw_only=True)
class LocalizationSet:
    """A set of clips with boxes, and how its owner lays out annotations and videos."""

    name: str
    """The word for it on the command line, such as `vggss`."""
    title: str
    annotations: str
    """Which file or folder the annotations are, for sentences."""
    read_boxes: Callable[[Path], BoxesByClip]
    """Reads the annotations. Raises SourceError if they are not as the owner distributes them."""
    find_videos: Callable[[Path, Iterable[str]], dict[str, Path]]
    """(a folder, the names of all clips) -> the video of each clip that has one in the folder."""
    video_of: Callable[[str], str]
    """The name of a clip -> the video that it was cut from."""
    min_annotators: int = 1
    """How many boxes must overlap at a position to make it true: more than 1 if each box is the
    answer of one annotator."""


def sounding_box(corners: Sequence[float], label: str) -> Box:
    """A box around a sounding object, from x0, y0, x1, y1; raises ValueError for other lengths."""
    x0, y0, x1, y1 = map(float, corners)
    return Box(0.0, x0, y0, x1, y1, label, sounding=True)
