"""Calls from several Python threads, across forks, interrupted by Ctrl-C, and at the end of the process."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import rnnfast as rf
from cases import CELLS
from compare import assert_same_bits
from harness import command, environment, layer_with, named_gradients, pack_state, python, random_problem, run

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and fork")

by_cell = pytest.mark.parametrize("cell", CELLS)

# A layer, its input and its result, for programs that run in a process of their own.
PRELUDE = """
import os, sys, threading
import numpy as np, rnnfast as rf
rf.set_num_threads(2)
layer = rf.LSTM(16, 64, seed=1)
x = np.random.default_rng(0).standard_normal((40, 32, 16)).astype(np.float32)

def bits():
    y, state, tape = layer.forward(x)
    return y.tobytes() + layer.backward(tape, y, state).params["weight_hh_l0"].tobytes()

want = bits()
"""


def run_in_threads(count: int, work) -> None:
    """``work(k)`` on ``count`` Python threads that start together; the first error of any of them is raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(count)

    def target(k: int) -> None:
        try:
            barrier.wait()
            work(k)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=target, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


@by_cell
def test_eight_threads_on_one_layer_give_the_bits_of_one(cell, dtype, rng, restore_threads):
    rf.set_num_threads(2)
    inputs, upstream = random_problem(rng, cell, 20, 24, 9, 48, dtype)
    layer = layer_with(cell, inputs, dtype)
    state, dstate = pack_state(inputs["h0"], inputs["c0"]), pack_state(upstream["dh_n"], upstream["dc_n"])
    xs = [inputs["x"] + dtype.type(k) for k in range(8)]

    def solve(k: int) -> dict:
        y, _, tape = layer.forward(xs[k], state)
        inferred, _ = layer(xs[k], state)
        return {"y": y.copy(), "inferred": inferred, **named_gradients(layer.backward(tape, upstream["dy"], dstate))}

    want = [solve(k) for k in range(8)]

    def work(k: int) -> None:
        for _ in range(6):
            got = solve(k)
            for name, value in want[k].items():
                if value is not None:
                    assert_same_bits(got[name], value, f"thread {k} {name}")

    run_in_threads(8, work)


@by_cell
def test_threads_that_pack_at_once_agree(cell, rng):
    """The first call of a layer packs its weights; here eight calls are first."""
    inputs, _ = random_problem(rng, cell, 4, 5, 70, 130, np.float32)
    want, _ = layer_with(cell, inputs, np.float32)(inputs["x"])
    for _ in range(5):
        layer = layer_with(cell, inputs, np.float32)
        run_in_threads(8, lambda k, layer=layer: assert_same_bits(layer(inputs["x"])[0], want, f"thread {k}"))


@by_cell
def test_weights_that_change_during_a_call_are_not_its_own(cell, rng, restore_threads):
    """A call ends with the weights that it began with, whatever other threads load meanwhile."""
    rf.set_num_threads(1)
    inputs, _ = random_problem(rng, cell, 4000, 1, 16, 96, np.float32)
    old = layer_with(cell, inputs, np.float32)
    states = [old.state_dict(), {name: value / 2 for name, value in old.state_dict().items()}]
    wants = []
    for state in states:
        old.load_state_dict(state)
        wants.append(old(inputs["x"])[0])
    layer = copy.deepcopy(old)
    stop = threading.Event()

    def call_or_change(k: int) -> None:
        if k == 0:
            try:
                for _ in range(5):
                    y = layer(inputs["x"])[0]
                    assert any(np.array_equal(y, want) for want in wants), "a mixture of old and new weights"
            finally:
                stop.set()
        turn = 0
        while not stop.is_set():
            turn += 1
            layer.load_state_dict(states[turn % 2])
            layer(inputs["x"][:2])
            time.sleep(0.002)

    run_in_threads(2, call_or_change)


def test_layers_of_all_cells_run_side_by_side(rng, restore_threads):
    """Different cells, dtypes and numbers of threads share one pool, which serves one call at a time."""
    jobs = []
    for dtype in (np.float32, np.float64):
        for cell in CELLS:
            inputs, _ = random_problem(rng, cell, 30, 16, 8, 40, dtype)
            layer = layer_with(cell, inputs, dtype)
            jobs.append((layer, inputs["x"], layer(inputs["x"])[0]))

    def work(k: int) -> None:
        layer, x, want = jobs[k]
        for repeat in range(12):
            rf.set_num_threads(1 + (k + repeat) % 5)
            assert_same_bits(layer(x)[0], want, f"job {k}")

    run_in_threads(8, work)


def test_python_runs_while_a_call_does():
    """The lock of the interpreter is dropped: another Python thread advances during one long call."""
    layer = rf.LSTM(1, 512)
    x = np.zeros((400, 16, 1), np.float32)
    count, stop = [0], threading.Event()

    def counter() -> None:
        while not stop.is_set():
            count[0] += 1
            time.sleep(0)

    thread = threading.Thread(target=counter)
    thread.start()
    try:
        before = count[0]
        layer(x)
        during = count[0] - before
    finally:
        stop.set()
        thread.join()
    assert during > 10


FORK = (
    PRELUDE
    + """
import time
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        ok = bits() == want
        second = os.fork()
        if second == 0:
            os._exit(0 if bits() == want else 1)
        ok = ok and os.waitpid(second, 0)[1] == 0
        os._exit(0 if ok else 1)
    deadline = time.monotonic() + 20
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            sys.exit("the child hangs")
        time.sleep(0.005)
    assert status == 0, status
    assert bits() == want
print("done")
"""
)


@posix
def test_forked_children_and_their_children_compute():
    result = python(FORK)
    assert result.returncode == 0 and result.stdout == "done\n", result.stderr
    # A process with threads must not fork: Python 3.12 says so in a DeprecationWarning, shown here.
    assert "multi-threaded" not in result.stderr


# Forks while threads are at work, which end when `stop` is set.
FORK_REPEATEDLY = """
import os, sys, threading, time
import numpy as np, rnnfast as rf

def fork_repeatedly(is_right, stop):
    for _ in range(10):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if is_right() else 1)
        deadline = time.monotonic() + 20
        while not (done := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(pid, 9)
                stop.set()
                sys.exit("the child hangs")
            time.sleep(0.005)
        assert done[1] == 0, done
    stop.set()

"""

FORK_DURING_A_CALL = (
    FORK_REPEATEDLY
    + PRELUDE
    + """
busy = threading.Event()
stop = threading.Event()

def call():
    while not stop.is_set():
        busy.set()
        layer(x)

thread = threading.Thread(target=call)
thread.start()
busy.wait()
def is_right():
    y = rf.LSTM(16, 64, seed=1)(x)[0]
    return y.tobytes() == want[: y.nbytes]

fork_repeatedly(is_right, stop)
thread.join()
print("done")
"""
)


@posix
def test_fork_while_another_thread_is_in_a_call():
    result = python(FORK_DURING_A_CALL, timeout=90)
    assert result.returncode == 0 and result.stdout == "done\n", result.stderr


FORK_DURING_PACKING = (
    FORK_REPEATEDLY
    + """
stop = threading.Event()
x = np.ones((1, 1, 1200), np.float32)
layers = [rf.LSTM(1200, 600, seed=1), rf.FRNN(1200, 1200, connectivity=np.eye(1200, dtype=bool), seed=1)]
wants = [layer(x)[0].tobytes() for layer in layers]

def pack(layer):
    while not stop.is_set():
        layer.parameters.changed()
        layer(x)

threads = [threading.Thread(target=pack, args=(layer,)) for layer in layers]
for thread in threads:
    thread.start()
fork_repeatedly(lambda: [layer(x)[0].tobytes() for layer in layers] == wants, stop)
for thread in threads:
    thread.join()
print("done")
"""
)


@posix
def test_fork_while_another_thread_packs_the_weights_that_the_child_uses():
    result = python(FORK_DURING_PACKING, timeout=90)
    assert result.returncode == 0 and result.stdout == "done\n", result.stderr


MULTIPROCESSING = """
import multiprocessing, sys
import numpy as np, rnnfast as rf

def bits(seed):
    layer = rf.GRU(16, 64, seed=seed)
    x = np.random.default_rng(0).standard_normal((40, 32, 16)).astype(np.float32)
    return layer(x)[0].tobytes()

if __name__ == "__main__":
    want = [bits(k) for k in range(4)]
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        assert pool.map(bits, range(4)) == want
    print("done")
"""


@posix
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(MULTIPROCESSING, encoding="utf-8")
    result = run(str(program), method)
    assert result.returncode == 0 and result.stdout == "done\n", result.stderr


INTERRUPTED = """
import signal, sys

# A shell without job control starts what runs in the background with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np, rnnfast as rf
from rnnfast import _core
T, H = 10_000, 1024
layer = rf.LSTM(1, H, seed=1, dtype="float64")
short, long = np.ones((2, 1, 1)), np.ones((T, 1, 1))
want, _ = layer(short)
parameters = layer.state_dict()
weights = dict(zip(("w_ih", "w_hh", "b_ih", "b_hh"), parameters.values()))

def backward():
    # What forward leaves would take as long to compute; zeros, which cost no memory before they are used, will do.
    _core.backward(
        weights=_core.Weights(cell="lstm", **weights), x=long, h=np.zeros((T + 1, 1, H)), c=np.zeros((T + 1, 1, H)),
        gates=np.zeros((T, 1, 4, H)), dy=None, dh_n=np.ones((1, H)), dc_n=None, need_dx=True, overwrite=False,
        **{"d" + name: np.zeros_like(value) for name, value in weights.items()},
    )

calls = {"call": lambda: layer(long), "forward": lambda: layer.forward(long), "backward": backward}
print("started", flush=True)
try:
    calls[sys.argv[1]]()
except KeyboardInterrupt:
    print("interrupted", flush=True)
for name, value in layer.state_dict().items():
    assert value.tobytes() == parameters[name].tobytes()
again, _ = layer(short)
assert again.tobytes() == want.tobytes()
print("works", flush=True)
"""


@posix
@pytest.mark.parametrize("direction", ["call", "forward", "backward"])
def test_ctrl_c_stops_a_long_call_and_the_next_one_works(direction):
    """Unless it is interrupted a call takes half a minute; stopping takes a fraction of a second of the limit."""
    process = subprocess.Popen(
        command("-c", INTERRUPTED, direction),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with process:
        try:
            assert process.stdout.readline() == "started\n", process.stderr.read()
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
        finally:
            process.kill()
    assert out.split() == ["interrupted", "works"], err
    assert process.returncode == 0, err


ENDINGS = {
    "return": "",
    "exit": "sys.exit(3)",
    "os._exit": "os._exit(3)",
    "exception": "raise SystemError('on purpose')",
    "thread in a call": """
def forever():
    while True:
        layer(x)
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
layer(x)
""",
    "stream in a daemon thread": """
stream = layer.stream(batch=32)
def forever():
    while True:
        stream.step(x[0])
threading.Thread(target=forever, daemon=True).start()
layer(x)
""",
}
EXIT_CODES = {"exit": 3, "os._exit": 3, "exception": 1}


@pytest.mark.parametrize("ending", ENDINGS)
def test_process_ends_whatever_its_threads_do(ending):
    for _ in range(4):
        result = python(PRELUDE + ENDINGS[ending], timeout=20)
        assert result.returncode == EXIT_CODES.get(ending, 0), result.stderr


def reported_threads(value: str) -> subprocess.CompletedProcess[str]:
    code = "import rnnfast as rf; print(rf.get_num_threads(), rf.build_info()['threads'])"
    return python(code, env={"RNNFAST_NUM_THREADS": value})


@pytest.mark.parametrize("value", ["1", "2", "3", "7"])
def test_environment_sets_the_number_of_threads(value):
    result = reported_threads(value)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [value, value]


@pytest.mark.parametrize(
    "value",
    ["", " ", "0", "-1", "abc", "1.5", "2x", "0x2", "1e1", "1000000000", "99999999999999999999", "2 2", "1,2", "two"],
)
def test_wrong_environment_is_an_error_that_says_so(value):
    result = reported_threads(value)
    assert result.returncode != 0, result.stdout
    assert "RNNFAST_NUM_THREADS" in result.stderr
    assert value in result.stderr


def test_default_number_of_threads_is_what_the_machine_has():
    result = python("import rnnfast as rf; print(rf.get_num_threads())")
    assert 1 <= int(result.stdout) <= os.cpu_count()


@posix
def test_default_number_of_threads_respects_the_cores_allowed():
    """A process bound to one core starts with one thread."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no sched_setaffinity on this system")
    code = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import rnnfast as rf
print(rf.get_num_threads())
"""
    result = python(code)
    assert result.stdout.split() == ["1"], result.stderr


def test_calls_hold_the_only_reference_to_what_they_use(rng):
    """Nobody else keeps the layer or the array alive while the kernel runs."""
    inputs, _ = random_problem(rng, "lstm", 200, 16, 8, 64, np.float32)
    want, _ = layer_with("lstm", inputs, np.float32)(inputs["x"])
    for _ in range(10):
        only = {"layer": layer_with("lstm", inputs, np.float32), "x": inputs["x"].copy()}
        results: list[np.ndarray] = []
        thread = threading.Thread(target=lambda o=only, r=results: r.append(o.pop("layer")(o.pop("x"))[0]))
        thread.start()
        thread.join()
        assert_same_bits(results[0], want, "y")


@posix
def test_threads_sleep_between_calls():
    """They spin for a moment after a call, and use nothing of the CPU after that."""
    code = """
import time
for _ in range(5):
    layer(x)
time.sleep(0.1)
before = time.process_time()
time.sleep(0.5)
print(time.process_time() - before)
"""
    result = python(PRELUDE + code)
    assert float(result.stdout) < 0.1, result.stderr


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not bind threads to cores")
def test_threads_may_run_on_every_core_that_the_process_may():
    """Those that had to leave the caller's core come back to all of them."""
    code = """
import time
for _ in range(200):
    layer(x)
    time.sleep(0.001)
time.sleep(0.05)
allowed = {frozenset(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")}
assert allowed == {frozenset(os.sched_getaffinity(0))}, allowed
"""
    result = python(PRELUDE + code)
    assert result.returncode == 0, result.stderr
