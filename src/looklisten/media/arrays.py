"""Numbers of whatever library -> a plain NumPy array. Knows neither sound nor picture."""

from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from looklisten.errors import SourceError

NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)
"""Types of tensors that NumPy has too; the other floats, such as bfloat16, become float32."""

ADVICE = "give a path, an array or a tensor"


def not_embeddable(given: Any, why: str = ADVICE) -> SourceError:
    """The error for something of a type that is neither a file nor numbers."""
    return SourceError(f"something of type {type(given).__name__} cannot be embedded; {why}")


def plain_array(given: Any) -> NDArray[Any]:
    """The numbers of an array, tensor, list, buffer or anything with `__array__`, in the machine's
    byte order.

    Shape and kind of number stay as they are, except that floats without a NumPy type become
    float32. Nothing is copied that need not be. Raises SourceError, one sentence, for what holds no
    numbers, or hides some.
    """
    if isinstance(given, Tensor):
        return _of_tensor(given)
    if isinstance(given, np.ma.MaskedArray):
        return _of_masked(given)
    array = _converted([_number(value) for value in given] if _is_row(given) else given)
    if array.dtype.kind == "O":
        array = _of_objects(array, given)
    if array.dtype.kind == "V" and array.dtype.names is None:
        # bfloat16 and the like, which JAX and ml_dtypes register with NumPy.
        array = _as_float32(array, given)
    if array.dtype.kind not in "buifc":
        raise not_embeddable(
            given, f"its values are of type {array.dtype.name}; {ADVICE} of numbers"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def is_numeric(given: Any) -> bool:
    """Whether something is numbers in a row or a grid: one sound or picture, rather than many of
    them.
    """
    if isinstance(given, Tensor):
        return True
    if not is_array_like(given):
        return _is_row(given)
    array = _converted(given)
    if array.dtype.kind == "O":
        return array.size > 0 and all(isinstance(value, Real) for value in array.flat)
    return array.dtype.kind not in "SUT"


def is_array_like(given: Any) -> bool:
    """Whether something says of itself that it is an array, or is a buffer of numbers such as
    `array.array`.
    """
    if isinstance(given, (bytes, bytearray, str)):
        return False
    if isinstance(given, memoryview) or hasattr(given, "typecode"):
        return True
    return any(hasattr(given, name) for name in ("__array__", "__array_interface__", "__dlpack__"))


def as_tensor(array: NDArray[Any]) -> Tensor:
    """A tensor of an array, on its memory where that can be written to and runs forward, else on a
    copy.
    """
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _is_row(given: Any) -> bool:
    """Whether something is a list of single numbers, such as the samples of a sound."""
    return isinstance(given, (list, tuple)) and len(given) > 0 and all(map(_is_number, given))


def _is_number(value: Any) -> bool:
    """Whether something is one number, also as an array or tensor of no dimension."""
    if isinstance(value, (np.ndarray, np.generic, Tensor)):
        return value.ndim == 0 and not isinstance(value, (np.str_, np.bytes_, np.void))
    return isinstance(value, Real)


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, (np.ndarray, Tensor)) else value


def _of_tensor(tensor: Tensor) -> NDArray[Any]:
    if tensor.is_meta or tensor.is_nested:
        what = (
            "on the device meta, which holds no values"
            if tensor.is_meta
            else "nested, of parts of several lengths"
        )
        raise SourceError(f"this tensor is {what}; give one that is whole")
    plain = tensor.detach()
    if plain.is_quantized:
        plain = plain.dequantize()
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    if plain.is_floating_point() and plain.dtype not in NUMPY_FLOATS:
        plain = plain.float()
    array: NDArray[Any] = plain.resolve_conj().resolve_neg().cpu().numpy()
    return array


def _of_masked(given: Any) -> NDArray[Any]:
    hidden = int(np.asarray(given.mask).sum())
    if hidden:
        raise SourceError(
            f"the array masks {hidden:,} of its values; put something in their place, such as array.filled(0)"
        )
    return plain_array(np.asarray(given.data))


def _converted(given: Any) -> NDArray[Any]:
    """Through NumPy's own protocols, else through DLPack, which arrays on a GPU have."""
    if (
        hasattr(given, "__dlpack__")
        and not hasattr(given, "__array__")
        and not hasattr(given, "__array_interface__")
    ):
        return _of_tensor(from_dlpack(given))
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        if hasattr(given, "__dlpack__"):
            return _of_tensor(from_dlpack(given))
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise not_embeddable(given, f"NumPy makes no array of it ({reason}); {ADVICE}") from None


def _of_objects(array: NDArray[Any], given: Any) -> NDArray[Any]:
    """Numbers that lie one by one in an array of objects."""
    wrong = next((value for value in array.flat if not isinstance(value, Real)), None)
    if wrong is not None:
        raise not_embeddable(
            given, f"it holds values of type {type(wrong).__name__}; {ADVICE} of numbers"
        )
    numbers: NDArray[Any] = np.array(array.tolist())
    return numbers if numbers.dtype.kind in "buif" else _as_float32(array, given)


def _as_float32(array: NDArray[Any], given: Any) -> NDArray[Any]:
    try:
        return array.astype(np.float32)
    except (TypeError, ValueError):
        raise not_embeddable(
            given, f"its values are of type {array.dtype.name}; {ADVICE} of numbers"
        ) from None
