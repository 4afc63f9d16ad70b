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
    losses: list[float] = (2.3 * np.exp(-np.arange(steps) / 100) + noise).tolist()
    return losses


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


def test_a_training_at_too_low_an_lr_scatters_around_its_start_and_has_not_diverged() -> None:
    for seed in range(200):
        losses = np.random.default_rng(seed).normal(2.3, 0.1, 400).tolist()
        assert verdict(losses) is None, seed


def test_a_noisy_training_far_above_its_start_has_diverged() -> None:
    rng = np.random.default_rng(0)
    losses = rng.normal(2.3, 0.1, 100).tolist() + rng.normal(4.0, 0.3, 300).tolist()
    assert verdict(losses) is not None


@pytest.mark.parametrize("offset", [-100.0, 100.0])
def test_an_offset_changes_nothing(offset: float) -> None:
    died = [*falling()[:200], *[2.4] * 200]
    assert verdict([loss + offset for loss in falling()]) is None
    assert verdict([loss + offset for loss in died]) is not None


def test_a_latest_loss_below_the_start_only_delays_the_finding() -> None:
    losses = [1.0] * 41 + [2.0] * 30 + [0.9, *[2.0] * 19] * 17
    assert verdict(losses) is not None
