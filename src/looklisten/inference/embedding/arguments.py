"""What a user hands over: one thing or many, each a file, a picture or an array. Opens nothing."""

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
    Source = str | os.PathLike[str] | Waveform | Image.Image
else:
    # Other types are taken or told by `one_source`.
    Source = Any
"""A file's path; a picture of Pillow; or an array, tensor or list of sound (with `sample_rate_hz`),
or of pictures (without).

Arrays of other libraries are taken by `__array__` or DLPack.
"""

LONGEST_NAME_BYTES = 4096
"""Bytes beyond are the content of a file and not its name."""


def one_source(given: Any) -> str | Path | Image.Image | NDArray[Any]:
    """A path, a picture, or a plain array. Raises SourceError for another type, ConfigError for
    many things at once.
    """
    if isinstance(given, str):
        return str(given)
    if isinstance(given, os.PathLike):
        return Path(os.fsdecode(given))
    if isinstance(given, bytes):
        return _named(given)
    if isinstance(given, Image.Image):
        return given
    if isinstance(given, (list, tuple)) and not is_numeric(given):
        return _grid(given)
    if is_numeric(given):
        return plain_array(given)
    if is_array_like(given) and isinstance(item := _only_item(given), (str, bytes, os.PathLike)):
        return one_source(item)
    if many_sources(given) is not None:
        raise _too_many()
    is_missing = isinstance(given, float) and given != given
    raise (
        not_embeddable(given, "it is NaN, so a value is missing there")
        if is_missing
        else not_embeddable(given)
    )


def is_file(path: str | Path) -> bool:
    """Whether there is such a file. Raises SourceError for a name that the system does not take,
    such as a very long one.
    """
    try:
        return Path(path).is_file()
    except OSError as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror}") from None


def many_sources(given: Any) -> Iterable[Any] | None:
    """The things of a collection, in its order; None for one thing.

    A collection is whatever can be iterated, but for paths, pictures and numbers: lists, columns of
    tables, arrays of paths, sets, generators. Raises SourceError for tables of several columns, for
    dictionaries and for open files.
    """
    if isinstance(given, (str, bytes, bytearray, os.PathLike, Image.Image, Tensor)) or is_numeric(
        given
    ):
        return None
    if isinstance(given, Mapping):
        raise not_embeddable(given, "give its values in a list, such as list(x.values())")
    if isinstance(given, io.IOBase) or hasattr(given, "readline"):
        raise not_embeddable(given, "give the path of the file")
    if is_array_like(given):
        return _column(given)
    try:
        iterator: Iterator[Any] = iter(given)
    except TypeError:
        return None
    return given if isinstance(given, (list, tuple)) else iterator


def rows_of(given: Any) -> Iterable[Any]:
    """The things of what scikit-learn calls X: the rows of a grid of numbers, else what a
    collection holds.
    """
    if not isinstance(given, (list, tuple)) and is_numeric(given):
        array = plain_array(given)
        return array if array.ndim > 1 or not array.size else [array]
    many = many_sources(given)
    return [given] if many is None else many


def _only_item(given: Any) -> Any:
    """What an array of no dimension holds."""
    array = np.asarray(given)
    return array.item() if array.ndim == 0 else None


def _column(given: Any) -> Iterable[Any] | None:
    """The things of an array or a table that holds no numbers: paths, or arrays one by one."""
    array = np.asarray(given)
    if array.ndim == 0:
        return None
    if array.ndim > 1 and array.size != len(array):
        shape = " x ".join(map(str, array.shape))
        raise not_embeddable(
            given, f"it is a table of {shape}; give the column of the paths, such as table['path']"
        )
    things: list[Any] = array.reshape(-1).tolist()
    return things


def _grid(given: Sequence[Any]) -> NDArray[Any]:
    """Lists of lists of numbers as one array."""
    if not given or not all(isinstance(row, (list, tuple)) for row in given):
        raise _too_many() if given else not_embeddable(given, "it is empty")
    return plain_array(given)


def _too_many() -> ConfigError:
    return ConfigError(
        "embed takes one thing, and this is a collection; ll.Embedder(model).encode takes many"
    )


def _named(name: bytes) -> Path:
    """The file that bytes name, as in paths that are not UTF-8."""
    if len(name) > LONGEST_NAME_BYTES or b"\0" in name:
        raise not_embeddable(
            name, "they are what a file holds; write them to a file and give its path"
        )
    return Path(os.fsdecode(name))
