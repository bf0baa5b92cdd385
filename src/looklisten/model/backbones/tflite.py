"""Reads the weights of a TFLite file: those of its convolutions and fully-connected layers.

Enough of the format (schema of TensorFlow Lite, version 3) to find each layer's weights and bias in
the order of computation, as float32. Knows bytes; no network.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IDENTIFIER = b"TFL3"
CONVOLUTION, DEPTHWISE_CONVOLUTION, DEQUANTIZE, FULLY_CONNECTED = 3, 4, 6, 9
"""Codes of operators."""
TYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("<f2"),
    2: np.dtype("<i4"),
    9: np.dtype("i1"),
}
"""NumPy's types, by the codes of tensors."""


@dataclass(frozen=True, eq=False)
class TfliteLayer:
    """One layer of a TFLite file."""

    operator: int
    """`CONVOLUTION`, `DEPTHWISE_CONVOLUTION` or `FULLY_CONNECTED`."""
    weight: NDArray[np.float32]
    """`[out, rows, columns, in]`, `[1, rows, columns, out]` or `[out, in]`."""
    bias: NDArray[np.float32] | None


@dataclass(frozen=True)
class _Table:
    """A table of a flatbuffer: fields by number, each at an offset that a second table lists."""

    data: bytes
    position: int

    def _field(self, number: int) -> int | None:
        """The position of a field; None if the file omits it, which means its default."""
        field_offsets = self.position - self._unpack("<i", self.position)
        size = self._unpack("<H", field_offsets)
        entry = 4 + 2 * number
        offset = self._unpack("<H", field_offsets + entry) if entry < size else 0
        return self.position + offset if offset else None

    def _unpack(self, kind: str, position: int) -> int:
        (value,) = struct.unpack_from(kind, self.data, position)
        return int(value)

    def _target(self, position: int) -> int:
        return position + self._unpack("<I", position)

    def number(self, field: int, kind: str) -> int:
        """An integer of the type `kind`, as `struct` names it; 0 by default."""
        position = self._field(field)
        return 0 if position is None else self._unpack(kind, position)

    def table(self, field: int) -> "_Table | None":
        position = self._field(field)
        return None if position is None else _Table(self.data, self._target(position))

    def array(self, field: int, kind: str) -> NDArray[Any]:
        """A list of numbers."""
        position = self._field(field)
        if position is None:
            return np.zeros(0, kind)
        start = self._target(position)
        return np.frombuffer(self.data, kind, self._unpack("<I", start), start + 4)

    def tables(self, field: int) -> list["_Table"]:
        """A list of tables."""
        position = self._field(field)
        if position is None:
            return []
        start = self._target(position)
        entries = range(start + 4, start + 4 + 4 * self._unpack("<I", start), 4)
        return [_Table(self.data, self._target(entry)) for entry in entries]


def read_tflite(path: Path) -> list[TfliteLayer]:
    """The layers of a TFLite file with weights, in the order of computation.

    Integers become floats by their scale. Raises an error of any kind if the file is damaged or of
    another kind.
    """
    data = path.read_bytes()
    if data[4:8] != IDENTIFIER:
        raise ValueError("it is not a TFLite file")
    return list(_layers(data))


def _layers(data: bytes) -> Iterator[TfliteLayer]:
    (root,) = struct.unpack_from("<I", data, 0)
    model = _Table(data, root)
    # Newer files have the code in field 3; in older ones it is a byte.
    codes = [max(code.number(0, "<b"), code.number(3, "<i")) for code in model.tables(1)]
    graph = model.tables(2)[0]
    tensors, buffers = graph.tables(0), model.tables(4)
    source_of: dict[int, int] = {}
    for operator in graph.tables(3):
        code = codes[operator.number(0, "<I")]
        inputs: list[int] = operator.array(1, "<i4").tolist()
        if code == DEQUANTIZE:
            source_of[int(operator.array(2, "<i4")[0])] = inputs[0]
        if code not in (CONVOLUTION, DEPTHWISE_CONVOLUTION, FULLY_CONNECTED):
            continue
        values = [
            _values(tensors[source_of.get(index, index)], buffers) if index >= 0 else None
            for index in inputs[1:3]
        ]
        weight, bias = (*values, None)[:2]
        if weight is not None:
            yield TfliteLayer(code, weight, bias)


def _values(tensor: _Table, buffers: list[_Table]) -> NDArray[np.float32] | None:
    """The values of a tensor; None for one that is computed."""
    shape = tensor.array(0, "<i4")
    data = buffers[tensor.number(2, "<I")].array(0, "u1")
    if not data.size:
        return None
    stored = data.view(TYPES[tensor.number(1, "<b")]).reshape(shape)
    values: NDArray[np.float32] = stored.astype(np.float32)
    quantization = tensor.table(4)
    scale = quantization.array(2, "<f4") if quantization else np.zeros(0, np.float32)
    if not scale.size or quantization is None:
        return values
    zero = quantization.array(3, "<i8")
    axis = quantization.number(6, "<i")
    # One scale for the tensor, or one for each index of an axis.
    broadcast = [1] * values.ndim
    broadcast[axis] = scale.size
    dequantized: NDArray[np.float32] = (values - zero.reshape(broadcast)) * scale.reshape(broadcast)
    return dequantized.astype(np.float32)
