"""A conformance suite for schedule families of one's own, to be run by pytest.

Derive a test class from it and name the schedules; each is put through every test::

    class TestMyDecay(ScheduleSuite):
        schedules = (MyDecay(), MyDecay(power=3.0), Warmup(MyDecay()))

A family made of a function stands under its name, ``FAMILIES["my_decay"]()``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

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
    are too short for it are left out.
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
