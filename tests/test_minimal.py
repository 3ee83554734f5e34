"""The file to run if only one is run: every cell and float type forward, backward, streamed and on two threads."""

from __future__ import annotations

import numpy as np
import pytest
import rnnfast as rf
import tolerances
from cases import CELLS, Case, expected_forward, expected_gradients, problem
from compare import assert_close, assert_same_bits
from harness import layer_with, one, pack_state, run_training


@pytest.mark.parametrize("cell", CELLS)
def test_layer(cell, dtype, isa, restore_threads):
    # Several rows of a tile and a remainder, several vectors and a tail, and I != H; one problem, so no replicates.
    case = Case(cell, T=3, N=7, I=5, H=19)
    inputs, upstream = one(problem(case), 0, dtype)
    rf.set_num_threads(1)
    (y, h_n, c_n), grads = run_training(cell, inputs, upstream, dtype)
    for name, got, want in zip(("y", "h_n", "c_n"), (y, h_n, c_n), expected_forward(case), strict=True):
        if want is not None:
            assert_close(got, want[0], tolerances.forward(dtype, case.I, case.H), name)
    for name, want in expected_gradients(case).items():
        if want is not None:
            tolerance = tolerances.gradient(dtype, case.T, case.N, case.I, case.H, case.gates)
            assert_close(grads[name], want[0], tolerance, f"d{name}")

    rf.set_num_threads(2)
    layer, state = layer_with(cell, inputs, dtype), pack_state(inputs["h0"], inputs["c0"])
    assert_same_bits(layer(inputs["x"], state)[0], y, "y on two threads")
    stream = layer.stream(batch=case.N)
    stream.reset(state)
    assert_same_bits(np.stack([stream.step(x_t) for x_t in inputs["x"]]), y, "y step by step")
