"""Forecasts that need no learning: what a network has to beat."""

from __future__ import annotations

import numpy as np

from rnnfast._arrays import Array
from rnnfast.cli.dates import DAY, Step, shift_months
from rnnfast.cli.series import Series

WEEK = 7


def same_as_now(series: Series, origins: Array, horizon: int) -> Array:
    """The value at the origin for every step ahead; shape (origins, horizon)."""
    return np.repeat(series.values[origins, :1], horizon, axis=1)


def now_name(series: Series) -> str:
    """What `same_as_now` is called for a series of this step."""
    return "same as today" if series.step == Step(DAY) else "same as last value"


def seasonal(series: Series, first_target: int, origins: Array, horizon: int) -> tuple[str, Array | None]:
    """Values one season before each target, or two seasons where one would lie after the origin.

    Parameters
    ----------
    series : Series
    first_target : int
        First row that will be forecast: a season has to lie before it.
    origins : ndarray of int, shape (origins,)
    horizon : int

    Returns
    -------
    name : str
        Name of the forecast, or why there is none.
    values : ndarray, shape (origins, horizon), or None
    """
    targets = origins[:, None] + np.arange(1, horizon + 1)
    step = series.step
    if step is None or series.dates is None:
        return "no seasonal forecast, since the series has no regular dates", None
    if step == Step(DAY) and shift_months(series.dates[first_target : first_target + 1], -12)[0] >= series.dates[0]:
        return "same day last year", series.values[_year_before(series.dates, targets, origins), 0]
    name, season = _season(step)
    if not season or season > first_target:
        return f"no seasonal forecast, since no whole season lies before the test part (step: {step})", None
    seasons = -(-(targets - origins[:, None]) // season)
    return name, series.values[targets - season * seasons, 0]


def _season(step: Step) -> tuple[str, int]:
    """Name and rows of the season of a step; 0 rows when there is none."""
    if step == Step(DAY):
        return "same weekday last week", WEEK
    if step == Step(WEEK * DAY):
        return "same week last year", 52
    if step.months and 12 % step.months == 0 and step.months < 12:
        return "same month last year", 12 // step.months
    if 0 < step.micros < DAY and DAY % step.micros == 0:
        return "same time yesterday", DAY // step.micros
    return "", 0


def _year_before(dates: Array, targets: Array, origins: Array) -> Array:
    """Rows of the same calendar day, as many years back as it takes not to look past the origin; daily ``dates``."""
    start = dates[0].astype("datetime64[D]")
    days = start + targets
    rows = targets
    years = 0
    while (late := rows > origins[:, None]).any():
        years += 1
        rows = np.where(late, (shift_months(days, -12 * years) - start).astype(np.int64), rows)
    return np.maximum(rows, 0)
