"""RNN, LSTM and GRU training and inference on CPUs, from NumPy, with hand-written C++ kernels."""

import os as _os
from typing import TYPE_CHECKING, Any

from rnnfast import _core, losses, schedules
from rnnfast._checks import NonFiniteError
from rnnfast._core import __version__, build_info, get_num_threads, set_num_threads
from rnnfast._history import History
from rnnfast._training import Training
from rnnfast.callbacks import Callback, Checkpoint, EarlyStopping
from rnnfast.layers.dense import Dense
from rnnfast.layers.dropout import Dropout
from rnnfast.layers.embedding import Embedding
from rnnfast.layers.frnn import FRNN
from rnnfast.layers.gru import GRU
from rnnfast.layers.last import Last
from rnnfast.layers.lstm import LSTM
from rnnfast.layers.rnn import RNN
from rnnfast.layers.stream import Stream
from rnnfast.layers.tape import Gradients, Tape
from rnnfast.model import Sequential, load
from rnnfast.optim import SGD, Adam, AdamW, Optimizer, RMSprop, clip_grad_norm, clip_grad_value

__all__ = [
    "FRNN",
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Adam",
    "AdamW",
    "Callback",
    "Checkpoint",
    "Dense",
    "Dropout",
    "EarlyStopping",
    "Embedding",
    "GradientFlow",
    "GradientFlowWarning",
    "GradientWatch",
    "Gradients",
    "History",
    "Last",
    "LayerFlow",
    "NonFiniteError",
    "Optimizer",
    "RMSprop",
    "Sequential",
    "Stream",
    "Tape",
    "Training",
    "__version__",
    "build_info",
    "clip_grad_norm",
    "clip_grad_value",
    "get_num_threads",
    "gradient_flow",
    "initialise",
    "load",
    "losses",
    "schedules",
    "set_num_threads",
]

if TYPE_CHECKING:
    from rnnfast.diagnostics import GradientFlow, GradientFlowWarning, GradientWatch, LayerFlow, gradient_flow
    from rnnfast.initialisers import initialise

# Imported when they are asked for: few programs need them, and every one waits for its imports.
_LATER = {
    "GradientFlow": "diagnostics",
    "GradientFlowWarning": "diagnostics",
    "GradientWatch": "diagnostics",
    "LayerFlow": "diagnostics",
    "gradient_flow": "diagnostics",
    "initialise": "initialisers",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'rnnfast' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"rnnfast.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


# CPython warns when it forks a process that has other threads; the next call starts them again.
if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(before=_core.stop_threads)
