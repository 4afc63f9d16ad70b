"""Regret against cost, all contestants in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.bench.regret.contestants import contestants
from tests.bench.regret.score import Score

_LOOKS = {
    "ours": ("#0072B2", "o"),
    "rules": ("#56B4E9", "^"),
    "peers": ("#D55E00", "v"),
    "searches": ("#009E73", "s"),
    "recipes": ("#CC79A7", "D"),
}
"""Colour and marker by group; the colours hold for the colour-blind (Okabe and Ito)."""
_FLOOR = 0.05
"""Percent: what is better is drawn here."""
_NAMED = 3.0
"""Percent: only contestants that lose less, and ours, are named in the picture."""


def regret_against_cost(scores: Sequence[Score], path: Path) -> None:
    """Median regret, with a line to the 90th percentile, against run-equivalents; ablations are left out."""
    groups = {contestant.name: contestant.group for contestant in contestants()}
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    for group, (colour, marker) in _LOOKS.items():
        shown = [s for s in scores if s.how == "replay" and groups.get(s.contestant) == group]
        if not shown:
            continue
        x = [max(s.cost, 0.3) for s in shown]
        y = [max(s.median, _FLOOR) for s in shown]
        tops = [max(s.p90, _FLOOR) for s in shown]
        axes.vlines(x, y, tops, color=colour, alpha=0.35, linewidth=2)
        axes.plot(x, y, marker, color=colour, markersize=8, label=group)
        for s, at, height in zip(shown, x, y, strict=True):
            if group == "ours" or s.median < _NAMED:
                axes.annotate(
                    s.contestant, (at, height), textcoords="offset points", xytext=(8, -3), fontsize=9
                )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="cost, run-equivalents (what costs less than 0.3 is drawn there)",
        ylabel="regret, % of the achievable improvement: median, line to the 90th percentile",
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend(title="group")
    with mpl.rc_context({"savefig.dpi": 110}):
        figure.savefig(path)
