"""Forward of every cell, float type and instruction set against the NumPy reference, at sizes round every tile edge."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
from cases import BATCHES, CELLS, SAMPLED, Case, expected_forward, problem
from compare import assert_close, assert_same_bits
from harness import cast, layer_with, one, pack_state, run_forward, stacked, unpack_state

by_cell = pytest.mark.parametrize("cell", CELLS)


def check_forward(case: Case, dtype: np.dtype, run=run_forward) -> None:
    got = stacked(case, lambda r: run(case.cell, one(problem(case), r, dtype)[0], dtype))
    tolerance = tolerances.forward(dtype, case.I, case.H)
    for name, value, want in zip(("y", "h_n", "c_n"), got, expected_forward(case), strict=True):
        assert (value is None) == (want is None), name
        if want is not None:
            assert value.dtype == dtype, name
            assert_close(value, want, tolerance, f"{case} {name}")


@pytest.mark.parametrize("case", SAMPLED, ids=str)
def test_forward_is_the_reference(case, dtype, isa):
    check_forward(case, dtype)


@by_cell
def test_forward_at_every_remainder_of_lanes_and_rows(cell, dtype, isa):
    """Every H and I up to 67 and every N up to 17: all remainders of 4, 8 and 16 lanes and of any tile's rows."""
    for k in range(67):
        # 29 is prime to 67, so that I and N run through all their values against every H.
        case = Case(cell, T=1 + k % 3, N=1 + k % 17, I=1 + 29 * k % 67, H=1 + k)
        check_forward(case, dtype)


@by_cell
@pytest.mark.parametrize("N", [1, 2, 5])
def test_forward_of_few_units_with_many_inputs(cell, N, dtype, isa):
    """One block of units, or two, the last of which is narrow only because there are 16 times as many inputs."""
    for H in (1, 3, 4, 6, 9, 12, 18, 29):
        check_forward(Case(cell, T=3, N=N, I=16 * H, H=H), dtype)


@by_cell
def test_forward_of_wide_layers(cell, dtype, isa):
    """H = 256 with float32 at the promised 1e-6: beyond every cache level that packing or chunks may depend on."""
    check_forward(Case(cell, T=6, N=7, I=128, H=256), dtype)


@by_cell
@pytest.mark.parametrize("N", [13, 33])
def test_forward_of_weights_beyond_the_caches(cell, N, dtype, isa):
    """Over 2 MB of an LSTM's weights: where five tiles of rows and more pass them, these fetch the next ones ahead."""
    check_forward(Case(cell, T=3, N=N, I=301, H=331), dtype)


@by_cell
@pytest.mark.parametrize("N", [4, 14, 29])
def test_forward_of_input_weights_beyond_the_caches(cell, N, dtype, isa):
    """Over 2 MB of them: few rows project a chunk of steps, more of them pass the weights in slices (AVX-512)."""
    check_forward(Case(cell, T=3, N=N, I=1100, H=501 if cell.startswith("rnn") else 171), dtype)


@by_cell
def test_training_forward_is_inference_bitwise(cell, dtype, isa):
    for case in SAMPLED:
        if case.cell == cell:
            inputs, _ = one(problem(case), 0, dtype)
            layer = layer_with(cell, inputs, dtype)
            state = pack_state(inputs["h0"], inputs["c0"])
            y, inferred = layer(inputs["x"], state)
            y_training, trained, _ = layer.forward(inputs["x"], state)
            assert_same_bits(y_training, y, f"{case} y")
            for got, want in zip(unpack_state(trained), unpack_state(inferred), strict=True):
                if want is not None:
                    assert_same_bits(got, want, f"{case} state")


@by_cell
def test_missing_state_is_zeros_bitwise(cell, dtype, isa):
    case = Case(cell, T=3, N=5, I=7, H=33)
    inputs, _ = one(problem(case), 0, dtype)
    layer = layer_with(cell, inputs, dtype)
    zeros = np.zeros((case.N, case.H), dtype)
    y, state = layer(inputs["x"])
    y_zeros, state_zeros = layer(inputs["x"], pack_state(zeros, zeros if cell == "lstm" else None))
    assert_same_bits(y, y_zeros, "y")
    assert_same_bits(unpack_state(state)[0], unpack_state(state_zeros)[0], "h_n")


@by_cell
def test_last_output_is_the_final_state_bitwise(cell, dtype, isa):
    inputs, _ = one(problem(Case(cell, T=4, N=6, I=5, H=19)), 0, dtype)
    y, h_n, _ = run_forward(cell, inputs, dtype)
    assert_same_bits(h_n, y[-1], "h_n")


@by_cell
def test_no_steps(cell, dtype, isa):
    case = Case(cell, T=2, N=3, I=4, H=9)
    inputs, _ = one(problem(case), 0, dtype)
    y, h_n, c_n = run_forward(cell, {**inputs, "x": inputs["x"][:0]}, dtype)
    assert y.shape == (0, 3, 9) and y.dtype == dtype
    assert_same_bits(h_n, inputs["h0"], "h_n")
    if c_n is not None:
        assert_same_bits(c_n, inputs["c0"], "c_n")


@by_cell
@pytest.mark.parametrize("T", [0, 3])
def test_no_rows(cell, T, dtype, isa):
    inputs, _ = one(problem(Case(cell, T=3, N=2, I=4, H=9)), 0, dtype)
    empty = {**inputs, "x": inputs["x"][:T, :0], "h0": inputs["h0"][:0]}
    empty["c0"] = None if inputs["c0"] is None else inputs["c0"][:0]
    y, h_n, _ = run_forward(cell, empty, dtype)
    assert y.shape == (T, 0, 9) and h_n.shape == (0, 9)


@by_cell
def test_comparison_sees_one_part_in_a_thousand_in_one_gate(cell, dtype):
    """The tolerances have teeth: one row of one gate's weights off by 0.1 % is found in every cell and float type."""
    case = Case(cell, T=3, N=BATCHES[-1], I=16, H=16)
    inputs = {name: cast(a, np.float64) for name, a in problem(case).inputs.items()}
    wrong = inputs["w_hh"].copy()
    wrong[:, (case.gates - 1) * case.H] *= 1.001
    y, _, _ = reference.forward(cell, {**inputs, "w_hh": wrong})
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(y.astype(dtype), expected_forward(case)[0], tolerances.forward(dtype, case.I, case.H), "y")
