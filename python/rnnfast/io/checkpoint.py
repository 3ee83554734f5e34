"""The state of a training as a safetensors file: model, optimizer, history, callbacks; what is no array as JSON."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from rnnfast._arrays import Array
from rnnfast._history import History
from rnnfast._training import Training
from rnnfast.callbacks import Callback, Checkpoint
from rnnfast.io import safetensors, strict_json
from rnnfast.optim import Optimizer

_VERSION = "1"
_HISTORY = ("loss", "val_loss", "seconds", "lr")


def check(training: Training, path: str) -> None:
    """OSError, TypeError or ValueError if no checkpoint of ``training`` could be written to ``path``."""
    try:
        json.dumps(training.model.config())
    except (NotImplementedError, TypeError) as error:
        raise TypeError(f"Checkpoint: the layers' config cannot be written as JSON: {error!r}") from None
    target = os.path.realpath(path)
    if not os.path.isdir(os.path.dirname(target)):
        raise FileNotFoundError(f"Checkpoint: path is {path!r}, in a directory that does not exist")
    if os.path.lexists(target) and not os.path.isfile(target):
        raise ValueError(f"Checkpoint: path is {path!r}, no regular file; expected a file that may be replaced")


def save(training: Training, path: str) -> None:
    """Write the state of a training between two epochs."""
    model, optimizer = training.model, training.optimizer
    memory = optimizer.state(model)
    tensors = {f"model.{name}": model.parameters[name] for name in model.parameters}
    tensors |= {f"optimizer.{name}": buffer for name, buffer in memory.buffers.items()}
    tensors |= {f"history.{name}": np.array(getattr(training.history, name), np.float64) for name in _HISTORY}
    callbacks = []
    for k, callback in enumerate(_remembering(training)):
        values, arrays = callback.state()
        callbacks.append({"type": type(callback).__name__, "values": values})
        tensors |= {f"callbacks.{k}.{name}": array for name, array in arrays.items()}
    state = {
        "epoch": training.epoch,
        "steps": training.steps,
        "stopped": training.is_stopped,
        "learning_rate": training.learning_rate,
        "settings": training.settings,
        "schedule": None if training.schedule is None else training.schedule.state(),
        "optimizer": {"text": _text(optimizer), "lr": optimizer.lr, "step": memory.step},
        "callbacks": callbacks,
    }
    metadata = {
        "format": "rnnfast-checkpoint",
        "version": _VERSION,
        "model": json.dumps(model.config()),
        "training": json.dumps(state, allow_nan=False),
    }
    safetensors.write(path, tensors, metadata)


class Saved:
    """What a checkpoint holds, found to suit a training. Nothing changes before `restore`.

    Raises
    ------
    OSError
        If the file cannot be opened or read.
    ValueError
        If it is damaged, or the checkpoint of another training.
    """

    def __init__(self, path: str | os.PathLike[str], training: Training) -> None:
        self._path = os.fspath(path)
        self._training = training
        tensors, metadata = safetensors.read(path)
        if metadata.get("format") != "rnnfast-checkpoint" or not {"model", "training"} <= metadata.keys():
            raise self._error("no checkpoint; expected a file that rf.Checkpoint wrote")
        if metadata.get("version") != _VERSION:
            raise self._error(f"checkpoint of version {metadata.get('version')!r}; expected {_VERSION!r}")
        try:
            config, self._state = (strict_json.parse(metadata[key]) for key in ("model", "training"))
            self._check(config, tensors)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise self._error(f"damaged: {error!r}") from None
        self.epoch: int = self._state["epoch"]

    def restore(self) -> None:
        """Put the training where it was."""
        training, state = self._training, self._state
        training.model.parameters.assign(self._values)
        memory = training.optimizer.state(training.model)
        memory.step = state["optimizer"]["step"]
        for name, buffer in memory.buffers.items():
            buffer[...] = self._buffers[name]
        training.optimizer.lr = state["optimizer"]["lr"]
        training.learning_rate = state["learning_rate"]
        training.epoch, training.steps = state["epoch"], state["steps"]
        training.history = History()
        for name, values in self._history.items():
            getattr(training.history, name).extend(values)
        if training.schedule is not None:
            training.schedule.restore(state["schedule"])
        for callback, kept, arrays in zip(
            _remembering(training), state["callbacks"], self._callback_arrays, strict=True
        ):
            callback.restore(kept["values"], arrays)
        if state["stopped"]:
            training.stop()

    def _check(self, config: Any, tensors: dict[str, Array]) -> None:
        training, state = self._training, self._state
        model = training.model
        if config != json.loads(json.dumps(model.config())):
            raise self._error(f"checkpoint of another model, {config}; expected {model.config()}")
        text = _text(training.optimizer)
        if state["optimizer"]["text"] != text:
            raise self._error(f"optimizer was {state['optimizer']['text']}; expected {text}, from the arguments of fit")
        for name, now in training.settings.items():
            if state["settings"].get(name) != now:
                raise self._error(
                    f"{name} was {state['settings'].get(name)}; expected {now}, from the arguments of fit"
                )
        kinds = [type(callback).__name__ for callback in _remembering(training)]
        if [kept["type"] for kept in state["callbacks"]] != kinds:
            raise self._error(f"callbacks were {[kept['type'] for kept in state['callbacks']]}; expected {kinds}")
        for key in ("epoch", "steps"):
            if type(state[key]) is not int or state[key] < 0:
                raise self._error(f"{key} is {state[key]!r}; expected a whole number")
        parameters = model.parameters
        self._values: Array = np.empty(parameters.size, parameters.dtype)
        for name, view in parameters.views(self._values).items():
            view[...] = self._tensor(tensors, f"model.{name}", view.shape, parameters.dtype)
        memory = training.optimizer.state(model)
        self._buffers = {
            name: self._tensor(tensors, f"optimizer.{name}", buffer.shape, buffer.dtype)
            for name, buffer in memory.buffers.items()
        }
        self._history: dict[str, list[float]] = {}
        for name in _HISTORY:
            array = tensors.pop(f"history.{name}", None)
            if array is None or array.ndim != 1 or array.dtype != np.float64:
                raise self._error(f"history.{name} is missing or damaged")
            self._history[name] = array.tolist()
        self._callback_arrays: list[dict[str, Array]] = [{} for _ in kinds]
        for name, array in tensors.items():
            first, _, rest = name.partition(".")
            number, _, name_there = rest.partition(".")
            if first != "callbacks" or not number.isdecimal() or int(number) >= len(kinds):
                raise self._error(f"tensor {name[:80]!r} belongs to nothing")
            self._callback_arrays[int(number)][name_there] = array

    def _tensor(self, tensors: dict[str, Array], name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        array = tensors.pop(name, None)
        if array is None or array.shape != shape or array.dtype != dtype:
            found = "missing" if array is None else f"{array.dtype} of shape {array.shape}"
            raise self._error(f"{name} is {found}; expected {dtype} of shape {shape}, from the model")
        return array

    def _error(self, text: str) -> ValueError:
        return ValueError(f"Sequential.fit: resume: {self._path}: {text}")


def _remembering(training: Training) -> list[Callback]:
    """The callbacks whose state belongs to that of a training."""
    return [c for c in training.callbacks if isinstance(c, Callback) and not isinstance(c, Checkpoint)]


def _text(optimizer: Optimizer) -> str:
    """The optimizer without its learning rate, which is kept as a number."""
    options = {name: value for name, value in optimizer.options().items() if name != "lr"}
    return f"{type(optimizer).__name__} with {options}"
