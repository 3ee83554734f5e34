"""The fully connected layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast import _core
from rnnfast._arrays import Array, as_float_array
from rnnfast._checks import integer
from rnnfast.layers.base import PLAIN, Layer, Run

_ACTIVATIONS = ("relu", "tanh", "sigmoid")


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
        self._draw_uniform(bound, seed)

    @property
    def takes(self) -> int:
        return self.in_features

    def gives(self, width: int | None) -> int:
        return self.out_features

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
        rows = np.require(x.reshape(-1, self.in_features), requirements=("C", "A"))
        bias = self.parameters["bias"] if self.bias else None
        y = _core.dense_forward(x=rows, weight=self.parameters["weight"], bias=bias, activation=self.activation)
        return y.reshape(*x.shape[:-1], self.out_features), (rows, y, x.shape)

    def pull_back(self, tape: Any, dy: Array, grad: Array, need_dx: bool) -> Array | None:
        rows, y, x_shape = tape
        grad.fill(0)
        grads = self.parameters.views(grad)
        dx: Array | None = _core.dense_backward(
            x=rows,
            weight=self.parameters["weight"],
            y=y,
            dy=np.require(dy.reshape(-1, self.out_features), requirements=("C", "A")),
            dweight=grads["weight"],
            dbias=grads.get("bias"),
            activation=self.activation,
            need_dx=need_dx,
        )
        return None if dx is None else dx.reshape(x_shape)
