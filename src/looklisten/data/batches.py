"""One batch of sources -> its shards and its record, as a pure function of the batch.

The same batch gives the same bytes again, unless workers were lost. Knows worker processes; decodes
nothing itself.
"""

import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NotRequired, TypedDict

from looklisten.data.clip_columns import columns_of_shards, to_bytes
from looklisten.data.clips import VideoBox
from looklisten.data.duplicates import fingerprint
from looklisten.data.options import PrepareOptions
from looklisten.data.output_folder import OutputFolder
from looklisten.data.sources import Source, open_source
from looklisten.data.workers.messages import END, BatchRequest, SourceOutcome, SourceRequest
from looklisten.data.workers.parent import WorkerPool
from looklisten.errors import LookListenError
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.media.isolation.process import WorkerLost
from looklisten.system.files import MACHINE_ERRORS

NOTABLE_LOSS_SECONDS = 1.0
"""From this loss on a source has a line in skipped.jsonl; the index counts every loss."""

MAX_LOST_WRITERS = 3
"""So often a worker may die without a source at work before the batch is given up."""


@dataclass(frozen=True)
class SourceBatch:
    """Sources that go into the same shards. It travels to workers, so it holds paths, no media."""

    number: int
    root: Path
    out: str
    sources: tuple[Source, ...]
    boxes: dict[str, list[VideoBox]]
    options: PrepareOptions
    limits: WorkerLimits

    @property
    def record_name(self) -> str:
        return record_name(self.number)

    @property
    def lost_workers_name(self) -> str:
        return lost_workers_name(self.number)


def record_name(batch: int) -> str:
    """The file with the record of a batch."""
    return f"progress/{batch:06d}.json"


def columns_name(batch: int) -> str:
    """The file with the small columns of a batch."""
    return f"progress/{batch:06d}.arrow"


def lost_workers_name(batch: int) -> str:
    """The file that remembers which sources of a batch ended a worker process."""
    return f"progress/{batch:06d}.lost.json"


@dataclass(frozen=True)
class LostWorkers:
    """Worker processes that ended while they worked on one source."""

    reason: str
    """How the last of them ended."""
    at_most: int
    """How many clips are cut from the source now; -1: no limit."""
    times: int

    @property
    def max_clips(self) -> int | None:
        return self.at_most if self.at_most >= 0 else None


NO_SOURCE = -1
"""In place of a source's number: the worker was writing, not decoding."""


class BatchRecord(TypedDict):
    """What a batch adds to the set. It is written as JSON."""

    prepared: int
    skipped: int
    failed: int
    """Sources, by what became of them; together all sources of the batch."""
    clips: int
    seconds: float
    """Of the clips together."""
    labels: dict[str, int]
    """Clips of each label."""
    marks: dict[str, int]
    """Clips with each mark."""
    source_marks: NotRequired[dict[str, int]]
    """Sources with each mark. Records of earlier versions lack it."""
    lost_seconds: NotRequired[dict[str, float]]
    """Seconds that no clip holds, by reason. Records of earlier versions lack it."""
    skipped_lines: list[dict[str, Any]]
    """Lines of skipped.jsonl."""
    failures: list[dict[str, Any]]
    """Lines of failures.jsonl."""
    shards: list[dict[str, Any]]
    """What the index says of each shard."""
    made_of: NotRequired[list[tuple[int | None, int | None, str]]]
    """Bytes, time of change and fingerprint of each source."""


def prepare_batch(
    batch: SourceBatch,
    workers: WorkerPool | None = None,
    on_source: Callable[[int, int], None] | None = None,
) -> BatchRecord:
    """Cut the sources of one batch into its shards and write its record.

    If a worker is lost, the batch is made again. After the first crash it is unchanged, because the
    machine may have been short of memory. Later, and after a hang, only those clips of the source
    are cut that came before. `on_source` gets the number of the batch and of its finished sources.
    """
    if workers is None:
        with WorkerPool(batch.limits) as own_workers:
            return prepare_batch(batch, own_workers, on_source)
    # Earlier calls may have lost workers over these sources, and know how much can be cut of them.
    output = OutputFolder(batch.out)
    lost = _read_lost_workers(output, batch)
    while True:
        outcomes: list[SourceOutcome] = []
        fingerprints: list[str] = []
        at_work, clips = NO_SOURCE, 0
        try:
            with output.filling() as folder, workers.lend(len(batch.sources)) as worker:
                shard_prefix = f"clips-{batch.number:06d}"
                worker.send(BatchRequest(str(folder), shard_prefix, batch.options).to_json())
                for number, (source, path, problem) in enumerate(_local_files(batch)):
                    at_work, clips = number, 0
                    # A later run compares it, to know whether the file has changed.
                    fingerprints.append("" if problem else fingerprint(path))
                    boxes = tuple(batch.boxes.get(source.path, ()))
                    request = SourceRequest(str(path), source, boxes, fetch_problem=problem)
                    worker.send(_limited(request, lost.get(number)).to_json())
                    while "outcome" not in (answer := worker.receive()):
                        clips = answer["clips"]
                    outcomes.append(SourceOutcome.from_json(answer["outcome"]))
                    if on_source:
                        on_source(batch.number, len(outcomes))
                # From here on a lost worker is no fault of the last source.
                at_work = NO_SOURCE
                worker.send(END)
                # Reports of progress may still come before the shards.
                while "shards" not in (answer := worker.receive()):
                    pass
                shards = answer["shards"]
                # Now, while the pages of the shards are in memory.
                columns = columns_of_shards(folder, shards)
        except WorkerLost as error:
            # Here `close` ended the worker, so no source is to blame.
            if workers.closed.is_set():
                raise
            _add_loss(lost, at_work, clips, error)
            _write_lost_workers(output, batch, lost)
            continue
        record = batch_record(batch.sources, outcomes, shards, fingerprints)
        # Before the record, so that a batch with a record has its columns.
        output.write(columns_name(batch.number), to_bytes(columns))
        output.write_json(batch.record_name, record)
        return record


def _limited(request: SourceRequest, lost: LostWorkers | None) -> SourceRequest:
    """The request for a source that may have ended workers before."""
    if lost is None or lost.max_clips is None:
        return request
    return replace(request, max_clips=lost.max_clips, lost_worker=lost.reason)


def _add_loss(lost: dict[int, LostWorkers], source: int, clips: int, error: WorkerLost) -> None:
    """Note a lost worker. Raises LookListenError after too many without a source at work."""
    before = lost.get(source, LostWorkers("", -1, 0))
    # Here no source can be cut shorter. Without a limit the batch would be tried forever.
    if source == NO_SOURCE and before.times >= MAX_LOST_WRITERS:
        raise LookListenError(
            f"the process that writes shards ended {before.times + 1} times: {error}"
        ) from None
    lost[source] = _after_loss(before, error, clips)


def _after_loss(before: LostWorkers, error: WorkerLost, clips: int) -> LostWorkers:
    """What to try next with a source after it ended a worker at clip number `clips`."""
    # A machine short of memory may explain a first crash, but no hang.
    is_forgiven = before.times == 0 and not error.hung
    if is_forgiven:
        at_most = -1
    elif before.at_most < 0:
        at_most = clips
    else:
        # Fewer with each loss, so that the attempts come to an end.
        at_most = max(min(clips, before.at_most - 1), 0)
    return LostWorkers(str(error), at_most, before.times + 1)


def _read_lost_workers(output: OutputFolder, batch: SourceBatch) -> dict[int, LostWorkers]:
    """What earlier attempts, also of earlier calls, know, by the source's number in the batch."""
    lost = {}
    by_name = output.read_json(batch.lost_workers_name) or {}
    for number, source in enumerate(batch.sources):
        if source.name in by_name:
            lost[number] = LostWorkers(**by_name[source.name])
    return lost


def _write_lost_workers(
    output: OutputFolder, batch: SourceBatch, lost: dict[int, LostWorkers]
) -> None:
    by_name = {}
    for number, workers in lost.items():
        if number != NO_SOURCE:
            by_name[batch.sources[number].name] = asdict(workers)
    if by_name:
        output.write_json(batch.lost_workers_name, by_name)


def _local_files(batch: SourceBatch) -> Iterator[tuple[Source, Path, str]]:
    """Each source with a local path, or with what went wrong.

    Remote sources are fetched one ahead of their use, and removed afterwards.
    """
    # Local files are read where they are.
    if not any("://" in source.path for source in batch.sources):
        for source in batch.sources:
            yield source, source.local_path(batch.root), ""
        return
    with (
        TemporaryDirectory(prefix="looklisten-") as scratch,
        ThreadPoolExecutor(1, "fetch") as fetcher,
    ):
        pending: deque[tuple[Source, Future[tuple[Path, str]]]] = deque()
        for number, source in enumerate(batch.sources):
            suffix = Path(source.path.partition("?")[0]).suffix
            target = Path(scratch) / f"{number}{suffix}"
            pending.append((source, fetcher.submit(_fetch, batch.root, source, target)))
            # One ahead and no more, so that the disk holds two fetched files at most.
            if len(pending) > 1:
                yield from _take_fetched(*pending.popleft())
        while pending:
            yield from _take_fetched(*pending.popleft())


def _take_fetched(
    source: Source, fetched: "Future[tuple[Path, str]]"
) -> Iterator[tuple[Source, Path, str]]:
    path, problem = fetched.result()
    yield source, path, problem
    path.unlink(missing_ok=True)


def _fetch(root: Path, source: Source, target: Path) -> tuple[Path, str]:
    """Copy a source to `target`; returns that path and what went wrong."""
    try:
        with open_source(root, source) as remote, target.open("wb") as local:
            shutil.copyfileobj(remote, local, 2**20)
    except Exception as error:  # an error of a server costs this source only
        # An error of this machine would meet every source.
        if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
            is_local = error.filename in (None, str(target))
            if is_local:
                raise
        return target, f"it cannot be fetched: {type(error).__name__}: {error}"
    return target, ""


def batch_record(
    sources: Sequence[Source],
    outcomes: Sequence[SourceOutcome],
    shards: list[dict[str, Any]],
    fingerprints: Sequence[str],
) -> BatchRecord:
    """What a batch adds to the set: its counts, its shards, and a line for each damaged source."""
    label_counts: Counter[str] = Counter()
    mark_counts: Counter[str] = Counter()
    source_mark_counts: Counter[str] = Counter()
    lost_seconds: Counter[str] = Counter()
    skipped_lines = []
    failures = []
    for source, outcome in zip(sources, outcomes, strict=True):
        lost_seconds.update(outcome.all_lost_seconds())
        source_mark_counts.update(outcome.source_marks)
        mark_counts.update(outcome.marks)
        if outcome.clips:
            label_counts.update(dict.fromkeys(source.labels, outcome.clips))
        if outcome.status == "failed":
            failures.append(_failure_of(source, outcome))
        if _is_notable(outcome):
            skipped_lines.append(_skipped_line(source, outcome))
    statuses = Counter(outcome.status for outcome in outcomes)
    return {
        "prepared": statuses["prepared"],
        "skipped": statuses["skipped"],
        "failed": statuses["failed"],
        "clips": sum(outcome.clips for outcome in outcomes),
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 6),
        "labels": dict(label_counts),
        "marks": dict(mark_counts),
        "source_marks": dict(source_mark_counts),
        "lost_seconds": {reason: round(lost, 3) for reason, lost in lost_seconds.items()},
        "skipped_lines": skipped_lines,
        "failures": failures,
        "shards": shards,
        "made_of": [
            (source.bytes, source.modified_ns, content)
            for source, content in zip(sources, fingerprints, strict=True)
        ],
    }


def _is_notable(outcome: SourceOutcome) -> bool:
    """Whether a source has a line in skipped.jsonl."""
    if outcome.status == "skipped" or outcome.dropped_clips:
        return True
    lost_seconds = sum(outcome.all_lost_seconds().values())
    # Only of a prepared source: the losses of a failed one are in failures.jsonl.
    return outcome.status == "prepared" and lost_seconds >= NOTABLE_LOSS_SECONDS


def _failure_of(source: Source, outcome: SourceOutcome) -> dict[str, Any]:
    reason = outcome.reason or " or ".join(outcome.dropped)
    line = failure_line(source.name, outcome.stage, reason, outcome.last_error, outcome.seconds)
    if lost_seconds := outcome.all_lost_seconds():
        line["lost_seconds"] = lost_seconds
    return line


def _skipped_line(source: Source, outcome: SourceOutcome) -> dict[str, Any]:
    """A line of skipped.jsonl."""
    lost_seconds = outcome.all_lost_seconds()
    reason = outcome.reason or " or ".join(outcome.dropped) or ", ".join(lost_seconds)
    return {
        "source": source.name,
        "reason": reason,
        "lost_seconds": lost_seconds,
        "clips_dropped": outcome.dropped_clips,
        "seconds_dropped": round(outcome.dropped_seconds, 3),
        "clips_prepared": outcome.clips,
    }


def failure_line(
    source: str, stage: str, reason: str, last_error: str = "", seconds: float = 0.0
) -> dict[str, Any]:
    """A line of failures.jsonl."""
    return {
        "source": source,
        "stage": stage,
        "reason": reason,
        "last_error": last_error,
        "seconds_recovered": round(seconds, 3),
    }
