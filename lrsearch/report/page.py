"""A study's page, and how every page is made: self-contained, without script, asking for nothing else."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from lrsearch.core import text
from lrsearch.core.answer import Answer
from lrsearch.report import study_page_data
from lrsearch.report.range_test import range_test_table
from lrsearch.report.study import plan_table, remarks, undecided, worth
from lrsearch.report.study_page_data import ReportData
from lrsearch.schedules import schedule_name

_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Characters that HTML forbids."""
_FEWEST_POINTS = 2
"""A curve through fewer tells nothing."""


def render(template: str, clean: Callable[[str], str], **values: Any) -> str:
    """The page of a template beside this module, escaped; `clean` takes secrets out of every text in it."""

    def shown(value: Any) -> Any:
        if isinstance(value, Markup) or not isinstance(value, str):
            return value
        return _NO_TEXT.sub("\ufffd", clean(value))

    def load(name: str) -> str:
        return resources.files("lrsearch.report").joinpath(name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(load),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(text=text, **values)


def data_uri(picture: bytes) -> Markup:
    """A PNG as an address that holds it."""
    return Markup("data:image/png;base64,") + base64.b64encode(picture).decode("ascii")


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
    """The whole page of a study as HTML; `clean` takes secrets out of every text that goes into it."""
    answer = data.answer
    return render(
        "study.html.j2",
        clean,
        data=data,
        answer=answer,
        tables=study_page_data,
        picture=lambda name: data_uri(pictures[name]) if name in pictures else None,
        learning=[name for name in pictures if name.startswith("learning/")],
        alt=_alternatives(data),
        worth=worth(answer) if answer else "",
        undecided=text.sentence(undecided(answer)) if answer else "",
        remarks=[(name, said) for name, said in remarks(answer) if name != "undecided"] if answer else [],
        swept=range_test_table(data.curves, data.suggestion, data.task) if data.suggestion else None,
        plan=plan_table(data.plan, data.total_steps, data.steps_per_epoch),
        plan_json=json.dumps(data.plan.to_dict(), indent=1),
        cost=sum(stage.cost for stage in data.stages),
    )


def _alternatives(data: ReportData) -> dict[str, str]:
    """What a plot shows, for those who do not see it."""
    answer, found = data.answer or data.so_far, data.suggestion
    texts = {"learning": "The metric over the steps of the training, a line for each finalist."}
    if found is not None:
        bracket = found.bracket
        where = f", bracket {text.bracket(bracket.low, bracket.high)}" if bracket else ""
        texts["range-test"] = (
            f"Training loss against learning rate, {text.count(len(data.curves), 'curve')}; "
            f"suggested lr {text.number(found.lr)}{where}."
        )
    if answer is not None:
        texts["response"] = _response_in_words(data, answer)
    if data.answer is not None:
        names = ", ".join(finalist.name for finalist in data.answer.finalists)
        texts["schedules"] = f"The learning rate over the training, a line for each finalist: {names}."
    return texts


def _response_in_words(data: ReportData, answer: Answer) -> str:
    trials = sum(len(stage.trials) for stage in data.stages)
    best = text.schedule_at(schedule_name(answer.schedule), answer.lr)
    return (
        f"{answer.metric} against learning rate, a point for each of {trials} trainings; the best is {best}, "
        f"{text.interval(answer.interval)}."
    )
