"""Initial values of weights and biases, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rnnfast._arrays import Array
from rnnfast._checks import number
from rnnfast.layers.base import Layer
from rnnfast.layers.dense import Dense
from rnnfast.layers.gru import GRU
from rnnfast.layers.lstm import LSTM
from rnnfast.layers.recurrent import RecurrentLayer
from rnnfast.model import Sequential

if TYPE_CHECKING:
    # numpy.random is loaded at its first use, which need not be the import of rnnfast.
    from numpy.random import Generator

L = TypeVar("L", bound=Layer)


def gate_letters(layer: Layer) -> str:
    """The gates in the order of their blocks in the rows of a layer's weights; "h" for a cell without gates."""
    if isinstance(layer, LSTM):
        return "fgo" if layer.options.coupled else "ifgo"
    return "rzn" if isinstance(layer, GRU) else "h"


def _torch(shape: tuple[int, int], bound: float, generator: Generator) -> Array:
    return generator.uniform(-bound, bound, shape)


def _orthogonal(shape: tuple[int, int], bound: float, generator: Generator) -> Array:
    long, short = max(shape), min(shape)
    q, r = np.linalg.qr(generator.standard_normal((long, short)))
    # With the signs of R's diagonal taken out, Q is uniform among the orthogonal matrices.
    q *= np.sign(np.diagonal(r))
    return q if shape[0] == long else q.T


def _identity(shape: tuple[int, int], bound: float, generator: Generator) -> Array:
    return np.eye(*shape)


def _glorot(shape: tuple[int, int], bound: float, generator: Generator) -> Array:
    limit = math.sqrt(6 / sum(shape))
    return generator.uniform(-limit, limit, shape)


def _normal(shape: tuple[int, int], bound: float, generator: Generator) -> Array:
    return generator.normal(0, shape[1] ** -0.5, shape)


def _zeros(shape: tuple[int, int], bound: float, generator: Generator) -> Array:
    return np.zeros(shape)


_DRAWS: dict[str, Callable[[tuple[int, int], float, Generator], Array]] = {
    "torch": _torch,
    "orthogonal": _orthogonal,
    "identity": _identity,
    "glorot": _glorot,
    "normal": _normal,
    "zeros": _zeros,
}
_FOR_BIASES = ("torch", "zeros")


def initialise(
    layer: L,
    *,
    weight_ih: str | tuple[str, float] | None = None,
    weight_hh: str | tuple[str, float] | None = None,
    weight: str | tuple[str, float] | None = None,
    bias: str | tuple[str, float] | None = None,
    forget_bias: float | None = None,
    chrono: float | None = None,
    seed: Any = 0,
) -> L:
    """Give the parameters of a layer, or of all layers of a model, new initial values.

    What is not named keeps the values it has. Matrices are drawn gate by gate: "orthogonal" makes each of the four
    (H, H) blocks of an LSTM's ``weight_hh`` orthogonal.

    Parameters
    ----------
    layer : Layer
        A layer or a `Sequential`.
    weight_ih, weight_hh : str or (str, float), optional
        Input and recurrent weights of recurrent layers, one of

        * "torch": uniform in (-1/sqrt(H), 1/sqrt(H)), what layers are made with;
        * "orthogonal": uniform among the orthogonal matrices, which change the length of no vector;
        * "identity": the identity, of square blocks. With relu and ``bias="zeros"``, the IRNN;
        * "glorot": uniform in (-sqrt(6/(in+out)), sqrt(6/(in+out)));
        * "normal": normal with deviation 1/sqrt(in);
        * "zeros".

        A pair multiplies the values by a number: ``("identity", 0.5)``, ``("normal", 0.01)``.
    weight : str or (str, float), optional
        Weights of `Dense` layers; "torch" is uniform in (-1/sqrt(in), 1/sqrt(in)).
    bias : str or (str, float), optional
        "torch" or "zeros": all biases of all layers.
    forget_bias : float, optional
        Bias of the gate that keeps the state: f of an LSTM, z of a GRU. It starts at ``sigmoid(forget_bias)``. The
        value goes to ``bias_ih``, and ``bias_hh`` of that gate becomes 0.
    chrono : float, optional
        Instead of ``forget_bias``: the largest lag, in steps, that the cells shall bridge, above 2. Their times are
        spread from 1 to ``chrono`` steps: ``b_f = log(U(1, chrono - 1))``, and ``b_i = -b_f`` in an LSTM.
    seed : None, int or numpy Generator
        Of the random values.

    Returns
    -------
    Layer
        ``layer`` itself.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a name is unknown or no use for that parameter, no layer has the parameter, or nothing is named. Nothing
        is changed then.

    References
    ----------
    Glorot & Bengio (2010), Understanding the difficulty of training deep feedforward neural networks, AISTATS.
    Saxe, McClelland & Ganguli (2014), Exact solutions to the nonlinear dynamics of learning, ICLR (orthogonal).
    Le, Jaitly & Hinton (2015), A simple way to initialize recurrent networks of rectified linear units (identity).
    Jozefowicz, Zaremba & Sutskever (2015), An empirical exploration of recurrent network architectures (forget bias).
    Tallec & Ollivier (2018), Can recurrent neural networks warp time?, ICLR (chrono).
    """
    who = "initialise"
    if not isinstance(layer, Layer):
        raise TypeError(f"{who}: layer is {type(layer).__name__}; expected a layer or a model")
    if forget_bias is not None and chrono is not None:
        raise ValueError(f"{who}: forget_bias is {forget_bias} and chrono is {chrono}; expected one of them")
    try:
        generator = np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{who}: seed is {seed!r}; expected None, a whole number >= 0 or a numpy Generator") from None
    wanted = {"weight_ih": weight_ih, "weight_hh": weight_hh, "weight": weight, "bias": bias}
    chosen = {kind: _rule(who, kind, rule) for kind, rule in wanted.items() if rule is not None}
    if forget_bias is not None:
        forget_bias = number(who, "forget_bias", forget_bias, -math.inf)
    if chrono is not None and number(who, "chrono", chrono, 0) <= 2:
        raise ValueError(f"{who}: chrono is {chrono}; expected a lag of more than 2 steps")
    if not chosen and forget_bias is None and chrono is None:
        raise ValueError(
            f"{who}: nothing to initialise; expected weight_ih, weight_hh, weight, bias, forget_bias or chrono"
        )

    parts = layer.layers if isinstance(layer, Sequential) else (layer,)
    _check_kinds(who, parts, chosen)
    keepers = [part for part in parts if isinstance(part, (LSTM, GRU)) and part.bias]
    for name, value in (("forget_bias", forget_bias), ("chrono", chrono)):
        if value is not None and not keepers:
            raise ValueError(f"{who}: {name} is {value}; expected a layer with such a gate: LSTM or GRU, with bias")
    for part in parts:
        for name in part.parameters:
            rule = chosen.get(_kind(part, name))
            if rule is not None:
                _fill(part, name, *rule, generator)
        part.parameters.changed()
    for keeper in keepers:
        _set_keeping_biases(keeper, forget_bias, chrono, generator)
    return layer


def _rule(who: str, kind: str, rule: Any) -> tuple[str, float]:
    """Name and factor; everything that can be said without the layer is checked here."""
    name, gain = rule if isinstance(rule, tuple) and len(rule) == 2 else (rule, 1.0)
    if not isinstance(name, str):
        raise TypeError(f"{who}: {kind} is {rule!r}; expected a name, or a pair of a name and a number")
    if name not in _DRAWS:
        raise ValueError(f"{who}: {kind} is {name!r}; expected one of {list(_DRAWS)}")
    if kind == "bias" and name not in _FOR_BIASES:
        raise ValueError(f"{who}: bias is {name!r}, which is for matrices; expected one of {list(_FOR_BIASES)}")
    return name, number(who, f"the factor of {kind}", gain, -math.inf)


def _kind(layer: Layer, name: str) -> str:
    """Which argument of `initialise` a parameter belongs to; "" if none."""
    if isinstance(layer, Dense):
        return name
    for kind in ("weight_ih", "weight_hh"):
        if name.startswith(f"{kind}_l"):
            return kind
    return "bias" if name.startswith(("bias_ih_l", "bias_hh_l")) else ""


def _check_kinds(who: str, parts: tuple[Layer, ...], chosen: dict[str, tuple[str, float]]) -> None:
    """ValueError if a rule suits no parameter, or not one of those it is for."""
    for kind, (rule, _) in chosen.items():
        shapes = {
            f"{name} of {type(part).__name__}": (_blocks(part, shape[0]), shape)
            for part in parts
            for name, shape in part.parameters.shapes.items()
            if _kind(part, name) == kind
        }
        if not shapes:
            names = [type(part).__name__ for part in parts]
            raise ValueError(f"{who}: {kind} is {rule!r}; expected a layer that has such a parameter, got {names}")
        for name, (blocks, shape) in shapes.items():
            if rule == "identity" and shape[0] != blocks * shape[1]:
                raise ValueError(
                    f"{who}: {kind} is 'identity', but {name} has {blocks} block(s) of shape "
                    f"{(shape[0] // blocks, shape[1])}; expected square ones"
                )


def _blocks(layer: Layer, rows: int) -> int:
    return rows // layer.hidden_size if isinstance(layer, RecurrentLayer) else 1


def _fill(layer: Layer, name: str, rule: str, gain: float, generator: Generator) -> None:
    array = layer.parameters[name]
    fan_in: Any = layer.in_features if isinstance(layer, Dense) else getattr(layer, "hidden_size", array.shape[-1])
    # A bias is a matrix of one column to the rules that suit it.
    matrix = array.reshape(len(array), -1)
    for block in np.split(matrix, _blocks(layer, len(array))):
        block[...] = gain * _DRAWS[rule](block.shape, 1 / math.sqrt(fan_in), generator)
    if isinstance(layer, RecurrentLayer):
        for kind, mask in (("weight_ih", layer.mask_ih), ("weight_hh", layer.mask_hh)):
            if mask is not None and name.startswith(kind):
                np.copyto(array, 0, where=~mask)


def _set_keeping_biases(
    layer: LSTM | GRU, forget_bias: float | None, chrono: float | None, generator: Generator
) -> None:
    if forget_bias is None and chrono is None:
        return
    letters = gate_letters(layer)
    for name in layer.parameters:
        if not name.startswith("bias_ih_l"):
            continue
        from_x, from_h = (
            dict(zip(letters, np.split(layer.parameters[bias], len(letters)), strict=True))
            for bias in (name, name.replace("bias_ih", "bias_hh"))
        )
        if chrono is None:
            values: dict[str, Any] = {"f": forget_bias, "z": forget_bias}
        else:
            keep = np.log(generator.uniform(1, chrono - 1, layer.hidden_size))
            values = {"f": keep, "z": keep, "i": -keep}
        for gate in values.keys() & set(letters):
            from_x[gate][...] = values[gate]
            from_h[gate][...] = 0
    layer.parameters.changed()
