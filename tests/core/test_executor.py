"""The executors that the stages are tried with keep to what is asked of one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from lrsearch.core.executor import Executor
from lrsearch.core.observer import Observer
from lrsearch.core.presets import load_plan
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.testing import ExecutorSuite, ObserverSuite
from tests.core.synthetic import Synthetic, study


class Pooled:
    """Several trainings at once."""

    exact = True
    slots = 3

    def __init__(self, inner: Synthetic) -> None:
        self._inner = inner
        self._pool = ThreadPoolExecutor(self.slots)

    def submit(self, spec: TrialSpec) -> Future[TrialResult]:
        return self._pool.submit(self._inner.run, spec)


class TestImmediate(ExecutorSuite):
    def make(self) -> Executor:
        return Synthetic()


class TestPooled(ExecutorSuite):
    def make(self) -> Executor:
        return Pooled(Synthetic())


class TestObserver(ObserverSuite):
    def make(self) -> Observer:
        return Observer()


def test_several_at_once_decide_as_one_after_the_other() -> None:
    plan: StudyPlan = load_plan("default")
    one, three = study(Synthetic(), plan), study(Pooled(Synthetic()), plan)
    assert three.confirmed == one.confirmed
    assert three.stages == one.stages
