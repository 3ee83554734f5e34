"""How far forecasts were off on the test part, and the table that says so."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rnnfast._arrays import Array


@dataclass(frozen=True)
class Score:
    """Errors of one forecast in the unit of the target.

    Attributes
    ----------
    name : str
        Of the forecast.
    values : ndarray, shape (windows, horizon)
        The forecasts.
    rmse, mae : float
        Over all windows and steps ahead.
    rmse_by_step : ndarray, shape (horizon,)
    parameters, epochs, seconds
        Of the training; None for a forecast that needs none.
    """

    name: str
    values: Array
    rmse: float
    mae: float
    rmse_by_step: Array
    parameters: int | None = None
    epochs: int | None = None
    seconds: float | None = None


def score(
    name: str,
    values: Array,
    truth: Array,
    parameters: int | None = None,
    epochs: int | None = None,
    seconds: float | None = None,
) -> Score:
    """Compare ``values`` with ``truth``, both of shape (windows, horizon)."""
    error = values - truth
    by_step = np.sqrt((error**2).mean(axis=0))
    rmse, mae = float(np.sqrt((error**2).mean())), float(np.abs(error).mean())
    return Score(name, values, rmse, mae, by_step, parameters, epochs, seconds)


def number_form(largest: float) -> str:
    """Format that shows numbers up to ``largest`` with the same decimals, three digits of the largest."""
    exponent = math.floor(math.log10(largest)) if largest > 0 else 0
    return f".{max(0, 2 - exponent)}f" if -4 <= exponent <= 7 else ".3g"


def table(scores: list[Score], chosen: str, unit: str) -> list[str]:
    """Lines of the table; the forecast named ``chosen`` is marked with a star."""
    horizon = len(scores[0].rmse_by_step)
    steps = (0, horizon - 1) if horizon > 1 else (0,)
    head = ["forecast", "RMSE", "MAE", *(f"RMSE +{k + 1} {unit}{'s' if k else ''}" for k in steps)]
    form = number_form(max(s.rmse for s in scores))
    rows = [[*head, "parameters", "epochs", "seconds"]]
    for s in scores:
        errors = [s.rmse, s.mae, *(s.rmse_by_step[k] for k in steps)]
        training = [
            "" if s.parameters is None else str(s.parameters),
            "" if s.epochs is None else str(s.epochs),
            "" if s.seconds is None else f"{s.seconds:.1f}",
        ]
        rows.append([s.name + (" *" if s.name == chosen else ""), *(f"{e:{form}}" for e in errors), *training])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def verdict(naive: list[Score], networks: list[Score]) -> str:
    """One sentence: which recurrent networks beat every naive forecast in RMSE and in MAE."""
    rmse, mae = min(s.rmse for s in naive), min(s.mae for s in naive)
    winners = [s for s in networks if s.name != "FFNN" and s.rmse < rmse and s.mae < mae]
    if not winners:
        return "no recurrent network is better than every naive forecast in both RMSE and MAE"
    gains = [f"{s.name} by {1 - s.rmse / rmse:.1%} in RMSE and {1 - s.mae / mae:.1%} in MAE" for s in winners]
    return f"better than every naive forecast: {', '.join(gains)}"
