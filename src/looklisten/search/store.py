"""What every store of moments can do, and how one is opened. Knows no file format."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from looklisten.config import Side
from looklisten.search.moments import FoundMoment, IndexedMoment

StoreKind = Literal["arrow", "lance"]
IndexExportFormat = Literal["parquet", "qdrant"]


@dataclass(frozen=True)
class StoreStats:
    """What a store holds."""

    store: StoreKind
    space_id: str
    width: int
    """Numbers in a vector."""
    moments: int
    sources: int
    vision_vectors: int
    audio_vectors: int
    disk_bytes: int
    fragments: int
    """Parts on the disk; `maintain` merges them."""
    approximate_moments: int = 0
    """Moments that are searched by an approximate index; the others are compared one by one."""
    recall: float | None = None
    """The share of the true ten nearest that the approximate index finds; None without one."""


@runtime_checkable
class VectorStore(Protocol):
    """Moments on the disk, with exact or approximate search.

    Every change is one commit: after a crash it is there or it is not. One process writes at a
    time, and any number read. A reader sees the last commit at every call.
    """

    @property
    def space_id(self) -> str:
        """The network that made the vectors; vectors of another one mean something else."""

    @property
    def width(self) -> int:
        """Numbers in a vector."""

    def add(self, moments: Iterable[IndexedMoment]) -> None:
        """Add all moments of one or more sources, in one commit.

        A source that is there already is replaced. Raises StoreError for a moment that cannot be
        stored, when another process writes, and when the disk is full; nothing is changed then.
        """

    def remove_source(self, source: str) -> None:
        """Remove all moments of a source, in one commit; nothing happens if there are none."""

    def sources(self) -> dict[str, str]:
        """The sources that are in the store, each with the digest of its content."""

    def moments(self, where: str | None = None) -> Iterator[IndexedMoment]:
        """All moments that match a filter, in no promised order."""

    def search(
        self,
        query: Float32[np.ndarray, " width"],
        side: Side,
        limit: int,
        where: str | None = None,
    ) -> list[FoundMoment]:
        """The `limit` moments whose vectors of a side are most similar to `query`, best first.

        Equal ones are in the order of their ids. Moments without a vector of that side are left
        out. Raises OptionError for a filter that cannot be read.
        """

    def find_tag(self, name: str, limit: int, where: str | None = None) -> list[FoundMoment]:
        """The `limit` moments with the highest scores of a tag, best first."""

    def tags(self) -> list[str]:
        """The names of all tags, in the order of the alphabet."""

    def maintain(self) -> None:
        """Merge small parts, free the space of removed moments, and build what search needs.

        Raises StoreError if that fails; the moments stay as they were.
        """

    def stats(self) -> StoreStats:
        """What the store holds."""

    def export(self, path: Path, format: IndexExportFormat) -> None:
        """Write all moments for other software; see `search/export.py`."""

    def close(self) -> None:
        """Give the lock of the writer back. The store can be used again."""

    def __enter__(self) -> "VectorStore": ...

    def __exit__(self, *_: object) -> None: ...
