"""The range test's plot, and what all plots share. Functions take axes, draw what they are given, and return
the axes; only they import matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from lrsearch.core import text
from lrsearch.core.curve import SKIP_END, SKIP_START, Array, RangeTestCurve
from lrsearch.core.suggestion import RULES, Suggestion

_SIZE = (6.4, 4.8)
_DPI = 160
_THREE_COLUMNS, _TWO_COLUMNS = 18, 32
"""So many characters of a legend's line leave room for three columns, and for two."""
# Told apart in grey too: every mark has a shade, a line style or a shape of its own.
INK, LINE, ACCENT, SHADE = "#1a1a1a", "#3b6ea8", "#c0392b", "#dfe7ef"
_MARKERS = {"walls": "D", "minimum": "v", "steepest": "s", "valley": "o"}
_RULE_NAMES = {"walls": "walls", "minimum": "minimum/10", "steepest": "steepest", "valley": "valley"}


def new_axes() -> Axes:
    """Axes on a new pyplot figure, which a notebook shows by itself."""
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=_SIZE, layout="constrained")
    return ax


def file_axes() -> Axes:
    """Axes on a figure that no window and no notebook knows of, for files."""
    return Figure(figsize=_SIZE, dpi=_DPI, layout="constrained").add_subplot()


def legend_below(ax: Axes) -> None:
    """The legend, below the axes, in as many columns as its longest line leaves room for; none of no mark."""
    lines = [line for label in ax.get_legend_handles_labels()[1] for line in label.splitlines()]
    if lines:
        longest = max(map(len, lines))
        columns = 3 if longest <= _THREE_COLUMNS else 2 if longest <= _TWO_COLUMNS else 1
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=columns, frameon=False, fontsize=9.5)


def png(ax: Axes) -> bytes:
    """The figure of `ax` as PNG; the same figure gives the same bytes."""
    buffer = BytesIO()
    figure = ax.get_figure(root=True)
    if figure is not None:
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def plot_range_test(
    curves: Sequence[RangeTestCurve], suggestion: Suggestion, title: str, ax: Axes | None = None
) -> Axes:
    """Loss against lr: raw points, their running average and windowed median, every rule's lr, the bracket
    and the edge.

    The first ten and the last five points of each curve are left out of view. Draws on `ax`, or on a new
    pyplot figure.
    """
    ax = new_axes() if ax is None else ax
    ax.set_xscale("log")
    for i, curve in enumerate(curves):
        lrs, losses, smoothed, median = _view(curve)
        ax.plot(lrs, losses, ".", color="0.72", markersize=3, label="raw loss" if i == 0 else None)
        ax.plot(lrs, smoothed, "--", color="0.45", linewidth=1.2, label="running average" if i == 0 else None)
        ax.plot(lrs, median, "-", color=LINE, linewidth=1.8, label="windowed median" if i == 0 else None)
    _limits(ax, curves)
    _mark_bracket(ax, suggestion)
    _mark_rules(ax, suggestion)
    several = len(suggestion.groups) > 1
    ax.set_xlabel("learning rate of param group 0" if several else "learning rate")
    ax.set_ylabel("training loss")
    ax.xaxis.set_major_locator(LogLocator(base=10, numticks=12))
    lr = text.groups(suggestion.groups) if several else text.number(suggestion.lr)
    answer = "no suggestion" if suggestion.lr is None else f"lr {lr}"
    ax.set_title(f"{title}: {answer} ({text.spaced(suggestion.verdict)})", fontsize=12)
    ax.grid(visible=True, which="major", color="0.92")
    legend_below(ax)
    return ax


def _view(curve: RangeTestCurve) -> tuple[Array, Array, Array, Array]:
    """The part of a curve that is shown; a curve too short to lose fifteen points is shown whole."""
    shown = slice(SKIP_START, -SKIP_END) if curve.steps > 2 * (SKIP_START + SKIP_END) else slice(None)
    if curve.steps == 0:
        return curve.losses, curve.losses, curve.losses, curve.losses
    return curve.recorded_lrs[shown], curve.losses[shown], curve.smoothed[shown], curve.median[shown]


def _limits(ax: Axes, curves: Sequence[RangeTestCurve]) -> None:
    """Shows the fall in full and the rise as far as it matters: an explosion would flatten all else."""
    medians = np.concatenate([_view(curve)[3] for curve in curves])
    if not len(medians):
        return
    initial = float(np.median([curve.losses[:SKIP_START].mean() for curve in curves]))
    lowest = float(medians.min())
    fall = max(initial - lowest, 0.1 * abs(initial), 1e-6)  # a flat curve is to look flat
    ax.set_ylim(
        min(lowest, initial - fall) - 0.1 * fall, min(float(medians.max()), initial + 0.6 * fall) + 0.1 * fall
    )


def _mark_bracket(ax: Axes, suggestion: Suggestion) -> None:
    bracket = suggestion.bracket
    if bracket is None:
        return
    right = bracket.high if bracket.high is not None else ax.get_xlim()[1]
    limits = ax.get_xlim()
    ax.axvspan(bracket.low, right, color=SHADE, zorder=0, label="bracket")
    if bracket.high is not None:
        ax.axvline(
            bracket.high, color=INK, linestyle=":", linewidth=1.6, label=f"edge {text.number(bracket.high)}"
        )
    ax.set_xlim(limits)


def _mark_rules(ax: Axes, suggestion: Suggestion) -> None:
    if suggestion.lr is None:
        return
    ax.axvline(suggestion.lr, color=ACCENT, linewidth=1.8)
    height: Any = ax.get_xaxis_transform()
    for k, name in enumerate(rule for rule in RULES if rule in suggestion.rules):
        lr = suggestion.rules[name]
        chosen = name == suggestion.rule
        ax.plot(
            lr,
            0.06 + 0.05 * k,
            _MARKERS[name],
            transform=height,
            color=ACCENT if chosen else "white",
            markeredgecolor=ACCENT if chosen else INK,
            markersize=8,
            label=f"{_RULE_NAMES[name]} {text.number(lr)}",
        )
