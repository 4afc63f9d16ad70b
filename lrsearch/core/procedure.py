"""The stages, one after the other: from a bracket to the finalists' decision."""

from __future__ import annotations

from collections.abc import Sequence

from lrsearch.core.answer import Answer, StageResult
from lrsearch.core.budget import Budget
from lrsearch.core.confirm import Confirmed, confirm, margin_of
from lrsearch.core.executor import Executor, Propose
from lrsearch.core.findings import (
    Bracket,
    CoarseFindings,
    ConfirmFindings,
    DecayFindings,
    Findings,
    FineFindings,
    RankedSchedule,
)
from lrsearch.core.observations import response_under
from lrsearch.core.observer import Observer
from lrsearch.core.stage import Stage, readable
from lrsearch.core.stages import Base, coarse, decay, fine
from lrsearch.core.study_plan import StageName, StudyPlan
from lrsearch.core.suggestion import Suggestion
from lrsearch.schedules import schedule_name

SOUND = ("ok", "rules_disagree", "never_diverged")
"""Verdicts of a range test whose bracket is to be trusted."""


def bracket_of(suggestion: Suggestion | None) -> Bracket | None:
    """Return the bracket that a range test's verdict lets one rely on."""
    return suggestion.bracket if suggestion is not None and suggestion.verdict in SOUND else None


def run_stages(
    budget: Budget, executor: Executor, propose: Propose, bracket: Bracket | None, observer: Observer
) -> tuple[Base, Confirmed]:
    """Run the four stages that train, each from what the one before found.

    Nothing is decided by anything but the executor's results, so that the same results give the same stages:
    a study that was interrupted goes on by running them again with an executor that remembers. The observer
    hears of every stage's beginning and end. Raises StudyError where the trials leave nothing to search.
    """

    def begin(name: StageName) -> Stage:
        observer.stage_begins(name)
        return Stage(name, budget, executor)

    def end(stage: Stage, found: Findings) -> None:
        observer.stage_ends(stage.result(found))

    stage = begin("coarse")
    base = coarse(stage, bracket)
    noise = base.noise.sd if base.noise else None
    end(stage, CoarseFindings(base.lr, noise, base.needs_warmup, base.runs_differ))
    stage = begin("fine")
    base = fine(stage, base, propose)
    end(stage, FineFindings(base.lr, base.on_edge))
    stage = begin("decay")
    candidates = decay(stage, base)
    ranked = [(schedule_name(c.configuration.schedule), c.configuration.lr) for c in candidates]
    end(stage, DecayFindings(tuple(RankedSchedule(name, lr) for name, lr in ranked)))
    stage = begin("confirm")
    confirmed = confirm(stage, base, candidates)
    end(stage, ConfirmFindings(confirmed.decision.winner.name, confirmed.decision.reason))
    return base, confirmed


def best_so_far(plan: StudyPlan, total_steps: int, stages: Sequence[StageResult]) -> Answer | None:
    """Return what the base schedule's trials say before anything is confirmed; None of fewer than two lrs."""
    trials = [trial for stage in stages for trial in stage.trials]
    under = [t for t in trials if t.spec.schedule == plan.base_schedule and t.status == "complete"]
    if len({trial.spec.lr for trial in under}) < 2:
        return None
    response = response_under(plan, trials, plan.base_schedule, total_steps)
    if not response.groups:
        return None
    fit = response.fit()
    lr = readable(fit.lr)
    margin = margin_of(plan, under)
    return Answer(
        lr=lr,
        schedule=plan.base_schedule,
        base_lr=lr,
        objective=plan.objective.from_loss(float(fit.objective(lr))),
        metric=plan.objective.metric,
        reason="not confirmed yet",
        interval=fit.interval(plan.level),
        tolerance=fit.tolerance(margin),
        noise=response.noise.sd if response.noise else None,
        margin=margin,
        finalists=(),
    )
