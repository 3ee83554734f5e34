"""Initialisers: what each rule promises of a matrix (range, deviation, orthogonality), gate by gate; which parameters
are touched and which are not; arguments."""

from __future__ import annotations

import math

import numpy as np
import pytest
import rnnfast as rf

I, H = 24, 40  # noqa: E741
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
by_cell = pytest.mark.parametrize("cell", GATES)


def layer_of(cell, input_size=I, **options):
    return getattr(rf, cell)(input_size, H, **{"dtype": "float64", "seed": 0, **options})


def blocks(layer, name):
    return np.split(layer.parameters[name], GATES[type(layer).__name__])


@by_cell
def test_orthogonal_blocks_are_orthogonal_and_all_different(cell):
    layer = rf.initialise(layer_of(cell), weight_hh="orthogonal", weight_ih="orthogonal")
    square, wide = blocks(layer, "weight_hh_l0"), blocks(layer, "weight_ih_l0")
    for block in square:
        np.testing.assert_allclose(block @ block.T, np.eye(H), atol=1e-13)
    for block in wide:  # (H, I) with H > I: the columns are orthonormal
        np.testing.assert_allclose(block.T @ block, np.eye(I), atol=1e-13)
    first = square[0]
    assert all(np.abs(first - other).max() > 0.1 for other in square[1:])


def test_orthogonal_matrices_have_no_preferred_sign():
    # The diagonal of Q straight from a QR decomposition has mostly one sign.
    positive = [
        (np.diagonal(rf.initialise(layer_of("RNN"), weight_hh="orthogonal", seed=seed).parameters["weight_hh_l0"]) > 0)
        for seed in range(20)
    ]
    assert 0.4 < np.mean(positive) < 0.6  # 800 signs: five deviations are 0.09


def test_wide_orthogonal_matrices_have_orthonormal_rows():
    layer = rf.initialise(layer_of("RNN", 100), weight_ih="orthogonal")
    weight = layer.parameters["weight_ih_l0"]
    np.testing.assert_allclose(weight @ weight.T, np.eye(H), atol=1e-13)


@by_cell
def test_identity_and_factor(cell):
    layer = rf.initialise(layer_of(cell), weight_hh=("identity", 0.5))
    for block in blocks(layer, "weight_hh_l0"):
        assert np.array_equal(block, 0.5 * np.eye(H))


@by_cell
@pytest.mark.parametrize(
    "rule, limit", [("torch", H**-0.5), ("glorot", math.sqrt(6 / (I + H))), (("glorot", 3), 3 * math.sqrt(6 / (I + H)))]
)
def test_uniform_values_fill_their_range(cell, rule, limit):
    layer = rf.initialise(layer_of(cell), weight_ih=rule)
    for block in blocks(layer, "weight_ih_l0"):
        assert np.abs(block).max() <= limit
        # 960 values: the largest is closer to the limit than 2 %, the mean of squares is limit**2 / 3 within 20 %.
        assert np.abs(block).max() > 0.98 * limit
        assert np.mean(block**2) == pytest.approx(limit**2 / 3, rel=0.2)


@by_cell
def test_normal_values_have_the_deviation_of_their_inputs(cell):
    layer = rf.initialise(layer_of(cell), weight_ih="normal", weight_hh=("normal", 0.01))
    for block in blocks(layer, "weight_ih_l0"):
        assert np.std(block) == pytest.approx(I**-0.5, rel=0.15)
    for block in blocks(layer, "weight_hh_l0"):
        assert np.std(block) == pytest.approx(0.01 * H**-0.5, rel=0.15)


@by_cell
def test_torch_biases_and_zero_biases(cell):
    layer = layer_of(cell)
    rf.initialise(layer, bias="zeros", weight_ih="zeros")
    for name in ("bias_ih_l0", "bias_hh_l0", "weight_ih_l0"):
        assert not layer.parameters[name].any()
    rf.initialise(layer, bias="torch")
    for name in ("bias_ih_l0", "bias_hh_l0"):
        assert 0.9 * H**-0.5 < np.abs(layer.parameters[name]).max() <= H**-0.5


def test_torch_is_what_layers_are_made_with():
    # The same distribution; a layer draws all its parameters at once, in the order of its buffer.
    made = rf.GRU(I, H, dtype="float64", seed=3)
    again = rf.initialise(
        rf.GRU(I, H, dtype="float64", seed=0), weight_ih="torch", weight_hh="torch", bias="torch", seed=3
    )
    # 1/sqrt(n) and n**-0.5 may differ in the last bit, and the bound is twice subtracted in drawing.
    np.testing.assert_allclose(again.parameters.flat, made.parameters.flat, atol=1e-16)
    made, other = rf.Dense(I, H, dtype="float64", seed=3), rf.Dense(I, H, dtype="float64", seed=0)
    rf.initialise(other, weight="torch", bias="torch", seed=3)
    np.testing.assert_allclose(other.parameters.flat, made.parameters.flat, atol=1e-16)


@pytest.mark.parametrize("cell, gate, count", [("LSTM", 1, 4), ("GRU", 1, 3)])
def test_forget_bias_sets_the_gate_that_keeps_and_nothing_else(cell, gate, count):
    layer = layer_of(cell)
    before = layer.state_dict()
    rf.initialise(layer, forget_bias=1.5)
    for name, values in layer.state_dict().items():
        expected = before[name]
        if name.startswith("bias"):
            expected[gate * H : (gate + 1) * H] = 1.5 if name == "bias_ih_l0" else 0
        assert np.array_equal(values, expected)


def test_forget_bias_is_what_an_lstm_starts_with():
    # With all else at zero and c = 1, one step leaves f = sigmoid(forget_bias) in the cell.
    layer = layer_of("LSTM")
    layer.load_state_dict({name: np.zeros(shape) for name, shape in layer.parameters.shapes.items()})
    zeros, ones = np.zeros((1, 1, H)), np.ones((1, 1, H))
    layer(np.zeros((1, 1, I)), (zeros, ones))  # packs the weights
    rf.initialise(layer, forget_bias=2.0)
    _, (_, c) = layer(np.zeros((1, 1, I)), (zeros, ones))
    np.testing.assert_allclose(c, 1 / (1 + math.exp(-2)), rtol=1e-14)


def test_forget_bias_is_what_a_gru_starts_with():
    layer = layer_of("GRU")
    layer.load_state_dict({name: np.zeros(shape) for name, shape in layer.parameters.shapes.items()})
    rf.initialise(layer, forget_bias=2.0)
    _, h = layer(np.zeros((1, 1, I)), np.ones((1, 1, H)))
    np.testing.assert_allclose(h, 1 / (1 + math.exp(-2)), rtol=1e-14)


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_chrono_spreads_times_up_to_the_lag(cell):
    layer = rf.initialise(layer_of(cell), chrono=1000)
    keep = blocks(layer, "bias_ih_l0")[1]
    assert keep.min() >= 0 and keep.max() <= math.log(999)
    # exp(b) is uniform: its mean is near half the lag (40 values: a deviation is a tenth of that).
    assert np.exp(keep).mean() == pytest.approx(500, rel=0.4)
    assert not blocks(layer, "bias_hh_l0")[1].any()
    if cell == "LSTM":
        assert np.array_equal(blocks(layer, "bias_ih_l0")[0], -keep)
        assert not blocks(layer, "bias_hh_l0")[0].any()


def test_a_model_is_initialised_layer_by_layer():
    model = rf.Sequential(
        rf.Dense(3, I, "tanh", dtype="float64", seed=0),
        layer_of("RNN"),
        layer_of("LSTM", H),
        rf.Last(),
        rf.Dense(H, 2, dtype="float64", seed=0),
    )
    before = model.state_dict()
    found = rf.initialise(model, weight="glorot", weight_hh="orthogonal", bias="zeros", forget_bias=1.0, seed=5)
    assert found is model
    after = model.state_dict()
    for name in ("0.weight", "4.weight", "1.weight_hh_l0", "2.weight_hh_l0"):
        assert not np.array_equal(after[name], before[name])
    for name in ("1.weight_ih_l0", "2.weight_ih_l0"):
        assert np.array_equal(after[name], before[name])
    assert np.abs(after["4.weight"]).max() <= math.sqrt(6 / (H + 2))
    for name in ("0.bias", "4.bias", "1.bias_ih_l0", "1.bias_hh_l0", "2.bias_hh_l0"):
        assert not after[name].any()
    forget = after["2.bias_ih_l0"]
    assert (forget[H : 2 * H] == 1).all() and not forget[:H].any() and not forget[2 * H :].any()
    # What the kernels use has followed: a copy that packs its weights for the first time gives the same.
    x = np.random.default_rng(0).standard_normal((5, 2, 3))
    other = rf.Sequential(
        rf.Dense(3, I, "tanh", dtype="float64"),
        layer_of("RNN"),
        layer_of("LSTM", H),
        rf.Last(),
        rf.Dense(H, 2, dtype="float64"),
    )
    other.load_state_dict(after)
    assert np.array_equal(model(x), other(x))


@by_cell
def test_kernels_see_the_new_values(cell):
    layer, fresh = layer_of(cell), layer_of(cell)
    x = np.random.default_rng(0).standard_normal((5, 2, I))
    before = layer(x)[0]
    rf.initialise(layer, weight_ih="normal", weight_hh="orthogonal", bias="zeros")
    fresh.load_state_dict(layer.state_dict())
    assert np.array_equal(layer(x)[0], fresh(x)[0])
    assert not np.array_equal(layer(x)[0], before)


def test_seeds():
    def drawn(seed):
        return rf.initialise(layer_of("LSTM"), weight_hh="orthogonal", chrono=100, seed=seed).parameters.flat

    assert np.array_equal(drawn(1), drawn(1))
    assert np.array_equal(drawn(np.random.default_rng(1)), drawn(1))
    assert not np.array_equal(drawn(1), drawn(2))
    assert not np.array_equal(drawn(None), drawn(None))


def test_all_layers_and_directions_of_an_object_are_initialised():
    layer = rf.LSTM(I, H, 2, bidirectional=True, dtype="float64", seed=0)
    rf.initialise(layer, weight_ih="orthogonal", weight_hh="orthogonal", bias="zeros", forget_bias=1.0)
    found = []
    for suffix in ("l0", "l0_reverse", "l1", "l1_reverse"):
        for block in np.split(layer.parameters[f"weight_hh_{suffix}"], 4):
            np.testing.assert_allclose(block @ block.T, np.eye(H), atol=1e-13)
            found.append(block)
        for block in np.split(layer.parameters[f"weight_ih_{suffix}"], 4):
            short = min(block.shape)
            gram = block @ block.T if block.shape[0] == short else block.T @ block
            np.testing.assert_allclose(gram, np.eye(short), atol=1e-13)
        forget = layer.parameters[f"bias_ih_{suffix}"]
        assert (forget[H : 2 * H] == 1).all() and np.count_nonzero(forget) == H
        assert not layer.parameters[f"bias_hh_{suffix}"].any()
    assert all(not np.array_equal(a, b) for k, a in enumerate(found) for b in found[:k])


def test_options_of_cells_have_their_blocks():
    coupled = rf.LSTM(I, H, coupled=True, dtype="float64", seed=0)
    rf.initialise(coupled, weight_hh="orthogonal", bias="zeros", chrono=50)
    for block in np.split(coupled.parameters["weight_hh_l0"], 3):
        np.testing.assert_allclose(block @ block.T, np.eye(H), atol=1e-13)
    forget = coupled.parameters["bias_ih_l0"]  # rows f, g, o
    assert (forget[:H] > 0).all() and not forget[H:].any()

    projected = rf.LSTM(I, H, proj_size=7, peephole=True, dtype="float64", seed=0)
    before = projected.state_dict()
    rf.initialise(projected, weight_hh="orthogonal", weight_ih="zeros")
    for block in np.split(projected.parameters["weight_hh_l0"], 4):
        np.testing.assert_allclose(block.T @ block, np.eye(7), atol=1e-13)
    for name in ("weight_hr_l0", "weight_peephole_l0", "bias_ih_l0"):
        assert np.array_equal(projected.parameters[name], before[name])


def test_absent_connections_of_a_fully_recurrent_network_stay_absent():
    connectivity = np.random.default_rng(0).random((H, H)) < 0.2
    layer = rf.FRNN(I, H, inputs=range(5), connectivity=connectivity, dtype="float64", seed=0)
    rf.initialise(layer, weight_ih="normal", weight_hh="normal")
    assert np.array_equal(layer.parameters["weight_hh_l0"] != 0, connectivity)
    assert layer.parameters["weight_ih_l0"][:5].all() and not layer.parameters["weight_ih_l0"][5:].any()


@by_cell
@pytest.mark.parametrize("kind", ["ih", "hh"])
def test_masked_weights_stay_zero(cell, kind):
    mask = np.random.default_rng(0).random((H, I if kind == "ih" else H)) < 0.7
    layer = rf.initialise(layer_of(cell, **{f"mask_{kind}": mask}), weight_ih="normal", weight_hh="normal")
    for block in blocks(layer, f"weight_{kind}_l0"):
        assert np.array_equal(block != 0, mask)
    other = {"ih": "hh", "hh": "ih"}[kind]
    assert (layer.parameters[f"weight_{other}_l0"] != 0).all()


RNN, LSTM, DENSE = layer_of("RNN"), layer_of("LSTM"), rf.Dense(I, H, seed=0)


@pytest.mark.parametrize(
    "call, error, match",
    [
        (
            lambda: rf.initialise("layer", bias="zeros"),
            TypeError,
            "initialise: layer is str; expected a layer or a m",
        ),
        (lambda: rf.initialise(RNN), ValueError, "initialise: nothing to initialise; expected weight_ih"),
        (
            lambda: rf.initialise(RNN, weight_hh="ortho"),
            ValueError,
            "initialise: weight_hh is 'ortho'; expected one",
        ),
        (lambda: rf.initialise(RNN, weight_hh=3), TypeError, "initialise: weight_hh is 3; expected a name, or a pair"),
        (
            lambda: rf.initialise(RNN, weight_hh=("normal", "x")),
            TypeError,
            "initialise: the factor of weight_hh is 'x",
        ),
        (lambda: rf.initialise(RNN, bias="orthogonal"), ValueError, "initialise: bias is 'orthogonal', which is for m"),
        (lambda: rf.initialise(RNN, bias="glorot"), ValueError, "initialise: bias is 'glorot', which is for matrices"),
        (lambda: rf.initialise(RNN, weight="glorot"), ValueError, r"weight is 'glorot'; expected a layer.*\['RNN'\]"),
        (
            lambda: rf.initialise(DENSE, weight_hh="zeros"),
            ValueError,
            "weight_hh is 'zeros'; expected a layer that",
        ),
        (
            lambda: rf.initialise(layer_of("LSTM", bias=False), bias="zeros"),
            ValueError,
            "bias is 'zeros'; expected a layer that has such a parameter",
        ),
        (
            lambda: rf.initialise(LSTM, weight_ih="identity"),
            ValueError,
            rf"weight_ih is 'identity', but weight_ih_l0 of LSTM has 4 block\(s\) of shape \({H}, {I}\); expected squ",
        ),
        (
            lambda: rf.initialise(DENSE, weight="identity"),
            ValueError,
            "weight is 'identity', but weight of Dense has",
        ),
        (lambda: rf.initialise(RNN, forget_bias=1.0), ValueError, "forget_bias is 1.0; expected a layer with such a g"),
        (lambda: rf.initialise(RNN, chrono=10), ValueError, "chrono is 10; expected a layer with such a gate"),
        (
            lambda: rf.initialise(layer_of("LSTM", bias=False), forget_bias=1.0),
            ValueError,
            "forget_bias is 1.0; expected a layer with such a gate: LSTM or GRU, with bias",
        ),
        (lambda: rf.initialise(LSTM, forget_bias="1"), TypeError, "initialise: forget_bias is '1'; expected a number"),
        (lambda: rf.initialise(LSTM, forget_bias=math.nan), ValueError, "initialise: forget_bias is nan"),
        (lambda: rf.initialise(LSTM, chrono=2), ValueError, "chrono is 2; expected a lag of more than 2 steps"),
        (
            lambda: rf.initialise(LSTM, chrono=9, forget_bias=1),
            ValueError,
            "forget_bias is 1 and chrono is 9; exp",
        ),
        (
            lambda: rf.initialise(LSTM, bias="zeros", seed=-1),
            ValueError,
            "initialise: seed is -1; expected None, a",
        ),
        (
            lambda: rf.initialise(LSTM, bias="zeros", seed="s"),
            TypeError,
            "initialise: seed is 's'; expected None, a",
        ),
    ],
)
def test_wrong_arguments_are_named_and_change_nothing(call, error, match):
    before = [layer.parameters.flat.copy() for layer in (RNN, LSTM, DENSE)]
    with pytest.raises(error, match=match):
        call()
    for layer, values in zip((RNN, LSTM, DENSE), before, strict=True):
        assert np.array_equal(layer.parameters.flat, values)
