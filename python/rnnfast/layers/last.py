"""The last step of a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast._arrays import Array, as_float_array, float_dtype
from rnnfast.layers.base import PLAIN, Layer, Run


class Last(Layer):
    """The last step of a sequence: (T, N, H) to (N, H). It has no parameters and works in the dtype of its input."""

    reduces_time = True

    def __init__(self) -> None:
        super().__init__("float32", {})

    def config(self) -> dict[str, Any]:
        return {}

    def __call__(self, x: Any) -> Array:
        """The last step of ``x``.

        Parameters
        ----------
        x : array_like, shape (T, N, ...), float32 or float64
            T at least 1.

        Returns
        -------
        ndarray, shape (N, ...)
            A copy.

        Raises
        ------
        TypeError
            If ``x`` is neither float32 nor float64.
        ValueError
            If ``x`` has fewer than two axes, or no step.
        """
        dtype = float_dtype(getattr(x, "dtype", np.float64), "Last: x.dtype")
        return self.apply(as_float_array(x, dtype, "Last: x"))

    def apply(self, x: Array, run: Run = PLAIN) -> Array:
        return self.trace(x)[0]

    def trace(self, x: Array, run: Run = PLAIN) -> tuple[Array, Any]:
        if x.ndim < 2 or len(x) == 0:
            raise ValueError(f"Last: x has shape {x.shape}; expected (T, N, ...) with T >= 1")
        return x[-1].copy(), x.shape

    def pull_back(self, tape: Any, dy: Array, grad: Array, need_dx: bool) -> Array | None:
        if not need_dx:
            return None
        dx = np.zeros(tape, dy.dtype)
        dx[-1] = dy
        return dx
