"""Models: layers one after the other, and their training."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from rnnfast import losses
from rnnfast._arrays import Array
from rnnfast._batches import Minibatches, Samples
from rnnfast._checks import integer, number
from rnnfast._history import History
from rnnfast._layout import Layout, check_finite
from rnnfast._training import Callback, Training, mean_loss
from rnnfast.layers.base import PLAIN, JoinedParameters, Layer, Run
from rnnfast.losses import Loss
from rnnfast.optim import Adam, Optimizer


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
        All of them in one buffer, named as in ``torch.nn.Sequential``: "0.weight_ih_l0", "2.bias".
    batch_first : bool or None
        Layout of sequences, None without recurrent layers.

    Raises
    ------
    TypeError
        If an argument is no layer, or the layers' dtypes differ.
    ValueError
        If there is no layer, one stands twice, recurrent layers disagree on ``batch_first``, or the sequence has
        ended, or never begun, before a layer that needs one.
    """

    def __init__(self, *layers: Layer) -> None:
        _check_layers(layers)
        self.layers = layers
        self.batch_first = _common_batch_first(layers)
        _check_time(layers)
        self.dtype = _common_dtype(layers)
        self.parameters = JoinedParameters({str(k): layer.parameters for k, layer in enumerate(layers)}, self.dtype)
        gives_sequence = self.batch_first is not None and not any(layer.reduces_time for layer in layers)
        self._layout = Layout(self.batch_first, gives_sequence)

    def config(self) -> dict[str, Any]:
        return {"layers": [{"type": type(layer).__name__, "config": layer.config()} for layer in self.layers]}

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

    def __call__(self, x: Any) -> Array:
        """Output for all of ``x`` at once, like `predict` with a batch size of N."""
        return self._predict(x, None, "Sequential")

    def predict(self, x: Any, batch_size: int = 256) -> Array:
        """Output for ``x``, worked out in batches, so that memory for what lies between the layers stays small.

        Parameters
        ----------
        x : array_like, shape (T, N, I), or (N, T, I) with ``batch_first``, or (N, ...) without recurrent layers
            Of the model's dtype.
        batch_size : int
            Samples at a time.

        Returns
        -------
        ndarray
            A sequence in the layout of x, or (N, ...) after `Last` and without recurrent layers.

        Raises
        ------
        TypeError
            If ``x`` is not of the model's dtype, or ``batch_size`` no integer.
        ValueError
            If the shape of ``x`` does not fit the model, or ``batch_size`` is below 1.
        """
        who = "Sequential.predict"
        return self._predict(x, integer(who, "batch_size", batch_size, 1), who)

    def evaluate(self, x: Any, y: Any, loss: str | Loss = "mse", batch_size: int = 256) -> float:
        """Loss of the model on ``x`` and ``y``, as `fit` takes them.

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
        return mean_loss(self, Minibatches(*self._samples(x, y, loss, who), batch_size), loss)

    def fit(
        self,
        x: Any,
        y: Any,
        loss: str | Loss = "mse",
        optimizer: Optimizer | None = None,
        epochs: int = 20,
        batch_size: int = 64,
        clip_norm: float | None = None,
        validation_data: tuple[Any, Any] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        progress: bool = True,
        callbacks: Iterable[Callback] = (),
    ) -> History:
        """Train the model.

        Parameters
        ----------
        x : array_like, shape (T, N, I), or (N, T, I) with ``batch_first``, or (N, ...) without recurrent layers
            Inputs of the model's dtype.
        y : array_like
            Targets for "mse": shape and dtype of the model's output for x. For "cross_entropy": integers, the
            shape of the output without its last axis.
        loss : {"mse", "cross_entropy"} or Loss
            What to make small.
        optimizer : Optimizer, optional
            None means a new ``Adam(1e-3)``. One that has trained this model goes on where it was.
        epochs : int
            How many times to go through the data.
        batch_size : int
            Samples a step; what is left over makes a smaller last batch.
        clip_norm : float, optional
            Largest norm of the gradient over all parameters; longer ones are scaled down to it.
        validation_data : tuple of two array_like, optional
            ``(x, y)``, on which the loss is taken after every epoch.
        shuffle : bool
            Whether every epoch has an order of its own. The orders depend on ``seed`` alone.
        seed : int
            At least 0. Training twice from the same parameters with the same seed gives the same bits.
        progress : bool
            Show a bar on standard error (if tqdm is installed; else a line an epoch).
        callbacks : iterable of callable
            Each is called with the `Training` after every epoch: it may read ``history`` and ``model``, set
            ``optimizer.lr``, and end the training by ``stop()``.

        Returns
        -------
        History
            With ``interrupted`` True if Ctrl-C ended the training: the model then keeps the steps that were made.

        Raises
        ------
        TypeError
            If a dtype or the kind of an argument is wrong.
        ValueError
            If a shape or value is wrong, or x or y has a NaN or an infinity. All this is found before training.
        NonFiniteError
            If the loss or a gradient becomes NaN or infinite. The model is as it was before that step.
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
        seed = integer(who, "seed", seed, 0)
        if clip_norm is not None and number(who, "clip_norm", clip_norm, 0) == 0:
            raise ValueError(f"{who}: clip_norm is 0; expected None or a number above 0")
        callbacks = list(callbacks)
        for callback in callbacks:
            if not callable(callback):
                raise TypeError(f"{who}: callbacks has a {type(callback).__name__}; expected callables")
        data = Minibatches(*self._samples(x, y, loss, who), batch_size, bool(shuffle), seed)
        validation = None
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
                raise TypeError(f"{who}: validation_data is {type(validation_data).__name__}; expected a tuple (x, y)")
            samples = self._samples(*validation_data, loss, f"{who}: validation_data")
            validation = Minibatches(*samples, max(batch_size, 256))
        return Training(self, optimizer, loss, clip_norm, epochs).run(data, validation, progress, callbacks)

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

    def _predict(self, x: Any, batch_size: int | None, who: str) -> Array:
        samples = self._layout.inputs(x, self.dtype, f"{who}: x")
        batch_size = batch_size or max(samples.count, 1)
        y: Array | None = None
        # At least one batch: an empty one still has an output with a shape.
        for start in range(0, max(samples.count, 1), batch_size):
            stop = min(start + batch_size, samples.count)
            piece = self.apply(samples.take(np.arange(start, stop)))
            if y is None:
                y = np.empty(self._layout.shown_shape(piece.shape, samples.count), self.dtype)
            y.swapaxes(0, self._layout.y_axis)[start:stop] = self._layout.shown(piece).swapaxes(0, self._layout.y_axis)
        assert y is not None
        return y

    def _samples(self, x: Any, y: Any, loss: Loss, who: str) -> tuple[Samples, Samples]:
        """Inputs and targets, in which everything that can be wrong has been looked for."""
        inputs = self._layout.inputs(x, self.dtype, f"{who}: x")
        if inputs.array.size == 0:
            raise ValueError(f"{who}: x has shape {inputs.shape}; expected at least one element")
        try:
            output = self.apply(inputs.take(np.zeros(1, np.intp)))
        except ValueError as error:
            raise ValueError(f"{who}: x of shape {inputs.shape} does not fit the model: {error}") from None
        shape = self._layout.shown_shape(output.shape, inputs.count)
        targets = self._layout.targets(y, shape, inputs, loss, self.dtype, who)
        check_finite(inputs.array, self._layout.x_axis, f"{who}: x")
        check_finite(targets.array, self._layout.y_axis, f"{who}: y")
        return inputs, targets


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


def _check_layers(layers: Sequence[Any]) -> None:
    if not layers:
        raise ValueError("Sequential: no layers; expected at least one")
    for k, layer in enumerate(layers):
        if not isinstance(layer, Layer) or isinstance(layer, Sequential):
            raise TypeError(f"Sequential: layers[{k}] is {type(layer).__name__}; expected a layer, one an argument")
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
