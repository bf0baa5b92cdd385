"""VGG-SS (Chen et al. 2021): boxes around what sounds in 5,158 clips of YouTube.

`vggss.json` is a list of `{"file", "class", "bbox"}`. A file is a YouTube id and a start in
seconds. A box has four corners, from 0 to 1; some lie outside of that range.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from looklisten.data.public.table import index_videos
from looklisten.errors import SourceError
from looklisten.evaluation.sets.localization_set import BoxesByClip, LocalizationSet, sounding_box

YOUTUBE_ID_LETTERS = 11


def read_vggss_boxes(file: Path) -> BoxesByClip:
    """The boxes of each clip in `vggss.json`. Raises SourceError if it is another file."""
    try:
        boxes = {}
        for entry in json.loads(file.read_text(encoding="utf-8")):
            label = entry["class"]
            boxes[entry["file"]] = tuple(sounding_box(corners, label) for corners in entry["bbox"])
    except OSError as error:
        raise SourceError(
            f"{file} cannot be read ({error.strerror}); give the vggss.json of VGG-SS"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise SourceError(
            f'{file} is not a list of {{"file", "class", "bbox"}} with four numbers in each box; '
            f"give the vggss.json of VGG-SS"
        ) from None
    return boxes


def youtube_id(clip: str) -> str:
    """The YouTube id at the beginning of the name of a clip."""
    return clip[:YOUTUBE_ID_LETTERS]


def find_vggss_videos(folder: Path, clips: Iterable[str]) -> dict[str, Path]:
    """Videos in and below `folder` that are named by YouTube id and, optionally, by start.

    A video without a start in its name is taken only for the set's single clip of that video.
    """
    clips = list(clips)
    files_by_start, _ = index_videos(folder, whole_videos=False)
    clips_of_video = Counter(map(youtube_id, clips))
    videos = {}
    for clip in clips:
        video = youtube_id(clip)
        # One character separates the id from the start.
        start_seconds = clip[YOUTUBE_ID_LETTERS + 1 :]
        files = files_by_start.get(video, {})
        file = files.get(int(start_seconds) * 1000) if start_seconds.isdecimal() else None
        # Without a start in its name, a file could be any of several clips of the video.
        if not file and clips_of_video[video] == 1:
            file = files.get(None)
        if file:
            videos[clip] = folder / file
    return videos


VGGSS = LocalizationSet(
    name="vggss",
    title="VGG-SS",
    annotations="the file vggss.json",
    read_boxes=read_vggss_boxes,
    find_videos=find_vggss_videos,
    # Two clips of one video are not independent, so intervals are over videos.
    video_of=youtube_id,
)
