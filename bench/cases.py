"""What is compared: every shape with every cell, in every way to use a layer."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from rnnfast.cli.workload import LAYERS, MODES, Sizes

SHAPES = Path(__file__).with_name("shapes.csv")


@dataclass(frozen=True)
class Shape:
    """A line of shapes.csv."""

    name: str
    sizes: Sizes
    cells: tuple[str, ...]
    quick: bool


@dataclass(frozen=True)
class Case:
    """One thing to time: ``mode`` is one of `MODES`."""

    cell: str
    mode: str
    shape: Shape
    dtype: str
    threads: int

    @property
    def label(self) -> str:
        return f"{self.cell}/{self.mode}/{self.shape.name}"


def read_shapes() -> list[Shape]:
    """All lines of shapes.csv; ValueError names the line that is wrong."""
    shapes: dict[str, Shape] = {}
    with SHAPES.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                sizes = Sizes(*(int(row[axis]) for axis in "TNIH"))
            except (TypeError, ValueError):
                raise ValueError(
                    f"{SHAPES.name}, line {number}: T, N, I, H are {row}; expected whole numbers"
                ) from None
            cells = tuple(row["cells"].split())
            if min(sizes) < 1 or not cells or not set(cells) <= set(LAYERS) or row["name"] in shapes:
                raise ValueError(
                    f"{SHAPES.name}, line {number}: {row}; expected sizes of at least 1, a name that is new, "
                    f"and cells of {', '.join(LAYERS)}"
                )
            shapes[row["name"]] = Shape(row["name"], sizes, cells, row["quick"] == "yes")
    return list(shapes.values())


def all_cases(shapes: list[Shape], dtypes: list[str], threads: list[int]) -> Iterator[Case]:
    """Cases in the order in which they are timed. A stream's step is timed for shapes of one step only."""
    for dtype in dtypes:
        for count in threads:
            for mode in MODES:
                for shape in shapes:
                    if mode != "step" or shape.sizes.T == 1:
                        for cell in shape.cells:
                            yield Case(cell, mode, shape, dtype, count)


def matches(case: Case, pattern: str) -> bool:
    """Whether cell/mode/shape fits the pattern; parts left out at its end fit everything."""
    parts = [*pattern.split("/"), "*", "*"][:3]
    return all(fnmatchcase(part, p) for part, p in zip(case.label.split("/"), parts, strict=True))
