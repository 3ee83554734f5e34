"""JAX: the layer as a scan, compiled; input products of all steps before it, as in the layers of its libraries."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import Case
from rnnfast.cli.workload import LAST_STATES, STATE_GRADIENTS, Answer, Call, Problem, by_name

jax.config.update("jax_enable_x64", True)
# The threads of a process, fixed when JAX makes its first array.
_threads = 0


def version() -> str:
    return str(jax.__version__)


def lacks(case: Case) -> str:
    if _threads in (0, case.threads):
        return ""
    return f"runs with {_threads} thread{'s' * (_threads > 1)} in this process; ask for one number of threads at a time"


def prepare(problem: Problem, case: Case) -> tuple[Call, Answer]:
    global _threads
    if _threads == 0:
        _threads = case.threads
        os.environ["NPROC"] = str(_threads)
    parameters = {name: jnp.asarray(array) for name, array in problem.parameters.items()}
    x, dy, state = jnp.asarray(problem.x), jnp.asarray(problem.dy), tuple(jnp.asarray(s[0]) for s in problem.state)
    run = _RUNS[problem.cell]

    if case.mode == "inference":
        infer = jax.jit(run)
        return lambda: jax.block_until_ready(infer(parameters, x, state)), lambda result: _outputs(*result)

    if case.mode == "step":
        advance = jax.jit(run)
        carried = state

        def step() -> Any:
            nonlocal carried
            y, carried = jax.block_until_ready(advance(parameters, x, carried))
            return y

        return step, lambda y: {"y": np.asarray(y)}

    @jax.jit
    def train(parameters: Any, x: Any, state: Any, dy: Any) -> Any:
        y, pull_back, last = jax.vjp(run, parameters, x, state, has_aux=True)
        return y, last, pull_back(dy)

    def answer(result: Any) -> dict[str, Any]:
        y, last, (grads, dx, dstate) = result
        of_parameters = {name: np.asarray(g) for name, g in grads.items()}
        return {**_outputs(y, last), "dx": np.asarray(dx), **_states(STATE_GRADIENTS, dstate), **of_parameters}

    return lambda: jax.block_until_ready(train(parameters, x, state, dy)), answer


def _outputs(y: Any, state: Any) -> dict[str, Any]:
    return {"y": np.asarray(y), **_states(LAST_STATES, state)}


def _states(names: tuple[str, ...], state: Any) -> dict[str, Any]:
    return {name: np.asarray(part)[None] for name, part in by_name(names, state).items()}


def _scan(cell: Any) -> Any:
    """A layer of cell(input product, recurrent product, state) -> state."""

    def run(p: Any, x: Any, state: Any) -> Any:
        inputs = x @ p["weight_ih_l0"].T + p["bias_ih_l0"]
        w_hh, b_hh = p["weight_hh_l0"].T, p["bias_hh_l0"]

        def step(state: Any, a: Any) -> Any:
            state = cell(a, state[0] @ w_hh + b_hh, state)
            return state, state[0]

        last, y = jax.lax.scan(step, state, inputs)
        return y, last

    return run


def _rnn(a: Any, q: Any, state: Any) -> Any:
    return (jnp.tanh(a + q),)


def _lstm(a: Any, q: Any, state: Any) -> Any:
    i, f, g, o = jnp.split(a + q, 4, axis=-1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(a: Any, q: Any, state: Any) -> Any:
    (ar, az, an), (qr, qz, qn) = jnp.split(a, 3, axis=-1), jnp.split(q, 3, axis=-1)
    r, z = jax.nn.sigmoid(ar + qr), jax.nn.sigmoid(az + qz)
    n = jnp.tanh(an + r * qn)
    return ((1 - z) * n + z * state[0],)


_RUNS = {"rnn": _scan(_rnn), "lstm": _scan(_lstm), "gru": _scan(_gru)}
