"""The most similar of many vectors, exactly: one matrix product over memory-mapped blocks."""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

_BLOCK_ROWS = 65_536
"""Vectors that are compared at once: what is copied or widened stays small."""
SPARSE_SHARE = 0.25
"""If fewer rows are selected, they are copied; else all are compared and the others dropped."""


def nearest_rows(
    vectors: Float32[np.ndarray, "rows width"],
    query: Float32[np.ndarray, " width"],
    selected: Bool[np.ndarray, " rows"],
    limit: int,
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Selected rows with the largest dot products, and these products, in no order.

    All rows that equal the last one are among them, so that the caller chooses. The products are
    summed in float64 in one order: where a row stands does not change its product.
    """
    count = int(np.count_nonzero(selected))
    if count == 0:
        return np.zeros(0, np.int64), np.zeros(0)
    if count < SPARSE_SHARE * len(vectors):
        rows = np.flatnonzero(selected)
        estimates = np.empty(count, np.float32)
        for start in range(0, count, _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            estimates[block] = vectors[rows[block]] @ query
    else:
        rows = np.arange(len(vectors))
        estimates = np.empty(len(vectors), np.float32)
        for start in range(0, len(vectors), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            np.dot(vectors[block], query, out=estimates[block])
        if count < len(vectors):
            estimates[~selected] = -np.inf
    # An estimate may be off by the rounding of `width` sums.
    margin = len(query) * float(np.finfo(np.float32).eps)
    rows = rows[estimates >= _nth_largest(estimates, min(limit, count)) - 2 * margin]
    products = _products(vectors, query, rows)
    is_near = products >= _nth_largest(products, min(limit, count))
    return rows[is_near], products[is_near]


def _nth_largest(values: Float32[np.ndarray, " n"] | Float64[np.ndarray, " n"], n: int) -> float:
    return float(np.partition(values, len(values) - n)[len(values) - n])


def _products(
    vectors: Float32[np.ndarray, "rows width"],
    query: Float32[np.ndarray, " width"],
    rows: Int64[np.ndarray, " n"],
) -> Float64[np.ndarray, " n"]:
    products = np.empty(len(rows))
    wide_query = query.astype(np.float64)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        products[block] = (vectors[rows[block]].astype(np.float64) * wide_query).sum(axis=1)
    return products
