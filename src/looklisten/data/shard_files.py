"""The files of a set of shards: their columns, how clips are written, and how rows are read.

Files are Arrow IPC, memory-mapped. `index.json` names every file with its size and hash. Knows
clips, no split.
"""

import bisect
import hashlib
import itertools
import json
import mmap
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from looklisten.data.clips import Box, Clip
from looklisten.errors import ShardError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.system.files import atomic_write

FORMAT_VERSION = 1
# Small, as one look-up of training maps one record batch and reads a frame and a second of it.
CLIPS_PER_RECORD_BATCH = 8
"""Rows of each record batch but the last, so that the number of a row gives its record batch."""


# Shards name the time of a box `at_seconds`; `Box` says from where it counts.
_BOX = pa.struct(
    [
        ("at_seconds", pa.float64()),
        ("x0", pa.float32()),
        ("y0", pa.float32()),
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("label", pa.string()),
        ("sounding", pa.bool_()),
    ]
)
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("video_id", pa.string()),
        ("source", pa.string()),
        ("start_seconds", pa.float64()),
        ("duration_seconds", pa.float64()),
        ("frame_seconds", pa.list_(pa.float64())),
        ("frames", pa.list_(pa.binary())),
        ("waveform", pa.list_(pa.int16())),
        ("sample_rate_hz", pa.int32()),
        ("labels", pa.list_(pa.string())),
        ("split", pa.string()),
        ("boxes", pa.list_(_BOX)),
        ("marks", pa.list_(pa.string())),
    ],
    metadata={"looklisten.format": str(FORMAT_VERSION)},
)


def _row(clip: Clip) -> dict[str, Any]:
    row = {name: getattr(clip, name) for name in SCHEMA.names}
    row["boxes"] = [_box_row(box) for box in clip.boxes]
    return row


def _box_row(box: Box) -> dict[str, Any]:
    values = asdict(box)
    values["at_seconds"] = values.pop("clip_seconds")
    return values


def stored_box(row: dict[str, Any]) -> Box:
    """The box of one stored row."""
    clip_seconds = row.pop("at_seconds")
    return Box(clip_seconds, **row)


def write_shards(
    clips: Iterable[Clip], folder: Path, name: str, limit_bytes: int
) -> list[dict[str, Any]]:
    """Write `clips` as `NAME-000.arrow`, `NAME-001.arrow` … and return their index entries.

    `limit_bytes`: about the largest size of one file. The same clips give the same bytes. Each file
        is complete or absent, also after a crash.
    """
    entries: list[dict[str, Any]] = []
    record_batches = _record_batches(clips)
    record_batch = next(record_batches, None)
    while record_batch is not None:
        path = folder / f"{name}-{len(entries):03d}.arrow"
        written_bytes = 0
        clip_count = 0
        with (
            atomic_write(path) as scratch,
            # As bytes, because the name of a folder may be no UTF-8.
            pa.OSFile(os.fsencode(scratch), "wb") as sink,
            pa.ipc.new_file(sink, SCHEMA) as writer,
        ):
            # A file has at least one record batch, however large that is.
            while record_batch is not None and (
                not written_bytes or written_bytes + record_batch.nbytes <= limit_bytes
            ):
                writer.write_batch(record_batch)
                written_bytes += record_batch.nbytes
                clip_count += record_batch.num_rows
                record_batch = next(record_batches, None)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entries.append(
            {
                "name": path.name,
                "clips": clip_count,
                "bytes": path.stat().st_size,
                "sha256": digest,
            }
        )
    return entries


def _record_batches(clips: Iterable[Clip]) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, Any]] = []
    for clip in clips:
        rows.append(_row(clip))
        if len(rows) == CLIPS_PER_RECORD_BATCH:
            yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
            rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


OPEN_SHARDS = 128
"""So many files stay open at most. Some systems allow a process 256.

From Python 3.13 on a mapped file need not stay open.
"""


@dataclass(frozen=True, eq=False)
class _OpenShard:
    reader: pa.ipc.RecordBatchFileReader
    record_batches: dict[int, pa.RecordBatch] = field(default_factory=dict)
    """Those that were read, by their number."""


class ShardFiles:
    """Reads stored rows by number and keeps the record batches that were used last."""

    def __init__(
        self, path: Path, manifest: dict[str, Any], open_record_batches: int, read_ahead: bool
    ) -> None:
        self._paths = [path / shard["name"] for shard in manifest["shards"]]
        self._clip_counts = [shard["clips"] for shard in manifest["shards"]]
        self._first_row = [0, *itertools.accumulate(self._clip_counts)]
        self._read_ahead = read_ahead
        self._open_shards: OrderedDict[int, _OpenShard] = OrderedDict()
        self._most_record_batches = open_record_batches
        self._lock = threading.Lock()

    def find(self, row: int) -> tuple[pa.RecordBatch, int]:
        """The record batch that holds a stored row, and the number of the row in it."""
        shard = bisect.bisect_right(self._first_row, row) - 1
        # Every record batch but the last of a shard has the same number of rows.
        number, row_in_batch = divmod(row - self._first_row[shard], CLIPS_PER_RECORD_BATCH)
        open_shard = self._open_shards.get(shard)
        record_batch = open_shard.record_batches.get(number) if open_shard else None
        if record_batch is None:
            with self._lock:
                record_batch = self._read(shard, number)
        return record_batch, row_in_batch

    def _read(self, shard: int, number: int) -> pa.RecordBatch:
        """Read a record batch and keep it; close shards when too much is open."""
        open_shard = self._open_shards.get(shard)
        if open_shard is None:
            open_shard = _OpenShard(self._open(shard, self._read_ahead))
            self._open_shards[shard] = open_shard
        record_batch = open_shard.reader.get_batch(number)
        open_shard.record_batches[number] = record_batch
        # The shard that was opened first goes: training draws clips at random, so that the last
        # use of a shard tells nothing of its next one.
        while (
            len(self._open_shards) > OPEN_SHARDS
            or self._open_record_batches() > self._most_record_batches
        ):
            self._open_shards.popitem(last=False)
        return record_batch

    def _open_record_batches(self) -> int:
        return sum(len(shard.record_batches) for shard in self._open_shards.values())

    def columns(self, names: Sequence[str]) -> pa.Table:
        """These columns of all stored rows."""
        # A set may have no shard, and `concat_tables` needs at least one table.
        tables = [SCHEMA.empty_table().select(names)]
        numbers = [SCHEMA.get_field_index(name) for name in names]
        # Every record batch has metadata of all columns, and most of the time would be spent there.
        only_these = pa.ipc.IpcReadOptions(included_fields=numbers)
        for shard, clip_count in enumerate(self._clip_counts):
            # A column is a few pages of each record batch: reading ahead would read the frames and
            # sounds in between.
            reader = self._open(shard, read_ahead=False, options=only_these)
            views = reader.read_all().select(names)
            # `take` copies, so that the file can be closed.
            tables.append(views.take(np.arange(clip_count)))
        return pa.concat_tables(tables)

    def _open(
        self, shard: int, read_ahead: bool, options: pa.ipc.IpcReadOptions | None = None
    ) -> pa.ipc.RecordBatchFileReader:
        file = self._paths[shard]
        try:
            return pa.ipc.open_file(map_file(file, read_ahead), options=options)
        except pa.ArrowInvalid as error:
            raise ShardError(
                f"the shard {file} is damaged ({error}); "
                "delete it and run the same `looklisten prepare` again"
            ) from None


def map_file(file: Path, read_ahead: bool) -> pa.Buffer:
    """The file in memory. Without `read_ahead`, the advice is that only a few pages are read."""
    # Not `pa.memory_map`: it has the system read a whole record batch, megabytes of frames and
    # sound, of which a training reads one frame and one second.
    no_descriptor: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
    with file.open("rb") as handle:
        mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ, **no_descriptor)
    # Windows and some other systems take no such advice.
    if not read_ahead and hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
    return pa.py_buffer(mapped)


def folder_beside(videos: Path) -> Path:
    """A folder for the shards of the folder `videos` that is not among them."""
    # `.` and `..` have no name to add to.
    named = videos if videos.name not in ("", "..") else videos.resolve()
    return named.with_name(f"{named.name}-shards")


def read_manifest(path: Path) -> dict[str, Any]:
    """The contents of `index.json`. Raises ShardError where there is none of this version."""
    try:
        index: dict[str, Any] = json.loads((path / "index.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        state = "is not there"
        command = f"looklisten prepare VIDEOS {path}"
        if path.exists():
            state = "has no index.json, so it is no finished set of shards"
            is_begun = (path / "progress").is_dir()
            if path.is_dir() and any(path.iterdir()) and not is_begun:
                # It may be the folder of the videos, where shards would be among them.
                command = f"looklisten prepare {path} {folder_beside(path)}"
        raise ShardError(f"{path} {state}; make one with `{command}`") from None
    except ValueError:
        raise ShardError(
            f"{path / 'index.json'} is damaged; run the same `looklisten prepare` again"
        ) from None
    if index.get("format") != FORMAT_VERSION:
        raise ShardError(
            f"{path} has format {index.get('format')}, this version reads {FORMAT_VERSION}; "
            "prepare the videos again"
        )
    return index


def check_sizes(path: Path, manifest: dict[str, Any]) -> None:
    """Raise ShardError where a file is missing or does not have the size in the index."""
    for shard in manifest["shards"]:
        file = path / shard["name"]
        size = file.stat().st_size if file.exists() else None
        if size == shard["bytes"]:
            continue
        state = "is missing"
        if size is not None:
            state = f"has {size} bytes where the index says {shard['bytes']}"
        raise ShardError(
            f"the shard {file} {state}; "
            "run the same `looklisten prepare` again, it redoes only what is damaged"
        )


def check_sample_rates(path: Path, rates_hz: pa.ChunkedArray) -> None:
    """Refuse sound that the front ends would take for sound of another pitch."""
    others = sorted(set(rates_hz.unique().to_pylist()) - {SAMPLE_RATE_HZ})
    if others:
        raise ShardError(
            f"{path} holds sound at {others[0]} Hz, and the networks take {SAMPLE_RATE_HZ} Hz; "
            "prepare the videos again"
        )
