"""Gradient flow: norms against the complex-step derivative by every state, figures and verdicts against networks
whose gradients are known in closed form, the callback, the picture, arguments."""

from __future__ import annotations

import sys
import warnings

import matplotlib.figure
import matplotlib.pyplot
import numpy as np
import pytest
import reference
import rnnfast as rf
from compare import assert_close, assert_same_bits
from harness import new_layer
from reference import STEP, STEPS, affine, sigmoid

matplotlib.use("Agg")

# Norm-relative: gradients through two recurrent layers of eight steps, all in float64.
TOLERANCE = 1e-12
T, N, I, H, C = 8, 3, 2, 4, 2  # noqa: E741
by_cell = pytest.mark.parametrize("cell", reference.GATES)


def model_of(cell, sequence, batch_first=False, **options):
    """Dense, two recurrent layers, Dense: gradients reach the lower one through time, and through the upper one."""
    options |= {"dtype": "float64", "batch_first": batch_first}
    below = new_layer(cell, I, H, seed=1, **options)
    width = H * (2 if below.bidirectional else 1)
    above = new_layer(cell, width, H, seed=2, dtype="float64", batch_first=batch_first)
    first, last = rf.Dense(I, I, "tanh", dtype="float64", seed=3), rf.Dense(H, C, dtype="float64", seed=4)
    return rf.Sequential(first, below, above, *([] if sequence else [rf.Last()]), last)


def run_strand(cell, parameters, suffix, x, moved_state, directions):
    """One layer in one direction in complex numbers: y (T, K, N, H).

    ``moved_state`` is None, or the state (h or c) and the step at which ``directions`` (K, N, H) are added to it.
    """
    reverse = suffix.endswith("reverse")
    h = c = np.zeros((x.shape[-2], H), complex)
    ys = [None] * len(x)
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        from_x = affine(x[t], parameters[f"weight_ih_{suffix}"], parameters[f"bias_ih_{suffix}"])
        from_h = affine(h, parameters[f"weight_hh_{suffix}"], parameters[f"bias_hh_{suffix}"])
        dh, dc = (1j * STEP * directions if moved_state == (state, t) else 0 for state in "hc")
        if cell == "lstm":
            i, f, g, o = np.split(from_x + from_h, 4, axis=-1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g) + dc
            h = sigmoid(o) * np.tanh(c)
        else:
            h, c = STEPS[cell](from_x, from_h, h, c)
        h = h + dh
        ys[t] = h
    return np.stack(np.broadcast_arrays(*ys))


def expected_norms(cell, model, x, y, strand, state, only_at=None):
    """Norm of dL/d(state at t) for every t, by moving each of its numbers; ``only_at`` one step's loss if not None.

    ``strand`` counts layers and directions from the input on.
    """
    unit_vectors = np.eye(N * H).reshape(N * H, N, H)
    norms = []
    for t in range(T):
        out, count = x[:, None], 0
        for layer in model.layers:
            if isinstance(layer, rf.Dense):
                out = affine(out, layer.parameters["weight"], layer.parameters["bias"])
                out = np.tanh(out) if layer.activation else out
            elif isinstance(layer, rf.Last):
                out = out[-1]
            else:
                for level in range(layer.num_layers):
                    both = []
                    for way in ("", "_reverse")[: 2 if layer.bidirectional else 1]:
                        moved = (state, t) if count == strand else None
                        both.append(run_strand(cell, layer.parameters, f"l{level}{way}", out, moved, unit_vectors))
                        count += 1
                    out = np.concatenate(np.broadcast_arrays(*both), axis=-1)
        # The mean over all numbers of one prediction, of which there are N * H along the axis of directions.
        squares = (out - np.expand_dims(y, -3)) ** 2
        if only_at is not None and y.ndim == 3:
            squares = squares[only_at : only_at + 1 or None]
        axes = (0, -2, -1) if y.ndim == 3 else (-2, -1)
        norms.append(np.linalg.norm(squares.sum(axis=axes).imag / STEP / y.size))
    return np.array(norms)


def check_norms(cell, model, flow, x, y):
    for k, found in enumerate(flow.layers):
        end = 0 if found.reverse else -1
        for state in "hc" if cell == "lstm" else "h":
            expected = expected_norms(cell, model, x, y, k, state)
            assert_close(getattr(found, f"d{state}"), expected, TOLERANCE, f"{found.name} d{state}")
            expected = expected_norms(cell, model, x, y, k, state, end)
            assert_close(getattr(found, f"d{state}_end"), expected, TOLERANCE, f"{found.name} d{state}_end")
        if cell != "lstm":
            assert found.dc is None and found.dc_end is None


@by_cell
@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_norms_are_those_of_the_complex_step_derivative(cell, sequence, batch_first, rng):
    model = model_of(cell, sequence, batch_first)
    x, y = rng.standard_normal((T, N, I)), rng.standard_normal((T, N, C) if sequence else (N, C))

    def shown(array):
        return array.swapaxes(0, 1) if batch_first and array.ndim == 3 else array

    flow = rf.gradient_flow(model, shown(x), shown(y))
    assert flow.loss == pytest.approx(model.evaluate(shown(x), shown(y)), rel=1e-12)
    assert [layer.name for layer in flow.layers] == [f"{k} {type(model.layers[k]).__name__}" for k in (1, 2)]
    check_norms(cell, model, flow, x, y)


@by_cell
@pytest.mark.parametrize("sequence", [False, True])
def test_layers_and_directions_of_one_object_are_told_apart(cell, sequence, rng):
    model = model_of(cell, sequence, num_layers=2, bidirectional=True)
    x, y = rng.standard_normal((T, N, I)), rng.standard_normal((T, N, C) if sequence else (N, C))
    flow = rf.gradient_flow(model, x, y)
    kind = type(model.layers[1]).__name__
    names = [f"1 {kind} layer {level}{way}" for level in (0, 1) for way in ("", " reverse")]
    assert [layer.name for layer in flow.layers] == [*names, f"2 {kind}"]
    assert [layer.reverse for layer in flow.layers] == [False, True, False, True, False]
    assert flow.loss == pytest.approx(model.evaluate(x, y), rel=1e-12)
    check_norms(cell, model, flow, x, y)


@pytest.mark.parametrize("sequence", [False, True])
def test_dropout_between_layers_is_left_out(sequence, rng):
    x, y = rng.standard_normal((T, N, I)), rng.standard_normal((T, N, C) if sequence else (N, C))
    plain, dropped = (model_of("gru", sequence, num_layers=2, dropout=p) for p in (0.0, 0.5))
    flows = [rf.gradient_flow(model, x, y) for model in (plain, dropped, dropped)]
    for flow in flows[1:]:
        assert flow.loss == flows[0].loss
        for layer, expected in zip(flow.layers, flows[0].layers, strict=True):
            assert_same_bits(layer.dh, expected.dh, layer.name)


@pytest.mark.parametrize("factor, verdict", [(0.5, "vanishing"), (1.0, "healthy"), (1.4, "exploding")])
def test_growth_in_the_reverse_direction_is_that_from_its_own_end(factor, verdict, rng):
    layer = rf.RNN(1, 3, nonlinearity="relu", bias=False, bidirectional=True, dtype="float64", seed=0)
    weights = {"weight_ih": np.ones((3, 1)), "weight_hh": factor * np.eye(3)}
    layer.load_state_dict({f"{name}_l0{way}": w for name, w in weights.items() for way in ("", "_reverse")})
    x = np.abs(rng.standard_normal((30, 2, 1))) + 1
    for found in rf.gradient_flow(layer, x, np.zeros((30, 2, 6))).layers:
        assert found.growth == pytest.approx(factor, rel=1e-9) and found.verdict == verdict


@by_cell
def test_a_layer_is_a_model_of_its_own(cell, rng):
    layer = new_layer(cell, I, H, dtype="float64", seed=0)
    x, y = rng.standard_normal((T, N, I)), rng.standard_normal((T, N, H))
    alone, in_model = rf.gradient_flow(layer, x, y), rf.gradient_flow(rf.Sequential(layer), x, y)
    assert alone.loss == in_model.loss
    assert_same_bits(alone.layers[0].dh, in_model.layers[0].dh, "dh")
    assert_same_bits(alone.layers[0].dh_end, in_model.layers[0].dh_end, "dh_end")


@by_cell
def test_nothing_is_changed_and_the_result_is_repeatable(cell, rng):
    model = model_of(cell, True)
    x, y = rng.standard_normal((T, N, I)), rng.standard_normal((T, N, C))
    before, version = model.parameters.flat, model.parameters.version
    x_before, y_before = x.copy(), y.copy()
    first, second = rf.gradient_flow(model, x, y), rf.gradient_flow(model, x, y)
    assert model.parameters.version == version
    assert_same_bits(model.parameters.flat, before, "parameters")
    assert_same_bits(x, x_before, "x")
    assert_same_bits(y, y_before, "y")
    assert_same_bits(first.layers[0].dh, second.layers[0].dh, "dh")


# Options, by a cell of their own in complex numbers.


def layer_norm(a, weight):
    centred = a - a.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5) * weight


def run_option_lstm(layer, x, zoneout, moved_state, directions):
    """An LSTM with options: y (T, K, N, H); ``zoneout`` holds the masks of every step, or nothing."""
    p, options, H = layer.parameters, layer.options, layer.hidden_size
    h = np.zeros((x.shape[-2], p["weight_hh_l0"].shape[1]), complex)
    c = np.zeros((x.shape[-2], H), complex)
    peepholes = np.split(p["weight_peephole_l0"], 2 if options.coupled else 3) if options.peephole else 3 * [0]
    ys = []
    for t in range(len(x)):
        dh, dc = (1j * STEP * directions if moved_state == (state, t) else 0 for state in "hc")
        from_x, from_h = x[t] @ p["weight_ih_l0"].T, h @ p["weight_hh_l0"].T
        if options.layer_norm:
            from_x, from_h = layer_norm(from_x, p["layer_norm_ih_l0"]), layer_norm(from_h, p["layer_norm_hh_l0"])
        a = from_x + from_h + p["bias_ih_l0"] + p["bias_hh_l0"]
        if options.coupled:
            f, g, o = np.split(a, 3, axis=-1)
            f = sigmoid(f + peepholes[0] * c)
            i = 1 - f
        else:
            i, f, g, o = np.split(a, 4, axis=-1)
            i, f = sigmoid(i + peepholes[0] * c), sigmoid(f + peepholes[1] * c)
        c_old, c = c, f * c + i * np.tanh(g)
        if "zoneout_c_l0" not in zoneout:
            c = c + dc
        squashed = c
        if options.layer_norm:
            squashed = layer_norm(c, p["layer_norm_c_weight_l0"]) + p["layer_norm_c_bias_l0"]
        new = sigmoid(o + peepholes[-1] * c) * np.tanh(squashed)
        if options.proj_size:
            new = new @ p["weight_hr_l0"].T
        if "zoneout_c_l0" in zoneout:
            keep = zoneout["zoneout_c_l0"][t]
            c = keep * c_old + (1 - keep) * c + dc
        if "zoneout_h_l0" in zoneout:
            keep = zoneout["zoneout_h_l0"][t]
            new = keep * h + (1 - keep) * new
        h = new + dh
        ys.append(h)
    return np.stack(np.broadcast_arrays(*ys))


def masks_of(layer, x):
    """The masks of zoneout that gradient_flow draws: those of a copy made with seed 0, step by step."""
    copy = type(layer)(**layer.config(), seed=0)
    steps = [copy.forward(x[t : t + 1])[2].masks for t in range(len(x))]
    return {name: np.concatenate([masks[name] for masks in steps]) for name in steps[0]}


@pytest.mark.parametrize(
    "options",
    [
        {"peephole": True},
        {"coupled": True},
        {"coupled": True, "peephole": True},
        {"layer_norm": True},
        {"proj_size": 3},
        {"proj_size": 3, "layer_norm": True},
        {"zoneout": (0.3, 0.0)},
        {"zoneout": (0.0, 0.4)},
        {"zoneout": (0.3, 0.4)},
        {"recurrent_dropout": 0.5},
        {"clip": 9.0},
    ],
    ids=str,
)
def test_norms_of_lstms_with_options(options, rng):
    layer = rf.LSTM(I, H, dtype="float64", seed=5, **options)
    state = layer.state_dict()
    layer.load_state_dict({name: value + 0.3 * rng.standard_normal(value.shape) for name, value in state.items()})
    P = options.get("proj_size", H)
    model = rf.Sequential(layer, rf.Last(), rf.Dense(P, C, dtype="float64", seed=6))
    x, y = rng.standard_normal((T, N, I)), rng.standard_normal((N, C))
    (found,) = rf.gradient_flow(model, x, y).layers
    zoneout = masks_of(layer, x) if "zoneout" in options else {}
    for name, size in (("h", P), ("c", H)):
        directions = np.eye(N * size).reshape(N * size, N, size)
        norms = []
        for t in range(T):
            out = run_option_lstm(layer, x[:, None], zoneout, (name, t), directions)[-1]
            error = affine(out, model.layers[2].parameters["weight"], model.layers[2].parameters["bias"]) - y
            norms.append(np.linalg.norm((error**2).sum(axis=(-2, -1)).imag / STEP / y.size))
        assert_close(getattr(found, f"d{name}"), np.array(norms), TOLERANCE, f"d{name}")
    blocks = np.split(layer.parameters["weight_hh_l0"], 3 if options.get("coupled") else 4)
    if "proj_size" in options:
        blocks = [block @ layer.parameters["weight_hr_l0"] for block in blocks]
    radii = [np.abs(np.linalg.eigvals(block)).max() for block in blocks]
    assert list(found.spectral_radius.values()) == pytest.approx(radii)
    assert list(found.spectral_radius) == list("fgo" if options.get("coupled") else "ifgo")


def test_zoneout_of_cells_is_not_taken_for_a_gradient_of_zero(rng):
    # The state after the last step is not read: nothing depends on it.
    layer = rf.LSTM(I, H, zoneout=(0.0, 0.5), dtype="float64", seed=0)
    rf.initialise(layer, bias="zeros", chrono=T)
    model = rf.Sequential(layer, rf.Last(), rf.Dense(H, C, dtype="float64", seed=6))
    (found,) = rf.gradient_flow(model, rng.standard_normal((T, N, I)), rng.standard_normal((N, C))).layers
    assert found.dc[-1] == 0 and (found.dc[:-1] > 0).all()
    assert found.verdict == "healthy" and "exactly" not in found.reason


def test_fully_recurrent_network_is_followed_in_all_its_units(rng):
    """Those that are not read out, too; with all of them read out it is an RNN."""
    frnn = rf.FRNN(I, H, outputs=[2, 0], connectivity=rng.random((H, H)) < 0.7, dtype="float64", seed=1)
    rnn = rf.RNN(I, H, dtype="float64", seed=0)
    rnn.load_state_dict(frnn.state_dict())
    dense, wide = rf.Dense(2, C, dtype="float64", seed=6), rf.Dense(H, C, dtype="float64", seed=6)
    weight = np.zeros((C, H))
    weight[:, [2, 0]] = dense.parameters["weight"]
    wide.load_state_dict({"weight": weight, "bias": dense.parameters["bias"]})
    x, y = rng.standard_normal((T, N, I)), rng.standard_normal((T, N, C))
    found = rf.gradient_flow(rf.Sequential(frnn, dense), x, y).layers[0]
    expected = rf.gradient_flow(rf.Sequential(rnn, wide), x, y).layers[0]
    assert_close(found.dh, expected.dh, TOLERANCE, "dh")
    assert_close(found.dh_end, expected.dh_end, TOLERANCE, "dh_end")
    assert found.spectral_radius == expected.spectral_radius and found.saturation == expected.saturation


# With relu, W_hh = factor * I and positive inputs, every step back multiplies the gradient by exactly the factor.


def scaled_identity(factor, steps, dtype="float64"):
    layer = rf.RNN(1, 3, nonlinearity="relu", bias=False, dtype=dtype, seed=0)
    layer.load_state_dict({"weight_ih_l0": np.ones((3, 1)), "weight_hh_l0": factor * np.eye(3)})
    model = rf.Sequential(layer, rf.Last(), rf.Dense(3, 1, dtype=dtype, seed=1))
    x = np.zeros((steps, 2, 1), dtype)
    x[0] = 1
    return model, x, np.zeros((2, 1), dtype)


@pytest.mark.parametrize(
    "factor, verdict", [(0.5, "vanishing"), (0.9, "healthy"), (1.0, "healthy"), (1.1, "healthy"), (1.4, "exploding")]
)
def test_growth_radius_and_verdict_of_a_linear_network(factor, verdict):
    (layer,) = rf.gradient_flow(*scaled_identity(factor, 30)).layers
    assert layer.growth == pytest.approx(factor, rel=1e-10)
    assert layer.left == pytest.approx(factor**29, rel=1e-9)
    assert layer.dh[0] / layer.dh[-1] == pytest.approx(factor**29, rel=1e-10)
    assert layer.spectral_radius == {"h": pytest.approx(factor)}
    assert layer.verdict == verdict
    assert f"multiplies dL/dh by {factor:.4g}" in layer.reason and "after 29 steps" in layer.reason


def test_growth_is_that_of_the_end_where_every_step_has_a_loss(rng):
    layer = rf.RNN(1, 3, nonlinearity="relu", bias=False, dtype="float64", seed=0)
    layer.load_state_dict({"weight_ih_l0": np.ones((3, 1)), "weight_hh_l0": 0.5 * np.eye(3)})
    (found,) = rf.gradient_flow(layer, np.abs(rng.standard_normal((40, 2, 1))) + 1, np.zeros((40, 2, 3))).layers
    assert found.growth == pytest.approx(0.5, rel=1e-10)
    assert found.verdict == "vanishing"
    # The losses of all steps, each of about the same gradient, hide it: dL/dh hardly changes over time.
    assert found.dh[0] > 0.1 * found.dh[-1]


def test_a_gradient_of_exactly_zero_vanishes():
    (layer,) = rf.gradient_flow(*scaled_identity(0.01, 60, "float32")).layers
    zeros = int((layer.dh == 0).sum())
    assert zeros > 30  # 0.01 ** 23 is below the smallest float32
    assert layer.verdict == "vanishing" and f"exactly 0 at {zeros} of 59 steps" in layer.reason

    model, x, y = scaled_identity(0.0, 5)
    (layer,) = rf.gradient_flow(model, x, y + 1).layers
    assert np.isnan(layer.growth) and layer.verdict == "vanishing"


def test_an_infinite_gradient_explodes():
    model, x, y = scaled_identity(2000.0, 14, "float32")
    x[0] = 1e-20  # outputs stay finite, their gradients do not: dL/dy is of the order of 1e22
    (layer,) = rf.gradient_flow(model, x, y).layers
    assert layer.verdict == "exploding" and "infinite or NaN" in layer.reason


def test_verdict_of_a_model_is_that_of_its_worst_layer():
    model, x, y = scaled_identity(0.5, 30)
    healthy = rf.gradient_flow(*scaled_identity(1.0, 30)).layers[0]
    vanishing = rf.gradient_flow(model, x, y).layers[0]
    exploding = rf.gradient_flow(*scaled_identity(1.4, 30)).layers[0]
    for layers, verdict in [
        ((healthy,), "healthy"),
        ((healthy, vanishing), "vanishing"),
        ((vanishing, exploding, healthy), "exploding"),
    ]:
        assert rf.GradientFlow(layers, 0.0).verdict == verdict


def test_spectral_radius_is_that_of_each_gate():
    lstm = rf.LSTM(I, H, dtype="float64", seed=0)
    (layer,) = rf.gradient_flow(lstm, np.ones((3, 1, I)), np.ones((3, 1, H))).layers
    assert list(layer.spectral_radius) == ["i", "f", "g", "o"]
    for k, gate in enumerate("ifgo"):
        block = lstm.parameters["weight_hh_l0"][k * H : (k + 1) * H]
        # The power method's limit, by the norm of a high power.
        power = np.linalg.norm(np.linalg.matrix_power(block, 500), 2) ** (1 / 500)
        assert layer.spectral_radius[gate] == pytest.approx(power, rel=2e-2)


@pytest.mark.parametrize("gate", range(4))
@pytest.mark.parametrize("sign", [-1, 1])
def test_saturation_of_every_gate_of_an_lstm(gate, sign):
    lstm = rf.LSTM(1, 2, dtype="float64", seed=0)
    state = {name: np.zeros(shape) for name, shape in lstm.parameters.shapes.items()}
    state["bias_ih_l0"][2 * gate] = 5.0 * sign  # of one of the two units: sigmoid(5) is 0.993
    lstm.load_state_dict(state)
    (layer,) = rf.gradient_flow(lstm, np.zeros((4, 3, 1)), np.zeros((4, 3, 2))).layers
    for k, letter in enumerate("ifgo"):
        expected = (0.0, 0.0) if k != gate else (0.5, 0.0) if sign < 0 else (0.0, 0.5)
        assert layer.saturation[letter] == expected
    assert set(layer.saturation) == {*"ifgoc"}


def test_saturation_of_gru_and_rnn():
    gru = rf.GRU(1, 2, dtype="float64", seed=0)
    state = {name: np.zeros(shape) for name, shape in gru.parameters.shapes.items()}
    state["bias_ih_l0"][:] = [-5, -5, 5, 0, 5, 0]
    gru.load_state_dict(state)
    (layer,) = rf.gradient_flow(gru, np.zeros((4, 3, 1)), np.zeros((4, 3, 2))).layers
    assert layer.saturation == {"r": (1.0, 0.0), "z": (0.0, 0.5), "n": (0.0, 0.5)}

    for nonlinearity, expected in [("tanh", (0.5, 0.25)), ("relu", (0.75, 0.0))]:
        rnn = rf.RNN(1, 4, nonlinearity=nonlinearity, dtype="float64", seed=0)
        state = {name: np.zeros(shape) for name, shape in rnn.parameters.shapes.items()}
        state["bias_ih_l0"][:] = [-9, -9, 0, 9]
        rnn.load_state_dict(state)
        (layer,) = rf.gradient_flow(rnn, np.zeros((4, 3, 1)), np.zeros((4, 3, 4))).layers
        assert layer.saturation == {"h": expected}


def test_text_shows_the_figures():
    flow = rf.gradient_flow(*scaled_identity(0.5, 30))
    for part in ("0 RNN: vanishing", "by 0.5;", "after 29 steps", "h 0.50", "lower and the upper end: h 0% 0%"):
        assert part in str(flow)


# The callback.


def watched(factor, watch, epochs=5, **options):
    """Train with a learning rate of zero, so that nothing changes; the warnings that came."""
    model, x, y = scaled_identity(factor, 30)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, y, optimizer=rf.SGD(0.0), epochs=epochs, progress=False, callbacks=[watch], **options)
    return caught


@pytest.mark.parametrize(
    "factor, options, parts",
    [
        (0.5, {}, ["vanishing after epoch 1", "0 RNN", "by 0.5;", "Try rf.LSTM or rf.GRU instead", "orthogonal"]),
        (1.4, {}, ["exploding after epoch 1", "0 RNN", "by 1.4;", "fit(clip_norm=1.0)", "orthogonal"]),
        (1.4, {"clip_norm": 2.5}, ["exploding", "a clip_norm below 2.5"]),
    ],
)
def test_watch_warns_once_and_says_what_to_try(factor, options, parts):
    _, x, y = scaled_identity(factor, 30)
    watch = rf.GradientWatch(x, y)
    caught = watched(factor, watch, **options)
    assert [w.category for w in caught] == [rf.GradientFlowWarning]
    for part in parts:
        assert part in str(caught[0].message)
    assert list(watch.flows) == [1, 2, 3, 4, 5]


def test_watch_says_nothing_about_a_healthy_model():
    _, x, y = scaled_identity(1.0, 30)
    assert watched(1.0, rf.GradientWatch(x, y)) == []


@pytest.mark.parametrize("every, seen", [(1, [1, 2, 3, 4, 5]), (2, [1, 3, 5]), (9, [1])])
def test_watch_looks_every_so_many_epochs(every, seen):
    _, x, y = scaled_identity(1.0, 30)
    watch = rf.GradientWatch(x, y, every=every)
    watched(1.0, watch)
    assert list(watch.flows) == seen


@pytest.mark.parametrize("cell", [rf.LSTM, rf.GRU])
def test_watch_advises_gates_that_keep_for_cells_that_have_them(cell, rng):
    x, y = rng.standard_normal((60, 4, I)), rng.integers(0, 3, 4)
    model = rf.Sequential(cell(I, H, dtype="float64", seed=0), rf.Last(), rf.Dense(H, 3, dtype="float64", seed=1))
    # The loss is that of the training, where integers are right.
    watch = rf.GradientWatch(x, y)
    with pytest.warns(rf.GradientFlowWarning, match=r"forget_bias=1.0\), or chrono=60 for lags of 60 steps"):
        model.fit(x, y, loss="cross_entropy", epochs=1, progress=False, callbacks=[watch])
    assert watch.flows[1].loss == pytest.approx(model.evaluate(x, y, "cross_entropy"))


def test_advice_helps(rng):
    x, y = rng.standard_normal((100, 4, I), dtype="float32"), rng.standard_normal((4, 1), dtype="float32")
    rest = rf.Last(), rf.Dense(8, 1, seed=1)

    def verdict(layer):
        return rf.gradient_flow(rf.Sequential(layer, *rest), x, y).verdict

    for cell in (rf.LSTM, rf.GRU):
        assert verdict(cell(I, 8, seed=0)) == "vanishing"
        assert verdict(rf.initialise(cell(I, 8, seed=0), chrono=100)) == "healthy"
    assert verdict(rf.RNN(I, 8, seed=0)) == "vanishing"
    relu_rnn = rf.initialise(rf.RNN(I, 8, nonlinearity="relu", seed=0), weight_hh="identity", bias="zeros")
    assert verdict(relu_rnn) == "healthy"


# The picture.


def test_plot_draws_the_norms_from_the_last_step_back(rng):
    lstm = rf.LSTM(I, H, dtype="float64", seed=0)
    x, y = rng.standard_normal((T, N, I)), rng.standard_normal((N, C))
    flow = rf.gradient_flow(rf.Sequential(lstm, rf.Last(), rf.Dense(H, C, dtype="float64")), x, y)
    figure = matplotlib.figure.Figure()
    ax = figure.subplots()
    assert flow.plot(ax) is ax
    assert ax.get_yscale() == "log"
    (layer,) = flow.layers
    assert_same_bits(ax.lines[0].get_ydata(), layer.dh[::-1], "dh")
    assert_same_bits(ax.lines[1].get_ydata(), layer.dc[::-1], "dc")
    assert [text.get_text().split("\n")[0] for text in ax.texts] == ["0 LSTM, dL/dh", "0 LSTM, dL/dc"]
    assert layer.verdict in ax.texts[1].get_text()


def test_compare_draws_several_models_in_one_picture(tmp_path):
    vanishing = rf.gradient_flow(*scaled_identity(0.01, 60, "float32"))
    healthy = rf.gradient_flow(*scaled_identity(1.0, 40))
    ax = rf.GradientFlow.compare({"small": vanishing, "one": healthy})
    assert {text.get_text().split("\n")[0] for text in ax.texts} == {"small, dL/dh", "one, dL/dh"}
    assert len({line.get_color() for line in ax.lines}) == 2
    # What a logarithmic axis has no place for is left out.
    assert np.isnan(ax.lines[0].get_ydata()).sum() == (vanishing.layers[0].dh == 0).sum()
    ax.figure.savefig(tmp_path / "flow.png")
    assert (tmp_path / "flow.png").stat().st_size > 5000
    matplotlib.pyplot.close(ax.figure)


def test_plot_shows_both_gradients_where_every_step_has_a_loss(rng):
    rnn = rf.RNN(I, H, dtype="float64", seed=0)
    flow = rf.gradient_flow(rnn, rng.standard_normal((T, N, I)), rng.standard_normal((T, N, H)))
    ax = flow.plot()
    drawn = [line.get_ydata() for line in ax.lines]
    assert_same_bits(drawn[0], flow.layers[0].dh[::-1], "dh")
    assert_same_bits(drawn[1], flow.layers[0].dh_end[::-1], "dh_end")
    assert "thin" in ax.get_title(loc="left")
    matplotlib.pyplot.close(ax.figure)


def test_plot_without_matplotlib_names_the_extra(monkeypatch):
    flow = rf.gradient_flow(*scaled_identity(1.0, 30))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"GradientFlow.plot: matplotlib is needed.*rnnfast\[cli\]"):
        flow.plot()


# Arguments.

X, Y = np.zeros((T, N, I), "float32"), np.zeros((N, 1), "float32")


def small_model():
    return rf.Sequential(rf.RNN(I, H, seed=0), rf.Last(), rf.Dense(H, 1, seed=0))


def lstm_model(**options):
    return rf.Sequential(rf.LSTM(I, H, seed=0, **options), rf.Last(), rf.Dense(H, 1, seed=0))


@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda: rf.gradient_flow("model", X, Y), TypeError, "gradient_flow: model is str; expected a Sequential"),
        (lambda: rf.gradient_flow(rf.Dense(I, 1), X, Y), ValueError, "gradient_flow: Dense is no recurrent layer"),
        (
            lambda: rf.gradient_flow(rf.Sequential(rf.Dense(I, 1)), X[0], Y),
            ValueError,
            "gradient_flow: the model has no recurrent layer",
        ),
        (lambda: rf.gradient_flow(small_model(), X[:1], Y), ValueError, "gradient_flow: x has 1 step; expected at lea"),
        (lambda: rf.gradient_flow(small_model(), X[:, :, :1], Y), ValueError, "gradient_flow: x of shape"),
        (lambda: rf.gradient_flow(small_model(), X, Y[:1]), ValueError, "gradient_flow: y has 1 samples"),
        (lambda: rf.gradient_flow(small_model(), X.astype(float), Y), TypeError, "gradient_flow: x has dtype float64"),
        (lambda: rf.gradient_flow(small_model(), X + np.nan, Y), ValueError, r"gradient_flow: x\[0, 0, 0\] is nan"),
        (lambda: rf.gradient_flow(small_model(), X, Y, "no"), ValueError, "gradient_flow: loss is 'no'"),
        (
            lambda: rf.gradient_flow(lstm_model(activations=("Sigmoid", "Relu", "Tanh")), X, Y),
            ValueError,
            r"gradient_flow: layer 0, LSTM, has activations \['Sigmoid', 'Relu', 'Tanh'\]; expected none",
        ),
        (
            lambda: rf.gradient_flow(lstm_model(peephole=True, clip=3.0), X, Y),
            ValueError,
            "gradient_flow: layer 0, LSTM, has peepholes and clip; expected one of them",
        ),
        (lambda: rf.GradientWatch(X, Y, every=0), ValueError, "GradientWatch: every is 0; expected at least 1"),
        (lambda: rf.GradientWatch(X, Y, every=1.5), TypeError, "GradientWatch: every is 1.5; expected an integer"),
        (lambda: rf.GradientWatch(X, Y, loss="no"), ValueError, "GradientWatch: loss is 'no'"),
        (lambda: rf.GradientFlow.compare({}), TypeError, "GradientFlow.compare: flows is no mapping"),
        (lambda: rf.GradientFlow.compare([]), TypeError, "GradientFlow.compare: flows is no mapping"),
        (lambda: rf.GradientFlow.compare({"a": 1}), TypeError, r"GradientFlow.compare: flows\['a'\] is int; expected"),
    ],
)
def test_wrong_arguments_are_named(call, error, match):
    with pytest.raises(error, match=match):
        call()
