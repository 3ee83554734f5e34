"""Dense and Last: values against plain NumPy, gradients against its complex-step derivative, arguments, parameters."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import rnnfast as rf
from compare import assert_close, assert_same_bits
from reference import STEP, relu, sigmoid
from rnnfast import _core

# Norm-relative, as in tolerances.py: chains of at most 70 products, their sum with a bias, an activation of a few ulp.
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}

REFERENCE = {None: lambda a: a, "relu": relu, "tanh": np.tanh, "sigmoid": sigmoid}
SHAPES = [(5,), (1, 5), (7, 5), (3, 4, 5), (2, 3, 4, 5)]

by_activation = pytest.mark.parametrize("activation", REFERENCE)
by_bias = pytest.mark.parametrize("bias", [True, False])


def reference_dense(x, weight, bias, activation):
    a = x @ weight.T if bias is None else x @ weight.T + bias
    return REFERENCE[activation](a)


def complex_step(f, array):
    """Gradient of the real function ``f`` at ``array``."""
    gradient = np.empty(array.shape)
    for index in np.ndindex(array.shape):
        moved = array.astype(complex)
        moved[index] += 1j * STEP
        gradient[index] = f(moved).imag / STEP
    return gradient


def parameters(layer):
    return layer.parameters["weight"], layer.parameters["bias"] if layer.bias else None


@by_activation
@by_bias
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_values(activation, bias, shape, dtype, rng):
    layer = rf.Dense(5, 3, activation, bias, dtype=dtype, seed=1)
    x = rng.standard_normal(shape).astype(dtype)
    kept = x.copy()
    y = layer(x)
    weight, b = (None if p is None else p.astype(np.float64) for p in parameters(layer))
    assert y.dtype == dtype
    assert_close(y, reference_dense(x.astype(np.float64), weight, b, activation), TOLERANCE[dtype.name], "y")
    assert_same_bits(x, kept, "x")


# Around registers, tiles and the pieces in which sums over rows are cut.
SIZES = [(1, 1, 1), (1, 17, 33), (6, 16, 16), (7, 15, 64), (25, 64, 65), (255, 3, 17), (257, 100, 7), (600, 33, 48)]
# Enough work for several threads: many rows, few rows with many outputs, more inputs than outputs.
LARGE = [(1025, 50, 70), (3, 700, 1100), (300, 300, 40), (40, 90, 700), (61, 395, 1301)]


def dense_problem(rng, rows, inputs, outputs, activation, dtype):
    layer = rf.Dense(inputs, outputs, activation, dtype=dtype, seed=1)
    x = rng.standard_normal((rows, inputs)).astype(dtype)
    dy = rng.standard_normal((rows, outputs)).astype(dtype)
    return layer, x, dy


def run_dense(layer, x, dy):
    y, tape = layer.trace(x)
    grad = np.full(layer.parameters.size, np.nan, layer.dtype)
    return y, layer.pull_back(tape, dy, grad, True), grad


@pytest.mark.parametrize("activation", [None, "tanh"])
@pytest.mark.parametrize("sizes", SIZES + LARGE, ids=str)
def test_dense_of_every_size_on_every_instruction_set(sizes, activation, isa, dtype, rng):
    layer, x, dy = dense_problem(rng, *sizes, activation, dtype)
    y, dx, grad = run_dense(layer, x, dy)
    w, b, x, dy = (a.astype(np.float64) for a in (*parameters(layer), x, dy))
    want = reference_dense(x, w, b, activation)
    da = dy if activation is None else dy * (1 - want**2)
    # Chains of at most 1100 products, at a tenth of a rounding each: their errors are random.
    bound = 10 * TOLERANCE[dtype.name]
    views = layer.parameters.views(grad)
    assert_close(y, want, bound, "y")
    assert_close(dx, da @ w, bound, "dx")
    assert_close(views["weight"], da.T @ x, bound, "dweight")
    assert_close(views["bias"], da.sum(axis=0), bound, "dbias")


@pytest.mark.parametrize("sizes", LARGE, ids=str)
def test_dense_bits_on_any_number_of_threads(sizes, dtype, rng, restore_threads):
    layer, x, dy = dense_problem(rng, *sizes, "sigmoid", dtype)
    rf.set_num_threads(1)
    wanted = run_dense(layer, x, dy)
    for threads in (2, 3, 5):
        rf.set_num_threads(threads)
        for name, got, want in zip(("y", "dx", "gradient"), run_dense(layer, x, dy), wanted, strict=True):
            assert_same_bits(got, want, f"{name} on {threads} threads")


def test_dense_bits_of_a_row_do_not_depend_on_the_others(isa, dtype, rng):
    layer, x, dy = dense_problem(rng, 300, 65, 37, "tanh", dtype)
    y, dx, _ = run_dense(layer, x, dy)
    for rows in (slice(0, 1), slice(5, 12), slice(250, 300)):
        y_some, dx_some, _ = run_dense(layer, x[rows], dy[rows])
        assert_same_bits(y_some, y[rows], "y")
        assert_same_bits(dx_some, dx[rows], "dx")


@by_activation
@by_bias
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_gradients(activation, bias, shape, dtype, rng):
    layer = rf.Dense(5, 3, activation, bias, dtype=dtype, seed=1)
    x = rng.standard_normal(shape).astype(dtype)
    dy = rng.standard_normal((*shape[:-1], 3)).astype(dtype)
    kept = dy.copy()
    grad = np.full(layer.parameters.size, np.nan, dtype)
    y, tape = layer.trace(x)
    dx = layer.pull_back(tape, dy, grad, True)
    assert_same_bits(y, layer(x), "y")
    assert_same_bits(dy, kept, "dy")

    x64, dy64 = x.astype(np.float64), dy.astype(np.float64)
    weight, b = (None if p is None else p.astype(np.float64) for p in parameters(layer))
    grads = layer.parameters.views(grad)
    tolerance = TOLERANCE[dtype.name]
    assert_close(
        dx, complex_step(lambda v: (dy64 * reference_dense(v, weight, b, activation)).sum(), x64), tolerance, "dx"
    )
    assert_close(
        grads["weight"],
        complex_step(lambda v: (dy64 * reference_dense(x64, v, b, activation)).sum(), weight),
        tolerance,
        "dweight",
    )
    if bias:
        dbias = complex_step(lambda v: (dy64 * reference_dense(x64, weight, v, activation)).sum(), b)
        assert_close(grads["bias"], dbias, tolerance, "dbias")


def test_dense_gradients_without_dx(rng):
    layer = rf.Dense(5, 3, "tanh", dtype="float64", seed=1)
    x, dy = rng.standard_normal((7, 5)), rng.standard_normal((7, 3))
    with_dx, without = np.empty((2, layer.parameters.size))
    assert layer.pull_back(layer.trace(x)[1], dy, with_dx, True) is not None
    assert layer.pull_back(layer.trace(x)[1], dy, without, False) is None
    assert_same_bits(without, with_dx, "gradient")


@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5), (0, 3, 5)])
def test_dense_of_nothing(shape):
    layer = rf.Dense(5, 3, "sigmoid", seed=1)
    x = np.zeros(shape, np.float32)
    y, tape = layer.trace(x)
    grad = np.full(layer.parameters.size, np.nan, np.float32)
    dx = layer.pull_back(tape, np.zeros_like(y), grad, True)
    assert y.shape == (*shape[:-1], 3)
    assert dx.shape == shape
    assert not grad.any()


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_activation_of_extreme_values(activation, dtype):
    layer = rf.Dense(1, 1, activation, bias=False, dtype=dtype)
    layer.load_state_dict({"weight": np.ones((1, 1))})
    x = np.array([-np.inf, -1e30, -1000, -50, 0, 50, 1000, 1e30, np.inf, np.nan], dtype)[:, None]
    small = np.exp(np.float64(-50))
    want = {
        "relu": [0, 0, 0, 0, 0, 50, 1000, dtype.type(1e30), np.inf, np.nan],
        "tanh": [-1, -1, -1, -1, 0, 1, 1, 1, 1, np.nan],
        "sigmoid": [0, 0, 0, small / (1 + small), 0.5, 1, 1, 1, 1, np.nan],
    }[activation]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = layer(x)
    np.testing.assert_allclose(y[:, 0], want, rtol=4 * np.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("change", ["reversed", "fortran", "strided", "read-only", "unaligned", "list"])
def test_dense_takes_any_memory_layout(change, rng):
    layer = rf.Dense(5, 3, "tanh", dtype="float64", seed=1)
    x = rng.standard_normal((6, 5))
    changed = {
        "reversed": lambda: x[::-1].copy()[::-1],
        "fortran": lambda: np.asfortranarray(x),
        "strided": lambda: np.repeat(x, 2, axis=1)[:, ::2],
        "read-only": lambda: np.frombuffer(x.tobytes()).reshape(6, 5),
        "unaligned": lambda: np.frombuffer(b"." + x.tobytes(), np.float64, offset=1).reshape(6, 5),
        "list": lambda: x.tolist(),
    }[change]()
    assert_same_bits(layer(changed), layer(x), "y")


def test_dense_initial_values():
    layer = rf.Dense(100, 50, dtype="float64", seed=3)
    flat = layer.parameters.flat
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert layer.parameters["weight"].shape == (50, 100)
    assert layer.parameters["bias"].shape == (50,)
    assert np.abs(flat).max() <= 0.1
    # The mean and deviation of 5050 uniform numbers lie within five standard errors.
    assert abs(flat.mean()) < 5 * 0.1 / 3**0.5 / flat.size**0.5
    assert abs(flat.std() / (0.1 / 3**0.5) - 1) < 0.05
    assert_same_bits(rf.Dense(100, 50, dtype="float64", seed=3).parameters.flat, flat, "same seed")
    assert (rf.Dense(100, 50, dtype="float64", seed=4).parameters.flat != flat).any()
    assert (rf.Dense(100, 50, seed=None).parameters.flat != rf.Dense(100, 50, seed=None).parameters.flat).any()


def test_dense_is_made_again_from_its_config():
    layer = rf.Dense(4, 2, "relu", bias=False, dtype="float64")
    again = rf.Dense(**layer.config())
    assert again.config() == layer.config()
    assert list(again.parameters) == ["weight"]
    assert eval(repr(layer), {"Dense": rf.Dense}).config() == layer.config()


def test_copies_are_independent(rng):
    layer = rf.Dense(4, 2, dtype="float64", seed=1)
    x = rng.standard_normal((3, 4))
    before = layer(x)
    twin = copy.deepcopy(layer)
    twin.parameters.flat[...] = 0
    assert_same_bits(layer(x), before, "y of the original")
    assert not twin(x).any()


def test_state_dict_is_a_copy_and_load_is_all_or_nothing(rng):
    layer = rf.Dense(4, 2, seed=1)
    state = layer.state_dict()
    version = layer.parameters.version
    state["weight"][...] = 7
    assert (layer.parameters["weight"] != 7).all()
    before = layer.parameters.flat.copy()
    with pytest.raises(ValueError, match=r"Dense.load_state_dict: bias has shape \(3,\); expected \(2,\)"):
        layer.load_state_dict({"weight": state["weight"], "bias": np.zeros(3)})
    assert_same_bits(layer.parameters.flat, before, "parameters")
    layer.load_state_dict(state)
    assert (layer.parameters["weight"] == 7).all()
    assert layer.parameters.version > version


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0, 3), {}, ValueError, "Dense: in_features is 0; expected at least 1"),
        ((3, -1), {}, ValueError, "Dense: out_features is -1; expected at least 1"),
        ((3.0, 3), {}, TypeError, "Dense: in_features is 3.0; expected an integer"),
        ((3, True), {}, TypeError, "Dense: out_features is True; expected an integer"),
        ((3, 3, "softplus"), {}, ValueError, "Dense: activation is 'softplus'; expected None or one of"),
        ((3, 3, ["relu"]), {}, TypeError, "Dense: activation is"),
        ((3, 3), {"dtype": "float16"}, TypeError, "Dense: dtype is float16; expected 'float32' or 'float64'"),
        ((3, 3), {"dtype": "real"}, TypeError, "Dense: dtype is 'real'"),
    ],
)
def test_dense_arguments(arguments, options, error, message):
    with pytest.raises(error) as caught:
        rf.Dense(*arguments, **options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((2, 4), np.float32), ValueError, r"Dense: x has shape (2, 4); expected (..., 5), from in_features"),
        (np.float32(1), ValueError, r"Dense: x has shape (); expected (..., 5), from in_features"),
        (np.zeros((2, 5)), TypeError, "Dense: x has dtype float64; expected float32"),
        (np.zeros((2, 5), ">f4"), TypeError, "Dense: x has dtype >f4; expected float32"),
        (np.zeros((2, 5), int), TypeError, "Dense: x has dtype int64; expected float32"),
        ([["a"] * 5], TypeError, "Dense: x has dtype <U1; expected float32"),
        ([[1.0], [1.0, 2.0]], TypeError, "Dense: x is not an array"),
        (None, TypeError, "Dense: x has dtype object; expected float32"),
    ],
)
def test_dense_input(x, error, message):
    with pytest.raises(error) as caught:
        rf.Dense(5, 3)(x)
    assert str(caught.value).startswith(message)


def test_last(dtype, rng):
    x = rng.standard_normal((4, 3, 2)).astype(dtype)
    last = rf.Last()
    y = last(x)
    assert_same_bits(y, np.ascontiguousarray(x[-1]), "y")
    assert not np.shares_memory(y, x)
    dy = rng.standard_normal((3, 2)).astype(dtype)
    dx = last.pull_back(last.trace(x)[1], dy, np.empty(0, dtype), True)
    want = np.zeros_like(x)
    want[-1] = dy
    assert_same_bits(dx, want, "dx")
    assert last.pull_back(last.trace(x)[1], dy, np.empty(0, dtype), False) is None
    assert last(x[:, :0]).shape == (0, 2)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((0, 3, 2)), ValueError, r"Last: x has shape (0, 3, 2); expected (T, N, ...) with T >= 1"),
        (np.zeros(3), ValueError, r"Last: x has shape (3,); expected (T, N, ...) with T >= 1"),
        (np.zeros((4, 3, 2), int), TypeError, "Last: x.dtype is int64"),
    ],
)
def test_last_input(x, error, message):
    with pytest.raises(error) as caught:
        rf.Last()(x)
    assert str(caught.value).startswith(message)


@by_bias
def test_dense_equals_torch(bias, dtype, rng):
    torch = pytest.importorskip("torch", reason="PyTorch, the extra witness, is not installed")
    theirs = torch.nn.Linear(5, 3, bias=bias, dtype=getattr(torch, dtype.name))
    ours = rf.Dense(5, 3, bias=bias, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    x = rng.standard_normal((4, 7, 5)).astype(dtype)
    assert_close(ours(x), theirs(torch.from_numpy(x)).detach().numpy(), TOLERANCE[dtype.name], "y")
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state_dict().items()})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((2, 4))}, ValueError, "dense_backward: weight has 5 columns; expected 4, from x"),
        ({"x": np.zeros((2, 5), np.float32)}, TypeError, "dense_backward: x has dtype float32; expected float64"),
        ({"x": np.zeros(5)}, ValueError, r"dense_backward: x has shape \(5,\); expected \(rows, inputs\)"),
        ({"dy": np.zeros((2, 5))}, ValueError, r"dense_backward: dy has shape \(2, 5\); expected \(rows, outputs\) ="),
        ({"y": np.zeros((3, 3))}, ValueError, "dense_backward: y has shape"),
        ({"dweight": np.zeros((5, 3))}, ValueError, "dense_backward: dweight has shape"),
        ({"dbias": np.zeros(4)}, ValueError, "dense_backward: dbias has shape"),
        ({"dweight": np.broadcast_to(0.0, (3, 5))}, ValueError, "dense_backward: dweight is not in C order"),
        ({"activation": "softmax"}, ValueError, "dense_backward: activation is softmax; expected None, relu"),
    ],
)
def test_private_dense_backward_checks_what_it_is_given(change, error, message):
    arguments = {
        "x": np.zeros((2, 5)),
        "weight": np.zeros((3, 5)),
        "y": np.zeros((2, 3)),
        "dy": np.zeros((2, 3)),
        "dweight": np.zeros((3, 5)),
        "dbias": np.zeros(3),
        "activation": None,
        "need_dx": True,
    }
    with pytest.raises(error, match=message):
        _core.dense_backward(**(arguments | change))
    assert _core.dense_backward(**arguments).shape == (2, 5)


def test_private_dense_backward_refuses_outputs_that_overlap():
    x, weight, dy = np.zeros((3, 3)), np.zeros((3, 3)), np.zeros((3, 3))
    for name, shared in {"x": x, "weight": weight, "dy": dy}.items():
        with pytest.raises(ValueError, match="dense_backward: dweight shares memory with another argument"):
            _core.dense_backward(
                x=x, weight=weight, y=dy, dy=dy, dweight=shared, dbias=None, activation=None, need_dx=False
            )
        assert not shared.any(), name
    with pytest.raises(ValueError, match=r"dense_forward: bias has shape \(2,\)"):
        _core.dense_forward(x=x, weight=weight, bias=np.zeros(2), activation=None)
