"""A series cut by time into training, validation and test part, scaled, and laid out in windows.

A window is known by its origin: the last row that a forecast may look at. Its inputs are the ``lookback`` rows up to
the origin, its targets the ``horizon`` rows after it. A window belongs to a part when all its targets do; its inputs
may reach back into the part before, as they do when forecasts are made day by day.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from rnnfast._arrays import Array
from rnnfast.cli.dates import DAY, show
from rnnfast.cli.errors import CliError, listing, quote
from rnnfast.cli.series import Series

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.2
MIN_TRAINING_WINDOWS = 20
# Further out a number is wrong, and its square would soon leave the range of float32.
MAX_DEVIATION = 1e6
YEAR_DAYS = 365.2425


@dataclass(frozen=True)
class Split:
    """First rows of the validation and of the test part."""

    validation: int
    test: int


@dataclass(frozen=True)
class Scaling:
    """Means and standard deviations of the inputs, and the root mean square of the target's changes over a horizon."""

    mean: Array
    std: Array
    change: float


@dataclass(frozen=True)
class Windows:
    """Inputs and targets of one part.

    Attributes
    ----------
    origins : ndarray of int, shape (windows,)
        Last row that each window looks at.
    x : ndarray, shape (windows, lookback, inputs), float32
        Scaled columns, then the calendar.
    y : ndarray, shape (windows, horizon), float32
        Scaled differences of the target to its value at the origin.
    """

    origins: Array
    x: Array
    y: Array


def split_rows(series: Series, lookback: int, horizon: int, held_out: int | None) -> Split:
    """Cut a series: the last ``held_out`` rows (or ``horizon``, if more) for the test, as many before for validation.

    When None, a fifth of the rows is for the test and a fifth of the others for validation.

    Raises
    ------
    CliError
        If there are too few rows: the message says how many are needed.
    """
    rows = len(series.values)
    held_out = None if held_out is None else max(held_out, horizon)
    split = _cut(rows, held_out)
    if not _fits(split, rows, lookback, horizon):
        needed = next(n for n in count(rows + 1) if _fits(_cut(n, held_out), n, lookback, horizon))
        raise CliError(
            f"{series.label} has {rows} rows to use; at least {needed} are needed for --lookback {lookback} "
            f"and --horizon {horizon}"
        )
    return split


def _cut(rows: int, held_out: int | None) -> Split:
    if held_out is not None:
        return Split(rows - 2 * held_out, rows - held_out)
    test = rows - round(TEST_SHARE * rows)
    return Split(test - round(VALIDATION_SHARE * test), test)


def _fits(split: Split, rows: int, lookback: int, horizon: int) -> bool:
    training = split.validation - lookback - horizon + 1
    return training >= MIN_TRAINING_WINDOWS and min(split.test - split.validation, rows - split.test) >= horizon


def calendar(series: Series) -> tuple[list[str], Array]:
    """Names and values (rows, 0, 2 or 4) of sine and cosine of the time of the year and of the day.

    They are known ahead from the date alone. The year is left out of series shorter than that, the time of
    the day of series with a row a day or fewer.
    """
    names: list[str] = []
    waves: list[Array] = []
    if series.dates is not None and len(series.dates) > 1:
        days = (series.dates - np.datetime64("1970-01-01", "us")).astype(np.int64) / DAY
        span = float(days[-1] - days[0])
        for name, period, wanted in (
            ("year", YEAR_DAYS, span >= YEAR_DAYS and np.median(np.diff(days)) <= YEAR_DAYS / 4),
            ("day", 1.0, np.median(np.diff(days)) <= 0.25),
        ):
            if wanted:
                angle = 2 * np.pi * days / period
                names += [f"sin({name})", f"cos({name})"]
                waves += [np.sin(angle), np.cos(angle)]
    return names, np.stack(waves, axis=1) if waves else np.empty((len(series.values), 0))


def without_constants(series: Series, split: Split) -> Series:
    """The series without the inputs that are constant in the training part, from which nothing can be learned.

    Raises
    ------
    CliError
        If the target is constant there.
    """
    values = series.values[: split.validation]
    varies = values.std(axis=0) > 1e-12 * abs(values).max(axis=0)
    if varies.all():
        return series
    if not varies[0]:
        raise CliError(
            f"{series.label}: column {quote(series.names[0])} is constant in the training part "
            f"(the first {split.validation} rows): nothing to learn"
        )
    left_out = [name for name, keep in zip(series.names, varies, strict=True) if not keep]
    return replace(
        series,
        names=[name for name in series.names if name not in left_out],
        values=series.values[:, varies],
        notes=[*series.notes, f"no input, since constant in the training part: {listing(left_out)}"],
    )


def fit_scaling(series: Series, split: Split, horizon: int) -> Scaling:
    """Scaling from the training part alone; no column may be constant there (see `without_constants`)."""
    values = series.values[: split.validation]
    target = values[:, 0]
    change = np.sqrt(np.mean([np.mean((target[h:] - target[:-h]) ** 2) for h in range(1, horizon + 1)]))
    return Scaling(values.mean(axis=0), values.std(axis=0), float(change))


def scaled_inputs(series: Series, scaling: Scaling) -> Array:
    """Scaled columns and the calendar, shape (rows, inputs), float32.

    Raises
    ------
    CliError
        If a value is so far out that float32 would not do.
    """
    scaled = (series.values - scaling.mean) / scaling.std
    if (abs(scaled) > MAX_DEVIATION).any():
        row, column = (int(k) for k in np.unravel_index(abs(scaled).argmax(), scaled.shape))
        when = f"row {row + 1} of the series" if series.dates is None else show(series.dates[row])
        raise CliError(
            f"{series.label}: column {quote(series.names[column])} is {series.values[row, column]:g} ({when}), more "
            f"than {MAX_DEVIATION:g} standard deviations ({scaling.std[column]:.3g}) from the mean of the training part"
        )
    return np.concatenate([scaled, calendar(series)[1]], axis=1).astype(np.float32)


def make_windows(
    series: Series, inputs: Array, scaling: Scaling, first: int, stop: int, lookback: int, horizon: int
) -> Windows:
    """Every window whose targets lie in the rows ``first`` to ``stop`` (not included) and all stood in the file."""
    origins = np.arange(max(first, lookback) - 1, stop - horizon)
    steps = np.arange(1, horizon + 1)
    origins = origins[series.observed[origins[:, None] + steps].all(axis=1)]
    x = inputs[origins[:, None] + np.arange(1 - lookback, 1)]
    target = series.values[:, 0]
    y = (target[origins[:, None] + steps] - target[origins, None]) / scaling.change
    return Windows(origins, x, y.astype(np.float32))
