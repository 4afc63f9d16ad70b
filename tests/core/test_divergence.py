"""Divergence: what is one, and what is not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lrsearch.core.divergence import DivergenceMonitor


def verdict(losses: list[float]) -> str | None:
    monitor = DivergenceMonitor(len(losses))
    return next((reason for reason in map(monitor, losses) if reason), None)


def falling(steps: int = 400) -> list[float]:
    noise = np.random.default_rng(0).normal(0, 0.05, steps)
    return (2.3 * np.exp(-np.arange(steps) / 100) + noise).tolist()


def test_a_falling_loss_has_not_diverged() -> None:
    assert verdict(falling()) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_names_its_step(value: float) -> None:
    losses = falling()
    losses[123] = value
    assert verdict(losses) == "the loss of step 124 is not finite"


def test_a_network_that_died_is_found_within_one_window() -> None:
    losses = falling()
    losses[200:] = [2.4] * 200
    monitor = DivergenceMonitor(400)
    found = next(step for step, loss in enumerate(losses, start=1) if monitor(loss))
    assert 200 < found <= 200 + 20


def test_a_spike_that_recovers_is_no_divergence() -> None:
    losses = falling()
    losses[200:209] = [50.0] * 9  # under half of a window of 20
    assert verdict(losses) is None


def test_the_first_tenth_may_rise() -> None:
    losses = falling()
    losses[1:40] = [9.0] * 39
    assert verdict(losses) is None


@pytest.mark.parametrize("offset", [-100.0, 100.0])
def test_an_offset_changes_nothing(offset: float) -> None:
    died = [*falling()[:200], *[2.4] * 200]
    assert verdict([loss + offset for loss in falling()]) is None
    assert verdict([loss + offset for loss in died]) is not None


def test_the_latest_loss_cannot_hide_a_median_above_the_start() -> None:
    # Two thirds of the losses are above the start: the median is found at one of those.
    losses = [1.0] * 40 + [2.0, 2.0, 0.5] * 120
    assert verdict(losses) is not None
