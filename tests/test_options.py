"""Every option of every cell, alone and in pairs, against `variants.py`: inference, training and all gradients.

Masks that training draws (zoneout, recurrent dropout) are read from the tape and replayed in the reference. Then what
holds to the bit: inference and training, threads, steps and sequences, sequences alone. And what makes no sense.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import rnnfast as rf
import tolerances
from compare import assert_close, assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    KINDS,
    assert_all_same_bits,
    cast,
    check,
    infer,
    label,
    layer_of,
    options,
    packed,
    problem,
    sequences_alone,
    trace,
    train,
    unpacked,
)
from rnnfast.layers.direction import BackwardCall
from variants import ACTIVATIONS, Spec

T, N, I, H = 4, 3, 3, 6  # noqa: E741

# alpha and beta for those that have them, none a default.
GIVEN = {
    "Affine": (0.7, 0.1),
    "Elu": (0.6,),
    "HardSigmoid": (0.3, 0.4),
    "LeakyRelu": (0.2,),
    "ScaledTanh": (0.9, 1.2),
    "ThresholdedRelu": (0.2,),
}
NAMED = {name: (name, *GIVEN[name]) if name in GIVEN else name for name in sorted(ACTIVATIONS)}

LSTM = [
    {"peephole": True},
    {"coupled": True},
    {"clip": 0.6},
    {"layer_norm": True},
    {"zoneout": 0.3},
    {"zoneout": (0.4, 0.0)},
    {"zoneout": (0.0, 0.4)},
    {"recurrent_dropout": 0.4},
    {"learn_initial_state": True},
    {"activations": ("HardSigmoid", "Softsign", "Elu")},
    {"activations": (("HardSigmoid", 0.3), ("ScaledTanh", 0.9, 1.2), ("LeakyRelu", 0.2))},
    {"peephole": True, "coupled": True},
    {"peephole": True, "clip": 0.6},
    {"peephole": True, "zoneout": (0.2, 0.3), "bidirectional": True},
    {"peephole": True, "proj_size": 4, "num_layers": 2},
    {"peephole": True, "activations": ("HardSigmoid", "Softsign", "Tanh")},
    {"coupled": True, "clip": 0.6, "bias": False},
    {"coupled": True, "zoneout": 0.3},
    {"coupled": True, "activations": ("HardSigmoid", "Softplus", "Softsign")},
    {"coupled": True, "layer_norm": True},
    {"layer_norm": True, "peephole": True},
    {"layer_norm": True, "clip": 0.6},
    {"layer_norm": True, "zoneout": 0.2, "recurrent_dropout": 0.3},
    {"layer_norm": True, "bias": False, "bidirectional": True, "num_layers": 2},
    {"recurrent_dropout": 0.4, "zoneout": (0.2, 0.3)},
    {"recurrent_dropout": 0.4, "num_layers": 2, "dropout": 0.3, "bidirectional": True},
    {"learn_initial_state": True, "bidirectional": True, "num_layers": 2},
    {"learn_initial_state": True, "proj_size": 4},
]
GRU = [
    {"reset_after": False},
    {"clip": 0.6},
    {"layer_norm": True},
    {"zoneout": 0.3},
    {"recurrent_dropout": 0.4},
    {"learn_initial_state": True},
    {"activations": ("HardSigmoid", "Softsign")},
    {"activations": (("HardSigmoid", 0.3), ("LeakyRelu", 0.2))},
    {"reset_after": False, "clip": 0.6, "bidirectional": True},
    {"reset_after": False, "zoneout": 0.3},
    {"reset_after": False, "recurrent_dropout": 0.4, "bias": False},
    {"reset_after": False, "activations": ("HardSigmoid", "Elu"), "num_layers": 2},
    {"layer_norm": True, "clip": 0.6},
    {"layer_norm": True, "recurrent_dropout": 0.3, "zoneout": 0.2},
    {"layer_norm": True, "bias": False, "bidirectional": True},
    {"learn_initial_state": True, "bidirectional": True, "num_layers": 2},
]
RNN = [
    {"clip": 0.6},
    {"nonlinearity": "relu", "clip": 0.6},
    {"zoneout": 0.3},
    {"recurrent_dropout": 0.4},
    {"learn_initial_state": True},
    {"recurrent_dropout": 0.4, "zoneout": 0.3, "bidirectional": True, "num_layers": 2},
    {"activations": ("Softsign",), "clip": 0.6},
]


def specs(cell: str, table: list[dict]) -> list[Spec]:
    return [Spec(cell, I, H, **chosen) for chosen in table]


SPECS = [*specs("lstm", LSTM), *specs("gru", GRU), *specs("rnn", RNN)]
ACTIVE = [Spec("rnn", I, H, activations=(named,)) for named in NAMED.values()]
DRAWN = [s for s in SPECS if s.recurrent_dropout or s.dropout or s.zoneout]
CERTAIN = [s for s in SPECS if s not in DRAWN]
# As every cell is one kernel for all sizes, the edges of its tiles are tried with one of each kind of equation.
EDGES = [
    *specs("lstm", [LSTM[k] for k in (0, 1, 2, 3, 4, 9, 11, 14)]),
    *specs("gru", [GRU[k] for k in (0, 2, 3, 6)]),
    *specs("rnn", RNN[:3]),
]


def starts_learnt(spec: Spec) -> bool:
    """Whether to leave the state out, so that the learnt one is used."""
    return spec.learn_initial_state


@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_options_are_the_reference(spec, dtype, isa):
    check(spec, T, N, dtype, state=not starts_learnt(spec))


@pytest.mark.parametrize("spec", ACTIVE, ids=label)
def test_all_activations_are_onnx_s(spec, dtype, isa):
    check(spec, T, N, dtype)


@pytest.mark.parametrize("name", sorted({"Elu", "HardSigmoid", "LeakyRelu", "ThresholdedRelu"}))
def test_alpha_and_beta_default_to_onnx_s(name, dtype):
    check(Spec("rnn", I, H, activations=(name,)), T, N, dtype)


@pytest.mark.parametrize(
    "named",
    [
        ("LeakyRelu", 1.5),
        ("LeakyRelu", 0.0),
        ("Elu", 2.0),
        ("ScaledTanh", -0.7, 0.9),
        ("ScaledTanh", 0.7, -0.9),
        ("HardSigmoid", -0.3, 0.4),
        ("HardSigmoid", 0.3, 1.4),
        ("ThresholdedRelu", 0.0),
        ("Affine", 0.0, 0.3),
        ("Affine", -0.5, 0.1),
    ],
    ids=str,
)
@pytest.mark.parametrize("clip", [None, 0.5])
def test_unusual_alpha_and_beta_are_the_reference(named, clip, dtype):
    """Falling, flat and steep functions, whose derivative is taken from their value."""
    check(Spec("rnn", I, H, activations=(named,), clip=clip), T, N, dtype)


@pytest.mark.parametrize("name", NAMED)
def test_any_activation_goes_where_any_goes(name, dtype):
    """Each of the eleven in every place of an LSTM and a GRU, none of which may be saved by its output alone."""
    named = NAMED[name]
    for k in range(3):
        chosen = ["HardSigmoid", "Tanh", "Softsign"]
        chosen[k] = named
        check(Spec("lstm", I, H, activations=tuple(chosen)), 3, 6, dtype)
    check(Spec("gru", I, H, activations=(named, "Tanh")), 3, 6, dtype)
    check(Spec("gru", I, H, activations=("Sigmoid", named), reset_after=False), 3, 6, dtype)


@pytest.mark.parametrize("spec", EDGES, ids=label)
@pytest.mark.parametrize("sizes", [(3, 1, 17, 16), (2, 7, 5, 33), (5, 18, 1, 8), (1, 5, 33, 1)], ids=str)
def test_options_are_the_reference_round_tile_edges(spec, sizes, dtype):
    steps, batch, inputs, hidden = sizes
    changed = {"input_size": inputs, "hidden_size": hidden}
    if spec.proj_size:
        if hidden == 1:
            pytest.skip("one unit has no projection to fewer")
        changed["proj_size"] = hidden // 2
    if spec.layer_norm and hidden == 1:
        pytest.skip("one cell normalised is its bias alone")
    check(dataclasses.replace(spec, **changed), steps, batch, dtype)


@pytest.mark.parametrize("spec", [*EDGES, *specs("gru", GRU[8:11]), *specs("lstm", [LSTM[20], LSTM[24]])], ids=label)
@pytest.mark.parametrize("sizes", [(13, 40), (2, 300)], ids=str)
def test_options_of_many_rows_are_the_reference(spec, sizes, dtype):
    """More steps and sequences than whose parameter gradients are summed at once."""
    check(spec, *sizes, dtype)


@settings(max_examples=40)
@given(data=st.data())
def test_options_drawn_at_random_are_the_reference(data):
    """Whatever combination the constructor accepts, with lengths and resets, is right."""
    cell = data.draw(st.sampled_from(["rnn", "lstm", "gru"]))
    draw = lambda name, values: data.draw(st.sampled_from(values), label=name)  # noqa: E731
    chosen = {
        "num_layers": draw("num_layers", (1, 1, 2)),
        "bidirectional": draw("bidirectional", (False, True)),
        "bias": draw("bias", (True, True, False)),
        "clip": draw("clip", (None, None, 0.8)),
        "zoneout": draw("zoneout", (0.0, 0.0, 0.3)),
        "recurrent_dropout": draw("recurrent_dropout", (0.0, 0.0, 0.4)),
        "learn_initial_state": draw("learn_initial_state", (False, True)),
    }
    names = sorted(NAMED)
    count = {"rnn": 1, "lstm": 3, "gru": 2}[cell]
    if draw("own activations", (False, True)):
        chosen["activations"] = tuple(NAMED[draw("activation", names)] for _ in range(count))
        if cell != "rnn":
            # Gates above 1 make the state grow beyond all bounds.
            gate = draw("gate", ("HardSigmoid", "ScaledTanh", "Sigmoid", "Softsign", "Tanh"))
            chosen["activations"] = (NAMED[gate], *chosen["activations"][1:])
    if cell == "lstm":
        chosen |= {name: draw(name, (False, True)) for name in ("peephole", "coupled", "layer_norm")}
        chosen["proj_size"] = draw("proj_size", (0, 0, 2))
    if cell == "gru":
        chosen["reset_after"] = draw("reset_after", (True, False))
        chosen["layer_norm"] = chosen["reset_after"] and draw("layer_norm", (False, True))
    spec = Spec(cell, 2, 5, **chosen)
    try:
        layer_of(spec, None, np.float64)
    except ValueError:
        # Refused together; that what is documented works is the business of the tables above.
        return
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    how = {}
    if draw("ragged", (False, True)):
        how["lengths"] = rng.integers(0, 5, 3)
    if draw("resets", (False, True)):
        how["resets"] = rng.random((4, 3)) < 0.3
    check(spec, 4, 3, np.dtype(np.float64), state=not starts_learnt(spec) or draw("state", (False, True)), **how)


# To the bit


def own_problem(rng, spec, steps, batch, dtype, hidden=None):
    if hidden:
        spec = dataclasses.replace(spec, hidden_size=hidden)
    inputs, upstream = (cast(arrays, dtype) for arrays in problem(rng, spec, steps, batch))
    return spec, inputs, upstream


@pytest.mark.parametrize("spec", CERTAIN, ids=label)
def test_inference_is_training_to_the_bit(spec, dtype, isa, rng):
    spec, inputs, _ = own_problem(rng, spec, T, 7, dtype, hidden=19)
    layer = layer_of(spec, inputs, dtype)
    want, tape = trace(layer, spec, inputs)
    assert_all_same_bits(infer(layer, spec, inputs), want)
    assert tape.masks == {}


@pytest.mark.parametrize("spec", [s for s in SPECS if not s.bidirectional], ids=label)
def test_steps_are_the_sequence_to_the_bit(spec, dtype, isa, rng):
    """A stream takes every option that inference has; a stack where it cannot says so."""
    spec, inputs, _ = own_problem(rng, spec, 5, 7, dtype, hidden=19)
    layer = layer_of(spec, inputs, dtype)
    want = infer(layer, spec, inputs)
    stream = layer.stream(batch=7)
    stream.reset(packed(spec, inputs["h0"], inputs["c0"]))
    for t in range(5):
        assert_same_bits(stream.step(inputs["x"][t]), np.ascontiguousarray(want["y"][t]), f"step {t}")
    h_n, c_n = unpacked(spec, stream.state)
    assert_all_same_bits({"h_n": h_n, "c_n": c_n}, want, names=("h_n", "c_n"))


@pytest.mark.parametrize("spec", [s for s in SPECS if s.learn_initial_state and not s.bidirectional], ids=label)
def test_streams_start_from_the_learnt_state(spec, dtype, rng):
    spec, inputs, _ = own_problem(rng, spec, 3, 2, dtype)
    inputs |= {"h0": None, "c0": None}
    layer = layer_of(spec, inputs, dtype)
    want = infer(layer, spec, inputs)["y"]
    stream = layer.stream(batch=2)
    for repeat in range(2):
        for t in range(3):
            assert_same_bits(stream.step(inputs["x"][t]), np.ascontiguousarray(want[t]), f"run {repeat} step {t}")
        stream.reset()


@pytest.mark.parametrize("spec", [*SPECS, *ACTIVE[::4]], ids=label)
def test_threads_change_no_bit(spec, rng, restore_threads):
    # Fewer sequences than threads are computed by all threads together, if a step is large enough.
    for batch, hidden in ((1, 260), (2, 260), (3, 48), (40, 48)):
        spec, inputs, upstream = own_problem(rng, spec, 8, batch, np.float32, hidden=hidden)
        runs = []
        # Threads that have only just started may come too late for a call.
        for threads in (1, 2, 2, 2, 3, 4):
            rf.set_num_threads(threads)
            layer = layer_of(spec, inputs, np.float32, seed=2)
            runs.append(train(layer, spec, inputs, upstream))
        for run in runs[1:]:
            assert_all_same_bits(run, runs[0])


@pytest.mark.parametrize("spec", CERTAIN, ids=label)
def test_every_sequence_is_the_sequence_alone(spec, dtype, rng):
    lengths = np.array([3, 0, 4, 1, 4])
    spec, inputs, upstream = own_problem(rng, spec, T, 5, dtype, hidden=11)
    layer = layer_of(spec, inputs, dtype)
    got = train(layer, spec, inputs, upstream, lengths=lengths)
    names = ("y", "h_n", "c_n", "dx", "dh0", "dc0")
    for n, length, alone in sequences_alone(layer, spec, inputs, upstream, lengths):
        one = {name: None if got[name] is None else got[name][:, n : n + 1] for name in names}
        one = {name: a[:length] if name in ("y", "dx") else a for name, a in one.items()}
        assert_all_same_bits(one, alone, f"sequence {n}", names)


@pytest.mark.parametrize("spec", [*SPECS, *ACTIVE[::4]], ids=label)
def test_pieces_with_carried_state_are_the_whole(spec, dtype, rng):
    spec, inputs, _ = own_problem(rng, spec, 6, 3, dtype)
    if spec.bidirectional:
        pytest.skip("the reverse direction begins at the end")
    layer = layer_of(spec, inputs, dtype)
    want = infer(layer, spec, inputs)
    first = infer(layer, spec, {**inputs, "x": inputs["x"][:2]})
    second = infer(layer, spec, {"x": inputs["x"][2:], "h0": first["h_n"], "c0": first["c_n"]})
    assert_same_bits(np.concatenate([first["y"], second["y"]]), np.ascontiguousarray(want["y"]), "y")
    assert_all_same_bits(second, want, names=("h_n", "c_n"))


@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_parameters_have_the_documented_names_and_shapes(spec, dtype):
    layer = layer_of(spec, None, dtype)
    assert {name: a.shape for name, a in layer.state_dict().items()} == spec.shapes()


@pytest.mark.parametrize("spec", [*SPECS, *ACTIVE[:2]], ids=label)
def test_files_keep_the_options(spec, rng, tmp_path):
    spec, inputs, _ = own_problem(rng, spec, T, N, np.float32)
    layer = layer_of(spec, inputs, np.float32)
    rf.Sequential(layer).save(tmp_path / "model.safetensors")
    loaded = rf.load(tmp_path / "model.safetensors").layers[0]
    assert_all_same_bits(infer(loaded, spec, inputs), infer(layer, spec, inputs))


# What training draws


@pytest.mark.parametrize("spec", DRAWN, ids=label)
def test_masks_are_reproducible_and_fresh_for_every_call(spec, rng):
    spec, inputs, upstream = own_problem(rng, spec, 9, 8, np.float32, hidden=20)
    one, two, other = (layer_of(spec, inputs, np.float32, seed=seed) for seed in (7, 7, 8))
    first, second = train(one, spec, inputs, upstream), train(one, spec, inputs, upstream)
    assert_all_same_bits(train(two, spec, inputs, upstream), first)
    assert_all_same_bits(train(two, spec, inputs, upstream), second)
    assert not np.array_equal(first["y"], second["y"])
    assert not np.array_equal(first["y"], train(other, spec, inputs, upstream)["y"])


@pytest.mark.parametrize("spec", DRAWN, ids=label)
def test_masks_have_the_documented_names_shapes_and_shares(spec, rng):
    steps, batch = 40, 30
    spec, inputs, _ = own_problem(rng, spec, steps, batch, np.float32, hidden=25)
    _, tape = trace(layer_of(spec, inputs, np.float32, seed=1), spec, inputs)
    rate_h, rate_c = spec.zoneout_rates
    rate_c = rate_c if spec.cell == "lstm" else 0.0
    wanted = {}
    for suffix in spec.suffixes:
        if spec.recurrent_dropout:
            wanted[f"recurrent{suffix}"] = ((batch, 25), spec.recurrent_dropout, 0)
        if rate_h:
            wanted[f"zoneout_h{suffix}"] = ((steps, batch, 25), rate_h, 1)
        if rate_c:
            wanted[f"zoneout_c{suffix}"] = ((steps, batch, 25), rate_c, 1)
    if spec.dropout:
        for k in range(spec.num_layers - 1):
            wanted[f"dropout_l{k}"] = ((steps, batch, 25 * (2 if spec.bidirectional else 1)), spec.dropout, 0)
    assert set(tape.masks) == set(wanted)
    for name, (shape, rate, dropped) in wanted.items():
        mask = np.asarray(tape.masks[name])
        assert mask.shape == shape, name
        values = {0.0, 1.0} if dropped == 1 else {0.0, float(np.float32(1 / (1 - rate)))}
        assert set(np.unique(mask.astype(np.float64))) == values, name
        share = (mask == dropped).mean()
        assert abs(share - rate) < 5 * np.sqrt(rate * (1 - rate) / mask.size), (name, share)


def test_rates_of_zero_are_the_plain_cell(dtype, rng):
    for cell in ("rnn", "gru", "lstm"):
        spec, inputs, upstream = own_problem(rng, Spec(cell, I, H), T, N, dtype)
        plain = train(layer_of(spec, inputs, dtype), spec, inputs, upstream)
        none = dataclasses.replace(spec, zoneout=0.0, recurrent_dropout=0.0)
        layer = KINDS[cell](I, H, dtype=dtype, zoneout=0.0, recurrent_dropout=0.0)
        layer.load_state_dict({name: inputs[name] for name in spec.shapes()})
        assert_all_same_bits(train(layer, none, inputs, upstream), plain, cell)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_inference_with_recurrent_dropout_is_the_plain_cell(cell, dtype, rng):
    spec, inputs, _ = own_problem(rng, Spec(cell, I, H), T, N, dtype)
    want = infer(layer_of(spec, inputs, dtype), spec, inputs)
    dropping = dataclasses.replace(spec, recurrent_dropout=0.5)
    assert_all_same_bits(infer(layer_of(dropping, inputs, dtype), dropping, inputs), want)


# Initial values


@pytest.mark.parametrize("coupled", [False, True])
def test_forget_bias_is_where_the_forget_gate_starts(coupled, dtype):
    layer = rf.LSTM(3, 5, coupled=coupled, forget_bias=1.5, dtype=dtype, seed=1)
    plain = rf.LSTM(3, 5, coupled=coupled, dtype=dtype, seed=1).state_dict()
    forget = slice(0, 5) if coupled else slice(5, 10)
    for name, value in layer.state_dict().items():
        if not name.startswith("bias"):
            assert_same_bits(value, plain[name], name)
            continue
        assert (value[forget] == (1.5 if name == "bias_ih_l0" else 0)).all(), name
        assert np.delete(value, np.arange(forget.start, forget.stop)).any()


def test_forget_bias_reaches_all_layers_and_directions():
    layer = rf.LSTM(3, 5, num_layers=2, bidirectional=True, forget_bias=2.0)
    for name, value in layer.state_dict().items():
        if name.startswith("bias"):
            assert (value[5:10] == (2.0 if "_ih_" in name else 0)).all(), name


def test_what_options_add_starts_neutral(dtype):
    layer = rf.LSTM(3, 5, layer_norm=True, learn_initial_state=True, peephole=True, dtype=dtype, seed=1)
    values = layer.state_dict()
    for name in ("layer_norm_ih_l0", "layer_norm_hh_l0", "layer_norm_c_weight_l0"):
        assert (values[name] == 1).all(), name
    for name in ("layer_norm_c_bias_l0", "initial_h_l0", "initial_c_l0"):
        assert not values[name].any(), name
    assert np.isfinite(values["weight_peephole_l0"]).all()
    for name in ("layer_norm_ih_l0", "layer_norm_hh_l0"):
        assert (rf.GRU(3, 5, layer_norm=True).state_dict()[name] == 1).all(), name


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_given_state_is_not_the_learnt_one(cell, dtype, rng):
    """Then the learnt state has no part in the result, and its gradient is exactly zero."""
    spec, inputs, upstream = own_problem(rng, Spec(cell, I, H, learn_initial_state=True), T, N, dtype)
    got = train(layer_of(spec, inputs, dtype), spec, inputs, upstream)
    moved = {**inputs, **{name: a + 1 for name, a in inputs.items() if name.startswith("initial")}}
    assert_all_same_bits(train(layer_of(spec, moved, dtype), spec, moved, upstream), got)
    assert not any(got[f"d{name}"].any() for name in spec.shapes() if name.startswith("initial"))


def test_options_at_their_neutral_values_are_the_plain_cell(dtype, rng):
    """Peepholes of zero, a clip that is never reached and the standard activations change no value."""
    for cell, chosen in (
        ("lstm", {"peephole": True}),
        ("lstm", {"clip": 1e4}),
        ("lstm", {"activations": ("Sigmoid", "Tanh", "Tanh")}),
        ("lstm", {"learn_initial_state": True}),
        ("gru", {"clip": 1e4}),
        ("gru", {"activations": ("Sigmoid", "Tanh")}),
        ("rnn", {"clip": 1e4}),
        ("rnn", {"activations": ("Tanh",)}),
        ("rnn", {"activations": ("Relu",), "nonlinearity": "tanh"}),
    ):
        relu = chosen.get("activations") == ("Relu",)
        plain, inputs, upstream = own_problem(
            rng, Spec(cell, I, H, nonlinearity="relu" if relu else "tanh"), T, N, dtype
        )
        spec = Spec(cell, I, H, **chosen)
        added = {name: np.zeros(shape) for name, shape in spec.shapes().items() if name not in inputs}
        want = train(layer_of(plain, inputs, dtype), plain, inputs, upstream)
        got = train(layer_of(spec, {**inputs, **added}, dtype), spec, inputs, upstream)
        for name, value in want.items():
            if value is not None:
                tolerance = tolerances.variant(dtype, spec, T, N)
                assert_close(got[name], value.astype(np.float64), tolerance, f"{label(spec)} {name}")


# Errors

BAD = [
    ("lstm", {"clip": 0.0}, "clip"),
    ("lstm", {"clip": -1.0}, "clip"),
    ("gru", {"clip": float("nan")}, "clip"),
    ("rnn", {"clip": "1"}, "clip"),
    ("lstm", {"zoneout": -0.1}, "zoneout"),
    ("lstm", {"zoneout": 1.5}, "zoneout"),
    ("lstm", {"zoneout": float("nan")}, "zoneout"),
    ("lstm", {"zoneout": (0.1, 0.2, 0.3)}, "zoneout"),
    ("lstm", {"zoneout": (0.1, -0.2)}, "zoneout"),
    ("lstm", {"zoneout": "0.1"}, "zoneout"),
    ("gru", {"zoneout": (0.1, 0.2)}, "zoneout"),
    ("rnn", {"zoneout": (0.1, 0.2)}, "zoneout"),
    ("gru", {"recurrent_dropout": -0.1}, "recurrent_dropout"),
    ("gru", {"recurrent_dropout": 1.0}, "recurrent_dropout"),
    ("gru", {"recurrent_dropout": float("nan")}, "recurrent_dropout"),
    ("gru", {"recurrent_dropout": "0.1"}, "recurrent_dropout"),
    ("gru", {"layer_norm": True, "reset_after": False}, "layer_norm|reset_after"),
    ("gru", {"layer_norm": 1}, "layer_norm"),
    ("gru", {"reset_after": 0}, "reset_after"),
    ("gru", {"reset_after": None}, "reset_after"),
    ("lstm", {"peephole": 1}, "peephole"),
    ("lstm", {"coupled": "yes"}, "coupled"),
    ("lstm", {"forget_bias": "1"}, "forget_bias"),
    ("lstm", {"forget_bias": float("nan")}, "forget_bias"),
    ("lstm", {"forget_bias": 1.0, "bias": False}, "forget_bias|bias"),
    ("rnn", {"learn_initial_state": 1}, "learn_initial_state"),
    ("lstm", {"activations": ("Sigmoid", "Tanh")}, "activations"),
    ("lstm", {"activations": ("Sigmoid", "Tanh", "Tanh", "Tanh")}, "activations"),
    ("gru", {"activations": ("Sigmoid",)}, "activations"),
    ("rnn", {"activations": ("Tanh", "Tanh")}, "activations"),
    ("rnn", {"activations": ("Swish",)}, "activations"),
    ("rnn", {"activations": (("Tanh", 1.0),)}, "activations"),
    ("rnn", {"activations": (("LeakyRelu", 0.1, 0.2),)}, "activations"),
    ("rnn", {"activations": (("LeakyRelu", "0.1"),)}, "activations"),
    ("rnn", {"activations": (("LeakyRelu", float("nan")),)}, "activations"),
    ("rnn", {"activations": ((),)}, "activations"),
    ("rnn", {"activations": (("LeakyRelu", -0.1),)}, "activations"),
    ("rnn", {"activations": (("Elu", -0.1),)}, "activations"),
    ("rnn", {"activations": (("ThresholdedRelu", -0.1),)}, "activations"),
    ("rnn", {"activations": (("ScaledTanh", 0.0, 1.0),)}, "activations"),
    ("lstm", {"zoneout": 0.3, "proj_size": 2}, "zoneout"),
    ("rnn", {"activations": 3}, "activations"),
    ("rnn", {"activations": ("Tanh",), "nonlinearity": "relu"}, "nonlinearity"),
    ("lstm", {"dtype": None}, "dtype"),
    ("rnn", {"activations": (None,)}, "activations"),
    ("rnn", {"mask_hh": np.ones((H, H + 1), bool)}, "mask_hh"),
    ("rnn", {"mask_ih": np.ones((H, I))}, "mask_ih"),
    ("lstm", {"mask_ih": np.ones((2 * H, I), bool)}, "mask_ih"),
    ("gru", {"mask_hh": np.ones((H, H), bool), "num_layers": 2}, "mask_hh"),
    ("gru", {"mask_ih": np.ones((H, I), bool), "bidirectional": True}, "mask_ih"),
]


@pytest.mark.parametrize(("cell", "wrong", "match"), BAD, ids=lambda value: str(value)[:60])
def test_options_that_make_no_sense_are_refused(cell, wrong, match):
    with pytest.raises((TypeError, ValueError), match=match) as error:
        KINDS[cell](I, H, **wrong)
    assert KINDS[cell].__name__ in str(error.value)


@pytest.mark.parametrize(
    ("cell", "foreign"),
    [
        ("gru", "peephole"),
        ("gru", "coupled"),
        ("gru", "forget_bias"),
        ("gru", "proj_size"),
        ("rnn", "layer_norm"),
        ("rnn", "reset_after"),
        ("lstm", "reset_after"),
        ("lstm", "nonlinearity"),
    ],
)
def test_options_of_another_cell_are_no_arguments(cell, foreign):
    with pytest.raises(TypeError, match=foreign):
        KINDS[cell](I, H, **{foreign: True})


@pytest.mark.parametrize(
    "name", ["peephole", "coupled", "clip", "layer_norm", "zoneout", "recurrent_dropout", "activations"]
)
def test_options_are_keywords(name):
    """A positional argument too many would otherwise become one of them."""
    import inspect

    assert inspect.signature(rf.LSTM).parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_layers_say_their_options():
    """`config`, from which files are read again, names every one of them."""
    for spec in SPECS:
        config = layer_of(spec, None, np.float32).config()
        for name in options(spec):
            assert name in config, (label(spec), name)


def test_a_refused_call_of_the_kernels_leaves_all_gradients_as_they_were():
    layer = rf.LSTM(3, 4, peephole=True, seed=0)
    _, _, tape = layer.forward(np.ones((2, 1, 3), np.float32))
    grads = {name: np.ones_like(layer.parameters[name]) for name in layer.parameters}
    grads["weight_peephole_l0"].flags.writeable = False
    call = BackwardCall(tape._traces[0], None, None, None, None, True)
    with pytest.raises(ValueError, match="peephole is read-only"):
        layer._parts[0].backward(call, grads)
    assert all((grad == 1).all() for grad in grads.values())
