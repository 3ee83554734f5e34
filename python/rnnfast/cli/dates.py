"""Which column holds dates, and what time lies between two rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np

from rnnfast._arrays import Array
from rnnfast.cli.csv_table import Table, is_missing
from rnnfast.cli.errors import CliError, quote
from rnnfast.cli.numbers import to_number

SECOND = 1_000_000
DAY = 86400 * SECOND
SAMPLE = 200
_ISO = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d.*)?")
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
_DAYS = ("%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y")
_FORMATS = ("iso", *(day + clock for day in _DAYS for clock in _CLOCKS), "%Y-%m", "%Y/%m")
# These look like numbers, so the name of the column has to say that they are dates.
_DIGITS = {"%Y%m%d": re.compile(r"\d{8}"), "%Y": re.compile(r"\d{4}")}
_DATE_NAME = re.compile(r"date|time|day|year|month|datum|jahr", re.IGNORECASE)


@dataclass(frozen=True)
class Step:
    """Time from one row to the next: whole months, or microseconds."""

    micros: int = 0
    months: int = 0

    def __str__(self) -> str:
        if self.months:
            years, months = divmod(self.months, 12)
            return _count(years, "year") if years and not months else _count(self.months, "month")
        for size, unit in ((DAY, "day"), (3600 * SECOND, "hour"), (60 * SECOND, "minute"), (SECOND, "second")):
            if self.micros % size == 0:
                return _count(self.micros // size, unit)
        return f"{self.micros / SECOND:g} seconds"

    def after(self, last: np.datetime64, count: int) -> Array:
        """The ``count`` dates that follow ``last``."""
        ahead = np.arange(1, count + 1)
        if not self.months:
            return np.asarray(last + ahead * np.timedelta64(self.micros, "us"))
        return shift_months(np.full(count, last), ahead * self.months)


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def shift_months(dates: Array, months: Array | int) -> Array:
    """``dates`` moved by whole months; a day that the new month does not have becomes its last day."""
    month = dates.astype("datetime64[M]")
    moved = month + months
    into = dates - month.astype(dates.dtype)
    last_day = (moved + 1).astype("datetime64[D]") - np.timedelta64(1, "D")
    landed = moved.astype(dates.dtype) + into
    clock = dates - dates.astype("datetime64[D]")
    return np.asarray(np.where(landed.astype("datetime64[M]") == moved, landed, last_day.astype(dates.dtype) + clock))


def find_dates(table: Table, notes: list[str]) -> tuple[str, Array] | None:
    """Name and dates (datetime64[us], UTC where the file says so) of the first column that holds dates, or None.

    Raises
    ------
    CliError
        If a cell of that column holds no date.
    """
    for name, cells in table.columns.items():
        formats = _formats_of(name, cells)
        if formats:
            readings = [(form, _read(table, name, form)) for form in formats]
            form, dates = min(readings, key=lambda reading: _unevenness(reading[1]))
            if len(readings) > 1:
                first = "day" if form.startswith("%d") else "month"
                notes.append(f"dates such as {quote(cells[0])} are read with the {first} first")
            return name, dates
    return None


def step_between(dates: Array) -> Step | None:
    """The step of dates in rising order when it is the same everywhere, else None."""
    gaps = np.diff(dates).astype(np.int64)
    if gaps.size == 0:
        return None
    if (gaps == gaps[0]).all():
        return Step(micros=int(gaps[0]))
    months = np.diff(dates.astype("datetime64[M]")).astype(np.int64)
    if months[0] > 0 and (months == months[0]).all():
        ahead = np.arange(1, dates.size) * months[0]
        # Month ends move between the 28th and the 31st: the day after each is the first of a month.
        for shift in (np.timedelta64(0, "D"), np.timedelta64(1, "D")):
            start = dates[0] + shift
            if (shift_months(np.full(ahead.size, start), ahead) == dates[1:] + shift).all():
                return Step(months=int(months[0]))
    return None


def usual_gap(dates: Array) -> int:
    """The most frequent distance between neighbouring dates, in microseconds."""
    gaps, counts = np.unique(np.diff(dates).astype(np.int64), return_counts=True)
    return int(gaps[np.argmax(counts)])


def show(date: np.datetime64) -> str:
    """A date without the parts of the clock that are zero."""
    text = str(date).replace("T", " ")
    for zero in (".000000", ":00", " 00:00"):
        text = text.removesuffix(zero)
    return text


def _formats_of(name: str, cells: list[str]) -> list[str]:
    """The format that reads the cells best, if it reads nine in ten; two where day and month may be swapped."""
    sample = [cell for cell in cells if not is_missing(cell)][:SAMPLE]
    shares = {form: _share(sample, form) for form in _candidates(name, sample[:3])}
    best = max(shares.values(), default=0.0)
    if best < 0.9:
        return []
    found = [form for form, share in shares.items() if share == best]
    exact = [form for form in found if all(_parse(cell, form) is not None for cell in cells)]
    return exact or found[:1]


def _candidates(name: str, sample: list[str]) -> Iterator[str]:
    if not all(to_number(cell) is not None for cell in sample):
        yield from _FORMATS
    elif _DATE_NAME.search(name):
        yield from _DIGITS


def _share(sample: list[str], form: str) -> float:
    """Part of the cells that a format reads; 0 when it reads none of the first three."""
    if not any(_parse(cell, form) for cell in sample[:3]):
        return 0.0
    return sum(_parse(cell, form) is not None for cell in sample) / len(sample)


def _parse(cell: str, form: str) -> datetime | None:
    try:
        if form == "iso":
            if not _ISO.fullmatch(cell):
                return None
            date = datetime.fromisoformat(re.sub(r"\s*Z$", "+00:00", cell))
            return date.astimezone(timezone.utc).replace(tzinfo=None) if date.tzinfo else date
        if form in _DIGITS and not _DIGITS[form].fullmatch(cell):
            return None
        return datetime.strptime(cell, form)
    except (ValueError, OverflowError):
        return None


def _read(table: Table, name: str, form: str) -> Array:
    dates = np.empty(len(table.rows), "datetime64[us]")
    for at, cell in enumerate(table.columns[name]):
        date = _parse(cell, form)
        if date is None:
            found = "the date is missing" if is_missing(cell) else f"{quote(cell)} is not a date"
            example = next(c for c in table.columns[name] if _parse(c, form) is not None)
            raise CliError(f"{table.where(name, at)}: {found}; the others look like {quote(example)}")
        dates[at] = np.datetime64(date, "us")
    return dates


def _unevenness(dates: Array) -> float:
    gaps = np.abs(np.diff(dates).astype(np.int64))
    return float(gaps.max() / gaps.min()) if gaps.size and gaps.min() > 0 else np.inf
