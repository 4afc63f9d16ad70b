"""Decays against their formulas, update by update."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from lrsearch.schedules import (
    Constant,
    Cosine,
    Exponential,
    InverseTime,
    Linear,
    Multiplicative,
    MultiStep,
    Polynomial,
    Schedule,
    Step,
    TimeBased,
)
from tests.schedules.playing import PEAK, Formula, built, follows, per_epoch


def exponential(n: int, steps: int) -> float:
    return math.exp(math.log(0.02) / steps * n)


def step_drops(n: int, _: int) -> float:
    return float(0.5 ** (n // 25))


def multi_step_drops(n: int, _: int) -> float:
    return 1.0 if n < 30 else 0.2 if n < 55 else 0.04


def inverse_time(n: int, steps: int) -> float:
    return 1 / (1 + (1 / 0.05 - 1) / steps * n)


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (Constant(), lambda n, steps: 1.0),
        (Step(0.25, 0.5), step_drops),
        (MultiStep((0.3, 0.55), 0.2), multi_step_drops),
        (Exponential(0.02), exponential),
        (InverseTime(0.05), inverse_time),
        (Multiplicative(0.02), exponential),
        (Polynomial(2.5), lambda n, steps: float((1 - n / steps) ** 2.5)),
        (Cosine(), lambda n, steps: 0.5 * (1 + math.cos(math.pi * n / steps))),
        (Linear(), lambda n, steps: 1 - n / steps),
    ],
    ids=lambda value: repr(value) if isinstance(value, Schedule) else "",
)
def test_each_update_follows_the_formula(schedule: Schedule, formula: Formula) -> None:
    follows(schedule, formula)


def test_time_based_divides_by_one_plus_d_n_and_ends_at_final() -> None:
    lr = built(TimeBased(0.1), 100)[:, 0]
    d = lr[1] / lr[2] - 1  # eta_2 = eta_1 / (1 + d)
    eta = [PEAK]
    for n in range(100):
        eta.append(eta[-1] / (1 + d * n))
    np.testing.assert_allclose(lr, eta[:-1], rtol=1e-9)
    assert eta[-1] == pytest.approx(0.1 * PEAK, rel=1e-9)


@pytest.mark.parametrize("final", [1e-6, 0.01, 0.999])
@pytest.mark.parametrize("steps", [2, 3, 10_000])
def test_time_based_reaches_final_at_any_horizon(final: float, steps: int) -> None:
    ratios = TimeBased(final).curve(1.0, steps)
    d = ratios[1] / ratios[2] - 1 if steps > 2 else 1 / final - 1
    assert ratios[-1] / (1 + d * (steps - 1)) == pytest.approx(final, rel=1e-6)


@pytest.mark.parametrize(
    ("schedule", "torchs"),
    [
        (Step(0.3, 0.2), lambda optimizer: lr_scheduler.StepLR(optimizer, 3, 0.2)),
        (Step(0.27, 0.2), lambda optimizer: lr_scheduler.StepLR(optimizer, 3, 0.2)),
        (MultiStep((0.42, 0.78), 0.2), lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [4, 8], 0.2)),
        (Multiplicative(0.01), lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.01**0.1)),
        (
            Multiplicative(0.01),
            lambda optimizer: lr_scheduler.MultiplicativeLR(optimizer, lambda _: 0.01**0.1),
        ),
    ],
)
def test_drops_fall_on_epoch_ends_where_the_epochs_are_known(
    schedule: Schedule, torchs: Callable[[Optimizer], LRScheduler]
) -> None:
    np.testing.assert_allclose(built(schedule, 70, 7), per_epoch(torchs, 10, 7), rtol=1e-9)


def test_a_drop_nearer_to_the_end_than_to_an_epoch_end_is_not_lost() -> None:
    curve = MultiStep((0.5, 0.9), 0.1).curve(1.0, 20, 10)
    assert np.flatnonzero(np.diff(curve)).tolist() == [9, 17]
