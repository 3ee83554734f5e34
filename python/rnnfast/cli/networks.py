"""The networks that are compared, and how they are trained."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import rnnfast as rf
from rnnfast._arrays import Array
from rnnfast.cli.errors import CliError
from rnnfast.cli.problem import Problem
from rnnfast.cli.split import Windows
from rnnfast.layers.base import Layer

LEARNING_RATE = 1e-3
BATCH_SIZE = 32
CLIP_NORM = 1.0
KINDS = ("FFNN", "RNN", "LSTM")


@dataclass(frozen=True)
class Trained:
    """A network and how it came about.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    model : rnnfast.Sequential
    parameters : int
        Numbers that were learned.
    training, validation : list of float
        Mean squared error after each epoch of the first training, in scaled units.
    epochs : int
        Epoch with the lowest validation error: what the second training used.
    seconds : float
        Of both trainings.
    """

    kind: str
    model: rf.Sequential
    parameters: int
    training: list[float]
    validation: list[float]
    epochs: int
    seconds: float

    def predict(self, x: Array) -> Array:
        """Scaled differences to the last value, shape (windows, horizon), for x (windows, lookback, inputs)."""
        return np.asarray(self.model.predict(_shaped(self.kind, x)))


def build(kind: str, lookback: int, inputs: int, hidden: int, horizon: int, seed: int) -> rf.Sequential:
    """An untrained network from a window to its ``horizon`` targets."""
    first: list[Layer]
    if kind == "FFNN":
        first = [rf.Dense(lookback * inputs, hidden, activation="tanh", seed=seed)]
    else:
        recurrent = {"RNN": rf.RNN, "LSTM": rf.LSTM}[kind]
        first = [recurrent(inputs, hidden, batch_first=True, seed=seed), rf.Last()]
    return rf.Sequential(*first, rf.Dense(hidden, horizon, seed=seed + 1))


def train(kind: str, problem: Problem, hidden: int, epochs: int, seed: int, progress: bool) -> Trained:
    """Train twice: to find the epoch with the lowest validation error, then that long on all data before the test."""
    inputs = problem.newest.shape[2]

    def fit(windows: Windows, count: int, held_out: Windows | None) -> tuple[rf.Sequential, rf.History]:
        model = build(kind, problem.lookback, inputs, hidden, problem.horizon, seed)
        history = model.fit(
            _shaped(kind, windows.x),
            windows.y,
            loss="mse",
            optimizer=rf.Adam(LEARNING_RATE),
            epochs=count,
            batch_size=BATCH_SIZE,
            clip_norm=CLIP_NORM,
            validation_data=(_shaped(kind, held_out.x), held_out.y) if held_out else None,
            seed=seed,
            progress=progress,
        )
        if history.interrupted:
            raise KeyboardInterrupt
        return model, history

    start = time.perf_counter()
    try:
        _, history = fit(problem.training, epochs, problem.validation)
        best = int(np.argmin(history.val_loss)) + 1
        model, _ = fit(problem.before_test, best, None)
    except rf.NonFiniteError as error:
        raise CliError(f"{kind}: {error}") from None
    seconds = time.perf_counter() - start
    parameters = model.parameters.size
    return Trained(kind, model, parameters, list(history.loss), list(history.val_loss), best, seconds)


def train_all(
    problem: Problem, hidden: int, epochs: int, seed: int, progress: bool, say: Callable[[str], None]
) -> list[Trained]:
    """Every kind of network, one after the other; ``say`` is told about each."""
    networks = []
    for kind in KINDS:
        network = train(kind, problem, hidden, epochs, seed, progress)
        limit = ", the last allowed: more --epochs may help" if network.epochs == epochs else ""
        say(f"trained {kind:4}  {network.seconds:5.1f} s, best epoch {network.epochs}{limit}")
        networks.append(network)
    return networks


def _shaped(kind: str, x: Array) -> Array:
    return x.reshape(len(x), -1) if kind == "FFNN" else x
