"""Checks of single arguments, and of numbers for NaN and infinity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rnnfast._arrays import Array


class NonFiniteError(ValueError):
    """A loss, a gradient or an optimizer's step became NaN or infinite in training."""


def integer(who: str, name: str, value: Any, low: int) -> int:
    """``value`` if it is an integer of at least ``low``; TypeError or ValueError naming ``who`` and ``name`` if not."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{who}: {name} is {value!r}; expected an integer")
    if value < low:
        raise ValueError(f"{who}: {name} is {value}; expected at least {low}")
    return int(value)


def number(who: str, name: str, value: Any, low: float, below: float = math.inf) -> float:
    """``value`` if it is a number with ``low <= value < below``; TypeError or ValueError if not."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{who}: {name} is {value!r}; expected a number")
    if not low <= value < below:
        raise ValueError(f"{who}: {name} is {value}; expected {low} <= {name} < {below}")
    return float(value)


def all_finite(flat: Array) -> bool:
    """Whether no element of a vector is NaN or infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        # The sum of squares takes a quarter of the time of isfinite. It is infinite for large finite numbers, too.
        return math.isfinite(flat.dot(flat)) or bool(np.isfinite(flat).all())
