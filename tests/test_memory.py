"""What a tape keeps, measured and as it says itself; no growth over many calls; running out of memory is an error."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from cases import CELLS
from harness import new_layer, python

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self")

# Numbers per step, sequence and hidden unit that backpropagation needs beside y: i, f, g, o and c; q, r, z, n.
KEPT = {"rnn_tanh": 0, "rnn_relu": 0, "lstm": 5, "gru": 4}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (7, 3, 5, 11), (50, 16, 8, 64)], ids=str)
def test_tape_says_that_it_keeps_the_floor(cell, sizes, dtype):
    T, N, input_size, H = sizes
    layer = new_layer(cell, input_size, H, dtype=dtype)
    x = np.ones((T, N, input_size), dtype)
    y, _, tape = layer.forward(x)
    # The initial states stand in slot 0 of h and c.
    small = 2 * N * H * dtype.itemsize
    kept = tape.nbytes - KEPT[cell] * T * N * H * dtype.itemsize
    assert kept <= y.nbytes + small
    # A tape that says less than it keeps would pass the line above.
    assert tape.nbytes >= KEPT[cell] * T * N * H * dtype.itemsize


HELD_BY_A_TAPE = """
import gc, os, sys
import numpy as np, rnnfast as rf

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

T, N, H = 300, 256, 256
cell = sys.argv[1]
kinds = {"lstm": (rf.LSTM, {}), "gru": (rf.GRU, {})}
kind, options = kinds.get(cell) or (rf.RNN, {"nonlinearity": cell[4:]})
layer = kind(4, H, **options)
x = np.ones((T, N, 4), np.float32)
unit = T * N * H * 4
layer.forward(x[:2])
gc.collect()
before = resident()
y, state, tape = layer.forward(x)
print((resident() - before) / unit)
grads = layer.backward(tape, y)
del y, tape
gc.collect()
print((resident() - before) / unit)
"""


@needs_proc
@pytest.mark.parametrize("cell", CELLS)
def test_tape_keeps_the_floor(cell):
    """Resident memory in units of y, which is the one that the numbers beside the floor belong to."""
    result = python(HELD_BY_A_TAPE, cell)
    assert result.returncode == 0, result.stderr
    held, after = map(float, result.stdout.split())
    assert KEPT[cell] + 1 - 0.2 <= held <= KEPT[cell] + 1 + 0.4
    # Beside what is kept for the next call (buffer.h).
    assert after <= 0.175 + (64 << 20) / (300 * 256 * 256 * 4)


MANY_CALLS = """
import gc, os
import numpy as np, rnnfast as rf

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

layers = [rf.RNN(5, 33), rf.LSTM(5, 33), rf.GRU(5, 33)]
x = np.ones((6, 9, 5), np.float32)
bad = np.ones((6, 9, 6), np.float32)

def calls(count):
    for _ in range(count):
        for layer in layers:
            layer(x)
            y, state, tape = layer.forward(x)
            layer.backward(tape, y, state)
            layer.forward(x)
            layer.load_state_dict(layer.state_dict())
            stream = layer.stream(batch=9)
            stream.step(x[0])
            for wrong in (bad, None, x.astype(float)):
                try:
                    layer(wrong)
                except (TypeError, ValueError):
                    pass

calls(300)
gc.collect()
before = resident()
calls(1500)
gc.collect()
print(resident() - before)
"""


@needs_proc
def test_many_calls_do_not_grow_the_process():
    """1500 rounds over three layers; one forgotten y a call would be 11 MB, one forgotten exception about 2 MB."""
    result = python(MANY_CALLS)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 1_000_000


OUT_OF_MEMORY = """
import resource
import numpy as np, rnnfast as rf
rf.set_num_threads(2)
layer = rf.LSTM(4, 256)
x = np.ones((20, 64, 4), np.float32)
y, _ = layer(x)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000, resource.RLIM_INFINITY))
big = np.broadcast_to(x[:1], (3000, 64, 4))
for run in (layer, layer.forward):
    try:
        run(big)
    except MemoryError:
        print("refused")
    again, _ = layer(x)
    assert again.tobytes() == y.tobytes()
print("done")
"""


@needs_proc
def test_running_out_of_memory_is_an_error_and_the_next_call_works():
    result = python(OUT_OF_MEMORY)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == "done" and "refused" in result.stdout
