"""A recurrent layer run step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfast import _core

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
        self._stream = _core.Stream(layer._weights, batch)

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
            The hidden state after the step: ``out``, or a new array.

        Raises
        ------
        TypeError
            If an argument is not an array of the layer's dtype.
        ValueError
            If a shape does not fit, or ``out`` is read-only or shares memory with ``x_t``. The state is unchanged.
        """
        return self._stream.step(x_t, out)

    @property
    def state(self) -> Any:
        """A copy of the state after the last step, in the layer's form: (1, N, H), or two of them for LSTM."""
        parts = tuple(part[None] for part in self._stream.state)
        return parts if self._layer._has_cell_state else parts[0]

    def reset(self, state: Any = None) -> None:
        """Start anew from ``state``, in the form of `state`; zeros when None."""
        h, c = self._layer._states(f"{type(self._layer).__name__}.stream.reset", "state", state, self._batch, "T N")
        self._stream.set_state(np.ascontiguousarray(h), c)
