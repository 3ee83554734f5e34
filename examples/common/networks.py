"""The four networks that every example compares, and how they are trained."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import rnnfast as rf
from rnnfast.layers.base import Layer
from rnnfast.losses import Loss

KINDS = ("FFNN", "RNN", "LSTM", "GRU")
RECURRENT: dict[str, type[Layer]] = {"RNN": rf.RNN, "LSTM": rf.LSTM, "GRU": rf.GRU}


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Attributes
    ----------
    epochs : int
        At most; the parameters of the epoch with the lowest validation loss are kept.
    patience : int
        Epochs without a new lowest validation loss after which training ends.
    members : int
        How many models, which differ in their seed; their mean is the forecast.
    lr, batch_size, clip_norm, loss, seed, progress
        As `rnnfast.Sequential.fit` has them.
    options : dict
        More of its arguments.
    """

    epochs: int
    patience: int = 5
    members: int = 1
    lr: float = 1e-3
    batch_size: int = 64
    clip_norm: float = 1.0
    loss: str | Loss = "mse"
    seed: int = 0
    progress: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def but(self, **changes: Any) -> Training:
        """The same with some changes."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Network:
    """A trained network: one or more models of a kind, and how their training went."""

    kind: str
    models: list[rf.Sequential]
    histories: list[rf.History]

    def predict(self, x: Any) -> Any:
        """The mean of the models' predictions; a list for a list of sequences."""
        predictions = [model.predict(x) for model in self.models]
        if isinstance(predictions[0], list):
            return [np.mean(pieces, axis=0) for pieces in zip(*predictions, strict=True)]
        return np.mean(predictions, axis=0)

    @property
    def parameters(self) -> int:
        """Numbers that each model has learnt."""
        return int(self.models[0].parameters.size)

    @property
    def best(self) -> list[int]:
        """The epoch with the lowest validation loss of each model, counted from 1."""
        return [int(np.argmin(history.val_loss)) + 1 for history in self.histories]

    @property
    def validation(self) -> float:
        """The lowest validation loss, mean of the models."""
        return float(np.mean([min(history.val_loss) for history in self.histories]))


def window_model(kind: str, window: int, inputs: int, hidden: int, outputs: int, seed: int) -> rf.Sequential:
    """A network from windows to one output each: (N, window, inputs), for the FFNN flattened, to (N, outputs)."""
    if kind == "FFNN":
        first: list[Layer] = [rf.Dense(window * inputs, hidden, activation="tanh", seed=seed)]
    else:
        first = [RECURRENT[kind](inputs, hidden, batch_first=True, seed=seed), rf.Last()]
    return rf.Sequential(*first, rf.Dense(hidden, outputs, seed=seed + 1))


def step_model(kind: str, inputs: int, hidden: int, outputs: int, seed: int) -> rf.Sequential:
    """A network with an output at every step: (N, T, inputs) to (N, T, outputs), for the FFNN (N, ...) alike."""
    if kind == "FFNN":
        first: Layer = rf.Dense(inputs, hidden, activation="tanh", seed=seed)
    else:
        first = RECURRENT[kind](inputs, hidden, batch_first=True, seed=seed)
    return rf.Sequential(first, rf.Dense(hidden, outputs, seed=seed + 1))


def windows_for(kind: str, x: Any) -> Any:
    """Windows (N, window, inputs) as the network takes them."""
    return x.reshape(len(x), -1) if kind == "FFNN" else x


def fit(
    kind: str,
    make: Callable[[int], rf.Sequential],
    data: tuple[Any, Any],
    validation: tuple[Any, Any],
    how: Training,
    note: str = "",
) -> Network:
    """Train until the validation loss has stopped falling, and go back to where it was lowest.

    ``make`` gives an untrained model for a seed.
    """
    models, histories = [], []
    for member in range(how.members):
        seed = how.seed + 100 * member
        models.append(make(seed))
        stop = rf.EarlyStopping(how.patience, restore_best=True)
        histories.append(_train(f"{kind}{note}", models[-1], data, how, seed, how.epochs, validation, [stop]))
    return Network(kind, models, histories)


def refit(found: Network, make: Callable[[int], rf.Sequential], data: tuple[Any, Any], how: Training) -> Network:
    """Train anew on ``data``, all that lies before the test, for as many epochs as validation has found best."""
    models = []
    for member, epochs in enumerate(found.best):
        seed = how.seed + 100 * member
        models.append(make(seed))
        _train(f"{found.kind}, validation data too", models[-1], data, how, seed, epochs, None, [])
    return Network(found.kind, models, found.histories)


def _train(
    name: str, model: rf.Sequential, data: Any, how: Training, seed: int, epochs: int, validation: Any, callbacks: Any
) -> rf.History:
    if how.progress:
        print(f"{name}: {model.parameters.size} parameters", file=sys.stderr)
    history = model.fit(
        *data,
        loss=how.loss,
        optimizer=rf.Adam(how.lr),
        epochs=epochs,
        batch_size=how.batch_size,
        clip_norm=how.clip_norm,
        validation_data=validation,
        seed=seed,
        progress=how.progress,
        callbacks=callbacks,
        **how.options,
    )
    if history.interrupted:
        raise KeyboardInterrupt
    return history
