"""Formats of files of vectors: .npz, Parquet and JSON lines, written block by block.

A file holds the vectors of one source, of one side or of both. When writing fails, no file is left.
`register_vector_format` adds a format. Knows no network.
"""

import contextlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from looklisten.errors import OptionError
from looklisten.inference.embedding.records import Embeddings
from looklisten.system.files import atomic_write

Provenance = dict[str, Any]
"""Facts about how a file of vectors was made, as JSON has them."""

FLOAT32_DIGITS = 9
"""Decimal digits that tell every float32 from its neighbors."""

COPY_BYTES = 2**20


@runtime_checkable
class VectorWriter(Protocol):
    """An open file of vectors. The blocks of one side come in the order of time."""

    def write(self, block: Embeddings) -> None:
        """Append the vectors of a block."""

    def write_array(self, name: str, values: NDArray[np.float64]) -> None:
        """Add an array about all vectors of the file."""

    def __enter__(self) -> "VectorWriter":
        """Begin writing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file; after an error it will be deleted."""


@dataclass(frozen=True)
class VectorFormat:
    """A format of files of vectors. Its name is the suffix of its files."""

    name: str
    open: Callable[[Path, Provenance], VectorWriter]
    """Opens a new file that also keeps its provenance."""
    read_provenance: Callable[[Path], Provenance]
    """What `open` was given. May raise OSError, ValueError or KeyError for a damaged file."""


VECTOR_FORMATS: dict[str, VectorFormat] = {}
"""All formats by name."""


def register_vector_format(vector_format: VectorFormat) -> None:
    """Make a format available to `embed_files`."""
    VECTOR_FORMATS[vector_format.name] = vector_format


def vector_format_of(name: str) -> VectorFormat:
    """The format of a name. Raises ConfigError when there is none."""
    if name not in VECTOR_FORMATS:
        names = ", ".join(VECTOR_FORMATS)
        raise OptionError(f"there is no format {name!r} of vectors; there are {names}")
    return VECTOR_FORMATS[name]


@contextlib.contextmanager
def open_vector_file(
    path: Path, vector_format: VectorFormat, provenance: Provenance
) -> Iterator[VectorWriter]:
    """A new file of vectors, which gets its name when it is complete."""
    with atomic_write(path) as scratch, vector_format.open(scratch, provenance) as writer:
        yield writer


def read_provenance(path: Path, vector_format: VectorFormat) -> Provenance:
    """How a file of vectors was made.

    Empty when the file does not say, is damaged or does not exist.
    """
    damages = (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile, pa.ArrowException)
    # Whatever is wrong with a damaged file, the answer is to embed its source again.
    try:
        provenance = vector_format.read_provenance(path)
    except damages:
        return {}
    return provenance if isinstance(provenance, dict) else {}


class _Npz:
    """Arrays `audio` and `vision`, `[n, features]`, and `..._start_seconds`, `[n]`.

    `about` is a JSON text with everything else.
    """

    def __init__(self, path: Path, provenance: Provenance) -> None:
        self._path = path
        # The header, which is before the rows, has their number, and that is known only at the
        # end. So rows wait in a file of their own.
        self._row_files: dict[str, BinaryIO] = {}
        self._shapes: dict[str, tuple[int, int]] = {}
        self._start_seconds: dict[str, list[NDArray[np.float64]]] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._about: dict[str, Any] = {"provenance": provenance} if provenance else {}

    def __enter__(self) -> "_Npz":
        return self

    def write(self, block: Embeddings) -> None:
        side = block.side
        if side not in self._row_files:
            row_path = self._path.with_name(f"{side}.rows")
            self._row_files[side] = row_path.open("w+b")
            self._shapes[side] = (0, block.vectors.shape[1])
            self._start_seconds[side] = []
        # The same bytes on every machine, as the header says.
        little_endian = np.ascontiguousarray(block.vectors, "<f4")
        self._row_files[side].write(little_endian.tobytes())
        self._start_seconds[side].append(block.start_seconds)
        rows, features = self._shapes[side]
        self._shapes[side] = (rows + len(block), features)
        self._about["source"] = block.source
        self._about[side] = {
            "layer": block.layer,
            "window_seconds": block.window_seconds,
            "centered": block.centered,
        }

    def write_array(self, name: str, values: NDArray[np.float64]) -> None:
        self._arrays[name] = values

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._write_archive()
        for rows in self._row_files.values():
            rows.close()
            Path(rows.name).unlink()

    def _write_archive(self) -> None:
        arrays = dict(self._arrays)
        for side, seconds in self._start_seconds.items():
            arrays[f"{side}_start_seconds"] = np.concatenate(seconds)
        arrays["about"] = np.array(json.dumps(self._about, ensure_ascii=False))
        with zipfile.ZipFile(self._path, "w") as archive:
            for side, rows in self._row_files.items():
                shape = self._shapes[side]
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                rows.seek(0)
                with _archive_member(archive, side) as member:
                    np.lib.format.write_array_header_2_0(member, header)
                    shutil.copyfileobj(rows, member, COPY_BYTES)
            for name, array in arrays.items():
                with _archive_member(archive, name) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)


def _archive_member(archive: zipfile.ZipFile, name: str) -> Any:
    # What `ZipFile.open` returns is no `IO`, so the tests' checks of types refuse that annotation.
    # `ZipInfo` has a fixed date, so that the same vectors give the same bytes.
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _npz_provenance(path: Path) -> Provenance:
    with np.load(path, allow_pickle=False) as arrays:
        facts: dict[str, Any] = json.loads(str(arrays["about"]))
    provenance: Provenance = facts.get("provenance", {})
    return provenance


class _Parquet:
    """One row for each vector: source, side, layer, start_seconds, window_seconds, vector."""

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

    def __init__(self, path: Path, provenance: Provenance) -> None:
        # A file of Python: Arrow opens no path whose name is not UTF-8.
        self._file = path.open("wb")
        self._writer = parquet.ParquetWriter(self._file, self.SCHEMA)
        self._writer.add_key_value_metadata({"provenance": json.dumps(provenance)})

    def __enter__(self) -> "_Parquet":
        return self

    def write(self, block: Embeddings) -> None:
        rows = len(block)
        # A list column is one buffer of numbers and the offsets of its rows. Python lists of floats
        # would take many times the memory.
        vector_offsets = np.arange(rows + 1, dtype=np.int32) * block.vectors.shape[1]
        columns = [
            pa.array([block.source] * rows),
            pa.array([block.side] * rows),
            pa.array([block.layer] * rows),
            pa.array(block.start_seconds),
            pa.array(np.full(rows, block.window_seconds)),
            pa.ListArray.from_arrays(vector_offsets, pa.array(block.vectors.ravel())),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self.SCHEMA))

    def write_array(self, name: str, values: NDArray[np.float64]) -> None:
        self._writer.add_key_value_metadata({name: json.dumps(values.tolist())})

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._writer.close()


def _parquet_provenance(path: Path) -> Provenance:
    with path.open("rb") as file:
        metadata = parquet.read_metadata(file).metadata or {}
    provenance: Provenance = json.loads(metadata.get(b"provenance", b"{}"))
    return provenance


class _JsonLines:
    """One JSON object and one line for each vector, with the names of the Parquet columns."""

    def __init__(self, path: Path, provenance: Provenance) -> None:
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace")
        # It is in every line, so that lines of several files can be put together.
        self._provenance = {"provenance": provenance} if provenance else {}

    def __enter__(self) -> "_JsonLines":
        return self

    def write(self, block: Embeddings) -> None:
        starts = block.start_seconds.tolist()
        for start_seconds, vector in zip(starts, block.vectors.tolist(), strict=True):
            # The shortest text that gives the same float32 again.
            rounded = [float(f"{value:.{FLOAT32_DIGITS}g}") for value in vector]
            row = {
                "source": block.source,
                "side": block.side,
                "layer": block.layer,
                "start_seconds": start_seconds,
                "window_seconds": block.window_seconds,
                "vector": rounded,
            }
            self._file.write(json.dumps(row | self._provenance, ensure_ascii=False) + "\n")

    def write_array(self, name: str, values: NDArray[np.float64]) -> None:
        self._file.write(json.dumps({name: values.tolist()}) + "\n")

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _json_provenance(path: Path) -> Provenance:
    with path.open(encoding="utf-8") as lines:
        first_row: dict[str, Any] = json.loads(lines.readline())
    provenance: Provenance = first_row.get("provenance", {})
    return provenance


register_vector_format(VectorFormat("npz", _Npz, _npz_provenance))
register_vector_format(VectorFormat("parquet", _Parquet, _parquet_provenance))
register_vector_format(VectorFormat("jsonl", _JsonLines, _json_provenance))
