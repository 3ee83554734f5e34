"""Batches that the caller makes, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rnnfast._batches import Batch


class BatchStream:
    """Batches from an iterable.

    Parameters
    ----------
    source : iterable
        Of batches. An iterator is gone through once; anything else begins anew when it has ended.
    steps_per_epoch : int, optional
        Batches an epoch. None: an epoch is all of ``source``.
    prepare : callable
        ``prepare(item, where)`` gives the batch, or raises naming ``where``.
    who : str
        For messages.
    """

    def __init__(
        self,
        source: Iterable[Any],
        steps_per_epoch: int | None,
        prepare: Callable[[Any, str], Batch],
        who: str,
    ) -> None:
        self.source = source
        self.steps = steps_per_epoch
        self.prepare = prepare
        self.who = who
        self._once = iter(source) is source
        self._iterator = iter(source)

    def skip(self, epochs: int) -> None:
        """Draw the batches of epochs that were done before, and use none."""
        if self.steps is not None:
            for _ in range(epochs * self.steps):
                self._next(epochs - 1, self.steps)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        if self.steps is None:
            batch = 0
            for batch, item in enumerate(self._iterator if self._once else self.source, 1):
                yield self._prepared(item, number, batch)
            if not batch:
                raise ValueError(f"{self.who}: epoch {number + 1}: x gave no batch; expected at least one")
            return
        for batch in range(1, self.steps + 1):
            yield self._prepared(self._next(number, batch), number, batch)

    def _next(self, epoch: int, batch: int) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            if not self._once:
                self._iterator = iter(self.source)
                for item in self._iterator:
                    return item
        raise ValueError(
            f"{self.who}: epoch {epoch + 1}, batch {batch} (counted from 1): x has ended; expected "
            f"steps_per_epoch = {self.steps} batches an epoch"
        )

    def _prepared(self, item: Any, epoch: int, batch: int) -> Batch:
        return self.prepare(item, f"{self.who}: epoch {epoch + 1}, batch {batch} (counted from 1)")
