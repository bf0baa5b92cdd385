"""A public set on disk -> the table that `prepare` reads: one row for each clip.

Annotations and files are matched by YouTube id and start. File names are read by one pattern, and
the folder is searched once. Opens no video.
"""

import csv
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from looklisten.data.public.annotations import Annotation, VideoSet, read_annotations, read_titles
from looklisten.errors import ConfigError, SourceError
from looklisten.media.formats import VIDEO_SUFFIXES
from looklisten.system.files import atomic_write
from looklisten.system.folders import find_files

PREPARE_COLUMNS = ("path", "label", "start_seconds", "stop_seconds", "video_id", "split")

HELD_OUT_RANK = {"train": 0, "val": 1, "test": 2}
"""A video in two splits stays in the one with the higher rank."""

ClassList = Literal["kinetics-400", "paper"]

_PLAYED_INSTRUMENTS = """accordion, bagpipes, bass guitar, clarinet, drums, guitar, harmonica,
    keyboard, organ, piano, saxophone, trombone, trumpet, violin, xylophone"""
_OTHER_CLASSES = {
    "kinetics-400": """blowing nose, blowing out candles, bowling, chopping wood,
        dribbling basketball, laughing, mowing lawn, ripping paper, shoveling snow, shuffling cards,
        singing, stomping grapes, strumming guitar, tap dancing, tapping guitar, tapping pen,
        tickling""",
    "paper": """blowing nose, blowing out, bowling, chopping wood, dribbling ball, fingerpicking,
        laughing, mowing the lawn by pushing lawnmower, patting, ripping paper, shoveling snow,
        shuffling cards, singing, stomping, tap dancing, tapping guitar, tapping pen, tickling,
        typing""",
}


def _class_names(other_classes: str) -> tuple[str, ...]:
    names = re.split(r",\s+", other_classes)
    names += [f"playing {instrument}" for instrument in re.split(r",\s+", _PLAYED_INSTRUMENTS)]
    return tuple(sorted(names))


KINETICS_SOUNDS: dict[str, tuple[str, ...]] = {
    name: _class_names(other_classes) for name, other_classes in _OTHER_CLASSES.items()
}
"""Kinetics-Sounds: the 32 classes that later work takes from Kinetics-400; the paper's own 34,
named as before Kinetics came out."""

VideoIndex = dict[str, dict[int | None, str]]
"""YouTube id -> start in milliseconds, None if the name has no start -> path below the folder."""

# An optional Y, the id, optional start and stop, and a first suffix, which some downloaders leave.
_STEM = re.compile(r"Y??([A-Za-z0-9_-]{11})((?:[_-]\d+(?:\.\d+)?){0,2})(?:\.mp4)?")


def index_videos(folder: Path, whole_videos: bool) -> tuple[VideoIndex, str]:
    """(the videos in and below `folder`, the first path of all).

    Of two files of one clip the first path counts.
    """
    index: VideoIndex = {}
    first = ""
    contents = find_files(folder, VIDEO_SUFFIXES.__contains__)
    contents.log_left_out(folder)
    # Text instead of Path: a set has two million names.
    top_length = len(os.path.abspath(folder).rstrip(os.sep)) + 1  # noqa: PTH100
    for file in contents.files:
        path = file.path[top_length:].replace(os.sep, "/")
        first = min(first or path, path)
        stem, _ = os.path.splitext(path.rpartition("/")[2])  # noqa: PTH122
        match = _STEM.fullmatch(stem)
        if not match:
            continue
        video_id, numbers = match.groups()
        starts: list[int | None] = [None]
        if numbers and not whole_videos:
            starts = list(_starts_milliseconds(numbers))
        files_of_video = index.setdefault(video_id, {})
        for start in starts:
            files_of_video[start] = min(files_of_video.get(start, path), path)
    return index, first


def _starts_milliseconds(numbers: str) -> list[int]:
    """The starts that `_000030`, `_30.000_40.000` or `_30000_40000` may mean.

    One integer alone may be seconds or milliseconds, so it gives two.
    """
    texts = re.split("[_-]", numbers)[1:]
    start = float(texts[0])
    length = float(texts[-1]) - start
    is_seconds = "." in texts[0] or 0 < length < 1000
    if is_seconds:
        return [round(start * 1000)]
    if length > 0:
        return [round(start)]
    return [round(start * 1000), round(start)]


@dataclass
class _TableRow:
    """One row of the table: a file, or a stretch of one."""

    video_id: str
    split: str
    labels: dict[str, None] = field(default_factory=dict)
    """Used as an ordered set."""


@dataclass
class _Matches:
    """The annotations that have a file."""

    rows: dict[tuple[str, float | str, float | str], _TableRow] = field(default_factory=dict)
    """(path, start, stop) -> row."""
    annotated_labels: set[str] = field(default_factory=set)
    annotations: int = 0
    matched: int = 0
    left_out: int = 0
    """Annotations of videos that a split with a higher rank has too."""


def _match(
    annotations: Iterable[Annotation],
    index: VideoIndex,
    classes: frozenset[str],
    whole_videos: bool,
) -> _Matches:
    """Match annotations with files.

    If there are `classes`, only their annotations count. The others still tell which videos have
    several clips or splits.
    """
    matches = _Matches()
    first_start: dict[str, float] = {}
    highest_rank: dict[str, int] = {}
    with_several_clips: set[str] = set()
    with_video: list[Annotation] = []
    for annotation in annotations:
        video_id = annotation.video_id
        counts = not classes or not classes.isdisjoint(annotation.labels)
        if counts:
            matches.annotations += 1
            matches.annotated_labels.update(annotation.labels)
        if video_id not in index:
            continue
        rank = HELD_OUT_RANK[annotation.split]
        highest_rank[video_id] = max(highest_rank.get(video_id, 0), rank)
        start = first_start.setdefault(video_id, annotation.start_seconds)
        if start != annotation.start_seconds and not whole_videos:
            with_several_clips.add(video_id)
        if counts:
            with_video.append(annotation)
    for annotation in with_video:
        is_only_clip = annotation.video_id not in with_several_clips
        path = _file_of(annotation, index[annotation.video_id], is_only_clip)
        if not path:
            continue
        if HELD_OUT_RANK[annotation.split] < highest_rank[annotation.video_id]:
            matches.left_out += 1
            continue
        matches.matched += 1
        stretch: tuple[float | str, float | str] = ("", "")
        if whole_videos:
            stretch = (annotation.start_seconds, annotation.stop_seconds)
        row = _TableRow(annotation.video_id, annotation.split)
        row = matches.rows.setdefault((path, *stretch), row)
        row.labels.update(dict.fromkeys(annotation.labels))
    return matches


def _file_of(annotation: Annotation, files: dict[int | None, str], is_only_clip: bool) -> str:
    """The file of an annotation, or ""."""
    path = files.get(round(annotation.start_seconds * 1000))
    if path:
        return path
    # A name without numbers could be any of several clips.
    return files.get(None, "") if is_only_clip else ""


def table(
    name: VideoSet,
    annotations: str | Path,
    videos: str | Path,
    out: str | Path,
    classes: ClassList = "kinetics-400",
    ontology: str | Path | None = None,
    whole_videos: bool = False,
) -> dict[str, Any]:
    """Write the table `out` of the clips in `annotations` whose files are in or below `videos`.

    A file without numbers in its name is the clip of that id, unless several are annotated. With
    `whole_videos` the files are whole videos, matched by id alone, and the table has the start and
    stop of each clip. A video that its owner has in two splits stays in one: test, else val, else
    train. `classes` is for kinetics-sounds, `ontology` for audioset.

    Returns rows (annotations) = found + missing (no such file) + left_out (of a video that is in a
    higher split too); videos, labels, table; for kinetics-sounds the list of classes and those
    without annotation. Raises SourceError if the annotations are not as their owner writes them or
    no file matches, ConfigError if `out` is not possible.
    """
    annotations, videos, out = Path(annotations), Path(videos), Path(out)
    _check_paths(annotations, videos, out)
    titles = read_titles(Path(ontology)) if ontology else {}
    all_annotations = read_annotations(name, annotations, titles)
    # The first one is read before the search, which may take minutes: a wrong file is reported at
    # once.
    example = next(all_annotations, None)
    if example is None:
        raise SourceError(
            f"{annotations} has no annotation; use the file that {name}'s owner distributes"
        )
    class_names = KINETICS_SOUNDS[classes] if name == "kinetics-sounds" else ()
    index, first_file = index_videos(videos, whole_videos)
    all_annotations = chain([example], all_annotations)
    matches = _match(all_annotations, index, frozenset(class_names), whole_videos)
    if not matches.annotations:
        raise SourceError(
            f"{annotations} has no annotation of the {len(class_names)} classes of {classes}; "
            "use the file that Kinetics' owner distributes, with its labels"
        )
    if not matches.rows:
        video_id, start = example.video_id, round(example.start_seconds)
        raise SourceError(
            f"{videos} holds no clip of {annotations}: looked in it and below for names such as "
            f"{video_id}.mp4, {video_id}_{start:06d}.mp4 or {video_id}_{start * 1000}.mp4, "
            f"found {first_file or 'no video'}; "
            "name the videos by YouTube id, or use another folder"
        )
    _write_table(out, videos, matches)
    labels = {label for row in matches.rows.values() for label in row.labels}
    result: dict[str, Any] = {
        "set": name,
        "rows": matches.annotations,
        "found": matches.matched,
        "missing": matches.annotations - matches.matched - matches.left_out,
        "left_out": matches.left_out,
        "videos": len({row.video_id for row in matches.rows.values()}),
        "labels": len(labels),
    }
    if class_names:
        without = [label for label in class_names if label not in matches.annotated_labels]
        result["classes"] = {
            "list": classes,
            "names": len(class_names),
            "without_annotation": without,
        }
    result["table"] = str(out)
    return result


def _check_paths(annotations: Path, videos: Path, out: Path) -> None:
    if not annotations.is_file():
        raise SourceError(
            f"there is no file {annotations}; use the annotations that the set's owner distributes"
        )
    if not videos.is_dir():
        raise SourceError(f"there is no folder {videos}; name the folder that holds the videos")
    if out.is_dir() or out.suffix.lower() != ".csv" or out.resolve() == annotations.resolve():
        raise ConfigError(f"the table cannot be {out}; name a new file whose name ends in .csv")


def _write_table(out: Path, videos: Path, matches: _Matches) -> None:
    """Write the rows in order of path.

    Paths start at the table's own folder, so that table and videos can be moved together.
    """
    folder = os.path.relpath(os.path.realpath(videos), os.path.realpath(out.parent))
    prefix = Path(folder).as_posix()
    with (
        atomic_write(out) as scratch,
        scratch.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(PREPARE_COLUMNS)
        for path, start, stop in sorted(matches.rows):
            row = matches.rows[path, start, stop]
            name = f"{prefix}/{path}".removeprefix("./")
            labels = "|".join(row.labels)
            writer.writerow((name, labels, start, stop, row.video_id, row.split))
