"""Numbers of any library -> a plain NumPy array. Knows neither sound nor images."""

from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from looklisten.errors import SourceError

NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)
"""Types of tensors that NumPy has too; other floats, such as bfloat16, become float32."""

ADVICE = "give a path, an array or a tensor"


def not_embeddable(value: Any, advice: str = ADVICE) -> SourceError:
    """The error for a value of a type that is neither a file nor numbers."""
    return SourceError(f"something of type {type(value).__name__} cannot be embedded; {advice}")


def plain_array(numbers: Any) -> NDArray[Any]:
    """An array of the numbers of an array, tensor, list, buffer or object with `__array__`.

    Shape and type of number stay, except that floats without a NumPy type become float32. The byte
    order is the machine's. Numbers are copied only where that is necessary. Raises SourceError for
    what holds no numbers, or hides some.
    """
    if isinstance(numbers, Tensor):
        return _of_tensor(numbers)
    if isinstance(numbers, np.ma.MaskedArray):
        return _of_masked(numbers)
    if _is_row(numbers):
        array = _converted([_number(value) for value in numbers])
    else:
        array = _converted(numbers)
    if array.dtype.kind == "O":
        array = _of_objects(array, numbers)
    if array.dtype.kind == "V" and array.dtype.names is None:
        # bfloat16 and the like, which JAX and ml_dtypes register with NumPy.
        array = _as_float32(array, numbers)
    if array.dtype.kind not in "buifc":
        raise _wrong_values(numbers, array.dtype.name)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def is_numeric(value: Any) -> bool:
    """Whether a value is numbers in a row or a grid: one sound or image, not a list of them."""
    if isinstance(value, Tensor):
        return True
    if not is_array_like(value):
        return _is_row(value)
    array = _converted(value)
    if array.dtype.kind == "O":
        return array.size > 0 and all(isinstance(item, Real) for item in array.flat)
    return array.dtype.kind not in "SUT"


def is_array_like(value: Any) -> bool:
    """Whether a value declares to be an array, or is a buffer of numbers such as `array.array`."""
    if isinstance(value, (bytes, bytearray, str)):
        return False
    if isinstance(value, memoryview) or hasattr(value, "typecode"):
        return True
    return any(hasattr(value, name) for name in ("__array__", "__array_interface__", "__dlpack__"))


def as_tensor(array: NDArray[Any]) -> Tensor:
    """A tensor of an array: on its memory where that is writable and runs forward, else a copy."""
    # PyTorch refuses strides that run backward, and warns of memory that is read-only.
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _wrong_values(numbers: Any, type_name: str) -> SourceError:
    return not_embeddable(numbers, f"its values are of type {type_name}; {ADVICE} of numbers")


def _is_row(value: Any) -> bool:
    """Whether a value is a list of single numbers, such as the samples of a sound."""
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    """Whether a value is one number, also as an array or tensor of no dimension."""
    if isinstance(value, (np.ndarray, np.generic, Tensor)):
        return value.ndim == 0 and not isinstance(value, (np.str_, np.bytes_, np.void))
    return isinstance(value, Real)


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, (np.ndarray, Tensor)) else value


def _of_tensor(tensor: Tensor) -> NDArray[Any]:
    if tensor.is_meta:
        raise SourceError(
            "this tensor is on the device meta, which holds no values; give one with values"
        )
    if tensor.is_nested:
        raise SourceError(
            "this tensor is nested, with rows of several lengths; give one with a single shape"
        )
    plain = tensor.detach()
    if plain.is_quantized:
        plain = plain.dequantize()
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    if plain.is_floating_point() and plain.dtype not in NUMPY_FLOATS:
        plain = plain.float()
    # PyTorch may only note that values are conjugated or negated; NumPy has no such notes.
    array: NDArray[Any] = plain.resolve_conj().resolve_neg().cpu().numpy()
    return array


def _of_masked(masked: Any) -> NDArray[Any]:
    hidden = int(np.asarray(masked.mask).sum())
    if hidden:
        raise SourceError(
            f"the array masks {hidden:,} of its values; "
            "put something in their place, such as array.filled(0)"
        )
    return plain_array(np.asarray(masked.data))


def _converted(value: Any) -> NDArray[Any]:
    """An array by NumPy's own protocols, else by DLPack, which arrays on a GPU have."""
    has_dlpack = hasattr(value, "__dlpack__")
    has_numpy_protocol = hasattr(value, "__array__") or hasattr(value, "__array_interface__")
    if has_dlpack and not has_numpy_protocol:
        return _of_tensor(from_dlpack(value))
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        if has_dlpack:
            return _of_tensor(from_dlpack(value))
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise not_embeddable(value, f"NumPy makes no array of it ({reason}); {ADVICE}") from None


def _of_objects(array: NDArray[Any], numbers: Any) -> NDArray[Any]:
    """The numbers of an array of Python objects."""
    for item in array.flat:
        if not isinstance(item, Real):
            name = type(item).__name__
            raise not_embeddable(numbers, f"it holds values of type {name}; {ADVICE} of numbers")
    converted: NDArray[Any] = np.array(array.tolist())
    return converted if converted.dtype.kind in "buif" else _as_float32(array, numbers)


def _as_float32(array: NDArray[Any], numbers: Any) -> NDArray[Any]:
    try:
        return array.astype(np.float32)
    except (TypeError, ValueError):
        raise _wrong_values(numbers, array.dtype.name) from None
