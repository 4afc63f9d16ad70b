"""The two ways to smooth, and the record of a curve."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsearch.core.curve import Array, RangeTestCurve, smooth, windowed_median, windows
from lrsearch.schedules.sweep import sweep_lrs
from tests.core.curves import default_lrs, nan_tail, u_curve

PROPERTY = settings(derandomize=True, deadline=None, max_examples=100)

steps = st.integers(10, 1000)
low = st.floats(1e-9, 1e-1)
ratio = st.floats(1.5, 1e9)


@PROPERTY
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60), st.floats(0, 0.999))
def test_smoothing_is_the_weighted_mean_of_its_closed_formula(losses: list[float], beta: float) -> None:
    expected = []
    for i in range(len(losses)):
        weights = beta ** np.arange(i, -1, -1)
        expected.append(np.dot(weights, losses[: i + 1]) / weights.sum())
    np.testing.assert_allclose(smooth(np.array(losses), beta), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.98, 0.999])
def test_smoothing_leaves_a_constant_alone_from_its_first_point(beta: float) -> None:
    np.testing.assert_allclose(smooth(np.full(500, 2.3), beta), 2.3, rtol=1e-12)


def test_no_smoothing_gives_the_losses_back() -> None:
    losses = np.array([3.0, 1.0, 4.0, -1.0])
    np.testing.assert_array_equal(smooth(losses, 0.0), losses)


some_lrs = st.lists(st.floats(-9, 2), min_size=1, max_size=200, unique=True).map(
    lambda exponents: 10.0 ** np.sort(exponents)
)


@PROPERTY
@given(some_lrs)
def test_every_window_holds_its_own_lr_and_lies_in_the_sweep(lrs: Array) -> None:
    start, end = windows(lrs).T
    own = np.arange(len(lrs))
    assert np.all((start >= 0) & (start <= own) & (own < end) & (end <= len(lrs)))


@PROPERTY
@given(some_lrs)
def test_no_window_holds_fewer_than_five_points_where_there_are_five(lrs: Array) -> None:
    start, end = windows(lrs).T
    assert np.min(end - start) >= min(5, len(lrs))


@PROPERTY
@given(low, ratio, st.integers(10, 200), st.sampled_from(["log", "linear"]))
def test_a_window_holds_every_lr_within_an_eighth_of_a_decade(
    low: float, ratio: float, steps: int, spacing: str
) -> None:
    lrs = sweep_lrs(low, low * ratio, steps, spacing)
    for lr, (start, end) in zip(lrs, windows(lrs).tolist(), strict=True):
        near = np.flatnonzero(np.abs(np.log10(lrs / lr)) <= 0.125)
        assert start <= near[0] <= near[-1] < end


def test_a_window_of_a_long_sweep_is_a_quarter_of_a_decade_wide() -> None:
    lrs = default_lrs(1000)
    start, end = windows(lrs)[500]
    assert np.log10(lrs[end - 1] / lrs[start]) == pytest.approx(0.25, abs=0.01)


def test_a_windowed_median_outvotes_two_outliers() -> None:
    losses = np.full(100, 2.3)
    losses[[40, 41]] = 1e6
    np.testing.assert_array_equal(windowed_median(losses, windows(default_lrs())), np.full(100, 2.3))


CURVES = {
    "whole": u_curve(sd=0.1),
    "cut at a NaN": nan_tail(),
    "empty": RangeTestCurve(default_lrs(10), np.empty(0), stopped_at=1, stop_reason="not_finite"),
}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES.keys())
def test_a_curve_survives_json(curve: RangeTestCurve) -> None:
    written = json.dumps(curve.to_dict(), allow_nan=False)
    assert RangeTestCurve.from_dict(json.loads(written)) == curve


@pytest.mark.parametrize(
    "other",
    [
        RangeTestCurve(default_lrs(), u_curve().losses + 1e-9),
        RangeTestCurve(default_lrs() * 2, u_curve().losses),
        RangeTestCurve(default_lrs(), u_curve().losses, seed=1),
        RangeTestCurve(default_lrs(), u_curve().losses[:-1]),
        "a text",
    ],
    ids=["loss", "lr", "seed", "length", "kind"],
)
def test_curves_that_differ_are_not_equal(other: object) -> None:
    assert u_curve() != other


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES.keys())
def test_the_frame_has_one_row_a_recorded_loss(curve: RangeTestCurve) -> None:
    frame = curve.to_frame()
    assert list(frame) == ["step", "seed", "lr", "loss", "loss_smoothed", "loss_median"]
    assert frame["step"].tolist() == list(range(1, curve.steps + 1))
    assert frame["lr"].tolist() == curve.lrs[: curve.steps].tolist()
    assert frame["loss"].tolist() == curve.losses.tolist()


def test_the_lr_of_the_first_loss_that_is_not_finite_is_named() -> None:
    curve = nan_tail(kept=78)
    assert curve.lr_not_finite == curve.lrs[78]


@pytest.mark.parametrize(("stopped_at", "reason"), [(None, None), (79, "rose"), (79, "4x")])
def test_a_curve_of_finite_losses_names_no_such_lr(stopped_at: int | None, reason: str | None) -> None:
    curve = RangeTestCurve(default_lrs(), np.ones(79), stopped_at=stopped_at, stop_reason=reason)
    assert curve.lr_not_finite is None
