"""Tasks with a known answer: the final loss is a function of lr, schedule and seed; nothing is trained."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from lrsearch.core.answer import StageResult
from lrsearch.core.budget import Budget
from lrsearch.core.confirm import Confirmed
from lrsearch.core.executor import Executor, ImmediateExecutor
from lrsearch.core.findings import Bracket
from lrsearch.core.observer import Observer
from lrsearch.core.procedure import run_stages
from lrsearch.core.stages import Base
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.trial import MetricSummary, TrialResult, TrialSpec
from lrsearch.schedules import schedule_name
from lrsearch.study.optuna_study import propose

STEPS = 1000
INITIAL = 2.3


@dataclass
class Synthetic(ImmediateExecutor):
    """A response with its optimum at `best`, `shift` times higher under decay, which gains `gain`.

    ``loss = 0.4 - gain + curvature * (octaves from the optimum)²``, twice as steep above it; Gaussian noise
    between seeds, half as much under decay; above `edge` a training diverges.
    """

    best: float = 0.01
    shift: float = 4.0
    gain: float = 0.04
    noise: float = 0.004
    noise_seed: int = 0
    curvature: float = 0.01
    edge: float = 0.5
    negated: bool = False
    fails: Callable[[TrialSpec], bool] = lambda spec: False
    flat: bool = False
    exact: bool = True
    trained: list[TrialSpec] = field(default_factory=list)

    def loss(self, spec: TrialSpec) -> float:
        """The final loss of a training that neither diverges nor fails."""
        if self.flat:
            return 0.4
        decayed = schedule_name(spec.schedule).removeprefix("warmup+") != "constant"
        octaves = math.log2(spec.lr / (self.best * (self.shift if decayed else 1.0)))
        excess = self.curvature * octaves**2 * (2.0 if octaves > 0 else 1.0)
        rng = np.random.default_rng([self.noise_seed, spec.seed, spec.again, _number(spec)])
        noise = self.noise * (0.5 if decayed else 1.0) * rng.standard_normal()
        return float(0.4 - self.gain * decayed + excess + noise)

    def run(self, spec: TrialSpec) -> TrialResult:
        self.trained.append(spec)
        if self.fails(spec):
            return TrialResult(spec, "failed", 0, 0.1, cause="ValueError", error="ValueError: broken\n")
        if spec.lr > self.edge:
            return TrialResult(spec, "diverged", spec.steps // 5, 0.1, INITIAL, cause="loss_rose")
        sign, loss = (-1 if self.negated else 1), self.loss(spec)
        metric = summary(sign * INITIAL, sign * loss)
        return TrialResult(spec, "complete", spec.steps, 1.0, INITIAL, {"val/loss": metric})


def summary(*values: float) -> MetricSummary:
    """The summary of a metric's values."""
    return MetricSummary(values[0], values[-1], min(values), max(values), len(values))


def _number(spec: TrialSpec) -> int:
    """Of the lr and the schedule alone."""
    return zlib.crc32(f"{spec.lr} {sorted(spec.schedule.items(), key=str)} {spec.steps}".encode())


@dataclass
class Outcome(Observer):
    """What the stages found, in order."""

    budget: Budget
    stages: list[StageResult] = field(default_factory=list)
    base: Base = field(init=False)
    confirmed: Confirmed = field(init=False)

    def stage_ends(self, result: StageResult) -> None:
        self.stages.append(result)


def study(executor: Executor, plan: StudyPlan, bracket: Bracket | None = Bracket(0.004, 0.5)) -> Outcome:  # noqa: B008
    """All stages but the range test, whose cost is booked."""
    outcome = Outcome(Budget(plan.with_changes(base_schedule={"name": "constant"}), STEPS))
    outcome.budget.book_steps(round(plan.costs()[0].most * STEPS))
    found = run_stages(outcome.budget, executor, partial(propose, seed=0), bracket, outcome)
    outcome.base, outcome.confirmed = found
    return outcome
