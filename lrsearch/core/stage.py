"""One stage at work: what it may still spend, its trials, and what they say of the lr."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from lrsearch.core.answer import StageResult
from lrsearch.core.response import Observation
from lrsearch.core.study_plan import StageName, StudyPlan
from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.errors import StudyError

_FAILED_SHARE = 3
"""A stage of which one in so many trials raise has a broken task, not a bad lr."""


class Executor(Protocol):
    """Runs trainings, and knows those that have run already; `exact` says whether equal ones are equal."""

    exact: bool

    def run(self, spec: TrialSpec, number: int) -> TrialResult:
        """The result of a training; `number` counts within the stage, from 0."""

    def propose(self, observations: Sequence[Observation], low: float, high: float) -> float:
        """An lr worth trying between two others, as a sampler sees it."""


class Account:
    """What a study has spent, in run-equivalents; one training counts once, whoever asks for it."""

    def __init__(self, plan: StudyPlan, total_steps: int) -> None:
        self.plan = plan
        self.total_steps = total_steps
        self.spent = 0.0
        self._counted: set[str] = set()

    def book(self, result: TrialResult) -> float:
        """Count a training, unless it was counted before; what it added."""
        if result.spec.key in self._counted:
            return 0.0
        self._counted.add(result.spec.key)
        return self.book_steps(result.steps_done)

    def book_steps(self, steps: int) -> float:
        """Count updates; what they added."""
        self.spent += steps / self.total_steps
        return steps / self.total_steps


class Stage:
    """Runs the trainings of one stage within what the plan leaves it."""

    def __init__(self, name: StageName, account: Account, executor: Executor) -> None:
        self.name = name
        self.plan = account.plan
        self.account = account
        self.executor = executor
        self.trials: list[TrialResult] = []
        self.cost = 0.0
        self._reserved = self.plan.kept_for_later(name)

    @property
    def left(self) -> float:
        """Run-equivalents that this stage may still spend."""
        return self.plan.budget - self.account.spent - self._reserved

    def affords(self, trainings: float, *, spare_decay: bool = True) -> bool:
        """Whether so many run-equivalents are left for this stage; without `spare_decay`, also at the cost of
        the decay stage: a schedule at a wrong lr says nothing.
        """
        left = self.left
        if not spare_decay:
            left = self.plan.budget - self.account.spent - self.plan.kept_for_later("decay")
        return trainings <= left + 1e-9

    def run(
        self,
        lrs: Iterable[float],
        schedule: Mapping[str, Any],
        seeds: Iterable[int],
        *,
        share: float = 1.0,
        optimizer: str | None = None,
        again: int = 0,
    ) -> list[TrialResult]:
        """Train at every lr with every seed, for a `share` of the full length.

        Raises StudyError where a third of the stage's trials raised, and more than one.
        """
        seeds = list(seeds)
        steps = max(1, round(share * self.account.total_steps))
        specs = [
            TrialSpec(
                stage=self.name,
                lr=lr,
                schedule=schedule,
                seed=seed,
                steps=steps,
                log_every=self.plan.recorded_every(steps),
                optimizer=optimizer,
                again=again,
            )
            for lr in lrs
            for seed in seeds
        ]
        planned = len(self.trials) + len(specs)
        return [self._run(spec, planned) for spec in specs]

    def result(self, **found: Any) -> StageResult:
        """The stage as it ended."""
        return StageResult(self.name, tuple(self.trials), self.cost, found)

    def _run(self, spec: TrialSpec, planned: int) -> TrialResult:
        result = self.executor.run(spec, len(self.trials))
        self.trials.append(result)
        self.cost += self.account.book(result)
        failed = list({t.spec.key: t for t in self.trials if t.status == "failed"}.values())
        if len(failed) > 1 and len(failed) * _FAILED_SHARE >= planned:
            last = failed[-1]
            lines = (last.error or "").strip().splitlines()
            raise StudyError(
                f"stage {self.name}: {len(failed)} of {len(self.trials)} trials raised, the last at lr "
                f"{last.spec.lr:.3g} with {last.cause}: {lines[-1] if lines else 'no message'}"
            )
        return result


def readable(lr: float) -> float:
    """An lr of three significant digits: nothing is lost that could be told from noise."""
    return float(f"{lr:.3g}")
