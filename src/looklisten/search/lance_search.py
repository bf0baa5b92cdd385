"""The nearest vectors in a table of LanceDB.

By LanceDB's asynchronous interface: its other one asks for the schema three times a query and
changes threads as often, which took as long as the search itself (LOG.md). Knows no moment.
"""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from looklisten.config import Side

PARTITIONS = 20
"""Partitions that a query reads, times the effort."""
REFINE_FACTOR = 4
"""So many times the wanted moments are compared exactly, times the effort."""


@dataclass(frozen=True)
class ApproximateIndex:
    """How the approximate index of one side is searched, and what it finds."""

    vectors: int
    """Vectors when it was trained."""
    effort: int
    """How much more a query reads than at least; a power of two."""
    recall: float
    """Measured when the store was last maintained."""


class NearestSearch:
    """Searches the last version of one table; usable from any thread."""

    def __init__(self, table: Any) -> None:
        """`table`: opened by the asynchronous interface."""
        self._table = table

    def rows(
        self,
        side: Side,
        query: Float32[np.ndarray, " width"],
        limit: int,
        approximate: ApproximateIndex | None,
        columns: Sequence[str],
        where: str | None = None,
    ) -> pa.Table:
        """The rows with the most similar vectors of a side; `where` is a condition in SQL."""
        built = self._table.query().nearest_to(query).column(side).distance_type("cosine")
        if approximate is None:
            # There may be an index that was never measured, for example after a kill.
            built = built.bypass_vector_index()
        else:
            effort = approximate.effort
            built = built.nprobes(PARTITIONS * effort).refine_factor(REFINE_FACTOR * effort)
        if where is not None:
            # Before the search, not among what it found.
            built = built.where(where)
        # LanceDB warns when its distance is left out.
        return run_async(built.limit(limit).select([*columns, "_distance"]).to_arrow())


def run_async(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine, for a caller that may have an event loop itself."""
    return asyncio.run_coroutine_threadsafe(coroutine, _event_loop()).result()


@cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """A loop in a thread of its own, for all tables: callers may have a loop themselves."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="lance search", daemon=True).start()
    return loop
