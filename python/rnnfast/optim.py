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
from rnnfast.layers.base import Layer, Parameters

# Elements that are updated at a time: all buffers of a block stay in a core's cache between the NumPy calls.
_BLOCK = 32768


def _number(who: str, name: str, value: Any, low: float, below: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{who}: {name} is {value!r}; expected a number")
    if not low <= value < below:
        raise ValueError(f"{who}: {name} is {value}; expected {low} <= {name} < {below}")
    return float(value)


class Optimizer:
    """What all optimizers have in common.

    Attributes
    ----------
    lr : float
        Learning rate of the next step. It may be changed between steps.

    Notes
    -----
    What an optimizer remembers (momentum, number of steps) belongs to the parameters it was used with: one optimizer
    may step several layers or models, each with its own memory, and goes on where it was when used with one again.
    """

    _buffers: tuple[str, ...] = ()

    def __init__(self, lr: float) -> None:
        self.lr = _number(type(self).__name__, "lr", lr, 0)
        self._states: WeakKeyDictionary[Parameters, dict[str, Array]] = WeakKeyDictionary()

    def state(self, target: Layer) -> dict[str, Array]:
        """What is remembered about a layer or model: ``step`` (), and buffers of the shape of its flat parameters.

        These are the arrays themselves, no copies: writing to them changes the next step.
        """
        parameters = target.parameters
        state = self._states.get(parameters)
        if state is None:
            state = {"step": np.zeros((), np.int64)}
            state.update((name, np.zeros_like(parameters.flat)) for name in self._buffers)
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
            If the gradient has another dtype than the parameters.
        ValueError
            If a name is missing or unknown, or a shape differs. Nothing is changed then.
        """
        parameters = target.parameters
        flat = parameters.flat
        grad = _flat_gradient(f"{type(self).__name__}.step", parameters, grads)
        state = self.state(target)
        state["step"] += 1
        buffers = [state[name] for name in self._buffers]
        scratch = np.empty(min(_BLOCK, flat.size), flat.dtype)
        # Said before the first write as well: whatever stops the update half-way, nothing stale stays in use.
        parameters.changed()
        try:
            for start in range(0, flat.size, _BLOCK):
                block = slice(start, start + _BLOCK)
                p = flat[block]
                self._update(p, grad[block], [b[block] for b in buffers], scratch[: p.size], int(state["step"]))
        finally:
            parameters.changed()

    def _update(self, p: Array, g: Array, buffers: list[Array], scratch: Array, step: int) -> None:
        """Change ``p`` and its ``buffers`` in place; ``step`` counts from 1, ``scratch`` is free to use."""
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
    """

    def __init__(self, lr: float, momentum: float = 0, nesterov: bool = False, weight_decay: float = 0) -> None:
        super().__init__(lr)
        self.momentum = _number("SGD", "momentum", momentum, 0)
        self.nesterov = bool(nesterov)
        self.weight_decay = _number("SGD", "weight_decay", weight_decay, 0)
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov is True with momentum 0; expected momentum > 0")
        self._buffers = ("momentum",) if self.momentum else ()

    def _update(self, p: Array, g: Array, buffers: list[Array], scratch: Array, step: int) -> None:
        if self.weight_decay:
            np.multiply(p, self.weight_decay, out=scratch)
            scratch += g
            g = scratch
        if buffers:
            (v,) = buffers
            v *= self.momentum
            v += g
            if self.nesterov:
                g = g + self.momentum * v
            else:
                g = v
        np.multiply(g, self.lr, out=scratch)
        p -= scratch

    def __repr__(self) -> str:
        return f"SGD({self.lr}, momentum={self.momentum}, nesterov={self.nesterov}, weight_decay={self.weight_decay})"


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015) as in ``torch.optim.Adam``.

    ``m = b1 m + (1-b1) g``, ``v = b2 v + (1-b2) g**2``, ``p -= lr * m/(1-b1**t) / (sqrt(v/(1-b2**t)) + eps)`` at
    step t.

    Parameters
    ----------
    lr : float
        Learning rate, about the largest change of a parameter in a step.
    betas : tuple of two float
        b1 and b2, at least 0 and below 1: how slowly the means of g and g**2 forget.
    eps : float
        Keeps the quotient finite.
    """

    _buffers = ("m", "v")

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(lr)
        try:
            b1, b2 = betas
        except (TypeError, ValueError):
            raise TypeError(f"Adam: betas is {betas!r}; expected two numbers") from None
        self.betas = (_number("Adam", "betas[0]", b1, 0, 1), _number("Adam", "betas[1]", b2, 0, 1))
        self.eps = _number("Adam", "eps", eps, 0)

    def _update(self, p: Array, g: Array, buffers: list[Array], scratch: Array, step: int) -> None:
        m, v = buffers
        b1, b2 = self.betas
        np.subtract(g, m, out=scratch)
        scratch *= 1 - b1
        m += scratch
        np.multiply(g, g, out=scratch)
        scratch *= 1 - b2
        v *= b2
        v += scratch
        np.sqrt(v, out=scratch)
        scratch /= math.sqrt(1 - b2**step)
        scratch += self.eps
        np.divide(m, scratch, out=scratch)
        scratch *= self.lr / (1 - b1**step)
        p -= scratch

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
    flat = parameters.flat
    if not isinstance(grads, Mapping):
        _check(who, "grads", grads, flat.shape, flat.dtype)
        return np.ascontiguousarray(grads)
    missing = [name for name in parameters if name not in grads]
    unknown = [name for name in grads if name not in parameters]
    if missing or unknown:
        raise ValueError(f"{who}: missing gradients {missing}, unknown gradients {unknown}")
    gathered = np.empty_like(flat)
    for name, view in parameters.views(gathered).items():
        _check(who, f"grads[{name!r}]", grads[name], view.shape, flat.dtype)
        view[...] = grads[name]
    return gathered


def _check(who: str, name: str, array: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise TypeError(f"{who}: {name} has dtype {getattr(array, 'dtype', None)}; expected {dtype}, the parameters'")
    if array.shape != shape:
        raise ValueError(f"{who}: {name} has shape {array.shape}; expected {shape}, from the parameters")
