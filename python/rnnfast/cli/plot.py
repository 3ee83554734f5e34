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


def draw(path: Path, problem: Problem, scores: list[Score], networks: list[Trained], chosen: Score) -> None:
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
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"date.converter": "concise"}):
        # Any, since matplotlib's types take rows of subfigures for single ones.
        figure: Any = Figure(figsize=(11, 7.6), dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        above, below = figure.subfigures(2, 1, height_ratios=(1.15, 1))
        left, right = below.subplots(1, 2)
        _forecasts(above.subplots(), problem.series, problem.test.origins, chosen)
        _errors(left, problem.series, scores)
        _learning(right, networks)
        figure.savefig(path, format="png", metadata={"Software": None})


def _forecasts(axes: Any, series: Series, origins: Array, chosen: Score) -> None:
    """Truth, and forecasts that follow one another: each begins where the one before ended."""
    horizon = chosen.values.shape[1]
    windows = _one_after_another(origins, horizon)
    origins, values = origins[windows], chosen.values[windows]
    rows = np.arange(origins[0], origins[-1] + horizon + 1)
    x = np.arange(len(series.values)) if series.dates is None else series.dates
    truth = np.where(series.observed, series.values[:, 0], np.nan)
    axes.plot(x[rows], truth[rows], color=INK, lw=1.3, marker=".", ms=4, label="truth")

    # A forecast of one step is a point: points are joined, longer forecasts begin at the last known value.
    first = 0 if horizon > 1 else 1
    at = origins[:, None] + np.arange(first, horizon + 1)
    last = series.values[origins, :1]
    line = np.concatenate([last, values], axis=1)[:, first:]
    band = np.concatenate([[0.0], chosen.rmse_by_step])[first:]
    if horizon > 1:
        # NaN keeps the line of a forecast from running on to the next.
        at = np.concatenate([at, at[:, -1:]], axis=1)
        line = np.concatenate([line, np.full_like(last, np.nan)], axis=1)
        band = np.append(band, np.nan)
    style = {"color": COLOURS[chosen.name]}
    label = f"{chosen.name}, {horizon} {series.unit}{'s' if horizon > 1 else ''} at a time"
    axes.plot(x[at].ravel(), line.ravel(), lw=2, label=label, **style)
    if horizon > 1:
        axes.plot(x[origins], last, ls="", marker="o", ms=5, mfc="white", mew=1.5, label="last known value", **style)
    low, high = (line - band).ravel(), (line + band).ravel()
    label = "± RMSE of that step over the whole test part"
    axes.fill_between(x[at].ravel(), low, high, alpha=0.15, lw=0, label=label, **style)
    name = _plain(series.names[0])
    title = f"{name}: the first {len(rows) - 1} {series.unit}s of the test part, never seen in training"
    _style(axes, title, "" if series.dates is not None else "row of the series", name)
    axes.margins(x=0.01, y=0.14)
    axes.legend(loc="upper left", ncols=4, frameon=False, fontsize=9)


def _one_after_another(origins: Array, horizon: int) -> list[int]:
    """Places of the origins that are at least ``horizon`` apart, from the first on, for as many rows as are shown."""
    chosen: list[int] = []
    for place, origin in enumerate(origins):
        if origin >= origins[0] + max(SHOWN_ROWS, 4 * horizon):
            break
        if not chosen or origin >= origins[chosen[-1]] + horizon:
            chosen.append(place)
    return chosen


def _errors(axes: Any, series: Series, scores: list[Score]) -> None:
    from matplotlib.ticker import MaxNLocator

    _style(axes, "Test error by step ahead", f"{series.unit}s ahead", f"RMSE of {_plain(series.names[0])}")
    axes.set_ylim(0, 1.1 * max(s.rmse_by_step.max() for s in scores) or 1)
    steps = np.arange(1, len(scores[0].rmse_by_step) + 1)
    if len(steps) == 1:
        colours = [COLOURS.get(s.name, MUTED) for s in scores]
        axes.bar([s.name for s in scores], [s.rmse for s in scores], color=colours, width=0.6)
        axes.set_xlabel(f"1 {series.unit} ahead")
        return
    naive_styles = iter(NAIVE_STYLES)
    for s in scores:
        trained = s.name in COLOURS
        axes.plot(
            steps,
            s.rmse_by_step,
            label=s.name,
            color=COLOURS.get(s.name, MUTED),
            ls="-" if trained else next(naive_styles),
            lw=2.0 if trained else 1.5,
            marker="o" if len(steps) <= 31 else "",
            ms=4,
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=9)


def _learning(axes: Any, networks: list[Trained]) -> None:
    from matplotlib.ticker import MaxNLocator

    for network in networks:
        colour = COLOURS[network.kind]
        epochs = np.arange(1, len(network.validation) + 1)
        axes.plot(epochs, network.training, color=colour, lw=1, ls=":")
        axes.plot(epochs, network.validation, color=colour, lw=1.8, label=f"{network.kind}, best: {network.epochs}")
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
