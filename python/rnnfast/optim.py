"""Optimizers: how parameters move along their gradient. The equations are PyTorch's.

Each works on flat buffers, so that one update of all parameters of a model is a handful of NumPy calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from rnnfast._arrays import Array
from rnnfast._checks import NonFiniteError, all_finite, number
from rnnfast.layers.base import Layer, Parameters


class State:
    """What an optimizer remembers about a layer or model.

    Attributes
    ----------
    step : int
        Steps made.
    buffers : dict of str to ndarray, each of the shape of the flat parameters
        Momentum and the like, by the optimizer's names for them.
    delta : ndarray, of the shape of the flat parameters
        What the last step subtracted.
    """

    def __init__(self, size: int, dtype: np.dtype[Any], names: tuple[str, ...]) -> None:
        self.step = 0
        self.buffers: dict[str, Array] = {name: np.zeros(size, dtype) for name in names}
        self.delta: Array = np.empty(size, dtype)


class Optimizer:
    """What all optimizers have in common.

    Attributes
    ----------
    lr : float
        Learning rate of the next step. It may be changed between steps.
    weight_decay : float
        0 for optimizers without.

    Notes
    -----
    What an optimizer remembers belongs to the parameters it was used with: one optimizer may step several layers or
    models, each with its own memory, and goes on where it was when used with one again.
    """

    _buffers: tuple[str, ...] = ()

    def __init__(self, lr: float, weight_decay: float = 0) -> None:
        name = type(self).__name__
        self.lr = number(name, "lr", lr, 0)
        self.weight_decay = number(name, "weight_decay", weight_decay, 0)
        self._states: WeakKeyDictionary[Parameters, State] = WeakKeyDictionary()

    def state(self, target: Layer) -> State:
        """What is remembered about a layer or model: the object itself, no copy."""
        parameters = target.parameters
        state = self._states.get(parameters)
        if state is None:
            state = State(parameters.size, parameters.dtype, self._buffers)
            self._states[parameters] = state
        return state

    def step(self, target: Layer, grads: Array | Mapping[str, Any]) -> None:
        """Change the parameters of a layer or model by one step along its gradient.

        Parameters
        ----------
        target : Layer
            A layer, or a `Sequential`.
        grads : ndarray of shape (parameters.size,), or mapping of str to ndarray
            The gradient, flat or by the parameters' names, of the parameters' dtype. It is not changed.

        Raises
        ------
        TypeError
            If ``target`` is no layer, or the gradient has another dtype than its parameters.
        ValueError
            If a name is missing or unknown, or a shape differs.
        NonFiniteError
            If the gradient, or the step that follows from it, has a NaN or an infinity.

            Whatever is raised, the parameters are unchanged.
        """
        who = f"{type(self).__name__}.step"
        if not isinstance(target, Layer):
            raise TypeError(f"{who}: target is {type(target).__name__}; expected a layer or a model")
        parameters = target.parameters
        grad = _flat_gradient(who, parameters, grads)
        if not all_finite(grad):
            raise NonFiniteError(f"{who}: the gradient has NaN or infinite elements")
        state = self.state(target)
        state.step += 1
        if self.weight_decay:
            grad = grad + self.weight_decay * parameters.flat
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            self._find_delta(grad, state)
        if not all_finite(state.delta):
            raise NonFiniteError(f"{who}: the step would make parameters NaN or infinite")
        parameters.subtract(state.delta)

    def _find_delta(self, g: Array, state: State) -> None:
        """Bring ``state.buffers`` up to date with the gradient ``g``, and write what to subtract to ``state.delta``."""
        raise NotImplementedError


class SGD(Optimizer):
    """Gradient descent: ``v = momentum * v + g; p -= lr * v``, ``torch.optim.SGD``.

    Parameters
    ----------
    lr : float
        Learning rate.
    momentum : float
        Share of the last step that is kept. 0 is plain gradient descent.
    nesterov : bool
        Look ahead: ``p -= lr * (g + momentum * v)``. Needs momentum.
    weight_decay : float
        ``weight_decay * p`` is added to the gradient.

    Raises
    ------
    TypeError
        If an argument is no number.
    ValueError
        If one is negative, or nesterov is without momentum.
    """

    def __init__(self, lr: float, momentum: float = 0, nesterov: bool = False, weight_decay: float = 0) -> None:
        super().__init__(lr, weight_decay)
        self.momentum = number("SGD", "momentum", momentum, 0)
        self.nesterov = bool(nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov is True with momentum 0; expected momentum > 0")
        self._buffers = ("momentum",) if self.momentum else ()

    def _find_delta(self, g: Array, state: State) -> None:
        delta = state.delta
        if not self.momentum:
            np.multiply(g, self.lr, out=delta)
            return
        v = state.buffers["momentum"]
        v *= self.momentum
        v += g
        if self.nesterov:
            np.multiply(v, self.momentum, out=delta)
            delta += g
            delta *= self.lr
        else:
            np.multiply(v, self.lr, out=delta)

    def __repr__(self) -> str:
        return f"SGD({self.lr}, momentum={self.momentum}, nesterov={self.nesterov}, weight_decay={self.weight_decay})"


class Adam(Optimizer):
    """Adam as in ``torch.optim.Adam``.

    At step t: ``m = b1 m + (1-b1) g``, ``v = b2 v + (1-b2) g**2``,
    ``p -= lr * (m / (1-b1**t)) / (sqrt(v / (1-b2**t)) + eps)``.

    Parameters
    ----------
    lr : float
        Learning rate, about the largest change of a parameter in a step.
    betas : tuple of two float
        b1 and b2, at least 0 and below 1: how slowly the means of g and g**2 forget.
    eps : float
        Keeps the quotient finite.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If one is out of range.

    References
    ----------
    Kingma & Ba (2015), Adam: a method for stochastic optimization, ICLR.
    """

    _buffers = ("m", "v")

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(lr)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"Adam: betas is {betas!r}; expected two numbers")
        self.betas = (number("Adam", "betas[0]", betas[0], 0, 1), number("Adam", "betas[1]", betas[1], 0, 1))
        self.eps = number("Adam", "eps", eps, 0)

    def _find_delta(self, g: Array, state: State) -> None:
        m, v, delta = state.buffers["m"], state.buffers["v"], state.delta
        b1, b2 = self.betas
        np.subtract(g, m, out=delta)
        delta *= 1 - b1
        m += delta
        np.multiply(g, g, out=delta)
        delta *= 1 - b2
        v *= b2
        v += delta
        np.sqrt(v, out=delta)
        delta /= math.sqrt(1 - b2**state.step)
        delta += self.eps
        np.divide(m, delta, out=delta)
        delta *= self.lr / (1 - b1**state.step)

    def __repr__(self) -> str:
        return f"Adam({self.lr}, betas={self.betas}, eps={self.eps})"


def clip_grad_norm(grads: Array | Mapping[str, Array], max_norm: float) -> float:
    """Scale a gradient in place so that its norm over all parameters is at most ``max_norm``.

    Equal to ``torch.nn.utils.clip_grad_norm_``.

    Parameters
    ----------
    grads : ndarray, or mapping of str to ndarray
        The gradient, flat or by the parameters' names.
    max_norm : float
        Above 0.

    Returns
    -------
    float
        The norm before, its squares added up in float64. If it is not finite, nothing is scaled.

    Raises
    ------
    ValueError
        If ``max_norm`` is not above 0.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm: max_norm is {max_norm}; expected a number above 0")
    arrays = list(grads.values()) if isinstance(grads, Mapping) else [grads]
    norm = math.hypot(*(_norm(array) for array in arrays))
    # The 1e-6 is PyTorch's; without it the same training would differ in the seventh digit.
    scale = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and scale < 1:
        for array in arrays:
            array *= scale
    return norm


def _norm(array: Array) -> float:
    """Euclidean norm in float64: not finite only if an element is not, and without a BLAS, whose bits vary."""
    with np.errstate(over="ignore", under="ignore"):
        squares = float(np.square(array, dtype=np.float64).sum())
    if not math.isinf(squares):
        return math.sqrt(squares)
    largest = float(np.abs(array).max())
    if not math.isfinite(largest):
        return largest
    return largest * math.sqrt(float(np.square(array / largest, dtype=np.float64).sum()))


def _flat_gradient(who: str, parameters: Parameters, grads: Array | Mapping[str, Any]) -> Array:
    if not isinstance(grads, Mapping):
        _check(who, "grads", grads, (parameters.size,), parameters.dtype)
        return np.ascontiguousarray(grads)
    missing = [name for name in parameters if name not in grads]
    unknown = [name for name in grads if name not in parameters]
    if missing or unknown:
        raise ValueError(f"{who}: missing gradients {missing}, unknown gradients {unknown}")
    gathered: Array = np.empty(parameters.size, parameters.dtype)
    for name, view in parameters.views(gathered).items():
        _check(who, f"grads[{name!r}]", grads[name], view.shape, parameters.dtype)
        view[...] = grads[name]
    return gathered


def _check(who: str, name: str, array: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise TypeError(f"{who}: {name} has dtype {getattr(array, 'dtype', None)}; expected {dtype}, the parameters'")
    if array.shape != shape:
        raise ValueError(f"{who}: {name} has shape {array.shape}; expected {shape}, from the parameters")
