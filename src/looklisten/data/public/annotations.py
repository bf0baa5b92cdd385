"""The annotations of public sets, as their owners distribute them -> records.

Each owner's format is one entry of `ANNOTATION_FORMATS`. Knows files of annotations, no video and
no folder.
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

from looklisten.cells import cell_text
from looklisten.errors import SourceError
from looklisten.names import parse_split
from looklisten.tables import decode_text

CLIP_SECONDS = 10.0
"""Length of a clip if its annotation has only the start (VGGSound)."""

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
class AnnotationFormat:
    """How an owner writes annotations."""

    columns: tuple[str, ...]
    """In this order, unless the file has a header of its own."""
    example: str
    """A line, for error messages."""
    has_header: bool = False
    has_many_labels: bool = False


_KINETICS = AnnotationFormat(
    ("youtube_id", "time_start", "time_end"),
    "testifying,---QUuC4vJs,84,94,validate",
    has_header=True,
)
ANNOTATION_FORMATS: dict[str, AnnotationFormat] = {
    "kinetics": _KINETICS,
    "kinetics-sounds": _KINETICS,
    "vggsound": AnnotationFormat(
        ("youtube_id", "time_start", "label", "split"),
        '--9O4XZOge4,30,"female speech, woman speaking",train',
    ),
    "audioset": AnnotationFormat(
        ("youtube_id", "time_start", "time_end", "label"),
        '-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j"',
        has_many_labels=True,
    ),
}


def read_annotations(name: VideoSet, file: Path, titles: Mapping[str, str]) -> Iterator[Annotation]:
    """The annotations of an owner's file.

    `titles`: readable names of labels that are codes. Raises SourceError with the file and the line
    if it is not as the owner writes it.
    """
    annotation_format = ANNOTATION_FORMATS[name]
    lines = _lines(file)
    columns = list(annotation_format.columns)
    if annotation_format.has_header:
        _, header = next(lines, (0, []))
        columns = [cell.strip().lower() for cell in header]
    missing = [column for column in annotation_format.columns if column not in columns]
    if missing:
        present = ", ".join(columns) or "nothing"
        raise SourceError(
            f"{file}, line 1: lacks the column {', '.join(missing)}, has {present}; "
            f"use the file that {name}'s owner distributes"
        )
    split_of_name = None if "split" in columns else _split_of_name(file)
    for line, cells in lines:
        try:
            yield _annotation(annotation_format, columns, cells, split_of_name, titles)
        except ValueError as error:
            raise SourceError(
                f"{file}, line {line}: {error}; a line of {name} looks like "
                f"{annotation_format.example}, so use the file that its owner distributes"
            ) from None


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """(number, cells) of the lines of a CSV file that are no comments."""
    try:
        text, notes = decode_text(str(file), file.read_bytes())
        if notes:
            raise SourceError(
                f"{file} cannot be read as a CSV file (it is not UTF-8); "
                "use the file as its owner distributes it"
            )
        reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
        for cells in reader:
            if cells and not cells[0].startswith("# "):
                yield reader.line_num, [cell_text(cell) for cell in cells]
    except (OSError, csv.Error) as error:
        raise SourceError(
            f"{file} cannot be read as a CSV file ({error}); "
            "use the file as its owner distributes it"
        ) from None


def _annotation(
    annotation_format: AnnotationFormat,
    columns: Sequence[str],
    cells: Sequence[str],
    split_of_name: str | None,
    titles: Mapping[str, str],
) -> Annotation:
    if len(cells) != len(columns):
        raise ValueError(
            f"has {len(cells)} columns instead of {len(columns)}: {', '.join(columns)}"
        )
    row = dict(zip(columns, cells, strict=True))
    video_id = row["youtube_id"].strip()
    label = row.get("label", "").strip()
    if not _YOUTUBE_ID.fullmatch(video_id):
        raise ValueError(
            f"youtube_id is {video_id!r}, which is no YouTube id (11 letters, digits, - and _)"
        )
    start_seconds = _seconds(row, "time_start")
    stop_seconds = _seconds(row, "time_end") if "time_end" in row else start_seconds + CLIP_SECONDS
    split = split_of_name or parse_split(row["split"])
    if not split:
        raise ValueError(
            f"split is {row['split']!r}, "
            "which is none of train, training, val, validate, test, eval and the like"
        )
    if not label and split != "test":
        raise ValueError("there is no label, which only a test split may lack")
    codes: list[str] = []
    if annotation_format.has_many_labels:
        codes = label.split(",")
    elif label:
        codes = [label]
    labels = tuple(titles.get(code.strip(), code.strip()) for code in codes)
    return Annotation(video_id, start_seconds, stop_seconds, labels, split)


def _seconds(row: Mapping[str, str], column: str) -> float:
    try:
        seconds = float(row[column])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{column} is {row[column]!r}, which is no time in seconds")
    return seconds


def _split_of_name(file: Path) -> str:
    """The split in the name of a file: eval_segments.csv is of the split test."""
    words = re.findall("[a-z]+", file.stem.lower())
    splits = {parse_split(word) for word in words} - {""}
    if len(splits) != 1:
        raise SourceError(
            f"{file} has no column split, and its name has none; "
            "give it a name with one of train, val, test or eval in it"
        )
    return splits.pop()


def read_titles(file: Path) -> dict[str, str]:
    """Readable names of AudioSet's labels, from ontology.json or class_labels_indices.csv."""
    try:
        if file.suffix.lower() == ".json":
            entries = json.loads(file.read_text(encoding="utf-8-sig"))
            return {entry["id"]: entry["name"] for entry in entries}
        lines = _lines(file)
        _, header = next(lines)
        code_column = header.index("mid")
        title_column = header.index("display_name")
        return {cells[code_column]: cells[title_column] for _, cells in lines}
    except (OSError, ValueError, KeyError, TypeError, IndexError, StopIteration):
        raise SourceError(
            f"{file} has no names of labels; use AudioSet's ontology.json (id, name) "
            "or class_labels_indices.csv (index, mid, display_name)"
        ) from None
