"""Values <-> bytes on a pipe: numbers, texts, arrays and the records of this package.

A message is a JSON text, followed by the bytes of its arrays. It is never a pickle: whatever a
damaged file does to the process at the other end, what that process sends becomes plain data only.
Both ends run the same version of the package.
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

MESSAGE_HEADER = struct.Struct("<QQ")
"""How many bytes the JSON text has, and how many the arrays have."""

ALIGNMENT = 64
"""Each array begins at a multiple of so many bytes, which is faster to compute on."""

PACKAGE = "looklisten"

Write = Callable[[bytes | memoryview], None]
Read = Callable[[int], bytearray]
"""Reads so many bytes. Raises EOFError when the pipe ends before."""


def write_message(write: Write, value: Any) -> None:
    """Send one value. Raises TypeError for a value of another type."""
    buffers: list[memoryview] = []
    text = json.dumps(_encoded(value, buffers)).encode()
    body = sum(_padded(buffer.nbytes) for buffer in buffers)
    write(MESSAGE_HEADER.pack(len(text), body) + text)
    for buffer in buffers:
        write(buffer)
        padding = _padded(buffer.nbytes) - buffer.nbytes
        if padding:
            write(bytes(padding))


def read_message(read: Read, functions: bool = False) -> Any:
    """The next value. Its arrays are writable.

    functions: whether names of functions become functions, which imports their modules. Only for
        messages from the parent, which is trusted.
    """
    text_bytes, body_bytes = MESSAGE_HEADER.unpack(read(MESSAGE_HEADER.size))
    text = json.loads(read(text_bytes).decode())
    return _Decoder(read(body_bytes), functions).value(text)


def name_of(function: Callable[..., Any]) -> str:
    """The module and name of a function or class, by which another process can import it.

    Raises TypeError where it cannot be imported, such as a lambda.
    """
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None)
    if not module or not name or module == "__main__" or "<" in name:
        raise TypeError(
            f"{function!r} is no function of a module that another process could import"
        )
    return f"{module}:{name}"


def find(name: str) -> Any:
    """The function or class of a name from `name_of`."""
    module, _, path = name.partition(":")
    value: Any = importlib.import_module(module)
    for attribute in path.split("."):
        value = getattr(value, attribute)
    return value


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _encoded(value: Any, buffers: list[memoryview]) -> Any:
    """`value` as JSON; its arrays and bytes are appended to `buffers`."""
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
        # As pairs, because the keys of a JSON object can only be texts.
        pairs = [(_encoded(key, buffers), _encoded(item, buffers)) for key, item in value.items()]
        return {"dict": pairs}
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, Fraction):
        return {"fraction": [value.numerator, value.denominator]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        values = {name: getattr(value, name) for name in names}
        return {"record": [name_of(type(value)), _encoded(values, buffers)]}
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
    """JSON -> the value that it describes; the arrays are taken from `body` in their order."""

    def __init__(self, body: bytearray, functions: bool) -> None:
        # Arrays are views of it, not copies; as a bytearray it makes them writable.
        self._body = memoryview(body)
        self._functions = functions
        self._position = 0

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
        start = self._position
        self._position += _padded(size)
        return self._body[start : start + size]


def _record(name: str) -> Any:
    """The class of a record, which must be a dataclass of this package."""
    # A name from a damaged process must not lead to any other function or class.
    record = find(name) if name.startswith(f"{PACKAGE}.") else None
    if not (isinstance(record, type) and dataclasses.is_dataclass(record)):
        raise ValueError(f"{name} is no record of {PACKAGE}")
    return record
