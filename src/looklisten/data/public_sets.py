"""A public set on disk -> our table, which `prepare` reads: one line a clip, with its label, video
and split.

Annotations and files meet by YouTube id and start; file names are read by one pattern and the
folder is walked once. Opens no video and knows no network.
"""

import csv
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from looklisten.data.annotations import Annotation, VideoSet, read_annotations, read_titles
from looklisten.errors import ConfigError, SourceError
from looklisten.media.formats import VIDEO_SUFFIXES
from looklisten.names import printable
from looklisten.system.files import atomic_write
from looklisten.system.folders import find_files

log = logging.getLogger("looklisten")

COLUMNS = ("path", "label", "start_seconds", "stop_seconds", "video_id", "split")
HELD_OUT = {"train": 0, "val": 1, "test": 2}
"""How far each split is held out."""

ClassList = Literal["kinetics-400", "paper"]
_PLAYED = """accordion, bagpipes, bass guitar, clarinet, drums, guitar, harmonica, keyboard, organ, piano, saxophone, trombone, trumpet,
    violin, xylophone"""
_OTHERS = {
    "kinetics-400": """blowing nose, blowing out candles, bowling, chopping wood, dribbling basketball, laughing, mowing lawn,
        ripping paper, shoveling snow, shuffling cards, singing, stomping grapes, strumming guitar, tap dancing, tapping guitar,
        tapping pen, tickling""",
    "paper": """blowing nose, blowing out, bowling, chopping wood, dribbling ball, fingerpicking, laughing,
        mowing the lawn by pushing lawnmower, patting, ripping paper, shoveling snow, shuffling cards, singing, stomping, tap dancing,
        tapping guitar, tapping pen, tickling, typing""",
}
KINETICS_SOUNDS: dict[str, tuple[str, ...]] = {
    listed: tuple(
        sorted(
            [*re.split(r",\s+", names), *(f"playing {one}" for one in re.split(r",\s+", _PLAYED))]
        )
    )
    for listed, names in _OTHERS.items()
}
"""Kinetics-Sounds: the 32 classes that later work takes from Kinetics-400; the paper's own 34,
named as before Kinetics came out.
"""

Index = dict[str, dict[int | None, str]]
"""Paths below the folder by id, then by start in milliseconds, None where the name tells no start."""

_STEM = re.compile(r"Y??([A-Za-z0-9_-]{11})((?:[_-]\d+(?:\.\d+)?){0,2})(?:\.mp4)?")
"""The name of a video: perhaps a Y, the id, start and stop, and a first suffix, which some
downloaders leave.
"""


def index_videos(folder: Path, whole_videos: bool) -> tuple[Index, str]:
    """Every video in and below `folder`, and the first path of all; of two files of one clip the
    first is taken.
    """
    index: Index = {}
    first = ""
    account = find_files(folder, VIDEO_SUFFIXES.__contains__)
    for problem, reason in account.problems:
        log.warning("%s is left out: %s", printable(problem), reason)
    if others := account.others():
        log.info("%s", others)
    top = len(os.path.abspath(folder).rstrip(os.sep)) + 1  # noqa: PTH100 (a Path for each of two million names is slow)
    for file in account.files:
        path = file.path[top:].replace(os.sep, "/")
        first = min(first or path, path)
        stem, _ = os.path.splitext(path.rpartition("/")[2])  # noqa: PTH122
        if named := _STEM.fullmatch(stem):
            files = index.setdefault(named[1], {})
            for start in [None] if whole_videos or not named[2] else _starts_milliseconds(named[2]):
                files[start] = min(files.get(start, path), path)
    return index, first


def _starts_milliseconds(numbers: str) -> list[int]:
    """What `_000030`, `_30.000_40.000` or `_30000_40000` may mean as the start: one whole number
    alone tells no unit.
    """
    texts = re.split("[_-]", numbers)[1:]
    start, length = float(texts[0]), float(texts[-1]) - float(texts[0])
    scales = [1000] if "." in texts[0] or 0 < length < 1000 else [1] if length > 0 else [1000, 1]
    return [round(start * scale) for scale in scales]


@dataclass
class _Matched:
    """How many annotations there are, their labels, and the lines of our table by path, start and
    stop: video, labels, split.
    """

    lines: dict[tuple[str, float | str, float | str], tuple[str, dict[str, None], str]] = field(
        default_factory=dict
    )
    annotated: set[str] = field(default_factory=set)
    rows: int = 0
    found: int = 0
    left_out: int = 0


def _match(
    described: Iterable[Annotation], index: Index, classes: frozenset[str], whole_videos: bool
) -> _Matched:
    """The files of the annotations of `classes` (none: of all); the others too tell which videos
    have several clips or splits.
    """
    matched = _Matched()
    start_of: dict[str, float] = {}
    held_out: dict[str, int] = {}
    several: set[str] = set()
    kept: list[Annotation] = []
    for one in described:
        wanted = not classes or not classes.isdisjoint(one.labels)
        if wanted:
            matched.rows += 1
            matched.annotated.update(one.labels)
        if one.video_id in index:
            held_out[one.video_id] = max(held_out.get(one.video_id, 0), HELD_OUT[one.split])
            if (
                start_of.setdefault(one.video_id, one.start_seconds) != one.start_seconds
                and not whole_videos
            ):
                several.add(one.video_id)
            if wanted:
                kept.append(one)
    for one in kept:
        files = index[one.video_id]
        path = files.get(round(one.start_seconds * 1000)) or (
            files.get(None) if one.video_id not in several else None
        )
        if path and HELD_OUT[one.split] < held_out[one.video_id]:
            matched.left_out += 1
        elif path:
            matched.found += 1
            times = (one.start_seconds, one.stop_seconds) if whole_videos else ("", "")
            _, labels, _ = matched.lines.setdefault((path, *times), (one.video_id, {}, one.split))
            labels.update(dict.fromkeys(one.labels))
    return matched


def table(
    name: VideoSet,
    annotations: str | Path,
    videos: str | Path,
    out: str | Path,
    classes: ClassList = "kinetics-400",
    ontology: str | Path | None = None,
    whole_videos: bool = False,
) -> dict[str, Any]:
    """Write the table `out` of the clips that `annotations` describe and the folder `videos` holds,
    in it or below.

    A file without numbers in its name is the clip of that id, unless several are annotated. With
    `whole_videos` the files are whole videos, matched by id alone, and the table says where each
    clip starts and stops. A video that its owner has in two splits stays in the one held out
    furthest. `classes` is for kinetics-sounds, `ontology` for audioset.

    Returns rows (annotations) = found + missing (no such file) + left_out (of a video that a split
    held out further has too); videos, labels, table, and for kinetics-sounds the list of classes
    and those without annotation. Raises SourceError when the annotations are not as their owner
    writes them or no file matches, ConfigError when `out` cannot be.
    """
    annotations, videos, out = Path(annotations), Path(videos), Path(out)
    _check(annotations, videos, out)
    described = read_annotations(name, annotations, read_titles(Path(ontology)) if ontology else {})
    example = next(
        described, None
    )  # what is wrong with the file is said before the folder is walked, which may take minutes
    if example is None:
        raise SourceError(
            f"{annotations} has no annotation; give the file that {name}'s owner distributes"
        )
    listed = KINETICS_SOUNDS[classes] if name == "kinetics-sounds" else ()
    index, first = index_videos(videos, whole_videos)
    matched = _match(chain([example], described), index, frozenset(listed), whole_videos)
    if not matched.rows:
        raise SourceError(
            f"{annotations} has no annotation of the {len(listed)} classes of {classes}; give the file that Kinetics' owner distributes, "
            "with its labels"
        )
    if not matched.lines:
        wanted, start = example.video_id, round(example.start_seconds)
        raise SourceError(
            f"{videos} holds no clip of {annotations}: looked in it and below for names such as {wanted}.mp4, {wanted}_{start:06d}.mp4 "
            f"or {wanted}_{start * 1000}.mp4, found {first or 'no video'}; name the videos by YouTube id, or give another folder"
        )
    _write(out, videos, matched)
    result: dict[str, Any] = {"set": name, "rows": matched.rows, "found": matched.found}
    result |= {
        "missing": matched.rows - matched.found - matched.left_out,
        "left_out": matched.left_out,
    }
    result["videos"] = len({video_id for video_id, _, _ in matched.lines.values()})
    result["labels"] = len({label for _, labels, _ in matched.lines.values() for label in labels})
    if listed:
        without = [label for label in listed if label not in matched.annotated]
        result["classes"] = {"list": classes, "names": len(listed), "without_annotation": without}
    return result | {"table": str(out)}


def _check(annotations: Path, videos: Path, out: Path) -> None:
    if not annotations.is_file():
        raise SourceError(
            f"there is no file {annotations}; give the annotations that the set's owner distributes"
        )
    if not videos.is_dir():
        raise SourceError(f"there is no folder {videos}; give the folder that holds the videos")
    if out.is_dir() or out.suffix.lower() != ".csv" or out.resolve() == annotations.resolve():
        raise ConfigError(f"the table cannot be {out}; name a new file whose name ends in .csv")


def _write(out: Path, videos: Path, matched: _Matched) -> None:
    """The table, ordered by path; its paths start from its own folder, so that table and videos can
    move together.
    """
    way = Path(os.path.relpath(os.path.realpath(videos), os.path.realpath(out.parent))).as_posix()
    with (
        atomic_write(out) as scratch,
        scratch.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (path, start, stop), (video_id, labels, split) in sorted(
            matched.lines.items(), key=lambda line: line[0]
        ):
            writer.writerow(
                (f"{way}/{path}".removeprefix("./"), "|".join(labels), start, stop, video_id, split)
            )
