"""When a sweep ends by itself, and when it must not."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsearch.core.curve import Array, RangeTestCurve, smooth
from lrsearch.core.stopping import FourTimesRule, RiseRule, StopRule, make_stop_rule
from lrsearch.core.suggest import suggest
from lrsearch.schedules.sweep import sweep_lrs
from tests.core.curves import default_lrs, falling_losses, noise, u_losses

PROPERTY = settings(derandomize=True, deadline=None, max_examples=200)

LENGTHS = [100, 400, 1000]


def stopped_at(rule: StopRule, losses: Iterable[float]) -> int | None:
    """The step, counted from 1, at which the rule fires."""
    return next((step for step, loss in enumerate(losses, start=1) if rule(float(loss)) is not None), None)


@PROPERTY
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=80), st.sampled_from([0.0, 0.5, 0.98]))
def test_the_classic_rule_is_four_times_the_smoothed_minimum(losses: list[float], beta: float) -> None:
    smoothed = smooth(np.array(losses), beta)
    fires = [i for i in range(1, len(losses)) if smoothed[i] > 4 * smoothed[: i + 1].min()]
    assert stopped_at(FourTimesRule(beta), losses) == (fires[0] + 1 if fires else None)


@PROPERTY
@given(st.floats(-1e3, 0), st.lists(st.floats(-1e3, 1e3), max_size=80))
def test_the_classic_rule_never_fires_once_the_loss_was_not_positive(first: float, rest: list[float]) -> None:
    assert stopped_at(FourTimesRule(0.98), [first, *rest]) is None


@pytest.mark.parametrize("offset", [0.0, 100.0, -2.3, -10.0, -100.0])
@pytest.mark.parametrize("steps", LENGTHS)
def test_a_blow_up_ends_the_sweep_past_the_edge_whatever_the_offset(steps: int, offset: float) -> None:
    lrs = default_lrs(steps)
    losses = u_losses(lrs) + noise(steps, 0.05)
    edge = suggest(RangeTestCurve(lrs, losses)).bracket
    step = stopped_at(RiseRule(lrs), losses + offset)
    assert step == stopped_at(RiseRule(lrs), losses)
    assert edge is not None
    assert edge.high is not None
    assert step is not None
    assert edge.high < lrs[step - 1] < 5 * edge.high


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_unit_of_the_loss_does_not_move_the_stop(scale: float) -> None:
    lrs = default_lrs()
    losses = u_losses(lrs) + noise(100, 0.05)
    assert stopped_at(RiseRule(lrs), scale * losses) == stopped_at(RiseRule(lrs), losses)


@pytest.mark.parametrize("steps", LENGTHS)
def test_what_was_not_swept_would_not_have_changed_the_suggestion(steps: int) -> None:
    lrs = default_lrs(steps)
    for seed in range(5):
        losses = u_losses(lrs) + noise(steps, 0.1, seed)
        step = stopped_at(RiseRule(lrs), losses)
        assert step is not None
        cut = RangeTestCurve(lrs, losses[:step], stopped_at=step, stop_reason="rose")
        whole = suggest(RangeTestCurve(lrs, losses))
        assert (suggest(cut).lr, suggest(cut).bracket) == (whole.lr, whole.bracket)


@pytest.mark.parametrize(("regained", "stops"), [(1.5, False), (2.5, True)])
@pytest.mark.parametrize("offset", [0.0, -100.0])
def test_the_fall_must_be_regained_twice_over(regained: float, stops: bool, offset: float) -> None:
    fall = np.repeat([2.3, 0.3, 0.3 + regained * 2.0], [30, 30, 40])
    step = stopped_at(RiseRule(default_lrs()), fall + offset)
    assert (step is not None) == stops


QUIET: dict[str, Array] = {
    "a fall without end": falling_losses(default_lrs()),
    "a negative fall": falling_losses(default_lrs()) - 100,
    "a straight fall through zero": np.linspace(1, -1, 100),
    "a constant": np.full(100, 2.3),
    "a constant zero": np.zeros(100),
}


@pytest.mark.parametrize("losses", QUIET.values(), ids=QUIET.keys())
def test_no_rise_no_stop(losses: Array) -> None:
    assert stopped_at(RiseRule(default_lrs()), losses) is None


@pytest.mark.parametrize("spacing", ["log", "linear"])
def test_noise_alone_never_ends_a_sweep(spacing: str) -> None:
    lrs = sweep_lrs(1e-7, 10.0, 100, spacing)
    fired = [seed for seed in range(200) if stopped_at(RiseRule(lrs), 2.3 + noise(100, 0.1, seed))]
    assert fired == []


@pytest.mark.parametrize("at", [slice(0, 4), slice(12, 14), slice(30, 32)], ids=["start", "12", "30"])
def test_an_early_spike_that_recovers_does_not_end_the_sweep(at: slice) -> None:
    losses = falling_losses(default_lrs()) + noise(100, 0.05)
    losses[at] = 1e4
    assert stopped_at(RiseRule(default_lrs()), losses) is None


def test_a_spike_does_not_hide_the_blow_up_either() -> None:
    lrs = default_lrs()
    losses = u_losses(lrs) + noise(100, 0.05)
    usual = stopped_at(RiseRule(lrs), losses)
    losses[12:14] = 1e4
    assert stopped_at(RiseRule(lrs), losses) == usual


@pytest.mark.parametrize("spacing", ["log", "linear"])
def test_ten_thousand_steps_cost_less_than_a_second(spacing: str) -> None:
    rule = RiseRule(sweep_lrs(1e-7, 10.0, 10_000, spacing))
    losses = np.linspace(2, 1, 10_000).tolist()
    began = time.perf_counter()
    stopped_at(rule, losses)
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(("stop", "reason"), [("auto", "rose"), ("4x", "4x"), ("none", None)])
def test_each_rule_gives_its_own_reason(stop: str, reason: str | None) -> None:
    lrs = default_lrs()
    rule = make_stop_rule(stop, lrs, smoothing=0.9)
    reasons = [rule(loss) for loss in u_losses(lrs).tolist()]
    assert next((text for text in reasons if text), None) == reason
