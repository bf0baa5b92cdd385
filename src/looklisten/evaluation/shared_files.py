"""Which composed videos share an image file or a sound file: the table that `synth` writes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from looklisten.data.shards import Shards
from looklisten.errors import SourceError
from looklisten.names import decode_name
from looklisten.tables import read_table

TABLE = "labels.csv"
COLUMNS = ("path", "image", "sound")


@dataclass(frozen=True)
class SharedFiles:
    """The image file and the sound file that each composed video is made of, by video id.

    Results on videos that share a file are not independent. A video that is missing here shares no
    file with others.
    """

    images: Mapping[str, str]
    sounds: Mapping[str, str]

    @property
    def interval_over(self) -> str:
        """What intervals are taken over, in words."""
        return "image files and sound files" if self.images else "videos"

    def groups(
        self, frame_videos: Sequence[str], sound_videos: Sequence[str]
    ) -> tuple[NDArray[Any], ...]:
        """What results depend on, one or two names for each: its videos, or its files.

        `frame_videos`, `sound_videos`: the videos that the frame and the sound of each result are
            of.
        """
        images = self.image_groups(frame_videos)
        if not self.images and list(frame_videos) == list(sound_videos):
            return (images,)
        return images, self.sound_groups(sound_videos)

    def image_groups(self, videos: Sequence[str]) -> NDArray[Any]:
        """For each video the name of its image file, else its own name."""
        return np.array([self.images.get(video, video) for video in videos])

    def sound_groups(self, videos: Sequence[str]) -> NDArray[Any]:
        """For each video the name of its sound file, else its own name."""
        return np.array([self.sounds.get(video, video) for video in videos])

    def members(
        self, frame_videos: Sequence[Sequence[str]], sound_videos: Sequence[Sequence[str]]
    ) -> NDArray[Any]:
        """Everything that each result depends on, `[results, members]`.

        It is for `interval_over_members`.

        `frame_videos`, `sound_videos`: for each result the videos of its frames, and those of its
            sounds. Without shared files these are the members, each video once.
        """
        rows: list[list[str]] = []
        for frames, sounds in zip(frame_videos, sound_videos, strict=True):
            if not self.images:
                rows.append(list(dict.fromkeys([*frames, *sounds])))
                continue
            # An image and a sound of one name are two files.
            images = [f"image {self.images.get(video, video)}" for video in frames]
            rows.append(images + [f"sound {self.sounds.get(video, video)}" for video in sounds])
        # Without a result there are two axes too.
        return np.array(rows) if rows else np.empty((0, 0), np.str_)


NO_SHARED_FILES = SharedFiles({}, {})


def shared_files_of(clips: Shards, files: str | Path | None = None) -> SharedFiles:
    """The files that the videos of `clips` are composed of.

    `files`: a table with the columns path, image and sound; by default the labels.csv in the
        folder of the videos, where it has those columns. Without a table no video shares a file.

    Raises SourceError when `files` cannot be read, or names none of the videos.
    """
    videos = clips.video_ids.tolist()
    if files:
        return _named_in(files, videos)
    root = str(clips.manifest.get("root") or "")
    # Not every set of shards names the folder of its videos.
    if not root:
        return NO_SHARED_FILES
    return _of_rows(_rows_beside(Path(decode_name(root))), dict(zip(videos, videos, strict=True)))


def shared_files_of_sources(
    sources: Mapping[str, str], files: str | Path | None = None
) -> SharedFiles:
    """The files that videos on this machine are composed of.

    `sources`: the path of each video, with its video id. `files`: as in `shared_files_of`; by
    default the labels.csv beside each video. Raises SourceError as `shared_files_of` does.
    """
    if files:
        return _named_in(files, sources.values())
    folders: dict[Path, dict[str, str]] = {}
    for source, video in sources.items():
        path = Path(decode_name(source))
        folders.setdefault(path.parent, {})[path.name] = video
    images: dict[str, str] = {}
    sounds: dict[str, str] = {}
    for folder, videos in folders.items():
        shared = _of_rows(_rows_beside(folder), videos)
        images |= shared.images
        sounds |= shared.sounds
    return SharedFiles(images, sounds)


def _named_in(table: str | Path, videos: Iterable[str]) -> SharedFiles:
    try:
        rows = _complete_rows(Path(table))
    except (OSError, SourceError) as error:
        raise SourceError(
            f"{table} cannot be read ({error}); give the labels.csv that `looklisten synth` wrote"
        ) from None
    shared = _of_rows(rows, {video: video for video in videos})
    if not shared.images:
        raise SourceError(
            f"{table} names none of these videos with a path, an image and a sound; "
            "give the labels.csv of their world"
        )
    return shared


def _rows_beside(folder: Path) -> list[dict[str, str]]:
    try:
        return _complete_rows(folder / TABLE)
    except (OSError, SourceError):
        # The labels.csv of other videos may be any table.
        return []


def _of_rows(rows: list[dict[str, str]], video_of_path: Mapping[str, str]) -> SharedFiles:
    known = [row for row in rows if row["path"] in video_of_path]
    images = {video_of_path[row["path"]]: row["image"] for row in known}
    sounds = {video_of_path[row["path"]]: row["sound"] for row in known}
    return SharedFiles(images, sounds)


def _complete_rows(table: Path) -> list[dict[str, str]]:
    rows = []
    for row in read_table(str(table), table.read_bytes()).rows:
        cells = {column: row.text(column) for column in COLUMNS}
        if all(cells.values()):
            rows.append(cells)
    return rows
