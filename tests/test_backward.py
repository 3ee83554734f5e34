"""Every gradient of every cell, float type and instruction set against the complex-step derivative of the reference.

Random non-zero initial states and incoming gradients for y, h_n and c_n always. Narrow layers are compared number by
number. For wide ones the full gradient would take the oracle minutes; its projection on random directions is compared.
"""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from cases import (
    CELLS,
    SAMPLED,
    Case,
    directions,
    expected_directional,
    expected_gradients,
    problem,
    samples_directions,
)
from compare import assert_close, assert_same_bits
from harness import layer_with, named_gradients, one, pack_state, run_training, stacked

by_cell = pytest.mark.parametrize("cell", CELLS)
SMALL = [Case(cell, T=5, N=3, I=4, H=7) for cell in CELLS]


def all_gradients(case: Case, dtype: np.dtype) -> dict:
    """Gradients of all replicates, each (R, *shape)."""
    names = tuple(problem(case).inputs)

    def run(replicate: int) -> list:
        _, grads = run_training(case.cell, *one(problem(case), replicate, dtype), dtype)
        return [grads[name] for name in names]

    return dict(zip(names, stacked(case, run), strict=True))


def check_full(case: Case, dtype: np.dtype) -> None:
    tolerance = tolerances.gradient(dtype, case.T, case.N, case.I, case.H, case.gates)
    got = all_gradients(case, dtype)
    for name, want in expected_gradients(case).items():
        assert (got[name] is None) == (want is None), name
        if want is not None:
            assert got[name].dtype == dtype, name
            assert_close(got[name], want, tolerance, f"{case} d{name}")


def check_directional(case: Case, dtype: np.dtype) -> None:
    tolerance = tolerances.DIRECTIONAL * tolerances.gradient(dtype, case.T, case.N, case.I, case.H, case.gates)
    got = all_gradients(case, dtype)
    for name, want in expected_directional(case).items():
        vectors = directions(case)[name]
        axes = tuple(range(2, vectors.ndim + 1))
        projected = (vectors[:, None] * got[name][None].astype(np.float64)).sum(axis=axes)
        # <g, v> of a normal v has the size of ||g||, the scale that a norm-relative error is relative to.
        scale = np.sqrt(np.mean(np.sum(np.square(got[name], dtype=np.float64), axis=tuple(range(1, got[name].ndim)))))
        error = np.sqrt(np.mean((projected - want) ** 2)) / scale
        assert error <= tolerance, (
            f"{case} d{name} along {len(vectors)} directions: error {error:.3g} > {tolerance:.3g}"
        )


@pytest.mark.parametrize("case", SAMPLED, ids=str)
def test_backward_is_the_complex_step_derivative(case, dtype, isa):
    (check_directional if samples_directions(case) else check_full)(case, dtype)


@by_cell
def test_backward_of_wide_layers(cell, dtype, isa):
    check_directional(Case(cell, T=6, N=7, I=128, H=256), dtype)


@by_cell
@pytest.mark.parametrize("N", [7, 14])
def test_backward_of_layers_that_do_not_fit_a_cache(cell, N, dtype, isa):
    """Over 2 MB of recurrent weights, which more than twelve rows pass in slices (AVX-512), and no number of inputs or
    units that fills the last tile."""
    check_directional(Case(cell, T=2, N=N, I=38, H=1030 if cell.startswith("rnn") else 427), dtype)


@by_cell
def test_backward_of_inputs_that_do_not_fit_a_cache(cell, dtype, isa):
    """Over 2 MB of their weights, and so many rows that their weight gradients take the inputs in parts."""
    check_directional(Case(cell, T=20, N=27, I=1100, H=501 if cell.startswith("rnn") else 171), dtype)


@by_cell
def test_backward_of_a_long_batch(cell, dtype, isa):
    """More rows of x than any chunk over which weight gradients are summed."""
    check_directional(Case(cell, T=70, N=33, I=3, H=17), dtype)


@pytest.mark.parametrize("case", SMALL, ids=str)
@pytest.mark.parametrize("given", ["dy", "dh_n", "dc_n", "none"])
def test_missing_incoming_gradients_are_zeros_bitwise(case, given, dtype, isa):
    if given == "dc_n" and case.cell != "lstm":
        pytest.skip("only an LSTM has a cell state")
    inputs, upstream = one(problem(case), 0, dtype)
    layer = layer_with(case.cell, inputs, dtype)
    state = pack_state(inputs["h0"], inputs["c0"])
    zeroed = {name: None if a is None else a * (name == given) for name, a in upstream.items()}
    dstate_zeroed = pack_state(zeroed["dh_n"], zeroed["dc_n"])
    dy = upstream["dy"] if given == "dy" else None
    dstate = dstate_zeroed if given in ("dh_n", "dc_n") else None
    tapes = [layer.forward(inputs["x"], state)[2] for _ in range(2)]
    got = named_gradients(layer.backward(tapes[0], dy, dstate))
    want = named_gradients(layer.backward(tapes[1], zeroed["dy"], dstate_zeroed))
    for name, value in want.items():
        if value is not None:
            assert np.array_equal(got[name], value), name
            assert value.any() == (given != "none"), name


@by_cell
def test_no_steps(cell, dtype, isa):
    """The initial state is the final one: its gradient passes through, everything else gets zero."""
    inputs, upstream = one(problem(Case(cell, T=2, N=3, I=4, H=9)), 0, dtype)
    _, grads = run_training(cell, {**inputs, "x": inputs["x"][:0]}, {**upstream, "dy": upstream["dy"][:0]}, dtype)
    assert grads["x"].shape == (0, 3, 4)
    assert_same_bits(grads["h0"], upstream["dh_n"], "dh0")
    if cell == "lstm":
        assert_same_bits(grads["c0"], upstream["dc_n"], "dc0")
    for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
        assert grads[name].shape == inputs[name].shape and not grads[name].any(), name


@by_cell
@pytest.mark.parametrize("T", [0, 3])
def test_no_rows(cell, T, dtype, isa):
    inputs, upstream = one(problem(Case(cell, T=3, N=2, I=4, H=9)), 0, dtype)
    inputs["x"], upstream["dy"] = inputs["x"][:T, :0], upstream["dy"][:T, :0]
    for arrays in (inputs, upstream):
        for name in ("h0", "c0", "dh_n", "dc_n"):
            if arrays.get(name) is not None:
                arrays[name] = arrays[name][:0]
    _, grads = run_training(cell, inputs, upstream, dtype)
    assert grads["x"].shape == (T, 0, 4) and grads["h0"].shape == (0, 9)
    for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
        assert grads[name].shape == inputs[name].shape and not grads[name].any(), name


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_keep_allows_a_second_backward_with_the_same_bits(case, dtype, isa):
    inputs, upstream = one(problem(case), 0, dtype)
    layer = layer_with(case.cell, inputs, dtype)
    _, _, tape = layer.forward(inputs["x"], pack_state(inputs["h0"], inputs["c0"]))
    dstate = pack_state(upstream["dh_n"], upstream["dc_n"])
    first = named_gradients(layer.backward(tape, upstream["dy"], dstate, keep=True))
    first = {name: None if a is None else a.copy() for name, a in first.items()}
    again = named_gradients(layer.backward(tape, upstream["dy"], dstate, keep=True))
    last = named_gradients(layer.backward(tape, upstream["dy"], dstate))
    for name, want in first.items():
        if want is not None:
            assert_same_bits(again[name], want, name)
            assert_same_bits(last[name], want, name)
    with pytest.raises(ValueError, match="tape"):
        layer.backward(tape, upstream["dy"], dstate)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_several_tapes_alive_do_not_disturb_each_other(case, dtype, isa):
    inputs, upstream = one(problem(case), 0, dtype)
    layer = layer_with(case.cell, inputs, dtype)
    state, dstate = pack_state(inputs["h0"], inputs["c0"]), pack_state(upstream["dh_n"], upstream["dc_n"])
    xs = [inputs["x"] * factor for factor in (1, 2, -1)]
    alone = [named_gradients(layer.backward(layer.forward(x, state)[2], upstream["dy"], dstate)) for x in xs]
    tapes = [layer.forward(x, state)[2] for x in xs]
    for k in (1, 2, 0):
        got = named_gradients(layer.backward(tapes[k], upstream["dy"], dstate))
        for name, want in alone[k].items():
            if want is not None:
                assert_same_bits(got[name], want, f"tape {k} {name}")


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_gradients_are_new_arrays_of_each_call(case, dtype, isa):
    inputs, upstream = one(problem(case), 0, dtype)
    layer = layer_with(case.cell, inputs, dtype)
    state = pack_state(inputs["h0"], inputs["c0"])
    first = named_gradients(layer.backward(layer.forward(inputs["x"], state)[2], upstream["dy"]))
    kept = {name: None if a is None else a.copy() for name, a in first.items()}
    layer.backward(layer.forward(2 * inputs["x"], state)[2], upstream["dy"])
    for name, want in kept.items():
        if want is not None:
            assert_same_bits(first[name], want, name)
