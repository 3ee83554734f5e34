"""The reference of the options proves itself: against PyTorch, `reference.py`, closed forms and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tolerances
import variants
from compare import assert_close
from problems import label, problem, random_inputs, random_upstream
from variants import ACTIVATIONS, Spec

STRUCTURES = [
    Spec("rnn", 3, 5, nonlinearity="relu", num_layers=2),
    Spec("rnn", 3, 5, bidirectional=True, num_layers=3),
    Spec("gru", 3, 5, bidirectional=True, num_layers=2),
    Spec("gru", 3, 5, bias=False),
    Spec("lstm", 3, 5, bidirectional=True, num_layers=2, bias=False),
    Spec("lstm", 3, 5, bidirectional=True, num_layers=2, proj_size=2),
]
OPTIONS = [
    Spec("lstm", 3, 5, peephole=True, clip=0.8),
    Spec("lstm", 3, 5, coupled=True, peephole=True, bidirectional=True),
    Spec("lstm", 3, 5, layer_norm=True, zoneout=(0.2, 0.3)),
    Spec("gru", 3, 5, reset_after=False, zoneout=0.2, num_layers=2),
    Spec("gru", 3, 5, layer_norm=True, learn_initial_state=True),
    Spec("rnn", 3, 5, activations=(("Softsign"),), clip=0.8),
]
LENGTHS = np.array([4, 0, 6, 1])


@pytest.mark.parametrize("lengths", [None, np.array([4, 1, 6, 3])], ids=["dense", "ragged"])
@pytest.mark.parametrize("spec", STRUCTURES, ids=label)
def test_structure_is_that_of_pytorch(spec, lengths, rng):
    torch = pytest.importorskip("torch", reason="PyTorch, the extra witness, is not installed")
    from torch_peer import torch_layer, torch_results

    inputs, upstream = problem(rng, spec, 6, 4)
    want = torch_results(torch, torch_layer(torch, spec, inputs), spec, inputs, upstream, lengths)
    got = variants.forward(spec, inputs, lengths)
    for name in ("y", "h_n", "c_n"):
        if want[name] is not None:
            assert_close(getattr(got, name), want[name], tolerances.TORCH, name)
    for name, value in variants.gradients(spec, inputs, upstream, lengths=lengths).items():
        assert_close(value, want[f"d{name}"], tolerances.TORCH, f"d{name}")


@pytest.mark.parametrize("cell", reference.GATES)
def test_plain_cells_are_those_of_the_other_reference(cell, rng):
    kind, _, nonlinearity = cell.partition("_")
    spec = Spec(kind, 3, 5, nonlinearity=nonlinearity or "tanh")
    inputs, _ = problem(rng, spec, 6, 4)
    theirs = {"x": inputs["x"], "h0": inputs["h0"][0], "c0": None if inputs["c0"] is None else inputs["c0"][0]}
    theirs |= {name: inputs[f"{long}_l0"] for name, long in (("w_ih", "weight_ih"), ("w_hh", "weight_hh"))}
    theirs |= {name: inputs[f"{long}_l0"] for name, long in (("b_ih", "bias_ih"), ("b_hh", "bias_hh"))}
    y, h_n, _ = reference.forward(cell, theirs)
    got = variants.forward(spec, inputs)
    assert_close(got.y, y, 1e-15, "y")
    assert_close(got.h_n[0], h_n, 1e-15, "h_n")


@pytest.mark.parametrize("spec", [*STRUCTURES, *OPTIONS], ids=label)
def test_derivative_is_that_of_finite_differences(spec, rng):
    """Along one direction of all inputs at once, with lengths and resets."""
    T, N = 6, 4
    inputs, upstream = random_inputs(rng, spec, T, N), random_upstream(rng, spec, T, N, cell_states=True)
    resets = rng.random((T, N)) < 0.3
    given = {name: a for name, a in inputs.items() if a is not None}
    directions = {name: rng.standard_normal((1, *a.shape)) for name, a in given.items()}
    how = {"lengths": LENGTHS, "resets": resets}
    slope = sum(d[0] for d in variants.derivatives(spec, inputs, upstream, directions, **how).values())

    def value(step: float) -> float:
        moved = {name: a + step * directions[name][0] for name, a in given.items()}
        return float(variants.loss(variants.forward(spec, {**inputs, **moved}, **how), upstream))

    h = 1e-5
    central = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
    assert central == pytest.approx(slope, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize(
    ("named", "points"),
    [
        ("Relu", {-1.0: 0.0, 0.5: 0.5}),
        ("Tanh", {0.5: 0.46211715726000975}),
        ("Sigmoid", {0.0: 0.5, 2.0: 0.8807970779778823}),
        (("Affine", 2.0, 3.0), {0.5: 4.0}),
        ("LeakyRelu", {-1.0: -0.01, 2.0: 2.0}),
        (("LeakyRelu", 0.2), {-1.0: -0.2}),
        ("ThresholdedRelu", {0.9: 0.0, 1.5: 1.5}),
        (("ScaledTanh", 2.0, 0.5), {1.0: 0.9242343145200195}),
        ("HardSigmoid", {-3.0: 0.0, 0.5: 0.6, 3.0: 1.0}),
        (("HardSigmoid", 0.1), {0.5: 0.55}),
        ("Elu", {-1.0: -0.6321205588285577, 2.0: 2.0}),
        ("Softsign", {-1.0: -0.5, 3.0: 0.75}),
        ("Softplus", {0.0: 0.6931471805599453}),
    ],
    ids=str,
)
def test_activations_have_the_values_of_onnx(named, points):
    for a, want in points.items():
        assert variants.activation(named)(np.array(a)) == pytest.approx(want, rel=1e-15)


def test_all_eleven_activations_are_there():
    assert len(ACTIVATIONS) == 11


def test_normalised_rows_have_mean_zero_and_variance_one(rng):
    rows = variants.standardised(rng.standard_normal((7, 64)) * 3 + 5)
    assert np.allclose(rows.mean(axis=-1), 0, atol=1e-15)
    assert np.allclose(rows.var(axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_normalised_cells_are_those_of_torch_s_functions(cell, rng):
    """One step in the equations of Ba et al. (2016) as haste has them, with PyTorch's layer_norm and its gradient."""
    torch = pytest.importorskip("torch", reason="PyTorch, the extra witness, is not installed")
    spec = Spec(cell, 3, 5, layer_norm=True)
    inputs, upstream = problem(rng, spec, 1, 4)
    p = {name: torch.tensor(a, requires_grad=True) for name, a in inputs.items() if a is not None}

    def norm(a, weight, bias=None):
        return torch.nn.functional.layer_norm(a, a.shape[-1:], weight, bias, eps=1e-5)

    x, h = p["x"][0], p["h0"][0]
    from_x = norm(x @ p["weight_ih_l0"].T, p["layer_norm_ih_l0"]) + p["bias_ih_l0"]
    from_h = norm(h @ p["weight_hh_l0"].T, p["layer_norm_hh_l0"]) + p["bias_hh_l0"]
    total = 0.0
    if cell == "lstm":
        i, f, g, o = (from_x + from_h).split(5, dim=-1)
        c = f.sigmoid() * p["c0"][0] + i.sigmoid() * g.tanh()
        h = o.sigmoid() * norm(c, p["layer_norm_c_weight_l0"], p["layer_norm_c_bias_l0"]).tanh()
        total = (torch.tensor(upstream["dc_n"][0]) * c).sum()
    else:
        r, z = (from_x + from_h)[..., :10].sigmoid().split(5, dim=-1)
        n = (from_x[..., 10:] + r * from_h[..., 10:]).tanh()
        h = (1 - z) * n + z * h
    total = total + (torch.tensor(upstream["dy"][0] + upstream["dh_n"][0]) * h).sum()
    total.backward()
    assert_close(variants.forward(spec, inputs).y[0], h.detach().numpy(), tolerances.TORCH, "y")
    for name, value in variants.gradients(spec, inputs, upstream).items():
        assert_close(value, p[name].grad.numpy(), tolerances.TORCH, f"d{name}")


def test_zoneout_masks_average_to_the_expectation(rng):
    """One step: h is linear in its mask, so the mean over all masks is inference's."""
    spec = Spec("lstm", 3, 2, zoneout=(0.25, 0.5))
    inputs = random_inputs(rng, spec, 1, 1)
    mean = 0.0
    for bits in range(4):
        kept = np.array([bits & 1, bits >> 1], float)
        weight = np.prod(np.where(kept == 1, 0.25, 0.75))
        masks = {"zoneout_h_l0": kept.reshape(1, 1, 2), "zoneout_c_l0": np.zeros((1, 1, 2))}
        mean = mean + weight * variants.forward(spec, inputs, masks=masks).y
    assert_close(mean, variants.forward(spec, inputs).y, 1e-15, "y")


def test_padding_is_not_read(rng):
    spec = Spec("lstm", 3, 5, bidirectional=True, num_layers=2)
    inputs, upstream = problem(rng, spec, 6, 4)
    want = variants.gradients(spec, inputs, upstream, lengths=LENGTHS)
    for n, length in enumerate(LENGTHS):
        inputs["x"][length:, n] = np.nan
    result = variants.forward(spec, inputs, LENGTHS)
    assert np.isfinite(result.y).all() and not result.y[4:, 0].any() and not result.y[:, 1].any()
    assert np.array_equal(result.h_n[:, 1], inputs["h0"][:, 1])
    got = variants.gradients(spec, inputs, upstream, lengths=LENGTHS)
    assert np.array_equal(got["weight_hh_l1_reverse"], want["weight_hh_l1_reverse"])
