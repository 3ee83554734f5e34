"""What a recurrent layer keeps for backpropagation through time, and what that gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rnnfast._arrays import Array

if TYPE_CHECKING:
    from rnnfast.layers.direction import Trace
    from rnnfast.layers.recurrent import RecurrentLayer


class Tape:
    """What backpropagation through time needs from one `forward` call.

    The arrays below are (T, N, ...), (N, T, ...) with ``batch_first``, or (T, ...) for one sequence. A layer object of
    one layer in one direction has no axis D*L; for others it comes third, in the order of the states: layer 0, layer 0
    reverse, layer 1, ... Steps past the end of a sequence are 0.

    Attributes
    ----------
    nbytes : int
        Memory that the tape keeps beyond the layer's input and output.
    hidden_states : ndarray, shape (T, N, [D*L,] H)
        Hidden states after every step, after the projection if there is one.
    cell_states : ndarray, shape (T, N, [D*L,] H), or None
        Cell states after every step. None for cells without.
    gates : ndarray, shape (T, N, [D*L,] G*H), or None
        Activated gates in the order of the weights' rows: i, f, g, o (LSTM), r, z, n (GRU). None for RNN.
    masks : dict of str to ndarray
        Random masks that were drawn, with time first: ``dropout_l0`` (T, N, D*H), 0 or 1 / (1 - p);
        ``recurrent_l0[_reverse]`` (N, H), 0 or 1 / (1 - p); ``zoneout_h_l0[_reverse]`` and ``zoneout_c_l0[_reverse]``
        (T, N, H), 1 where the old state stays.
    """

    def __init__(self, layer: RecurrentLayer, layout: str) -> None:
        self._layer = layer
        self._is_spent = False
        self._version = layer.parameters.version
        self._layout = layout
        self._shape = (0, 0)
        self._traces: list[Trace] = []  # in the order of the states
        self._inputs: list[Array] = []  # of every layer, (T, N, ...)
        self._learned = False  # whether the initial states were parameters
        self._outside: list[Array] = []  # the layer's input and output
        self.masks: dict[str, Array] = {}

    @property
    def nbytes(self) -> int:
        kept: list[Array | None] = [*self._inputs, *self.masks.values()]
        for trace in self._traces:
            kept += [trace.x, trace.h, trace.c, trace.gates, *trace.cells, *trace.masks]
        owners = {id(owner): owner.nbytes for owner in map(_owner, (array for array in kept if array is not None))}
        for array in self._outside:
            owners.pop(id(_owner(array)), None)
        return sum(owners.values())

    @property
    def hidden_states(self) -> Array:
        arrays = [self._grid(trace, trace.output) for trace in self._traces]
        return self._shown(arrays)

    @property
    def cell_states(self) -> Array | None:
        self._complete("cell_states")
        states = [(trace, trace.c) for trace in self._traces if trace.c is not None]
        return self._shown([self._grid(trace, trace.after_steps(c)) for trace, c in states]) if states else None

    @property
    def gates(self) -> Array | None:
        self._complete("gates")
        layer = self._layer
        if not layer._keeps_gates:
            return None
        return self._shown([self._grid(trace, trace.gate_rows(layer._gates)) for trace in self._traces])

    def _complete(self, name: str) -> None:
        if any(trace.cuts for trace in self._traces):
            raise ValueError(f"Tape.{name}: kept for some steps only, since forward was called with checkpoint")

    def _grid(self, trace: Trace, rows: Array) -> Array:
        grid = np.empty((*self._shape, rows.shape[-1]), rows.dtype)
        trace.way.scatter(rows, grid)
        return grid

    def _shown(self, arrays: list[Array]) -> Array:
        array = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=2)
        return from_time_major(array, self._layout)


class Gradients(NamedTuple):
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
    state: Any
    params: Mapping[str, Array]
    flat: Array


def _owner(array: Array) -> Array:
    """The array whose memory ``array`` shows."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def to_time_major(array: Array, layout: str) -> Array:
    """An array in the user's layout as (T, N, ...)."""
    if layout == "T":
        return array[:, None]
    return np.ascontiguousarray(array.swapaxes(0, 1)) if layout == "N T" else array


def from_time_major(array: Array, layout: str) -> Array:
    """(T, N, ...) in the user's layout."""
    return array[:, 0] if layout == "T" else array.swapaxes(0, 1) if layout == "N T" else array
