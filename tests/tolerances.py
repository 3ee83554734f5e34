"""How far a result may lie from the oracle, and why. Nothing else decides what is close enough.

Errors are norm-relative: ||got - want|| / ||want|| over a whole array, both norms in float64. An element-wise relative
error says nothing here, since any element may cancel to almost zero.

Derivation, in units of u, half the spacing at 1. One result is a chain of K fused multiply-adds, each of which rounds
its partial sum s with a mean error of about 0.41 u s (uniform over half a spacing, averaged over a binade). Partial
sums grow like sqrt(k / K), so independent errors, added as squares, make 0.41 u sqrt(K / 2) = 0.29 u sqrt(K) of the
result. Recurrence feeds errors back: with the weights of `cases.py`, uniform in +-1 / sqrt(H), a step passes on less
than 1 / sqrt(3) of them, in the long run at most 1 / (1 - 0.58) = 2.4 times one step's. Backward has forward's saved
values and its own chains behind it: sqrt(2) times that. 0.29 * 2.4 * sqrt(2) = 1.0, hence sqrt(K) u. What does not grow
with K (activations of at most 2.5 ulp in float32 and 4 ulp in float64, the cell's own half dozen roundings) adds less
than 12 u. The largest errors measured, over all cells, sizes and instruction sets, are a third of this in both types.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# What the project promises for outputs and every gradient at H <= 256, whatever the derivation would allow.
PROMISED = {"float32": 1e-6, "float64": 1e-13}

# Roundings that do not grow with the length of a chain, in units of u.
CONSTANT_PART = 12

# The projection <e, v> of an error e on a normal vector v is normal with deviation ||e||. The root mean square of at
# least three of them exceeds 2.2 ||e|| once in 400 times, and ||e|| is far below its bound.
DIRECTIONAL = 2.2

# PyTorch has other activations and sums in another order; a decimal digit more than the promise to either side.
TORCH = 1e-12

# Bounds of the activations, in units in the last place of the correctly rounded result.
ACTIVATION_ULP = {"float32": 2.5, "float64": 4.0}

# Two summation orders of the same numbers: each result is within its bound, so the two are within twice that.
REORDERED = 2


def unit_roundoff(dtype: Any) -> float:
    return float(np.finfo(dtype).eps) / 2


def chain(dtype: Any, terms: int) -> float:
    """Bound for a result made by chains of at most ``terms`` products: the derived figure, capped by the promise."""
    return min((CONSTANT_PART + terms**0.5) * unit_roundoff(dtype), PROMISED[np.dtype(dtype).name])


def forward(dtype: Any, I: int, H: int) -> float:  # noqa: E741
    """Bound for y, h_n and c_n: one chain over the inputs and the hidden units."""
    return chain(dtype, I + H + 1)


def gradient(dtype: Any, T: int, N: int, I: int, H: int, gates: int) -> float:  # noqa: E741
    """Bound for every gradient: forward's chain, one over the gates' rows, and for weights one over all rows of x."""
    return chain(dtype, max(I + H + 1, gates * H, T * N))


# Peepholes, masks and projections add a handful of roundings to the plain cell: measured over all options, types and
# instruction sets of test_options.py, errors stay below half of the plain bound.
OPTIONS = 1
# Normalisation divides by a standard deviation, which magnifies what came in, and its gradient subtracts two means,
# which may cancel most of it: measured, up to 5 times the plain bound for rows of few numbers.
NORMALISED = 10


def variant(dtype: Any, spec: Any, T: int, N: int) -> float:
    """Bound for outputs and gradients of a layer with options: errors of stacked layers add up."""
    widest = max(spec.input_size, 2 * spec.output_size) + spec.output_size + 1
    terms = max(widest, spec.gates * spec.hidden_size, T * N)
    return (NORMALISED if spec.layer_norm else OPTIONS) * spec.num_layers * chain(dtype, terms)


# ONNX Runtime computes in float32 with its own short polynomials for exp, sigmoid and tanh, good to a few units of
# 1e-7 absolute, and the recurrence carries them on.
ONNX_RUNTIME = 2e-5

# Keras in float32, its default; asked for float64, its NumPy and PyTorch backends still round to float32 on the way.
KERAS = 1e-6
