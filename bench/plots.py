"""The two pictures of a comparison: speed-up by shape, and share of the machine's limit by shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK, MUTED, RULE, SLOWER = "#222222", "#767676", "#e6e6e6", "#fbecec"
# Colour and sign, so that the cells are told apart without colours as well.
CELLS = {"rnn": ("#e69f00", "o"), "lstm": ("#0072b2", "s"), "gru": ("#009e73", "^")}
ROW_HEIGHT, PANEL_WIDTH, LABEL_WIDTH = 0.2, 3.1, 2.6

Result = dict[str, Any]


def draw_speedup(results: list[Result], path: Path) -> None:
    """How many times faster than the best peer."""
    timed = [r for r in results if r["ratio"]]
    ratios = [r["ratio"] for r in timed]
    limits = (min(0.8, min(ratios) / 1.2), max(2.0, max(ratios) * 1.3))

    def panel(axes: Any, members: list[Result], row_of: Callable[[Result], int]) -> None:
        for r in members:
            colour, marker = CELLS[r["cell"]]
            if r["ratio"]:
                axes.plot(r["ratio"], row_of(r), marker, color=colour, ms=5, alpha=0.85)
        axes.set_xscale("log")
        axes.axvline(1, color=INK, lw=1)
        axes.axvspan(limits[0], 1, color=SLOWER, lw=0, zorder=0)
        axes.set_xlabel("times as fast as the best peer")

    _draw(timed, path, "Speed-up over the best peer, by shape T·N·I·H", panel, limits, _plain_ticks(limits), [])


def draw_limit(results: list[Result], path: Path) -> None:
    """Share of the least time that the machine needs."""

    def panel(axes: Any, members: list[Result], row_of: Callable[[Result], int]) -> None:
        for r in members:
            colour, marker = CELLS[r["cell"]]
            fill = colour if r["bound"] == "multiply-adds" else "white"
            axes.plot(100 * r["share"], row_of(r), marker, color=colour, mfc=fill, ms=5, alpha=0.85)
        axes.set_xlabel("% of the machine's limit")

    right = max(103.0, *(105 * r["share"] for r in results))
    grey = {"color": MUTED, "marker": "o", "ls": ""}
    notes = [
        Line2D([], [], **grey, label="limit: multiply-adds"),
        Line2D([], [], **grey, mfc="white", label="limit: reading the weights"),
    ]
    _draw(
        results, path, "Share of the machine's limit, by shape T·N·I·H", panel, (0, right), [0, 25, 50, 75, 100], notes
    )


def _draw(
    results: list[Result],
    path: Path,
    title: str,
    panel: Callable[[Any, list[Result], Callable[[Result], int]], None],
    limits: tuple[float, float],
    ticks: list[float],
    notes: list[Line2D],
) -> None:
    """A grid of panels: a row of them for each dtype, a column for training or inference and a number of threads."""
    labels = list(dict.fromkeys(_label(r) for r in results))
    dtypes = list(dict.fromkeys(r["dtype"] for r in results))
    columns = list(dict.fromkeys(_column(r) for r in results))
    size = (LABEL_WIDTH + PANEL_WIDTH * len(columns), 1.5 + (ROW_HEIGHT * len(labels) + 0.9) * len(dtypes))
    figure: Any = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(dtypes), len(columns), squeeze=False, sharey=True)
    for dtype, row in zip(dtypes, grid, strict=True):
        for (mode, threads), axes in zip(columns, row, strict=True):
            members = [r for r in results if r["dtype"] == dtype and _column(r) == (mode, threads)]
            axes.set_title(
                f"{mode}, {threads} thread{'s' * (threads > 1)}, {dtype}", fontsize=10, color=INK, loc="left"
            )
            axes.set_yticks(range(len(labels)), labels, fontsize=8)
            axes.set_ylim(len(labels) - 0.4, -0.6)
            axes.grid(color=RULE, lw=0.8)
            axes.set_axisbelow(True)
            axes.tick_params(length=0)
            for side in axes.spines.values():
                side.set_visible(False)
            panel(axes, members, lambda r: labels.index(_label(r)))
            axes.set_xlim(*limits)
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
    handles = [
        Line2D([], [], color=colour, marker=marker, ls="", label=cell.upper())
        for cell, (colour, marker) in CELLS.items()
    ]
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, color=INK)
    figure.legend(
        handles=handles + notes, loc="outside lower left", ncols=len(handles + notes), frameon=False, fontsize=9
    )
    figure.savefig(path, format="png", metadata={"Software": None})


def _column(r: Result) -> tuple[str, int]:
    return ("training" if r["mode"] == "training" else "inference", r["threads"])


def _label(r: Result) -> str:
    name = f"stream {r['shape']}" if r["mode"] == "step" else r["shape"]
    return f"{name}  {r['T']}·{r['N']}·{r['I']}·{r['H']}"


def _plain_ticks(limits: tuple[float, float]) -> list[float]:
    """1, 2, 5, 10 ... between the limits; powers of ten alone where these would be too many."""
    decades = [10.0**k for k in range(-2, 6)]
    fine = [d * m for d in decades for m in (1, 2, 5)]
    shown = [tick for tick in fine if limits[0] <= tick <= limits[1]]
    return shown if len(shown) <= 7 else [tick for tick in decades if limits[0] <= tick <= limits[1]]
