"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rnnfast._arrays import Array, as_float_array
from rnnfast._checks import integer
from rnnfast.layers.base import PLAIN, Layer, Run


def _sigmoid(a: Array) -> Array:
    # exp of -|a| cannot overflow, and keeps the relative precision of tiny results that tanh would lose.
    e = np.exp(-np.abs(a))
    s: Array = np.where(a >= 0, 1, e)
    s /= 1 + e
    return s


def _relu(a: Array) -> Array:
    return np.maximum(a, 0)


# The derivatives take the output y, so that nothing else has to be kept for the way back.
_ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "relu": (_relu, lambda y: y > 0),
    "tanh": (np.tanh, lambda y: 1 - y * y),
    "sigmoid": (_sigmoid, lambda y: y * (1 - y)),
}


class Dense(Layer):
    """Fully connected layer: ``y = activation(x @ weight.T + bias)``.

    On a sequence it works on every step alike.

    Parameters
    ----------
    in_features, out_features : int
        Length of the last axis of x and of y, at least 1.
    activation : {None, "relu", "tanh", "sigmoid"}
        Applied to every element.
    bias : bool
        Whether there is a bias.
    dtype : {"float32", "float64"}
        Of the parameters, of x and of y.
    seed : int, optional
        Of the initial values, U(-1/sqrt(in_features), 1/sqrt(in_features)). None: other values every time.

    Attributes
    ----------
    parameters : Parameters
        ``weight`` (out_features, in_features) and ``bias`` (out_features,), those of ``torch.nn.Linear``.

    Raises
    ------
    TypeError
        If a size is no integer, or ``dtype`` is neither float32 nor float64.
    ValueError
        If a size is below 1, or the activation is unknown.

    Notes
    -----
    The product is NumPy's matmul: the last bits depend on NumPy's BLAS, on the number of its threads, and on
    how many rows are multiplied at once.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str | None = None,
        bias: bool = True,
        *,
        dtype: Any = "float32",
        seed: int | None = None,
    ) -> None:
        self.in_features = integer("Dense", "in_features", in_features, 1)
        self.out_features = integer("Dense", "out_features", out_features, 1)
        if not (activation is None or isinstance(activation, str)):
            raise TypeError(f"Dense: activation is {activation!r}; expected None or one of {list(_ACTIVATIONS)}")
        if activation is not None and activation not in _ACTIVATIONS:
            raise ValueError(f"Dense: activation is {activation!r}; expected None or one of {list(_ACTIVATIONS)}")
        self.activation = activation
        self.bias = bool(bias)
        shapes: dict[str, tuple[int, ...]] = {"weight": (self.out_features, self.in_features)}
        if self.bias:
            shapes["bias"] = (self.out_features,)
        super().__init__(dtype, shapes)
        bound = self.in_features**-0.5
        self.initialise(bound, seed)

    def config(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "activation": self.activation,
            "bias": self.bias,
            "dtype": self.dtype.name,
        }

    def __call__(self, x: Any) -> Array:
        """Output for ``x``.

        Parameters
        ----------
        x : array_like, shape (..., in_features)
            Of the layer's dtype.

        Returns
        -------
        ndarray, shape (..., out_features)

        Raises
        ------
        TypeError
            If ``x`` is not of the layer's dtype.
        ValueError
            If the last axis of ``x`` is not in_features long.
        """
        return self.apply(as_float_array(x, self.dtype, "Dense: x"))

    def apply(self, x: Array, run: Run = PLAIN) -> Array:
        return self.trace(x)[0]

    def trace(self, x: Array, run: Run = PLAIN) -> tuple[Array, Any]:
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"Dense: x has shape {x.shape}; expected (..., {self.in_features}), from in_features")
        # One product over all rows: matmul of a stack would call BLAS once a step.
        rows = x.reshape(-1, self.in_features)
        y: Array = rows @ self.parameters["weight"].T
        if self.bias:
            y += self.parameters["bias"]
        if self.activation is not None:
            y = _ACTIVATIONS[self.activation][0](y)
        return y.reshape(*x.shape[:-1], self.out_features), (rows, y, x.shape)

    def pull_back(self, tape: Any, dy: Array, grad: Array, need_dx: bool) -> Array | None:
        rows, y, x_shape = tape
        da = dy.reshape(-1, self.out_features)
        if self.activation is not None:
            da = da * _ACTIVATIONS[self.activation][1](y)
        weights = self.out_features * self.in_features
        np.matmul(da.T, rows, out=grad[:weights].reshape(self.out_features, self.in_features))
        if self.bias:
            # A product with ones sums in blocks: faster and closer than sum(axis=0), which adds row after row.
            np.matmul(np.ones(len(da), self.dtype), da, out=grad[weights:])
        if not need_dx:
            return None
        dx: Array = da @ self.parameters["weight"]
        return dx.reshape(x_shape)
