"""The oracle itself: against scalar arithmetic written out by hand, against finite differences, and against PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
from cases import CELLS, DIRECTIONS, SAMPLED, Case, directions, problem
from compare import assert_close

SMALL = [Case(cell, T=3, N=2, I=3, H=4) for cell in CELLS]
by_case = pytest.mark.parametrize("case", SMALL, ids=str)


def scalar_forward(case: Case, inputs: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One number at a time with the math module, so that no broadcasting or splitting can be wrong in the same way."""

    def sigmoid(a: float) -> float:
        return 1 / (1 + math.exp(-a))

    H = case.H
    y = np.zeros((case.T, case.N, H))
    h = inputs["h0"].copy()
    c = np.zeros_like(h) if inputs["c0"] is None else inputs["c0"].copy()
    for t in range(case.T):
        for n in range(case.N):
            x_side = [
                sum(w * v for w, v in zip(inputs["w_ih"][row], inputs["x"][t, n], strict=True)) + inputs["b_ih"][row]
                for row in range(case.gates * H)
            ]
            h_side = [
                sum(w * v for w, v in zip(inputs["w_hh"][row], h[n], strict=True)) + inputs["b_hh"][row]
                for row in range(case.gates * H)
            ]
            a = [p + q for p, q in zip(x_side, h_side, strict=True)]
            for j in range(H):
                if case.cell == "rnn_tanh":
                    h[n, j] = math.tanh(a[j])
                elif case.cell == "rnn_relu":
                    h[n, j] = a[j] if a[j] > 0 else 0.0
                elif case.cell == "lstm":
                    c[n, j] = sigmoid(a[H + j]) * c[n, j] + sigmoid(a[j]) * math.tanh(a[2 * H + j])
                    h[n, j] = sigmoid(a[3 * H + j]) * math.tanh(c[n, j])
                else:
                    r, z = sigmoid(a[j]), sigmoid(a[H + j])
                    new = math.tanh(x_side[2 * H + j] + r * h_side[2 * H + j])
                    h[n, j] = (1 - z) * new + z * h[n, j]
            y[t, n] = h[n]
    return y, h, c


def first_replicate(arrays: dict) -> dict:
    return {name: None if a is None else a[0] for name, a in arrays.items()}


@by_case
def test_forward_is_the_scalar_equations(case):
    inputs = first_replicate(problem(case).inputs)
    y, h_n, c_n = scalar_forward(case, inputs)
    got_y, got_h, got_c = reference.forward(case.cell, inputs)
    assert_close(got_y, y, 1e-15, "y")
    assert_close(got_h, h_n, 1e-15, "h_n")
    if got_c is not None:
        assert_close(got_c, c_n, 1e-15, "c_n")


@by_case
def test_gradients_agree_with_central_differences(case):
    """Differences see only half the digits, but share nothing with complex arithmetic."""
    inputs, upstream = first_replicate(problem(case).inputs), first_replicate(problem(case).upstream)
    got = reference.gradients(case.cell, inputs, upstream)
    rng = np.random.default_rng(0)
    for name, value in inputs.items():
        if value is None:
            continue
        step = 1e-6 * rng.standard_normal(value.shape)
        up = reference.loss(case.cell, {**inputs, name: value + step}, upstream)
        down = reference.loss(case.cell, {**inputs, name: value - step}, upstream)
        want = (up - down) / 2
        assert (
            abs(np.vdot(got[name], step) - want) <= 1e-9 * np.linalg.norm(got[name]) * np.linalg.norm(step) + 1e-15
        ), name


@by_case
def test_directional_is_the_projected_gradient(case):
    """Both oracles on all replicates at once, and replicates alone."""
    p = problem(case)
    full = reference.gradients(case.cell, p.inputs, p.upstream)
    along = reference.directional(case.cell, p.inputs, p.upstream, directions(case))
    alone = reference.gradients(case.cell, first_replicate(p.inputs), first_replicate(p.upstream))
    for name, vectors in directions(case).items():
        assert along[name].shape == (DIRECTIONS, case.replicates)
        axes = tuple(range(2, vectors.ndim + 1))
        assert_close(along[name], (vectors[:, None] * full[name][None]).sum(axis=axes), 1e-13, name)
        assert_close(full[name][0], alone[name], 1e-15, name)


@by_case
def test_no_steps_and_no_rows_are_defined(case):
    inputs, upstream = first_replicate(problem(case).inputs), first_replicate(problem(case).upstream)
    none = {**inputs, "x": inputs["x"][:0]}
    y, h_n, _ = reference.forward(case.cell, none)
    assert y.shape == (0, case.N, case.H)
    assert np.array_equal(h_n, inputs["h0"])
    got = reference.gradients(case.cell, none, {**upstream, "dy": upstream["dy"][:0]})
    assert np.array_equal(got["h0"], upstream["dh_n"])
    assert not got["w_hh"].any() and got["w_hh"].shape == inputs["w_hh"].shape


def test_sampled_cases_cover_every_value():
    from cases import BATCHES, LENGTHS, WIDTHS

    for cell in CELLS:
        of_cell = [case for case in SAMPLED if case.cell == cell]
        assert {case.H for case in of_cell} == set(WIDTHS)
        assert {case.I for case in of_cell} == set(WIDTHS)
        assert {case.N for case in of_cell} == set(BATCHES)
        assert {case.T for case in of_cell} == set(LENGTHS)
        assert {case.bias for case in of_cell} == {True, False}


@pytest.mark.parametrize("case", [*SMALL, *(Case(cell, T=7, N=5, I=6, H=9, bias=False) for cell in CELLS)], ids=str)
def test_forward_and_gradients_agree_with_torch(case):
    torch = pytest.importorskip("torch", reason="PyTorch, the extra witness, is not installed")
    p = problem(case)
    inputs, upstream = first_replicate(p.inputs), first_replicate(p.upstream)
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(case.cell, torch.nn.RNN)
    options = {"nonlinearity": case.cell[4:]} if kind is torch.nn.RNN else {}
    layer = kind(case.I, case.H, bias=case.bias, dtype=torch.float64, **options)
    names = {"w_ih": "weight_ih_l0", "w_hh": "weight_hh_l0", "b_ih": "bias_ih_l0", "b_hh": "bias_hh_l0"}
    with torch.no_grad():
        for ours, theirs in names.items():
            if inputs[ours] is not None:
                getattr(layer, theirs).copy_(torch.tensor(inputs[ours]))
    leaf = {n: torch.tensor(inputs[n], requires_grad=True) for n in ("x", "h0", "c0") if inputs[n] is not None}
    lstm = case.cell == "lstm"
    y, state = layer(leaf["x"], (leaf["h0"][None], leaf["c0"][None]) if lstm else leaf["h0"][None])
    h_n = state[0][0] if lstm else state[0]
    total = (torch.tensor(upstream["dy"]) * y).sum() + (torch.tensor(upstream["dh_n"]) * h_n).sum()
    if lstm:
        total = total + (torch.tensor(upstream["dc_n"]) * state[1][0]).sum()
    total.backward()

    want = {name: value.grad.numpy() for name, value in leaf.items()}
    want |= {ours: getattr(layer, theirs).grad.numpy() for ours, theirs in names.items() if inputs[ours] is not None}
    got_y, got_h, got_c = reference.forward(case.cell, inputs)
    assert_close(got_y, y.detach().numpy(), 1e-14, "y")
    assert_close(got_h, h_n.detach().numpy(), 1e-14, "h_n")
    if lstm:
        assert_close(got_c, state[1][0].detach().numpy(), 1e-14, "c_n")
    got = reference.gradients(case.cell, inputs, upstream)
    for name, value in want.items():
        assert_close(got[name], value, 1e-13, name)
