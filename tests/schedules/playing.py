"""Schedules played on an optimizer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrsearch.schedules import BUILT_IN, FAMILIES, Schedule
from lrsearch.schedules.base import FloatArray
from lrsearch.testing import PEAKS, make_optimizer, play
from lrsearch.training.schedulers import build

PEAK = PEAKS[0]
INNER = [FAMILIES[name]() for name in BUILT_IN]

Formula = Callable[[int, int], float]


def built(schedule: Schedule, steps: int, epoch: int | None = None) -> FloatArray:
    """The lrs that the torch scheduler gives, shape (steps, groups)."""
    optimizer = make_optimizer()
    return play(optimizer, build(schedule, optimizer, steps, epoch), steps)


def follows(schedule: Schedule, formula: Formula) -> None:
    """Assert that each of 100 updates runs at the ratio that the formula has for n and T."""
    expected = [[lr * formula(n, 100) for lr in PEAKS] for n in range(100)]
    np.testing.assert_allclose(built(schedule, 100), expected, rtol=1e-9)


def per_epoch(scheduler: Callable[[Optimizer], LRScheduler], epochs: int, epoch: int) -> FloatArray:
    """What the scheduler does in a loop that steps it at epoch ends."""
    optimizer = make_optimizer()
    by_epoch = play(optimizer, scheduler(optimizer), epochs)
    return np.repeat(by_epoch, epoch, axis=0)
