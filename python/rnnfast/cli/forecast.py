"""``rnnfast forecast``: train networks on a table of measurements and compare them with naive forecasts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rnnfast.cli.artifacts import write_files
from rnnfast.cli.networks import train_all
from rnnfast.cli.options import whole
from rnnfast.cli.output import prepare_folder
from rnnfast.cli.plot import require_matplotlib
from rnnfast.cli.problem import SHIPPED_COLUMN, describe, load_problem
from rnnfast.cli.results import evaluate, report

DESCRIPTION = """\
Train a feed-forward network, an RNN and an LSTM to forecast a column of a CSV file from the rows before, and compare
them with naive forecasts on a test part at the end of the file that is used for nothing else. Without a file: the daily
maximum temperature of Seattle (NOAA, 2012 to 2015), tested on the last year."""

EPILOG = """\
The file needs a header row; a column of dates is found by itself. The last fifth of the rows is the test part, a fifth
of the others chooses the number of epochs and the best network. Networks learn the difference to the last known value.

Written into the folder of --out: forecast.png (picture), forecast.csv (the steps after the end of the file),
forecast.safetensors (the best network) and forecast.json (its inputs and scaling, and all scores).

Exit codes: 0 done, 2 wrong file or option (one line on stderr says what and where), 130 interrupted."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of ``rnnfast``."""
    parser = subparsers.add_parser(
        "forecast",
        help="forecast a column of a CSV file, and measure how well",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("file", nargs="?", type=Path, help="CSV file; default: the Seattle weather that comes with rnnfast")
    add("--column", metavar="NAME", help=f"column to forecast (default: the only one, {SHIPPED_COLUMN} for Seattle)")
    add("--inputs", metavar="A,B", help="columns to look at besides it (default: all columns of numbers)")
    add("--horizon", metavar="K", type=whole(1, 1000), default=7, help="steps to forecast (default: %(default)s)")
    add("--lookback", metavar="L", type=whole(1, 10_000), default=30, help="steps to look at (default: %(default)s)")
    add("--hidden", metavar="H", type=whole(1, 4096), default=32, help="hidden units (default: %(default)s)")
    add("--epochs", metavar="E", type=whole(1, 100_000), default=40, help="most epochs (default: %(default)s)")
    add("--seed", metavar="S", type=whole(0, 2**32 - 2), default=0, help="seed of the training (default: %(default)s)")
    add("--out", metavar="DIR", type=Path, default=Path("forecast"), help="folder to write to (default: %(default)s)")
    add("--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do all of it; CliError for whatever the user can put right, before any training."""

    def say(line: str) -> None:
        if not args.quiet:
            print(line, flush=True)

    problem = load_problem(args.file, args.column, args.inputs, args.lookback, args.horizon)
    require_matplotlib()
    prepare_folder(args.out)
    for line in describe(problem):
        say(line)
    say("")
    # A bar is for somebody who waits; in a log it is noise.
    progress = sys.stderr.isatty() and not args.quiet
    networks = train_all(problem, args.hidden, args.epochs, args.seed, progress, say)
    say("")
    results = evaluate(problem, networks)
    report(problem, results, say)
    say("")
    for path in write_files(args.out, problem, networks, results):
        say(f"wrote {path}")
    return 0
