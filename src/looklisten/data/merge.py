"""The records of all batches -> index.json, columns.feather, failures.jsonl and skipped.jsonl."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from looklisten.data.batches import BatchRecord, columns_name, failure_line, record_name
from looklisten.data.clip_columns import (
    COLUMNS_FILE,
    columns_of_shards,
    from_bytes,
    write_columns,
)
from looklisten.data.options import PrepareOptions
from looklisten.data.output_folder import OutputFolder
from looklisten.data.plan import BatchPlan
from looklisten.data.shard_files import FORMAT_VERSION
from looklisten.names import encode_name, printable
from looklisten.system.files import atomic_write

SHARD_NAME = re.compile(r"clips-\d{6}-\d{3}\.arrow")


def merge_records(output: OutputFolder, plan: BatchPlan, options: PrepareOptions) -> dict[str, Any]:
    """Write the index and the lists, and return the counts of the set."""
    records: list[BatchRecord] = []
    for number in range(len(plan.batches)):
        records.append(output.read_json(record_name(number)))
    failures = [failure_line(name, "find", reason) for name, reason in plan.unusable.items()]
    skipped: list[dict[str, Any]] = []
    shards: list[dict[str, Any]] = []
    # In order of batch, so that the files are the same for any order of work.
    for record in records:
        failures += record["failures"]
        skipped += record["skipped_lines"]
        shards += record["shards"]
    output.write_lines("failures.jsonl", failures)
    output.write_lines("skipped.jsonl", skipped)
    lost_seconds = _sum(record.get("lost_seconds", {}) for record in records)
    summary = {
        "sources": sum(len(batch) for batch in plan.batches) + len(plan.unusable),
        "prepared": sum(record["prepared"] for record in records),
        "skipped": sum(record["skipped"] for record in records),
        "failed": sum(record["failed"] for record in records) + len(plan.unusable),
        "clips": sum(record["clips"] for record in records),
        "hours": round(sum(record["seconds"] for record in records) / 3600, 4),
        "marks": _sum(record["marks"] for record in records),
        "lost_seconds": {reason: round(lost, 3) for reason, lost in lost_seconds.items()},
    }
    index = {
        "format": FORMAT_VERSION,
        "root": encode_name(str(plan.root)),
        "settings": asdict(options),
        **summary,
        "labels": _sum(record["labels"] for record in records),
        "source_marks": _sum(record.get("source_marks", {}) for record in records),
        "shards": shards,
    }
    _write_columns(output, records, shards)
    # Last of all, because a folder with an index counts as a finished set.
    output.write_json("index.json", index)
    return summary


def _write_columns(
    output: OutputFolder, records: list[BatchRecord], shards: list[dict[str, Any]]
) -> None:
    """Write the small columns of all clips, if those of every batch are at hand."""
    video_ids = []
    for number, record in enumerate(records):
        columns = _columns_of_batch(output, number, record)
        if columns is None:
            # Without the file, the shards are read. One that is left would be of another set.
            output.remove(COLUMNS_FILE)
            return
        video_ids.append(columns["video_id"])
    # Read a second time: the times of all frames may be larger than the memory.
    batches = (_columns_of_batch(output, *batch) for batch in enumerate(records))
    with output.filling() as folder, atomic_write(folder / COLUMNS_FILE) as scratch:
        write_columns(scratch, video_ids, batches, shards)


def _columns_of_batch(output: OutputFolder, number: int, record: BatchRecord) -> pa.Table | None:
    """The small columns of a batch; None where they are neither stored nor quick to read."""
    columns = from_bytes(output.read(columns_name(number)), record["shards"])
    # Earlier versions did not store them.
    if columns is None and output.folder is not None:
        return columns_of_shards(output.folder, record["shards"])
    return columns


def _sum(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The sums of counts by name, in order of name."""
    total: dict[str, float] = {}
    for of_batch in counts:
        for name, count in of_batch.items():
            total[name] = total.get(name, 0) + count
    return dict(sorted(total.items()))


def remove_old_shards(output: OutputFolder) -> None:
    """Remove shards that the index does not name: batches that were made again leave them."""
    current = {shard["name"] for shard in output.read_json("index.json")["shards"]}
    for name in output.sizes():
        if SHARD_NAME.fullmatch(name) and name not in current:
            output.remove(name)


def why_no_clip(output: OutputFolder, sources: int) -> str:
    """The sentence for a set without a clip: the reason of the first that failed or was skipped."""
    all_lines: list[bytes] = []
    counts = []
    for name in ("failures.jsonl", "skipped.jsonl"):
        lines = (output.read(name) or b"").splitlines()
        all_lines += lines
        if lines:
            counts.append(f"{len(lines):,} in {output}/{name}")
    first = json.loads(all_lines[0])
    is_named = first["source"] in first["reason"]
    name = "" if is_named else f"{printable(first['source'])}: "
    return (
        f"none of the {sources:,} sources gave a clip; the first: {name}{first['reason']} "
        f"(all: {', '.join(counts)})"
    )
