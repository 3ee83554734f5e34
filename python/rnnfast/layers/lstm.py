"""Long short-term memory."""

from __future__ import annotations

from typing import Any

from rnnfast.layers.recurrent import RecurrentLayer, _only


class LSTM(RecurrentLayer):
    """Long short-term memory with forget gate.

    ``i, f, o = sigmoid(a)``, ``g = tanh(a)`` with ``a = W_ih x[t] + b_ih + W_hh h[t-1] + b_hh``;
    ``c[t] = f c[t-1] + i g``, ``h[t] = o tanh(c[t])``.

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
    num_layers, dropout, bidirectional, proj_size
        Reserved: only one layer, one direction, no dropout and no projection are supported yet.
    dtype : {"float32", "float64"}
        Of parameters, inputs and results.
    seed : int, optional
        For the initial parameters, uniform in (-1/sqrt(H), 1/sqrt(H)) as PyTorch's.

    Notes
    -----
    Parameters have PyTorch's names, shapes and gate order (i, f, g, o): ``weight_ih_l0`` (4H, I), ``weight_hh_l0``
    (4H, H), ``bias_ih_l0`` (4H,), ``bias_hh_l0`` (4H,). The state is a tuple ``(h, c)``.

    References
    ----------
    Hochreiter & Schmidhuber (1997), Neural Computation 9(8).
    Gers, Schmidhuber & Cummins (2000), Neural Computation 12(10), forget gate.
    """

    _gates = 4
    _has_cell_state = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        _only("LSTM", "proj_size", proj_size, 0)
        super().__init__(
            "lstm", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, seed
        )
