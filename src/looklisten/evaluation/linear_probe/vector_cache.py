"""Vectors of the files of a labeled set, computed once and stored on disk.

Knows how to store numbers and how to read files ahead. It knows no label and no fold.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from looklisten.errors import SourceError
from looklisten.evaluation.linear_probe.features import FeatureExtractor
from looklisten.evaluation.sets.labeled_set import LabeledFiles
from looklisten.system.files import write_json
from looklisten.system.processes import cpu_count, map_ahead
from looklisten.system.progress import Progress, no_progress

SAVE_SECONDS = 20.0
"""How often vectors are saved; an interruption costs at most this much work."""
# Enough to keep the threads busy while the network computes a batch.
ITEMS_AHEAD_PER_THREAD = 4

ReadItem = Callable[[int], Tensor]
"""The rows `[rows, ...]` of one item for an extractor; raises SourceError if it is unreadable."""


@dataclass(eq=False)
class VectorCache:
    """Vectors `[items, rows, width]` in float32, in a memory-mapped file or else in memory.

    Items are appended in their order. An interrupted computation resumes at the last `save`.
    """

    folder: Path | None
    shape: tuple[int, int, int]
    vectors: NDArray[np.float32] = field(init=False)
    n_done: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    """The reason for each item that could not be read; its vectors are zeros."""

    def __post_init__(self) -> None:
        if self.folder is None:
            self.vectors = np.zeros(self.shape, np.float32)
        elif not self._resume(self.folder):
            self._start(self.folder)

    def _resume(self, folder: Path) -> bool:
        """Open the saved vectors; returns False if there are none, or none of this shape."""
        vectors_file = folder / "vectors.npy"
        done_file = folder / "done.json"
        if not (vectors_file.is_file() and done_file.is_file()):
            return False
        self.vectors = np.lib.format.open_memmap(vectors_file, "r+")
        if self.vectors.shape != self.shape or self.vectors.dtype != np.float32:
            return False
        # The vectors of these items are on disk; the other rows may hold anything.
        saved = json.loads(done_file.read_text(encoding="utf-8"))
        self.n_done = saved["done"]
        for item, reason in saved["failed"].items():
            self.failures[int(item)] = reason
        return True

    def _start(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # An old done.json would say of the new zeros that they are vectors.
        (folder / "done.json").unlink(missing_ok=True)
        self.vectors = np.lib.format.open_memmap(
            folder / "vectors.npy", "w+", np.float32, self.shape
        )

    def append(self, vectors: Float[np.ndarray, "items rows width"]) -> None:
        """Store the vectors of the next items."""
        end = self.n_done + len(vectors)
        self.vectors[self.n_done : end] = vectors
        self.n_done = end

    def append_failure(self, reason: str) -> None:
        """Record that the next item cannot be read."""
        self.failures[self.n_done] = reason
        self.n_done += 1

    def save(self) -> None:
        """Write everything to disk, so that it survives a crash."""
        if self.folder is None:
            return
        assert isinstance(self.vectors, np.memmap)
        # The vectors first: done.json must never promise what is not on disk.
        self.vectors.flush()
        write_json(self.folder / "done.json", {"done": self.n_done, "failed": self.failures})

    @property
    def usable(self) -> Bool[np.ndarray, " items"]:
        """Which items have vectors."""
        return ~np.isin(np.arange(self.shape[0]), list(self.failures))


def cached_vectors(
    files: LabeledFiles,
    extractor: FeatureExtractor,
    rows: int,
    read: ReadItem,
    cache: Path | None = None,
    progress: Progress = no_progress,
    save_seconds: float = SAVE_SECONDS,
) -> VectorCache:
    """Vectors of every item `[items, rows, width]`, stored in a folder of `cache`.

    An interrupted computation resumes there. An item that cannot be read is recorded and skipped.
    """
    folder = None
    if cache and extractor.key:
        # All that vectors depend on is in the name, so that none can be mixed up.
        name = f"{extractor.key}-{files.fingerprint()}-{rows}"
        folder = cache / files.labeled_set.name / name
    vectors = VectorCache(folder, (len(files), rows, extractor.width))
    # Whole clips differ in length and cannot be stacked.
    items_per_batch = 1 if extractor.whole_clips else max(extractor.batch_rows // rows, 1)
    last_save = time.monotonic()
    pending: list[Tensor] = []

    def compute_pending() -> None:
        if pending:
            flat = extractor(torch.cat(pending))
            vectors.append(flat.reshape(len(pending), rows, extractor.width))
            pending.clear()

    for item, content in read_ahead(read, range(vectors.n_done, len(files))):
        if isinstance(content, SourceError):
            # Items are appended in order, so those before the failure go first.
            compute_pending()
            vectors.append_failure(str(content))
        else:
            pending.append(content)
            if len(pending) == items_per_batch:
                compute_pending()
        if time.monotonic() - last_save > save_seconds:
            vectors.save()
            last_save = time.monotonic()
        progress(item + 1, len(files), network=extractor.name)
    compute_pending()
    vectors.save()
    return vectors


def read_ahead(read: ReadItem, items: Sequence[int]) -> Iterator[tuple[int, Tensor | SourceError]]:
    """The items in their order, read by threads before they are needed.

    The error takes the place of an item that cannot be read.
    """

    def read_or_error(item: int) -> tuple[int, Tensor | SourceError]:
        try:
            return item, read(item)
        except SourceError as error:
            return item, error

    threads = cpu_count()
    return map_ahead(read_or_error, items, threads, ITEMS_AHEAD_PER_THREAD * threads)
