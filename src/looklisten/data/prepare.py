"""Videos -> shards: a plan of batches, the batches, one merge.

Each batch writes its own shards and then its record. So any number of workers, any engine and any
interruption give the same bytes. Paths travel between processes, never frames. Knows neither
decoding nor a network.
"""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from looklisten.data.batches import BatchRecord, SourceBatch, prepare_batch
from looklisten.data.boxes import BoxesByPath, boxes_of_sources, read_boxes
from looklisten.data.merge import merge_records, remove_old_shards, why_no_clip
from looklisten.data.options import Engine, LabelSource, PrepareOptions
from looklisten.data.output_folder import OutputFolder
from looklisten.data.plan import BatchPlan, TaskShare, make_plan
from looklisten.data.shard_files import folder_beside
from looklisten.data.sources import absolute_address
from looklisten.data.workers.parent import WorkerPool
from looklisten.errors import ConfigError, SourceError
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.names import printable
from looklisten.option_checks import check_at_least, check_one_of
from looklisten.system.files import check_writable
from looklisten.system.processes import cpu_count
from looklisten.system.progress import Progress, no_progress
from looklisten.system.ray_cluster import run_on_ray


def prepare(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    options: PrepareOptions | None = None,
    boxes: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = no_progress,
    *,
    labels: LabelSource = "table",
    limits: WorkerLimits | None = None,
    engine: Engine = "local",
    task_index: int | None = None,
    num_tasks: int = 1,
    again: bool = False,
    sources_per_batch: int | None = None,
) -> dict[str, Any]:
    """Cut the videos that `inputs` name (see `find_sources`) into shards under `out`.

    Writes `clips-*.arrow`, `index.json`, `failures.jsonl` and `skipped.jsonl`. Run again, it keeps
    what is complete, repairs what is damaged, adds new videos, and tries again those that failed
    and have changed since. With `again` it makes anew all that failed or changed, together with the
    other sources of their batches.

    `boxes`: a table with the columns path, time, x0, y0, x1, y1, label, sounding.
    `engine="ray"`: run the batches on a Ray cluster.
    `task_index`, `num_tasks`: do this share of the batches; the call that finds all batches done
        writes the index.
    `sources_per_batch`: by default at most 64, and fewer in a small set.

    Returns sources = prepared + skipped (nothing wrong, but no clip is wanted) + failed; clips,
    hours, marks, lost_seconds; the seconds of work, and x_realtime of what this call decoded.
    Raises SourceError if there is nothing to prepare or nothing could be prepared, ConfigError if
    `out` holds other options or is one of the inputs.
    """
    check_at_least(1, workers=workers, num_tasks=num_tasks)
    check_at_least(0, task_index=task_index)
    if isinstance(inputs, (str, Path)):
        inputs = [inputs]
    options = options or PrepareOptions()
    check_one_of(Engine, engine=engine)
    limits = limits or WorkerLimits()
    share = TaskShare.of_call(task_index, num_tasks)
    output = OutputFolder(out)
    started = time.perf_counter()
    if output.folder is not None:
        _check_is_no_input(output.folder, inputs)
        check_writable(output.folder)
    # Before the plan, which takes minutes for a large set: a bad table is reported at once.
    boxes_by_file = read_boxes(boxes) if boxes else {}
    output.sweep()
    plan = make_plan(output, inputs, labels, options, share, again, sources_per_batch)
    batches = _batches_of(plan, absolute_address(out), boxes_by_file, options, limits)
    to_do = [batch for batch in _unfinished(output, batches) if share.has(batch.number)]
    counter = _SourceCounter(to_do, progress)
    records = []
    # At least 1: no batch is left where all are done, and a pool refuses 0 threads.
    threads = max(min(workers or cpu_count(), len(to_do)), 1)
    with WorkerPool(limits, threads) as pool:
        if engine == "ray":
            finished = run_on_ray(prepare_batch, to_do, workers)
        else:
            prepare_here = partial(prepare_batch, workers=pool, on_source=counter.update)
            finished = pool.run_in_threads(prepare_here, to_do)
        for batch, record in finished:
            records.append(record)
            counter.failed += record["failed"]
            counter.update(batch.number, len(batch.sources))
    seconds = time.perf_counter() - started
    decoded_seconds = sum(record["seconds"] for record in records)
    cost = {
        "seconds": round(seconds, 2),
        "x_realtime": round(decoded_seconds / seconds, 1),
        "path": str(out),
    }
    if num_tasks > 1 and (unfinished := _unfinished(output, batches)):
        return _summary_of_share(share, records, len(unfinished)) | cost
    return _finish(output, plan, options) | cost


def _check_is_no_input(out: Path, inputs: Sequence[str | Path]) -> None:
    """Raises ConfigError where the folder of the shards is that of the videos."""
    for source in inputs:
        if Path(source).is_dir() and Path(source).resolve() == out.resolve():
            raise ConfigError(
                f"{printable(out)} is the folder of the videos, and shards would be among them; "
                f"give another one, such as {printable(folder_beside(out))}"
            )


def _batches_of(
    plan: BatchPlan,
    address: str,
    boxes_by_file: BoxesByPath,
    options: PrepareOptions,
    limits: WorkerLimits,
) -> list[SourceBatch]:
    """The batches of a plan, each with all that a worker must know of it."""
    all_sources = [source for batch in plan.batches for source in batch]
    boxes_by_path = boxes_of_sources(boxes_by_file, plan.root, all_sources)
    batches = []
    for number, sources in enumerate(plan.batches):
        boxes = {}
        for source in sources:
            if source.path in boxes_by_path:
                boxes[source.path] = boxes_by_path[source.path]
        batches.append(SourceBatch(number, plan.root, address, sources, boxes, options, limits))
    return batches


def _finish(output: OutputFolder, plan: BatchPlan, options: PrepareOptions) -> dict[str, Any]:
    """Write the index of a set whose batches are all done."""
    summary = merge_records(output, plan, options)
    if not summary["clips"]:
        raise SourceError(why_no_clip(output, summary["sources"]))
    # After the new index, because until then the old one names these shards.
    remove_old_shards(output)
    return summary


def _summary_of_share(
    share: TaskShare, records: list[BatchRecord], unfinished: int
) -> dict[str, Any]:
    """The result of a call that did its share while other tasks are still at work."""
    return {
        "task": f"{share.task_index} of {share.num_tasks}",
        "batches": len(records),
        "batches_of_other_tasks": unfinished,
        "prepared": sum(record["prepared"] for record in records),
        "skipped": sum(record["skipped"] for record in records),
        "failed": sum(record["failed"] for record in records),
        "clips": sum(record["clips"] for record in records),
    }


def _unfinished(output: OutputFolder, batches: Sequence[SourceBatch]) -> list[SourceBatch]:
    """The batches that have no record, or miss one of the shards that it names."""
    # Two listings, because a request for each file would be slow in a bucket.
    shard_sizes = output.sizes()
    record_names = output.sizes("progress")
    unfinished = []
    for batch in batches:
        record = None
        if Path(batch.record_name).name in record_names:
            record = output.read_json(batch.record_name)
        if record is None or not _has_all_shards(record, shard_sizes):
            unfinished.append(batch)
    return unfinished


def _has_all_shards(record: BatchRecord, sizes: dict[str, int]) -> bool:
    return all(sizes.get(shard["name"]) == shard["bytes"] for shard in record["shards"])


class _SourceCounter:
    """Tells how many sources are done; the threads of all batches update it."""

    def __init__(self, batches: Sequence[SourceBatch], progress: Progress) -> None:
        self.failed = 0
        self._finished = Counter[int]()
        self._total = sum(len(batch.sources) for batch in batches)
        self._progress = progress
        self._lock = threading.Lock()

    def update(self, batch: int, sources: int) -> None:
        """Note how many sources of a batch are done; fewer than before where it is made again."""
        with self._lock:
            self._finished[batch] = sources
            self._progress(self._finished.total(), self._total, failed=str(self.failed))
