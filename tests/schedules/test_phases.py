"""A warmup in front of another schedule, and warmup-stable-decay."""

from __future__ import annotations

import numpy as np
import pytest

from lrsearch.schedules import (
    WSD,
    Linear,
    OneCycle,
    Schedule,
    Warmup,
)
from tests.schedules.playing import INNER, PEAK, Formula, follows


def wsd(n: int, _: int) -> float:
    if n < 10:
        return 0.01 + 0.99 * n / 10
    return 1.0 if n < 75 else (100 - n) / 25


def warm_linear(n: int, _: int) -> float:
    return 0.01 + 0.99 * n / 20 if n < 20 else 1 - (n - 20) / 80


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (WSD(0.1, 0.25), wsd),
        (Warmup(Linear(), 0.2), warm_linear),
    ],
    ids=lambda value: repr(value) if isinstance(value, Schedule) else "",
)
def test_each_update_follows_the_formula(schedule: Schedule, formula: Formula) -> None:
    follows(schedule, formula)


@pytest.mark.parametrize("schedule", [OneCycle(), WSD(), *(Warmup(inner) for inner in INNER)], ids=repr)
@pytest.mark.parametrize("steps", [4, 5, 100])
def test_schedules_with_a_rise_start_below_the_peak(schedule: Schedule, steps: int) -> None:
    assert schedule.curve(PEAK, steps)[0] <= 0.05 * PEAK


@pytest.mark.parametrize("inner", INNER, ids=repr)
def test_warmup_is_followed_by_the_inner_schedule(inner: Schedule) -> None:
    expected = WSD(0.0, 0.2) if inner.name == "wsd" else inner
    curve = Warmup(inner, 0.2).curve(PEAK, 100)
    np.testing.assert_allclose(curve[20:], expected.curve(PEAK, 80), rtol=1e-12)
    assert np.all(np.diff(curve[:21]) > 0)
