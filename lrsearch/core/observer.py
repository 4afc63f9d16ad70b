"""What can be heard of a range test and of a study while they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrsearch.core.answer import StageResult
from lrsearch.core.study_plan import StageName
from lrsearch.core.trial import TrialResult, TrialSpec


class Observer:
    """Hears of a range test or a study as it runs; derive from it and override what you want to hear.

    The methods are called in the process that trains, between two updates: they should be quick.
    `lrsearch.testing.ObserverSuite` runs one through all of them.
    """

    def stage_begins(self, stage: StageName) -> None:
        """A stage begins."""

    def sweep_begins(self, seed: int, steps: int, model_info: Mapping[str, Any]) -> None:
        """A seed's sweep of at most `steps` updates begins; `model_info` says what is trained."""

    def sweep_step(self, seed: int, step: int, lr: float, loss: float) -> None:
        """Update `step` of a sweep gave a finite training loss at this lr."""

    def trial_begins(self, spec: TrialSpec, number: int) -> None:
        """A training begins; `number` counts within the stage, from 0."""

    def trial_step(self, step: int) -> None:
        """The training that runs has done so many updates; where several run at once, one of them."""

    def trial_ends(self, result: TrialResult) -> None:
        """A training has ended, or was found in the record."""

    def stage_ends(self, result: StageResult) -> None:
        """A stage has ended."""


class Observers(Observer):
    """Several observers as one."""

    def __init__(self, *each: Observer) -> None:
        self._each = each

    def stage_begins(self, stage: StageName) -> None:
        """Tell each."""
        for observer in self._each:
            observer.stage_begins(stage)

    def sweep_begins(self, seed: int, steps: int, model_info: Mapping[str, Any]) -> None:
        """Tell each."""
        for observer in self._each:
            observer.sweep_begins(seed, steps, model_info)

    def sweep_step(self, seed: int, step: int, lr: float, loss: float) -> None:
        """Tell each."""
        for observer in self._each:
            observer.sweep_step(seed, step, lr, loss)

    def trial_begins(self, spec: TrialSpec, number: int) -> None:
        """Tell each."""
        for observer in self._each:
            observer.trial_begins(spec, number)

    def trial_step(self, step: int) -> None:
        """Tell each."""
        for observer in self._each:
            observer.trial_step(step)

    def trial_ends(self, result: TrialResult) -> None:
        """Tell each."""
        for observer in self._each:
            observer.trial_ends(result)

    def stage_ends(self, result: StageResult) -> None:
        """Tell each."""
        for observer in self._each:
            observer.stage_ends(result)
