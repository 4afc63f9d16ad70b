"""Curves of range tests, one a verdict and more, and what they suggest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lrsearch.core.curve import RangeTestCurve
from lrsearch.core.suggest import combine, suggest
from lrsearch.core.suggestion import Suggestion
from tests.core.curves import (
    default_lrs,
    falling_losses,
    nan_tail,
    noise,
    rising_losses,
    u_curve,
)

LRS = default_lrs()


def _curve(losses: np.ndarray, **facts: int | str) -> RangeTestCurve:
    return RangeTestCurve(LRS, np.asarray(losses, dtype=float), **facts)  # type: ignore[arg-type]


CURVES: dict[str, tuple[RangeTestCurve, ...]] = {
    "ok": (u_curve(),),
    "ok, noisy": (u_curve(400, sd=0.05),),
    "ok, three seeds": tuple(replace(u_curve(200, 0.05, seed), seed=seed) for seed in range(3)),
    "ok, NaN tail": (nan_tail(),),
    "never_diverged": (_curve(falling_losses(LRS)),),
    "flat": (_curve(np.full(100, 2.3) + noise(100, 0.01)),),
    "constant": (_curve(np.full(100, 2.3)),),
    "only_rising": (_curve(rising_losses(LRS)),),
    "too_few_points": (_curve(falling_losses(LRS)[:12]),),
    "one point": (_curve(np.array([2.3]), stopped_at=2, stop_reason="not_finite"),),
    "negative": (_curve(u_curve().losses - 10),),
    "explosion": (_curve(np.where(np.arange(100) > 90, 1e30, u_curve().losses)),),
}


def suggestion_of(curves: tuple[RangeTestCurve, ...]) -> Suggestion:
    return combine([suggest(curve) for curve in curves])
