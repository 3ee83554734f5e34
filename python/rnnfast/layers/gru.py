"""Gated recurrent unit."""

from __future__ import annotations

from typing import Any

from rnnfast._checks import number
from rnnfast.layers.options import CellOptions, parse_activations, parse_clip, parse_flag, parse_zoneout
from rnnfast.layers.recurrent import RecurrentLayer


class GRU(RecurrentLayer):
    """Gated recurrent unit; the reset gate acts after the recurrent product, as PyTorch's and cuDNN's.

    ``r, z = sigmoid(W_ih x[t] + b_ih + W_hh h[t-1] + b_hh)``,
    ``n = tanh(W_in x[t] + b_in + r (W_hn h[t-1] + b_hn))``, ``h[t] = (1 - z) n + z h[t-1]``.

    Parameters
    ----------
    input_size : int
        Inputs I per step.
    hidden_size : int
        Hidden units H.
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
    reset_after : bool
        False: the reset gate acts before the product, ``n = tanh(W_in x[t] + b_in + W_hn (r h[t-1]) + b_hn)``, as in
        Cho et al. and as ONNX's default.
    clip : float, optional
        Pre-activations of r, z and n are clamped to [-clip, clip].
    layer_norm : bool
        ``W_ih x`` and ``W_hh h`` are normalised, each over the 3H numbers of a step with a learnt gain, before biases
        are added; variance plus 1e-5 (Ba et al. 2016, arXiv 1607.06450). Needs ``reset_after``.
    zoneout : float
        Probability with which a unit keeps its old state in a step of `forward`; a call takes the mean (Krueger et al.
        2017, Zoneout, ICLR).
    recurrent_dropout : float
        Probability with which a hidden unit is left out of the recurrent product, in `forward` only: one mask for all
        steps of a sequence (Gal & Ghahramani 2016, A theoretically grounded application of dropout in RNNs, NeurIPS).
    activations : tuple of two functions, optional
        f (of r and z) and g (of n), in place of sigmoid and tanh, by ONNX's names: "Relu", "Tanh", "Sigmoid", "Affine",
        "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu", "Softsign" or "Softplus", or a tuple of a
        name and its alpha and beta.
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
    Parameters have PyTorch's names, shapes and gate order (r, z, n): ``weight_ih_l0`` (3H, I), ``weight_hh_l0``
    (3H, H), ``bias_ih_l0`` (3H,), ``bias_hh_l0`` (3H,), with ``_reverse`` for the second direction. With options also
    ``layer_norm_ih_l0`` and ``layer_norm_hh_l0`` (3H,), ``initial_h_l0`` (H,).

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a value is out of range, or options do not go together.

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
        reset_after: bool = True,
        clip: float | None = None,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        activations: Any = None,
        mask_ih: Any = None,
        mask_hh: Any = None,
        learn_initial_state: bool = False,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        options = CellOptions(
            activations=parse_activations("GRU", activations, ("Sigmoid", "Tanh")),
            clip=parse_clip("GRU", clip),
            layer_norm=parse_flag("GRU", "layer_norm", layer_norm),
            zoneout=parse_zoneout("GRU", zoneout, False),
            recurrent_dropout=number("GRU", "recurrent_dropout", recurrent_dropout, 0, 1),
            reset_after=parse_flag("GRU", "reset_after", reset_after),
        )
        if options.layer_norm and not options.reset_after:
            raise ValueError(
                "GRU: layer_norm is True with reset_after False; expected reset_after True, since W_hh h is normalised "
                "as a whole, before the reset gate is known"
            )
        super().__init__(
            "gru",
            input_size,
            hidden_size,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            dtype=dtype,
            seed=seed,
            options=options,
            mask_ih=mask_ih,
            mask_hh=mask_hh,
            learn_initial_state=learn_initial_state,
        )
