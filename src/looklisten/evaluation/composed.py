"""What the videos of a composed world are made of. Knows the table that `synth` wrote beside them:
no network.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from looklisten.data.shards import Shards
from looklisten.errors import SourceError
from looklisten.names import decode_name

TABLE = "labels.csv"
COLUMNS = ("path", "picture", "sound")


@dataclass(frozen=True)
class Witnesses:
    """Which videos share a picture, and which a sound: answers about those are no independent
    witnesses.
    """

    pictures: Mapping[str, str]
    sounds: Mapping[str, str]
    """By video id, the file that its picture or its sound is made of; a video that is missing
    stands for itself.
    """

    @property
    def over(self) -> str:
        """What intervals are taken over, in words."""
        return "files of pictures and of sounds" if self.pictures else "videos"

    def of_pictures(self, videos: Iterable[str]) -> NDArray[Any]:
        """The group of each answer by the picture of its video."""
        return np.array([self.pictures.get(video, video) for video in videos])

    def of_sounds(self, videos: Iterable[str]) -> NDArray[Any]:
        """The group of each answer by the sound of its video."""
        return np.array([self.sounds.get(video, video) for video in videos])


def witnesses_of(shards: Shards, files: str | Path | None = None) -> Witnesses:
    """What the videos of `shards` are made of, as a table with the columns path, picture and sound
    says.

    `files`: the table; by default the labels.csv that lies beside the videos, where it has those
        columns. Without one every video stands for itself. Raises SourceError when `files` cannot
        be read, or names none of the videos.
    """
    root = str(shards.manifest.get("root") or "")
    if not files and not root:
        return Witnesses({}, {})
    table = Path(files) if files else Path(decode_name(root)) / TABLE
    try:
        with table.open(newline="", encoding="utf-8-sig") as opened:
            rows = [
                row for row in csv.DictReader(opened) if all(row.get(column) for column in COLUMNS)
            ]
    except (OSError, ValueError, csv.Error) as error:
        if files:
            raise SourceError(
                f"{table} cannot be read ({error}); give the labels.csv that `looklisten synth` wrote"
            ) from None
        rows = []
    videos = set(shards.video_ids.tolist())
    known = {row["path"]: row for row in rows if row["path"] in videos}
    if files and not known:
        raise SourceError(
            f"{table} names none of these videos with a path, a picture and a sound; give the labels.csv of their world"
        )
    pictures = {video: row["picture"] for video, row in known.items()}
    sounds = {video: row["sound"] for video, row in known.items()}
    return Witnesses(pictures, sounds)
