"""The training loop."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from rnnfast import _core
from rnnfast._arrays import Array
from rnnfast._batches import Batch
from rnnfast._checks import NonFiniteError
from rnnfast._history import History
from rnnfast._interrupt import Shield
from rnnfast._progress import progress
from rnnfast.layers.base import Run
from rnnfast.losses import Loss
from rnnfast.optim import Optimizer, clip_grad_norm, clip_grad_value
from rnnfast.schedules import Schedule

if TYPE_CHECKING:
    from rnnfast.model import Sequential

Callback = Callable[["Training"], object]


class Data(Protocol):
    """Where batches come from: arrays, lists, or what the caller iterates over."""

    def epoch(self, number: int) -> Iterator[Batch]: ...


class Options(NamedTuple):
    """How `fit` trains, beside model, loss, optimizer and data."""

    seed: int = 0
    clip_norm: float | None = None
    clip_value: float | None = None
    schedule: Schedule | None = None
    accumulate: int = 1
    tbptt: int | None = None
    stateful: bool = False

    def texts(self) -> dict[str, str]:
        """All of them, to be compared with those of another training."""
        return {name: str(value) for name, value in self._asdict().items()}


class Training:
    """One run of `Sequential.fit`, as callbacks see it.

    Attributes
    ----------
    model : Sequential
        What is trained.
    optimizer : Optimizer
        Its ``lr`` may be changed, if there is no schedule.
    history : History
        The epochs so far.
    epoch : int
        How many epochs are done.
    epochs : int
        How many were asked for.
    batch : int
        How many batches of this epoch are done; 0 after an epoch.
    batch_loss : float
        Loss of the last batch, before the step that it caused.
    steps : int
        How many steps the optimizer made in this training.
    gradient : ndarray, shape (model.parameters.size,)
        That of the last step, after clipping. The next batch overwrites it.
    settings : dict of str to str
        What has to be the same for a training to be taken up again.
    """

    def __init__(
        self,
        model: Sequential,
        optimizer: Optimizer,
        loss: Loss,
        options: Options,
        epochs: int,
        callbacks: Sequence[Callback] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.history = History()
        self.epoch = 0
        self.epochs = epochs
        self.batch = 0
        self.batch_loss = math.nan
        self.steps = 0
        self.gradient: Array = np.empty(model.parameters.size, model.dtype)
        self.learning_rate = optimizer.lr
        self.schedule = options.schedule
        self.callbacks = callbacks
        self.settings = options.texts() | {"loss": repr(loss)} | dict(settings or {})
        self._loss = loss
        self._options = options
        self._stopped = False
        self._shield = Shield()
        self._sum: Array | None = np.zeros_like(self.gradient) if options.accumulate > 1 else None
        self._sum_count = 0.0
        self._sum_batches = 0

    def stop(self) -> None:
        """End the training after this epoch."""
        self._stopped = True

    @property
    def is_stopped(self) -> bool:
        """Whether a callback said stop."""
        return self._stopped

    @property
    def is_over(self) -> bool:
        """Whether there will be no further epoch."""
        return self._stopped or self.epoch >= self.epochs

    def begin(self) -> None:
        """Tell schedule and callbacks that there is a training ahead."""
        if self.schedule is not None:
            self.schedule.begin()
        for callback in self.callbacks:
            if (begin := getattr(callback, "begin", None)) is not None:
                begin(self)

    def run(self, data: Data, validation: Data | None, show: bool) -> History:
        """Train until the epochs are over, a callback says stop, or Ctrl-C."""
        after_batch = [
            hook for callback in self.callbacks if (hook := getattr(callback, "batch_end", None)) is not None
        ]
        # What writes the state of the training comes when the others have brought theirs up to date.
        after_epoch = sorted(self.callbacks, key=lambda callback: bool(getattr(callback, "runs_last", False)))
        try:
            with self._shield, progress(show, self.epochs, self.epoch) as display:
                while not self.is_over:
                    start = time.perf_counter()
                    loss = self._run_epoch(data, after_batch)
                    val_loss = None
                    if validation is not None:
                        val_loss = mean_loss(self.model, validation, self._loss, self._options.stateful)
                    with self._shield.up():
                        self.history.append(loss, val_loss, time.perf_counter() - start, self.optimizer.lr)
                        self.epoch += 1
                        self.batch = 0
                        if self.schedule is not None:
                            self.schedule.epoch_end(loss if val_loss is None else val_loss)
                    display.epoch_done(self.epoch, {"loss": loss, "val_loss": val_loss})
                    for callback in after_epoch:
                        callback(self)
        except KeyboardInterrupt:
            self.history.interrupted = True
            print(f"Sequential.fit: interrupted after {self.epoch} of {self.epochs} epochs", file=sys.stderr)
        finally:
            if self.schedule is not None:
                self.optimizer.lr = self.learning_rate
        with self._shield, self._shield.up():
            for callback in after_epoch:
                if (end := getattr(callback, "end", None)) is not None:
                    end(self)
        return self.history

    # NaN and infinity are looked for and reported with their place; NumPy's warnings would come on top.
    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def _run_epoch(self, data: Data, after_batch: Sequence[Callback]) -> float:
        total, terms = 0.0, 0.0
        carry: dict[tuple[int, ...], Any] | None = {} if self._options.stateful else None
        for number, batch in enumerate(data.epoch(self.epoch)):
            try:
                loss, count = self._train_on(batch, number, carry)
            except NonFiniteError as error:
                raise self._explained(error, number) from None
            total += loss * count
            terms += count
            self.batch = number + 1
            self.batch_loss = loss
            for hook in after_batch:
                hook(self)
        if self._sum_batches:
            try:
                self._step_along_sum()
            except NonFiniteError as error:
                raise self._explained(error, self.batch - 1) from None
        return total / terms if terms else 0.0

    def _explained(self, error: NonFiniteError, batch: int) -> NonFiniteError:
        return NonFiniteError(
            f"Sequential.fit: epoch {self.epoch + 1}, batch {batch + 1} (counted from 1): {error}; the model "
            "is as it was before that step. A smaller learning rate, clip_norm, or inputs scaled to about 1 "
            "may help"
        )

    def _train_on(self, batch: Batch, number: int, carry: dict[tuple[int, ...], Any] | None) -> tuple[float, float]:
        """Train on one batch; mean loss and sum of weights of its terms."""
        # Numbers from 1: the shuffling of an epoch draws from the seed (seed, epoch), which is (seed, epoch, 0, 0).
        seed = (self._options.seed, self.epoch, number + 1)
        if self._options.tbptt is None:
            return self._descend(batch, Run(batch.lengths, (*seed, 0), carry))
        carry = {} if carry is None else carry
        total, terms = 0.0, 0.0
        for part, (chunk, learns) in enumerate(chunks(batch, self._options.tbptt, self.model.gives_sequence)):
            run = Run(chunk.lengths, (*seed, part), carry)
            if not learns:
                self.model.trace(chunk.x, run)
                continue
            loss, count = self._descend(chunk, run)
            total += loss * count
            terms += count
        return (total / terms if terms else 0.0), terms

    def _descend(self, batch: Batch, run: Run) -> tuple[float, float]:
        """One step along the gradient of one batch, or one term of a sum; loss before it, and sum of weights."""
        x, y, _, weight = batch
        prediction, tape = self.model.trace(x, run)
        if weight is None:
            count = self._loss.count(y)
            value, dy = self._loss.differentiate(prediction, y)
        else:
            count = self._loss.count(y, weight)
            value, dy = self._loss.differentiate(prediction, y, weight)
        if not math.isfinite(value):
            raise NonFiniteError(f"the loss is {value}")
        if self._sum is None:
            if count:
                self.model.pull_back(tape, dy, self.gradient, need_dx=False)
                self._step()
            return value, count
        self.model.pull_back(tape, dy, self.gradient, need_dx=False)
        if not _core.all_finite(self.gradient):
            self._sum[...], self._sum_count, self._sum_batches = 0, 0.0, 0
            raise NonFiniteError("the gradient has NaN or infinite elements")
        _core.add_scaled(self._sum, self.gradient, count)
        self._sum_count += count
        self._sum_batches += 1
        if self._sum_batches == self._options.accumulate:
            self._step_along_sum()
        return value, count

    def _step_along_sum(self) -> None:
        assert self._sum is not None
        count = self._sum_count
        if count:
            np.divide(self._sum, count, out=self.gradient)
        self._sum[...], self._sum_count, self._sum_batches = 0, 0.0, 0
        if count:
            self._step()

    def _step(self) -> None:
        options = self._options
        if options.clip_value is not None:
            clip_grad_value(self.gradient, options.clip_value)
        if options.clip_norm is not None:
            clip_grad_norm(self.gradient, options.clip_norm)
        if self.schedule is not None:
            self.optimizer.lr = self.learning_rate * self.schedule.multiplier(self.epoch, self.steps)
        with self._shield.up():
            self.optimizer.step(self.model, self.gradient)
            self.steps += 1


def chunks(batch: Batch, steps: int, gives_sequence: bool) -> Iterator[tuple[Batch, bool]]:
    """A batch in pieces of ``steps`` time steps, and whether there is something to learn from each.

    With targets for every step the first piece begins at the first step. With one target for the whole sequence it is
    the last piece that ends at the last step; there the loss is, and the others only carry the state to it.
    """
    x, y, lengths, weight = batch
    whole = len(x)
    for stop in range(steps if gives_sequence else (whole - 1) % steps + 1, whole + steps, steps):
        start, end = max(stop - steps, 0), min(stop, whole)
        part = None if lengths is None else np.clip(lengths - start, 0, end - start)
        if not gives_sequence:
            yield Batch(x[start:end], y, part, weight), end == whole
            continue
        # A weight of length 1 along time is that of a sample.
        of_steps = weight if weight is None or len(weight) == 1 else weight[start:end]
        yield Batch(x[start:end], y[start:end], part, of_steps), True


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def mean_loss(model: Sequential, data: Data, loss: Loss, stateful: bool = False) -> float:
    """Loss of a model over all samples of ``data``, states carried from batch to batch if ``stateful``."""
    total, terms = 0.0, 0.0
    carry: dict[tuple[int, ...], Any] | None = {} if stateful else None
    for x, y, lengths, weight in data.epoch(0):
        prediction = model.apply(x, Run(lengths, carry=carry))
        if weight is None:
            count, value = loss.count(y), loss.differentiate(prediction, y)[0]
        else:
            count, value = loss.count(y, weight), loss.differentiate(prediction, y, weight)[0]
        total += count * value
        terms += count
    return total / terms if terms else 0.0
