"""What RNN, LSTM, GRU and FRNN share: parameters, shapes, layers and directions. The cells differ in kernels alone."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnnfast import _core
from rnnfast._arrays import Array, as_float_array, is_exactly
from rnnfast._checks import check_lengths, integer, number
from rnnfast.layers import masks as masks_
from rnnfast.layers.base import PLAIN, Layer, Run
from rnnfast.layers.direction import (
    NO_MASKS,
    BackwardCall,
    Direction,
    ForwardCall,
    Masks,
    Trace,
    backward_together,
    forward_together,
)
from rnnfast.layers.options import CellOptions, parse_flag
from rnnfast.layers.sequences import Way, check_resets, ways
from rnnfast.layers.stream import Stream
from rnnfast.layers.tape import Gradients, Tape, from_time_major, to_time_major

State = Any  # array (RNN, GRU) or tuple of two arrays (LSTM)

# Kernels that leave out products with blocks of absent connections cost more for those that are left; more blocks than
# this share are not worth it.
_SPARSE = 0.5


class RecurrentLayer(Layer):
    """Layers of recurrent cells in one or two directions. Use `RNN`, `LSTM`, `GRU` or `FRNN`."""

    _gates: int  # rows of weights per hidden unit
    _has_cell_state = False
    _keeps_gates = True
    _read_out: Array | None = None  # units whose states are the output; None: all

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        *,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        dtype: Any,
        seed: Any,
        options: CellOptions,
        mask_ih: Any = None,
        mask_hh: Any = None,
        learn_initial_state: bool = False,
    ) -> None:
        name = type(self).__name__
        self.input_size = integer(name, "input_size", input_size, 1)
        self.hidden_size = integer(name, "hidden_size", hidden_size, 1)
        self.num_layers = integer(name, "num_layers", num_layers, 1)
        self.bias = parse_flag(name, "bias", bias)
        self.batch_first = parse_flag(name, "batch_first", batch_first)
        self.bidirectional = parse_flag(name, "bidirectional", bidirectional)
        self.learn_initial_state = parse_flag(name, "learn_initial_state", learn_initial_state)
        self.dropout = number(name, "dropout", dropout, 0, 1, includes=True)
        if self.dropout and self.num_layers == 1:
            warnings.warn(
                f"{name}: dropout is {dropout} with num_layers 1; it acts between layers only, so it does nothing",
                stacklevel=3,
            )
        self.options = options
        self._cell = cell
        self._directions = 2 if self.bidirectional else 1
        self._output_size = options.proj_size or self.hidden_size
        self.mask_ih, self.mask_hh = self._connections(mask_ih, mask_hh)

        super().__init__(dtype, self._shapes())
        self._draw_uniform(1.0 / math.sqrt(self.hidden_size), seed)
        # Random masks outside `fit`: a generator for each call, so that calls from several threads do not disturb
        # each other.
        self._entropy = int(np.random.default_rng(seed).integers(2**63)) if seed is not None else None
        self._calls = itertools.count()
        self._set_special_values()
        self._bind()

    # Parameters.

    def _suffixes(self) -> list[str]:
        return [f"l{level}{way}" for level in range(self.num_layers) for way in ("", "_reverse")[: self._directions]]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        rows = self._gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for place, suffix in enumerate(self._suffixes()):
            inputs = self.input_size if place < self._directions else self._directions * self._output_size
            own: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs), "weight_hh": (rows, self._output_size)}
            if self.bias:
                own |= {"bias_ih": (rows,), "bias_hh": (rows,)}
            own |= self._extra_shapes()
            shapes |= {f"{name}_{suffix}": shape for name, shape in own.items()}
        return shapes

    def _extra_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = self.options.parameter_shapes(self._gates, self.hidden_size)
        if self.options.layer_norm and self._has_cell_state:
            shapes |= {"layer_norm_c_weight": (self.hidden_size,), "layer_norm_c_bias": (self.hidden_size,)}
        if self.learn_initial_state:
            shapes["initial_h"] = (self._output_size,)
            if self._has_cell_state:
                shapes["initial_c"] = (self.hidden_size,)
        return shapes

    def _set_special_values(self) -> None:
        """What does not start as a random number."""
        for name in self.parameters:
            if name.startswith("layer_norm"):
                self.parameters[name][...] = 0 if "bias" in name else 1
            elif name.startswith("initial"):
                self.parameters[name][...] = 0
        for name, mask in self._weight_masks.items():
            self.parameters[name][~mask] = 0
        self.parameters.changed()

    def _connections(self, mask_ih: Any, mask_hh: Any) -> tuple[Array | None, Array | None]:
        name = type(self).__name__
        if mask_ih is None and mask_hh is None:
            return None, None
        if self.num_layers > 1 or self.bidirectional:
            raise ValueError(
                f"{name}: mask_ih or mask_hh is given with num_layers {self.num_layers} and bidirectional "
                f"{self.bidirectional}; expected one layer in one direction, whose weights the masks are for"
            )
        sizes = self.input_size, self._output_size
        ih, hh = (
            masks_.parse_connections(name, what, mask, self._gates, (self.hidden_size, size))
            for what, mask, size in zip(("mask_ih", "mask_hh"), (mask_ih, mask_hh), sizes, strict=True)
        )
        return ih, hh

    @property
    def _weight_masks(self) -> dict[str, Array]:
        """Masks by the names of the weights that they are for."""
        masks = {"weight_ih_l0": self.mask_ih, "weight_hh_l0": self.mask_hh}
        return {name: mask for name, mask in masks.items() if mask is not None}

    def _bind(self) -> None:
        """Give the parameters to the kernels, which pack them anew after every change."""
        masks = self._weight_masks
        sparse = {name: mask for name, mask in masks.items() if masks_.share_of_blocks(mask) < _SPARSE}
        self._parts = [
            Direction(self._cell, suffix, self.parameters, self.options, sparse) for suffix in self._suffixes()
        ]
        units = self.hidden_size
        absent = {name: masks_.absent(mask, units, name in sparse) for name, mask in masks.items()}
        self._absent = {name: places for name, places in absent.items() if len(places) > 0}
        weights = [part.kernels.weights for part in self._parts]
        simple = len(weights) == 1 and self._read_out is None and not self.batch_first
        self._direct = weights[0] if simple and isinstance(weights[0], _core.Weights) else None

        def invalidate() -> None:
            for one in weights:
                one.invalidate()

        self.parameters.on_change = invalidate

    def _check_values(self, arrays: Mapping[str, Array], who: str) -> None:
        for name, mask in self._weight_masks.items():
            if np.any(arrays[name][~mask] != 0):
                raise ValueError(f"{who}: {name} is not 0 where mask_{name[7:9]} has no connection; expected 0 there")

    # Copies and pickles share nothing with the layer: their kernels see their own parameters.

    def __getstate__(self) -> dict[str, Any]:
        made_anew = ("_parts", "_direct", "_calls", "_absent")
        return {name: value for name, value in self.__dict__.items() if name not in made_anew}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._calls = itertools.count()
        self._bind()

    @property
    def takes(self) -> int:
        return self.input_size

    def gives(self, width: int | None) -> int:
        return self._directions * self._output_size if self._read_out is None else len(self._read_out)

    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "bias": self.bias,
            "batch_first": self.batch_first,
            "dtype": self.dtype.name,
        }
        options = {
            "num_layers": self.num_layers if self.num_layers > 1 else None,
            "dropout": self.dropout or None,
            "bidirectional": self.bidirectional or None,
            "learn_initial_state": self.learn_initial_state or None,
            "mask_ih": None if self.mask_ih is None else masks_.encode(self.mask_ih),
            "mask_hh": None if self.mask_hh is None else masks_.encode(self.mask_hh),
        }
        return (
            config
            | {name: value for name, value in options.items() if value is not None}
            | self.options.config(self._has_cell_state)
        )

    # Running.

    def __call__(self, x: Any, state: State = None, *, lengths: Any = None, resets: Any = None) -> tuple[Array, State]:
        """Run the layer over a batch of sequences, for inference: nothing is kept.

        Parameters
        ----------
        x : array_like, shape (T, N, I), or (N, T, I) with ``batch_first``, or (T, I) for one sequence
            T time steps of N sequences; of the layer's dtype. T = 0 and N = 0 are allowed.
        state : array_like, shape (D*L, N, H), or (D*L, H) for one sequence; for LSTM a tuple of two such arrays
            Hidden state (and cell state) before the first step, D directions of L layers: layer 0, layer 0 reverse,
            layer 1, ... Zeros when None, or the learnt ones with ``learn_initial_state``.
        lengths : array_like of int, shape (N,)
            Valid steps of every sequence, 0..T, in any order. What stands in x after them never matters.
        resets : array_like of bool, shape (T, N), or (N, T) with ``batch_first``, or (T,) for one sequence
            Where True, the state of that sequence is zeroed before that step (by each direction before it comes to
            that step), as at the start of an episode.

        Returns
        -------
        y : ndarray, shape (T, N, D*H), or (N, T, D*H), or (T, D*H)
            Hidden state after every step, both directions side by side; 0 past the end of a sequence.
        state : ndarray, or tuple of two ndarrays
            State after the last valid step of each sequence, in the shape of the argument. The reverse direction
            begins at that step and ends at the first.

        Raises
        ------
        TypeError
            If an array is not of the layer's dtype, or ``state`` is of the wrong kind.
        ValueError
            If a shape does not fit, or a length is below 0 or above T.
        """
        plain = lengths is None and resets is None and (state is not None or not self.learn_initial_state)
        if self._direct is not None and plain:
            # Small calls are mostly Python otherwise. None: the long way, which judges the arrays.
            result: tuple[Array, State] | None = _core.infer(self._direct, x, state)
            if result is not None:
                return result
        who = type(self).__name__
        x, states, lengths, resets, layout = self._inputs(who, x, state, lengths, resets)
        y, h, c = self._run(x, states, lengths, resets, None)
        return from_time_major(y, layout), self._state(h, c, layout)

    def _exact_state(self, state: State, batch: int) -> tuple[Array | None, Array | None] | None:
        """The two parts of a state, (N, H), None for zeros, if they are as the kernels take them."""
        if state is None:
            return None, None
        parts = state if self._has_cell_state else (state,)
        if type(parts) is not tuple or len(parts) != 1 + self._has_cell_state:
            return None
        shape = (1, batch, self.hidden_size)
        for part in parts:
            if not (is_exactly(part, self.dtype, 3) and part.shape == shape):
                return None
        return parts[0][0], parts[1][0] if self._has_cell_state else None

    def forward(
        self,
        x: Any,
        state: State = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        checkpoint: bool | int = False,
    ) -> tuple[Array, State, Tape]:
        """Run the layer like a call does, in training: with dropout, zoneout, and what `backward` needs kept.

        Parameters
        ----------
        x : array_like
            As for a call, like the next three.
        state : array_like, or tuple of two, optional
        lengths : array_like of int, optional
        resets : array_like of bool, optional
        checkpoint : bool or int
            Keep the states of every k-th step only, and let `backward` run the steps between them again: the same
            bits with a fraction of the memory, for about a third more time. True: k about sqrt(T). k is rounded up to
            where sums of weight gradients are cut anyway, 512 rows.

        Returns
        -------
        y, state
            As from a call, to the bit if there is neither dropout nor zoneout. ``y`` is read-only, because the tape
            needs it: copy it to change it.
        tape : Tape
            For `backward`. Neither ``x`` nor the parameters may change before that.

        References
        ----------
        Gruslys et al. (2016), Memory-efficient backpropagation through time, NeurIPS; Chen et al. (2016), Training
        deep nets with sublinear memory cost, arXiv 1604.06174, for ``checkpoint``.
        """
        if self._direct is not None and lengths is None and resets is None and checkpoint is False:
            result = self._forward_directly(self._direct, x, state)
            if result is not None:
                return result
        who = f"{type(self).__name__}.forward"
        spacing = _spacing(who, checkpoint)
        given = x
        x, states, lengths, resets, layout = self._inputs(who, x, state, lengths, resets)
        tape = Tape(self, layout)
        entropy = [self._entropy, next(self._calls)] if self._entropy is not None else None
        y, h, c = self._run(x, states, lengths, resets, tape, entropy, spacing)
        y.flags.writeable = False
        tape._outside = [array for array in (given, y) if isinstance(array, np.ndarray)]
        return from_time_major(y, layout), self._state(h, c, layout), tape

    def _forward_directly(self, weights: _core.Weights, x: Any, state: State) -> tuple[Array, State, Tape] | None:
        """The result for arrays that are as the kernels take them; None: take the long way, which judges them."""
        if not (is_exactly(x, self.dtype, 3) and x.shape[2] == self.input_size):
            return None
        first = self._exact_state(state, x.shape[1])
        if first is None or (state is None and self.learn_initial_state):
            return None
        tape = Tape(self, "T N")
        y = self._trace_directly(weights, x, tape, *first)
        y.flags.writeable = False
        tape._outside += x, y
        trace = tape._traces[0]
        h_n, c = trace.h[-1:].copy(), trace.c
        return y, h_n if c is None else (h_n, c[-1:].copy()), tape

    def backward(
        self, tape: Tape, dy: Any = None, dstate: State = None, *, dcell_states: Any = None, keep: bool = False
    ) -> Gradients:
        """Backpropagation through time.

        Parameters
        ----------
        tape : Tape
            From `forward` of this layer. It is spent, unless ``keep`` is true.
        dy : array_like, of the shape of ``y``
            dL/dy. Zeros when None. What stands past the end of a sequence never matters.
        dstate : array_like, or tuple of two, of the shape of ``state``
            dL/d(last state). Zeros when None.
        dcell_states : array_like, of the shape of ``tape.cell_states``
            dL/d(cell state after each step), for LSTM. Zeros when None.
        keep : bool
            Leave the tape usable.

        Returns
        -------
        Gradients

        Raises
        ------
        TypeError
            If ``tape`` is no tape, or an array is not of the layer's dtype.
        ValueError
            If the tape is spent or another layer's, the parameters changed since `forward`, or a shape does not fit.

        References
        ----------
        Werbos (1990), Backpropagation through time, Proceedings of the IEEE 78(10).
        """
        if self._direct is not None and dcell_states is None and not keep:
            result = self._backward_directly(self._direct, tape, dy, dstate)
            if result is not None:
                return result
        flat = _core.empty((self.parameters.size,), self.dtype)
        grads = self._gradients(flat)
        dx, dh, dc, layout = self._backpropagate(tape, dy, dstate, dcell_states, grads, keep=keep, need_dx=True)
        assert dx is not None
        return Gradients(from_time_major(dx, layout), self._state(dh, dc, layout), grads, flat)

    def _backward_directly(self, weights: _core.Weights, tape: Any, dy: Any, dstate: State) -> Gradients | None:
        """`_forward_directly` on the way back."""
        if type(tape) is not Tape or tape._layout != "T N" or not self._takes_directly(tape):
            return None
        if dy is not None and not (is_exactly(dy, self.dtype, 3) and dy.shape == (*tape._shape, self.hidden_size)):
            return None
        last = self._exact_state(dstate, tape._shape[1])
        if last is None:
            return None
        flat = _core.empty((self.parameters.size,), self.dtype)
        grads = self._gradients(flat)
        dx, dh, dc = self._pull_back_directly(weights, tape, dy, *last, grads, True)
        assert dx is not None
        return Gradients(dx, dh[None] if dc is None else (dh[None], dc[None]), grads, flat)

    def _takes_directly(self, tape: Tape) -> bool:
        """Whether the tape is one of `_trace_directly`, or as simple."""
        if tape._layer is not self or tape._is_spent or tape._version != self.parameters.version:
            return False
        if tape._learned or self._absent:
            return False
        trace = tape._traces[0]
        return trace.way.slots is None and not trace.cuts

    def stream(self, batch: int = 1) -> Stream:
        """The layer run step by step on ``batch`` sequences at once, with the state kept inside.

        Outputs are those of a call on the whole sequence, to the bit.

        Raises
        ------
        ValueError
            If the layer is bidirectional: its output of a step depends on later ones.
        """
        who = f"{type(self).__name__}.stream"
        if self.bidirectional:
            raise ValueError(f"{who}: the layer is bidirectional; expected one direction, later steps are not known")
        return Stream(self, integer(who, "batch", batch, 1))

    # The protocol of Sequential: always time-major.

    def apply(self, x: Array, run: Run = PLAIN) -> Array:
        return self._run_in_model(x, run, None)

    def trace(self, x: Array, run: Run = PLAIN) -> tuple[Array, Tape]:
        tape = Tape(self, "T N")
        if self._direct is not None and run.lengths is None and run.carry is None:
            tape._learned = self.learn_initial_state
            first = self._initial(0, x.shape[1], None) if self.learn_initial_state else (None, None)
            return self._trace_directly(self._direct, np.ascontiguousarray(x), tape, *first), tape
        return self._run_in_model(x, run, tape), tape

    # Small steps of training are mostly Python; these two leave out what a plain layer does not need. Going through
    # `Direction` as well takes a quarter longer.

    def _trace_directly(
        self, weights: _core.Weights, x: Array, tape: Tape, h0: Array | None, c0: Array | None
    ) -> Array:
        shape = x.shape[:2]
        h, c, gates = _core.forward(weights=weights, x=x, h0=h0, c0=c0, training=True, slots=None)
        tape._shape = shape
        tape._inputs.append(x)
        tape._traces.append(Trace(Way(*shape), x, h, c, gates, NO_MASKS))
        y: Array = h[1:]
        return y

    def _pull_back_directly(
        self,
        weights: _core.Weights,
        tape: Tape,
        dy: Array | None,
        dh_n: Array | None,
        dc_n: Array | None,
        grads: Mapping[str, Array],
        need_dx: bool,
    ) -> tuple[Array | None, Array, Array | None]:
        trace = tape._traces[0]
        tape._is_spent = True
        return _core.backward(
            weights=weights,
            x=trace.x,
            h=trace.h,
            c=trace.c,
            gates=trace.gates,
            dy=dy,
            dh_n=dh_n,
            dc_n=dc_n,
            dw_ih=grads["weight_ih_l0"],
            dw_hh=grads["weight_hh_l0"],
            db_ih=grads.get("bias_ih_l0"),
            db_hh=grads.get("bias_hh_l0"),
            need_dx=need_dx,
            overwrite=True,
            slots=None,
            dcells=None,
        )

    def _run_in_model(self, x: Array, run: Run, tape: Tape | None) -> Array:
        states = None if run.carry is None else run.carry.get(run.path)
        y, h, c = self._run(x, states, run.lengths, None, tape, [*run.seed, *run.path])
        if run.carry is not None:
            run.carry[run.path] = (h, c)
        return y

    def pull_back(self, tape: Tape, dy: Array, grad: Array, need_dx: bool) -> Array | None:
        grads = self._gradients(grad)
        if self._direct is not None and self._takes_directly(tape):
            dy = np.ascontiguousarray(dy)
            return self._pull_back_directly(self._direct, tape, dy, None, None, grads, need_dx)[0]
        return self._backpropagate(tape, dy, None, None, grads, keep=False, need_dx=need_dx)[0]

    def _gradients(self, flat: Array) -> dict[str, Array]:
        """Views of ``flat`` for the kernels, which write all that is theirs."""
        grads = self.parameters.views(flat)
        for part in self._parts if self.learn_initial_state else ():
            grads[f"initial_h_{part.suffix}"][...] = 0
            if self._has_cell_state:
                grads[f"initial_c_{part.suffix}"][...] = 0
        return grads

    # All layers and directions.

    def _run(
        self,
        x: Array,
        states: tuple[Array, Array | None] | None,
        lengths: Array | None,
        resets: Array | None,
        tape: Tape | None,
        entropy: Sequence[int] | None = None,
        spacing: int | None = None,
    ) -> tuple[Array, Array, Array | None]:
        """Time-major y, and last states (D*L, N, ...); what backward needs goes into ``tape``."""
        steps, batch = x.shape[:2]
        both = ways(steps, batch, lengths, resets, self._directions)
        count, width = len(self._parts), self._output_size
        h_n: Array = np.empty((count, batch, width), self.dtype)
        c_n: Array | None = np.empty((count, batch, self.hidden_size), self.dtype) if self._has_cell_state else None
        if tape is not None:
            tape._shape = (steps, batch)
            tape._learned = states is None and self.learn_initial_state
            self._draw_masks(tape, steps, batch, entropy)
        if spacing == 0:
            spacing = max(1, math.isqrt(steps))
        for places in self._groups(both, {} if tape is None else tape.masks, spacing):
            parts = [self._parts[place] for place in places]
            calls = []
            for place, part in zip(places, parts, strict=True):
                way = both[place % self._directions]
                h0, c0 = self._initial(place, batch, states)
                masks = NO_MASKS if tape is None else self._masks_of(tape, part.suffix, way)
                c_rows = None if c0 is None else way.initial(c0)
                calls.append(ForwardCall(way, x, way.initial(h0), c_rows, masks))
            if spacing is None or not both[0].steps * batch:
                traces = forward_together(parts, calls, tape is not None)
                last_c = [trace.c for trace in traces]
            else:
                pairs = [part.forward_in_segments(call, spacing) for part, call in zip(parts, calls, strict=True)]
                traces, last_c = [trace for trace, _ in pairs], [c for _, c in pairs]
            for place, trace, c in zip(places, traces, last_c, strict=True):
                h_n[place] = trace.way.final(trace.h)
                if c_n is not None:
                    assert c is not None
                    c_n[place] = trace.way.final(c) if c is trace.c and tape is not None else trace.way.final_of_rows(c)
            if tape is not None:
                tape._inputs += [x, *(trace.output for trace in traces[:-1])] if self._directions == 1 else [x]
                tape._traces += traces
            if self._directions == 1 and traces[-1].way.slots is None:
                x = traces[-1].output
            else:
                x = _core.empty((steps, batch, self._directions * width), self.dtype)
                for d, trace in enumerate(traces):
                    trace.way.scatter(trace.output, x[..., d * width : (d + 1) * width])
            dropout = None if tape is None else tape.masks.get(f"dropout_l{places[-1] // self._directions}")
            if dropout is not None:
                x = x * dropout
        if self._read_out is not None:
            x = x.take(self._read_out, axis=-1)
        return x, h_n, c_n

    def _groups(self, both: Sequence[Way], masks: Mapping[str, Array], spacing: int | None) -> list[list[int]]:
        """Places whose calls are made together: the directions of a layer, or all layers if each only needs the one
        below to be ahead of it."""
        if self._directions == 1 and both[0].slots is None and not masks and spacing is None:
            return [list(range(self.num_layers))]
        D = self._directions
        return [list(range(level * D, (level + 1) * D)) for level in range(self.num_layers)]

    def _initial(self, place: int, batch: int, states: tuple[Array, Array | None] | None) -> tuple[Array, Array | None]:
        if states is not None:
            return states[0][place], None if states[1] is None else states[1][place]
        h0, c0 = np.zeros((batch, self._output_size), self.dtype), None
        if self._has_cell_state:
            c0 = np.zeros((batch, self.hidden_size), self.dtype)
        if self.learn_initial_state:
            suffix = self._parts[place].suffix
            h0[...] = self.parameters[f"initial_h_{suffix}"]
            if c0 is not None:
                c0[...] = self.parameters[f"initial_c_{suffix}"]
        return h0, c0

    def _draw_masks(self, tape: Tape, steps: int, batch: int, entropy: Sequence[int] | None) -> None:
        """Random masks of one pass of training; nothing is drawn for what is not used."""
        options = self.options
        between = self.dropout if self.num_layers > 1 else 0.0
        if not (between or options.recurrent_dropout or any(options.zoneout)):
            return
        generator = np.random.default_rng(entropy)
        drop, keep = masks_.inverted_dropout, masks_.zoneout_mask
        for suffix in self._suffixes():
            if options.recurrent_dropout:
                of_states = (batch, self._output_size)
                tape.masks[f"recurrent_{suffix}"] = drop(generator, options.recurrent_dropout, of_states, self.dtype)
            for which, p in zip("hc", options.zoneout, strict=True):
                if p:
                    shape = (steps, batch, self.hidden_size)
                    tape.masks[f"zoneout_{which}_{suffix}"] = keep(generator, p, shape, self.dtype)
        if between:
            for level in range(self.num_layers - 1):
                shape = (steps, batch, self._directions * self._output_size)
                tape.masks[f"dropout_l{level}"] = drop(generator, between, shape, self.dtype)

    @staticmethod
    def _masks_of(tape: Tape, suffix: str, way: Way) -> Masks:
        if not tape.masks:
            return NO_MASKS
        recurrent = tape.masks.get(f"recurrent_{suffix}")
        zoneout = (tape.masks.get(f"zoneout_{which}_{suffix}") for which in "hc")
        return Masks(
            None if recurrent is None else way.rows_of_sequences(recurrent),
            *(None if mask is None else way.gather(mask) for mask in zoneout),
        )

    def _backpropagate(
        self,
        tape: Tape,
        dy: Any,
        dstate: State,
        dcell_states: Any,
        grads: Mapping[str, Array],
        *,
        keep: bool,
        need_dx: bool,
    ) -> tuple[Array | None, Array, Array | None, str]:
        """Time-major dL/dx, gradients of the initial states (D*L, N, ...), and the layout to give them back in."""
        who = f"{type(self).__name__}.backward"
        if not isinstance(tape, Tape):
            raise TypeError(f"{who}: tape is {type(tape).__name__}; expected the tape that forward returned")
        if tape._is_spent:
            raise ValueError(f"{who}: tape is spent; expected a fresh one, or keep=True in the backward before")
        if tape._layer is not self:
            raise ValueError(f"{who}: tape belongs to another layer; expected one from forward of this layer")
        if tape._version != self.parameters.version:
            raise ValueError(f"{who}: the parameters changed since forward; expected backward before the update")
        layout = tape._layout
        steps, batch = tape._shape
        count, width = len(self._parts), self._output_size
        if dy is not None:
            read = self._directions * width if self._read_out is None else len(self._read_out)
            dy = self._per_step(who, "dy", dy, tape, (read,), "y")
            if self._read_out is not None:
                of_all = np.zeros((steps, batch, width), self.dtype)
                of_all[..., self._read_out] = dy
                dy = of_all
        dcells = None
        if dcell_states is not None:
            if not self._has_cell_state:
                raise ValueError(f"{who}: dcell_states is given; expected None, there is no cell state")
            shape = (self.hidden_size,) if count == 1 else (count, self.hidden_size)
            dcells = self._per_step(who, "dcell_states", dcell_states, tape, shape, "tape.cell_states")
            dcells = dcells.reshape(steps, batch, count, self.hidden_size)
        dh_n: Array | None = None
        dc_n: Array | None = None
        if dstate is not None:
            dh_n, dc_n = self._states(who, "dstate", dstate, batch, layout)
        tape._is_spent = not keep

        dh0: Array = np.empty((count, batch, width), self.dtype)
        dc0: Array | None = np.empty((count, batch, self.hidden_size), self.dtype) if self._has_cell_state else None
        ways_of = [trace.way for trace in tape._traces[: self._directions]]
        segmented = any(trace.cuts for trace in tape._traces)
        for places in reversed(self._groups(ways_of, tape.masks, 0 if segmented else None)):
            dropout = tape.masks.get(f"dropout_l{places[-1] // self._directions}")
            if dropout is not None and dy is not None:
                dy = dy * dropout
            calls = []
            for d, place in enumerate(places):
                trace = tape._traces[place]
                own = dy if dy is None or self._directions == 1 else dy[..., d * width : (d + 1) * width]
                calls.append(
                    BackwardCall(
                        trace,
                        None if own is None else trace.given(own),
                        None if dcells is None else trace.given(dcells[:, :, place]),
                        None if dh_n is None else trace.way.final_back(dh_n[place]),
                        None if dc_n is None else trace.way.final_back(dc_n[place]),
                        need_dx or place >= self._directions,
                    )
                )
            results = backward_together([self._parts[place] for place in places], calls, grads)
            for place, call, (_, dh_rows, dc_rows) in zip(places, calls, results, strict=True):
                dh0[place] = call.trace.way.initial_back(dh_rows)
                if dc0 is not None:
                    assert dc_rows is not None
                    dc0[place] = call.trace.way.initial_back(dc_rows)
            if self._directions == 1 and calls[0].trace.way.slots is None:
                dy = results[0][0]
                continue
            dy = None
            for call, (dx_rows, _, _) in zip(calls, results, strict=True):
                if dx_rows is not None:
                    dx = call.trace.input_gradient(dx_rows)
                    dy = dx if dy is None else dy + dx
        if tape._learned:
            for place, part in enumerate(self._parts):
                grads[f"initial_h_{part.suffix}"][...] = dh0[place].sum(axis=0)
                if dc0 is not None:
                    grads[f"initial_c_{part.suffix}"][...] = dc0[place].sum(axis=0)
        for name, absent in self._absent.items():
            grads[name].reshape(-1)[absent] = 0
        return dy, dh0, dc0, layout

    # Shapes in and out.

    def _inputs(
        self, who: str, x: Any, state: State, lengths: Any, resets: Any
    ) -> tuple[Array, tuple[Array, Array | None] | None, Array | None, Array | None, str]:
        """Time-major x, states (D*L, N, ...), lengths and resets, and the layout to give results back in."""
        x = as_float_array(x, self.dtype, f"{who}: x")
        layout = "T" if x.ndim == 2 else "N T" if self.batch_first else "T N"
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            axes = "(N, T, I)" if self.batch_first else "(T, N, I)"
            raise ValueError(
                f"{who}: x has shape {x.shape}; expected {axes} or (T, I) with I = {self.input_size} from input_size"
            )
        shape = x.shape[:-1]
        x = to_time_major(x, layout)
        steps, batch = x.shape[:2]
        states = None if state is None else self._states(who, "state", state, batch, layout)
        if lengths is not None:
            lengths = check_lengths(who, lengths, steps, batch)
        if resets is not None:
            resets = to_time_major(check_resets(who, resets, shape), layout)
        return x, states, lengths, resets, layout

    def _per_step(self, who: str, name: str, value: Any, tape: Tape, rest: tuple[int, ...], of: str) -> Array:
        """A gradient given for every step, time-major."""
        array = as_float_array(value, self.dtype, f"{who}: {name}")
        steps, batch = tape._shape
        leading = {"T": (steps,), "T N": (steps, batch), "N T": (batch, steps)}[tape._layout]
        if array.shape != leading + rest:
            raise ValueError(f"{who}: {name} has shape {array.shape}; expected {leading + rest}, the shape of {of}")
        return to_time_major(array, tape._layout)

    def _states(self, who: str, name: str, state: State, batch: int, layout: str) -> tuple[Array, Array | None]:
        if not self._has_cell_state:
            if isinstance(state, tuple):
                raise TypeError(f"{who}: {name} is a tuple; expected one array, there is no cell state")
            return self._one_state(who, name, state, batch, layout, self._output_size), None
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"{who}: {name} is {type(state).__name__}; expected a tuple of two arrays (h, c)")
        sizes = self._output_size, self.hidden_size
        h, c = (self._one_state(who, f"{name}[{k}]", state[k], batch, layout, sizes[k]) for k in (0, 1))
        return h, c

    def _one_state(self, who: str, name: str, state: Any, batch: int, layout: str, width: int) -> Array:
        array = as_float_array(state, self.dtype, f"{who}: {name}")
        count = len(self._parts)
        what = "hidden_size" if width == self.hidden_size else "proj_size"
        if layout == "T":
            expected: tuple[int, ...] = (count, width)
            axes, origin = "(D*L, H)", f"H from {what}"
        else:
            expected = (count, batch, width)
            axes, origin = "(D*L, N, H)", f"N from x, H from {what}"
        if array.shape != expected:
            raise ValueError(f"{who}: {name} has shape {array.shape}; expected {axes} = {expected}, {origin}")
        return array.reshape(count, batch, width)

    def _state(self, h: Array, c: Array | None, layout: str) -> State:
        if layout == "T":
            h, c = h[:, 0], None if c is None else c[:, 0]
        return h if c is None else (h, c)


def _spacing(who: str, checkpoint: Any) -> int | None:
    """Steps from one kept state to the next, 0 for about sqrt(T), None for keeping everything."""
    if checkpoint is False:
        return None
    return 0 if checkpoint is True else integer(who, "checkpoint", checkpoint, 1)
