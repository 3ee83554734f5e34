"""Schedules, early stopping and checkpoints: resumed training has the bits of one that never stopped."""

from __future__ import annotations

import math
import os
import pickle
import signal

import numpy as np
import pytest
import rnnfast as rf
from compare import assert_same_bits
from rnnfast import schedules
from rnnfast.io import safetensors

T, N, C = 6, 22, 5
EPOCHS = 5


@pytest.fixture
def x(rng):
    return rng.integers(0, C, (T, N))


@pytest.fixture
def y(rng):
    return rng.integers(0, C, (T, N))


def network(dtype="float32"):
    """Everything that draws random numbers in training."""
    return rf.Sequential(
        rf.Embedding(C, 4, dtype=dtype, seed=1),
        rf.Dropout(0.2),
        rf.LSTM(4, 6, num_layers=2, dropout=0.3, dtype=dtype, seed=2),
        rf.Dropout(0.1),
        rf.Dense(6, C, dtype=dtype, seed=3),
    )


class Halt(Exception):
    pass


class HaltAfter:
    """Ends training like a power cut, when ``epochs`` are done."""

    runs_last = True

    def __init__(self, epochs):
        self.epochs = epochs

    def __call__(self, training):
        if training.epoch == self.epochs:
            raise Halt


OPTIMIZERS = {
    "sgd": lambda: rf.SGD(0.1, 0.9, nesterov=True),
    "plain": lambda: rf.SGD(0.1),
    "rmsprop": lambda: rf.RMSprop(0.01, centered=True, momentum=0.5),
    "adam": lambda: rf.Adam(0.01),
    "adamw": lambda: rf.AdamW(0.01),
}


def options(rng_seed=3, **more):
    return {
        "loss": "cross_entropy",
        "epochs": EPOCHS,
        "batch_size": 4,
        "clip_norm": 0.5,
        "seed": rng_seed,
        "progress": False,
    } | more


def history_of(history):
    return history.loss, history.val_loss, history.lr


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("halted", [1, 3, EPOCHS])
def test_resumed_training_has_the_same_bits(name, halted, dtype, x, y, tmp_path):
    """Dropout in and between layers, shuffling, a schedule with memory, early stopping, clipping."""
    path = tmp_path / "checkpoint"

    def more():
        return {
            "schedule": schedules.WarmUp(5) * schedules.ReduceOnPlateau(0.5, patience=0, threshold=0.01),
            "validation_data": (x[:, :5], y[:, :5]),
            "optimizer": OPTIMIZERS[name](),
        }

    whole = network(dtype)
    stopping = rf.EarlyStopping(2)
    want = whole.fit(x, y, callbacks=[stopping], **options(), **more())
    halting = network(dtype)
    with pytest.raises(Halt):
        callbacks = [rf.Checkpoint(path), rf.EarlyStopping(2), HaltAfter(min(halted, len(want)))]
        halting.fit(x, y, callbacks=callbacks, **options(), **more())
    resumed = network(dtype)
    stopping_again = rf.EarlyStopping(2)
    optimizer = more()
    got = resumed.fit(x, y, callbacks=[stopping_again], resume=path, **options(), **optimizer)
    assert history_of(got) == history_of(want)
    assert_same_bits(resumed.parameters.flat, whole.parameters.flat, "parameters")
    assert (stopping_again.best, stopping_again.best_epoch) == (stopping.best, stopping.best_epoch)
    assert optimizer["optimizer"].lr == OPTIMIZERS[name]().lr
    assert optimizer["optimizer"].state(resumed).step == len(want) * 6


@pytest.mark.parametrize(
    "more",
    [
        {"accumulate": 2},
        {"tbptt": 2},
        {"stateful": True, "shuffle": False, "batch_size": 11},
        {"clip_norm": None, "clip_value": 0.01},
    ],
)
def test_resumed_training_of_every_kind(more, x, y, tmp_path):
    lengths = np.arange(N) % (T + 1)
    whole, resumed = network(), network()
    whole.fit(x, y, lengths=lengths, **options(**more))
    with pytest.raises(Halt):
        network().fit(x, y, lengths=lengths, callbacks=[rf.Checkpoint(tmp_path / "c"), HaltAfter(2)], **options(**more))
    resumed.fit(x, y, lengths=lengths, resume=tmp_path / "c", **options(**more))
    assert_same_bits(resumed.parameters.flat, whole.parameters.flat, "parameters")


def test_resumed_training_on_lists_and_streams(x, y, tmp_path):
    sequences = [x[: n % T + 1, n] for n in range(N)], [y[: n % T + 1, n] for n in range(N)]

    def stream():
        for n in range(40):
            yield x[:, n % 5 :: 5], y[:, n % 5 :: 5]

    for data, more in ((lambda: sequences, {}), (lambda: (stream(), None), {"steps_per_epoch": 7})):
        whole, resumed = network(), network()
        whole.fit(*data(), **options(), **more)
        with pytest.raises(Halt):
            network().fit(*data(), callbacks=[rf.Checkpoint(tmp_path / "c"), HaltAfter(2)], **options(), **more)
        resumed.fit(*data(), resume=tmp_path / "c", **options(), **more)
        assert_same_bits(resumed.parameters.flat, whole.parameters.flat, "parameters")


def test_checkpoints_come_every_so_often_and_last(x, y, tmp_path):
    epochs = []
    path = tmp_path / "c"

    class Watch:
        runs_last = True

        def __call__(self, training):
            epochs.append(safetensors.read(path)[0]["history.loss"].size if path.exists() else 0)

    network().fit(x, y, callbacks=[rf.Checkpoint(path, every=2), Watch()], **options())
    assert epochs == [0, 2, 2, 4, 5]
    assert os.listdir(tmp_path) == ["c"]


def test_a_checkpoint_of_finished_training_goes_on_if_asked(x, y, tmp_path):
    whole, part = network(), network()
    whole.fit(x, y, **options())
    part.fit(x, y, callbacks=[rf.Checkpoint(tmp_path / "c", every=99)], **options(epochs=3))
    resumed = network()
    assert len(resumed.fit(x, y, resume=tmp_path / "c", **options(epochs=3))) == 3
    assert_same_bits(resumed.parameters.flat, part.parameters.flat, "parameters")
    resumed = network()
    resumed.fit(x, y, resume=tmp_path / "c", **options())
    assert_same_bits(resumed.parameters.flat, whole.parameters.flat, "parameters")


def test_ctrl_c_and_resume(x, y, tmp_path):
    """Interrupted in the middle of an epoch: the checkpoint is that of the epoch before."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:

        class Interrupt:
            def __call__(self, training):
                pass

            def batch_end(self, training):
                if (training.epoch, training.batch) == (2, 3):
                    os.kill(os.getpid(), signal.SIGINT)

        whole, resumed, interrupted = network(), network(), network()
        whole.fit(x, y, **options())
        history = interrupted.fit(x, y, callbacks=[rf.Checkpoint(tmp_path / "c"), Interrupt()], **options())
        assert history.interrupted
        assert len(history) == 2
        assert np.isfinite(interrupted.predict(x)).all()
        resumed.fit(x, y, resume=tmp_path / "c", **options())
        assert_same_bits(resumed.parameters.flat, whole.parameters.flat, "parameters")
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_optimizer_of_ones_own_is_resumed(x, y, tmp_path):
    class Heavy(rf.Optimizer):
        _buffers = ("ball",)

        def _find_delta(self, g, state):
            ball = state.buffers["ball"]
            ball *= 0.9
            ball += g
            np.multiply(ball, self.lr, out=state.delta)

    whole, resumed = network(), network()
    whole.fit(x, y, optimizer=Heavy(0.1), **options())
    with pytest.raises(Halt):
        network().fit(x, y, optimizer=Heavy(0.1), callbacks=[rf.Checkpoint(tmp_path / "c"), HaltAfter(2)], **options())
    resumed.fit(x, y, optimizer=Heavy(0.1), resume=tmp_path / "c", **options())
    assert_same_bits(resumed.parameters.flat, whole.parameters.flat, "parameters")


# Checkpoints that do not suit.


@pytest.fixture
def checkpoint(x, y, tmp_path):
    path = tmp_path / "c"
    network().fit(x, y, callbacks=[rf.Checkpoint(path)], **options(epochs=2))
    return path


@pytest.mark.parametrize(
    ("make", "more", "message"),
    [
        (
            lambda: rf.Sequential(rf.Embedding(C, 4), rf.GRU(4, C)),
            {},
            "checkpoint of another model, {'layers': [{'type': 'Embedding'",
        ),
        (lambda: network("float64"), {}, "checkpoint of another model"),
        (network, {"optimizer": rf.SGD(0.1)}, "optimizer was Adam with {"),
        (
            network,
            {"optimizer": rf.Adam(betas=(0.8, 0.9))},
            "optimizer was Adam with {'weight_decay': 0.0, 'betas': (0.9, 0.999), 'eps': 1e-08}; expected Adam with",
        ),
        (network, {"seed": 4}, "seed was 3; expected 4, from the arguments of fit"),
        (network, {"batch_size": 5}, "batch_size was 4; expected 5"),
        (network, {"shuffle": False}, "shuffle was True; expected False"),
        (network, {"clip_norm": None}, "clip_norm was 0.5; expected None"),
        (network, {"accumulate": 3}, "accumulate was 1; expected 3"),
        (network, {"tbptt": 3}, "tbptt was None; expected 3"),
        (
            network,
            {"loss": rf.losses.CrossEntropy(0)},
            "loss was CrossEntropy(ignore_index=None, weight=None); exp",
        ),
        (network, {"schedule": schedules.Cosine(5)}, "schedule was None; expected Cosine("),
        (network, {"callbacks": [rf.EarlyStopping()]}, "callbacks were []; expected ['EarlyStopping']"),
    ],
)
def test_a_checkpoint_of_another_training(make, more, message, checkpoint, x, y):
    model = make()
    before, kept = model.parameters.flat, checkpoint.read_bytes()
    with pytest.raises(ValueError, match=r"^") as caught:
        model.fit(x, y, resume=checkpoint, **options() | more)
    assert str(caught.value).startswith(f"Sequential.fit: resume: {checkpoint}: {message}")
    assert_same_bits(model.parameters.flat, before, "parameters")
    assert checkpoint.read_bytes() == kept


def test_fewer_samples_are_another_training(checkpoint, x, y):
    with pytest.raises(ValueError, match=r"samples was 22; expected 20, from the arguments of fit"):
        network().fit(x[:, :20], y[:, :20], resume=checkpoint, **options())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint(share, checkpoint, x, y, tmp_path):
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(share * len(data))])
    model = network()
    before = model.parameters.flat
    with pytest.raises(ValueError, match=r"expected a safetensors file"):
        model.fit(x, y, resume=checkpoint, callbacks=[rf.Checkpoint(tmp_path / "new")], **options())
    assert_same_bits(model.parameters.flat, before, "parameters")
    assert os.listdir(tmp_path) == ["c"]


def test_other_files_are_no_checkpoint(x, y, tmp_path):
    model = network()
    model.save(tmp_path / "m")
    with pytest.raises(ValueError, match=r"no checkpoint; expected a file that rf\.Checkpoint wrote"):
        model.fit(x, y, resume=tmp_path / "m", **options())
    with pytest.raises(FileNotFoundError):
        model.fit(x, y, resume=tmp_path / "nothing", **options())
    (tmp_path / "p").write_bytes(pickle.dumps({"model": 1}))
    with pytest.raises(ValueError, match="expected a safetensors file"):
        model.fit(x, y, resume=tmp_path / "p", **options())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: t.pop("optimizer.m"), "optimizer.m is missing; expected float32 of shape"),
        (
            lambda t, m: t.update({"model.0.weight": np.zeros(3, "f4")}),
            "model.0.weight is float32 of shape (3,); ",
        ),
        (
            lambda t, m: t.update({"model.0.weight": np.zeros((C, 4))}),
            "model.0.weight is float64 of shape (5, 4); ",
        ),
        (lambda t, m: t.update({"history.loss": np.zeros((1, 1))}), "history.loss is missing or damaged"),
        (lambda t, m: t.update({"more": np.zeros(1)}), "tensor 'more' belongs to nothing"),
        (
            lambda t, m: t.update({"callbacks.7.weights": np.zeros(1)}),
            "tensor 'callbacks.7.weights' belongs",
        ),
        (lambda t, m: m.update(version="2"), "checkpoint of version '2'; expected '1'"),
        (lambda t, m: m.update(training="{}"), "damaged: KeyError('optimizer')"),
        (lambda t, m: m.update(training="[1]"), "damaged: TypeError("),
        (
            lambda t, m: m.update(training=m["training"].replace('"epoch": 2', '"epoch": -2')),
            "epoch is -2; expected",
        ),
        (lambda t, m: m.pop("model"), "no checkpoint; expected"),
    ],
)
def test_a_damaged_checkpoint(change, message, checkpoint, x, y):
    tensors, metadata = safetensors.read(checkpoint)
    change(tensors, metadata)
    safetensors.write(checkpoint, tensors, metadata)
    model = network()
    before = model.parameters.flat
    with pytest.raises(ValueError, match=r"^") as caught:
        model.fit(x, y, resume=checkpoint, **options())
    assert str(caught.value).startswith(f"Sequential.fit: resume: {checkpoint}: {message}")
    assert_same_bits(model.parameters.flat, before, "parameters")


def test_where_a_checkpoint_cannot_be_written(x, y, tmp_path):
    """Known before training, not after its first hours."""
    model = network()
    before = model.parameters.flat
    with pytest.raises(FileNotFoundError, match=r"Checkpoint: path is '.*', in a directory that does not exist"):
        model.fit(x, y, callbacks=[rf.Checkpoint(tmp_path / "no" / "c")], **options())
    with pytest.raises(ValueError, match=r"Checkpoint: path is '.*', no regular file; expected"):
        model.fit(x, y, callbacks=[rf.Checkpoint(tmp_path)], **options())
    assert_same_bits(model.parameters.flat, before, "parameters")


def test_layers_of_ones_own_in_a_checkpoint(x, y, tmp_path):
    """With a config they are resumed like any other; without, that is known before training."""

    class Halves(rf.Dropout):
        def __init__(self, config):
            super().__init__(0)
            self.arguments = config

        def config(self):
            return self.arguments

        def apply(self, x, run=None):
            return x / 2

        def trace(self, x, run=None):
            return x / 2, None

        def pull_back(self, tape, dy, grad, need_dx):
            return dy / 2

    def model(config):
        return rf.Sequential(rf.Embedding(C, 4, seed=1), Halves(config), rf.GRU(4, C, seed=2))

    whole, resumed = model({}), model({})
    whole.fit(x, y, **options())
    with pytest.raises(Halt):
        model({}).fit(x, y, callbacks=[rf.Checkpoint(tmp_path / "c"), HaltAfter(2)], **options())
    resumed.fit(x, y, resume=tmp_path / "c", **options())
    assert_same_bits(resumed.parameters.flat, whole.parameters.flat, "parameters")
    unnamed = model({"function": len})
    before = unnamed.parameters.flat
    with pytest.raises(TypeError, match=r"Checkpoint: the layers' config cannot be written as JSON: TypeError"):
        unnamed.fit(x, y, callbacks=[rf.Checkpoint(tmp_path / "new")], **options())
    assert_same_bits(unnamed.parameters.flat, before, "parameters")


# Early stopping.


class Scripted:
    """Validation losses as written: sets the last one of the history before others see it."""

    def __init__(self, losses, name="val_loss"):
        self.losses, self.name = losses, name
        self.weights = []

    def __call__(self, training):
        getattr(training.history, self.name)[-1] = self.losses[training.epoch - 1]
        self.weights.append(training.model.parameters.flat)


def simple():
    return rf.Sequential(rf.Dense(2, 1, dtype="float64", seed=0))


DATA = np.arange(8.0).reshape(4, 2) / 8, np.ones((4, 1))


@pytest.mark.parametrize(
    ("losses", "arguments", "epochs", "best"),
    [
        ([5, 4, 3, 4, 5, 1], {"patience": 2}, 5, 3),
        ([5, 4, 3, 4, 2, 3, 3], {"patience": 2}, 7, 5),
        ([5, 4.5, 3.9, 3.5], {"patience": 2, "min_delta": 1.0}, 4, 3),
        ([5, 4.5, 4.2, 4.1], {"patience": 2, "min_delta": 1.0}, 3, 1),
        ([math.nan, 3, math.nan, math.nan, 1], {"patience": 2}, 4, 2),
        ([math.nan, math.nan, 1], {"patience": 2}, 2, 0),
        ([1, 1, 1, 1], {"patience": 1}, 2, 1),
        ([3, 2, 1], {"patience": 1}, 3, 3),
    ],
)
@pytest.mark.parametrize("restore", [False, True])
def test_early_stopping(losses, arguments, epochs, best, restore):
    model, script = simple(), Scripted(losses)
    stopping = rf.EarlyStopping(restore_best=restore, **arguments)
    history = model.fit(*DATA, epochs=len(losses), validation_data=DATA, callbacks=[script, stopping], progress=False)
    assert len(history) == epochs
    assert stopping.best_epoch == best
    assert stopping.best == (losses[best - 1] if best else math.inf)
    kept = script.weights[best - 1 if restore and best else -1]
    assert_same_bits(model.parameters.flat, kept, "parameters")


def test_early_stopping_watches_what_there_is():
    script = Scripted([3, 1, 2, 2], "loss")
    history = simple().fit(*DATA, epochs=4, callbacks=[script, rf.EarlyStopping(1)], progress=False)
    assert len(history) == 3
    script = Scripted([3, 1, 2, 2], "loss")
    stopping = rf.EarlyStopping(1, monitor="loss")
    history = simple().fit(*DATA, epochs=4, validation_data=DATA, callbacks=[script, stopping], progress=False)
    assert len(history) == 3
    with pytest.raises(ValueError, match="EarlyStopping: monitor is 'val_loss'; expected validation_data in fit"):
        simple().fit(*DATA, callbacks=[rf.EarlyStopping(monitor="val_loss")], progress=False)


def test_early_stopping_begins_anew():
    stopping = rf.EarlyStopping(1)
    for _ in range(2):
        script = Scripted([3, 1, 2, 2], "loss")
        history = simple().fit(*DATA, epochs=4, callbacks=[script, stopping], progress=False)
        assert len(history) == 3
        assert stopping.best_epoch == 2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rf.EarlyStopping(0), ValueError, "EarlyStopping: patience is 0; expected at least 1"),
        (lambda: rf.EarlyStopping(min_delta=-1), ValueError, "EarlyStopping: min_delta is -1"),
        (lambda: rf.EarlyStopping(monitor="x"), ValueError, "EarlyStopping: monitor is 'x'; expected None, 'val_loss'"),
        (lambda: rf.Checkpoint("c", every=0), ValueError, "Checkpoint: every is 0; expected at least 1"),
        (lambda: rf.Checkpoint(3), TypeError, "expected str, bytes or os.PathLike object, not int"),
        (lambda: schedules.Step(0), ValueError, "Step: every is 0; expected at least 1"),
        (lambda: schedules.Step(1, factor=-1), ValueError, "Step: factor is -1"),
        (lambda: schedules.Step(1, unit="batch"), ValueError, "Step: unit is 'batch'; expected 'epoch' or 'step'"),
        (lambda: schedules.Cosine(1.5), TypeError, "Cosine: duration is 1.5; expected an integer"),
        (lambda: schedules.Cosine(1, floor=-1), ValueError, "Cosine: floor is -1"),
        (lambda: schedules.WarmUp(0), ValueError, "WarmUp: duration is 0; expected at least 1"),
        (lambda: schedules.WarmUp(1, start=-1), ValueError, "WarmUp: start is -1"),
        (
            lambda: schedules.ReduceOnPlateau(1.0),
            ValueError,
            "ReduceOnPlateau: factor is 1.0; expected 0 <= factor",
        ),
        (lambda: schedules.ReduceOnPlateau(patience=-1), ValueError, "ReduceOnPlateau: patience is -1"),
        (lambda: schedules.ReduceOnPlateau(threshold=1), ValueError, "ReduceOnPlateau: threshold is 1"),
        (lambda: schedules.ReduceOnPlateau(cooldown=-1), ValueError, "ReduceOnPlateau: cooldown is -1"),
        (lambda: schedules.ReduceOnPlateau(floor=-1), ValueError, "ReduceOnPlateau: floor is -1"),
        (lambda: schedules.Step(1) * 2, TypeError, "unsupported operand type(s) for *: 'Step' and 'int'"),
    ],
)
def test_arguments(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value).startswith(message)


# Schedules: their values are compared with PyTorch's in test_torch_training.py.


def test_a_schedule_in_steps():
    """Learning rates of single steps: on constant gradients of plain descent they are the steps themselves."""
    seen = []

    class Spy(rf.SGD):
        def _rule(self, step):
            seen.append(self.lr)
            return super()._rule(step)

    optimizer = Spy(0.5)
    schedule = schedules.WarmUp(4, 0.2) * schedules.Step(2, 0.5)
    history = simple().fit(*DATA, "mse", optimizer, 3, 2, schedule=schedule, progress=False)
    want = [0.5 * (0.2 + 0.2 * min(step, 4)) * (0.5 if step >= 4 else 1) for step in range(6)]
    np.testing.assert_allclose(seen, want, rtol=1e-15)
    assert history.lr == [seen[1], seen[3], seen[5]]
    assert optimizer.lr == 0.5


def test_a_schedule_begins_anew_and_is_named_in_full():
    schedule = schedules.ReduceOnPlateau(0.5, patience=0)
    for _ in range(2):
        history = simple().fit(np.zeros((4, 2)), DATA[1], "mse", rf.SGD(0.0), 4, schedule=schedule, progress=False)
        assert history.lr == [0.0] * 4
        assert schedule.multiplier(0, 0) == 0.125
    text = repr(schedules.WarmUp(3) * schedule)
    assert text == (
        "WarmUp(unit='step', duration=3, start=0.1) * ReduceOnPlateau(unit='epoch', factor=0.5, patience=0, "
        "threshold=0.0001, cooldown=0, floor=0.0)"
    )


def test_the_learning_rate_comes_back_after_an_error(x, y):
    optimizer = rf.Adam(0.01)
    with pytest.raises(Halt):
        network().fit(x, y, optimizer=optimizer, schedule=schedules.Step(1), callbacks=[HaltAfter(3)], **options())
    assert optimizer.lr == 0.01


def test_order_of_callbacks(x, y):
    """begin, then after every epoch those that run last, last; end after all."""
    called = []

    class Named(rf.Callback):
        def __init__(self, name, runs_last=False):
            self.name, self.runs_last = name, runs_last

        def begin(self, training):
            called.append(("begin", self.name))

        def __call__(self, training):
            called.append(("epoch", self.name))

        def end(self, training):
            called.append(("end", self.name))

    network().fit(x, y, callbacks=[Named("b", True), Named("a")], **options(epochs=1))
    assert called == [("begin", "b"), ("begin", "a"), ("epoch", "a"), ("epoch", "b"), ("end", "a"), ("end", "b")]
