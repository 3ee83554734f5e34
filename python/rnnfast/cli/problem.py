"""The forecasting problem: a series cut by time, scaled, and laid out in windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rnnfast._arrays import Array
from rnnfast.cli.csv_table import read_table
from rnnfast.cli.dates import show
from rnnfast.cli.errors import CliError, listing
from rnnfast.cli.series import Series, make_series
from rnnfast.cli.split import (
    MIN_TRAINING_WINDOWS,
    Scaling,
    Split,
    Windows,
    calendar,
    fit_scaling,
    make_windows,
    scaled_inputs,
    split_rows,
    without_constants,
)

SHIPPED = Path(__file__).parents[1] / "data" / "seattle-weather.csv"
SHIPPED_COLUMN = "temp_max"
# A year each: a part of a year would judge a network by its seasons.
SHIPPED_HELD_OUT = 365


@dataclass(frozen=True)
class Problem:
    """What is learned, and what it is tested on.

    Attributes
    ----------
    series : Series
    lookback, horizon : int
        Rows that a forecast looks at, and rows that it forecasts.
    split : Split
    scaling : Scaling
        From the training part alone.
    training, validation, test : Windows
    before_test : Windows
        Training, validation, and the windows across the cut between them.
    newest : ndarray, shape (1, lookback, inputs), float32
        Inputs of the forecast of what comes after the last row.
    """

    series: Series
    lookback: int
    horizon: int
    split: Split
    scaling: Scaling
    training: Windows
    validation: Windows
    before_test: Windows
    test: Windows
    newest: Array

    def values_of(self, y: Array, origins: Array) -> Array:
        """Scaled differences ``y`` (windows, horizon) to the values at ``origins``, as values of the target."""
        last: Array = self.series.values[origins, :1]
        return last + y.astype(np.float64) * self.scaling.change

    @property
    def input_names(self) -> list[str]:
        """Names of the last axis of the windows."""
        return [*self.series.names, *calendar(self.series)[0]]


def load_problem(file: Path | None, column: str | None, inputs: str | None, lookback: int, horizon: int) -> Problem:
    """Read a CSV file, or the shipped one for None, and make the problem from it.

    Raises
    ------
    CliError
        If the file, a column or a cell is wrong, or there are too few rows.
    """
    if file is None:
        table = read_table(SHIPPED, f"{SHIPPED.name} (NOAA, comes with rnnfast)")
        column, held_out = column or SHIPPED_COLUMN, SHIPPED_HELD_OUT
    else:
        table, held_out = read_table(file), None
    return make_problem(make_series(table, column, inputs), lookback, horizon, held_out)


def make_problem(series: Series, lookback: int, horizon: int, held_out: int | None) -> Problem:
    """Cut, scale and window a series."""
    split = split_rows(series, lookback, horizon, held_out)
    series = without_constants(series, split)
    scaling = fit_scaling(series, split, horizon)
    scaled = scaled_inputs(series, scaling)

    def windows(part: str, first: int, stop: int, least: int) -> Windows:
        made = make_windows(series, scaled, scaling, first, stop, lookback, horizon)
        if len(made.origins) < least:
            raise CliError(
                f"{series.label}: the {part} part has {len(made.origins)} windows without missing targets; "
                f"at least {least} are needed"
            )
        return made

    return Problem(
        series,
        lookback,
        horizon,
        split,
        scaling,
        training=windows("training", 0, split.validation, MIN_TRAINING_WINDOWS),
        validation=windows("validation", split.validation, split.test, 1),
        before_test=windows("training", 0, split.test, MIN_TRAINING_WINDOWS),
        test=windows("test", split.test, len(series.values), 1),
        newest=scaled[None, -lookback:],
    )


def describe(problem: Problem) -> Iterator[str]:
    """Lines that say what was read and how it is used."""
    series, split = problem.series, problem.split
    rows = len(series.values)
    span = ""
    if series.dates is not None:
        span = f", {show(series.dates[0])} to {show(series.dates[-1])}"
        span += f", step {series.step}" if series.step else ", steps of varying length"
    unit = f"{series.unit}{'s' if problem.horizon > 1 else ''}"
    yield f"data      {series.label}: {rows} rows{span}"
    for note in series.notes:
        yield f"          {note}"
    yield f"forecast  {series.names[0]}, {problem.horizon} {unit} ahead, from the {problem.lookback} before"
    yield f"inputs    {listing(problem.input_names)}"
    yield (
        f"parts     {split.validation} rows training, {split.test - split.validation} validation, "
        f"{rows - split.test} test{_starting(series, split.test)}"
    )


def _starting(series: Series, row: int) -> str:
    return "" if series.dates is None else f" (from {show(series.dates[row])})"
