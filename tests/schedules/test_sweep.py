"""The range test's schedule uses both ends, and rises in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsearch.schedules import (
    Sweep,
)
from lrsearch.schedules.sweep import sweep_lrs
from lrsearch.testing import PEAKS, make_optimizer, play
from tests.schedules.playing import PEAK, built


@pytest.mark.parametrize("spacing", ["log", "linear"])
@pytest.mark.parametrize("steps", [2, 3, 100, 20_000])
def test_a_sweep_uses_both_ends(spacing: Any, steps: int) -> None:
    got = built(Sweep(PEAK / 1e6, PEAK, spacing), steps)[[0, -1]]
    np.testing.assert_allclose(got, [[PEAK / 1e6, PEAK / 1e7], [PEAK, PEAK / 10]], rtol=1e-12)


def test_a_log_sweep_multiplies_by_a_constant() -> None:
    got = built(Sweep(1e-6, 1.0), 31) / PEAK
    expected = [[1e-6 * 10 ** (i / 5), 1e-7 * 10 ** (i / 5)] for i in range(31)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_a_linear_sweep_adds_a_constant() -> None:
    got = built(Sweep(0.1, 0.7, "linear"), 4) * 0.7 / PEAK
    np.testing.assert_allclose(got, [[0.1, 0.01], [0.3, 0.03], [0.5, 0.05], [0.7, 0.07]], rtol=1e-12)


@pytest.mark.parametrize("spacing", ["log", "linear"])
def test_in_a_sweep_a_group_may_have_its_own_course_in_the_code_too(spacing: Any) -> None:
    course = Sweep(1e-4, 1.0, spacing).curve(1.0, 31) ** 0.5
    schedule = Sweep(1e-4, 1.0, spacing, (tuple(course.tolist()), (1.0,)))
    got = built(schedule, 31)
    expected = np.stack([PEAKS[0] * course, np.full(31, 0.03)])
    np.testing.assert_allclose(got, expected.T, rtol=1e-12)
    names: dict[str, Any] = {"optimizer": make_optimizer()}
    exec(schedule.code(PEAK, 31), names)
    np.testing.assert_allclose(play(names["optimizer"], names["scheduler"], 31), got, rtol=1e-12)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.floats(1e-9, 1e-2), st.floats(1.1, 1e9), st.sampled_from(["log", "linear"]), st.integers(2, 500))
def test_a_sweep_rises_from_end_to_end(low: float, factor: float, spacing: Any, steps: int) -> None:
    curve = Sweep(low, low * factor, spacing).curve(low * factor, steps)
    np.testing.assert_allclose(curve[[0, -1]], [low, low * factor], rtol=1e-12)
    assert np.all(np.diff(curve) > 0)


# Its learning rates, which a range test plans.

PROPERTY = settings(derandomize=True, deadline=None, max_examples=100, database=None)

steps = st.integers(10, 1000)
low = st.floats(1e-9, 1e-1)
ratio = st.floats(1.5, 1e9)


@PROPERTY
@given(low, ratio, steps, st.sampled_from(["log", "linear"]))
def test_a_sweep_starts_and_ends_exactly(low: float, ratio: float, steps: int, spacing: str) -> None:
    lrs = sweep_lrs(low, low * ratio, steps, spacing)
    assert (len(lrs), lrs[0]) == (steps, low)
    assert lrs[-1] == pytest.approx(low * ratio, rel=1e-12)


@PROPERTY
@given(low, ratio, steps)
def test_log_spacing_has_a_constant_ratio(low: float, ratio: float, steps: int) -> None:
    lrs = sweep_lrs(low, low * ratio, steps)
    np.testing.assert_allclose(lrs[1:] / lrs[:-1], ratio ** (1 / (steps - 1)), rtol=1e-12)


@PROPERTY
@given(low, ratio, steps)
def test_linear_spacing_has_a_constant_difference(low: float, ratio: float, steps: int) -> None:
    lrs = sweep_lrs(low, low * ratio, steps, "linear")
    difference = low * (ratio - 1) / (steps - 1)
    np.testing.assert_allclose(np.diff(lrs), difference, rtol=1e-9)
