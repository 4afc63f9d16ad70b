"""All that a study's page shows: the data, read from wherever it lies, and the tables made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lrsearch.core import text
from lrsearch.core.answer import Answer, Finalist, StageResult, WarningName
from lrsearch.core.curve import Array, RangeTestCurve
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.suggestion import Suggestion
from lrsearch.core.table import Row, Table
from lrsearch.core.trial import TrialResult
from lrsearch.report.study import undecided
from lrsearch.schedules import schedule_name

State = Literal["finished", "running", "interrupted", "failed"]


@dataclass(frozen=True)
class Commands:
    """What to type: to run the winner again, to go on where the study is unfinished, and what was typed."""

    reproduce: str
    resume: str
    typed: str | None


@dataclass(frozen=True)
class Origin:
    """A process that worked on the study: when it began, in UTC, and its provenance."""

    began: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class ReportData:
    """A study as its report shows it, whole or as far as it has come.

    `problem` is what ended a failed one; `damage` says what of the record could not be read. `answer` is
    None before there is one; `so_far` then is what the base schedule's trials say, for the drawing. A stage
    that is not done has found nothing. `settings` say what was trained, `tags` are the user's, `data` the
    fingerprints by context. `schedules` hold the lr of every update, `learning` the steps and values by
    metric, both by the finalist's name. `sweep_seconds` is what the range test took.
    """

    name: str
    task: str
    state: State
    problem: str | None
    damage: Sequence[str]
    plan: StudyPlan
    total_steps: int
    steps_per_epoch: int | None
    settings: Mapping[str, Any]
    tags: Mapping[str, str]
    data: Mapping[str, Mapping[str, Any]]
    stages: Sequence[StageResult]
    answer: Answer | None
    so_far: Answer | None
    code: str | None
    curves: Sequence[RangeTestCurve]
    suggestion: Suggestion | None
    sweep_seconds: float
    schedules: Mapping[str, Array]
    learning: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float]]]]
    origins: Sequence[Origin]
    tracking: str | None
    commands: Commands


MENDS: dict[WarningName, str] = {
    "no_bracket": "Look at the range test below. If the loss never moved, check that the optimizer holds "
    "the model's parameters; if it only rose, lower range_test.min_lr in the plan.",
    "edge": "The optimum may lie further out than anything tried. Raise budget in the plan, or widen the "
    "range test, and search again under another name.",
    "needs_warmup": "Keep the warmup of the schedule above; without it this lr diverges at the start.",
    "objectives_disagree": "Decide which metric matters, and search again with --objective METRIC.",
    "overfitting": "Train for fewer epochs, regularise more, or search for the best value of the objective "
    "instead of the final one (use = 'best' in the plan).",
    "lr_and_weight_decay_tuned_together": "If the weight decay or the length of the training "
    "changes, search again: this lr does not carry over.",
    "untrained": "Check that the objective measures what is trained. Train for longer, or, if every lr "
    "made it worse, lower range_test.min_lr in the plan.",
    "unstable": "Take a lower lr within the tolerance, add a warmup, or clip the gradient; confirm with more "
    "seeds (confirm.seeds in the plan).",
    "baseline_better": "Search again with another optimizer, such as Adam.",
    "bad_data": "Fix or drop these rows: in your own training script they may turn the weights to NaN.",
    "trials_failed": "Read the tracebacks in the section on cost, fix the cause, and search again if the "
    "failed lrs lie near the answer.",
    "own_loop": "Fix the training function: until then, its trainings are not what the study takes them for.",
    "changes_accepted": "If the change matters, run the study again under another name.",
    "runs_differ": "Call torch.use_deterministic_algorithms(True) in the task, or treat differences of that "
    "size as noise.",
}
"""What to do about a warning."""

_OTHER_METRICS = 2
_CAUSES = {
    "not_finite": "loss not finite",
    "loss_rose": "loss rose",
    "raised": "raised",
    "out_of_memory": "out of memory",
}


def warning_rows(answer: Answer) -> list[Row]:
    """Of each warning its name, what was seen, and what to do about it."""
    return [(text.spaced(name), seen, MENDS[name]) for name, seen in answer.warnings.items()]


def left_open(answer: Answer) -> str:
    """What these seeds leave undecided, in a sentence, and what would decide it."""
    if not answer.undecided:
        return "nothing, each difference lies on one side of the margin"
    return f"{undecided(answer)}. To decide it, raise confirm.max_seeds and budget in the plan"


# --- finalists --------------------------------------------------------------------------------------------


def finalist_table(answer: Answer, plan: StudyPlan) -> Table:
    """The objective of every finalist by seed, and by how much the winner is better than each other one.

    Differences are positive where the winner is better. The foot holds their means, with the bounds and the
    verdict of the decision.
    """
    winner = answer.winner
    seeds = sorted({seed for finalist in answer.finalists for seed in finalist.objectives})
    columns = ["seed", f"{winner.name} (winner)"]
    rows = [[str(seed), text.amount(winner.objectives.get(seed))] for seed in seeds]
    foot = [["mean", text.amount(winner.mean)], [f"{plan.level:.0%} bounds", ""], ["verdict", "chosen"]]
    for other in answer.finalists:
        if other is winner:
            continue
        columns += [other.name, "winner better by"]
        for row, seed in zip(rows, seeds, strict=True):
            row += [text.amount(other.objectives.get(seed)), _difference(other, winner, seed, plan)]
        for row, cells in zip(foot, _compared(other), strict=True):
            row.extend(cells)
    numbers = tuple(range(len(columns)))
    return Table([*map(tuple, rows)], tuple(columns), numbers=numbers, foot=[*map(tuple, foot)])


def _difference(other: Finalist, winner: Finalist, seed: int, plan: StudyPlan) -> str:
    """By how much the winner is better on this seed; a dash where the two cannot be paired."""
    theirs, ours = other.objectives.get(seed), winner.objectives.get(seed)
    if not plan.confirm.paired or theirs is None or ours is None:
        return text.NONE
    return text.signed(theirs - ours if plan.objective.towards == "minimize" else ours - theirs)


def _compared(other: Finalist) -> tuple[Row, Row, Row]:
    """The mean, the bounds and the verdict of a finalist, each with its difference from the winner."""
    gain, mean = other.gain, text.amount(other.mean)
    if other.diverged or gain is None:
        verdict = "diverged" if other.diverged else "undecided: no seed in common"
        return (mean, text.NONE), ("", ""), ("", verdict)
    between = text.bounds(gain.low, gain.high)
    return (mean, text.signed(gain.mean)), ("", between), ("", text.VERDICTS[gain.verdict])


# --- cost -------------------------------------------------------------------------------------------------


def cost_table(data: ReportData) -> Table:
    """A row a stage, and a foot for all: trainings, diverged, failed, cost, what was wasted, time, finding.

    A training that two stages asked for counts in the first.
    """
    rows, seen = [], set()
    total: list[float] = [0, 0, 0, 0.0, 0.0, 0.0]
    for stage in data.stages:
        own = [t for key, t in {t.spec.key: t for t in stage.trials}.items() if key not in seen]
        seen |= {trial.spec.key for trial in own}
        diverged, failed = ([t for t in own if t.status == status] for status in ("diverged", "failed"))
        wasted = sum(trial.steps_done for trial in (*diverged, *failed)) / data.total_steps
        sweeps = stage.stage == "range-test"
        values = [
            len(data.curves) if sweeps else len(own),
            len(diverged),
            len(failed),
            stage.cost,
            wasted,
            data.sweep_seconds if sweeps else sum(trial.seconds for trial in own),
        ]
        total = [a + b for a, b in zip(total, values, strict=True)]
        rows.append((stage.stage, *_cost_cells(values), text.stage_found(stage.found)))
    columns = ("stage", "trainings", "diverged", "failed", "run-equivalents", "wasted", "time", "found")
    return Table(rows, columns, numbers=(1, 2, 3, 4, 5, 6), foot=[("all", *_cost_cells(total), "")])


def _cost_cells(values: Sequence[float]) -> Row:
    *counts, cost, wasted, seconds = values
    return (*(f"{number:.0f}" for number in counts), f"{cost:.2f}", f"{wasted:.2f}", text.duration(seconds))


def failed_trials(data: ReportData) -> list[tuple[str, str, str]]:
    """Of each failed training what it was, the last line of its error, and the whole traceback."""
    rows = []
    for stage in data.stages:
        for number, trial in enumerate(stage.trials):
            if trial.status == "failed":
                error = (trial.error or "no message").strip()
                what = f"{stage.stage} {number}, lr {text.number(trial.spec.lr)}, seed {trial.spec.seed}"
                rows.append((what, error.splitlines()[-1], error))
    return rows


# --- trainings --------------------------------------------------------------------------------------------


def trial_table(data: ReportData) -> Table:
    """Every training of every stage, in order; one that two stages asked for stands in both.

    The kind of a row is winner, diverged, failed or empty.
    """
    objective, others = data.plan.objective, _other_metrics(data)
    columns = (
        *("stage", "no.", "lr", "schedule", "seed", "updates", "outcome"),
        f"{objective.use} {objective.metric}",
        *(f"final {name}" for name in others),
        "time",
    )
    rows, kinds = [], []
    for stage in data.stages:
        for number, trial in enumerate(stage.trials):
            won = stage.stage == "confirm" and _is_winners(trial, data.answer)
            rows.append((stage.stage, str(number), *_trial_cells(trial, data.plan, others, won=won)))
            kinds.append("winner" if won else "" if trial.status == "complete" else trial.status)
    return Table(rows, columns, numbers=(1, 2, 4, 5, *range(7, len(columns))), kinds=kinds)


def _is_winners(trial: TrialResult, answer: Answer | None) -> bool:
    spec = trial.spec
    if answer is None or spec.optimizer is not None:
        return False
    return (spec.lr, spec.schedule) == (answer.winner.lr, answer.winner.schedule)


def _trial_cells(trial: TrialResult, plan: StudyPlan, others: Sequence[str], *, won: bool) -> Row:
    spec = trial.spec
    loss = plan.objective.as_loss(trial) if trial.status == "complete" else None
    schedule = schedule_name(spec.schedule)
    if spec.optimizer is not None:
        schedule += f" ({spec.optimizer}, baseline)"
    if spec.again:
        schedule += " (second run)"
    cause = _CAUSES.get(trial.cause or "", trial.cause)
    updates = str(spec.steps) if trial.steps_done == spec.steps else f"{trial.steps_done} of {spec.steps}"
    finals = [trial.metrics[name].final if name in trial.metrics else None for name in others]
    return (
        *(text.number(spec.lr), schedule, str(spec.seed), updates),
        "winner" if won else f"{trial.status}: {cause}" if cause else trial.status,
        text.amount(None if loss is None else plan.objective.from_loss(loss)),
        *map(text.amount, finals),
        text.duration(trial.seconds),
    )


def _other_metrics(data: ReportData) -> list[str]:
    """Validation metrics first, and no more than a page is wide."""
    names = {name for stage in data.stages for trial in stage.trials for name in trial.metrics}
    order = sorted(names - {data.plan.objective.metric}, key=lambda name: (not name.startswith("val/"), name))
    return order[:_OTHER_METRICS]


# --- provenance -------------------------------------------------------------------------------------------


def setting_table(data: ReportData) -> Table:
    """What was trained, and for how long."""
    objective = data.plan.objective
    rows = [
        ("task", data.task),
        *((text.spaced(name), text.setting(value)) for name, value in data.settings.items()),
        ("full training", text.training_length(data.total_steps, data.steps_per_epoch)),
        *((f"tag {name}", value) for name, value in data.tags.items()),
        ("objective", f"{objective.towards} the {objective.use} {objective.metric}"),
    ]
    return Table(rows)


def data_table(data: ReportData) -> Table:
    """The data sets by context, with their fingerprints."""
    rows = [
        (
            context,
            str(facts["name"]),
            "unknown" if facts["items"] is None else f"{facts['items']:,}",
            str(facts["fingerprint"] or f"unknown: {facts['fingerprint_reason']}"),
        )
        for context, facts in data.data.items()
    ]
    return Table(rows, ("use", "data set", "items", "fingerprint"), numbers=(2,))


def seed_table(data: ReportData) -> Table:
    """The seeds that each stage used."""
    used: dict[str, set[int]] = {stage.stage: {t.spec.seed for t in stage.trials} for stage in data.stages}
    used = {**used, "range-test": {curve.seed for curve in data.curves}}
    rows = [(stage, ", ".join(map(str, sorted(seeds)))) for stage, seeds in used.items() if seeds]
    return Table(rows, ("stage", "seeds"))


def origin_table(origins: Sequence[Origin]) -> Table:
    """Versions, hardware, code and command: a row a fact, a column a process that worked on the study."""
    columns = [_origin(origin) for origin in origins]
    names = list(dict.fromkeys(name for column in columns for name in column))
    return Table([(name, *(column.get(name, text.NONE) for column in columns)) for name in names])


def _origin(origin: Origin) -> dict[str, str]:
    facts = origin.facts
    cpu, git = facts.get("cpu") or {}, facts.get("git") or {}
    dirty = {True: ", with uncommitted changes (dirty)", False: ", clean", None: ", not known whether clean"}
    commit = git.get("commit")
    return {
        "began": origin.began,
        **{name: str(version or "not installed") for name, version in (facts.get("versions") or {}).items()},
        "platform": str(facts.get("platform")),
        "processor": f"{cpu.get('model') or 'unknown'}, {cpu.get('count')} cores",
        "host": str(facts.get("host")),
        "user": str(facts.get("user") or "unknown"),
        "git commit": f"{commit}{dirty[git.get('dirty')]}" if commit else "no git repository",
        "command": str(facts.get("command")),
        **{name: str(value) for name, value in (facts.get("environment") or {}).items()},
    }
