"""Keras as a witness: GRU with the reset before and after the product, other activations, and right-padded masks.

Keras runs in a process of its own (it chooses its backend on import), which gets parameters and inputs in a file and
answers with outputs and states. Keras has kernels as (I, G*H), the GRU's gates in the order z, r, h, and one bias, or a
row for each product with reset after.
"""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import numpy as np
import pytest
import tolerances
import variants
from compare import assert_close
from harness import python
from problems import infer, label, layer_of, random_inputs
from variants import Spec

if importlib.util.find_spec("keras") is None:
    pytest.skip("Keras, the witness, is not installed", allow_module_level=True)

T, N, I, H = 6, 5, 3, 7  # noqa: E741
LENGTHS = np.array([6, 1, 4, 6, 2])

# A layer, and what Keras calls its options.
CASES = [
    (Spec("rnn", I, H), {"activation": "tanh"}),
    (Spec("rnn", I, H, nonlinearity="relu"), {"activation": "relu"}),
    (Spec("rnn", I, H, activations=("Softsign",)), {"activation": "softsign"}),
    (Spec("lstm", I, H), {}),
    (Spec("lstm", I, H, activations=(("HardSigmoid", 1 / 6, 0.5), "Elu", "Elu")), {
        "recurrent_activation": "hard_sigmoid",
        "activation": "elu",
    }),
    (Spec("gru", I, H), {"reset_after": True}),
    (Spec("gru", I, H, reset_after=False), {"reset_after": False}),
    (Spec("gru", I, H, activations=(("HardSigmoid", 1 / 6, 0.5), "Softplus"), reset_after=False), {
        "recurrent_activation": "hard_sigmoid",
        "activation": "softplus",
        "reset_after": False,
    }),
]  # fmt: skip

PROGRAM = """
import json, os, sys
import numpy as np
import warnings
warnings.simplefilter("ignore")
import keras
kinds = {"rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}
given, found = np.load(sys.argv[1]), {}
for k, (cell, units, options) in enumerate(json.loads(sys.argv[3])):
    for masked in (False, True):
        layer = kinds[cell](units, return_sequences=True, return_state=True, **options)
        layer.zero_output_for_mask = True
        x, mask = given[f"{k} x"], given["mask"] if masked else None
        layer.build(x.shape)
        layer.set_weights([given[f"{k} weight {j}"] for j in range(3)])
        state = [given[f"{k} {name}"] for name in ("h0", "c0") if f"{k} {name}" in given]
        results = layer(x, initial_state=state if len(state) > 1 else state[0], mask=mask)
        for name, value in zip(("y", "h_n", "c_n"), results):
            found[f"{k} {masked} {name}"] = keras.ops.convert_to_numpy(value)
np.savez(sys.argv[2], **found)
"""


def order(spec: Spec, array: Any) -> Any:
    """Rows of our gates in Keras' order."""
    if spec.cell != "gru":
        return array
    r, z, n = np.split(array, 3)
    return np.concatenate([z, r, n])


def keras_weights(spec: Spec, inputs: dict[str, Any]) -> list[Any]:
    biases = [order(spec, inputs[name]) for name in ("bias_ih_l0", "bias_hh_l0")]
    two = spec.cell == "gru" and spec.reset_after
    return [
        order(spec, inputs["weight_ih_l0"]).T,
        order(spec, inputs["weight_hh_l0"]).T,
        np.stack(biases) if two else sum(biases),
    ]


@pytest.fixture(scope="module")
def problems() -> list[dict[str, Any]]:
    rng = np.random.default_rng(7)
    return [random_inputs(rng, spec, T, N) for spec, _ in CASES]


@pytest.fixture(scope="module")
def answers(problems: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("keras")
    arrays: dict[str, Any] = {"mask": np.arange(T) < LENGTHS[:, None]}
    for k, ((spec, _), inputs) in enumerate(zip(CASES, problems, strict=True)):
        arrays[f"{k} x"] = inputs["x"].swapaxes(0, 1)
        arrays |= {f"{k} {name}": inputs[name][0] for name in ("h0", "c0") if inputs[name] is not None}
        arrays |= {f"{k} weight {j}": weight for j, weight in enumerate(keras_weights(spec, inputs))}
    np.savez(folder / "given.npz", **arrays)
    asked = json.dumps([(spec.cell, spec.hidden_size, named) for spec, named in CASES])
    for backend in ("numpy", "torch"):
        result = python(
            PROGRAM,
            str(folder / "given.npz"),
            str(folder / "found.npz"),
            asked,
            env={"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""},
            timeout=120,
        )
        if result.returncode == 0:
            return dict(np.load(folder / "found.npz"))
    pytest.skip(f"Keras runs neither with its numpy backend nor with torch: {result.stderr[-300:]}")


@pytest.mark.parametrize("masked", [False, True], ids=["dense", "masked"])
@pytest.mark.parametrize("number", range(len(CASES)), ids=[label(spec) for spec, _ in CASES])
def test_outputs_and_states_agree_with_keras(number, masked, problems, answers):
    spec, inputs = CASES[number][0], problems[number]
    lengths = LENGTHS if masked else None
    reference = variants.forward(spec, inputs, lengths)
    ours = infer(layer_of(spec, inputs, np.float64), spec, inputs, lengths=lengths)
    for who, results in (
        ("reference", {"y": reference.y, "h_n": reference.h_n, "c_n": reference.c_n}),
        ("rnnfast", ours),
    ):
        for name, value in results.items():
            if value is not None:
                want = answers[f"{number} {masked} {name}"]
                mine = value.swapaxes(0, 1) if name == "y" else value[0]
                assert_close(mine, want, tolerances.KERAS, f"{who}: {name}")
