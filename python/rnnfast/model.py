"""Models: layers one after the other, and their training."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rnnfast import losses
from rnnfast._arrays import Array
from rnnfast._batch_streams import BatchStream
from rnnfast._checks import integer, number
from rnnfast._datasets import Datasets, check_states, with_class_weight
from rnnfast._history import History
from rnnfast._layout import Layout
from rnnfast._training import Callback, Data, Options, Training, mean_loss
from rnnfast.layers.base import PLAIN, JoinedParameters, Layer, Run
from rnnfast.losses import Loss
from rnnfast.optim import Adam, Optimizer
from rnnfast.schedules import Schedule


class Sequential(Layer):
    """Layers one after the other.

    With recurrent layers in it, a model takes sequences: x is (T, N, I), or (N, T, I) if its recurrent layers were
    made with ``batch_first=True``. Outputs and targets that are sequences have the same layout; after `Last` they
    are (N, ...). A model without recurrent layers is a feed-forward network and takes x of shape (N, ...).

    Parameters
    ----------
    *layers : Layer
        At least one. Each may stand in a model once.

    Attributes
    ----------
    layers : tuple of Layer
        They share their parameters with the model.
    parameters : Parameters
        Of all layers, whose buffers they stay in, named as in ``torch.nn.Sequential``: "0.weight_ih_l0", "2.bias".
    batch_first : bool or None
        Layout of sequences, None without recurrent layers.
    gives_sequence : bool
        Whether there is an output for every step.
    layout : Layout
        Which axis is which in what it takes and gives.

    Raises
    ------
    TypeError
        If an argument is no layer, or the layers' dtypes differ.
    ValueError
        If there is no layer, one stands twice, a layer takes another number of inputs than the one before gives,
        recurrent layers disagree on ``batch_first``, or the sequence has ended, or never begun, before a layer that
        needs one.
    """

    def __init__(self, *layers: Layer) -> None:
        _check_layers(layers)
        self.layers = layers
        self.batch_first = _common_batch_first(layers)
        _check_time(layers)
        _check_widths(layers)
        self.dtype = _common_dtype(layers)
        self.parameters = JoinedParameters({str(k): layer.parameters for k, layer in enumerate(layers)}, self.dtype)
        self.gives_sequence = self.batch_first is not None and not any(layer.reduces_time for layer in layers)
        self.layout = Layout(self.batch_first, self.gives_sequence, layers[0])

    def config(self) -> dict[str, Any]:
        return {"layers": [{"type": type(layer).__name__, "config": layer.config()} for layer in self.layers]}

    def _check_values(self, arrays: Mapping[str, Array], who: str) -> None:
        for k, layer in enumerate(self.layers):
            prefix = f"{k}."
            own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            layer._check_values(own, f"{who}: layer {k}")

    def __repr__(self) -> str:
        lines = "".join(f"  {k}: {layer!r}\n" for k, layer in enumerate(self.layers))
        return f"Sequential(\n{lines})"

    def apply(self, x: Array, run: Run = PLAIN) -> Array:
        for k, layer in enumerate(self.layers):
            x = layer.apply(x, run.at(k))
        return x

    def trace(self, x: Array, run: Run = PLAIN) -> tuple[Array, Any]:
        tapes = []
        for k, layer in enumerate(self.layers):
            x, tape = layer.trace(x, run.at(k))
            tapes.append(tape)
        return x, tapes

    def pull_back(self, tape: Any, dy: Array, grad: Array, need_dx: bool) -> Array | None:
        dx: Array | None = dy
        stop = len(grad)
        for k in reversed(range(len(self.layers))):
            layer = self.layers[k]
            start = stop - layer.parameters.size
            # Below the first layer that learns, nobody asks for a gradient.
            go_on = need_dx or start > 0
            if dx is not None:
                dx = layer.pull_back(tape.pop(), dx, grad[start:stop], go_on)
            stop = start
        return dx

    def __call__(self, x: Any, lengths: Any = None) -> Any:
        """Output for all of ``x`` at once, like `predict` with a batch size of N."""
        return self._predict(x, None, "Sequential", lengths)

    def predict(self, x: Any, batch_size: int = 256, *, lengths: Any = None) -> Any:
        """Output for ``x``, worked out in batches, so that memory for what lies between the layers stays small.

        Parameters
        ----------
        x : array_like, shape (T, N, I), or (N, T, I) with ``batch_first``, or (N, ...) without recurrent layers
            Of the model's dtype. Integers (T, N), or (N, T), if the first layer is an `Embedding`. Or a list of N
            arrays (T_n, I), sequences of different lengths.
        batch_size : int
            Samples at a time.
        lengths : array_like of int, shape (N,), optional
            Valid steps of every sequence of an array; what follows them is not looked at.

        Returns
        -------
        ndarray, or list of ndarray
            A sequence in the layout of x, 0 past the end of a shorter one, or (N, ...) after `Last` and without
            recurrent layers. For a list a list of sequences, or (N, ...) after `Last`.

        Raises
        ------
        TypeError
            If ``x`` is not of the model's dtype, or ``batch_size`` no integer.
        ValueError
            If the shape of ``x`` does not fit the model, a length is no number of its steps, or ``batch_size`` is
            below 1.
        """
        who = "Sequential.predict"
        return self._predict(x, integer(who, "batch_size", batch_size, 1), who, lengths)

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        loss: str | Loss = "mse",
        batch_size: int = 256,
        *,
        lengths: Any = None,
        sample_weight: Any = None,
    ) -> float:
        """Loss of the model on ``x`` and ``y``, as `fit` takes them, an iterable of batches included.

        Returns
        -------
        float
            Mean over all targets.

        Raises
        ------
        TypeError, ValueError
            As `fit`.
        """
        who = "Sequential.evaluate"
        batch_size = integer(who, "batch_size", batch_size, 1)
        loss = losses.get(loss, who)
        datasets = Datasets(self, loss, who)
        data: Data
        if y is None:
            _check_streamed(who, lengths, sample_weight)
            data = datasets.stream(x, once_is_enough=True)
        else:
            data = datasets.arrays(x, y, batch_size, lengths, sample_weight)
        return mean_loss(self, data, loss)

    def fit(
        self,
        x: Any,
        y: Any = None,
        loss: str | Loss = "mse",
        optimizer: Optimizer | None = None,
        epochs: int = 20,
        batch_size: int = 64,
        clip_norm: float | None = None,
        validation_data: Any = None,
        shuffle: bool = True,
        seed: int = 0,
        progress: bool = True,
        callbacks: Iterable[Callback] = (),
        *,
        lengths: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        clip_value: float | None = None,
        schedule: Schedule | None = None,
        accumulate: int = 1,
        steps_per_epoch: int | None = None,
        tbptt: int | None = None,
        stateful: bool = False,
        resume: str | os.PathLike[str] | None = None,
    ) -> History:
        """Train the model.

        Parameters
        ----------
        x : array_like, shape (T, N, I), or (N, T, I) with ``batch_first``, or (N, ...) without recurrent layers
            Inputs of the model's dtype; integers (T, N), or (N, T), if the first layer is an `Embedding`. Or a list of
            N arrays (T_n, I), sequences of different lengths, of which similar ones are put together. Or, without y,
            an iterable of batches ``(x, y)``, ``(x, y, lengths)`` or ``(x, y, lengths, sample_weight)``. A
            `numpy.memmap` is never read whole.
        y : array_like
            Targets, in the shape and dtype of the model's output for x; for "cross_entropy" integers in the
            shape of the output without its last axis. A list of arrays if the output is a list of sequences.
        loss : {"mse", "mae", "huber", "cross_entropy", "bce"} or Loss
            What to make small.
        optimizer : Optimizer, optional
            None means a new ``Adam(1e-3)``. One that has trained this model goes on where it was.
        epochs : int
            How many times to go through the data.
        batch_size : int
            Samples a step; what is left over makes a smaller last batch.
        clip_norm : float, optional
            Largest norm of the gradient over all parameters; longer ones are scaled down to it.
        validation_data : tuple of two or three array_like, or iterable of batches, optional
            ``(x, y)`` or ``(x, y, lengths)``, on which the loss is taken after every epoch.
        shuffle : bool
            Whether every epoch has an order of its own. The orders depend on ``seed`` alone.
        seed : int
            At least 0. Training twice from the same parameters with the same seed gives the same bits.
        progress : bool
            Show a bar on standard error (if tqdm is installed; else a line an epoch).
        callbacks : iterable of callable
            Each is called with the `Training` after every epoch: it may read ``history`` and ``model``, set
            ``optimizer.lr``, and end the training by ``stop()``. One with a method ``batch_end`` has that called with
            the `Training` after every batch. See `EarlyStopping` and `Checkpoint`.
        lengths : array_like of int, shape (N,), optional
            Valid steps 0..T of every sequence of an array, in any order. What follows them is padding: not looked at,
            and without part in the loss.
        sample_weight : array_like, shape (N,), optional
            What the targets of a sample count in the mean that the loss is, at least 0.
        class_weight : mapping of int to float, or array_like of shape (C,), optional
            What targets of a class count, for "cross_entropy"; 1 for classes that a mapping lacks.
        clip_value : float, optional
            Largest magnitude of an element of the gradient; comes before ``clip_norm``.
        schedule : Schedule, optional
            How the learning rate changes; see `rnnfast.schedules`.
        accumulate : int
            Batches whose gradients make one step, that of a batch as large as all of them.
        steps_per_epoch : int, optional
            Batches an epoch, if x is an iterable of them. None: all that there are.
        tbptt : int, optional
            Truncated backpropagation through time: sequences are cut into pieces of so many steps. Every piece begins
            with the state that the one before ended with, and gradients stay within a piece. With targets for every
            step, every piece makes a step of the optimizer; after `Last` the last piece alone.
        stateful : bool
            Sequences begin with the states that those of the batch before ended with, so that sample n of a batch goes
            on where sample n of the one before stopped. Every epoch begins with zeros. Needs ``shuffle=False`` and
            batches of the same size.
        resume : str or path, optional
            A file that `Checkpoint` wrote in a training with the same arguments: go on from it, to the same bits as if
            it had not ended, until ``epochs`` are done.

        Returns
        -------
        History
            With ``interrupted`` True if Ctrl-C ended the training: the model then keeps the steps that were made.

        Raises
        ------
        TypeError
            If a dtype or the kind of an argument is wrong.
        ValueError
            If a shape or value is wrong, or x or y has a NaN or an infinity, or ``resume`` is damaged or of another
            training. All this is found before training; in batches that are made or read while it goes on, before
            the step, with the number of the batch in the message.
        OSError
            If the file of ``resume`` cannot be read.
        NonFiniteError
            If the loss or a gradient becomes NaN or infinite. The model is as it was before that step.

        References
        ----------
        Williams & Peng (1990), An efficient gradient-based algorithm for on-line training of recurrent network
        trajectories, Neural Computation 2(4): truncated backpropagation through time.
        """
        who = "Sequential.fit"
        loss = losses.get(loss, who)
        optimizer = Adam(1e-3) if optimizer is None else optimizer
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"{who}: optimizer is {type(optimizer).__name__}; expected an Optimizer, such as Adam(1e-3)"
            )
        epochs = integer(who, "epochs", epochs, 1)
        batch_size = integer(who, "batch_size", batch_size, 1)
        shuffle, stateful = bool(shuffle), bool(stateful)
        for name, value in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if value is not None and number(who, name, value, 0) == 0:
                raise ValueError(f"{who}: {name} is 0; expected None or a number above 0")
        if schedule is not None and not isinstance(schedule, Schedule):
            raise TypeError(f"{who}: schedule is {type(schedule).__name__}; expected one of rf.schedules")
        options = Options(
            seed=integer(who, "seed", seed, 0),
            clip_norm=clip_norm,
            clip_value=clip_value,
            schedule=schedule,
            accumulate=integer(who, "accumulate", accumulate, 1),
            tbptt=None if tbptt is None else integer(who, "tbptt", tbptt, 1),
            stateful=stateful,
        )
        if not isinstance(callbacks, Iterable):
            raise TypeError(f"{who}: callbacks is {type(callbacks).__name__}; expected a list of callables")
        callbacks = list(callbacks)
        for callback in callbacks:
            if not callable(callback):
                raise TypeError(f"{who}: callbacks has a {type(callback).__name__}; expected callables")
        if class_weight is not None:
            loss = with_class_weight(loss, class_weight, who)
        check_states(self, options, shuffle and y is not None, who)
        settings = {"batch_size": batch_size, "shuffle": shuffle, "steps_per_epoch": steps_per_epoch}
        training = Training(
            self, optimizer, loss, options, epochs, callbacks, {name: str(value) for name, value in settings.items()}
        )
        datasets = Datasets(self, loss, who, options)
        data: Data
        if y is None:
            _check_streamed(who, lengths, sample_weight)
            data = datasets.stream(x, steps_per_epoch, once_is_enough=epochs == 1)
        else:
            if steps_per_epoch is not None:
                raise ValueError(f"{who}: steps_per_epoch is given; expected None, x is no iterable of batches")
            data = datasets.arrays(x, y, batch_size, lengths, sample_weight, shuffle)
            training.settings["samples"] = str(data.x.count)
        validation = None
        if validation_data is not None:
            validation = Datasets(self, loss, f"{who}: validation_data", options).validation(
                validation_data, batch_size
            )
        saved = None
        if resume is not None:
            from rnnfast.io import checkpoint

            saved = checkpoint.Saved(resume, training)
        training.begin()
        if saved is not None:
            saved.restore()
            if isinstance(data, BatchStream):
                data.skip(training.epoch)
        return training.run(data, validation, progress)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a safetensors file, layers and parameters; `rnnfast.load` reads it.

        The file is complete or, if anything fails, not there (an older one of that name stays as it was).

        Raises
        ------
        OSError
            If the file cannot be written.
        ValueError
            If a layer is of a class that `rnnfast.load` does not know, or ``path`` is no regular file.
        """
        from rnnfast.io import model_file

        model_file.save(self, path)

    def _predict(self, x: Any, batch_size: int | None, who: str, lengths: Any) -> Any:
        samples = self.layout.inputs(x, self.dtype, who, lengths)
        batch_size = batch_size or max(samples.count, 1)
        order = np.arange(samples.count)
        valid: list[int] = []
        if samples.lengths is not None:
            order = np.argsort(samples.lengths, kind="stable")  # with others of similar length
            valid = samples.lengths.tolist()
        y: Any = None
        # At least one batch: an empty one still has an output with a shape.
        for start in range(0, max(samples.count, 1), batch_size):
            index = order[start : start + batch_size]
            of_batch = None if samples.lengths is None else samples.lengths[index]
            taken = samples.take(index, of_batch)
            if samples.on_disk and self.layers[0].takes_integers:
                self.layers[0].check_numbers(taken, f"{who}: x")
            piece = self.apply(taken, PLAIN if of_batch is None else Run(of_batch))
            by_sample = piece.swapaxes(0, 1) if self.gives_sequence else piece
            if samples.is_ragged and self.gives_sequence:
                y = [None] * samples.count if y is None else y
                for n, of_sample in zip(index.tolist(), by_sample, strict=True):
                    y[n] = of_sample[: valid[n]].copy()
                continue
            if y is None:
                tail = by_sample.shape[2 if self.gives_sequence else 1 :]
                y = np.zeros(self.layout.output_shape(tail, samples), self.dtype)
            place = y.swapaxes(0, self.layout.y_axis)
            if of_batch is None:
                place[start : start + batch_size] = by_sample
            elif self.gives_sequence:
                # Past the end of a sequence stay the zeros.
                for n, of_sample in zip(index.tolist(), by_sample, strict=True):
                    place[n, : valid[n]] = of_sample[: valid[n]]
            else:
                place[index] = by_sample
        return y


def load(path: str | os.PathLike[str]) -> Sequential:
    """The model that `Sequential.save` wrote.

    Parameters
    ----------
    path : str or path
        A safetensors file. It may come from anybody: nothing in it is executed, and it costs no more memory than
        twice its length.

    Returns
    -------
    Sequential
        With the same bits in every parameter.

    Raises
    ------
    OSError
        If the file cannot be opened or read.
    ValueError
        If it is not a valid safetensors file, not one of an rnnfast model, or its tensors do not fit its layers.
    """
    from rnnfast.io import model_file

    return model_file.load(path)


def _check_streamed(who: str, lengths: Any, sample_weight: Any) -> None:
    for name, value in (("lengths", lengths), ("sample_weight", sample_weight)):
        if value is not None:
            raise ValueError(f"{who}: {name} is given without y; expected them in the batches of x")


def _check_layers(layers: Sequence[Any]) -> None:
    if not layers:
        raise ValueError("Sequential: no layers; expected at least one")
    for k, layer in enumerate(layers):
        if not isinstance(layer, Layer) or isinstance(layer, Sequential):
            raise TypeError(f"Sequential: layers[{k}] is {type(layer).__name__}; expected a layer, one an argument")
        if layer.takes_integers and k > 0:
            raise ValueError(f"Sequential: layers[{k}] is {type(layer).__name__}; expected it first, where x comes in")
        for j in range(k):
            if layers[j] is layer:
                raise ValueError(f"Sequential: layers[{k}] is layers[{j}]; expected every layer once")


def _common_batch_first(layers: Sequence[Layer]) -> bool | None:
    found = {k: bool(layer.batch_first) for k, layer in enumerate(layers) if hasattr(layer, "batch_first")}
    if len(set(found.values())) > 1:
        raise ValueError(f"Sequential: batch_first of the recurrent layers is {found}; expected the same for all")
    return next(iter(found.values()), None)


def _check_time(layers: Sequence[Layer]) -> None:
    begun, ended = False, None
    for k, layer in enumerate(layers):
        recurrent = hasattr(layer, "batch_first")
        name = f"layers[{k}], {type(layer).__name__},"
        if ended is not None and (recurrent or layer.reduces_time):
            raise ValueError(f"Sequential: {name} needs a sequence, which layers[{ended}] reduced to one value")
        begun = begun or recurrent
        if layer.reduces_time:
            if not begun:
                raise ValueError(f"Sequential: {name} needs a sequence; expected a recurrent layer before it")
            ended = k


def _common_dtype(layers: Sequence[Layer]) -> np.dtype[Any]:
    found = {k: layer.dtype for k, layer in enumerate(layers) if layer.parameters.size}
    if len(set(found.values())) > 1:
        names = {k: dtype.name for k, dtype in found.items()}
        raise TypeError(f"Sequential: dtype of the layers is {names}; expected the same for all")
    return next(iter(found.values()), np.dtype(np.float32))


def _check_widths(layers: Sequence[Layer]) -> None:
    width = None
    for k, layer in enumerate(layers):
        if width is not None and layer.takes not in (None, width):
            raise ValueError(
                f"Sequential: layers[{k}], {type(layer).__name__}, takes {layer.takes} numbers a step; "
                f"layers[{k - 1}], {type(layers[k - 1]).__name__}, gives {width}"
            )
        width = layer.gives(width)
