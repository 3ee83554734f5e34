"""Data in the user's layout, minibatches in the layers' layout."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rnnfast._arrays import Array


class Samples:
    """An array of samples, of which any can be gathered into one C-order array, sequences time-major.

    Parameters
    ----------
    array : ndarray, C order
        (N, ...) if there is no time axis, else (T, N, ...), or (N, T, ...) if ``batch_first``.
    has_time : bool
        Whether one of the first two axes is time.
    batch_first : bool
        Which of the two it is.

    Attributes
    ----------
    array : ndarray
    count : int
        Number of samples.
    """

    def __init__(self, array: Array, has_time: bool, batch_first: bool) -> None:
        self.array = array
        self.count = array.shape[1 if has_time and not batch_first else 0]
        self._steps: Array | None = None
        self._rows = array
        self._sample_stride = 1
        if has_time:
            # Rows of all steps of all samples in a line: where they stand is arithmetic, and one gather
            # fetches a minibatch from either layout.
            length = array.shape[1 if batch_first else 0]
            self._rows = array.reshape(length * self.count, *array.shape[2:])
            self._sample_stride = length if batch_first else 1
            self._steps = np.arange(length)[:, None] * (1 if batch_first else self.count)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def take(self, index: Array) -> Array:
        """The samples numbered ``index`` (n,): (n, ...), or (T, n, ...)."""
        where = index * self._sample_stride
        if self._steps is not None:
            where = self._steps + where
        return self._rows.take(where, axis=0)


class Minibatches:
    """Inputs and targets, cut along their samples into batches.

    Parameters
    ----------
    x, y : Samples
        Of the same number of samples.
    batch_size : int
        The last batch of an epoch may be smaller.
    shuffle : bool
        Whether every epoch takes the samples in an order of its own.
    seed : int
        The order of an epoch is a function of ``seed`` and the epoch's number alone, so that training can be
        taken up at any epoch.
    """

    def __init__(self, x: Samples, y: Samples, batch_size: int, shuffle: bool = False, seed: int = 0) -> None:
        self.x, self.y = x, y
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed

    def epoch(self, number: int) -> Iterator[tuple[Array, Array]]:
        """The batches ``(x, y)`` of an epoch."""
        order = np.arange(self.x.count)
        if self.shuffle:
            np.random.default_rng([self.seed, number]).shuffle(order)
        for start in range(0, len(order), self.batch_size):
            index = order[start : start + self.batch_size]
            yield self.x.take(index), self.y.take(index)


def first_nonfinite(array: Array) -> tuple[int, ...] | None:
    """Index of the first NaN or infinity of a C-order array, None if there is none."""
    if array.dtype.kind != "f":
        return None
    flat = array.reshape(-1)
    block = 1 << 20  # a mask of the whole array would cost a quarter of its memory
    for start in range(0, flat.size, block):
        finite = np.isfinite(flat[start : start + block])
        if not finite.all():
            return tuple(map(int, np.unravel_index(start + int(finite.argmin()), array.shape)))
    return None
