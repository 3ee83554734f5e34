"""Volatility of the S&P 500 and the NASDAQ one day ahead; and that the returns themselves cannot be predicted.

Daily prices 1999 to 2018 (package arch). Walk-forward: for each of the years from 2007 on, everything is estimated
anew on the years before, of which the last decides when training ends; then it forecasts each day of the year from the
days before it. Baselines: the moving variance EWMA of RiskMetrics, GARCH(1,1) and its asymmetric sister GJR-GARCH(1,1)
from the package arch, and HAR, a regression on the past daily, weekly and monthly range of prices. The judge is QLIKE,
log h + r^2 / h for a forecast h of the variance, and beside it the mean squared error against r^2.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import linear, networks, picture, report, volatility
from common.files import package_file, read_columns
from common.networks import KINDS, Network, Training
from common.options import parser, run
from common.report import Result
from rnnfast.cli.errors import CliError
from rnnfast.losses import Loss

INDICES = {"S&P 500": "sp500", "NASDAQ": "nasdaq"}
WINDOW, HIDDEN = 44, 16
FIRST_YEAR = 2007


@dataclass(frozen=True)
class Market:
    """One index over T days.

    Attributes
    ----------
    dates : ndarray of datetime64[D], shape (T,)
    returns : ndarray, shape (T,)
        In percent.
    log_range : ndarray, shape (T,)
        Logarithm of Parkinson's variance.
    ewma : ndarray, shape (T + 1,)
        ``ewma[t]`` is the forecast for day t, known the day before; so is ``x[t - WINDOW : t]``.
    x : ndarray, shape (T, I)
    """

    dates: Any
    returns: Any
    log_range: Any
    ewma: Any
    x: Any

    def days(self, start: int, end: int) -> Any:
        """Days in the years [start, end) that have a whole window before them."""
        year = self.dates.astype("datetime64[Y]").astype(int) + 1970
        return np.flatnonzero((year >= start) & (year < end) & (np.arange(len(year)) >= WINDOW))

    def windows(self, days: Any) -> Any:
        """What was known before each of the ``days``: (n, WINDOW, I)."""
        return self.x[days[:, None] + np.arange(-WINDOW, 0)]


class LogVarianceLoss(Loss):
    """QLIKE for networks: the prediction is the logarithm of a variance in units of a first guess, the target is r^2
    in the same units. ``p + target exp(-p)`` has the derivative ``1 - target exp(-p)``.
    """

    def differentiate(self, prediction: Any, target: Any) -> tuple[float, Any]:
        surprise = target * np.exp(-prediction)
        gradient = (1 - surprise) / prediction.size
        return float((prediction + surprise).mean(dtype=np.float64)), gradient.astype(prediction.dtype)


def main(args: Namespace) -> None:
    if args.data:
        raise CliError("--data: this example takes two files; it reads those of the package arch")
    markets = [read(package_file("arch", f"data/{name}/{name}.csv.gz", "arch")) for name in INDICES.values()]
    last = max(int(str(m.dates[-1])[:4]) for m in markets)
    years = range(last - 1 if args.quick else FIRST_YEAR, last + 1)
    how = Training(
        epochs=2 if args.quick else 30,
        patience=4,
        members=1 if args.quick else 2,
        batch_size=128,
        seed=args.seed,
        progress=args.progress,
    )
    variances: dict[str, list[Any]] = {}
    returns: dict[str, list[Any]] = {}
    trained: dict[str, list[Network]] = {kind: [] for kind in KINDS}
    for year in years:
        for name, forecast in classical(markets, year).items():
            variances.setdefault(name, []).append(forecast)
        returns.setdefault("mean of the past", []).append(past_means(markets, year))
        for kind in KINDS:
            found, forecast = volatility_network(kind, markets, year, how)
            trained[kind].append(found)
            variances.setdefault(kind, []).append(forecast)
            returns.setdefault(kind, []).append(return_network(kind, markets, year, how))

    days = [m.days(years[0], years[-1] + 1) for m in markets]
    truth = [m.returns[d] for m, d in zip(markets, days, strict=True)]
    h = {name: joined(pieces) for name, pieces in variances.items()}
    results = [Result(name, scores(h, name, truth), tuple(trained.get(name, ()))) for name in h]
    found_returns = return_table({name: joined(pieces) for name, pieces in returns.items()}, truth)
    facts = {"days": [len(d) for d in days], "years": [years[0], years[-1]], "returns": finite(found_returns)}
    facts["quick"] = args.quick
    report.publish(args.out, results, facts, ".3f", ratio=False)
    rows, sentence = return_rows(found_returns), return_verdict(found_returns)
    print("\nThe return itself, one day ahead:\n" + report.as_text(rows) + "\n\n" + sentence)
    report.append(args.out, [report.as_markdown(rows), sentence])
    draw(args.out / "finance.png", markets[0], days[0], h, results, found_returns)


def read(path: Path) -> Market:
    """Prices, turned into what the forecasts use."""
    table = read_columns(path, ["Date", "High", "Low", "Close"])
    dates = np.array([f"{y}-{int(m):02}-{int(d):02}" for m, d, y in (t.split("/") for t in table["Date"])], "M8[D]")
    high, low, close = (np.array(table[name], dtype=float) for name in ("High", "Low", "Close"))
    returns = 100 * np.diff(np.log(close))
    log_range = np.log(np.maximum(volatility.parkinson(high[1:], low[1:]), 1e-3))
    ewma = volatility.ewma(returns**2)
    guess = np.log(ewma[1:])
    columns = [
        returns / np.sqrt(ewma[:-1]),
        np.abs(returns) / np.sqrt(ewma[:-1]) - 0.75,
        log_range - guess,
        np.diff(np.log(ewma)) * 5,
        guess / 2,
    ]
    return Market(dates[1:], returns, log_range, ewma, np.stack(columns, axis=1).astype(np.float32))


def classical(markets: list[Market], year: int) -> dict[str, list[Any]]:
    """Variance forecasts for the days of ``year``, of parameters found on the years before; one array a market."""
    forecasts: dict[str, list[Any]] = {"EWMA": [], "GARCH(1,1)": [], "GJR-GARCH(1,1)": [], "HAR of ranges": []}
    for m in markets:
        days = m.days(year, year + 1)
        known = int(days[0])
        forecasts["EWMA"].append(m.ewma[days])
        forecasts["GARCH(1,1)"].append(volatility.garch(m.returns, known, asymmetric=False)[days])
        forecasts["GJR-GARCH(1,1)"].append(volatility.garch(m.returns, known, asymmetric=True)[days])
        x = volatility.har_inputs(m.log_range)
        past = np.arange(volatility.MONTH, known)
        fitted = linear.fit(x[past - 1], m.log_range[past, None], 0.0)
        # The range leaves out the night, and the exponential of a mean logarithm is too small: one factor for both.
        factor = (m.returns[past] ** 2).mean() / np.exp(linear.predict(fitted, x[past - 1])).mean()
        forecasts["HAR of ranges"].append(factor * np.exp(linear.predict(fitted, x[days - 1])[:, 0]))
    return forecasts


def past_means(markets: list[Market], year: int) -> list[Any]:
    """The mean return of all years before, for each day of ``year``."""
    days = [m.days(year, year + 1) for m in markets]
    return [np.full(len(d), m.returns[: d[0]].mean()) for m, d in zip(markets, days, strict=True)]


def volatility_network(kind: str, markets: list[Market], year: int, how: Training) -> tuple[Network, list[Any]]:
    """A network that corrects the logarithm of EWMA's variance, trained by QLIKE; its forecasts, one array a market."""
    guess = [m.ewma[:-1] for m in markets]
    target = [m.returns**2 / g for m, g in zip(markets, guess, strict=True)]
    network, outputs = walk(kind, markets, target, year, how.but(loss=LogVarianceLoss()), "")
    days = [m.days(year, year + 1) for m in markets]
    return network, [g[d] * np.exp(p) for g, d, p in zip(guess, days, outputs, strict=True)]


def return_network(kind: str, markets: list[Market], year: int, how: Training) -> list[Any]:
    """The same network for the return itself, in units of EWMA's volatility, trained by its squared error."""
    spread = [np.sqrt(m.ewma[:-1]) for m in markets]
    target = [m.returns / s for m, s in zip(markets, spread, strict=True)]
    _, outputs = walk(kind, markets, target, year, how, " for returns")
    days = [m.days(year, year + 1) for m in markets]
    return [s[d] * p for s, d, p in zip(spread, days, outputs, strict=True)]


def walk(
    kind: str, markets: list[Market], target: list[Any], year: int, how: Training, note: str
) -> tuple[Network, list[Any]]:
    """Train on all years before the last one before ``year``, validate on that one, and predict the days of ``year``.

    One network learns from all markets. Predictions are one array a market.
    """

    def samples(start: int, end: int) -> tuple[Any, Any]:
        days = [m.days(start, end) for m in markets]
        x = np.concatenate([m.windows(d) for m, d in zip(markets, days, strict=True)])
        y = np.concatenate([t[d] for t, d in zip(target, days, strict=True)])[:, None].astype(np.float32)
        return networks.windows_for(kind, x), y

    def make(seed: int) -> Any:
        return networks.window_model(kind, WINDOW, markets[0].x.shape[1], HIDDEN, 1, seed)

    network = networks.fit(kind, make, samples(0, year - 1), samples(year - 1, year), how, f" {year}{note}")
    asked = [networks.windows_for(kind, m.windows(m.days(year, year + 1))) for m in markets]
    return network, [network.predict(x)[:, 0].astype(np.float64) for x in asked]


def joined(pieces: list[list[Any]]) -> list[Any]:
    """Years one after the other, for each market."""
    return [np.concatenate(years) for years in zip(*pieces, strict=True)]


def scores(h: dict[str, list[Any]], name: str, truth: list[Any]) -> dict[str, float]:
    """QLIKE of both markets and of each, mean squared error, and whether QLIKE differs from GARCH's by chance."""
    losses = [volatility.qlike(r**2, own) for r, own in zip(truth, h[name], strict=True)]
    garch = [volatility.qlike(r**2, own) for r, own in zip(truth, h["GARCH(1,1)"], strict=True)]
    squares = [((r**2 - own) ** 2).mean() for r, own in zip(truth, h[name], strict=True)]
    # The two markets share their days, so their difference is judged as one series.
    difference = sum(own - other for own, other in zip(losses, garch, strict=True))
    return {
        "QLIKE": float(np.mean([loss.mean() for loss in losses])),
        **{index: float(loss.mean()) for index, loss in zip(INDICES, losses, strict=True)},
        "MSE": float(np.mean(squares)),
        "t, QLIKE - GARCH": volatility.t_statistic(difference) if name != "GARCH(1,1)" else 0.0,
    }


def return_table(forecasts: dict[str, list[Any]], truth: list[Any]) -> dict[str, dict[str, float]]:
    """How much of the return each forecast explains out of sample, and how often its sign is right.

    R^2 is the part of the squared return that is gone; ``t`` says how far it is from 0 in standard errors.
    """
    rows = {}
    always_up = [np.full_like(r, np.nan) for r in truth]
    for name, pieces in ({"up, every day": always_up} | forecasts).items():
        both = list(zip(truth, pieces, strict=True))
        gain = [r**2 - (r - own) ** 2 for r, own in both]
        right = [(np.sign(np.nan_to_num(own, nan=1.0)) == np.sign(r))[r != 0] for r, own in both]
        # The markets share their days, so their gains are judged as one series.
        of_day, all_of_it = sum(gain), sum((r**2).sum() for r in truth)
        rows[name] = {
            "R^2": float(of_day.sum() / all_of_it),
            "standard error": volatility.standard_error(of_day) * len(of_day) / all_of_it,
            "t": volatility.t_statistic(of_day),
            "right sign": float(np.concatenate(right).mean()),
        }
    return rows


def finite(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """None, which JSON has, for NaN, which it has not."""
    return {name: {k: None if np.isnan(v) else v for k, v in row.items()} for name, row in found.items()}


def return_rows(found: dict[str, dict[str, float]]) -> list[list[str]]:
    rows = [["", "R^2", "t", "right sign"]]
    for name, row in found.items():
        there = not np.isnan(row["R^2"])
        rows.append(
            [
                name,
                f"{row['R^2']:+.2%}" if there else "",
                f"{row['t']:+.1f}" if there else "",
                f"{row['right sign']:.1%}",
            ]
        )
    return rows


def return_verdict(found: dict[str, dict[str, float]]) -> str:
    """What the table says, by a one-sided test at 2 standard errors."""
    better = [name for name, row in found.items() if row["t"] > 2]
    highest = max(found, key=lambda name: found[name]["right sign"])
    if better:
        verdict = f"{', '.join(better)}: more of the return explained than chance would, in this sample."
    else:
        verdict = "Returns are not predictable here: no forecast explains more of them than chance would (t above 2)."
    return f"{verdict} Most often right about the sign: {highest}."


def draw(path: Path, m: Market, days: Any, h: dict[str, list[Any]], results: list[Result], found: Any) -> None:
    """Returns between plus and minus two forecast standard deviations; QLIKE of all; R^2 of returns."""
    best = report.chosen(results).name
    shown = picture.figure(11, 7.2)
    above, below = shown.subfigures(2, 1, height_ratios=(1.2, 1))
    axes = above.subplots()
    axes.bar(m.dates[days], m.returns[days], width=1.6, color="#b8b8b8", label="return of the day")
    for name, colour in ((best, picture.COLOURS[best]), ("GARCH(1,1)", picture.INK)):
        band = 2 * np.sqrt(h[name][0])
        width = 0.9 if name == best else 0.6
        axes.plot(m.dates[days], band, color=colour, lw=width, label=f"± 2 forecast standard deviations, {name}")
        axes.plot(m.dates[days], -band, color=colour, lw=width)
    picture.style(axes, "S&P 500: each day's band was forecast the day before", "", "percent")
    picture.dates(axes)
    axes.margins(x=0.01)
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower right")
    left, right = below.subplots(1, 2)
    order = sorted(results, key=lambda r: -r.score)
    colours = [picture.COLOURS.get(r.name, picture.MUTED) for r in order]
    left.barh([r.name for r in order], [r.score for r in order], color=colours, height=0.6)
    low, high = order[-1].score, order[0].score
    left.set_xlim(low - (high - low), high + 0.1 * (high - low))
    picture.style(left, "Volatility: QLIKE of both indices, less is better", "log h + r²/h (axis does not start at 0)")
    names = [name for name, row in found.items() if not np.isnan(row["R^2"])]
    shares = [100 * found[name]["R^2"] for name in names[::-1]]
    colours = [picture.COLOURS.get(name, picture.MUTED) for name in names[::-1]]
    wide = [200 * found[name]["standard error"] for name in names[::-1]]
    right.barh(names[::-1], shares, color=colours, height=0.6, xerr=wide, error_kw={"lw": 1.2, "ecolor": picture.INK})
    right.axvline(0, color=picture.INK, lw=1)
    picture.style(
        right, "Returns: share explained, ± 2 standard errors", "R² out of sample, percent (below 0: worse than none)"
    )
    picture.save(shown, path)


if __name__ == "__main__":
    sys.exit(run(main, parser("finance", __doc__)))
