"""A table as one evenly spaced series of numbers: rows in order of time, gaps filled with what was known then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rnnfast._arrays import Array
from rnnfast.cli.csv_table import Table
from rnnfast.cli.dates import Step, find_dates, show, step_between, usual_gap
from rnnfast.cli.errors import CliError, listing, quote
from rnnfast.cli.numbers import mostly_numbers, read_numbers

# More repeated dates than this say that the table holds several series.
MAX_REPEATED = 0.05
# Up to this share of rows that a regular series lacks are put in as missing; weekends of prices are more.
MAX_ABSENT = 0.1


@dataclass(frozen=True)
class Series:
    """What the networks learn from.

    Attributes
    ----------
    label : str
        How messages call the file.
    names : list of str
        Input columns; the first is the target.
    values : ndarray, shape (rows, len(names)), float64
        Without gaps: a missing cell holds the last value known before it.
    observed : ndarray of bool, shape (rows,)
        Whether the target of a row stood in the file.
    dates : ndarray of datetime64[us], shape (rows,), or None
        In rising order.
    step : Step or None
        Time between rows; None without dates or when it varies.
    notes : list of str
        What was done with the data, for the user.
    """

    label: str
    names: list[str]
    values: Array
    observed: Array
    dates: Array | None
    step: Step | None
    notes: list[str]

    @property
    def unit(self) -> str:
        """What a step forward is called."""
        length, _, unit = str(self.step).partition(" ")
        return unit if length == "1" else "step"


def make_series(table: Table, column: str | None, inputs: str | None) -> Series:
    """The target ``column`` and the ``inputs`` (names with commas between them; None: all columns of numbers).

    Raises
    ------
    CliError
        If a column does not exist or holds no numbers, or the dates are no single series.
    """
    notes: list[str] = []
    found = find_dates(table, notes)
    dates_name, dates = found if found else ("", None)
    names = _choose(table, column, inputs, dates_name, notes)
    values = np.stack([read_numbers(table, name) for name in names], axis=1)
    if dates is None:
        notes.append("no column of dates: rows are taken as equally spaced, in the order of the file")
        step = None
    else:
        values, dates = _in_order(table, values, dates, notes)
        values, dates, step = _evenly_spaced(values, dates, notes)
    observed = ~np.isnan(values[:, 0])
    values, known_from = _carried_forward(values, names, notes)
    dates = None if dates is None else dates[known_from:]
    return Series(table.label, names, values, observed[known_from:], dates, step, notes)


def _choose(table: Table, column: str | None, inputs: str | None, dates_name: str, notes: list[str]) -> list[str]:
    numeric = [name for name, cells in table.columns.items() if name != dates_name and mostly_numbers(cells)]
    if column is None:
        if len(numeric) != 1:
            raise CliError(f"{table.label}: --column is needed (columns of numbers: {listing(numeric) or 'none'})")
        column = numeric[0]
    table.require(column)
    asked = [] if inputs is None else table.named_in(inputs)
    for name in (column, *asked):
        if name == dates_name:
            raise CliError(f"{table.label}: column {quote(name)} holds the dates; expected a column of numbers")
    if inputs is not None:
        return list(dict.fromkeys((column, *asked)))
    text = [name for name in table.columns if name not in (dates_name, column, *numeric)]
    if text:
        notes.append(f"no input, since no column of numbers: {listing(text)}")
    return [column, *(name for name in numeric if name != column)]


def _in_order(table: Table, values: Array, dates: Array, notes: list[str]) -> tuple[Array, Array]:
    """Rows by rising date, the first of those with the same date."""
    if (np.diff(dates) < np.timedelta64(0)).any():
        notes.append("rows were not in the order of their dates: sorted")
    kept, first = np.unique(dates, return_index=True)
    repeated = np.setdiff1d(np.arange(dates.size), first)
    if repeated.size:
        at = int(repeated[0])
        example = f"{show(dates[at])} in row {table.rows[first[np.searchsorted(kept, dates[at])]]} and {table.rows[at]}"
        if repeated.size > MAX_REPEATED * dates.size:
            raise CliError(
                f"{table.label}: {repeated.size} of {dates.size} rows repeat a date ({example}); "
                "expected one series with one row a date"
            )
        notes.append(f"{repeated.size} rows with a date seen before were left out ({example})")
    return values[first], kept


def _evenly_spaced(values: Array, dates: Array, notes: list[str]) -> tuple[Array, Array, Step | None]:
    """Rows that a regular series lacks put in as missing; a series with no usual step is left as it is."""
    step = step_between(dates)
    if step or dates.size < 3:
        return values, dates, step
    gap = usual_gap(dates)
    places, off = np.divmod((dates - dates[0]).astype(np.int64), gap)
    rows = int(places[-1]) + 1
    if off.any() or rows - dates.size > MAX_ABSENT * rows:
        gaps = np.diff(dates).astype(np.int64)
        shortest, longest = Step(int(gaps.min())), Step(int(gaps.max()))
        notes.append(f"time between rows varies from {shortest} to {longest}: rows are taken as equally spaced")
        return values, dates, None
    step = Step(gap)
    notes.append(f"{rows - dates.size} dates are absent (usual step {step}): put in as rows of missing cells")
    filled = np.full((rows, values.shape[1]), np.nan)
    filled[places] = values
    return filled, dates[0] + np.arange(rows) * np.timedelta64(gap, "us"), step


def _carried_forward(values: Array, names: list[str], notes: list[str]) -> tuple[Array, int]:
    """Values with each gap filled by the last value before it, from the first row where every column is known.

    Interpolation would carry what comes after a gap into the inputs of a forecast made within it.
    """
    missing = np.isnan(values)
    if not missing.any():
        notes.append("no missing cells")
        return values, 0
    counts = ", ".join(f"{name} {count}" for name, count in zip(names, missing.sum(0), strict=True) if count)
    known_from = int((~missing).argmax(0).max())
    dropped = f"; {known_from} rows before the first value left out" if known_from else ""
    notes.append(
        f"missing cells ({counts}): as inputs the last known value, as targets not trained on and not scored{dropped}"
    )
    last_known = np.maximum.accumulate(np.where(missing, 0, np.arange(len(values))[:, None]), axis=0)
    return np.take_along_axis(values, last_known, axis=0)[known_from:], known_from
