"""What the stages ask of whoever trains for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from lrsearch.core.response import Observation
from lrsearch.core.trial import TrialResult, TrialSpec

Propose = Callable[[Sequence[Observation], float, float], float]
"""Called as ``propose(observations, low, high)``: an lr worth trying between two others."""


class Executor(Protocol):
    """Runs trainings, and remembers those that have run already.

    `exact` says whether equal trainings give equal numbers, `slots` how many it runs at once. The same spec
    gives the same result, whenever it is asked for. `lrsearch.testing.ExecutorSuite` holds an executor to
    this.
    """

    exact: bool
    slots: int

    def submit(self, spec: TrialSpec) -> Future[TrialResult]:
        """Begin a training and return its result to be.

        A training that raises is no error: its result has the status ``failed``. What is to end the study is
        raised here, or by the future. Futures that the stages no longer wait for are cancelled.
        """


class ImmediateExecutor(ABC):
    """Runs every training in this process, as it is submitted."""

    exact: bool = True
    slots: int = 1

    @abstractmethod
    def run(self, spec: TrialSpec) -> TrialResult:
        """Run a training and return its result."""

    def submit(self, spec: TrialSpec) -> Future[TrialResult]:
        """Run a training and return its result as one that is there already."""
        future: Future[TrialResult] = Future()
        future.set_result(self.run(spec))
        return future
