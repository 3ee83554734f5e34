"""Long short-term memory."""

from __future__ import annotations

import math
from typing import Any

from rnnfast._checks import integer, number
from rnnfast.layers.options import CellOptions, parse_activations, parse_clip, parse_flag, parse_zoneout
from rnnfast.layers.recurrent import RecurrentLayer


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
    proj_size : int
        If above 0, P: hidden states are ``W_hr (o tanh(c))``, of P numbers (Sak et al. 2014, Interspeech).
    peephole : bool
        Gates see the cell state: i and f that of the step before, o the new one (Gers & Schmidhuber 2000, IJCNN).
    forget_bias : float, optional
        Initial bias of the forget gate; 1 or more makes an untrained LSTM remember (Gers et al. 2000; Jozefowicz et al.
        2015, ICML). None: random like the others.
    coupled : bool
        One gate decides both what to forget and what to take in: ``i = 1 - f`` (Greff et al. 2017, IEEE TNNLS 28(10)).
        There are no weights of i.
    clip : float, optional
        Pre-activations of the gates are clamped to [-clip, clip].
    layer_norm : bool
        ``a = LN(W_ih x) + LN(W_hh h) + b``, each over the 4H numbers of a step with a learnt gain, and
        ``h = o tanh(LN(c))`` with gain and bias; variance plus 1e-5 (Ba et al. 2016, arXiv 1607.06450).
    zoneout : float or tuple of two float
        Probabilities with which a unit keeps its old hidden and its old cell state in a step of `forward`; one number
        is for both. A call takes the mean (Krueger et al. 2017, Zoneout, ICLR).
    recurrent_dropout : float
        Probability with which a hidden unit is left out of the recurrent product, in `forward` only: one mask for all
        steps of a sequence (Gal & Ghahramani 2016, A theoretically grounded application of dropout in RNNs, NeurIPS).
    activations : tuple of three functions, optional
        f (of i, f, o), g (of g) and h (of c), in place of sigmoid, tanh, tanh, by ONNX's names: "Relu", "Tanh",
        "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu", "Softsign" or
        "Softplus", or a tuple of a name and its alpha and beta.
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
    Parameters have PyTorch's names, shapes and gate order (i, f, g, o): ``weight_ih_l0`` (4H, I), ``weight_hh_l0``
    (4H, H), ``bias_ih_l0`` (4H,), ``bias_hh_l0`` (4H,), with ``_reverse`` for the second direction and
    ``weight_hr_l0`` (P, H) for the projection. With options also ``weight_peephole_l0`` (3H,) of i, f, o;
    ``layer_norm_ih_l0`` and ``layer_norm_hh_l0`` (4H,), ``layer_norm_c_weight_l0`` and ``layer_norm_c_bias_l0`` (H,);
    ``initial_h_l0`` (H,) and ``initial_c_l0`` (H,). If coupled, 3H in place of 4H, in the order f, g, o, and peepholes
    (2H,) of f, o. The state is a tuple ``(h, c)``.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a value is out of range, or options do not go together.

    References
    ----------
    Hochreiter & Schmidhuber (1997), Neural Computation 9(8).
    Gers, Schmidhuber & Cummins (2000), Neural Computation 12(10), forget gate.
    """

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
        peephole: bool = False,
        forget_bias: float | None = None,
        coupled: bool = False,
        clip: float | None = None,
        layer_norm: bool = False,
        zoneout: Any = 0.0,
        recurrent_dropout: float = 0.0,
        activations: Any = None,
        mask_ih: Any = None,
        mask_hh: Any = None,
        learn_initial_state: bool = False,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        self._gates = 3 if parse_flag("LSTM", "coupled", coupled) else 4
        if forget_bias is not None:
            number("LSTM", "forget_bias", forget_bias, -math.inf)
            if not bias:
                raise ValueError(f"LSTM: forget_bias is {forget_bias} with bias False; expected biases")
        options = CellOptions(
            activations=parse_activations("LSTM", activations, ("Sigmoid", "Tanh", "Tanh")),
            clip=parse_clip("LSTM", clip),
            layer_norm=parse_flag("LSTM", "layer_norm", layer_norm),
            zoneout=parse_zoneout("LSTM", zoneout, True),
            recurrent_dropout=number("LSTM", "recurrent_dropout", recurrent_dropout, 0, 1),
            peephole=parse_flag("LSTM", "peephole", peephole),
            coupled=bool(coupled),
            proj_size=integer("LSTM", "proj_size", proj_size, 0),
        )
        if options.proj_size and options.proj_size >= integer("LSTM", "hidden_size", hidden_size, 1):
            raise ValueError(f"LSTM: proj_size is {proj_size}; expected less than hidden_size, {hidden_size}")
        if options.proj_size and options.zoneout[0]:
            raise ValueError(
                f"LSTM: zoneout of the hidden state is {options.zoneout[0]} with proj_size {proj_size}; expected 0: "
                "projected states have no units to keep"
            )
        super().__init__(
            "lstm",
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
        if forget_bias is not None:
            forget = slice(0, self.hidden_size) if coupled else slice(self.hidden_size, 2 * self.hidden_size)
            for suffix in self._suffixes():
                self.parameters[f"bias_ih_{suffix}"][forget] = forget_bias
                self.parameters[f"bias_hh_{suffix}"][forget] = 0
            self.parameters.changed()

    def config(self) -> dict[str, Any]:
        proj_size = {"proj_size": self.options.proj_size} if self.options.proj_size else {}
        return super().config() | proj_size
