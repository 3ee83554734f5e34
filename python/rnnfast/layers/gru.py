"""Gated recurrent unit."""

from __future__ import annotations

from typing import Any

from rnnfast.layers.recurrent import RecurrentLayer


class GRU(RecurrentLayer):
    """Gated recurrent unit, reset-after form.

    ``r, z = sigmoid(W_ih x[t] + b_ih + W_hh h[t-1] + b_hh)``,
    ``n = tanh(W_in x[t] + b_in + r (W_hn h[t-1] + b_hn))``, ``h[t] = (1 - z) n + z h[t-1]``.

    Parameters
    ----------
    input_size : int
        Inputs I per step.
    hidden_size : int
        Hidden units H.
    bias : bool
        Whether there are biases.
    batch_first : bool
        Sequences come as (N, T, I) instead of (T, N, I). States are (1, N, H) either way.
    num_layers, dropout, bidirectional
        Reserved: only one layer, one direction and no dropout are supported yet.
    dtype : {"float32", "float64"}
        Of parameters, inputs and results.
    seed : int, optional
        For the initial parameters, uniform in (-1/sqrt(H), 1/sqrt(H)) as PyTorch's.

    Notes
    -----
    Parameters have PyTorch's names, shapes and gate order (r, z, n): ``weight_ih_l0`` (3H, I), ``weight_hh_l0``
    (3H, H), ``bias_ih_l0`` (3H,), ``bias_hh_l0`` (3H,).

    References
    ----------
    Cho et al. (2014), Learning phrase representations using RNN encoder-decoder, EMNLP.
    """

    _gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        super().__init__(
            "gru", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, seed
        )
