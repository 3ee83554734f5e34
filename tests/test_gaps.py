"""Paths through the kernels that only unusual sizes take: each is here because a mutant on it (mutants.py) lived on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import rnnfast as rf
import tolerances
from cases import CELLS, Case
from compare import assert_close, assert_same_bits
from harness import PARAMETERS, layer_with, named_gradients, pack_state, random_problem, unpack_state
from reference import GATES, forward
from test_backward import check_directional

by_cell = pytest.mark.parametrize("cell", CELLS)


@by_cell
@pytest.mark.parametrize("T, N", [(2, 600), (514, 1)])
def test_weight_gradients_of_more_rows_than_are_summed_at_once(cell, T, N, dtype, isa):
    """Steps of a batch so large that its rows alone are cut into pieces, the last of them not full; and a sequence so
    long that two rows, which are summed without packing, are left over."""
    check_directional(Case(cell, T=T, N=N, I=3, H=5), dtype)


# Multiply-adds of one call beyond which the bindings cut it, to look for Ctrl-C in between: 1e9.
LONG_CALL = 1.3e9


@by_cell
def test_a_call_long_enough_to_be_cut_for_signals_gives_the_bits_of_short_ones(cell, dtype, rng):
    N, I, H, pieces = 16, 8, 128, 5  # noqa: E741
    T = int(LONG_CALL / (GATES[cell] * N * H * (I + H)))
    inputs, upstream = random_problem(rng, cell, T, N, I, H, dtype)
    layer, state = layer_with(cell, inputs, dtype), pack_state(inputs["h0"], inputs["c0"])
    dstate = pack_state(upstream["dh_n"], upstream["dc_n"])
    y, final, tape = layer.forward(inputs["x"], state)
    whole = named_gradients(layer.backward(tape, upstream["dy"], dstate))
    inferred, inferred_final = layer(inputs["x"], state)

    cuts = list(itertools.pairwise(np.linspace(0, T, pieces + 1).astype(int)))
    tapes = []
    for a, b in cuts:
        piece, state, tape = layer.forward(inputs["x"][a:b], state)
        tapes.append(tape)
        assert_same_bits(y[a:b], piece, f"y of steps {a} to {b}")
        assert_same_bits(inferred[a:b], piece, f"y of inference of steps {a} to {b}")
    for got, want in ((final, state), (inferred_final, state)):
        for one, other in zip(unpack_state(got), unpack_state(want), strict=True):
            if other is not None:
                assert_same_bits(one, other, "final state")

    total = dict.fromkeys(PARAMETERS, 0.0)
    for (a, b), tape in zip(reversed(cuts), reversed(tapes), strict=True):
        result = layer.backward(tape, upstream["dy"][a:b], dstate)
        dstate, part = result.state, named_gradients(result)
        assert_same_bits(whole["x"][a:b], part["x"], f"dx of steps {a} to {b}")
        total = {name: total[name] + part[name].astype(np.float64) for name in PARAMETERS}
    for got, want in zip(unpack_state(pack_state(whole["h0"], whole["c0"])), unpack_state(dstate), strict=True):
        if want is not None:
            assert_same_bits(got, want, "gradient of the initial state")
    tolerance = tolerances.REORDERED * tolerances.gradient(dtype, T, N, I, H, GATES[cell])
    for name, want in total.items():
        assert_close(whole[name].astype(np.float64), want, tolerance, f"d{name}")


def test_a_long_backward_is_cut_where_sums_are_cut_anyway(rng):
    """158 steps of this layer are as many as pass between two looks for Ctrl-C, and 512 rows are summed at once."""
    T, N, I, H = 1400, 1, 512, 512  # noqa: E741
    inputs, upstream = random_problem(rng, "lstm", T, N, I, H, np.float32)
    layer, state = layer_with("lstm", inputs, np.float32), pack_state(inputs["h0"], inputs["c0"])
    whole = layer.backward(layer.forward(inputs["x"], state)[2], upstream["dy"])
    pieces = layer.backward(layer.forward(inputs["x"], state, checkpoint=512)[2], upstream["dy"])
    assert_same_bits(whole.flat, pieces.flat, "gradients of the parameters")


@pytest.mark.parametrize("options", [{"num_layers": 4}, {"bidirectional": True}], ids=str)
def test_layers_and_directions_with_a_thread_each_give_the_bits_of_one_thread(options, rng, restore_threads):
    """One sequence, long enough for threads to be worth waking: layers run behind each other, directions beside."""
    layer = rf.LSTM(64, 64, seed=1, **options)
    x = rng.standard_normal((600, 1, 64), dtype=np.float32)
    dy = rng.standard_normal((600, 1, 64 * (1 + layer.bidirectional)), dtype=np.float32)

    def run():
        y, state, tape = layer.forward(x)
        grads = layer.backward(tape, dy)
        return [layer(x)[0], y, *state, grads.x, *grads.state, grads.flat]

    rf.set_num_threads(1)
    wanted = run()
    rf.set_num_threads(2)
    for _ in range(5):
        for number, (got, want) in enumerate(zip(run(), wanted, strict=True)):
            assert_same_bits(got, want, f"result {number}")


@pytest.mark.parametrize("N", [1, 2, 3, 4, 5, 15, 32, 33, 64])
@pytest.mark.parametrize("I, H", [(1, 1), (17, 15), (16, 16), (40, 70), (300, 260)])
@pytest.mark.parametrize("cell", CELLS)
def test_a_single_step_gives_the_bits_of_packed_weights(cell, I, H, N, dtype, isa, rng):  # noqa: E741
    """Weights that have just changed are used as they are; used a second time, they are packed."""
    inputs, upstream = random_problem(rng, cell, 1, N, I, H, dtype)
    layer = layer_with(cell, inputs, dtype)
    state = pack_state(inputs["h0"], inputs.get("c0"))
    dstate = pack_state(upstream["dh_n"], upstream.get("dc_n"))
    results = []
    for _ in range(2):
        y, last, tape = layer.forward(inputs["x"], state)
        grads = layer.backward(tape, upstream["dy"], dstate)
        parts = [*last, *grads.state] if isinstance(last, tuple) else [last, grads.state]
        results.append([y, *parts, grads.x, grads.flat])
    for number, (unpacked, packed) in enumerate(zip(*results, strict=True)):
        assert_same_bits(np.ascontiguousarray(unpacked), np.ascontiguousarray(packed), f"result {number}")


@pytest.mark.parametrize("N", [*range(1, 10), 12, 13, 16, 25])
@pytest.mark.parametrize("I, H", [(64, 128), (65, 128), (61, 139)])
@by_cell
def test_weights_of_any_packing_give_the_reference_whatever_the_number_of_rows(cell, I, H, N, dtype, isa, rng):  # noqa: E741
    """Four gates of 192 inputs and units are what AVX2 packs in one part, more it packs in two. Rows are cut into tiles
    differently for either, and a row alone has the bits of the same row among others."""
    inputs, _ = random_problem(rng, cell, 2, N, I, H, dtype)
    layer, state = layer_with(cell, inputs, dtype), pack_state(inputs["h0"], inputs["c0"])
    y, last = layer(inputs["x"], state)
    wide = {name: None if a is None else a.astype(np.float64) for name, a in inputs.items()}
    for got, want in zip((y, *unpack_state(last)), forward(cell, wide), strict=True):
        if want is not None:
            assert_close(got, want, tolerances.forward(dtype, I, H), "forward")
    alone = pack_state(*(None if a is None else a[-1:] for a in (inputs["h0"], inputs["c0"])))
    assert_same_bits(layer(inputs["x"][:, -1:], alone)[0], y[:, -1:], "the last row alone")
    assert_same_bits(layer.forward(inputs["x"], state)[0], y, "y of training")


@pytest.mark.parametrize("H", [34, 36, 40])
@by_cell
def test_units_that_share_registers_do_not_mix_when_a_state_is_infinite(cell, H, dtype, isa, rng):
    """The last units of these sizes are so few that all their gates stand side by side; zeros fill what is left."""
    T, N, I = 2, 7, 3  # noqa: E741
    inputs, _ = random_problem(rng, cell, T, N, I, H, dtype)
    inputs["h0"][0, 5] = np.inf
    inputs["h0"][1, H - 1] = -np.inf
    layer = layer_with(cell, inputs, dtype)
    y, _ = layer(inputs["x"], pack_state(inputs["h0"], inputs["c0"]))
    with np.errstate(all="ignore"):
        want, _, _ = forward(cell, {name: None if a is None else a.astype(np.float64) for name, a in inputs.items()})
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-5)  # NaN where NaN is wanted, and only there


@pytest.mark.parametrize("cell", CELLS)
def test_a_single_step_on_two_threads_gives_the_bits_of_one(cell, rng, restore_threads):
    inputs, upstream = random_problem(rng, cell, 1, 3, 700, 600, np.float32)
    state = pack_state(inputs["h0"], inputs.get("c0"))
    results = []
    for threads in (1, 2, 3):
        rf.set_num_threads(threads)
        layer = layer_with(cell, inputs, np.float32)
        y, _, tape = layer.forward(inputs["x"], state)
        grads = layer.backward(tape, upstream["dy"])
        results.append([y, grads.x, grads.flat])
    for result in results[1:]:
        for number, (got, want) in enumerate(zip(result, results[0], strict=True)):
            assert_same_bits(np.ascontiguousarray(got), np.ascontiguousarray(want), f"result {number}")
