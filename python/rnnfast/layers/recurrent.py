"""What RNN, LSTM and GRU share: parameters, shapes, tapes. The cells differ in their kernels alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnfast import _core
from rnnfast._arrays import Array, as_float_array
from rnnfast.layers.base import PLAIN, Layer, Run
from rnnfast.layers.stream import Stream

State = Any  # array (RNN, GRU) or tuple of two arrays (LSTM)


class Tape:
    """What backpropagation through time needs from one `forward` call.

    Attributes
    ----------
    nbytes : int
        Memory that the tape keeps beyond the layer's input and output.
    """

    def __init__(self, layer: RecurrentLayer, x: Array, h: Array, c: Array | None, gates: Array | None, layout: str):
        self._layer: RecurrentLayer | None = layer
        self._version = layer.parameters.version
        self._x, self._h, self._c, self._gates = x, h, c, gates
        self._layout = layout

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (self._c, self._gates) if array is not None)


@dataclass(frozen=True)
class Gradients:
    """Result of `backward`.

    Attributes
    ----------
    x : ndarray
        dL/dx, of the shape of the input.
    state : ndarray, or tuple of two ndarrays for LSTM
        dL/d(initial state), in the layer's form of a state.
    params : dict of str to ndarray
        dL/d(parameter) by the names of `state_dict`; views of `flat`.
    flat : ndarray, shape (size,)
        All parameters' gradients in one array.
    """

    x: Array
    state: State
    params: Mapping[str, Array]
    flat: Array


class RecurrentLayer(Layer):
    """One layer of recurrent cells in one direction. Use `RNN`, `LSTM` or `GRU`."""

    _gates: int  # rows of weights per hidden unit
    _has_cell_state = False

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        dtype: Any,
        seed: Any,
    ) -> None:
        name = type(self).__name__
        self.input_size = _positive(name, "input_size", input_size)
        self.hidden_size = _positive(name, "hidden_size", hidden_size)
        _flag(name, "bias", bias)
        _flag(name, "batch_first", batch_first)
        _flag(name, "bidirectional", bidirectional)
        _only(name, "num_layers", _positive(name, "num_layers", num_layers), 1)
        _only(name, "bidirectional", bidirectional, False)
        _only(name, "dropout", dropout, 0.0)
        self.bias = bias
        self.batch_first = batch_first

        rows = self._gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih_l0": (rows, self.input_size),
            "weight_hh_l0": (rows, self.hidden_size),
        }
        if bias:
            shapes |= {"bias_ih_l0": (rows,), "bias_hh_l0": (rows,)}
        super().__init__(dtype, shapes)
        self.initialise(1.0 / math.sqrt(self.hidden_size), seed)
        self._cell = cell
        self._weights = self._new_weights()

    def _new_weights(self) -> _core.Weights:
        """The parameters for the kernels, which pack them anew after every change."""
        weights = _core.Weights(
            cell=self._cell,
            w_ih=self.parameters["weight_ih_l0"],
            w_hh=self.parameters["weight_hh_l0"],
            b_ih=self.parameters["bias_ih_l0"] if self.bias else None,
            b_hh=self.parameters["bias_hh_l0"] if self.bias else None,
        )
        self.parameters.on_change = weights.invalidate
        return weights

    # Copies and pickles share nothing with the layer: their kernels see their own parameters.

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_weights"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._weights = self._new_weights()

    def config(self) -> dict[str, Any]:
        return {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "bias": self.bias,
            "batch_first": self.batch_first,
            "dtype": self.dtype.name,
        }

    def __call__(self, x: Any, state: State = None, *, lengths: Any = None) -> tuple[Array, State]:
        """Run the layer over a batch of sequences, for inference: nothing is kept.

        Parameters
        ----------
        x : array_like, shape (T, N, I), or (N, T, I) with ``batch_first``, or (T, I) for one sequence
            T time steps of N sequences; of the layer's dtype. T = 0 and N = 0 are allowed.
        state : array_like, shape (1, N, H), or (1, H) for one sequence; for LSTM a tuple of two such arrays
            Hidden state (and cell state) before the first step. Zeros when None.
        lengths : None
            Sequences of different lengths are not supported yet.

        Returns
        -------
        y : ndarray, shape (T, N, H), or (N, T, H), or (T, H)
            Hidden state after every step.
        state : ndarray, or tuple of two ndarrays
            State after the last step, in the shape of the argument.

        Raises
        ------
        TypeError
            If an array is not of the layer's dtype, or ``state`` is of the wrong kind.
        ValueError
            If a shape does not fit.
        """
        x, states, layout = self._inputs(type(self).__name__, x, state, lengths)
        h, c, _ = _core.forward(weights=self._weights, x=x, h0=states[0], c0=states[1], training=False)
        return _from_time_major(h[1:], layout), self._state(h[-1].copy(), c, layout)

    def forward(self, x: Any, state: State = None, *, lengths: Any = None) -> tuple[Array, State, Tape]:
        """Run the layer like a call does, and keep what `backward` needs.

        Returns
        -------
        y, state
            As from a call, to the bit. ``y`` is read-only, because the tape needs it: copy it to change it.
        tape : Tape
            For `backward`. Neither ``x`` nor the parameters may change before that.
        """
        x, states, layout = self._inputs(f"{type(self).__name__}.forward", x, state, lengths)
        h, c, gates = _core.forward(weights=self._weights, x=x, h0=states[0], c0=states[1], training=True)
        h.flags.writeable = False
        tape = Tape(self, x, h, c, gates, layout)
        last_c = None if c is None else c[-1].copy()
        return _from_time_major(h[1:], layout), self._state(h[-1].copy(), last_c, layout), tape

    def backward(self, tape: Tape, dy: Any = None, dstate: State = None, *, keep: bool = False) -> Gradients:
        """Backpropagation through time.

        Parameters
        ----------
        tape : Tape
            From `forward` of this layer. It is spent, unless ``keep`` is true.
        dy : array_like, of the shape of ``y``
            dL/dy. Zeros when None.
        dstate : array_like, or tuple of two, of the shape of ``state``
            dL/d(last state). Zeros when None.
        keep : bool
            Leave the tape usable, at the price of a copy of its gates.

        Returns
        -------
        Gradients

        Raises
        ------
        TypeError
            If ``tape`` is no tape, or an array is not of the layer's dtype.
        ValueError
            If the tape is spent or another layer's, the parameters changed since `forward`, or a shape does not fit.

        References
        ----------
        Werbos (1990), Backpropagation through time, Proceedings of the IEEE 78(10).
        """
        flat = np.zeros(self.parameters.size, self.dtype)
        grads = self.parameters.views(flat)
        dx, dstates, layout = self._backpropagate(tape, dy, dstate, grads, keep=keep, need_dx=True)
        assert dx is not None
        return Gradients(_from_time_major(dx, layout), self._state(*dstates, layout), grads, flat)

    def stream(self, batch: int = 1) -> Stream:
        """The layer run step by step on ``batch`` sequences at once, with the state kept inside.

        Outputs are those of a call on the whole sequence, to the bit.
        """
        _positive(f"{type(self).__name__}.stream", "batch", batch)
        return Stream(self, batch)

    # The protocol of Sequential: always time-major.

    def apply(self, x: Array, run: Run = PLAIN) -> Array:
        states = self._zero_states(x.shape[1])
        h: Array = _core.forward(weights=self._weights, x=x, h0=states[0], c0=states[1], training=False)[0]
        return h[1:]

    def trace(self, x: Array, run: Run = PLAIN) -> tuple[Array, Tape]:
        states = self._zero_states(x.shape[1])
        h, c, gates = _core.forward(weights=self._weights, x=x, h0=states[0], c0=states[1], training=True)
        return h[1:], Tape(self, x, h, c, gates, "T N")

    def pull_back(self, tape: Tape, dy: Array, grad: Array, need_dx: bool) -> Array | None:
        grad[...] = 0
        return self._backpropagate(tape, dy, None, self.parameters.views(grad), keep=False, need_dx=need_dx)[0]

    # Shapes in and out.

    def _inputs(self, who: str, x: Any, state: State, lengths: Any) -> tuple[Array, tuple[Array, Array | None], str]:
        """Time-major x, (h0, c0) of shape (N, H), and the layout to give results back in."""
        if lengths is not None:
            raise ValueError(f"{who}: lengths is given; expected None, ragged batches are not supported yet")
        x = as_float_array(x, self.dtype, f"{who}: x")
        layout = "T" if x.ndim == 2 else "N T" if self.batch_first else "T N"
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            axes = "(N, T, I)" if self.batch_first else "(T, N, I)"
            raise ValueError(
                f"{who}: x has shape {x.shape}; expected {axes} or (T, I) with I = {self.input_size} from input_size"
            )
        x = _to_time_major(x, layout)
        return x, self._states(who, "state", state, x.shape[1], layout), layout

    def _states(self, who: str, name: str, state: State, batch: int, layout: str) -> tuple[Array, Array | None]:
        if state is None:
            return self._zero_states(batch)
        if not self._has_cell_state:
            if isinstance(state, tuple):
                raise TypeError(f"{who}: {name} is a tuple; expected one array, there is no cell state")
            return self._one_state(who, name, state, batch, layout), None
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"{who}: {name} is {type(state).__name__}; expected a tuple of two arrays (h, c)")
        h, c = (self._one_state(who, f"{name}[{part}]", state[part], batch, layout) for part in (0, 1))
        return h, c

    def _one_state(self, who: str, name: str, state: Any, batch: int, layout: str) -> Array:
        array = as_float_array(state, self.dtype, f"{who}: {name}")
        if layout == "T":
            expected: tuple[int, ...] = (1, self.hidden_size)
            axes, origin = "(D*L, H)", "H from hidden_size"
        else:
            expected = (1, batch, self.hidden_size)
            axes, origin = "(D*L, N, H)", "N from x, H from hidden_size"
        if array.shape != expected:
            raise ValueError(f"{who}: {name} has shape {array.shape}; expected {axes} = {expected}, {origin}")
        return array.reshape(batch, self.hidden_size)

    def _zero_states(self, batch: int) -> tuple[Array, Array | None]:
        zeros = np.zeros((batch, self.hidden_size), self.dtype)
        return zeros, zeros if self._has_cell_state else None

    def _state(self, h: Array, c: Array | None, layout: str) -> State:
        shape = (1, self.hidden_size) if layout == "T" else (1, h.shape[0], self.hidden_size)
        return h.reshape(shape) if c is None else (h.reshape(shape), c.reshape(shape))

    def _backpropagate(
        self, tape: Tape, dy: Any, dstate: State, grads: Mapping[str, Array], *, keep: bool, need_dx: bool
    ) -> tuple[Array | None, tuple[Array, Array | None], str]:
        who = f"{type(self).__name__}.backward"
        if not isinstance(tape, Tape):
            raise TypeError(f"{who}: tape is {type(tape).__name__}; expected the tape that forward returned")
        if tape._layer is None:
            raise ValueError(f"{who}: tape is spent; expected a fresh one, or keep=True in the backward before")
        if tape._layer is not self:
            raise ValueError(f"{who}: tape belongs to another layer; expected one from forward of this layer")
        if tape._version != self.parameters.version:
            raise ValueError(f"{who}: the parameters changed since forward; expected backward before the update")
        layout = tape._layout
        steps, batch = tape._x.shape[:2]
        if dy is not None:
            dy = as_float_array(dy, self.dtype, f"{who}: dy")
            shape = {"T": (steps,), "T N": (steps, batch), "N T": (batch, steps)}[layout] + (self.hidden_size,)
            if dy.shape != shape:
                raise ValueError(f"{who}: dy has shape {dy.shape}; expected {shape}, the shape of y")
            dy = _to_time_major(dy, layout)
        dh: Array | None = None
        dc: Array | None = None
        if dstate is not None:
            dh, dc = self._states(who, "dstate", dstate, batch, layout)
        gates = tape._gates
        if not keep:
            tape._layer = None
        elif gates is not None:
            gates = gates.copy()
        dx, dh0, dc0 = _core.backward(
            weights=self._weights,
            x=tape._x,
            h=tape._h,
            c=tape._c,
            gates=gates,
            dy=dy,
            dh_n=dh,
            dc_n=dc,
            dw_ih=grads["weight_ih_l0"],
            dw_hh=grads["weight_hh_l0"],
            db_ih=grads["bias_ih_l0"] if self.bias else None,
            db_hh=grads["bias_hh_l0"] if self.bias else None,
            need_dx=need_dx,
        )
        return dx, (dh0, dc0), layout


def _to_time_major(array: Array, layout: str) -> Array:
    if layout == "T":
        return array[:, None, :]
    return np.ascontiguousarray(array.swapaxes(0, 1)) if layout == "N T" else array


def _from_time_major(array: Array, layout: str) -> Array:
    return array[:, 0, :] if layout == "T" else array.swapaxes(0, 1) if layout == "N T" else array


def _positive(who: str, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{who}: {name} is {value!r}; expected a positive whole number")
    if value < 1:
        raise ValueError(f"{who}: {name} is {value}; expected a positive whole number")
    return int(value)


def _flag(who: str, name: str, value: Any) -> None:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{who}: {name} is {value!r}; expected True or False")


def _only(who: str, name: str, value: Any, supported: Any) -> None:
    if isinstance(value, bool) is not isinstance(supported, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{who}: {name} is {value!r}; expected {supported!r}")
    if value != supported:
        raise ValueError(f"{who}: {name} is {value!r}; expected {supported!r}, other values are not supported yet")
