"""sigmoid and tanh of the kernels over the float32 patterns against float64, and in float64 against long double."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import rnnfast as rf
from compare import assert_same_bits
from rnnfast import _core
from tolerances import ACTIVATION_ULP

ACTIVATIONS = {"sigmoid": _core.testing.sigmoid, "tanh": _core.testing.tanh}
by_activation = pytest.mark.parametrize("name", ACTIVATIONS)

PATTERNS = 2**32
CHUNK = 2**23


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """In the precision of ``x``, which is wider than that of the tested function."""
    if name == "tanh":
        return np.tanh(x)
    # exp of the negative magnitude cannot overflow, and neither form cancels.
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def ulp_error(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """|got - want| in spacings of ``got``'s dtype at ``want``, which is wider."""
    return np.abs(got - want) / np.spacing(np.abs(want).astype(got.dtype)).astype(want.dtype)


def patterns(stride: int) -> Iterator[np.ndarray]:
    """Every ``stride``-th float32 that is a number, from all signs, exponents and mantissas, Inf among them."""
    for start in range(0, PATTERNS, stride * CHUNK):
        bits = np.arange(start, min(start + stride * CHUNK, PATTERNS), stride, dtype=np.uint64).astype(np.uint32)
        x = bits.view(np.float32)
        yield x[~np.isnan(x)]


def check_float32(name: str, x: np.ndarray, got: np.ndarray, want: np.ndarray) -> None:
    error = ulp_error(got, want)
    worst = int(np.argmax(error))
    assert error[worst] <= ACTIVATION_ULP["float32"], f"{name}({x[worst]!r}) = {got[worst]!r}: {error[worst]:.2f} ulp"
    assert (np.abs(got) <= 1).all()
    if name == "sigmoid":
        assert (got >= 0).all()


@by_activation
def test_float32_of_every_1009th_pattern(name, isa):
    for x in patterns(1009):
        check_float32(name, x, ACTIVATIONS[name](x), exact(name, x.astype(np.float64)))


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)  # 2^32 inputs: minutes, not what the other tests may take
@by_activation
def test_float32_of_every_pattern(name):
    """On all instruction sets in one pass, since the oracle takes longer than they do; equal bits are judged once."""
    info = rf.build_info()
    try:
        for x in patterns(1):
            want = exact(name, x.astype(np.float64))
            judged: list[np.ndarray] = []
            for isa in info["isas"]:
                _core.set_isa(isa)
                got = ACTIVATIONS[name](x)
                if not any(np.array_equal(got.view(np.uint32), other.view(np.uint32)) for other in judged):
                    check_float32(name, x, got, want)
                    judged.append(got)
    finally:
        _core.set_isa(info["isa"])


@by_activation
def test_float64(name, isa):
    """At most 4 ulp from long double: near zero, where it bends, where it saturates, and at every magnitude."""
    if np.finfo(np.longdouble).nmant <= np.finfo(np.float64).nmant:
        pytest.skip("long double is no wider than double on this machine")
    rng = np.random.default_rng(5)
    spread = np.exp2(rng.uniform(-1074, 10, 100_000))
    x = np.concatenate(
        [rng.uniform(-1, 1, 300_000), rng.uniform(-45, 45, 300_000), rng.uniform(-745, 745, 50_000), spread, -spread]
    )
    got = ACTIVATIONS[name](x)
    error = ulp_error(got, exact(name, x.astype(np.longdouble)))
    worst = int(np.argmax(error))
    assert error[worst] <= ACTIVATION_ULP["float64"], f"{name}({x[worst]!r}) = {got[worst]!r}: {error[worst]:.2f} ulp"
    assert (np.abs(got) <= 1).all() and (name == "tanh" or (got >= 0).all())


def line(dtype: np.dtype) -> np.ndarray:
    """Sorted non-negative values from zero through subnormals to Inf."""
    info = np.finfo(dtype)
    exponents = np.linspace(np.log2(float(info.smallest_subnormal)), np.log2(float(info.max)), 20_001)[:-1]
    return np.concatenate([[0.0], np.exp2(exponents), np.linspace(0, 40, 20_001), [info.max, np.inf]]).astype(dtype)


def test_tanh_is_odd_bitwise(dtype, isa):
    x = line(dtype)
    assert_same_bits(_core.testing.tanh(-x), -_core.testing.tanh(x), "tanh(-x)")


def test_sigmoid_of_minus_x_is_one_minus_sigmoid(dtype, isa):
    """Within the bound of either, in units of the last place of 1."""
    x = line(dtype)
    total = _core.testing.sigmoid(-x).astype(np.longdouble) + _core.testing.sigmoid(x)
    assert np.abs(total - 1).max() <= ACTIVATION_ULP[dtype.name] * np.finfo(dtype).eps


def test_special_values(dtype, isa):
    special = np.array([np.inf, -np.inf, np.nan, -np.nan, 0.0, -0.0], dtype)
    sigmoid, tanh = _core.testing.sigmoid(special), _core.testing.tanh(special)
    assert np.array_equal(sigmoid, np.array([1, 0, np.nan, np.nan, 0.5, 0.5], dtype), equal_nan=True)
    assert np.array_equal(tanh, np.array([1, -1, np.nan, np.nan, 0, 0], dtype), equal_nan=True)
    assert np.array_equal(np.signbit(tanh[4:]), [False, True])


def test_subnormals_keep_their_value_and_half(dtype, isa):
    """tanh(x) rounds to x and sigmoid(x) to 1/2 for the smallest numbers there are."""
    tiny = np.finfo(dtype).smallest_subnormal * np.arange(1, 100, dtype=dtype)
    for x in (tiny, -tiny):
        assert np.array_equal(_core.testing.tanh(x), x)
        assert (_core.testing.sigmoid(x) == 0.5).all()


def test_one_nan_spoils_no_neighbour(dtype, isa):
    """A vector is computed at once; lanes must not see each other, nor the tail what lies behind the end."""
    for size in (*range(1, 35), 64, 65):
        x = np.linspace(-3, 3, size).astype(dtype)
        for function in ACTIVATIONS.values():
            want = function(x)
            for k in range(size):
                poisoned = x.copy()
                poisoned[k] = np.nan
                got = function(poisoned)
                assert np.isnan(got[k])
                assert_same_bits(np.delete(got, k), np.delete(want, k), f"size {size}, NaN at {k}")


@by_activation
def test_value_does_not_depend_on_its_place(name, dtype, isa):
    x = np.linspace(-20, 20, 67).astype(dtype)
    want = ACTIVATIONS[name](x)
    got = np.concatenate([ACTIVATIONS[name](x[k : k + 1]) for k in range(67)])
    assert_same_bits(got, want, name)
    assert ACTIVATIONS[name](x[:0]).shape == (0,)
