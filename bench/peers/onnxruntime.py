"""ONNX Runtime: inputs and outputs bound once, so that a call copies nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from cases import Case
from rnnfast.cli.workload import Answer, Call, Problem, outputs

from peers.onnx_model import build, cannot


def version() -> str:
    return str(onnxruntime.__version__)


def lacks(case: Case) -> str:
    return cannot(case)


def prepare(problem: Problem, case: Case) -> tuple[Call, Answer]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(build(problem), options, providers=["CPUExecutionProvider"])
    value = onnxruntime.OrtValue.ortvalue_from_numpy
    x = value(problem.x)
    # Copies, since values share the memory of arrays, and steps write here.
    before = [value(part.copy()) for part in problem.state]
    results = [value(np.empty(output.shape, problem.dtype)) for output in session.get_outputs()]
    y, after = results[0], results[1:]

    def bound(states: list[Any], next_states: list[Any]) -> Any:
        binding = session.io_binding()
        for node, array in zip(session.get_inputs(), [x, *states], strict=True):
            binding.bind_ortvalue_input(node.name, array)
        for node, array in zip(session.get_outputs(), [y, *next_states], strict=True):
            binding.bind_ortvalue_output(node.name, array)
        return binding

    there = bound(before, after)

    def answer(_: Any) -> dict[str, Any]:
        arrays = [array.numpy().copy() for array in results]
        return outputs(arrays[0][:, 0], tuple(arrays[1:]))

    if case.mode == "inference":
        return lambda: session.run_with_iobinding(there), answer

    # The state goes to and fro between two sets of arrays.
    bindings = (there, bound(after, before))
    turn = 0

    def step() -> None:
        nonlocal turn
        session.run_with_iobinding(bindings[turn])
        turn = 1 - turn

    return step, answer
