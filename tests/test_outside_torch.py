"""PyTorch's own test inputs for RNN, GRU and LSTM (`torch.testing._internal.common_modules`), run on our layers.

Every module input: constructor arguments, a single sequence, with and without states. Outputs, states and gradients
agree with torch.nn's, and with PyTorch's own reference function where it gives one. Every error input: what PyTorch
refuses we refuse, with TypeError or ValueError.
"""

from __future__ import annotations

import warnings
from typing import Any

import hypothesis
import numpy as np
import pytest
import rnnfast as rf
import tolerances
from compare import assert_close

torch = pytest.importorskip("torch", reason="PyTorch, whose test inputs these are, is not installed")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    common_modules = pytest.importorskip(
        "torch.testing._internal.common_modules",
        reason="PyTorch's test inputs cannot be imported; they need the package expecttest",
        exc_type=ImportError,
    )

# The import above has loaded PyTorch's own hypothesis profile; the other tests are to keep ours.
hypothesis.settings.load_profile("rnnfast")

KINDS = {torch.nn.RNN: rf.RNN, torch.nn.GRU: rf.GRU, torch.nn.LSTM: rf.LSTM}
INFOS = {info.module_cls: info for info in common_modules.module_db if info.module_cls in KINDS}


def inputs_of(module: Any) -> list[Any]:
    torch.manual_seed(0)
    return INFOS[module].module_inputs_func(
        INFOS[module], device="cpu", dtype=torch.float64, requires_grad=True, training=True
    )


def errors_of(module: Any) -> list[Any]:
    return INFOS[module].module_error_inputs_func(
        INFOS[module], device="cpu", dtype=torch.float64, requires_grad=False, training=True
    )


def described(arguments: Any) -> str:
    named = [f"{name}={value}" for name, value in arguments.kwargs.items()]
    return ",".join([*map(str, arguments.args), *named])


def case_id(case: Any) -> str:
    return case.__name__ if isinstance(case, type) else described(case.constructor_input)


def error_id(case: Any) -> str:
    return case.__name__ if isinstance(case, type) else described(case.module_error_input.constructor_input)


def flat(state: Any) -> list[Any]:
    return list(state) if isinstance(state, tuple) else [state]


def as_numpy(tensor: Any) -> Any:
    return tensor.detach().numpy()


@pytest.mark.parametrize(
    ("module", "case"), [(module, case) for module in KINDS for case in inputs_of(module)], ids=case_id
)
def test_module_inputs_give_what_torch_gives(module, case, rng):
    arguments = case.constructor_input
    torch.manual_seed(1)
    theirs = module(*arguments.args, dtype=torch.float64, **arguments.kwargs)
    ours = KINDS[module](*arguments.args, dtype="float64", **arguments.kwargs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())

    x, *state = case.forward_input.args
    want, want_state = theirs(x, *state)
    own_state = None
    if state:
        own_state = tuple(map(as_numpy, flat(state[0])))
        own_state = own_state if module is torch.nn.LSTM else own_state[0]
    y, final, tape = ours.forward(as_numpy(x), own_state)
    assert_close(y, as_numpy(want), tolerances.TORCH, "y")
    for got, value in zip(flat(final), flat(want_state), strict=True):
        assert_close(got, as_numpy(value), tolerances.TORCH, "state")
    if case.reference_fn is not None:
        reference, _ = case.reference_fn(theirs, x, *state)
        assert_close(y, as_numpy(reference), tolerances.TORCH, "y of PyTorch's reference")
    inferred, _ = ours(as_numpy(x), own_state)
    assert np.array_equal(inferred, y)

    dy = rng.standard_normal(y.shape)
    dstate = [rng.standard_normal(value.shape) for value in flat(final)]
    total = (torch.tensor(dy) * want).sum()
    for weight, value in zip(dstate, flat(want_state), strict=True):
        total = total + (torch.tensor(weight) * value).sum()
    leaves = [x, *(flat(state[0]) if state else [])]
    wanted = torch.autograd.grad(total, [*leaves, *theirs.parameters()])
    grads = ours.backward(tape, dy, tuple(dstate) if module is torch.nn.LSTM else dstate[0])
    got_all = [grads.x, *(flat(grads.state) if state else []), *grads.params.values()]
    for k, (got, value) in enumerate(zip(got_all, wanted, strict=True)):
        assert_close(np.asarray(got), as_numpy(value), tolerances.TORCH, f"gradient {k}")


@pytest.mark.parametrize(
    ("module", "case"), [(module, case) for module in KINDS for case in errors_of(module)], ids=error_id
)
def test_error_inputs_are_refused(module, case):
    arguments = case.module_error_input.constructor_input
    given = {name: value for name, value in arguments.kwargs.items() if name != "device"}
    if "dtype" in given:
        given["dtype"] = str(given["dtype"]).removeprefix("torch.")
    if case.error_on is common_modules.ModuleErrorEnum.CONSTRUCTION_ERROR:
        with pytest.raises((TypeError, ValueError)):
            KINDS[module](*arguments.args, **given)
        return
    layer = KINDS[module](*arguments.args, **given)
    inputs = [as_numpy(value) for value in case.module_error_input.forward_input.args]
    with pytest.raises((TypeError, ValueError)):
        layer(*inputs)
    with pytest.raises((TypeError, ValueError)):
        layer.forward(*inputs)


def test_there_are_as_many_inputs_as_pytorch_has_had():
    """An import that finds nothing would pass everything above."""
    assert {module.__name__: len(inputs_of(module)) for module in KINDS} == {"RNN": 32, "GRU": 16, "LSTM": 32}
    assert all(len(errors_of(module)) >= 10 for module in KINDS)
