"""PyTorch's layers run on the problems of `problems.py`: the other witness of structure and lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from problems import packed, unpacked
from variants import Spec


def torch_layer(torch: Any, spec: Spec, parameters: dict[str, Any] | None = None, **extra: Any) -> Any:
    """The float64 layer of PyTorch with a spec's structure, and its parameters."""
    kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[spec.cell]
    own: dict[str, Any] = {"rnn": {"nonlinearity": spec.nonlinearity}, "lstm": {"proj_size": spec.proj_size}}
    layer = kind(
        spec.input_size,
        spec.hidden_size,
        num_layers=spec.num_layers,
        bidirectional=spec.bidirectional,
        bias=spec.bias,
        dtype=torch.float64,
        **own.get(spec.cell, {}),
        **extra,
    )
    if parameters is not None:
        layer.load_state_dict({name: torch.tensor(parameters[name]) for name in spec.shapes()})
    return layer


def torch_results(
    torch: Any, layer: Any, spec: Spec, inputs: dict[str, Any], upstream: dict[str, Any], lengths: Any = None
) -> dict[str, Any]:
    """Results, and gradients named d and the input; a ragged batch goes through PyTorch's packed sequences."""
    x, h0, c0 = (None if inputs[name] is None else torch.tensor(inputs[name]) for name in ("x", "h0", "c0"))
    leaves = {"x": x, "h0": h0, "c0": c0}
    for leaf in leaves.values():
        if leaf is not None:
            leaf.requires_grad_()
    state = packed(spec, h0, c0)
    layer.zero_grad()
    if lengths is None:
        y, final = layer(x, state)
    else:
        time = 1 if layer.batch_first else 0
        rnn = torch.nn.utils.rnn
        ragged = rnn.pack_padded_sequence(x, lengths, batch_first=layer.batch_first, enforce_sorted=False)
        y, final = layer(ragged, state)
        y, _ = rnn.pad_packed_sequence(y, batch_first=layer.batch_first, total_length=x.shape[time])
    h_n, c_n = unpacked(spec, final)
    results = {"y": y, "h_n": h_n, "c_n": c_n}
    total = sum(
        (torch.tensor(upstream[f"d{name}"]) * value).sum() for name, value in results.items() if value is not None
    )
    total.backward()
    grads = {name: None if leaf is None else leaf.grad for name, leaf in leaves.items()}
    grads |= {name: parameter.grad for name, parameter in layer.named_parameters()}
    return {
        name: None if value is None else np.asarray(value.detach())
        for name, value in {**results, **{f"d{name}": value for name, value in grads.items()}}.items()
    }
