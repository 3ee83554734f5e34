"""What a tape shows: every hidden and cell state and every gate, and gradients fed into every cell state."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tolerances
import variants
from compare import assert_close, assert_same_bits
from problems import (
    cast,
    check_gradients,
    differentiate,
    drawn_masks,
    label,
    layer_of,
    packed,
    random_inputs,
    random_upstream,
    trace,
)
from variants import Spec

T, N, I, H = 6, 4, 3, 7  # noqa: E741
LENGTHS = np.array([6, 2, 0, 5])

SPECS = [
    Spec("rnn", I, H),
    Spec("gru", I, H),
    Spec("lstm", I, H),
    Spec("lstm", I, H, proj_size=3),
    Spec("lstm", I, H, coupled=True, peephole=True),
    Spec("lstm", I, H, layer_norm=True, clip=0.9),
    Spec("lstm", I, H, zoneout=(0.3, 0.4)),
    Spec("lstm", I, H, activations=("HardSigmoid", "Softsign", "LeakyRelu")),
    Spec("gru", I, H, reset_after=False, zoneout=0.3),
    Spec("gru", I, H, layer_norm=True),
    Spec("rnn", I, H, num_layers=2),
    Spec("gru", I, H, bidirectional=True),
    Spec("lstm", I, H, num_layers=2, bidirectional=True),
    Spec("lstm", I, H, num_layers=2, bidirectional=True, proj_size=3, recurrent_dropout=0.3),
]
by_spec = pytest.mark.parametrize("spec", SPECS, ids=label)
by_lstm = pytest.mark.parametrize("spec", [s for s in SPECS if s.cell == "lstm"], ids=label)


def seen(spec: Spec, states: variants.Result) -> dict:
    """The reference's states in the tape's form: without the axis of layers and directions if there is but one."""
    arrays = {name: getattr(states, name) for name in ("hidden_states", "cell_states", "gates")}
    if len(spec.suffixes) == 1:
        arrays = {name: None if a is None else a[:, :, 0] for name, a in arrays.items()}
    return arrays


@by_spec
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["dense", "ragged"])
def test_states_and_gates_are_the_reference(spec, lengths, dtype, isa, rng):
    inputs = random_inputs(rng, spec, T, N)
    layer = layer_of(spec, inputs, dtype, seed=1)
    results, tape = trace(layer, spec, cast(inputs, dtype), lengths=lengths)
    want = seen(spec, variants.forward(spec, inputs, lengths, masks=drawn_masks(tape)))
    tolerance = tolerances.variant(dtype, spec, T, N)
    valid = np.ones((T, N), bool) if lengths is None else np.arange(T)[:, None] < lengths
    for name, value in want.items():
        got = getattr(tape, name)
        assert (got is None) == (value is None), name
        if value is not None:
            assert got.shape == value.shape and got.dtype == dtype, (name, got.shape, value.shape)
            assert_close(got[valid], value[valid], tolerance, name)
    if len(spec.suffixes) == 1:
        assert_same_bits(tape.hidden_states[valid], results["y"][valid], "the hidden states are y")


@by_spec
def test_states_are_laid_out_as_the_input(spec, rng):
    """Batch first, and a single sequence."""
    inputs = cast(random_inputs(rng, spec, T, 1), np.float32)
    names = ("hidden_states", "cell_states", "gates")
    state = packed(spec, inputs["h0"], inputs["c0"])
    _, _, tape = layer_of(spec, inputs, np.float32, seed=1).forward(inputs["x"], state)
    want = {name: getattr(tape, name) for name in names}
    swapped = layer_of(spec, inputs, np.float32, seed=1, batch_first=True)
    _, _, tape = swapped.forward(np.ascontiguousarray(inputs["x"].swapaxes(0, 1)), state)
    for name, value in want.items():
        if value is not None:
            got = np.ascontiguousarray(getattr(tape, name))
            assert_same_bits(got, np.ascontiguousarray(value.swapaxes(0, 1)), name)
    single = {name: None if inputs[name] is None else inputs[name][:, 0] for name in ("h0", "c0")}
    layer = layer_of(spec, inputs, np.float32, seed=1)
    _, _, tape = layer.forward(inputs["x"][:, 0], packed(spec, single["h0"], single["c0"]))
    for name, value in want.items():
        if value is not None:
            assert_same_bits(np.ascontiguousarray(getattr(tape, name)), np.ascontiguousarray(value[:, 0]), name)


@by_spec
def test_states_shown_are_not_the_tape_s_to_change(spec, rng):
    """Looking at them, or writing into them where that is allowed, changes no gradient."""
    inputs = cast(random_inputs(rng, spec, T, N), np.float32)
    upstream = cast(random_upstream(rng, spec, T, N), np.float32)
    untouched = layer_of(spec, inputs, np.float32, seed=1)
    want = differentiate(untouched, spec, trace(untouched, spec, inputs)[1], upstream)
    layer = layer_of(spec, inputs, np.float32, seed=1)
    _, tape = trace(layer, spec, inputs)
    for name in ("hidden_states", "cell_states", "gates"):
        shown = getattr(tape, name)
        if shown is not None and shown.flags.writeable:
            shown[...] = 7
    got = differentiate(layer, spec, tape, upstream)
    for name, value in want.items():
        if value is not None:
            assert_same_bits(np.ascontiguousarray(got[name]), np.ascontiguousarray(value), name)


@by_spec
def test_states_and_gates_are_there_after_backward(spec, rng):
    inputs = cast(random_inputs(rng, spec, T, N), np.float32)
    layer = layer_of(spec, inputs, np.float32, seed=1)
    _, tape = trace(layer, spec, inputs)
    names = ("hidden_states", "cell_states", "gates")
    want = [copy.deepcopy(getattr(tape, name)) for name in names]
    differentiate(layer, spec, tape, cast(random_upstream(rng, spec, T, N), np.float32))
    for name, value in zip(names, want, strict=True):
        if value is None:
            assert getattr(tape, name) is None
        else:
            assert_same_bits(np.ascontiguousarray(getattr(tape, name)), np.ascontiguousarray(value), name)


@by_lstm
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["dense", "ragged"])
def test_gradients_of_every_cell_state_are_the_reference(spec, lengths, dtype, rng):
    inputs = random_inputs(rng, spec, T, N)
    upstream = random_upstream(rng, spec, T, N, cell_states=True)
    layer = layer_of(spec, inputs, dtype, seed=1)
    _, tape = trace(layer, spec, cast(inputs, dtype), lengths=lengths)
    masks = drawn_masks(tape)
    grads = differentiate(layer, spec, tape, cast(upstream, dtype))
    tolerance = tolerances.variant(dtype, spec, T, N)
    check_gradients(spec, inputs, upstream, grads, dtype, tolerance, masks=masks, lengths=lengths)


@by_lstm
def test_gradients_of_cell_states_alone(spec, dtype, isa, rng):
    """Nothing else is fed in: dy and dstate are None."""
    inputs = random_inputs(rng, spec, T, N)
    upstream = random_upstream(rng, spec, T, N, cell_states=True)
    layer = layer_of(spec, inputs, dtype, seed=1)
    _, tape = trace(layer, spec, cast(inputs, dtype))
    masks = drawn_masks(tape)
    dc = np.ascontiguousarray(upstream["dcell_states"], dtype)
    grads = layer.backward(tape, dcell_states=dc[:, :, 0] if len(spec.suffixes) == 1 else dc)
    given = {"dcell_states": upstream["dcell_states"]}
    named = {"x": grads.x, "h0": grads.state[0], "c0": grads.state[1], **grads.params}
    check_gradients(spec, inputs, given, named, dtype, tolerances.variant(dtype, spec, T, N), masks=masks)


def test_gradients_of_cell_states_are_laid_out_as_the_input(dtype, rng):
    spec = Spec("lstm", I, H, bidirectional=True)
    inputs = cast(random_inputs(rng, spec, T, N), dtype)
    dc = rng.standard_normal((T, N, 2, H)).astype(dtype)
    state = (inputs["h0"], inputs["c0"])
    layer = layer_of(spec, inputs, dtype)
    want = layer.backward(layer.forward(inputs["x"], state)[2], dcell_states=dc)
    swapped = layer_of(spec, inputs, dtype, batch_first=True)
    _, _, tape = swapped.forward(np.ascontiguousarray(inputs["x"].swapaxes(0, 1)), state)
    got = swapped.backward(tape, dcell_states=np.ascontiguousarray(dc.swapaxes(0, 1)))
    for name, value in want.params.items():
        assert_same_bits(got.params[name], value, name)
    single = layer.forward(inputs["x"][:, 0], tuple(np.ascontiguousarray(s[:, 0]) for s in state))[2]
    alone = layer.backward(single, dcell_states=np.ascontiguousarray(dc[:, 0]))
    assert_same_bits(np.ascontiguousarray(alone.x), np.ascontiguousarray(want.x[:, 0]), "dx")


def test_wrong_gradients_of_cell_states_are_refused(rng):
    for spec in (Spec("lstm", I, H), Spec("lstm", I, H, num_layers=2), Spec("gru", I, H), Spec("rnn", I, H)):
        inputs = cast(random_inputs(rng, spec, T, N), np.float32)
        layer = layer_of(spec, inputs, np.float32)
        shape = (T, N, 2, H) if spec.num_layers == 2 else (T, N, H)
        wrong = [np.zeros(shape, np.float64), np.zeros((*shape, 1), np.float32), np.zeros(shape[1:], np.float32), "abc"]
        if spec.cell != "lstm":
            wrong.append(np.zeros(shape, np.float32))
        for dc in wrong:
            _, tape = trace(layer, spec, inputs)
            with pytest.raises((TypeError, ValueError), match="dcell_states"):
                layer.backward(tape, dcell_states=dc)
