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
_FLOOR = 0.01
"""Percent: what is better is drawn here."""


def regret_against_cost(scores: Sequence[Score], path: Path) -> None:
    """Median regret, with a line to the 90th percentile, a row each, by cost; no ablations."""
    groups = {contestant.name: contestant.group for contestant in contestants()}
    shown = [s for s in scores if s.how == "replay" and groups.get(s.contestant) in _LOOKS]
    shown.sort(key=lambda s: (round(s.cost, 1), s.median), reverse=True)
    rows = {s.contestant: row for row, s in enumerate(shown)}
    figure = Figure(figsize=(9, 0.24 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    for group, (colour, marker) in _LOOKS.items():
        own = [s for s in shown if groups[s.contestant] == group]
        at = [rows[s.contestant] for s in own]
        medians = [max(s.median, _FLOOR) for s in own]
        axes.hlines(at, medians, [max(s.p90, _FLOOR) for s in own], color=colour, alpha=0.4, linewidth=3)
        axes.plot(medians, at, marker, color=colour, markersize=7, label=group)
    axes.set_yticks(list(rows.values()), [f"{s.contestant}   {s.cost:4.1f}" for s in shown], fontsize=9)
    axes.set(
        xscale="log",
        ylim=(-0.7, len(rows) - 0.3),
        xlabel="regret in %: the median, and a line to the 90th percentile",
        title="Contestants by their cost in run-equivalents",
    )
    ticks = [_FLOOR, 0.1, 1, 10, 100]
    axes.set_xticks(ticks, [f"≤ {_FLOOR:g}", *(f"{tick:g}" for tick in ticks[1:])])
    axes.grid(alpha=0.3, axis="x")
    axes.legend(loc="lower right")
    with mpl.rc_context({"savefig.dpi": 110}):
        figure.savefig(path)
