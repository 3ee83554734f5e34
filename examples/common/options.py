"""The options that all examples have, and how they end."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import rnnfast as rf
from rnnfast.cli.errors import CliError
from rnnfast.cli.options import whole
from rnnfast.cli.output import prepare_folder


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser with the options of all examples."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="less data and training: shows that all of it runs")
    options.add_argument("--data", type=Path, metavar="FILE", help="read this file, not that of the package")
    folder = Path(f"{name}-results")
    options.add_argument("--out", type=Path, default=folder, metavar="DIR", help="default: %(default)s")
    options.add_argument("--seed", type=whole(0, 2**31 - 1), default=0, help="default: %(default)s")
    options.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bars")
    options.add_argument("--threads", type=whole(1, 1024), help="default: as many as the process has CPUs")
    return options


def run(main: Callable[[argparse.Namespace], object], options: argparse.ArgumentParser) -> int:
    """Run an example; what a user can put right, and Ctrl-C, end it with one line and no traceback."""
    args = options.parse_args()
    try:
        prepare_folder(args.out)
        if args.threads:
            rf.set_num_threads(args.threads)
        main(args)
    except CliError as error:
        print(f"{options.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{options.prog}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0
