"""One stage at work: what it may still spend, its trials, and what they say of the lr."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from lrsearch.core.answer import StageResult
from lrsearch.core.budget import Budget
from lrsearch.core.executor import Executor
from lrsearch.core.findings import Findings
from lrsearch.core.study_plan import StageName
from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.errors import StudyError

_FAILED_SHARE = 3
"""A stage of which one in so many trials raise has a broken task, not a bad lr."""


class Stage:
    """Runs the trainings of one stage within what the plan leaves it."""

    def __init__(self, name: StageName, budget: Budget, executor: Executor) -> None:
        self.name = name
        self.plan = budget.plan
        self.exact = executor.exact
        self.trials: list[TrialResult] = []
        self.cost = 0.0
        self._budget = budget
        self._executor = executor

    @property
    def left(self) -> float:
        """Run-equivalents that this stage may still spend."""
        return self._budget.left_for(self.name)

    def affords(self, trainings: float, *, spare_decay: bool = True) -> bool:
        """Whether so many run-equivalents are left for this stage; without `spare_decay`, also at the cost of
        the fine and the decay stage: a schedule at a wrong lr says nothing.
        """
        left = self.left if spare_decay else self._budget.left_for("decay")
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
        steps = max(1, round(share * self._budget.total_steps))
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
        running: deque[Future[TrialResult]] = deque()
        done = []
        try:
            for spec in specs:
                if len(running) == self._executor.slots:
                    done.append(self._take(running.popleft().result(), planned))
                running.append(self._executor.submit(spec))
            while running:
                done.append(self._take(running.popleft().result(), planned))
        finally:
            for future in running:  # the study ends here: what has not begun is not to begin
                future.cancel()
        return done

    def result(self, found: Findings) -> StageResult:
        """The stage as it ended."""
        return StageResult(self.name, tuple(self.trials), self.cost, found)

    def _take(self, result: TrialResult, planned: int) -> TrialResult:
        self.trials.append(result)
        self.cost += self._budget.book(result)
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
