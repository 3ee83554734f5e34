"""Data in the user's layout, minibatches in the layers' layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from rnnfast._arrays import Array

# Sequences of similar length are looked for among the samples of this many batches: enough that little of a batch is
# padding, few enough that shuffling still mixes the samples.
_POOL = 32


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
    lengths : ndarray of int, shape (N,), optional
        Valid steps of every sequence. None: all.
    on_disk : bool
        Whether the array is a file, of which only those samples are read that are taken.

    Attributes
    ----------
    array : ndarray
    lengths : ndarray or None
    count : int
        Number of samples.
    steps : int or None
        T, that of the longest if lengths differ; None without a time axis.
    """

    def __init__(
        self, array: Array, has_time: bool, batch_first: bool, lengths: Array | None = None, on_disk: bool = False
    ) -> None:
        self.array = array
        self.lengths = lengths if has_time else None
        self.on_disk = on_disk
        self.count = array.shape[1 if has_time and not batch_first else 0]
        self.steps: int | None = None
        self._rows = array
        self._starts: Array | None = None
        self._sample_stride = self._step_stride = 1
        if has_time:
            # Rows of all steps of all samples in a line: where they stand is arithmetic, and one gather
            # fetches a minibatch from either layout.
            self.steps = array.shape[1 if batch_first else 0]
            self._rows = array.reshape(self.steps * self.count, *array.shape[2:])
            self._sample_stride, self._step_stride = (self.steps, 1) if batch_first else (1, self.count)
            self._offsets = np.arange(self.steps)[:, None] * self._step_stride

    @classmethod
    def ragged(cls, sequences: Sequence[Array]) -> Samples:
        """Samples from arrays (T_n, ...) that may differ in T_n only, all of which are copied into one."""
        lengths = np.array([len(sequence) for sequence in sequences], np.intp)
        samples = cls.__new__(cls)
        samples.array = samples._rows = np.concatenate(sequences)
        samples.lengths = lengths
        samples.on_disk = False
        samples.count = len(sequences)
        samples.steps = int(lengths.max())
        samples._starts = np.cumsum(lengths) - lengths
        samples._sample_stride = samples._step_stride = 1
        samples._offsets = np.arange(samples.steps)[:, None]
        return samples

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def is_ragged(self) -> bool:
        """Whether the rows of sequences of different length stand one after the other."""
        return self._starts is not None

    def rows_of(self, sample: int) -> slice:
        """Where the steps of a ragged sample stand in ``array``."""
        assert self._starts is not None and self.lengths is not None
        start = int(self._starts[sample])
        return slice(start, start + int(self.lengths[sample]))

    def take(self, index: Array, lengths: Array | None = None) -> Array:
        """The samples numbered ``index`` (n,): (n, ...), or (T, n, ...).

        With ``lengths`` (n,) T is that of the longest, at least 1, and what follows the end of a shorter one is 0.
        """
        where: Array = index * self._sample_stride if self._starts is None else self._starts[index]
        taken: Array
        if self.steps is None or lengths is None:
            where = where if self.steps is None else self._offsets + where
            taken = self._rows.take(where, axis=0)
            return taken
        valid = valid_steps(lengths)
        if not len(self._rows):
            return np.zeros((*valid.shape, *self._rows.shape[1:]), self._rows.dtype)
        where = np.where(valid, np.arange(len(valid))[:, None] * self._step_stride + where, 0)
        taken = self._rows.take(where, axis=0)
        taken[~valid] = 0
        return taken


class Batch(NamedTuple):
    """What a step of training needs: sequences time-major, ``weight`` with the axes of ``y``, some of length 1."""

    x: Array
    y: Array
    lengths: Array | None = None
    weight: Array | None = None


class Minibatches:
    """Inputs and targets, cut along their samples into batches.

    Parameters
    ----------
    x, y : Samples
        Of the same number of samples.
    batch_size : int
        The last batch of an epoch may be smaller.
    shuffle : bool
        Whether every epoch takes the samples in an order of its own. Sequences of different lengths are then put
        together with others of similar length.
    seed : int
        The order of an epoch is a function of ``seed`` and the epoch's number alone, so that training can be
        taken up at any epoch.
    sample_weight : ndarray, shape (N,), optional
        What each sample counts.
    check : callable, optional
        ``check(batch, index)`` gives the batch of samples ``index`` back, or raises; for what could not be looked at
        before.

    Attributes
    ----------
    batches : int
        How many an epoch has.
    """

    def __init__(
        self,
        x: Samples,
        y: Samples,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        sample_weight: Array | None = None,
        check: Callable[[Batch, Array], Batch] | None = None,
    ) -> None:
        self.x, self.y = x, y
        self.batch_size = batch_size
        self.batches = -(-x.count // batch_size)
        self.shuffle = shuffle
        self.seed = seed
        self.sample_weight = sample_weight
        self.check = check

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        for index in self._indices(number):
            batch = self._batch(index)
            yield batch if self.check is None else self.check(batch, index)

    def _indices(self, number: int) -> Iterator[Array]:
        order, size = np.arange(self.x.count), self.batch_size
        if not self.shuffle:
            yield from (order[start : start + size] for start in range(0, len(order), size))
            return
        generator = np.random.default_rng([self.seed, number])
        generator.shuffle(order)
        if self.x.lengths is None:
            yield from (order[start : start + size] for start in range(0, len(order), size))
            return
        batches = []
        for start in range(0, len(order), size * _POOL):
            pool = order[start : start + size * _POOL]
            pool = pool[np.argsort(self.x.lengths[pool], kind="stable")]
            batches += [pool[first : first + size] for first in range(0, len(pool), size)]
        for place in generator.permutation(len(batches)):
            yield batches[place]

    def _batch(self, index: Array) -> Batch:
        weight = None if self.sample_weight is None else self.sample_weight[index]
        if self.x.lengths is None:
            y = self.y.take(index)
            if weight is not None:
                weight = weight.reshape(_along_samples(y.ndim, self.y.steps is not None))
            return Batch(self.x.take(index), y, None, weight)
        lengths = self.x.lengths[index]
        per_step = self.y.steps is not None
        y = self.y.take(index, lengths if per_step else None)
        x = self.x.take(index, lengths)
        if per_step:
            valid = valid_steps(lengths).astype(np.float64)
            weight = valid if weight is None else valid * weight
            weight = weight.reshape(*valid.shape, *[1] * (y.ndim - 2))
        elif weight is not None:
            weight = weight.reshape(_along_samples(y.ndim, False))
        return Batch(x, y, lengths, weight)


def valid_steps(lengths: Array) -> Array:
    """Which steps (T, n) of sequences are none of padding; T is that of the longest, at least 1."""
    steps = max(int(lengths.max(initial=0)), 1)
    return np.arange(steps)[:, None] < lengths


def _along_samples(axes: int, has_time: bool) -> tuple[int, ...]:
    """Shape that broadcasts numbers of samples over an array of that many axes."""
    return (1, -1, *[1] * (axes - 2)) if has_time else (-1, *[1] * (axes - 1))


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
