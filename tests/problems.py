"""Layers with options (`variants.Spec`) run through the public API, and compared with `variants.py`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import rnnfast as rf
import tolerances
import variants
from compare import assert_close, assert_same_bits
from variants import Spec

KINDS = {"rnn": rf.RNN, "lstm": rf.LSTM, "gru": rf.GRU}

# Numbers of one array up to which its full gradient is compared, and numbers that the reference may compute for it;
# beyond either, random directions do.
FULL = 700
FULL_COST = 3e6
DIRECTIONS = 3


def label(spec: Spec) -> str:
    """A spec as the id of a test: the cell and what is not the default."""
    changed = [f"{name}={value}" for name, value in options(spec).items()]
    return "-".join([spec.cell, *changed]).replace(" ", "").replace("'", "")


def options(spec: Spec) -> dict[str, Any]:
    """The arguments of the layer's constructor that are not the default."""
    own = {
        field.name: (getattr(spec, field.name), field.default)
        for field in dataclasses.fields(spec)
        if field.default is not dataclasses.MISSING
    }
    return {name: value for name, (value, default) in own.items() if value != default}


def layer_of(spec: Spec, inputs: dict[str, Any] | None, dtype: Any, **extra: Any) -> Any:
    """The layer with these options, and with the parameters among ``inputs``."""
    layer = KINDS[spec.cell](spec.input_size, spec.hidden_size, dtype=dtype, **options(spec), **extra)
    if inputs is not None:
        layer.load_state_dict({name: inputs[name] for name in spec.shapes()})
    return layer


def random_inputs(rng: Any, spec: Spec, T: int, N: int, state: bool = True) -> dict[str, Any]:
    """x, initial states and parameters: float64, but exact in float32, so that one oracle serves both."""

    def exact(values: Any) -> Any:
        return values.astype(np.float32).astype(np.float64)

    def uniform(shape: tuple[int, ...], limit: float) -> Any:
        return exact(rng.uniform(-limit, limit, shape))

    DL, H, P = len(spec.suffixes), spec.hidden_size, spec.output_size
    inputs = {"x": exact(rng.standard_normal((T, N, spec.input_size))), "h0": None, "c0": None}
    if state:
        inputs["h0"] = uniform((DL, N, P), 1.0)
        inputs["c0"] = exact(rng.standard_normal((DL, N, H))) if spec.cell == "lstm" else None
    for name, shape in spec.shapes().items():
        if name.startswith(("layer_norm_ih", "layer_norm_hh", "layer_norm_c_weight")):
            inputs[name] = 1 + uniform(shape, 0.5)
        elif len(shape) == 2:
            inputs[name] = uniform(shape, shape[1] ** -0.5)
        else:
            inputs[name] = uniform(shape, 0.7)
    return inputs


def random_upstream(rng: Any, spec: Spec, T: int, N: int, cell_states: bool = False) -> dict[str, Any]:
    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32).astype(np.float64)

    DL, H, P = len(spec.suffixes), spec.hidden_size, spec.output_size
    lstm = spec.cell == "lstm"
    return {
        "dy": normal(T, N, P * (2 if spec.bidirectional else 1)),
        "dh_n": normal(DL, N, P),
        "dc_n": normal(DL, N, H) if lstm else None,
        "dcell_states": normal(T, N, DL, H) if lstm and cell_states else None,
    }


def problem(rng: Any, spec: Spec, T: int, N: int, **how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return random_inputs(rng, spec, T, N, **how), random_upstream(rng, spec, T, N)


def cast(arrays: dict[str, Any], dtype: Any) -> dict[str, Any]:
    return {name: None if a is None else np.ascontiguousarray(a, dtype) for name, a in arrays.items()}


def packed(spec: Spec, h: Any, c: Any) -> Any:
    """A state in the layer's form; None if there is none."""
    return None if h is None else (h, c) if spec.cell == "lstm" else h


def unpacked(spec: Spec, state: Any) -> tuple[Any, Any]:
    return state if spec.cell == "lstm" else (state, None)


def infer(layer: Any, spec: Spec, inputs: dict[str, Any], **how: Any) -> dict[str, Any]:
    y, state = layer(inputs["x"], packed(spec, inputs["h0"], inputs["c0"]), **how)
    h_n, c_n = unpacked(spec, state)
    return {"y": y, "h_n": h_n, "c_n": c_n}


def trace(layer: Any, spec: Spec, inputs: dict[str, Any], **how: Any) -> tuple[dict[str, Any], Any]:
    """What training's forward returns, and the tape."""
    y, state, tape = layer.forward(inputs["x"], packed(spec, inputs["h0"], inputs["c0"]), **how)
    h_n, c_n = unpacked(spec, state)
    return {"y": y, "h_n": h_n, "c_n": c_n}, tape


def differentiate(layer: Any, spec: Spec, tape: Any, upstream: dict[str, Any], **how: Any) -> dict[str, Any]:
    """Gradients by the names of the inputs; ``dcell_states`` has an axis of layers and directions, even of one."""
    dcell_states = upstream.get("dcell_states")
    if dcell_states is not None:
        single = len(spec.suffixes) == 1
        how["dcell_states"] = np.ascontiguousarray(dcell_states[:, :, 0]) if single else dcell_states
    grads = layer.backward(tape, upstream["dy"], packed(spec, upstream["dh_n"], upstream["dc_n"]), **how)
    dh0, dc0 = unpacked(spec, grads.state)
    return {"x": grads.x, "h0": dh0, "c0": dc0, **grads.params}


def train(layer: Any, spec: Spec, inputs: dict[str, Any], upstream: dict[str, Any], **how: Any) -> dict[str, Any]:
    """Results of forward and, named d and the input, the gradients."""
    results, tape = trace(layer, spec, inputs, **how)
    grads = differentiate(layer, spec, tape, upstream)
    return {**results, **{f"d{name}": value for name, value in grads.items()}}


def drawn_masks(tape: Any) -> dict[str, Any]:
    return {name: np.array(mask, np.float64) for name, mask in tape.masks.items()}


def assert_all_same_bits(got: dict[str, Any], want: dict[str, Any], what: str = "", names: Any = None) -> None:
    """Every array of ``want`` (of ``names``, if given) has the same bits in ``got``."""
    for name in want if names is None else names:
        assert (got[name] is None) == (want[name] is None), f"{what} {name}"
        if want[name] is not None:
            assert_same_bits(
                np.ascontiguousarray(got[name]), np.ascontiguousarray(want[name]), f"{what} {name}".strip()
            )


def check_results(got: dict[str, Any], want: variants.Result, tolerance: float, dtype: Any, what: str) -> None:
    for name, value in got.items():
        expected = getattr(want, name)
        assert (value is None) == (expected is None), f"{what} {name}"
        if expected is not None:
            assert value.dtype == dtype, f"{what} {name}"
            assert_close(value, expected, tolerance, f"{what} {name}")


# A gradient that is expected: in full, or the directions along which it is known and the derivatives along them.
Expected = tuple[Any, Any]

_known: dict[tuple[Any, ...], Any] = {}


def expected(
    spec: Spec, inputs: dict[str, Any], upstream: dict[str, Any], **how: Any
) -> tuple[variants.Result, dict[str, Expected]]:
    """The reference's results and gradients, remembered: both types and all instruction sets ask for the same."""
    arrays = (inputs, upstream, how.get("masks") or {}, {name: how.get(name) for name in ("lengths", "resets")})
    digest = hashlib.sha256()
    for name, array in ((name, array) for group in arrays for name, array in group.items()):
        digest.update(name.encode() + b"-" if array is None else name.encode() + np.asarray(array).tobytes())
    key = (spec, inputs["x"].shape, how.get("masks") is None, digest.digest())
    if key not in _known:
        rng = np.random.default_rng(1)
        gradients: dict[str, Expected] = {}
        T, N = inputs["x"].shape[:2]
        run = T * N * spec.gates * spec.hidden_size * len(spec.suffixes)
        for name, value in inputs.items():
            if value is None:
                continue
            small = value.size <= FULL and value.size * run <= FULL_COST
            vectors = np.eye(value.size) if small else rng.standard_normal((DIRECTIONS, value.size))
            shaped = vectors.reshape(len(vectors), *value.shape)
            along = variants.derivatives(spec, inputs, upstream, {name: shaped}, **how)[name]
            gradients[name] = (None, along.reshape(value.shape)) if small else (vectors, along)
        _known[key] = variants.forward(spec, inputs, **how), gradients
    return _known[key]


def check_gradients(
    spec: Spec,
    inputs: dict[str, Any],
    upstream: dict[str, Any],
    grads: dict[str, Any],
    dtype: Any,
    tolerance: float,
    **how: Any,
) -> None:
    """Full gradients of small inputs, projections on random directions of large ones."""
    _, wanted = expected(spec, inputs, upstream, **how)
    for name, (vectors, want) in wanted.items():
        got = grads[name]
        assert got.dtype == dtype and got.shape == inputs[name].shape, (name, got.dtype, got.shape)
        if vectors is None:
            assert_close(got, want, tolerance, f"{label(spec)} d{name}")
            continue
        flat = got.astype(np.float64).ravel()
        # A projection on a normal vector has the size of the norm: see tolerances.DIRECTIONAL.
        error = float(np.sqrt(np.mean((vectors @ flat - want) ** 2))) / (np.linalg.norm(flat) or 1.0)
        bound = tolerances.DIRECTIONAL * tolerance
        assert error <= bound, f"{label(spec)} d{name} along {DIRECTIONS} directions: error {error:.3g} > {bound:.3g}"


def check(
    spec: Spec,
    T: int,
    N: int,
    dtype: Any,
    *,
    seed: int = 0,
    state: bool = True,
    hidden_state: bool = True,
    cell_states: bool = False,
    **how: Any,
) -> None:
    """Inference, training and every gradient of one random problem against the reference.

    Without ``state`` it is left out; without ``hidden_state`` the hidden one is zeros. ``how`` has ``lengths`` and
    ``resets``. Masks that training drew are replayed in the reference.
    """
    rng = np.random.default_rng(seed)
    inputs = random_inputs(rng, spec, T, N, state=state)
    if not hidden_state:
        inputs["h0"][...] = 0
    upstream = random_upstream(rng, spec, T, N, cell_states=cell_states)
    layer = layer_of(spec, inputs, dtype, seed=seed)
    tolerance = tolerances.variant(dtype, spec, T, N)
    own, own_upstream = cast(inputs, dtype), cast(upstream, dtype)

    got = infer(layer, spec, own, **how)
    check_results(got, variants.forward(spec, inputs, **how), tolerance, dtype, f"{label(spec)} inference")
    got, tape = trace(layer, spec, own, **how)
    masks = drawn_masks(tape)
    want, _ = expected(spec, inputs, upstream, masks=masks, **how)
    check_results(got, want, tolerance, dtype, f"{label(spec)} training")
    grads = differentiate(layer, spec, tape, own_upstream)
    check_gradients(spec, inputs, upstream, grads, dtype, tolerance, masks=masks, **how)


def rows_of(arrays: dict[str, Any], index: Any) -> dict[str, Any]:
    """Some sequences of a problem's inputs or incoming gradients."""
    per_sequence = ("x", "h0", "c0", "dy", "dh_n", "dc_n", "dcell_states")
    return {
        name: a if a is None or name not in per_sequence else np.ascontiguousarray(a[:, index])
        for name, a in arrays.items()
    }


def steps_of(arrays: dict[str, Any], index: Any) -> dict[str, Any]:
    """Some steps of a problem's inputs or incoming gradients."""
    timed = ("x", "dy", "dcell_states")
    return {name: a if a is None or name not in timed else np.ascontiguousarray(a[index]) for name, a in arrays.items()}


def sequences_alone(
    layer: Any, spec: Spec, inputs: dict[str, Any], upstream: dict[str, Any], lengths: Any
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Every sequence of a ragged batch run alone, as a batch of one without padding: its number, length and results."""
    for n, length in enumerate(lengths):
        one = slice(n, n + 1)
        mine = steps_of(rows_of(inputs, one), slice(0, length))
        mine_upstream = steps_of(rows_of(upstream, one), slice(0, length))
        yield n, int(length), train(layer, spec, mine, mine_upstream)
