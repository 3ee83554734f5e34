"""The picture: truth and forecasts of a stretch of the test part, the error by step ahead, and how training went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rnnfast._arrays import Array
from rnnfast.cli.errors import CliError
from rnnfast.cli.networks import Trained
from rnnfast.cli.problem import Problem
from rnnfast.cli.scores import Score
from rnnfast.cli.series import Series

SHOWN_ROWS = 120
INK, MUTED = "#222222", "#8a8a8a"
COLOURS = {"FFNN": "#e69f00", "RNN": "#009e73", "LSTM": "#0072b2"}
NAIVE_STYLES = ("--", ":")


def require_matplotlib() -> None:
    """Import matplotlib, or say how to install it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise CliError(
            f"matplotlib is needed for the picture ({error}); pip install 'rnnfast[cli]' installs it"
        ) from None


def draw(
    path: Path, problem: Problem, scores: list[Score], networks: list[Trained], chosen: Score
) -> None:
    """Write the picture as PNG.

    Parameters
    ----------
    path : Path
    problem : Problem
    scores : list of Score
        Naive forecasts and networks.
    networks : list of Trained
    chosen : Score
        The network whose forecasts are shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    left, right = below.subplots(1, 2)
    _forecasts(above.subplots(), problem.series, problem.test.origins, chosen)
    _errors(left, problem.series, scores)
    _learning(right, networks)
    figure.savefig(path, format="png", metadata={"Software": None})


def _forecasts(axes: Any, series: Series, origins: Array, chosen: Score) -> None:
    """Truth, and the forecasts made at every ``horizon``-th origin, so that they follow one another."""
    horizon = chosen.values.shape[1]
    shown = origins < origins[0] + max(SHOWN_ROWS, 4 * horizon)
    rows = np.arange(origins[0], origins[shown][-1] + horizon + 1)
    x = series.dates if series.dates is not None else np.arange(len(series.values))
    truth = np.where(series.observed, series.values[:, 0], np.nan)
    axes.plot(x[rows], truth[rows], color=INK, lw=1.3, marker=".", ms=4, label="truth")

    ahead = np.arange(1, horizon + 1)
    due = origins[shown][0]
    for k, origin in enumerate(origins[shown]):
        if origin < due:
            continue
        due = origin + horizon
        first = k == 0
        start, value = x[origin], series.values[origin, 0]
        path = np.concatenate([[value], chosen.values[k]])
        axes.plot(
            x[origin : origin + horizon + 1], path, color=COLOURS[chosen.name], lw=2, alpha=0.9,
            label=f"{chosen.name}, {horizon} {series.unit}{'s' * (horizon > 1)} at a time" if first else None,
        )
        axes.plot(
            [start], [value], ls="", marker="o", ms=5, mfc="white", mec=COLOURS[chosen.name], mew=1.5, zorder=4,
            label="last value known to the forecast" if first else None,
        )
        spread = chosen.rmse_by_step
        axes.fill_between(
            x[origin + ahead], chosen.values[k] - spread, chosen.values[k] + spread,
            color=COLOURS[chosen.name], alpha=0.15, lw=0, label="± test RMSE of that step" if first else None,
        )
    name = _plain(series.names[0])
    _style(axes, f"{name}: the first {len(rows)} {series.unit}s of the test part, never seen in training", "", name)
    axes.margins(x=0.01, y=0.12)
    axes.legend(loc="upper left", ncols=4, frameon=False, fontsize=9)
    if series.dates is not None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _errors(axes: Any, series: Series, scores: list[Score]) -> None:
    from matplotlib.ticker import MaxNLocator

    naive_styles = iter(NAIVE_STYLES)
    for s in scores:
        trained = s.name in COLOURS
        axes.plot(
            np.arange(1, len(s.rmse_by_step) + 1), s.rmse_by_step, label=s.name,
            color=COLOURS.get(s.name, MUTED), ls="-" if trained else next(naive_styles), lw=2 if trained else 1.6,
            marker="o" if len(s.rmse_by_step) <= 31 else "", ms=4,
        )
    _style(axes, "Test error by step ahead", f"{series.unit}s ahead", f"RMSE of {_plain(series.names[0])}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)


def _learning(axes: Any, networks: list[Trained]) -> None:
    from matplotlib.ticker import MaxNLocator

    for network in networks:
        colour = COLOURS[network.kind]
        epochs = np.arange(1, len(network.validation) + 1)
        axes.plot(epochs, network.training, color=colour, lw=1, ls=":")
        axes.plot(epochs, network.validation, color=colour, lw=1.8, label=f"{network.kind}, best after {network.epochs}")
        axes.plot([network.epochs], [network.validation[network.epochs - 1]], marker="o", ms=6, color=colour)
    axes.plot([], [], color=MUTED, lw=1, ls=":", label="training")
    _style(axes, "Validation error during training", "epoch", "mean squared error (scaled)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=9)


def _plain(text: str) -> str:
    """A name from the file without what matplotlib would take for mathematics."""
    return (text if len(text) <= 40 else text[:37] + "...").replace("$", r"\$")


def _style(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
