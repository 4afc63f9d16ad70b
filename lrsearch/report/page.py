"""A study's report: one self-contained page, without script, that asks for nothing from anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from lrsearch.core.answer import Answer
from lrsearch.report import page_tables
from lrsearch.report.study_page_data import ReportData
from lrsearch.report.study_tables import plan_cost, plan_rows, undecided, worth
from lrsearch.report.tables import format_lr, range_test_rows
from lrsearch.report.templates import data_uri, render
from lrsearch.schedules import schedule_name

_TEMPLATE = "report.html.j2"
_FEWEST_POINTS = 2
"""A curve through fewer tells nothing."""


def draw(data: ReportData) -> dict[str, bytes]:
    """Every plot of a study as PNG, by name: range-test, response, schedules, and learning/METRIC.

    What there is nothing to draw of is left out.
    """
    from lrsearch.report.plots.range_test import file_axes, plot_range_test, png
    from lrsearch.report.plots.study import plot_learning_curves, plot_response, plot_schedules

    pictures = {}
    if data.suggestion is not None and any(curve.steps for curve in data.curves):
        ax = plot_range_test(data.curves, data.suggestion, title="range test", ax=file_axes())
        pictures["range-test"] = png(ax)
    answer = data.answer or data.so_far
    if answer is not None:
        ax = plot_response(answer, data.stages, data.plan, data.total_steps, ax=file_axes())
        pictures["response"] = png(ax)
    if data.answer is not None:
        winner = data.answer.winner.name
        for metric, curves in data.learning.items():
            if any(len(steps) >= _FEWEST_POINTS for steps, _ in curves.values()):
                ax = plot_learning_curves(curves, winner, metric, ax=file_axes())
                pictures[f"learning/{metric}"] = png(ax)
        pictures["schedules"] = png(plot_schedules(data.schedules, winner, ax=file_axes()))
    return pictures


def page(data: ReportData, pictures: Mapping[str, bytes], clean: Callable[[str], str]) -> str:
    """The whole page as HTML; `clean` takes secrets out of every text that goes into it."""
    return render(
        _TEMPLATE,
        clean,
        data=data,
        answer=data.answer,
        tables=page_tables,
        objective=data.plan.objective,
        picture=lambda name: data_uri(pictures[name]) if name in pictures else None,
        learning=[name for name in pictures if name.startswith("learning/")],
        alt=_alternatives(data),
        lr=format_lr,
        number=page_tables.amount,
        short=lambda value: f"{value:.3g}",
        schedule=_schedule,
        worth=worth(data.answer).removeprefix(f"{data.answer.metric} ") if data.answer else "",
        undecided=undecided(data.answer) if data.answer and data.answer.undecided else None,
        swept=range_test_rows(data.curves, data.suggestion) if data.suggestion else [],
        planned=plan_rows(data.plan),
        plan_cost=plan_cost(data.plan, data.total_steps, data.steps_per_epoch),
        plan_json=json.dumps(data.plan.to_dict(), indent=1),
        cost=sum(stage.cost for stage in data.stages),
    )


def _schedule(schedule: Mapping[str, Any]) -> str:
    """A schedule with its settings: ``wsd (decay 0.2)``."""
    inner = schedule.get("inner", {})
    settings = {k: v for k, v in {**inner, **schedule}.items() if k not in ("name", "inner")}
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())
    return f"{schedule_name(schedule)} ({said})" if said else schedule_name(schedule)


def _alternatives(data: ReportData) -> dict[str, str]:
    """What a plot shows, for those who do not see it."""
    answer = data.answer or data.so_far
    texts = {"learning": "Lines: the metric over the steps of the training, a line a finalist."}
    if data.suggestion is not None:
        found = data.suggestion
        bracket = found.bracket
        where = f", bracket {format_lr(bracket.low)} to {format_lr(bracket.high)}" if bracket else ""
        texts["range-test"] = (
            f"Training loss against learning rate, {len(data.curves)} curves; "
            f"suggested lr {format_lr(found.lr)}{where}."
        )
    if answer is not None:
        texts["response"] = _response_in_words(data, answer)
    if data.answer is not None:
        names = ", ".join(finalist.name for finalist in data.answer.finalists)
        texts["schedules"] = f"The learning rate over the share of the training, a line a finalist: {names}."
    return texts


def _response_in_words(data: ReportData, answer: Answer) -> str:
    trials = sum(len(stage.trials) for stage in data.stages)
    interval = answer.interval
    return (
        f"{answer.metric} of {trials} trainings against their learning rate, a point each; the best under "
        f"{schedule_name(answer.schedule)} is at {format_lr(answer.lr)}, with an interval from "
        f"{format_lr(interval.low)} to {format_lr(interval.high)}."
    )
