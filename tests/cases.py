"""Problems to solve: sizes round every tile edge, random data, and what the reference says about them (cached)."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import reference

Array = npt.NDArray[np.float64]

CELLS = tuple(reference.GATES)

# 1, each vector width of 4, 8 and 16 lanes with its neighbours, multiples of them with theirs, and two beyond any tile.
WIDTHS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 67, 96, 130)
BATCHES = (*range(1, 18), 24, 33)
LENGTHS = (1, 2, 3, 5, 40)

# Norm-relative errors mean little for a handful of numbers, one of which may cancel to almost nothing. Narrow layers
# are therefore run on several independent problems whose numbers are judged together: at least this many.
SMALLEST_SAMPLE = 16

# A float32 pre-activation is off by less than this; relu's derivative jumps at 0, so data keeps that far away from it.
RELU_MARGIN = 4e-6

# Products the oracle may spend on the full gradient of one case: about a second. Above, it samples directions.
FULL_GRADIENT_COST = 2.5e8
DIRECTIONS = 3


@dataclass(frozen=True)
class Case:
    """One layer and the sizes of its sequences."""

    cell: str
    T: int
    N: int
    I: int  # noqa: E741
    H: int
    bias: bool = True

    def __str__(self) -> str:
        return f"{self.cell}-T{self.T}-N{self.N}-I{self.I}-H{self.H}{'' if self.bias else '-nobias'}"

    @property
    def gates(self) -> int:
        return reference.GATES[self.cell]

    @property
    def replicates(self) -> int:
        return max(1, -(-SMALLEST_SAMPLE // max(1, self.H)))


@dataclass(frozen=True)
class Problem:
    """Inputs of forward and incoming gradients of backward; each array has a leading axis of replicates.

    Values are float64 but exact in float32, so one oracle serves both.
    """

    inputs: dict[str, Array | None]
    upstream: dict[str, Array | None]


def draw(case: Case, seed: int) -> Problem:
    rng = np.random.default_rng([zlib.crc32(str(case).encode()), seed])
    R, T, N, H, rows = case.replicates, case.T, case.N, case.H, case.gates * case.H

    def exact(values: Array) -> Array:
        return values.astype(np.float32).astype(np.float64)

    def uniform(shape: tuple[int, ...], limit: float) -> Array:
        return exact(rng.uniform(-limit, limit, (R, *shape)))

    def normal(shape: tuple[int, ...]) -> Array:
        return exact(rng.standard_normal((R, *shape)))

    lstm = case.cell == "lstm"
    inputs = {
        "x": normal((T, N, case.I)),
        "h0": uniform((N, H), 1.0),
        "c0": normal((N, H)) if lstm else None,
        "w_ih": uniform((rows, case.I), case.I**-0.5),
        "w_hh": uniform((rows, H), H**-0.5),
        "b_ih": uniform((rows,), 0.5) if case.bias else None,
        "b_hh": uniform((rows,), 0.5) if case.bias else None,
    }
    upstream = {"dy": normal((T, N, H)), "dh_n": normal((N, H)), "dc_n": normal((N, H)) if lstm else None}
    return Problem(inputs, upstream)


def relu_margin(problem: Problem) -> float:
    """The pre-activation closest to zero."""
    inputs = problem.inputs
    y, _, _ = reference.forward("rnn_relu", inputs)
    h = np.concatenate([inputs["h0"][:, None], y[:, :-1]], axis=1)
    from_x = reference.affine(
        inputs["x"], inputs["w_ih"][:, None], None if inputs["b_ih"] is None else inputs["b_ih"][:, None]
    )
    from_h = reference.affine(h, inputs["w_hh"][:, None], None if inputs["b_hh"] is None else inputs["b_hh"][:, None])
    return float(np.abs(from_x + from_h).min())


@lru_cache(maxsize=512)
def problem(case: Case) -> Problem:
    """Random data of a case: the same on every call. For relu, the first draw that keeps its distance from the kink."""
    if case.cell != "rnn_relu" or case.T * case.N == 0:
        return draw(case, 0)
    drawn = (draw(case, seed) for seed in range(100))
    return next(p for p in drawn if relu_margin(p) > RELU_MARGIN)


@lru_cache(maxsize=512)
def expected_forward(case: Case) -> tuple[Array, Array, Array | None]:
    """y (R, T, N, H), h_n (R, N, H) and c_n (R, N, H) or None."""
    return reference.forward(case.cell, problem(case).inputs)


def samples_directions(case: Case) -> bool:
    """Whether the full gradient is too dear for this case."""
    numbers = case.gates * case.H * (case.I + case.H + 2) + case.N * (case.T * case.I + 2 * case.H)
    one_run = case.replicates * case.T * case.N * case.gates * case.H * (case.I + case.H + 16)
    return numbers * one_run > FULL_GRADIENT_COST


@lru_cache(maxsize=512)
def expected_gradients(case: Case) -> dict[str, Array | None]:
    """The full gradient with respect to every input."""
    return reference.gradients(case.cell, problem(case).inputs, problem(case).upstream)


@lru_cache(maxsize=512)
def directions(case: Case) -> dict[str, Array]:
    """Random normal directions for every input, (K, *shape)."""
    rng = np.random.default_rng(zlib.crc32(f"directions {case}".encode()))
    inputs = problem(case).inputs
    return {name: rng.standard_normal((DIRECTIONS, *a.shape[1:])) for name, a in inputs.items() if a is not None}


@lru_cache(maxsize=512)
def expected_directional(case: Case) -> dict[str, Array]:
    """Derivatives along `directions`: (K, R) for every input."""
    return reference.directional(case.cell, problem(case).inputs, problem(case).upstream, directions(case))


def cycle_to(values: tuple[int, ...], count: int, rng: random.Random) -> list[int]:
    """``count`` values in which every one of ``values`` occurs, shuffled."""
    repeated = [values[k % len(values)] for k in range(count)]
    rng.shuffle(repeated)
    return repeated


def sampled(cell: str) -> Iterator[Case]:
    """Cases in which every width occurs twice as H and twice as I, and every batch and length at least twice.

    The full product has 42 000 cases a cell; a fixed shuffle pairs the values. Every fifth case has no bias.
    """
    rng = random.Random(cell)
    columns = (cycle_to(values, 2 * len(WIDTHS), rng) for values in (LENGTHS, BATCHES, WIDTHS, WIDTHS))
    for k, (T, N, inputs, hidden) in enumerate(zip(*columns, strict=True)):
        yield Case(cell, T, N, inputs, hidden, bias=k % 5 != 4)


SAMPLED = tuple(case for cell in CELLS for case in sampled(cell))


def with_cell(case: Case, cell: str) -> Case:
    return replace(case, cell=cell)
