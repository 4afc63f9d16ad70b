"""The tables of a study's report: rows of plain text, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lrsearch.core.answer import Answer, Finalist, StageResult, WarningName
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.trial import TrialResult
from lrsearch.report.study_page_data import Origin, ReportData
from lrsearch.report.study_tables import VERDICTS, stage_found, undecided
from lrsearch.report.tables import format_lr
from lrsearch.schedules import schedule_name

Row = tuple[str, ...]

MENDS: dict[WarningName, str] = {
    "no_bracket": "Look at the range test below. If the loss never moved, check that the optimizer holds "
    "the model's parameters; if it only rose, lower range_test.min_lr in the plan.",
    "edge": "The optimum may lie further out than anything tried. Raise budget in the plan, or widen the "
    "range test, and search again under another name.",
    "needs_warmup": "Keep the warmup of the schedule above; without it this lr diverges at the start.",
    "objectives_disagree": "Decide which metric matters, and search with it: --objective METRIC.",
    "overfitting": "Train for fewer epochs, or regularise more; or search with the objective's best instead "
    "of its final value (use = 'best').",
    "lr_and_weight_decay_tuned_together": "Search again where the weight decay or the length of the training "
    "changes: this lr is no answer there.",
    "untrained": "Check that the objective measures what is trained; train for longer, or lower "
    "range_test.min_lr in the plan if every lr made it worse.",
    "unstable": "Take a lower lr of the tolerance, a warmup, or clip the gradient; confirm with more seeds "
    "(confirm.seeds in the plan).",
    "baseline_better": "Search again with another optimizer, such as Adam.",
    "bad_data": "Mend or drop these rows: a training script of your own may turn its weights to NaN on them.",
    "trials_failed": "Read the tracebacks under the cost, mend the cause, and search again if the failed lrs "
    "lie near the answer.",
    "own_loop": "Mend the training function: what it leaves out was not searched.",
    "changes_accepted": "Run the study anew under another name where the change matters.",
    "runs_differ": "Call torch.use_deterministic_algorithms(True) in the task, or take differences of that "
    "size for noise.",
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
    return [(name.replace("_", " "), text, MENDS[name]) for name, text in answer.warnings.items()]


def left_open(answer: Answer) -> str:
    """The finalists that may be on either side of the margin, in a sentence, and what would decide it."""
    if not answer.undecided:
        return "Nothing: each difference lies on one side of the margin"
    said = undecided(answer)
    return f"{said[0].upper()}{said[1:]}; to decide it, raise confirm.max_seeds and budget in the plan"


@dataclass(frozen=True)
class Paired:
    """The finalists by seed: `head` names the columns; `summary` are the rows below the seeds."""

    head: Row
    rows: Sequence[Row]
    summary: Sequence[Row]


def paired_table(answer: Answer, plan: StudyPlan) -> Paired:
    """The objective of every finalist by seed, and by how much the winner is better than each other one.

    Differences are positive where the winner is better; bounds and verdict are those of the decision.
    """
    winner = answer.winner
    others = [finalist for finalist in answer.finalists if finalist is not winner]
    seeds = sorted({seed for finalist in answer.finalists for seed in finalist.objectives})
    sign = 1.0 if plan.objective.towards == "minimize" else -1.0
    head = ["seed", f"{winner.name} (winner)"]
    rows = [[str(seed), amount(winner.objectives.get(seed))] for seed in seeds]
    mean, bounds, verdict = (
        ["mean", amount(winner.mean)],
        [f"{plan.level:.0%} bounds", ""],
        ["verdict", "chosen"],
    )
    for other in others:
        head += [other.name, "winner better by"]
        for row, seed in zip(rows, seeds, strict=True):
            a, b = other.objectives.get(seed), winner.objectives.get(seed)
            both = plan.confirm.paired and a is not None and b is not None
            row += [amount(a), _signed(sign * (a - b)) if both else "–"]  # type: ignore[operator]
        difference, between, said = _compared(other)
        mean += [amount(other.mean), difference]
        bounds += ["", between]
        verdict += ["", said]
    summary = [tuple(row) for row in (mean, bounds, verdict)]
    return Paired(tuple(head), [tuple(row) for row in rows], summary)


def _compared(other: Finalist) -> Row:
    """The mean difference from the winner, its bounds, and what is to be made of it."""
    gain = other.gain
    if other.diverged or gain is None:
        return "–", "", "diverged" if other.diverged else "undecided: no seed in common"
    bounded = gain.low is not None and gain.high is not None
    bounds = f"{_signed(gain.low)} to {_signed(gain.high)}" if bounded else "none"  # type: ignore[arg-type]
    return _signed(gain.mean), bounds, VERDICTS[gain.verdict]


@dataclass(frozen=True)
class Waste:
    """Diverged or failed trainings: how many, and what they cost in run-equivalents and seconds."""

    trials: int
    cost: float
    seconds: float


def waste(trials: Sequence[TrialResult], total_steps: int, status: str) -> Waste:
    """What the trials of this status cost."""
    lost = {trial.spec.key: trial for trial in trials if trial.status == status}.values()
    return Waste(len(lost), sum(t.steps_done for t in lost) / total_steps, sum(t.seconds for t in lost))


COST_HEAD = ("stage", "trainings", "diverged", "failed", "run-equivalents", "wasted", "time", "found")


def cost_rows(data: ReportData) -> list[Row]:
    """A row a stage, then one for all: trainings, diverged, failed, cost, what was wasted, time, finding.

    A training that two stages asked for counts in the first.
    """
    rows, seen = [], set()
    total: list[float] = [0, 0, 0, 0.0, 0.0, 0.0]
    for stage in data.stages:
        own = [trial for trial in stage.trials if trial.spec.key not in seen]
        seen |= {trial.spec.key for trial in own}
        diverged, failed = (waste(own, data.total_steps, status) for status in ("diverged", "failed"))
        sweeps = stage.stage == "range-test"
        values = [
            len(data.curves) if sweeps else len(own),
            diverged.trials,
            failed.trials,
            stage.cost,
            diverged.cost + failed.cost,
            data.sweep_seconds if sweeps else sum(trial.seconds for trial in own),
        ]
        total = [a + b for a, b in zip(total, values, strict=True)]
        rows.append((stage.stage, *_cost_cells(values), stage_found(stage)))
    return [*rows, ("all", *_cost_cells(total), "")]


def _cost_cells(values: Sequence[float]) -> Row:
    trainings, diverged, failed, cost, wasted, seconds = values
    return (
        f"{trainings:.0f}",
        f"{diverged:.0f}",
        f"{failed:.0f}",
        f"{cost:.2f}",
        f"{wasted:.2f}",
        spell(seconds),
    )


def spell(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{seconds / 60:.1f} min"


@dataclass(frozen=True)
class TrialRow:
    """A training as the table shows it; `kind` is winner, diverged, failed or empty."""

    cells: Row
    kind: str


def trial_head(data: ReportData) -> Row:
    """The columns of `trial_rows`."""
    objective = data.plan.objective
    return (
        *("stage", "no.", "lr", "schedule", "seed", "updates", "outcome"),
        f"{objective.use} {objective.metric}",
        *(f"final {name}" for name in _other_metrics(data)),
        "time",
    )


def trial_rows(data: ReportData) -> list[TrialRow]:
    """Every training of every stage, in order; one that two stages asked for stands in both."""
    others = _other_metrics(data)
    winner = data.answer.winner if data.answer else None
    return [
        _trial_row(number, stage, trial, data.plan, others, winner)
        for stage in data.stages
        for number, trial in enumerate(stage.trials)
    ]


def _trial_row(
    number: int,
    stage: StageResult,
    trial: TrialResult,
    plan: StudyPlan,
    others: Sequence[str],
    winner: Finalist | None,
) -> TrialRow:
    spec = trial.spec
    confirmed = stage.stage == "confirm" and spec.optimizer is None and winner is not None
    won = confirmed and winner is not None and (spec.lr, spec.schedule) == (winner.lr, winner.schedule)
    loss = plan.objective.as_loss(trial) if trial.status == "complete" else None
    schedule = schedule_name(spec.schedule)
    if spec.optimizer is not None:
        schedule += f" ({spec.optimizer}, baseline)"
    if spec.again:
        schedule += " (second run)"
    updates = str(spec.steps) if trial.steps_done == spec.steps else f"{trial.steps_done} of {spec.steps}"
    finals = [trial.metrics[name].final if name in trial.metrics else None for name in others]
    cells = (
        *(stage.stage, str(number), format_lr(spec.lr), schedule, str(spec.seed), updates),
        "winner" if won else _outcome(trial),
        amount(None if loss is None else plan.objective.from_loss(loss)),
        *(amount(value) for value in finals),
        spell(trial.seconds),
    )
    return TrialRow(cells, "winner" if won else trial.status if trial.status != "complete" else "")


def _outcome(trial: TrialResult) -> str:
    cause = _CAUSES.get(trial.cause or "", trial.cause)
    return f"{trial.status}: {cause}" if cause else trial.status


def _other_metrics(data: ReportData) -> list[str]:
    """Validation metrics first, and no more than a page is wide."""
    names = {name for stage in data.stages for trial in stage.trials for name in trial.metrics}
    order = sorted(names - {data.plan.objective.metric}, key=lambda name: (not name.startswith("val/"), name))
    return order[:_OTHER_METRICS]


def failed_trials(data: ReportData) -> list[tuple[str, str, str]]:
    """Of each failed training what it was, the last line of its error, and the whole traceback."""
    rows = []
    for stage in data.stages:
        for number, trial in enumerate(stage.trials):
            if trial.status == "failed":
                error = (trial.error or "no message").strip()
                what = f"{stage.stage} {number}, lr {format_lr(trial.spec.lr)}, seed {trial.spec.seed}"
                rows.append((what, error.splitlines()[-1], error))
    return rows


def setting_rows(data: ReportData) -> list[Row]:
    """What was trained, and for how long."""
    epochs = ""
    if data.steps_per_epoch:
        epochs = (
            f" ({data.total_steps / data.steps_per_epoch:.3g} epochs of {data.steps_per_epoch:,} updates)"
        )
    objective = data.plan.objective
    return [
        ("task", data.task),
        *((name.replace("_", " "), _plain(value)) for name, value in data.settings.items()),
        ("full training", f"{data.total_steps:,} updates{epochs}"),
        *((f"tag {name}", text) for name, text in data.tags.items()),
        ("objective", f"{objective.towards} the {objective.use} {objective.metric}"),
    ]


def data_rows(data: ReportData) -> list[Row]:
    """The data sets by context, with their fingerprints."""
    return [
        (
            context,
            str(facts["name"]),
            "unknown" if facts["items"] is None else f"{facts['items']:,}",
            str(facts["fingerprint"] or f"unknown: {facts['fingerprint_reason']}"),
        )
        for context, facts in data.data.items()
    ]


def seed_rows(data: ReportData) -> list[Row]:
    """The seeds that each stage used."""
    swept = sorted({curve.seed for curve in data.curves})
    used = {"range-test": swept}
    used |= {
        stage.stage: sorted({t.spec.seed for t in stage.trials}) for stage in data.stages if stage.trials
    }
    return [(stage, ", ".join(map(str, seeds))) for stage, seeds in used.items() if seeds]


def origin_rows(origins: Sequence[Origin]) -> list[Row]:
    """Versions, hardware, code and command: a row a fact, a column a process that worked on the study."""
    columns = [_origin(origin) for origin in origins]
    names = list(dict.fromkeys(name for column in columns for name in column))
    return [(name, *(column.get(name, "–") for column in columns)) for name in names]


def _origin(origin: Origin) -> dict[str, str]:
    facts = origin.facts
    cpu, git = facts.get("cpu") or {}, facts.get("git") or {}
    dirty = {True: ", with uncommitted changes (dirty)", False: ", clean", None: ", not known whether clean"}
    return {
        "began": origin.began,
        **{name: str(version or "not installed") for name, version in (facts.get("versions") or {}).items()},
        "platform": str(facts.get("platform")),
        "processor": f"{cpu.get('model') or 'unknown'}, {cpu.get('count')} cores",
        "host": str(facts.get("host")),
        "user": str(facts.get("user") or "unknown"),
        "git commit": f"{git['commit']}{dirty[git.get('dirty')]}"
        if git.get("commit")
        else "no git repository",
        "command": str(facts.get("command")),
        **{name: str(value) for name, value in (facts.get("environment") or {}).items()},
    }


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def amount(value: float | None) -> str:
    """Four significant digits, or a dash."""
    return "–" if value is None else f"{value:#.4g}".rstrip(".")


def _signed(value: float) -> str:
    return f"{value:+#.3g}"
