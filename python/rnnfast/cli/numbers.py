"""Columns of text as numbers."""

from __future__ import annotations

import re

import numpy as np

from rnnfast._arrays import Array
from rnnfast.cli.csv_table import Table, is_missing
from rnnfast.cli.errors import CliError, quote

# Above this the squares in a standard deviation would leave the range of float64.
LARGEST = 1e100


def to_number(cell: str) -> float | None:
    """The number in a cell, possibly infinite, or None when it holds something else."""
    if "_" in cell:
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def mostly_numbers(cells: list[str]) -> bool:
    """Whether more than half of the cells with a value hold numbers; False when no cell has a value."""
    present = [cell for cell in cells if not is_missing(cell)]
    return 2 * sum(to_number(cell) is not None for cell in present) > len(present)


def read_numbers(table: Table, name: str) -> Array:
    """The column ``name`` as float64, NaN where a cell is missing.

    Raises
    ------
    CliError
        If a cell holds text, an infinite or a huge number (row, column and text are named), or no cell has a value.
    """
    cells = table.require(name)
    values = np.full(len(cells), np.nan)
    for at, cell in enumerate(cells):
        if is_missing(cell):
            continue
        value = to_number(cell)
        if value is None:
            comma = "; write decimals with a point" if re.fullmatch(r"[+-]?\d+,\d+", cell) else ""
            text = "" if mostly_numbers(cells) else "; the column holds text, which cannot be an input"
            raise CliError(f"{table.where(name, at)}: {quote(cell)} is not a number{comma or text}")
        if not abs(value) <= LARGEST:
            raise CliError(f"{table.where(name, at)}: {quote(cell)} is not a finite number of at most {LARGEST:g}")
        values[at] = value
    if np.isnan(values).all():
        raise CliError(f"{table.label}: column {quote(name)} has no numbers, only missing cells")
    return values
