"""How far a result may lie from the oracle, and why. Nothing else in the tests holds a tolerance of its own.

Errors are norm-relative: ||got - want|| / ||want|| over a whole array, both norms in float64. An element-wise relative
error says nothing here, since any element may cancel to almost zero.

Derivation. One result is a chain of K fused multiply-adds, each rounding its partial sum. A rounding of size s has an
error of about 0.41 u s (u half the spacing at 1; uniform over half a spacing, averaged over a binade). The partial sums
grow like sqrt(k / K), so a chain of K ends with the relative error 0.41 u sqrt(K / 2) = 0.29 u sqrt(K), independent errors
added as squares. Recurrence feeds errors back: with the weights of `cases.py`, uniform in +-1 / sqrt(H), a step passes on
less than 1 / sqrt(3) of them, which makes at most 1 / (1 - 0.58) = 2.4 times as much. Backward goes through a forward's
saved values and through its own chains: twice. Together 0.29 * 2.4 * sqrt(2) = 1.0 sqrt(K) u. Whatever does not grow with K
(activations of at most 2.5 ulp in float32 and 4 ulp in float64, the cell's own half dozen roundings) adds less than 12 u.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# What the project promises for outputs and every gradient at H <= 256, whatever the derivation would allow.
PROMISED = {"float32": 1e-6, "float64": 1e-13}

# Roundings that do not grow with the length of a chain, in units of u.
CONSTANT_PART = 12

# Two float64 computations are compared, and the oracle's own rounding is of the same kind as that of the tested one.
ORACLE_SHARE = {"float32": 1, "float64": 2}

# A directional derivative <e, v> of an error e along a normal vector v is normal with deviation ||e||; the root mean square
# of at least three of them stays below 2.2 ||e|| in 99.9 % of cases.
DIRECTIONAL = 2.2

# PyTorch sums in another order and has its own activations, both in float64: two independent errors of the size derived
# above, with the promise as the floor and one decimal digit for sequences of several layers' worth of steps.
TORCH = 1e-12

# Bounds of the activations, in units in the last place of the correctly rounded result.
ACTIVATION_ULP = {"float32": 2.5, "float64": 4.0}

# Two summation orders of the same numbers by the same kernels: both errors are within `gradient`, their difference in twice.
REORDERED = 2


def unit_roundoff(dtype: Any) -> float:
    return float(np.finfo(dtype).eps) / 2


def chain(dtype: Any, terms: int) -> float:
    """Bound for a result made by chains of at most ``terms`` products: the derived figure, capped by the promise."""
    name = np.dtype(dtype).name
    derived = (CONSTANT_PART + terms**0.5) * unit_roundoff(dtype) * ORACLE_SHARE[name]
    return min(derived, PROMISED[name])


def forward(dtype: Any, I: int, H: int) -> float:  # noqa: E741
    """Bound for y, h_n and c_n: one chain over the inputs and the hidden units."""
    return chain(dtype, I + H + 1)


def gradient(dtype: Any, T: int, N: int, I: int, H: int, gates: int) -> float:  # noqa: E741
    """Bound for every gradient: forward's chain, one over the gates' rows, and for weights one over all rows of x."""
    return chain(dtype, max(I + H + 1, gates * H, T * N))
