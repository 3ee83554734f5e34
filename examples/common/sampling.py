"""Text written by a model, one symbol after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import rnnfast as rf


def probabilities(logits: Any, temperature: float = 1.0) -> Any:
    """Softmax of the logits (..., C) divided by the temperature: below 1 likelier symbols become likelier still."""
    a = logits.astype(np.float64) / temperature
    a = np.exp(a - a.max(axis=-1, keepdims=True))
    return a / a.sum(axis=-1, keepdims=True)


def sample(model: rf.Sequential, start: Any, count: int, temperature: float, seed: int) -> Any:
    """``count`` symbols that go on from ``start``, each drawn from what the model expects after those before it.

    Parameters
    ----------
    model : Sequential
        An embedding, then recurrent layers, each run by a `Stream` that keeps its state, and layers without memory.
    start : ndarray of int, shape (T,)
        Read first; at least one symbol.
    """
    streams = [layer.stream(batch=1) if hasattr(layer, "stream") else None for layer in model.layers]

    def read(symbol: int) -> Any:
        x: Any = np.array([symbol])
        for layer, stream in zip(model.layers, streams, strict=True):
            x = layer(x) if stream is None else stream.step(x)
        return x[0]

    random = np.random.default_rng(seed)
    for symbol in start:
        logits = read(symbol)
    symbols = []
    for _ in range(count):
        p = probabilities(logits, temperature)
        symbols.append(int(random.choice(len(p), p=p)))
        logits = read(symbols[-1])
    return np.array(symbols)
