"""Recurrent layers run step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfast import _core
from rnnfast._arrays import Array, as_float_array
from rnnfast.layers.direction import NO_MASKS, OptionKernels

if TYPE_CHECKING:
    from rnnfast.layers.recurrent import RecurrentLayer


class Stream:
    """State of ``batch`` sequences between the steps of a layer; made by ``layer.stream(batch)``.

    Changes of the layer's parameters are seen by the next `step`. Steps of one stream are taken one at a time;
    several streams may run in several threads at once.
    """

    def __init__(self, layer: RecurrentLayer, batch: int) -> None:
        self._layer = layer
        self._batch = batch
        self._parts: list[Any] = [
            _OptionStream(part.kernels, batch, layer, layer.parameters[f"weight_ih_{part.suffix}"].shape[1])
            if isinstance(part.kernels, OptionKernels)
            else _core.Stream(part.kernels.weights, batch)
            for part in layer._parts
        ]
        read_out = layer._read_out
        stages = self._parts if read_out is None else [*self._parts, _ReadOut(read_out)]
        # Bound here: to look up a method of the extension takes longer than to call this one.
        *self._steps_below, self._last_step = (stage.step for stage in stages)
        self._shape = (batch, layer._output_size if read_out is None else len(read_out))
        if layer.learn_initial_state:
            self.reset()

    def step(self, x_t: Any, out: Any = None) -> Any:
        """Advance by one time step.

        Parameters
        ----------
        x_t : ndarray, shape (N, I), of the layer's dtype
            The input of this step.
        out : ndarray, shape (N, H), optional
            Where the output is written: C order, of the layer's dtype, no memory shared with ``x_t``.

        Returns
        -------
        ndarray, shape (N, H)
            The hidden state of the last layer after the step: ``out``, or a new array.

        Raises
        ------
        TypeError
            If an argument is not an array of the layer's dtype.
        ValueError
            If a shape does not fit, or ``out`` is read-only or shares memory with ``x_t``. The state is unchanged.
        """
        if self._steps_below:
            # Before the layers below the last have taken the step.
            _check_out(out, x_t, self._shape, self._layer.dtype)
            for step in self._steps_below:
                x_t = step(x_t)
        return self._last_step(x_t, out)

    @property
    def state(self) -> Any:
        """A copy of the state after the last step, in the layer's form: (L, N, H), or two of them for LSTM."""
        parts = tuple(np.stack(states) for states in zip(*(part.state for part in self._parts), strict=True))
        return parts if self._layer._has_cell_state else parts[0]

    def reset(self, state: Any = None) -> None:
        """Start anew from ``state``, in the form of `state`; zeros, or the learnt state, when None."""
        layer = self._layer
        states = None
        if state is not None:
            states = layer._states(f"{type(layer).__name__}.stream.reset", "state", state, self._batch, "T N")
        for place, part in enumerate(self._parts):
            h, c = layer._initial(place, self._batch, states)
            part.set_state(np.ascontiguousarray(h), None if c is None else np.ascontiguousarray(c))


def _check_out(out: Any, x_t: Any, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    if out is None:
        return
    if not isinstance(out, np.ndarray) or out.dtype != dtype:
        raise TypeError(f"Stream: out has dtype {getattr(out, 'dtype', type(out))}; expected {dtype}")
    if out.shape != shape:
        raise ValueError(f"Stream: out has shape {out.shape}; expected (N, H) = {shape}")
    if not out.flags.carray or np.may_share_memory(out, x_t):
        raise ValueError("Stream: out is not a writeable C-order array of its own; expected one")


class _ReadOut:
    """The units of a fully recurrent network that are its output."""

    def __init__(self, units: Array) -> None:
        self._units = units

    def step(self, h_t: Array, out: Any = None) -> Array:
        y_t: Array = h_t[:, self._units]
        if out is None:
            return y_t
        out[...] = y_t
        given: Array = out
        return given


class _OptionStream:
    """A cell with options, step by step."""

    def __init__(self, kernels: OptionKernels, batch: int, layer: RecurrentLayer, inputs: int) -> None:
        self._kernels = kernels
        self._inputs = inputs
        self._dtype = layer.dtype
        self._shape = (batch, layer._output_size)
        self._h: Array = np.zeros(self._shape, layer.dtype)
        self._c = np.zeros((batch, layer.hidden_size), layer.dtype) if layer._has_cell_state else None

    def step(self, x_t: Any, out: Any = None) -> Array:
        if not isinstance(x_t, np.ndarray):
            raise TypeError(f"Stream: x_t is {type(x_t).__name__}; expected an array of {self._dtype}")
        x_t = as_float_array(x_t, self._dtype, "Stream: x_t")
        if x_t.shape != (self._shape[0], self._inputs):
            raise ValueError(
                f"Stream: x_t has shape {x_t.shape}; expected (N, I) = {(self._shape[0], self._inputs)}, N from batch, "
                "I from the layer's input_size"
            )
        _check_out(out, x_t, self._shape, self._dtype)
        h, c, _ = self._kernels.forward(x_t[None], self._h, self._c, None, False, NO_MASKS)
        self._h, self._c = h[1], c
        y_t: Array = self._h.copy() if out is None else out
        y_t[...] = self._h
        return y_t

    @property
    def state(self) -> tuple[Array, ...]:
        return (self._h.copy(),) if self._c is None else (self._h.copy(), self._c.copy())

    def set_state(self, h: Array, c: Array | None) -> None:
        self._h, self._c = h.copy(), None if c is None else c.copy()
