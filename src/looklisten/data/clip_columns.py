"""The small columns of all clips in one file, so that a loader need not open every shard.

`columns.feather`, an Arrow file, holds what training reads of every clip. It also holds two values
of each clip's video, which are slow to compute for millions of clips: its number in the order of
ids, and the hash that `data.shards` splits videos by. `prepare` writes the file. Without it, the
columns are read from the shards. Decides no split.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from looklisten.data.shard_files import SCHEMA, ShardFiles, map_file
from looklisten.media import SAMPLE_RATE_HZ

COLUMNS_FILE = "columns.feather"
SHARDS_KEY = b"looklisten.shards"
"""The key in the metadata of a file; its value identifies the shards of the columns."""
STORED_COLUMNS = (
    "video_id",
    "split",
    "labels",
    "sample_rate_hz",
    "duration_seconds",
    "marks",
    "frame_seconds",
)
"""Columns that are copied from the shards."""
_BATCH_SCHEMA = pa.schema([SCHEMA.field(name) for name in STORED_COLUMNS])
"""The columns of one batch of sources, the unit of work of `prepare`."""
_SET_SCHEMA = _BATCH_SCHEMA.append(pa.field("video_number", pa.int64())).append(
    pa.field("video_hash", pa.float64())
)
"""The columns of all clips."""
# Many rows, because reading the metadata of a record batch takes longer than reading its values.
ROWS_PER_RECORD_BATCH = 1 << 16
"""The rows of a record batch, the part of an Arrow file that is written at once.

Only the last one has fewer, so the number of a row gives its record batch.
"""

_log = logging.getLogger("looklisten")


def columns_of_shards(folder: Path, shards: Sequence[dict[str, Any]]) -> pa.Table:
    """The columns of some shards, read from the shards themselves.

    `shards`: their entries in `index.json`, or in the record of a batch of sources.
    """
    files = ShardFiles(folder, {"shards": shards}, open_record_batches=1, read_ahead=False)
    return files.columns(STORED_COLUMNS).replace_schema_metadata({SHARDS_KEY: _digest(shards)})


def to_bytes(columns: pa.Table) -> bytes:
    """The columns of a batch of sources, as the content of a file."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, columns.schema) as writer:
        writer.write_table(columns.combine_chunks())
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def from_bytes(data: bytes | None, shards: Sequence[dict[str, Any]]) -> pa.Table | None:
    """The columns in a file; None if the file is absent, damaged or of other shards."""
    if data is None:
        return None
    return _of_these_shards(pa.py_buffer(data), shards, _BATCH_SCHEMA)


def write_columns(
    path: Path,
    video_ids: Sequence[pa.ChunkedArray],
    batches: Iterable[pa.Table | None],
    shards: Sequence[dict[str, Any]],
) -> None:
    """Write the columns of all clips.

    `video_ids` and `batches`: the ids and the columns of each batch of sources, in order. The ids
    are needed at once, while `batches` is read once, one at a time.
    """
    chunks = [chunk for of_batch in video_ids for chunk in of_batch.chunks]
    videos, numbers = number_videos(pa.chunked_array(chunks, pa.string()))
    hashes = video_hashes(text_list(videos))[numbers]
    schema = _SET_SCHEMA.with_metadata({SHARDS_KEY: _digest(shards)})
    # As bytes, because the name of a folder may not be valid UTF-8.
    with pa.OSFile(os.fsencode(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        first = 0
        for table in _in_equal_parts(batches):
            rows = slice(first, first + len(table))
            columns = [*table.columns, pa.array(numbers[rows]), pa.array(hashes[rows])]
            writer.write_table(pa.table(columns, schema=schema).combine_chunks())
            first += len(table)


def _in_equal_parts(tables: Iterable[pa.Table | None]) -> Iterator[pa.Table]:
    """The rows of all tables, `ROWS_PER_RECORD_BATCH` at a time."""
    waiting = _BATCH_SCHEMA.empty_table()
    for table in tables:
        # None only in the type: the caller took `video_ids` from the columns of every batch.
        assert table is not None
        waiting = pa.concat_tables([waiting, table.replace_schema_metadata(None)])
        while len(waiting) >= ROWS_PER_RECORD_BATCH:
            yield waiting.slice(0, ROWS_PER_RECORD_BATCH)
            waiting = waiting.slice(ROWS_PER_RECORD_BATCH)
    if len(waiting):
        yield waiting


def open_columns(folder: Path, shards: Sequence[dict[str, Any]]) -> pa.Table | None:
    """The file of columns, memory-mapped; None where it is absent or does not fit the shards.

    A warning says why it is not used.
    """
    path = folder / COLUMNS_FILE
    if not path.exists():
        return None
    table = None
    if path.stat().st_size:
        table = _of_these_shards(map_file(path, read_ahead=True), shards, _SET_SCHEMA)
    if table is None:
        _log.warning(
            "%s is damaged or of other shards, so the shards are read instead, which takes longer; "
            "run the same `looklisten prepare` again, it writes the file anew",
            path,
        )
    return table


def _of_these_shards(
    data: pa.Buffer, shards: Sequence[dict[str, Any]], schema: pa.Schema
) -> pa.Table | None:
    """The table in the content of a file, if it is complete and of these shards; else None."""
    try:
        table = pa.ipc.open_file(data).read_all()
    except (pa.ArrowInvalid, OSError):
        return None
    metadata = table.schema.metadata or {}
    clips = sum(shard["clips"] for shard in shards)
    fits = metadata.get(SHARDS_KEY) == _digest(shards) and len(table) == clips
    # A later version may have other columns.
    return table if fits and table.schema.equals(schema, check_metadata=False) else None


def _digest(shards: Sequence[dict[str, Any]]) -> bytes:
    """A hash of the names and contents of shards."""
    contents = [[shard["name"], shard["bytes"], shard["sha256"]] for shard in shards]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest().encode()


class FrameTimes:
    """The times of the frames and the number of samples of each clip, by its row.

    `columns`: those of `open_columns`, whose record batches have equal lengths.
    """

    def __init__(self, columns: pa.Table) -> None:
        # Views of the memory map: a lookup takes microseconds and makes no Arrow objects.
        self._offsets = []
        self._seconds = []
        for chunk in columns["frame_seconds"].chunks:
            self._offsets.append(chunk.offsets.to_numpy())
            self._seconds.append(chunk.values.to_numpy())
        self._clip_seconds = [chunk.to_numpy() for chunk in columns["duration_seconds"].chunks]

    def frame_seconds(self, row: int) -> NDArray[np.float64]:
        """The time of each stored frame of a clip, `[frames]`, in seconds from its start."""
        number, row_in_batch = divmod(row, ROWS_PER_RECORD_BATCH)
        first, stop = self._offsets[number][row_in_batch : row_in_batch + 2]
        seconds: NDArray[np.float64] = self._seconds[number][first:stop]
        return seconds

    def samples(self, row: int) -> int:
        """The number of samples of a clip's sound."""
        number, row_in_batch = divmod(row, ROWS_PER_RECORD_BATCH)
        # Exact: the duration is this number divided by the rate.
        return round(float(self._clip_seconds[number][row_in_batch]) * SAMPLE_RATE_HZ)


class VideoNumbers:
    """The videos of a set by number, in order of their ids.

    `of_clips`, `[clips]`, is the number of each clip's video; `count` is how many videos there are.
    """

    def __init__(self, columns: pa.Table) -> None:
        self._ids = columns["video_id"]
        self._hashes: NDArray[np.float64] | None = None
        # Numbers and hashes are in the file of columns, not in the shards.
        if "video_number" in columns.column_names:
            self.of_clips: NDArray[np.int64] = columns["video_number"].to_numpy()
            count = int(self.of_clips.max(initial=-1)) + 1
            # From the last clip to the first, so that the first clip of a video remains.
            self._first_clips = np.zeros(count, np.int64)
            self._first_clips[self.of_clips[::-1]] = np.arange(len(self.of_clips))[::-1]
            self._hashes = columns["video_hash"].to_numpy()[self._first_clips]
        else:
            # Sets the cached property `ids`, which is then not computed from `_first_clips`.
            self.ids, self.of_clips = number_videos(self._ids)
            count = len(self.ids)
        self.count = count

    @cached_property
    def ids(self) -> pa.Array:
        """The id of each video, `[videos]`."""
        ids = self._ids.cast(pa.large_string()).combine_chunks()
        return ids.take(pa.array(self._first_clips))

    @cached_property
    def hashes(self) -> NDArray[np.float64]:
        """`video_hashes` of each video, `[videos]`."""
        return video_hashes(text_list(self.ids)) if self._hashes is None else self._hashes


def number_videos(video_ids: pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int64]]:
    """The distinct ids, sorted, and for each clip the number of its id among them."""
    # Arrow sorts texts several times as fast as NumPy, and in the same order: UTF-8 has the order
    # of code points. Large offsets, because all ids in one array may be more than 2 GB.
    ids = video_ids.cast(pa.large_string()).combine_chunks()
    order = pc.sort_indices(ids).to_numpy()
    in_order = ids.take(pa.array(order))
    is_first = np.ones(len(ids), dtype=bool)
    is_first[1:] = pc.not_equal(in_order[1:], in_order[:-1]).to_numpy(zero_copy_only=False)
    numbers = np.empty(len(ids), dtype=np.int64)
    numbers[order] = np.cumsum(is_first) - 1
    return in_order.filter(pa.array(is_first)), numbers


def video_hashes(videos: Sequence[str], salt: str = "") -> NDArray[np.float64]:
    """A number from 0 to below 1 for each video id, `[videos]`.

    `data.shards` holds out the videos with the lowest. Another `salt` gives other numbers.
    """
    # A hash, not a random draw: a new video then changes the split of no other video.
    digests = bytearray()
    for video in videos:
        # 6 bytes are 48 bits, which a float holds exactly. Zeros fill them up to an integer of 8.
        digests += b"\0\0" + hashlib.sha256((salt + video).encode()).digest()[:6]
    hashes: NDArray[np.float64] = np.frombuffer(digests, ">u8") / 2**48
    return hashes


def text_list(column: pa.Array | pa.ChunkedArray) -> list[str]:
    """A column of texts as a list."""
    # Several times as fast as `to_pylist`.
    values: list[str] = column.to_numpy(zero_copy_only=False).tolist()
    return values


def text_array(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """A column of texts as an array."""
    # `to_numpy` gives an array of Python objects; the dtype makes it one of characters.
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.str_)
