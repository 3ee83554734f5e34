"""A layer as an ONNX model, for the peers that run those."""

from __future__ import annotations

import numpy as np
from cases import Case
from onnx import helper, numpy_helper
from rnnfast._arrays import Array
from rnnfast.cli.workload import Problem

OPERATORS = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}
# ONNX has the gates in the order i, o, f, c (LSTM) and z, r, h (GRU).
GATE_ORDER = {"rnn": [0], "lstm": [0, 3, 1, 2], "gru": [1, 0, 2]}
OPSET, IR_VERSION = 17, 8


def cannot(case: Case) -> str:
    """Why programs that run such a model cannot do a case."""
    if case.mode == "training":
        return "does not train"
    return "" if case.dtype == "float32" else "float32 only"


def build(problem: Problem) -> bytes:
    """Inputs x (T, N, I), h and c (1, N, H); outputs y (T, 1, N, H), h_n and c_n. Static shapes."""
    T, N, I, H = problem.sizes  # noqa: E741
    states = ("h", "c")[: len(problem.state)]
    shapes = {"x": (T, N, I), "y": (T, 1, N, H)}
    kind = helper.np_dtype_to_tensor_dtype(problem.dtype)

    def value(name: str) -> object:
        return helper.make_tensor_value_info(name, kind, shapes.get(name, (1, N, H)))

    biases = [_gates(problem, "bias_ih_l0"), _gates(problem, "bias_hh_l0")]
    weights = {
        "W": _gates(problem, "weight_ih_l0"),
        "R": _gates(problem, "weight_hh_l0"),
        "B": np.concatenate(biases, axis=1),
    }
    results = ("y", *(f"{name}_n" for name in states))
    node = helper.make_node(
        OPERATORS[problem.cell],
        ["x", *weights, "", *states],
        results,
        hidden_size=H,
        **({"linear_before_reset": 1} if problem.cell == "gru" else {}),
    )
    graph = helper.make_graph(
        [node],
        "layer",
        [value(name) for name in ("x", *states)],
        [value(name) for name in results],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(model.SerializeToString())


def _gates(problem: Problem, name: str) -> Array:
    """A parameter with its gates in ONNX's order, and an axis for the direction."""
    array, order = problem.parameters[name], GATE_ORDER[problem.cell]
    gates = array.reshape(len(order), problem.sizes.H, *array.shape[1:])
    return np.ascontiguousarray(gates[order].reshape(1, *array.shape))
