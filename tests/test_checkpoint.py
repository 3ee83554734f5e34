"""Memory and chunks: a tape that keeps every k-th step gives the bits of one that keeps all, and chunks add up."""

from __future__ import annotations

import copy
import dataclasses
import gc
import itertools
import sys
import tracemalloc

import numpy as np
import pytest
import rnnfast as rf
import tolerances
from compare import assert_close, assert_same_bits
from harness import python
from problems import (
    assert_all_same_bits,
    cast,
    differentiate,
    label,
    layer_of,
    packed,
    problem,
    random_inputs,
    random_upstream,
    steps_of,
    trace,
    train,
    unpacked,
)
from variants import Spec

T, N, I, H = 23, 3, 4, 9  # noqa: E741

SPECS = [
    Spec("rnn", I, H),
    Spec("gru", I, H),
    Spec("lstm", I, H),
    Spec("lstm", I, H, proj_size=4),
    Spec("lstm", I, H, peephole=True, coupled=True, clip=1.0),
    Spec("lstm", I, H, layer_norm=True, zoneout=(0.2, 0.3), recurrent_dropout=0.3),
    Spec("gru", I, H, reset_after=False, learn_initial_state=True),
    Spec("gru", I, H, layer_norm=True, zoneout=0.2),
    Spec("gru", I, H, num_layers=2, bidirectional=True, dropout=0.3),
    Spec("lstm", I, H, num_layers=2, bidirectional=True, recurrent_dropout=0.3),
]
by_spec = pytest.mark.parametrize("spec", SPECS, ids=label)


def cast_problem(rng, spec, steps, batch, dtype, **how):
    return tuple(cast(arrays, dtype) for arrays in problem(rng, spec, steps, batch, **how))


@by_spec
@pytest.mark.parametrize("every", [True, 1, 2, 5, T - 1, T, 10 * T])
def test_checkpoints_change_no_bit(spec, every, dtype, rng):
    inputs, upstream = cast_problem(rng, spec, T, N, dtype)
    want = train(layer_of(spec, inputs, dtype, seed=1), spec, inputs, upstream)
    got = train(layer_of(spec, inputs, dtype, seed=1), spec, inputs, upstream, checkpoint=every)
    assert_all_same_bits(got, want)


@by_spec
@pytest.mark.parametrize("sizes", [(150, 9), (700, 1), (5, 300)], ids=str)
def test_checkpoints_change_no_bit_of_sums_over_many_rows(spec, sizes, rng):
    """Weight gradients are summed over fixed groups of rows: recomputing begins and ends between two of them."""
    steps, batch = sizes
    inputs, upstream = cast_problem(rng, spec, steps, batch, np.float32)
    for how in ({}, {"lengths": rng.integers(0, steps + 1, batch), "resets": rng.random((steps, batch)) < 0.02}):
        want = train(layer_of(spec, inputs, np.float32, seed=1), spec, inputs, upstream, **how)
        for every in (True, 1, 7):
            got = train(layer_of(spec, inputs, np.float32, seed=1), spec, inputs, upstream, checkpoint=every, **how)
            assert_all_same_bits(got, want, f"checkpoint={every}")


@by_spec
def test_checkpoints_change_no_bit_with_lengths_and_resets(spec, dtype, isa, rng):
    inputs, upstream = cast_problem(rng, spec, T, 6, dtype)
    how = {"lengths": np.array([23, 4, 0, 11, 23, 1]), "resets": rng.random((T, 6)) < 0.1}
    want = train(layer_of(spec, inputs, dtype, seed=1), spec, inputs, upstream, **how)
    for every in (True, 3):
        got = train(layer_of(spec, inputs, dtype, seed=1), spec, inputs, upstream, checkpoint=every, **how)
        assert_all_same_bits(got, want, f"checkpoint={every}")


@pytest.mark.parametrize("spec", [s for s in SPECS if s.cell == "lstm"], ids=label)
def test_gradients_of_cell_states_reach_recomputed_steps(spec, dtype, rng):
    inputs = cast(random_inputs(rng, spec, T, N), dtype)
    upstream = cast(random_upstream(rng, spec, T, N, cell_states=True), dtype)
    want = train(layer_of(spec, inputs, dtype, seed=1), spec, inputs, upstream)
    got = train(layer_of(spec, inputs, dtype, seed=1), spec, inputs, upstream, checkpoint=4)
    assert_all_same_bits(got, want)


@by_spec
def test_a_checkpointed_tape_may_be_kept(spec, rng):
    inputs, upstream = cast_problem(rng, spec, T, N, np.float32)
    layer = layer_of(spec, inputs, np.float32)
    _, tape = trace(layer, spec, inputs, checkpoint=True)
    first = copy.deepcopy(differentiate(layer, spec, tape, upstream, keep=True))
    assert_all_same_bits(differentiate(layer, spec, tape, upstream), first)
    with pytest.raises(ValueError, match="tape"):
        differentiate(layer, spec, tape, upstream)


@pytest.mark.parametrize("spec", [s for s in SPECS[:4] if s.cell != "rnn"], ids=label)
def test_a_long_tape_is_twenty_times_smaller(spec, rng):
    """About sqrt(T) = 63 of 4000 steps are kept; `test_tape_says_what_it_keeps` checks that the figure is true."""
    inputs = cast(random_inputs(rng, spec, 4000, 2), np.float32)
    layer = layer_of(spec, inputs, np.float32)
    _, whole = trace(layer, spec, inputs)
    _, sparse = trace(layer, spec, inputs, checkpoint=True)
    assert sparse.nbytes * 20 <= whole.nbytes


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self")
def test_memory_of_a_checkpointed_backward_stays_small():
    """The most memory that forward and backward hold at once, measured from outside."""
    code = """
import sys
import numpy as np, rnnfast as rf

def peak():
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1])

rf.set_num_threads(1)
layer = rf.LSTM(4, 128, seed=1)
x = np.zeros((1500, 16, 4), np.float32)
layer.backward(layer.forward(x[:40], checkpoint=True)[2])
before = peak()
y, _, tape = layer.forward(x, checkpoint=eval(sys.argv[1]))
layer.backward(tape, np.ones_like(y))
print(peak() - before)
"""
    whole, sparse = (int(python(code, every).stdout) for every in ("False", "True"))
    # i, f, g, o, c of all steps take 60 MB; y, dy and dx are there in both.
    assert sparse < whole - 40_000, (whole, sparse)


@by_spec
def test_sequences_without_any_step(spec, rng):
    inputs, _ = problem(rng, spec, T, N)
    layer = layer_of(spec, inputs, np.float64)
    gradients = []
    for checkpoint in (False, True):
        y, _, tape = layer.forward(inputs["x"], lengths=np.zeros(N, int), checkpoint=checkpoint)
        gradients.append(layer.backward(tape, np.ones_like(y)))
        assert not y.any() and not gradients[-1].x.any()
    assert_same_bits(gradients[1].flat, gradients[0].flat, "gradient")


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", [2], np.nan])
def test_wrong_checkpoints_are_refused(value, rng):
    layer = rf.LSTM(I, H)
    with pytest.raises((TypeError, ValueError), match="checkpoint"):
        layer.forward(np.zeros((T, N, I), np.float32), checkpoint=value)


# Chunks

ONE_WAY = [s for s in SPECS if not s.bidirectional and not (s.recurrent_dropout or s.zoneout or s.learn_initial_state)]
ONE_WAY += [dataclasses.replace(s, num_layers=2) for s in ONE_WAY[:3]]


@pytest.mark.parametrize("spec", ONE_WAY, ids=label)
@pytest.mark.parametrize("cuts", [(0, 1, T), (0, 5, 10, 15, 20, T), (0, 0, T - 1, T)], ids=str)
@pytest.mark.parametrize("checkpoint", [False, 3])
def test_chunks_with_carried_state_and_gradient_are_the_whole(spec, cuts, checkpoint, dtype, rng):
    """Backward over chunks from the last, each handing the gradient of its initial state to the one before."""
    inputs, upstream = cast_problem(rng, spec, T, N, dtype)
    layer = layer_of(spec, inputs, dtype)
    want = train(layer, spec, inputs, upstream)
    resets = np.zeros((T, N), bool)

    pieces = list(itertools.pairwise(cuts))
    state, tapes, y = {name: inputs[name] for name in ("h0", "c0")}, [], []
    for a, b in pieces:
        results, tape = trace(layer, spec, {"x": inputs["x"][a:b], **state}, checkpoint=checkpoint, resets=resets[a:b])
        state = {"h0": results["h_n"], "c0": results["c_n"]}
        tapes.append(tape)
        y.append(results["y"])
    assert_same_bits(np.concatenate(y), np.ascontiguousarray(want["y"]), "y")

    dstate = packed(spec, upstream["dh_n"], upstream["dc_n"])
    dx, totals = [], dict.fromkeys(spec.shapes(), 0.0)
    for (a, b), tape in zip(reversed(pieces), reversed(tapes), strict=True):
        grads = layer.backward(tape, steps_of(upstream, slice(a, b))["dy"], dstate)
        dstate = grads.state
        dx.append(grads.x)
        totals = {name: total + grads.params[name].astype(np.float64) for name, total in totals.items()}
    assert_same_bits(np.concatenate(dx[::-1]), np.ascontiguousarray(want["dx"]), "dx")
    dh0, dc0 = unpacked(spec, dstate)
    assert_all_same_bits({"dh0": dh0, "dc0": dc0}, want, names=("dh0", "dc0"))
    tolerance = tolerances.REORDERED * tolerances.variant(dtype, spec, T, N)
    for name, total in totals.items():
        assert_close(want[f"d{name}"].astype(np.float64), total, tolerance, name)


@pytest.mark.parametrize("how", ["dense", "ragged", "checkpoint"])
@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_tape_says_what_it_keeps(spec, how, rng):
    """As Python's own measurement of memory has it, which sees the arrays of NumPy: beyond x, y and the states."""
    steps, batch = 200, 8
    spec = dataclasses.replace(spec, hidden_size=32)
    inputs = cast(random_inputs(rng, spec, steps, batch), np.float32)
    layer = layer_of(spec, inputs, np.float32, seed=1)
    named = {"dense": {}, "ragged": {"lengths": rng.integers(1, steps, batch)}, "checkpoint": {"checkpoint": True}}[how]
    trace(layer, spec, inputs, **named)
    gc.collect()
    tracemalloc.start()
    try:
        results, tape = trace(layer, spec, inputs, **named)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - sum(a.nbytes for a in results.values() if a is not None)
    finally:
        tracemalloc.stop()
    small = 40_000  # Python objects, initial states, the order of a ragged batch
    assert abs(held - tape.nbytes) <= 0.05 * held + small, (held, tape.nbytes)
