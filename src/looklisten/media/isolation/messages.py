"""Values <-> bytes on a pipe: numbers, texts, arrays and the records of this package. Never a
pickle.

A message is a JSON text and, behind it, the bytes of its arrays. So whatever a damaged file does to
the process at the other end, what it sends can only become plain data. Both ends run the same
version of the package.
"""

import dataclasses
import importlib
import json
import math
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER = struct.Struct("<QQ")
"""Bytes of the JSON text, bytes of the arrays."""

ALIGNMENT = 64
"""Every array begins at a multiple of so many bytes, as processors like them."""

PACKAGE = "looklisten"

Write = Callable[[bytes | memoryview], None]
Read = Callable[[int], bytearray]
"""Gives so many bytes. Raises EOFError when the pipe ends before."""


def write_message(write: Write, value: Any) -> None:
    """Send one value. Raises TypeError for what no message can hold."""
    buffers: list[memoryview] = []
    text = json.dumps(_encoded(value, buffers)).encode()
    body = sum(_padded(buffer.nbytes) for buffer in buffers)
    write(HEADER.pack(len(text), body) + text)
    for buffer in buffers:
        write(buffer)
        rest = _padded(buffer.nbytes) - buffer.nbytes
        if rest:
            write(bytes(rest))


def read_message(read: Read, functions: bool = False) -> Any:
    """The next value. Arrays in it may be written to.

    `functions`: whether names of functions become functions, which imports their modules; for
        messages of the parent alone.
    """
    text_bytes, body_bytes = HEADER.unpack(read(HEADER.size))
    text = json.loads(read(text_bytes).decode())
    return _Decoder(read(body_bytes), functions).value(text)


def name_of(function: Callable[..., Any]) -> str:
    """Where another process finds a function or class. Raises TypeError when it cannot, as for a
    lambda.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not module or not name or module == "__main__" or "<" in name:
        raise TypeError(
            f"{function!r} is no function of a module that another process could import"
        )
    return f"{module}:{name}"


def find(name: str) -> Any:
    """What `name_of` named."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _encoded(value: Any, buffers: list[memoryview]) -> Any:
    """`value` as JSON has it; arrays and bytes go into `buffers`, in the order in which they are
    met.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        flat = np.ascontiguousarray(value).reshape(-1)
        buffers.append(flat.view(np.uint8).data if flat.size else memoryview(b""))
        return {"array": [value.dtype.str, list(value.shape)]}
    if isinstance(value, (bytes, bytearray, memoryview)):
        buffers.append(memoryview(value).cast("B"))
        return {"bytes": buffers[-1].nbytes}
    if isinstance(value, (list, tuple, set, frozenset)):
        return {type(value).__name__: [_encoded(item, buffers) for item in value]}
    if isinstance(value, dict):
        return {
            "dict": [
                [_encoded(key, buffers), _encoded(item, buffers)] for key, item in value.items()
            ]
        }
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, Fraction):
        return {"fraction": [value.numerator, value.denominator]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if field.init
        }
        return {"record": [name_of(type(value)), _encoded(fields, buffers)]}
    if callable(value):
        return {"function": name_of(value)}
    raise TypeError(f"a {type(value).__name__} cannot be sent to another process")


COLLECTIONS: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}


class _Decoder:
    """JSON -> the value that it stands for; the bytes of its arrays are taken off `body` one after
    the other.
    """

    def __init__(self, body: bytearray, functions: bool) -> None:
        self._body, self._functions, self._at = memoryview(body), functions, 0

    def value(self, text: Any) -> Any:
        if not isinstance(text, dict):
            return text
        ((kind, content),) = text.items()
        if kind == "array":
            return self._array(*content)
        if kind == "bytes":
            return bytes(self._take(content))
        if kind in COLLECTIONS:
            return COLLECTIONS[kind]([self.value(item) for item in content])
        if kind == "dict":
            return {self.value(key): self.value(item) for key, item in content}
        if kind == "path":
            return Path(content)
        if kind == "fraction":
            return Fraction(*content)
        if kind == "record":
            return _record(content[0])(**self.value(content[1]))
        if kind == "function" and self._functions:
            return find(content)
        raise ValueError(f"a message holds {kind!r}, which is not allowed here")

    def _array(self, dtype_name: str, shape: list[int]) -> NDArray[Any]:
        dtype = np.dtype(dtype_name)
        data = self._take(dtype.itemsize * math.prod(shape))
        return np.frombuffer(data, dtype).reshape(shape)

    def _take(self, size: int) -> memoryview:
        begin, self._at = self._at, self._at + _padded(size)
        return self._body[begin : begin + size]


def _record(name: str) -> Any:
    """The class of a record: a dataclass of this package, and nothing else that a name could lead
    to.
    """
    record = find(name) if name.startswith(f"{PACKAGE}.") else None
    if not (isinstance(record, type) and dataclasses.is_dataclass(record)):
        raise ValueError(f"{name} is no record of {PACKAGE}")
    return record
