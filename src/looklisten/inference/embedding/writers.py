"""`Embeddings` -> a file: .npz, Parquet or JSON lines, written a part at a time, whole or absent.
Knows no network.

A file holds the vectors of one source, of one side or of both.
"""

import contextlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from looklisten.inference.embedding.records import Embeddings, joined
from looklisten.system.files import atomic_write

Format = Literal["npz", "parquet", "jsonl"]

ROWS_A_PART = 1024
"""Vectors are written so many at a time."""

Made = dict[str, Any]
"""Facts about how a file of vectors was made, as JSON has them."""

FLOAT32_DIGITS = 9
"""Decimal digits that tell every float32 from its neighbours."""


class _Npz:
    """Arrays `audio` or `vision` `[n, features]` and `..._start_seconds` `[n]`, and `about`, a JSON
    text.

    Nobody knows the number of rows before the end, so rows wait in a file beside.
    """

    def __init__(self, path: Path, made: Made) -> None:
        self._path = path
        self._rows: dict[str, BinaryIO] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._seconds: dict[str, list[NDArray[np.float64]]] = {}
        self._about: dict[str, Any] = {"made": made} if made else {}

    def __enter__(self) -> "_Npz":
        return self

    def write(self, part: Embeddings) -> None:
        rows = self._rows.get(part.side)
        if rows is None:
            rows = self._rows[part.side] = self._path.with_name(f"{part.side}.rows").open("w+b")
        rows.write(np.ascontiguousarray(part.vectors, "<f4").tobytes())
        self._seconds.setdefault(part.side, []).append(part.start_seconds)
        done = self._shapes.get(part.side, (0,))[0]
        self._shapes[part.side] = (done + len(part), part.vectors.shape[1])
        self._about |= {"source": part.source, part.side: _about(part)}

    def note(self, name: str, values: NDArray[np.float64]) -> None:
        self._arrays[name] = values

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()
        for rows in self._rows.values():
            rows.close()
            Path(rows.name).unlink()

    def _finish(self) -> None:
        arrays = self._arrays | {
            f"{side}_start_seconds": np.concatenate(seconds)
            for side, seconds in self._seconds.items()
        }
        arrays["about"] = np.array(json.dumps(self._about, ensure_ascii=False))
        with zipfile.ZipFile(self._path, "w") as archive:
            for side, rows in self._rows.items():
                rows.seek(0)
                with _member(archive, side) as member:
                    np.lib.format.write_array_header_2_0(
                        member,
                        {"descr": "<f4", "fortran_order": False, "shape": self._shapes[side]},
                    )
                    shutil.copyfileobj(rows, member, 2**20)
            for name, array in arrays.items():
                with _member(archive, name) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    """A file in the archive, of always the same date, so that the same vectors give the same bytes."""
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _about(part: Embeddings) -> dict[str, Any]:
    return {"layer": part.layer, "window_seconds": part.window_seconds, "centered": part.centered}


class _Parquet:
    """A row a vector: source, side, layer, start_seconds, window_seconds, vector."""

    SCHEMA = pa.schema(
        [
            ("source", pa.string()),
            ("side", pa.string()),
            ("layer", pa.string()),
            ("start_seconds", pa.float64()),
            ("window_seconds", pa.float64()),
            ("vector", pa.list_(pa.float32())),
        ]
    )

    def __init__(self, path: Path, made: Made) -> None:
        self._writer = parquet.ParquetWriter(path, self.SCHEMA)
        self._writer.add_key_value_metadata({"made": json.dumps(made)})

    def __enter__(self) -> "_Parquet":
        return self

    def write(self, part: Embeddings) -> None:
        same = {"source": part.source, "side": part.side, "layer": part.layer}
        offsets = np.arange(len(part) + 1, dtype=np.int32) * part.vectors.shape[1]
        columns = [pa.array([value] * len(part)) for value in same.values()]
        columns += [pa.array(part.start_seconds), pa.array(np.full(len(part), part.window_seconds))]
        columns.append(pa.ListArray.from_arrays(offsets, pa.array(part.vectors.ravel())))
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self.SCHEMA))

    def note(self, name: str, values: NDArray[np.float64]) -> None:
        self._writer.add_key_value_metadata({name: json.dumps(values.tolist())})

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()


class _JsonLines:
    """An object a line, a line a vector, with the names of Parquet's columns."""

    def __init__(self, path: Path, made: Made) -> None:
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace")
        self._made = {"made": made} if made else {}

    def __enter__(self) -> "_JsonLines":
        return self

    def write(self, part: Embeddings) -> None:
        same = {"source": part.source, "side": part.side, "layer": part.layer}
        for start, vector in zip(part.start_seconds.tolist(), part.vectors.tolist(), strict=True):
            short = [float(f"{value:.{FLOAT32_DIGITS}g}") for value in vector]
            row = (
                same
                | {"start_seconds": start, "window_seconds": part.window_seconds, "vector": short}
                | self._made
            )
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def note(self, name: str, values: NDArray[np.float64]) -> None:
        self._file.write(json.dumps({name: values.tolist()}) + "\n")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


VectorFile = _Npz | _Parquet | _JsonLines
"""Something open: `write` takes parts of `Embeddings`, each side's in the order of time; `note` a
column that belongs to the whole.
"""

FORMATS: dict[Format, Callable[[Path, Made], VectorFile]] = {
    "npz": _Npz,
    "parquet": _Parquet,
    "jsonl": _JsonLines,
}


@contextlib.contextmanager
def vector_file(path: Path, format: Format, made: Made | None = None) -> Iterator[VectorFile]:
    """A file to write parts to; `path` is there, whole, when the block has ended well. It keeps
    `made` for `read_made`.
    """
    with atomic_write(path) as scratch, FORMATS[format](scratch, made or {}) as file:
        yield file


def read_made(path: Path, format: Format) -> Made:
    """What a file of vectors was made of; empty when it does not say, is damaged or is not there."""
    try:
        if format == "npz":
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
        elif format == "parquet":
            metadata = parquet.read_metadata(path).metadata or {}
            about = {"made": json.loads(metadata.get(b"made", b"{}"))}
        else:
            with path.open(encoding="utf-8") as lines:
                about = json.loads(lines.readline())
        made: Made = about.get("made", {})
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile, pa.ArrowException):
        return {}
    return made if isinstance(made, dict) else {}


def gathered(parts: Iterable[Embeddings]) -> Iterator[Embeddings]:
    """The same vectors in parts of about `ROWS_A_PART`."""
    waiting: list[Embeddings] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= ROWS_A_PART:
            yield joined(waiting)
            waiting = []
    if waiting:
        yield joined(waiting)
