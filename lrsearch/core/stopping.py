"""When a sweep has seen enough: rules asked after every step."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lrsearch.core.curve import Array, RunningAverage, windows
from lrsearch.core.divergence import Divergence

_LEARN = 10
"""Losses that tell the level and the spread before the lr has done anything."""
_CHECKS = 200
"""The windowed rule is asked this often a sweep: often enough to stop in time, rarely enough to cost
nothing.
"""


class StopRule(Protocol):
    """Asked with each loss in turn; a text is the reason to stop."""

    def __call__(self, loss: float) -> str | None:
        """Takes the next loss."""


class FourTimesRule:
    """Stops with reason ``4x`` when the smoothed loss exceeds four times its minimum, from the second step
    on.

    ``smoothed_i > 4 * min(smoothed)``; holds for positive losses only, so it never fires while the minimum is
    not positive. Source: Gugger 2018.
    """

    def __init__(self, beta: float) -> None:
        self._average = RunningAverage(beta)
        self._lowest = np.inf

    def __call__(self, loss: float) -> str | None:
        """Takes the next loss."""
        smoothed = self._average(loss)
        exploded = 0 < 4 * self._lowest < smoothed
        self._lowest = min(self._lowest, smoothed)
        return "4x" if exploded else None


class RiseRule:
    """Stops with reason ``rose`` when the loss has risen for good; holds for negative and offset losses too.

    It reads raw losses only. The first ten give the initial level m0 (their median) and the spread s (1.4826
    times their median absolute deviation). The sweep ends when the median of the latest window lies above
    ``m0 + max(m0 - lowest, 10 * s, 0.001 * |m0|)``: by then the loss has regained what it had fallen twice
    over, so the edge, where half of the fall is regained, lies behind. Adding a constant to the loss changes
    nothing but the last of the three terms, which only guards against rounding.
    """

    def __init__(self, lrs: Array) -> None:
        spans = windows(lrs)
        self._width = (spans[:, 1] - spans[:, 0]).tolist()
        self._every = max(1, len(lrs) // _CHECKS)
        self._losses: list[float] = []
        self._initial = self._lowest = self._spread = 0.0

    def __call__(self, loss: float) -> str | None:
        """Takes the next loss."""
        self._losses.append(loss)
        n = len(self._losses)
        if n == _LEARN:
            self._initial = self._lowest = float(np.median(self._losses))
            self._spread = 1.4826 * float(np.median(np.abs(np.subtract(self._losses, self._initial))))
        if n <= _LEARN or n % self._every:
            return None
        latest = float(np.median(self._losses[-self._width[n - 1] :]))
        self._lowest = min(self._lowest, latest)
        margin = max(self._initial - self._lowest, 10 * self._spread, 1e-3 * abs(self._initial))
        return "rose" if latest > self._initial + margin else None


def never(loss: float) -> str | None:  # noqa: ARG001
    """Never stops."""
    return None


def make_stop_rule(stop: str, lrs: Array, smoothing: float, divergence: Divergence = "auto") -> StopRule:
    """The rule that ``stop`` names: ``auto`` (`RiseRule`), ``4x`` (`FourTimesRule`) or ``none``.

    Where the loss may rise (`divergence` is ``not_finite``), ``auto`` stops at nothing. Under every rule the
    first loss that is not finite ends the sweep: the weights are lost then.
    """
    if stop == "auto":
        return never if divergence == "not_finite" else RiseRule(lrs)
    return FourTimesRule(smoothing) if stop == "4x" else never
