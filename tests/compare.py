"""Comparisons that say where two arrays differ, by how much, and in ULPs."""

from __future__ import annotations

from typing import Any

import numpy as np


def relative_error(got: Any, want: Any) -> float:
    """||got - want|| / ||want||; 0 for equal arrays, empty ones among them, infinite or NaN where one is not finite."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    error, scale = np.linalg.norm(got - want), np.linalg.norm(want)
    return 0.0 if error == 0 else float(error / scale) if scale > 0 else float("inf")


def worst(got: Any, want: Any) -> str:
    """The element that differs most: index, both values, and their distance in ULPs of ``got``'s dtype."""
    difference = np.abs(np.asarray(got, np.float64) - np.asarray(want, np.float64))
    difference = np.where(np.isnan(difference), np.inf, difference)
    index = tuple(int(k) for k in np.unravel_index(np.argmax(difference), difference.shape))
    spacing = float(np.spacing(np.abs(np.asarray(want[index], got.dtype))))
    ulp = difference[index] / spacing
    count = np.count_nonzero(difference)
    return f"at {index}: {got[index]!r}, expected {want[index]!r}, {ulp:.1f} ulp apart; {count} elements differ"


def assert_close(got: Any, want: Any, tolerance: float, what: str) -> None:
    """``got`` has the shape of ``want`` and lies within a norm-relative ``tolerance`` of it."""
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    error = relative_error(got, want)
    # Written so that a NaN fails.
    assert error <= tolerance, f"{what}: relative error {error:.3g} > {tolerance:.3g}; {worst(got, want)}"


def assert_same_bits(got: Any, want: Any, what: str) -> None:
    """``got`` and ``want`` agree in dtype, shape and every bit."""
    assert got.dtype == want.dtype, f"{what}: dtype {got.dtype}, expected {want.dtype}"
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    assert got.tobytes() == want.tobytes(), f"{what}: {worst(got, want)}"
