"""ONNX Runtime as a witness of what PyTorch lacks: peepholes, coupled gates, clipping, activations, reset-before GRU.

Models of a single RNN, LSTM or GRU node, their attributes drawn by hypothesis: direction, lengths, biases, initial
states. ONNX has gates in the order i, o, f, c and z, r, h, and peepholes in the order i, o, f. Its `input_forget` makes
the forget gate 1 - i where ours makes the input gate 1 - f: with a sigmoid, negated weights are the same thing.
Both our layer and the reference that judges it elsewhere are compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tolerances
import variants
from compare import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import cast, check_results, infer, label, layer_of, random_inputs
from variants import ACTIVATIONS, Spec

onnx = pytest.importorskip("onnx", reason="onnx, which builds the models, is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime, the witness, is not installed")

# Our gates, in ONNX's order; peepholes likewise.
ORDER = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2], "coupled": [0, 2, 0, 1]}

# alpha and beta for those that have them. Softplus and Elu grow or bend; none is a default.
NAMED = {
    "Affine": ("Affine", 0.7, 0.1),
    "Elu": ("Elu", 0.6),
    "HardSigmoid": ("HardSigmoid", 0.3, 0.4),
    "LeakyRelu": ("LeakyRelu", 0.2),
    "ScaledTanh": ("ScaledTanh", 0.9, 1.2),
    "ThresholdedRelu": ("ThresholdedRelu", 0.2),
}
DEFAULTED = ("Elu", "HardSigmoid", "LeakyRelu")
# Gates that multiply a state by more than 1 make it grow, until float32 has no digits left to compare.
BOUNDED = ("HardSigmoid", "ScaledTanh", "Sigmoid", "Softsign", "Tanh")


def blocks(array: Any, gates: int) -> list[Any]:
    return np.split(array, gates, axis=0)


def rows(spec: Spec, array: Any) -> Any:
    """A weight or bias in ONNX's order of gates. Coupled: ONNX's input gate is our forget gate negated."""
    parts = blocks(array, spec.gates)
    if spec.coupled:
        f, g, o = parts
        return np.concatenate([-f, o, np.zeros_like(f), g])
    return np.concatenate([parts[k] for k in ORDER[spec.cell]])


def peepholes(spec: Spec, array: Any) -> Any:
    parts = blocks(array, spec.gates - 1)
    if spec.coupled:
        f, o = parts
        return np.concatenate([-f, o, np.zeros_like(f)])
    i, f, o = parts
    return np.concatenate([i, o, f])


def node_inputs(spec: Spec, inputs: dict[str, Any], lengths: Any, suffixes: list[str]) -> dict[str, Any]:
    """The node's inputs by ONNX's names; those that are not given are missing."""

    def each(convert: Any, name: str) -> Any:
        return np.stack([convert(spec, inputs[name + suffix]) for suffix in suffixes]).astype(np.float32)

    feeds = {"X": inputs["x"].astype(np.float32), "W": each(rows, "weight_ih"), "R": each(rows, "weight_hh")}
    if spec.bias:
        feeds["B"] = np.concatenate([each(rows, "bias_ih"), each(rows, "bias_hh")], axis=1)
    if lengths is not None:
        feeds["sequence_lens"] = np.asarray(lengths, np.int32)
    taken = [spec.suffixes.index(suffix) for suffix in suffixes]
    for name, ours in (("initial_h", "h0"), ("initial_c", "c0")):
        if inputs[ours] is not None:
            feeds[name] = inputs[ours][taken].astype(np.float32)
    if spec.peephole:
        feeds["P"] = each(peepholes, "weight_peephole")
    return feeds


def attributes(spec: Spec, directions: int) -> dict[str, Any]:
    chosen: dict[str, Any] = {"hidden_size": spec.hidden_size}
    if spec.cell == "rnn":
        chosen["activations"] = [{"tanh": "Tanh", "relu": "Relu"}[spec.nonlinearity]] * directions
    if spec.activations:
        named = [(a,) if isinstance(a, str) else a for a in spec.activations] * directions
        chosen["activations"] = [a[0] for a in named]
        # Each list holds the numbers of those activations only that take one.
        takes = [(*a[1:], *variants.DEFAULTS.get(a[0], ())[len(a) - 1 :]) for a in named]
        chosen["activation_alpha"] = [float(numbers[0]) for numbers in takes if numbers]
        chosen["activation_beta"] = [float(numbers[1]) for numbers in takes if len(numbers) > 1]
    if spec.clip is not None:
        chosen["clip"] = spec.clip
    if spec.cell == "gru":
        chosen["linear_before_reset"] = int(spec.reset_after)
    if spec.coupled:
        chosen["input_forget"] = 1
    return {name: value for name, value in chosen.items() if value not in ([], None)}


def onnx_results(spec: Spec, inputs: dict[str, Any], lengths: Any, direction: str) -> dict[str, Any]:
    suffixes = {"forward": ["_l0"], "reverse": ["_l0_reverse"], "bidirectional": ["_l0", "_l0_reverse"]}[direction]
    feeds = node_inputs(spec, inputs, lengths, suffixes)
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", *(["initial_c", "P"] if spec.cell == "lstm" else [])]
    outputs = ["Y", "Y_h", *(["Y_c"] if spec.cell == "lstm" else [])]
    node = onnx.helper.make_node(
        spec.cell.upper(),
        [name if name in feeds else "" for name in names],
        outputs,
        direction=direction,
        **attributes(spec, len(suffixes)),
    )
    kinds = {np.dtype(np.float32): onnx.TensorProto.FLOAT, np.dtype(np.int32): onnx.TensorProto.INT32}
    graph = onnx.helper.make_graph(
        [node],
        "one node",
        [onnx.helper.make_tensor_value_info(name, kinds[a.dtype], a.shape) for name, a in feeds.items()],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)])
    model.ir_version = 8
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    quiet.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), quiet, providers=["CPUExecutionProvider"])
    results = dict(zip(outputs, session.run(None, feeds), strict=True))
    T, _, N, _ = results["Y"].shape
    y = results["Y"].transpose(0, 2, 1, 3).reshape(T, N, -1)
    return {"y": y, "h_n": results["Y_h"], "c_n": results.get("Y_c")}


def half(spec: Spec, results: dict[str, Any], direction: str) -> dict[str, Any]:
    """The part of a bidirectional layer's results that a node of one direction gives."""
    if direction != "reverse":
        return results
    taken = {"y": results["y"][..., spec.hidden_size :], "h_n": results["h_n"][1:]}
    return {**taken, "c_n": None if results["c_n"] is None else results["c_n"][1:]}


def agree(spec: Spec, inputs: dict[str, Any], lengths: Any, direction: str) -> None:
    want = onnx_results(spec, inputs, lengths, direction)
    reference = variants.forward(spec, inputs, lengths)
    ours = infer(layer_of(spec, inputs, np.float32), spec, cast(inputs, np.float32), lengths=lengths)
    for who, results in (
        ("reference", {"y": reference.y, "h_n": reference.h_n, "c_n": reference.c_n}),
        ("rnnfast", ours),
    ):
        for name, got in half(spec, results, direction).items():
            if got is not None:
                assert_close(got, want[name], tolerances.ONNX_RUNTIME, f"{who}: {label(spec)} {direction} {name}")
    check_results(
        ours, reference, tolerances.variant(np.float32, spec, *inputs["x"].shape[:2]), np.float32, label(spec)
    )


@st.composite
def layers(draw: Any, cell: str) -> tuple[Spec, str]:
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    chosen: dict[str, Any] = {
        "bidirectional": direction != "forward",
        "bias": draw(st.booleans()),
        "clip": draw(st.sampled_from([None, None, 0.5, 1.25])),
    }
    count = {"rnn": 1, "gru": 2, "lstm": 3}[cell]
    if cell == "lstm":
        chosen["peephole"] = draw(st.booleans())
        chosen["coupled"] = draw(st.booleans())
    if cell == "gru":
        chosen["reset_after"] = draw(st.booleans())
    if draw(st.booleans()):
        names = [draw(st.sampled_from(sorted(ACTIVATIONS))) for _ in range(count)]
        if cell != "rnn":
            names[0] = draw(st.sampled_from(BOUNDED))
        named = [name if name in DEFAULTED and draw(st.booleans()) else NAMED.get(name, name) for name in names]
        if chosen.get("coupled"):
            # Only a sigmoid turns negated weights into one minus itself.
            named[0] = "Sigmoid"
        chosen["activations"] = tuple(named)
    elif cell == "rnn":
        chosen["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    sizes = draw(st.tuples(st.integers(1, 9), st.integers(2, 19)))
    return Spec(cell, *sizes, **chosen), direction


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@settings(max_examples=60)
@given(data=st.data())
def test_nodes_with_drawn_attributes_agree(cell, data):
    spec, direction = data.draw(layers(cell), label="layer")
    steps, batch = data.draw(st.integers(1, 7), label="T"), data.draw(st.integers(1, 6), label="N")
    lengths = None
    if data.draw(st.booleans(), label="ragged"):
        lengths = np.array(data.draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch), label="lengths"))
    rng = np.random.default_rng(steps)
    agree(
        spec, random_inputs(rng, spec, steps, batch, state=data.draw(st.booleans(), label="state")), lengths, direction
    )


ONE_OF_EACH = [
    Spec("lstm", 5, 9, peephole=True),
    Spec("lstm", 5, 9, coupled=True),
    Spec("lstm", 5, 9, coupled=True, peephole=True, clip=0.5),
    Spec("lstm", 5, 9, clip=0.5),
    Spec("gru", 5, 9, reset_after=False),
    Spec("gru", 5, 9, reset_after=True, clip=0.5),
    Spec("gru", 5, 9, reset_after=False, clip=0.5),
    Spec("rnn", 5, 9, clip=0.5),
    *(Spec("rnn", 5, 9, activations=(NAMED.get(name, name),)) for name in sorted(ACTIVATIONS)),
    *(Spec("rnn", 5, 9, activations=(name,)) for name in DEFAULTED),
]


@pytest.mark.parametrize("spec", ONE_OF_EACH, ids=label)
def test_every_option_alone_agrees(spec, rng):
    """Wide values, so that clipping and the bends of the activations are reached."""
    inputs = random_inputs(rng, spec, 6, 5)
    inputs["x"] = 2 * inputs["x"]
    agree(spec, inputs, np.array([6, 3, 1, 5, 6]), "forward")
