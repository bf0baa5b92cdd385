"""Fragments of the store `arrow`: folders with rows as Arrow and vectors as raw float32.

A fragment never changes; all of its files are memory-mapped. Row i of `rows.arrow` has
vector i of `vision.f32` and of `audio.f32`; zeros stand for a vector that it lacks.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float32, Int

from looklisten.config import SIDES, Side
from looklisten.search.filters import Column
from looklisten.search.index_file import FragmentEntry, damaged
from looklisten.search.moment_checks import vector_of
from looklisten.search.moment_tables import moment_of
from looklisten.search.moments import IndexedMoment
from looklisten.system.files import atomic_write

ROWS_NAME = "rows.arrow"
VECTOR_BYTES = 4
"""Of a float32."""
_BLOCK_ROWS = 65_536
"""Vectors that are copied at once, so that memory stays bounded."""

# Names occur in many rows: each is stored once, and a row holds its number.
_NAME = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    [
        ("moment_id", pa.string()),
        ("source", _NAME),
        ("source_digest", _NAME),
        ("video_id", _NAME),
        ("seconds", pa.float64()),
        ("thumbnail", pa.string()),
        ("marks", pa.list_(_NAME)),
        ("label", _NAME),
        ("tag_names", pa.list_(_NAME)),
        ("tag_scores", pa.list_(pa.float32())),
        ("has_vision", pa.bool_()),
        ("has_audio", pa.bool_()),
    ]
)
_TextColumn = Literal["source", "source_digest", "video_id", "label"]
_LISTS: dict[Column, str] = {"tag": "tag_names", "mark": "marks"}
_HAS_VECTOR: dict[Side, str] = {"vision": "has_vision", "audio": "has_audio"}


@dataclass(frozen=True)
class NameLists:
    """A column of lists of names: row i holds `names[codes[offsets[i]:offsets[i + 1]]]`."""

    names: pa.StringArray
    codes: Int[np.ndarray, " values"]
    offsets: Int[np.ndarray, " offsets"]


class Fragment:
    """The files of one fragment, memory-mapped. Raises StoreError when one is damaged.

    Raises FileNotFoundError when it is gone, as after another process has merged it.
    """

    def __init__(self, db: Path, folder: Path, entry: FragmentEntry, width: int) -> None:
        self.entry = entry
        # Filled side by side and column by column, when first asked for.
        self._has_vector: dict[Side, Bool[np.ndarray, " rows"]] = {}
        self._name_lists: dict[Column, NameLists] = {}
        rows_path = folder / ROWS_NAME
        # Reading a part of a mapped file that was cut off would kill the process.
        if rows_path.stat().st_size != entry.rows_bytes:
            raise damaged(db, rows_path, f"it should have {entry.rows_bytes} bytes")
        try:
            # As bytes: Arrow opens no text that is not UTF-8.
            with pa.memory_map(os.fsencode(rows_path)) as file:
                table = pa.ipc.open_file(file).read_all()
                # Offsets of a damaged file may point outside of its values.
                table.validate(full=True)
        except (pa.ArrowInvalid, OSError) as error:
            raise damaged(db, rows_path, str(error)) from None
        if table.schema != _SCHEMA or len(table) != entry.moments:
            raise damaged(db, rows_path, "its columns or rows are others than those written")
        # One chunk a column, so that the number of a row is its position in the arrays.
        self.table = table.combine_chunks()
        self._vectors: dict[Side, Float32[np.ndarray, "rows width"]] = {}
        for side in SIDES:
            path = folder / f"{side}.f32"
            expected_bytes = entry.moments * width * VECTOR_BYTES
            if path.stat().st_size != expected_bytes:
                raise damaged(db, path, f"it should have {expected_bytes} bytes")
            shape = (entry.moments, width)
            self._vectors[side] = np.memmap(path, np.float32, "r", shape=shape)

    def __len__(self) -> int:
        return self.entry.moments

    def vectors(self, side: Side) -> Float32[np.ndarray, "rows width"]:
        """All vectors of a side; `has_vector` says which are real."""
        return self._vectors[side]

    def has_vector(self, side: Side) -> Bool[np.ndarray, " rows"]:
        """Which rows have a vector of a side."""
        has = self._has_vector.get(side)
        if has is None:
            column = self.table[_HAS_VECTOR[side]].chunk(0)
            has = self._has_vector[side] = column.to_numpy(zero_copy_only=False)
        return has

    def names(self, column: _TextColumn) -> pa.DictionaryArray:
        """A column of texts: its different texts, and a code for each row."""
        return self.table[column].chunk(0)

    def numbers(self, column: Literal["seconds"]) -> pa.DoubleArray:
        """A column of numbers."""
        return self.table[column].chunk(0)

    def name_lists(self, column: Column) -> NameLists:
        """A column with several names a row."""
        lists = self._name_lists.get(column)
        if lists is None:
            array = self.table[_LISTS[column]].chunk(0)
            lists = self._name_lists[column] = NameLists(
                names=array.values.dictionary,
                codes=array.values.indices.to_numpy(),
                offsets=array.offsets.to_numpy(),
            )
        return lists

    @cached_property
    def tag_scores(self) -> Float32[np.ndarray, " values"]:
        """The scores of all tags, in the order of `name_lists("tag").codes`."""
        scores: Float32[np.ndarray, " values"] = self.table["tag_scores"].chunk(0).values.to_numpy()
        return scores

    @cached_property
    def sources(self) -> dict[str, str]:
        """The sources with rows here, removed ones too, each with the digest of its content."""
        sources = self.names("source")
        digests = self.names("source_digest")
        # All rows of a source have the same digest, so the first row is enough.
        codes, first_rows = np.unique(sources.indices.to_numpy(), return_index=True)
        return {
            sources.dictionary[int(code)].as_py(): digests[int(row)].as_py()
            for code, row in zip(codes, first_rows, strict=True)
        }

    def kept_rows(self, removed: Sequence[str]) -> Bool[np.ndarray, " rows"]:
        """Which rows are not of a removed source."""
        if not removed:
            return np.ones(len(self), bool)
        sources = self.names("source")
        # Each name is compared once, not each row.
        is_removed = pc.is_in(sources.dictionary, pa.array(removed, pa.string()))
        is_kept: Bool[np.ndarray, " rows"] = ~is_removed.to_numpy(zero_copy_only=False)[
            sources.indices.to_numpy()
        ]
        return is_kept

    def moments(self, rows: Int[np.ndarray, " n"]) -> list[IndexedMoment]:
        """Rows as records, with their vectors."""
        # This copies these rows only; other parts of the mapped file are not read.
        vectors = {side: self.vectors(side)[rows] for side in SIDES}
        moments = []
        for number, row in enumerate(self.table.take(pa.array(rows)).to_pylist()):
            has_vector = {side: row[_HAS_VECTOR[side]] for side in SIDES}
            row_vectors = {
                side: vectors[side][number] if has_vector[side] else None for side in SIDES
            }
            moments.append(moment_of(row, row_vectors))
        return moments


def write_moments(folder: Path, moments: Sequence[IndexedMoment], width: int) -> FragmentEntry:
    """Write moments as a fragment; its name is that of the folder."""
    columns: dict[str, list[Any]] = {
        "moment_id": [moment.moment_id for moment in moments],
        "source": [moment.source for moment in moments],
        "source_digest": [moment.source_digest for moment in moments],
        "video_id": [moment.video_id for moment in moments],
        "seconds": [float(moment.seconds) for moment in moments],
        "thumbnail": [moment.thumbnail for moment in moments],
        "marks": [list(moment.marks) for moment in moments],
        "label": [moment.label for moment in moments],
        "tag_names": [list(moment.tags) for moment in moments],
        "tag_scores": [list(moment.tags.values()) for moment in moments],
        "has_vision": [moment.vision is not None for moment in moments],
        "has_audio": [moment.audio is not None for moment in moments],
    }
    arrays = [_array(columns[column.name], column.type) for column in _SCHEMA]
    table = pa.Table.from_arrays(arrays, schema=_SCHEMA)
    # Both files have a vector for each row, so that rows need no second number.
    missing = np.zeros(width, np.float32)

    def blocks(side: Side) -> Iterator[Float32[np.ndarray, "n width"]]:
        for start in range(0, len(moments), _BLOCK_ROWS):
            vectors = [vector_of(moment, side) for moment in moments[start : start + _BLOCK_ROWS]]
            yield np.stack([missing if vector is None else vector for vector in vectors])

    return _write(folder, table, {side: blocks(side) for side in SIDES})


def merge_fragments(
    folder: Path, fragments: Sequence[Fragment], kept_masks: Sequence[Bool[np.ndarray, " _"]]
) -> FragmentEntry:
    """Write the kept rows of several fragments as one."""
    tables = []
    for fragment, is_kept in zip(fragments, kept_masks, strict=True):
        tables.append(fragment.table.filter(pa.array(is_kept)))
    # Each fragment numbers its names by itself.
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()

    def blocks(side: Side) -> Iterator[Float32[np.ndarray, "n width"]]:
        for fragment, is_kept in zip(fragments, kept_masks, strict=True):
            vectors = fragment.vectors(side)
            for start in range(0, len(fragment), _BLOCK_ROWS):
                block = slice(start, start + _BLOCK_ROWS)
                yield vectors[block][is_kept[block]]

    return _write(folder, table, {side: blocks(side) for side in SIDES})


def _write(
    folder: Path, table: pa.Table, vectors: dict[Side, Iterator[Float32[np.ndarray, "_ _"]]]
) -> FragmentEntry:
    with atomic_write(folder) as scratch:
        scratch.mkdir()
        with (scratch / ROWS_NAME).open("wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
            # One record batch, because several are joined by a copy when they are read.
            writer.write_table(table, max_chunksize=max(len(table), 1))
        for side, blocks in vectors.items():
            with (scratch / f"{side}.f32").open("wb") as file:
                for block in blocks:
                    file.write(np.ascontiguousarray(block).data)
        rows_bytes = (scratch / ROWS_NAME).stat().st_size
    return FragmentEntry(folder.name, len(table), rows_bytes)


def _array(values: list[Any], type_: pa.DataType) -> pa.Array:
    """`values` as an array; Arrow makes no lists of dictionaries by itself."""
    if not pa.types.is_list(type_) or type_.value_type != _NAME:
        return pa.array(values, type_)
    texts = pa.array(values, pa.list_(pa.string()))
    return pa.ListArray.from_arrays(texts.offsets, texts.values.dictionary_encode(), type=type_)
