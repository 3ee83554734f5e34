"""One layer of cells in one direction: its parameters, and its calls of the kernels."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnfast import _core
from rnnfast._arrays import Array
from rnnfast.layers.base import Parameters
from rnnfast.layers.options import ACTIVATIONS, CellOptions
from rnnfast.layers.sequences import Segment, Way, rows_of_grid

# Parameters that kernels read, without the layer's suffix, and the kernels' own names for them.
PLAIN_NAMES = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}
OPTION_NAMES = {
    "weight_hr": "w_hr",
    "weight_peephole": "peephole",
    "layer_norm_ih": "norm_ih",
    "layer_norm_hh": "norm_hh",
    "layer_norm_c_weight": "norm_c",
    "layer_norm_c_bias": "norm_c_bias",
}


class Masks(NamedTuple):
    """Random masks of one direction in one call, in the kernels' order."""

    recurrent: Array | None  # (N, H)
    zoneout_h: Array | None  # per step
    zoneout_c: Array | None

    def of(self, part: Segment) -> Masks:
        """Of some steps."""
        return Masks(
            rows_of(self.recurrent, slice(part.sequences)),
            rows_of(self.zoneout_h, part.rows),
            rows_of(self.zoneout_c, part.rows),
        )


NO_MASKS = Masks(None, None, None)

# dL/dx in the kernels' order if it was wanted, and those of the initial states by row.
Backpropagated = tuple[Array | None, Array, Array | None]


class ForwardCall(NamedTuple):
    """What one direction takes; all but ``x`` in the kernels' order."""

    way: Way
    x: Array  # (T, N, I)
    h0: Array
    c0: Array | None
    masks: Masks


class Trace:
    """What one direction keeps of a call for the way back.

    Attributes
    ----------
    way : Way
    x : ndarray
        Inputs, as the kernels take them.
    h, c : ndarray or None
        States in their slots. ``c`` is None for cells without, and with checkpoints.
    gates : ndarray or None
    masks : Masks
    places : ndarray of int64, or None
        Those of ``way`` if the kernels find what is given for every step where it stands, and leave dL/dx there.
    cuts : list of int
        With checkpoints: the steps, in ascending order, before which a state is kept.
    cells : list of ndarray
        With checkpoints: cell states before these steps.
    """

    def __init__(
        self,
        way: Way,
        x: Array,
        h: Array,
        c: Array | None,
        gates: Array | None,
        masks: Masks,
        places: Array | None = None,
    ) -> None:
        self.way, self.x, self.h, self.c, self.gates, self.masks = way, x, h, c, gates, masks
        self.places = places
        self.cuts: list[int] = []
        self.cells: list[Array | None] = []

    @property
    def output(self) -> Array:
        """Hidden states after every step, in the kernels' order."""
        return self.after_steps(self.h)

    def given(self, grid: Array) -> Array:
        """What is given for every step, (T, N, ...), as the kernels take it."""
        return _given(self.way, grid, self.places)

    def input_gradient(self, dx: Array) -> Array:
        """dL/dx as the kernels leave it as (T, N, I)."""
        if self.places is not None:
            return dx.reshape(*self.way.shape, dx.shape[-1])
        grid: Array = _core.empty((*self.way.shape, dx.shape[-1]), dx.dtype)
        self.way.scatter(dx, grid)
        return grid

    def after_steps(self, slots: Array) -> Array:
        return slots[1:] if self.way.slots is None else slots[self.way.sequences :]

    def gate_rows(self, count: int) -> Array:
        """Activated gates, (..., count * H), in the kernels' order."""
        assert self.gates is not None
        if self.gates.ndim - self.x.ndim == 1:  # planes of units: the gates are the last ones
            planes = self.gates[..., -count:, :]
            return planes.reshape(*planes.shape[:-2], -1)
        hidden = self.c.shape[-1] if self.c is not None else self.h.shape[-1]
        return self.gates[..., : count * hidden]


class BackwardCall(NamedTuple):
    """What one direction takes on the way back, in the kernels' order; None for zeros."""

    trace: Trace
    dy: Array | None
    dcells: Array | None
    dh: Array | None  # of the last states, by row
    dc: Array | None
    need_dx: bool


class PlainKernels:
    """The kernels of a cell without options."""

    def __init__(self, cell: str, arrays: Mapping[str, Array]) -> None:
        self.names = PLAIN_NAMES
        self.weights = _core.Weights(cell=cell, **arrays)

    def forward(
        self,
        x: Array,
        h0: Array,
        c0: Array | None,
        slots: Array | None,
        training: bool,
        masks: Masks,
        places: Array | None = None,
    ) -> tuple[Array, Array | None, Array | None]:
        return _core.forward(weights=self.weights, x=x, h0=h0, c0=c0, training=training, slots=slots, places=places)

    def backward(self, masks: Masks, **call: Any) -> tuple[Array | None, Array, Array | None]:
        return _core.backward(weights=self.weights, **call)


class OptionKernels:
    """The kernels of a cell with options, or with so few connections that most products can be left out.

    They know rows in their own order only: ``places`` is always None.
    """

    def __init__(
        self, cell: str, arrays: Mapping[str, Array], options: CellOptions, connections: Mapping[str, Array]
    ) -> None:
        self.names = PLAIN_NAMES | {name: ours for name, ours in OPTION_NAMES.items() if ours in arrays}
        kinds = list(ACTIVATIONS)
        self.weights = _core.OptionWeights(
            cell=cell,
            arrays=dict(arrays),
            connections=dict(connections),
            activations=[(kinds.index(name), alpha, beta) for name, alpha, beta in options.activations],
            clip=options.clip,
            coupled=options.coupled,
            reset_after=options.reset_after,
            zoneout_h=options.zoneout[0],
            zoneout_c=options.zoneout[1],
        )

    def forward(
        self,
        x: Array,
        h0: Array,
        c0: Array | None,
        slots: Array | None,
        training: bool,
        masks: Masks,
        places: Array | None = None,
    ) -> tuple[Array, Array | None, Array | None]:
        return _core.option_forward(
            weights=self.weights, x=x, h0=h0, c0=c0, training=training, slots=slots, **masks._asdict()
        )

    def backward(
        self, masks: Masks, *, places: Array | None = None, **call: Any
    ) -> tuple[Array | None, Array, Array | None]:
        gradients = {name: call.pop(f"d{name}") for name in self.names.values()}
        return _core.option_backward(weights=self.weights, gradients=gradients, **call, **masks._asdict())


class Direction:
    """Parameters and kernels of one layer in one direction.

    Parameters
    ----------
    cell : str
        As the kernels name it.
    suffix : str
        Of the parameters' names: "l0", "l0_reverse".
    parameters : Parameters
        Of the whole layer object.
    options : CellOptions
    connections : mapping of str to ndarray
        Masks by the names of the weights, so sparse that products with blocks of zeros are worth leaving out.
    """

    def __init__(
        self,
        cell: str,
        suffix: str,
        parameters: Parameters,
        options: CellOptions,
        connections: Mapping[str, Array],
    ) -> None:
        self.suffix = suffix
        plain = options.is_plain and not connections
        names = PLAIN_NAMES if plain else PLAIN_NAMES | OPTION_NAMES
        owned = {f"{name}_{suffix}": ours for name, ours in names.items()}
        arrays = {ours: parameters[name] for name, ours in owned.items() if name in parameters}
        masks = {ours: connections[name] for name, ours in owned.items() if name in connections}
        self.kernels = PlainKernels(cell, arrays) if plain else OptionKernels(cell, arrays, options, masks)

    def forward(self, call: ForwardCall, training: bool) -> Trace:
        """Run all steps. In training everything is kept; otherwise ``c`` of the result is the last one, by row."""
        way, grid, h0, c0, masks = call
        places = self.places(way)
        x = _given(way, grid, places)
        results = self.kernels.forward(x, h0, c0, way.slots, training, masks, places)
        return Trace(way, x, *results, masks, places)

    def forward_in_segments(self, call: ForwardCall, spacing: int) -> tuple[Trace, Array | None]:
        """Forward that keeps cell states before some steps only; also the last cell state by row."""
        way, grid, h0, c0, masks = call
        x = way.gather(grid)
        trace = Trace(way, x, _in_slots(way, h0), None, None, masks)
        trace.cuts = _cuts(way, spacing)
        last_c = None if c0 is None else c0.copy()
        for first, last in zip(trace.cuts, [*trace.cuts[1:], way.steps], strict=True):
            part = way.segment(first, last)
            c0 = rows_of(last_c, slice(part.sequences))
            trace.cells.append(None if c0 is None else c0.copy())
            # The masks are those of training, so that running a segment again gives the same states.
            h, c, _ = self.kernels.forward(x[part.rows], trace.h[part.before], c0, part.slots, False, masks.of(part))
            trace.h[part.after] = h[1:] if part.slots is None else h[part.sequences :]
            if last_c is not None:
                last_c[: part.sequences] = c
        return trace, last_c

    def backward(self, call: BackwardCall, grads: Mapping[str, Array]) -> Backpropagated:
        """Go back through all steps; ``grads`` are overwritten."""
        if call.trace.cuts:
            return self._backward_in_segments(call, grads)
        return self.kernels.backward(call.trace.masks, **self.backward_arguments(call, grads))

    def backward_arguments(self, call: BackwardCall, grads: Mapping[str, Array]) -> dict[str, Any]:
        trace, dy, dcells, dh, dc, need_dx = call
        return {
            "x": trace.x,
            "h": trace.h,
            "c": trace.c,
            "gates": trace.gates,
            "dy": dy,
            "dcells": dcells,
            "dh_n": dh,
            "dc_n": dc,
            "slots": trace.way.slots,
            "need_dx": need_dx,
            "overwrite": True,
            "places": trace.places,
            **self._own(grads),
        }

    def places(self, way: Way) -> Array | None:
        """Where the kernels find what is given for every step, if they can look for it."""
        return way.places if isinstance(self.kernels, PlainKernels) else None

    def _backward_in_segments(self, call: BackwardCall, grads: Mapping[str, Array]) -> Backpropagated:
        """Every segment is run again before its gradients are found."""
        trace, dy, dcells, dh, dc, need_dx = call
        way = trace.way
        dx = _core.empty(trace.x.shape, trace.x.dtype) if need_dx else None
        dh = np.zeros((way.sequences, trace.h.shape[-1]), trace.h.dtype) if dh is None else dh.copy()
        first_c = trace.cells[0]
        dc = (
            None
            if first_c is None
            else np.zeros((way.sequences, first_c.shape[-1]), dh.dtype)
            if dc is None
            else dc.copy()
        )
        ends = [*trace.cuts[1:], way.steps]
        for first, last, c0 in reversed(list(zip(trace.cuts, ends, trace.cells, strict=True))):
            part = way.segment(first, last)
            masks = trace.masks.of(part)
            x = trace.x[part.rows]
            h, c, gates = self.kernels.forward(x, trace.h[part.before], c0, part.slots, True, masks)
            active = slice(part.sequences)
            dx_part, dh[active], dc_part = self.kernels.backward(
                masks,
                x=x,
                h=h,
                c=c,
                gates=gates,
                dy=rows_of(dy, part.rows),
                dcells=rows_of(dcells, part.rows),
                dh_n=dh[active],
                dc_n=rows_of(dc, active),
                slots=part.slots,
                need_dx=need_dx,
                overwrite=last == way.steps,
                **self._own(grads),
            )
            if dc is not None:
                dc[active] = dc_part
            if dx is not None:
                dx[part.rows] = dx_part
        return dx, dh, dc

    def _own(self, grads: Mapping[str, Array]) -> dict[str, Array | None]:
        """The gradients of this direction's parameters by the kernels' names."""
        return {f"d{ours}": grads.get(f"{name}_{self.suffix}") for name, ours in self.kernels.names.items()}


def forward_together(parts: Sequence[Direction], calls: Sequence[ForwardCall], training: bool) -> list[Trace]:
    """Calls of two directions, or of layers, each of which takes the output of the one before in place of ``x``."""
    chained = len(calls) > 1 and calls[0].way is calls[1].way
    if len(calls) > 1 and all(isinstance(part.kernels, PlainKernels) for part in parts):
        named: list[dict[str, Any]] = [
            {
                "weights": part.kernels.weights,
                "x": _given(way, grid, part.places(way)),
                "h0": h0,
                "c0": c0,
                "slots": way.slots,
                "places": part.places(way),
            }
            for part, (way, grid, h0, c0, _) in zip(parts, calls, strict=True)
        ]
        results = _core.forward_all(named, training=training, chained=chained)
        traces = [
            Trace(call.way, arguments["x"], *result, call.masks, arguments["places"])
            for call, arguments, result in zip(calls, named, results, strict=True)
        ]
        if chained:
            for below, trace in itertools.pairwise(traces):
                trace.x = below.output
        return traces
    traces = []
    for part, call in zip(parts, calls, strict=True):
        traces.append(part.forward(call._replace(x=traces[-1].output) if chained and traces else call, training))
    return traces


def backward_together(
    parts: Sequence[Direction], calls: Sequence[BackwardCall], grads: Mapping[str, Array]
) -> list[Backpropagated]:
    """The same on the way back. Of layers the last call comes first, and hands its dL/dx to the one before as dL/dy."""
    chained = len(calls) > 1 and calls[0].trace.way is calls[1].trace.way
    segmented = any(call.trace.cuts for call in calls)
    if len(calls) > 1 and not segmented and all(isinstance(part.kernels, PlainKernels) for part in parts):
        named: list[dict[str, Any]] = [
            {"weights": part.kernels.weights, **part.backward_arguments(call, grads)}
            for part, call in zip(parts, calls, strict=True)
        ]
        order = -1 if chained else 1
        return _core.backward_all(named[::order], chained=chained)[::order]
    if not chained:
        return [part.backward(call, grads) for part, call in zip(parts, calls, strict=True)]
    results: list[Backpropagated] = []
    for part, call in zip(reversed(parts), reversed(calls), strict=True):
        results.append(part.backward(call._replace(dy=results[-1][0]) if results else call, grads))
    return results[::-1]


def _cuts(way: Way, spacing: int) -> list[int]:
    """Where segments begin: at places where the kernels cut the sums of weight gradients anyway."""
    cuts, last = [], way.steps
    while last > 0:
        wanted = max(0, last - spacing)
        last = _core.backward_cut(steps=way.steps, batch=way.sequences, slots=way.slots, last=last, wanted=wanted)
        cuts.append(last)
    return cuts[::-1]


def _given(way: Way, grid: Array, places: Array | None) -> Array:
    return np.ascontiguousarray(way.gather(grid) if places is None else rows_of_grid(grid))


def rows_of(array: Array | None, rows: slice) -> Array | None:
    return None if array is None else array[rows]


def _in_slots(way: Way, h0: Array) -> Array:
    """Room for states in their slots, with the initial ones in place."""
    shape = (way.steps + 1, *h0.shape) if way.slots is None else (int(way.slots[-1]), *h0.shape[1:])
    h: Array = _core.empty(shape, h0.dtype)
    h.reshape(-1, *h0.shape[1:])[: len(h0)] = h0
    return h
