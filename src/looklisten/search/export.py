"""Writes the moments of an index for other software: Parquet, or uploads to Qdrant.

`parquet` is one file, in row groups. `qdrant` is a folder of bodies of Qdrant's REST interface:
`collection.json` makes the collection (PUT /collections/NAME), and each `points-NNNNNN.json` adds
moments (PUT /collections/NAME/points). `network.json` says which network made the vectors.
"""

import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from looklisten.config import SIDES
from looklisten.errors import OptionError
from looklisten.names import printable
from looklisten.search.moment_checks import vector_of
from looklisten.search.moments import IndexedMoment
from looklisten.search.store import IndexExportFormat
from looklisten.search.writing import writing
from looklisten.system.files import atomic_write, json_bytes

ROW_GROUP_MOMENTS = 16_384
POINTS_IN_A_FILE = 500
"""About 3 MB of JSON with two vectors of 128 numbers; Qdrant takes up to 32 MB at once."""
POINT_IDS = uuid.UUID("5d6f3c0e-7a43-4f0b-9f57-0a3c4c1b8e21")
"""The namespace of the ids of points, which Qdrant wants as UUIDs."""


def export_moments(
    moments: Iterable[IndexedMoment],
    space_id: str,
    width: int,
    path: Path,
    format: IndexExportFormat,
) -> None:
    """Write all moments to `path`, a file or a folder, which is complete or absent."""
    if format not in get_args(IndexExportFormat):
        raise OptionError(f"format {printable(format)!r} must be parquet or qdrant", "format")
    with writing(path), atomic_write(path) as scratch:
        if format == "parquet":
            _write_parquet(moments, space_id, width, scratch)
        else:
            _write_qdrant(moments, space_id, width, scratch)


def _write_parquet(moments: Iterable[IndexedMoment], space_id: str, width: int, path: Path) -> None:
    vector = pa.list_(pa.float32(), width)
    schema = pa.schema(
        [
            ("moment_id", pa.string()),
            ("source", pa.string()),
            ("source_digest", pa.string()),
            ("video_id", pa.string()),
            ("seconds", pa.float64()),
            ("thumbnail", pa.string()),
            ("marks", pa.list_(pa.string())),
            ("label", pa.string()),
            ("tags", pa.map_(pa.string(), pa.float32())),
            ("vision", vector),
            ("audio", vector),
        ],
        metadata={"space_id": space_id},
    )
    with pq.ParquetWriter(path, schema) as writer:
        for group in _batches(moments, ROW_GROUP_MOMENTS):
            columns = {
                name: [getattr(moment, name) for moment in group]
                for name in schema.names
                if name not in ("tags", *SIDES)
            }
            columns["tags"] = [list(moment.tags.items()) for moment in group]
            for side in SIDES:
                vectors = [vector_of(moment, side) for moment in group]
                columns[side] = _vector_array(vectors, width)
            writer.write_table(pa.table(columns, schema=schema))


def _batches(moments: Iterable[IndexedMoment], count: int) -> Iterator[list[IndexedMoment]]:
    remaining = iter(moments)
    while batch := list(islice(remaining, count)):
        yield batch


def _vector_array(vectors: list[Float32[np.ndarray, " width"] | None], width: int) -> pa.Array:
    is_missing = np.array([vector is None for vector in vectors])
    zeros = np.zeros(width, np.float32)
    rows = [zeros if vector is None else vector for vector in vectors]
    numbers = pa.array(np.concatenate(rows))
    return pa.FixedSizeListArray.from_arrays(numbers, width, mask=pa.array(is_missing))


def _write_qdrant(
    moments: Iterable[IndexedMoment], space_id: str, width: int, folder: Path
) -> None:
    folder.mkdir()
    vectors = {side: {"size": width, "distance": "Cosine"} for side in SIDES}
    (folder / "collection.json").write_bytes(json_bytes({"vectors": vectors}, indent=1))
    network = {"space_id": space_id, "width": width}
    (folder / "network.json").write_bytes(json_bytes(network, indent=1))
    for number, group in enumerate(_batches(moments, POINTS_IN_A_FILE), 1):
        points = list(_points(group))
        (folder / f"points-{number:06d}.json").write_bytes(json_bytes({"points": points}))


def _points(moments: Iterable[IndexedMoment]) -> Iterator[dict[str, Any]]:
    for moment in moments:
        # A copy of a file has moments of the same ids, and is a source of its own.
        point_id = uuid.uuid5(POINT_IDS, f"{moment.moment_id} {moment.source}")
        vectors = {}
        for side in SIDES:
            vector = vector_of(moment, side)
            if vector is not None:
                vectors[side] = vector.tolist()
        payload = {
            "moment_id": moment.moment_id,
            "source": moment.source,
            "source_digest": moment.source_digest,
            "video_id": moment.video_id,
            "seconds": moment.seconds,
            "thumbnail": moment.thumbnail,
            "marks": list(moment.marks),
            "label": moment.label,
            "tags": list(moment.tags),
            "tag_scores": list(moment.tags.values()),
        }
        yield {"id": str(point_id), "vector": vectors, "payload": payload}
