"""The programs rnnfast is compared with: a module each.

A module has

    version() -> str
    lacks(case) -> str                            why it cannot do a case; empty if it can
    prepare(problem, case) -> (call, answer)      as rnnfast.cli.workload.prepare, with its own best settings

Whatever can be done once for many calls (conversion, compilation, packing) happens in `prepare` and is not timed.
"""

from __future__ import annotations

import importlib
from types import ModuleType

NAMES = ("torch", "onnxruntime", "openvino", "jax")


def load(names: list[str]) -> tuple[dict[str, ModuleType], dict[str, str]]:
    """The peers that are installed, and for the others why not."""
    found, missing = {}, {}
    for name in names:
        try:
            found[name] = importlib.import_module(f"peers.{name}")
        except ImportError as error:
            missing[name] = str(error)
    return found, missing
