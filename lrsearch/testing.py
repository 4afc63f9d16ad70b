"""Conformance suites for what others add: schedule families, executors, observers. To be run by pytest.

Derive a test class from a suite and say what is to be tested; it is put through every test::

    class TestMyDecay(ScheduleSuite):
        schedules = (MyDecay(), MyDecay(power=3.0), Warmup(MyDecay()))

    class TestMyExecutor(ExecutorSuite):
        def make(self) -> Executor:
            return MyExecutor(task)

A family made of a function stands under its name, ``FAMILIES["my_decay"]()``.
"""

from __future__ import annotations

import copy
import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any, ClassVar

import numpy as np
import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lrsearch.core.answer import StageResult
from lrsearch.core.budget import Budget
from lrsearch.core.confirm import Confirmed
from lrsearch.core.executor import Executor
from lrsearch.core.findings import (
    Bracket,
    CoarseFindings,
    ConfirmFindings,
    DecayFindings,
    FineFindings,
    RankedSchedule,
    SweepFindings,
)
from lrsearch.core.observer import Observer
from lrsearch.core.presets import load_plan
from lrsearch.core.procedure import run_stages
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.trial import MetricSummary, TrialResult, TrialSpec
from lrsearch.schedules import Schedule, schedule_from_dict
from lrsearch.schedules.base import FloatArray
from lrsearch.training.schedulers import build

PEAKS = (0.3, 0.03)
"""The lrs of the two param groups on which schedules are tried."""


def make_optimizer(kind: type[Optimizer] = SGD, **settings: Any) -> Optimizer:
    """An optimizer of two param groups, whose lrs are `PEAKS`."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in PEAKS]
    make: Any = kind
    made: Optimizer = make(groups, lr=1.0, **settings)
    return made


def play(optimizer: Optimizer, scheduler: LRScheduler, steps: int) -> FloatArray:
    """The lr of every update and group, shape (steps, groups), in the order of calls that is documented."""
    used = []
    for _ in range(steps):
        used.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return np.array(used)


class ScheduleSuite:
    """What every schedule must keep to: derive from it, and name the `schedules` to be tested.

    Each is tried over `horizons`, pairs of updates and of updates in an epoch (None: not known); those that
    are too short for it are left out. Two tests are of 40 and of 400 updates.
    """

    schedules: ClassVar[Sequence[Schedule]] = ()
    horizons: ClassVar[Sequence[tuple[int, int | None]]] = (
        *((4, None), (7, 2), (60, 6), (60, None), (97, 10), (400, None)),
    )

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Let pytest run every test with each of the schedules."""
        if "schedule" in metafunc.fixturenames:
            metafunc.parametrize("schedule", self.schedules, ids=repr)

    def test_the_curve_has_a_ratio_an_update(self, schedule: Schedule) -> None:
        """The curve is of shape (steps,), finite, never above the peak and never below 0."""
        for steps, epoch in self._horizons(schedule):
            curve = schedule.curve(PEAKS[0], steps, epoch)
            np.testing.assert_equal(curve.shape, (steps,))
            np.testing.assert_array_equal(np.isfinite(curve), True)
            np.testing.assert_array_less(-1e-300, curve)
            np.testing.assert_array_less(curve, PEAKS[0] * (1 + 1e-9))

    def test_the_curve_scales_with_the_peak(self, schedule: Schedule) -> None:
        """Twice the peak is twice the lr at every update."""
        for steps, epoch in self._horizons(schedule):
            one, two = schedule.curve(0.1, steps, epoch), schedule.curve(0.2, steps, epoch)
            np.testing.assert_allclose(2 * one, two, rtol=1e-12)

    def test_the_shape_is_the_same_at_another_horizon(self, schedule: Schedule) -> None:
        """A training ten times as long has the same lr at equal n/T, moved by at most 1% of the training."""
        for steps, epoch in ((400, None), (400, 40)):
            short = schedule.curve(1.0, steps, epoch)
            long = schedule.curve(1.0, 10 * steps, epoch and 10 * epoch)
            at, reach = 10 * np.arange(steps), steps // 10
            near = [long[max(0, n - reach) : n + reach + 1] for n in at.tolist()]
            lowest, highest = (np.array([extreme(part) for part in near]) for extreme in (np.min, np.max))
            np.testing.assert_array_less(lowest - 5e-3, short)
            np.testing.assert_array_less(short, highest + 5e-3)

    def test_json_and_back_is_the_same_schedule(self, schedule: Schedule) -> None:
        """What a study records of it makes an equal schedule."""
        text = json.dumps(schedule.to_dict(), allow_nan=False)
        np.testing.assert_equal(schedule_from_dict(json.loads(text)), schedule)

    def test_the_built_scheduler_yields_the_curve(self, schedule: Schedule) -> None:
        """The torch scheduler gives every param group the curve, at the group's own peak."""
        for steps, epoch in self._horizons(schedule):
            got = self._built(schedule, steps, epoch)
            expected = schedule.curve(1.0, steps, epoch)[:, None] * np.array(PEAKS)
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-15)

    def test_the_code_yields_what_is_built(self, schedule: Schedule) -> None:
        """The lines to paste run by themselves and give the same lrs; they name the peak."""
        for steps, epoch in self._horizons(schedule):
            names: dict[str, Any] = {"optimizer": make_optimizer()}
            code = schedule.code(PEAKS[0], steps, epoch)
            np.testing.assert_equal("lr=0.3" in code, True)
            exec(code, names)
            if not isinstance(names["scheduler"], ReduceLROnPlateau):  # that one is stepped with a validation
                got = play(names["optimizer"], names["scheduler"], steps)
                np.testing.assert_allclose(got, self._built(schedule, steps, epoch), rtol=1e-12)

    def test_a_saved_state_goes_on_where_it_was(self, schedule: Schedule) -> None:
        """A training that is resumed from a checkpoint sees the lrs that it would have seen."""
        optimizer = make_optimizer()
        scheduler = build(schedule, optimizer, 40)
        play(optimizer, scheduler, 17)
        file = io.BytesIO()
        torch.save((optimizer.state_dict(), scheduler.state_dict()), file)
        file.seek(0)
        optimizer_state, scheduler_state = torch.load(file, weights_only=True)
        again = make_optimizer()
        resumed = build(schedule, again, 40)
        again.load_state_dict(optimizer_state)
        resumed.load_state_dict(scheduler_state)
        np.testing.assert_array_equal(play(again, resumed, 23), play(optimizer, scheduler, 23))

    def _horizons(self, schedule: Schedule) -> list[tuple[int, int | None]]:
        return [horizon for horizon in self.horizons if horizon[0] >= schedule.min_steps]

    def _built(self, schedule: Schedule, steps: int, epoch: int | None) -> FloatArray:
        optimizer = make_optimizer()
        return play(optimizer, build(schedule, optimizer, steps, epoch), steps)


class ExecutorSuite(ABC):
    """What every executor must keep to: derive from it, and `make` one.

    It is asked for trainings of a few `steps` at `lrs` that train, and for all that the stages of a `plan`
    between the lrs of a `bracket` ask for.
    """

    lrs: ClassVar[Sequence[float]] = (0.01, 0.03, 0.1)
    steps: ClassVar[int] = 20
    bracket: ClassVar[Bracket] = Bracket(0.004, 0.5)
    plan: ClassVar[StudyPlan] = load_plan("quick")

    @abstractmethod
    def make(self) -> Executor:
        """Return a new executor, which has trained nothing yet."""

    def test_it_says_how_many_it_runs_at_once(self) -> None:
        """At least one."""
        np.testing.assert_array_less(0, self.make().slots)

    def test_a_result_is_that_of_its_spec(self) -> None:
        """It says how the training went, in finite numbers, and passes between processes and through JSON."""
        for spec, result in zip(self._specs(), self._results(self.make()), strict=True):
            np.testing.assert_equal(result.spec, spec)
            np.testing.assert_equal(result.status in ("complete", "diverged", "failed"), True)
            np.testing.assert_equal(0 <= result.steps_done <= spec.steps, True)
            values = [v for m in result.metrics.values() for v in (m.first, m.final, m.low, m.high)]
            np.testing.assert_equal(all(map(math.isfinite, values)), True)
            ForkingPickler.dumps(result)
            np.testing.assert_equal(TrialResult.from_dict(json.loads(json.dumps(result.to_dict()))), result)

    def test_the_same_spec_gives_the_same_result(self) -> None:
        """Asked for again; of an exact executor, also where it is trained again."""
        one = self.make()
        first, again = self._results(one), self._results(one)
        np.testing.assert_equal([_plain(r) for r in again], [_plain(r) for r in first])
        if one.exact:
            anew = self._results(self.make())
            np.testing.assert_equal([_plain(r) for r in anew], [_plain(r) for r in first])

    def test_as_many_as_it_has_slots_may_wait_for_their_results(self) -> None:
        """Their results are the same, in whatever order they are asked for."""
        executor = self.make()
        specs = self._specs()[: executor.slots]
        futures = [executor.submit(spec) for spec in specs]
        results = [future.result() for future in reversed(futures)]
        np.testing.assert_equal([result.spec for result in results], specs[::-1])

    def test_the_stages_come_to_an_end_and_decide_the_same_again(self) -> None:
        """A study that is resumed asks its executor for everything once more."""
        one = self.make()
        first, again = self._decide(one), self._decide(one)
        np.testing.assert_equal(again.decision, first.decision)

    def _specs(self) -> list[TrialSpec]:
        constant = {"name": "constant"}
        return [TrialSpec("coarse", lr, constant, seed, self.steps) for lr in self.lrs for seed in (0, 1)]

    def _results(self, executor: Executor) -> list[TrialResult]:
        return [executor.submit(spec).result() for spec in self._specs()]

    def _decide(self, executor: Executor) -> Confirmed:
        budget = Budget(self.plan.with_changes(baseline=False), self.steps)

        def middle(_: object, low: float, high: float) -> float:
            return math.sqrt(low * high)

        return run_stages(budget, executor, middle, self.bracket, Observer())[1]


def _plain(result: TrialResult) -> dict[str, Any]:
    """A result without the time it took."""
    return {**result.to_dict(), "seconds": None}


class ObserverSuite(ABC):
    """What every observer must keep to: derive from it, and `make` one.

    It is told of studies that begin anew, that are resumed, and that are cut short.
    """

    @abstractmethod
    def make(self) -> Observer:
        """Return a new observer."""

    def test_it_takes_a_whole_study(self) -> None:
        """Every event, in the order in which they come, and nothing that it is told is changed."""
        observer = self.make()
        info, spec = {"model": "Linear"}, TrialSpec("coarse", 0.1, {"name": "constant"}, 0, 2)
        before = copy.deepcopy((info, spec))
        observer.stage_begins("range-test")
        observer.sweep_begins(0, 2, info)
        observer.sweep_step(0, 1, 1e-7, 2.3)
        observer.sweep_step(0, 2, 10.0, 2.4)
        observer.stage_ends(StageResult("range-test", (), 1.0, SweepFindings(None, None, "flat", "flat")))
        observer.stage_begins("coarse")
        observer.trial_begins(spec, 0)
        observer.trial_step(1)
        observer.trial_step(2)
        metric = MetricSummary(2.3, 2.0, 2.0, 2.3, 2)
        trial = TrialResult(spec, "complete", 2, 0.1, 2.3, {"val/loss": metric})
        observer.trial_ends(trial)
        found = CoarseFindings(0.1, None, needs_warmup=False, runs_differ=None)
        observer.stage_ends(StageResult("coarse", (trial,), 1.0, found))
        observer.stage_begins("fine")
        observer.stage_ends(StageResult("fine", (), 0.0, FineFindings(0.1, None)))
        observer.stage_begins("decay")
        observer.stage_ends(StageResult("decay", (), 0.0, DecayFindings((RankedSchedule("linear", 0.1),))))
        observer.stage_begins("confirm")
        observer.stage_ends(StageResult("confirm", (), 0.0, ConfirmFindings("constant at 0.1", "it is")))
        np.testing.assert_equal((info, spec), before)

    def test_it_takes_a_resumed_study(self) -> None:
        """What is on record is told at its end alone."""
        observer = self.make()
        spec = TrialSpec("coarse", 0.1, {"name": "constant"}, 0, 2)
        observer.stage_begins("range-test")
        observer.stage_ends(StageResult("range-test", (), 1.0, SweepFindings(None, None, "flat", "flat")))
        observer.stage_begins("coarse")
        observer.trial_ends(TrialResult(spec, "diverged", 1, 0.1, 2.3, cause="not_finite"))

    def test_it_takes_failures(self) -> None:
        """A training that raised."""
        observer = self.make()
        spec = TrialSpec("decay", 0.1, {"name": "linear"}, 0, 2)
        failed = TrialResult(spec, "failed", 0, 0.1, cause="ValueError", error="ValueError: no")
        observer.stage_begins("decay")
        observer.trial_begins(spec, 0)
        observer.trial_ends(failed)
        observer.stage_ends(StageResult("decay", (failed,), 0.0, DecayFindings(())))
