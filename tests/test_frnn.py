"""The fully recurrent network and masks: against `variants.py`, exact zeros for ever, other networks by masks alone.

A fully recurrent network is a simple recurrent network of all units, of which some see x and some are read out: the
reference runs that, with the weights of absent connections zero, and the gradients of those left out.
"""

from __future__ import annotations

import numpy as np
import pytest
import rnnfast as rf
import tolerances
import variants
from compare import assert_close, assert_same_bits
from problems import cast, problem
from variants import Spec

T, N, I, UNITS = 6, 3, 4, 11  # noqa: E741


def draw(rng, units=UNITS, inputs=None, connectivity=None, input_size=I, steps=T, batch=N, nonlinearity="tanh"):
    """Parameters with zeros where there is no connection, x, h0 and the incoming gradient of all units."""
    spec = Spec("rnn", input_size, units, nonlinearity=nonlinearity)
    values, upstream = problem(rng, spec, steps, batch)
    present = presence(units, inputs, connectivity, input_size)
    for name, mask in present.items():
        values[name] = values[name] * mask
    return spec, values, upstream, present


def presence(units, inputs=None, connectivity=None, input_size=I) -> dict:
    sees = np.ones((units, input_size), bool)
    if inputs is not None:
        sees[:] = False
        sees[list(inputs)] = True
    connected = np.ones((units, units), bool) if connectivity is None else connectivity
    return {"weight_ih_l0": sees, "weight_hh_l0": connected}


def network(values, dtype, **options):
    units, input_size = values["weight_ih_l0"].shape
    layer = rf.FRNN(input_size, units, dtype=dtype, **options)
    layer.load_state_dict({name: a for name, a in values.items() if name.startswith(("weight", "bias"))})
    return layer


def run(layer, values, dy, dh_n) -> dict:
    y, h_n, tape = layer.forward(values["x"], values["h0"])
    grads = layer.backward(tape, dy, dh_n)
    return {"y": y, "h_n": h_n, "x": grads.x, "h0": grads.state, **grads.params}


CASES = {
    "all connected": {},
    "some inputs and outputs": {"inputs": [0, 3, 4], "outputs": [10, 2]},
    "sparse": {"connectivity": 0.3},
    "sparse with inputs and outputs": {"inputs": range(5), "outputs": (7, 8, 9), "connectivity": 0.2},
    "one of each": {"inputs": [5], "outputs": [5], "connectivity": 0.2},
    "nothing connected": {"connectivity": 0.0},
}


def chosen(rng, case: str, units=UNITS) -> dict:
    options = dict(CASES[case])
    if "connectivity" in options:
        options["connectivity"] = rng.random((units, units)) < options["connectivity"]
    return options


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_the_reference(case, nonlinearity, dtype, isa, rng):
    options = chosen(rng, case)
    spec, values, upstream, present = draw(
        rng, inputs=options.get("inputs"), connectivity=options.get("connectivity"), nonlinearity=nonlinearity
    )
    outputs = list(options.get("outputs", range(UNITS)))
    layer = network(cast(values, dtype), dtype, nonlinearity=nonlinearity, **options)
    dy = upstream["dy"][..., outputs]
    own = cast(values, dtype)
    got = run(layer, own, dy.astype(dtype), upstream["dh_n"].astype(dtype))

    everywhere = np.zeros((T, N, UNITS))
    everywhere[..., outputs] = dy
    wanted = variants.forward(spec, values)
    tolerance = tolerances.variant(dtype, spec, T, N)
    assert_close(got["y"], wanted.y[..., outputs], tolerance, "y")
    assert_close(got["h_n"], wanted.h_n, tolerance, "h_n")
    given = {name: a for name, a in values.items() if a is not None}
    for name, want in variants.gradients(spec, given, {**upstream, "dy": everywhere}).items():
        mask = present.get(name, True)
        assert_close(got[name], want * mask, tolerance, f"d{name}")
        assert not got[name][~np.broadcast_to(mask, want.shape)].any(), name

    y, h_n = layer(own["x"], own["h0"])
    assert_same_bits(np.ascontiguousarray(y), np.ascontiguousarray(got["y"]), "inference")
    assert_same_bits(h_n, got["h_n"], "state of inference")
    stream = layer.stream(batch=N)
    stream.reset(own["h0"])
    for t in range(T):
        assert_same_bits(np.ascontiguousarray(stream.step(own["x"][t])), np.ascontiguousarray(y[t]), f"step {t}")


def test_parameters_are_those_of_an_rnn(dtype):
    ours, theirs = rf.FRNN(I, UNITS, dtype=dtype).state_dict(), rf.RNN(I, UNITS, dtype=dtype).state_dict()
    assert {name: a.shape for name, a in ours.items()} == {name: a.shape for name, a in theirs.items()}
    assert list(rf.FRNN(I, UNITS, bias=False).state_dict()) == ["weight_ih_l0", "weight_hh_l0"]


def test_lengths_resets_and_batch_first(dtype, rng):
    options = chosen(rng, "sparse with inputs and outputs")
    spec, values, upstream, _ = draw(rng, inputs=options["inputs"], connectivity=options["connectivity"])
    outputs = list(options["outputs"])
    own = cast(values, dtype)
    lengths, resets = np.array([4, 0, 6]), rng.random((T, N)) < 0.3
    want = variants.forward(spec, values, lengths, resets)
    layer = network(own, dtype, batch_first=True, **options)
    x = np.ascontiguousarray(own["x"].swapaxes(0, 1))
    y, h_n, tape = layer.forward(x, own["h0"], lengths=lengths, resets=resets.T)
    tolerance = tolerances.variant(dtype, spec, T, N)
    assert_close(y.swapaxes(0, 1), want.y[..., outputs], tolerance, "y")
    assert_close(h_n, want.h_n, tolerance, "h_n")
    everywhere = np.zeros((T, N, UNITS))
    everywhere[..., outputs] = upstream["dy"][..., outputs]
    dy = np.ascontiguousarray(everywhere[..., outputs].swapaxes(0, 1), dtype)
    grads = layer.backward(tape, dy, upstream["dh_n"].astype(dtype))
    how = {"lengths": lengths, "resets": resets}
    given = {name: a for name, a in values.items() if a is not None}
    wanted = variants.gradients(spec, given, {**upstream, "dy": everywhere}, **how)
    assert_close(grads.x.swapaxes(0, 1), wanted["x"], tolerance, "dx")
    assert_close(grads.params["bias_hh_l0"], wanted["bias_hh_l0"], tolerance, "db")


def test_threads_change_no_bit(rng, restore_threads):
    few_blocks = np.kron(rng.random((32, 50)) < 0.2, np.ones((25, 16))) > 0
    # All blocks of units have the same connections, and each of two threads an odd number of blocks.
    alike = np.tile(np.arange(408) >= 204, (408, 1))
    scattered = rng.random((96, 96)) < 0.2
    for connectivity, batch in ((few_blocks, 1), (few_blocks, 2), (alike, 1), (scattered, 40)):
        units = len(connectivity)
        _, values, upstream, _ = draw(rng, units=units, connectivity=connectivity, batch=batch)
        own = cast(values, np.float32)
        layer = network(own, np.float32, connectivity=connectivity)
        runs = []
        # Threads that have only just started may come too late for a call.
        for threads in (1, 2, 2, 2, 3):
            rf.set_num_threads(threads)
            runs.append(run(layer, own, *(upstream[k].astype(np.float32) for k in ("dy", "dh_n"))))
        for other in runs[1:]:
            for name, want in runs[0].items():
                assert_same_bits(other[name], want, name)


@pytest.mark.parametrize("units", [32, 40])
@pytest.mark.parametrize("kind, gates", [(rf.RNN, 1), (rf.GRU, 3), (rf.LSTM, 4)])
def test_gradients_of_what_is_absent_are_zero_in_sparse_kernels_too(kind, gates, units, rng):
    """Which write whole blocks of 16 rows, those of a gate perhaps counted from its own first one."""
    blocks = rng.random((gates * units // 8, units // 8)) < 0.2
    mask = np.kron(blocks, np.ones((8, 8), bool)) & (rng.random((gates * units, units)) < 0.7)
    layer = kind(I, units, mask_hh=mask, seed=1)
    y, _, tape = layer.forward(rng.standard_normal((T, N, I)).astype(np.float32))
    gradient = layer.backward(tape, np.ones_like(y)).params["weight_hh_l0"]
    assert not gradient[~mask].any()
    assert gradient[mask].all()


# Zeros for ever

OPTIMIZERS = {
    "momentum and weight decay": lambda: rf.SGD(0.05, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda: rf.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: rf.Adam(0.05),
}


H = 7

# The layer, its gates, other options, and how many gates a mask has: 0 for no mask, 1 for all gates alike.
MASKED = {
    "frnn": (rf.FRNN, 1, {"inputs": [0, 2, 5]}, 0, 1),
    "rnn": (rf.RNN, 1, {}, 1, 1),
    "gru, gates alike": (rf.GRU, 3, {}, 1, 1),
    "gru, gates of their own": (rf.GRU, 3, {}, 0, 3),
    "reset-before gru": (rf.GRU, 3, {"reset_after": False}, 0, 1),
    "lstm, gates alike": (rf.LSTM, 4, {}, 1, 1),
    "lstm, gates of their own": (rf.LSTM, 4, {}, 4, 4),
    "coupled lstm": (rf.LSTM, 3, {"coupled": True, "peephole": True}, 0, 3),
}
by_masked = pytest.mark.parametrize("name", MASKED)


def masked_layer(rng, name: str) -> tuple:
    """A layer with random masks, and where its weights must be zero."""
    kind, gates, given, ih, hh = MASKED[name]
    masks = {}
    if ih:
        masks["mask_ih"] = rng.random((ih * H, I)) < 0.5
    if hh:
        masks["connectivity" if kind is rf.FRNN else "mask_hh"] = rng.random((hh * H, H)) < 0.5
    layer = kind(I, H, seed=1, **given, **masks)
    present = {"weight_ih_l0": masks.get("mask_ih"), "weight_hh_l0": masks.get("connectivity", masks.get("mask_hh"))}
    if kind is rf.FRNN:
        present["weight_ih_l0"] = presence(H, given["inputs"])["weight_ih_l0"]
    absent = {key: ~np.tile(mask, (gates * H // len(mask), 1)) for key, mask in present.items() if mask is not None}
    return layer, absent


@by_masked
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_absent_connections_stay_zero_in_training(name, optimizer, rng):
    layer, absent = masked_layer(rng, name)
    assert sum(mask.sum() for mask in absent.values()) > 0
    chosen_optimizer = OPTIMIZERS[optimizer]()
    x = rng.standard_normal((T, N, I)).astype(np.float32)
    for _ in range(8):
        y, _, tape = layer.forward(x)
        grads = layer.backward(tape, y - 1)
        for key, mask in absent.items():
            assert not grads.params[key][mask].any(), key
        chosen_optimizer.step(layer, grads.params)
        for key, mask in absent.items():
            assert not layer.state_dict()[key][mask].any(), key
            assert layer.state_dict()[key][~mask].all(), key


@by_masked
def test_absent_connections_stay_zero_in_fit(name, rng):
    layer, absent = masked_layer(rng, name)
    before = layer.state_dict()["weight_hh_l0"].copy()
    model = rf.Sequential(layer, rf.Last(), rf.Dense(7, 1, seed=2))
    x = rng.standard_normal((T, 20, I)).astype(np.float32)
    model.fit(
        x, x[:, :, :1].sum(axis=0), optimizer=rf.SGD(0.05, momentum=0.9, weight_decay=0.1), epochs=3, progress=False
    )
    for key, mask in absent.items():
        assert not layer.state_dict()[key][mask].any(), key
    assert not np.array_equal(layer.state_dict()["weight_hh_l0"], before)


@by_masked
def test_masked_gradients_are_those_of_the_dense_layer_elsewhere(name, rng):
    """The same layer without masks, holding the same zeros."""
    layer, absent = masked_layer(rng, name)
    kind, _, given, _, _ = MASKED[name]
    dense = rf.RNN(I, H) if kind is rf.FRNN else kind(I, H, **given)
    dense.load_state_dict(layer.state_dict())
    x = rng.standard_normal((T, N, I)).astype(np.float32)
    results = []
    for one in (layer, dense):
        y, _, tape = one.forward(x)
        results.append((y, one.backward(tape, np.ones_like(y))))
    (y, got), (want_y, want) = results
    tolerance = tolerances.REORDERED * tolerances.gradient(np.float32, T, N, I, 7, 4)
    assert_close(y, want_y, tolerance, "y")
    assert_close(got.x, want.x, tolerance, "dx")
    for key, value in want.params.items():
        assert_close(got.params[key], np.where(absent.get(key, False), 0, value), tolerance, key)


@by_masked
def test_a_weight_where_there_is_no_connection_is_refused(name, rng):
    layer, absent = masked_layer(rng, name)
    state = layer.state_dict()
    for key, mask in absent.items():
        wrong = state[key].copy()
        wrong[tuple(np.argwhere(mask)[0])] = 1e-30
        with pytest.raises(ValueError, match=key):
            layer.load_state_dict({**state, key: wrong})
        assert_same_bits(layer.state_dict()[key], state[key], key)
    model = rf.Sequential(rf.RNN(I, I), layer)
    with pytest.raises(ValueError, match=f"layer 1: {key}"):
        model.load_state_dict({**model.state_dict(), f"1.{key}": wrong})


@by_masked
def test_files_keep_the_masks(name, rng, tmp_path):
    layer, absent = masked_layer(rng, name)
    rf.Sequential(layer).save(tmp_path / "model.safetensors")
    loaded = rf.load(tmp_path / "model.safetensors").layers[0]
    x = rng.standard_normal((T, N, I)).astype(np.float32)
    assert_same_bits(np.ascontiguousarray(loaded(x)[0]), np.ascontiguousarray(layer(x)[0]), "y")
    y, _, tape = loaded.forward(x)
    rf.SGD(0.1).step(loaded, loaded.backward(tape, np.ones_like(y)).params)
    for key, mask in absent.items():
        assert not loaded.state_dict()[key][mask].any(), key


def test_files_hold_the_connections_of_thousands_of_units(tmp_path):
    units = 3000
    connectivity = np.zeros((units, units), bool)
    connectivity[np.arange(units), np.arange(units) - 1] = True
    rf.Sequential(rf.FRNN(2, units, connectivity=connectivity)).save(tmp_path / "ring.safetensors")
    loaded = rf.load(tmp_path / "ring.safetensors").layers[0]
    assert np.array_equal(loaded.state_dict()["weight_hh_l0"] != 0, connectivity)


# Other networks by masks alone


def test_elman_network_is_everything_connected(dtype, isa, rng):
    _, values, upstream, _ = draw(rng)
    own = cast(values, dtype)
    parameters = {name: a for name, a in own.items() if name.startswith(("weight", "bias"))}
    elman = rf.RNN(I, UNITS, dtype=dtype)
    elman.load_state_dict(parameters)
    dy, dh_n = (upstream[name].astype(dtype) for name in ("dy", "dh_n"))
    got, want = run(network(own, dtype), own, dy, dh_n), run(elman, own, dy, dh_n)
    for name, value in want.items():
        assert_same_bits(np.ascontiguousarray(got[name]), np.ascontiguousarray(value), name)


def test_a_stack_of_two_is_a_block_triangle_one_step_later(dtype, rng):
    """Units 0-5 are the first layer, 6-10 the second, which sees the first one's outputs a step later."""
    first, second = np.arange(6), np.arange(6, UNITS)
    connectivity = np.ones((UNITS, UNITS), bool)
    connectivity[np.ix_(first, second)] = False
    _, values, _, _ = draw(rng, inputs=first, connectivity=connectivity)
    own = cast(values, dtype)
    layer = network(own, dtype, inputs=first, outputs=second, connectivity=connectivity)
    y, _, tape = layer.forward(own["x"], own["h0"])

    lower = rf.RNN(I, 6, dtype=dtype)
    upper = rf.RNN(6, 5, dtype=dtype)
    w, b_ih, b_hh = own["weight_hh_l0"], own["bias_ih_l0"], own["bias_hh_l0"]
    lower.load_state_dict(
        {
            "weight_ih_l0": own["weight_ih_l0"][:6],
            "weight_hh_l0": w[:6, :6],
            "bias_ih_l0": b_ih[:6],
            "bias_hh_l0": b_hh[:6],
        }
    )
    upper.load_state_dict(
        {"weight_ih_l0": w[6:, :6], "weight_hh_l0": w[6:, 6:], "bias_ih_l0": b_ih[6:], "bias_hh_l0": b_hh[6:]}
    )
    h, _, lower_tape = lower.forward(own["x"][:-1], own["h0"][..., :6])
    # The second layer's first step has seen no x yet: what it gives is the stack's initial state.
    want, _, upper_tape = upper.forward(h, np.ascontiguousarray(y[:1]))
    tolerance = tolerances.REORDERED * tolerances.forward(dtype, I, UNITS)
    assert_close(y[1:], want, tolerance, "y")

    dy = rng.standard_normal(y.shape).astype(dtype)
    grads = layer.backward(tape, dy)
    through = upper.backward(upper_tape, dy[1:])
    want_dx = lower.backward(lower_tape, through.x).x
    assert_close(grads.x[:-1], want_dx, tolerances.REORDERED * tolerances.gradient(dtype, T, N, I, UNITS, 1), "dx")
    assert not grads.x[-1].any()


def test_jordan_network_feeds_its_outputs_back(dtype, rng):
    """Hidden units see x and the outputs of the step before; outputs see the hidden units of the step before."""
    hidden, out = np.arange(8), np.arange(8, UNITS)
    connectivity = np.zeros((UNITS, UNITS), bool)
    connectivity[np.ix_(hidden, out)] = True
    connectivity[np.ix_(out, hidden)] = True
    _, values, _, _ = draw(rng, inputs=hidden, connectivity=connectivity)
    own = cast(values, dtype)
    layer = network(own, dtype, inputs=hidden, outputs=out, connectivity=connectivity)
    y, _, tape = layer.forward(own["x"], own["h0"])

    u, w, b = values["weight_ih_l0"][:8], values["weight_hh_l0"], values["bias_ih_l0"] + values["bias_hh_l0"]
    h, o = values["h0"][0, :, :8], values["h0"][0, :, 8:]
    for t in range(T):
        h, o = np.tanh(values["x"][t] @ u.T + o @ w[:8, 8:].T + b[:8]), np.tanh(h @ w[8:, :8].T + b[8:])
        assert_close(y[t], o, tolerances.forward(dtype, I, UNITS), f"step {t}")

    # What goes in takes one step to the outputs and two from there to the next ones: never an even number.
    dy = np.zeros_like(y)
    dy[5] = 1
    reached = layer.backward(tape, dy).x.any(axis=(1, 2))
    assert reached.tolist() == [True, False, True, False, True, False]


def test_a_chain_forgets_everything_after_as_many_steps_as_it_has_links(dtype, isa, rng):
    """No cycles: what x and the initial state were before has no influence, not even a small one."""
    links, width, steps = 3, 4, 8
    units = links * width
    connectivity = np.zeros((units, units), bool)
    for k in range(1, links):
        connectivity[k * width : (k + 1) * width, (k - 1) * width : k * width] = True
    options = {"inputs": range(width), "outputs": range(units - width, units), "connectivity": connectivity}
    _, values, _, _ = draw(rng, units=units, inputs=options["inputs"], connectivity=connectivity, steps=steps)
    own = cast(values, dtype)
    layer = network(own, dtype, **options)
    y, _, tape = layer.forward(own["x"], own["h0"])
    for t in range(steps):
        dy = np.zeros_like(y)
        dy[t] = 1
        grads = layer.backward(tape, dy, keep=True)
        wanted = [s == t - links + 1 for s in range(steps)]
        assert grads.x.any(axis=(1, 2)).tolist() == wanted, t
        assert grads.state.any() == (t < links - 1), t
    other, _ = layer(own["x"], own["h0"] + 1)
    assert_same_bits(np.ascontiguousarray(other[links - 1 :]), np.ascontiguousarray(y[links - 1 :]), "y")
    assert not (other[: links - 1] == y[: links - 1]).any()
    # A feed-forward network of three layers, applied to every step alone.
    w, b = values["weight_hh_l0"], values["bias_ih_l0"] + values["bias_hh_l0"]
    h = np.tanh(values["x"] @ values["weight_ih_l0"][:width].T + b[:width])
    for k in range(1, links):
        block = slice(k * width, (k + 1) * width)
        h = np.tanh(h @ w[block, (k - 1) * width : k * width].T + b[block])
    assert_close(
        y[links - 1 :], h[: steps - links + 1], tolerances.REORDERED * tolerances.forward(dtype, I, units), "y"
    )


def test_independent_units_are_a_diagonal(dtype, isa, rng):
    """As in IndRNN (Li et al. 2018): every unit is a network of its own, and no gradient crosses."""
    connectivity = np.eye(UNITS, dtype=bool)
    _, values, _, _ = draw(rng, connectivity=connectivity)
    own = cast(values, dtype)
    layer = network(own, dtype, connectivity=connectivity)
    y, _, tape = layer.forward(own["x"], own["h0"])
    recurrent = np.diagonal(values["weight_hh_l0"])
    from_x = values["x"] @ values["weight_ih_l0"].T + values["bias_ih_l0"] + values["bias_hh_l0"]
    h = values["h0"][0]
    for t in range(T):
        h = np.tanh(from_x[t] + recurrent * h)
        assert_close(y[t], h, tolerances.forward(dtype, I, UNITS), f"step {t}")
    dy = np.zeros_like(y)
    dy[-1, :, 4] = 1
    grads = layer.backward(tape, dy)
    alone = np.arange(UNITS) == 4
    assert not grads.state[..., ~alone].any() and grads.state[..., alone].all()
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"):
        assert not grads.params[name][~alone].any() and grads.params[name][alone].any(), name


@pytest.mark.parametrize("units", [64, 100, 257])
@pytest.mark.parametrize("block", [1, 8, 16, 32])
def test_blocks_of_zeros_give_the_results_of_a_dense_network(units, block, dtype, isa, rng):
    """What is left out of the products are zeros: outputs and gradients are the dense layer's."""
    side = -(-units // block)
    blocks = rng.random((side, side)) < 0.1
    connectivity = np.kron(blocks, np.ones((block, block), bool))[:units, :units].astype(bool)
    # More rows than whose gradients are summed at once, for some; so few that blocks pass side by side, for some.
    steps, batch = {1: (4, 7), 8: (4, 1), 16: (5, 60), 32: (4, 3)}[block]
    _, values, upstream, _ = draw(rng, units=units, connectivity=connectivity, batch=batch, steps=steps)
    own = cast(values, dtype)
    dense = rf.RNN(I, units, dtype=dtype)
    dense.load_state_dict({name: a for name, a in own.items() if name.startswith(("weight", "bias"))})
    dy, dh_n = (upstream[name].astype(dtype) for name in ("dy", "dh_n"))
    got = run(network(own, dtype, connectivity=connectivity), own, dy, dh_n)
    want = run(dense, own, dy, dh_n)
    want["weight_hh_l0"] = want["weight_hh_l0"] * connectivity
    for name, value in want.items():
        assert_close(
            got[name], value, tolerances.REORDERED * tolerances.gradient(dtype, steps, batch, I, units, 1), name
        )
    assert not got["weight_hh_l0"][~connectivity].any()


@pytest.mark.parametrize("density", [0, 0.02, 0.1, 0.5])
@pytest.mark.parametrize("units, height, width", [(40, 1, 8), (150, 1, 8), (150, 24, 24), (150, 40, 8)])
def test_a_sequence_alone_has_the_bits_of_one_in_a_batch(units, height, width, density, dtype, isa, rng):
    """Few rows take another way through blocks of connections, of which some have none, one, or many, and which are
    those of the next block or not."""
    blocks = rng.random((-(-units // height), -(-units // width))) < density
    connectivity = np.kron(blocks, np.ones((height, width)))[:units, :units] > 0
    layer = rf.FRNN(I, units, connectivity=connectivity, dtype=dtype, seed=1)
    x = rng.standard_normal((4, 9, I)).astype(dtype)
    dy = rng.standard_normal((4, 9, units)).astype(dtype)
    y, h, tape = layer.forward(x)
    grads = layer.backward(tape, dy)
    for count in (1, 2, 3, 4):
        some = slice(2, 2 + count)
        y_some, h_some, tape = layer.forward(np.ascontiguousarray(x[:, some]))
        grads_some = layer.backward(tape, np.ascontiguousarray(dy[:, some]))
        assert_same_bits(y_some, np.ascontiguousarray(y[:, some]), f"y of {count}")
        assert_same_bits(h_some, np.ascontiguousarray(h[:, some]), f"h of {count}")
        assert_same_bits(grads_some.x, np.ascontiguousarray(grads.x[:, some]), f"dx of {count}")
        assert_same_bits(grads_some.state, np.ascontiguousarray(grads.state[:, some]), f"dh0 of {count}")


def test_a_network_in_a_sequential_trains(rng):
    model = rf.Sequential(
        rf.FRNN(2, 20, inputs=range(10), outputs=range(15, 20), seed=1), rf.Last(), rf.Dense(5, 1, seed=2)
    )
    x = rng.standard_normal((6, 200, 2)).astype(np.float32)
    y = x[2, :, :1]
    history = model.fit(x, y, optimizer=rf.Adam(1e-2), epochs=30, progress=False)
    assert history.loss[-1] < 0.3 * history.loss[0]


def test_units_that_are_read_out_may_go_into_another_layer_and_into_any_loss(rng):
    x = rng.standard_normal((5, 4, 3)).astype(np.float32)
    labels = rng.integers(0, 3, (5, 4))
    below = rf.FRNN(3, 8, outputs=[6, 0, 3], seed=1)
    rf.Sequential(below, rf.LSTM(3, 3, seed=2)).fit(x, x, epochs=1, progress=False)
    model = rf.Sequential(below)
    assert model.evaluate(x, labels, "cross_entropy") == pytest.approx(
        rf.losses.cross_entropy(np.ascontiguousarray(below(x)[0]), labels)[0], rel=1e-6
    )
    model.fit(x, labels, loss="cross_entropy", epochs=1, progress=False)


BAD = [
    ({"inputs": [UNITS]}, "inputs"),
    ({"inputs": [-1]}, "inputs"),
    ({"inputs": [0, 0]}, "inputs"),
    ({"inputs": [1.5]}, "inputs"),
    ({"inputs": "abc"}, "inputs"),
    ({"inputs": 3}, "inputs"),
    ({"outputs": [UNITS]}, "outputs"),
    ({"outputs": [-1]}, "outputs"),
    ({"outputs": []}, "outputs"),
    ({"outputs": [[1]]}, "outputs"),
    ({"connectivity": np.ones((UNITS, UNITS))}, "connectivity"),
    ({"connectivity": np.ones((UNITS, UNITS - 1), bool)}, "connectivity"),
    ({"connectivity": np.ones(UNITS, bool)}, "connectivity"),
    ({"connectivity": "all"}, "connectivity"),
    ({"nonlinearity": "sigmoid"}, "nonlinearity"),
    ({"bias": 1}, "bias"),
    ({"batch_first": "no"}, "batch_first"),
    ({"dtype": "int32"}, "dtype"),
]


@pytest.mark.parametrize(("wrong", "match"), BAD, ids=lambda value: str(value)[:50])
def test_networks_that_make_no_sense_are_refused(wrong, match):
    with pytest.raises((TypeError, ValueError), match=match) as error:
        rf.FRNN(I, UNITS, **wrong)
    assert "FRNN" in str(error.value)


@pytest.mark.parametrize("units", [0, -1, 2.5, "3", None])
def test_wrong_numbers_of_units_are_refused(units):
    with pytest.raises((TypeError, ValueError), match="units"):
        rf.FRNN(I, units)


def test_the_callers_masks_are_copied(rng):
    connectivity = np.zeros((UNITS, UNITS), bool)
    layer = rf.FRNN(I, UNITS, connectivity=connectivity)
    connectivity[:] = True
    x = rng.standard_normal((T, N, I)).astype(np.float32)
    y, _, tape = layer.forward(x)
    assert not layer.backward(tape, np.ones_like(y)).params["weight_hh_l0"].any()
