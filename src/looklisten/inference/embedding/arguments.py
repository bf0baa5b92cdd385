"""What a user passes: one source or many, each a file, an image or an array. Opens nothing."""

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from looklisten.errors import ConfigError, SourceError
from looklisten.media.arrays import is_array_like, is_numeric, not_embeddable, plain_array
from looklisten.media.waveform import Waveform

if TYPE_CHECKING:
    Embeddable = str | os.PathLike[str] | Waveform | Image.Image
else:
    # `single_source` checks types at runtime: it accepts more, and its errors say what to do.
    Embeddable = Any
"""The path of a file, an image of Pillow, or an array.

An array is sound (with `sample_rate_hz`) or images (without). It may be a tensor, a list, or an
array of another library that has `__array__` or DLPack.
"""

MAX_PATH_BYTES = 4096
"""More bytes are the content of a file, not its path."""


def single_source(value: Any) -> str | Path | Image.Image | NDArray[Any]:
    """A path, an image, or a plain array.

    Raises SourceError for another type, ConfigError for a collection.
    """
    if isinstance(value, str):
        # Strings of NumPy are a class of their own, which not every library accepts.
        return str(value)
    if isinstance(value, os.PathLike):
        return Path(os.fsdecode(value))
    if isinstance(value, bytes):
        return _path_of_bytes(value)
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, (list, tuple)) and not is_numeric(value):
        return _array_of_lists(value)
    if is_numeric(value):
        return plain_array(value)
    if is_array_like(value):
        # An array of no dimension may hold a path.
        array = np.asarray(value)
        if array.ndim == 0 and isinstance(array.item(), (str, bytes, os.PathLike)):
            return single_source(array.item())
    if items_of(value) is not None:
        raise _is_collection_error()
    # Tables of pandas have NaN where a path is missing. Only NaN differs from itself.
    if isinstance(value, float) and value != value:
        raise not_embeddable(value, "it is NaN, so a value is missing there")
    raise not_embeddable(value)


def is_file(path: str | Path) -> bool:
    """Whether there is such a file. Raises SourceError for a name that the system refuses."""
    try:
        return Path(path).is_file()
    except OSError as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror}") from None


def items_of(value: Any) -> Iterable[Any] | None:
    """The items of a collection, in its order; None for a single source.

    A collection is whatever can be iterated, except for paths, images and numbers: lists, columns
    of tables, arrays of paths, sets, generators. Raises SourceError for tables of several columns,
    dictionaries and open files.
    """
    single_types = (str, bytes, bytearray, os.PathLike, Image.Image, Tensor)
    if isinstance(value, single_types) or is_numeric(value):
        return None
    if isinstance(value, Mapping):
        raise not_embeddable(value, "pass its values in a list, such as list(x.values())")
    if isinstance(value, io.IOBase) or hasattr(value, "readline"):
        raise not_embeddable(value, "pass the path of the file")
    if is_array_like(value):
        return _column_items(value)
    try:
        iterator: Iterator[Any] = iter(value)
    except TypeError:
        return None
    return value if isinstance(value, (list, tuple)) else iterator


def rows_of(x: Any) -> Iterable[Any]:
    """The samples of scikit-learn's X: rows of a grid of numbers, or items of a collection."""
    if not isinstance(x, (list, tuple)) and is_numeric(x):
        array = plain_array(x)
        return array if array.ndim > 1 or not array.size else [array]
    items = items_of(x)
    return [x] if items is None else items


def _column_items(value: Any) -> Iterable[Any] | None:
    """The items of an array or table without numbers: paths, or arrays."""
    array = np.asarray(value)
    if array.ndim == 0:
        return None
    # A table of one column is a column, whatever its number of dimensions.
    if array.ndim > 1 and array.size != len(array):
        shape = " x ".join(map(str, array.shape))
        raise not_embeddable(
            value, f"it is a table of {shape}; pass the column of the paths, such as table['path']"
        )
    items: list[Any] = array.reshape(-1).tolist()
    return items


def _array_of_lists(value: Sequence[Any]) -> NDArray[Any]:
    """Lists of lists of numbers as one array."""
    if not value:
        raise not_embeddable(value, "it is empty")
    if not all(isinstance(row, (list, tuple)) for row in value):
        raise _is_collection_error()
    return plain_array(value)


def _is_collection_error() -> ConfigError:
    return ConfigError(
        "embed takes one source, and this is a collection; ll.Embedder(model).encode takes many"
    )


def _path_of_bytes(name: bytes) -> Path:
    """The file that bytes name, as in paths that are not UTF-8."""
    if len(name) > MAX_PATH_BYTES or b"\0" in name:
        raise not_embeddable(
            name, "these are the contents of a file; write them to a file and pass its path"
        )
    return Path(os.fsdecode(name))
