"""What a step of `fit` costs beyond the layers' own forward and backward, for small models.

Processor time of one thread, best of several: what else the machine does is not counted. Both loops go through the
same batches, with parameters that change at every step.

    python bench/fit_overhead.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import rnnfast as rf
from rnnfast._batches import Minibatches, Samples

STEPS, INPUTS, BATCH, BATCHES, CLASSES = 10, 4, 8, 200, 5
REPEATS = 25


def best(run: Callable[[], object], steps: int) -> float:
    """Microseconds a step."""
    times = []
    for _ in range(REPEATS):
        start = time.thread_time()
        run()
        times.append(time.thread_time() - start)
    return min(times) / steps * 1e6


def layers_alone(model: rf.Sequential, x: np.ndarray, dy: np.ndarray) -> None:
    gradient = np.empty(model.parameters.size, model.dtype)
    samples = Samples(x, True, False)
    for batch in Minibatches(samples, samples, BATCH).epoch(0):
        _, tape = model.trace(batch.x)
        model.pull_back(tape, dy, gradient, False)
        model.parameters.changed()


def gather_alone(x: np.ndarray) -> None:
    samples = Samples(x, True, False)
    for _ in Minibatches(samples, samples, BATCH).epoch(0):
        pass


def row(cell: type, loss: str, x: np.ndarray, y: np.ndarray, clip_norm: float | None) -> str:
    out = 1 if loss == "mse" else CLASSES
    model = rf.Sequential(cell(INPUTS, 8, seed=1), rf.Last(), rf.Dense(8, out, seed=2))
    dy = np.full((BATCH, out), 0.01, np.float32)

    def fit() -> None:
        model.fit(x, y, loss, rf.Adam(1e-4), 1, BATCH, clip_norm, shuffle=False, progress=False)

    layers = best(lambda: layers_alone(model, x, dy), BATCHES) - best(lambda: gather_alone(x), BATCHES)
    whole = best(fit, BATCHES)
    name = f"{cell.__name__}(4, 8), Last, Dense(8, {out})"
    return f"{name:29s} {loss:14s} {clip_norm!s:5s} {whole:6.1f} {layers:7.1f} {whole - layers:7.1f}"


def main() -> None:
    rf.set_num_threads(1)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((STEPS, BATCH * BATCHES, INPUTS)).astype(np.float32)
    targets = {
        "mse": generator.standard_normal((BATCH * BATCHES, 1)).astype(np.float32),
        "cross_entropy": generator.integers(0, CLASSES, BATCH * BATCHES),
    }
    print("model                         loss           clip     fit  layers  beyond (us a step)")
    for cell in (rf.RNN, rf.LSTM, rf.GRU):
        for loss, y in targets.items():
            for clip_norm in (None, 1.0):
                print(row(cell, loss, x, y, clip_norm))


if __name__ == "__main__":
    main()
