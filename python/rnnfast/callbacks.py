"""What `fit` calls while it trains."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from rnnfast._arrays import Array
from rnnfast._checks import integer, number

if TYPE_CHECKING:
    from rnnfast._training import Training


class Callback:
    """A callback with everything that `fit` looks for. Any callable will do; what it lacks is not called.

    Attributes
    ----------
    runs_last : bool
        Called after an epoch when all callbacks without it have been.
    """

    runs_last = False

    def __call__(self, training: Training) -> None:
        """After every epoch, its losses being in ``training.history``."""

    def batch_end(self, training: Training) -> None:
        """After every batch: ``training.batch``, ``batch_loss`` and ``gradient`` tell of it."""

    def begin(self, training: Training) -> None:
        """Before the first epoch, when nothing can be wrong any more."""

    def end(self, training: Training) -> None:
        """After the last epoch, or Ctrl-C, but not after an error."""

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """What has to be kept to go on later: values that JSON can hold, and arrays by name."""
        return {}, {}

    def restore(self, values: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Go on from what `state` gave."""


class EarlyStopping(Callback):
    """End the training when the loss no longer falls, and go back to the best weights.

    Parameters
    ----------
    patience : int
        Epochs without improvement after which training ends, at least 1.
    min_delta : float
        An improvement is a loss below ``best - min_delta``.
    monitor : {None, "val_loss", "loss"}
        Which loss. None: that of the validation data if there are any, else that of the training.
    restore_best : bool
        Whether the model has the weights of the best epoch when `fit` returns, by whatever it ended.

    Attributes
    ----------
    best : float
        Lowest loss so far; infinite before the first epoch.
    best_epoch : int
        Its epoch, counted from 1; 0 before the first.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If one is out of range.
    """

    def __init__(
        self, patience: int = 10, min_delta: float = 0.0, monitor: str | None = None, restore_best: bool = True
    ) -> None:
        self.patience = integer("EarlyStopping", "patience", patience, 1)
        self.min_delta = number("EarlyStopping", "min_delta", min_delta, 0)
        if monitor not in (None, "val_loss", "loss"):
            raise ValueError(f"EarlyStopping: monitor is {monitor!r}; expected None, 'val_loss' or 'loss'")
        self.monitor = monitor
        self.restore_best = bool(restore_best)
        self.best = math.inf
        self.best_epoch = 0
        self._weights: Array | None = None

    def begin(self, training: Training) -> None:
        self.best, self.best_epoch, self._weights = math.inf, 0, None

    def __call__(self, training: Training) -> None:
        history = training.history
        monitor = self.monitor or ("val_loss" if history.val_loss else "loss")
        losses = getattr(history, monitor)
        if not losses:
            raise ValueError("EarlyStopping: monitor is 'val_loss'; expected validation_data in fit")
        if losses[-1] < self.best - (self.min_delta if self.best_epoch else 0):
            self.best, self.best_epoch = losses[-1], training.epoch
            self._weights = training.model.parameters.flat.copy() if self.restore_best else None
        elif training.epoch - self.best_epoch >= self.patience:
            training.stop()

    def end(self, training: Training) -> None:
        if self._weights is not None:
            training.model.parameters.assign(self._weights)

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        values = {"best": self.best if self.best_epoch else None, "best_epoch": self.best_epoch}
        return values, {} if self._weights is None else {"weights": self._weights}

    def restore(self, values: dict[str, Any], arrays: dict[str, Array]) -> None:
        self.best_epoch = values["best_epoch"]
        self.best = values["best"] if self.best_epoch else math.inf
        self._weights = arrays.get("weights")


class Checkpoint(Callback):
    """Write everything that training goes on from to a file, after some epochs and after the last.

    The file is safetensors, complete or not there; ``fit(..., resume=path)`` with the same model, data and arguments
    goes on from it to the same bits as if training had not ended.

    Parameters
    ----------
    path : str or path
        Replaced each time.
    every : int
        Epochs between two writes, at least 1.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If ``every`` is below 1.
    """

    runs_last = True

    def __init__(self, path: str | os.PathLike[str], every: int = 1) -> None:
        self.path = os.fspath(path)
        self.every = integer("Checkpoint", "every", every, 1)

    def begin(self, training: Training) -> None:
        from rnnfast.io import checkpoint

        checkpoint.check(training, self.path)

    def __call__(self, training: Training) -> None:
        if training.epoch % self.every == 0 or training.is_over:
            from rnnfast.io import checkpoint

            checkpoint.save(training, self.path)
