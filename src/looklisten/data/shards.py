"""Clips on disk: Arrow IPC files, memory-mapped, so that a pair costs one JPEG and one second of
sound and nothing else.

One row is one `Clip`. A folder of shards is `*.arrow` and `index.json`, which names every shard
with its size and hash; a shard is complete or absent. Knows no video file and no network.
"""

import hashlib
import json
import mmap
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from looklisten.data.output_folder import local_copy
from looklisten.errors import ShardError
from looklisten.names import normalize_split, printable
from looklisten.system.files import atomic_write

FORMAT_VERSION = 1
CLIPS_PER_RECORD_BATCH = 8
"""Rows that one lookup maps in; lookups of any row need no scan because every record batch but the
last is this long.
"""


@dataclass(frozen=True)
class Box:
    """Where a thing is at one moment: corners in 0..1 of the frame's width and height, time within
    the clip.
    """

    at_seconds: float
    x0: float
    y0: float
    x1: float
    y1: float
    label: str
    sounding: bool


@dataclass(frozen=True, eq=False)
class Clip:
    """One stretch of at most 10 s of one video, with its frames as JPEG and its sound as int16
    mono.
    """

    key: str
    video_id: str
    source: str
    start_seconds: float
    frame_seconds: tuple[float, ...]
    frames: tuple[bytes, ...]
    waveform: NDArray[np.int16]
    sample_rate_hz: int
    labels: tuple[str, ...] = ()
    split: str = ""
    boxes: tuple[Box, ...] = ()
    marks: tuple[str, ...] = ()

    @property
    def duration_seconds(self) -> float:
        return len(self.waveform) / self.sample_rate_hz

    def __repr__(self) -> str:
        return (
            f"Clip({self.key!r}, {self.start_seconds:.3f} + {self.duration_seconds:.3f} s, "
            f"{len(self.frames)} frames, {self.sample_rate_hz} Hz, labels={list(self.labels)})"
        )


_BOX = pa.struct(
    [
        ("at_seconds", pa.float64()),
        *((c, pa.float32()) for c in ("x0", "y0", "x1", "y1")),
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
    return {name: getattr(clip, name) for name in SCHEMA.names} | {
        "boxes": [asdict(box) for box in clip.boxes]
    }


def write_shards(
    clips: Iterable[Clip], folder: Path, name: str, limit_bytes: int
) -> list[dict[str, Any]]:
    """Write `clips` as `NAME-000.arrow`, `NAME-001.arrow` …, each about `limit_bytes` at most, and
    return their index entries.

    The same clips give the same bytes. Each file is written aside, flushed to disk and renamed.
    """
    entries: list[dict[str, Any]] = []
    rows = _batches(clips)
    batch = next(rows, None)
    while batch is not None:
        path = folder / f"{name}-{len(entries):03d}.arrow"
        written = count = 0
        with (
            atomic_write(path) as scratch,
            pa.OSFile(os.fsencode(scratch), "wb") as sink,
            pa.ipc.new_file(sink, SCHEMA) as writer,
        ):
            while batch is not None and (not written or written + batch.nbytes <= limit_bytes):
                writer.write_batch(batch)
                written, count = written + batch.nbytes, count + batch.num_rows
                batch = next(rows, None)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entries.append(
            {"name": path.name, "clips": count, "bytes": path.stat().st_size, "sha256": digest}
        )
    return entries


def _batches(clips: Iterable[Clip]) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, Any]] = []
    for clip in clips:
        rows.append(_row(clip))
        if len(rows) == CLIPS_PER_RECORD_BATCH:
            yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
            rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


class Shards(Sequence[Clip]):
    """A prepared set, open for reading: a sequence of clips, plus the two cheap look-ups that
    training lives on.

    `path` is the folder that `prepare` wrote. Without `read_ahead` the system reads no page beside
    those that are touched, which is right for looking here and there; a file then stays open for
    each open record batch. Raises ShardError when the set is incomplete, damaged or of another
    version.
    """

    def __init__(
        self, path: str | Path, open_record_batches: int = 4096, read_ahead: bool = True
    ) -> None:
        self.path = local_copy(str(path)) if "://" in str(path) else Path(path)
        self._read_ahead = read_ahead
        self.manifest = self._read_manifest()
        self._first_clip: NDArray[np.int64] = np.cumsum(
            np.array([0, *(shard["clips"] for shard in self.manifest["shards"])], dtype=np.int64)
        )
        self._check_sizes()
        self._cache: OrderedDict[tuple[int, int], pa.RecordBatch] = OrderedDict()
        self._cache_size = open_record_batches
        table = self.columns("video_id", "split", "labels")
        self.video_ids: NDArray[np.str_] = np.array(table["video_id"].to_pylist(), dtype=np.str_)
        written = table["split"].to_pylist()
        usual = {name: normalize_split(name) for name in set(written)}
        self.splits: NDArray[np.str_] = np.array([usual[name] for name in written], dtype=np.str_)
        """The split of each clip, `[clips]`: `train`, `val` or `test` whatever usual word was
        written, else the name itself.
        """
        self.labels: list[tuple[str, ...]] = [
            tuple(labels) for labels in table["labels"].to_pylist()
        ]
        self.names: NDArray[np.str_] = np.array(
            [labels[0] if labels else "" for labels in self.labels], dtype=np.str_
        )
        """The first label of each clip, where one is wanted; empty where there is none."""

    def _read_manifest(self) -> dict[str, Any]:
        try:
            index: dict[str, Any] = json.loads(
                (self.path / "index.json").read_text(encoding="utf-8")
            )
        except FileNotFoundError:
            what = (
                "is not there"
                if not self.path.exists()
                else "has no index.json, so it is no finished set of shards"
            )
            raise ShardError(
                f"{self.path} {what}; make one with `looklisten prepare VIDEOS {self.path}`"
            ) from None
        except ValueError:
            raise ShardError(
                f"{self.path / 'index.json'} is damaged; run the same `looklisten prepare` again"
            ) from None
        if index.get("format") != FORMAT_VERSION:
            raise ShardError(
                f"{self.path} has format {index.get('format')}, this version reads {FORMAT_VERSION}; prepare the videos again"
            )
        return index

    def _check_sizes(self) -> None:
        for shard in self.manifest["shards"]:
            file = self.path / shard["name"]
            size = file.stat().st_size if file.exists() else None
            if size != shard["bytes"]:
                state = (
                    "is missing"
                    if size is None
                    else f"has {size} bytes where the index says {shard['bytes']}"
                )
                raise ShardError(
                    f"the shard {file} {state}; run the same `looklisten prepare` again, it redoes only what is damaged"
                )

    def _open(self, shard: int, read_ahead: bool) -> pa.ipc.RecordBatchFileReader:
        file = self.path / self.manifest["shards"][shard]["name"]
        try:
            return pa.ipc.open_file(
                pa.memory_map(os.fsencode(file)) if read_ahead else _mapped_for_few_pages(file)
            )
        except pa.ArrowInvalid as error:
            raise ShardError(
                f"the shard {file} is damaged ({error}); delete it and run the same `looklisten prepare` again"
            ) from None

    def _find(self, clip: int) -> tuple[pa.RecordBatch, int]:
        shard = int(np.searchsorted(self._first_clip, clip, "right")) - 1
        batch, row = divmod(clip - int(self._first_clip[shard]), CLIPS_PER_RECORD_BATCH)
        found = self._cache.get((shard, batch))
        if found is None:
            found = self._open(shard, self._read_ahead).get_batch(batch)
            self._cache[shard, batch] = found
            if len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return found, row

    def __len__(self) -> int:
        return int(self._first_clip[-1])

    def __repr__(self) -> str:
        return f"Shards({str(self.path)!r}, {len(self)} clips of {len(set(self.video_ids))} videos)"

    def __getitem__(self, clip: int) -> Clip:  # type: ignore[override]
        if not 0 <= clip < len(self):
            raise IndexError(f"clip {clip} of {len(self)}")
        batch, row = self._find(clip)
        values = {
            name: batch.column(name)[row].as_py()
            for name in SCHEMA.names
            if name not in ("waveform", "duration_seconds")
        }
        values["boxes"] = tuple(Box(**box) for box in values["boxes"])
        for name in ("frame_seconds", "frames", "labels", "marks"):
            values[name] = tuple(values[name])
        return Clip(waveform=self.waveform(clip), **values)

    def columns(self, *names: str) -> pa.Table:
        """These columns of all clips; nothing of the others is read, and no file stays open."""
        tables = [SCHEMA.empty_table().select(names)]
        for shard, about in enumerate(self.manifest["shards"]):
            views = self._open(shard, read_ahead=False).read_all().select(names)
            tables.append(
                views.take(np.arange(about["clips"]))
            )  # a copy, which lets go of the file
        return pa.concat_tables(tables)

    def frame_seconds(self, clip: int) -> NDArray[np.float64]:
        """When each stored frame of a clip is shown, in seconds within the clip, `[frames]`."""
        batch, row = self._find(clip)
        times: NDArray[np.float64] = batch.column("frame_seconds")[row].values.to_numpy()
        return times

    def jpeg(self, clip: int, frame: int) -> memoryview:
        """One stored frame, still compressed; no byte of the others is touched."""
        batch, row = self._find(clip)
        return memoryview(batch.column("frames")[row].values[frame].as_buffer()).cast("B")

    def waveform(self, clip: int) -> NDArray[np.int16]:
        """The sound of a clip, `[samples]`, a view of the memory map."""
        batch, row = self._find(clip)
        samples: NDArray[np.int16] = batch.column("waveform")[row].values.to_numpy()
        return samples

    def held_out(self, fraction: float) -> NDArray[np.bool_]:
        """Which clips are kept from training, `[clips]`.

        Shards that name splits decide (`train`, however it is written, against all other names, and
        clips of no split where others have one; `splits_sentence` says which there are). Without
        names, a video is held out when the hash of its id falls in the first `fraction`, so that
        adding videos moves none; at least two videos are.
        """
        if np.any(self.splits != ""):
            return np.asarray(self.splits != "train", dtype=bool)
        return self._lot(set(self.video_ids), fraction, "")

    def splits_sentence(self) -> str:
        """Which splits there are, with their videos, and what is trained on, for messages; "" when
        no split is named.
        """
        if not np.any(self.splits != ""):
            return ""
        named = sorted(
            set(self.splits.tolist()), key=lambda name: (name != "train", name == "", name)
        )
        counts = [
            f"{printable(name) or 'no name'} ({len(set(self.video_ids[self.splits == name])):,})"
            for name in named
        ]
        are = "the splits are" if len(counts) > 1 else "the only split is"
        return f"{are} {', '.join(counts)}, counted in videos; only `train` is trained on"

    def validation(self, fraction: float, held_out: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of the clips that are not `held_out` are kept from training too, `[clips]`: none
        for 0, else at least two videos.

        Drawn by the hash of the id, as above, but independently of it.
        """
        if not fraction:
            return np.zeros(len(self), dtype=bool)
        return self._lot(set(self.video_ids[~held_out]), fraction, "validation ")

    def _lot(self, videos: set[str], fraction: float, salt: str) -> NDArray[np.bool_]:
        place = {
            v: int(hashlib.sha256((salt + v).encode()).hexdigest()[:12], 16) / 16**12
            for v in sorted(videos)
        }
        lowest = sorted(place, key=lambda v: place[v])[:2]
        drawn = {v for v in place if place[v] < fraction} | set(lowest)
        return np.array([v in drawn for v in self.video_ids], dtype=bool)


def _mapped_for_few_pages(file: Path) -> pa.Buffer:
    """The file in memory, told to the system as one of which single pages will be asked for."""
    with file.open("rb") as handle:
        mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
    return pa.py_buffer(mapped)
