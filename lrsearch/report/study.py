"""What a study plans, does and finds: its tables and lines, and the description of its run in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from lrsearch.core import text
from lrsearch.core.answer import Answer, StageResult
from lrsearch.core.study_plan import DEFAULT_EPOCHS, StageCost, StudyPlan
from lrsearch.core.table import Row, Table, escape_markdown, html_list
from lrsearch.schedules import schedule_name

# --- the plan ---------------------------------------------------------------------------------------------


def plan_table(plan: StudyPlan, total_steps: int, steps_per_epoch: int | None) -> Table:
    """What a study is going to do, and what it costs."""
    objective = plan.objective
    title = f"plan {plan.preset}: {objective.towards} the {objective.use} {objective.metric}"
    return replace(_plan_table(plan), title=title, note=text.plan_cost(plan, total_steps, steps_per_epoch))


def _plan_table(plan: StudyPlan) -> Table:
    """What each stage does, and the least and the most that it costs."""
    does = text.plan_stages(plan)
    rows = [
        (cost.stage, does[cost.stage], text.at_least_at_most(cost.least, cost.most))
        for cost in _stage_costs(plan)
    ]
    return Table(rows, ("stage", "what it does", "run-equivalents"), numbers=(2,))


def _stage_costs(plan: StudyPlan) -> list[StageCost]:
    """What each stage costs; none can take more than the budget leaves beside what the others need."""
    costs = plan.costs()
    spare = plan.budget - sum(cost.least for cost in costs)
    return [replace(cost, most=min(cost.most, cost.least + spare)) for cost in costs]


def plan_dict(plan: StudyPlan, total_steps: int, steps_per_epoch: int | None) -> dict[str, Any]:
    """The plan and what it costs, as plain JSON."""
    return {
        "plan": plan.to_dict(),
        "plan_hash": plan.hash,
        "steps": total_steps,
        "steps_per_epoch": steps_per_epoch,
        "stages": [asdict(cost) for cost in _stage_costs(plan)],
        "cost_run_equivalents": plan.budget,
        "cost_steps": round(plan.budget * total_steps),
    }


# --- the answer -------------------------------------------------------------------------------------------


def answer_table(answer: Answer, cost: float, name: str) -> Table:
    """The answer: lr with its interval, schedule with its gain, cost."""
    rows = [
        ("lr", f"{text.number(answer.lr)}, {text.interval(answer.interval)}"),
        ("schedule", f"{schedule_name(answer.schedule)}: {worth(answer)}"),
        ("cost", f"{text.number(cost)} run-equivalents"),
    ]
    return Table(rows, title=f"study {name}")


def answer_lines(answer: Answer, cost: float) -> list[str]:
    """The same in three lines."""
    return [f"{name:<9} {said}" for name, said in answer_table(answer, cost, "").rows]


def worth(answer: Answer) -> str:
    """By how much the schedule beats training without decay, with the bounds that decide."""
    gain, constant = answer.gain_over_constant, answer.constant
    if constant is answer.winner:
        return "no decay is needed"
    if gain is None:
        diverged = constant is not None and constant.diverged
        return "without decay it diverged" if diverged else "not compared with training without decay"
    return text.gain(gain, "without decay")


def undecided(answer: Answer) -> str:
    """Which finalists may or may not differ from the winner by more than the margin; empty without any."""
    if not answer.undecided:
        return ""
    names = " or ".join(answer.undecided)
    return (
        f"these seeds leave open whether {names} differs from the winner, {answer.winner.name}, by more than "
        f"the margin, {text.number(answer.margin)}"
    )


def remarks(answer: Answer) -> list[tuple[str, str]]:
    """What else is known, by name: what is undecided, how forgiving the lr is, the noise, other results."""
    said = [("undecided", undecided(answer))] if answer.undecided else []
    said += [
        ("tolerance", text.tolerance(answer.tolerance, answer.margin, answer.metric)),
        ("noise", text.noise(answer.noise)),
    ]
    if answer.gain_over_baseline is not None:
        compared = f"{text.better(answer.gain_over_baseline)} than {text.BASELINE} on the same seed"
        said.append(("baseline", compared))
    said += [
        (
            f"test data, {label}",
            ", ".join(f"{metric} {text.amount(value)}" for metric, value in values.items()),
        )
        for label, values in answer.test.items()
    ]
    return said


def remark_lines(answer: Answer) -> list[str]:
    """The remarks, one line each."""
    return [f"{name}: {said}" for name, said in remarks(answer)]


def warning_lines(answer: Answer) -> list[str]:
    """What to beware of, one line a warning."""
    return [f"{name}: {said}" for name, said in answer.warnings.items()]


def study_table(answer: Answer, stages: Sequence[StageResult]) -> Table:
    """What every stage cost and found, and in the foot all together."""
    title = f"{answer.metric} {text.amount(answer.objective)}: {answer.reason}"
    rows = [(s.stage, *_counts([s]), text.number(s.cost), text.stage_found(s.found)) for s in stages]
    total = ("all", *_counts(stages), text.number(sum(s.cost for s in stages)), "")
    columns = ("stage", "trials", "diverged", "run-equivalents", "found")
    return Table(rows, columns, title, numbers=(1, 2, 3), foot=[total])


def study_html(answer: Answer, stages: Sequence[StageResult], name: str) -> str:
    """The answer, the stages, remarks and warnings, for a notebook."""
    found = answer_table(answer, sum(stage.cost for stage in stages), name)
    told = study_table(answer, stages)
    lines = html_list([*remark_lines(answer), *warning_lines(answer)])
    return f"{found.to_html()}{told.to_html()}{lines}"


def _counts(stages: Sequence[StageResult]) -> Row:
    """Trials, and those that diverged; dashes where there are none."""
    trials = [trial for stage in stages for trial in stage.trials]
    if not trials:
        return text.NONE, text.NONE
    return str(len(trials)), str(sum(trial.status == "diverged" for trial in trials))


# --- in MLflow --------------------------------------------------------------------------------------------


def describe_study(answer: Answer, plan: StudyPlan, links: Mapping[str, str]) -> str:
    """The answer, where to look, and the plan, in Markdown; `links` are addresses by what they lead to."""
    plain = escape_markdown
    schedule = plain(text.schedule(answer.schedule))
    parts = [
        f"**Learning rate {text.number(answer.lr)}, schedule {schedule}**: "
        f"{plain(answer.metric)} {text.amount(answer.objective)}, {plain(answer.reason)}.",
        f"Learning rate: {text.interval(answer.interval)}.",
        f"Decay: {plain(worth(answer))}.",
        *(f"{plain(text.sentence(name))}: {plain(said)}." for name, said in remarks(answer)),
    ]
    if answer.warnings:
        parts.append("\n".join(f"- `{name}`: {plain(said)}" for name, said in answer.warnings.items()))
    see = " · ".join(f"[{words}]({address})" for words, address in links.items())
    steps, epochs = plan.steps, plan.epochs or DEFAULT_EPOCHS
    length = text.count(epochs, "epoch") if steps is None else text.count(steps, "update")
    planned = (
        f"**Plan** {plan.preset}: a full training is {length}, the budget is {text.number(plan.budget)} "
        f"run-equivalents (full trainings), the first seed is {plan.seed}. The child runs are named after "
        "their stage and number."
    )
    return "\n\n".join([*parts, f"**See** {see}", planned, _plan_table(plan).to_markdown()])
