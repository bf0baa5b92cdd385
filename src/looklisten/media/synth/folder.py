"""Synthetic videos and their tables -> a folder. Knows neither scenes nor a network.

Each video is written by itself, so any number of workers gives the same files, and the same
command finishes an interrupted folder.
"""

import csv
import json
import math
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from looklisten.errors import ConfigError
from looklisten.media.synth.options import SynthOptions
from looklisten.media.synth.rendered_video import RenderedVideo
from looklisten.system.files import (
    atomic_write,
    atomic_write_files,
    json_bytes,
    remove_abandoned_scratch,
    write_json,
)
from looklisten.system.processes import cpu_count, map_unordered
from looklisten.system.progress import Progress, no_progress

VIDEOS_PER_BATCH = 16
"""At most so many videos are flushed to the disk together."""

SETTINGS_FILE = "world.json"
FAILURES_FILE = "failures.jsonl"

Tables = dict[str, list[tuple[object, ...]]]
"""Name of a table -> its rows, the first of which has the names of the columns."""


def video_name(index: int) -> str:
    """The file name of video `index`."""
    return f"{index:06d}.mp4"


@runtime_checkable
class SyntheticSet(Protocol):
    """What `write_set` writes: videos, and tables that say what is in them."""

    @property
    def options(self) -> SynthOptions: ...

    def video(self, index: int) -> RenderedVideo: ...

    def tables(self) -> Tables: ...

    def settings(self) -> dict[str, Any]: ...


def write_set(
    out: Path,
    videos: SyntheticSet,
    failures: list[dict[str, str]],
    workers: int | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write `videos` under `out`: `000000.mp4` …, the tables as CSV, `world.json`.

    `failures` are files that could not be used; they are written to `failures.jsonl`. Videos that
    are in `out` already stay. Raises ConfigError if `out` was written with other settings.
    """
    settings = videos.settings()
    settings_file = out / SETTINGS_FILE
    if settings_file.exists():
        before = json.loads(settings_file.read_text())
        # Through JSON and back, because there a tuple becomes a list.
        _check_same_settings(out, before, json.loads(json.dumps(settings)))
    out.mkdir(parents=True, exist_ok=True)
    remove_abandoned_scratch(out)
    # Before the videos, so that an interrupted folder cannot be finished with other settings.
    write_json(settings_file, settings)
    _write_tables(out, videos.tables())
    _write_failures(out / FAILURES_FILE, failures)
    count = videos.options.videos
    missing = [index for index in range(count) if not (out / video_name(index)).exists()]
    # Small batches where there are few videos, so that all workers have some.
    batch_size = min(VIDEOS_PER_BATCH, math.ceil(len(missing) / (4 * (workers or cpu_count()))))
    batches = []
    # At least 1: the size is 0 where no video is missing, and `range` refuses a step of 0.
    for start in range(0, len(missing), max(batch_size, 1)):
        batches.append((out, videos, missing[start : start + batch_size]))
    written = 0
    for written_now in map_unordered(_write_videos, batches, workers):
        written += written_now
        progress(written, len(missing))
    result: dict[str, Any] = {
        "videos": count,
        "written": len(missing),
        "hours": count * videos.options.seconds / 3600,
        "path": str(out),
    }
    if failures:
        result["failed"] = len(failures)
    return result


def _check_same_settings(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    if before != now:
        raise ConfigError(
            f"{out} holds a world of other settings (see {out / SETTINGS_FILE}); "
            "choose another folder, or delete this one"
        )


def _write_tables(out: Path, tables: Tables) -> None:
    for name, rows in tables.items():
        with atomic_write(out / f"{name}.csv") as scratch, scratch.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def _write_failures(path: Path, failures: list[dict[str, str]]) -> None:
    """The list of failures, or no file if there are none."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as scratch:
        scratch.write_bytes(b"".join(map(json_bytes, failures)))


def _write_videos(batch: tuple[Path, SyntheticSet, list[int]]) -> int:
    """Write the videos of these numbers; gives how many they are."""
    out, videos, indices = batch
    with atomic_write_files(out) as scratch:
        for index in indices:
            videos.video(index).write(scratch / video_name(index))
    return len(indices)
