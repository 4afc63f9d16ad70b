"""Synthetic curves with known walls, 1e-7 … 10 unless told otherwise."""

from __future__ import annotations

import numpy as np

from lrsearch.core.curve import Array, RangeTestCurve
from lrsearch.schedules.sweep import sweep_lrs

FALL, WALL = 10**-2.5, 10**-0.3
"""Where the clean U has lost half of its height, and where it climbs again."""


def default_lrs(steps: int = 100) -> Array:
    return sweep_lrs(1e-7, 10.0, steps)


def noise(steps: int, sd: float, seed: int = 0) -> Array:
    return sd * np.random.default_rng(seed).standard_normal(steps)


def u_losses(lrs: Array, fall: float = FALL, wall: float = WALL) -> Array:
    """From 2.3 down to 0.4 around the lr `fall`, and steeply up from the lr `wall` on."""
    return falling_losses(lrs, fall) + 0.5 * np.minimum(lrs / wall, 1e3) ** 3


def falling_losses(lrs: Array, fall: float = FALL) -> Array:
    return np.asarray(2.3 - 1.9 / (1 + (fall / lrs) ** 1.7))


def rising_losses(lrs: Array) -> Array:
    return 2.3 + lrs


def u_curve(steps: int = 100, sd: float = 0.0, seed: int = 0) -> RangeTestCurve:
    lrs = default_lrs(steps)
    return RangeTestCurve(lrs, u_losses(lrs) + noise(steps, sd, seed))


def nan_tail(kept: int = 78) -> RangeTestCurve:
    """The clean U whose loss is NaN from step `kept` + 1 on, before anything rose."""
    lrs = default_lrs()
    return RangeTestCurve(lrs, u_losses(lrs)[:kept], stopped_at=kept + 1, stop_reason="not_finite")
