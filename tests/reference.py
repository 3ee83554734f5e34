"""The cells' equations in plain NumPy, and their derivative by complex step: the oracle of the other tests.

Written from the equations, with nothing in common with the kernels. Every function here is analytic (no abs, max,
conjugation or branch on a value), so a complex argument carries an exact derivative: Im f(x + ih) / h has no
truncation error and, nothing being subtracted, no cancellation; h = 2**-100 (about 1e-30, and exact to divide by) makes
its h**2 terms vanish in float64.
The one exception is relu, which is analytic on each side of zero: the sign of the real part chooses the side.

Arrays may have any number of axes before those named (x is (..., T, N, I)); they broadcast, which is how many
perturbations are run at once. Values are moderate: exp must not overflow, so |pre-activation| < 700 in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.inexact]

STEP = 2.0**-100

# Gates of a cell, in the order of their blocks in the weights' rows: i, f, g, o for LSTM and r, z, n for GRU.
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}

# What a cell's forward depends on, with the number of axes that belong to the array itself.
AXES = {"x": 3, "h0": 2, "c0": 2, "w_ih": 2, "w_hh": 2, "b_ih": 1, "b_hh": 1}

# Complex numbers held by one output of a vectorised run: 2**21 of them are 32 MB.
CHUNK = 2**21


def sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def relu(a: Array) -> Array:
    """Zero where the real part is not positive, with derivative 0 at 0; NaN stays NaN."""
    return np.where(a.real <= 0, 0, a)


def rnn_step(activation: Callable[[Array], Array]) -> Callable[..., tuple[Array, Array | None]]:
    def step(from_x: Array, from_h: Array, h: Array, c: Array | None) -> tuple[Array, Array | None]:
        return activation(from_x + from_h), c

    return step


def lstm_step(from_x: Array, from_h: Array, h: Array, c: Array) -> tuple[Array, Array]:
    i, f, g, o = np.split(from_x + from_h, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(from_x: Array, from_h: Array, h: Array, c: Array | None) -> tuple[Array, Array | None]:
    """Reset-after: r multiplies the recurrent product with its bias, as in Keras' default and in PyTorch."""
    r_x, z_x, n_x = np.split(from_x, 3, axis=-1)
    r_h, z_h, n_h = np.split(from_h, 3, axis=-1)
    r = sigmoid(r_x + r_h)
    z = sigmoid(z_x + z_h)
    n = np.tanh(n_x + r * n_h)
    return (1 - z) * n + z * h, c


STEPS = {"rnn_tanh": rnn_step(np.tanh), "rnn_relu": rnn_step(relu), "lstm": lstm_step, "gru": gru_step}


def affine(x: Array, w: Array, b: Array | None) -> Array:
    product = x @ np.swapaxes(w, -1, -2)
    return product if b is None else product + b[..., None, :]


def forward(cell: str, inputs: Mapping[str, Array | None]) -> tuple[Array, Array, Array | None]:
    """Run one layer over whole sequences.

    Parameters
    ----------
    cell : str
        A key of `GATES`.
    inputs : mapping
        ``x`` (..., T, N, I), ``h0`` (..., N, H), ``c0`` (..., N, H) or None, ``w_ih`` (..., GH, I),
        ``w_hh`` (..., GH, H), ``b_ih`` and ``b_hh`` (..., GH) or None.

    Returns
    -------
    y : ndarray, shape (..., T, N, H)
    h_n : ndarray, shape (..., N, H)
    c_n : ndarray, shape (..., N, H), or None
    """
    x, h, c = inputs["x"], inputs["h0"], inputs["c0"]
    ys = []
    for t in range(x.shape[-3]):
        from_x = affine(x[..., t, :, :], inputs["w_ih"], inputs["b_ih"])
        from_h = affine(h, inputs["w_hh"], inputs["b_hh"])
        h, c = STEPS[cell](from_x, from_h, h, c)
        ys.append(h)
    y = np.stack(ys, axis=-3) if ys else np.zeros((*h.shape[:-2], 0, *h.shape[-2:]), h.dtype)
    return y, h, c


def loss(cell: str, inputs: Mapping[str, Array | None], upstream: Mapping[str, Array | None]) -> Array:
    """sum(dy * y) + sum(dh_n * h_n) + sum(dc_n * c_n), whose gradient is what backward returns for dy, dh_n, dc_n."""
    y, h_n, c_n = forward(cell, inputs)
    total = (upstream["dy"] * y).sum(axis=(-3, -2, -1)) + (upstream["dh_n"] * h_n).sum(axis=(-2, -1))
    return total if c_n is None else total + (upstream["dc_n"] * c_n).sum(axis=(-2, -1))


def directional(
    cell: str,
    inputs: Mapping[str, Array | None],
    upstream: Mapping[str, Array | None],
    directions: Mapping[str, Array],
) -> dict[str, Array]:
    """Derivatives of the loss along given directions, one array at a time.

    Parameters
    ----------
    cell, inputs, upstream
        As for `loss`. Leading axes, the same for all arrays, are independent problems.
    directions : mapping
        For each name of ``inputs`` asked for, K directions: (K, *own shape of that array).

    Returns
    -------
    dict
        (K, *leading axes) for each name of ``directions``.
    """
    derivatives = {}
    for name, vectors in directions.items():
        value = inputs[name]
        leading = value.ndim - AXES[name]
        vectors = vectors.reshape(len(vectors), *[1] * leading, *value.shape[leading:])
        T, N = inputs["x"].shape[-3:-1]
        H = inputs["h0"].shape[-1]
        largest = max(value.size, GATES[cell] * T * N * H * int(np.prod(value.shape[:leading])))
        rows = max(1, CHUNK // max(1, largest))
        parts = []
        for k in range(0, len(vectors), rows):
            perturbed = value + 1j * STEP * vectors[k : k + rows]
            derivative = loss(cell, {**inputs, name: perturbed}, upstream).imag / STEP
            # Without a time step the loss never sees the weights and comes out without the axis of directions.
            parts.append(np.broadcast_to(derivative, perturbed.shape[: leading + 1]))
        derivatives[name] = np.concatenate(parts)
    return derivatives


def gradients(
    cell: str, inputs: Mapping[str, Array | None], upstream: Mapping[str, Array | None]
) -> dict[str, Array | None]:
    """Gradient of the loss with respect to every input: one forward run for each number in it.

    Arguments as for `directional`. Returns arrays of the inputs' shapes, None where the input is None.
    """
    result: dict[str, Array | None] = dict.fromkeys(inputs)
    for name, value in inputs.items():
        if value is None:
            continue
        leading = value.ndim - AXES[name]
        own = value.shape[leading:]
        size = int(np.prod(own, dtype=np.int64))
        if size == 0:
            result[name] = np.zeros_like(value)
            continue
        units = np.eye(size).reshape(size, *own)
        columns = directional(cell, inputs, upstream, {name: units})[name]
        result[name] = np.moveaxis(columns, 0, -1).reshape(value.shape)
    return result
