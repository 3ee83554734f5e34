"""Optimizers: how parameters move along their gradient. The equations are PyTorch's.

Each works on flat buffers. Those that come with rnnfast step all parameters of a model in one pass of a C++ kernel; an
optimizer of one's own is a subclass of `Optimizer` that says in NumPy what to subtract (``_buffers`` and
``_find_delta``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from rnnfast import _core
from rnnfast._arrays import Array
from rnnfast._checks import NonFiniteError, number
from rnnfast.layers.base import Layer, Parameters


class State:
    """What an optimizer remembers about a layer or model.

    Attributes
    ----------
    step : int
        Steps made.
    buffers : dict of str to ndarray, each of the shape of the flat parameters
        Momentum and the like, by the optimizer's names for them.
    before : ndarray, shape (1 + len(buffers), size)
        Memory for one step: the parameters and the buffers as they were.
    delta : ndarray, of the shape of the flat parameters
        Memory for one step of `Optimizer._find_delta`: what to subtract.
    """

    def __init__(self, size: int, dtype: np.dtype[Any], names: tuple[str, ...]) -> None:
        self.step = 0
        self.buffers: dict[str, Array] = {name: np.zeros(size, dtype) for name in names}
        self.before: Array = np.empty((1 + len(names), size), dtype)
        self.delta: Array = self.before[0]


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

    A subclass names its buffers in ``_buffers`` and overrides ``_find_delta(g, state)``, which brings
    ``state.buffers`` up to date with the gradient ``g`` and writes what to subtract to ``state.delta``.
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

            Whatever is raised, the parameters and what the optimizer remembers are unchanged.
        """
        if not isinstance(target, Layer):
            raise TypeError(f"{self._who()}: target is {type(target).__name__}; expected a layer or a model")
        parameters = target.parameters
        grad = _flat_gradient(self._who, parameters, grads)
        if not _core.all_finite(grad):
            raise NonFiniteError(f"{self._who()}: the gradient has NaN or infinite elements")
        state = self.state(target)
        state.step += 1
        if not self._update(parameters, grad, state):
            state.step -= 1
            raise NonFiniteError(f"{self._who()}: the step would make parameters NaN or infinite")

    # Copies and pickles go on where this one is with the parameters that are copied or pickled along with it.

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_states": list(self._states.items())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _states=WeakKeyDictionary(state["_states"]))

    def options(self) -> dict[str, Any]:
        """The arguments that make this optimizer, ``lr`` as it is now."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self.options().items())})"

    def _who(self) -> str:
        return f"{type(self).__name__}.step"

    def _update(self, parameters: Parameters, grad: Array, state: State) -> bool:
        """Make the step unless it is not finite; whether it was."""
        if self.weight_decay:
            grad = grad + self.weight_decay * parameters.flat
        for kept, buffer in zip(state.before[1:], state.buffers.values(), strict=True):
            kept[...] = buffer
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            self._find_delta(grad, state)
        finite = _core.all_finite(state.delta)
        if finite:
            parameters.subtract(state.delta)
        else:
            for kept, buffer in zip(state.before[1:], state.buffers.values(), strict=True):
                buffer[...] = kept
        return finite

    def _find_delta(self, g: Array, state: State) -> None:
        """Bring ``state.buffers`` up to date with the gradient ``g``, and write what to subtract to ``state.delta``."""
        raise NotImplementedError


class Rule(NamedTuple):
    """A rule of the kernel, ``rnnfast/optim.h``, and its numbers in the order of ``_core.optimizer_step``."""

    name: str
    lr: float
    decay: float = 0.0
    keep: float = 1.0
    momentum: float = 0.0
    beta1: float = 0.0
    beta2: float = 0.0
    eps: float = 0.0
    root_correction: float = 1.0


class KernelOptimizer(Optimizer):
    """An optimizer whose step is one pass of a kernel."""

    def _rule(self, step: int) -> Rule:
        """What the kernel does in step number ``step``."""
        raise NotImplementedError

    def _update(self, parameters: Parameters, grad: Array, state: State) -> bool:
        # Said before as well as after: if an exception comes between, nothing stale stays in use.
        parameters.changed()
        flats = [part.flat for part in parameters.parts]
        # By position: names would take half of the time of a step of a small model.
        buffers = list(state.buffers.values())
        finite = _core.optimizer_step(flats, grad, state.before, buffers, *self._rule(state.step))
        parameters.changed()
        return finite


class SGD(KernelOptimizer):
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
        self._name = "nesterov" if self.nesterov else "momentum" if self.momentum else "sgd"

    def _rule(self, step: int) -> Rule:
        return Rule(self._name, self.lr, self.weight_decay, momentum=self.momentum)


class RMSprop(KernelOptimizer):
    """RMSprop as in ``torch.optim.RMSprop``: ``v = alpha v + (1-alpha) g**2; p -= lr * g / (sqrt(v) + eps)``.

    Parameters
    ----------
    lr : float
        Learning rate.
    alpha : float
        At least 0 and below 1: how slowly the mean of g**2 forgets.
    eps : float
        Keeps the quotient finite.
    weight_decay : float
        ``weight_decay * p`` is added to the gradient.
    momentum : float
        Share of the last step that is kept.
    centered : bool
        Divide by the standard deviation of g, and not by the root of the mean of its squares (Graves 2013).

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If one is out of range.

    References
    ----------
    Tieleman & Hinton (2012), Lecture 6.5, rmsprop, Neural networks for machine learning.
    """

    def __init__(
        self,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
    ) -> None:
        super().__init__(lr, weight_decay)
        self.alpha = number("RMSprop", "alpha", alpha, 0, 1)
        self.eps = number("RMSprop", "eps", eps, 0)
        self.momentum = number("RMSprop", "momentum", momentum, 0)
        self.centered = bool(centered)
        self._buffers = ("v", *(("mean",) if self.centered else ()), *(("momentum",) if self.momentum else ()))
        self._name = {
            ("v",): "rmsprop",
            ("v", "momentum"): "rmsprop_momentum",
            ("v", "mean"): "rmsprop_centered",
            ("v", "mean", "momentum"): "rmsprop_both",
        }[self._buffers]

    def _rule(self, step: int) -> Rule:
        return Rule(self._name, self.lr, self.weight_decay, momentum=self.momentum, beta2=self.alpha, eps=self.eps)


class Adam(KernelOptimizer):
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
    weight_decay : float
        ``weight_decay * p`` is added to the gradient. `AdamW` has the other kind.

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
    _decoupled = False

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
    ) -> None:
        super().__init__(lr, weight_decay)
        name = type(self).__name__
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"{name}: betas is {betas!r}; expected two numbers")
        self.betas = (number(name, "betas[0]", betas[0], 0, 1), number(name, "betas[1]", betas[1], 0, 1))
        self.eps = number(name, "eps", eps, 0)

    def _rule(self, step: int) -> Rule:
        b1, b2 = self.betas
        decay, keep = (0.0, 1 - self.lr * self.weight_decay) if self._decoupled else (self.weight_decay, 1.0)
        return Rule("adam", self.lr / (1 - b1**step), decay, keep, 0.0, b1, b2, self.eps, math.sqrt(1 - b2**step))


class AdamW(Adam):
    """Adam with decoupled weight decay, ``torch.optim.AdamW``: before Adam's step, ``p *= 1 - lr * weight_decay``.

    Parameters
    ----------
    lr, betas, eps
        As for `Adam`.
    weight_decay : float
        Share of a parameter, times ``lr``, that every step takes from it.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If one is out of range.

    References
    ----------
    Loshchilov & Hutter (2019), Decoupled weight decay regularization, ICLR.
    """

    _decoupled = True

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay)


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
    arrays = [grads] if isinstance(grads, np.ndarray) else list(grads.values())
    norms = [_core.norm(_flat(array)) for array in arrays]
    norm = norms[0] if len(norms) == 1 else math.hypot(*norms)
    # The 1e-6 is PyTorch's; without it the same training would differ in the seventh digit.
    factor = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and factor < 1:
        for array in arrays:
            _in_place(_core.scale, array, factor)
    return norm


def clip_grad_value(grads: Array | Mapping[str, Array], max_value: float) -> None:
    """Clamp every element of a gradient in place to [-max_value, max_value].

    Equal to ``torch.nn.utils.clip_grad_value_``.

    Parameters
    ----------
    grads : ndarray, or mapping of str to ndarray
        The gradient, flat or by the parameters' names. NaN stays NaN.
    max_value : float
        Above 0.

    Raises
    ------
    ValueError
        If ``max_value`` is not above 0.
    """
    if not max_value > 0:
        raise ValueError(f"clip_grad_value: max_value is {max_value}; expected a number above 0")
    for array in [grads] if isinstance(grads, np.ndarray) else grads.values():
        _in_place(_core.clip, array, max_value)


def _flat(array: Array) -> Array:
    """``array`` as one axis, which it mostly has: a view if it is in C order."""
    return array if array.ndim == 1 and array.flags.c_contiguous else np.ascontiguousarray(array).reshape(-1)


def _in_place(kernel: Any, array: Array, number: float) -> None:
    """``kernel(array, number)`` for an array of any memory layout."""
    if array.flags.c_contiguous:
        kernel(_flat(array), number)
        return
    copy = array.flatten()
    kernel(copy, number)
    array[...] = copy.reshape(array.shape)


def _flat_gradient(caller: Callable[[], str], parameters: Parameters, grads: Array | Mapping[str, Any]) -> Array:
    if isinstance(grads, np.ndarray) and grads.dtype == parameters.dtype and grads.shape == (parameters.size,):
        return np.ascontiguousarray(grads)
    who = caller()
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
