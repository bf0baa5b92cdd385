"""Which source goes into which batch. The plan is written before any work, and depends on the
sources alone, so that any number of workers gives the same bytes.
"""

import io
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from looklisten.data.batches import BatchRecord, columns_name, lost_workers_name, record_name
from looklisten.data.duplicates import fingerprint, moved_duplicates, with_duplicates
from looklisten.data.inputs import find_sources
from looklisten.data.options import LabelSource, PrepareOptions
from looklisten.data.output_folder import OutputFolder
from looklisten.data.sources import Source, SourceList, check_mixture, unknown_splits
from looklisten.errors import ConfigError, OptionError
from looklisten.names import decode_name, encode_name, first_few, normalize_split, printable

_log = logging.getLogger("looklisten")

PLAN_FILE = "progress/plan.parquet"

# A batch is made again as a whole, so a crash costs the decoding of this many sources at most.
MAX_BATCH_SOURCES = 64

# A small set is still cut into this many batches, so that every core has work and an interruption
# loses little.
MIN_BATCHES = 32

Batches = list[tuple[Source, ...]]

_PLAN_COLUMNS = [
    ("path", pa.string()),
    ("split", pa.string()),
    ("video_id", pa.string()),
    ("same_as", pa.string()),
    ("bytes", pa.int64()),
    ("labels", pa.list_(pa.string())),
    ("start_seconds", pa.float64()),
    ("stop_seconds", pa.float64()),
    ("batch", pa.int64()),
    ("modified_ns", pa.int64()),
]


@dataclass(frozen=True)
class BatchPlan:
    """All batches of a set."""

    root: Path
    batches: tuple[tuple[Source, ...], ...]
    unusable: dict[str, str]
    """Names of files that cannot be used, and why."""


@dataclass(frozen=True)
class TaskShare:
    """Which batches this call makes: every `num_tasks`-th from `task_index` on."""

    task_index: int = 0
    num_tasks: int = 1

    def __post_init__(self) -> None:
        if self.num_tasks < 1 or not 0 <= self.task_index < self.num_tasks:
            raise OptionError(
                f"task {self.task_index} of {self.num_tasks} does not exist; "
                "tasks are numbered from 0 to num_tasks - 1"
            )

    @classmethod
    def of_call(cls, task_index: int | None, num_tasks: int) -> "TaskShare":
        """The share that a call names; without `task_index` all of the work.

        Raises OptionError for `num_tasks` without `task_index`, which would do one share alone.
        """
        if task_index is None and num_tasks > 1:
            raise OptionError(
                "num_tasks needs task_index: which share of the work this call does, from 0"
            )
        return cls(task_index or 0, num_tasks)

    def has(self, batch: int) -> bool:
        return batch % self.num_tasks == self.task_index


def make_plan(
    output: OutputFolder,
    inputs: Sequence[str | Path],
    labels: LabelSource,
    options: PrepareOptions,
    share: TaskShare,
    again: bool,
    sources_per_batch: int | None = None,
) -> BatchPlan:
    """The batches of earlier calls, and new batches for new sources; written before any work.

    An old batch is made again if one of its sources failed and has changed since; with `again`,
    if one of its sources failed or changed.
    """
    root, old_batches = _read_plan(output, options)
    # From the old folder, so that known sources keep their names. If it was moved, the inputs tell.
    sources = find_sources(inputs, labels, root if root and root.is_dir() else None)
    planned = {source.name: source for batch in old_batches for source in batch}
    _check_unchanged(output, sources, planned)
    batches = _Replanning(output, sources, old_batches, share, again).batches()
    new_sources = [source for source in sources.sources if source.name not in planned]
    if new_sources:
        new_sources = _checked_new_sources(new_sources, sources, planned)
        automatic_size = min(max(len(new_sources) // MIN_BATCHES, 1), MAX_BATCH_SOURCES)
        size = sources_per_batch or automatic_size
        # Behind the old batches, whose numbers are in the names of their shards.
        for start in range(0, len(new_sources), size):
            batches.append(tuple(new_sources[start : start + size]))
    # Source.modified_ns does not count in a comparison of sources, but the plan holds it.
    if batches != old_batches or _modified_times(batches) != _modified_times(old_batches):
        _write_plan(output, sources.root, batches, options)
    return BatchPlan(sources.root, tuple(batches), sources.unusable)


def _modified_times(batches: Batches) -> list[int | None]:
    return [source.modified_ns for batch in batches for source in batch]


def _check_unchanged(output: OutputFolder, sources: SourceList, planned: dict[str, Source]) -> None:
    """See that known sources have the same label, split and video_id as before.

    Raises ConfigError.
    """
    for source in sources.sources:
        before = planned.get(source.name)
        if before is None:
            continue
        is_same = source.labels == before.labels
        if not before.same_as:  # a copy has split and id of the first file
            is_same &= normalize_split(source.split) == normalize_split(before.split)
            is_same &= source.video_id == before.video_id
        if not is_same:
            raise ConfigError(
                f"{printable(source.name)} is in {output} with another label, split or video_id; "
                "choose another folder, or delete this one"
            )


def _checked_new_sources(
    new_sources: list[Source], sources: SourceList, planned: dict[str, Source]
) -> list[Source]:
    """New sources with their duplicates named. Raises ConfigError if only some have a split."""
    check_mixture(sources.sources)
    result = with_duplicates(new_sources, sources.root, list(planned.values()))
    for note in (moved_duplicates(new_sources, result), unknown_splits(result)):
        if note:
            _log.warning("%s", note)
    # Earlier calls may have let a mixture in, which is theirs to keep.
    known_have_one_kind = len({bool(source.split) for source in planned.values()}) == 1
    if known_have_one_kind:
        check_mixture([*planned.values(), *result])
    return result


class _Replanning:
    """Old batches in the light of what their files are now.

    What has changed is read from the records of batches, not from the plan, so that calls which
    share the work decide the same.
    """

    def __init__(
        self,
        output: OutputFolder,
        sources: SourceList,
        old_batches: Batches,
        share: TaskShare,
        again: bool,
    ) -> None:
        self._output = output
        self._root = sources.root
        self._old_batches = old_batches
        self._share = share
        self._again = again
        self._named = {source.name: source for source in sources.sources}
        # The same batches with the sizes and times that files have now.
        self._current = [tuple(map(self._with_current_stamp, batch)) for batch in old_batches]
        self._records = [self._read_record(number) for number in range(len(old_batches))]
        self._changed = [self._changed_names(number) for number in range(len(old_batches))]
        self._all_changed: set[str] = set().union(*self._changed)
        self._all_changed_paths = _paths_of(self._all_changed)

    def batches(self) -> Batches:
        """The old batches; those that are to be made again have no record afterwards."""
        batches: Batches = []
        unchanged_by_user: set[str] = set()
        for number in range(len(self._old_batches)):
            batch, stays = self._replan(number, batches)
            batches.append(batch)
            unchanged_by_user |= stays
        if unchanged_by_user:
            _log.warning(
                "%d sources have changed since they were prepared and stay as they were (%s); "
                "--again prepares them anew",
                len(unchanged_by_user),
                first_few(sorted(unchanged_by_user)),
            )
        return batches

    def _replan(self, number: int, earlier: Batches) -> tuple[tuple[Source, ...], set[str]]:
        """(one batch as it is planned now, sources that changed and are not prepared again)."""
        record = self._records[number]
        changed = self._changed[number]
        if record is None:  # not made yet, so it is made of the files as they are now
            return self._compare_again(number, earlier), set()
        to_prepare = self._to_prepare(number, record)
        if to_prepare:
            missing = self._missing_with_clips(number, record)
            if not missing:
                # Calls that share the work decide the same; each removes records of its share.
                if self._share.has(number):
                    _forget(self._output, number, set() if self._again else changed)
                return self._compare_again(number, earlier), set()
            _log.warning(
                "not prepared again: %s; its clips are in one shard with those of %s, "
                "which does not exist any more",
                first_few(sorted(to_prepare)),
                first_few(missing),
            )
        batch = []
        for before, now in zip(self._old_batches[number], self._current[number], strict=True):
            # A changed source that stays keeps its old stamp: later calls see the change too.
            batch.append(before if before.name in changed else now)
        return tuple(batch), set() if to_prepare else changed

    def _with_current_stamp(self, source: Source) -> Source:
        """The planned source with the size and time that its file has now."""
        now = self._named.get(source.name)
        return replace(source, bytes=now.bytes, modified_ns=now.modified_ns) if now else source

    def _read_record(self, number: int) -> BatchRecord | None:
        is_named = any(source.name in self._named for source in self._old_batches[number])
        # A batch that the inputs do not name stays as it is, so its record is not read.
        if not self._again and not is_named:
            return None
        record: BatchRecord | None = self._output.read_json(record_name(number))
        return record

    def _changed_names(self, number: int) -> set[str]:
        """Sources of a batch with another content than its record was made of."""
        record = self._records[number]
        made_of = record.get("made_of") if record else None
        if not made_of:
            made_of = [
                (source.bytes, source.modified_ns, "") for source in self._old_batches[number]
            ]
        changed = set()
        for source, stamp in zip(self._current[number], made_of, strict=True):
            size, modified_ns, content = stamp
            if source.bytes != size:
                changed.add(source.name)
            # Reading costs time, so contents are compared only where the times differ.
            elif source.modified_ns == modified_ns or not content:
                continue
            # A copy or a checkout changes the time and not the content.
            elif fingerprint(source.local_path(self._root)) != content:
                changed.add(source.name)
        return changed

    def _to_prepare(self, number: int, record: BatchRecord) -> set[str]:
        """Sources for which a batch is made again."""
        affected = set(self._changed[number])
        for source in self._old_batches[number]:
            # A copy of a file that has changed is no copy any more.
            if source.same_as in self._all_changed_paths:
                affected.add(source.name)
        if self._again:
            return affected | _failed(record)
        # Clips that exist are replaced only if the user says so, by `--again`.
        return affected & _without_clips(record)

    def _missing_with_clips(self, number: int, record: BatchRecord) -> list[str]:
        """Sources whose clips would be lost, because their files do not exist any more."""
        without_clips = _without_clips(record)
        missing = []
        for source in self._old_batches[number]:
            if source.name not in without_clips and not _exists(source, self._root):
                missing.append(source.name)
        return missing

    def _compare_again(self, number: int, earlier: Batches) -> tuple[Source, ...]:
        """A batch whose changed sources, and their copies, are compared with all others anew."""
        # Sources that changed in later batches are compared when it is their turn.
        others = [source for batch in earlier for source in batch]
        for batch in self._old_batches[number + 1 :]:
            others += [source for source in batch if source.name not in self._all_changed]
        stay = []
        to_compare = []
        for source in self._current[number]:
            is_affected = source.name in self._all_changed
            if not is_affected and source.same_as not in self._all_changed_paths:
                stay.append(source)
            else:
                to_compare.append(self._as_user_says(source))
        compared = with_duplicates(to_compare, self._root, [*others, *stay])
        by_name = {source.name: source for source in compared}
        return tuple(by_name.get(source.name, source) for source in self._current[number])

    def _as_user_says(self, source: Source) -> Source:
        """The source with the user's split and video_id, not those of the file it was a copy of."""
        named = self._named.get(source.name)
        if named is None:
            # The id of a copy is that of the file it was the same as, which may have changed.
            video_id = "" if source.same_as else source.video_id
            return replace(source, same_as="", video_id=video_id)
        return replace(source, same_as="", split=named.split, video_id=named.video_id)


def _failed(record: BatchRecord) -> set[str]:
    return {line["source"] for line in record["failures"]}


def _without_clips(record: BatchRecord) -> set[str]:
    """Sources of a batch that failed or gave no clip."""
    skipped = {line["source"] for line in record["skipped_lines"] if not line["clips_prepared"]}
    return _failed(record) | skipped


def _exists(source: Source, root: Path) -> bool:
    return "://" in source.path or source.local_path(root).exists()


def _paths_of(names: set[str]) -> set[str]:
    """The paths of sources by their names, which may end in a stretch (`#t=1,2`)."""
    # The names too, because a path may itself hold `#t=`.
    return names | {name.partition("#t=")[0] for name in names}


def _forget(output: OutputFolder, batch: int, changed: set[str]) -> None:
    """Remove the record of a batch, and what is known of lost workers.

    `changed`: the sources of which it is forgotten; all if there are none.
    """
    lost_workers = output.read_json(lost_workers_name(batch)) or {}
    remembered = {}
    if changed:
        for name, lost in lost_workers.items():
            if name not in changed:
                remembered[name] = lost
    if remembered:
        output.write_json(lost_workers_name(batch), remembered)
    elif lost_workers:
        output.remove(lost_workers_name(batch))
    output.remove(record_name(batch))
    output.remove(columns_name(batch))


def _read_plan(output: OutputFolder, options: PrepareOptions) -> tuple[Path | None, Batches]:
    """(the common folder of the sources, the batches of earlier calls)."""
    data = output.read(PLAN_FILE)
    if data is None:
        return None, []
    table = parquet.read_table(io.BytesIO(data))
    metadata = json.loads(table.schema.metadata[b"looklisten"])
    before: dict[str, Any] = metadata["settings"]
    # Through JSON, because tuples come back from the file as lists.
    now: dict[str, Any] = json.loads(json.dumps(asdict(options)))
    changed = [name for name in {**now, **before} if now.get(name) != before.get(name)]
    if changed:
        raise ConfigError(
            f"{output} was prepared with another {', '.join(changed)}; "
            "choose another folder, or delete this one to start over"
        )
    batches: list[list[Source]] = []
    # Rows are in order of batch.
    for row in table.to_pylist():
        if row.pop("batch") == len(batches):
            batches.append([])
        row["labels"] = tuple(row["labels"])
        batches[-1].append(Source(**row))
    return Path(decode_name(metadata["root"])), [tuple(batch) for batch in batches]


def _write_plan(
    output: OutputFolder, root: Path, batches: Batches, options: PrepareOptions
) -> None:
    metadata = {"root": encode_name(str(root)), "settings": asdict(options)}
    schema = pa.schema(_PLAN_COLUMNS, metadata={"looklisten": json.dumps(metadata)})
    rows = []
    for number, batch in enumerate(batches):
        rows += [asdict(source) | {"batch": number} for source in batch]
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    output.write(PLAN_FILE, buffer.getvalue())
