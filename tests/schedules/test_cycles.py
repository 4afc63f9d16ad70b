"""Schedules that rise again, against their formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from lrsearch.schedules import (
    CosineRestarts,
    Cyclic,
    OneCycle,
    Schedule,
)
from tests.schedules.playing import PEAK, Formula, follows


def restarts(n: int, _: int) -> float:  # cycles of 15, 30 and 60 updates: 100 / 7, rounded up
    start, length = (0, 15) if n < 15 else (15, 30) if n < 45 else (45, 60)
    return 0.5 * (1 + math.cos(math.pi * (n - start) / length))


def triangle(n: int, steps: int) -> tuple[int, float]:
    """Which of four triangles from update 0 to the last, and the height in it."""
    place = 4 * n / (steps - 1)
    cycle = min(int(place), 3)
    inside = place - cycle
    return cycle, 2 * inside if inside < 0.5 else 2 - 2 * inside


def triangular(n: int, steps: int) -> float:
    return 0.25 + 0.75 * triangle(n, steps)[1]


def triangular2(n: int, steps: int) -> float:
    cycle, height = triangle(n, steps)
    return 0.25 + 0.75 * height / 2.0**cycle


def exp_range(n: int, steps: int) -> float:
    return float(0.25 + 0.75 * triangle(n, steps)[1] * 0.1 ** (n / (steps - 1)))


def one_cycle(n: int, _: int) -> float:  # up over updates 0 … 29, down over 29 … 99
    low, p = (0.04, n / 29) if n <= 29 else (4e-6, 1 - (n - 29) / 70)
    return low + (1 - low) * (1 - math.cos(math.pi * p)) / 2


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (Cyclic(), triangular),
        (Cyclic(mode="triangular2"), triangular2),
        (Cyclic(mode="exp_range"), exp_range),
        (OneCycle(), one_cycle),
        (CosineRestarts(3, 2), restarts),
    ],
    ids=lambda value: repr(value) if isinstance(value, Schedule) else "",
)
def test_each_update_follows_the_formula(schedule: Schedule, formula: Formula) -> None:
    follows(schedule, formula)


def test_warm_restarts_come_at_equal_fractions_to_within_the_rounding_of_the_first_cycle() -> None:
    restarts = [
        np.flatnonzero(np.diff(CosineRestarts(3, 2).curve(1.0, steps)) > 0.5) + 1 for steps in (200, 2000)
    ]
    assert restarts[0].tolist() == [29, 87]  # 200 / 7, rounded up, and three times that
    assert restarts[1].tolist() == [286, 858]


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize("steps", [50, 97, 400])
def test_cyclic_starts_and_ends_on_a_trough_at_a_quarter_of_the_peak(mode: Any, steps: int) -> None:
    curve = Cyclic(mode=mode).curve(PEAK, steps)
    np.testing.assert_allclose(curve[[0, -1]], PEAK / 4, rtol=1e-9)


def test_one_cycle_reaches_the_peak_also_on_the_shortest_horizon() -> None:
    np.testing.assert_allclose(OneCycle().curve(1.0, 3), [0.04, 1.0, 4e-6], rtol=1e-9)
