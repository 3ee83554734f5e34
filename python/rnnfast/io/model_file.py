"""A model as a safetensors file: its parameters as tensors, its layers as JSON in the metadata."""

from __future__ import annotations

import importlib
import json
import os
from typing import Any

from rnnfast._arrays import Array
from rnnfast.io import safetensors, strict_json
from rnnfast.layers.base import Layer, limited_size
from rnnfast.model import Sequential

_VERSION = "1"

# The classes that a file may name. Their modules are imported when a file does.
_LAYERS = {
    "Dense": "rnnfast.layers.dense",
    "Dropout": "rnnfast.layers.dropout",
    "Embedding": "rnnfast.layers.embedding",
    "Last": "rnnfast.layers.last",
    "RNN": "rnnfast.layers.rnn",
    "LSTM": "rnnfast.layers.lstm",
    "GRU": "rnnfast.layers.gru",
}


def save(model: Sequential, path: str | os.PathLike[str]) -> None:
    """Write ``model`` to ``path``: see `Sequential.save`."""
    for k, layer in enumerate(model.layers):
        name = type(layer).__name__
        if type(layer).__module__ != _LAYERS.get(name):
            raise ValueError(f"Sequential.save: layers[{k}] is {name}; expected one of {', '.join(_LAYERS)}")
    metadata = {"format": "rnnfast", "version": _VERSION, "model": json.dumps(model.config())}
    safetensors.write(path, {name: model.parameters[name] for name in model.parameters}, metadata)


def load(path: str | os.PathLike[str]) -> Sequential:
    """Read a model from ``path``: see `rnnfast.load`."""
    tensors, metadata = safetensors.read(path)
    try:
        return _build(tensors, metadata)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def _build(tensors: dict[str, Array], metadata: dict[str, str]) -> Sequential:
    if metadata.get("format") != "rnnfast" or "model" not in metadata:
        raise ValueError(
            "no rnnfast model; expected a file of Sequential.save. Tensors of other files are read by "
            "rnnfast.io.safetensors.read, for load_state_dict"
        )
    if metadata.get("version") != _VERSION:
        raise ValueError(f"model of version {metadata.get('version')!r}; expected {_VERSION!r}")
    config = strict_json.parse(metadata["model"])
    if not isinstance(config, dict) or config.keys() != {"layers"} or not isinstance(config["layers"], list):
        raise ValueError("the model in the metadata is not a mapping with a list of layers")
    states: dict[str, dict[str, Array]] = {str(k): {} for k in range(len(config["layers"]))}
    for name, array in tensors.items():
        prefix, _, rest = name.partition(".")
        if prefix not in states:
            raise ValueError(f"tensor {name[:80]!r} belongs to no layer")
        states[prefix][rest] = array
    layers = []
    for (k, state), entry in zip(states.items(), config["layers"], strict=True):
        try:
            layers.append(_layer(entry, state))
        except (TypeError, ValueError) as error:
            raise ValueError(f"layer {k}: {error}") from None
    return Sequential(*layers)


def _layer(entry: Any, state: dict[str, Array]) -> Layer:
    if not isinstance(entry, dict) or entry.keys() != {"type", "config"} or not isinstance(entry["config"], dict):
        raise ValueError("not described by a type and a config")
    kind, config = entry["type"], entry["config"]
    if not isinstance(kind, str) or kind not in _LAYERS:
        raise ValueError(f"type {kind!r}; expected one of {', '.join(_LAYERS)}")
    elements = sum(array.size for array in state.values())
    for name, value in config.items():
        # Every unit, input or stacked layer has parameters of its own.
        if type(value) is int and value > elements:
            raise ValueError(f"{name} is {value}, but its tensors have {elements} elements")
    layer_class: type[Layer] = getattr(importlib.import_module(_LAYERS[kind]), kind)
    with limited_size(elements):
        layer = layer_class(**config)
    if layer.config() != config:
        raise ValueError(f"config {config}; expected all of {layer.config()}")
    for name, array in state.items():
        if array.dtype != layer.dtype:
            raise ValueError(f"{name} has dtype {array.dtype}; expected {layer.dtype}, from the layer's config")
    layer.load_state_dict(state)
    return layer
