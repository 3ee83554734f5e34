"""The training loop."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rnnfast._arrays import Array
from rnnfast._batches import Minibatches
from rnnfast._checks import NonFiniteError
from rnnfast._history import History
from rnnfast._interrupt import Shield
from rnnfast._progress import progress
from rnnfast.losses import Loss
from rnnfast.optim import Optimizer, clip_grad_norm

if TYPE_CHECKING:
    from rnnfast.model import Sequential

Callback = Callable[["Training"], object]


class Training:
    """One run of `Sequential.fit`, as callbacks see it after every epoch.

    Attributes
    ----------
    model : Sequential
        What is trained.
    optimizer : Optimizer
        Its ``lr`` may be changed.
    history : History
        The epochs so far.
    epoch : int
        How many epochs are done.
    epochs : int
        How many were asked for.
    """

    def __init__(
        self, model: Sequential, optimizer: Optimizer, loss: Loss, clip_norm: float | None, epochs: int
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.history = History()
        self.epoch = 0
        self.epochs = epochs
        self._loss = loss
        self._clip_norm = clip_norm
        self._stopped = False
        self._shield = Shield()
        self._grad: Array = np.empty(model.parameters.size, model.dtype)

    def stop(self) -> None:
        """End the training after this epoch."""
        self._stopped = True

    def run(
        self, data: Minibatches, validation: Minibatches | None, show: bool, callbacks: Sequence[Callback]
    ) -> History:
        """Train until the epochs are over, a callback says stop, or Ctrl-C."""
        try:
            with self._shield, progress(show, self.epochs) as display:
                while self.epoch < self.epochs and not self._stopped:
                    start = time.perf_counter()
                    loss = self._run_epoch(data)
                    val_loss = None if validation is None else mean_loss(self.model, validation, self._loss)
                    with self._shield.up():
                        self.history.append(loss, val_loss, time.perf_counter() - start)
                        self.epoch += 1
                    display.epoch_done(self.epoch, {"loss": loss, "val_loss": val_loss})
                    for callback in callbacks:
                        callback(self)
        except KeyboardInterrupt:
            self.history.interrupted = True
            print(f"Sequential.fit: interrupted after {self.epoch} of {self.epochs} epochs", file=sys.stderr)
        return self.history

    # NaN and infinity are looked for and reported with their place; NumPy's warnings would come on top.
    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def _run_epoch(self, data: Minibatches) -> float:
        total, terms = 0.0, 0.0
        for batch, (x, y) in enumerate(data.epoch(self.epoch)):
            count = self._loss.count(y)
            try:
                total += count * self._step(x, y)
            except NonFiniteError as error:
                raise NonFiniteError(
                    f"Sequential.fit: epoch {self.epoch + 1}, batch {batch + 1} (counted from 1): {error}; the model "
                    "is as it was before that step. A smaller learning rate, clip_norm, or inputs scaled to about 1 "
                    "may help"
                ) from None
            terms += count
        return total / terms

    def _step(self, x: Array, y: Array) -> float:
        """One step along the gradient of one minibatch; its loss before the step."""
        prediction, tape = self.model.trace(x)
        value, dy = self._loss.differentiate(prediction, y)
        if not math.isfinite(value):
            raise NonFiniteError(f"the loss is {value}")
        self.model.pull_back(tape, dy, self._grad, need_dx=False)
        if self._clip_norm is not None:
            clip_grad_norm(self._grad, self._clip_norm)
        with self._shield.up():
            self.optimizer.step(self.model, self._grad)
        return value


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def mean_loss(model: Sequential, data: Minibatches, loss: Loss) -> float:
    """Loss of a model over all samples of ``data``."""
    total, terms = 0.0, 0.0
    for x, y in data.epoch(0):
        count = loss.count(y)
        total += count * loss.differentiate(model.apply(x), y)[0]
        terms += count
    return total / terms
