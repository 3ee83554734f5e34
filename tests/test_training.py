"""Training beyond the plain loop: weights, lengths, ragged lists, accumulated gradients, pieces of sequences, streams.

Against training that does the same by other means, to the bit wherever the same numbers are added in the same order.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import rnnfast as rf
from compare import assert_close, assert_same_bits
from harness import new_layer
from hypothesis import given
from hypothesis import strategies as st
from rnnfast._batches import Minibatches, Samples
from rnnfast._training import chunks
from rnnfast.layers.base import Run

# Norm-relative, float64: the same terms added in another order, some steps long.
ROUNDING = 1e-12

T, N, I, H, C = 6, 12, 3, 5, 4  # noqa: E741
LENGTHS = np.array([6, 1, 4, 6, 2, 0, 3, 5, 6, 1, 2, 4])
by_layout = pytest.mark.parametrize("batch_first", [False, True])
by_cell = pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru"])


def one_value(cell="lstm", batch_first=False, dtype="float64", out=2):
    recurrent = new_layer(cell, I, H, dtype=dtype, batch_first=batch_first, seed=1)
    return rf.Sequential(recurrent, rf.Last(), rf.Dense(H, out, dtype=dtype, seed=2))


def every_step(cell="lstm", batch_first=False, dtype="float64", out=C):
    recurrent = new_layer(cell, I, H, dtype=dtype, batch_first=batch_first, seed=1)
    before = rf.Dense(I, I, "tanh", dtype=dtype, seed=3)
    return rf.Sequential(before, recurrent, rf.Dense(H, out, dtype=dtype, seed=2))


def layout(array, batch_first):
    return np.ascontiguousarray(array.swapaxes(0, 1)) if batch_first else array


def trained(model, *data, **options):
    """History and parameters after a few steps that two trainings have to share."""
    options = {"epochs": 3, "batch_size": 4, "shuffle": False, "progress": False} | options
    history = model.fit(*data, **options)
    return history.loss, model.parameters.flat


def assert_same_training(got, want, tolerance=0.0):
    if tolerance == 0:
        assert got[0] == want[0]
        assert_same_bits(got[1], want[1], "parameters")
    else:
        np.testing.assert_allclose(got[0], want[0], rtol=tolerance)
        assert_close(got[1], want[1], tolerance, "parameters")


@pytest.fixture
def x(rng):
    return rng.standard_normal((T, N, I))


@pytest.fixture
def y(rng):
    return rng.standard_normal((N, 2))


@pytest.fixture
def labels(rng):
    return rng.integers(0, C, (T, N))


def cut(array, lengths=LENGTHS):
    """The sequences of a time-major array without their padding."""
    return [array[:length, n].copy() for n, length in enumerate(lengths)]


def spoilt(array, with_what, lengths=LENGTHS):
    """A copy whose padding is not to be looked at."""
    array = array.copy()
    for n, length in enumerate(lengths):
        array[length:, n] = with_what
    return array


# Lengths and lists.


@by_cell
@by_layout
def test_padding_is_not_looked_at(cell, batch_first, x, labels, y):
    """NaN in the padding of x, class numbers that do not exist in that of y."""
    for make, target, bad, loss in ((every_step, labels, 99, "cross_entropy"), (one_value, y, None, "mse")):
        clean, dirty = make(cell, batch_first), make(cell, batch_first)
        shown = target if bad is None else layout(target, batch_first)
        want = trained(clean, layout(x, batch_first), shown, loss, lengths=LENGTHS)
        shown = target if bad is None else layout(spoilt(target, bad), batch_first)
        noise = layout(spoilt(x, np.nan), batch_first)
        validation = (noise, shown, LENGTHS)
        assert_same_training(trained(dirty, noise, shown, loss, lengths=LENGTHS, validation_data=validation), want)
        got = dirty.evaluate(noise, shown, loss, lengths=LENGTHS)
        assert got == clean.evaluate(layout(x, batch_first), shown, loss, lengths=LENGTHS)


@by_cell
@by_layout
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_list_of_sequences_is_a_padded_array(cell, batch_first, shuffle, x, labels, y):
    """To the bit, whatever stands in the padding and in whatever layout."""
    for make, target, of_list, loss in (
        (every_step, layout(labels, batch_first), cut(labels), "cross_entropy"),
        (one_value, y, y, "mse"),
    ):
        padded, ragged = make(cell, batch_first), make(cell, batch_first)
        want = trained(padded, layout(x, batch_first), target, loss, lengths=LENGTHS, shuffle=shuffle)
        held_out = (cut(x), of_list)
        assert_same_training(trained(ragged, cut(x), of_list, loss, shuffle=shuffle, validation_data=held_out), want)
        value = padded.evaluate(layout(x, batch_first), target, loss, lengths=LENGTHS)
        assert ragged.evaluate(cut(x), of_list, loss) == pytest.approx(value, rel=1e-13)
        outputs = ragged.predict(cut(x), batch_size=5)
        shown = ragged.predict(layout(spoilt(x, np.nan), batch_first), batch_size=5, lengths=LENGTHS)
        if make is one_value:
            assert_same_bits(shown, outputs, "prediction")
            continue
        shown = layout(shown, batch_first)
        for n, length in enumerate(LENGTHS):
            assert_same_bits(np.ascontiguousarray(shown[:length, n]), outputs[n], "prediction")
            assert not shown[length:, n].any()


@by_cell
def test_a_loss_with_lengths_is_that_of_the_valid_steps(cell, x, labels):
    model = every_step(cell)
    flat = [model(x[:length, [n]])[:, 0] for n, length in enumerate(LENGTHS) if length]
    targets = [labels[:length, n] for n, length in enumerate(LENGTHS) if length]
    want = rf.losses.cross_entropy(np.concatenate(flat), np.concatenate(targets))[0]
    for batch_size in (3, N):
        got = model.evaluate(cut(x), cut(labels), "cross_entropy", batch_size)
        assert got == pytest.approx(want, rel=1e-13)


def test_full_lengths_are_none(x, labels):
    want = trained(every_step(), x, labels, "cross_entropy")
    assert_same_training(trained(every_step(), x, labels, "cross_entropy", lengths=[T] * N), want)


def test_sequences_of_no_steps_alone(rng):
    """A batch without a single target makes no step."""
    model = every_step()
    sequences = [rng.standard_normal((length, I)) for length in (0, 0, 3, 2)]
    targets = [np.zeros(len(s), int) for s in sequences]
    only = every_step()
    trained(only, sequences[2:], targets[2:], "cross_entropy", batch_size=2)
    trained(model, sequences, targets, "cross_entropy", batch_size=2)
    assert_same_bits(model.parameters.flat, only.parameters.flat, "parameters")
    assert [len(y) for y in model.predict(sequences)] == [0, 0, 3, 2]
    assert [y.shape for y in model.predict(sequences[:2])] == [(0, C), (0, C)]


@given(st.data())
def test_samples_take_with_lengths(data):
    """Padded in either layout, or a list: the same batch, cut to its longest sequence, 0 in the padding."""
    count, steps = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    rest = data.draw(st.sampled_from([(), (1,), (3,), (2, 2)]))
    lengths = np.array(data.draw(st.lists(st.integers(0, steps), min_size=count, max_size=count)))
    index = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=6)), np.intp)
    array = np.arange(1.0, 1 + count * steps * int(np.prod(rest))).reshape(steps, count, *rest)
    want = np.zeros((max(lengths[index].max(initial=0), 1), len(index), *rest))
    for place, n in enumerate(index):
        want[: lengths[n], place] = array[: lengths[n], n]
    for samples in (
        Samples(array, True, False, lengths),
        Samples(layout(array, True), True, True, lengths),
        Samples.ragged([array[:length, n] for n, length in enumerate(lengths)]),
    ):
        assert_same_bits(samples.take(index, lengths[index]), want, "batch")


def test_similar_lengths_come_together(rng):
    """Every sample once an epoch, in another order each, and little of a batch is padding."""
    lengths = rng.integers(1, 100, 1000)
    x = Samples.ragged([np.full(length, n) for n, length in enumerate(lengths)])
    y = Samples(np.arange(1000), False, False)
    data = Minibatches(x, y, 20, shuffle=True, seed=3)
    orders, padding = [], 0.0
    for epoch in range(2):
        batches = list(data.epoch(epoch))
        orders.append(np.concatenate([batch.y for batch in batches]).tolist())
        padding += sum(1 - batch.lengths.mean() / len(batch.x) for batch in batches) / len(batches) / 2
        for batch in batches:
            assert (batch.lengths == lengths[batch.y]).all()
            assert (batch.x[0] == batch.y).all()
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(1000))
    assert orders[0] != orders[1]
    # Unsorted, half of the steps are padding.
    assert padding < 0.1


# Weights.


@by_layout
def test_sample_weights_of_whole_numbers_are_repetitions(batch_first, x, y, labels):
    times = np.array([1, 2, 0, 3, 1, 1, 2, 1, 0, 1, 1, 2])
    for make, target, axis, loss in ((one_value, y, 0, "mse"), (every_step, labels, 1, "cross_entropy")):
        want = trained(
            make(batch_first=batch_first),
            layout(np.repeat(x, times, axis=1), batch_first),
            layout(np.repeat(target, times, axis=axis), batch_first and axis == 1),
            loss,
            batch_size=N * 3,
        )
        shown = layout(target, batch_first and axis == 1), loss
        model = make(batch_first=batch_first)
        got = trained(model, layout(x, batch_first), *shown, sample_weight=times, batch_size=N)
        assert_same_training(got, want, ROUNDING)
        value = model.evaluate(layout(x, batch_first), *shown, sample_weight=times, batch_size=5)
        repeated = layout(np.repeat(x, times, axis=1), batch_first)
        want = model.evaluate(repeated, layout(np.repeat(target, times, axis=axis), batch_first and axis == 1), loss)
        assert value == pytest.approx(want, rel=ROUNDING)


@by_layout
def test_sample_weights_in_batches_of_one(batch_first, x, labels):
    shown = layout(x, batch_first), layout(labels, batch_first), "cross_entropy"
    want = trained(every_step(batch_first=batch_first), *shown, batch_size=1)
    got = trained(every_step(batch_first=batch_first), *shown, batch_size=1, sample_weight=np.ones(N))
    assert_same_training(got, want, ROUNDING)


def test_sample_weights_with_lengths(x, labels):
    times = np.array([1, 2, 0, 3, 1, 1, 2, 1, 0, 1, 1, 2])
    repeated = np.repeat(x, times, axis=1), np.repeat(labels, times, axis=1)
    want = trained(every_step(), *repeated, "cross_entropy", batch_size=99, lengths=np.repeat(LENGTHS, times))
    got = trained(every_step(), x, labels, "cross_entropy", batch_size=99, lengths=LENGTHS, sample_weight=times)
    assert_same_training(got, want, ROUNDING)
    got = trained(every_step(), cut(x), cut(labels), "cross_entropy", batch_size=99, sample_weight=times)
    assert_same_training(got, want, ROUNDING)


def test_class_weights(x, labels):
    weight = [1.0, 0.25, 3.0, 0.0]
    want = trained(every_step(), x, labels, rf.losses.CrossEntropy(weight=weight))
    assert_same_training(trained(every_step(), x, labels, "cross_entropy", class_weight=weight), want)
    given = {2: 3.0, 1: 0.25, 3: 0}
    assert_same_training(trained(every_step(), x, labels, "cross_entropy", class_weight=given), want)
    ignoring = rf.losses.CrossEntropy(ignore_index=3, weight=weight)
    got = trained(every_step(), x, labels, rf.losses.CrossEntropy(ignore_index=3), class_weight=given)
    assert_same_training(got, trained(every_step(), x, labels, ignoring))
    small = {0: 0.5}
    got = trained(every_step(), x, labels, "cross_entropy", class_weight=small)
    assert_same_training(got, trained(every_step(), x, labels, rf.losses.CrossEntropy(weight=[0.5, 1, 1, 1])))


# Accumulated gradients.


@pytest.mark.parametrize("make", [lambda: rf.SGD(0.1, 0.9), lambda: rf.Adam(0.01)])
@pytest.mark.parametrize(("batch_size", "accumulate"), [(1, 4), (2, 2), (4, 1), (3, 4), (5, 2)])
def test_accumulated_gradients_are_those_of_a_large_batch(make, batch_size, accumulate, x, labels):
    """Also if batches differ in what they count, and if the last step of an epoch has fewer batches."""
    data = x, labels, "cross_entropy"
    options = {"lengths": LENGTHS, "clip_norm": 0.3}
    large = batch_size * accumulate
    want = trained(every_step(), *data, optimizer=make(), batch_size=large, **options)
    optimizer, model = make(), every_step()
    got = trained(model, *data, optimizer=optimizer, batch_size=batch_size, accumulate=accumulate, **options)
    # The loss of an epoch is taken before fewer or more steps; only the first is comparable, and only on one step.
    assert_close(got[1], want[1], ROUNDING, "parameters")
    assert optimizer.state(model).step == 3 * -(-N // large)


def test_accumulated_overflow_stops_before_the_step(rng):
    x, y = rng.standard_normal((8, I)).astype(np.float32), np.zeros((8, 2), np.float32)
    y[5] = 3e38
    model = rf.Sequential(rf.Dense(I, 2, seed=1))
    before = model.parameters.flat
    with pytest.raises(rf.NonFiniteError, match=r"epoch 1, batch 3 \(counted from 1\)"):
        model.fit(x * 100, y, optimizer=rf.SGD(0.1), batch_size=2, accumulate=4, shuffle=False, progress=False)
    assert_same_bits(model.parameters.flat, before, "parameters")


# Clipping.


def test_clip_value_then_norm(x, y):
    model, twin = one_value(), one_value()
    model.fit(x, y, optimizer=rf.SGD(1.0), epochs=1, batch_size=N, clip_value=0.01, clip_norm=0.02, progress=False)
    prediction, tape = twin.trace(x)
    grad = np.empty(twin.parameters.size)
    twin.pull_back(tape, rf.losses.mse(prediction, y)[1], grad, False)
    rf.clip_grad_value(grad, 0.01)
    assert np.abs(grad).max() == 0.01
    assert rf.clip_grad_norm(grad, 0.02) > 0.02
    rf.SGD(1.0).step(twin, grad)
    assert_close(model.parameters.flat, twin.parameters.flat, 1e-13, "parameters")


# Pieces of sequences.


@by_cell
@by_layout
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_pieces_are_batches_that_go_on(cell, batch_first, lengths, x, labels):
    """tbptt over long sequences is stateful training on their pieces, to the bit."""
    whole = trained(
        every_step(cell, batch_first),
        layout(x, batch_first),
        layout(labels, batch_first),
        "cross_entropy",
        batch_size=N,
        tbptt=2,
        lengths=lengths,
    )
    pieces = [slice(0, 2), slice(2, 4), slice(4, 6)]
    parts = None if lengths is None else [np.clip(lengths - piece.start, 0, 2) for piece in pieces]
    batches = [
        (layout(x[piece], batch_first), layout(labels[piece], batch_first), None if parts is None else parts[k])
        for k, piece in enumerate(pieces)
    ]
    got = trained(every_step(cell, batch_first), batches, None, "cross_entropy", stateful=True)
    assert_same_bits(got[1], whole[1], "parameters")
    np.testing.assert_allclose(got[0], whole[0], rtol=1e-14)
    stacked = (
        np.concatenate([x[piece] for piece in pieces], axis=1),
        np.concatenate([labels[p] for p in pieces], axis=1),
    )
    got = trained(
        every_step(cell, batch_first),
        *(layout(array, batch_first) for array in stacked),
        "cross_entropy",
        batch_size=N,
        stateful=True,
        lengths=None if parts is None else np.concatenate(parts),
    )
    assert_same_bits(got[1], whole[1], "parameters")


@by_cell
def test_pieces_by_hand(cell, x, labels):
    """The state goes from piece to piece, the gradient does not, and the last piece is shorter."""
    model, twin = every_step(cell), every_step(cell)
    model.fit(x, labels, "cross_entropy", rf.SGD(0.5), 1, N, tbptt=4, shuffle=False, progress=False)
    dense, recurrent, out = twin.layers
    optimizer, state = rf.SGD(0.5), None
    for piece in (slice(0, 4), slice(4, 6)):
        inner, dense_tape = dense.trace(x[piece])
        h, state, tape = recurrent.forward(inner, state)
        logits, out_tape = out.trace(np.ascontiguousarray(h))
        _, dy = rf.losses.cross_entropy(logits, labels[piece])
        grads = [np.empty(layer.parameters.size) for layer in twin.layers]
        dh = out.pull_back(out_tape, dy, grads[2], True)
        of_layer = recurrent.backward(tape, dy=dh)
        grads[1][...] = np.concatenate([g.reshape(-1) for g in of_layer.params.values()])
        dense.pull_back(dense_tape, of_layer.x, grads[0], False)
        optimizer.step(twin, np.concatenate(grads))
    assert_close(model.parameters.flat, twin.parameters.flat, 1e-14, "parameters")


@by_cell
def test_pieces_before_last(cell, x, y):
    """One target for the sequence: the last piece learns, with the state that those before it carry there."""
    model, twin = one_value(cell), one_value(cell)
    model.fit(x, y, "mse", rf.SGD(0.5), 1, N, tbptt=4, shuffle=False, progress=False)
    recurrent, last, out = twin.layers
    _, state = recurrent(x[:2])
    h, _, tape = recurrent.forward(x[2:], state)
    value, last_tape = last.trace(np.ascontiguousarray(h))
    prediction, out_tape = out.trace(value)
    _, dy = rf.losses.mse(prediction, y)
    grads = [np.empty(layer.parameters.size) for layer in twin.layers]
    dh = last.pull_back(last_tape, out.pull_back(out_tape, dy, grads[2], True), grads[1], True)
    grads[0][...] = np.concatenate([g.reshape(-1) for g in recurrent.backward(tape, dy=dh).params.values()])
    rf.SGD(0.5).step(twin, np.concatenate(grads))
    assert_close(model.parameters.flat, twin.parameters.flat, 1e-14, "parameters")


@pytest.mark.parametrize("steps", [T, T + 5])
def test_one_piece_is_the_whole(steps, x, y, labels):
    want = trained(every_step(), x, labels, "cross_entropy")
    assert_same_training(trained(every_step(), x, labels, "cross_entropy", tbptt=steps), want, 1e-15)
    assert_same_training(trained(one_value(), x, y, tbptt=steps), trained(one_value(), x, y), 1e-15)


@pytest.mark.parametrize("steps", range(1, 8))
def test_chunks_are_the_batch(steps, x, labels):
    from rnnfast._batches import Batch

    weight = np.arange(float(T * N)).reshape(T, N)
    batch = Batch(x, labels, LENGTHS, weight)
    parts = list(chunks(batch, steps, True))
    assert all(learns for _, learns in parts)
    for k, name in enumerate(("x", "y", "lengths", "weight")):
        pieces = [part[k] for part, _ in parts]
        if name == "lengths":
            assert_same_bits(np.sum(pieces, axis=0), LENGTHS, name)
        else:
            assert_same_bits(np.concatenate(pieces), batch[k], name)
    assert [len(part.x) for part, _ in parts[:-1]] == [steps] * (len(parts) - 1)
    before_last = list(chunks(Batch(x, labels[0]), steps, False))
    assert [learns for _, learns in before_last] == [False] * (len(before_last) - 1) + [True]
    assert_same_bits(np.concatenate([part.x for part, _ in before_last]), x, "x")
    assert [len(part.x) for part, _ in before_last[1:]] == [steps] * (len(before_last) - 1)


def test_states_are_carried_in_validation_too(x, labels):
    """One long sequence cut into batches has the loss of the whole."""
    model = every_step()
    pieces = [slice(0, 2), slice(2, 4), slice(4, 6)]
    stacked = (
        np.concatenate([x[piece] for piece in pieces], axis=1),
        np.concatenate([labels[p] for p in pieces], axis=1),
    )
    history = model.fit(
        *stacked,
        "cross_entropy",
        epochs=1,
        batch_size=N,
        stateful=True,
        shuffle=False,
        progress=False,
        validation_data=stacked,
    )
    assert history.val_loss[0] == pytest.approx(model.evaluate(x, labels, "cross_entropy"), rel=1e-13)


def test_learns_what_lies_further_back_than_a_piece(rng):
    """A bit shown every eighth step has to be known in all steps until the next: pieces of two steps carry it."""
    bits = rng.integers(0, 2, (20, 64))
    x = np.zeros((160, 64, 2), np.float32)
    x[::8, :, 0], x[::8, :, 1] = bits * 2 - 1, 1
    y = np.repeat(bits, 8, axis=0)
    losses = []
    for carried in (True, False):
        model = rf.Sequential(rf.LSTM(2, 8, seed=1), rf.Dense(8, 2, seed=2))
        if carried:
            options = {"tbptt": 2, "batch_size": 64, "epochs": 12}
            data = x, y
        else:
            options = {"batch_size": 64, "epochs": 12}
            data = (
                x.reshape(80, 2, 64, 2).swapaxes(0, 1).reshape(2, -1, 2),
                y.reshape(80, 2, 64).swapaxes(0, 1).reshape(2, -1),
            )
        history = model.fit(*data, "cross_entropy", rf.Adam(0.02), shuffle=False, progress=False, **options)
        losses.append(history.loss[-1])
    # Without the state three of four pieces can do no better than guess: 3/4 ln 2 = 0.52.
    assert losses[1] > 0.5
    assert losses[0] < 0.1


# Batches that the caller makes.


@by_layout
def test_a_list_of_batches_is_the_array(batch_first, x, labels):
    want = trained(
        every_step(batch_first=batch_first), layout(x, batch_first), layout(labels, batch_first), "cross_entropy"
    )
    batches = [
        (layout(x[:, n : n + 4], batch_first), layout(labels[:, n : n + 4], batch_first)) for n in range(0, N, 4)
    ]
    got = trained(every_step(batch_first=batch_first), batches, None, "cross_entropy", shuffle=True)
    assert_same_training(got, want)
    generator = (batches[k % 3] for k in range(9))
    got = trained(every_step(batch_first=batch_first), generator, None, "cross_entropy", steps_per_epoch=3)
    assert_same_training(got, want)
    got = trained(every_step(batch_first=batch_first), batches * 2, None, "cross_entropy", steps_per_epoch=3)
    assert_same_training(got, want)


def test_batches_with_lengths_and_weights(x, labels):
    weight = np.linspace(0.5, 2, N)
    data = x, labels, "cross_entropy"
    want = trained(every_step(), *data, lengths=LENGTHS, sample_weight=weight)
    parts = [slice(n, n + 4) for n in range(0, N, 4)]
    batches = [(x[:, p], labels[:, p], LENGTHS[p], weight[p]) for p in parts]
    assert_same_training(trained(every_step(), batches, None, "cross_entropy"), want)
    ragged = [(cut(x)[p], cut(labels)[p], None, weight[p]) for p in parts]
    assert_same_training(trained(every_step(), ragged, None, "cross_entropy"), want)


def test_validation_from_batches(x, y):
    model = one_value()
    batches = [(x[:, :5], y[:5]), (x[:, 5:], y[5:])]
    history = model.fit(x, y, epochs=2, progress=False, validation_data=iter_again(batches))
    assert history.val_loss[1] == pytest.approx(model.evaluate(x, y), rel=1e-13)


def test_evaluate_batches(x, y):
    model = one_value()
    batches = [(x[:, :5], y[:5]), (x[:, 5:], y[5:])]
    want = pytest.approx(model.evaluate(x, y), rel=1e-13)
    assert model.evaluate(batches) == want
    assert model.evaluate(iter(batches)) == want
    with pytest.raises(ValueError, match=r"Sequential\.evaluate: epoch 1, batch 2 \(counted from 1\): y has 2 samples"):
        model.evaluate([batches[0], (x, y[:2])])
    with pytest.raises(ValueError, match=r"Sequential\.evaluate: lengths is given without y; expected them in the"):
        model.evaluate(batches, lengths=[1])


class iter_again:
    """An iterable that is no list and begins anew every time."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def test_random_numbers_do_not_depend_on_how_batches_come(x, labels):
    def model():
        return rf.Sequential(
            new_layer("gru", I, H, dtype="float64", seed=1), rf.Dropout(0.5), rf.Dense(H, C, dtype="float64", seed=2)
        )

    want = trained(model(), x, labels, "cross_entropy", seed=5)
    batches = [(x[:, n : n + 4], labels[:, n : n + 4]) for n in range(0, N, 4)]
    assert_same_training(trained(model(), batches, None, "cross_entropy", seed=5), want)
    assert trained(model(), x, labels, "cross_entropy", seed=6)[0] != want[0]


# Files.


@by_layout
@pytest.mark.parametrize("shuffle", [False, True])
def test_memory_mapped_arrays(batch_first, shuffle, x, labels, tmp_path, monkeypatch):
    """The same bits, and nobody makes an array of the whole file."""
    want = trained(
        every_step(batch_first=batch_first),
        layout(x, batch_first),
        layout(labels, batch_first),
        "cross_entropy",
        shuffle=shuffle,
        lengths=LENGTHS,
    )
    np.save(tmp_path / "x.npy", layout(spoilt(x, np.nan), batch_first))
    np.save(tmp_path / "y.npy", layout(spoilt(labels, 77), batch_first).astype(np.uint8))
    mapped = [np.load(tmp_path / name, mmap_mode="r") for name in ("x.npy", "y.npy")]
    held = []

    def init(samples, array, *arguments):
        held.append(array)
        return original(samples, array, *arguments)

    original = Samples.__init__
    monkeypatch.setattr(Samples, "__init__", init)
    model = every_step(batch_first=batch_first)
    got = trained(model, *mapped, "cross_entropy", shuffle=shuffle, lengths=LENGTHS)
    assert_same_training(got, want)
    assert all(np.shares_memory(array, file) for array, file in zip(held, mapped, strict=True))
    prediction = model.predict(mapped[0], lengths=LENGTHS)
    assert_same_bits(prediction, model.predict(layout(x, batch_first), lengths=LENGTHS), "prediction")


def test_memory_mapped_characters(tmp_path, rng):
    x = rng.integers(0, 9, (T, N)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")

    def model():
        return rf.Sequential(rf.Embedding(9, 4, seed=1), rf.GRU(4, H, seed=2), rf.Dense(H, 9, seed=3))

    want = trained(model(), x, x, "cross_entropy")
    assert_same_training(trained(model(), mapped, mapped, "cross_entropy"), want)


def test_what_is_wrong_in_a_file_is_found_when_it_is_read(x, y, tmp_path):
    x[3, 7, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    model, twin = one_value(), one_value()
    with pytest.raises(
        ValueError, match=r"Sequential\.fit: x of sample 7 has NaN or infinite elements; expected finite"
    ):
        model.fit(mapped, y, optimizer=rf.SGD(0.1), batch_size=4, shuffle=False, progress=False)
    twin.fit(x[:, :4], y[:4], optimizer=rf.SGD(0.1), epochs=1, batch_size=4, shuffle=False, progress=False)
    assert_same_bits(model.parameters.flat, twin.parameters.flat, "parameters after the batch before")
    labels = np.zeros((T, N), np.uint8)
    labels[2, 9] = 200
    np.save(tmp_path / "y.npy", labels)
    classes = np.load(tmp_path / "y.npy", mmap_mode="r")
    with pytest.raises(
        ValueError, match=r"fit: y of samples 8, 9, 10, 11\[2, 1\] is 200; expected a class number 0\.\.3"
    ):
        every_step().fit(np.zeros((T, N, I)), classes, "cross_entropy", batch_size=4, shuffle=False, progress=False)
    with pytest.raises(ValueError, match=r"fit: x is memory-mapped and not in C order; expected C order"):
        one_value().fit(mapped.swapaxes(0, 1), y, progress=False)


# What one batch tells.


def test_batch_end(x, y):
    seen = []

    class Watch:
        def __call__(self, training):
            seen.append(("epoch", training.epoch, training.batch))

        def batch_end(self, training):
            seen.append((training.epoch, training.batch, training.steps, training.batch_loss))
            assert np.isfinite(training.gradient).all()
            assert training.gradient.any()

    history = one_value().fit(x, y, epochs=2, batch_size=5, progress=False, callbacks=[Watch()])
    numbers = [row[:3] for row in seen]
    assert numbers == [
        *((0, batch, batch) for batch in (1, 2, 3)),
        ("epoch", 1, 0),
        *((1, batch, batch + 3) for batch in (1, 2, 3)),
        ("epoch", 2, 0),
    ]
    weighted = sum(row[3] * count for row, count in zip(seen[:3], (5, 5, 2), strict=True)) / N
    assert history.loss[0] == pytest.approx(weighted, rel=1e-14)


def test_training_does_not_disturb_what_it_is_given(x, labels):
    kept = copy.deepcopy((cut(x), cut(labels), LENGTHS))
    data = copy.deepcopy(kept)
    weight = np.ones(N)
    trained(every_step(), data[0], data[1], "cross_entropy", sample_weight=weight)
    trained(every_step(), x, labels, "cross_entropy", lengths=data[2])
    for got, want in zip((*data[0], *data[1], data[2]), (*kept[0], *kept[1], kept[2]), strict=True):
        assert_same_bits(got, want, "data")


def test_carried_states_do_not_leak_into_prediction(x, labels):
    model = every_step()
    trained(model, x, labels, "cross_entropy", tbptt=2, stateful=True)
    fresh = every_step()
    fresh.load_state_dict(model.state_dict())
    assert_same_bits(model(x), fresh(x), "prediction")
    assert_same_bits(model.apply(x, Run(carry={})), model.apply(x), "empty carry")


# Everything a caller can get wrong.


def zeros(*shape, dtype="float64"):
    return np.zeros(shape, dtype)


RIGHT = {"x": zeros(T, N, I), "y": zeros(N, 2)}
STEPS = {"x": zeros(T, N, I), "y": zeros(T, N, 2)}
RAGGED = {"x": cut(zeros(T, N, I)), "y": cut(zeros(T, N, 2))}


def nan_in(sequences, n):
    broken = copy.deepcopy(sequences)
    broken[n][1, 0] = np.nan
    return broken


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        # Lengths.
        (one_value, RIGHT | {"lengths": [7] * N}, ValueError, "lengths[0] is 7; expected 0..6, the steps of x"),
        (one_value, RIGHT | {"lengths": [-1] * N}, ValueError, "lengths[0] is -1; expected 0..6"),
        (
            one_value,
            RIGHT | {"lengths": [6] * 3},
            ValueError,
            "lengths has shape (3,); expected (N,) = (12,), N from x",
        ),
        (one_value, RIGHT | {"lengths": [6.0] * N}, TypeError, "lengths has dtype float64; expected integers"),
        (one_value, RIGHT | {"lengths": [[1], [1, 2]]}, TypeError, "lengths is not an array"),
        (
            lambda: rf.Sequential(rf.Dense(I, 2, dtype="float64")),
            {"x": zeros(N, I), "y": zeros(N, 2), "lengths": [1] * N},
            ValueError,
            "lengths is given; expected None, the model has no recurrent layer",
        ),
        (
            every_step,
            RAGGED | {"lengths": LENGTHS},
            ValueError,
            "lengths is given; expected None with a list of sequences",
        ),
        # Lists.
        (
            lambda: every_step(out=2),
            {"x": RAGGED["x"], "y": zeros(T, N, 2)},
            TypeError,
            "y is ndarray; expected a list of arrays as x is, one for each sequence; without rf.Last() there is a",
        ),
        (
            lambda: every_step(out=2),
            {"x": RAGGED["x"], "y": RAGGED["y"][:5]},
            ValueError,
            "y has 5 sequences but x has 12; expected as many",
        ),
        (
            lambda: every_step(out=2),
            {"x": RAGGED["x"], "y": RAGGED["y"][::-1]},
            ValueError,
            "y[0] has shape (4, 2); expected (6, 2), from x[0], the model and the loss",
        ),
        (
            one_value,
            {"x": RAGGED["x"], "y": zeros(9, 2)},
            ValueError,
            "y has 9 samples (axis 0 of shape (9, 2)) but x has 12; expected y of shape (12, 2), from x of 12 seq",
        ),
        (
            one_value,
            {"x": [zeros(3, I), zeros(2, I + 1)], "y": zeros(2, 2)},
            ValueError,
            "x[1] has shape (2, 4); expected (T_n, I), one sequence, I = 3 from x[0]",
        ),
        (
            one_value,
            {"x": [zeros(3, I), zeros(2)], "y": zeros(2, 2)},
            ValueError,
            "x[1] has shape (2,); expected (T_n, I), one sequence",
        ),
        (
            one_value,
            {"x": [zeros(3, I), zeros(2, I, dtype="f4")], "y": zeros(2, 2)},
            TypeError,
            "x[1] has dtype float32; expected float64",
        ),
        (
            one_value,
            {"x": [zeros(3, I + 1)], "y": zeros(1, 2)},
            ValueError,
            "x of shape (3, 4) in the list does not fit the model",
        ),
        (
            every_step,
            {"x": RAGGED["x"], "y": [np.full(length, 4) for length in LENGTHS], "loss": "cross_entropy"},
            ValueError,
            "y[0][0] is 4; expected a class number 0..3",
        ),
        (one_value, {"x": [zeros(0, I)], "y": zeros(1, 2)}, ValueError, "x has shape (0, 3); expected at least one"),
        (
            one_value,
            {"x": nan_in(nan_in(RAGGED["x"], 3), 7), "y": zeros(N, 2)},
            ValueError,
            "x[3][1, 0] is nan (sample 3); expected finite numbers; all samples with such numbers: 3, 7",
        ),
        (
            lambda: every_step(out=2),
            {"x": RAGGED["x"], "y": nan_in(RAGGED["y"], 4)},
            ValueError,
            "y[4][1, 0] is nan (sample 4); expected finite numbers",
        ),
        # Weights.
        (
            one_value,
            RIGHT | {"sample_weight": [1] * 3},
            ValueError,
            "sample_weight has shape (3,); expected (N,) = (12,)",
        ),
        (
            one_value,
            RIGHT | {"sample_weight": [-1] * N},
            ValueError,
            "sample_weight[0] is -1.0; expected finite numbers",
        ),
        (one_value, RIGHT | {"sample_weight": ["a"] * N}, TypeError, "sample_weight has dtype <U1; expected numbers"),
        (
            one_value,
            RIGHT | {"class_weight": [1, 2]},
            ValueError,
            "class_weight is given with loss MSE(); expected 'cross",
        ),
        (
            one_value,
            {"x": zeros(T, N, I), "y": np.zeros(N, int), "loss": "cross_entropy", "class_weight": {2: 1.0}},
            ValueError,
            "y: class_weight has class 2; expected 0..1, from the prediction",
        ),
        (
            one_value,
            {"x": zeros(T, N, I), "y": np.zeros(N, int), "loss": "cross_entropy", "class_weight": {0: -1.0}},
            ValueError,
            "class_weight[0] is -1.0; expected 0 <=",
        ),
        (
            one_value,
            {"x": zeros(T, N, I), "y": np.zeros(N, int), "loss": "cross_entropy", "class_weight": [1.0] * 3},
            ValueError,
            "y: there are 3 class weights; expected 2, from the prediction",
        ),
        (
            one_value,
            {
                "x": zeros(T, N, I),
                "y": np.zeros(N, int),
                "loss": rf.losses.CrossEntropy(weight=[1, 2]),
                "class_weight": [1, 2],
            },
            ValueError,
            "class_weight is given with loss CrossEntropy(",
        ),
        # Numbers.
        (one_value, RIGHT | {"clip_value": 0}, ValueError, "clip_value is 0; expected None or a number above 0"),
        (one_value, RIGHT | {"accumulate": 0}, ValueError, "accumulate is 0; expected at least 1"),
        (one_value, RIGHT | {"tbptt": 0}, ValueError, "tbptt is 0; expected at least 1"),
        (one_value, RIGHT | {"schedule": 0.1}, TypeError, "schedule is float; expected one of rf.schedules"),
        # Pieces.
        (
            lambda: rf.Sequential(rf.Dense(I, 2, dtype="float64")),
            {"x": zeros(N, I), "y": zeros(N, 2), "tbptt": 2},
            ValueError,
            "tbptt is given; expected a model with recurrent layers",
        ),
        (
            one_value,
            RIGHT | {"tbptt": 2, "accumulate": 2},
            ValueError,
            "accumulate is 2 with tbptt; expected 1, every piece is a step",
        ),
        (
            one_value,
            RIGHT | {"tbptt": 2, "lengths": LENGTHS},
            ValueError,
            "tbptt with sequences of different lengths before rf.Last(); expected the same length for all",
        ),
        (
            one_value,
            RIGHT | {"stateful": True},
            ValueError,
            "stateful is True with shuffle=True; expected shuffle=False",
        ),
        (
            one_value,
            RIGHT | {"stateful": True, "shuffle": False, "batch_size": 5},
            ValueError,
            "x has 12 samples, which leaves a smaller last batch with batch_size = 5; expected a multiple of it",
        ),
        (
            one_value,
            RIGHT
            | {"stateful": True, "shuffle": False, "batch_size": 4, "validation_data": (zeros(T, 3, I), zeros(3, 2))},
            ValueError,
            "validation_data: x has 3 samples, which leaves a smaller last batch",
        ),
        # Streams.
        (
            one_value,
            RIGHT | {"y": None},
            TypeError,
            "y is None with x of ndarray; expected y, or an iterable of batches",
        ),
        (one_value, {"x": 3}, TypeError, "y is None with x of int; expected y, or an iterable of batches"),
        (
            one_value,
            {"x": iter([]), "y": None},
            ValueError,
            "x is a list_iterator, which can be gone through once; expected steps_per_epoch, epochs=1, or",
        ),
        (one_value, {"x": [], "steps_per_epoch": 0}, ValueError, "steps_per_epoch is 0; expected at least 1"),
        (
            one_value,
            RIGHT | {"steps_per_epoch": 3},
            ValueError,
            "steps_per_epoch is given; expected None, x is no iterable",
        ),
        (
            one_value,
            {"x": [], "lengths": [1]},
            ValueError,
            "lengths is given without y; expected them in the batches of x",
        ),
        (one_value, {"x": []}, ValueError, "epoch 1: x gave no batch; expected at least one"),
        (
            one_value,
            {"x": [RIGHT["x"]]},
            TypeError,
            "epoch 1, batch 1 (counted from 1): x gave ndarray; expected (x, y), (x, y, lengths) or",
        ),
        (
            one_value,
            {"x": [(RIGHT["x"], zeros(3, 2))]},
            ValueError,
            "epoch 1, batch 1 (counted from 1): y has 3 samples",
        ),
        (
            one_value,
            {"x": [(zeros(T, N, I), np.full((N, 2), np.inf))]},
            ValueError,
            "epoch 1, batch 1 (counted from 1): y[0, 0] is inf (sample 0",
        ),
        (
            one_value,
            {"x": [(zeros(T, 2, I), zeros(2, 2)), (zeros(T, 3, I), zeros(3, 2))][1:], "stateful": True, "tbptt": 3}
            | {"x": [(zeros(T, 0, I), zeros(0, 2))]},
            ValueError,
            "epoch 1, batch 1 (counted from 1): x has shape (6, 0, 3); expected at least one element",
        ),
        (
            one_value,
            RIGHT | {"validation_data": iter([])},
            TypeError,
            "validation_data is list_iterator; expected a tuple (x, y) or (x, y, lengths), or an iterable",
        ),
    ],
)
def test_fit_arguments(make, options, error, message):
    model = make()
    before = model.parameters.flat
    with pytest.raises(error) as caught:
        model.fit(progress=False, **options)
    assert str(caught.value).startswith(f"Sequential.fit: {message}")
    assert_same_bits(model.parameters.flat, before, "parameters")


def test_a_batch_of_another_size_cannot_go_on(rng):
    def batches():
        for count in (4, 4, 3):
            yield rng.standard_normal((T, count, I)), rng.standard_normal((count, 2))

    with pytest.raises(ValueError, match=r"batch 3 \(counted from 1\): x has 3 samples; expected 4 as before"):
        one_value().fit(batches(), epochs=1, stateful=True, progress=False)


def test_a_stream_that_ends_too_soon(x, y):
    with pytest.raises(
        ValueError, match=r"epoch 2, batch 2 \(counted from 1\): x has ended; expected steps_per_epoch = 2 batches"
    ):
        one_value().fit(((x, y) for _ in range(3)), epochs=2, steps_per_epoch=2, progress=False)


def test_both_directions_know_the_future(x, labels):
    model = rf.Sequential(
        rf.GRU(I, H, bidirectional=True, dtype="float64", seed=1), rf.Dense(2 * H, C, dtype="float64", seed=2)
    )
    for options in ({"tbptt": 2}, {"stateful": True, "shuffle": False}):
        with pytest.raises(ValueError, match=r"is given, but layers\[0\] is bidirectional; expected layers that run"):
            model.fit(x, labels, "cross_entropy", progress=False, **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.predict(zeros(T, N, I), lengths=[7] * N), ValueError, "Sequential.predict: lengths[0] is 7"),
        (lambda m: m.predict(RAGGED["x"], lengths=LENGTHS), ValueError, "Sequential.predict: lengths is given"),
        (lambda m: m(zeros(T, N, I), [1]), ValueError, "Sequential: lengths has shape (1,)"),
        (
            lambda m: m.evaluate(zeros(T, N, I), zeros(N, 2), lengths=[9] * N),
            ValueError,
            "Sequential.evaluate: lengths[0] is 9",
        ),
        (
            lambda m: m.evaluate(zeros(T, N, I), zeros(N, 2), sample_weight=[np.nan] * N),
            ValueError,
            "Sequential.evaluate: sample_weight[0] is nan",
        ),
    ],
)
def test_other_arguments(call, error, message):
    with pytest.raises(error) as caught:
        call(one_value())
    assert str(caught.value).startswith(message)
