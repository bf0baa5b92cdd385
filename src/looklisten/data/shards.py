"""Clips on disk: Arrow IPC files, memory-mapped, so that one pair costs one JPEG and one second.

One row is one `Clip`. A folder of shards is `*.arrow` and `index.json`, which names every shard
with its size and hash. A shard is complete or absent. Knows no video file and no network.
"""

import copy
import hashlib
import itertools
import json
import mmap
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from looklisten.config import Config
from looklisten.data.clips import Box, Clip
from looklisten.data.output_folder import local_copy
from looklisten.errors import ConfigError, ShardError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.names import normalize_split, printable
from looklisten.system.files import atomic_write

FORMAT_VERSION = 1
CLIPS_PER_RECORD_BATCH = 8
"""Rows of each record batch but the last, so that the number of a row gives its record batch."""
MIN_HELD_OUT_VIDEOS = 2
"""A negative pair takes the frame of one video and the sound of another."""


# Shards name the time of a box `at_seconds`; `Box` says from where it counts.
_BOX = pa.struct(
    [
        ("at_seconds", pa.float64()),
        *((corner, pa.float32()) for corner in ("x0", "y0", "x1", "y1")),
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


def _box(row: dict[str, Any]) -> Box:
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


@runtime_checkable
class HasConfig(Protocol):
    """What a split is taken from: a run, a checkpoint, or an opened network."""

    @property
    def config(self) -> Config: ...


class Shards(Sequence[Clip]):
    """The clips of a folder of shards, open for reading: all of them, or a selection.

    `path` is the folder that `prepare` wrote. `read_ahead=False` is for reading a few clips here
        and there: the system then reads only the memory pages that are used.
    `open_record_batches`: so many record batches stay mapped. Without `read_ahead` each of them
        keeps its file open.

    Raises ShardError when the set is incomplete, damaged, of another version, or has sound of a
    sample rate that the networks do not take.
    """

    def __init__(
        self, path: str | Path, open_record_batches: int = 4096, read_ahead: bool = True
    ) -> None:
        self.path = local_copy(str(path)) if "://" in str(path) else Path(path)
        self.manifest = _read_manifest(self.path)
        _check_sizes(self.path, self.manifest)
        self._files = _ShardFiles(self.path, self.manifest, open_record_batches, read_ahead)
        table = self._files.columns(("video_id", "split", "labels", "sample_rate_hz"))
        _check_sample_rates(self.path, table["sample_rate_hz"])
        stored_splits = table["split"].to_pylist()
        usual_names = {name: normalize_split(name) for name in set(stored_splits)}
        # Set in a selection only: a reference to itself would keep the files mapped for longer.
        self._folder: Shards | None = None
        self._rows: NDArray[np.int64] = np.arange(len(table))
        """The stored row of each clip."""
        self.video_ids: NDArray[np.str_] = np.array(table["video_id"].to_pylist(), dtype=np.str_)
        self.splits: NDArray[np.str_] = np.array(
            [usual_names[name] for name in stored_splits], dtype=np.str_
        )
        """The split of each clip, `[clips]`: `train`, `val` or `test` for all usual words, else the
        name as it was written.
        """
        self.labels: list[tuple[str, ...]] = [
            tuple(labels) for labels in table["labels"].to_pylist()
        ]
        self.names: NDArray[np.str_] = np.array(
            [labels[0] if labels else "" for labels in self.labels], dtype=np.str_
        )
        """The first label of each clip, `[clips]`; empty where there is none."""

    @property
    def is_selection(self) -> bool:
        """Whether `select` made this set."""
        return self._folder is not None

    @property
    def folder(self) -> "Shards":
        """All clips of the folder; they decide the split of a selection too."""
        return self if self._folder is None else self._folder

    @property
    def folder_numbers(self) -> NDArray[np.int64]:
        """The number of each clip in the folder, `[clips]`."""
        return self._rows

    def select(self, mask: NDArray[np.bool_]) -> "Shards":
        """The clips for which `mask`, `[clips]`, is true, in the same order, numbered from 0.

        The selection shares the open files of this set.
        """
        selection = copy.copy(self)
        selection._folder = self.folder
        selection._rows = self._rows[mask]
        selection.video_ids = self.video_ids[mask]
        selection.splits = self.splits[mask]
        selection.labels = list(itertools.compress(self.labels, mask))
        selection.names = self.names[mask]
        return selection

    def complement(self) -> "Shards":
        """The clips of the folder that are not in this selection."""
        mask = np.ones(len(self.folder), dtype=bool)
        mask[self._rows] = False
        return self.folder.select(mask)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Shards({str(self.path)!r}, {len(self)} clips of {len(set(self.video_ids))} videos)"

    def __getitem__(self, clip: int) -> Clip:  # type: ignore[override]
        if not 0 <= clip < len(self):
            raise IndexError(f"clip {clip} of {len(self)}")
        record_batch, row = self._files.find(int(self._rows[clip]))
        values = {
            name: record_batch.column(name)[row].as_py()
            for name in SCHEMA.names
            if name not in ("waveform", "duration_seconds")
        }
        values["boxes"] = tuple(_box(box) for box in values["boxes"])
        for name in ("frame_seconds", "frames", "labels", "marks"):
            values[name] = tuple(values[name])
        return Clip(waveform=self.waveform(clip), **values)

    def columns(self, *names: str) -> pa.Table:
        """These columns of all clips; no other column is read, and no file stays open."""
        table = self._files.columns(names)
        return table.take(self._rows) if self.is_selection else table

    def frame_seconds(self, clip: int) -> NDArray[np.float64]:
        """The time of each stored frame of a clip, `[frames]`, in seconds from its start."""
        record_batch, row = self._files.find(int(self._rows[clip]))
        times: NDArray[np.float64] = record_batch.column("frame_seconds")[row].values.to_numpy()
        return times

    def jpeg(self, clip: int, frame: int) -> memoryview:
        """One stored frame, still compressed; no byte of the other frames is read."""
        record_batch, row = self._files.find(int(self._rows[clip]))
        frames = record_batch.column("frames")[row].values
        return memoryview(frames[frame].as_buffer()).cast("B")

    def waveform(self, clip: int) -> NDArray[np.int16]:
        """The sound of a clip, `[samples]`, a view of the memory map."""
        record_batch, row = self._files.find(int(self._rows[clip]))
        samples: NDArray[np.int16] = record_batch.column("waveform")[row].values.to_numpy()
        return samples

    def held_out(self, run: HasConfig) -> "Shards":
        """The clips that `run` holds out, by the fraction in its config (`held_out_mask`)."""
        return self.select(self.held_out_mask(run.config.train.held_out_fraction))

    def validation(self, run: HasConfig) -> "Shards":
        """The clips that `run` chooses thresholds on, by its config (`validation_mask`)."""
        settings = run.config.train
        return self.select(
            self.validation_mask(settings.validation_fraction, settings.held_out_fraction)
        )

    def split(self, name: str, held_out_fraction: float) -> "Shards":
        """The clips of a split: `all`, `held-out` (`held_out_mask`), or a split's own name.

        Raises ConfigError for a split that is not there.
        """
        if name == "all":
            return self.select(np.ones(len(self), dtype=bool))
        if name == "held-out":
            return self.select(self.held_out_mask(held_out_fraction))
        usual_name = normalize_split(name)
        if usual_name not in self.splits:
            known = ", ".join(sorted({"held-out", "all", *self.splits.tolist()} - {""}))
            raise ConfigError(
                f"there is no split {usual_name!r} in {self.path}; the splits are {known}"
            )
        return self.select(self.splits == usual_name)

    def held_out_mask(self, fraction: float) -> NDArray[np.bool_]:
        """Which clips are held out from training, `[clips]`.

        Where a clip of the folder names a split, all clips that are not of `train` are held out.
        Else the hash of its video id decides: the lowest `fraction` of hashes is held out, and at
        least two videos. So adding videos moves no video to the other side.
        """
        if np.any(self.folder.splits != ""):
            return np.asarray(self.splits != "train", dtype=bool)
        return self._is_of(_lowest_hashes(set(self.folder.video_ids), fraction, salt=""))

    def validation_mask(
        self, validation_fraction: float, held_out_fraction: float
    ) -> NDArray[np.bool_]:
        """Which clips are not held out and still not trained on, `[clips]`; none for fraction 0.

        The hash of the video id decides, independently of `held_out_mask`. At least two videos.
        """
        if not validation_fraction:
            return np.zeros(len(self), dtype=bool)
        folder = self.folder
        not_held_out = folder.video_ids[~folder.held_out_mask(held_out_fraction)]
        return self._is_of(
            _lowest_hashes(set(not_held_out), validation_fraction, salt="validation ")
        )

    def _is_of(self, videos: set[str]) -> NDArray[np.bool_]:
        return np.array([video in videos for video in self.video_ids], dtype=bool)

    def splits_sentence(self) -> str:
        """The splits with their videos, for messages; "" when the folder names no split."""
        if not np.any(self.splits != ""):
            return ""
        named = sorted(
            set(self.splits.tolist()), key=lambda name: (name != "train", name == "", name)
        )
        counts = []
        for name in named:
            videos = len(set(self.video_ids[self.splits == name]))
            counts.append(f"{printable(name) or 'no name'} ({videos:,})")
        are = "the splits are" if len(counts) > 1 else "the only split is"
        return f"{are} {', '.join(counts)}, counted in videos; only `train` is trained on"


class _ShardFiles:
    """Reads stored rows by number and keeps the record batches that were used last."""

    def __init__(
        self, path: Path, manifest: dict[str, Any], open_record_batches: int, read_ahead: bool
    ) -> None:
        self._paths = [path / shard["name"] for shard in manifest["shards"]]
        self._clip_counts = [shard["clips"] for shard in manifest["shards"]]
        self._first_row: NDArray[np.int64] = np.cumsum(
            np.array([0, *self._clip_counts], dtype=np.int64)
        )
        self._read_ahead = read_ahead
        self._cache: OrderedDict[tuple[int, int], pa.RecordBatch] = OrderedDict()
        self._cache_size = open_record_batches

    def find(self, row: int) -> tuple[pa.RecordBatch, int]:
        """The record batch that holds a stored row, and the number of the row in it."""
        shard = int(np.searchsorted(self._first_row, row, "right")) - 1
        number, row_in_batch = divmod(row - int(self._first_row[shard]), CLIPS_PER_RECORD_BATCH)
        record_batch = self._cache.get((shard, number))
        if record_batch is None:
            record_batch = self._open(shard, self._read_ahead).get_batch(number)
            self._cache[shard, number] = record_batch
            if len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return record_batch, row_in_batch

    def columns(self, names: Sequence[str]) -> pa.Table:
        """These columns of all stored rows."""
        tables = [SCHEMA.empty_table().select(names)]
        for shard, clip_count in enumerate(self._clip_counts):
            views = self._open(shard, read_ahead=False).read_all().select(names)
            # `take` copies, so that the file can be closed.
            tables.append(views.take(np.arange(clip_count)))
        return pa.concat_tables(tables)

    def _open(self, shard: int, read_ahead: bool) -> pa.ipc.RecordBatchFileReader:
        file = self._paths[shard]
        try:
            source = pa.memory_map(os.fsencode(file)) if read_ahead else _random_access_map(file)
            return pa.ipc.open_file(source)
        except pa.ArrowInvalid as error:
            raise ShardError(
                f"the shard {file} is damaged ({error}); "
                "delete it and run the same `looklisten prepare` again"
            ) from None


def _random_access_map(file: Path) -> pa.Buffer:
    """The file in memory, with the advice that only a few pages will be read."""
    with file.open("rb") as handle:
        mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    # Windows and some other systems take no such advice.
    if hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
    return pa.py_buffer(mapped)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((path / "index.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        state = "is not there"
        if path.exists():
            state = "has no index.json, so it is no finished set of shards"
        raise ShardError(
            f"{path} {state}; make one with `looklisten prepare VIDEOS {path}`"
        ) from None
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


def _check_sizes(path: Path, manifest: dict[str, Any]) -> None:
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


def _check_sample_rates(path: Path, rates_hz: pa.ChunkedArray) -> None:
    """Refuse sound that the front ends would take for sound of another pitch."""
    others = sorted(set(rates_hz.unique().to_pylist()) - {SAMPLE_RATE_HZ})
    if others:
        raise ShardError(
            f"{path} holds sound at {others[0]} Hz, and the networks take {SAMPLE_RATE_HZ} Hz; "
            "prepare the videos again"
        )


def _lowest_hashes(videos: set[str], fraction: float, salt: str) -> set[str]:
    """The videos whose hash, in 0..1, is below `fraction`, and at least two."""
    hashes = {}
    for video in sorted(videos):
        digest = hashlib.sha256((salt + video).encode()).hexdigest()
        hashes[video] = int(digest[:12], 16) / 16**12
    lowest = sorted(hashes, key=lambda video: hashes[video])[:MIN_HELD_OUT_VIDEOS]
    return {video for video in hashes if hashes[video] < fraction} | set(lowest)
