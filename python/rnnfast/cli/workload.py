"""One layer at work on random numbers, in the ways that are timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import rnnfast as rf
from rnnfast._arrays import Array

LAYERS = {"rnn": rf.RNN, "lstm": rf.LSTM, "gru": rf.GRU}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
MODES = ("inference", "training", "step")
LAST_STATES = ("h_n", "c_n")
STATE_GRADIENTS = ("dh_0", "dc_0")  # of the initial state


class Sizes(NamedTuple):
    """T time steps of N sequences, I inputs, H hidden units."""

    T: int
    N: int
    I: int  # noqa: E741
    H: int


@dataclass(frozen=True)
class Problem:
    """Parameters and arrays of one layer, under PyTorch's names and in time-major layout."""

    cell: str
    sizes: Sizes
    parameters: dict[str, Array]
    x: Array  # (T, N, I)
    state: tuple[Array, ...]  # h or h, c: (1, N, H)
    dy: Array  # (T, N, H)

    @property
    def dtype(self) -> Any:
        return self.x.dtype


def random_problem(cell: str, sizes: Sizes, dtype: str) -> Problem:
    """Normal inputs, states and incoming gradients, parameters as the layers choose them; always the same ones."""
    T, N, I, H = sizes  # noqa: E741
    rng = np.random.default_rng([20240229, *sizes])

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    layer = LAYERS[cell](I, H, dtype=dtype, seed=1)
    state = tuple(normal(1, N, H) / 2 for _ in range(2 if cell == "lstm" else 1))
    return Problem(cell, sizes, layer.state_dict(), normal(T, N, I), state, normal(T, N, H))


# What is timed, and the untimed reading of its result: arrays by name.
Call = Callable[[], Any]
Answer = Callable[[Any], dict[str, Array]]


def prepare(problem: Problem, mode: str) -> tuple[Call, Answer]:
    """rnnfast's way to do ``mode``.

    Returns
    -------
    call : callable
        One pass: "inference" over the sequence; "training", forward and backward after a change of the parameters;
        "step", the next step of a stream (the first of ``x`` again and again, the state carried on).
    answer : callable
        From the result of the first call to outputs and gradients by name.
    """
    _, N, I, H = problem.sizes  # noqa: E741
    layer: Any = LAYERS[problem.cell](I, H, dtype=problem.dtype)
    layer.load_state_dict(problem.parameters)
    x, dy = problem.x, problem.dy
    state = problem.state if problem.cell == "lstm" else problem.state[0]

    if mode == "step":
        stream = layer.stream(N)
        stream.reset(state)
        step, x_t, out = stream.step, x[0], np.empty((N, H), problem.dtype)
        return lambda: step(x_t, out), lambda y: {"y": y[None].copy()}

    if mode == "inference":
        return lambda: layer(x, state), lambda result: outputs(*result)

    def train() -> Any:
        layer.parameters.changed()
        y, last, tape = layer.forward(x, state)
        return y, last, layer.backward(tape, dy)

    def gradients(result: Any) -> dict[str, Array]:
        y, last, grads = result
        return {**outputs(y, last), "dx": grads.x, **by_name(STATE_GRADIENTS, grads.state), **grads.params}

    return train, gradients


def outputs(y: Array, state: Any) -> dict[str, Array]:
    """Output and last state by name."""
    return {"y": y, **by_name(LAST_STATES, state)}


def by_name(names: tuple[str, ...], state: Any) -> dict[str, Array]:
    """The parts of a state, h or (h, c), under the first of ``names``."""
    return dict(zip(names, state if isinstance(state, tuple) else (state,), strict=False))


def seconds_of(call: Call, calls: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that a call takes, over ``calls`` calls one after the other."""
    start = clock()
    for _ in range(calls):
        call()
    return (clock() - start) / calls


def calls_within(call: Call, seconds: float) -> int:
    """How many calls take about so long; at least one."""
    calls = 1
    while True:
        taken = seconds_of(call, calls) * calls
        if taken >= seconds / 4:
            return max(1, round(calls * seconds / taken))
        calls *= 2
