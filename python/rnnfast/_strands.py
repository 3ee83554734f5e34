"""Recurrent layers run in pieces of one step, so that gradients can be looked at between the steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rnnfast._arrays import Array
from rnnfast.initialisers import gate_letters
from rnnfast.layers.base import Layer, Run
from rnnfast.layers.frnn import FRNN
from rnnfast.layers.lstm import LSTM
from rnnfast.layers.recurrent import RecurrentLayer
from rnnfast.layers.tape import Tape
from rnnfast.model import Sequential

# From where a gate counts as saturated: its derivative is then below a fifth of the largest.
CLOSED, OPEN = 0.05, 0.95
LAYER_NORM_EPS = 1e-5


class Strand:
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


class Level:
    """One layer of a recurrent layer object: a strand for each direction, side by side."""

    def __init__(self, strands: list[Strand]) -> None:
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


class Chain:
    """A model whose recurrent layers are strands."""

    def __init__(self, model: Sequential, who: str) -> None:
        self.places: list[int] = []
        self.parts: list[Level | Layer] = []
        for k, layer in enumerate(model.layers):
            parts = _levels(k, layer, who) if isinstance(layer, RecurrentLayer) else [layer]
            self.parts += parts
            self.places += [k] * len(parts)
        self.strands = [strand for part in self.parts if isinstance(part, Level) for strand in part.strands]
        self._tapes: list[Any] = []

    def forward(self, x: Array) -> Array:
        run = Run(seed=(0,))
        for place, part in zip(self.places, self.parts, strict=True):
            tape = None
            if isinstance(part, Level):
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
            if isinstance(part, Level):
                dy, norms = part.backward(dy)
                found = norms + found
                if len(found) == len(self.strands):
                    break
            else:
                below = part.pull_back(tape, dy, np.empty(part.parameters.size, part.dtype), True)
                assert below is not None
                dy = below
        return found


def _levels(place: int, layer: RecurrentLayer, who: str) -> list[Level | Layer]:
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
    levels: list[Level | Layer] = []
    for level in range(layer.num_layers):
        strands = []
        for way in ("", "_reverse")[:directions]:
            suffix = f"l{level}{way}"
            name = f"{place} {type(layer).__name__}"
            if layer.num_layers > 1:
                name += f" layer {level}"
            inputs = layer.parameters.shapes[f"weight_ih_{suffix}"][1]
            strands.append(Strand(name + way.replace("_", " "), layer, suffix, inputs))
        levels.append(Level(strands))
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
