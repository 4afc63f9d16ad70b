"""What a study's run says of itself in MLflow: the answer, where to look, and the plan, in Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from lrsearch.core.answer import Answer
from lrsearch.core.study_plan import DEFAULT_EPOCHS, StudyPlan
from lrsearch.report.study_tables import undecided, worth
from lrsearch.tracking.entries import Param, as_params

_MARKUP = re.compile(r"([\\`*_\[\]#!~|])")


def describe_study(answer: Answer, plan: StudyPlan, links: Mapping[str, str]) -> str:
    """The whole description; `links` are addresses by the words that carry them."""
    see = " · ".join(f"[{words}]({address})" for words, address in links.items())
    return "\n\n".join([*_answer(answer), f"**See** {see}", *_plan(plan)])


def _answer(answer: Answer) -> list[str]:
    interval, tolerance = answer.interval, answer.tolerance
    schedule = schedule_params(answer.schedule)
    name = schedule.pop("schedule")
    settings = ", ".join(f"{key.removeprefix('schedule.')} {value}" for key, value in schedule.items())
    parts = [
        f"**Learning rate {answer.lr:.3g}, schedule {name}**{f' ({settings})' if settings else ''}: "
        f"{_plain(answer.metric)} {answer.objective:.4g}.",
        _plain(answer.reason),
        f"{interval.level:.0%} interval of the best lr: "
        f"{_span(interval.low, interval.high, interval.low_open, interval.high_open)}. "
        f"Within {answer.margin:.2g} of its objective: "
        f"{_span(tolerance.low, tolerance.high, tolerance.low_open, tolerance.high_open)}.",
    ]
    parts.append(f"Decay: {_plain(worth(answer))}.")
    if answer.undecided:
        parts.append(f"Undecided: {_plain(undecided(answer))}.")
    if answer.warnings:
        parts.append("\n".join(f"- `{name}`: {_plain(text)}" for name, text in answer.warnings.items()))
    return parts


def _plain(text: str) -> str:
    """A text that may come from outside (a metric's name, an error), so that Markdown shows it as it is."""
    return _MARKUP.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _plan(plan: StudyPlan) -> list[str]:
    length = f"{plan.steps} updates" if plan.steps is not None else f"{plan.epochs or DEFAULT_EPOCHS} epochs"
    sweep, coarse, confirm = plan.range_test, plan.coarse, plan.confirm
    families = ", ".join(str(family["name"]) for family in plan.decay.families)
    stages = {
        "range-test": f"sweeps: at most {sweep.repeats}, {sweep.min_lr:g} to {sweep.max_lr:g}",
        "coarse": f"{coarse.points} lrs a factor {coarse.factor:g} apart, "
        f"then other seeds at the best: {coarse.replicates}",
        "fine": f"trials near the best: at most {plan.fine.trials}",
        "decay": f"{families}, each at its own peak lr",
        "confirm": f"{confirm.candidates} finalists on {confirm.seeds} to {confirm.max_seeds} fresh seeds",
    }
    return [
        f"**Plan** {plan.preset}: {length} a training, at most {plan.budget:g} trainings' worth of updates, "
        f"seed {plan.seed}; the child runs are named by stage and number.",
        "\n".join(f"- {stage}: {what}" for stage, what in stages.items()),
    ]


def _span(low: float, high: float, low_open: bool, high_open: bool) -> str:
    return f"{low:.3g}{' or lower' if low_open else ''} to {high:.3g}{' or higher' if high_open else ''}"


def schedule_params(schedule: Mapping[str, Any], prefix: str = "schedule") -> dict[str, Param]:
    """The params `schedule` and `schedule.<param>`; a schedule inside another is flattened likewise."""
    params: dict[str, Param] = {prefix: schedule["name"]}
    for name, value in schedule.items():
        if isinstance(value, Mapping):
            params |= schedule_params(value, f"{prefix}.{name}")
        elif name != "name":
            params |= as_params({f"{prefix}.{name}": value})
    return params
