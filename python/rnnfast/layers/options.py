"""What a cell can have beyond the plain one, checked, and the parameters that come with it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from rnnfast._checks import number

# Activations by ONNX's names, with the default of each parameter, in the order in which the kernels count them.
# Values below `least` for alpha would make the derivative no function of the output, which is all that is kept.
ACTIVATIONS: dict[str, tuple[float, ...]] = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "Affine": (1.0, 0.0),
    "LeakyRelu": (0.01,),
    "ThresholdedRelu": (1.0,),
    "ScaledTanh": (1.0, 1.0),
    "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0,),
    "Softsign": (),
    "Softplus": (),
}
_NEEDS_ALPHA = ("LeakyRelu", "ThresholdedRelu", "Elu")

Activation = tuple[str, float, float]


class CellOptions(NamedTuple):
    """Options of a cell; a plain cell has the values given here.

    Attributes
    ----------
    activations : tuple
        Name, alpha and beta of each function, empty for the cell's own ones.
    clip : float or None
        Bound of pre-activations.
    zoneout : tuple of two float
        Probabilities for hidden and cell state.
    """

    activations: tuple[Activation, ...] = ()
    clip: float | None = None
    layer_norm: bool = False
    zoneout: tuple[float, float] = (0.0, 0.0)
    recurrent_dropout: float = 0.0
    peephole: bool = False
    coupled: bool = False
    reset_after: bool = True
    proj_size: int = 0

    @property
    def is_plain(self) -> bool:
        return self == CellOptions()

    def parameter_shapes(self, gates: int, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Parameters beyond weights and biases, without the layer's suffix."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, hidden_size)
        if self.peephole:
            shapes["weight_peephole"] = ((gates - 1) * hidden_size,)
        if self.layer_norm:
            shapes["layer_norm_ih"] = shapes["layer_norm_hh"] = (gates * hidden_size,)
        return shapes

    def config(self, has_cell_state: bool) -> dict[str, Any]:
        """Arguments of a layer's constructor, those that differ from the plain cell's."""
        plain = CellOptions()
        found = {
            name: getattr(self, name)
            for name in self._fields
            if name not in ("proj_size", "zoneout") and getattr(self, name) != getattr(plain, name)
        }
        if "activations" in found:
            found["activations"] = [list(activation) for activation in self.activations]
        if any(self.zoneout):
            found["zoneout"] = list(self.zoneout) if has_cell_state else self.zoneout[0]
        return found


def parse_activations(who: str, activations: Any, plain: tuple[str, ...]) -> tuple[Activation, ...]:
    """The functions of a cell, in ONNX's order; empty if they are those of the plain cell.

    Raises
    ------
    TypeError, ValueError
        Naming ``who``, if there are too many or too few, or a name or parameter is none of ONNX's.
    """
    if activations is None:
        return ()
    if isinstance(activations, str) or not isinstance(activations, (tuple, list)):
        raise TypeError(f"{who}: activations is {activations!r}; expected {len(plain)} functions, such as {plain}")
    if len(activations) != len(plain):
        raise ValueError(f"{who}: activations has {len(activations)} functions; expected {len(plain)}, such as {plain}")
    parsed = tuple(_activation(who, f"activations[{k}]", value) for k, value in enumerate(activations))
    return () if parsed == tuple((name, 0.0, 0.0) for name in plain) else parsed


def _activation(who: str, where: str, value: Any) -> Activation:
    name, *given = value if isinstance(value, (tuple, list)) and value else (value,)
    if not isinstance(name, str):
        raise TypeError(f"{who}: {where} is {value!r}; expected a name, or a tuple of a name and its alpha and beta")
    known = {known.lower(): known for known in ACTIVATIONS}
    if name.lower() not in known:
        raise ValueError(f"{who}: {where} is {name!r}; expected one of {', '.join(ACTIVATIONS)}")
    name = known[name.lower()]
    defaults = ACTIVATIONS[name]
    # A saved layer names both numbers, also those that a function does not use.
    if len(given) > len(defaults) and not (len(given) == 2 and not any(given[len(defaults) :])):
        raise ValueError(f"{who}: {where} has {len(given)} parameters; {name} takes at most {len(defaults)}")
    numbers = [number(who, where, parameter, -math.inf) for parameter in given[: len(defaults)]]
    alpha, beta = (*numbers, *defaults[len(numbers) :], 0.0, 0.0)[:2]
    if name in _NEEDS_ALPHA and alpha < 0:
        raise ValueError(f"{who}: {where} has alpha {alpha}; expected at least 0 for {name}")
    if name == "ScaledTanh" and alpha == 0:
        raise ValueError(f"{who}: {where} has alpha 0; expected another number for ScaledTanh")
    return name, alpha, beta


def parse_zoneout(who: str, zoneout: Any, has_cell_state: bool) -> tuple[float, float]:
    """Probabilities of keeping the old hidden and cell state."""
    if isinstance(zoneout, (tuple, list)):
        if not has_cell_state or len(zoneout) != 2:
            wanted = "a number or a pair (h, c)" if has_cell_state else "a number, there is no cell state"
            raise ValueError(f"{who}: zoneout is {zoneout!r}; expected {wanted}")
        return number(who, "zoneout[0]", zoneout[0], 0, 1), number(who, "zoneout[1]", zoneout[1], 0, 1)
    share = number(who, "zoneout", zoneout, 0, 1)
    return share, share if has_cell_state else 0.0


def parse_clip(who: str, clip: Any) -> float | None:
    """Bound of pre-activations, None for no bound."""
    if clip is None:
        return None
    bound = number(who, "clip", clip)
    if bound <= 0:
        raise ValueError(f"{who}: clip is {clip}; expected None or a number above 0")
    return bound


def parse_flag(who: str, name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{who}: {name} is {value!r}; expected True or False")
    return bool(value)
