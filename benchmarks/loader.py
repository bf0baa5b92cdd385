"""The loader at scale: how long a training of millions of videos takes to begin and to draw.

    python benchmarks/loader.py [--rows 5000000] [--folder PATH] [--batch 64] [--draws 60]
        [--without-columns] [--json]

It writes shards of so many videos, one clip each, in the product's own format. Nothing in them is
media: frames are empty, and the silence of each clip is a hole in its file, which takes no room on
the disk. `--folder` keeps the shards and takes them again.

Measured are the parts of a training's start that grow with the number of videos, then the draws of
batches. A draw chooses the clips, the frames and the seconds of sound of a batch; it decodes
nothing. With `--without-columns` the file of small columns is not used, as in sets of earlier
versions. The first draw of an epoch orders its videos. The shards are in the cache of the system,
as far as its memory goes.
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from looklisten.app.terminal import ProgressBar
from looklisten.config import Config
from looklisten.data.clip_columns import COLUMNS_FILE, columns_of_shards, write_columns
from looklisten.data.inspection import training_warnings
from looklisten.data.pairs import PairStream
from looklisten.data.shard_files import (
    CLIPS_PER_RECORD_BATCH,
    FORMAT_VERSION,
    SCHEMA,
    read_manifest,
)
from looklisten.data.shards import Shards
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.system.progress import Progress
from looklisten.training.batches import training_stream
from looklisten.training.provenance import start_record, training_data

CLIPS_PER_SHARD = 5000
FRAMES_PER_CLIP = 10
CLIP_SECONDS = 2.0
LABELS = 400
HOLE_BYTES = 1 << 16
"""Buffers of at least so many bytes are silence."""


class SparseFile:
    """A file in which silence is a hole."""

    closed = False

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if size >= HOLE_BYTES:
            self._file.seek(size, os.SEEK_CUR)
            return size
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class RowMaker:
    """Makes record batches; all columns that are the same in every batch are made once."""

    def __init__(self) -> None:
        rows = CLIPS_PER_RECORD_BATCH
        samples = round(CLIP_SECONDS * SAMPLE_RATE_HZ)
        times = np.tile(np.arange(FRAMES_PER_CLIP) * CLIP_SECONDS / FRAMES_PER_CLIP, rows)
        frame_offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * FRAMES_PER_CLIP)
        silence = pa.array(np.zeros(rows * samples, np.int16))
        self._constant = {
            "start_seconds": pa.array([0.0] * rows),
            "duration_seconds": pa.array([CLIP_SECONDS] * rows),
            "frame_seconds": pa.ListArray.from_arrays(frame_offsets, pa.array(times)),
            "frames": pa.ListArray.from_arrays(
                frame_offsets, pa.array([b""] * rows * FRAMES_PER_CLIP)
            ),
            "waveform": pa.ListArray.from_arrays(
                pa.array(np.arange(rows + 1, dtype=np.int32) * samples), silence
            ),
            "sample_rate_hz": pa.array([SAMPLE_RATE_HZ] * rows, pa.int32()),
            "split": pa.array([""] * rows),
            "boxes": pa.array([[]] * rows, SCHEMA.field("boxes").type),
            "marks": pa.array([[]] * rows, SCHEMA.field("marks").type),
        }

    def record_batch(self, video_numbers: NDArray[np.uint64]) -> pa.RecordBatch:
        rows = len(video_numbers)
        # The names of real sets are about as long, and in no order.
        names = [f"{number:016x}.mp4" for number in video_numbers.tolist()]
        labels = [[f"label {number % LABELS}"] for number in video_numbers.tolist()]
        columns = {name: column.slice(0, rows) for name, column in self._constant.items()}
        columns["key"] = columns["video_id"] = columns["source"] = pa.array(names)
        columns["labels"] = pa.array(labels, SCHEMA.field("labels").type)
        return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def write_index(folder: Path, rows: int, progress: Progress) -> None:
    """Shards of `rows` clips without media, complete when their `index.json` is there."""
    folder.mkdir(parents=True, exist_ok=True)
    maker = RowMaker()
    # Numbers that never repeat, in no order: an odd factor permutes the numbers below 2^64.
    videos = np.arange(rows, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    shards = []
    columns = []
    for first in range(0, rows, CLIPS_PER_SHARD):
        of_shard = videos[first : first + CLIPS_PER_SHARD]
        path = folder / f"clips-{first // CLIPS_PER_SHARD:06d}-000.arrow"
        sink = SparseFile(path)
        with pa.ipc.new_file(pa.PythonFile(sink, "w"), SCHEMA) as writer:
            for start in range(0, len(of_shard), CLIPS_PER_RECORD_BATCH):
                writer.write_batch(
                    maker.record_batch(of_shard[start : start + CLIPS_PER_RECORD_BATCH])
                )
        sink.close()
        shard = {
            "name": path.name,
            "clips": len(of_shard),
            "bytes": path.stat().st_size,
            "sha256": "",
        }
        shards.append(shard)
        columns.append(columns_of_shards(folder, [shard]))
        progress(first + len(of_shard), rows)
    ids = [of_shard["video_id"] for of_shard in columns]
    write_columns(folder / COLUMNS_FILE, ids, columns, shards)
    index = {"format": FORMAT_VERSION, "clips": rows, "shards": shards}
    (folder / "index.json").write_text(json.dumps(index))


def begin_training(folder: Path, batch: int) -> tuple[dict[str, float], PairStream]:
    """The seconds of each part of a training's start, and its stream of batches."""
    config = Config.load("tiny").changed("train", batch_size=batch)
    seconds = {}
    began = time.perf_counter()

    def note(part: str) -> None:
        nonlocal began
        now = time.perf_counter()
        seconds[part] = now - began
        began = now

    data = Shards(folder)
    note("open the shards")
    held_out = data.held_out_mask(config.train.held_out_fraction)
    note("choose the held-out videos")
    with tempfile.TemporaryDirectory() as run:
        start_record(Path(run), training_data(data, ~held_out, held_out))
    note("record the videos")
    training_warnings(data, ~held_out)
    note("look for marks")
    stream = training_stream(data.select(~held_out), config)
    note("make the stream")
    return seconds, stream


def milliseconds_of(draw: Callable[[int], object], steps: range) -> float:
    """The median over the steps."""
    times = []
    for step in steps:
        began = time.perf_counter()
        draw(step)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def measured(folder: Path, batch: int, draws: int) -> dict[str, Any]:
    """The figures of this process."""
    start_seconds, stream = begin_training(folder, batch)
    start_megabytes = resident_megabytes()
    began = time.perf_counter()
    stream.choose(0, 0)
    first_draw = time.perf_counter() - began
    steps = range(1, 1 + draws)
    never_read = milliseconds_of(lambda step: stream.choose(0, step), steps)
    return {
        "start_seconds": sum(start_seconds.values()),
        "parts_of_start_seconds": start_seconds,
        "start_megabytes": start_megabytes,
        "first_draw_of_epoch_milliseconds": 1000 * first_draw,
        "draw_milliseconds": never_read,
        "draw_again_milliseconds": milliseconds_of(lambda step: stream.choose(0, step), steps),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def resident_megabytes() -> float:
    """What this process has in memory now, without the pages of mapped files."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (anonymous,) = (line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(anonymous.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--without-columns", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch) / "shards"
        if not (folder / "index.json").exists():
            with ProgressBar("shards without media") as progress:
                write_index(folder, given.rows, progress)
        rows = read_manifest(folder)["clips"]
        columns = folder / COLUMNS_FILE
        hidden = columns.with_suffix(".hidden")
        if given.without_columns:
            columns.rename(hidden)
        try:
            figures = measured(folder, given.batch, given.draws)
        finally:
            if given.without_columns:
                hidden.rename(columns)
        result = {"rows": rows, "batch": given.batch} | figures
    if given.json:
        print(json.dumps(result))
        return
    for part, seconds in result["parts_of_start_seconds"].items():
        print(f"{seconds:8.2f} s  {part}")
    print(
        "{rows:,} clips: {start_seconds:.1f} s to begin, {start_megabytes:.0f} MB resident "
        "(at most {peak_megabytes:.0f} MB, with pages of the shards)".format(**result)
    )
    print(
        "a draw of {batch} videos: {draw_milliseconds:.2f} ms, of clips that are open already "
        "{draw_again_milliseconds:.2f} ms, the first of an epoch "
        "{first_draw_of_epoch_milliseconds:.0f} ms".format(**result)
    )


if __name__ == "__main__":
    main()
