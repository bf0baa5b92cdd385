"""Videos -> shards. Many machines or one, one pure function of a batch of sources, one merge.

The plan (which source goes into which batch) is written first and depends on the sources alone,
never on the workers; each batch makes its own shards and then its record. So any number of workers,
any engine and any interruption give the same bytes. Paths travel between processes, never frames.
Knows neither decoding nor a network.
"""

import io
import json
import logging
import re
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from looklisten.data.clips import VideoBox
from looklisten.data.options import Engine, LabelSource, PrepareOptions
from looklisten.data.output_folder import OutputFolder
from looklisten.data.shard_files import FORMAT_VERSION
from looklisten.data.sources import (
    Source,
    Sources,
    check_mixture,
    find_sources,
    fingerprint,
    mark_duplicates,
    moved_duplicates,
    open_source,
    read_boxes,
    unknown_splits,
)
from looklisten.data.worker import MACHINE_ERRORS, Message, Worker, Workers
from looklisten.errors import ConfigError, LookListenError, SourceError
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.media.isolation.process import WorkerLost
from looklisten.names import decode_name, encode_name, first_few, normalize_split, printable
from looklisten.system.files import check_writable
from looklisten.system.processes import cpu_count
from looklisten.system.progress import Progress, no_progress

log = logging.getLogger("looklisten")

MAX_BATCH_SOURCES = 64
MIN_BATCHES = 32
"""A small set is still cut into so many batches, so that every core has work and little is lost by
an interruption.
"""

PLAN = "progress/plan.parquet"
SHARD_NAME = re.compile(r"clips-\d{6}-\d{3}\.arrow")

NOTABLE_LOSS_SECONDS = 1.0
"""A source of which no clip holds so many seconds has a line in skipped.jsonl; the index counts
every loss.
"""

NOTHING: dict[str, Any] = {
    "clips": 0,
    "seconds": 0.0,
    "marks": {},
    "dropped": {},
    "dropped_clips": 0,
    "dropped_seconds": 0.0,
    "lost_seconds": {},
    "source_marks": [],
    "last_error": "",
}
"""What became of a source of which nothing is known."""


@dataclass(frozen=True)
class Batch:
    """One task: sources that go into the same shards. Travels to a worker; holds paths and
    settings, no media.
    """

    number: int
    root: Path
    out: str
    sources: tuple[Source, ...]
    boxes: dict[str, list[VideoBox]]
    settings: PrepareOptions
    limits: WorkerLimits

    @property
    def record(self) -> str:
        return _record_name(self.number)

    @property
    def losses(self) -> str:
        return _losses_name(self.number)


def _record_name(batch: int) -> str:
    return f"progress/{batch:06d}.json"


def _losses_name(batch: int) -> str:
    """The file that remembers over which sources of a batch worker processes were lost."""
    return f"progress/{batch:06d}.lost.json"


def prepare_batch(
    batch: Batch, workers: Workers | None = None, tell: Callable[[int], None] | None = None
) -> Message:
    """Cut the sources of one batch into its shards and write its record; a pure function of the
    batch.

    Decoding runs in a process apart. When that is lost over a source, the batch is made again: in
    full after a first crash (the machine may have been short of memory), else with that source only
    as far as it came. `tell` hears how many sources are through.
    """
    if workers is None:
        with Workers(batch.limits) as own:
            return prepare_batch(batch, own, tell)
    store = OutputFolder(batch.out)
    lost = _read_losses(store, batch)
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
                raise LookListenError(
                    f"the process that writes shards is lost again and again: {error}"
                ) from None
            limited = before.times > 0 or error.hung
            most = (
                -1
                if not limited
                else at.clips
                if before.at_most < 0
                else min(at.clips, before.at_most - 1)
            )
            lost[at.source] = _Loss(str(error), max(most, 0) if limited else -1, before.times + 1)
            _write_losses(store, batch, lost)


def _read_losses(store: OutputFolder, batch: Batch) -> "dict[int, _Loss]":
    """What workers were lost over in earlier attempts, by the source's place in the batch: it is
    not opened for that again.
    """
    losses = {}
    known = store.read_json(batch.losses) or {}
    for number, source in enumerate(batch.sources):
        if source.name in known:
            losses[number] = _Loss(**known[source.name])
    return losses


def _write_losses(store: OutputFolder, batch: Batch, lost: "dict[int, _Loss]") -> None:
    by_name = {
        batch.sources[number].name: asdict(loss) for number, loss in lost.items() if number >= 0
    }
    if by_name:
        store.write_json(batch.losses, by_name)


@dataclass(frozen=True)
class _Loss:
    """A worker process that went over one source: how, to how many clips the source is limited now
    (-1: not), how often.
    """

    reason: str
    at_most: int
    times: int


@dataclass
class _At:
    """Where a batch is: which source (-1: none), and how many clips of it came."""

    tell: Callable[[int], None] | None
    source: int = -1
    clips: int = 0


def _attempt(
    batch: Batch, worker: Worker, folder: Path, lost: dict[int, _Loss], at: _At
) -> Message:
    worker.ask(
        {
            "folder": str(folder),
            "name": f"clips-{batch.number:06d}",
            "settings": asdict(batch.settings),
        }
    )
    outcomes: list[Message] = []
    contents: list[str] = []
    for number, (source, path, problem) in enumerate(_at_hand(batch)):
        contents.append("" if problem else fingerprint(path))
        loss = lost.get(number)
        limit = loss.at_most if loss and loss.at_most >= 0 else None
        if problem:
            outcome: Message = {"status": "failed", "stage": "fetch", "reason": problem}
        elif limit == 0:
            outcome = {"status": "failed"}
        else:
            at.source, at.clips = number, 0
            boxes = [asdict(box) for box in batch.boxes.get(source.path, ())]
            worker.ask(
                {"path": str(path), "source": asdict(source), "boxes": boxes, "at_most": limit}
            )
            worker.sources += 1
            while "outcome" not in (answer := _checked(worker.answer())):
                at.clips = answer.get("clips", at.clips)
            outcome = answer["outcome"]
        if limit is not None and loss:
            outcome |= {
                "status": "failed",
                "stage": "worker",
                "reason": loss.reason,
                "last_error": loss.reason,
            }
        for words in ("reason", "last_error"):
            outcome[words] = _with_name(outcome.get(words, ""), path, source)
        outcomes.append(NOTHING | outcome)
        if at.tell:
            at.tell(number + 1)
    at.source = -1
    worker.ask({"end": True})
    while "shards" not in (answer := _checked(worker.answer())):
        pass
    made_of = [
        [source.bytes, source.modified_ns, content]
        for source, content in zip(batch.sources, contents, strict=True)
    ]
    return _record(batch.sources, outcomes, answer["shards"]) | {"made_of": made_of}


def _with_name(words: str, path: Path, source: Source) -> str:
    """A reason with the name that the user gave, and not that of a fetched copy."""
    as_python_prints_it = repr(str(path))[1:-1]
    for written in (str(path), as_python_prints_it):
        words = words.replace(written, source.name)
    return words.encode("utf-8", "backslashreplace").decode()


def _checked(answer: Message) -> Message:
    if "trouble" in answer:
        raise OSError(*answer["trouble"])
    if "refused" in answer:
        raise LookListenError(answer["refused"])
    return answer


def _at_hand(batch: Batch) -> Iterator[tuple[Source, Path, str]]:
    """Each source with a local path to it, or what went wrong; remote ones are fetched one ahead of
    their use, and removed after.
    """
    if not any("://" in source.path for source in batch.sources):
        yield from ((source, source.local_path(batch.root), "") for source in batch.sources)
        return
    with (
        TemporaryDirectory(prefix="looklisten-") as scratch,
        ThreadPoolExecutor(1, "fetch") as fetcher,
    ):
        coming: deque[tuple[Source, Future[tuple[Path, str]]]] = deque()
        for number, source in enumerate(batch.sources):
            target = Path(scratch) / f"{number}{Path(source.path.partition('?')[0]).suffix}"
            coming.append((source, fetcher.submit(_fetch, batch.root, source, target)))
            if len(coming) > 1:
                yield from _fetched(*coming.popleft())
        while coming:
            yield from _fetched(*coming.popleft())


def _fetched(
    source: Source, coming: "Future[tuple[Path, str]]"
) -> Iterator[tuple[Source, Path, str]]:
    path, problem = coming.result()
    yield source, path, problem
    path.unlink(missing_ok=True)


def _fetch(root: Path, source: Source, target: Path) -> tuple[Path, str]:
    try:
        with open_source(root, source) as remote, target.open("wb") as here:
            shutil.copyfileobj(remote, here, 2**20)
    except Exception as error:  # whatever a remote place answers costs this file only
        if (
            isinstance(error, OSError)
            and error.errno in MACHINE_ERRORS
            and error.filename in (None, str(target))
        ):
            raise
        return target, f"it cannot be fetched: {type(error).__name__}: {error}"
    return target, ""


def _record(
    sources: Sequence[Source], outcomes: Sequence[Message], shards: list[Message]
) -> Message:
    """What a batch adds to the set: its counts, its shards, a line for each source that is not
    whole.
    """
    labels: Counter[str] = Counter()
    marks: Counter[str] = Counter()
    source_marks: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    skipped, failures = [], []
    for source, outcome in zip(sources, outcomes, strict=True):
        lost_here = _lost_seconds(outcome)
        lost.update(lost_here)
        source_marks.update(outcome["source_marks"])
        labels.update(dict.fromkeys(source.labels, outcome["clips"]) if outcome["clips"] else {})
        marks.update(outcome["marks"])
        reason = outcome["reason"] or " or ".join(outcome["dropped"])
        if outcome["status"] == "failed":
            failure = _failure(
                source.name, outcome["stage"], reason, outcome["last_error"], outcome["seconds"]
            )
            failures.append(failure | ({"lost_seconds": lost_here} if lost_here else {}))
        notable = (
            outcome["status"] == "prepared" and sum(lost_here.values()) >= NOTABLE_LOSS_SECONDS
        )
        if outcome["status"] == "skipped" or outcome["dropped_clips"] or notable:
            skipped.append(
                {
                    "source": source.name,
                    "reason": reason or ", ".join(lost_here),
                    "lost_seconds": lost_here,
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
        "source_marks": dict(source_marks),
        "lost_seconds": {why: round(seconds, 3) for why, seconds in lost.items()},
        "skipped_lines": skipped,
        "failures": failures,
        "shards": shards,
    }


def _lost_seconds(outcome: Message) -> dict[str, float]:
    """Seconds of a source that no clip holds, by reason: what decoding and cutting lost, and what
    `--skip` left out.
    """
    lost = {
        why: round(seconds, 3) for why, seconds in outcome["lost_seconds"].items() if seconds > 0
    }
    if outcome["dropped_clips"]:
        lost[f"skip {' or '.join(outcome['dropped'])}"] = round(outcome["dropped_seconds"], 3)
    return lost


def _failure(
    source: str, stage: str, reason: str, last_error: str = "", seconds: float = 0.0
) -> Message:
    return {
        "source": source,
        "stage": stage,
        "reason": reason,
        "last_error": last_error,
        "seconds_recovered": round(seconds, 3),
    }


@dataclass(frozen=True)
class _Plan:
    root: Path
    batches: tuple[tuple[Source, ...], ...]
    missing: tuple[str, ...]
    reasons: dict[str, str]


@dataclass(frozen=True)
class _Share:
    """Which batches this call makes: every `num_tasks`-th from `task_index` on."""

    task_index: int = 0
    num_tasks: int = 1

    def has(self, batch: int) -> bool:
        return batch % self.num_tasks == self.task_index


def _plan(
    store: OutputFolder,
    inputs: Sequence[str | Path],
    labels: LabelSource,
    settings: PrepareOptions,
    share: _Share,
    again: bool,
) -> _Plan:
    """The batches, old ones as they were and new ones for sources not seen before; written before
    any work starts.

    An old batch is planned anew when one of its sources failed and has changed since; with `again`,
    when one failed or changed.
    """
    root, old = _read_plan(store, settings)
    sources = find_sources(inputs, labels, root if root and root.is_dir() else None)
    known = {source.name: source for batch in old for source in batch}
    _check_as_before(store, sources, known)
    fresh = [source for source in sources.found if source.name not in known]
    planned = _plan_anew(store, sources, old, share, again)
    if fresh:
        fresh = _ready_to_plan(fresh, sources, known)
        size = min(max(len(fresh) // MIN_BATCHES, 1), MAX_BATCH_SOURCES)
        planned += [tuple(fresh[i : i + size]) for i in range(0, len(fresh), size)]
    if planned != old or _times(planned) != _times(old):
        _write_plan(store, sources, planned, settings)
    return _Plan(sources.root, tuple(planned), sources.missing, sources.reasons)


def _check_as_before(store: OutputFolder, sources: Sources, known: dict[str, Source]) -> None:
    """See that the user says the same as before of all sources that are known. Raises ConfigError."""
    for source in sources.found:
        before = known.get(source.name, source)
        now = [source.labels]
        then = [before.labels]
        if not before.same_as:  # a duplicate has split and id of the first one
            now += [(normalize_split(source.split), source.video_id)]
            then += [(normalize_split(before.split), before.video_id)]
        if now != then:
            raise ConfigError(
                f"{printable(source.name)} is in {store} with another label, split or video_id; choose another folder, or delete this one"
            )


def _ready_to_plan(fresh: list[Source], sources: Sources, known: dict[str, Source]) -> list[Source]:
    """New sources with their duplicates marked; what is odd about their splits is said. Raises
    ConfigError for a mixture.
    """
    check_mixture(sources.found)
    marked = mark_duplicates(fresh, sources.root, list(known.values()))
    for note in filter(None, (moved_duplicates(fresh, marked), unknown_splits(marked))):
        log.warning("%s", note)
    if len({bool(source.split) for source in known.values()}) == 1:
        check_mixture([*known.values(), *marked])
    return marked


def _times(batches: Sequence[Sequence[Source]]) -> list[int | None]:
    return [source.modified_ns for batch in batches for source in batch]


def _plan_anew(
    store: OutputFolder,
    sources: Sources,
    old: Sequence[tuple[Source, ...]],
    share: _Share,
    again: bool,
) -> list[tuple[Source, ...]]:
    """The old batches; those that are made anew with the sources of today and without a record.

    What has changed is seen from a batch's record, so that calls which share the work decide the
    same, each for its share.
    """
    found = {source.name: source for source in sources.found}
    batches: list[tuple[Source, ...]] = []
    stays: list[str] = []
    of_today = [
        tuple(_of_today(before, found.get(before.name)) for before in batch) for batch in old
    ]
    records = [
        store.read_json(_record_name(number))
        if again or any(source.name in found for source in batch)
        else None
        for number, batch in enumerate(old)
    ]
    changed_of = [
        _changed(sources.root, batch, now, record or {})
        for batch, now, record in zip(old, of_today, records, strict=True)
    ]
    changed_anywhere = set().union(*changed_of)
    changed_paths = _paths_of(changed_anywhere)
    for number, batch in enumerate(old):
        now, record, changed = of_today[number], records[number], changed_of[number]
        # Sources whose content is still what was compared before; those that changed are compared
        # with them, in order.
        unchanged = [
            source
            for later in old[number + 1 :]
            for source in later
            if source.name not in changed_anywhere
        ]
        others = [*(source for earlier in batches for source in earlier), *unchanged]
        if record is None:  # not made yet: it is made of what is there now
            batches.append(_marked_anew(now, found, changed_anywhere, others, sources.root))
            continue
        failed = {line["source"] for line in record["failures"]}
        without_clips = failed | {
            line["source"] for line in record["skipped_lines"] if not line["clips_prepared"]
        }
        # A copy of what has changed is no copy any more.
        touched = changed | {source.name for source in batch if source.same_as in changed_paths}
        wanted = touched | failed if again else touched & without_clips
        gone = [
            before.name
            for before in batch
            if before.name not in without_clips and not _is_there(before, sources.root)
        ]
        if wanted and not gone:
            if share.has(number):
                _forget(store, number, set() if again else changed)
            batches.append(_marked_anew(now, found, changed_anywhere, others, sources.root))
            continue
        batches.append(
            tuple(
                then if then.name in changed else today
                for then, today in zip(batch, now, strict=True)
            )
        )
        if wanted:
            log.warning(
                "not prepared again: %s; its clips lie in one shard with those of %s, which is not there any more",
                first_few(sorted(wanted)),
                first_few(gone),
            )
        else:
            stays += changed
    if stays:
        log.warning(
            "%d sources have changed since they were prepared and stay as they were (%s); --again prepares them anew",
            len(stays),
            first_few(sorted(stays)),
        )
    return batches


def _of_today(before: Source, now: Source | None) -> Source:
    """The planned source with the size and time that its file has now."""
    return replace(before, bytes=now.bytes, modified_ns=now.modified_ns) if now else before


def _changed(
    root: Path, before: Sequence[Source], now: Sequence[Source], record: Message
) -> set[str]:
    """Names of the sources with another content than `record` was made of: another size, or another
    time and other ends.
    """
    made_of = record.get("made_of") or [[source.bytes, source.modified_ns, ""] for source in before]
    changed = set()
    for source, (size, modified_ns, content) in zip(now, made_of, strict=True):
        if source.bytes != size or (
            source.modified_ns != modified_ns
            and content
            and fingerprint(source.local_path(root)) != content
        ):
            changed.add(source.name)
    return changed


def _is_there(source: Source, root: Path) -> bool:
    return "://" in source.path or source.local_path(root).exists()


def _forget(store: OutputFolder, batch: int, changed: set[str]) -> None:
    """Remove the record of a batch, and what is known of lost workers: of `changed` sources, or of
    all when there are none.
    """
    losses = store.read_json(_losses_name(batch)) or {}
    kept = {name: loss for name, loss in losses.items() if changed and name not in changed}
    if kept:
        store.write_json(_losses_name(batch), kept)
    elif losses:
        store.remove(_losses_name(batch))
    store.remove(_record_name(batch))


def _paths_of(names: set[str]) -> set[str]:
    """The paths of sources by their names, which may end in a stretch (`#t=1,2`)."""
    return names | {name.partition("#t=")[0] for name in names}


def _marked_anew(
    batch: Sequence[Source],
    found: dict[str, Source],
    changed: set[str],
    others: Sequence[Source],
    root: Path,
) -> tuple[Source, ...]:
    """The sources of a batch, compared anew with `others` where they or what they were the same as
    have changed.

    `changed` are names of sources of any batch. Split and video_id are again what the user says of
    them.
    """
    changed_paths = _paths_of(changed)
    to_compare = []
    stay = []
    for source in batch:
        if source.name not in changed and source.same_as not in changed_paths:
            stay.append(source)
            continue
        own = found.get(source.name, source)
        own_id = own.video_id if own is not source or not source.same_as else ""
        to_compare.append(replace(source, same_as="", split=own.split, video_id=own_id))
    marked = mark_duplicates(to_compare, root, [*others, *stay])
    compared = {source.name: source for source in marked}
    return tuple(compared.get(source.name, source) for source in batch)


def _read_plan(
    store: OutputFolder, settings: PrepareOptions
) -> tuple[Path | None, list[tuple[Source, ...]]]:
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
    return Path(decode_name(about["root"])), [tuple(batch) for batch in batches]


def _write_plan(
    store: OutputFolder,
    sources: Sources,
    batches: Sequence[Sequence[Source]],
    settings: PrepareOptions,
) -> None:
    about = json.dumps({"root": encode_name(str(sources.root)), "settings": asdict(settings)})
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("path", "split", "video_id", "same_as")),
            ("bytes", pa.int64()),
            ("labels", pa.list_(pa.string())),
            *((name, pa.float64()) for name in ("start_seconds", "stop_seconds")),
            ("batch", pa.int64()),
            ("modified_ns", pa.int64()),
        ],
        metadata={"looklisten": about},
    )
    rows = [
        asdict(source) | {"batch": number}
        for number, batch in enumerate(batches)
        for source in batch
    ]
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    store.write(PLAN, sink.getvalue())


def prepare(
    inputs: Sequence[str | Path],
    out: str | Path,
    settings: PrepareOptions | None = None,
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
) -> dict[str, Any]:
    """Cut the videos that `inputs` name (see `find_sources`) into shards under `out`, and return
    what was done.

    Writes `clips-*.arrow`, `index.json`, `failures.jsonl` and `skipped.jsonl`. Run again it keeps
    what is whole, redoes what is damaged, adds new videos and tries those that failed and have
    changed since. With `again` it makes anew all that failed or changed, with the other sources of
    their batches. `boxes` is a table of known places: path, time, x0, y0, x1, y1, label, sounding.
    `engine="ray"` runs the batches on a Ray cluster. With `num_tasks` this call does the share
    `task_index` of the batches; whichever call finds all batches done writes the index. Raises
    SourceError when there is nothing to prepare or nothing could be, ConfigError when `out` holds
    other settings. Returns sources = prepared + skipped (nothing wrong, but nothing wanted) +
    failed; clips, hours, marks; seconds of work and x_realtime of what this call decoded.
    """
    settings, limits, store = (
        settings or PrepareOptions(),
        limits or WorkerLimits(),
        OutputFolder(out),
    )
    if num_tasks < 1 or not 0 <= (task_index or 0) < num_tasks:
        raise ConfigError(
            f"task {task_index} of {num_tasks} cannot be; tasks are numbered 0 to num_tasks - 1"
        )
    began = time.perf_counter()
    if store.folder is not None:
        check_writable(store.folder)
    places = read_boxes(boxes) if boxes else {}
    store.sweep()
    plan = _plan(store, inputs, labels, settings, _Share(task_index or 0, num_tasks), again)
    _say_strange_boxes(places, plan)
    batches = [
        Batch(
            number,
            plan.root,
            str(out),
            sources,
            {s.path: places[s.path] for s in sources if s.path in places},
            settings,
            limits,
        )
        for number, sources in enumerate(plan.batches)
    ]
    undone = _undone(store, batches)
    mine = [batch for batch in undone if batch.number % num_tasks == (task_index or 0)]
    run = (
        _run_on_ray(mine, workers, progress)
        if engine == "ray"
        else _run_here(mine, workers, limits, progress)
    )
    records = list(run)
    seconds = time.perf_counter() - began
    decoded = sum(record["seconds"] for record in records)
    spent = {
        "seconds": round(seconds, 2),
        "x_realtime": round(decoded / seconds, 1),
        "path": str(out),
    }
    if num_tasks > 1 and (waiting := len(_undone(store, batches))):
        counts = {
            kind: sum(record[kind] for record in records)
            for kind in ("prepared", "skipped", "failed", "clips")
        }
        return {
            "task": f"{task_index} of {num_tasks}",
            "batches": len(mine),
            "batches_of_other_tasks": waiting,
            **counts,
        } | spent
    summary = _merge(store, plan, settings)
    if not summary["clips"]:
        raise SourceError(_why_no_clip(store, summary["sources"]))
    # Batches that were made anew may have left files of before, also those of other calls that
    # shared the work.
    named = {shard["name"] for shard in store.read_json("index.json")["shards"]}
    for name in store.sizes():
        if SHARD_NAME.fullmatch(name) and name not in named:
            store.remove(name)
    return summary | spent


def _why_no_clip(store: OutputFolder, sources: int) -> str:
    """The sentence for a set without a clip: the first reason of those that failed, or else of
    those that were skipped.
    """
    listed = {
        name: (store.read(name) or b"").splitlines() for name in ("failures.jsonl", "skipped.jsonl")
    }
    counts = ", ".join(
        f"{len(lines):,} in {store}/{name}" for name, lines in listed.items() if lines
    )
    first = json.loads(next(line for lines in listed.values() for line in lines))
    where = "" if first["source"] in first["reason"] else f"{printable(first['source'])}: "
    return f"none of the {sources:,} sources gave a clip; the first: {where}{first['reason']} (all: {counts})"


def _say_strange_boxes(places: dict[str, list[VideoBox]], plan: _Plan) -> None:
    """Say which files of the table of boxes are not among the sources."""
    known = {source.path for batch in plan.batches for source in batch}
    strange = sorted(places.keys() - known)
    if strange:
        log.warning(
            "the table of boxes has %d files that are not among the sources, their boxes are left out: %s",
            len(strange),
            first_few(strange),
        )


def _undone(store: OutputFolder, batches: Sequence[Batch]) -> list[Batch]:
    """The batches whose record or one of whose shards is not there."""
    shards, records = store.sizes(), store.sizes("progress")

    def is_done(batch: Batch) -> bool:
        record = store.read_json(batch.record) if Path(batch.record).name in records else None
        return record is not None and all(
            shards.get(shard["name"]) == shard["bytes"] for shard in record["shards"]
        )

    return [batch for batch in batches if not is_done(batch)]


def _run_here(
    batches: Sequence[Batch], workers: int | None, limits: WorkerLimits, progress: Progress
) -> Iterator[Message]:
    """The batches on this machine: a thread for each worker process, since a thread only waits for
    it.
    """
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


def _run_on_ray(
    batches: Sequence[Batch], workers: int | None, progress: Progress
) -> Iterator[Message]:
    """The batches as tasks of a Ray cluster that is running; Ray gives those of a lost machine to
    another.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError("the engine ray needs Ray: pip install 'looklisten[ray]'") from None
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False)
        except ConnectionError:
            raise ConfigError(
                "no Ray cluster is running here; start one with `ray start --head`, or set RAY_ADDRESS"
            ) from None
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


def _merge(store: OutputFolder, plan: _Plan, settings: PrepareOptions) -> dict[str, Any]:
    """One index and the lists of what failed and what was skipped, out of the records of all
    batches.
    """
    records = [store.read_json(_record_name(number)) for number in range(len(plan.batches))]
    missing = [_failure(name, "find", plan.reasons[name]) for name in plan.missing]
    store.write_lines(
        "failures.jsonl", missing + [line for record in records for line in record["failures"]]
    )
    store.write_lines(
        "skipped.jsonl", [line for record in records for line in record["skipped_lines"]]
    )
    labels: Counter[str] = Counter()
    marks: Counter[str] = Counter()
    source_marks: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for record in records:
        labels.update(record["labels"])
        marks.update(record["marks"])
        source_marks.update(record.get("source_marks", {}))
        lost.update(record.get("lost_seconds", {}))
    summary = {
        "sources": sum(map(len, plan.batches)) + len(missing),
        **{
            kind: sum(record[kind] for record in records)
            for kind in ("prepared", "skipped", "failed")
        },
        "clips": sum(record["clips"] for record in records),
        "hours": round(sum(record["seconds"] for record in records) / 3600, 4),
        "marks": dict(sorted(marks.items())),
        "lost_seconds": {why: round(seconds, 3) for why, seconds in sorted(lost.items())},
    }
    summary["failed"] += len(missing)
    store.write_json(
        "index.json",
        {
            "format": FORMAT_VERSION,
            "root": encode_name(str(plan.root)),
            "settings": asdict(settings),
            **summary,
            "labels": dict(sorted(labels.items())),
            "source_marks": dict(sorted(source_marks.items())),
            "shards": [shard for record in records for shard in record["shards"]],
        },
    )
    return summary
