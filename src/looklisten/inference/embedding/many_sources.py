"""A collection of sources, such as a list or a column of a table -> its items. Opens nothing."""

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from looklisten.media.arrays import is_array_like, is_numeric, not_embeddable, plain_array


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
