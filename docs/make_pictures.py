"""The pictures of the guide: python docs/make_pictures.py writes them to docs/images. Needs matplotlib."""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import rnnfast as rf
from matplotlib import pyplot
from matplotlib.colors import ListedColormap
from matplotlib.patches import Circle

IMAGES = Path(__file__).parent / "images"
U, W, V = "#1f77b4", "#d62728", "#2ca02c"  # colours of input, recurrent and output weights


def save(figure, name: str) -> None:
    figure.savefig(IMAGES / name, dpi=110, bbox_inches="tight", facecolor="white")
    pyplot.close(figure)
    size = (IMAGES / name).stat().st_size
    print(f"{name}: {size / 1e3:.0f} kB")


def node(ax, x: float, y: float, text: str, colour: str = "black") -> None:
    ax.add_patch(Circle((x, y), 0.3, facecolor="white", edgecolor=colour, linewidth=1.5, zorder=2))
    ax.text(x, y, text, ha="center", va="center", fontsize=11, zorder=3)


def arrow(ax, begin, end, colour: str, text: str = "", bend: float = 0.0, offset=(0.14, 0.0)) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "connectionstyle": f"arc3,rad={bend}"}
    ax.annotate("", end, begin, arrowprops=style | {"shrinkA": 0, "shrinkB": 0}, zorder=1)
    middle = [(a + b) / 2 + c for a, b, c in zip(begin, end, offset, strict=True)]
    ax.text(*middle, text, color=colour, fontsize=12, fontweight="bold", ha="center", va="center")


def unfolding() -> None:
    figure, ax = pyplot.subplots(figsize=(9, 3.4))
    ax.set_xlim(-1.2, 9.6)
    ax.set_ylim(-0.6, 3.5)
    ax.set_aspect("equal")
    ax.axis("off")

    def column(x: float, step: str) -> None:
        for height, name in ((0, "x"), (1.3, "h"), (2.6, "y")):
            node(ax, x, height, f"${name}{step}$")
        arrow(ax, (x, 0.3), (x, 1.0), U, "U", offset=(0.2, 0))
        arrow(ax, (x, 1.6), (x, 2.3), V, "V", offset=(0.2, 0))

    column(0, "")
    # From the unit back to itself.
    loop = {"arrowstyle": "-|>", "color": W, "linewidth": 1.6, "connectionstyle": "arc3,rad=1.9"}
    ax.annotate("", (-0.25, 1.13), (-0.25, 1.47), arrowprops=loop | {"shrinkA": 0, "shrinkB": 0})
    ax.text(-0.98, 1.3, "W", color=W, fontsize=12, fontweight="bold", ha="center", va="center")
    ax.text(1.55, 1.3, "unfolded\nin time", ha="center", va="center", fontsize=10)
    ax.annotate("", (2.3, 0.75), (0.8, 0.75), arrowprops={"arrowstyle": "->", "color": "grey"})

    places = [3.4, 5.2, 7.0, 8.8]
    for x, step in zip(places, ("_0", "_1", "_2", "_3"), strict=True):
        column(x, step)
    for before, after in itertools.pairwise(places):
        arrow(ax, (before + 0.3, 1.3), (after - 0.3, 1.3), W, "W", offset=(0, 0.2))
    arrow(ax, (2.7, 1.3), (3.1, 1.3), W)
    back = {"arrowstyle": "-|>", "color": "grey", "linewidth": 1.2, "linestyle": "--"}
    ax.annotate("", (3.3, 3.2), (8.9, 3.2), arrowprops=back)
    ax.text(6.1, 3.38, "gradients: backpropagation through time", color="grey", fontsize=9, ha="center", va="bottom")
    save(figure, "unfolding.png")


def gradient_norms() -> None:
    """The models of guide/gradients.md."""
    rng = np.random.default_rng(0)
    steps, batch, hidden = 100, 16, 32
    x = rng.standard_normal((steps, batch, 2), dtype="float32")
    y = rng.standard_normal((batch, 1), dtype="float32")

    def network(layer):
        return rf.Sequential(layer, rf.Last(), rf.Dense(hidden, 1, seed=1))

    def rnn(gain):
        options = {"weight_ih": ("normal", 0.1), "weight_hh": ("orthogonal", gain), "bias": "zeros"}
        return rf.initialise(network(rf.RNN(2, hidden, seed=0)), **options, seed=0)

    relu = network(rf.RNN(2, hidden, nonlinearity="relu", seed=0))
    lstm = network(rf.LSTM(2, hidden, seed=0))
    models = {
        "RNN, orthogonal x 0.7": rnn(0.7),
        "RNN, orthogonal": rnn(1.0),
        "RNN, relu, identity x 1.2": rf.initialise(relu, weight_hh=("identity", 1.2), bias="zeros"),
        "LSTM, chrono biases": rf.initialise(lstm, bias="zeros", chrono=steps),
    }
    figure, ax = pyplot.subplots(figsize=(7.5, 4))
    rf.GradientFlow.compare({name: rf.gradient_flow(model, x, y) for name, model in models.items()}, ax)
    save(figure, "gradient-norms.png")


def frnn_masks() -> None:
    """The networks of frnn.md, ten units each."""
    full = np.ones((10, 10), bool)
    stack = full.copy()
    stack[:6, 6:] = False
    jordan = np.zeros((10, 10), bool)
    jordan[:7, 7:] = jordan[7:, :7] = True
    chain = np.zeros((9, 9), bool)
    chain[3:6, :3] = chain[6:, 3:6] = True
    networks = {
        "Elman": (full, range(10), range(10)),
        "stack of two": (stack, range(6), range(6, 10)),
        "Jordan": (jordan, range(7), range(7, 10)),
        "chain, no cycle": (chain, range(3), range(6, 9)),
        "independent units": (np.eye(10, dtype=bool), range(10), range(10)),
    }
    figure, axes = pyplot.subplots(1, 5, figsize=(12, 2.6))
    for ax, (name, (mask, inputs, outputs)) in zip(axes, networks.items(), strict=True):
        units = len(mask)
        ax.imshow(mask, cmap=ListedColormap(["white", W]), alpha=0.75, vmin=0, vmax=1)
        ax.set_xticks(np.arange(units + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(units + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="lightgrey", linewidth=0.5)
        ax.tick_params(which="both", length=0, labelsize=7)
        ax.set_xticks(range(units))
        ax.set_yticks(range(units))
        ax.set_title(name, fontsize=11)
        ax.set_xlabel("from unit", fontsize=9)
        # Roles of units, left and right of their rows.
        ax.set_xlim(-1.6, units + 0.6)
        for unit in inputs:
            ax.add_patch(pyplot.Rectangle((-1.4, unit - 0.4), 0.6, 0.8, color=U))
        for unit in outputs:
            ax.add_patch(pyplot.Rectangle((units - 0.2, unit - 0.4), 0.6, 0.8, color=V))
        for edge in ax.spines.values():
            edge.set_visible(False)
    axes[0].set_ylabel("to unit", fontsize=9)
    handles = [
        pyplot.Rectangle((0, 0), 1, 1, color=colour, alpha=alpha) for colour, alpha in ((U, 1), (W, 0.75), (V, 1))
    ]
    figure.legend(handles, ["sees x", "connection", "is read out"], loc="lower center", ncol=3, frameon=False)
    figure.subplots_adjust(bottom=0.22)
    save(figure, "frnn-masks.png")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    unfolding()
    gradient_norms()
    frnn_masks()
