"""What happens to gradients on their way back through time, and a callback that watches it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfast import losses
from rnnfast._arrays import Array
from rnnfast._checks import integer
from rnnfast._strands import Chain, Strand
from rnnfast.layers.base import Layer
from rnnfast.layers.recurrent import RecurrentLayer
from rnnfast.losses import Loss
from rnnfast.model import Sequential

if TYPE_CHECKING:
    from rnnfast._training import Training

# What is left of a gradient after all steps: below a thousandth, the last steps drown what the first ones say.
LITTLE = 1e-3
MUCH = 1e3


class GradientFlowWarning(UserWarning):
    """Gradients vanish or explode in the model that `fit` is training."""


@dataclass(frozen=True)
class LayerFlow:
    """Gradients through time in one recurrent layer.

    Attributes
    ----------
    name : str
        Place in the model and type, and which of its layers and directions: "0 LSTM", "1 GRU layer 0 reverse".
    reverse : bool
        Whether it runs from the last step to the first, so that what follows "back" is t + 1, and the end is t = 0.
    dh : ndarray, shape (T,)
        Norm of dL/dh[t] over all sequences and units: the whole derivative, by way of y[t] and of all later steps.
    dc : ndarray, shape (T,), or None
        The same for the cell state of an LSTM, by way of h[t] and of all later steps. (With zoneout of the cells, h[t]
        does not depend on c[t], but on what it would be without.)
    dh_end, dc_end : ndarray, shape (T,), or None
        The part of the gradient that comes from the loss at the end of the sequence alone: all of it if the model
        gives one value a sequence.
    growth : float
        What a step back in time multiplies the gradient by: from the slope of a straight line through the logarithms
        of ``dc_end``, or of ``dh_end`` where there are no cells. NaN if fewer than two of them are above zero.
    left : float
        ``growth ** (T - 1)``: what is left at the first step of a gradient of 1 at the last one.
    spectral_radius : dict of str to float
        Largest absolute eigenvalue of the (H, H) block of ``weight_hh`` of each gate; that of an RNN is "h".
    saturation : dict of str to (float, float)
        Share of values at the lower and at the upper end of their range: gates below 0.05 and above 0.95; tanh ("g",
        "n", "h" and, for tanh(c) of an LSTM, "c") below -0.95 and above 0.95; relu at 0, and 0.
    verdict : {"vanishing", "exploding", "healthy"}
        Vanishing if less than a thousandth is left, or nothing arrives at some steps; exploding if more than a
        thousandfold is, or a gradient is infinite or NaN.
    reason : str
        The figures on which the verdict rests.
    """

    name: str
    reverse: bool
    dh: Array
    dc: Array | None
    dh_end: Array
    dc_end: Array | None
    growth: float
    left: float
    spectral_radius: Mapping[str, float]
    saturation: Mapping[str, tuple[float, float]]
    verdict: str
    reason: str

    def __str__(self) -> str:
        radii = ", ".join(f"{gate} {radius:.2f}" for gate, radius in self.spectral_radius.items())
        shares = ", ".join(f"{gate} {low:.0%} {high:.0%}" for gate, (low, high) in self.saturation.items())
        return (
            f"{self.name}: {self.verdict}\n  {self.reason}\n"
            f"  spectral radius of weight_hh: {radii}\n  saturated at the lower and the upper end: {shares}"
        )


@dataclass(frozen=True)
class GradientFlow:
    """Gradients through time in a model; what `gradient_flow` returns.

    Attributes
    ----------
    layers : tuple of LayerFlow
        One a recurrent layer, from the input on; one for each layer and direction of a layer object that has several.
    loss : float
        Value of the loss.
    """

    layers: tuple[LayerFlow, ...]
    loss: float

    @property
    def verdict(self) -> str:
        """The worst of the layers': "exploding", else "vanishing", else "healthy"."""
        found = {layer.verdict for layer in self.layers}
        return next(verdict for verdict in ("exploding", "vanishing", "healthy") if verdict in found)

    def __str__(self) -> str:
        return "\n".join(map(str, self.layers))

    def plot(self, ax: Any = None) -> Any:
        """Draw the norms of dL/dh[t] (and dL/dc[t], dashed) over the steps back from the last, log scale.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw. None makes a new figure with ``matplotlib.pyplot``.

        Returns
        -------
        matplotlib Axes
            ``ax.figure.savefig(path)`` writes the picture.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        return GradientFlow.compare({"": self}, ax)

    @staticmethod
    def compare(flows: Mapping[str, GradientFlow], ax: Any = None) -> Any:
        """Draw several models at once, each in its colour, labelled with its key; otherwise like `plot`."""
        from rnnfast import _flow_plot

        if not isinstance(flows, Mapping) or not flows:
            raise TypeError("GradientFlow.compare: flows is no mapping of names to results of gradient_flow, or empty")
        for name, flow in flows.items():
            if not isinstance(flow, GradientFlow):
                raise TypeError(
                    f"GradientFlow.compare: flows[{name!r}] is {type(flow).__name__}; "
                    "expected a result of gradient_flow"
                )
        return _flow_plot.draw(flows, ax)


def gradient_flow(model: Layer, x: Any, y: Any, loss: str | Loss = "mse") -> GradientFlow:
    """Follow the gradient of a loss back through time, step by step, in every recurrent layer of a model.

    Every layer runs one step at a time with its state carried on, and backpropagation goes through these pieces one
    after the other; so the derivatives by the states are those of training, to the rounding of the layer's dtype.
    Dropout inside recurrent layers is left out; zoneout is drawn, the same every time.

    Parameters
    ----------
    model : Sequential, RNN, LSTM, GRU or FRNN
        With at least one recurrent layer. It is not changed.
    x, y : array_like
        Inputs and targets, as `Sequential.fit` takes them; for a single layer, targets are like its output. At least
        two steps.
    loss : str or Loss
        As for `Sequential.fit`.

    Returns
    -------
    GradientFlow
        ``print`` shows its figures, ``.plot()`` draws them.

    Raises
    ------
    TypeError
        If ``model`` is no layer, or a dtype is wrong.
    ValueError
        If the model has no recurrent layer, or an LSTM with other activations, or with peepholes and clip; if x has
        fewer than two steps; or what `Sequential.fit` would refuse.

    References
    ----------
    Bengio, Simard & Frasconi (1994), Learning long-term dependencies with gradient descent is difficult, IEEE
    Transactions on Neural Networks 5(2).
    Pascanu, Mikolov & Bengio (2013), On the difficulty of training recurrent neural networks, ICML.
    """
    who = "gradient_flow"
    if not isinstance(model, Layer):
        raise TypeError(f"{who}: model is {type(model).__name__}; expected a Sequential or a recurrent layer")
    if not isinstance(model, Sequential):
        if not isinstance(model, RecurrentLayer):
            raise ValueError(f"{who}: {type(model).__name__} is no recurrent layer; expected one, or a Sequential")
        model = Sequential(model)
    if model.batch_first is None:
        raise ValueError(f"{who}: the model has no recurrent layer; expected one through which gradients flow")
    loss = losses.get(loss, who)
    inputs, targets = model._samples(x, y, loss, who)
    everything = np.arange(inputs.count)
    first, target = inputs.take(everything), targets.take(everything)
    if len(first) < 2:
        raise ValueError(f"{who}: x has {len(first)} step; expected at least two, between which a gradient flows")

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        chain = Chain(model, who)
        value, dy = loss.differentiate(chain.forward(first), target)
        whole = chain.backward(dy)
        # By whether a strand runs backwards: where it ends is the beginning of the sequence.
        ends = {False: whole, True: whole}
        if model._layout.gives_sequence:
            for reverse, last in ((False, -1), (True, 0)):
                if any(strand.reverse is reverse for strand in chain.strands):
                    dy_end = np.zeros_like(dy)
                    dy_end[last] = dy[last]
                    again = Chain(model, who)
                    again.forward(first)
                    ends[reverse] = again.backward(dy_end)
        layers = [_judge(strand, *whole[k], *ends[strand.reverse][k]) for k, strand in enumerate(chain.strands)]
    return GradientFlow(tuple(layers), value)


class GradientWatch:
    """A callback of `Sequential.fit` that looks at the gradient flow and warns once if it is not healthy.

    Parameters
    ----------
    x, y : array_like
        A few samples, as `Sequential.fit` takes them: a look costs 0.1 to 0.2 ms a time step and layer, however few.
    loss : str or Loss, optional
        None: the loss that is trained.
    every : int
        Epochs between two looks; the first look is after the first epoch.

    Attributes
    ----------
    flows : dict of int to GradientFlow
        What was seen, by the number of epochs done.

    Raises
    ------
    TypeError, ValueError
        If ``every`` is no integer of at least 1; `fit` raises what `gradient_flow` does about the samples.

    Warns
    -----
    GradientFlowWarning
        At the first look at which a layer's gradients vanish or explode, with the figures and with what to try.
    """

    def __init__(self, x: Any, y: Any, loss: str | Loss | None = None, every: int = 1) -> None:
        self.x, self.y = x, y
        self.loss = loss if loss is None else losses.get(loss, "GradientWatch")
        self.every = integer("GradientWatch", "every", every, 1)
        self.flows: dict[int, GradientFlow] = {}
        self._warned = False

    def __call__(self, training: Training) -> None:
        if (training.epoch - 1) % self.every:
            return
        flow = gradient_flow(training.model, self.x, self.y, self.loss or training._loss)
        self.flows[training.epoch] = flow
        if flow.verdict == "healthy" or self._warned:
            return
        self._warned = True
        ill = [layer for layer in flow.layers if layer.verdict == flow.verdict]
        named = "; ".join(f"{layer.name}: {layer.reason}" for layer in ill)
        try_this = _advice(flow.verdict, {layer.name.split()[1] for layer in ill}, training._clip_norm, len(ill[0].dh))
        warnings.warn(
            f"gradients are {flow.verdict} after epoch {training.epoch}. {named}. Try {try_this}.",
            GradientFlowWarning,
            stacklevel=2,
        )


def _advice(verdict: str, cells: set[str], clip_norm: float | None, steps: int) -> str:
    """What to try, as the end of a sentence."""
    advice = []
    if verdict == "exploding":
        advice.append("fit(clip_norm=1.0)" if clip_norm is None else f"a clip_norm below {clip_norm:g}")
        advice.append('rf.initialise(model, weight_hh="orthogonal") before training')
        advice.append("a smaller learning rate")
    else:
        if cells & {"RNN", "FRNN"}:
            advice.append("rf.LSTM or rf.GRU instead")
            advice.append('rf.initialise(model, weight_hh="orthogonal") before training')
        if cells & {"LSTM", "GRU"}:
            advice.append(f"rf.initialise(model, forget_bias=1.0), or chrono={steps} for lags of {steps} steps")
    return ", or ".join(advice)


def _growth_per_step_back(norms: Array) -> float:
    """exp(-slope) of the least-squares line through log(norms) over the steps at which they are above zero."""
    t = np.flatnonzero(norms > 0)
    if len(t) < 2:
        return math.nan
    return float(np.exp(-np.polyfit(t, np.log(norms[t]), 1)[0]))


def _judge(strand: Strand, dh: Array, dc: Array | None, dh_end: Array, dc_end: Array | None) -> LayerFlow:
    what, norms = ("dL/dh", dh_end) if dc_end is None else ("dL/dc", dc_end)
    steps = len(norms) - 1
    growth = left = math.nan
    if not (np.isfinite(dh).all() and np.isfinite(norms).all()):
        worst = norms if not np.isfinite(norms).all() else dh
        which = what if worst is norms else "dL/dh"
        verdict, reason = "exploding", f"{which} is infinite or NaN at {int((~np.isfinite(worst)).sum())} steps"
    else:
        growth = _growth_per_step_back(norms[::-1] if strand.reverse else norms)
        with np.errstate(over="ignore"):
            left = float(np.float64(growth) ** steps)
        reason = f"a step back multiplies {what} by {growth:.4g}; {left:.2g} of it is left after {steps} steps"
        # The state after the last step: with zoneout of the cells nothing may depend on it.
        before = norms[1:] if strand.reverse else norms[:-1]
        silent = int((before == 0).sum())
        verdict = "exploding" if left > MUCH else "vanishing" if left < LITTLE or silent else "healthy"
        if silent:
            reason += f"; it is exactly 0 at {silent} of {steps} steps before the last"
    return LayerFlow(
        name=strand.name,
        reverse=strand.reverse,
        dh=dh,
        dc=dc,
        dh_end=dh_end,
        dc_end=dc_end,
        growth=growth,
        left=left,
        spectral_radius=strand.radii(),
        saturation=strand.saturation,
        verdict=verdict,
        reason=reason,
    )
