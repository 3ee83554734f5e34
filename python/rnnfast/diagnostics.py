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
from rnnfast.initialisers import gate_letters
from rnnfast.layers.base import Layer, Run
from rnnfast.layers.frnn import FRNN
from rnnfast.layers.lstm import LSTM
from rnnfast.layers.recurrent import RecurrentLayer
from rnnfast.layers.tape import Tape
from rnnfast.losses import Loss
from rnnfast.model import Sequential

if TYPE_CHECKING:
    from rnnfast._training import Training

# What is left of a gradient after all steps: below a thousandth, the last steps drown what the first ones say.
LITTLE = 1e-3
MUCH = 1e3
# From where a gate counts as saturated: its derivative is then below a fifth of the largest.
CLOSED, OPEN = 0.05, 0.95
LAYER_NORM_EPS = 1e-5


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
        chain = _Chain(model, who)
        value, dy = loss.differentiate(chain.forward(first), target)
        whole = chain.backward(dy)
        # By whether a strand runs backwards: where it ends is the beginning of the sequence.
        ends = {False: whole, True: whole}
        if model._layout.gives_sequence:
            for reverse, last in ((False, -1), (True, 0)):
                if any(strand.reverse is reverse for strand in chain.strands):
                    dy_end = np.zeros_like(dy)
                    dy_end[last] = dy[last]
                    again = _Chain(model, who)
                    again.forward(first)
                    ends[reverse] = again.backward(dy_end)
        layers = [_judge(strand, *whole[k], *ends[strand.reverse][k]) for k, strand in enumerate(chain.strands)]
    return GradientFlow(tuple(layers), value)


class GradientWatch:
    """A callback of `Sequential.fit` that looks at the gradient flow and warns once if it is not healthy.

    Parameters
    ----------
    x, y : array_like
        A few samples, as `Sequential.fit` takes them. They cost about as much as two steps of training on them, and
        20 µs a time step.
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
        if "RNN" in cells:
            advice.append("rf.LSTM or rf.GRU instead of rf.RNN")
            advice.append('rf.initialise(model, weight_hh="orthogonal") before training')
        if cells & {"LSTM", "GRU"}:
            advice.append(f"rf.initialise(model, forget_bias=1.0), or chrono={steps} for lags of {steps} steps")
    return ", or ".join(advice)


class _Strand:
    """One layer in one direction run in pieces of one step, so that the gradient can be looked at between them.

    It is a copy without dropout, made with a seed, so that zoneout draws the same every time.
    """

    def __init__(self, name: str, layer: RecurrentLayer, suffix: str, inputs: int) -> None:
        left_out = ("num_layers", "dropout", "bidirectional", "recurrent_dropout")
        config = {name: value for name, value in layer.config().items() if name not in left_out}
        config |= {"input_size": inputs, "batch_first": False, "seed": 0}
        self.layer = type(layer)(**config)
        # "weight_ih_l1_reverse" is the copy's "weight_ih_l0".
        self.layer.load_state_dict(
            {
                name.removesuffix(suffix) + "l0": layer.parameters[name]
                for name in layer.parameters
                if name.endswith(f"_{suffix}")
            }
        )
        self.name = name
        self.reverse = suffix.endswith("_reverse")
        self.letters = gate_letters(layer)
        self.saturation: dict[str, tuple[float, float]] = {}
        self._tapes: list[Tape] = []
        self._slopes: list[_CellSlope] = []

    def forward(self, x: Array) -> Array:
        ends: dict[str, list[tuple[float, float]]] = {}
        steps: list[Array] = []
        state: Any = None
        for x_t in x[::-1] if self.reverse else x:
            y, state, tape = self.layer.forward(x_t[None], state)
            # Not y: of an FRNN that is some units only.
            values = {"h": state[0]} if tape.gates is None else self._gates(tape)
            if isinstance(state, tuple):
                slope = _CellSlope(self.layer, tape, values["o"], state[1][0])
                values["c"] = slope.tanh_c
                self._slopes.append(slope)
            for name, value in values.items():
                ends.setdefault(name, []).append(_ends(value, self._range(name)))
            self._tapes.append(tape)
            steps.append(y[0])
        self.saturation = {name: _mean_of_pairs(pairs) for name, pairs in ends.items()}
        return np.stack(steps[::-1] if self.reverse else steps)

    def backward(self, dy: Array) -> tuple[Array, Array, Array | None]:
        """dL/dx, and the norms of dL/dh[t] and dL/dc[t]."""
        dx: list[Array] = []
        dh: list[float] = []
        dc: list[float] = []
        # What later steps say about the state after a step.
        later: Any = None
        from_h: Any = 0.0
        from_c: Any = 0.0
        for dy_t in dy if self.reverse else dy[::-1]:
            dh_t = self._by_unit(dy_t) + from_h
            dh.append(_norm(dh_t))
            if self._slopes:
                dc.append(_norm(self._slopes.pop().pull_back(dh_t) + from_c))
            grads = self.layer.backward(self._tapes.pop(), dy_t[None], later)
            later = grads.state
            from_h, from_c = (later[0][0], later[1][0]) if isinstance(later, tuple) else (later[0], 0.0)
            dx.append(grads.x[0])
        order = slice(None) if self.reverse else slice(None, None, -1)
        return np.stack(dx[order]), np.array(dh[order]), np.array(dc[order]) if dc else None

    def _by_unit(self, dy_t: Array) -> Array:
        """dL/dy[t] as a derivative by the hidden states."""
        read_out = self.layer._read_out if isinstance(self.layer, FRNN) else None
        if read_out is None:
            return dy_t
        dh_t = np.zeros((len(dy_t), self.layer.hidden_size), dy_t.dtype)
        dh_t[:, read_out] = dy_t
        return dh_t

    def radii(self) -> dict[str, float]:
        p = self.layer.parameters
        blocks = np.split(p["weight_hh_l0"].astype(np.float64), len(self.letters))
        if "weight_hr_l0" in p:  # what comes back is the projection of the hidden units
            blocks = [block @ p["weight_hr_l0"].astype(np.float64) for block in blocks]
        return {
            letter: float(np.abs(np.linalg.eigvals(block)).max()) if np.isfinite(block).all() else math.inf
            for letter, block in zip(self.letters, blocks, strict=True)
        }

    def _gates(self, tape: Tape) -> dict[str, Array]:
        assert tape.gates is not None
        return dict(zip(self.letters, np.split(tape.gates[0].copy(), len(self.letters), axis=-1), strict=True))

    def _range(self, name: str) -> tuple[float, float]:
        if name in "ifozr":
            return CLOSED, OPEN
        if name == "h" and getattr(self.layer, "nonlinearity", "tanh") == "relu":
            return 0.0, math.inf
        return -OPEN, OPEN


class _CellSlope:
    """The derivative of h[t] by c[t] of an LSTM at one step: ``h = o tanh(c)``, and what options make of it."""

    def __init__(self, layer: RecurrentLayer, tape: Tape, o: Array, c: Array) -> None:
        self.parameters, self.options = layer.parameters, layer.options
        self.masks, self.o, self.c = tape.masks, o, c
        self.tanh_c = np.tanh(self._normalised() if self.options.layer_norm else c)

    def pull_back(self, dh: Array) -> Array:
        """dL/dc[t] by way of h[t]."""
        p = self.parameters
        if "zoneout_c_l0" in self.masks:  # h[t] is made from what c[t] would be without zoneout
            return np.zeros_like(self.c)
        if "weight_hr_l0" in p:
            dh = dh @ p["weight_hr_l0"]
        if "zoneout_h_l0" in self.masks:
            dh = dh * (1 - self.masks["zoneout_h_l0"][0])
        dc: Array = dh * self.o * (1 - self.tanh_c * self.tanh_c)
        if self.options.layer_norm:
            dc = self._through_norm(dc)
        if self.options.peephole:
            to_o = p["weight_peephole_l0"][-self.c.shape[-1] :]
            dc += dh * self.tanh_c * self.o * (1 - self.o) * to_o
        return dc

    def _centred(self) -> tuple[Array, Array]:
        centred = self.c - self.c.mean(axis=-1, keepdims=True)
        return centred, np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + LAYER_NORM_EPS)

    def _normalised(self) -> Array:
        centred, deviation = self._centred()
        p = self.parameters
        normalised: Array = centred / deviation * p["layer_norm_c_weight_l0"] + p["layer_norm_c_bias_l0"]
        return normalised

    def _through_norm(self, dn: Array) -> Array:
        centred, deviation = self._centred()
        x, du = centred / deviation, dn * self.parameters["layer_norm_c_weight_l0"]
        dc: Array = (du - du.mean(axis=-1, keepdims=True) - x * (du * x).mean(axis=-1, keepdims=True)) / deviation
        return dc


class _Level:
    """One layer of a recurrent layer object: a strand for each direction, side by side."""

    def __init__(self, strands: list[_Strand]) -> None:
        self.strands = strands

    def forward(self, x: Array) -> Array:
        return np.concatenate([strand.forward(x) for strand in self.strands], axis=-1)

    def backward(self, dy: Array) -> tuple[Array, list[tuple[Array, Array | None]]]:
        """dL/dx, and the norms of each strand."""
        dx: Any = 0.0
        norms: list[tuple[Array, Array | None]] = []
        for strand, part in zip(self.strands, np.split(dy, len(self.strands), axis=-1), strict=True):
            dx_part, dh, dc = strand.backward(part)
            dx = dx + dx_part
            norms.append((dh, dc))
        return dx, norms


class _Chain:
    """A model whose recurrent layers are strands."""

    def __init__(self, model: Sequential, who: str) -> None:
        self.places: list[int] = []
        self.parts: list[_Level | Layer] = []
        for k, layer in enumerate(model.layers):
            parts = _levels(k, layer, who) if isinstance(layer, RecurrentLayer) else [layer]
            self.parts += parts
            self.places += [k] * len(parts)
        self.strands = [strand for part in self.parts if isinstance(part, _Level) for strand in part.strands]
        self._tapes: list[Any] = []

    def forward(self, x: Array) -> Array:
        run = Run(seed=(0,))
        for place, part in zip(self.places, self.parts, strict=True):
            tape = None
            if isinstance(part, _Level):
                x = part.forward(x)
            else:
                x, tape = part.trace(x, run.at(place))
            self._tapes.append(tape)
        return x

    def backward(self, dy: Array) -> list[tuple[Array, Array | None]]:
        """Norms of dL/dh[t] and dL/dc[t], in the order of the strands."""
        found: list[tuple[Array, Array | None]] = []
        for part in reversed(self.parts):
            tape = self._tapes.pop()
            if isinstance(part, _Level):
                dy, norms = part.backward(dy)
                found = norms + found
                if len(found) == len(self.strands):
                    break
            else:
                below = part.pull_back(tape, dy, np.empty(part.parameters.size, part.dtype), True)
                assert below is not None
                dy = below
        return found


def _levels(place: int, layer: RecurrentLayer, who: str) -> list[_Level | Layer]:
    if isinstance(layer, LSTM) and layer.options.activations:
        raise ValueError(
            f"{who}: layer {place}, LSTM, has activations {[name for name, *_ in layer.options.activations]}; "
            "expected none: dL/dc is known for tanh and sigmoid only"
        )
    if layer.options.peephole and layer.options.clip is not None:
        raise ValueError(
            f"{who}: layer {place}, LSTM, has peepholes and clip; expected one of them: dL/dc is not known"
        )
    directions = 2 if layer.bidirectional else 1
    levels: list[_Level | Layer] = []
    for level in range(layer.num_layers):
        strands = []
        for way in ("", "_reverse")[:directions]:
            suffix = f"l{level}{way}"
            name = f"{place} {type(layer).__name__}"
            if layer.num_layers > 1:
                name += f" layer {level}"
            inputs = layer.parameters.shapes[f"weight_ih_{suffix}"][1]
            strands.append(_Strand(name + way.replace("_", " "), layer, suffix, inputs))
        levels.append(_Level(strands))
    return levels


def _norm(array: Array) -> float:
    # In float64, in which squares of small float32 numbers do not become zero.
    return float(np.linalg.norm(array.astype(np.float64)))


def _ends(values: Array, ends: tuple[float, float]) -> tuple[float, float]:
    """Shares of values at the lower and at the upper end of their range."""
    low, high = ends
    return float(np.mean(values <= low)), float(np.mean(values >= high))


def _mean_of_pairs(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    means = np.asarray(pairs).mean(axis=0)
    return float(means[0]), float(means[1])


def _growth_per_step_back(norms: Array) -> float:
    """exp(-slope) of the least-squares line through log(norms) over the steps at which they are above zero."""
    t = np.flatnonzero(norms > 0)
    if len(t) < 2:
        return math.nan
    return float(np.exp(-np.polyfit(t, np.log(norms[t]), 1)[0]))


def _judge(strand: _Strand, dh: Array, dc: Array | None, dh_end: Array, dc_end: Array | None) -> LayerFlow:
    what, norms = ("dL/dh", dh_end) if dc_end is None else ("dL/dc", dc_end)
    steps = len(norms) - 1
    growth = left = math.nan
    if not (np.isfinite(dh).all() and np.isfinite(norms).all()):
        verdict, reason = "exploding", f"{what} is infinite or NaN at {int((~np.isfinite(norms)).sum())} steps"
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
