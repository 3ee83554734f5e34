"""Simple recurrent network."""

from __future__ import annotations

from typing import Any

from rnnfast._checks import number
from rnnfast.layers.options import CellOptions, parse_activations, parse_clip, parse_zoneout
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
    num_layers : int
        Layers L, each on top of the one before.
    bias : bool
        Whether there are biases.
    batch_first : bool
        Sequences come as (N, T, I) instead of (T, N, I). States are (D*L, N, H) either way.
    dropout : float
        Probability with which an output of a layer below the last is zeroed on the way to the next one, in `forward`
        only.
    bidirectional : bool
        Whether a second set of cells reads the sequence backwards; outputs stand side by side.
    activations : tuple of one function, optional
        Another f, by ONNX's name: "Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh",
        "HardSigmoid", "Elu", "Softsign" or "Softplus", or a tuple of a name and its alpha and beta.
    clip : float, optional
        Pre-activations are clamped to [-clip, clip].
    zoneout : float
        Probability with which a unit keeps its old state in a step of `forward`; a call takes the mean (Krueger et al.
        2017, Zoneout, ICLR).
    recurrent_dropout : float
        Probability with which a hidden unit is left out of the recurrent product, in `forward` only: one mask for all
        steps of a sequence (Gal & Ghahramani 2016, A theoretically grounded application of dropout in RNNs, NeurIPS).
    mask_ih, mask_hh : array_like of bool, optional
        Where there are connections: of the weights' shapes, or (H, I) and (H, H) for all gates alike. Absent ones have
        weight 0 and gradient 0, for ever. For one layer in one direction.
    learn_initial_state : bool
        Whether the state that a call without ``state`` begins with is learnt, too.
    dtype : {"float32", "float64"}
        Of parameters, inputs and results.
    seed : int, optional
        For the initial parameters, uniform in (-1/sqrt(H), 1/sqrt(H)) as PyTorch's, and for random masks.

    Notes
    -----
    Parameters have PyTorch's names and shapes: ``weight_ih_l0`` (H, I), ``weight_hh_l0`` (H, H), ``bias_ih_l0`` (H,),
    ``bias_hh_l0`` (H,), with ``_reverse`` for the second direction; ``initial_h_l0`` (H,) if the initial state
    is learnt.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a value is out of range, or options do not go together.

    References
    ----------
    Elman (1990), Finding structure in time, Cognitive Science 14(2).
    """

    _gates = 1
    _keeps_gates = False

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
        activations: Any = None,
        clip: float | None = None,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        mask_ih: Any = None,
        mask_hh: Any = None,
        learn_initial_state: bool = False,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNN: nonlinearity is {nonlinearity!r}; expected 'tanh' or 'relu'")
        if nonlinearity != "tanh" and activations is not None:
            raise ValueError(f"RNN: nonlinearity {nonlinearity!r} and activations are given; expected one of them")
        self.nonlinearity = nonlinearity
        super().__init__(
            f"rnn_{nonlinearity}",
            input_size,
            hidden_size,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            dtype=dtype,
            seed=seed,
            options=CellOptions(
                activations=parse_activations("RNN", activations, (nonlinearity.capitalize(),)),
                clip=parse_clip("RNN", clip),
                zoneout=parse_zoneout("RNN", zoneout, False),
                recurrent_dropout=number("RNN", "recurrent_dropout", recurrent_dropout, 0, 1),
            ),
            mask_ih=mask_ih,
            mask_hh=mask_hh,
            learn_initial_state=learn_initial_state,
        )

    def config(self) -> dict[str, Any]:
        return {**super().config(), "nonlinearity": self.nonlinearity}
