"""Time rnnfast against the peers that are installed, on the shapes of shapes.csv.

Every answer is compared with the peer's first, and a wrong one is never timed. The two are then timed in turn, in this
process and with the same number of threads; the ratio of a case is the median over these pairs of the peer's time by
ours, and the best peer the one with the smallest ratio. Written into the folder of --out: results.json, results.md,
speedup.png, limit.png.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import peers
import rnnfast as rf
from cases import Case, all_cases, matches, read_shapes
from pairs import CLOCKS, Clock, WrongAnswer, check_agreement, sample, time_pairs
from report import write_report
from rnnfast.cli.errors import CliError
from rnnfast.cli.machine import Machine, by_level, cache_sizes, limit, measure
from rnnfast.cli.options import whole
from rnnfast.cli.output import prepare_folder
from rnnfast.cli.workload import Call, calls_within, prepare, random_problem

DTYPES = ("float32", "float64")
PAIRS, QUICK_PAIRS = 31, 9
SECONDS, QUICK_SECONDS = 1.0, 0.15

EPILOG = """\
Patterns are cell/mode/shape, with * and ? for whatever: --only 'lstm/training/*' --only '*/*/one-*'. Cells are rnn,
lstm, gru; modes are inference, training and step (one step of a stream). Exit codes: 0 done, 1 an answer was wrong,
2 wrong option, 130 interrupted (what was timed until then is written)."""


def main() -> int:
    """Run the command line."""
    try:
        args = parse()
        cases = select(args)
        found, missing = peers.load(args.peers or list(peers.NAMES))
        if args.peers and missing:
            raise CliError(f"--peers: {', '.join(missing)} not installed; pip install 'rnnfast[bench]' installs most")
        prepare_folder(args.out)
    except (CliError, ValueError) as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2

    kinds = dict.fromkeys((case.threads, case.dtype) for case in cases)
    limits = {kind: measure(kind[0], np.dtype(kind[1]).itemsize) for kind in kinds}
    seconds, pairs = (QUICK_SECONDS, QUICK_PAIRS) if args.quick else (SECONDS, PAIRS)
    results: list[dict[str, Any]] = []
    complete = True
    try:
        for case in progress(cases):
            results.append(run(case, limits[case.threads, case.dtype], found, seconds, pairs, CLOCKS[args.clock]))
    except KeyboardInterrupt:
        complete = False
    record = {
        "complete": complete,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rnnfast": rf.build_info(),
        "versions": {"numpy": np.__version__, **{name: peer.version() for name, peer in found.items()}},
        "missing": missing,
        "machine": [description(machine, dtype) for (_, dtype), machine in limits.items()],
        "settings": {"seconds": seconds, "pairs": pairs, "quick": args.quick, "only": args.only, "clock": args.clock},
        "results": results,
    }
    (args.out / "results.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for path in write_report(record, args.out):
        print(f"wrote {path}")
    wrong = [(r, name, peer["wrong"]) for r in results for name, peer in r["peers"].items() if "wrong" in peer]
    for r, name, why in wrong:
        print(f"compare.py: not timed, {r['name']}, {name}: {why}", file=sys.stderr)
    return 130 if not complete else 1 if wrong else 0


def select(args: argparse.Namespace) -> list[Case]:
    """The cases that were asked for."""
    shapes = [shape for shape in read_shapes() if shape.quick or not args.quick]
    if args.clock == "cpu" and max(args.threads) > 1:
        raise CliError("--clock cpu: several threads are asked for, whose CPU time adds up; expected --threads 1")
    cases = [c for c in all_cases(shapes, args.dtype, args.threads) if any(matches(c, p) for p in args.only)]
    if not cases:
        raise CliError(f"--only {' '.join(args.only)}: fits no case{' of --quick' * args.quick}")
    return cases


def parse() -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="few shapes and short samples, one thread: under two minutes")
    add("--only", metavar="PATTERN", action="append", help="cases to time (default: all)")
    add(
        "--peers",
        metavar="A,B",
        type=some_of(peers.NAMES),
        help=f"of {', '.join(peers.NAMES)} (default: those installed)",
    )
    add("--threads", metavar="N,M", type=counts, help=f"numbers of threads (default: 1 and all {cores} cores)")
    add("--dtype", metavar="D,E", type=some_of(DTYPES), default=["float32"], help="float32, float64 (default: float32)")
    add(
        "--clock",
        choices=tuple(CLOCKS),
        default="wall",
        help="cpu: CPU time of the process, for one thread on a busy machine (default: wall)",
    )
    add(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("bench-results"),
        help="folder to write to (default: %(default)s)",
    )
    args = parser.parse_args()
    args.only = args.only or ["*"]
    args.threads = args.threads or ([1] if args.quick or args.clock == "cpu" else sorted({1, cores}))
    return args


def some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """A reader of names with commas between them."""

    def read(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return text.split(",")

    return read


def counts(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    return [whole(1, 256)(part) for part in text.split(",")]


def progress(cases: list[Case]) -> Iterator[Case]:
    """The cases, with a bar on a terminal if tqdm is installed, else a line each."""
    tqdm = None
    if sys.stderr.isatty():
        with contextlib.suppress(ImportError):
            from tqdm import tqdm
    if tqdm is None:
        for number, case in enumerate(cases, start=1):
            print(f"{number}/{len(cases)} {case.label}", file=sys.stderr)
            yield case
    else:
        bar = tqdm(cases, unit="case", smoothing=0)
        for case in bar:
            bar.set_postfix_str(case.label)
            yield case


def run(
    case: Case, machine: Machine, found: dict[str, ModuleType], seconds: float, pairs: int, clock: Clock
) -> dict[str, Any]:
    """Time one case against every peer that can do it; a record for results.json."""
    rf.set_num_threads(case.threads)
    sizes = case.shape.sizes
    problem = random_problem(case.cell, sizes, case.dtype)
    compared: dict[str, dict[str, Any]] = {}
    own_seconds: list[float] = []
    for name, peer in found.items():
        if reason := peer.lacks(case):
            compared[name] = {"skipped": reason}
            continue
        # Ours anew for every peer: a stream starts from the given state.
        ours, our_answer = prepare(problem, case.mode)
        answer = our_answer(ours())
        try:
            theirs, their_answer = peer.prepare(problem, case)
            check_agreement(answer, their_answer(theirs()), case.dtype)
        except WrongAnswer as error:
            compared[name] = {"wrong": str(error)}
            continue
        except Exception as error:
            # A peer that fails on one case must not take the results of the others with it.
            compared[name] = {"wrong": f"failed with {type(error).__name__}: {error}"}
            continue
        taken = time_pairs(ours, theirs, seconds, pairs, clock)
        own_seconds += taken.ours
        compared[name] = {
            "seconds": statistics.median(taken.theirs),
            "ratio": statistics.median(taken.ratios),
            "ratios": taken.ratios,
        }
    if not own_seconds:
        own_seconds = time_alone(prepare(problem, case.mode)[0], seconds, pairs, clock)
    timed = {name: peer["ratio"] for name, peer in compared.items() if "ratio" in peer}
    best = min(timed, key=timed.__getitem__, default=None)
    least = limit(machine, case.cell, case.mode, sizes)
    fastest = min(own_seconds)
    return {
        "name": case.label,
        "cell": case.cell,
        "mode": case.mode,
        "shape": case.shape.name,
        **sizes._asdict(),
        "dtype": case.dtype,
        "threads": case.threads,
        "seconds": statistics.median(own_seconds),
        "fastest": fastest,
        "flops": least.flops,
        "limit": least.seconds,
        "bound": least.bound,
        # The limits are the fastest of many measurements, so the fastest sample is what compares with them.
        "share": least.seconds / fastest,
        "best_peer": best,
        "ratio": timed[best] if best else None,
        "peers": compared,
    }


def time_alone(call: Call, seconds: float, samples: int, clock: Clock) -> list[float]:
    calls = calls_within(call, seconds / samples)
    return [sample(call, calls, clock) for _ in range(samples)]


def description(machine: Machine, dtype: str) -> dict[str, Any]:
    caches = cache_sizes()
    return {
        "threads": machine.threads,
        "dtype": dtype,
        "fma_peak": machine.peak,
        "cache_bytes": caches,
        "bandwidth": by_level(machine, caches),
        "bandwidth_by_bytes": {str(size): value for size, value in machine.bandwidth.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
