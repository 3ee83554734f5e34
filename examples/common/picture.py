"""The look of the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rnnfast.cli.errors import CliError
from rnnfast.cli.output import write_whole

INK, MUTED, GRID = "#222222", "#8a8a8a", "#e6e6e6"
# Okabe & Ito's colours, told apart with any colour vision.
COLOURS = {"FFNN": "#e69f00", "RNN": "#009e73", "LSTM": "#0072b2", "GRU": "#cc79a7"}
GREYS, DASHES = ("#9a9a9a", "#444444"), ("--", ":", "-.")
NAIVE_STYLES = tuple({"ls": dashes, "color": grey, "lw": 1.4} for grey in GREYS for dashes in DASHES)


def figure(width: float, height: float) -> Any:
    """A figure that is drawn without a display."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CliError(f"matplotlib is needed for the picture ({error}); pip install 'rnnfast[examples]'") from None
    picture = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(picture)
    return picture


def style(axes: Any, title: str, x: str = "", y: str = "") -> None:
    """Title, names of the axes, a light grid, no box."""
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def dates(axes: Any) -> None:
    """Dates on the axis below, as short as they can be."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def learning(axes: Any, networks: list[Any], y: str) -> None:
    """Validation loss over the epochs of each network's models, a dot where it was lowest."""
    for network in networks:
        colour = COLOURS[network.kind]
        for k, (history, best) in enumerate(zip(network.histories, network.best, strict=True)):
            losses = history.val_loss
            axes.plot(range(1, len(losses) + 1), losses, color=colour, lw=1.4, label=None if k else network.kind)
            axes.plot(best, losses[best - 1], marker="o", ms=5, color=colour)
    style(axes, "Learning: the validation loss, its lowest point", "epoch", y)
    axes.legend(frameon=False, fontsize=9)


def text_map(axes: Any, characters: list[str], values: Any, columns: int) -> None:
    """Characters in a grid, behind each a colour for its value; spaces and ends of lines are shown."""
    rows = -(-len(characters) // columns)
    grid = np.full(rows * columns, np.nan)
    grid[: len(values)] = values
    axes.imshow(grid.reshape(rows, columns), cmap="YlOrRd", vmin=0, vmax=12, aspect="auto", alpha=0.85)
    for k, character in enumerate(characters):
        mark = {"\n": "¶", " ": "·"}.get(character, character).replace("$", r"\$")
        axes.text(k % columns, k // columns, mark, ha="center", va="center", fontsize=6.5, family="monospace")
    axes.set_axis_off()


def paragraph(axes: Any, text: str, columns: int, title: str) -> None:
    """Text as it would stand in a terminal of so many columns."""
    lines = [line[k : k + columns] for line in text.split("\n") for k in range(0, max(len(line), 1), columns)]
    shown = "\n".join(lines[:18]).replace("$", r"\$")
    axes.text(0, 1, shown, va="top", family="monospace", fontsize=8.5, color=INK, transform=axes.transAxes)
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_axis_off()


def save(picture: Any, path: Path) -> None:
    """Write a PNG of at most 160 colours: a third of the size of one with all."""
    from PIL import Image

    picture.canvas.draw()
    image = Image.fromarray(np.asarray(picture.canvas.buffer_rgba())[:, :, :3].copy())
    image = image.quantize(160, dither=Image.Dither.NONE)
    write_whole(path, lambda part: image.save(part, format="png", optimize=True))
    print(f"picture: {path}")
