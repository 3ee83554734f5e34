"""Sequences that begin with a hidden state of zeros, of which the first step makes no products."""

from __future__ import annotations

import numpy as np
import pytest
from compare import assert_same_bits
from problems import KINDS, assert_all_same_bits, cast, check, layer_of, problem, rows_of, train
from variants import Spec

by_cell = pytest.mark.parametrize("cell", KINDS)


@pytest.mark.parametrize("sizes", [(3, 7), (16, 40), (33, 20)], ids=lambda sizes: "-".join(map(str, sizes)))
@pytest.mark.parametrize("T, N", [(1, 1), (1, 4), (1, 5), (1, 16), (1, 70), (2, 3), (3, 20), (12, 2)])
@by_cell
def test_results_and_gradients_are_the_reference(cell, T, N, sizes, dtype, isa):
    check(Spec(cell, *sizes), T, N, dtype, hidden_state=False)


@pytest.mark.parametrize("T, N", [(1, 600), (2, 300), (2, 600)])
@by_cell
def test_of_more_rows_than_weight_gradients_sum_at_once(cell, T, N, dtype, isa):
    check(Spec(cell, 3, 20), T, N, dtype, hidden_state=False)


@pytest.mark.parametrize("inputs", [5, 530])
@by_cell
def test_of_weights_beyond_the_caches(cell, inputs, dtype, isa):
    """Over 2 MB, which some tiles of rows pass slice by slice (AVX-512): the first step has no slice of w_hh."""
    check(Spec(cell, inputs, 740 if cell == "rnn" else 420), 2, 14, dtype, hidden_state=False)


@by_cell
def test_of_sequences_of_different_lengths(cell, dtype, isa):
    check(Spec(cell, 5, 18), 3, 6, dtype, hidden_state=False, lengths=np.array([1, 3, 0, 2, 1, 1]))


@pytest.mark.parametrize("T, N", [(1, 2), (1, 16), (1, 65), (4, 6)])
@by_cell
def test_zeros_and_no_state_give_the_same_bits(cell, T, N, dtype, isa, rng):
    spec = Spec(cell, 9, 36)
    inputs, upstream = (cast(arrays, dtype) for arrays in problem(rng, spec, T, N))
    layer = layer_of(spec, inputs, dtype)
    runs = []
    for state in (None, 0.0, -0.0):
        states = {name: inputs[name] for name in ("h0", "c0")}
        for name, array in states.items():
            states[name] = None if array is None or state is None else np.full_like(array, state)
        runs.append(train(layer, spec, {**inputs, **states}, upstream))
    for run in runs[1:]:
        assert_all_same_bits(run, runs[0])


@by_cell
def test_a_sequence_that_begins_with_zeros_gives_its_bits_beside_others_that_do_not(cell, dtype, isa, rng):
    spec = Spec(cell, 9, 36)
    inputs, upstream = (cast(arrays, dtype) for arrays in problem(rng, spec, 3, 5))
    inputs["h0"][0, 0] = 0
    layer = layer_of(spec, inputs, dtype)
    together = train(layer, spec, inputs, upstream)
    alone = train(layer, spec, rows_of(inputs, [0]), rows_of(upstream, [0]))
    for name in ("y", "dx", "dh0"):
        assert_same_bits(np.ascontiguousarray(together[name][:, :1]), alone[name], name)


@by_cell
def test_one_step_from_zeros_teaches_the_recurrent_weights_nothing(cell, dtype, rng):
    """And leaves no number of an earlier call in their gradient."""
    layer = KINDS[cell](4, 24, dtype=dtype, seed=0)
    for N in (2, 30, 80):
        y, _, tape = layer.forward(rng.standard_normal((1, N, 4)).astype(dtype))
        grads = layer.backward(tape, np.ones_like(y))
        assert not grads.params["weight_hh_l0"].any()
        assert grads.params["weight_ih_l0"].any() and grads.params["bias_hh_l0"].any()
