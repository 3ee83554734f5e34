"""Losses: values against plain float64 NumPy, derivatives against its complex step, targets that do not suit."""

from __future__ import annotations

import numpy as np
import pytest
import rnnfast as rf
from compare import assert_close, assert_same_bits
from reference import STEP
from rnnfast import _core, losses

# Norm-relative: a few roundings an element in the prediction's dtype; the value is added up in float64.
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}

SHAPES = [(1, 1), (6, 1), (7, 5), (4, 3, 5), (2, 3, 37)]


# Terms in plain NumPy, which take a complex prediction. Each gives values and weights of its own.


def magnitude(z):
    """|z| continued from the real axis, analytic off 0."""
    return np.where(np.real(z) < 0, -z, z)


def mse(p, t):
    return (p - t) ** 2, 1.0


def mae(p, t):
    return magnitude(p - t), 1.0


def huber(delta):
    def terms(p, t):
        e = magnitude(p - t)
        return np.where(np.real(e) <= delta, e * e / 2, delta * (e - delta / 2)), 1.0

    return terms


def bce(pos_weight):
    def terms(p, t):
        return pos_weight * t * np.log(1 + np.exp(-p)) + (1 - t) * np.log(1 + np.exp(p)), 1.0

    return terms


def cross_entropy(ignored=None, weight=None):
    def terms(p, t):
        shown = np.where(t == ignored, 0, t) if ignored is not None else t
        values = np.log(np.exp(p).sum(axis=-1)) - np.take_along_axis(p, shown[..., None], -1)[..., 0]
        of_class = 1.0 if weight is None else np.asarray(weight)[shown]
        return values, of_class * (t != ignored if ignored is not None else np.ones(t.shape))

    return terms


def reference(terms, prediction, target, weight):
    values, own = terms(prediction, target)
    weight = np.broadcast_to(own * weight, values.shape)
    return (values * weight).sum() / weight.sum()


WEIGHT = np.linspace(0.5, 2.0, 5)
# The loss, its terms, and the same in PyTorch.
LOSSES = {
    "mse": (losses.mse, mse, lambda F, p, t: F.mse_loss(p, t)),
    "mae": (losses.mae, mae, lambda F, p, t: F.l1_loss(p, t)),
    "huber": (losses.huber, huber(1.0), lambda F, p, t: F.huber_loss(p, t)),
    "huber-0.3": (losses.Huber(0.3), huber(0.3), lambda F, p, t: F.huber_loss(p, t, delta=0.3)),
    "bce": (losses.bce, bce(1.0), lambda F, p, t: F.binary_cross_entropy_with_logits(p, t)),
    "bce-3": (
        losses.BCE(pos_weight=3.0),
        bce(3.0),
        lambda F, p, t: F.binary_cross_entropy_with_logits(p, t, pos_weight=p.new_tensor(3.0)),
    ),
    "cross_entropy": (losses.cross_entropy, cross_entropy(), lambda F, p, t: F.cross_entropy(p, t)),
    "cross_entropy-ignored": (
        losses.CrossEntropy(ignore_index=-100),
        cross_entropy(-100),
        lambda F, p, t: F.cross_entropy(p, t),
    ),
    "cross_entropy-1-ignored": (
        losses.CrossEntropy(ignore_index=1),
        cross_entropy(1),
        lambda F, p, t: F.cross_entropy(p, t, ignore_index=1),
    ),
    "cross_entropy-weight": (
        losses.CrossEntropy(weight=WEIGHT, ignore_index=-100),
        cross_entropy(-100, WEIGHT),
        lambda F, p, t: F.cross_entropy(p, t, weight=p.new_tensor(WEIGHT)),
    ),
}
by_loss = pytest.mark.parametrize("name", LOSSES)


def problem(name, shape, dtype, rng):
    prediction = (2 * rng.standard_normal(shape)).astype(dtype)
    if name.startswith("cross_entropy"):
        target = rng.integers(0, shape[-1], shape[:-1])
        if LOSSES[name][0].ignore_index is not None:
            target.flat[1::3] = LOSSES[name][0].ignore_index
        return prediction, target
    target = rng.random(shape) if name.startswith("bce") else rng.standard_normal(shape)
    return prediction, target.astype(dtype)


def suits(name, shape):
    """Whether the loss has a meaning for predictions of that many classes."""
    if "weight" in name:
        return shape[-1] == len(WEIGHT)
    return "1-ignored" not in name or shape[-1] > 1


@by_loss
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_derivative(name, shape, weighted, dtype, isa, rng):
    if not suits(name, shape):
        pytest.skip("another number of classes")
    loss, terms, _ = LOSSES[name]
    prediction, target = problem(name, shape, dtype, rng)
    kept = prediction.copy(), target.copy()
    weight = rng.random((target.shape[0], *[1] * (target.ndim - 1))) + 0.1 if weighted else None
    value, gradient = loss(prediction, target, weight)
    p64 = prediction.astype(np.float64)
    t64 = target if target.dtype.kind == "i" else target.astype(np.float64)
    of_reference = 1.0 if weight is None else weight
    assert isinstance(value, float)
    assert gradient.dtype == dtype
    # A single class has the loss 0, of which nothing is relative.
    tolerance = TOLERANCE[dtype.name]
    assert value == pytest.approx(reference(terms, p64, t64, of_reference), rel=tolerance, abs=tolerance)
    want = np.empty(shape)
    for index in np.ndindex(shape):
        moved = p64.astype(complex)
        moved[index] += 1j * STEP
        want[index] = reference(terms, moved, t64, of_reference).imag / STEP
    if target.dtype.kind == "i" and shape[-1] == 1:
        assert not gradient.any()
    else:
        assert_close(gradient, want, tolerance, "gradient")
    assert_same_bits(prediction, kept[0], "prediction")
    assert_same_bits(target, kept[1], "target")


@by_loss
def test_equals_torch(name, dtype, rng):
    torch = pytest.importorskip("torch", reason="PyTorch, the extra witness, is not installed")
    prediction, target = problem(name, (9, 5), dtype, rng)
    leaf = torch.tensor(prediction, requires_grad=True)
    loss = LOSSES[name][2](torch.nn.functional, leaf, torch.tensor(target))
    loss.backward()
    value, gradient = LOSSES[name][0](prediction, target)
    assert value == pytest.approx(loss.item(), rel=TOLERANCE[dtype.name])
    assert_close(gradient, leaf.grad.numpy(), TOLERANCE[dtype.name], "gradient")


@by_loss
def test_weights_of_whole_numbers_are_repetitions(name, rng):
    loss = LOSSES[name][0]
    prediction, target = problem(name, (6, 5), np.float64, rng)
    times = np.array([0, 1, 2, 3, 1, 1])
    shape = (-1, *[1] * (target.ndim - 1))
    value, gradient = loss(prediction, target, times.reshape(shape))
    want, repeated = loss(np.repeat(prediction, times, axis=0), np.repeat(target, times, axis=0))
    assert value == pytest.approx(want, rel=1e-14)
    assert loss.count(loss.check_target(target, prediction.shape, prediction.dtype, ""), times.reshape(shape)) > 0
    start = np.cumsum(times) - times
    summed = np.stack([repeated[a : a + n].sum(axis=0) for a, n in zip(start, times, strict=True)])
    assert_close(gradient, summed, 1e-14, "gradient")


@by_loss
def test_no_weight_at_all_is_no_loss(name, dtype, rng):
    """Where PyTorch divides 0 by 0: a batch of padding alone trains nothing."""
    loss = LOSSES[name][0]
    prediction, target = problem(name, (6, 5), dtype, rng)
    value, gradient = loss(prediction, target, np.zeros((6, *[1] * (target.ndim - 1))))
    assert value == 0
    assert not gradient.any()
    assert gradient.dtype == dtype


def test_cross_entropy_of_ignored_targets_alone(rng):
    value, gradient = losses.CrossEntropy(ignore_index=-1)(rng.standard_normal((3, 4)), [-1, -1, -1])
    assert (value, gradient.any()) == (0, False)


def test_cross_entropy_of_one_prediction(dtype, rng):
    logits = rng.standard_normal(3).astype(dtype)
    value, gradient = losses.cross_entropy(logits, 1)
    want, of_batch = losses.cross_entropy(logits[None], [1])
    assert value == want
    assert_same_bits(gradient, of_batch[0], "gradient")


def test_cross_entropy_passes_nan_on(isa, dtype):
    for at in range(20):
        logits = np.zeros((1, 20), dtype)
        logits[0, at] = np.nan
        assert np.isnan(losses.cross_entropy(logits, np.array([3]))[0])


@pytest.mark.parametrize("z", [0.0, 1e3, -1e3, 1e38])
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_bce_of_extreme_logits(z, t, dtype):
    """-log sigmoid(z) is about -z for large -z, and neither infinite nor NaN."""
    value, gradient = losses.bce(np.array([[z]], dtype), np.array([[t]], dtype))
    wrong = z if t == 0 else -z
    assert value == pytest.approx(np.log(2) if z == 0 else max(wrong, 0))
    assert gradient[0, 0] == pytest.approx((0.5 if z == 0 else float(z > 0)) - t, abs=1e-300)


def test_mae_at_its_kink(dtype):
    value, gradient = losses.mae(np.ones((2, 1), dtype), np.array([[1], [0]], dtype))
    assert value == 0.5
    np.testing.assert_array_equal(gradient, [[0], [0.5]])


def test_bce_weights_one_column_each(rng):
    prediction, target = rng.standard_normal((4, 3)), rng.random((4, 3))
    value = losses.BCE([1.0, 2.0, 0.0])(prediction, target)[0]
    columns = [losses.BCE(w)(prediction[:, [k]], target[:, [k]])[0] for k, w in enumerate([1.0, 2.0, 0.0])]
    assert value == pytest.approx(np.mean(columns), rel=1e-14)


class Quartic(losses.Loss):
    """A loss of one's own: terms are enough."""

    def terms(self, prediction, target):
        error = prediction - target
        return error**4, 4 * error**3


def test_a_loss_of_ones_own(rng):
    p, t, w = rng.standard_normal((3, 6, 2))
    value, gradient = Quartic()(p, t)
    assert value == pytest.approx(((p - t) ** 4).mean(), rel=1e-14)
    assert_close(gradient, 4 * (p - t) ** 3 / 12, 1e-14, "gradient")
    value, gradient = Quartic()(p, t, w**2)
    assert value == pytest.approx((w**2 * (p - t) ** 4).sum() / (w**2).sum(), rel=1e-14)
    assert_close(gradient, w**2 * 4 * (p - t) ** 3 / (w**2).sum(), 1e-14, "gradient")


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


@pytest.mark.parametrize("classes", [8, 16, 17, 40, 64])
def test_cross_entropy_finds_the_largest_logit_anywhere(classes, isa, dtype):
    """Where it is overlooked, exp overflows."""
    for at in range(classes):
        logits = np.full((1, classes), -5e3, dtype)
        logits[0, at] = 5e3
        assert losses.cross_entropy(logits, np.array([at]))[0] == 0
        assert losses.cross_entropy(logits, np.array([(at + 1) % classes]))[0] == pytest.approx(1e4)


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
        ("mae", np.zeros((4, 1)), np.zeros((4, 1), int), TypeError, "MAE: target has dtype int64; expected float64"),
        ("huber", np.zeros((4, 1)), np.zeros(4), ValueError, "Huber: target has shape (4,); expected (4, 1)"),
        (
            "bce",
            np.zeros((4, 1)),
            [[0.0], [1.0], [1.5], [0.0]],
            ValueError,
            "BCE: target[2, 0] is 1.5; expected numbers from 0 to 1, for bce",
        ),
        ("bce", np.zeros((1, 1)), [[np.nan]], ValueError, "BCE: target[0, 0] is nan; expected numbers from 0 to 1"),
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


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: losses.Huber(0), ValueError, "Huber: delta is 0; expected a number above 0"),
        (lambda: losses.Huber("1"), TypeError, "Huber: delta is '1'; expected a number"),
        (lambda: losses.CrossEntropy(1.5), TypeError, "CrossEntropy: ignore_index is 1.5; expected None or an integer"),
        (lambda: losses.CrossEntropy(weight=[1, -1]), ValueError, "CrossEntropy: weight[1] is -1.0; expected finite"),
        (
            lambda: losses.CrossEntropy(weight=[[1.0]]),
            ValueError,
            "CrossEntropy: weight has shape (1, 1); expected (C,)",
        ),
        (lambda: losses.CrossEntropy(weight="a"), TypeError, "CrossEntropy: weight has dtype <U1; expected numbers"),
        (
            lambda: losses.CrossEntropy(weight=[1.0, 2.0])(np.zeros((2, 3)), [0, 1]),
            ValueError,
            "CrossEntropy: target: there are 2 class weights; expected 3, from the prediction",
        ),
        (
            lambda: losses.CrossEntropy(ignore_index=-1)(np.zeros((2, 3)), [-1, -2]),
            ValueError,
            "CrossEntropy: target[1] is -2; expected a class number 0..2",
        ),
        (lambda: losses.BCE(np.nan), ValueError, "BCE: pos_weight is nan; expected finite numbers of at least 0"),
        (lambda: losses.BCE([[1.0]]), ValueError, "BCE: pos_weight has shape (1, 1); expected a number or one axis"),
        (
            lambda: losses.BCE([1.0, 2.0])(np.zeros((2, 3)), np.zeros((2, 3))),
            ValueError,
            "BCE: target: pos_weight has 2 numbers; expected 1 or those of the last axis",
        ),
        (
            lambda: losses.mse(np.zeros((2, 3)), np.zeros((2, 3)), [1.0, 1.0]),
            ValueError,
            "MSE: weight has shape (2,); expected (2, 3) or 1 in places, from target",
        ),
        (lambda: losses.mse(np.zeros((1, 1)), np.zeros((1, 1)), [[-1]]), ValueError, "MSE: weight[0, 0] is -1.0;"),
    ],
)
def test_options(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)


def test_repr():
    assert repr(losses.Huber(0.5)) == "Huber(delta=0.5)"
    assert repr(losses.CrossEntropy(weight=[1, 2])) == "CrossEntropy(ignore_index=None, weight=[1.0, 2.0])"


def test_cross_entropy_has_the_same_bits_on_avx2_and_avx512(dtype, rng):
    """A sum over the classes has as many parts on every instruction set as the widest register has lanes."""
    info = rf.build_info()
    if not {"avx2", "avx512"} <= set(info["isas"]):
        pytest.skip(f"this machine and build have only {', '.join(info['isas'])}")
    logits = rng.standard_normal((50, 103)).astype(dtype)
    target = rng.integers(0, 103, 50)
    results = []
    try:
        for isa in ("avx2", "avx512"):
            _core.set_isa(isa)
            derivative = np.empty_like(logits)
            results.append((_core.cross_entropy(logits, target, None, 1 / 50, derivative), derivative))
    finally:
        _core.set_isa(info["isa"])
    (loss, derivative), (other_loss, other) = results
    assert loss == other_loss
    assert_same_bits(derivative, other, "derivative")
