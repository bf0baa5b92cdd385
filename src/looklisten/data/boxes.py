"""A table of boxes -> the boxes of each video."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from looklisten.data.clips import VideoBox
from looklisten.data.inputs import read_bytes, relative_path
from looklisten.data.sources import Source, as_file_name, is_remote, next_to, path_cell
from looklisten.errors import SourceError
from looklisten.names import encode_name, first_few
from looklisten.tables import Row, check_columns, read_table

_log = logging.getLogger("looklisten")

BOX_COLUMNS = ("path", "time", "x0", "y0", "x1", "y1", "label", "sounding")

BoxesByPath = dict[str, list[VideoBox]]
"""Path of a video -> its boxes."""


def read_boxes(table_path: str | Path) -> BoxesByPath:
    """The boxes of each video, by its path or address.

    Paths in the table start at the table's folder, as in every table. Times are seconds of the
    video. Raises SourceError if a column is missing or a cell cannot be read.
    """
    name = str(table_path)
    table = read_table(name, read_bytes(name))
    notes = check_columns(table, BOX_COLUMNS, frozenset(BOX_COLUMNS), {})
    for note in (*table.notes, *notes):
        _log.info("%s", note)
    boxes: BoxesByPath = defaultdict(list)
    for row in table.rows:
        path = path_cell(row).strip()
        if not is_remote(path):
            # `./a.mp4` and `a.mp4` are one file.
            path = os.path.normpath(next_to(name, as_file_name(path)))
        boxes[path].append(_box(row))
    return dict(boxes)


def _box(row: Row) -> VideoBox:
    video_seconds = row.seconds("time")
    if video_seconds is None:
        raise SourceError(f"{row.location}: the time is missing")
    x0, y0, x1, y1 = (row.number(column) for column in ("x0", "y0", "x1", "y1"))
    return VideoBox(video_seconds, x0, y0, x1, y1, row.text("label"), row.boolean("sounding"))


def boxes_of_sources(boxes: BoxesByPath, root: Path, sources: Iterable[Source]) -> BoxesByPath:
    """`boxes` by `Source.path`, which starts at `root`. Warns of boxes that match no source."""
    by_source_path: BoxesByPath = defaultdict(list)
    for path, boxes_of_file in boxes.items():
        local_or_remote = path if is_remote(path) else relative_path(path, root)
        by_source_path[encode_name(local_or_remote)] += boxes_of_file
    known = {source.path for source in sources}
    unmatched = sorted(by_source_path.keys() - known)
    if unmatched:
        _log.warning(
            "the table of boxes has %d files that are not among the sources; "
            "their boxes are left out: %s",
            len(unmatched),
            first_few(unmatched),
        )
    return dict(by_source_path)
