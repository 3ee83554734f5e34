"""Layers, directions, projections, batch_first, single sequences: as torch.nn defines them and the reference does.

In float64 PyTorch judges all combinations to 1e-12: outputs, states and every gradient, from random states and incoming
gradients. `variants.py` judges both types and every instruction set. Dropout between layers is replayed from the masks
that the tape shows.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import pickle

import numpy as np
import pytest
import rnnfast as rf
import tolerances
from cases import WIDTHS
from compare import assert_close, assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    assert_all_same_bits,
    cast,
    check,
    differentiate,
    drawn_masks,
    infer,
    label,
    layer_of,
    packed,
    problem,
    trace,
    train,
    unpacked,
)
from torch_peer import torch_layer, torch_results
from variants import Spec

try:
    import torch
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch, the extra witness, is not installed")

T, N, I, H = 5, 3, 4, 7  # noqa: E741
CELLS = [
    Spec("rnn", I, H),
    Spec("rnn", I, H, nonlinearity="relu"),
    Spec("gru", I, H),
    Spec("lstm", I, H),
    Spec("lstm", I, H, proj_size=2),
    Spec("lstm", I, H, proj_size=5),
]
by_cell = pytest.mark.parametrize("cell", CELLS, ids=label)
STACKS = [
    dataclasses.replace(cell, num_layers=layers, bidirectional=both)
    for cell in CELLS
    for layers, both in itertools.product((1, 2, 3), (False, True))
]
DEEP = [dataclasses.replace(cell, num_layers=2, bidirectional=True) for cell in CELLS]


def agrees_with_torch(spec: Spec, T: int, N: int, rng, *, batch_first=False, unbatched=False, dropout=0.0) -> None:
    inputs, upstream = problem(rng, spec, T, 1 if unbatched else N)
    if unbatched:
        inputs |= {name: None if inputs[name] is None else inputs[name][:, 0] for name in ("x", "h0", "c0")}
        upstream = {name: None if a is None else a[:, 0] for name, a in upstream.items()}
    elif batch_first:
        inputs["x"] = np.ascontiguousarray(inputs["x"].swapaxes(0, 1))
        upstream["dy"] = np.ascontiguousarray(upstream["dy"].swapaxes(0, 1))
    theirs = torch_layer(torch, spec, batch_first=batch_first, dropout=dropout)
    ours = layer_of(spec, None, np.float64, batch_first=batch_first, dropout=dropout)
    # Their parameters go in as they are; the problem's come back out.
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert_same_bits(ours.state_dict()[name], value.numpy(), name)
    ours.load_state_dict({name: inputs[name] for name in spec.shapes()})
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state_dict().items()})

    want = torch_results(torch, theirs, spec, inputs, upstream)
    got = train(ours, spec, inputs, upstream)
    for name, value in want.items():
        if value is not None:
            assert_close(got[name], value, tolerances.TORCH, f"{label(spec)} {name}")
    assert_all_same_bits(infer(ours, spec, inputs), got, "inference", ("y", "h_n", "c_n"))


@needs_torch
@pytest.mark.parametrize("spec", STACKS, ids=label)
def test_all_combinations_agree_with_torch(spec, rng):
    for bias, batch_first, unbatched in itertools.product((True, False), repeat=3):
        agrees_with_torch(dataclasses.replace(spec, bias=bias), T, N, rng, batch_first=batch_first, unbatched=unbatched)


@needs_torch
@by_cell
@settings(max_examples=15)
@given(data=st.data())
def test_sizes_anybody_may_choose_agree_with_torch(cell, data):
    hidden = data.draw(st.one_of(st.sampled_from(WIDTHS), st.integers(1, 70)), label="H")
    proj = data.draw(st.integers(1, hidden - 1), label="proj") if cell.proj_size and hidden > 1 else 0
    spec = dataclasses.replace(
        cell,
        input_size=data.draw(st.one_of(st.sampled_from(WIDTHS), st.integers(1, 70)), label="I"),
        hidden_size=hidden,
        proj_size=proj,
        num_layers=data.draw(st.integers(1, 3), label="layers"),
        bidirectional=data.draw(st.booleans(), label="bidirectional"),
        bias=data.draw(st.booleans(), label="bias"),
    )
    steps, batch = data.draw(st.integers(1, 20), label="T"), data.draw(st.integers(1, 24), label="N")
    # Tiny problems may cancel to almost nothing, where a norm-relative error means nothing.
    rng = np.random.default_rng([steps, batch, hidden])
    agrees_with_torch(spec, steps, batch, rng, batch_first=data.draw(st.booleans(), label="batch_first"))


@needs_torch
@pytest.mark.parametrize("spec", DEEP, ids=label)
@pytest.mark.parametrize("sizes", [(3, 17, 33, 65), (40, 2, 130, 16), (9, 33, 5, 96)], ids=str)
def test_wide_and_long_layers_agree_with_torch(spec, sizes, isa, rng):
    steps, batch, inputs, hidden = sizes
    proj = hidden // 2 - 1 if spec.proj_size else 0
    agrees_with_torch(
        dataclasses.replace(spec, input_size=inputs, hidden_size=hidden, proj_size=proj), steps, batch, rng
    )


@pytest.mark.parametrize("spec", DEEP, ids=label)
def test_stacks_are_the_reference(spec, dtype, isa):
    check(spec, T, N, dtype)


@pytest.mark.parametrize("spec", [s for s in STACKS if s not in DEEP], ids=label)
def test_other_stacks_are_the_reference(spec, dtype):
    check(spec, 4, 2, dtype, state=spec.bidirectional)


@by_cell
@pytest.mark.parametrize("sizes", [(3, 7, 17, 33), (2, 18, 64, 9), (7, 1, 1, 16)], ids=str)
def test_stacks_of_other_sizes_are_the_reference(cell, sizes, dtype):
    steps, batch, inputs, hidden = sizes
    spec = dataclasses.replace(
        cell, input_size=inputs, hidden_size=hidden, num_layers=2, bidirectional=True, bias=hidden != 9
    )
    check(spec, steps, batch, dtype)


@pytest.mark.parametrize("spec", DEEP, ids=label)
@pytest.mark.parametrize("steps", [0, 1])
def test_no_step_and_one(spec, steps, dtype, isa, rng):
    inputs, upstream = (cast(arrays, dtype) for arrays in problem(rng, spec, steps, N))
    layer = layer_of(spec, inputs, dtype)
    got = train(layer, spec, inputs, upstream)
    if steps == 0:
        assert got["y"].shape == (0, N, 2 * spec.output_size) and got["dx"].shape == (0, N, I)
        assert_all_same_bits(got, {"h_n": inputs["h0"], "c_n": inputs["c0"]})
        assert_all_same_bits(got, {"dh0": upstream["dh_n"], "dc0": upstream["dc_n"]})
        assert not any(got[f"d{name}"].any() for name in spec.shapes())
    else:
        check(spec, 1, N, dtype)


@pytest.mark.parametrize("spec", DEEP, ids=label)
def test_no_sequence(spec, dtype, rng):
    inputs, upstream = (cast(arrays, dtype) for arrays in problem(rng, spec, T, 0))
    got = train(layer_of(spec, inputs, dtype), spec, inputs, upstream)
    assert got["y"].shape == (T, 0, 2 * spec.output_size)
    assert not any(got[f"d{name}"].any() for name in spec.shapes())


@pytest.mark.parametrize("spec", DEEP, ids=label)
def test_a_stack_is_its_layers_one_after_the_other_bitwise(spec, dtype, isa, rng):
    """And a direction is a layer on its own, run on the sequence from its end."""
    inputs, _ = problem(rng, spec, T, N)
    inputs = cast(inputs, dtype)
    want = infer(layer_of(spec, inputs, dtype), spec, inputs)
    x = inputs["x"]
    last = []
    for number in range(2):
        ways = []
        for k, way in enumerate(("", "_reverse")):
            single = dataclasses.replace(spec, num_layers=1, bidirectional=False, input_size=x.shape[-1])
            parameters = {name: inputs[name.replace("_l0", f"_l{number}") + way] for name in single.shapes()}
            slot = slice(2 * number + k, 2 * number + k + 1)
            state = {name: None if inputs[name] is None else inputs[name][slot] for name in ("h0", "c0")}
            flow = slice(None, None, -1) if way else slice(None)
            layer = layer_of(single, parameters, dtype)
            got = infer(layer, single, {"x": np.ascontiguousarray(x[flow]), **state})
            ways.append(got["y"][flow])
            last.append(got)
        x = np.ascontiguousarray(np.concatenate(ways, axis=-1))
    assert_same_bits(x, np.ascontiguousarray(want["y"]), "y")
    for name in ("h_n", "c_n"):
        if want[name] is not None:
            assert_same_bits(np.concatenate([got[name] for got in last]), want[name], name)


@pytest.mark.parametrize("spec", DEEP, ids=label)
@pytest.mark.parametrize("sizes", [(6, 2), (4, 40)], ids=str)
def test_threads_change_no_bit(spec, sizes, dtype, rng, restore_threads):
    spec = dataclasses.replace(spec, hidden_size=48, input_size=19)
    inputs, upstream = (cast(arrays, dtype) for arrays in problem(rng, spec, *sizes))
    layer = layer_of(spec, inputs, dtype)
    rf.set_num_threads(1)
    want = train(layer, spec, inputs, upstream)
    for threads in (2, 3):
        rf.set_num_threads(threads)
        assert_all_same_bits(train(layer, spec, inputs, upstream), want, f"{threads} threads")


@pytest.mark.parametrize("spec", DEEP, ids=label)
def test_batch_first_and_single_sequences_give_the_same_bits(spec, dtype, rng):
    inputs, upstream = (cast(arrays, dtype) for arrays in problem(rng, spec, T, 1))
    want = train(layer_of(spec, inputs, dtype), spec, inputs, upstream)

    def swapped(arrays: dict, name: str) -> dict:
        return {**arrays, name: np.ascontiguousarray(arrays[name].swapaxes(0, 1))}

    layer = layer_of(spec, inputs, dtype, batch_first=True)
    got = train(layer, spec, swapped(inputs, "x"), swapped(upstream, "dy"))
    assert_all_same_bits({**got, **swapped(swapped(got, "y"), "dx")}, want, "batch_first")

    for batch_first in (False, True):
        layer = layer_of(spec, inputs, dtype, batch_first=batch_first)
        alone = {**inputs, **{name: None if inputs[name] is None else inputs[name][:, 0] for name in ("x", "h0", "c0")}}
        got = train(layer, spec, alone, {name: None if a is None else a[:, 0] for name, a in upstream.items()})
        per_sequence = ("y", "h_n", "c_n", "dx", "dh0", "dc0")
        wanted = {name: a[:, 0] if name in per_sequence and a is not None else a for name, a in want.items()}
        assert_all_same_bits(got, wanted, "unbatched")


@pytest.mark.parametrize("spec", DEEP, ids=label)
def test_keep_leaves_the_tape_usable(spec, dtype, rng):
    inputs, upstream = (cast(arrays, dtype) for arrays in problem(rng, spec, T, N))
    layer = layer_of(spec, inputs, dtype)
    _, tape = trace(layer, spec, inputs)
    first = {
        name: a if a is None else a.copy() for name, a in differentiate(layer, spec, tape, upstream, keep=True).items()
    }
    assert_all_same_bits(differentiate(layer, spec, tape, upstream), first)
    with pytest.raises(ValueError, match="tape"):
        differentiate(layer, spec, tape, upstream)


@pytest.mark.parametrize("spec", DEEP, ids=label)
def test_missing_gradients_are_zeros_and_missing_states_too(spec, dtype, rng):
    inputs, upstream = (cast(arrays, dtype) for arrays in problem(rng, spec, T, N))
    layer = layer_of(spec, inputs, dtype)
    zeros = {name: None if inputs[name] is None else np.zeros_like(inputs[name]) for name in ("h0", "c0")}
    nothing = {"h0": None, "c0": None}
    for given_name in ("dy", "dh_n", "dc_n"):
        if upstream[given_name] is None:
            continue
        partial = {name: None if a is None else a * (name == given_name) for name, a in upstream.items()}
        want = train(layer, spec, {**inputs, **zeros}, partial)
        dstate = None if given_name == "dy" else packed(spec, partial["dh_n"], partial["dc_n"])
        got, tape = trace(layer, spec, {**inputs, **nothing})
        grads = layer.backward(tape, partial["dy"] if given_name == "dy" else None, dstate)
        assert_all_same_bits(got, want, names=("y", "h_n", "c_n"))
        assert_all_same_bits(
            {f"d{name}": a for name, a in grads.params.items()}, want, names=[f"d{n}" for n in spec.shapes()]
        )
        dh0, dc0 = unpacked(spec, grads.state)
        assert_all_same_bits({"dx": grads.x, "dh0": dh0, "dc0": dc0}, want, names=("dx", "dh0", "dc0"))


@pytest.mark.parametrize("spec", DEEP, ids=label)
def test_copies_pickles_and_files_keep_the_structure(spec, dtype, rng, tmp_path):
    inputs, _ = problem(rng, spec, T, N)
    inputs = cast(inputs, dtype)
    layer = layer_of(spec, inputs, dtype)
    want = infer(layer, spec, inputs)
    lengths = rng.integers(0, T + 1, N)
    ragged = layer(inputs["x"], lengths=lengths)[0]
    rf.Sequential(layer).save(tmp_path / "model.safetensors")
    loaded = rf.load(tmp_path / "model.safetensors").layers[0]
    for other in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        assert_all_same_bits(infer(other, spec, inputs), want)
        assert_same_bits(other(inputs["x"], lengths=lengths)[0], ragged, "y of a ragged batch")
        # What happens to one does not reach the other.
        other.load_state_dict({name: 0 * value for name, value in other.state_dict().items()})
        assert_all_same_bits(infer(layer, spec, inputs), want)
    state = {name: value + 1 for name, value in layer.state_dict().items()}
    layer.load_state_dict(state)
    assert_all_same_bits(infer(layer, spec, inputs), infer(layer_of(spec, {**inputs, **state}, dtype), spec, inputs))


# Dropout between layers

RATE = 0.4
WITH_DROPOUT = [
    Spec("rnn", 3, 6, num_layers=3, dropout=RATE),
    Spec("gru", 3, 6, num_layers=2, dropout=RATE, bidirectional=True),
    Spec("lstm", 3, 6, num_layers=2, dropout=RATE, proj_size=3, bidirectional=True),
]
by_dropout = pytest.mark.parametrize("spec", WITH_DROPOUT, ids=label)


@by_dropout
def test_gradients_with_dropout_are_those_of_the_replayed_masks(spec, dtype, isa):
    check(spec, T, N, dtype)


@by_dropout
def test_masks_have_the_documented_names_shapes_and_values(spec, dtype, rng):
    inputs, _ = problem(rng, spec, T, N)
    _, tape = trace(layer_of(spec, inputs, dtype, seed=1), spec, cast(inputs, dtype))
    width = spec.output_size * (2 if spec.bidirectional else 1)
    assert {name: mask.shape for name, mask in tape.masks.items()} == {
        f"dropout_l{k}": (T, N, width) for k in range(spec.num_layers - 1)
    }
    for mask in tape.masks.values():
        assert set(np.unique(mask).tolist()) == {0.0, dtype.type(1 / (1 - RATE)).item()}


def test_dropout_keeps_its_share_of_units(rng):
    """Each of 60 000 units is kept with probability 0.6: five standard deviations are 0.01. No two masks agree."""
    spec = Spec("gru", 2, 40, num_layers=3, dropout=RATE)
    inputs, _ = problem(rng, spec, 50, 30)
    layer = layer_of(spec, inputs, np.float32, seed=3)
    _, first = trace(layer, spec, cast(inputs, np.float32))
    _, second = trace(layer, spec, cast(inputs, np.float32))
    kept = [mask > 0 for tape in (first, second) for mask in drawn_masks(tape).values()]
    for mask in kept:
        assert abs(mask.mean() - 0.6) < 0.01
        # Shares by step, sequence and unit: nothing is systematic.
        for axes in ((0, 1), (0, 2), (1, 2)):
            share = mask.mean(axis=axes)
            count = mask.size / share.size
            assert np.abs(share - 0.6).max() < 5 * np.sqrt(0.24 / count)
    for one, other in itertools.combinations(kept, 2):
        # Two independent masks agree in 0.6**2 + 0.4**2 of the places.
        assert abs((one == other).mean() - 0.52) < 0.011


@by_dropout
def test_dropout_is_reproducible_with_any_number_of_threads(spec, rng, restore_threads):
    inputs, upstream = (cast(arrays, np.float32) for arrays in problem(rng, spec, 9, 20))
    runs = []
    for threads in (1, 2, 3):
        rf.set_num_threads(threads)
        layer = layer_of(spec, inputs, np.float32, seed=5)
        runs.append([train(layer, spec, inputs, upstream) for _ in range(2)])
    for run in runs[1:]:
        for got, want in zip(run, runs[0], strict=True):
            assert_all_same_bits(got, want)
    assert not np.array_equal(runs[0][0]["y"], runs[0][1]["y"])
    other = layer_of(spec, inputs, np.float32, seed=6)
    assert not np.array_equal(train(other, spec, inputs, upstream)["y"], runs[0][0]["y"])


@by_dropout
def test_dropout_is_not_applied_in_inference(spec, dtype, rng):
    inputs, _ = problem(rng, spec, T, N)
    inputs = cast(inputs, dtype)
    want = infer(layer_of(dataclasses.replace(spec, dropout=0.0), inputs, dtype), spec, inputs)
    layer = layer_of(spec, inputs, dtype)
    trace(layer, spec, inputs)
    assert_all_same_bits(infer(layer, spec, inputs), want)


def test_dropout_with_lengths_is_that_of_the_replayed_masks(dtype):
    check(WITH_DROPOUT[1], T, N, dtype, lengths=np.array([5, 0, 2]))


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), float("inf")])
def test_rates_outside_of_0_to_1_are_refused(rate):
    for kind in (rf.RNN, rf.LSTM, rf.GRU):
        with pytest.raises(ValueError, match="dropout"):
            kind(2, 3, num_layers=2, dropout=rate)


@pytest.mark.parametrize("rate", ["0.5", None, [0.5], True])
def test_rates_that_are_no_numbers_are_refused(rate):
    with pytest.raises((TypeError, ValueError), match="dropout"):
        rf.LSTM(2, 3, num_layers=2, dropout=rate)


@pytest.mark.parametrize("value", [-1, 7, 8, 2.0, "2", None, True])
def test_a_projection_is_smaller_than_the_layer(value):
    with pytest.raises((TypeError, ValueError), match="proj_size"):
        rf.LSTM(4, 7, proj_size=value)


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", None, True])
def test_wrong_numbers_of_layers_are_refused(value):
    for kind in (rf.RNN, rf.LSTM, rf.GRU):
        with pytest.raises((TypeError, ValueError), match="num_layers"):
            kind(2, 3, num_layers=value)


@pytest.mark.parametrize("spec", DEEP, ids=label)
def test_states_and_gradients_of_wrong_shapes_are_refused(spec, rng):
    inputs, upstream = (cast(arrays, np.float32) for arrays in problem(rng, spec, T, N))
    layer = layer_of(spec, inputs, np.float32)
    want = infer(layer, spec, inputs)
    for wrong in (inputs["h0"][:2], inputs["h0"][:, :2], inputs["h0"][..., :1], inputs["h0"].astype(np.float64)):
        with pytest.raises((TypeError, ValueError), match="state"):
            layer(inputs["x"], packed(spec, wrong, inputs["c0"]))
        _, tape = trace(layer, spec, inputs)
        with pytest.raises((TypeError, ValueError), match="dstate"):
            layer.backward(tape, None, packed(spec, wrong, inputs["c0"]))
    _, tape = trace(layer, spec, inputs)
    with pytest.raises(ValueError, match="dy"):
        layer.backward(tape, upstream["dy"][..., : spec.output_size])
    with pytest.raises(ValueError, match="direction"):
        layer.stream(batch=N)
    assert_all_same_bits(infer(layer, spec, inputs), want)


def test_a_stack_streams_step_by_step(dtype, isa, rng):
    """One direction has all it needs at every step, whatever the number of layers: the same bits as the whole."""
    for cell in CELLS:
        spec = dataclasses.replace(cell, num_layers=3)
        inputs = cast(problem(rng, spec, T, N)[0], dtype)
        layer = layer_of(spec, inputs, dtype)
        want = infer(layer, spec, inputs)
        stream = layer.stream(batch=N)
        stream.reset(packed(spec, inputs["h0"], inputs["c0"]))
        for t in range(T):
            assert_same_bits(stream.step(inputs["x"][t]), np.ascontiguousarray(want["y"][t]), f"{label(spec)} step {t}")
        h_n, c_n = unpacked(spec, stream.state)
        assert_all_same_bits({"h_n": h_n, "c_n": c_n}, want, names=("h_n", "c_n"))


def test_masks_of_a_plain_layer_are_none(rng):
    inputs, _ = problem(rng, CELLS[2], T, N)
    _, tape = trace(layer_of(CELLS[2], inputs, np.float32), CELLS[2], cast(inputs, np.float32))
    assert tape.masks == {}
