"""From trials to the response of the objective to the lr."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lrsearch.core.answer import StageResult
from lrsearch.core.objective import Objective
from lrsearch.core.response import Observation, Response
from lrsearch.core.stats import Noise
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.trial import TrialResult
from lrsearch.schedules import schedule_name


def observe(plan: StudyPlan, results: Iterable[TrialResult]) -> list[Observation]:
    """What trials say of the objective at their lrs, as losses: lower is better.

    A failed trial bounds the lr as a diverged one does: where it raises, there is no lr to choose. Left out
    are the baseline, whose optimizer is another, and second runs of equal trainings, which would pass for
    other seeds.
    """
    seen = []
    for result in results:
        spec = result.spec
        if spec.optimizer is not None or spec.again:
            continue
        diverged = result.status != "complete"
        loss = None if diverged else plan.objective.as_loss(result)
        if diverged or loss is not None:
            seen.append(Observation(spec.lr, loss, spec.seed, diverged))
    return seen


def response_under(
    plan: StudyPlan,
    results: Iterable[TrialResult],
    schedule: Mapping[str, Any],
    total_steps: int,
    noise: Noise | None = None,
    base_lr: float | None = None,
) -> Response:
    """The response under one schedule: of the trainings of full length, or of the short ones if there are no
    others. `noise` is what was measured elsewhere. `base_lr` is the best lr under the base schedule: under
    another one the optimum is expected where `StudyPlan.expected_lr` has it. Raises InputError where nothing
    was trained under the schedule.
    """
    under = [result for result in results if result.spec.schedule == schedule]
    full = [result for result in under if result.spec.steps == total_steps]
    expected = None
    if base_lr is not None and schedule != plan.base_schedule:
        expected = plan.expected_lr(schedule, base_lr)
    return Response(observe(plan, full or under), noise, expected)


def trial_rows(stages: Iterable[StageResult], objective: Objective) -> list[dict[str, Any]]:
    """Return a row a training, in order, with its final metrics."""
    rows = []
    for stage in stages:
        for number, trial in enumerate(stage.trials):
            loss = objective.as_loss(trial) if trial.status == "complete" else None
            rows.append(
                {
                    "stage": stage.stage,
                    "trial": number,
                    "lr": trial.spec.lr,
                    "schedule": schedule_name(trial.spec.schedule),
                    "seed": trial.spec.seed,
                    "steps": trial.spec.steps,
                    "optimizer": trial.spec.optimizer,
                    "status": trial.status,
                    "objective": None if loss is None else objective.from_loss(loss),
                    "steps_done": trial.steps_done,
                    "seconds": trial.seconds,
                    "cause": trial.cause,
                    **{f"{name}_final": s.final for name, s in trial.metrics.items()},
                }
            )
    return rows
