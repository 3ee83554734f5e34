"""Sequences of different lengths, and states reset on the way: each sequence as if it were alone.

`lengths`: the same bits as every sequence run alone without padding, whatever stands in the padding; gradients as
PyTorch's packed sequences have them and as the reference does. `resets`: the same bits as the segments between them
run one after the other.
"""

from __future__ import annotations

import dataclasses
import itertools

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
    infer,
    label,
    layer_of,
    packed,
    problem,
    rows_of,
    sequences_alone,
    steps_of,
    train,
    unpacked,
)
from rnnfast import _core
from torch_peer import torch_layer, torch_results
from variants import Spec

try:
    import torch
except ImportError:
    torch = None

T, N, I, H = 7, 6, 4, 9  # noqa: E741
LENGTHS = np.array([3, 7, 0, 5, 1, 7])

PLAIN = [
    Spec("rnn", I, H),
    Spec("rnn", I, H, nonlinearity="relu"),
    Spec("gru", I, H),
    Spec("lstm", I, H),
    Spec("lstm", I, H, proj_size=4),
]
DEEP = [dataclasses.replace(spec, num_layers=2, bidirectional=True) for spec in PLAIN]
EXTRA = [
    Spec("lstm", I, H, peephole=True, bidirectional=True),
    Spec("lstm", I, H, coupled=True, layer_norm=True),
    Spec("gru", I, H, reset_after=False, bidirectional=True),
    Spec("gru", I, H, layer_norm=True, clip=1.0),
    Spec("rnn", I, H, activations=("Softsign",), clip=0.9),
]
ALL = [*PLAIN, *DEEP, *EXTRA]
by_spec = pytest.mark.parametrize("spec", ALL, ids=label)
by_deep = pytest.mark.parametrize("spec", DEEP, ids=label)

PER_SEQUENCE = ("y", "h_n", "c_n", "dx", "dh0", "dc0")


def padding(lengths, steps: int = T):
    """True past the end of each sequence, (T, N)."""
    return np.arange(steps)[:, None] >= np.asarray(lengths)


def cast_problem(rng, spec, steps, batch, dtype):
    return tuple(cast(arrays, dtype) for arrays in problem(rng, spec, steps, batch))


def assert_rows_are_alone(layer, spec, inputs, upstream, lengths, got) -> None:
    for n, length, alone in sequences_alone(layer, spec, inputs, upstream, lengths):
        one = {name: None if got[name] is None else got[name][:, n : n + 1] for name in PER_SEQUENCE}
        one = {name: a[:length] if name in ("y", "dx") else a for name, a in one.items()}
        assert_all_same_bits(one, alone, f"sequence {n}", PER_SEQUENCE)


@by_spec
def test_every_sequence_is_the_sequence_alone_bitwise(spec, dtype, isa, rng):
    inputs, upstream = cast_problem(rng, spec, T, N, dtype)
    layer = layer_of(spec, inputs, dtype)
    got = train(layer, spec, inputs, upstream, lengths=LENGTHS)
    assert_rows_are_alone(layer, spec, inputs, upstream, LENGTHS, got)
    inferred = infer(layer, spec, inputs, lengths=LENGTHS)
    assert_all_same_bits(inferred, got, "inference", ("y", "h_n", "c_n"))
    for name in ("y", "dx"):
        past = got[name][padding(LENGTHS)]
        assert_same_bits(past, np.zeros_like(past), f"{name} past the end")
    # A sequence without a step hands its state, and the gradient of it, through.
    assert_all_same_bits(rows_of({"h0": got["h_n"], "c0": got["c_n"]}, [2]), rows_of(inputs, [2]), "", ("h0", "c0"))
    assert_same_bits(got["dh0"][:, 2], upstream["dh_n"][:, 2], "dh0 of the empty sequence")


@settings(max_examples=25)
@given(data=st.data())
def test_any_lengths_and_sizes_are_the_sequences_alone_bitwise(dtype, data):
    base = data.draw(st.sampled_from(ALL), label="spec")
    sizes = {"input_size": data.draw(st.integers(1, 20)), "hidden_size": data.draw(st.sampled_from(WIDTHS[1:-1]))}
    if base.proj_size:
        sizes["proj_size"] = data.draw(st.integers(1, sizes["hidden_size"] - 1))
    spec = dataclasses.replace(base, **sizes)
    lengths = np.array(data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=20), label="lengths"))
    steps = int(lengths.max(initial=0)) + data.draw(st.integers(0, 3))
    inputs, upstream = cast_problem(np.random.default_rng(len(lengths)), spec, steps, len(lengths), dtype)
    layer = layer_of(spec, inputs, dtype)
    got = train(layer, spec, inputs, upstream, lengths=lengths)
    assert_rows_are_alone(layer, spec, inputs, upstream, lengths, got)


@by_spec
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_padding_is_never_read(spec, poison, dtype, isa, rng):
    inputs, upstream = cast_problem(rng, spec, T, N, dtype)
    layer = layer_of(spec, inputs, dtype)
    want = train(layer, spec, inputs, upstream, lengths=LENGTHS)
    inputs["x"][padding(LENGTHS)] = poison
    upstream["dy"][padding(LENGTHS)] = poison
    assert_all_same_bits(train(layer, spec, inputs, upstream, lengths=LENGTHS), want)
    assert_all_same_bits(infer(layer, spec, inputs, lengths=LENGTHS), want, "inference", ("y", "h_n", "c_n"))
    assert all(np.isfinite(a).all() for a in want.values() if a is not None)


@by_spec
def test_gradients_of_ragged_batches_are_the_reference(spec, dtype):
    check(spec, T, N, dtype, lengths=LENGTHS)


@by_deep
def test_gradients_of_ragged_batches_are_the_reference_on_every_isa(spec, dtype, isa):
    check(dataclasses.replace(spec, hidden_size=17), 5, 4, dtype, lengths=np.array([2, 5, 0, 4]))


@pytest.mark.parametrize(
    "spec", [PLAIN[3], PLAIN[4], EXTRA[1], EXTRA[3], Spec("gru", I, H, reset_after=False)], ids=label
)
@pytest.mark.parametrize("batch", [12, 270])
def test_gradients_of_many_rows_are_the_reference(spec, batch, dtype, rng):
    """More steps and sequences than whose weight gradients are summed at once, in steps of ever fewer sequences."""
    steps = 600 // batch
    lengths = rng.integers(0, steps + 1, batch)
    lengths[3] = steps
    check(spec, steps, batch, dtype, lengths=lengths, resets=rng.random((steps, batch)) < 0.05)


@pytest.mark.skipif(torch is None, reason="PyTorch, the extra witness, is not installed")
@pytest.mark.parametrize("spec", [*PLAIN, *DEEP], ids=label)
@pytest.mark.parametrize("sizes", [(7, 6, 4, 9), (30, 20, 17, 33)], ids=str)
def test_packed_sequences_of_torch_agree(spec, sizes, rng):
    steps, batch, input_size, hidden = sizes
    spec = dataclasses.replace(spec, input_size=input_size, hidden_size=hidden)
    inputs, upstream = problem(rng, spec, steps, batch)
    # PyTorch refuses sequences without a step.
    lengths = rng.integers(1, steps + 1, batch)
    want = torch_results(torch, torch_layer(torch, spec, inputs), spec, inputs, upstream, lengths)
    got = train(layer_of(spec, inputs, np.float64), spec, inputs, upstream, lengths=lengths)
    for name, value in want.items():
        if value is not None:
            assert_close(got[name], value, tolerances.TORCH, name)


@by_deep
def test_batch_first_swaps_two_axes_and_nothing_else(spec, dtype, rng):
    inputs, upstream = cast_problem(rng, spec, T, N, dtype)
    resets = rng.random((T, N)) < 0.2
    want = train(layer_of(spec, inputs, dtype), spec, inputs, upstream, lengths=LENGTHS, resets=resets)
    swap = {name: np.ascontiguousarray(a.swapaxes(0, 1)) for name, a in (("x", inputs["x"]), ("dy", upstream["dy"]))}
    layer = layer_of(spec, inputs, dtype, batch_first=True)
    got = train(
        layer, spec, {**inputs, "x": swap["x"]}, {**upstream, "dy": swap["dy"]}, lengths=LENGTHS, resets=resets.T
    )
    for name in ("y", "dx"):
        got[name] = got[name].swapaxes(0, 1)
    assert_all_same_bits(got, want)


@by_deep
def test_threads_change_no_bit_of_a_ragged_batch(spec, dtype, rng, restore_threads):
    """Threads that divide a sequence, sequences, and the units of several with many weights."""
    lengths = rng.integers(0, 13, 40)
    for batch, units in ((3, 48), (40, 48), (7, 280)):
        wide = dataclasses.replace(spec, hidden_size=units)
        inputs, upstream = cast_problem(rng, wide, 12, batch, dtype)
        layer = layer_of(wide, inputs, dtype)
        how = {"lengths": lengths[:batch], "resets": rng.random((12, batch)) < 0.2}
        rf.set_num_threads(1)
        want = train(layer, wide, inputs, upstream, **how)
        for threads in (2, 3):
            rf.set_num_threads(threads)
            assert_all_same_bits(train(layer, wide, inputs, upstream, **how), want, f"{threads} threads")


@by_deep
def test_full_lengths_are_no_lengths(spec, dtype, rng):
    inputs, upstream = cast_problem(rng, spec, T, N, dtype)
    layer = layer_of(spec, inputs, dtype)
    want = train(layer, spec, inputs, upstream)
    got = train(layer, spec, inputs, upstream, lengths=np.full(N, T))
    assert_all_same_bits(got, want, names=PER_SEQUENCE)
    tolerance = tolerances.REORDERED * tolerances.variant(dtype, spec, T, N)
    for name in spec.shapes():
        assert_close(got[f"d{name}"], want[f"d{name}"], tolerance, f"d{name}")


@by_deep
def test_order_of_the_sequences_does_not_matter(spec, dtype, rng):
    inputs, upstream = cast_problem(rng, spec, T, N, dtype)
    layer = layer_of(spec, inputs, dtype)
    want = train(layer, spec, inputs, upstream, lengths=LENGTHS)
    order = rng.permutation(N)
    got = train(layer, spec, rows_of(inputs, order), rows_of(upstream, order), lengths=LENGTHS[order])
    for name in PER_SEQUENCE:
        if want[name] is not None:
            assert_same_bits(np.ascontiguousarray(got[name]), np.ascontiguousarray(want[name][:, order]), name)


@pytest.mark.parametrize("spec", [PLAIN[2], DEEP[3]], ids=label)
def test_all_sequences_empty(spec, dtype, rng):
    inputs, upstream = cast_problem(rng, spec, T, N, dtype)
    got = train(layer_of(spec, inputs, dtype), spec, inputs, upstream, lengths=np.zeros(N, int))
    assert not got["y"].any() and not got["dx"].any()
    assert_all_same_bits(got, {"h_n": inputs["h0"], "c_n": inputs["c0"]})
    assert_all_same_bits(got, {"dh0": upstream["dh_n"], "dc0": upstream["dc_n"]})
    assert not any(got[f"d{name}"].any() for name in spec.shapes())


@pytest.mark.parametrize("form", [list, tuple, *map(np.dtype, ("i1", "u1", "i2", "i4", "i8", "u8", ">i4"))], ids=str)
def test_integers_of_any_kind_are_lengths(form, rng):
    spec = PLAIN[3]
    inputs, _ = cast_problem(rng, spec, T, N, np.float32)
    layer = layer_of(spec, inputs, np.float32)
    given_lengths = LENGTHS.astype(form) if isinstance(form, np.dtype) else form(LENGTHS.tolist())
    got = infer(layer, spec, inputs, lengths=given_lengths)
    assert_all_same_bits(got, infer(layer, spec, inputs, lengths=LENGTHS))


@pytest.mark.skipif(torch is None, reason="PyTorch, whose tensors are given, is not installed")
def test_tensors_are_lengths_and_resets(rng):
    spec = PLAIN[3]
    inputs, _ = cast_problem(rng, spec, T, N, np.float32)
    layer = layer_of(spec, inputs, np.float32)
    resets = rng.random((T, N)) < 0.3
    want = infer(layer, spec, inputs, lengths=LENGTHS, resets=resets)
    got = infer(layer, spec, inputs, lengths=torch.from_numpy(LENGTHS), resets=torch.from_numpy(resets))
    assert_all_same_bits(got, want)


def test_the_callers_lengths_are_not_kept(rng):
    """Changed between forward and backward, they change nothing; nor do resets."""
    spec = DEEP[3]
    inputs, upstream = cast_problem(rng, spec, T, N, np.float32)
    layer = layer_of(spec, inputs, np.float32)
    lengths, resets = LENGTHS.copy(), rng.random((T, N)) < 0.3
    want = train(layer, spec, inputs, upstream, lengths=lengths.copy(), resets=resets.copy())
    state = packed(spec, inputs["h0"], inputs["c0"])
    _, _, tape = layer.forward(inputs["x"], state, lengths=lengths, resets=resets)
    lengths[:] = 0
    resets[:] = ~resets
    grads = layer.backward(tape, upstream["dy"], packed(spec, upstream["dh_n"], upstream["dc_n"]))
    assert_all_same_bits(
        {f"d{name}": a for name, a in grads.params.items()}, {f"d{n}": want[f"d{n}"] for n in spec.shapes()}
    )
    assert_same_bits(np.ascontiguousarray(grads.x), want["dx"], "dx")


@pytest.mark.parametrize("method", ["__call__", "forward"])
@pytest.mark.parametrize(
    ("what", "lengths"),
    [
        ("negative", [3, -1, 0, 5, 1, 7]),
        ("longer than x", [3, 8, 0, 5, 1, 7]),
        ("too few", [3, 7, 0, 5, 1]),
        ("too many", [3, 7, 0, 5, 1, 7, 2]),
        ("one number", 7),
        ("a column", LENGTHS[:, None]),
        ("no numbers", []),
        ("floats", LENGTHS.astype(float)),
        ("booleans", LENGTHS.astype(bool)),
        ("complex", LENGTHS.astype(complex)),
        ("text", ["3", "7", "0", "5", "1", "7"]),
        ("objects", [3, None, 0, 5, 1, 7]),
        ("ragged", [[1], [2, 3]]),
        ("huge", [3, 2**62, 0, 5, 1, 7]),
        ("huge unsigned", np.array([3, 2**64 - 1, 0, 5, 1, 7], np.uint64)),
        ("beyond 64 bits", [3, 2**70, 0, 5, 1, 7]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("spec", [PLAIN[0], DEEP[3]], ids=label)
def test_wrong_lengths_are_refused(spec, method, what, lengths, rng):
    inputs, _ = cast_problem(rng, spec, T, N, np.float32)
    layer = layer_of(spec, inputs, np.float32)
    want = infer(layer, spec, inputs)
    with pytest.raises((TypeError, ValueError), match="lengths"):
        getattr(layer, method)(inputs["x"], lengths=lengths)
    assert_all_same_bits(infer(layer, spec, inputs), want)


# Resets


def drawn_resets(rng, steps=T, batch=N):
    """About every third step of every sequence, the first of some, and all steps of one."""
    resets = rng.random((steps, batch)) < 0.3
    resets[0, ::2] = True
    resets[:, 1] = True
    resets[:, 3] = False
    return resets


def segments(resets):
    """Pieces (from, to) of one sequence's steps, cut before every reset step."""
    cuts = [0, *(t for t in np.flatnonzero(resets) if t), len(resets)]
    return list(itertools.pairwise(cuts))


ONE_WAY = [spec for spec in [*PLAIN, *EXTRA] if not spec.bidirectional]


@pytest.mark.parametrize("spec", ONE_WAY, ids=label)
def test_resets_are_segments_run_one_after_the_other_bitwise(spec, dtype, isa, rng):
    """y, states, dx and dh0; the gradients of the parameters are sums over the segments."""
    inputs, upstream = cast_problem(rng, spec, T, N, dtype)
    resets = drawn_resets(rng)
    layer = layer_of(spec, inputs, dtype)
    got = train(layer, spec, inputs, upstream, resets=resets)
    assert_all_same_bits(infer(layer, spec, inputs, resets=resets), got, "inference", ("y", "h_n", "c_n"))
    totals = dict.fromkeys((f"d{name}" for name in spec.shapes()), 0.0)
    for n in range(N):
        row, row_upstream = rows_of(inputs, [n]), rows_of(upstream, [n])
        pieces = segments(resets[:, n])
        y, dx = [], []
        for k, (a, b) in enumerate(pieces):
            first, last = k == 0 and not resets[0, n], k == len(pieces) - 1
            mine = steps_of(row, slice(a, b))
            theirs = steps_of(row_upstream, slice(a, b))
            for name in ("h0", "c0"):
                if mine[name] is not None and not first:
                    mine[name] = np.zeros_like(mine[name])
            for name in ("dh_n", "dc_n"):
                if theirs[name] is not None and not last:
                    theirs[name] = np.zeros_like(theirs[name])
            piece = train(layer, spec, mine, theirs)
            y.append(piece["y"])
            dx.append(piece["dx"])
            totals = {name: total + piece[name].astype(np.float64) for name, total in totals.items()}
            if k == 0:
                for name in ("dh0", "dc0"):
                    if piece[name] is not None:
                        want = piece[name] if first else np.zeros_like(piece[name])
                        assert np.array_equal(got[name][:, n : n + 1], want), f"{name} of sequence {n}"
        assert_same_bits(np.ascontiguousarray(got["y"][:, [n]]), np.concatenate(y), f"y of sequence {n}")
        assert_same_bits(np.ascontiguousarray(got["dx"][:, [n]]), np.concatenate(dx), f"dx of sequence {n}")
        one = {name: None if got[name] is None else got[name][:, [n]] for name in ("h_n", "c_n")}
        assert_all_same_bits(one, piece, f"sequence {n}", ("h_n", "c_n"))
    tolerance = tolerances.REORDERED * tolerances.variant(dtype, spec, T, N)
    for name, total in totals.items():
        assert_close(got[name].astype(np.float64), total, tolerance, name)


@by_spec
def test_gradients_with_resets_are_the_reference(spec, dtype, rng):
    check(spec, T, N, dtype, resets=drawn_resets(rng))


@by_spec
def test_gradients_with_resets_and_lengths_are_the_reference(spec, dtype, rng):
    check(spec, T, N, dtype, resets=drawn_resets(rng), lengths=LENGTHS)


@pytest.mark.parametrize("spec", [PLAIN[3], DEEP[2], DEEP[4]], ids=label)
def test_gradients_with_resets_are_the_reference_on_every_isa(spec, dtype, isa, rng):
    check(dataclasses.replace(spec, hidden_size=17), 5, 7, dtype, resets=drawn_resets(rng, 5, 7))


def test_the_reverse_direction_is_reset_before_the_same_steps(dtype, rng):
    """It is a layer on its own, run on flipped inputs with flipped resets."""
    for cell in PLAIN:
        spec = dataclasses.replace(cell, bidirectional=True)
        inputs, _ = cast_problem(rng, spec, T, N, dtype)
        resets = drawn_resets(rng)
        got = infer(layer_of(spec, inputs, dtype), spec, inputs, resets=resets)
        parameters = {name: inputs[f"{name}_reverse"] for name in cell.shapes()}
        state = {name: None if inputs[name] is None else inputs[name][1:] for name in ("h0", "c0")}
        flipped = {"x": np.ascontiguousarray(inputs["x"][::-1]), **state}
        want = infer(layer_of(cell, parameters, dtype), cell, flipped, resets=resets[::-1])
        assert_same_bits(
            np.ascontiguousarray(got["y"][..., cell.output_size :]), np.ascontiguousarray(want["y"][::-1]), "y"
        )
        assert_same_bits(got["h_n"][1:], want["h_n"], "h_n")


@by_deep
def test_resets_in_the_padding_change_nothing(spec, dtype, rng):
    inputs, upstream = cast_problem(rng, spec, T, N, dtype)
    layer = layer_of(spec, inputs, dtype)
    resets = drawn_resets(rng)
    want = train(layer, spec, inputs, upstream, lengths=LENGTHS, resets=resets)
    got = train(layer, spec, inputs, upstream, lengths=LENGTHS, resets=resets ^ padding(LENGTHS))
    assert_all_same_bits(got, want)


@pytest.mark.parametrize("spec", PLAIN, ids=label)
def test_no_reset_is_no_resets(spec, dtype, rng):
    inputs, upstream = cast_problem(rng, spec, T, N, dtype)
    layer = layer_of(spec, inputs, dtype)
    want = train(layer, spec, inputs, upstream)
    got = train(layer, spec, inputs, upstream, resets=np.zeros((T, N), bool))
    assert_all_same_bits(got, want, names=PER_SEQUENCE)


@pytest.mark.parametrize("spec", ONE_WAY, ids=label)
def test_a_reset_forgets_even_nan(spec, dtype, isa, rng):
    """The state is zeroed, not multiplied by zero: an episode that went wrong does not spoil the next one."""
    inputs, upstream = cast_problem(rng, spec, T, N, dtype)
    layer = layer_of(spec, inputs, dtype)
    resets = np.zeros((T, N), bool)
    resets[3, 2] = True
    want = train(layer, spec, inputs, upstream, resets=resets)
    inputs["x"][1, 2] = np.nan
    got = train(layer, spec, inputs, upstream, resets=resets)
    clean = np.ones((T, N), bool)
    clean[:3, 2] = False
    for name in ("y", "dx"):
        assert_same_bits(got[name][clean], want[name][clean], name)
    # Some activations turn NaN into a number, so only the others must show that it was there.
    if not spec.clip and spec.nonlinearity == "tanh":
        assert np.isnan(got["y"][1, 2]).any()


@by_spec
def test_a_reset_before_the_first_step_hides_the_initial_state(spec, dtype, rng):
    """Even if that is NaN: results and gradients are those of an initial state of zeros, and its gradient is zero."""
    inputs, upstream = cast_problem(rng, spec, T, N, dtype)
    resets = rng.random((T, N)) < 0.2
    resets[[0, -1]] = True
    layer = layer_of(spec, inputs, dtype)
    states = {name: None if inputs[name] is None else np.full_like(inputs[name], np.nan) for name in ("h0", "c0")}
    zeros = {name: None if a is None else np.zeros_like(a) for name, a in states.items()}
    want = train(layer, spec, {**inputs, **zeros}, upstream, resets=resets)
    got = train(layer, spec, {**inputs, **states}, upstream, resets=resets)
    assert_all_same_bits(got, want)
    assert_all_same_bits(infer(layer, spec, {**inputs, **states}, resets=resets), want, "", ("y", "h_n", "c_n"))
    assert not got["dh0"].any() and (got["dc0"] is None or not got["dc0"].any())


def test_resets_of_a_single_sequence_have_one_axis(dtype, rng):
    spec = PLAIN[3]
    inputs, _ = cast_problem(rng, spec, T, 1, dtype)
    layer = layer_of(spec, inputs, dtype)
    resets = np.array([False, True, False, False, True, False, False])
    want = infer(layer, spec, inputs, resets=resets[:, None])
    alone = {name: None if inputs[name] is None else inputs[name][:, 0] for name in ("x", "h0", "c0")}
    got = infer(layer, spec, alone, resets=resets)
    assert_all_same_bits(got, {name: np.ascontiguousarray(a[:, 0]) for name, a in want.items()})


@pytest.mark.parametrize("method", ["__call__", "forward"])
@pytest.mark.parametrize(
    ("what", "resets"),
    [
        ("transposed", np.zeros((N, T), bool)),
        ("one axis", np.zeros(T, bool)),
        ("too short", np.zeros((T - 1, N), bool)),
        ("too many rows", np.zeros((T, N + 1), bool)),
        ("three axes", np.zeros((T, N, 1), bool)),
        ("one value", True),
        ("integers", np.zeros((T, N), int)),
        ("floats", np.zeros((T, N))),
        ("text", np.zeros((T, N), "U1")),
        ("objects", np.zeros((T, N), object)),
        ("a set", {True}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("spec", [PLAIN[0], DEEP[3]], ids=label)
def test_wrong_resets_are_refused(spec, method, what, resets, rng):
    inputs, _ = cast_problem(rng, spec, T, N, np.float32)
    layer = layer_of(spec, inputs, np.float32)
    want = infer(layer, spec, inputs)
    with pytest.raises((TypeError, ValueError), match="resets"):
        getattr(layer, method)(inputs["x"], resets=resets)
    assert_all_same_bits(infer(layer, spec, inputs), want)


def test_states_after_a_reset_do_not_depend_on_the_past(rng):
    """No gradient passes a reset either: what came before gets exactly zero."""
    for spec in ONE_WAY:
        inputs, upstream = cast_problem(rng, spec, T, N, np.float32)
        resets = np.zeros((T, N), bool)
        resets[4] = True
        late = {name: None if a is None else a.copy() for name, a in upstream.items()}
        late["dy"][:4] = 0
        layer = layer_of(spec, inputs, np.float32)
        got = train(layer, spec, inputs, late, resets=resets)
        assert not got["dx"][:4].any() and got["dx"][4:].any(), label(spec)
        assert not any(a.any() for a in unpacked(spec, packed(spec, got["dh0"], got["dc0"])) if a is not None)


@pytest.mark.parametrize("width", [0, 1, 3, 700])
@pytest.mark.parametrize("count", [0, 1, 5, 900])
def test_private_copy_rows(width, count, dtype, rng, restore_threads):
    source = rng.standard_normal((12, width + 4)).astype(dtype)[:, 2 : 2 + width]
    index = rng.integers(-1, 12, count)
    for threads in (1, 2, 3):
        rf.set_num_threads(threads)
        wide = np.full((count, width + 3), 7, dtype)
        _core.copy_rows(wide[:, 1 : 1 + width], source, index)
        assert_same_bits(wide[:, 1 : 1 + width], np.where(index[:, None] < 0, 0, source[index]).astype(dtype), "rows")
        assert (wide[:, 0] == 7).all() and (wide[:, 1 + width :] == 7).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"index": np.array([0, 4])}, ValueError, r"copy_rows: index\[1\] is 4; expected -1..3, from source"),
        ({"index": np.array([-2, 0])}, ValueError, r"copy_rows: index\[0\] is -2"),
        ({"index": np.array([0, 1, 2])}, ValueError, "copy_rows: index is not dense or not as long as out"),
        ({"index": np.array([0.0, 1.0])}, TypeError, "copy_rows: index is no array of int64"),
        ({"source": np.zeros((4, 2))}, ValueError, "copy_rows: out has rows of 3; expected 2, from source"),
        ({"source": np.zeros((4, 3), np.float32)}, TypeError, "copy_rows: out and source differ in dtype"),
        ({"source": np.zeros((4, 6))[:, ::2]}, ValueError, "copy_rows: source has rows in several pieces"),
        ({"out": np.zeros(6)}, ValueError, r"copy_rows: out has 1 axes; expected \(rows, width\)"),
        ({"out": np.broadcast_to(0.0, (2, 3))}, ValueError, "copy_rows: out"),
    ],
)
def test_private_copy_rows_checks_what_it_is_given(change, error, message):
    arguments = {"out": np.ones((2, 3)), "source": np.zeros((4, 3)), "index": np.array([0, 1])} | change
    with pytest.raises(error, match=message):
        _core.copy_rows(**arguments)
    assert arguments["out"] is change.get("out") or (arguments["out"] == 1).all()
