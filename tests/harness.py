"""Cases run through the public API: layers with given parameters, and states and results in one form for all cells."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import rnnfast as rf
from cases import Case, Problem
from reference import GATES

PARAMETERS = {"w_ih": "weight_ih_l0", "w_hh": "weight_hh_l0", "b_ih": "bias_ih_l0", "b_hh": "bias_hh_l0"}


def new_layer(cell: str, input_size: int, hidden_size: int, **options: Any) -> Any:
    """An `rf` layer of a cell named as in `reference.GATES`."""
    if cell.startswith("rnn_"):
        return rf.RNN(input_size, hidden_size, nonlinearity=cell.removeprefix("rnn_"), **options)
    return {"lstm": rf.LSTM, "gru": rf.GRU}[cell](input_size, hidden_size, **options)


def cast(array: Any, dtype: Any) -> Any:
    return None if array is None else np.ascontiguousarray(array, dtype)


def layer_with(cell: str, inputs: dict[str, Any], dtype: Any, **options: Any) -> Any:
    """A layer that holds the weights of ``inputs`` (own shapes, without leading axes)."""
    bias = inputs["b_ih"] is not None
    input_size, hidden_size = inputs["w_ih"].shape[1], inputs["w_hh"].shape[1]
    layer = new_layer(cell, input_size, hidden_size, bias=bias, dtype=dtype, **options)
    layer.load_state_dict({PARAMETERS[name]: inputs[name] for name in PARAMETERS if inputs[name] is not None})
    return layer


def pack_state(h: Any, c: Any) -> Any:
    """(N, H) arrays in the layer's form: (1, N, H), or a tuple of two of them."""
    return h[None] if c is None else (h[None], c[None])


def unpack_state(state: Any) -> tuple[Any, Any]:
    """The layer's form as (N, H) arrays h and c or None."""
    return (state[0][0], state[1][0]) if isinstance(state, tuple) else (state[0], None)


def one(problem: Problem, replicate: int, dtype: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and incoming gradients of one replicate, in the dtype."""
    return tuple(
        {name: None if a is None else cast(a[replicate], dtype) for name, a in arrays.items()}
        for arrays in (problem.inputs, problem.upstream)
    )


def run_forward(cell: str, inputs: dict[str, Any], dtype: Any) -> tuple[Any, Any, Any]:
    """Inference: y (T, N, H), h_n (N, H), c_n (N, H) or None."""
    layer = layer_with(cell, inputs, dtype)
    y, state = layer(inputs["x"], pack_state(inputs["h0"], inputs["c0"]))
    return y, *unpack_state(state)


def run_training(cell: str, inputs: dict[str, Any], upstream: dict[str, Any], dtype: Any) -> tuple[Any, dict[str, Any]]:
    """Forward and backward: (y, h_n, c_n), and the gradients by the names of the inputs, None where there is none."""
    layer = layer_with(cell, inputs, dtype)
    y, state, tape = layer.forward(inputs["x"], pack_state(inputs["h0"], inputs["c0"]))
    grads = layer.backward(tape, upstream["dy"], pack_state(upstream["dh_n"], upstream["dc_n"]))
    return (y, *unpack_state(state)), named_gradients(grads)


def named_gradients(grads: Any) -> dict[str, Any]:
    dh0, dc0 = unpack_state(grads.state)
    named = {ours: grads.params.get(theirs) for ours, theirs in PARAMETERS.items()}
    return {"x": grads.x, "h0": dh0, "c0": dc0, **named}


def stacked(case: Case, run: Any) -> list[Any]:
    """``run(replicate)`` for every replicate of a case; each position of the results stacked along a leading axis."""
    results = [run(r) for r in range(case.replicates)]
    return [None if column[0] is None else np.stack(column) for column in zip(*results, strict=True)]


def random_problem(
    rng: Any,
    cell: str,
    T: int,
    N: int,
    I: int,  # noqa: E741
    H: int,
    dtype: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and incoming gradients for properties that need no oracle."""
    rows, lstm = GATES[cell] * H, cell == "lstm"

    def normal(*shape: int, scale: float = 1.0) -> Any:
        return (rng.standard_normal(shape) * scale).astype(dtype)

    inputs = {
        "x": normal(T, N, I),
        "h0": normal(N, H),
        "c0": normal(N, H) if lstm else None,
        "w_ih": normal(rows, I, scale=0.6 * I**-0.5),
        "w_hh": normal(rows, H, scale=0.6 * H**-0.5),
        "b_ih": normal(rows, scale=0.3),
        "b_hh": normal(rows, scale=0.3),
    }
    return inputs, {"dy": normal(T, N, H), "dh_n": normal(N, H), "dc_n": normal(N, H) if lstm else None}


def command(*arguments: str) -> list[str]:
    """A fresh interpreter of the same environment."""
    return [sys.executable, *arguments]


def environment(changes: dict[str, str] | None = None) -> dict[str, str]:
    """This process' environment without the variables that rnnfast reads, and with ``changes``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RNNFAST_")}
    return {**kept, **(changes or {})}


def run(*arguments: str, env: dict[str, str] | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter with these arguments and wait for it."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=timeout, env=environment(env), check=False
    )


def python(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program given as text."""
    return run("-c", code, *arguments, **options)
