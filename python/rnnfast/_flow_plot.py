"""The picture of gradient flow: norms of gradients over the steps back in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnfast._arrays import Array

if TYPE_CHECKING:
    from rnnfast.diagnostics import GradientFlow

# Okabe and Ito's colours, which the colour-blind tell apart.
COLOURS = ("#009e73", "#0072b2", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9")
INK, GRID = "#222222", "#e6e6e6"
# Room to the right of the curves for their labels, as a share of the width.
LABELS = 0.36


def draw(flows: Mapping[str, GradientFlow], ax: Any = None) -> Any:
    """One curve of dL/dh, and a dashed one of dL/dc, a layer; each labelled where it ends."""
    if ax is None:
        ax = _new_axes()
    several_layers = any(len(flow.layers) > 1 for flow in flows.values())
    curves = []
    longest, both = 0, False
    for colour, (name, layer) in zip(
        _cycle(COLOURS), ((name, layer) for name, flow in flows.items() for layer in flow.layers), strict=False
    ):
        place = layer.name if several_layers or not name else ""
        title = " ".join(part for part in (name, place) if part)
        longest = max(longest, len(layer.dh) - 1)
        judged = "dL/dh" if layer.dc is None else "dL/dc"
        for what, end, whole, style in (
            ("dL/dh", layer.dh_end, layer.dh, "-"),
            ("dL/dc", layer.dc_end, layer.dc, "--"),
        ):
            if end is None or whole is None:
                continue
            back = np.arange(len(end))
            if not np.array_equal(end, whole):
                both = True
                ax.plot(back, _drawable(whole, layer.reverse), style, color=colour, lw=0.8, alpha=0.5)
            ax.plot(back, _drawable(end, layer.reverse), style, color=colour, lw=1.8)
            text = f"{title}, {what}"
            if what == judged:
                text += f"\n{layer.verdict}, x {layer.growth:.3g} a step"
            curves.append((_drawable(end, layer.reverse), text, colour))
    ax.set_yscale("log")
    ax.set_xlim(0, longest * (1 + LABELS / (1 - LABELS)))
    ax.set_xlabel("steps back from the last one")
    ax.set_ylabel("norm of the gradient")
    title = "Gradient of the loss at the last step, back through time"
    ax.set_title(title + (" (thin: of the losses at all steps)" if both else ""), loc="left", fontsize=11, color=INK)
    ax.grid(color=GRID, lw=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.set_xticks([tick for tick in ax.get_xticks() if 0 <= tick <= longest])
    _label(ax, curves, longest)
    return ax


def _drawable(norms: Array, reverse: bool) -> Array:
    """From the layer's last step to its first; NaN, which is not drawn, where a logarithm would be none."""
    back = norms if reverse else norms[::-1]
    return np.where((back > 0) & np.isfinite(back), back, np.nan)


def _new_axes() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f"GradientFlow.plot: matplotlib is needed ({error}); pip install 'rnnfast[cli]'") from None
    return plt.subplots(figsize=(8, 4.5), layout="constrained")[1]


def _cycle(colours: tuple[str, ...]) -> Any:
    while True:
        yield from colours


def _label(ax: Any, curves: list[tuple[Array, str, str]], longest: int) -> None:
    """Write every curve's label to the right of its end, moved up or down where two would overlap."""
    if not any(np.isfinite(shown).any() for shown, _, _ in curves):
        return
    low, high = np.log10(ax.get_ylim())
    height = ax.get_window_extent().height / ax.figure.dpi * 72
    line = 9.5 * 1.25 / height * (high - low)  # of 9.5 point text, in decades
    ends = []
    for shown, text, colour in curves:
        known = np.flatnonzero(np.isfinite(shown))
        if len(known):
            ends.append((np.log10(shown[known[-1]]), known[-1], text, colour))
    ends.sort(key=lambda end: end[0])
    edge = low
    for at, step, text, colour in ends:
        half = line * (1 + text.count("\n")) / 2
        middle = max(at, edge + half)
        edge = middle + half
        ax.annotate(
            text,
            (step, 10.0**at),
            xytext=(longest * 1.04, 10.0**middle),
            color=colour,
            fontsize=9.5,
            va="center",
            linespacing=1.1,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "alpha": 0.5, "shrinkA": 2, "shrinkB": 2},
        )
