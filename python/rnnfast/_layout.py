"""Which axis is which in the arrays that a model takes and gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast._arrays import Array, as_float_array
from rnnfast._batches import Samples, first_nonfinite
from rnnfast.losses import Loss


class Layout:
    """The axes of a model's inputs and outputs.

    Parameters
    ----------
    batch_first : bool or None
        Whether sequences are (N, T, ...) or (T, N, ...). None: there are no sequences, inputs are (N, ...).
    gives_sequence : bool
        Whether outputs are sequences, too, and not (N, ...).

    Attributes
    ----------
    x_axis, y_axis : int
        The axis of the samples in inputs and outputs.
    """

    def __init__(self, batch_first: bool | None, gives_sequence: bool) -> None:
        self.batch_first = batch_first
        self.gives_sequence = gives_sequence
        self.x_axis = 1 if batch_first is False else 0
        self.y_axis = 1 if batch_first is False and gives_sequence else 0

    def inputs(self, x: Any, dtype: np.dtype[Any], who: str) -> Samples:
        """``x`` as samples; TypeError or ValueError naming ``who`` if its dtype or number of axes is wrong."""
        array = as_float_array(x, dtype, who)
        if self.batch_first is None:
            if array.ndim < 2:
                raise ValueError(f"{who} has shape {array.shape}; expected (N, ...), N samples")
        elif array.ndim != 3:
            raise ValueError(
                f"{who} has shape {array.shape}; expected {self._axes()}, from the recurrent layers' "
                f"batch_first={self.batch_first}"
            )
        return Samples(array, self.batch_first is not None, bool(self.batch_first))

    def targets(
        self, y: Any, output: tuple[int, ...], x: Samples, loss: Loss, dtype: np.dtype[Any], who: str
    ) -> Samples:
        """``y`` as targets for outputs of shape ``output``; TypeError or ValueError if they do not suit."""
        try:
            expected, found = loss.target_shape(output), np.shape(y)
        except ValueError as error:
            raise TypeError(f"{who}: y is not an array: {error}") from None
        if found != expected:
            raise ValueError(f"{who}: {self._disagreement(found, expected, x)}")
        array = loss.check_target(y, output, dtype, f"{who}: y")
        return Samples(array, self.gives_sequence, bool(self.batch_first))

    def shown(self, y: Array) -> Array:
        """An output of the layers, which is time-major, with the axes that the model shows."""
        return y.swapaxes(0, 1) if self.gives_sequence and self.batch_first else y

    def shown_shape(self, of_some: tuple[int, ...], count: int) -> tuple[int, ...]:
        """Shape of the shown output for ``count`` samples, from that of the layers' output for some of them."""
        shape = list(of_some)
        if self.gives_sequence and self.batch_first:
            shape[0], shape[1] = shape[1], shape[0]
        shape[self.y_axis] = count
        return tuple(shape)

    def _axes(self) -> str:
        return "(N, ...)" if self.batch_first is None else "(N, T, I)" if self.batch_first else "(T, N, I)"

    def _disagreement(self, found: tuple[int, ...], expected: tuple[int, ...], x: Samples) -> str:
        what = f"y has shape {found}"
        if len(found) == len(expected) and found[self.y_axis] != x.count:
            what = (
                f"y has {found[self.y_axis]} samples (axis {self.y_axis} of shape {found}) but x has {x.count} "
                f"(axis {self.x_axis} of shape {x.shape})"
            )
        text = f"{what}; expected y of shape {expected}, from x of shape {x.shape}, the model and the loss"
        if self.batch_first is not None:
            text += f"; x is {self._axes()}, since batch_first={self.batch_first}"
        if self.gives_sequence:
            text += "; without rf.Last() there is a target for every step"
        return text


def check_finite(array: Array, sample_axis: int, who: str) -> None:
    """ValueError that says where the first NaN or infinity is, if there is one."""
    at = first_nonfinite(array)
    if at is not None:
        raise ValueError(
            f"{who}{list(at)} is {array[at]} (sample {at[sample_axis]}, axis {sample_axis} of shape {array.shape}); "
            "expected finite numbers"
        )
