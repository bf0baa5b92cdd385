"""A labelled set -> the vectors of its files, computed once, kept on disk, gone on with after an
interruption.

Knows files of numbers and how to keep a device busy: no label, no fold, no protocol.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from looklisten.errors import SourceError
from looklisten.evaluation.linear_probe.features import Extractor
from looklisten.evaluation.sets.labeled_set import LabeledFiles
from looklisten.system.files import write_json
from looklisten.system.processes import cpu_count
from looklisten.system.progress import Progress, no_progress

KEEP_SECONDS = 20.0
"""An interruption costs at most so much work."""

Read = Callable[[int], Tensor]
"""The rows `[rows, ...]` that an extractor is given of an item; raises SourceError when the item
cannot be read.
"""


@dataclass(eq=False)
class Store:
    """Vectors of `items` files, `[items, rows, width]` float32, row by row in a memory-mapped file;
    or in memory, without a folder.

    What is done is known after a crash: an interrupted extraction goes on where it last said
    `keep`.
    """

    folder: Path | None
    shape: tuple[int, int, int]
    values: NDArray[np.float32] = field(init=False)
    done: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    """Items that could not be read, and why; their vectors are zeros."""

    def __post_init__(self) -> None:
        if self.folder is None:
            self.values = np.zeros(self.shape, np.float32)
            return
        file, about = self.folder / "vectors.npy", self.folder / "done.json"
        if about.is_file() and file.is_file():
            self.values = np.lib.format.open_memmap(file, "r+")
            if self.values.shape == self.shape and self.values.dtype == np.float32:
                told = json.loads(about.read_text(encoding="utf-8"))
                self.done, self.failed = (
                    told["done"],
                    {int(item): why for item, why in told["failed"].items()},
                )
                return
        self.folder.mkdir(parents=True, exist_ok=True)
        about.unlink(missing_ok=True)
        self.values = np.lib.format.open_memmap(file, "w+", np.float32, self.shape)

    def put(self, vectors: Float[np.ndarray, "some rows width"]) -> None:
        """The vectors of the next items."""
        self.values[self.done : self.done + len(vectors)] = vectors
        self.done += len(vectors)

    def fail(self, why: str) -> None:
        """The next item cannot be read."""
        self.failed[self.done] = why
        self.done += 1

    def keep(self) -> None:
        """Make what was put so far last: the numbers first, then the word that they are there."""
        if self.folder is not None:
            assert isinstance(self.values, np.memmap)
            self.values.flush()
            write_json(self.folder / "done.json", {"done": self.done, "failed": self.failed})

    @property
    def usable(self) -> Bool[np.ndarray, " items"]:
        """Which items have vectors."""
        return ~np.isin(np.arange(self.shape[0]), list(self.failed))


def stored_vectors(
    benchmark: LabeledFiles,
    extractor: Extractor,
    rows: int,
    read: Read,
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> Store:
    """Vectors of every item `[items, rows, width]`, kept in a folder of `cache` and gone on with
    there.

    An item that cannot be read is left out and told, never an end.
    """
    folder = (
        cache / benchmark.labeled_set.name / f"{extractor.key}-{benchmark.fingerprint()}-{rows}"
        if cache and extractor.key
        else None
    )
    store = Store(folder, (len(benchmark), rows, extractor.width))
    together = 1 if extractor.whole else max(extractor.batch_rows // rows, 1)
    kept = time.monotonic()
    waiting: list[Tensor] = []

    def flush() -> None:
        if waiting:
            store.put(extractor(torch.cat(waiting)).reshape(len(waiting), rows, extractor.width))
            waiting.clear()

    for item, found in read_ahead(read, range(store.done, len(benchmark))):
        if isinstance(found, SourceError):
            flush()
            store.fail(str(found))
        else:
            waiting.append(found)
            if len(waiting) == together:
                flush()
        if time.monotonic() - kept > KEEP_SECONDS:
            store.keep()
            kept = time.monotonic()
        progress(item + 1, len(benchmark), network=extractor.name)
    flush()
    store.keep()
    return store


def read_ahead(read: Read, items: Sequence[int]) -> Iterator[tuple[int, Tensor | SourceError]]:
    """The items in their order, read by threads ahead of their use; in place of one that cannot be
    read, the reason.
    """

    def tried(item: int) -> Tensor | SourceError:
        try:
            return read(item)
        except SourceError as error:
            return error

    threads = cpu_count()
    with ThreadPoolExecutor(threads, "vectors") as pool:
        ahead: deque[tuple[int, Future[Tensor | SourceError]]] = deque()
        try:
            for item in items:
                ahead.append((item, pool.submit(tried, item)))
                if len(ahead) > 4 * threads:
                    first, future = ahead.popleft()
                    yield first, future.result()
            for first, future in ahead:
                yield first, future.result()
        finally:
            for _, future in ahead:
                future.cancel()
