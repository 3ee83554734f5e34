"""Optimizers and clipping: against the equations one number at a time, against PyTorch step by step, and by hand."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest
import rnnfast as rf
from compare import assert_close, assert_same_bits

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
    "adam": (lambda: rf.Adam(), lambda t, p: t.optim.Adam(p)),
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


def scalar_adam(p, g, memory, t, lr=1e-3, b1=0.9, b2=0.999, eps=1e-8):
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
        ("adam", scalar_adam, {}),
        ("adam-options", scalar_adam, {"lr": 0.03, "b1": 0.7, "b2": 0.9, "eps": 1e-4}),
    ],
)
def test_step_follows_the_equations(name, scalar, options, rng):
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


@pytest.mark.parametrize("make", [lambda: rf.SGD(0.1, 0.9, True, 0.01), lambda: rf.Adam(0.01, (0.8, 0.9), 1e-6)])
def test_repr_makes_it_again(make):
    assert repr(eval(repr(make()), {"SGD": rf.SGD, "Adam": rf.Adam})) == repr(make())


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
