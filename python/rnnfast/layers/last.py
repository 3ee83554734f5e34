"""The last step of a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast._arrays import Array, as_float_array, float_dtype
from rnnfast._checks import check_lengths
from rnnfast.layers.base import PLAIN, Layer, Run


class Last(Layer):
    """The last step of a sequence: (T, N, H) to (N, H). It has no parameters and works in the dtype of its input.

    Of sequences with lengths it is the last valid step, and 0 for those of length 0.
    """

    reduces_time = True

    def __init__(self) -> None:
        super().__init__("float32", {})

    def gives(self, width: int | None) -> int | None:
        return width

    def config(self) -> dict[str, Any]:
        return {}

    def __call__(self, x: Any, lengths: Any = None) -> Array:
        """The last step of ``x``.

        Parameters
        ----------
        x : array_like, shape (T, N, ...), float32 or float64
            T at least 1.
        lengths : array_like of int, shape (N,), optional
            Valid steps of every sequence, 0..T. None: all.

        Returns
        -------
        ndarray, shape (N, ...)
            A copy.

        Raises
        ------
        TypeError
            If ``x`` is neither float32 nor float64, or ``lengths`` are no integers.
        ValueError
            If ``x`` has fewer than two axes or no step, or lengths do not suit it.
        """
        dtype = float_dtype(getattr(x, "dtype", np.float64), "Last: x.dtype")
        x = as_float_array(x, dtype, "Last: x")
        _check_steps(x)
        if lengths is None:
            return self.apply(x)
        return self.apply(x, Run(check_lengths("Last", lengths, x.shape[0], x.shape[1])))

    def apply(self, x: Array, run: Run = PLAIN) -> Array:
        return self.trace(x, run)[0]

    def trace(self, x: Array, run: Run = PLAIN) -> tuple[Array, Any]:
        _check_steps(x)
        if run.lengths is None:
            return x[-1].copy(), (x.shape, None)
        y = x[run.lengths - 1, np.arange(x.shape[1])]
        y[run.lengths == 0] = 0
        return y, (x.shape, run.lengths)

    def pull_back(self, tape: Any, dy: Array, grad: Array, need_dx: bool) -> Array | None:
        if not need_dx:
            return None
        shape, lengths = tape
        dx = np.zeros(shape, dy.dtype)
        if lengths is None:
            dx[-1] = dy
        else:
            begun = np.flatnonzero(lengths)
            dx[lengths[begun] - 1, begun] = dy[begun]
        return dx


def _check_steps(x: Array) -> None:
    if x.ndim < 2 or len(x) == 0:
        raise ValueError(f"Last: x has shape {x.shape}; expected (T, N, ...) with T >= 1")
