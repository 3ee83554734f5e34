"""The fully recurrent network."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnfast._arrays import Array, as_array
from rnnfast._checks import integer
from rnnfast.layers import masks
from rnnfast.layers.options import CellOptions, parse_flag
from rnnfast.layers.recurrent import RecurrentLayer


class FRNN(RecurrentLayer):
    """Fully recurrent network: every unit's output is fed to every unit's input one step later.

    ``h[t] = f(W_ih x[t] + b_ih + W_hh h[t-1] + b_hh)`` as in `RNN`, but units have roles: some see the input, some are
    read out, and any connection can be absent. Other networks are special cases with connections set to zero.

    Parameters
    ----------
    input_size : int
        Inputs I per step.
    units : int
        Units H.
    inputs : sequence of int, optional
        Numbers of the units that see x. None: all.
    outputs : sequence of int, optional
        Numbers of the units that are read out, in the order of y's last axis. None: all.
    connectivity : array_like of bool, shape (units, units), optional
        Whether unit ``to`` hears unit ``from``: ``connectivity[to, from]``, as the rows and columns of
        ``weight_hh_l0``. Absent connections have weight 0 and gradient 0, for ever, and blocks of 16 by 8 of them are
        not multiplied. None: all are there.
    nonlinearity : {"tanh", "relu"}
        The function f.
    bias : bool
        Whether there are biases.
    batch_first : bool
        Sequences come as (N, T, I) instead of (T, N, I). States are (1, N, H) either way.
    dtype : {"float32", "float64"}
        Of parameters, inputs and results.
    seed : int, optional
        For the initial parameters, uniform in (-1/sqrt(H), 1/sqrt(H)).

    Notes
    -----
    Parameters are named as those of `RNN`: ``weight_ih_l0`` (H, I), ``weight_hh_l0`` (H, H), ``bias_ih_l0`` (H,),
    ``bias_hh_l0`` (H,). y is (T, N, len(outputs)); states hold all units.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a value is out of range, or a unit is named twice.

    References
    ----------
    Williams & Zipser (1989), A learning algorithm for continually running fully recurrent neural networks, Neural
    Computation 1(2).
    """

    _gates = 1
    _keeps_gates = False

    def __init__(
        self,
        input_size: int,
        units: int,
        *,
        inputs: Any = None,
        outputs: Any = None,
        connectivity: Any = None,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dtype: Any = "float32",
        seed: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"FRNN: nonlinearity is {nonlinearity!r}; expected 'tanh' or 'relu'")
        self.nonlinearity = nonlinearity
        self.units = integer("FRNN", "units", units, 1)
        sees = _units("inputs", inputs, self.units)
        self._read_out = _units("outputs", outputs, self.units)
        mask_ih = None
        if sees is not None:
            mask_ih = np.zeros((self.units, integer("FRNN", "input_size", input_size, 1)), bool)
            mask_ih[sees] = True
        self._sees = sees
        connectivity = masks.parse_connections("FRNN", "connectivity", connectivity, 1, (self.units, self.units))
        parse_flag("FRNN", "batch_first", batch_first)
        super().__init__(
            f"rnn_{nonlinearity}",
            input_size,
            units,
            num_layers=1,
            bias=bias,
            batch_first=batch_first,
            dropout=0.0,
            bidirectional=False,
            dtype=dtype,
            seed=seed,
            options=CellOptions(),
            mask_ih=mask_ih,
            mask_hh=connectivity,
        )

    @property
    def connectivity(self) -> Array:
        """Which connections there are, (units, units), a copy."""
        return np.ones((self.units, self.units), bool) if self.mask_hh is None else self.mask_hh.copy()

    def config(self) -> dict[str, Any]:
        options = {
            "inputs": None if self._sees is None else self._sees.tolist(),
            "outputs": None if self._read_out is None else self._read_out.tolist(),
            "connectivity": None if self.mask_hh is None else masks.encode(self.mask_hh),
        }
        return {
            "input_size": self.input_size,
            "units": self.units,
            "nonlinearity": self.nonlinearity,
            "bias": self.bias,
            "batch_first": self.batch_first,
            "dtype": self.dtype.name,
            **{name: value for name, value in options.items() if value is not None},
        }


def _units(name: str, value: Any, units: int) -> Array | None:
    """Numbers of units, None for all."""
    if value is None:
        return None
    array = as_array(value, f"FRNN: {name}")
    if (array.size and array.dtype.kind not in "iu") or array.ndim != 1:
        raise TypeError(f"FRNN: {name} is {value!r}; expected a sequence of whole numbers")
    if not array.size or array.min() < 0 or array.max() >= units:
        raise ValueError(f"FRNN: {name} is {value!r}; expected numbers 0..{units - 1}, from units")
    if len(np.unique(array)) < len(array):
        raise ValueError(f"FRNN: {name} is {value!r}; expected every unit once")
    return array.astype(np.intp)
