"""PyTorch as an extra witness, never the judge: forward, every gradient, and parameters both ways, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from cases import CELLS
from compare import assert_close, assert_same_bits
from harness import PARAMETERS, layer_with, named_gradients, new_layer, pack_state, random_problem, unpack_state

torch = pytest.importorskip("torch", reason="PyTorch, the extra witness, is not installed")

by_cell = pytest.mark.parametrize("cell", CELLS)
SIZES = [(1, 1, 1, 1), (5, 3, 4, 7), (40, 2, 9, 16), (11, 17, 33, 65), (6, 33, 130, 96), (4, 8, 100, 256)]


def torch_layer(cell: str, input_size: int, hidden_size: int, **options):
    if cell.startswith("rnn_"):
        return torch.nn.RNN(input_size, hidden_size, nonlinearity=cell[4:], **options)
    return {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](input_size, hidden_size, **options)


def as_torch(state):
    """A copy as leaves that collect gradients."""
    if isinstance(state, tuple):
        return tuple(map(as_torch, state))
    return torch.tensor(state, requires_grad=True)


def torch_gradients(theirs, x, state, upstream) -> tuple[list, dict]:
    """(y, h_n, c_n), and gradients under our names."""
    x, state = as_torch(x), as_torch(state)
    y, final = theirs(x, state)
    h_n, c_n = unpack_state(final)
    total = (torch.tensor(upstream["dy"]) * y).sum() + (torch.tensor(upstream["dh_n"]) * h_n).sum()
    if c_n is not None:
        total = total + (torch.tensor(upstream["dc_n"]) * c_n).sum()
    total.backward()
    dh0, dc0 = unpack_state(tuple(s.grad for s in state) if isinstance(state, tuple) else state.grad)
    parameters = {ours: getattr(theirs, name).grad for ours, name in PARAMETERS.items() if hasattr(theirs, name)}
    grads = {"x": x.grad, "h0": dh0, "c0": dc0, **parameters}
    outputs = [None if a is None else a.detach().numpy() for a in (y, h_n, c_n)]
    return outputs, {name: None if g is None else g.numpy() for name, g in grads.items()}


@by_cell
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_outputs_and_gradients_agree(cell, sizes, isa, rng):
    T, N, input_size, H = sizes
    inputs, upstream = random_problem(rng, cell, T, N, input_size, H, np.float64)
    layer = layer_with(cell, inputs, np.float64)
    theirs = torch_layer(cell, input_size, H, dtype=torch.float64)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in layer.state_dict().items()})
    state = pack_state(inputs["h0"], inputs["c0"])
    want, want_grads = torch_gradients(theirs, inputs["x"], state, upstream)

    y, final, tape = layer.forward(inputs["x"], state)
    for name, got, value in zip(("y", "h_n", "c_n"), (y, *unpack_state(final)), want, strict=True):
        if value is not None:
            assert_close(got, value, tolerances.TORCH, name)
    grads = named_gradients(layer.backward(tape, upstream["dy"], pack_state(upstream["dh_n"], upstream["dc_n"])))
    for name, value in want_grads.items():
        if value is not None:
            assert_close(grads[name], value, tolerances.TORCH, f"d{name}")


@by_cell
@pytest.mark.parametrize("bias", [True, False])
def test_state_dict_goes_both_ways(cell, bias, dtype):
    """The same names in the same order, the same shapes; torch tensors are accepted as they are, with gradients on."""
    theirs = torch_layer(cell, 4, 9, bias=bias, dtype=getattr(torch, dtype.name))
    ours = new_layer(cell, 4, 9, bias=bias, dtype=dtype)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    ours.load_state_dict(dict(theirs.named_parameters()))
    for name, value in theirs.state_dict().items():
        assert_same_bits(ours.state_dict()[name], value.numpy(), name)
    back = torch_layer(cell, 4, 9, bias=bias, dtype=getattr(torch, dtype.name))
    back.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state_dict().items()})
    for name, value in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


@by_cell
def test_parameters_with_gradients_go_into_masked_layers(cell, dtype):
    theirs = torch_layer(cell, 4, 9, dtype=getattr(torch, dtype.name))
    mask = np.eye(9, dtype=bool)
    ours = new_layer(cell, 4, 9, mask_hh=mask, dtype=dtype)
    given = dict(theirs.named_parameters())
    with pytest.raises(ValueError, match=r"load_state_dict.*weight_hh_l0.*mask_hh"):
        ours.load_state_dict(given)
    with torch.no_grad():
        given["weight_hh_l0"][~torch.tensor(np.tile(mask, (len(given["weight_hh_l0"]) // 9, 1)))] = 0
    ours.load_state_dict(given)
    assert_same_bits(ours.state_dict()["weight_hh_l0"], given["weight_hh_l0"].detach().numpy(), "weight_hh_l0")


@by_cell
def test_tensors_are_accepted_as_input(cell, dtype, rng):
    inputs, _ = random_problem(rng, cell, 3, 2, 4, 5, dtype)
    layer = layer_with(cell, inputs, dtype)
    state = pack_state(inputs["h0"], inputs["c0"])
    tensors = tuple(map(torch.from_numpy, state)) if cell == "lstm" else torch.from_numpy(state)
    y, _ = layer(torch.from_numpy(inputs["x"]), tensors)
    assert isinstance(y, np.ndarray)
    assert_same_bits(y, layer(inputs["x"], state)[0], "y")


@by_cell
def test_batch_first_means_the_same(cell, rng):
    inputs, _ = random_problem(rng, cell, 5, 3, 4, 6, np.float64)
    layer = layer_with(cell, inputs, np.float64, batch_first=True)
    theirs = torch_layer(cell, 4, 6, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in layer.state_dict().items()})
    x = np.ascontiguousarray(inputs["x"].swapaxes(0, 1))
    with torch.no_grad():
        want, want_state = theirs(torch.tensor(x))
    got, state = layer(x)
    assert_close(got, want.numpy(), tolerances.TORCH, "y")
    assert_close(unpack_state(state)[0], unpack_state(want_state)[0].numpy(), tolerances.TORCH, "h_n")
