"""Relations that hold whatever the numbers are: no oracle, only the layer against itself and against closed forms.

Bitwise where the design promises the same bits: any number of threads, any place of a row in the batch, a sequence run
whole, in pieces or step by step, inference or training, AVX2 or AVX-512. Gradients of weights add over rows and steps,
so wherever those are cut or permuted they agree only to rounding.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import rnnfast as rf
import tolerances
from cases import CELLS
from compare import assert_close, assert_same_bits
from harness import (
    PARAMETERS,
    layer_with,
    named_gradients,
    new_layer,
    pack_state,
    random_problem,
    run_forward,
    run_training,
    unpack_state,
)
from hypothesis import given
from hypothesis import strategies as st
from reference import GATES

by_cell = pytest.mark.parametrize("cell", CELLS)

WEIGHTS = tuple(PARAMETERS)
# Axis of the batch in every array that has one.
ROWS_AXIS = {"x": 1, "h0": 0, "c0": 0, "dy": 1, "dh_n": 0, "dc_n": 0}
# Wide and long enough that the batch is really split over threads, and of no convenient size.
BUSY = {"T": 12, "N": 45, "I": 21, "H": 70}


def rows(arrays: dict, index) -> dict:
    """Some rows of the batch, in the order given; weights stay."""
    taken = dict(arrays)
    for name, axis in ROWS_AXIS.items():
        if arrays.get(name) is not None:
            taken[name] = np.ascontiguousarray(arrays[name][(slice(None),) * axis + (index,)])
    return taken


def busy_problem(rng, cell, dtype):
    return random_problem(rng, cell, dtype=dtype, **BUSY)


def same_bits(got: dict, want: dict, names) -> None:
    for name in names:
        if want[name] is not None:
            assert_same_bits(got[name], want[name], name)


def everything(cell, inputs, upstream, dtype) -> dict:
    """Outputs and gradients under one set of names."""
    (y, h_n, c_n), grads = run_training(cell, inputs, upstream, dtype)
    return {"y": y, "h_n": h_n, "c_n": c_n, **{f"d{name}": a for name, a in grads.items()}}


def gradient_tolerance(dtype, cell, T, N, I, H):  # noqa: E741
    return tolerances.REORDERED * tolerances.gradient(dtype, T, N, I, H, GATES[cell])


# Properties 5, 7: rows of the batch do not know of each other


@by_cell
@given(data=st.data())
def test_batch_split_gives_the_same_bits(cell, dtype, isa, data):
    T, N = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 24))
    I, H = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 70))  # noqa: E741
    cut = data.draw(st.lists(st.integers(1, N - 1), min_size=1, max_size=4, unique=True).map(sorted))
    inputs, upstream = random_problem(np.random.default_rng(N), cell, T, N, I, H, dtype)
    whole = everything(cell, inputs, upstream, dtype)
    parts = [
        everything(cell, rows(inputs, slice(a, b)), rows(upstream, slice(a, b)), dtype)
        for a, b in itertools.pairwise([0, *cut, N])
    ]
    for name, axis in {"y": 1, "h_n": 0, "c_n": 0, "dx": 1, "dh0": 0, "dc0": 0}.items():
        if whole[name] is not None:
            assert_same_bits(np.concatenate([part[name] for part in parts], axis=axis), whole[name], name)


@by_cell
def test_batch_permutation_permutes_the_bits(cell, dtype, isa, rng):
    inputs, upstream = busy_problem(rng, cell, dtype)
    order = rng.permutation(BUSY["N"])
    want = everything(cell, inputs, upstream, dtype)
    got = everything(cell, rows(inputs, order), rows(upstream, order), dtype)
    for name, axis in {"y": 1, "h_n": 0, "c_n": 0, "dx": 1, "dh0": 0, "dc0": 0}.items():
        if want[name] is not None:
            assert_same_bits(got[name], np.take(want[name], order, axis=axis), name)
    for name in WEIGHTS:
        assert_close(got[f"d{name}"], want[f"d{name}"], gradient_tolerance(dtype, cell, **BUSY), name)


@by_cell
def test_any_row_of_a_batch_is_the_row_alone(cell, dtype, isa, rng):
    """One row in every position of batches of 1 to 17, that is in every place of a register tile and its remainders."""
    inputs, _ = random_problem(rng, cell, 3, 17, 9, 35, dtype)
    y, h_n, c_n = run_forward(cell, inputs, dtype)
    for n in range(17):
        alone_y, alone_h, alone_c = run_forward(cell, rows(inputs, slice(n, n + 1)), dtype)
        assert_same_bits(alone_y, np.ascontiguousarray(y[:, n : n + 1]), f"y of row {n}")
        assert_same_bits(alone_h, h_n[n : n + 1], f"h_n of row {n}")
        if c_n is not None:
            assert_same_bits(alone_c, c_n[n : n + 1], f"c_n of row {n}")
        first_y, _, _ = run_forward(cell, rows(inputs, slice(0, n + 1)), dtype)
        assert_same_bits(first_y, np.ascontiguousarray(y[:, : n + 1]), f"y of the first {n + 1} rows")


@by_cell
def test_upstream_at_one_place_reaches_only_its_past_and_its_row(cell, dtype, isa, rng):
    """14: causality. What a later step or another sequence gets is exactly zero."""
    T, N, I, H = 5, 7, 4, 18  # noqa: E741
    inputs, upstream = random_problem(rng, cell, T, N, I, H, dtype)
    t, n, j = 3, 4, 16
    one_hot = {name: None if a is None else np.zeros_like(a) for name, a in upstream.items()}
    one_hot["dy"][t, n, j] = 1
    _, grads = run_training(cell, inputs, one_hot, dtype)
    reached = np.zeros((T, N), bool)
    reached[: t + 1, n] = True
    assert not grads["x"][~reached].any()
    assert not np.delete(grads["h0"], n, axis=0).any()
    # relu cuts a path wherever its unit is off, so only the other cells must reach the first step.
    if cell != "rnn_relu":
        assert grads["x"][reached].any(axis=-1).all()
        assert grads["h0"][n].any()


@by_cell
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_poisoned_input_spoils_only_its_row_from_its_step_on(cell, poison, dtype, isa, rng):
    T, N, I, H = 5, 9, 6, 20  # noqa: E741
    t, n = 2, 4
    inputs, upstream = random_problem(rng, cell, T, N, I, H, dtype)
    clean = everything(cell, inputs, upstream, dtype)
    spoilt = {**inputs, "x": inputs["x"].copy()}
    spoilt["x"][t, n, 1] = poison
    got = everything(cell, spoilt, upstream, dtype)
    untouched = np.ones((T, N), bool)
    untouched[t:, n] = False
    assert_same_bits(got["y"][untouched], clean["y"][untouched], "y elsewhere")
    others = np.arange(N) != n
    for name in ("dx", "dh0", "dc0"):
        if clean[name] is not None:
            assert_same_bits(*(np.compress(others, d[name], axis=-2) for d in (got, clean)), f"{name} of other rows")
    if np.isnan(poison):
        assert np.isnan(got["y"][t:, n]).all()


# Property 6: a sequence in pieces


@by_cell
@pytest.mark.parametrize("N", [1, 5, 45])
@given(data=st.data())
def test_pieces_with_carried_state_give_the_same_bits(cell, N, dtype, isa, data):
    T = data.draw(st.integers(2, 30))
    I, H = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 40))  # noqa: E741
    cut = data.draw(st.lists(st.integers(0, T), min_size=1, max_size=4).map(sorted))
    inputs, _ = random_problem(np.random.default_rng(T), cell, T, N, I, H, dtype)
    layer = layer_with(cell, inputs, dtype)
    state = pack_state(inputs["h0"], inputs["c0"])
    y, final = layer(inputs["x"], state)
    pieces = []
    for a, b in itertools.pairwise([0, *cut, T]):
        piece, state = layer(inputs["x"][a:b], state)
        pieces.append(piece)
    assert_same_bits(np.concatenate(pieces), y, "y")
    for got, want in zip(unpack_state(state), unpack_state(final), strict=True):
        if want is not None:
            assert_same_bits(got, want, "state")


@by_cell
def test_long_sequences_in_pieces_give_the_same_bits(cell, dtype, isa, rng):
    """Longer than any chunk of steps whose input projection is done at once."""
    inputs, _ = random_problem(rng, cell, 700, 3, 5, 24, dtype)
    y, h_n, _ = run_forward(cell, inputs, dtype)
    layer, state = layer_with(cell, inputs, dtype), pack_state(inputs["h0"], inputs["c0"])
    first, state = layer(inputs["x"][:333], state)
    second, state = layer(inputs["x"][333:], state)
    assert_same_bits(np.concatenate([first, second]), y, "y")
    assert_same_bits(unpack_state(state)[0], h_n, "h_n")


@by_cell
@pytest.mark.parametrize("N", [1, 2, 7, 16])
@pytest.mark.parametrize("H", [1, 16, 37, 64, 130])
def test_stream_steps_give_the_same_bits(cell, N, H, dtype, isa, rng):
    inputs, _ = random_problem(rng, cell, 6, N, 5, H, dtype)
    layer = layer_with(cell, inputs, dtype)
    state = pack_state(inputs["h0"], inputs["c0"])
    y, final = layer(inputs["x"], state)
    stream = layer.stream(batch=N)
    stream.reset(state)
    out = np.empty((N, H), dtype)
    for t, x_t in enumerate(inputs["x"]):
        if t % 2:
            assert stream.step(x_t, out=out) is out
            assert_same_bits(out, y[t], f"step {t} with out")
        else:
            assert_same_bits(stream.step(x_t), y[t], f"step {t}")
    for got, want in zip(unpack_state(stream.state), unpack_state(final), strict=True):
        if want is not None:
            assert_same_bits(np.asarray(got), want, "state")


@by_cell
def test_stream_starts_at_zeros_and_resets_to_them(cell, dtype, isa, rng):
    inputs, _ = random_problem(rng, cell, 4, 3, 5, 17, dtype)
    layer = layer_with(cell, inputs, dtype)
    y, _ = layer(inputs["x"])
    stream = layer.stream(batch=3)
    for _ in range(2):
        assert_same_bits(np.stack([stream.step(x_t) for x_t in inputs["x"]]), y, "y")
        stream.reset()


@by_cell
def test_stream_follows_changed_parameters(cell, dtype, isa, rng):
    """Packed weights are kept across calls and must not outlive the parameters they were made from."""
    inputs, _ = random_problem(rng, cell, 2, 3, 5, 17, dtype)
    layer = layer_with(cell, inputs, dtype)
    stream = layer.stream(batch=3)
    before = stream.step(inputs["x"][0])
    layer.load_state_dict({name: 2 * value for name, value in layer.state_dict().items()})
    stream.reset()
    after = stream.step(inputs["x"][0])
    assert_same_bits(after, layer(inputs["x"][:1])[0][0], "first step with new parameters")
    assert not np.array_equal(after, before)


@by_cell
def test_copies_compute_the_same_and_share_nothing(cell, dtype, rng):
    """Kernels keep packed parameters; a copy has its own, and neither sees the other's changes."""
    inputs, _ = random_problem(rng, cell, 3, 4, 5, 17, dtype)
    layer = layer_with(cell, inputs, dtype)
    want, _ = layer(inputs["x"])
    twin = copy.deepcopy(layer)
    assert_same_bits(twin(inputs["x"])[0], want, "copy")
    twin.load_state_dict({name: 2 * value for name, value in layer.state_dict().items()})
    assert not np.array_equal(twin(inputs["x"])[0], want)
    assert_same_bits(layer(inputs["x"])[0], want, "original")


@by_cell
def test_gradients_chain_over_pieces(cell, dtype, isa, rng):
    """dh0 and dc0 of the later piece are dh_n and dc_n of the earlier one; weights' gradients add up."""
    sizes = {"T": 11, "N": 4, "I": 6, "H": 19}
    inputs, upstream = random_problem(rng, cell, dtype=dtype, **sizes)
    whole, grads = run_training(cell, inputs, upstream, dtype)
    cut = 4
    layer, state = layer_with(cell, inputs, dtype), pack_state(inputs["h0"], inputs["c0"])
    _, middle, first_tape = layer.forward(inputs["x"][:cut], state)
    y, _, second_tape = layer.forward(inputs["x"][cut:], middle)
    assert_same_bits(np.ascontiguousarray(y), np.ascontiguousarray(whole[0][cut:]), "y of the later piece")
    second = layer.backward(second_tape, upstream["dy"][cut:], pack_state(upstream["dh_n"], upstream["dc_n"]))
    first = layer.backward(first_tape, upstream["dy"][:cut], second.state)
    first, second = named_gradients(first), named_gradients(second)
    tolerance = gradient_tolerance(dtype, cell, **sizes)
    assert_close(np.concatenate([first["x"], second["x"]]), grads["x"], tolerance, "dx")
    assert_close(first["h0"], grads["h0"], tolerance, "dh0")
    if cell == "lstm":
        assert_close(first["c0"], grads["c0"], tolerance, "dc0")
    for name in WEIGHTS:
        assert_close(first[name] + second[name], grads[name], tolerance, f"d{name}")


# Property 19: threads, repetition, instruction sets


def set_threads(count: int) -> None:
    try:
        rf.set_num_threads(count)
    except ValueError as error:
        pytest.skip(f"{count} threads are more than this machine may have: {error}")


@by_cell
@pytest.mark.parametrize("threads", [2, 3, 4, 7, 16])
def test_any_number_of_threads_gives_the_same_bits(cell, threads, dtype, isa, rng, restore_threads):
    inputs, upstream = busy_problem(rng, cell, dtype)
    rf.set_num_threads(1)
    want = everything(cell, inputs, upstream, dtype)
    want["inference"] = run_forward(cell, inputs, dtype)[0]
    set_threads(threads)
    assert rf.get_num_threads() == threads
    got = everything(cell, inputs, upstream, dtype)
    got["inference"] = run_forward(cell, inputs, dtype)[0]
    same_bits(got, want, want)


@by_cell
@pytest.mark.parametrize(
    "sizes", [(300, 2, 8, 48), (5, 250, 30, 30), (20, 3, 10, 130), (40, 16, 1, 64), (4, 7, 30, 280)], ids=str
)
def test_threads_give_the_same_bits_at_odd_shapes(cell, sizes, dtype, isa, rng, restore_threads):
    """Long and thin, short and broad, wide, and with many weights for each of several rows; work enough for threads."""
    inputs, upstream = random_problem(rng, cell, *sizes, dtype)
    rf.set_num_threads(1)
    want = everything(cell, inputs, upstream, dtype)
    for threads in (2, 3, 4):
        set_threads(threads)
        same_bits(everything(cell, inputs, upstream, dtype), want, want)


@by_cell
@pytest.mark.parametrize("N", [3, 5, 7, 11])
@pytest.mark.parametrize("H", [24, 35])
def test_unequal_shares_of_threads_give_the_same_bits(cell, N, H, dtype, isa, rng, restore_threads):
    """Members of a team with different numbers of rows cut time into different chunks, side by side in one scratch."""
    inputs, _ = random_problem(rng, cell, 2_000_000 // (N * H * H), N, 5, H, dtype)
    layer = layer_with(cell, inputs, dtype)
    rf.set_num_threads(1)
    want, _ = layer(inputs["x"])
    for threads in (2, 3, 4):
        rf.set_num_threads(threads)
        for _ in range(3):
            assert_same_bits(layer(inputs["x"])[0], want, f"{threads} threads")


@by_cell
def test_twenty_repetitions_give_the_same_bits(cell, dtype, isa, rng):
    inputs, upstream = busy_problem(rng, cell, dtype)
    want = everything(cell, inputs, upstream, dtype)
    for _ in range(20):
        same_bits(everything(cell, inputs, upstream, dtype), want, want)


@by_cell
@pytest.mark.parametrize("sizes", [(5, 1, 3, 7), (5, 9, 3, 33), (7, 13, 40, 96), (3, 45, 17, 130)], ids=str)
def test_avx2_and_avx512_give_the_same_bits(cell, sizes, dtype, rng):
    from rnnfast import _core

    info = rf.build_info()
    if not {"avx2", "avx512"} <= set(info["isas"]):
        pytest.skip(f"needs avx2 and avx512; this machine and build have only {', '.join(info['isas'])}")
    inputs, _ = random_problem(rng, cell, *sizes, dtype)
    results = []
    try:
        for name in ("avx2", "avx512"):
            _core.set_isa(name)
            results.append(run_forward(cell, inputs, dtype))
    finally:
        _core.set_isa(info["isa"])
    for name, got, want in zip(("y", "h_n", "c_n"), *results, strict=True):
        if want is not None:
            assert_same_bits(got, want, name)


# Properties 8, 9, 22: names of units and features do not matter


def permute_units(arrays: dict, order, gates: int) -> dict:
    """The same layer with its hidden units renamed."""
    H = len(order)
    gate_rows = np.concatenate([order + k * H for k in range(gates)])
    moved = {
        name: a[..., order] if name in ("h0", "c0", "dy", "dh_n", "dc_n") and a is not None else a
        for name, a in arrays.items()
    }
    for name in WEIGHTS:
        if arrays.get(name) is not None:
            moved[name] = arrays[name][gate_rows]
    if "w_hh" in moved:
        moved["w_hh"] = moved["w_hh"][:, order]
    return {name: None if a is None else np.ascontiguousarray(a) for name, a in moved.items()}


@by_cell
@pytest.mark.parametrize("H", [5, 16, 39])
def test_hidden_unit_permutation(cell, H, dtype, isa, rng):
    sizes = {"T": 4, "N": 7, "I": 5, "H": H}
    inputs, upstream = random_problem(rng, cell, dtype=dtype, **sizes)
    order = rng.permutation(H)
    want, grads = run_training(cell, inputs, upstream, dtype)
    got, moved = run_training(
        cell, permute_units(inputs, order, GATES[cell]), permute_units(upstream, order, GATES[cell]), dtype
    )
    tolerance = tolerances.REORDERED * tolerances.forward(dtype, 5, H)
    assert_close(got[0], want[0][..., order], tolerance, "y")
    assert_close(got[1], want[1][..., order], tolerance, "h_n")
    expected = permute_units(grads, order, GATES[cell])
    for name, value in expected.items():
        if value is not None:
            assert_close(moved[name], value, gradient_tolerance(dtype, cell, **sizes), f"d{name}")


@by_cell
@pytest.mark.parametrize("I", [5, 16, 39])
def test_input_feature_permutation(cell, I, dtype, isa, rng):  # noqa: E741
    sizes = {"T": 4, "N": 7, "I": I, "H": 18}
    inputs, upstream = random_problem(rng, cell, dtype=dtype, **sizes)
    order = rng.permutation(I)
    moved = {**inputs, "x": inputs["x"][..., order].copy(), "w_ih": inputs["w_ih"][:, order].copy()}
    want, grads = run_training(cell, inputs, upstream, dtype)
    got, moved_grads = run_training(cell, moved, upstream, dtype)
    assert_close(got[0], want[0], tolerances.REORDERED * tolerances.forward(dtype, I, 18), "y")
    tolerance = gradient_tolerance(dtype, cell, **sizes)
    assert_close(moved_grads["x"], grads["x"][..., order], tolerance, "dx")
    assert_close(moved_grads["w_ih"], grads["w_ih"][:, order], tolerance, "dw_ih")


def widen(inputs: dict, added: int, copies: bool, gates: int) -> dict:
    """``added`` further units: a block-diagonal copy of the first ones, or dead ones with zero weights in and out."""
    H = inputs["h0"].shape[-1]
    total = H + added
    wide = {"x": inputs["x"]}
    for name in ("h0", "c0"):
        wide[name] = None
        if inputs[name] is not None:
            wide[name] = np.zeros((inputs[name].shape[0], total), inputs[name].dtype)
            wide[name][:, :H] = inputs[name]
            if copies:
                wide[name][:, H:] = inputs[name]
    for name in WEIGHTS:
        old = inputs[name].reshape(gates, H, -1)
        new = np.zeros((gates, total, total if name == "w_hh" else old.shape[2]), old.dtype)
        new[:, :H, : old.shape[2]] = old
        if copies and name == "w_hh":
            new[:, H:, H:] = old
        elif copies:
            new[:, H:] = old
        wide[name] = np.ascontiguousarray(new.reshape(gates * total, -1) if name.startswith("w") else new.reshape(-1))
    return wide


@by_cell
@pytest.mark.parametrize("H", [3, 16, 21])
def test_block_diagonal_copy_gives_two_equal_halves(cell, H, dtype, isa, rng):
    """22. Terms that multiply zeros change no partial sum, so the halves have the bits of the narrow layer."""
    inputs, _ = random_problem(rng, cell, 5, 7, 6, H, dtype)
    y, _, _ = run_forward(cell, inputs, dtype)
    wide, _, _ = run_forward(cell, widen(inputs, H, True, GATES[cell]), dtype)
    assert np.array_equal(wide[..., :H], y)
    assert np.array_equal(wide[..., H:], y)


@by_cell
@pytest.mark.parametrize("added", [1, 3, 16])
def test_dead_units_change_nothing(cell, added, dtype, isa, rng):
    inputs, _ = random_problem(rng, cell, 5, 7, 6, 13, dtype)
    y, _, _ = run_forward(cell, inputs, dtype)
    wide, _, _ = run_forward(cell, widen(inputs, added, False, GATES[cell]), dtype)
    assert np.array_equal(wide[..., :13], y)
    assert not wide[..., 13:].any()


@pytest.mark.parametrize("power", [-40, -3, 5, 40])
def test_relu_scales_by_powers_of_two_bitwise(power, dtype, isa, rng):
    """21: no hidden constant and no lost low bits in a network without saturation."""
    inputs, _ = random_problem(rng, "rnn_relu", 4, 6, 5, 19, dtype)
    y, _, _ = run_forward("rnn_relu", inputs, dtype)
    scaled = {**inputs, **{name: np.ldexp(inputs[name], power) for name in ("x", "h0", "b_ih", "b_hh")}}
    got, _, _ = run_forward("rnn_relu", scaled, dtype)
    assert_same_bits(got, np.ldexp(y, power), "y")


# Properties 12, 13: closed forms


def constant_layer(cell: str, T: int, H: int, biases: list[float], dtype, rng) -> dict:
    """A layer whose weights are zero: gate k has the pre-activation ``biases[k]``, split unevenly over both biases."""
    inputs, _ = random_problem(rng, cell, T, 3, 4, H, dtype)
    for name in ("w_ih", "w_hh"):
        inputs[name][...] = 0
    # Quarters add without rounding.
    inputs["b_ih"][...] = np.repeat(np.asarray(biases, dtype) / 4, H)
    inputs["b_hh"][...] = np.repeat(np.asarray(biases, dtype) * 3 / 4, H)
    return inputs


def sigmoid(a: float) -> float:
    return float(1 / (1 + np.exp(-np.float64(a))))


@pytest.mark.parametrize("H", [1, 7, 16, 40])
def test_zero_weights_closed_form_of_rnn_and_gru(H, dtype, isa, rng):
    tolerance = tolerances.forward(dtype, 1, 1)
    bias = 0.75
    for cell, want in (("rnn_tanh", np.tanh(bias)), ("rnn_relu", bias)):
        y, _, _ = run_forward(cell, constant_layer(cell, 3, H, [bias], dtype, rng), dtype)
        assert_close(y, np.full_like(y, want, dtype=np.float64), tolerance, cell)
    r, z, n_x, n_h = 0.5, -1.25, 0.25, 1.0
    inputs = constant_layer("gru", 6, H, [r, z, 0], dtype, rng)
    inputs["b_ih"][2 * H :], inputs["b_hh"][2 * H :] = n_x, n_h
    y, _, _ = run_forward("gru", inputs, dtype)
    new, keep = np.tanh(n_x + sigmoid(r) * n_h), sigmoid(z)
    for t in range(6):
        want = new + keep ** (t + 1) * (inputs["h0"].astype(np.float64) - new)
        assert_close(y[t], want, tolerance, f"gru step {t}")


@pytest.mark.parametrize("H", [1, 7, 16, 40])
def test_zero_weights_closed_form_of_lstm(H, dtype, isa, rng):
    """c_t = f**t c0 + i g (1 - f**t) / (1 - f): a geometric sum, from which a lost or swapped gate shows."""
    i, f, g, o = 0.5, 2.0, -0.75, 1.25
    inputs = constant_layer("lstm", 9, H, [i, f, g, o], dtype, rng)
    y, _, c_n = run_forward("lstm", inputs, dtype)
    keep, enter = sigmoid(f), sigmoid(i) * np.tanh(g)
    tolerance = tolerances.forward(dtype, 1, 1)
    for t in range(9):
        c = keep ** (t + 1) * inputs["c0"].astype(np.float64) + enter * (1 - keep ** (t + 1)) / (1 - keep)
        assert_close(y[t], sigmoid(o) * np.tanh(c), tolerance, f"step {t}")
    assert_close(c_n, c, tolerance, "c_n")


OPEN, SHUT = 200.0, -200.0


@pytest.mark.parametrize("H", [1, 9, 16, 33])
def test_lstm_gates_isolated(H, dtype, isa, rng):
    """13: gates forced to 0 or 1 by their bias. sigmoid(200) is 1 exactly; sigmoid(-200), below 1e-86, is absorbed."""
    T = 5
    keep = constant_layer("lstm", T, H, [SHUT, OPEN, 0.5, 0.5], dtype, rng)
    y, _, c_n = run_forward("lstm", keep, dtype)
    assert_same_bits(c_n, keep["c0"], "i = 0, f = 1: c")
    assert np.array_equal(y, np.broadcast_to(y[0], y.shape))

    mute = constant_layer("lstm", T, H, [0.5, 0.5, 0.5, SHUT], dtype, rng)
    y, _, c_n = run_forward("lstm", mute, dtype)
    assert float(np.abs(y).max()) < 1e-80 and c_n.all()

    forget = constant_layer("lstm", T, H, [OPEN, SHUT, 0.5, OPEN], dtype, rng)
    y, _, c_n = run_forward("lstm", forget, dtype)
    other, _, _ = run_forward("lstm", {**forget, "h0": -forget["h0"], "c0": forget["c0"] + 1}, dtype)
    assert_same_bits(other, y, "i = 1, f = 0: y of another past")
    assert_close(c_n, np.full(c_n.shape, np.tanh(0.5)), tolerances.forward(dtype, 1, 1), "i = 1, f = 0: c")


@pytest.mark.parametrize("H", [1, 9, 16, 33])
def test_gru_gates_isolated(H, dtype, isa, rng):
    keep = constant_layer("gru", 5, H, [0.5, OPEN, 0.5], dtype, rng)
    y, h_n, _ = run_forward("gru", keep, dtype)
    assert_close(h_n, keep["h0"], tolerances.forward(dtype, 1, 1), "z = 1: h")

    replace = constant_layer("gru", 5, H, [SHUT, SHUT, 0.0], dtype, rng)
    replace["b_ih"][2 * H :], replace["b_hh"][2 * H :] = 0.5, 8.0
    y, _, _ = run_forward("gru", replace, dtype)
    want = np.full(y.shape, np.tanh(0.5))
    assert_close(y, want, tolerances.forward(dtype, 1, 1), "z = 0, r = 0: only the input's n bias counts")


# Properties 15, 31: backward is linear and adds


@by_cell
def test_backward_is_linear_in_the_incoming_gradients(cell, dtype, isa, rng):
    sizes = {"T": 5, "N": 6, "I": 7, "H": 20}
    inputs, one = random_problem(rng, cell, dtype=dtype, **sizes)
    _, two = random_problem(rng, cell, dtype=dtype, **sizes)
    a, b = dtype.type(0.5), dtype.type(-2)
    mixed = {name: None if one[name] is None else a * one[name] + b * two[name] for name in one}
    _, grads_one = run_training(cell, inputs, one, dtype)
    _, grads_two = run_training(cell, inputs, two, dtype)
    _, grads_mixed = run_training(cell, inputs, mixed, dtype)
    for name, got in grads_mixed.items():
        if got is not None:
            want = a * grads_one[name] + b * grads_two[name]
            assert_close(got, want, gradient_tolerance(dtype, cell, **sizes), f"d{name}")


@by_cell
def test_backward_scales_by_powers_of_two_bitwise(cell, dtype, isa, rng):
    inputs, upstream = random_problem(rng, cell, 5, 6, 7, 20, dtype)
    _, grads = run_training(cell, inputs, upstream, dtype)
    scaled = {name: None if a is None else np.ldexp(a, 9) for name, a in upstream.items()}
    _, got = run_training(cell, inputs, scaled, dtype)
    for name, want in grads.items():
        if want is not None:
            assert_same_bits(got[name], np.ldexp(want, 9), f"d{name}")


@by_cell
def test_gradients_of_a_batch_are_the_sum_over_its_parts(cell, dtype, isa, rng):
    inputs, upstream = busy_problem(rng, cell, dtype)
    _, want = run_training(cell, inputs, upstream, dtype)
    parts = [
        run_training(cell, rows(inputs, part), rows(upstream, part), dtype)[1]
        for part in (slice(0, 1), slice(1, 14), slice(14, 45))
    ]
    for name in WEIGHTS:
        total = np.sum([part[name].astype(np.float64) for part in parts], axis=0)
        assert_close(total, want[name].astype(np.float64), gradient_tolerance(dtype, cell, **BUSY), f"d{name}")


# Properties 24, 29: memory layout, poison, purity


def misaligned(a):
    raw = np.empty(a.nbytes + a.itemsize, np.uint8)
    view = raw[1 : 1 + a.nbytes].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def strided(a):
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1] + 1), np.nan, a.dtype)
    wide[..., 1::2] = a
    return wide[..., 1::2]


def read_only(a):
    copy = a.copy()
    copy.flags.writeable = False
    return copy


class Subclass(np.ndarray):
    pass


LAYOUTS = {
    "fortran": np.asfortranarray,
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "strided": strided,
    "misaligned": misaligned,
    "read-only": read_only,
    "subclass": lambda a: a.view(Subclass),
}


@by_cell
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_of_arguments_does_not_matter(cell, layout, dtype, isa, rng):
    inputs, upstream = random_problem(rng, cell, 4, 6, 5, 19, dtype)
    layer = layer_with(cell, inputs, dtype)
    other = LAYOUTS[layout]

    def run(change):
        state = pack_state(inputs["h0"], inputs["c0"])
        state = tuple(map(change, state)) if isinstance(state, tuple) else change(state)
        dstate = pack_state(upstream["dh_n"], upstream["dc_n"])
        dstate = tuple(map(change, dstate)) if isinstance(dstate, tuple) else change(dstate)
        y, _, tape = layer.forward(change(inputs["x"]), state)
        inferred, _ = layer(change(inputs["x"]), state)
        grads = named_gradients(layer.backward(tape, change(upstream["dy"]), dstate))
        stream = layer.stream(batch=6)
        return {"y": y, "inferred": inferred, "stream": stream.step(change(inputs["x"][0])), **grads}

    want, got = run(lambda a: a), run(other)
    same_bits(got, want, want)


@by_cell
def test_broadcast_inputs_give_the_bits_of_their_copies(cell, dtype, isa, rng):
    inputs, _ = random_problem(rng, cell, 4, 6, 5, 19, dtype)
    layer = layer_with(cell, inputs, dtype)
    repeated = np.broadcast_to(inputs["x"][:1], inputs["x"].shape)
    assert_same_bits(layer(repeated)[0], layer(repeated.copy())[0], "y")


@by_cell
def test_batch_first_is_time_first_transposed_bitwise(cell, dtype, isa, rng):
    inputs, upstream = random_problem(rng, cell, 4, 6, 5, 19, dtype)
    time_first = layer_with(cell, inputs, dtype)
    batch_first = layer_with(cell, inputs, dtype, batch_first=True)
    state, dstate = pack_state(inputs["h0"], inputs["c0"]), pack_state(upstream["dh_n"], upstream["dc_n"])

    def swap(a):
        return np.ascontiguousarray(a.swapaxes(0, 1))

    y, _, tape = time_first.forward(inputs["x"], state)
    want = named_gradients(time_first.backward(tape, upstream["dy"], dstate))
    swapped, swapped_state, tape = batch_first.forward(swap(inputs["x"]), state)
    got = named_gradients(batch_first.backward(tape, swap(upstream["dy"]), dstate))
    assert unpack_state(swapped_state)[0].shape == (6, 19)
    assert_same_bits(swap(swapped), np.ascontiguousarray(y), "y")
    assert_same_bits(swap(got.pop("x")), np.ascontiguousarray(want.pop("x")), "dx")
    same_bits(got, want, want)
    assert_same_bits(swap(batch_first(swap(inputs["x"]), state)[0]), np.ascontiguousarray(y), "inference")


@by_cell
def test_unbatched_is_a_batch_of_one_bitwise(cell, dtype, isa, rng):
    inputs, upstream = random_problem(rng, cell, 4, 1, 5, 19, dtype)
    layer = layer_with(cell, inputs, dtype)
    state, dstate = pack_state(inputs["h0"], inputs["c0"]), pack_state(upstream["dh_n"], upstream["dc_n"])

    def drop(state):
        return tuple(a[:, 0] for a in state) if isinstance(state, tuple) else state[:, 0]

    y, final, tape = layer.forward(inputs["x"], state)
    want = layer.backward(tape, upstream["dy"], dstate)
    got_y, got_final, tape = layer.forward(inputs["x"][:, 0], drop(state))
    got = layer.backward(tape, upstream["dy"][:, 0], drop(dstate))
    assert_same_bits(np.ascontiguousarray(got_y), np.ascontiguousarray(y[:, 0]), "y")
    assert_same_bits(layer(inputs["x"][:, 0], drop(state))[0], np.ascontiguousarray(y[:, 0]), "inference")
    for a, b in zip(unpack_state(got_final), unpack_state(final), strict=True):
        if b is not None:
            assert a.shape == (19,)
            assert_same_bits(a, b[0], "final state")
    assert_same_bits(np.ascontiguousarray(got.x), np.ascontiguousarray(want.x[:, 0]), "dx")
    for name, value in want.params.items():
        assert_same_bits(got.params[name], value, name)
    for a, b in zip(unpack_state(got.state), unpack_state(want.state), strict=True):
        if b is not None:
            assert_same_bits(a, b[0], "dstate")


@by_cell
def test_inputs_are_left_as_they_were(cell, dtype, isa, rng):
    inputs, upstream = random_problem(rng, cell, 4, 6, 5, 19, dtype)
    layer = layer_with(cell, inputs, dtype)
    before = {name: a.tobytes() for name, a in {**inputs, **upstream}.items() if a is not None}
    parameters = {name: a.tobytes() for name, a in layer.state_dict().items()}
    state = pack_state(inputs["h0"], inputs["c0"])
    layer(inputs["x"], state)
    _, _, tape = layer.forward(inputs["x"], state)
    layer.backward(tape, upstream["dy"], pack_state(upstream["dh_n"], upstream["dc_n"]))
    stream = layer.stream(batch=6)
    stream.reset(state)
    stream.step(inputs["x"][0])
    after = {name: a.tobytes() for name, a in {**inputs, **upstream}.items() if a is not None}
    assert after == before
    assert {name: a.tobytes() for name, a in layer.state_dict().items()} == parameters


@by_cell
def test_results_do_not_depend_on_what_memory_held_before(cell, dtype, isa, rng):
    """29: freed buffers full of NaN are handed out again; an output or scratch read before it is written shows them."""
    inputs, upstream = random_problem(rng, cell, 6, 11, 7, 37, dtype)
    want = everything(cell, inputs, upstream, dtype)
    for size in (40, 300, 3000, 20_000, 200_000):
        poisoned = [np.full(size, np.nan) for _ in range(8)]
        del poisoned
        same_bits(everything(cell, inputs, upstream, dtype), want, want)


@by_cell
def test_out_lies_between_guard_values(cell, dtype, isa, rng):
    """Steps into an `out` at an odd offset of a larger buffer write exactly that part of it."""
    for N, H in ((1, 1), (1, 17), (3, 5), (7, 33)):
        inputs, _ = random_problem(rng, cell, 1, N, 3, H, dtype)
        layer = layer_with(cell, inputs, dtype)
        buffer = np.full(N * H + 67, 123.0, dtype)
        out = buffer[33 : 33 + N * H].reshape(N, H)
        layer.stream(batch=N).step(inputs["x"][0], out=out)
        assert_same_bits(out, layer(inputs["x"])[0][0], "out")
        assert (buffer[:33] == 123).all() and (buffer[33 + N * H :] == 123).all()


@by_cell
def test_floating_point_mode_is_left_alone(cell, isa, rng):
    """Subnormal numbers still work after calls: nobody switched the processor to flush them to zero."""
    inputs, upstream = random_problem(rng, cell, 3, 4, 5, 9, np.dtype(np.float32))
    run_training(cell, inputs, upstream, np.float32)
    tiny = np.full(33, 1e-45, np.float32)
    assert (tiny * np.float32(1) > 0).all() and (tiny + np.float32(0) > 0).all()


def test_subnormal_inputs_count(dtype, isa):
    """No flushing inside the kernels either: an RNN with unit weight passes the smallest number on."""
    layer = new_layer("rnn_relu", 1, 1, dtype=dtype, bias=False)
    layer.load_state_dict({"weight_ih_l0": np.ones((1, 1), dtype), "weight_hh_l0": np.zeros((1, 1), dtype)})
    smallest = np.finfo(dtype).smallest_subnormal
    y, _ = layer(np.full((2, 1, 1), smallest, dtype))
    assert (y == smallest).all()
