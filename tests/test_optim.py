"""Optimizers and clipping: against the equations one number at a time, against PyTorch step by step, and by hand."""

from __future__ import annotations

import copy
import gc
import math
import pickle

import numpy as np
import pytest
import rnnfast as rf
from compare import assert_close, assert_same_bits
from rnnfast import _core

# Norm-relative, after 20 steps of a handful of roundings each, that neither side makes in the same order.
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}

STEPS = 20

OPTIMIZERS = {
    "sgd": (lambda: rf.SGD(0.1), lambda t, p: t.optim.SGD(p, 0.1)),
    "sgd-decay": (lambda: rf.SGD(0.1, weight_decay=0.02), lambda t, p: t.optim.SGD(p, 0.1, weight_decay=0.02)),
    "momentum": (lambda: rf.SGD(0.1, 0.9), lambda t, p: t.optim.SGD(p, 0.1, 0.9)),
    "momentum-decay": (
        lambda: rf.SGD(0.1, 0.9, weight_decay=0.02),
        lambda t, p: t.optim.SGD(p, 0.1, 0.9, weight_decay=0.02),
    ),
    "nesterov": (
        lambda: rf.SGD(0.1, 0.9, nesterov=True, weight_decay=0.02),
        lambda t, p: t.optim.SGD(p, 0.1, 0.9, nesterov=True, weight_decay=0.02),
    ),
    "rmsprop": (lambda: rf.RMSprop(0.02), lambda t, p: t.optim.RMSprop(p, 0.02)),
    "rmsprop-momentum": (
        lambda: rf.RMSprop(0.02, 0.9, 1e-6, momentum=0.8, weight_decay=0.02),
        lambda t, p: t.optim.RMSprop(p, 0.02, 0.9, 1e-6, momentum=0.8, weight_decay=0.02),
    ),
    "rmsprop-centered": (
        lambda: rf.RMSprop(0.02, 0.9, centered=True),
        lambda t, p: t.optim.RMSprop(p, 0.02, 0.9, centered=True),
    ),
    "rmsprop-both": (
        lambda: rf.RMSprop(0.02, 0.9, momentum=0.8, centered=True, weight_decay=0.02),
        lambda t, p: t.optim.RMSprop(p, 0.02, 0.9, momentum=0.8, centered=True, weight_decay=0.02),
    ),
    "adam": (lambda: rf.Adam(), lambda t, p: t.optim.Adam(p)),
    "adam-decay": (lambda: rf.Adam(0.03, weight_decay=0.1), lambda t, p: t.optim.Adam(p, 0.03, weight_decay=0.1)),
    "adamw": (lambda: rf.AdamW(0.03), lambda t, p: t.optim.AdamW(p, 0.03)),
    "adamw-decay": (lambda: rf.AdamW(0.03, weight_decay=0.3), lambda t, p: t.optim.AdamW(p, 0.03, weight_decay=0.3)),
    "adam-options": (
        lambda: rf.Adam(0.03, betas=(0.7, 0.9), eps=1e-4),
        lambda t, p: t.optim.Adam(p, 0.03, betas=(0.7, 0.9), eps=1e-4),
    ),
}
by_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def scalar_sgd(p, g, memory, t, lr, momentum=0.0, nesterov=False, decay=0.0):
    g = g + decay * p
    memory["v"] = momentum * memory.get("v", 0.0) + g
    return p - lr * (g + momentum * memory["v"] if nesterov else memory["v"])


def scalar_rmsprop(p, g, memory, t, lr, alpha=0.99, eps=1e-8, decay=0.0, momentum=0.0, centered=False):
    g = g + decay * p
    memory["v"] = alpha * memory.get("v", 0.0) + (1 - alpha) * g * g
    memory["a"] = alpha * memory.get("a", 0.0) + (1 - alpha) * g
    d = g / (math.sqrt(memory["v"] - (memory["a"] ** 2 if centered else 0)) + eps)
    memory["d"] = momentum * memory.get("d", 0.0) + d
    return p - lr * memory["d"]


def scalar_adam(p, g, memory, t, lr=1e-3, b1=0.9, b2=0.999, eps=1e-8, decay=0.0, decoupled=0.0):
    p, g = p * (1 - lr * decoupled), g + decay * p
    memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
    memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g * g
    return p - lr * (memory["m"] / (1 - b1**t)) / (math.sqrt(memory["v"] / (1 - b2**t)) + eps)


@pytest.mark.parametrize(
    ("name", "scalar", "options"),
    [
        ("sgd", scalar_sgd, {"lr": 0.1}),
        ("sgd-decay", scalar_sgd, {"lr": 0.1, "decay": 0.02}),
        ("momentum", scalar_sgd, {"lr": 0.1, "momentum": 0.9}),
        ("momentum-decay", scalar_sgd, {"lr": 0.1, "momentum": 0.9, "decay": 0.02}),
        ("nesterov", scalar_sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "decay": 0.02}),
        ("rmsprop", scalar_rmsprop, {"lr": 0.02}),
        (
            "rmsprop-momentum",
            scalar_rmsprop,
            {"lr": 0.02, "alpha": 0.9, "eps": 1e-6, "momentum": 0.8, "decay": 0.02},
        ),
        ("rmsprop-centered", scalar_rmsprop, {"lr": 0.02, "alpha": 0.9, "centered": True}),
        (
            "rmsprop-both",
            scalar_rmsprop,
            {"lr": 0.02, "alpha": 0.9, "centered": True, "momentum": 0.8, "decay": 0.02},
        ),
        ("adam", scalar_adam, {}),
        ("adam-decay", scalar_adam, {"lr": 0.03, "decay": 0.1}),
        ("adamw", scalar_adam, {"lr": 0.03, "decoupled": 0.01}),
        ("adamw-decay", scalar_adam, {"lr": 0.03, "decoupled": 0.3}),
        ("adam-options", scalar_adam, {"lr": 0.03, "b1": 0.7, "b2": 0.9, "eps": 1e-4}),
    ],
)
def test_step_follows_the_equations(name, scalar, options, isa, rng):
    layer = rf.Dense(2, 2, dtype="float64", seed=1)
    optimizer = OPTIMIZERS[name][0]()
    want, memories = layer.parameters.flat.tolist(), [{} for _ in range(layer.parameters.size)]
    for step in range(1, STEPS + 1):
        gradient = rng.standard_normal(layer.parameters.size)
        kept = gradient.copy()
        optimizer.step(layer, gradient)
        assert_same_bits(gradient, kept, "gradient")
        want = [scalar(p, g, m, step, **options) for p, g, m in zip(want, gradient.tolist(), memories, strict=True)]
        assert_close(layer.parameters.flat, np.array(want), TOLERANCE["float64"], f"step {step}")


@by_optimizer
def test_step_equals_torch(name, dtype, rng):
    torch = pytest.importorskip("torch", reason="PyTorch, the extra witness, is not installed")
    layer = rf.Dense(7, 5, dtype=dtype, seed=1)
    theirs = torch.tensor(layer.parameters.flat, requires_grad=True)
    ours, other = OPTIMIZERS[name][0](), OPTIMIZERS[name][1](torch, [theirs])
    for step in range(1, STEPS + 1):
        gradient = rng.standard_normal(layer.parameters.size).astype(dtype)
        # A parameter that gets no gradient at first.
        gradient[: 5 if step < 4 else 0] = 0
        ours.step(layer, gradient)
        theirs.grad = torch.from_numpy(gradient.copy())
        other.step()
        assert_close(layer.parameters.flat, theirs.detach().numpy(), TOLERANCE[dtype.name], f"step {step}")


@by_optimizer
def test_model_steps_like_its_layers(name, rng):
    """One step of a model, by flat gradient, is the step of each layer by its own named gradients, to the bit."""
    model = rf.Sequential(rf.Dense(3, 4, "tanh", seed=1), rf.Dense(4, 2, bias=False, seed=2))
    alone = [rf.Dense(3, 4, "tanh", seed=1), rf.Dense(4, 2, bias=False, seed=2)]
    together, apart = OPTIMIZERS[name][0](), OPTIMIZERS[name][0]()
    for _ in range(3):
        gradient = rng.standard_normal(model.parameters.size).astype(np.float32)
        together.step(model, gradient)
        start = 0
        for layer in alone:
            own = gradient[start : start + layer.parameters.size]
            apart.step(layer, dict(reversed(layer.parameters.views(own).items())))
            start += layer.parameters.size
    for ours, theirs in zip(model.layers, alone, strict=True):
        assert_same_bits(ours.parameters.flat, theirs.parameters.flat, "parameters")
    assert together.state(model).step == apart.state(alone[0]).step == apart.state(alone[1]).step == 3


def test_recurrent_layer_by_hand(rng):
    """The loop of the documentation: forward, backward, step; the kernels see the new weights at once."""
    layer, twin = rf.LSTM(2, 3, dtype="float64", seed=1), rf.LSTM(2, 3, dtype="float64", seed=1)
    x = rng.standard_normal((4, 5, 2))
    optimizer = rf.SGD(0.5)
    before = layer.state_dict()
    y, _, tape = layer.forward(x)
    grads = layer.backward(tape, dy=y)
    optimizer.step(layer, grads.params)
    twin.load_state_dict({name: before[name] - 0.5 * grads.params[name] for name in before})
    assert_same_bits(layer(x)[0], twin(x)[0], "y after the step")


def test_state_belongs_to_the_parameters(rng):
    first, second = (rf.Dense(2, 2, dtype="float64", seed=1) for _ in range(2))
    optimizer = rf.Adam()
    gradient = rng.standard_normal(first.parameters.size)
    optimizer.step(first, gradient)
    optimizer.step(first, gradient)
    optimizer.step(second, gradient)
    assert optimizer.state(first).step == 2
    assert optimizer.state(second).step == 1
    fresh = rf.Dense(2, 2, dtype="float64", seed=1)
    rf.Adam().step(fresh, gradient)
    assert_same_bits(second.parameters.flat, fresh.parameters.flat, "parameters")
    del first, fresh
    gc.collect()
    assert len(optimizer._states) == 1


def test_learning_rate_may_change():
    layer = rf.Dense(1, 1, bias=False, dtype="float64")
    layer.load_state_dict({"weight": [[1.0]]})
    optimizer = rf.SGD(0.5)
    optimizer.step(layer, np.ones(1))
    optimizer.lr = 0.25
    optimizer.step(layer, np.ones(1))
    assert layer.parameters["weight"][0, 0] == 0.25


@by_optimizer
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_gradient_changes_nothing(name, bad, rng):
    layer = rf.Dense(3, 2, seed=1)
    optimizer = OPTIMIZERS[name][0]()
    gradient = rng.standard_normal(layer.parameters.size).astype(np.float32)
    optimizer.step(layer, gradient)
    before = layer.parameters.flat.copy()
    memory = {key: buffer.copy() for key, buffer in optimizer.state(layer).buffers.items()}
    gradient[-1] = bad
    with pytest.raises(rf.NonFiniteError, match=r"step: the gradient has NaN or infinite elements"):
        optimizer.step(layer, gradient)
    assert_same_bits(layer.parameters.flat, before, "parameters")
    assert optimizer.state(layer).step == 1
    for key, buffer in memory.items():
        assert_same_bits(optimizer.state(layer).buffers[key], buffer, key)


def test_step_that_overflows_changes_nothing():
    layer = rf.Dense(3, 2, seed=1)
    before = layer.parameters.flat.copy()
    with pytest.raises(rf.NonFiniteError, match=r"SGD\.step: the step would make parameters NaN or infinite"):
        rf.SGD(1e30).step(layer, np.full(layer.parameters.size, 1e20, np.float32))
    assert_same_bits(layer.parameters.flat, before, "parameters")


def test_large_finite_gradients_are_fine():
    """Their sum of squares overflows, they do not."""
    layer = rf.Dense(3, 2, seed=1)
    rf.SGD(1e-30).step(layer, np.full(layer.parameters.size, 1e30, np.float32))
    assert np.isfinite(layer.parameters.flat).all()


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        (np.zeros(7, np.float32), ValueError, r"SGD.step: grads has shape (7,); expected (8,), from the parameters"),
        (np.zeros((2, 4), np.float32), ValueError, r"SGD.step: grads has shape (2, 4); expected (8,)"),
        (np.zeros(8), TypeError, "SGD.step: grads has dtype float64; expected float32, the parameters'"),
        ([0.0] * 8, TypeError, "SGD.step: grads has dtype None; expected float32"),
        (
            {"weight": np.zeros((2, 3), np.float32)},
            ValueError,
            "SGD.step: missing gradients ['bias'], unknown gradients []",
        ),
        (
            {"weight": np.zeros((2, 3), np.float32), "bias": np.zeros(2, np.float32), "b": 0},
            ValueError,
            "SGD.step: missing gradients [], unknown gradients ['b']",
        ),
        (
            {"weight": np.zeros((3, 2), np.float32), "bias": np.zeros(2, np.float32)},
            ValueError,
            "SGD.step: grads['weight'] has shape (3, 2); expected (2, 3)",
        ),
    ],
)
def test_gradient_arguments(grads, error, message):
    layer = rf.Dense(3, 2, seed=1)
    before = layer.parameters.flat.copy()
    with pytest.raises(error) as caught:
        rf.SGD(0.1).step(layer, grads)
    assert str(caught.value).startswith(message)
    assert_same_bits(layer.parameters.flat, before, "parameters")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rf.SGD(-1), ValueError, "SGD: lr is -1; expected 0 <= lr < inf"),
        (lambda: rf.SGD(float("nan")), ValueError, "SGD: lr is nan"),
        (lambda: rf.SGD("0.1"), TypeError, "SGD: lr is '0.1'; expected a number"),
        (lambda: rf.SGD(True), TypeError, "SGD: lr is True; expected a number"),
        (lambda: rf.SGD(0.1, momentum=-0.1), ValueError, "SGD: momentum is -0.1"),
        (lambda: rf.SGD(0.1, weight_decay=-1), ValueError, "SGD: weight_decay is -1"),
        (
            lambda: rf.SGD(0.1, nesterov=True),
            ValueError,
            "SGD: nesterov is True with momentum 0; expected momentum > 0",
        ),
        (lambda: rf.Adam(float("inf")), ValueError, "Adam: lr is inf"),
        (lambda: rf.Adam(betas=(0.9, 1.0)), ValueError, "Adam: betas[1] is 1.0; expected 0 <= betas[1] < 1"),
        (lambda: rf.Adam(betas=0.9), TypeError, "Adam: betas is 0.9; expected two numbers"),
        (lambda: rf.Adam(eps=-1e-8), ValueError, "Adam: eps is -1e-08"),
        (lambda: rf.Adam(weight_decay=-1), ValueError, "Adam: weight_decay is -1"),
        (lambda: rf.AdamW(betas=(0.9, 1.0)), ValueError, "AdamW: betas[1] is 1.0; expected 0 <= betas[1] < 1"),
        (lambda: rf.AdamW(weight_decay="1"), TypeError, "AdamW: weight_decay is '1'; expected a number"),
        (lambda: rf.RMSprop(alpha=1.0), ValueError, "RMSprop: alpha is 1.0; expected 0 <= alpha < 1"),
        (lambda: rf.RMSprop(momentum=-1), ValueError, "RMSprop: momentum is -1"),
        (lambda: rf.RMSprop(eps=None), TypeError, "RMSprop: eps is None; expected a number"),
        (
            lambda: rf.clip_grad_value(np.ones(1), 0.0),
            ValueError,
            "clip_grad_value: max_value is 0.0; expected a number above 0",
        ),
        (
            lambda: rf.SGD(0.1).step([1.0], np.zeros(1)),
            TypeError,
            "SGD.step: target is list; expected a layer or a model",
        ),
        (
            lambda: rf.clip_grad_norm(np.ones(1), 0),
            ValueError,
            "clip_grad_norm: max_norm is 0; expected a number above 0",
        ),
        (lambda: rf.clip_grad_norm(np.ones(1), float("nan")), ValueError, "clip_grad_norm: max_norm is nan"),
    ],
)
def test_arguments(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value).startswith(message)


@by_optimizer
def test_repr_makes_it_again(name):
    made = OPTIMIZERS[name][0]()
    again = eval(repr(made), vars(rf))
    assert type(again) is type(made)
    assert again.options() == made.options()


class OnesOwn(rf.Optimizer):
    """The public route: NumPy says what to subtract."""

    _buffers = ("mean",)

    def __init__(self, lr, share, weight_decay=0):
        super().__init__(lr, weight_decay)
        self.share = share

    def _find_delta(self, g, state):
        mean = state.buffers["mean"]
        mean += self.share * (g - mean)
        np.multiply(mean, self.lr, out=state.delta)


def test_an_optimizer_of_ones_own(rng):
    model = rf.Sequential(rf.Dense(3, 4, "tanh", seed=1), rf.Dense(4, 2, bias=False, seed=2))
    optimizer = OnesOwn(0.5, 0.25, weight_decay=0.1)
    want, mean = model.parameters.flat.copy(), 0
    for _ in range(3):
        gradient = rng.standard_normal(model.parameters.size).astype(np.float32)
        optimizer.step(model, gradient)
        mean = mean + 0.25 * (gradient + 0.1 * want - mean)
        want = want - 0.5 * mean
        assert_close(model.parameters.flat, want, TOLERANCE["float32"], "parameters")
    before = model.parameters.flat
    optimizer.lr = 1e38
    with pytest.raises(rf.NonFiniteError, match=r"OnesOwn\.step: the step would make parameters NaN or infinite"):
        optimizer.step(model, gradient * 100)
    assert_same_bits(model.parameters.flat, before, "parameters")
    assert repr(optimizer) == "OnesOwn(lr=1e+38, weight_decay=0.1, share=0.25)"


@pytest.mark.parametrize("at", [0, 12, -1])
def test_step_that_overflows_in_one_layer_changes_none(at, dtype):
    """The steps of the other layers, made before or after, are taken back."""
    model = rf.Sequential(*(rf.Dense(3, 3, dtype=dtype, seed=k) for k in range(3)))
    before = model.parameters.flat
    gradient = np.ones(model.parameters.size, dtype)
    gradient[at] = np.finfo(dtype).max
    with pytest.raises(rf.NonFiniteError, match=r"SGD\.step: the step would make parameters NaN or infinite"):
        rf.SGD(2.0).step(model, gradient)
    assert_same_bits(model.parameters.flat, before, "parameters")


# The kernels.

SIZES = [0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100, 1001]
by_size = pytest.mark.parametrize("size", SIZES)


def guarded(array):
    """A copy at an odd offset between guards, and a function that says whether the guards are whole."""
    room = np.full(array.size + 7, 77, array.dtype)
    inside = room[3 : 3 + array.size]
    inside[...] = array
    return inside, lambda: (room[:3] == 77).all() and (room[3 + array.size :] == 77).all()


@by_size
def test_kernels_touch_what_they_are_given(size, isa, dtype, rng):
    x, y = rng.standard_normal((2, size)).astype(dtype)
    scaled, whole = guarded(x)
    _core.scale(scaled, 0.3)
    assert_same_bits(scaled, x * dtype.type(0.3), "scale")
    assert whole()
    clipped, whole = guarded(x)
    _core.clip(clipped, 0.5)
    assert_same_bits(clipped, np.clip(x, dtype.type(-0.5), dtype.type(0.5)), "clip")
    assert whole()
    added, whole = guarded(x)
    _core.add_scaled(added, y, 0.25)
    assert_close(added, x + y * dtype.type(0.25), np.finfo(dtype).eps, "add_scaled")
    assert whole()
    assert _core.sum_of_squares(x) == pytest.approx(np.square(x.astype(np.float64)).sum(), rel=1e-14)
    assert _core.norm(x) == pytest.approx(np.linalg.norm(x.astype(np.float64)), rel=1e-14)


@by_size
def test_step_touches_what_it_is_given(size, isa, dtype, rng):
    numbers = rng.standard_normal((4, size)).astype(dtype)
    numbers[3] **= 2
    (p, p_whole), (g, g_whole), (m, m_whole), (v, v_whole) = map(guarded, numbers)
    before, before_whole = guarded(np.empty(3 * size, dtype))
    before = before.reshape(3, size)
    assert _core.optimizer_step(
        rule="adam", parameters=[p], grad=g, before=before, buffers=[m, v], lr=0.1, beta1=0.9, beta2=0.5, eps=0.1
    )
    want_m = numbers[2] + dtype.type(0.1) * (numbers[1] - numbers[2])
    want_v = (numbers[3] + numbers[1] ** 2) / 2
    eps = 4 * np.finfo(dtype).eps
    assert_same_bits(before, numbers[[0, 2, 3]], "before")
    assert_same_bits(g, numbers[1], "gradient")
    assert_close(m, want_m, eps, "m")
    assert_close(v, want_v, eps, "v")
    assert_close(p, numbers[0] - dtype.type(0.1) * want_m / (np.sqrt(want_v) + dtype.type(0.1)), eps, "p")
    assert p_whole() and g_whole() and before_whole() and m_whole() and v_whole()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [1, 4, 17, 40])
def test_a_bad_number_is_found_wherever_it_stands(bad, size, isa, dtype):
    x = np.full(size, np.finfo(dtype).max, dtype)
    assert _core.all_finite(x)
    for at in range(size):
        x[at] = bad
        assert not _core.all_finite(x)
        assert not math.isfinite(_core.norm(x))
        p = np.zeros(size, dtype)
        step = {"parameters": [p], "grad": x, "before": np.empty((1, size), dtype), "buffers": []}
        assert not _core.optimizer_step(rule="sgd", lr=1.0, **step)
        assert not p.any()
        x[at] = 1


REMEMBERS = {
    "momentum": lambda: rf.SGD(0.1, momentum=0.9),
    "rmsprop": lambda: rf.RMSprop(0.1, momentum=0.9, centered=True),
    "adam": lambda: rf.Adam(0.1),
    "ones-own": lambda: OnesOwn(0.1, 0.25),
}


@pytest.mark.parametrize("make", REMEMBERS.values(), ids=REMEMBERS)
def test_a_refused_step_leaves_what_the_optimizer_remembers(make, rng):
    """After it the optimizer goes on as one that was never asked for that step."""
    one, other = ((rf.Sequential(rf.Dense(20, 2, seed=1), rf.Dense(2, 1, seed=2)), make()) for _ in range(2))
    gradients = rng.standard_normal((3, one[0].parameters.size)).astype(np.float32)
    for model, optimizer in (one, other):
        optimizer.step(model, gradients[0])
    model, optimizer = one
    optimizer.lr, lr = math.inf, optimizer.lr
    with pytest.raises(rf.NonFiniteError):
        optimizer.step(model, gradients[1])
    optimizer.lr = lr
    for model, optimizer in (one, other):
        optimizer.step(model, gradients[2])
    assert_same_bits(one[0].parameters.flat, other[0].parameters.flat, "parameters")
    remembered = [optimizer.state(model) for model, optimizer in (one, other)]
    assert remembered[0].step == remembered[1].step == 2
    for name, buffer in remembered[0].buffers.items():
        assert_same_bits(buffer, remembered[1].buffers[name], name)


def test_padding_of_a_register_is_no_parameter(isa, dtype):
    """Without eps, Adam on what is no parameter would be 0 / 0."""
    p, g, v = np.ones((3, 3), dtype)
    step = {"parameters": [p], "grad": g, "before": np.empty((3, 3), dtype), "buffers": [np.zeros_like(p), v]}
    assert _core.optimizer_step(rule="adam", lr=0.5, beta1=0, beta2=0, **step)
    assert_same_bits(p, np.full(3, 0.5, dtype), "parameters")


def test_norm_has_the_same_bits_on_every_instruction_set(dtype, rng):
    x = rng.standard_normal(1003).astype(dtype)
    norms, isas = set(), rf.build_info()["isas"]
    now = rf.build_info()["isa"]
    try:
        for name in isas:
            _core.set_isa(name)
            norms.add(_core.norm(x))
    finally:
        _core.set_isa(now)
    assert len(norms) == 1


def test_add_rows_adds_in_order(isa, dtype, rng):
    for width in (1, 3, 16, 19):
        table = rng.standard_normal((5, width)).astype(dtype)
        index = rng.integers(0, 5, 40)
        rows = rng.standard_normal((40, width)).astype(dtype)
        want = table.copy()
        for k, row in zip(index, rows, strict=True):
            want[k] += row
        _core.add_rows(table, index, rows)
        assert_same_bits(table, want, "table")


SHARED = np.zeros(4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda a: _core.optimizer_step(**a | {"rule": "sgdm"}),
            ValueError,
            "optimizer_step: rule is 'sgdm'; expected",
        ),
        (
            lambda a: _core.optimizer_step(**a | {"buffers": []}),
            ValueError,
            "optimizer_step: buffers has 0 arrays; expected 2, from rule",
        ),
        (
            lambda a: _core.optimizer_step(**a | {"parameters": [np.zeros(3)]}),
            ValueError,
            "optimizer_step: parameters have 3 numbers; expected 4, the size of grad",
        ),
        (
            lambda a: _core.optimizer_step(**a | {"parameters": [np.zeros(4, "f4")]}),
            TypeError,
            "optimizer_step: parameters has dtype float32; expected float64",
        ),
        (
            lambda a: _core.optimizer_step(**a | {"parameters": [np.zeros(8)[::2]]}),
            ValueError,
            "optimizer_step: parameters is not in C order",
        ),
        (
            lambda a: _core.optimizer_step(**a | {"parameters": [a["grad"]]}),
            ValueError,
            "optimizer_step: parameters shares memory",
        ),
        (
            lambda a: _core.optimizer_step(**a | {"buffers": [SHARED, SHARED]}),
            ValueError,
            "optimizer_step: buffers shares memory",
        ),
        (
            lambda a: _core.optimizer_step(**a | {"before": np.zeros((3, 5))}),
            ValueError,
            "optimizer_step: before has shape (3, 5); expected (1 + buffers, size) = (3, 4), from rule and grad",
        ),
        (lambda a: _core.norm(np.zeros((2, 2))), ValueError, "norm: x has shape (2, 2); expected (size,)"),
        (lambda a: _core.all_finite([1.0]), TypeError, "all_finite: x is list; expected an array"),
        (lambda a: _core.scale(np.broadcast_to(1.0, 4), 2.0), ValueError, "scale: x is not in C order"),
        (lambda a: _core.clip(np.frombuffer(bytes(8)), 2.0), ValueError, "clip: x is read-only"),
        (lambda a: _core.add_scaled(np.zeros(3), np.zeros(4), 1.0), ValueError, "add_scaled: x has shape (4,)"),
        (
            lambda a: _core.add_rows(np.zeros((2, 3)), np.array([0, 2]), np.zeros((2, 3))),
            ValueError,
            "add_rows: index[1] is 2; expected 0..1, from table",
        ),
        (
            lambda a: _core.add_rows(np.zeros((2, 3)), np.array([0, 1]), np.zeros((3, 3))),
            ValueError,
            "add_rows: rows has shape (3, 3); expected (count, width) = (2, 3)",
        ),
        (
            lambda a: _core.add_rows(np.zeros((2, 3)), np.array([[0, 1]]), np.zeros((2, 3))),
            ValueError,
            "add_rows: index has 2 axes; expected (count,)",
        ),
    ],
)
def test_arguments_of_kernels(call, error, message):
    arrays = {
        "parameters": [np.ones(4)],
        "grad": np.ones(4),
        "before": np.ones((3, 4)),
        "buffers": [np.ones(4), np.ones(4)],
    }
    with pytest.raises(error) as caught:
        call({"rule": "adam", "lr": 1.0} | arrays)
    assert str(caught.value).startswith(message)
    assert (arrays["parameters"][0] == 1).all()


@pytest.mark.parametrize(
    "copy_of", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"]
)
def test_copies_made_with_the_model_go_on_where_it_was(copy_of, rng):
    """Memory belongs to parameters: a copy of both remembers, an optimizer copied alone begins anew."""
    model, optimizer = rf.Sequential(rf.GRU(3, 4, seed=1), rf.Dense(4, 2, seed=2)), rf.Adam(0.1)
    gradients = rng.standard_normal((4, model.parameters.size)).astype(np.float32)
    for gradient in gradients[:2]:
        optimizer.step(model, gradient)
    twin, its_optimizer = copy_of((model, optimizer))
    for gradient in gradients[2:]:
        optimizer.step(model, gradient)
        its_optimizer.step(twin, gradient)
    assert_same_bits(twin.parameters.flat, model.parameters.flat, "parameters")
    alone = copy_of(optimizer)
    assert alone.options() == optimizer.options() and alone.state(model).step == 0


# Clipping.


@pytest.mark.parametrize("max_norm", [0.5, 3.0, 1e6])
@pytest.mark.parametrize("named", [False, True])
def test_clipping_equals_torch(max_norm, named, dtype, rng):
    torch = pytest.importorskip("torch", reason="PyTorch, the extra witness, is not installed")
    arrays = {"a": rng.standard_normal((3, 4)).astype(dtype), "b": rng.standard_normal(5).astype(dtype)}
    if not named:
        arrays = {"flat": np.concatenate([a.reshape(-1) for a in arrays.values()])}
    theirs = [torch.zeros(a.shape, requires_grad=True) for a in arrays.values()]
    for leaf, array in zip(theirs, arrays.values(), strict=True):
        leaf.data = torch.zeros(array.shape, dtype=getattr(torch, dtype.name))
        leaf.grad = torch.from_numpy(array.copy())
    want = torch.nn.utils.clip_grad_norm_(theirs, max_norm).item()
    norm = rf.clip_grad_norm(arrays if named else arrays["flat"], max_norm)
    assert norm == pytest.approx(want, rel=TOLERANCE[dtype.name])
    for leaf, array in zip(theirs, arrays.values(), strict=True):
        assert_close(array, leaf.grad.numpy(), TOLERANCE[dtype.name], "gradient")


@pytest.mark.parametrize("named", [False, True])
def test_clipping_values_equals_torch(named, dtype, rng):
    torch = pytest.importorskip("torch", reason="PyTorch, the extra witness, is not installed")
    arrays = {"a": rng.standard_normal((3, 4)).astype(dtype), "b": np.asfortranarray(rng.standard_normal((5, 2)))}
    arrays["b"] = arrays["b"].astype(dtype, order="F")
    theirs = [torch.zeros(a.shape, dtype=getattr(torch, dtype.name), requires_grad=True) for a in arrays.values()]
    for leaf, array in zip(theirs, arrays.values(), strict=True):
        leaf.grad = torch.from_numpy(array.copy())
    torch.nn.utils.clip_grad_value_(theirs, 0.7)
    if named:
        rf.clip_grad_value(arrays, 0.7)
    else:
        for array in arrays.values():
            rf.clip_grad_value(array, 0.7)
    for leaf, array in zip(theirs, arrays.values(), strict=True):
        assert_same_bits(np.ascontiguousarray(array), leaf.grad.numpy(), "gradient")


def test_clipping_values_leaves_nan():
    gradient = np.array([-3.0, np.nan, 0.5, np.inf])
    rf.clip_grad_value(gradient, 1.0)
    np.testing.assert_array_equal(gradient, [-1.0, np.nan, 0.5, 1.0])


def test_clipping_short_gradients_leaves_their_bits(dtype, rng):
    gradient = rng.standard_normal(50).astype(dtype)
    kept = gradient.copy()
    norm = rf.clip_grad_norm(gradient, 100.0)
    assert norm == pytest.approx(np.linalg.norm(kept.astype(np.float64)), rel=1e-15)
    assert_same_bits(gradient, kept, "gradient")


def test_clipping_sums_in_float64():
    """In float32, 2**24 + 1 is 2**24: the ones would be lost."""
    gradient = np.ones(2**16, np.float32)
    gradient[0] = 2.0**12
    assert rf.clip_grad_norm(gradient, 1e9) == math.sqrt(2.0**24 + 2**16 - 1)


def test_clipping_huge_gradients():
    gradient = np.array([3e200, -4e200])
    assert rf.clip_grad_norm(gradient, 1.0) == pytest.approx(5e200, rel=1e-15)
    np.testing.assert_allclose(gradient, [0.6, -0.8], rtol=1e-15)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clipping_leaves_what_is_not_finite(bad):
    gradient = np.array([1.0, bad, 2.0])
    assert not math.isfinite(rf.clip_grad_norm(gradient, 1.0))
    np.testing.assert_array_equal(gradient, [1.0, bad, 2.0])
