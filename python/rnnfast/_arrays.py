"""Array-likes in, C-order arrays of one float dtype out. Dtypes are judged here, shapes in the bindings."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np

Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]


def is_torch_tensor(value: Any) -> bool:
    """Whether ``value`` is a PyTorch tensor, without importing PyTorch."""
    kind = type(value)
    return any(base.__module__.partition(".")[0] == "torch" and base.__name__ == "Tensor" for base in kind.__mro__)


def float_dtype(dtype: Any, who: str) -> np.dtype[Any]:
    """``dtype`` as float32 or float64 in native byte order; TypeError naming ``who`` otherwise."""
    try:
        found: np.dtype[Any] | None = None if dtype is None else np.dtype(dtype)  # NumPy's None is float64
    except TypeError:
        found = None
    if found is None:
        raise TypeError(f"{who} is {dtype!r}; expected 'float32' or 'float64'")
    if found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"{who} is {found}; expected 'float32' or 'float64'")
    return found


def as_array(value: Any, who: str) -> Array:
    """``value``, array-like or PyTorch tensor, as an array of whatever dtype; TypeError naming ``who`` otherwise."""
    if is_torch_tensor(value):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise TypeError(f"{who} has masked elements, which would be taken for numbers; expected none")
    try:
        return np.asarray(value)
    except ValueError as error:
        raise TypeError(f"{who} is not an array: {error}") from None


def is_exactly(value: Any, dtype: np.dtype[Any], axes: int | None = None) -> TypeGuard[Array]:
    """Whether ``value`` is an aligned C-order array of ``dtype`` already, with so many axes."""
    return (
        type(value) is np.ndarray
        and value.dtype == dtype
        and (axes is None or value.ndim == axes)
        and value.flags.c_contiguous
        and value.flags.aligned
    )


def as_float_array(value: Any, dtype: np.dtype[Any], who: str) -> Array:
    """``value`` as an aligned C-order array of exactly ``dtype``.

    A copy is made only where the memory layout asks for one. The dtype is never converted: a silent cast
    would hide that data and parameters disagree. Lists of Python floats, which have no dtype, are accepted.
    """
    if is_exactly(value, dtype):
        return value
    array = as_array(value, who)
    if array.dtype != dtype and (hasattr(value, "__array__") or array.dtype.kind not in "fiu"):
        raise TypeError(f"{who} has dtype {array.dtype}; expected {dtype}, from the layer's dtype")
    return np.require(array, dtype, ["C", "A"])
