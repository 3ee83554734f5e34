"""Which rows of a batch run at which step: sequences of different lengths, restarts, and both directions of time.

The kernels know one thing only: rows lie step after step, the longest sequences first, so that those of a step are the
first rows of the batch (``slots``). A sequence whose state is zeroed on the way is two sequences, the second of which
starts from zero; a sequence read backwards is one whose steps are gathered in reverse. All cells get all of this for
nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnnfast import _core
from rnnfast._arrays import Array, as_array


class Segment(NamedTuple):
    """Some steps of a way, as a call of their own."""

    rows: slice  # of what `Way.gather` gives
    before: int | slice  # of states in their slots: those before the first step
    after: slice  # of states in their slots: those after each step
    slots: Array | None
    sequences: int  # that take part in the first step, the first ones of the way's


class Way:
    """How one direction of a layer walks through a batch of T steps of N sequences.

    Attributes
    ----------
    slots : ndarray of int64, shape (steps + 2,), or None
        First row of every slot of states, as the kernels take it. None: all N sequences run T steps.
    places : ndarray of int64, shape (R,), or None
        With ``slots``: where in the grid (T*N, ...) of what is given for every step the kernels' rows stand.
    sequences : int
        How many sequences the kernels see.
    """

    slots: Array | None = None
    places: Array | None = None

    def __init__(self, steps: int, batch: int) -> None:
        self.shape = (steps, batch)
        self.steps = steps
        self.sequences = batch

    def gather(self, grid: Array) -> Array:
        """What is given for every step and sequence, (T, N, ...), in the order in which the kernels take it."""
        return grid

    def scatter(self, rows: Array, grid: Array) -> None:
        """The way back, into ``grid`` (T, N, H), whose last axis lies in one piece; 0 for steps that do not run."""
        grid[...] = rows

    def initial(self, states: Array) -> Array:
        """States of the N sequences, (N, H), as initial states for the kernels."""
        return states

    def initial_back(self, gradient: Array) -> Array:
        """The transpose of `initial`, for gradients."""
        return gradient

    def rows_of_sequences(self, values: Array) -> Array:
        """What is given for every sequence, (N, ...), for every row of the kernels' batch."""
        return values

    def final(self, slots: Array) -> Array:
        """Last states of the N sequences, (N, H), of states in their slots."""
        last: Array = slots[-1]
        return last

    def final_of_rows(self, rows: Array) -> Array:
        """The same of states by row of the kernels' batch."""
        return rows

    def final_back(self, gradient: Array) -> Array:
        """The transpose of `final`: gradients of the last states, by row of the kernels' batch."""
        return gradient

    def segment(self, first: int, last: int) -> Segment:
        """Steps first..last-1 as a call of their own."""
        return Segment(slice(first, last), first, slice(first + 1, last + 1), None, self.sequences)


class Reversed(Way):
    """All N sequences, from the last step to the first."""

    def gather(self, grid: Array) -> Array:
        return np.ascontiguousarray(grid[::-1])

    def scatter(self, rows: Array, grid: Array) -> None:
        grid[...] = rows[::-1]


class Ragged(Way):
    """Sequences that end at different steps, or start anew on the way.

    Parameters
    ----------
    steps, batch : int
        T and N.
    lengths : ndarray of int, shape (N,)
    resets : ndarray of bool, shape (T, N), optional
        Where the state is zeroed before a step.
    reverse : bool
        Whether sequences run from their last step to their first.
    """

    def __init__(self, steps: int, batch: int, lengths: Array, resets: Array | None, reverse: bool) -> None:
        super().__init__(steps, batch)
        number, start, length = np.arange(batch), np.zeros(batch, np.intp), lengths
        takes_initial = np.ones(batch, bool)
        if resets is not None:
            # Times in the order in which this direction comes to them.
            time = np.arange(steps)[:, None]
            if reverse:
                resets = np.take_along_axis(resets, np.maximum(lengths - 1 - time, 0), axis=0)
            begins = resets & (time < lengths)
            is_reset = begins[0].copy()
            begins[0] = True
            number, start = np.nonzero(begins.T)
            is_last = np.append(number[1:] != number[:-1], True)
            length = np.where(is_last, lengths[number], np.append(start[1:], 0)) - start
            takes_initial = (start == 0) & ~is_reset[number]
        order = np.argsort(-length, kind="stable")
        number, start, length = number[order], start[order], length[order]

        self.sequences = len(order)
        self.steps = int(length[0]) if len(length) else 0
        counts = np.searchsorted(-length, -np.arange(self.steps), side="left")
        self.slots = np.concatenate([[0, self.sequences], self.sequences + np.cumsum(counts)]).astype(np.int64)
        rows = np.arange(self.slots[-1] - self.sequences)
        sequence = rows - np.repeat(self.slots[1:-1] - self.sequences, counts)
        first_step, stride = (lengths[number] - 1 - start, -batch) if reverse else (start, batch)
        places = (first_step * batch + number)[sequence] + np.repeat(np.arange(self.steps) * stride, counts)
        self.places = places.astype(np.int64, copy=False)
        self._row_at = np.full(self.shape[0] * batch, -1)
        self._row_at[places] = rows

        self._number = number
        self._takes_initial = takes_initial[order]
        # The last piece of a sequence is the one that starts last.
        by_start = np.lexsort((start, number))
        self._final_row = by_start[np.searchsorted(number[by_start], np.arange(batch), side="right") - 1]
        self._final_slot_row = self.slots[length[self._final_row]] + self._final_row

    def gather(self, grid: Array) -> Array:
        assert self.places is not None
        rows: Array = _core.empty((len(self.places), grid.shape[2]), grid.dtype)
        _core.copy_rows(rows, rows_of_grid(grid), self.places)
        return rows

    def scatter(self, rows: Array, grid: Array) -> None:
        _core.copy_rows(rows_of_grid(grid), rows, self._row_at)

    def initial(self, states: Array) -> Array:
        rows: Array = states[self._number]
        rows[~self._takes_initial] = 0
        return rows

    def rows_of_sequences(self, values: Array) -> Array:
        rows: Array = values[self._number]
        return rows

    def initial_back(self, gradient: Array) -> Array:
        states = np.zeros((self.shape[1], *gradient.shape[1:]), gradient.dtype)
        states[self._number[self._takes_initial]] = gradient[self._takes_initial]
        return states

    def final(self, slots: Array) -> Array:
        last: Array = slots[self._final_slot_row]
        return last

    def final_of_rows(self, rows: Array) -> Array:
        last: Array = rows[self._final_row]
        return last

    def final_back(self, gradient: Array) -> Array:
        rows = np.zeros((self.sequences, *gradient.shape[1:]), gradient.dtype)
        rows[self._final_row] = gradient
        return rows

    def segment(self, first: int, last: int) -> Segment:
        assert self.slots is not None
        before, slots = int(self.slots[first]), self.slots[first + 1 : last + 2]
        begin, end, sequences = int(slots[0]), int(slots[-1]), int(slots[1] - slots[0])
        return Segment(
            slice(begin - self.sequences, end - self.sequences),
            slice(before, before + sequences),
            slice(begin, end),
            np.append(0, slots - begin + sequences),
            sequences,
        )


def rows_of_grid(grid: Array) -> Array:
    """(T, N, H) as (T*N, H)."""
    return grid.reshape(grid.shape[0] * grid.shape[1], grid.shape[2])


def ways(steps: int, batch: int, lengths: Array | None, resets: Array | None, directions: int) -> list[Way]:
    """The way of every direction through a batch."""
    if resets is not None and not resets.any():
        resets = None
    if lengths is None and resets is None:
        return [Way(steps, batch), Reversed(steps, batch)][:directions]
    if lengths is None:
        lengths = np.full(batch, steps)
    return [Ragged(steps, batch, lengths, resets, reverse) for reverse in (False, True)[:directions]]


def check_resets(who: str, resets: Any, shape: tuple[int, ...]) -> Array:
    """``resets`` as an array of bool; TypeError or ValueError naming ``who``."""
    array = as_array(resets, f"{who}: resets")
    if array.dtype != np.bool_:
        raise TypeError(f"{who}: resets has dtype {array.dtype}; expected bool")
    if array.shape != shape:
        raise ValueError(f"{who}: resets has shape {array.shape}; expected {shape}, T and N from x")
    return array
