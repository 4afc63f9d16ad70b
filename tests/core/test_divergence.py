"""When a training has diverged: real rises are found, noise, spikes and a slow start are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from lrsearch.core.divergence import DivergenceRule

Array = npt.NDArray[np.float64]
Noise = Callable[[np.random.Generator, int], Array]

NOISES: dict[str, Noise] = {
    "normal": lambda rng, n: rng.normal(2.3, 0.1, n),
    "normal around zero": lambda rng, n: rng.normal(0.0, 1.0, n),
    "skewed to the right": lambda rng, n: rng.exponential(1.0, n),
    "squared errors of single rows": lambda rng, n: rng.chisquare(1, n),
    "log-normal": lambda rng, n: rng.lognormal(0.0, 1.0, n),
    "skewed to the left": lambda rng, n: -rng.exponential(1.0, n),
}


def judge(losses: Array, every: int = 1) -> tuple[int, str] | None:
    """The step at which the rule stops and why, where every so many losses are reported."""
    rule = DivergenceRule(len(losses))
    for step in range(every, len(losses) + 1, every):
        reason = rule(step, float(losses[step - 1]))
        if reason is not None:
            return step, reason
    return None


def falling(steps: int, seed: int = 0) -> Array:
    """From 2.3 to 0.3 with noise."""
    rng = np.random.default_rng(seed)
    return 0.3 + 2.0 * np.exp(-5 * np.arange(steps) / steps) + rng.normal(0, 0.05, steps)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", [1, 2, 150])
def test_a_loss_that_is_not_finite_is_told_at_once(bad: float, step: int) -> None:
    losses = falling(200)
    losses[step - 1] = bad
    assert judge(losses) == (step, "not_finite")


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize("steps", [80, 400, 1600])
def test_a_training_that_learns_is_none(steps: int, every: int) -> None:
    assert judge(falling(steps), every) is None


@pytest.mark.parametrize("steps", [40, 400])
@pytest.mark.parametrize("noise", NOISES)
def test_a_training_that_stands_still_is_rarely_called_diverged(noise: str, steps: int) -> None:
    rng = np.random.default_rng(0)
    called = sum(judge(NOISES[noise](rng, steps)) is not None for _ in range(200))
    assert called <= 8


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("level", [2.4, 30.0])
def test_a_blow_up_that_settles_above_the_first_loss_is_found(level: float, every: int) -> None:
    losses = falling(400)
    losses[60:80] = np.linspace(2, 1000, 20)
    losses[80:] = level + np.random.default_rng(1).normal(0, 0.01, 320)
    found = judge(losses, every)
    assert found is not None
    assert found[1] == "loss_rose"
    assert 60 < found[0] <= 240


@pytest.mark.parametrize("steps", [120, 400])
def test_a_blow_up_that_goes_on_with_large_noise_is_found(steps: int) -> None:
    losses = np.random.default_rng(0).gamma(4.0, 5.0, steps)
    losses[0] = 2.3
    found = judge(losses)
    assert found is not None
    assert found[1] == "loss_rose"


@pytest.mark.parametrize("growth", [1.02, 1.1, 2.0])
def test_an_exponential_rise_is_found(growth: float) -> None:
    losses = growth ** np.arange(300)
    found = judge(np.minimum(losses, 1e300))
    assert found is not None
    assert found[1] == "loss_rose"
    assert found[0] <= 100


def test_a_rise_late_in_the_training_is_found() -> None:
    losses = falling(1000)
    losses[700:] += np.linspace(0, 20, 300)
    found = judge(losses)
    assert found is not None
    assert 700 < found[0] < 800


@pytest.mark.parametrize("at", [50, 200, 380])
def test_a_spike_that_recovers_is_none(at: int) -> None:
    losses = falling(400)
    losses[at : at + 8] = 1e4
    assert judge(losses) is None


def test_a_rise_within_the_first_tenth_is_none() -> None:
    losses = falling(400)
    losses[1:40] += 50
    assert judge(losses) is None


@pytest.mark.parametrize("offset", [-100.0, -2.0, 10.0])
def test_an_offset_hides_no_blow_up_that_settles(offset: float) -> None:
    losses = falling(400)
    losses[100:] = 5 + np.random.default_rng(1).normal(0, 0.1, 300)
    assert judge(losses + offset) == judge(losses)
    assert judge(losses) is not None


def test_losses_that_move_by_rounding_only_are_none() -> None:
    losses = np.full(400, 2.3025851)
    losses[40:] += 2.4e-7
    assert judge(losses) is None


def test_losses_too_large_to_be_added_are_no_error() -> None:
    assert judge(np.array([1.0, *[1e308, -1e308] * 50])) is None
