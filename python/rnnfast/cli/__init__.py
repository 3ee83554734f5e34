"""The command ``rnnfast``: one module a subcommand, each with ``add_parser(subparsers)`` and ``run(args)``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import rnnfast as rf
from rnnfast.cli.errors import CliError


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others of the program."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(allow_abbrev=False, **arguments)

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{self.prog}: {message}; see {self.prog} --help")


class _UsageError(Exception):
    """A command line that the parser refuses."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (that of the process when None).

    Returns
    -------
    int
        Exit code: 0 done, 1 failed for no fault of the user's, 2 wrong option or file, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # Names of columns may hold letters that the terminal's encoding lacks.
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    prog = "rnnfast"
    try:
        args = _parser().parse_args(argv)
        prog = f"rnnfast {args.command}"
        return int(args.run(args))
    except _UsageError as error:
        return _fail(str(error), 2)
    except CliError as error:
        return _fail(f"{prog}: {error}", 2)
    except MemoryError:
        return _fail(f"{prog}: out of memory", 1)
    except BrokenPipeError:
        # The reader of a pipe is gone: nobody is left to tell, and closing stdout at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{prog}: {error}", 1)
    except KeyboardInterrupt:
        return _fail(f"{prog}: interrupted", 130)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rnnfast",
        description="RNN, LSTM and GRU training and inference on CPUs, from NumPy.",
        epilog="rnnfast COMMAND --help explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"rnnfast {rf.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # Here and not at the top, so that Ctrl-C while they are loaded is answered like any other.
    from rnnfast.cli import bench, forecast, info

    for command in (bench, forecast, info):
        command.add_parser(subparsers)
    return parser


def _fail(message: str, code: int) -> int:
    """One line on stderr, whatever characters the message took from a file."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    print(line, file=sys.stderr, flush=True)
    return code
