"""Videos -> shards. Many machines or one, one pure function of a batch of sources, one merge.

The plan (which source goes into which batch) is written first and depends on the sources alone, never on the workers; each
batch makes its own shards and then its record. So any number of workers, any engine and any interruption give the same
bytes. Paths travel between processes, never frames. Knows neither decoding nor a network.
"""

import io
import json
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pyarrow as pa
from pyarrow import parquet

from looklisten.data.cutting import PrepareSettings
from looklisten.data.shards import FORMAT_VERSION, Box
from looklisten.data.sources import Labels, Source, Sources, find_sources, mark_duplicates, open_source, read_boxes
from looklisten.data.store import Store
from looklisten.data.worker import MACHINE_TROUBLE, Isolation, Message, Worker, WorkerLost, Workers
from looklisten.errors import ConfigError, LookListenError, SourceError
from looklisten.runtime import Progress, cpu_count, silent

MAX_BATCH_SOURCES = 64
MIN_BATCHES = 32
"""A small set is still cut into so many batches, so that every core has work and little is lost by an interruption."""

PLAN = "progress/plan.parquet"

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class Batch:
    """One task: sources that go into the same shards. Travels to a worker; holds paths and settings, no media."""

    number: int
    root: Path
    out: str
    sources: tuple[Source, ...]
    boxes: dict[str, list[Box]]
    settings: PrepareSettings
    limits: Isolation

    @property
    def record(self) -> str:
        return f"progress/{self.number:06d}.json"


def prepare_batch(batch: Batch, workers: Workers | None = None, tell: Callable[[int], None] | None = None) -> Message:
    """Cut the sources of one batch into its shards and write its record; a pure function of the batch.

    Decoding runs in a process apart. When that is lost over a source, the batch is made again: in full after a first crash
    (the machine may have been short of memory), else with that source only as far as it came. `tell` hears how many sources
    are through.
    """
    if workers is None:
        with Workers(batch.limits) as own:
            return prepare_batch(batch, own, tell)
    store = Store(batch.out)
    lost: dict[int, _Loss] = {}
    while True:
        at = _At(tell=tell)
        try:
            with store.filling() as folder, workers.lend() as worker:
                record = _attempt(batch, worker, folder, lost, at)
            store.write_json(batch.record, record)
            return record
        except WorkerLost as error:
            if workers.closed.is_set():
                raise
            before = lost.get(at.source, _Loss("", -1, 0))
            if before.times > 2 and at.source < 0:
                raise LookListenError(f"the process that writes shards is lost again and again: {error}") from None
            limited = before.times > 0 or error.hung
            most = -1 if not limited else at.clips if before.at_most < 0 else min(at.clips, before.at_most - 1)
            lost[at.source] = _Loss(str(error), max(most, 0) if limited else -1, before.times + 1)


@dataclass(frozen=True)
class _Loss:
    """A worker process that went over one source: how, to how many clips the source is limited now (-1: not), how often."""

    reason: str
    at_most: int
    times: int


@dataclass
class _At:
    """Where a batch is: which source (-1: none), and how many clips of it came."""

    tell: Callable[[int], None] | None
    source: int = -1
    clips: int = 0


def _attempt(batch: Batch, worker: Worker, folder: Path, lost: dict[int, _Loss], at: _At) -> Message:
    worker.ask({"folder": str(folder), "name": f"clips-{batch.number:06d}", "settings": asdict(batch.settings)})
    outcomes: list[Message] = []
    for number, (source, path, problem) in enumerate(_at_hand(batch)):
        loss = lost.get(number)
        limit = loss.at_most if loss and loss.at_most >= 0 else None
        if problem:
            outcome: Message = {"status": "failed", "stage": "fetch", "reason": problem}
        elif limit == 0:
            outcome = {"status": "failed"}
        else:
            at.source, at.clips = number, 0
            boxes = [asdict(box) for box in batch.boxes.get(source.path, ())]
            worker.ask({"path": str(path), "source": asdict(source), "boxes": boxes, "at_most": limit})
            worker.sources += 1
            while "outcome" not in (answer := _checked(worker.answer())):
                at.clips = answer.get("clips", at.clips)
            outcome = answer["outcome"]
        if limit is not None and loss:
            outcome |= {"status": "failed", "stage": "worker", "reason": loss.reason, "last_error": loss.reason}
        outcome["reason"] = outcome.get("reason", "").replace(str(path), source.name)
        outcomes.append({"clips": 0, "seconds": 0.0, "marks": {}, "dropped": {}, "dropped_clips": 0, "last_error": ""} | outcome)
        if at.tell:
            at.tell(number + 1)
    at.source = -1
    worker.ask({"end": True})
    while "shards" not in (answer := _checked(worker.answer())):
        pass
    return _record(batch.sources, outcomes, answer["shards"])


def _checked(answer: Message) -> Message:
    if "trouble" in answer:
        raise OSError(*answer["trouble"])
    if "refused" in answer:
        raise LookListenError(answer["refused"])
    return answer


def _at_hand(batch: Batch) -> Iterator[tuple[Source, Path, str]]:
    """Each source with a local path to it, or what went wrong; remote ones are fetched one ahead of their use, and removed after."""
    if not any("://" in source.path for source in batch.sources):
        yield from ((source, batch.root / source.path, "") for source in batch.sources)
        return
    with TemporaryDirectory(prefix="looklisten-") as scratch, ThreadPoolExecutor(1, "fetch") as fetcher:
        coming: deque[tuple[Source, Future[tuple[Path, str]]]] = deque()
        for number, source in enumerate(batch.sources):
            target = Path(scratch) / f"{number}{Path(source.path.partition('?')[0]).suffix}"
            coming.append((source, fetcher.submit(_fetch, batch.root, source, target)))
            if len(coming) > 1:
                yield from _fetched(*coming.popleft())
        while coming:
            yield from _fetched(*coming.popleft())


def _fetched(source: Source, coming: "Future[tuple[Path, str]]") -> Iterator[tuple[Source, Path, str]]:
    path, problem = coming.result()
    yield source, path, problem
    path.unlink(missing_ok=True)


def _fetch(root: Path, source: Source, target: Path) -> tuple[Path, str]:
    try:
        with open_source(root, source) as remote, target.open("wb") as here:
            shutil.copyfileobj(remote, here, 2**20)
    except Exception as error:  # whatever a remote place answers costs this file only
        if isinstance(error, OSError) and error.errno in MACHINE_TROUBLE:
            raise
        return target, f"it cannot be fetched: {type(error).__name__}: {error}"
    return target, ""


def _record(sources: Sequence[Source], outcomes: Sequence[Message], shards: list[Message]) -> Message:
    """What a batch adds to the set: its counts, its shards, a line for each source that is not whole."""
    labels: Counter[str] = Counter()
    marks: Counter[str] = Counter()
    skipped, failures = [], []
    for source, outcome in zip(sources, outcomes, strict=True):
        labels.update(dict.fromkeys(source.labels, outcome["clips"]) if outcome["clips"] else {})
        marks.update(outcome["marks"])
        reason = outcome["reason"] or " or ".join(outcome["dropped"])
        if outcome["status"] == "failed":
            failures.append(_failure(source.name, outcome["stage"], reason, outcome["last_error"], outcome["seconds"]))
        if outcome["status"] == "skipped" or outcome["dropped_clips"]:
            skipped.append(
                {
                    "source": source.name,
                    "reason": reason,
                    "clips_dropped": outcome["dropped_clips"],
                    "seconds_dropped": round(outcome.get("dropped_seconds", 0.0), 3),
                    "clips_prepared": outcome["clips"],
                }
            )
    status = Counter(outcome["status"] for outcome in outcomes)
    return {
        **{kind: status[kind] for kind in ("prepared", "skipped", "failed")},
        "clips": sum(outcome["clips"] for outcome in outcomes),
        "seconds": round(sum(outcome["seconds"] for outcome in outcomes), 6),
        "labels": dict(labels),
        "marks": dict(marks),
        "skipped_lines": skipped,
        "failures": failures,
        "shards": shards,
    }


def _failure(source: str, stage: str, reason: str, last_error: str = "", seconds: float = 0.0) -> Message:
    return {"source": source, "stage": stage, "reason": reason, "last_error": last_error, "seconds_recovered": round(seconds, 3)}


@dataclass(frozen=True)
class _Plan:
    root: Path
    batches: tuple[tuple[Source, ...], ...]
    missing: tuple[str, ...]


def _plan(store: Store, inputs: Sequence[str | Path], labels: Labels, settings: PrepareSettings) -> _Plan:
    """The batches, old ones as they were and new ones for sources not seen before; written before any work starts."""
    root, old = _read_plan(store, settings)
    sources = find_sources(inputs, labels, root if root and root.is_dir() else None)
    known = {source.name: source for batch in old for source in batch}
    for source in sources.found:
        before = known.get(source.name, source)
        if (before.bytes, before.labels, before.split) != (source.bytes, source.labels, source.split):
            raise ConfigError(f"{source.name} is in {store} with another size, label or split; choose another folder, or delete this one")
    fresh = [source for source in sources.found if source.name not in known]
    if fresh:
        fresh = mark_duplicates(fresh, sources.root, list(known.values()))
        size = min(max(len(fresh) // MIN_BATCHES, 1), MAX_BATCH_SOURCES)
        old += [tuple(fresh[i : i + size]) for i in range(0, len(fresh), size)]
        _write_plan(store, sources, old, settings)
    return _Plan(sources.root, tuple(old), sources.missing)


def _read_plan(store: Store, settings: PrepareSettings) -> tuple[Path | None, list[tuple[Source, ...]]]:
    data = store.read(PLAN)
    if data is None:
        return None, []
    table = parquet.read_table(io.BytesIO(data))
    about = json.loads(table.schema.metadata[b"looklisten"])
    then, now = about["settings"], json.loads(json.dumps(asdict(settings)))
    changed = [name for name in {**now, **then} if now.get(name) != then.get(name)]
    if changed:
        raise ConfigError(
            f"{store} was prepared with another {', '.join(changed)}; choose another folder, or delete this one to start over"
        )
    batches: list[list[Source]] = []
    for row in table.to_pylist():
        if row.pop("batch") == len(batches):
            batches.append([])
        batches[-1].append(Source(**row | {"labels": tuple(row["labels"])}))
    return Path(about["root"]), [tuple(batch) for batch in batches]


def _write_plan(store: Store, sources: Sources, batches: Sequence[Sequence[Source]], settings: PrepareSettings) -> None:
    about = json.dumps({"root": str(sources.root), "settings": asdict(settings)})
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("path", "split", "video_id", "same_as")),
            ("bytes", pa.int64()),
            ("labels", pa.list_(pa.string())),
            *((name, pa.float64()) for name in ("start_seconds", "stop_seconds")),
            ("batch", pa.int64()),
        ],
        metadata={"looklisten": about},
    )
    rows = [asdict(source) | {"batch": number} for number, batch in enumerate(batches) for source in batch]
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    store.write(PLAN, sink.getvalue())


def prepare(
    inputs: Sequence[str | Path],
    out: str | Path,
    settings: PrepareSettings | None = None,
    boxes: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    *,
    labels: Labels = "table",
    limits: Isolation | None = None,
    engine: Engine = "local",
    task_index: int | None = None,
    num_tasks: int = 1,
) -> dict[str, Any]:
    """Cut the videos that `inputs` name (see `find_sources`) into shards under `out`, and return what was done.

    Writes `clips-*.arrow`, `index.json`, `failures.jsonl` and `skipped.jsonl`. Run again it keeps what is whole, redoes what is
    damaged and adds new videos. `boxes` is a table of known places: path, time, x0, y0, x1, y1, label, sounding.
    `engine="ray"` runs the batches on a Ray cluster. With `num_tasks` this call does the share `task_index` of the batches;
    whichever call finds all batches done writes the index.
    Raises SourceError when there is nothing to prepare or nothing could be, ConfigError when `out` holds other settings.
    Returns sources = prepared + skipped (nothing wrong, but nothing wanted) + failed; clips, hours, marks; seconds of work and
    x_realtime of what this call decoded.
    """
    settings, limits, store = settings or PrepareSettings(), limits or Isolation(), Store(out)
    if num_tasks < 1 or not 0 <= (task_index or 0) < num_tasks:
        raise ConfigError(f"task {task_index} of {num_tasks} cannot be; tasks are numbered 0 to num_tasks - 1")
    began = time.perf_counter()
    places = read_boxes(boxes) if boxes else {}
    store.sweep()
    plan = _plan(store, inputs, labels, settings)
    batches = [
        Batch(number, plan.root, str(out), sources, {s.path: places[s.path] for s in sources if s.path in places}, settings, limits)
        for number, sources in enumerate(plan.batches)
    ]
    undone = _undone(store, batches)
    mine = [batch for batch in undone if batch.number % num_tasks == (task_index or 0)]
    run = _run_on_ray(mine, workers, progress) if engine == "ray" else _run_here(mine, workers, limits, progress)
    records = list(run)
    seconds = time.perf_counter() - began
    decoded = sum(record["seconds"] for record in records)
    spent = {"seconds": round(seconds, 2), "x_realtime": round(decoded / seconds, 1), "path": str(out)}
    if num_tasks > 1 and (waiting := len(_undone(store, batches))):
        counts = {kind: sum(record[kind] for record in records) for kind in ("prepared", "skipped", "failed", "clips")}
        return {"task": f"{task_index} of {num_tasks}", "batches": len(mine), "batches_of_other_tasks": waiting, **counts} | spent
    summary = _merge(store, plan, settings)
    if not summary["clips"]:
        reason = next((row["reason"] for row in map(json.loads, (store.read("failures.jsonl") or b"").splitlines())), "all were skipped")
        raise SourceError(f"none of the {summary['sources']} sources gave a clip; the first: {reason} (all: {store}/failures.jsonl)")
    return summary | spent


def _undone(store: Store, batches: Sequence[Batch]) -> list[Batch]:
    """The batches whose record or one of whose shards is not there."""
    shards, records = store.sizes(), store.sizes("progress")

    def is_done(batch: Batch) -> bool:
        record = store.read_json(batch.record) if Path(batch.record).name in records else None
        return record is not None and all(shards.get(shard["name"]) == shard["bytes"] for shard in record["shards"])

    return [batch for batch in batches if not is_done(batch)]


def _run_here(batches: Sequence[Batch], workers: int | None, limits: Isolation, progress: Progress) -> Iterator[Message]:
    """The batches on this machine: a thread for each worker process, since a thread only waits for it."""
    total, through = sum(len(batch.sources) for batch in batches), Counter[int]()
    count, failed, lock = max(min(workers or cpu_count(), len(batches)), 1), 0, threading.Lock()

    def work(batch: Batch) -> Message:
        def tell(sources: int) -> None:
            with lock:
                through[batch.number] = sources
                progress(through.total(), total, failed=str(failed))

        return prepare_batch(batch, pool, tell)

    with ThreadPoolExecutor(count, "prepare") as threads, Workers(limits) as pool:
        futures = [threads.submit(work, batch) for batch in batches]
        try:
            for future in as_completed(futures):
                failed += future.result()["failed"]
                yield future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def _run_on_ray(batches: Sequence[Batch], workers: int | None, progress: Progress) -> Iterator[Message]:
    """The batches as tasks of a Ray cluster that is running; Ray gives those of a lost machine to another."""
    try:
        import ray
    except ImportError:
        raise ConfigError("the engine ray needs Ray: pip install 'looklisten[ray]'") from None
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False)
        except ConnectionError:
            raise ConfigError("no Ray cluster is running here; start one with `ray start --head`, or set RAY_ADDRESS") from None
    task = ray.remote(num_cpus=1, max_retries=-1)(prepare_batch)
    cores = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    window, waiting = workers or 2 * cores, deque(batches)
    running: dict[Any, Batch] = {}
    done, total = 0, sum(len(batch.sources) for batch in batches)
    while waiting or running:
        while waiting and len(running) < window:
            batch = waiting.popleft()
            running[task.remote(batch)] = batch
        (ready,), _ = ray.wait(list(running), num_returns=1)
        try:
            record: Message = ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        done += len(running.pop(ready).sources)
        progress(done, total)
        yield record


def _merge(store: Store, plan: _Plan, settings: PrepareSettings) -> dict[str, Any]:
    """One index and the lists of what failed and what was skipped, out of the records of all batches."""
    records = [store.read_json(f"progress/{number:06d}.json") for number in range(len(plan.batches))]
    missing = [_failure(name, "find", "there is no such file") for name in plan.missing]
    store.write_lines("failures.jsonl", missing + [line for record in records for line in record["failures"]])
    store.write_lines("skipped.jsonl", [line for record in records for line in record["skipped_lines"]])
    labels: Counter[str] = Counter()
    marks: Counter[str] = Counter()
    for record in records:
        labels.update(record["labels"])
        marks.update(record["marks"])
    summary = {
        "sources": sum(map(len, plan.batches)) + len(missing),
        **{kind: sum(record[kind] for record in records) for kind in ("prepared", "skipped", "failed")},
        "clips": sum(record["clips"] for record in records),
        "hours": round(sum(record["seconds"] for record in records) / 3600, 4),
        "marks": dict(sorted(marks.items())),
    }
    summary["failed"] += len(missing)
    store.write_json(
        "index.json",
        {
            "format": FORMAT_VERSION,
            "root": str(plan.root),
            "settings": asdict(settings),
            **summary,
            "labels": dict(sorted(labels.items())),
            "shards": [shard for record in records for shard in record["shards"]],
        },
    )
    return summary
