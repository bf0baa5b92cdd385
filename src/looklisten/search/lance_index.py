"""The indexes of the store `lance`: of vectors, with the recall that they reach, and of columns.

The index of vectors is an inverted file with RaBitQ codes (IVF_RQ): a query reads the vectors of
some partitions by their codes of one bit a number, and compares the best of them exactly. The
effort sets how many partitions are read and how many vectors are compared. It grows until the true
ten nearest are found often enough. Vectors of both sides are the queries of this measurement: those
of the other side lie elsewhere in the space, so their nearest are harder to find.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from looklisten.config import SIDES, Side
from looklisten.search.exact_search import nearest_rows
from looklisten.search.lance_search import ApproximateIndex, NearestSearch

NEIGHBORS = 10
"""Recall is the share of the true NEIGHBORS nearest vectors that a search finds."""
QUERIES_OF_A_SIDE = 32
"""The number of vectors of each side with which recall is measured."""
RECALL_GOAL = 0.97
MAX_EFFORT = 32
"""The effort is doubled until recall reaches RECALL_GOAL, but not beyond this."""
_BLOCK_ROWS = 16_384


def index_name(side: Side) -> str:
    return f"{side}_idx"


def train_index(table: Any, side: Side) -> None:
    """Make the approximate index of a side, in place of the one before."""
    from lancedb.index import IvfRq

    table.create_index(
        side, config=IvfRq(distance_type="cosine"), replace=True, name=index_name(side)
    )


def index_columns(table: Any) -> None:
    """Make the indexes of the columns that filters name, where they are missing.

    At a million moments searches with a filter became 1.6 to 5 times as fast (LOG.md, 2026-11-28).
    LanceDB adds new rows to them.
    """
    from lancedb.index import Bitmap, BTree, LabelList

    kinds = {"seconds": BTree, "source": BTree, "label": Bitmap, "marks": LabelList}
    kinds["tag_names"] = LabelList
    known = {index.name for index in table.list_indices()}
    for column, kind in kinds.items():
        if f"{column}_idx" not in known:
            table.create_index(column, config=kind(), name=f"{column}_idx")


def measured_index(table: Any, search: NearestSearch, side: Side, vectors: int) -> ApproximateIndex:
    """The smallest effort that reaches RECALL_GOAL, else MAX_EFFORT, with the recall it reaches.

    `vectors`: how many the index was trained on, recorded with it.
    """
    queries = _query_vectors(table)
    # Once for all efforts, because comparing all vectors takes longest.
    truth = _true_neighbors(table, side, queries)
    effort = 1
    while True:
        recall = _recall(search, side, queries, truth, effort)
        if recall >= RECALL_GOAL or effort >= MAX_EFFORT:
            return ApproximateIndex(vectors, effort, round(recall, 4))
        effort *= 2


def _query_vectors(table: Any) -> Float32[np.ndarray, "queries width"]:
    """Vectors of both sides; always the same ones for one version of the table."""
    generator = np.random.default_rng(0)
    queries: list[Float32[np.ndarray, " width"]] = []
    for side in SIDES:
        count = table.count_rows()
        offsets = generator.choice(count, size=min(count, 4 * QUERIES_OF_A_SIDE), replace=False)
        # In the order of the rows, so that rows that are stored together are read together.
        rows = table.take_offsets(sorted(offsets.tolist())).select([side]).to_arrow()
        vectors = _present_vectors(rows[side].combine_chunks())
        if len(vectors) < QUERIES_OF_A_SIDE:
            # Few moments have this side, so a sample of all has hardly any of them.
            having = table.search().where(f"has_{side}").select([side]).limit(QUERIES_OF_A_SIDE)
            vectors = _present_vectors(having.to_arrow()[side].combine_chunks())
        # Not the first ones, which all lie at the beginning of the table.
        queries += list(generator.permutation(vectors)[:QUERIES_OF_A_SIDE])
    return np.stack(queries)


def _true_neighbors(
    table: Any, side: Side, queries: Float32[np.ndarray, "queries width"]
) -> list[set[str]]:
    """The row ids of the nearest vectors of each query, by comparing all of them."""
    nearest: list[list[tuple[float, str]]] = [[] for _ in queries]
    for ids, vectors in _vector_batches(table, side):
        # No row is left out here: the query skipped those without a vector.
        everywhere = np.ones(len(vectors), bool)
        for number, query in enumerate(queries):
            rows, products = nearest_rows(vectors, query, everywhere, NEIGHBORS)
            candidates = zip(products.tolist(), (ids[row].as_py() for row in rows), strict=True)
            nearest[number] = sorted([*nearest[number], *candidates], reverse=True)[:NEIGHBORS]
    return [{row_id for _, row_id in neighbors} for neighbors in nearest]


def _vector_batches(
    table: Any, side: Side
) -> Iterator[tuple[pa.StringArray, Float32[np.ndarray, "rows width"]]]:
    query = table.search().where(f"has_{side}").select(["row_id", side])
    for batch in query.to_batches(batch_size=_BLOCK_ROWS):
        if len(batch):
            yield batch["row_id"], _present_vectors(batch[side])


def _present_vectors(array: pa.FixedSizeListArray) -> Float32[np.ndarray, "rows width"]:
    """The vectors that are not missing, as rows."""
    numbers = array.flatten().to_numpy(zero_copy_only=False)
    vectors: Float32[np.ndarray, "rows width"] = numbers.reshape(-1, array.type.list_size)
    return vectors


def _recall(
    search: NearestSearch,
    side: Side,
    queries: Float32[np.ndarray, "queries width"],
    truth: list[set[str]],
    effort: int,
) -> float:
    hits = 0
    trial = ApproximateIndex(0, effort, 0.0)
    for query, neighbors in zip(queries, truth, strict=True):
        rows = search.rows(side, query, NEIGHBORS, trial, ["row_id"])
        hits += len(neighbors & set(rows["row_id"].to_pylist()))
    return hits / sum(len(neighbors) for neighbors in truth)


def read_approximate(facts: Mapping[str, Any], side: Side) -> ApproximateIndex | None:
    """What `index.json` says of the approximate index of a side. Raises TypeError, KeyError."""
    values = facts.get("approximate", {}).get(side)
    return ApproximateIndex(**values) if values else None
