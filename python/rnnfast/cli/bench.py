"""``rnnfast bench``: how fast this machine runs the layers, and how close that is to what it can do at most."""

from __future__ import annotations

import argparse
import gc
from typing import Any

import numpy as np

import rnnfast as rf
from rnnfast import _core
from rnnfast.cli.errors import CliError
from rnnfast.cli.machine import Machine, by_level, cache_sizes, limit, measure
from rnnfast.cli.options import whole
from rnnfast.cli.workload import LAYERS, Problem, Sizes, calls_within, prepare, random_problem, seconds_of

SHAPES = (
    Sizes(T=1, N=1, I=8, H=32),
    Sizes(T=1, N=1, I=64, H=128),
    Sizes(T=100, N=1, I=1, H=32),
    Sizes(T=2000, N=1, I=8, H=64),
    Sizes(T=50, N=1, I=128, H=256),
    Sizes(T=25, N=1, I=512, H=512),
    Sizes(T=37, N=5, I=11, H=47),
    Sizes(T=50, N=32, I=32, H=64),
    Sizes(T=100, N=32, I=64, H=128),
    Sizes(T=20, N=64, I=256, H=512),
)
COLUMNS = ("inference", "training")
SAMPLES = 15
# Norm-relative; two summation orders of the same sums, through a recurrence (tests/tolerances.py derives 1e-6, 1e-13).
AGREEMENT = {"float32": 1e-5, "float64": 1e-12}

DESCRIPTION = """\
Time one layer on ten shapes, and compare with the least time that the shape takes on this machine: its multiply-adds at
the peak measured, or the reading of its weights at the bandwidth measured, whichever is longer. Results are first
compared with those of the baseline instruction set."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of ``rnnfast``."""
    parser = subparsers.add_parser(
        "bench", help="measure the speed on this machine, half a minute", description=DESCRIPTION
    )
    add = parser.add_argument
    add("--cell", choices=list(LAYERS), default="lstm", help="layer to time (default: %(default)s)")
    add("--threads", metavar="N", type=whole(1, 256), help="threads (default: as many as rnnfast uses)")
    add("--dtype", choices=list(AGREEMENT), default="float32", help="of all numbers (default: %(default)s)")
    add("--seconds", metavar="S", type=whole(1, 3600), default=10, help="time for it all (default: about %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line a shape."""
    if args.threads is not None:
        rf.set_num_threads(args.threads)
    build, threads = rf.build_info(), rf.get_num_threads()
    machine = measure(threads, np.dtype(args.dtype).itemsize)
    print(f"{build['cpu']}, {build['isa']}, {threads} thread{'s' * (threads > 1)}: {describe(machine)}")
    print(f"{args.cell.upper()}, {args.dtype}. Share: of the least time this machine needs for the shape.\n")
    print(f"{'T':>5} {'N':>4} {'I':>4} {'H':>4}" + "".join(f" | {mode:>11} GFLOP/s share" for mode in COLUMNS))
    seconds = args.seconds / len(SHAPES) / len(COLUMNS)
    for sizes in SHAPES:
        problem = random_problem(args.cell, sizes, args.dtype)
        line = "{:5} {:4} {:4} {:4}".format(*sizes)
        for mode in COLUMNS:
            check(problem, mode, build["isa"])
            least = limit(machine, args.cell, mode, sizes)
            taken = time_one(problem, mode, seconds)
            line += f" | {duration(taken):>11} {least.flops / taken / 1e9:7.1f} {least.seconds / taken:5.0%}"
        print(line, flush=True)
    return 0


def describe(machine: Machine) -> str:
    """The limits in one line."""
    levels = by_level(machine, cache_sizes())
    reads = ", ".join(f"{bandwidth / 1e9:.0f} GB/s from {level}" for level, bandwidth in levels.items())
    return f"peak {machine.peak / 1e9:.0f} GFLOP/s, reads {reads}"


def check(problem: Problem, mode: str, isa: str) -> None:
    """Refuse to time a wrong answer: CliError if it is not the one of the baseline instruction set."""
    got = answer(problem, mode)
    _core.set_isa("baseline")
    try:
        want = answer(problem, mode)
    finally:
        _core.set_isa(isa)
    for name, array in want.items():
        error, norm = (float(np.linalg.norm(a)) for a in (got[name] - array, array))
        # Written so that a NaN fails.
        if not error <= AGREEMENT[problem.dtype.name] * norm:
            raise CliError(
                f"{problem.cell} {mode} {problem.sizes}: {name} of {isa} differs from the baseline's by {error:.2g} "
                f"in {norm:.2g}"
            )


def answer(problem: Problem, mode: str) -> dict[str, Any]:
    """Outputs and gradients of one call."""
    call, read = prepare(problem, mode)
    return read(call())


def time_one(problem: Problem, mode: str, seconds: float) -> float:
    """Seconds of a call: the fastest sample, as for the limits, since disturbances only ever slow down."""
    call, _ = prepare(problem, mode)
    calls = calls_within(call, seconds / SAMPLES)
    gc.disable()
    try:
        return min(seconds_of(call, calls) for _ in range(SAMPLES))
    finally:
        gc.enable()


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them."""
    for unit, scale in (("µs", 1e6), ("ms", 1e3)):
        if seconds * scale < 1000:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.3g} s"
