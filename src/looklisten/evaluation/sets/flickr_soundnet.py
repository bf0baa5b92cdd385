"""Flickr-SoundNet (Senocak et al. 2018): boxes of three annotators around what sounds.

Annotations are a folder of XML, one file for each image. Each annotator has a `bbox`, whose first
child is a name and whose next four are corners in pixels of an image of 256 x 256.
"""

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from looklisten.data.clips import Box
from looklisten.errors import SourceError
from looklisten.evaluation.sets.localization_set import BoxesByClip, LocalizationSet, sounding_box
from looklisten.media.formats import VIDEO_SUFFIXES
from looklisten.system.folders import files_with_suffix

IMAGE_SIDE_PIXELS = 256


def read_flickr_boxes(folder: Path) -> BoxesByClip:
    """The boxes of each clip. Raises SourceError if `folder` does not hold the annotations."""
    files = files_with_suffix(folder, frozenset({".xml"}))
    if not files:
        raise SourceError(
            f"{folder} is not a folder of XML files; "
            f"give the folder Annotations of Flickr-SoundNet, one file for each image"
        )
    return {file.stem: _boxes_of_annotators(file) for file in files}


def _boxes_of_annotators(file: Path) -> tuple[Box, ...]:
    boxes = []
    try:
        # Expat itself refuses entities that unfold without end.
        for element in ElementTree.parse(file).iter("bbox"):  # noqa: S314
            # The first child is the name of the object.
            pixels = [float(child.text or "") for child in list(element)[1:5]]
            corners = np.array(pixels) / IMAGE_SIDE_PIXELS
            boxes.append(sounding_box(corners.tolist(), ""))
    except (OSError, ElementTree.ParseError, ValueError):
        raise SourceError(
            f"{file} has a box that is not a name and four numbers; "
            f"give the folder Annotations of Flickr-SoundNet as it is distributed"
        ) from None
    return tuple(boxes)


def find_flickr_videos(folder: Path, clips: Iterable[str]) -> dict[str, Path]:
    """Videos in and below `folder` that are named by the id of a clip."""
    clips = set(clips)
    files = files_with_suffix(folder, VIDEO_SUFFIXES)
    return {file.stem: file for file in files if file.stem in clips}


def _same_name(clip: str) -> str:
    return clip


FLICKR_SOUNDNET = LocalizationSet(
    name="flickr-soundnet",
    title="Flickr-SoundNet",
    annotations="the folder Annotations, one XML file for each image",
    read_boxes=read_flickr_boxes,
    find_videos=find_flickr_videos,
    # Each video has one clip.
    video_of=_same_name,
    min_annotators=2,
)
