"""The plots of several studies: the objective against lr on one axis, the lr against the batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.markers import CARETDOWNBASE, CARETLEFTBASE, CARETRIGHTBASE, CARETUPBASE
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from lrsearch.core import text
from lrsearch.core.comparison import ComparedStudy, Comparison, ComparisonRow
from lrsearch.core.response import Response
from lrsearch.errors import InputError
from lrsearch.report.plots.range_test import INK, legend_below, new_axes
from lrsearch.report.plots.study import Style, label_lrs, styles
from lrsearch.schedules import schedule_name

_FEWEST_LRS = 3
"""A curve through fewer lrs would be made up."""
_CURVE_POINTS = 200
_USUAL = 4.0
"""Losses so many times as far from a study's best as its median is are out of view."""
_LONGEST_NAME = 40
_STRIP, _ROW = 0.36, 0.06
"""The share of the axis that the intervals take at most, and each of them."""


def plot_comparison(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Objective against lr: each study's answer, and a point an lr, the mean over its seeds, with the fitted
    curve: filled under the schedule that the study chose, hollow under its base schedule.

    At the bad end of the axis each study has a row with the interval of its best lr; crosses there are lrs
    that diverged or failed, triangles those whose objective is out of view. Draws on `ax`, or on a new pyplot
    figure.
    """
    ax = new_axes() if ax is None else ax
    ax.set_xscale("log")
    objective = comparison.studies[0].plan.objective
    chosen = [study.response(study.answer.schedule) for study in comparison.studies]
    lowest, highest = _loss_limits(comparison, chosen)
    height = min(_ROW, _STRIP / len(chosen))
    room = height * (len(chosen) + 1)
    beyond = highest + (highest - lowest) * room / (1 - room)
    ax.set_ylim(*sorted(map(objective.from_loss, (lowest, beyond))))
    look = styles(row.name for row in comparison.rows)
    for k, (study, row) in enumerate(zip(comparison.studies, comparison.rows, strict=True)):
        style = look[row.name]
        place = 1 - height * (k + 1) if comparison.direction == "minimize" else height * (k + 1)
        if study.plan.base_schedule != study.answer.schedule:
            _draw_response(
                ax, study, study.response(study.plan.base_schedule), highest, style, is_chosen=False
            )
        _draw_response(ax, study, chosen[k], highest, style, is_chosen=True)
        _draw_answer(ax, row, style)
        _draw_row(ax, row, chosen[k], highest, place, style)
    ax.set_xlabel("learning rate (peak of the schedule)")
    ax.set_ylabel(f"{comparison.use} {comparison.metric}")
    best = comparison.best
    ax.set_title(f"best: {_short(best.name)}, {comparison.metric} {text.amount(best.objective)}", fontsize=12)
    label_lrs(ax)
    _explain(ax)
    return ax


def plot_lr_against_batch_size(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """The answers' lrs with their intervals against the batch size, both on log axes; for the eye two lines
    through the smallest batch size: lr in proportion to it, and to its square root.

    Draws on `ax`, or on a new pyplot figure. Raises InputError unless the batch size is what differs.
    """
    if not comparison.batch_size_differs:
        sizes = [row.batch_size for row in comparison.rows]
        raise InputError(
            "batch_size",
            sizes,
            "it is not what differs",
            "compare studies of one model and several batch sizes",
        )
    ax = new_axes() if ax is None else ax
    ax.set_xscale("log")
    ax.set_yscale("log")
    answers = [(row.batch_size, row) for row in comparison.rows if row.batch_size is not None]
    (smallest, first), (largest, _) = (pick(answers, key=lambda item: item[0]) for pick in (min, max))
    along = np.geomspace(smallest, largest, 50)
    for power, label, dashes in ((1.0, "lr ∝ batch size", "--"), (0.5, "lr ∝ √(batch size)", ":")):
        lrs = first.lr * (along / smallest) ** power
        ax.plot(along, lrs, dashes, color="0.45", linewidth=1.6, zorder=1, label=label)
    look = styles(row.name for row in comparison.rows)
    for size, row in answers:
        _draw_size(ax, row, size, look[row.name])
    ax.xaxis.set_major_locator(FixedLocator(sorted({size for size, _ in answers})))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=12))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda lr, _: f"{lr:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(smallest / 1.3, largest * 1.3)
    ax.set_xlabel("batch size")
    ax.set_ylabel("learning rate (peak of the schedule)")
    ax.set_title("The answers, with their intervals", fontsize=12)
    _explain(ax)
    return ax


def _loss_limits(comparison: Comparison, responses: Sequence[Response]) -> tuple[float, float]:
    """From the best loss of all to where most lrs of most studies lie, and every answer."""
    ends = []
    for response in responses:
        best, middle = float(response.means.min()), float(np.median(response.means))
        ends.append(max(mean for mean in response.means if mean - best <= _USUAL * (middle - best)))
    objective = comparison.studies[0].plan.objective
    answers = [objective.from_loss(row.objective) for row in comparison.rows]  # its own inverse
    lowest = min(*answers, *(float(response.means.min()) for response in responses))
    highest = max(*answers, float(np.median(ends)))
    spread = max(highest - lowest, 4 * max(row.noise or 0.0 for row in comparison.rows), 1e-9)
    return lowest - 0.08 * spread, lowest + 1.15 * spread


def _draw_response(
    ax: Axes, study: ComparedStudy, response: Response, highest: float, style: Style, *, is_chosen: bool
) -> None:
    objective = study.plan.objective
    seen = response.means <= highest
    values = [objective.from_loss(float(loss)) for loss in response.means[seen]]
    look: dict[str, Any] = {"linestyle": "none", "marker": style.marker, "color": style.colour}
    fill = "full" if is_chosen else "none"
    ax.plot(response.lrs[seen], values, markersize=6, alpha=0.85, zorder=3, fillstyle=fill, **look)
    if len(response.lrs) >= _FEWEST_LRS:
        fit = response.fit()
        lrs = np.geomspace(response.lrs[0], response.lrs[-1], _CURVE_POINTS)
        shown = [objective.from_loss(loss) if loss <= highest else np.nan for loss in fit.objective(lrs)]
        width, alpha = (1.8, 0.8) if is_chosen else (1.0, 0.5)
        line = {"linestyle": style.dashes, "color": style.colour, "linewidth": width}
        ax.plot(lrs, shown, alpha=alpha, zorder=2, **line)


def _draw_answer(ax: Axes, row: ComparisonRow, style: Style) -> None:
    """The answer where it stands, larger than the tried lrs, and in the legend."""
    ax.plot(
        row.lr,
        row.objective,
        linestyle=style.dashes,
        marker=style.marker,
        color=style.colour,
        markersize=12,
        markeredgecolor=INK,
        markeredgewidth=1.6,
        zorder=5,
        label=_label(row),
    )


def _draw_row(
    ax: Axes, row: ComparisonRow, response: Response, highest: float, place: float, style: Style
) -> None:
    """The interval of the best lr, with what diverged and what is out of view."""
    across: Any = ax.get_xaxis_transform()
    _draw_interval(ax, row, place, style, transform=across)
    marks = {"linestyle": "none", "color": style.colour, "transform": across, "zorder": 4}
    lost = sorted(set(response.tried) - set(response.lrs))
    ax.plot(lost, [place] * len(lost), marker="x", markersize=6, markeredgewidth=1.6, **marks)
    beyond = response.lrs[response.means > highest]
    arrow = "^" if place > 0.5 else "v"
    ax.plot(beyond, [place] * len(beyond), marker=arrow, fillstyle="none", markersize=6, **marks)


def _draw_interval(ax: Axes, row: ComparisonRow, place: float, style: Style, **where: Any) -> None:
    """A bar from end to end, the answer on it; an open end is an arrowhead."""
    interval = row.interval
    look = {"color": style.colour, "zorder": 4, **where}
    ax.plot([interval.low, interval.high], [place] * 2, linewidth=2.5, alpha=0.6, **look)
    for end, is_open, head in (
        (interval.low, interval.low_open, CARETLEFTBASE),
        (interval.high, interval.high_open, CARETRIGHTBASE),
    ):
        ax.plot(end, place, marker=head if is_open else "|", markersize=9, markeredgewidth=1.5, **look)
    ax.plot(row.lr, place, marker=style.marker, markersize=6, markeredgecolor=INK, **look)


def _draw_size(ax: Axes, row: ComparisonRow, size: int, style: Style) -> None:
    """An answer above its batch size, with its interval; an open end is an arrowhead."""
    interval = row.interval
    ax.plot([size, size], [interval.low, interval.high], color=style.colour, linewidth=2.5, alpha=0.6)
    for end, is_open, head in (
        (interval.low, interval.low_open, CARETDOWNBASE),
        (interval.high, interval.high_open, CARETUPBASE),
    ):
        mark = head if is_open else "_"
        ax.plot(size, end, marker=mark, color=style.colour, markersize=12, markeredgewidth=1.5)
    look: dict[str, Any] = {"linestyle": "none", "marker": style.marker, "color": style.colour}
    ax.plot(size, row.lr, markersize=10, markeredgecolor=INK, zorder=5, label=_label(row), **look)


def _label(row: ComparisonRow) -> str:
    return f"{_short(row.name)}: {text.schedule_at(schedule_name(row.schedule), row.lr)}"


def _short(name: str) -> str:
    """A name that does not push the rest out of the picture."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _explain(ax: Axes) -> None:
    """The grid, and the legend below."""
    ax.grid(visible=True, which="major", color="0.92")
    legend_below(ax)
