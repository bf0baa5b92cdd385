"""What the owners of public sets write about their clips, read as records. Each owner's format is a
row of `LAYOUTS`.

Knows files of annotations alone: no video, no folder, no table of ours.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from looklisten.errors import SourceError
from looklisten.names import parse_split
from looklisten.tables import cell_text, decode_text

CLIP_SECONDS = 10.0
"""Length of a clip where its annotation tells only the start (VGGSound)."""

VideoSet = Literal["kinetics", "kinetics-sounds", "vggsound", "audioset"]

_YOUTUBE_ID = re.compile("[A-Za-z0-9_-]{11}")


class Annotation(NamedTuple):
    """One clip as its owner describes it; `split` is train, val or test."""

    video_id: str
    start_seconds: float
    stop_seconds: float
    labels: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class Layout:
    """How an owner writes an annotation: the columns, in this order unless the file has a header of
    its own.
    """

    columns: tuple[str, ...]
    line: str
    has_header: bool = False
    has_many_labels: bool = False


_KINETICS = Layout(
    ("youtube_id", "time_start", "time_end"),
    "testifying,---QUuC4vJs,84,94,validate",
    has_header=True,
)
LAYOUTS: dict[str, Layout] = {
    "kinetics": _KINETICS,
    "kinetics-sounds": _KINETICS,
    "vggsound": Layout(
        ("youtube_id", "time_start", "label", "split"),
        '--9O4XZOge4,30,"female speech, woman speaking",train',
    ),
    "audioset": Layout(
        ("youtube_id", "time_start", "time_end", "label"),
        '-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j"',
        has_many_labels=True,
    ),
}


def read_annotations(name: VideoSet, file: Path, titles: Mapping[str, str]) -> Iterator[Annotation]:
    """The annotations of an owner's file; `titles` are readable names of labels that are codes.

    Raises SourceError with the file and the line of what is not as the owner writes it.
    """
    layout, lines = LAYOUTS[name], _lines(file)
    columns = (
        [cell.strip().lower() for cell in next(lines, (0, []))[1]]
        if layout.has_header
        else list(layout.columns)
    )
    if lacking := [column for column in layout.columns if column not in columns]:
        has = ", ".join(columns) or "nothing"
        raise SourceError(
            f"{file}, line 1: lacks the column {', '.join(lacking)}, has {has}; give the file that {name}'s owner distributes"
        )
    split_of_name = None if "split" in columns else _split_of_name(file)
    for line, cells in lines:
        try:
            yield _annotation(layout, columns, cells, split_of_name, titles)
        except ValueError as error:
            raise SourceError(
                f"{file}, line {line}: {error}; a line of {name} is like {layout.line} so give the file that its owner distributes"
            ) from None


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV file and their numbers, without comments; a byte-order mark and any line
    ends do no harm.
    """
    try:
        text, notes = decode_text(str(file), file.read_bytes())
        if notes:
            raise SourceError(
                f"{file} cannot be read as a CSV file (it is not UTF-8); give the file as its owner distributes it"
            )
        reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
        for cells in reader:
            if cells and not cells[0].startswith("# "):
                yield reader.line_num, [cell_text(cell) for cell in cells]
    except (OSError, csv.Error) as error:
        raise SourceError(
            f"{file} cannot be read as a CSV file ({error}); give the file as its owner distributes it"
        ) from None


def _annotation(
    layout: Layout,
    columns: Sequence[str],
    cells: Sequence[str],
    split_of_name: str | None,
    titles: Mapping[str, str],
) -> Annotation:
    if len(cells) != len(columns):
        raise ValueError(
            f"has {len(cells)} columns instead of the {len(columns)} that are {', '.join(columns)}"
        )
    row = dict(zip(columns, cells, strict=True))
    video_id, label = row["youtube_id"].strip(), row.get("label", "").strip()
    if not _YOUTUBE_ID.fullmatch(video_id):
        raise ValueError(
            f"youtube_id is {video_id!r}, which is no YouTube id (11 letters, digits, - and _)"
        )
    start_seconds = _seconds(row, "time_start")
    stop_seconds = _seconds(row, "time_end") if "time_end" in row else start_seconds + CLIP_SECONDS
    split = split_of_name or parse_split(row["split"])
    if not split:
        raise ValueError(
            f"split is {row['split']!r}, which is none of train, training, val, validate, test, eval or their like"
        )
    if not label and split != "test":
        raise ValueError("there is no label, which only a test split may lack")
    labels = label.split(",") if layout.has_many_labels else [label] if label else []
    return Annotation(
        video_id,
        start_seconds,
        stop_seconds,
        tuple(titles.get(one.strip(), one.strip()) for one in labels),
        split,
    )


def _seconds(row: Mapping[str, str], column: str) -> float:
    try:
        seconds = float(row[column])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{column} is {row[column]!r}, which is no time in seconds")
    return seconds


def _split_of_name(file: Path) -> str:
    """The split that the name of a file of annotations tells: eval_segments.csv is of the split
    test.
    """
    told = set(filter(None, map(parse_split, re.findall("[a-z]+", file.stem.lower()))))
    if len(told) != 1:
        raise SourceError(
            f"{file} has no column split and its name tells none; give it a name with one of train, val, test or eval in it"
        )
    return told.pop()


def read_titles(file: Path) -> dict[str, str]:
    """Readable names of AudioSet's labels, out of ontology.json or class_labels_indices.csv."""
    try:
        if file.suffix.lower() == ".json":
            return {
                one["id"]: one["name"] for one in json.loads(file.read_text(encoding="utf-8-sig"))
            }
        lines = _lines(file)
        _, header = next(lines)
        mid, title = header.index("mid"), header.index("display_name")
        return {cells[mid]: cells[title] for _, cells in lines}
    except (OSError, ValueError, KeyError, TypeError, IndexError, StopIteration):
        wanted = "ontology.json (id, name) or class_labels_indices.csv (index, mid, display_name)"
        raise SourceError(f"{file} tells no names of labels; give AudioSet's {wanted}") from None
