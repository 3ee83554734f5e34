"""What `fit` and `evaluate` are given, as batches in which everything that can be wrong has been looked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfast import _core, losses
from rnnfast._arrays import Array, is_torch_tensor
from rnnfast._batch_streams import BatchStream
from rnnfast._batches import Batch, Minibatches, Samples
from rnnfast._checks import integer, number
from rnnfast._training import Data, Options
from rnnfast.losses import Loss

if TYPE_CHECKING:
    from rnnfast.model import Sequential

_NAMED = 5  # so many samples are named in a message


class Datasets:
    """Data for one model and one loss.

    Parameters
    ----------
    model : Sequential
    loss : Loss
    who : str
        What every message begins with.
    options : Options, optional
        How the model is trained on them.
    """

    def __init__(self, model: Sequential, loss: Loss, who: str, options: Options | None = None) -> None:
        self.model = model
        self.loss = loss
        self.who = who
        self.options = Options() if options is None else options

    def arrays(
        self,
        x: Any,
        y: Any,
        batch_size: int,
        lengths: Any = None,
        sample_weight: Any = None,
        shuffle: bool = False,
    ) -> Minibatches:
        """Batches of arrays, or lists of them; TypeError or ValueError if there is anything wrong in them."""
        model, loss, who, options = self.model, self.loss, self.who, self.options
        inputs = model.layout.inputs(x, model.dtype, who, lengths)
        if inputs.array.size == 0:
            raise ValueError(f"{who}: x has shape {inputs.shape}; expected at least one element")
        tail = self._output_tail(inputs)
        targets = model.layout.targets(y, tail, inputs, loss, model.dtype, who)
        for samples, name in ((inputs, "x"), (targets, "y")):
            if not samples.on_disk:
                model.layout.check_finite(samples, f"{who}: {name}")
        if sample_weight is not None:
            sample_weight = losses.check_weights(sample_weight, f"{who}: sample_weight")
            if sample_weight.shape != (inputs.count,):
                raise ValueError(
                    f"{who}: sample_weight has shape {sample_weight.shape}; expected (N,) = ({inputs.count},), N from x"
                )
        if options.tbptt is not None and not model.gives_sequence and inputs.lengths is not None:
            raise ValueError(
                f"{who}: tbptt with sequences of different lengths before rf.Last(); expected the same length for all, "
                "the loss is in the last piece"
            )
        if options.stateful and inputs.count % batch_size:
            raise ValueError(
                f"{who}: x has {inputs.count} samples, which leaves a smaller last batch with batch_size = "
                f"{batch_size}; expected a multiple of it, from stateful=True"
            )
        on_disk = inputs.on_disk or targets.on_disk
        check = _CheckWhenRead(self, inputs, targets, tail) if on_disk else None
        return Minibatches(inputs, targets, batch_size, shuffle, options.seed, sample_weight, check)

    def stream(self, x: Any, steps_per_epoch: int | None = None, once_is_enough: bool = False) -> BatchStream:
        """Batches of an iterable, each looked at when it comes; TypeError or ValueError if it is none."""
        if isinstance(x, np.ndarray) or is_torch_tensor(x) or not isinstance(x, Iterable):
            raise TypeError(
                f"{self.who}: y is None with x of {type(x).__name__}; expected y, or an iterable of batches"
            )
        if steps_per_epoch is not None:
            steps_per_epoch = integer(self.who, "steps_per_epoch", steps_per_epoch, 1)
        elif not once_is_enough and iter(x) is x:
            raise ValueError(
                f"{self.who}: x is a {type(x).__name__}, which can be gone through once; expected steps_per_epoch, "
                "epochs=1, or an iterable that begins anew every epoch"
            )
        size: int | None = None

        def prepare(item: Any, where: str) -> Batch:
            nonlocal size
            if not isinstance(item, (tuple, list)) or not 2 <= len(item) <= 4:
                raise TypeError(
                    f"{where}: x gave {type(item).__name__}; expected (x, y), (x, y, lengths) or (x, y, lengths, "
                    "sample_weight)"
                )
            inputs, targets, lengths, sample_weight = (*item, None, None)[:4]
            whole = Datasets(self.model, self.loss, where, self.options).arrays(
                inputs, targets, 1, lengths, sample_weight
            )
            whole.batch_size = count = whole.x.count
            if self.options.stateful and size not in (None, count):
                raise ValueError(f"{where}: x has {count} samples; expected {size} as before, from stateful=True")
            size = count
            return next(whole.epoch(0))

        return BatchStream(x, steps_per_epoch, prepare, self.who)

    def validation(self, given: Any, batch_size: int) -> Data:
        """Batches of ``(x, y)``, ``(x, y, lengths)``, or an iterable of batches; TypeError or ValueError otherwise."""
        of_batches = isinstance(given, list) and all(isinstance(item, tuple) for item in given)
        if isinstance(given, (tuple, list)) and len(given) in (2, 3) and not of_batches:
            x, y, lengths = (*given, None)[:3]
            return self.arrays(x, y, batch_size if self.options.stateful else max(batch_size, 256), lengths)
        no_data = isinstance(given, (tuple, np.ndarray)) or not isinstance(given, Iterable)
        if no_data or iter(given) is given or (isinstance(given, list) and not of_batches):
            raise TypeError(
                f"{self.who} is {type(given).__name__}; expected a tuple (x, y) or (x, y, lengths), or an iterable of "
                "batches that begins anew every time"
            )
        return self.stream(given)

    def check_numbers(self, x: Array, who: str) -> None:
        """ValueError naming ``who`` if the first layer takes integers and has none of those in ``x``."""
        if self.model.layers[0].takes_integers:
            self.model.layers[0].check_numbers(x, who)

    def _output_tail(self, inputs: Samples) -> tuple[int, ...]:
        """Shape of the output for one sample, or one step of one."""
        n = 0 if inputs.lengths is None else int(inputs.lengths.argmax())
        one = inputs.take(np.array([n]))
        one = one if inputs.steps is None else one[:1]
        if inputs.on_disk:
            self.check_numbers(one, f"{self.who}: x")
        try:
            output = self.model.apply(one)
        except ValueError as error:
            shape = f"{inputs.array[inputs.rows_of(n)].shape} in the list" if inputs.is_ragged else f"{inputs.shape}"
            raise ValueError(f"{self.who}: x of shape {shape} does not fit the model: {error}") from None
        return output.shape[2 if self.model.gives_sequence else 1 :]


class _CheckWhenRead:
    """Looks at batches of files for what could not be known before without reading them whole."""

    def __init__(self, datasets: Datasets, inputs: Samples, targets: Samples, tail: tuple[int, ...]) -> None:
        self.datasets = datasets
        self.inputs, self.targets = inputs, targets
        self.tail = tail

    def __call__(self, batch: Batch, index: Array) -> Batch:
        datasets, (x, y, lengths, weight) = self.datasets, batch
        model, who = datasets.model, datasets.who
        if self.inputs.on_disk:
            datasets.check_numbers(x, f"{who}: x of samples {_some(index)}")
            _check_finite(x, index, int(self.inputs.steps is not None), f"{who}: x")
        if self.targets.on_disk:
            output = (*y.shape[: 2 if model.gives_sequence else 1], *self.tail)
            y = datasets.loss.check_target(y, output, model.dtype, f"{who}: y of samples {_some(index)}")
            _check_finite(y, index, int(model.gives_sequence), f"{who}: y")
        return Batch(x, y, lengths, weight)


def check_states(model: Sequential, options: Options, shuffle: bool, who: str) -> None:
    """ValueError if states cannot be carried from piece to piece or from batch to batch."""
    for name, wanted in (("tbptt", options.tbptt is not None), ("stateful", options.stateful)):
        if not wanted:
            continue
        if model.batch_first is None:
            raise ValueError(f"{who}: {name} is given; expected a model with recurrent layers")
        for k, layer in enumerate(model.layers):
            if getattr(layer, "bidirectional", False):
                raise ValueError(
                    f"{who}: {name} is given, but layers[{k}] is bidirectional; expected layers that run forward in "
                    "time, others need the end of a sequence first"
                )
    if options.tbptt is not None and options.accumulate > 1:
        raise ValueError(f"{who}: accumulate is {options.accumulate} with tbptt; expected 1, every piece is a step")
    if options.stateful and shuffle:
        raise ValueError(
            f"{who}: stateful is True with shuffle=True; expected shuffle=False, sample n of a batch goes on where "
            "sample n of the one before stopped"
        )


def with_class_weight(loss: Loss, class_weight: Any, who: str) -> Loss:
    """``loss`` with weights of the classes; TypeError or ValueError if it cannot have them."""
    if type(loss) is not losses.CrossEntropy or loss.weight is not None:
        raise ValueError(
            f"{who}: class_weight is given with loss {loss!r}; expected 'cross_entropy' without weights of its own "
            "(for bce: losses.BCE(pos_weight=...))"
        )
    if not isinstance(class_weight, Mapping):
        return losses.CrossEntropy(loss.ignore_index, losses.check_weights(class_weight, f"{who}: class_weight"))
    weights = {
        integer(who, "class_weight", key, 0): number(who, f"class_weight[{key}]", value, 0)
        for key, value in class_weight.items()
    }
    return losses.WeightedClasses(loss.ignore_index, weights)


def _check_finite(batch: Array, index: Array, axis: int, who: str) -> None:
    """ValueError that names a sample with NaN or infinities in a batch of the samples ``index``, if there is one."""
    if batch.dtype.kind != "f" or _core.all_finite(batch.reshape(-1)):
        return
    bad = ~np.isfinite(batch).all(axis=tuple(k for k in range(batch.ndim) if k != axis))
    raise ValueError(f"{who} of sample {index[bad.argmax()]} has NaN or infinite elements; expected finite numbers")


def _some(index: Array) -> str:
    return ", ".join(map(str, index[:_NAMED])) + (", ..." if len(index) > _NAMED else "")
