"""Which videos a run was trained on and which it held out, read from the run's own record.

`data.json` in the run's folder has one entry for each set of shards. Each entry names a Parquet
file with video ids. `training/provenance.py` writes both. Knows files, no shards and no network.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RECORD_NAME = "data.json"
TRAINED_ON, HELD_OUT = "trained on", "kept apart"
"""Values of the column `part` of the Parquet files."""


def read_record(run: Path) -> list[dict[str, Any]]:
    """The entries of the run's record, oldest first; none for a run of an older version."""
    try:
        record = json.loads((run / RECORD_NAME).read_text(encoding="utf-8"))
        entries: list[dict[str, Any]] = record["trained_on"]
    except (OSError, ValueError, KeyError):
        return []
    return entries


def read_video_ids(run: Path, entries: list[dict[str, Any]]) -> dict[str, frozenset[str]] | None:
    """The video ids of all `entries` together, by part.

    None if there are no entries, or if a file with ids cannot be read.
    """
    if not entries:
        return None
    ids: dict[str, set[str]] = {TRAINED_ON: set(), HELD_OUT: set()}
    for entry in entries:
        try:
            table = pq.read_table(run / entry["ids"])
        except (OSError, pa.ArrowException):
            return None
        part_of_row = np.array(table["part"].to_pylist(), dtype=np.str_)
        video_ids = np.array(table["video_id"].to_pylist(), dtype=object)
        for part, videos in ids.items():
            videos.update(video_ids[part_of_row == part].tolist())
    return {part: frozenset(videos) for part, videos in ids.items()}


def recorded_videos(run: Path, step: int) -> dict[str, frozenset[str]]:
    """The video ids of a run up to `step`, by part; empty for a run of an older version."""
    # A checkpoint of an earlier step has seen none of the videos of a later entry.
    entries = [entry for entry in read_record(run) if entry["from_step"] < step]
    ids = read_video_ids(run, entries)
    return ids or {TRAINED_ON: frozenset(), HELD_OUT: frozenset()}
