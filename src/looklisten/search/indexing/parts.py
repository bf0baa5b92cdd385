"""Parts of an index that tasks of a job array or of a Ray cluster made, and how they become one.

Each task writes an index of its own, in a folder of the index. The call that comes after all tasks
takes the parts in, a commit for some sources at a time. The parts go when all of them are in, so a
kill loses nothing. Knows stores and folders, no media.
"""

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looklisten.data.plan import TaskShare
from looklisten.data.sources import Source, is_remote
from looklisten.errors import ConfigError, StoreInUseError
from looklisten.search.filters import text_literal
from looklisten.search.index_file import INDEX_NAME
from looklisten.search.indexing.index_folder import IndexFolder
from looklisten.search.indexing.own_classes import read_own_classes, with_own_tags
from looklisten.search.opening import open_store
from looklisten.search.store import VectorStore
from looklisten.system.folder_lock import STALE_SECONDS
from looklisten.system.progress import Progress
from looklisten.system.ray_cluster import cluster_cores, run_on_ray

PARTS = "parts"
SOURCES_OF_A_COMMIT = 64
JOINED_FILES = ("seen.jsonl", "failures.jsonl")


SHARES_OF_A_CORE = 4
"""On a Ray cluster, so that a share with long videos is not the last one alone."""
LOCK_POLL_SECONDS = 0.5


def share_of(name: str, num_tasks: int) -> TaskShare:
    """The share that the source of this name falls to; more files move none to another task."""
    digest = hashlib.sha256(name.encode()).digest()
    return TaskShare(int.from_bytes(digest[:8], "big") % num_tasks, num_tasks)


def index_on_ray(
    index: Callable[..., Any],
    names: Iterable[str],
    num_tasks: int,
    gpus: int,
    progress: Progress,
) -> None:
    """Make the parts of all sources as tasks of a Ray cluster; of one task, four for each core.

    `index` indexes the share that its keywords name, as `looklisten.index` does. Raises
    ConfigError without a cluster.
    """
    if num_tasks == 1:
        num_tasks = SHARES_OF_A_CORE * cluster_cores()
    sources = Counter(share_of(name, num_tasks) for name in names)
    tasks = [_PartTask(index, share) for share in sources]
    done = 0
    for task, _ in run_on_ray(_index_when_free, tasks, gpus=gpus):
        done += sources[task.share]
        progress(done, sources.total())


@dataclass(frozen=True)
class _PartTask:
    """What a process of a Ray cluster is to index."""

    index: Callable[..., Any]
    share: TaskShare


def _index_when_free(task: _PartTask) -> None:
    deadline_seconds = time.monotonic() + STALE_SECONDS
    while True:
        try:
            task.index(task_index=task.share.task_index, num_tasks=task.share.num_tasks)
            return
        except StoreInUseError:
            # Ray repeats the task of a lost machine, whose process may live for a moment more.
            if time.monotonic() > deadline_seconds:
                raise
            time.sleep(LOCK_POLL_SECONDS)


def part_folder(db: Path, share: TaskShare) -> Path:
    """Where a task writes."""
    return db / PARTS / f"{share.task_index:05d}-of-{share.num_tasks:05d}"


def unchanged_sources(
    folder: IndexFolder, part: VectorStore, sources: Mapping[str, Source], root: Path
) -> set[str]:
    """Of some sources the files on this machine whose content the whole index holds.

    Raises StoreError for an index of another network than that of the part.
    """
    if not (folder.path / INDEX_NAME).exists():
        return set()
    indexed_hashes = set(open_store(folder.path, part.space_id, part.width).sources().values())
    files_of_index = folder.seen_files()
    unchanged = set()
    for name, source in sources.items():
        if is_remote(name):
            continue
        stamp = files_of_index.unchanged(name, source.local_path(root))
        if stamp is not None and stamp.source_sha256 in indexed_hashes:
            unchanged.add(name)
    return unchanged


def take_parts_in(folder: IndexFolder, store: VectorStore, every_seconds: float) -> int:
    """Move what tasks have indexed into the index, and remove their parts; returns how many files.

    Raises StoreError while a task is still at work or for a part of another network, and
    ConfigError for one with other moments.
    """
    paths = sorted((folder.path / PARTS).glob("*"))
    # A task that was killed at once has made no store yet.
    parts = [IndexFolder(path) for path in paths if (path / INDEX_NAME).exists()]
    first_names: dict[str, str] = {}
    for part in parts:
        _check_moments(part, every_seconds)
        for name, digest in open_store(part.path, store.space_id, store.width).sources().items():
            first_names[digest] = min(name, first_names.get(digest, name))
    count = 0
    for part in parts:
        count += _take_in(folder, store, part, first_names)
    for path in paths:
        shutil.rmtree(path)
    return count


def _check_moments(part: IndexFolder, every_seconds: float) -> None:
    of_part = part.facts().get("every_seconds", every_seconds)
    if of_part != every_seconds:
        raise ConfigError(
            f"{part.path} has a moment every {of_part:g} s, not every {every_seconds:g} s; "
            f"give --every-seconds {of_part:g}, or remove it and run its task again"
        )


def _take_in(
    folder: IndexFolder, store: VectorStore, part: IndexFolder, first_names: Mapping[str, str]
) -> int:
    """Take one part in. `first_names`: of copies of a file, which several tasks met, the first."""
    with open_store(part.path, create=True) as of_task:
        known_digests = set(store.sources().values())
        new = []
        for name, digest in sorted(of_task.sources().items()):
            if first_names[digest] == name and digest not in known_digests:
                new.append(name)
        # First, so that a kill leaves thumbnails without rows, not rows without thumbnails.
        if part.thumbnails.is_dir():
            shutil.copytree(part.thumbnails, folder.thumbnails, dirs_exist_ok=True)
        layers = list(read_own_classes(folder.path).values())
        for names in _batches(new):
            rows = list(of_task.moments(f"source IN ({', '.join(map(text_literal, names))})"))
            store.add(with_own_tags(rows, layers, store.width))
        _join_files(folder.path, part.path)
    return len(new)


def _join_files(db: Path, part: Path) -> None:
    """Append what the part knows of files; a line that is there twice does no harm."""
    for name in JOINED_FILES:
        if (part / name).exists():
            with (db / name).open("ab") as file:
                file.write((part / name).read_bytes())


def _batches(names: Sequence[str]) -> Iterator[Iterable[str]]:
    for first in range(0, len(names), SOURCES_OF_A_COMMIT):
        yield names[first : first + SOURCES_OF_A_COMMIT]
