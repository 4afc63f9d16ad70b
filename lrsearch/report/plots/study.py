"""The plots of a study: the objective against lr, the schedules, the learning curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike

from lrsearch.core import text
from lrsearch.core.answer import Answer, StageResult
from lrsearch.core.curve import Array
from lrsearch.core.observations import response_under
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.trial import TrialResult
from lrsearch.report.plots.range_test import ACCENT, INK, SHADE, legend_below, new_axes
from lrsearch.schedules import BUILT_IN, schedule_name

_COLOURS = (INK, "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f5539")
"""Constant's, then those of Okabe and Ito that are seen on white, and a brown."""
_MARKERS = ("o", "s", "D", "P", ">", "<", "h", "p", "8", "d", "H", (4, 1, 0))
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
_FIRST = ("constant", "linear", "cosine", "wsd", "step", "one_cycle")
_FAMILIES = (*_FIRST, *(name for name in BUILT_IN if name not in _FIRST))

_FEWEST_LRS = 3
"""A curve through fewer lrs would be made up."""
_CURVE_POINTS = 200
_EDGE = 0.97
"""Where on the axis diverged trainings stand, at the bad end."""
_TAIL = 0.1
"""The share of a training whose fall from the untrained model is not to flatten the rest."""
_USUAL = 4.0
"""Losses so many times as far from the best as the median is are out of view."""
_MANY_POINTS = 100
_WINDOW = 0.04
"""The share of a long curve that a point of its moving average is the mean of."""
_PALE = 0.35


@dataclass(frozen=True)
class Style:
    """How a schedule looks in every plot; no two differ in colour alone."""

    colour: str
    marker: Any
    dashes: Any


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A style a name, such as ``linear`` or ``linear at 0.1``: its family's own, the next free one else."""
    chosen: dict[str, int] = {}
    ordered = sorted(dict.fromkeys(names), key=lambda name: _family(name) not in _FAMILIES)
    for name in ordered:
        family = _family(name).removeprefix("warmup+")
        wanted = _FAMILIES.index(family) if family in _FAMILIES else 1
        order = [*range(wanted, len(_FAMILIES)), *range(1, wanted)]
        chosen[name] = next((k for k in order if k not in chosen.values()), wanted)
    return {name: _style(k) for name, k in chosen.items()}


def plot_response(
    answer: Answer, stages: Sequence[StageResult], plan: StudyPlan, total_steps: int, ax: Axes | None = None
) -> Axes:
    """Objective against lr: every training, the curve fitted under the chosen schedule, the interval of the
    best lr, the winner.

    Diverged trainings are crosses at the bad end of the axis, arrows there are out of view; shorter trainings
    than the full one are pale. Draws on `ax`, or on a new pyplot figure.
    """
    ax = new_axes() if ax is None else ax
    ax.set_xscale("log")
    trials = list({trial.spec.key: trial for stage in stages for trial in stage.trials}.values())
    low, high = _loss_limits(answer, plan, trials, total_steps)
    view = _View(ax, plan, total_steps, high)
    ax.set_ylim(*sorted(map(plan.objective.from_loss, (low, high))))
    _draw_interval(ax, answer)
    own = [trial for trial in trials if trial.spec.optimizer is None]
    look = styles(schedule_name(trial.spec.schedule) for trial in own)
    for name, style in look.items():
        view.draw([t for t in own if schedule_name(t.spec.schedule) == name], name, style)
    baseline = [trial for trial in trials if trial.spec.optimizer is not None]
    view.draw(baseline, "Adam (baseline)", Style("0.45", "+", "-"))
    winner = schedule_name(answer.schedule)
    _draw_fit(ax, answer, plan, own, total_steps, look[winner].colour)
    found = text.schedule_at(winner, answer.lr)
    label = f"{'answer' if answer.finalists else 'best so far'}: {found}"
    ring: dict[str, Any] = {"marker": "o", "fillstyle": "none", "markersize": 16, "markeredgewidth": 2.2}
    ax.plot(answer.lr, answer.objective, linestyle="none", color=ACCENT, zorder=6, label=label, **ring)
    view.explain_marks()
    ax.set_xlabel("learning rate (peak of the schedule)")
    ax.set_ylabel(f"{plan.objective.use} {answer.metric}")
    ax.set_title(f"{found}: {answer.metric} {text.amount(answer.objective)}", fontsize=12)
    label_lrs(ax)
    _finish(ax)
    return ax


def plot_schedules(curves: Mapping[str, ArrayLike], winner: str, ax: Axes | None = None) -> Axes:
    """The lr of each schedule, one value an update, over its share of the training; the winner's is bold.

    Draws on `ax`, or on a new pyplot figure.
    """
    ax = new_axes() if ax is None else ax
    for name, style in styles(curves).items():
        lrs = np.asarray(curves[name], dtype=np.float64)
        share = np.arange(len(lrs)) / max(len(lrs) - 1, 1)
        ax.plot(share, lrs, label=name, **_line(style, bold=name == winner))
    ax.set_ylim(bottom=0)
    ax.set_xlabel("share of the training")
    ax.set_ylabel("learning rate")
    _finish(ax)
    return ax


def plot_learning_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]], winner: str, metric: str, ax: Axes | None = None
) -> Axes:
    """A metric over the steps, a (steps, values) pair a training; the winner's is bold.

    Long curves are drawn as their moving average over pale points. What the untrained model scored, and what
    strays far from the winner, may be out of view. Draws on `ax`, or on a new pyplot figure.
    """
    ax = new_axes() if ax is None else ax
    pairs = {name: _pair(*curve) for name, curve in curves.items()}
    drawn = {name: pair for name, pair in pairs.items() if len(pair[0])}
    for name, style in styles(drawn).items():
        steps, values = drawn[name]
        line = _line(style, bold=name == winner)
        if len(values) > _MANY_POINTS:
            ax.plot(steps, values, ".", color=style.colour, alpha=0.15, markersize=3)
            ax.plot(steps, _moving_average(values), label=name, **line)
        else:
            ax.plot(steps, values, marker=style.marker, markersize=5, label=name, **line)
    if drawn:
        ax.set_ylim(*_metric_limits(drawn, winner))
    ax.set_xlabel("step")
    ax.set_ylabel(metric)
    _finish(ax)
    return ax


class _View:
    """Draws trainings where they are seen: what lies beyond the axis stands at its end."""

    def __init__(self, ax: Axes, plan: StudyPlan, total_steps: int, highest_loss: float) -> None:
        self._ax = ax
        self._objective = plan.objective
        self._total_steps = total_steps
        self._highest = highest_loss
        self._upwards = plan.objective.towards == "minimize"
        self._marks: dict[str, dict[str, Any]] = {}

    def draw(self, trials: Sequence[TrialResult], name: str, style: Style) -> None:
        """The trainings of one schedule."""
        if not trials:
            return
        look = {"linestyle": "none", "marker": style.marker, "color": style.colour, "markersize": 7}
        if style.marker in Line2D.filled_markers:
            look |= {"markeredgecolor": "white", "markeredgewidth": 0.8}
        self._ax.plot([], [], label=name, **look)  # in the legend though none may be in view
        scored = [(trial, loss) for trial in trials if (loss := self._loss(trial)) is not None]
        for trial, loss in scored:
            if loss <= self._highest:
                short = trial.spec.steps < self._total_steps
                if short:
                    self._marks["shorter"] = {"marker": "o", "alpha": _PALE}
                score = self._objective.from_loss(loss)
                self._ax.plot(trial.spec.lr, score, alpha=_PALE if short else 0.9, zorder=4, **look)
        diverged = [trial.spec.lr for trial in trials if trial.status == "diverged"]
        beyond = [trial.spec.lr for trial, loss in scored if loss > self._highest]
        arrow = "^" if self._upwards else "v"
        self._at_the_end(diverged, "diverged", {"marker": "x"}, style.colour)
        self._at_the_end(beyond, "out of view", {"marker": arrow, "fillstyle": "none"}, style.colour)

    def explain_marks(self) -> None:
        """A line in the legend for every kind of mark that was drawn."""
        for label, mark in self._marks.items():
            self._ax.plot([], [], linestyle="none", color="0.3", markersize=7, label=label, **mark)

    def _at_the_end(self, lrs: Sequence[float], label: str, mark: dict[str, Any], colour: str) -> None:
        if not lrs:
            return
        self._marks[label] = mark
        height = [_EDGE if self._upwards else 1 - _EDGE] * len(lrs)
        across = self._ax.get_xaxis_transform()
        look = {"linestyle": "none", "color": colour, "markersize": 8, "markeredgewidth": 1.6, **mark}
        self._ax.plot(lrs, height, transform=across, zorder=5, **look)

    def _loss(self, trial: TrialResult) -> float | None:
        return self._objective.as_loss(trial) if trial.status == "complete" else None


def _loss_limits(
    answer: Answer, plan: StudyPlan, trials: Sequence[TrialResult], total_steps: int
) -> tuple[float, float]:
    """From the best loss to where most lrs lie that were trained in full, and every finalist.

    A few that are far too low or too high would flatten all else.
    """
    groups: dict[tuple[str, float], list[float]] = {}
    for trial in trials:
        spec, loss = trial.spec, plan.objective.as_loss(trial)
        if trial.status == "complete" and spec.steps == total_steps and loss is not None:
            groups.setdefault((schedule_name(spec.schedule), spec.lr), []).append(loss)
    means = [float(np.mean(group)) for group in groups.values()]
    sign = 1.0 if plan.objective.towards == "minimize" else -1.0
    finalists = [sign * value for f in answer.finalists if not f.diverged for value in f.objectives.values()]
    best = min([*means, *finalists])
    usual = [mean for mean in means if mean - best <= _USUAL * (float(np.median(means)) - best)]
    spread = max(max([*usual, *finalists]) - best, 4 * (answer.noise or 0.0), 2 * answer.margin)
    return best - 0.1 * spread, best + 1.2 * spread


def _draw_interval(ax: Axes, answer: Answer) -> None:
    interval = answer.interval
    label = text.interval(interval).replace(" to ", "\nto ")  # on two lines: it is the longest
    ax.axvspan(interval.low, interval.high, facecolor=SHADE, edgecolor="#b9c9da", zorder=0, label=label)


def _draw_fit(
    ax: Axes,
    answer: Answer,
    plan: StudyPlan,
    trials: Sequence[TrialResult],
    total_steps: int,
    colour: str,
) -> None:
    """The response that was fitted under the chosen schedule: at the full length where there is any."""
    noise, base_lr = answer.spread, answer.base_lr
    response = response_under(plan, trials, answer.schedule, total_steps, noise, base_lr)
    if len(response.lrs) < _FEWEST_LRS:
        return
    fit = response.fit()
    lrs = np.geomspace(response.lrs[0], response.lrs[-1], _CURVE_POINTS)
    values = [plan.objective.from_loss(loss) for loss in fit.objective(lrs)]
    ax.plot(lrs, values, "-", color=colour, linewidth=1.6, alpha=0.7, zorder=3)


def _moving_average(values: Array) -> Array:
    """The mean of a window around each point, shape (n,); at the ends the window is cut."""
    window = np.ones(max(3, round(_WINDOW * len(values))))
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def _metric_limits(curves: Mapping[str, tuple[Array, Array]], winner: str) -> tuple[float, float]:
    """All of the winner after its first tenth, and of the others what is no further off than it is high."""
    tails = {
        name: values[steps >= _TAIL * steps[-1]] if len(values) > 2 else values
        for name, (steps, values) in curves.items()
    }
    main = tails.get(winner, next(iter(tails.values())))
    low, high = float(main.min()), float(main.max())
    room = max(high - low, 0.05 * abs(high), 1e-9)
    for tail in tails.values():
        low = min(low, max(float(tail.min()), float(main.min()) - room))
        high = max(high, min(float(tail.max()), float(main.max()) + room))
    return low - 0.05 * (high - low + room), high + 0.05 * (high - low + room)


def label_lrs(ax: Axes) -> None:
    """Plain numbers, close enough together that a narrow range has some too."""
    low, high = ax.get_xlim()
    narrow = math.log10(high / low) < 2.5
    ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if narrow else (1,), numticks=12))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda lr, _: f"{lr:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _finish(ax: Axes) -> None:
    ax.grid(visible=True, which="major", color="0.92")
    legend_below(ax)


def _line(style: Style, *, bold: bool) -> dict[str, Any]:
    return {
        "color": style.colour,
        "linestyle": style.dashes,
        "linewidth": 3.0 if bold else 1.4,
        "zorder": 3 if bold else 2,
    }


def _pair(steps: ArrayLike, values: ArrayLike) -> tuple[Array, Array]:
    return np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)


def _family(name: str) -> str:
    return name.split(" at ")[0]


def _style(k: int) -> Style:
    return Style(_COLOURS[k % len(_COLOURS)], _MARKERS[k % len(_MARKERS)], _DASHES[k % len(_DASHES)])
