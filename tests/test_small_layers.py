"""Embedding, Dropout and Last: against indexing, drawn numbers replayed, and each sequence of a batch alone."""

from __future__ import annotations

import numpy as np
import pytest
import rnnfast as rf
from compare import assert_close, assert_same_bits
from rnnfast.layers.base import Run

T, N, H = 5, 7, 3


def pull(layer, tape, dy, need_dx=True):
    """Gradient of the parameters, of which everything has to be overwritten, and dx."""
    grad = np.full(layer.parameters.size, np.nan, layer.dtype)
    dx = layer.pull_back(tape, dy, grad, need_dx)
    return grad, dx


# Embedding.


@pytest.mark.parametrize("shape", [(1,), (T, N), (2, 3, 4), (0,)])
@pytest.mark.parametrize("kind", ["i8", "u1", "i2", "u8"])
def test_embedding_is_indexing(shape, kind, dtype, rng):
    layer = rf.Embedding(9, 4, dtype=dtype, seed=1)
    x = rng.integers(0, 9, shape).astype(kind)
    assert_same_bits(layer(x), layer.parameters["weight"][x], "y")
    dy = rng.standard_normal((*shape, 4)).astype(dtype)
    y, tape = layer.trace(x)
    assert_same_bits(y, layer(x), "y")
    grad, dx = pull(layer, tape, dy)
    want = np.zeros((9, 4), dtype)
    for index in np.ndindex(shape):
        want[x[index]] += dy[index]
    assert_same_bits(grad, want.reshape(-1), "gradient")
    assert dx is None


def test_embedding_is_dense_on_one_hot(rng):
    """The gradient through an LSTM is that of a Dense without bias on one-hot vectors."""
    x = rng.integers(0, 6, (T, N))
    embedding, dense = rf.Embedding(6, 4, dtype="float64", seed=1), rf.Dense(6, 4, bias=False, dtype="float64")
    dense.load_state_dict({"weight": embedding.parameters["weight"].T})
    lstm = rf.LSTM(4, H, dtype="float64", seed=2)
    ours, theirs = rf.Sequential(embedding, lstm), rf.Sequential(dense, lstm)
    dy = rng.standard_normal((T, N, H))
    grads = []
    for model, inputs in ((ours, x), (theirs, np.eye(6)[x])):
        y, tape = model.trace(inputs)
        grad = np.full(model.parameters.size, np.nan)
        model.pull_back(tape, dy, grad, False)
        grads.append((y, model.parameters.views(grad)))
    assert_close(grads[0][0], grads[1][0], 1e-14, "y")
    assert_close(grads[0][1]["0.weight"], grads[1][1]["0.weight"].T, 1e-14, "gradient")


@pytest.mark.parametrize("batch_first", [False, True])
def test_embedding_in_a_model(batch_first, rng, tmp_path):
    model = rf.Sequential(
        rf.Embedding(6, 4, seed=1), rf.GRU(4, H, batch_first=batch_first, seed=2), rf.Last(), rf.Dense(H, 2, seed=3)
    )
    x = rng.integers(0, 6, (T, N))
    shown = x.T if batch_first else x
    y = rng.integers(0, 2, N)
    history = model.fit(shown, y, "cross_entropy", rf.Adam(0.05), epochs=30, batch_size=3, progress=False)
    assert history.loss[-1] < history.loss[0] / 2
    model.save(tmp_path / "m")
    assert_same_bits(rf.load(tmp_path / "m").predict(shown), model.predict(shown), "prediction")
    assert next(iter(model.parameters)) == "0.weight"


def test_embedding_alone_is_feed_forward(rng):
    model = rf.Sequential(rf.Embedding(6, 4, seed=1), rf.Dense(4, 2, seed=3))
    assert model.predict(np.array([3, 1, 5])).shape == (3, 2)
    assert model.predict([3, 1, 5]).shape == (3, 2)
    assert model.predict([]).shape == (0, 2)
    model.fit(rng.integers(0, 6, 9), np.zeros((9, 2), "f4"), epochs=1, progress=False)


def test_embedding_starts_normal():
    weight = rf.Embedding(200, 50, dtype="float64", seed=0).parameters["weight"]
    # 10 000 draws: the bounds are four standard errors.
    assert abs(weight.mean()) < 0.04
    assert abs(weight.std() - 1) < 0.03
    again = rf.Embedding(200, 50, dtype="float64", seed=0).parameters["weight"]
    assert_same_bits(weight, again, "weight")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rf.Embedding(0, 4), ValueError, "Embedding: num_embeddings is 0; expected at least 1"),
        (lambda: rf.Embedding(4, 1.5), TypeError, "Embedding: embedding_dim is 1.5; expected an integer"),
        (lambda: rf.Embedding(4, 4, dtype="f2"), TypeError, "Embedding: dtype is float16; expected 'float32'"),
        (lambda: rf.Embedding(4, 4, seed=-1), ValueError, "Embedding: seed is -1; expected None, a whole"),
        (lambda: rf.Embedding(4, 4)(np.zeros(3)), TypeError, "Embedding: x has dtype float64; expected integers 0..3"),
        (
            lambda: rf.Embedding(4, 4)([[0, 1], [4, 0]]),
            ValueError,
            "Embedding: x[1, 0] is 4; expected a number 0..3, from num_embeddings",
        ),
        (lambda: rf.Embedding(4, 4)([-1]), ValueError, "Embedding: x[0] is -1; expected a number 0..3"),
        (
            lambda: rf.Sequential(rf.Dense(4, 4), rf.Embedding(4, 4)),
            ValueError,
            "Sequential: layers[1] is Embedding; expected it first, where x comes in",
        ),
        (
            lambda: rf.Sequential(rf.Embedding(4, 4), rf.GRU(4, 4))(np.zeros((3, 2))),
            TypeError,
            "Sequential: x has dtype float64; expected integers 0..3 for Embedding",
        ),
        (
            lambda: rf.Sequential(rf.Embedding(4, 4), rf.GRU(4, 4))(np.zeros((3, 2, 1), int)),
            ValueError,
            "Sequential: x has shape (3, 2, 1); expected (T, N), from the recurrent layers' batch_first=False",
        ),
        (
            lambda: rf.Sequential(rf.Embedding(4, 4), rf.GRU(4, 4, batch_first=True)).fit(
                np.full((3, 2), 9), np.zeros((3, 2, 4), "f4"), progress=False
            ),
            ValueError,
            "Sequential.fit: x[0, 0] is 9; expected a number 0..3, from num_embeddings",
        ),
    ],
)
def test_embedding_arguments(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value).startswith(message)


# Dropout.


def test_dropout_replays_its_mask(dtype, rng):
    layer, x = rf.Dropout(0.3), rng.standard_normal((T, N, H)).astype(dtype)
    run = Run(seed=(1, 2, 3, 4), path=(5,))
    y, tape = layer.trace(x, run)
    kept = y != 0
    assert y.dtype == dtype
    assert_close(y[kept], x[kept] / dtype.type(0.7), np.finfo(dtype).eps, "what is kept")
    assert 0 < kept.mean() < 1
    dy = rng.standard_normal(x.shape).astype(dtype)
    _, dx = pull(layer, tape, dy)
    assert_close(dx, np.where(kept, dy / dtype.type(0.7), 0), np.finfo(dtype).eps, "dx")
    assert pull(layer, tape, dy, need_dx=False)[1] is None
    assert_same_bits(layer.trace(x, run)[0], y, "the same pass")
    for seed, path in (((1, 2, 3, 5), (5,)), ((1, 2, 4, 4), (5,)), ((1, 2, 3, 4), (6,))):
        assert (layer.trace(x, Run(seed=seed, path=path))[0] != y).any()


def test_dropout_drops_its_share():
    y, _ = rf.Dropout(0.3).trace(np.ones((100, 100, 10)), Run(seed=(0,)))
    # Four standard errors of 100 000 draws.
    assert abs((y == 0).mean() - 0.3) < 0.006
    assert abs(y.mean() - 1) < 0.009


def test_dropout_outside_training_does_nothing(dtype, rng):
    x = rng.standard_normal((T, N, H)).astype(dtype)
    layer = rf.Dropout(0.9)
    assert_same_bits(layer(x), x, "y")
    assert_same_bits(layer.apply(x, Run(seed=(1,))), x, "y")
    y, tape = rf.Dropout(0).trace(x)
    assert_same_bits(y, x, "y")
    assert_same_bits(pull(rf.Dropout(0), tape, x)[1], x, "dx")
    model = rf.Sequential(rf.GRU(H, 4, dtype=dtype, seed=1), rf.Dropout(0.5))
    assert_same_bits(model(x), rf.Sequential(model.layers[0])(x), "prediction")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rf.Dropout(1.0), ValueError, "Dropout: p is 1.0; expected 0 <= p < 1"),
        (lambda: rf.Dropout(-0.1), ValueError, "Dropout: p is -0.1"),
        (lambda: rf.Dropout("0.1"), TypeError, "Dropout: p is '0.1'; expected a number"),
        (lambda: rf.Dropout()(np.zeros(3, int)), TypeError, "Dropout: x.dtype is int64; expected 'float32'"),
    ],
)
def test_dropout_arguments(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value).startswith(message)


# Last.

LENGTHS = np.array([5, 0, 1, 3, 5, 0, 2])


def test_last_with_lengths(dtype, rng):
    x = rng.standard_normal((T, N, H)).astype(dtype)
    for n, length in enumerate(LENGTHS):
        x[length:, n] = np.nan
    layer = rf.Last()
    want = np.stack([x[length - 1, n] if length else np.zeros(H, dtype) for n, length in enumerate(LENGTHS)])
    assert_same_bits(layer(x, LENGTHS), want, "y")
    y, tape = layer.trace(x, Run(LENGTHS))
    assert_same_bits(y, want, "y")
    dy = rng.standard_normal((N, H)).astype(dtype)
    dx = pull(layer, tape, dy)[1]
    expected = np.zeros_like(x)
    for n, length in enumerate(LENGTHS):
        if length:
            expected[length - 1, n] = dy[n]
    assert_same_bits(dx, expected, "dx")
    assert pull(layer, tape, dy, need_dx=False)[1] is None


def test_last_of_full_lengths_is_last(rng):
    x = rng.standard_normal((T, N, H))
    assert_same_bits(rf.Last()(x, [T] * N), rf.Last()(x), "y")


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([1.0] * N, TypeError, "Last: lengths has dtype float64; expected integers"),
        ([1] * 3, ValueError, "Last: lengths has shape (3,); expected (N,) = (7,), N from x"),
        ([1, 2, 6, 0, 0, 0, 0], ValueError, "Last: lengths[2] is 6; expected 0..5, the steps of x"),
        ([1, -1, 6, 0, 0, 0, 0], ValueError, "Last: lengths[1] is -1; expected 0..5"),
    ],
)
def test_last_arguments(lengths, error, message):
    with pytest.raises(error) as caught:
        rf.Last()(np.zeros((T, N, H)), lengths)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru"])
def test_a_model_with_lengths_is_its_sequences_alone(cell, rng):
    """Gradient of a padded batch: the sum of those of each sequence by itself."""
    from harness import new_layer

    recurrent = new_layer(cell, H, 4, dtype="float64", seed=1)
    model = rf.Sequential(rf.Dense(H, H, "tanh", dtype="float64", seed=2), recurrent, rf.Last())
    x, dy = rng.standard_normal((T, N, H)), rng.standard_normal((N, 4))
    y, tape = model.trace(x, Run(LENGTHS))
    grad = np.full(model.parameters.size, np.nan)
    model.pull_back(tape, dy, grad, False)
    summed = np.zeros_like(grad)
    for n, length in enumerate(LENGTHS):
        if not length:
            assert not y[n].any()
            continue
        alone, tape = model.trace(np.ascontiguousarray(x[:length, n : n + 1]))
        assert_same_bits(np.ascontiguousarray(y[n : n + 1]), alone, "y")
        part = np.full(model.parameters.size, np.nan)
        model.pull_back(tape, dy[n : n + 1], part, False)
        summed += part
    assert_close(grad, summed, 1e-13, "gradient")
