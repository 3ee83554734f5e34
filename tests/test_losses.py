"""Losses: values against plain float64 NumPy, derivatives against its complex step, targets that do not suit."""

from __future__ import annotations

import numpy as np
import pytest
import rnnfast as rf
from compare import assert_close, assert_same_bits
from reference import STEP
from rnnfast import losses

# Norm-relative: a few roundings an element in the prediction's dtype; the value is added up in float64.
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}

SHAPES = [(1, 1), (6, 1), (7, 5), (4, 3, 5)]


def reference_mse(prediction, target):
    return ((prediction - target) ** 2).sum() / target.size


def reference_cross_entropy(prediction, target):
    terms = np.log(np.exp(prediction).sum(axis=-1)) - np.take_along_axis(prediction, target[..., None], -1)[..., 0]
    return terms.sum() / target.size


def problem(name, shape, dtype, rng):
    prediction = rng.standard_normal(shape).astype(dtype)
    if name == "mse":
        return prediction, rng.standard_normal(shape).astype(dtype), reference_mse
    return prediction, rng.integers(0, shape[-1], shape[:-1]), reference_cross_entropy


@pytest.mark.parametrize("name", ["mse", "cross_entropy"])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_derivative(name, shape, dtype, rng):
    prediction, target, reference = problem(name, shape, dtype, rng)
    kept = prediction.copy(), target.copy()
    value, gradient = getattr(losses, name)(prediction, target)
    p64 = prediction.astype(np.float64)
    t64 = target.astype(np.float64) if name == "mse" else target
    assert isinstance(value, float)
    assert gradient.dtype == dtype
    # A single class has the loss 0, of which nothing is relative.
    assert value == pytest.approx(reference(p64, t64), rel=TOLERANCE[dtype.name], abs=TOLERANCE[dtype.name])
    want = np.empty(shape)
    for index in np.ndindex(shape):
        moved = p64.astype(complex)
        moved[index] += 1j * STEP
        want[index] = reference(moved, t64).imag / STEP
    if name == "cross_entropy" and shape[-1] == 1:
        assert not gradient.any()
    else:
        assert_close(gradient, want, TOLERANCE[dtype.name], "gradient")
    assert_same_bits(prediction, kept[0], "prediction")
    assert_same_bits(target, kept[1], "target")


@pytest.mark.parametrize("name", ["mse", "cross_entropy"])
def test_equals_torch(name, dtype, rng):
    torch = pytest.importorskip("torch", reason="PyTorch, the extra witness, is not installed")
    prediction, target, _ = problem(name, (9, 5), dtype, rng)
    leaf = torch.tensor(prediction, requires_grad=True)
    loss = getattr(torch.nn.functional, {"mse": "mse_loss"}.get(name, name))(leaf, torch.tensor(target))
    loss.backward()
    value, gradient = getattr(losses, name)(prediction, target)
    assert value == pytest.approx(loss.item(), rel=TOLERANCE[dtype.name])
    assert_close(gradient, leaf.grad.numpy(), TOLERANCE[dtype.name], "gradient")


def test_mse_is_added_up_in_float64():
    """Two million float32 ones and a tail of small squares: a float32 sum would lose the tail."""
    prediction = np.full((2**21, 1), 2.0**-12, np.float32)
    prediction[0] = 2.0**12
    value, _ = losses.mse(prediction, np.zeros_like(prediction))
    assert value == (2.0**24 + (2**21 - 1) * 2.0**-24) / 2**21


def test_cross_entropy_of_extreme_logits(dtype):
    """Differences beyond the range of exp: neither infinite nor NaN, and exact where it can be."""
    logits = np.array([[1e4, 0, -1e4], [-1e4, 1e4, 0], [1e38, -1e38, 0]], dtype)
    value, gradient = losses.cross_entropy(logits, np.array([0, 0, 0]))
    assert value == pytest.approx(2e4 / 3)
    np.testing.assert_array_equal(gradient, np.array([[0, 0, 0], [-1, 1, 0], [0, 0, 0]], dtype) / dtype.type(3))


def test_cross_entropy_takes_any_integers(rng):
    logits = rng.standard_normal((4, 3))
    target = np.array([0, 2, 1, 2])
    want = losses.cross_entropy(logits, target)[0]
    for kind in ("i1", "u1", "i4", "u8", ">i8"):
        assert losses.cross_entropy(logits, target.astype(kind))[0] == want
    assert losses.cross_entropy(logits, [0, 2, 1, 2])[0] == want


@pytest.mark.parametrize(
    ("name", "prediction", "target", "error", "message"),
    [
        (
            "mse",
            np.zeros((4, 1)),
            np.zeros(4),
            ValueError,
            "MSE: target has shape (4,); expected (4, 1), from prediction",
        ),
        (
            "mse",
            np.zeros((0, 1)),
            np.zeros((0, 1)),
            ValueError,
            "MSE: prediction has shape (0, 1); expected at least one",
        ),
        ("mse", np.zeros((4, 1)), np.zeros((4, 1), "f4"), TypeError, "MSE: target has dtype float32; expected float64"),
        ("mse", np.zeros((4, 1), "f2"), np.zeros((4, 1)), TypeError, "MSE: prediction has dtype float16"),
        (
            "mse",
            np.zeros((4, 1)),
            np.zeros((4, 1), int),
            TypeError,
            "MSE: target has dtype int64; expected float64; class numbers go with loss='cross_entropy'",
        ),
        (
            "cross_entropy",
            np.zeros((2, 3)),
            [0, 3],
            ValueError,
            "CrossEntropy: target[1] is 3; expected a class number 0..2, from the prediction's last axis of 3",
        ),
        ("cross_entropy", np.zeros((2, 2, 3)), [[0, 1], [-1, 0]], ValueError, "CrossEntropy: target[1, 0] is -1;"),
        (
            "cross_entropy",
            np.zeros((2, 3)),
            [0.0, 1.0],
            TypeError,
            "CrossEntropy: target has dtype float64; expected int",
        ),
        (
            "cross_entropy",
            np.zeros((2, 3)),
            [True, False],
            TypeError,
            "CrossEntropy: target has dtype bool; expected int",
        ),
        (
            "cross_entropy",
            np.zeros((2, 3)),
            [[0], [1]],
            ValueError,
            "CrossEntropy: target has shape (2, 1); expected (2,)",
        ),
        ("cross_entropy", np.float64(1), 0, ValueError, "CrossEntropy: target: the prediction has shape ()"),
        ("cross_entropy", np.zeros((0, 3)), np.zeros(0, int), ValueError, "CrossEntropy: prediction has shape (0, 3);"),
    ],
)
def test_arguments(name, prediction, target, error, message):
    with pytest.raises(error) as caught:
        getattr(losses, name)(prediction, target)
    assert str(caught.value).startswith(message)


def test_get():
    assert losses.get("mse", "f") is losses.mse
    own = losses.MSE()
    assert losses.get(own, "f") is own
    with pytest.raises(ValueError, match=r"f: loss is 'mse2'; expected one of \['mse', 'mae', 'huber', 'cross_"):
        losses.get("mse2", "f")
    with pytest.raises(TypeError, match="f: loss is int"):
        losses.get(3, "f")
    assert rf.losses is losses
