"""Writes the moments of an index for other software: Parquet, or uploads to Qdrant.

`parquet` is one file, in row groups. `qdrant` is a folder of bodies of Qdrant's REST interface:
`collection.json` makes the collection (PUT /collections/NAME), and each `points-NNNNNN.json` adds
moments (PUT /collections/NAME/points). `network.json` says which network made the vectors.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq

from looklisten.config import SIDES
from looklisten.errors import OptionError
from looklisten.names import printable
from looklisten.search.moment_checks import vector_of
from looklisten.search.moment_tables import moment_batches, moment_schema, moment_table
from looklisten.search.moments import IndexedMoment, row_id
from looklisten.search.store import IndexExportFormat
from looklisten.search.writing import writing
from looklisten.system.files import atomic_write, json_bytes

ROW_GROUP_MOMENTS = 16_384
POINTS_IN_A_FILE = 500
"""About 2 MB of JSON with two vectors of 128 numbers; Qdrant takes up to 32 MB at once."""
VECTOR_DECIMALS = 8
"""Of the numbers of a vector in JSON: changes a similarity by less than float32 does."""


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
    schema = moment_schema(width, {"space_id": space_id})
    with pq.ParquetWriter(path, schema) as writer:
        for group in moment_batches(moments, ROW_GROUP_MOMENTS):
            writer.write_table(moment_table(group, schema))


def _write_qdrant(
    moments: Iterable[IndexedMoment], space_id: str, width: int, folder: Path
) -> None:
    folder.mkdir()
    vectors = {side: {"size": width, "distance": "Cosine"} for side in SIDES}
    (folder / "collection.json").write_bytes(json_bytes({"vectors": vectors}, indent=1))
    network = {"space_id": space_id, "width": width}
    (folder / "network.json").write_bytes(json_bytes(network, indent=1))
    for number, group in enumerate(moment_batches(moments, POINTS_IN_A_FILE), 1):
        points = list(_points(group))
        (folder / f"points-{number:06d}.json").write_bytes(json_bytes({"points": points}))


def _points(moments: Iterable[IndexedMoment]) -> Iterator[dict[str, Any]]:
    for moment in moments:
        vectors = {}
        for side in SIDES:
            vector = vector_of(moment, side)
            if vector is not None:
                # All digits of a float64 would double the size of the files.
                vectors[side] = np.round(vector.astype(np.float64), VECTOR_DECIMALS).tolist()
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
        yield {"id": row_id(moment), "vector": vectors, "payload": payload}
