"""Forecasts of the test part, naive and trained, and of what comes after the last row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rnnfast._arrays import Array
from rnnfast.cli.baselines import now_name, same_as_now, seasonal
from rnnfast.cli.dates import show
from rnnfast.cli.networks import Trained
from rnnfast.cli.problem import Problem
from rnnfast.cli.scores import Score, number_form, score, table, verdict


@dataclass(frozen=True)
class Results:
    """What came out.

    Attributes
    ----------
    naive, trained : list of Score
        On the test part.
    best : Trained
        The network with the lowest validation error, so chosen without the test part.
    note : str
        Why there is no seasonal forecast, or empty.
    ahead : list of str
        Dates (or +1, +2, ...) after the last row.
    newest : ndarray, shape (horizon,)
        Forecast of ``best`` for them.
    """

    naive: list[Score]
    trained: list[Score]
    best: Trained
    note: str
    ahead: list[str]
    newest: Array

    @property
    def chosen(self) -> Score:
        """Score of the best network."""
        return next(s for s in self.trained if s.name == self.best.kind)


def evaluate(problem: Problem, networks: list[Trained]) -> Results:
    """Score the naive forecasts and the networks on the windows of the test part."""
    series, origins, horizon = problem.series, problem.test.origins, problem.horizon
    truth = series.values[origins[:, None] + np.arange(1, horizon + 1), 0]
    naive = [score(now_name(series), same_as_now(series, origins, horizon), truth)]
    name, values = seasonal(series, problem.split.test, origins, horizon)
    if values is not None:
        naive.append(score(name, values, truth))
    trained = [
        score(n.kind, problem.values_of(n.predict(problem.test.x), origins), truth, n.parameters, n.epochs, n.seconds)
        for n in networks
    ]
    best = min(networks, key=lambda network: min(network.validation))
    newest = problem.values_of(best.predict(problem.newest), np.array([len(series.values) - 1]))[0]
    return Results(naive, trained, best, "" if values is not None else name, _dates_ahead(problem), newest)


def report(problem: Problem, results: Results, say: Callable[[str], None]) -> None:
    """Print the table, what it shows, and the forecast after the last row."""
    best = results.best.kind
    for line in table([*results.naive, *results.trained], best, problem.series.unit):
        say(line)
    say(f"errors over {len(problem.test.origins)} windows of the test part, in the unit of {problem.series.names[0]}")
    say("* lowest validation error, so chosen without the test part; saved")
    if results.note:
        say(results.note)
    say(verdict(results.naive, results.trained))
    say("")
    say(f"{best} on what comes after the last row:")
    form = number_form(results.chosen.rmse)
    shown = [f"{date}  {value:{form}}" for date, value in zip(results.ahead, results.newest, strict=True)]
    for line in shown[:7]:
        say(f"  {line}")
    if len(shown) > 7:
        say(f"  and {len(shown) - 7} more in forecast.csv")


def _dates_ahead(problem: Problem) -> list[str]:
    series, horizon = problem.series, problem.horizon
    if series.dates is None or series.step is None:
        return [f"+{step}" for step in range(1, horizon + 1)]
    return [show(date) for date in series.step.after(series.dates[-1], horizon)]
