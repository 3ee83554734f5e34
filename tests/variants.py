"""Every option of the recurrent layers in plain NumPy, and its derivative by complex step: an oracle for all of them.

Written from the papers' equations and the documented meaning of the options, one loop over steps, nothing in common
with the kernels. Sequences of different lengths run one after the other, each alone: padding cannot be read by mistake.

Complex arguments carry exact derivatives, as in `reference.py`. What is not analytic (relu and its kin, clipping)
chooses its branch by the real part. Any argument may have extra leading axes, which is how many perturbations are run
at once.

Sources
-------
LSTM: Hochreiter & Schmidhuber (1997); forget gate and peepholes: Gers, Schmidhuber & Cummins (2000), Gers & Schmidhuber
(2000); coupled gates: Greff et al. (2017), IEEE TNNLS 28(10); projection: Sak, Senior & Beaufays (2014); GRU, reset
before and after the product: Cho et al. (2014), arXiv 1406.1078 v3 and v1; layer normalisation: Ba, Kiros & Hinton
(2016), arXiv 1607.06450; zoneout: Krueger et al. (2017), arXiv 1606.01305; recurrent dropout: Gal & Ghahramani (2016),
arXiv 1512.05287; activations: the ONNX operators RNN, LSTM and GRU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.inexact]
Activation = str | tuple[str, float] | tuple[str, float, float]

STEP = 2.0**-100
LAYER_NORM_EPS = 1e-5

# Complex numbers held by one array of a vectorised run: 2**20 of them are 16 MB.
CHUNK = 2**20


# Activations


def sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def choose(condition: Array, yes: Array | float, no: Array | float) -> Array:
    return np.where(condition, yes, no)


def hard_sigmoid(a: Array, alpha: float, beta: float) -> Array:
    line = alpha * a + beta
    return choose(line.real <= 0, 0, choose(line.real >= 1, 1, line))


# ONNX's eleven names, with alpha and beta where they have them.
ACTIVATIONS: dict[str, Callable[..., Array]] = {
    "Affine": lambda a, alpha, beta: alpha * a + beta,
    "Elu": lambda a, alpha: choose(a.real < 0, alpha * (np.exp(choose(a.real < 0, a, 0)) - 1), a),
    "HardSigmoid": hard_sigmoid,
    "LeakyRelu": lambda a, alpha: choose(a.real < 0, alpha * a, a),
    "Relu": lambda a: choose(a.real <= 0, 0, a),
    "ScaledTanh": lambda a, alpha, beta: alpha * np.tanh(beta * a),
    "Sigmoid": sigmoid,
    "Softplus": lambda a: np.log(1 + np.exp(a)),
    "Softsign": lambda a: a / (1 + choose(a.real < 0, -a, a)),
    "Tanh": np.tanh,
    "ThresholdedRelu": lambda a, alpha: choose(a.real > alpha, a, 0),
}

# alpha, beta of the ONNX operators of these names. Affine and ScaledTanh are operators no more: always say theirs.
DEFAULTS: dict[str, tuple[float, ...]] = {
    "Elu": (1.0,),
    "HardSigmoid": (0.2, 0.5),
    "LeakyRelu": (0.01,),
    "ThresholdedRelu": (1.0,),
}


def activation(named: Activation) -> Callable[[Array], Array]:
    name, *given = (named,) if isinstance(named, str) else named
    parameters = (*given, *DEFAULTS.get(name, ())[len(given) :])
    function = ACTIVATIONS[name]
    return lambda a: function(a, *parameters)


# What a layer is


@dataclass(frozen=True)
class Spec:
    """A recurrent layer and its options, named as in the constructors of `rf.RNN`, `rf.LSTM` and `rf.GRU`.

    The rates of dropout matter to the layer alone: the reference takes the masks that were drawn.
    """

    cell: str  # "rnn", "lstm" or "gru"
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    proj_size: int = 0
    nonlinearity: str = "tanh"
    activations: tuple[Activation, ...] | None = None
    peephole: bool = False
    coupled: bool = False
    reset_after: bool = True
    layer_norm: bool = False
    clip: float | None = None
    learn_initial_state: bool = False
    zoneout: float | tuple[float, float] = 0.0
    recurrent_dropout: float = 0.0
    dropout: float = 0.0

    @property
    def gates(self) -> int:
        return {"rnn": 1, "gru": 3, "lstm": 3 if self.coupled else 4}[self.cell]

    @property
    def output_size(self) -> int:
        """Numbers of h, which is the projection of a projected LSTM's."""
        return self.proj_size or self.hidden_size

    @property
    def suffixes(self) -> list[str]:
        """Of the parameters' names, in the order of the states: layer by layer, in each forward and then reverse."""
        ways = ("", "_reverse") if self.bidirectional else ("",)
        return [f"_l{layer}{way}" for layer in range(self.num_layers) for way in ways]

    @property
    def zoneout_rates(self) -> tuple[float, float]:
        if isinstance(self.zoneout, tuple):
            return self.zoneout
        return self.zoneout, self.zoneout

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of all parameters."""
        H, P, rows = self.hidden_size, self.output_size, self.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for suffix in self.suffixes:
            inputs = self.input_size if suffix.startswith("_l0") else P * (2 if self.bidirectional else 1)
            shapes |= {f"weight_ih{suffix}": (rows, inputs), f"weight_hh{suffix}": (rows, P)}
            if self.bias:
                shapes |= {f"bias_ih{suffix}": (rows,), f"bias_hh{suffix}": (rows,)}
            if self.proj_size:
                shapes |= {f"weight_hr{suffix}": (P, H)}
            if self.peephole:
                shapes |= {f"weight_peephole{suffix}": ((self.gates - 1) * H,)}
            if self.layer_norm:
                shapes |= {f"layer_norm_ih{suffix}": (rows,), f"layer_norm_hh{suffix}": (rows,)}
                if self.cell == "lstm":
                    shapes |= {f"layer_norm_c_weight{suffix}": (H,), f"layer_norm_c_bias{suffix}": (H,)}
            if self.learn_initial_state:
                shapes |= {f"initial_h{suffix}": (P,)}
                if self.cell == "lstm":
                    shapes |= {f"initial_c{suffix}": (H,)}
        return shapes


# One step of one direction


@dataclass(frozen=True)
class Weights:
    """The parameters of one layer and direction, and the functions that they are used with."""

    spec: Spec
    named: Mapping[str, Array]
    suffix: str

    def __getitem__(self, name: str) -> Array:
        return self.named[name + self.suffix]

    def bias(self, name: str) -> Array | float:
        return row(self[name]) if self.spec.bias else 0.0

    def gain(self, name: str, a: Array) -> Array:
        """Layer normalisation over the last axis, times a gain; nothing without the option."""
        return row(self[name]) * standardised(a) if self.spec.layer_norm else a

    def clipped(self, a: Array) -> Array:
        limit = self.spec.clip
        if limit is None:
            return a
        return choose(a.real < -limit, -limit, choose(a.real > limit, limit, a))

    def functions(self, *standard: str) -> list[Callable[[Array], Array]]:
        return [activation(name) for name in self.spec.activations or standard]


def row(vector: Array) -> Array:
    """A vector (..., J) as a row (..., 1, J) that a batch (..., N, J) can be multiplied by."""
    return vector[..., None, :]


def product(x: Array, w: Array) -> Array:
    return x @ np.swapaxes(w, -1, -2)


def standardised(a: Array) -> Array:
    mean = a.mean(axis=-1, keepdims=True)
    variance = ((a - mean) ** 2).mean(axis=-1, keepdims=True)
    return (a - mean) / np.sqrt(variance + LAYER_NORM_EPS)


def rnn_step(w: Weights, x: Array, h: Array, h_in: Array, c: None) -> tuple[Array, None, None]:
    """h = f(W_ih x + b_ih + W_hh h + b_hh). ``h_in`` is what the recurrent product sees of h, here and below."""
    (f,) = w.functions({"tanh": "Tanh", "relu": "Relu"}[w.spec.nonlinearity])
    a = product(x, w["weight_ih"]) + w.bias("bias_ih") + product(h_in, w["weight_hh"]) + w.bias("bias_hh")
    return f(w.clipped(a)), None, None


def lstm_step(w: Weights, x: Array, h: Array, h_in: Array, c: Array) -> tuple[Array, Array, Array]:
    spec = w.spec
    f, g, h_function = w.functions("Sigmoid", "Tanh", "Tanh")
    a = (
        w.gain("layer_norm_ih", product(x, w["weight_ih"]))
        + w.gain("layer_norm_hh", product(h_in, w["weight_hh"]))
        + w.bias("bias_ih")
        + w.bias("bias_hh")
    )
    parts = np.split(a, spec.gates, axis=-1)
    a_f, a_g, a_o = parts[-3:]
    peep: Any = [0.0] * spec.gates
    if spec.peephole:
        peep = [row(p) for p in np.split(w["weight_peephole"], spec.gates - 1, axis=-1)]

    forget = f(w.clipped(a_f + peep[-2] * c))
    new = g(w.clipped(a_g))
    admit = 1 - forget if spec.coupled else f(w.clipped(parts[0] + peep[0] * c))
    c = forget * c + admit * new
    output = f(w.clipped(a_o + peep[-1] * c))
    seen = c
    if spec.layer_norm:
        seen = row(w["layer_norm_c_weight"]) * standardised(c) + row(w["layer_norm_c_bias"])
    h = output * h_function(seen)
    if spec.proj_size:
        h = product(h, w["weight_hr"])
    gates = [forget, new, output] if spec.coupled else [admit, forget, new, output]
    return h, c, joined(gates, axis=-1)


def gru_step(w: Weights, x: Array, h: Array, h_in: Array, c: None) -> tuple[Array, None, Array]:
    H = w.spec.hidden_size
    f, g = w.functions("Sigmoid", "Tanh")
    from_x = w.gain("layer_norm_ih", product(x, w["weight_ih"])) + w.bias("bias_ih")
    from_h = w.gain("layer_norm_hh", product(h_in, w["weight_hh"])) + w.bias("bias_hh")
    r = f(w.clipped((from_x + from_h)[..., :H]))
    z = f(w.clipped((from_x + from_h)[..., H : 2 * H]))
    if w.spec.reset_after:
        recurrent = r * from_h[..., 2 * H :]
    else:
        w_n = w["weight_hh"][..., 2 * H :, :]
        recurrent = product(r * h_in, w_n) + (row(w["bias_hh"][..., 2 * H :]) if w.spec.bias else 0.0)
    n = g(w.clipped(from_x[..., 2 * H :] + recurrent))
    return (1 - z) * n + z * h, None, joined([r, z, n], axis=-1)


STEPS: dict[str, Callable[..., tuple[Array, Array | None, Array | None]]] = {
    "rnn": rnn_step,
    "lstm": lstm_step,
    "gru": gru_step,
}


# Whole sequences


@dataclass(frozen=True)
class Result:
    """What a run gives, always batched and time-major. Entries past the end of a sequence are 0."""

    y: Array  # (T, N, D * P)
    h_n: Array  # (D * L, N, P)
    c_n: Array | None  # (D * L, N, H)
    hidden_states: Array  # (T, N, D * L, P)
    cell_states: Array | None  # (T, N, D * L, H)
    gates: Array | None  # (T, N, D * L, G * H)


def joined(arrays: Sequence[Array], axis: int) -> Array:
    """Concatenated along a negative axis; leading axes that only some of them have are broadcast."""
    leading = np.broadcast_shapes(*(a.shape[:axis] for a in arrays))
    return np.concatenate([np.broadcast_to(a, (*leading, *a.shape[axis:])) for a in arrays], axis=axis)


def stacked(arrays: Sequence[Array], own: int, axis: int) -> Array:
    """``own`` trailing axes are each array's; a new axis is put before trailing axis ``axis`` of the result."""
    leading = np.broadcast_shapes(*(a.shape[: a.ndim - own] for a in arrays))
    return np.stack([np.broadcast_to(a, (*leading, *a.shape[a.ndim - own :])) for a in arrays], axis=axis)


def after_zoneout(rate: float, mask: Array | None, old: Array, new: Array) -> Array:
    """With a mask of zeros and ones (1 keeps the old state), or the expectation over masks."""
    keep = rate if mask is None else mask
    return keep * old + (1 - keep) * new


def run_sequences(
    w: Weights, x: Array, h: Array, c: Array | None, resets: npt.NDArray[np.bool_], masks: Mapping[str, Array] | None
) -> tuple[list[Array], list[Array | None], list[Array | None], Array, Array | None]:
    """One direction over sequences of one length, in the order of the first axis: h, c, gates of each step, last h, c.

    ``masks`` are those of this layer and direction (keys without suffix), None for inference.
    """
    spec = w.spec
    hidden, cells, gates = [], [], []
    for t in range(x.shape[-3]):
        reset = resets[t][:, None]
        h = choose(reset, 0, h)
        c = None if c is None else choose(reset, 0, c)
        h_in = h if masks is None or not spec.recurrent_dropout else masks["recurrent"] * h
        h_new, c_new, gate = STEPS[spec.cell](w, x[..., t, :, :], h, h_in, c)
        rate_h, rate_c = spec.zoneout_rates
        if rate_h:
            h_new = after_zoneout(rate_h, None if masks is None else masks["zoneout_h"][t], h, h_new)
        if c is not None and c_new is not None and rate_c:
            c_new = after_zoneout(rate_c, None if masks is None else masks["zoneout_c"][t], c, c_new)
        h, c = h_new, c_new
        hidden.append(h)
        cells.append(c)
        gates.append(gate)
    return hidden, cells, gates, h, c


def run_direction(
    w: Weights,
    x: Array,
    h0: Array,
    c0: Array | None,
    lengths: npt.NDArray[np.integer] | None,
    resets: npt.NDArray[np.bool_],
    masks: Mapping[str, Array] | None,
) -> tuple[Array, Array | None, Array | None, Array, Array | None]:
    """One layer in one direction: hidden states (..., T, N, P), cells, gates, h_n (..., N, P), c_n.

    With lengths every sequence is run alone, for as many steps as it has.
    """
    T, N = x.shape[-3:-1]
    backwards = w.suffix.endswith("_reverse")
    groups = [(slice(0, N), T)] if lengths is None else [(slice(n, n + 1), int(lengths[n])) for n in range(N)]
    columns = []
    for rows, steps in groups:
        order = slice(None, None, -1) if backwards else slice(None)

        def part(a: Array, rows: slice = rows, steps: int = steps, order: slice = order) -> Array:
            """Steps and rows of (..., T, N, J), in the order in which they are processed."""
            return a[..., :steps, rows, :][..., order, :, :]

        own = None
        if masks is not None:
            own = {name: m[rows] if name == "recurrent" else part(m) for name, m in masks.items()}
        h, c, gates, h_n, c_n = run_sequences(
            w, part(x), h0[..., rows, :], None if c0 is None else c0[..., rows, :], part(resets[..., None])[..., 0], own
        )

        def whole(parts: list[Array | None], like: Array, width: int, order: slice = order) -> Array:
            """All T steps in their own order, 0 past the end."""
            batch = like.shape[-2]
            rest = np.zeros((T - len(parts), batch, width))
            if not parts:
                return rest
            return joined([stacked(parts, own=2, axis=-3)[..., order, :, :], rest], axis=-3)

        H, P = w.spec.hidden_size, w.spec.output_size
        columns.append(
            (
                whole(h, h_n, P),
                None if c_n is None else whole(c, c_n, H),
                None if w.spec.cell == "rnn" else whole(gates, h_n, w.spec.gates * H),
                h_n,
                c_n,
            )
        )
    if not columns:
        return run_direction(w, x, h0, c0, None, resets, masks)
    return tuple(None if c[0] is None else joined(c, axis=-2) for c in zip(*columns, strict=True))


def forward(
    spec: Spec,
    inputs: Mapping[str, Array | None],
    lengths: npt.NDArray[np.integer] | None = None,
    resets: npt.NDArray[np.bool_] | None = None,
    masks: Mapping[str, Array] | None = None,
) -> Result:
    """Run all layers and directions.

    Parameters
    ----------
    spec : Spec
    inputs : mapping
        ``x`` (T, N, I); ``h0`` (D*L, N, P) and ``c0`` (D*L, N, H), absent or None for the layer's own initial state;
        and the parameters by their names.
    lengths : ndarray of int, shape (N,), optional
    resets : ndarray of bool, shape (T, N), optional
    masks : mapping, optional
        What training drew, by the keys of ``tape.masks``. None is inference.
    """
    x = inputs["x"]
    T, N = x.shape[-3:-1]
    if resets is None:
        resets = np.zeros((T, N), bool)
    suffixes = spec.suffixes
    directions = len(suffixes) // spec.num_layers
    results = []
    for k, suffix in enumerate(suffixes):
        w = Weights(spec, inputs, suffix)
        h0, c0 = (initial(spec, inputs, name, k, suffix, N) for name in ("h", "c"))
        own = None
        if masks is not None:
            own = {
                name: masks[name + suffix] for name in ("recurrent", "zoneout_h", "zoneout_c") if name + suffix in masks
            }
        results.append(run_direction(w, x, h0, c0, lengths, resets, own))
        if k % directions == directions - 1:
            x = joined([result[0] for result in results[-directions:]], axis=-1)
            layer = k // directions
            if spec.dropout and masks is not None and layer < spec.num_layers - 1:
                # Past the end a product with the mask keeps the zeros.
                x = x * masks[f"dropout_l{layer}"]
    hidden, cells, gates, h_n, c_n = zip(*results, strict=True)
    each_step = partial(stacked, own=3, axis=-2)
    each_layer = partial(stacked, own=2, axis=-3)
    return Result(
        y=x,
        h_n=each_layer(h_n),
        c_n=None if c_n[0] is None else each_layer(c_n),
        hidden_states=each_step(hidden),
        cell_states=None if cells[0] is None else each_step(cells),
        gates=None if gates[0] is None else each_step(gates),
    )


def initial(spec: Spec, inputs: Mapping[str, Array | None], name: str, k: int, suffix: str, batch: int) -> Array | None:
    """State before the first step: as given, else as learnt, else zero; None for the c of a cell without."""
    if name == "c" and spec.cell != "lstm":
        return None
    given = inputs.get(f"{name}0")
    if given is not None:
        return given[..., k, :, :]
    width = spec.output_size if name == "h" else spec.hidden_size
    if spec.learn_initial_state:
        learnt = row(inputs[f"initial_{name}{suffix}"])
        return np.broadcast_to(learnt, (*learnt.shape[:-2], batch, width))
    return np.zeros((batch, width))


# Derivatives


def loss(result: Result, upstream: Mapping[str, Array | None]) -> Array:
    """The sum of each result times its incoming gradient: what backward differentiates.

    ``upstream`` may hold ``dy``, ``dh_n``, ``dc_n`` and ``dcell_states``, shaped as the results are.
    """
    total: Any = 0.0
    for name, value in (
        ("dy", result.y),
        ("dh_n", result.h_n),
        ("dc_n", result.c_n),
        ("dcell_states", result.cell_states),
    ):
        weight = upstream.get(name)
        if weight is not None:
            total = total + (weight * value).sum(axis=tuple(range(-weight.ndim, 0)))
    return total


def derivatives(
    spec: Spec,
    inputs: Mapping[str, Array | None],
    upstream: Mapping[str, Array | None],
    directions: Mapping[str, Array],
    **how: Any,
) -> dict[str, Array]:
    """Derivatives of the loss along K directions of each named input, (K, *its shape): (K,) each.

    ``how`` is passed on to `forward`.
    """
    result = {}
    for name, vectors in directions.items():
        T, N = inputs["x"].shape[:2]
        held = max(vectors[0].size, T * N * spec.gates * spec.hidden_size * len(spec.suffixes))
        rows = max(1, CHUNK // max(1, held))
        parts = []
        for k in range(0, len(vectors), rows):
            perturbed = inputs[name] + 1j * STEP * vectors[k : k + rows]
            value = loss(forward(spec, {**inputs, name: perturbed}, **how), upstream)
            # What nothing depends on leaves no trace of its perturbations.
            parts.append(np.broadcast_to(np.imag(value) / STEP, (len(perturbed),)))
        result[name] = np.concatenate(parts)
    return result


def gradients(
    spec: Spec, inputs: Mapping[str, Array | None], upstream: Mapping[str, Array | None], **how: Any
) -> dict[str, Array]:
    """The full gradient of the loss with respect to every input that is there."""
    result = {}
    for name, value in inputs.items():
        if value is None:
            continue
        if value.size == 0:
            result[name] = np.zeros(value.shape)
            continue
        units = np.eye(value.size).reshape(value.size, *value.shape)
        result[name] = derivatives(spec, inputs, upstream, {name: units}, **how)[name].reshape(value.shape)
    return result
