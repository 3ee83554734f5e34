"""Checks of single arguments, and of numbers for NaN and infinity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rnnfast._arrays import Array, as_array


class NonFiniteError(ValueError):
    """A loss, a gradient or an optimizer's step became NaN or infinite in training."""


def integer(who: str, name: str, value: Any, low: int) -> int:
    """``value`` if it is an integer of at least ``low``; TypeError or ValueError naming ``who`` and ``name`` if not."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{who}: {name} is {value!r}; expected an integer")
    if value < low:
        raise ValueError(f"{who}: {name} is {value}; expected at least {low}")
    return int(value)


def number(
    who: str, name: str, value: Any, low: float = -math.inf, below: float = math.inf, *, includes: bool = False
) -> float:
    """``value`` if it is a number with ``low <= value < below``, or ``<= below``; TypeError or ValueError if not."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{who}: {name} is {value!r}; expected a number")
    if low <= value < below or (includes and value == below):
        return float(value)
    wanted = f"{low} <= {name} {'<=' if includes else '<'} {below}" if low > -math.inf else "a finite number"
    raise ValueError(f"{who}: {name} is {value}; expected {wanted}")


def check_lengths(who: str, lengths: Any, steps: int, count: int) -> Array | None:
    """``lengths`` as an array of ``count`` numbers 0..``steps``, None if all are ``steps``; TypeError or ValueError."""
    array = as_array(lengths, f"{who}: lengths")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{who}: lengths has dtype {array.dtype}; expected integers")
    if array.shape != (count,):
        raise ValueError(f"{who}: lengths has shape {array.shape}; expected (N,) = ({count},), N from x")
    wrong = np.flatnonzero((array < 0) | (array > steps))
    if wrong.size:
        raise ValueError(f"{who}: lengths[{wrong[0]}] is {array[wrong[0]]}; expected 0..{steps}, the steps of x")
    return None if (array == steps).all() else array.astype(np.intp)
