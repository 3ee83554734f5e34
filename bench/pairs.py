"""Timing two programs against each other: alternating, in one process, after their answers were compared."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rnnfast._arrays import Array
from rnnfast.cli.workload import Call, calls_within, seconds_of

# Norm-relative. Both sides round; a gradient of a weight sums over all steps and sequences, in another order.
AGREEMENT = {"float32": 2e-5, "float64": 1e-11}

# What is run untimed before each sample, so that caches and clocks are those of the program that is timed.
WARM_UP_SECONDS = 0.002
SETTLE_SECONDS = 2.0
# The system adds up the time of threads that are running once in a tick, up to 10 ms.
WATCH_SECONDS = 0.012

Clock = Callable[[], float]
# Time that passes, or the time that the process had of the CPUs: on a busy machine only the second repeats, and it says
# how fast a program is as long as that has one thread.
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


class WrongAnswer(Exception):
    """Two programs disagree: neither is timed."""


def check_agreement(ours: dict[str, Array], theirs: dict[str, Array], dtype: str) -> None:
    """Raise WrongAnswer unless every array of ``ours`` and ``theirs`` under the same name agrees; "y" must be there."""
    for name in ["y", *(name for name in ours if name in theirs and name != "y")]:
        got, want = ours[name], theirs[name]
        if got.shape != want.shape:
            raise WrongAnswer(f"{name} has shape {got.shape} here, {want.shape} there")
        error, norm = np.linalg.norm(got.astype(np.float64) - want), np.linalg.norm(want.astype(np.float64))
        # Written so that a NaN fails.
        if not error <= AGREEMENT[dtype] * norm:
            raise WrongAnswer(f"{name} differs by {error:.2g}; expected at most {AGREEMENT[dtype]:.0e} of {norm:.2g}")


@dataclass(frozen=True)
class Pairs:
    """Seconds of a call, pair by pair."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]


def time_pairs(ours: Call, theirs: Call, seconds: float, pairs: int, clock: Clock) -> Pairs:
    """Time the two in turn, the first one of a pair being now the one and now the other.

    A sample is as many calls as fill its share of ``seconds``. Where single calls take longer than that, there are
    fewer pairs, but at least three.
    """
    calls = [calls_within(call, seconds / pairs / 2) for call in (ours, theirs)]
    taken: list[list[float]] = [[], []]
    start = time.perf_counter()
    gc.disable()
    try:
        while len(taken[0]) < pairs and (len(taken[0]) < 3 or time.perf_counter() - start < 3 * seconds):
            for which in (0, 1) if len(taken[0]) % 2 == 0 else (1, 0):
                taken[which].append(sample((ours, theirs)[which], calls[which], clock))
    finally:
        gc.enable()
    return Pairs(*taken)


def sample(call: Call, calls: int, clock: Clock) -> float:
    """Seconds of a call, over some calls in a row, in a process that is otherwise quiet."""
    settle()
    start = time.perf_counter()
    call()
    once = time.perf_counter() - start
    if once < WARM_UP_SECONDS:
        seconds_of(call, int(WARM_UP_SECONDS / once))
    return seconds_of(call, calls, clock)


def settle() -> None:
    """Wait until no other thread of this process is busy.

    Workers of some libraries spin on for a while after a call, which would be time taken from the next one's.
    """
    end = time.perf_counter() + SETTLE_SECONDS
    while time.perf_counter() < end:
        busy, start = time.process_time(), time.perf_counter()
        time.sleep(WATCH_SECONDS)
        if time.process_time() - busy < 0.2 * (time.perf_counter() - start):
            return
