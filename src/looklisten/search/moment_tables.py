"""Moments <-> Arrow tables with plain columns, as Parquet files and LanceDB hold them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from looklisten.config import SIDES, Side
from looklisten.search.moment_checks import vector_of
from looklisten.search.moments import IndexedMoment

_PLAIN_COLUMNS = (
    ("moment_id", pa.string()),
    ("source", pa.string()),
    ("source_digest", pa.string()),
    ("video_id", pa.string()),
    ("seconds", pa.float64()),
    ("thumbnail", pa.string()),
    ("label", pa.string()),
)
_LIST_COLUMNS = (
    ("marks", pa.list_(pa.string())),
    ("tag_names", pa.list_(pa.string())),
    ("tag_scores", pa.list_(pa.float32())),
)


def moment_schema(width: int, metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """The columns of a table of moments; a vector that is missing is null."""
    vectors = [(side, pa.list_(pa.float32(), width)) for side in SIDES]
    return pa.schema([*_PLAIN_COLUMNS, *_LIST_COLUMNS, *vectors], metadata=metadata)


def moment_table(moments: Sequence[IndexedMoment], schema: pa.Schema) -> pa.Table:
    """Moments as rows of `moment_schema`."""
    columns: dict[str, Any] = {
        name: [getattr(moment, name) for moment in moments] for name, _ in _PLAIN_COLUMNS
    }
    columns["marks"] = [list(moment.marks) for moment in moments]
    columns["tag_names"] = [list(moment.tags) for moment in moments]
    columns["tag_scores"] = [list(moment.tags.values()) for moment in moments]
    for side in SIDES:
        vectors = [vector_of(moment, side) for moment in moments]
        columns[side] = _vector_array(vectors, schema.field(side).type.list_size)
    return pa.table(columns, schema=schema)


def table_moments(table: pa.Table) -> list[IndexedMoment]:
    """The rows of a table as moments."""
    vectors = {side: _vectors(table[side]) for side in SIDES}
    rows = table.drop_columns(list(SIDES)).to_pylist()
    return [
        moment_of(row, {side: vectors[side][number] for side in SIDES})
        for number, row in enumerate(rows)
    ]


def moment_of(
    row: Mapping[str, Any], vectors: Mapping[Side, Float32[np.ndarray, " width"] | None]
) -> IndexedMoment:
    """One row, as Python values, and its vectors as a moment."""
    plain = {name: row[name] for name, _ in _PLAIN_COLUMNS}
    tags = dict(zip(row["tag_names"], row["tag_scores"], strict=True))
    return IndexedMoment(
        **plain,
        marks=tuple(row["marks"]),
        tags=tags,
        vision=vectors["vision"],
        audio=vectors["audio"],
    )


def moment_batches(moments: Iterable[IndexedMoment], count: int) -> Iterator[list[IndexedMoment]]:
    """Moments in lists of at most `count`."""
    remaining = iter(moments)
    while batch := list(islice(remaining, count)):
        yield batch


def _vector_array(
    vectors: Sequence[Float32[np.ndarray, " width"] | None], width: int
) -> pa.FixedSizeListArray:
    if not vectors:
        return pa.array([], pa.list_(pa.float32(), width))
    zeros = np.zeros(width, np.float32)
    rows = [zeros if vector is None else vector for vector in vectors]
    is_missing = np.array([vector is None for vector in vectors])
    numbers = pa.array(np.concatenate(rows), pa.float32())
    return pa.FixedSizeListArray.from_arrays(numbers, width, mask=pa.array(is_missing))


def _vectors(column: pa.ChunkedArray) -> list[Float32[np.ndarray, " width"] | None]:
    is_valid = column.is_valid().to_numpy()
    return [
        row if valid else None for row, valid in zip(column_vectors(column), is_valid, strict=True)
    ]


def column_vectors(column: pa.ChunkedArray) -> Float32[np.ndarray, "rows width"]:
    """The vectors of a column; where one is missing, the numbers mean nothing."""
    array = column.combine_chunks()
    width = array.type.list_size
    # `flatten` leaves nulls out, `values` ignores the offset: so take the part that is meant.
    numbers = array.values.slice(array.offset * width, len(array) * width)
    vectors: Float32[np.ndarray, "rows width"] = numbers.to_numpy(zero_copy_only=False)
    return vectors.reshape(len(array), width)
