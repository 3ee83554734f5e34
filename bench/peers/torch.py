"""PyTorch: torch.nn layers; their cells for single steps, where they are faster."""

from __future__ import annotations

from typing import Any

import torch
from cases import Case
from rnnfast.cli.workload import STATE_GRADIENTS, Answer, Call, Problem, by_name, outputs

LAYERS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
CELLS = {"rnn": torch.nn.RNNCell, "lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}


def version() -> str:
    return str(torch.__version__)


def lacks(case: Case) -> str:
    return ""


def prepare(problem: Problem, case: Case) -> tuple[Call, Answer]:
    torch.set_num_threads(case.threads)
    x, dy = torch.from_numpy(problem.x), torch.from_numpy(problem.dy)
    state = tuple(torch.from_numpy(part) for part in problem.state)
    if case.mode == "step":
        return _step(problem, x[0], tuple(part[0] for part in state))
    layer = _with_parameters(LAYERS[problem.cell], problem, "")
    start = state if problem.cell == "lstm" else state[0]

    if case.mode == "inference":

        def infer() -> Any:
            with torch.inference_mode():
                return layer(x, start)

        return infer, lambda result: {name: array.numpy() for name, array in outputs(*result).items()}

    for array in (x, *state):
        array.requires_grad_()
    arrays = {"dx": x, **by_name(STATE_GRADIENTS, state), **dict(layer.named_parameters())}
    wanted = tuple(arrays.values())

    def train() -> Any:
        y, last = layer(x, start)
        return y, last, torch.autograd.grad(y, wanted, dy)

    def answer(result: Any) -> dict[str, Any]:
        y, last, grads = result
        found = {**outputs(y, last), **dict(zip(arrays, grads, strict=True))}
        return {name: array.detach().numpy() for name, array in found.items()}

    return train, answer


def _step(problem: Problem, x_t: Any, state: tuple[Any, ...]) -> tuple[Call, Answer]:
    cell = _with_parameters(CELLS[problem.cell], problem, "_l0")
    is_lstm = problem.cell == "lstm"
    carried = state if is_lstm else state[0]

    def step() -> Any:
        nonlocal carried
        with torch.inference_mode():
            carried = cell(x_t, carried)
        return carried

    return step, lambda result: {"y": (result[0] if is_lstm else result)[None].numpy()}


def _with_parameters(kind: Any, problem: Problem, suffix: str) -> Any:
    module = kind(problem.sizes.I, problem.sizes.H, dtype=getattr(torch, problem.dtype.name))
    # Copies, since a training step of the one must not see memory of the other.
    module.load_state_dict(
        {name.removesuffix(suffix): torch.tensor(array) for name, array in problem.parameters.items()}
    )
    return module
