"""``rnnfast info``: what was built, and what it runs on."""

from __future__ import annotations

import argparse
import platform
from typing import Any

import numpy as np

import rnnfast as rf

LABELS = {
    "version": "rnnfast",
    "cpu": "CPU",
    "isas": "instruction sets",
    "isa": "active",
    "threads": "threads",
    "compiler": "compiler",
    "flags": "flags",
    "build_type": "build type",
    "asserts": "C++ asserts",
}


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of ``rnnfast``."""
    parser = subparsers.add_parser(
        "info",
        help="print version, CPU, instruction sets, threads, compiler",
        description="Print version, CPU, instruction sets, threads and compiler: what a bug report needs.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the facts, one a line."""
    build = rf.build_info()
    facts = {label: _show(build[key]) for key, label in LABELS.items() if key in build}
    facts |= {key: _show(value) for key, value in build.items() if key not in LABELS}
    facts |= {"NumPy": np.__version__, "Python": f"{platform.python_version()} on {platform.platform()}"}
    width = max(map(len, facts))
    for label, fact in facts.items():
        print(f"{label.ljust(width)}  {fact}")
    return 0


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value).strip()
