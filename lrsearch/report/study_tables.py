"""What a study plans, does and finds: lines and tables for the terminal, and the same for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from lrsearch.core.answer import Answer, StageResult
from lrsearch.core.findings import (
    CoarseFindings,
    ConfirmFindings,
    DecayFindings,
    FineFindings,
    RankedSchedule,
    SweepFindings,
)
from lrsearch.core.stats import GainVerdict
from lrsearch.core.study_plan import StageCost, StudyPlan
from lrsearch.core.suggest import Bracket
from lrsearch.report.tables import format_lr, html_list, html_table
from lrsearch.schedules import schedule_name

if TYPE_CHECKING:
    from rich.table import Table

_PLAN_COLUMNS = ("stage", "what it does", "run-equivalents")
_STUDY_COLUMNS = ("stage", "trials", "diverged", "run-equivalents", "found")
_SHOWN_SCHEDULES = 3

VERDICTS: dict[GainVerdict, str] = {
    "worse": "worse",
    "not_worse": "not worse by more than the margin",
    "better": "better on the seeds of both",
    "not_better": "not better by more than the margin, and the winner is simpler",
    "undecided": "undecided",
    "one_seed": "undecided: a single seed",
}
"""What a finalist is beside the winner."""


def plan_rows(plan: StudyPlan) -> list[tuple[str, str, str]]:
    """What each stage of a plan does, and the least and the most that it costs, in run-equivalents."""
    does = {
        "range-test": _range_test(plan),
        "coarse": _coarse(plan),
        "fine": _fine(plan),
        "decay": _decay(plan),
        "confirm": _confirm(plan),
    }
    return [(cost.stage, does[cost.stage], _between(cost.least, cost.most)) for cost in stage_costs(plan)]


def stage_costs(plan: StudyPlan) -> list[StageCost]:
    """What each stage costs; none can take more than the budget leaves beside what the others need."""
    costs = plan.costs()
    spare = plan.budget - sum(cost.least for cost in costs)
    return [replace(cost, most=min(cost.most, cost.least + spare)) for cost in costs]


def plan_cost(plan: StudyPlan, total_steps: int, steps_per_epoch: int | None) -> str:
    """The most that a plan costs, in run-equivalents and in updates, in a line."""
    epochs = f", {total_steps / steps_per_epoch:.3g} epochs" if steps_per_epoch else ""
    return (
        f"at most {plan.budget:.3g} run-equivalents, that is {round(plan.budget * total_steps):,} updates "
        f"(a full training: {total_steps:,} updates{epochs})"
    )


def plan_table(plan: StudyPlan, total_steps: int, steps_per_epoch: int | None) -> Table:
    """What a study is going to do, and what it costs."""
    from rich.text import Text

    objective = plan.objective
    title = f"plan {plan.preset}: {objective.towards} the {objective.use} {objective.metric}"
    table = _table(title, _PLAN_COLUMNS)
    for row in plan_rows(plan):
        table.add_row(*map(Text, row))
    table.caption = Text(plan_cost(plan, total_steps, steps_per_epoch))
    return table


def plan_dict(plan: StudyPlan, total_steps: int, steps_per_epoch: int | None) -> dict[str, Any]:
    """The plan and what it costs, as plain JSON."""
    return {
        "plan": plan.to_dict(),
        "plan_hash": plan.hash,
        "steps": total_steps,
        "steps_per_epoch": steps_per_epoch,
        "stages": [asdict(cost) for cost in stage_costs(plan)],
        "cost_run_equivalents": plan.budget,
        "cost_steps": round(plan.budget * total_steps),
    }


def answer_rows(answer: Answer, cost: float) -> list[tuple[str, str]]:
    """The answer: lr, schedule and cost, each with what is to be said of it."""
    interval = answer.interval
    within = _span(interval.low, interval.high, interval.low_open, interval.high_open)
    return [
        ("lr", f"{format_lr(answer.lr)}, {interval.level:.0%} interval {within}"),
        ("schedule", f"{schedule_name(answer.schedule)}: {worth(answer)}"),
        ("cost", f"{cost:.3g} run-equivalents"),
    ]


def answer_lines(answer: Answer, cost: float) -> list[str]:
    """The answer in three lines: lr with its interval, schedule with its gain, cost."""
    return [f"{name:<9} {text}" for name, text in answer_rows(answer, cost)]


def remark_lines(answer: Answer) -> list[str]:
    """What is undecided, how forgiving the lr is, the noise, and what was compared or tested besides."""
    tolerance = answer.tolerance
    within = _span(tolerance.low, tolerance.high, tolerance.low_open, tolerance.high_open)
    lines = [f"undecided: {undecided(answer)}"] if answer.undecided else []
    lines += [
        f"tolerance: {within} costs less than {answer.margin:.3g}",
        f"noise: {answer.noise:.3g} between seeds",
    ]
    if answer.gain_over_baseline is not None:
        lines.append(f"baseline: {_better(answer.gain_over_baseline)} than Adam at 1e-3 on the same seed")
    lines += [
        f"test, {label}: {', '.join(f'{metric} {value:.4g}' for metric, value in values.items())}"
        for label, values in answer.test.items()
    ]
    return lines


def worth(answer: Answer) -> str:
    """By how much the schedule beats none, with the bounds that decide."""
    gain, constant = answer.gain_over_constant, answer.constant
    if constant is answer.winner:
        return "no decay is needed"
    if gain is None:
        return "without decay it diverged" if constant and constant.diverged else "not compared with no decay"
    said = f"{answer.metric} {_better(gain.mean)} than without decay"
    if gain.low is None:
        return f"{said} ({VERDICTS[gain.verdict]})"
    bounds = f"{gain.level:.0%} bounds {gain.low:.3g} to {gain.high:.3g}"
    beside = {"worse": "", "not_worse": ": less than the margin"}.get(gain.verdict, f": {gain.verdict}")
    return f"{said} ({bounds}{beside})"


def undecided(answer: Answer) -> str:
    """Which finalists may or may not differ from the winner by more than the margin, in a sentence."""
    names = " or ".join(answer.undecided)
    return (
        f"whether {names} differs from the winner, {answer.winner.name}, by more than the margin, "
        f"{answer.margin:.3g}, is open on these seeds"
    )


def warning_lines(answer: Answer) -> list[str]:
    """What to beware of, one line a warning."""
    return [f"{name}: {text}" for name, text in answer.warnings.items()]


def study_rows(stages: Sequence[StageResult]) -> list[tuple[str, ...]]:
    """A row a stage: its name, trials, diverged trials, run-equivalents, what it found; then all together."""
    rows = [(s.stage, *_counts([s]), f"{s.cost:.3g}", stage_found(s)) for s in stages]
    return [*rows, ("all", *_counts(stages), f"{sum(s.cost for s in stages):.3g}", "")]


def study_table(answer: Answer, stages: Sequence[StageResult]) -> Table:
    """What every stage cost and found, and which candidates the last one compared."""
    from rich.text import Text

    table = _table(f"{answer.metric} {answer.objective:.4g}: {answer.reason}", _STUDY_COLUMNS)
    for column in table.columns[1:4]:
        column.justify = "right"
    *rows, total = study_rows(stages)
    for row in rows:
        table.add_row(*map(Text, row))
    table.add_section()
    table.add_row(*map(Text, total))
    return table


def study_html(answer: Answer, stages: Sequence[StageResult], name: str) -> str:
    """The answer, the stages, remarks and warnings, for a notebook."""
    cost = sum(stage.cost for stage in stages)
    found = html_table(answer_rows(answer, cost), caption=f"study {name}")
    told = html_table(study_rows(stages), head=_STUDY_COLUMNS)
    return f"{found}{told}{html_list([*remark_lines(answer), *warning_lines(answer)])}"


def stage_html(stage: StageResult) -> str:
    """A stage for a notebook: what it found and cost, and a row a trial with its final metrics."""
    metrics = sorted({name for trial in stage.trials for name in trial.metrics})
    rows = [
        (
            *(str(number), format_lr(trial.spec.lr), schedule_name(trial.spec.schedule)),
            *(str(trial.spec.seed), trial.status),
            *(f"{trial.metrics[name].final:.4g}" if name in trial.metrics else "–" for name in metrics),
        )
        for number, trial in enumerate(stage.trials)
    ]
    return html_table(
        rows,
        head=("trial", "lr", "schedule", "seed", "status", *metrics),
        caption=f"{stage.stage}: {stage_found(stage)}; {stage.cost:.3g} run-equivalents",
    )


def stage_found(stage: StageResult) -> str:
    """What a stage found, in words."""
    found = stage.found
    match found:
        case None:
            return "not finished"
        case SweepFindings():
            return _bracket(found.bracket, found.verdict)
        case CoarseFindings():
            noise = "" if found.noise is None else f", noise {found.noise:.3g}"
            return f"best lr {format_lr(found.lr)}{noise}{', needs warmup' * found.needs_warmup}"
        case FineFindings():
            ends = {None: "", "low": ", the lowest tried", "high": ", the highest tried"}
            return f"best lr {format_lr(found.lr)}{ends[found.on_edge]}"
        case DecayFindings():
            return _order(found.order)
        case ConfirmFindings():
            return found.winner


def _range_test(plan: StudyPlan) -> str:
    stage = plan.range_test
    lrs = f"{format_lr(stage.min_lr)} to {format_lr(stage.max_lr)}"
    return f"{_count(stage.repeats, 'sweep')} from lr {lrs}, each up to {stage.share:.0%} of a training"


def _coarse(plan: StudyPlan) -> str:
    stage = plan.coarse
    more = f", {stage.extensions} more where the best is at an end" if stage.extensions else ""
    seeds = _count(stage.replicates, "further seed")
    return f"{stage.points} lrs a factor of {stage.factor:g} apart{more}; {seeds} at the best{_short(plan)}"


def _fine(plan: StudyPlan) -> str:
    trials = plan.fine.trials
    text = f"up to {_count(trials, 'lr')} around the best{_short(plan)}" if trials else "no further lr"
    return text if plan.proxy == 1 else f"{text}; the best and both its neighbours in full"


def _decay(plan: StudyPlan) -> str:
    names = [schedule_name(family) for family in plan.decayed]
    if not names:
        return "no other schedule"
    followed = "best is" if plan.decay.extended == 1 else f"best {plan.decay.extended} are"
    return f"{', '.join(names)}; the {followed} followed octave by octave"


def _confirm(plan: StudyPlan) -> str:
    stage = plan.confirm
    seeds = f"{_between(stage.seeds, stage.max_seeds)} fresh seeds"
    baseline = ", and Adam at 1e-3 once" if plan.baseline else ""
    return f"the best {stage.candidates}, on {seeds}{baseline}"


def _short(plan: StudyPlan) -> str:
    return "" if plan.proxy == 1 else f", at {plan.proxy:.0%} of the full length"


def _bracket(bracket: Bracket | None, verdict: str) -> str:
    if bracket is None:
        return f"no bracket ({verdict})"
    high = "open" if bracket.high is None else format_lr(bracket.high)
    return f"bracket {format_lr(bracket.low)} to {high} ({verdict})"


def _order(order: Sequence[RankedSchedule]) -> str:
    if not order:
        return "no other schedule was tried"
    names = [f"{entry.schedule} at {format_lr(entry.lr)}" for entry in order[:_SHOWN_SCHEDULES]]
    return f"best first: {', '.join(names)}{', …' if len(order) > _SHOWN_SCHEDULES else ''}"


def _better(gain: float) -> str:
    return f"{abs(gain):.3g} {'better' if gain >= 0 else 'worse'}"


def _span(low: float, high: float, low_open: bool, high_open: bool) -> str:
    lowest = f"{format_lr(low)}{' or lower' if low_open else ''}"
    return f"{lowest} to {format_lr(high)}{' or higher' if high_open else ''}"


def _between(least: float, most: float) -> str:
    return f"{least:.3g}" if least == most else f"{least:.3g} to {most:.3g}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _counts(stages: Sequence[StageResult]) -> tuple[str, str]:
    """Trials, and those that diverged; dashes where there are none."""
    trials = [trial for stage in stages for trial in stage.trials]
    if not trials:
        return "–", "–"
    return str(len(trials)), str(sum(trial.status == "diverged" for trial in trials))


def _table(title: str, columns: Sequence[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), box=SIMPLE_HEAD, title_justify="left", caption_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=column != columns[-1] and column != "what it does")
    return table
