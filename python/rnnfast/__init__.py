"""RNN, LSTM and GRU training and inference on CPUs, from NumPy, with hand-written C++ kernels."""

import os as _os

from rnnfast import _core, losses
from rnnfast._checks import NonFiniteError
from rnnfast._core import __version__, build_info, get_num_threads, set_num_threads
from rnnfast._history import History
from rnnfast.layers.dense import Dense
from rnnfast.layers.frnn import FRNN
from rnnfast.layers.gru import GRU
from rnnfast.layers.last import Last
from rnnfast.layers.lstm import LSTM
from rnnfast.layers.rnn import RNN
from rnnfast.layers.stream import Stream
from rnnfast.layers.tape import Gradients, Tape
from rnnfast.model import Sequential, load
from rnnfast.optim import SGD, Adam, Optimizer, clip_grad_norm

__all__ = [
    "FRNN",
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Adam",
    "Dense",
    "Gradients",
    "History",
    "Last",
    "NonFiniteError",
    "Optimizer",
    "Sequential",
    "Stream",
    "Tape",
    "__version__",
    "build_info",
    "clip_grad_norm",
    "get_num_threads",
    "load",
    "losses",
    "set_num_threads",
]

# CPython warns when it forks a process that has other threads; the next call starts them again.
if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(before=_core.stop_threads)
