"""Which axis is which in the arrays that a model takes and gives, and what may stand in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rnnfast._arrays import Array, as_array, as_float_array
from rnnfast._batches import Samples, first_nonfinite
from rnnfast._checks import check_lengths
from rnnfast.layers.base import Layer
from rnnfast.losses import Loss

_NAMED = 5  # so many of the samples with bad numbers are named


class Layout:
    """The axes of a model's inputs and outputs.

    Parameters
    ----------
    batch_first : bool or None
        Whether sequences are (N, T, ...) or (T, N, ...). None: there are no sequences, inputs are (N, ...).
    gives_sequence : bool
        Whether outputs are sequences, too, and not (N, ...).
    first : Layer
        The layer that x goes to.

    Attributes
    ----------
    x_axis, y_axis : int
        The axis of the samples in inputs and outputs.
    """

    def __init__(self, batch_first: bool | None, gives_sequence: bool, first: Layer) -> None:
        self.batch_first = batch_first
        self.gives_sequence = gives_sequence
        self.x_axis = 1 if batch_first is False else 0
        self.y_axis = 1 if batch_first is False and gives_sequence else 0
        self._first = first

    def inputs(self, x: Any, dtype: np.dtype[Any], who: str, lengths: Any = None) -> Samples:
        """``x`` as samples; TypeError or ValueError if its dtype, its number of axes or ``lengths`` are wrong."""
        if self.batch_first is not None and is_ragged(x):
            if lengths is not None:
                raise ValueError(f"{who}: lengths is given; expected None with a list of sequences")
            return self._ragged_inputs(x, dtype, f"{who}: x")
        on_disk = is_on_disk(x, f"{who}: x")
        array = self._input(x, dtype, f"{who}: x", on_disk)
        if self.batch_first is None:
            if lengths is not None:
                raise ValueError(f"{who}: lengths is given; expected None, the model has no recurrent layer")
            if array.ndim < (1 if self._first.takes_integers else 2):
                raise ValueError(f"{who}: x has shape {array.shape}; expected (N, ...), N samples")
        elif array.ndim != len(self._x_axes()):
            raise ValueError(
                f"{who}: x has shape {array.shape}; expected {self._axes()}, from the recurrent layers' "
                f"batch_first={self.batch_first}"
            )
        if lengths is not None:
            lengths = check_lengths(who, lengths, array.shape[1 - self.x_axis], array.shape[self.x_axis])
        return Samples(array, self.batch_first is not None, bool(self.batch_first), lengths, on_disk)

    def targets(self, y: Any, tail: tuple[int, ...], x: Samples, loss: Loss, dtype: np.dtype[Any], who: str) -> Samples:
        """``y`` as targets for the outputs of ``x``; TypeError or ValueError if they do not suit.

        ``tail`` is the shape of one sample's output, or of one step of it.
        """
        if self.gives_sequence and x.is_ragged:
            return self._ragged_targets(y, tail, x, loss, dtype, who)
        output = self.output_shape(tail, x)
        try:
            expected, found = loss.target_shape(output), np.shape(y)
        except ValueError as error:
            raise TypeError(f"{who}: y is not an array: {error}") from None
        if found != expected:
            raise ValueError(f"{who}: {self._disagreement(found, expected, x)}")
        on_disk = is_on_disk(y, f"{who}: y")
        if on_disk:
            array = np.asarray(y)
            loss.check_target(array[:0], (0, *output[1:]), dtype, f"{who}: y")
        elif x.lengths is not None and self.gives_sequence:
            array = loss.check_target(self._without_padding(y, x.lengths), output, dtype, f"{who}: y")
        else:
            array = loss.check_target(y, output, dtype, f"{who}: y")
        return Samples(array, self.gives_sequence, bool(self.batch_first), x.lengths, on_disk)

    def output_shape(self, tail: tuple[int, ...], x: Samples) -> tuple[int, ...]:
        """Shape of the shown output for all of ``x``."""
        if not self.gives_sequence:
            return (x.count, *tail)
        assert x.steps is not None
        return (x.count, x.steps, *tail) if self.batch_first else (x.steps, x.count, *tail)

    def shown(self, y: Array) -> Array:
        """An output of the layers, which is time-major, with the axes that the model shows."""
        return y.swapaxes(0, 1) if self.gives_sequence and self.batch_first else y

    def check_finite(self, samples: Samples, who: str) -> None:
        """ValueError that says where NaN or infinities are, if there are any that are no padding."""
        at = first_nonfinite(samples.array)
        if at is None:
            return
        bad: Array = ~np.isfinite(samples.array)
        if samples.is_ragged:
            self._report_ragged(samples, bad, who)
        axis = 0 if samples.steps is None else self.x_axis
        if samples.lengths is not None:
            assert samples.steps is not None
            valid = np.arange(samples.steps)[:, None] < samples.lengths
            valid = valid.T if self.batch_first else valid
            bad = bad & valid.reshape(*valid.shape, *[1] * (bad.ndim - 2))
            if not bad.any():
                return
            at = tuple(map(int, np.argwhere(bad)[0]))
        of_sample = np.any(bad, axis=tuple(k for k in range(bad.ndim) if k != axis))
        raise ValueError(
            f"{who}{list(at)} is {samples.array[at]} (sample {at[axis]}, axis {axis} of shape {samples.shape}); "
            f"expected finite numbers{_others(np.flatnonzero(of_sample))}"
        )

    def _report_ragged(self, samples: Samples, bad: Array, who: str) -> None:
        of_row: Array = np.any(bad.reshape(len(bad), -1), axis=1)
        numbers = np.array([n for n in range(samples.count) if of_row[samples.rows_of(n)].any()])
        rows = samples.rows_of(int(numbers[0]))
        at = tuple(map(int, np.argwhere(bad[rows])[0]))
        raise ValueError(
            f"{who}[{numbers[0]}]{list(at)} is {samples.array[rows][at]} (sample {numbers[0]}); "
            f"expected finite numbers{_others(numbers)}"
        )

    def _input(self, x: Any, dtype: np.dtype[Any], who: str, on_disk: bool) -> Array:
        if not self._first.takes_integers:
            return as_float_array(x, dtype, who)
        array = as_array(x, who)
        if array.size == 0 and not hasattr(x, "dtype"):
            array = array.astype(np.intp)
        # Of a file, batch by batch.
        self._first.check_numbers(array[:0] if on_disk else array, who)
        return np.ascontiguousarray(array)

    def _ragged_inputs(self, x: Sequence[Any], dtype: np.dtype[Any], who: str) -> Samples:
        arrays = [self._input(sequence, dtype, f"{who}[{n}]", False) for n, sequence in enumerate(x)]
        axes = len(self._x_axes()) - 1
        for n, array in enumerate(arrays):
            if array.ndim != axes or array.shape[1:] != arrays[0].shape[1:]:
                wanted = "(T_n,)" if axes == 1 else "(T_n, I)"
                found = "" if array.ndim != axes else f", I = {arrays[0].shape[1]} from x[0]"
                raise ValueError(f"{who}[{n}] has shape {array.shape}; expected {wanted}, one sequence{found}")
        return Samples.ragged(arrays)

    def _ragged_targets(
        self, y: Any, tail: tuple[int, ...], x: Samples, loss: Loss, dtype: np.dtype[Any], who: str
    ) -> Samples:
        assert x.lengths is not None
        if not isinstance(y, (list, tuple)):
            raise TypeError(
                f"{who}: y is {type(y).__name__}; expected a list of arrays as x is, one for each sequence; without "
                "rf.Last() there is a target for every step"
            )
        if len(y) != x.count:
            raise ValueError(f"{who}: y has {len(y)} sequences but x has {x.count}; expected as many")
        arrays = []
        for n, sequence in enumerate(y):
            output = (int(x.lengths[n]), *tail)
            expected = loss.target_shape(output)
            if np.shape(sequence) != expected:
                raise ValueError(
                    f"{who}: y[{n}] has shape {np.shape(sequence)}; expected {expected}, from x[{n}], the model and "
                    "the loss"
                )
            arrays.append(loss.check_target(sequence, output, dtype, f"{who}: y[{n}]"))
        return Samples.ragged(arrays)

    def _without_padding(self, y: Any, lengths: Array) -> Array:
        """A copy of targets for every step with 0 in place of what follows the end of a sequence."""
        array = np.array(y)
        of_steps = array.swapaxes(0, 1) if self.batch_first else array
        of_steps[np.arange(len(of_steps))[:, None] >= lengths] = 0
        return array

    def _x_axes(self) -> tuple[str, ...]:
        axes = ("N", "T") if self.batch_first else ("T", "N")
        return axes if self._first.takes_integers else (*axes, "I")

    def _axes(self) -> str:
        return "(N, ...)" if self.batch_first is None else f"({', '.join(self._x_axes())})"

    def _disagreement(self, found: tuple[int, ...], expected: tuple[int, ...], x: Samples) -> str:
        what = f"y has shape {found}"
        of_x = f"x of {x.count} sequences" if x.is_ragged else f"x of shape {x.shape}"
        if len(found) == len(expected) and found[self.y_axis] != x.count:
            has = f"x has {x.count}" + ("" if x.is_ragged else f" (axis {self.x_axis} of shape {x.shape})")
            what = f"y has {found[self.y_axis]} samples (axis {self.y_axis} of shape {found}) but {has}"
        text = f"{what}; expected y of shape {expected}, from {of_x}, the model and the loss"
        if self.batch_first is not None and not x.is_ragged:
            text += f"; x is {self._axes()}, since batch_first={self.batch_first}"
        if self.gives_sequence:
            text += "; without rf.Last() there is a target for every step"
        return text


def is_ragged(x: Any) -> bool:
    """Whether ``x`` is a list of arrays, one for each sample, and not an array or nested lists."""
    return isinstance(x, (list, tuple)) and any(hasattr(sequence, "__array__") for sequence in x)


def is_on_disk(array: Any, who: str) -> bool:
    """Whether an array is a memory-mapped file; ValueError if it is one that would have to be copied whole."""
    if not isinstance(array, np.memmap):
        return False
    if not array.flags.c_contiguous:
        raise ValueError(f"{who} is memory-mapped and not in C order; expected C order, a file is never copied whole")
    return True


def _others(numbers: Array) -> str:
    if len(numbers) < 2:
        return ""
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return f"; all samples with such numbers: {', '.join(str(n) for n in numbers[:_NAMED])}{more}"
