"""Noise that keeps units from relying on each other."""

from __future__ import annotations

from typing import Any

from rnnfast._arrays import Array, as_float_array, float_dtype
from rnnfast._checks import number
from rnnfast.layers.base import PLAIN, Layer, Run


class Dropout(Layer):
    """In training, sets each element to 0 with probability ``p`` and divides the others by ``1 - p``.

    Outside training it changes nothing. Which elements `fit` drops follows from its seed, the epoch and the batch, so
    training is repeatable, whole or in pieces. It has no parameters and works in the dtype of its input.

    Parameters
    ----------
    p : float
        At least 0 and below 1.

    Raises
    ------
    TypeError
        If ``p`` is no number.
    ValueError
        If it is out of range.

    References
    ----------
    Srivastava et al. (2014), Dropout: a simple way to prevent neural networks from overfitting, JMLR 15.
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = number("Dropout", "p", p, 0, 1)
        super().__init__("float32", {})

    def gives(self, width: int | None) -> int | None:
        return width

    def config(self) -> dict[str, Any]:
        return {"p": self.p}

    def __call__(self, x: Any) -> Array:
        """``x``, since this is no training.

        Parameters
        ----------
        x : array_like, float32 or float64

        Returns
        -------
        ndarray
            A copy.

        Raises
        ------
        TypeError
            If ``x`` is neither float32 nor float64.
        """
        dtype = float_dtype(getattr(x, "dtype", "float64"), "Dropout: x.dtype")
        return as_float_array(x, dtype, "Dropout: x").copy()

    def apply(self, x: Array, run: Run = PLAIN) -> Array:
        return x

    def trace(self, x: Array, run: Run = PLAIN) -> tuple[Array, Any]:
        if not self.p:
            return x, None
        kept = run.generator().random(x.shape, x.dtype.type) >= self.p
        mask = kept * x.dtype.type(1 / (1 - self.p))
        return x * mask, mask

    def pull_back(self, tape: Any, dy: Array, grad: Array, need_dx: bool) -> Array | None:
        if not need_dx:
            return None
        return dy if tape is None else dy * tape
