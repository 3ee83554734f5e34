"""Simple recurrent network."""

from __future__ import annotations

from typing import Any

from rnnfast.layers.recurrent import RecurrentLayer


class RNN(RecurrentLayer):
    """Elman's simple recurrent network: ``h[t] = f(W_ih x[t] + b_ih + W_hh h[t-1] + b_hh)``, f = tanh or relu.

    In the letters of the textbooks ``weight_ih_l0`` is U and ``weight_hh_l0`` is W; V is a `Dense` layer after it.

    Parameters
    ----------
    input_size : int
        Inputs I per step.
    hidden_size : int
        Hidden units H.
    nonlinearity : {"tanh", "relu"}
        The function f.
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
    Parameters have PyTorch's names and shapes: ``weight_ih_l0`` (H, I), ``weight_hh_l0`` (H, H), ``bias_ih_l0`` (H,),
    ``bias_hh_l0`` (H,).

    References
    ----------
    Elman (1990), Finding structure in time, Cognitive Science 14(2).
    """

    _gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNN: nonlinearity is {nonlinearity!r}; expected 'tanh' or 'relu'")
        self.nonlinearity = nonlinearity
        super().__init__(
            f"rnn_{nonlinearity}",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            dtype,
            seed,
        )

    def config(self) -> dict[str, Any]:
        return {**super().config(), "nonlinearity": self.nonlinearity}
