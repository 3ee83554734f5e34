"""OpenVINO: a compiled model with inputs and outputs set once, so that a call copies nothing."""

from __future__ import annotations

from typing import Any

import openvino
from cases import Case
from rnnfast.cli.workload import Answer, Call, Problem, outputs

from peers.onnx_model import build, cannot


def version() -> str:
    return str(openvino.__version__).split("-")[0]


def lacks(case: Case) -> str:
    return cannot(case)


def prepare(problem: Problem, case: Case) -> tuple[Call, Answer]:
    # Without the second one, bfloat16 on machines that have it.
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": case.threads,
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(build(problem)), "CPU", settings).create_infer_request()
    # Copies that the tensors own: a tensor that shares an array's memory does not keep it alive.
    request.set_input_tensor(0, openvino.Tensor(problem.x))
    before = [openvino.Tensor(part) for part in problem.state]
    after = [request.get_output_tensor(1 + place) for place in range(len(before))]

    def set_states(states: list[Any], next_states: list[Any]) -> None:
        for place, (old, new) in enumerate(zip(states, next_states, strict=True)):
            request.set_input_tensor(1 + place, old)
            request.set_output_tensor(1 + place, new)

    set_states(before, after)

    def answer(_: Any) -> dict[str, Any]:
        arrays = [request.get_output_tensor(place).data.copy() for place in range(1 + len(after))]
        return outputs(arrays[0][:, 0], tuple(arrays[1:]))

    if case.mode == "inference":
        return request.infer, answer

    states = (before, after)

    def step() -> None:
        nonlocal states
        set_states(*states)
        request.infer()
        states = states[::-1]

    return step, answer
