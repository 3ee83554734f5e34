"""RNN, LSTM and GRU training and inference on CPUs, from NumPy, with hand-written C++ kernels."""

import os as _os

from rnnfast import _core
from rnnfast._core import __version__, build_info, get_num_threads, set_num_threads
from rnnfast.layers.dense import Dense
from rnnfast.layers.gru import GRU
from rnnfast.layers.last import Last
from rnnfast.layers.lstm import LSTM
from rnnfast.layers.recurrent import Gradients, Tape
from rnnfast.layers.rnn import RNN
from rnnfast.layers.stream import Stream

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Dense",
    "Gradients",
    "Last",
    "Stream",
    "Tape",
    "__version__",
    "build_info",
    "get_num_threads",
    "set_num_threads",
]

# CPython warns when it forks a process that has other threads; the next call starts them again.
if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(before=_core.stop_threads)
