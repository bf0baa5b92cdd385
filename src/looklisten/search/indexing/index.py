"""Sounds, images and videos -> an index of their moments; a second run brings it up to date.

Decisions:

- A source is known by its absolute path and done by its content: a file that was copied, touched or
  moved back is not read again. Its digest is kept with its size and date in `seen.jsonl`, which may
  be lost without harm.
- Each source is one commit of the store, so a kill loses at most the source that was being read.
- Two files with the same bytes are indexed once. When the first one is gone or changes, the second
  takes over.
- A file that is gone is removed from the index when an input folder held it, or when an input holds
  its bytes under another name. Files of inputs that a call does not name stay in the index.
- A file that changes while it is read is not indexed: its digest would be that of other bytes.
- Files are decoded in another process. A file that ends it twice, or makes it hang, is written to
  `failures.jsonl` and opened again only if it or the decoder changes.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from looklisten.data.inputs import find_sources
from looklisten.data.options import Engine, LabelSource
from looklisten.data.plan import TaskShare
from looklisten.data.sources import (
    Source,
    SourceList,
    absolute_address,
    check_no_stretches,
    is_remote,
    path_on_this_machine,
)
from looklisten.errors import (
    ConfigError,
    DecoderLostError,
    OptionError,
    SourceError,
    StoreError,
)
from looklisten.inference.embedding.failures import FailureLine, FailureLog, decoder_version
from looklisten.inference.embedding.fingerprints import SourceStamp
from looklisten.media.formats import MEDIA_SUFFIXES
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.media.isolation.parent import use_limits
from looklisten.model.networks import Run, open_network
from looklisten.names import decode_name, encode_name
from looklisten.option_checks import check_at_least, check_one_of
from looklisten.search.filters import text_literal
from looklisten.search.finding.score_calibration import curves_as_json, fit_curves
from looklisten.search.indexing.index_folder import (
    IndexFolder,
    absolute_network,
    write_facts,
)
from looklisten.search.indexing.index_result import IndexResult
from looklisten.search.indexing.moment_encoder import MomentEncoder
from looklisten.search.indexing.own_classes import read_own_classes, with_own_tags
from looklisten.search.indexing.parts import (
    index_on_ray,
    part_folder,
    share_of,
    take_parts_in,
    unchanged_sources,
)
from looklisten.search.indexing.rows import names_of_source, rows_of_source
from looklisten.search.indexing.source_reader import Advance, read_source
from looklisten.search.opening import open_store
from looklisten.search.options import IndexChoices, IndexOptions
from looklisten.search.store import VectorStore
from looklisten.system.files import MACHINE_ERRORS, check_writable
from looklisten.system.progress import Progress, no_progress

_log = logging.getLogger("looklisten")


def index(
    inputs: Sequence[str | Path],
    db: str | Path,
    network: Run | str | Path = "start",
    options: IndexOptions | None = None,
    labels: LabelSource = "table",
    device: str = "auto",
    progress: Progress = no_progress,
    make_encoder: Callable[[Any, bool], MomentEncoder] = MomentEncoder,
    engine: Engine = "local",
    task_index: int | None = None,
    num_tasks: int = 1,
    **choices: Unpack[IndexChoices],
) -> IndexResult:
    """Index the moments of all files that `inputs` name; a second call adds what is new or changed.

    `inputs`: what `prepare` takes, and also sounds and images.
    `db`: the folder of the index. `failures.jsonl` in it has a line for each file that failed or
        ended early.
    `network`: one with vectors of frames and of sound in one space, or a model of others with
        vectors of one side.
    `make_encoder`: gives another `MomentEncoder`, such as one that computes on another thread. The
        tasks of a Ray cluster do not use it.
    `task_index`, `num_tasks`: in a job array, index this share of the files into a part of its own.
        The next call without them takes all parts in.
    `engine="ray"`: index `num_tasks` shares, by default four for each core, on a Ray cluster, and
        then take the parts in. With the device cuda each share has one GPU.
    `choices`: fields of `IndexOptions`; they override `options`.

    Raises OptionError for options that never fit together; ConfigError for a network without such a
    space or an index with other moments; StoreError for an index of another network, and while
    another process writes to it.
    """
    options = replace(options or IndexOptions(), **choices)
    check_at_least(0, task_index=task_index)
    check_at_least(1, num_tasks=num_tasks)
    check_one_of(Engine, engine=engine)
    is_on_ray = engine == "ray"
    is_part = task_index is not None
    if is_part and is_on_ray:
        raise OptionError("task_index is for job arrays: the engine ray numbers its tasks itself")
    share = TaskShare() if is_on_ray else TaskShare.of_call(task_index, num_tasks)
    folder = IndexFolder(part_folder(Path(db), share) if is_part else Path(db))
    check_writable(folder.path)
    if not isinstance(network, Run):
        network = open_network(network, device)
    encoder = make_encoder(network.network, options.tags)
    found_sources = find_sources([str(name) for name in inputs], labels, suffixes=MEDIA_SUFFIXES)
    check_no_stretches("index", found_sources.sources)
    if is_on_ray:
        index_on_ray(
            partial(
                index,
                [absolute_address(name) for name in inputs],
                absolute_address(db),
                absolute_network(network.name),
                options,
                labels,
                device,
            ),
            [absolute_name(found_sources.root, source) for source in found_sources.sources],
            num_tasks,
            int(device.startswith("cuda")),
            progress,
        )
    # A part is read once, to be taken in: it needs no approximate index, and stays a local folder.
    kind = "arrow" if is_part else options.store
    table = None if is_part else options.table
    with open_store(
        folder.path, network.network_key, encoder.width, kind, create=True, table=table
    ) as store:
        write_facts(folder, network, encoder, options.every_seconds)
        taken_in = 0 if is_part else take_parts_in(folder, store, options.every_seconds)
        update = _Update(folder, store, encoder, options, found_sources)
        update.leave_out(Path(db), share, is_part)
        limits = WorkerLimits(
            stall_seconds=options.stall_seconds, memory_megabytes=options.memory_megabytes
        )
        with use_limits(limits):
            update.run(inputs, progress)
        return replace(update.result(), taken_in=taken_in)


def absolute_name(root: Path, source: Source) -> str:
    """The name of a source in an index: its absolute path, or the address of a remote file."""
    if is_remote(source.path):
        return source.path
    # Not `resolve`: a link keeps its own name.
    return encode_name(os.path.abspath(source.local_path(root)))  # noqa: PTH100


class _Update:
    """Brings an index up to date with a list of sources."""

    def __init__(
        self,
        folder: IndexFolder,
        store: VectorStore,
        encoder: MomentEncoder,
        options: IndexOptions,
        listed: SourceList,
    ) -> None:
        self._folder = folder
        self._store = store
        self._encoder = encoder
        self._options = options
        self._root = listed.root
        self._sources = {absolute_name(listed.root, source): source for source in listed.sources}
        self._unusable = dict(listed.unusable)
        self._seen = folder.seen_files()
        self._failures = FailureLog(folder.path / "failures.jsonl")
        self._own_classes = list(read_own_classes(folder.path).values())
        self._digests = store.sources()
        """Of the sources in the index: name -> digest of the content."""
        self._holders = {digest: name for name, digest in self._digests.items()}
        """The reverse: digest -> name. Copies of a source are in neither."""
        self._counts = dict.fromkeys(
            (
                "indexed",
                "unchanged",
                "relabeled",
                "copies",
                "removed",
                "not_opened",
                "moments_added",
            ),
            0,
        )
        self._media_seconds = 0.0

    def leave_out(self, db: Path, share: TaskShare, is_part: bool) -> None:
        """Leave out the index's own files, other shares and, for a part, what the index holds."""
        # The index may lie in a folder of sources, and its thumbnails are not to be indexed.
        own_files = encode_name(os.path.abspath(db)) + os.sep  # noqa: PTH100
        for names in (self._sources, self._unusable):
            for name in list(names):
                if name.startswith(own_files) or share_of(name, share.num_tasks) != share:
                    del names[name]
        if is_part:
            for name in unchanged_sources(IndexFolder(db), self._store, self._sources, self._root):
                del self._sources[name]

    def run(self, inputs: Sequence[str | Path], progress: Progress) -> None:
        """Remove what is gone, index what is new or changed, and tidy up.

        `inputs`: as `index` got them; their folders tell which missing files are gone.
        """
        # Before new lines are added: a file that failed in an earlier run may be readable now.
        self._failures.keep_lines(self._is_still_true)
        for name, reason in self._unusable.items():
            self._failures.add(name, reason)
        for name in self._gone(inputs):
            self._remove(name)
            self._counts["removed"] += 1
        losses = self._failures.decoder_losses()
        total = len(self._sources)
        for number, (name, source) in enumerate(self._sources.items()):
            if name in losses:
                self._counts["not_opened"] += 1
            else:
                self._bring_up_to_date(name, source, _Minutes(progress, number, total))
            progress(number + 1, total)
        self._finish()
        # Last, so that a kill leaves thumbnails without rows, not rows without thumbnails.
        self._folder.remove_thumbnails(keep=set(self._holders))
        if losses:
            _log.warning(
                "%d files ended the decoder before and did not change, so they were not opened "
                "(%s); --retry-crashed opens them",
                len(losses),
                losses[min(losses)],
            )

    def result(self) -> IndexResult:
        return IndexResult(
            sources=len(self._sources) + len(self._unusable),
            failed=len(self._failures.lines),
            moments=self._store.stats().moments,
            media_seconds=round(self._media_seconds, 3),
            db=str(self._folder.path),
            **self._counts,
        )

    def _is_still_true(self, line: FailureLine) -> bool:
        """Whether a line of an earlier run is still true."""
        name = line["source"]
        if name not in self._sources and name not in self._unusable:
            # This call does not name the file, so it learns nothing new about it.
            return name in self._digests or self._exists(name)
        before = SourceStamp.read(line)
        if before.source_sha256 is not None and name in self._sources:
            is_same = self._stamp(name).source_sha256 == before.source_sha256
            if self._digests.get(name) == before.source_sha256:
                return is_same
            is_crash = line.get("decoder_lost") and line.get("decoder") == decoder_version()
            return bool(is_same and is_crash and not self._options.retry_crashed)
        # A file that ended early is in the index, and is not read again while it stays the same.
        is_in_index = name in self._sources and name in self._digests
        return is_in_index and self._stamp(name).source_sha256 == self._digests[name]

    def _stamp(self, name: str) -> SourceStamp:
        """What is known of the content of a file on this machine."""
        source = self._sources[name]
        if is_remote(source.path):
            before = self._seen.get(name)
            is_same = before and source.bytes in (None, before.source_bytes)
            # Asking would take one request for each file, so the size in the listing decides.
            return before if before and is_same else SourceStamp(source.bytes)
        return self._seen.stamp_of(name, source.local_path(self._root))

    @staticmethod
    def _exists(name: str) -> bool:
        return is_remote(name) or os.path.lexists(decode_name(name))

    def _gone(self, inputs: Sequence[str | Path]) -> Iterator[str]:
        """The sources of the index below an input folder whose files are gone."""
        folders = [Path(os.path.abspath(name)) for name in inputs]  # noqa: PTH100
        folders = [path for path in folders if path.is_dir()]
        for name in sorted(self._digests):
            if name in self._sources or self._exists(name):
                continue
            path = Path(decode_name(name))
            if any(path.is_relative_to(folder) for folder in folders):
                yield name

    def _remove(self, name: str) -> None:
        self._store.remove_source(name)
        self._holders.pop(self._digests.pop(name), None)

    def _finish(self) -> None:
        """Merge the store and fit the scores, unless that was done for the same content."""
        # Not a count of what this run did: an earlier one may have been killed before this.
        content = json.dumps(sorted(self._digests.items()))
        finished = {"finished_content": hashlib.sha256(content.encode()).hexdigest()}
        facts = self._folder.facts()
        if finished.items() <= facts.items():
            return
        self._store.maintain()
        curves = fit_curves(self._store)
        self._folder.write_facts(facts | {"score_curves": curves_as_json(curves)} | finished)

    def _bring_up_to_date(self, name: str, source: Source, advance: Advance) -> None:
        stamp = SourceStamp(source.bytes)
        try:
            stamp = self._stamp(name)
            digest = stamp.source_sha256
            if digest is not None and self._is_in_index(name, digest):
                return
            with path_on_this_machine(self._root, source) as path:
                if digest is None:
                    stamp = self._seen.stamp_of(name, path, is_copy=is_remote(source.path))
                    if stamp.source_sha256 and self._is_in_index(name, stamp.source_sha256):
                        return
                self._add_with_retry(name, source, path, stamp, advance)
        except ConfigError:
            raise
        except DecoderLostError as error:
            self._fail(name, str(error), stamp, is_loss=True)
        except Exception as error:
            is_of_machine = isinstance(error, OSError) and error.errno in MACHINE_ERRORS
            # A store that fails for one source fails for all.
            if is_of_machine or isinstance(error, StoreError):
                raise
            self._fail(name, str(error) or type(error).__name__, stamp)

    def _is_in_index(self, name: str, digest: str) -> bool:
        """Count a source that is in the index already, itself or as a copy."""
        if self._digests.get(name) == digest:
            self._counts["unchanged"] += 1
            self._take_names(name)
            return True
        holder = self._holders.get(digest)
        if holder is None:
            return False
        if not self._has_content(holder, digest):
            # A file that moved, or whose place another one took: this one takes over.
            self._counts["removed"] += not self._exists(holder)
            self._remove(holder)
            return False
        # The name held another content before.
        if name in self._digests:
            self._remove(name)
        self._counts["copies"] += 1
        return True

    def _has_content(self, name: str, digest: str) -> bool:
        """Whether a source of the index is still a file with this content."""
        if is_remote(name):
            return True
        return self._seen.stamp_of(name, Path(decode_name(name))).source_sha256 == digest

    def _take_names(self, name: str) -> None:
        """Give the rows of a source another label or video id, if the inputs name another one."""
        names = names_of_source(self._sources[name])
        # Reading the rows of each source would make a run without changes slow.
        if self._seen.names_of(name) == names:
            return
        rows = list(self._store.moments(f"source = {text_literal(name)}"))
        new = [replace(row, label=names.label, video_id=names.video_id) for row in rows]
        if any(
            (a.label, a.video_id) != (b.label, b.video_id) for a, b in zip(rows, new, strict=True)
        ):
            self._store.add(new)
            self._counts["relabeled"] += 1
        self._seen.note_names(name, names)

    def _fail(self, name: str, reason: str, stamp: SourceStamp, is_loss: bool = False) -> None:
        # The rows of this name in the index are of an earlier content.
        if name in self._digests:
            self._remove(name)
        self._failures.add(name, reason, stamp if is_loss else None)

    def _add_with_retry(
        self, name: str, source: Source, path: Path, stamp: SourceStamp, advance: Advance
    ) -> None:
        try:
            self._add(name, source, path, stamp, advance)
        except DecoderLostError as error:
            if error.hung:
                raise
            # The machine may have been short of memory.
            self._add(name, source, path, stamp, advance)

    def _add(
        self, name: str, source: Source, path: Path, stamp: SourceStamp, advance: Advance
    ) -> None:
        digest = stamp.source_sha256
        if digest is None:
            raise FileNotFoundError(f"{name} cannot be read")
        content = read_source(
            path,
            self._encoder,
            self._options.every_seconds,
            partial(self._folder.save_thumbnail, digest),
            advance,
        )
        if not is_remote(source.path) and not stamp.is_still(path):
            raise SourceError(
                f"{path} changed while it was read; when it is complete, run the same command again"
            )
        rows = list(rows_of_source(name, digest, source, content))
        moments = with_own_tags(rows, self._own_classes, self._encoder.width)
        self._store.add(moments)
        if name in self._digests:
            self._holders.pop(self._digests[name], None)
        self._digests[name] = digest
        self._holders[digest] = name
        self._seen.note_names(name, names_of_source(source))
        self._counts["indexed"] += 1
        self._counts["moments_added"] += len(moments)
        self._media_seconds += content.seconds
        if content.stop_reason:
            reason = f"{content.stop_reason}; what came before is indexed"
            self._failures.add(name, reason)


@dataclass(frozen=True)
class _Minutes:
    """Reports progress within one file: how many minutes of it are read."""

    progress: Progress
    done: int
    """Files before this one."""
    total: int

    def __call__(self, seconds: float) -> None:
        self.progress(self.done, self.total, at=f"{seconds / 60:.0f} min")
