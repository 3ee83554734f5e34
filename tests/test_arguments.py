"""Wrong calls of every entry point: TypeError or ValueError that names the argument, and the next good call works.

The layers' table is for whoever uses the library; the private module's is for memory safety, since it can be called
directly and takes its sizes from what it is given. Each case is one line: what is wrong, the call, and a pattern its
message must match. Some of these once crashed other libraries (wrong ranks in backward, empty and huge arrays).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rnnfast as rf
from cases import CELLS
from compare import assert_same_bits
from harness import layer_with, new_layer, pack_state, python, random_problem
from reference import GATES
from rnnfast import _core

T, N, I, H = 3, 2, 4, 5  # noqa: E741
F32 = np.dtype(np.float32)
REFUSED = (TypeError, ValueError)

# Every type code of NumPy but those that are float32 in native order.
WRONG_CODES = [code for code in np.typecodes["All"] if np.dtype(code) != F32]
WRONG_DTYPES = [*WRONG_CODES, ">f4", ">f8", "i4,f4", "S3"]


def wrong_typed(array: np.ndarray) -> Iterator[tuple[str, Any]]:
    """The right shape in every wrong dtype."""
    for code in WRONG_DTYPES:
        yield f"dtype {code}", np.zeros(array.shape, code)


def wrong_shaped(array: np.ndarray) -> Iterator[tuple[str, Any]]:
    """float32 arrays of other ranks and sizes."""
    shape = array.shape
    yield "scalar", np.zeros((), F32)
    yield "one axis more", np.zeros((1, *shape), F32)
    if len(shape) > 1:
        yield "one axis less", np.zeros(shape[1:], F32)
        yield "flat", np.zeros(array.size, F32)
    for axis, size in enumerate(shape):
        for other in {size + 1, size - 1, 0} - {size}:
            yield f"axis {axis} of {other}", np.zeros((*shape[:axis], other, *shape[axis + 1 :]), F32)


def no_arrays() -> Iterator[tuple[str, Any]]:
    """Things that are no array of numbers."""
    yield from [
        ("a string", "abc"),
        ("bytes", b"\0" * 96),
        ("a dict", {}),
        ("a set", {1.0}),
        ("an object", object()),
        ("a function", len),
        ("a ragged list", [[1.0], [1.0, 2.0]]),
        ("a list of strings", ["a", "b"]),
        ("NotImplemented", NotImplemented),
        ("a complex number", 1j),
    ]


class Bad:
    """One wrong call: an id, the call, and what its message must contain (None where the call itself says it all)."""

    def __init__(self, name: str, call: Callable[[], Any], match: str | None, raises: Any = REFUSED) -> None:
        self.name, self.call, self.match, self.raises = name, call, match, raises

    def __str__(self) -> str:
        return self.name


def check(bad: Bad) -> None:
    if "huge" in bad.name and isinstance(bad.raises, tuple):
        bad.raises, bad.match = (*bad.raises, MemoryError), None
    with pytest.raises(bad.raises, match=bad.match):
        bad.call()


def cases_of(bads: Iterator[Bad]) -> Any:
    """Parametrise by a table, which is long enough to mean something."""
    table = list(bads)
    assert len(table) >= 60, len(table)
    return pytest.mark.parametrize("bad", table, ids=str)


# The layers


class Good:
    """A layer of a cell with good arguments, and the bits that they give."""

    def __init__(self, cell: str) -> None:
        self.cell = cell
        self.inputs, self.upstream = random_problem(np.random.default_rng(1), cell, T, N, I, H, F32)
        self.layer = layer_with(cell, self.inputs, F32)
        self.name = type(self.layer).__name__
        self.x = self.inputs["x"]
        self.state = pack_state(self.inputs["h0"], self.inputs["c0"])
        self.dy = self.upstream["dy"]
        self.dstate = pack_state(self.upstream["dh_n"], self.upstream["dc_n"])
        self.y, _ = self.layer(self.x, self.state)
        self.dx = self.layer.backward(self.tape(), self.dy, self.dstate).x

    def tape(self) -> Any:
        return self.layer.forward(self.x, self.state)[2]

    def works(self) -> None:
        assert_same_bits(self.layer(self.x, self.state)[0], self.y, "y after the refused call")
        y, _, tape = self.layer.forward(self.x, self.state)
        assert_same_bits(y, self.y, "y of training after the refused call")
        assert_same_bits(self.layer.backward(tape, self.dy, self.dstate).x, self.dx, "dx after the refused call")
        assert_same_bits(self.layer.stream(batch=N).step(self.x[0]), self.layer(self.x[:1])[0][0], "step")


GOOD = {cell: Good(cell) for cell in CELLS}


def bad_constructors() -> Iterator[Bad]:
    values: dict[str, list[Any]] = {
        "input_size": [0, -1, 2.5, "4", None, [4], np.float32(4)],
        "hidden_size": [0, -5, 2.5, "4", None, [4]],
        "num_layers": [0, -1, 1.5, "1", True],
        "dropout": [-0.1, 1.5, float("nan"), "0", None],
        "bidirectional": ["yes", 1, None],
        "bias": [1, "yes", None],
        "batch_first": [0, None],
        "learn_initial_state": [1, None],
        "zoneout": [-0.1, 1.0, "0", (0.1, 0.2, 0.3), (0.1, -1.0)],
        "recurrent_dropout": [-0.1, 1.0, None],
        "clip": [0, -1.0, "1", float("nan")],
        "activations": ["Tanh", [], ["Tanh"] * 4, ["tan"] * 3, [3], [("Elu", -1.0)], [("Relu", 1.0)], [("Elu", "1")]],
        "mask_ih": [np.ones((H, I)), np.ones((2, 2), bool), "mask", {"shape": [H, H], "bits": ""}],
        "mask_hh": [np.ones((H, H), int), np.ones((H, I), bool), np.ones(H, bool)],
        "dtype": ["float16", "int32", "complex64", ">f4", "nonsense", np.int64, object],
        "seed": ["abc", -1, 1.5],
    }
    for cell in ("rnn_tanh", "lstm", "gru"):
        for argument, wrong in values.items():
            for value in wrong:
                sizes = {"input_size": I, "hidden_size": H, argument: value}

                def call(cell: str = cell, sizes: dict[str, Any] = sizes) -> Any:
                    return new_layer(cell, sizes.pop("input_size"), sizes.pop("hidden_size"), **sizes)

                yield Bad(f"{cell} {argument}={value!r}", call, argument)
    for value in ("sigmoid", "", None, 1, "TANH"):
        yield Bad(f"nonlinearity={value!r}", lambda value=value: rf.RNN(I, H, nonlinearity=value), "nonlinearity")
    for value in (-1, "2", H, H + 1, 1.5, None):
        yield Bad(f"proj_size={value!r}", lambda value=value: rf.LSTM(I, H, proj_size=value), "proj_size")
    for argument in ("peephole", "coupled", "layer_norm"):
        yield Bad(f"{argument}=1", lambda argument=argument: rf.LSTM(I, H, **{argument: 1}), argument)
    yield Bad("forget_bias='1'", lambda: rf.LSTM(I, H, forget_bias="1"), "forget_bias")
    yield Bad("forget_bias without bias", lambda: rf.LSTM(I, H, bias=False, forget_bias=1.0), "forget_bias.*bias")
    yield Bad("reset_after=1", lambda: rf.GRU(I, H, reset_after=1), "reset_after")
    yield Bad(
        "layer_norm before reset", lambda: rf.GRU(I, H, reset_after=False, layer_norm=True), "layer_norm.*reset_after"
    )
    yield Bad("zoneout of projected states", lambda: rf.LSTM(I, H, proj_size=2, zoneout=0.1), "zoneout.*proj_size")
    for options in ({"num_layers": 2}, {"bidirectional": True}):
        for mask in ({"mask_ih": np.zeros((H, I), bool)}, {"mask_hh": np.zeros((H, H), bool)}):
            what = f"{options} with {list(mask)}"
            yield Bad(what, lambda o=options, m=mask: rf.GRU(I, H, **o, **m), "mask_ih or mask_hh")


def bad_sequences(method: str) -> Iterator[Bad]:
    """For `layer(...)` and `layer.forward(...)`, which take the same arguments."""
    for cell, good in GOOD.items():
        run = good.layer if method == "call" else good.layer.forward
        lstm = cell == "lstm"

        def bad(name: str, match: str, *arguments: Any, run: Any = run, cell: str = cell, **named: Any) -> Bad:
            return Bad(f"{cell} {name}", lambda: run(*arguments, **named), match)

        # An unbatched sequence has two axes, an own number of steps or rows is as good as any other.
        harmless = {"one axis less", f"axis 0 of {T + 1}", f"axis 0 of {T - 1}", "axis 0 of 0"}
        for what, x in [*wrong_typed(good.x), *no_arrays(), ("None", None), ("float64", good.x.astype(float))]:
            yield bad(f"x {what}", "x", x)
        for what, x in wrong_shaped(good.x):
            if what not in harmless and not what.startswith("axis 1"):
                yield bad(f"x {what}", "x", x)
        yield bad("x of another N than the state", "state|x", good.x[:, :1], good.state)
        yield bad("unbatched x, batched state", "state", good.x[:, 0], good.state)
        for value in ([1], [1, 2, 3], [-1, 2], [1, T + 1], [1.0, 2.0], ["1", "2"], 2, [[1, 2]], [None, 1]):
            yield bad(f"lengths={value!r}", "lengths", good.x, lengths=value)
        for value in (np.zeros((T, N)), np.zeros((N, T), bool), np.zeros(T, bool), True, [[0] * N] * T):
            yield bad(f"resets={value!r}", "resets", good.x, resets=value)

        h = good.inputs["h0"][None]
        pairs = [*wrong_typed(h), *wrong_shaped(h), *no_arrays(), ("float64", h.astype(float))]
        for what, state in pairs:
            if lstm:
                yield bad(f"state[0] {what}", "state", good.x, (state, h))
                yield bad(f"state[1] {what}", "state", good.x, (h, state))
            else:
                yield bad(f"state {what}", "state", good.x, state)
        if lstm:
            others = [
                ("h alone", h),
                ("(h,)", (h,)),
                ("three", (h, h, h)),
                ("()", ()),
                ("(h, None)", (h, None)),
                ("a number", 3),
            ]
        else:
            others = [("(h, c)", (h, h)), ("(h,)", (h,)), ("()", ()), ("a number", 3)]
        for what, state in others:
            yield bad(f"state {what}", "state", good.x, state)


def bad_backwards() -> Iterator[Bad]:
    for cell, good in GOOD.items():

        def bad(name: str, match: str, *arguments: Any, good: Good = good, **named: Any) -> Bad:
            return Bad(f"{good.cell} {name}", lambda: good.layer.backward(good.tape(), *arguments, **named), match)

        for what, dy in [*wrong_typed(good.dy), *wrong_shaped(good.dy), *no_arrays()]:
            yield bad(f"dy {what}", "dy", dy)
        dh = good.upstream["dh_n"][None]
        for what, dstate in [*wrong_typed(dh), *wrong_shaped(dh), *no_arrays()]:
            if cell == "lstm":
                yield bad(f"dstate[0] {what}", "dstate", None, (dstate, dh))
                yield bad(f"dstate[1] {what}", "dstate", None, (dh, dstate))
            else:
                yield bad(f"dstate {what}", "dstate", None, dstate)
        wrong_form = [(dh,), (), (dh, dh, dh), dh if cell == "lstm" else (dh, dh)]
        for k, dstate in enumerate(wrong_form):
            yield bad(f"dstate of the wrong form {k}", "dstate", None, dstate)
        for what, tape in [*no_arrays(), ("None", None), ("an array", good.dy)]:
            yield Bad(f"{cell} tape {what}", lambda g=good, tape=tape: g.layer.backward(tape, g.dy), "tape")
        others = [layer for name, layer in ((c, g.layer) for c, g in GOOD.items()) if name != cell]
        others.append(new_layer(cell, I, H))
        for k, other in enumerate(others):
            yield Bad(f"{cell} tape of another layer {k}", lambda o=other, g=good: o.backward(g.tape(), g.dy), "tape")

        def spent(good: Good = good) -> None:
            tape = good.tape()
            good.layer.backward(tape, good.dy)
            good.layer.backward(tape, good.dy)

        yield Bad(f"{cell} spent tape", spent, "tape", ValueError)

        def changed(good: Good = good) -> None:
            tape = good.tape()
            good.layer.load_state_dict(good.layer.state_dict())
            good.layer.backward(tape, good.dy)

        yield Bad(f"{cell} parameters changed since forward", changed, "parameters|tape", ValueError)


def bad_state_dicts() -> Iterator[Bad]:
    for good in GOOD.values():
        state = good.layer.state_dict()

        def bad(what: str, match: str, wrong: Any, good: Good = good) -> Bad:
            return Bad(f"{good.cell} {what}", lambda: good.layer.load_state_dict(wrong), match)

        for name, value in state.items():
            rest = {key: array for key, array in state.items() if key != name}
            yield bad(f"without {name}", name, rest)
            for what, array in wrong_shaped(value):
                yield bad(f"{name} {what}", name, {**rest, name: array})
            for code in ("i4", "?", "O", "U3", "c8", "M8[s]"):
                yield bad(f"{name} dtype {code}", name, {**rest, name: np.zeros(value.shape, code)})
            for what, wrong in [("None", None), ("a string", "abc"), ("ragged", [[1.0], [1.0, 2.0]])]:
                yield bad(f"{name} {what}", name, {**rest, name: wrong})
        yield bad("an unknown name", "weight_hh_l1", {**state, "weight_hh_l1": state["weight_hh_l0"]})
        for what, wrong in [
            ("None", None),
            ("a list", list(state)),
            ("a string", "abc"),
            ("a number", 3),
            ("empty", {}),
        ]:
            yield bad(what, "state|missing", wrong)


def bad_streams() -> Iterator[Bad]:
    for cell, good in GOOD.items():
        h = good.inputs["h0"][None]
        x_t = good.x[0]
        for batch in (-1, 1.5, "1", None, [1]):
            yield Bad(f"{cell} batch={batch!r}", lambda g=good, batch=batch: g.layer.stream(batch=batch), "batch")

        def step(name: str, match: str, x: Any, out: Any = None, good: Good = good) -> Bad:
            return Bad(f"{good.cell} {name}", lambda: good.layer.stream(batch=N).step(x, out=out), match)

        for what, x in [*wrong_typed(x_t), *wrong_shaped(x_t), *no_arrays(), ("None", None)]:
            yield step(f"x_t {what}", "x", x)
        out = np.empty((N, H), F32)
        for what, wrong in [*wrong_typed(out), *wrong_shaped(out), *no_arrays(), ("a list", out.tolist())]:
            yield step(f"out {what}", "out", x_t, wrong)
        frozen = out.copy()
        frozen.flags.writeable = False
        yield step("out read-only", "out", x_t, frozen)
        yield step("out in Fortran order", "out", x_t, np.asfortranarray(out))
        yield step("out strided", "out", x_t, np.empty((N, 2 * H), F32)[:, ::2])
        yield step("out reversed", "out", x_t, out[::-1])
        yield step("out broadcast", "out", x_t, np.broadcast_to(np.zeros(H, F32), (N, H)))
        memory = np.zeros(N * (H + I), F32)
        overlapping = memory[: N * I].reshape(N, I)
        for offset in (0, 1, N * I - 1):
            yield step(f"out over x_t at {offset}", "out", overlapping, memory[offset : offset + N * H].reshape(N, H))

        def reset(name: str, state: Any, good: Good = good) -> Bad:
            return Bad(f"{good.cell} reset {name}", lambda: good.layer.stream(batch=N).reset(state), "state")

        for what, wrong in [*wrong_typed(h), *wrong_shaped(h), *no_arrays()]:
            yield reset(f"state {what}", (wrong, h) if cell == "lstm" else wrong)
        yield reset("state of the wrong form", h if cell == "lstm" else (h, h))


def bad_thread_counts() -> Iterator[Bad]:
    wrong: list[Any] = [*range(-40, 1), 10**6, 10**9, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**30]
    wrong += [
        True,
        1.0,
        1.5,
        float("nan"),
        float("inf"),
        "1",
        "",
        "two",
        b"1",
        None,
        [],
        [1],
        (1,),
        {},
        {1},
        1j,
        object(),
        len,
    ]
    wrong += [np.float64(1), np.array([1, 2]), np.array(1.0), slice(1)]
    for k, value in enumerate(wrong):
        yield Bad(f"{k} {value!r:.20}", lambda value=value: rf.set_num_threads(value), "set_num_threads")


@cases_of(bad_constructors())
def test_constructors_refuse(bad):
    check(bad)


@cases_of(bad_sequences("call"))
def test_call_refuses(bad):
    check(bad)


@cases_of(bad_sequences("forward"))
def test_forward_refuses(bad):
    check(bad)


@cases_of(bad_backwards())
def test_backward_refuses(bad):
    check(bad)


@cases_of(bad_state_dicts())
def test_load_state_dict_refuses(bad):
    before = {cell: {name: a.tobytes() for name, a in good.layer.state_dict().items()} for cell, good in GOOD.items()}
    check(bad)
    after = {cell: {name: a.tobytes() for name, a in good.layer.state_dict().items()} for cell, good in GOOD.items()}
    assert after == before


@cases_of(bad_streams())
def test_stream_refuses(bad):
    check(bad)


@cases_of(bad_thread_counts())
def test_set_num_threads_refuses(bad):
    before = rf.get_num_threads()
    check(bad)
    assert rf.get_num_threads() == before


@pytest.fixture(autouse=True)
def good_calls_still_work(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each refused call the same objects give the same bits."""
    yield
    name = request.node.name
    for cell, good in GOOD.items():
        if cell in name or "bad" not in request.fixturenames:
            good.works()


def test_messages_carry_what_was_found_and_what_was_wanted():
    """Section 7 of the contract: function, argument, found, wanted, where the wanted came from."""
    layer = GOOD["lstm"].layer
    h = np.zeros((1, N + 1, H), F32)
    with pytest.raises(ValueError, match=r"LSTM.*state\[0\].*\(1, 3, 5\).*\(1, 2, 5\).*N from x.*H from hidden_size"):
        layer(GOOD["lstm"].x, (h, h))
    with pytest.raises(TypeError, match=r"GRU.*x.*float64.*float32"):
        GOOD["gru"].layer(GOOD["gru"].x.astype(np.float64))
    with pytest.raises(ValueError, match=r"RNN.*x.*\(3, 2, 7\).*4"):
        GOOD["rnn_tanh"].layer(np.zeros((T, N, 7), F32))


def test_weights_where_there_is_no_connection_are_refused():
    layer = rf.GRU(I, H, mask_hh=np.eye(H, dtype=bool))
    state = layer.state_dict()
    with pytest.raises(ValueError, match=r"GRU.load_state_dict.*weight_hh_l0.*mask_hh"):
        layer.load_state_dict({**state, "weight_hh_l0": state["weight_hh_l0"] + 1})
    assert_same_bits(layer.state_dict()["weight_hh_l0"], state["weight_hh_l0"], "weights after the refused call")


def test_a_stream_of_both_directions_is_refused():
    with pytest.raises(ValueError, match=r"LSTM.stream.*bidirectional"):
        rf.LSTM(I, H, bidirectional=True).stream()


def test_dropout_of_a_single_layer_warns():
    with pytest.warns(UserWarning, match=r"GRU: dropout is 0.5 with num_layers 1"):
        rf.GRU(I, H, dropout=0.5)


def test_output_of_training_is_read_only():
    """It belongs to the tape: backward reads it."""
    y, _, _ = GOOD["lstm"].layer.forward(GOOD["lstm"].x)
    with pytest.raises(ValueError, match="read-only"):
        y[...] = 0


@pytest.mark.parametrize("shape", [(2**40, 2**10, I), (2**10, 2**40, I), (2**52, 1, I), (1, 2**52, I)], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_huge_sequences_without_memory_are_refused(cell, shape):
    """Stride-0 arrays cost nothing to make; their sizes must not overflow anywhere."""
    x = np.broadcast_to(np.zeros(I, F32), shape)
    for run in (GOOD[cell].layer, GOOD[cell].layer.forward):
        with pytest.raises((ValueError, MemoryError)):
            run(x)


@pytest.mark.parametrize("size", [2**50, 2**60, 2**62, 2**63, 2**80])
def test_huge_layers_are_refused(size):
    """More than any machine addresses, also where the product of the sizes wraps round to a small number."""
    for sizes in ((1, size), (size, 1), (size, size)):
        with pytest.raises(MemoryError, match="weight_ih_l0"):
            rf.LSTM(*sizes)


EMPTY_BUT_HUGE = """
import numpy as np, rnnfast as rf
layer = rf.LSTM(4, 5)
for shape in [(2**40, 0, 4), (2**58, 0, 4), (0, 1000, 4)]:
    x = np.empty(shape, np.float32)
    for run in (layer, layer.forward):
        try:
            y = run(x)[0]
            assert y.shape == (*shape[:2], 5), y.shape
        except (ValueError, MemoryError) as error:
            print(error)
print("done")
"""


def test_empty_arrays_of_huge_lengths_return_at_once():
    """No rows, so no work, however many steps there are not to be taken for them."""
    result = python(EMPTY_BUT_HUGE, timeout=20)
    assert result.returncode == 0 and result.stdout.endswith("done\n"), result.stderr


# The private module


class Private:
    """Good arguments of the private module's functions for one cell, made anew for every call."""

    def __init__(self, cell: str) -> None:
        self.cell = cell
        self.inputs, self.upstream = random_problem(np.random.default_rng(2), cell, T, N, I, H, F32)

    def weights_arguments(self) -> dict[str, Any]:
        return {"cell": self.cell, **{name: self.inputs[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")}}

    def weights(self) -> Any:
        return _core.Weights(**self.weights_arguments())

    def forward_arguments(self, training: bool = True) -> dict[str, Any]:
        return {
            "weights": self.weights(),
            "training": training,
            **{name: self.inputs[name] for name in ("x", "h0", "c0")},
        }

    def backward_arguments(self) -> dict[str, Any]:
        arguments = self.forward_arguments()
        h, c, gates = _core.forward(**arguments)
        gradients = {f"d{name}": np.zeros_like(self.inputs[name]) for name in ("w_ih", "w_hh", "b_ih", "b_hh")}
        return {
            "weights": arguments["weights"],
            "x": self.inputs["x"],
            "h": h,
            "c": c,
            "gates": gates,
            **self.upstream,
            **gradients,
            "need_dx": True,
            "overwrite": False,
        }


PRIVATE = {cell: Private(cell) for cell in CELLS}


def wrong_layouts(array: np.ndarray) -> Iterator[tuple[str, Any]]:
    """The right shape and dtype in memory that a kernel cannot walk through."""
    if array.ndim > 1 and not np.asfortranarray(array).flags.c_contiguous:
        yield "Fortran order", np.asfortranarray(array)
    yield "reversed", array[::-1]
    yield "strided", np.repeat(array, 2, axis=-1)[..., ::2]
    yield "broadcast", np.broadcast_to(np.zeros((), F32), array.shape)
    huge = np.broadcast_to(np.zeros((), F32), (*array.shape[:-1], 2**40))
    yield "huge", huge
    yield (
        "huge everywhere",
        np.broadcast_to(np.zeros((), F32), (2**60 // 4 ** (array.ndim - 1), *[4] * (array.ndim - 1))),
    )


def garbage(array: np.ndarray) -> Iterator[tuple[str, Any]]:
    yield from wrong_typed(array)
    yield from wrong_shaped(array)
    yield from wrong_layouts(array)
    yield from no_arrays()
    yield "a list", array.tolist()
    yield "float64", array.astype(np.float64)


def bad_weights() -> Iterator[Bad]:
    for cell, private in PRIVATE.items():
        good = private.weights_arguments()

        def bad(what: str, match: str, good: dict[str, Any] = good, **change: Any) -> Bad:
            return Bad(f"{good['cell']} {what}", lambda: _core.Weights(**{**good, **change}), match)

        for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
            for what, wrong in garbage(good[name]):
                # Another number of inputs is as good as any.
                if not (name == "w_ih" and what.startswith("axis 1") and what != "axis 1 of 0"):
                    # Of two float types either may be the wrong one.
                    yield bad(f"{name} {what}", "w_ih|w_hh" if name == "w_ih" else name, **{name: wrong})
        for name in ("w_ih", "w_hh"):
            yield bad(f"{name} None", name, **{name: None})
        for name in ("", "LSTM", "rnn", "rnn_sigmoid", None, 3, b"LSTM", "lstm\0"):
            yield bad(f"cell {name!r}", "cell", cell=name)
        for other in CELLS:
            if GATES[other] != GATES[cell]:
                yield Bad(
                    f"{cell} as {other}", lambda g=good, o=other: _core.Weights(**{**g, "cell": o}), "w_ih|w_hh|b_ih"
                )


def bad_private_forwards() -> Iterator[Bad]:
    for private in PRIVATE.values():

        def bad(what: str, match: str | None, private: Private = private, **change: Any) -> Bad:
            return Bad(
                f"{private.cell} {what}", lambda: _core.forward(**{**private.forward_arguments(), **change}), match
            )

        for name in ("x", "h0", "c0"):
            array = private.inputs[name]
            if array is None:
                yield bad(f"{name} for a cell without one", name, **{name: private.inputs["h0"]})
                continue
            for what, wrong in garbage(array):
                # Another number of steps is as good as any.
                if not (name == "x" and what.startswith("axis 0")):
                    yield bad(f"{name} {what}", f"{name}|x", **{name: wrong})
            if name == "x" or private.inputs["c0"] is not None:  # states may be None, but not one of two
                yield bad(f"{name} None", name, **{name: None})
        for what, wrong in [*no_arrays(), ("None", None), ("an array", private.inputs["x"])]:
            yield bad(f"weights {what}", "weights|incompatible", weights=wrong)


def bad_private_backwards() -> Iterator[Bad]:
    overwritten = ("dw_ih", "dw_hh", "db_ih", "db_hh")
    for cell, private in PRIVATE.items():
        good = private.backward_arguments()

        def bad(what: str, match: str | None, private: Private = private, **change: Any) -> Bad:
            return Bad(
                f"{private.cell} {what}", lambda: _core.backward(**{**private.backward_arguments(), **change}), match
            )

        arrays = {name: a for name, a in good.items() if isinstance(a, np.ndarray)}
        for name, array in arrays.items():
            for what, wrong in garbage(array):
                # Where sizes come from is another argument, so that either of the two may be named.
                yield bad(f"{name} {what}", name if name != "x" else "x|h|dy", **{name: wrong})
        for name in ("c", "gates", "dc_n"):
            if good[name] is None:
                yield bad(f"{name} for a cell without one", name, **{name: good["h"]})
        for name in ("x", "h", "dw_ih", "dw_hh", *(["c", "gates"] if cell == "lstm" else [])):
            yield bad(f"{name} None", name, **{name: None})
        for name in overwritten:
            if good[name] is not None:
                frozen = good[name].copy()
                frozen.flags.writeable = False
                yield bad(f"{name} read-only", name, **{name: frozen})
        yield bad("weights None", "weights|incompatible", weights=None)
        other = PRIVATE["gru" if cell == "lstm" else "lstm"].weights()
        yield bad("weights of another cell", None, weights=other)


def overlapping_backwards() -> Iterator[Bad]:
    """Written arrays that share memory with each other or with something read while they are written."""
    # Copied before anything is written.
    copied = ("dh_n", "dc_n")
    for cell, private in PRIVATE.items():
        good = private.backward_arguments()
        written = [name for name in ("dw_ih", "dw_hh", "db_ih", "db_hh") if good[name] is not None]
        for first in written:
            for second in (
                name for name, a in good.items() if isinstance(a, np.ndarray) and name not in (first, *copied)
            ):
                a, b = good[first], good[second]
                for shift in (0, 1):

                    def call(p: Private = private, f: str = first, s: str = second, k: int = shift) -> Any:
                        arguments = p.backward_arguments()
                        a, b = arguments[f], arguments[s]
                        memory = np.zeros(max(a.size, b.size) + k, F32)
                        arguments[f] = memory[k : k + a.size].reshape(a.shape)
                        arguments[s] = memory[: b.size].reshape(b.shape)
                        return _core.backward(**arguments)

                    if max(a.size, b.size) > shift:
                        yield Bad(f"{cell} {first} over {second} by {shift}", call, f"{first}|{second}")


def bad_private_streams() -> Iterator[Bad]:
    for cell, private in PRIVATE.items():
        for batch in (-1, 2**62, 2**63, 1.5, "1", None):
            raises = (TypeError, ValueError, MemoryError)
            yield Bad(
                f"{cell} batch={batch!r}", lambda p=private, b=batch: _core.Stream(p.weights(), b), None, raises=raises
            )
        for what, wrong in [*no_arrays(), ("None", None)]:
            yield Bad(f"{cell} weights {what}", lambda w=wrong: _core.Stream(w, 1), None)

        def step(what: str, match: str, x: Any, out: Any, private: Private = private) -> Bad:
            return Bad(f"{private.cell} {what}", lambda: _core.Stream(private.weights(), N).step(x, out), match)

        x_t = private.inputs["x"][0]
        out = np.zeros((N, H), F32)
        for what, wrong in garbage(x_t):
            # Any memory order of the right shape is copied, as in the layers.
            if what not in ("Fortran order", "reversed", "strided", "broadcast"):
                yield step(f"x_t {what}", "x", wrong, None)
        for what, wrong in garbage(out):
            yield step(f"out {what}", "out", x_t, wrong)

        def set_state(what: str, match: str, h: Any, c: Any, private: Private = private) -> Bad:
            return Bad(f"{private.cell} {what}", lambda: _core.Stream(private.weights(), N).set_state(h, c), match)

        h = private.inputs["h0"]
        c = private.inputs["c0"]
        for what, wrong in garbage(h):
            yield set_state(f"h {what}", "h", wrong, c)
            if c is not None:
                yield set_state(f"c {what}", "c", h, wrong)


def private_works(cell: str) -> None:
    """A good call of each function, compared with the layer that is built on them."""
    private = PRIVATE[cell]
    arguments = private.backward_arguments()
    h = arguments["h"].copy()
    assert h.shape == (T + 1, N, H)
    dx, dh0, _ = _core.backward(**arguments)
    layer = layer_with(cell, private.inputs, F32)
    y, _, tape = layer.forward(private.inputs["x"], pack_state(private.inputs["h0"], private.inputs["c0"]))
    grads = layer.backward(tape, private.upstream["dy"], pack_state(private.upstream["dh_n"], private.upstream["dc_n"]))
    assert_same_bits(h[1:], y, "h")
    assert_same_bits(dx, grads.x, "dx")
    assert_same_bits(arguments["dw_hh"], grads.params["weight_hh_l0"], "dw_hh")
    assert dh0.shape == (N, H)


@cases_of(bad_weights())
def test_private_weights_refuse(bad):
    check(bad)
    private_works(bad.name.split()[0])


@cases_of(bad_private_forwards())
def test_private_forward_refuses(bad):
    check(bad)
    private_works(bad.name.split()[0])


@cases_of(bad_private_backwards())
def test_private_backward_refuses(bad):
    check(bad)
    private_works(bad.name.split()[0])


@cases_of(overlapping_backwards())
def test_private_backward_refuses_overlap(bad):
    check(bad)
    private_works(bad.name.split()[0])


@cases_of(bad_private_streams())
def test_private_stream_refuses(bad):
    check(bad)
    private_works(bad.name.split()[0])


SLOTS, PLACES = np.array([0, 2, 4, 5]), np.array([5, 0, 3])  # two sequences, of two steps and of one

WRONG_SLOTS = {
    "longer steps": np.array([0, 2, 3, 5]),
    "no beginning": np.array([1, 2, 4, 5]),
    "too short": np.array([0]),
    "numbers of rows": np.array([0, 2, 4, 6]),
    "int32": SLOTS.astype(np.int32),
    "float": SLOTS.astype(F32),
    "two axes": SLOTS[None],
    "strided": np.repeat(SLOTS, 2)[::2],
    "huge": np.array([0, 2, 2**62, 2**63 - 1]),
    "list": SLOTS.tolist(),
}
WRONG_PLACES = {
    "twice": np.array([5, 0, 0]),
    "negative": np.array([5, 0, -1]),
    "beyond": np.array([5, 0, 6]),
    "too few": PLACES[:2],
    "too many": np.arange(4),
    "int32": PLACES.astype(np.int32),
    "float": PLACES.astype(F32),
    "two axes": PLACES[None],
    "strided": np.repeat(PLACES, 2)[::2],
    "list": PLACES.tolist(),
}


@pytest.mark.parametrize("cell", CELLS)
def test_private_functions_read_and_write_rows_where_they_stand(cell):
    """31: what belongs to nobody is not read, and its gradient is zero; wrong numbers are refused."""
    private = PRIVATE[cell]
    rng = np.random.default_rng(5)
    forward = private.forward_arguments() | {"slots": SLOTS}
    forward |= {name: None if forward[name] is None else forward[name][:2] for name in ("h0", "c0")}
    x, dy = (rng.standard_normal((6, width), dtype=F32) for width in (I, H))
    dc = rng.standard_normal((6, H), dtype=F32) if cell == "lstm" else None
    gathered, in_place = {}, {}
    for result, places in ((gathered, None), (in_place, PLACES)):
        given = {"x": x, "dy": dy, "dcells": dc}
        if places is None:
            given = {name: None if array is None else array[PLACES] for name, array in given.items()}
        else:
            for array in (array for array in given.values() if array is not None):
                array[np.setdiff1d(np.arange(6), PLACES)] = np.nan
        h, c, gates = _core.forward(**forward | {"x": given["x"], "places": places})
        result |= {"h": h.copy(), "c": c}
        backward = private.backward_arguments() | {"h": h, "c": c, "gates": gates, "slots": SLOTS, "places": places}
        backward |= given | {"weights": forward["weights"], "dh_n": None, "dc_n": None}
        result["dx"], result["dh"], result["dc"] = _core.backward(**backward)
        result |= {name: backward[name] for name in ("dw_ih", "dw_hh", "db_ih", "db_hh")}
    dx = in_place["dx"]
    assert dx.shape == (6, I)
    assert not dx[np.setdiff1d(np.arange(6), PLACES)].any()
    in_place["dx"] = dx[PLACES]
    for name, want in gathered.items():
        if want is not None:
            assert_same_bits(in_place[name], want, name)

    for function, good in ((_core.forward, forward | {"x": x}), (_core.backward, backward)):
        for name, values in {"slots": WRONG_SLOTS, "places": WRONG_PLACES}.items():
            for what, wrong in values.items():
                check(Bad(f"{name} {what}", lambda f=function, a=good | {"places": PLACES, name: wrong}: f(**a), name))
        check(Bad("places alone", lambda f=function, a=good | {"places": PLACES, "slots": None}: f(**a), None))


@pytest.mark.parametrize("cell", CELLS)
def test_private_functions_take_keywords_only(cell):
    private = PRIVATE[cell]
    with pytest.raises(TypeError):
        _core.Weights(*private.weights_arguments().values())
    with pytest.raises(TypeError):
        _core.forward(*private.forward_arguments().values())
    with pytest.raises(TypeError):
        _core.backward(*private.backward_arguments().values())


@pytest.mark.parametrize("cell", CELLS)
def test_private_misaligned_arrays_are_refused_or_read_correctly(cell):
    """pybind11 checks dtype and order but not alignment; either answer is safe, a wrong result is not."""
    private = PRIVATE[cell]
    want, _, _ = _core.forward(**private.forward_arguments())
    x = private.inputs["x"]
    raw = np.empty(x.nbytes + 4, np.uint8)
    misaligned = raw[1 : 1 + x.nbytes].view(F32).reshape(x.shape)
    misaligned[...] = x
    try:
        got, _, _ = _core.forward(**{**private.forward_arguments(), "x": misaligned})
    except REFUSED as error:
        assert "x" in str(error)
    else:
        assert_same_bits(got, want, "h")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", [(0, N, I), (T, 0, I), (0, 0, I)], ids=str)
def test_private_functions_define_empty_arrays(cell, shape):
    private = PRIVATE[cell]
    steps, batch, _ = shape
    arguments = private.forward_arguments()
    arguments["x"] = np.empty(shape, F32)
    arguments["h0"] = arguments["h0"][:batch]
    if cell == "lstm":
        arguments["c0"] = arguments["c0"][:batch]
    h, c, gates = _core.forward(**arguments)
    assert h.shape == (steps + 1, batch, H)
    assert_same_bits(h[0], arguments["h0"], "h0")
    backward = private.backward_arguments() | {"weights": arguments["weights"], "x": arguments["x"], "h": h, "c": c}
    backward |= {"gates": gates, "dy": np.zeros((steps, batch, H), F32), "dh_n": private.upstream["dh_n"][:batch]}
    if cell == "lstm":
        backward["dc_n"] = private.upstream["dc_n"][:batch]
    dx, dh0, _ = _core.backward(**backward)
    assert dx.shape == shape
    if steps == 0:
        assert_same_bits(dh0, backward["dh_n"], "dh0")
    for name in ("dw_ih", "dw_hh", "db_ih", "db_hh"):
        assert not backward[name].any()


def backward_from(start: float, cell: str, inputs: Any, upstream: Any, **how: Any) -> tuple[Any, dict[str, Any]]:
    """What the kernels' backward gives, and the weight gradients, which held ``start`` before."""
    names = ("w_ih", "w_hh", "b_ih", "b_hh")
    weights = _core.Weights(cell=cell, **{name: inputs[name] for name in names})
    h, c, gates = _core.forward(weights=weights, x=inputs["x"], h0=inputs["h0"], c0=inputs["c0"], training=True)
    grads = {f"d{name}": np.full_like(inputs[name], start) for name in names}
    before = h.tobytes()
    result = _core.backward(weights=weights, x=inputs["x"], h=h, c=c, gates=gates, **upstream, **grads, **how)
    assert h.tobytes() == before
    return result, grads


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", [(0, N), (T, 0), (1, 1), (1, 5), (1, 65), (3, 300), (600, 1)], ids=str)
def test_private_backward_overwrites_weight_gradients_if_told_so(cell, shape, dtype, isa):
    """Whatever stood there, in a call of one piece of rows or of several."""
    steps, batch = shape
    rng = np.random.default_rng(4)
    inputs, upstream = random_problem(rng, cell, max(steps, 1), max(batch, 1), I, H, dtype)
    for arrays, names in ((inputs, ("x",)), (upstream, ("dy",))):
        arrays |= {name: arrays[name][:steps, :batch].copy() for name in names}
    for arrays, names in ((inputs, ("h0", "c0")), (upstream, ("dh_n", "dc_n"))):
        arrays |= {name: arrays[name][:batch] for name in names if arrays.get(name) is not None}
    _, wanted = backward_from(0.0, cell, inputs, upstream, need_dx=False, overwrite=False)
    _, got = backward_from(np.nan, cell, inputs, upstream, need_dx=False, overwrite=True)
    for name, value in got.items():
        assert_same_bits(value, wanted[name], name)
        assert value.any() == (steps * batch > 0), name


@pytest.mark.parametrize("cell", CELLS)
def test_private_backward_adds_to_weight_gradients_and_overwrites_nothing_else(cell, dtype, isa):
    """31: weight gradients accumulate, activation gradients do not; without need_dx there is none."""
    inputs, upstream = random_problem(np.random.default_rng(3), cell, T, N, I, H, dtype)

    def backward(start: float, need_dx: bool = True) -> tuple[Any, dict[str, Any]]:
        return backward_from(start, cell, inputs, upstream, need_dx=need_dx, overwrite=False)

    (dx, dh0, _), zero = backward(0.0)
    (again_dx, again_dh0, _), one = backward(1.0)
    assert_same_bits(again_dx, dx, "dx")
    assert_same_bits(again_dh0, dh0, "dh0")
    for name, value in zero.items():
        # The chain may start from the given value or be added at the end: the last bits of a sum near 1 differ.
        assert np.allclose(one[name] - 1, value, rtol=0, atol=64 * np.finfo(dtype).eps * (1 + np.abs(value).max())), (
            name
        )
        assert value.any(), name
    (no_dx, _, _), without = backward(0.0, need_dx=False)
    assert no_dx is None
    for name, value in zero.items():
        assert_same_bits(without[name], value, name)


@pytest.mark.parametrize("cell", CELLS)
def test_private_inference_keeps_nothing_but_the_states(cell):
    private = PRIVATE[cell]
    h, c, gates = _core.forward(**private.forward_arguments(training=False))
    h_training, c_training, gates_training = _core.forward(**private.forward_arguments(training=True))
    assert_same_bits(h, h_training, "h")
    assert gates is None
    if cell == "lstm":
        assert_same_bits(c, c_training[-1], "c")
    planes = {"lstm": 4, "gru": 4}.get(cell)
    assert (gates_training is None) == (planes is None)
    if planes:
        assert gates_training.shape == (T, N, planes, H)


def test_private_weights_follow_the_arrays_after_invalidate():
    private = PRIVATE["gru"]
    arguments = {name: a.copy() if isinstance(a, np.ndarray) else a for name, a in private.weights_arguments().items()}
    weights = _core.Weights(**arguments)
    call = {"x": private.inputs["x"], "h0": private.inputs["h0"], "c0": None, "training": False}
    before = _core.forward(weights=weights, **call)[0]
    arguments["w_hh"] *= 2
    weights.invalidate()
    after = _core.forward(weights=weights, **call)[0]
    fresh = _core.forward(weights=_core.Weights(**arguments), **call)[0]
    assert_same_bits(after, fresh, "h")
    assert not np.array_equal(after, before)


def test_private_set_isa_refuses_what_it_does_not_know():
    for name in ("", "avx", "AVX2", "sse9", None, 3):
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            _core.set_isa(name)
    assert rf.build_info()["isa"] in rf.build_info()["isas"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_native_byte_order_may_be_spelt_out(cell, dtype):
    """NumPy marks such arrays apart from those of its own making, whose numbers are the same."""
    layer = getattr(rf, cell)(I, H, dtype=dtype, seed=0)
    x = np.random.default_rng(0).standard_normal((T, N, I)).astype(dtype)
    spelt = x.view(x.dtype.newbyteorder().newbyteorder())
    assert spelt.dtype == x.dtype and np.array_equal(spelt, x)
    assert_same_bits(layer(spelt)[0], layer(x)[0], "y")
    assert_same_bits(layer.stream(N).step(spelt[0]), layer(x)[0][0], "y of a step")
    y, _, tape = layer.forward(spelt)
    assert_same_bits(layer.backward(tape, y).x, layer.backward(layer.forward(x)[-1], y).x, "dx")
    assert_same_bits(rf.Dense(I, 3, dtype=dtype, seed=0)(spelt), rf.Dense(I, 3, dtype=dtype, seed=0)(x), "dense")
