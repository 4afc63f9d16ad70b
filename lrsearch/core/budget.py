"""What a study has spent, in run-equivalents."""

from __future__ import annotations

from lrsearch.core.study_plan import StageName, StudyPlan
from lrsearch.core.trial import TrialResult


class Budget:
    """What a study has spent, and what each of its stages may still spend.

    The unit is the run-equivalent: one full training. A training counts once, whichever stage asks for it.
    """

    def __init__(self, plan: StudyPlan, total_steps: int) -> None:
        self.plan = plan
        self.total_steps = total_steps
        self.spent = 0.0
        self._counted: set[str] = set()

    def book(self, result: TrialResult) -> float:
        """Count a training unless it was counted before, and return what it added."""
        if result.spec.key in self._counted:
            return 0.0
        self._counted.add(result.spec.key)
        return self.book_steps(result.steps_done)

    def book_steps(self, steps: int) -> float:
        """Count updates, and return what they added."""
        self.spent += steps / self.total_steps
        return steps / self.total_steps

    def left_for(self, stage: StageName) -> float:
        """Return what a stage may still spend: the rest, less what is kept for the stages after it."""
        return self.plan.budget - self.spent - self.plan.kept_for_later(stage)
