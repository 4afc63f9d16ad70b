"""When a training has diverged: asked with every training loss that is reported."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

_WINDOW = 0.05
"""A window's share of the steps."""
_PASSED_OVER = 0.1
"""The share of the steps at the beginning in which a rise is no divergence yet."""
_LEAST_A_HALF = 3
"""Losses in half a window at least: where they are few, the window grows."""
_MARGIN = 4.0
_ROUNDING = 1e-3


class DivergenceRule:
    """Says why a training of `steps` updates has diverged: ``not_finite``, ``loss_rose``, or None.

    ``not_finite``: the loss is not finite. ``loss_rose``: after the first 10% of the steps, the median of a
    window's losses is above ``L1 + max(4 * s, 0.001 * |L1|)``, where L1 is the first loss. A window is 5% of
    the steps, or more where those hold fewer than six losses, and one ends every half window. s is the median
    over all windows so far of their noise, ``sqrt(pi) / 2 * mean |L_k+1 - L_k|``: the standard deviation of
    independent normal losses, which a slow fall of the loss hardly moves. The margin is there because L1 is
    a single loss: without it half of the trainings whose lr is too low to do anything would be called
    diverged. The last term only guards against rounding.
    """

    def __init__(self, steps: int) -> None:
        self._half = steps * _WINDOW / 2
        self._begins = steps * _PASSED_OVER
        self._initial: float | None = None
        self._noises: list[float] = []
        self._before: list[float] = []
        self._before_since = 0
        self._losses: list[float] = []
        self._since = 0

    def __call__(self, step: int, loss: float) -> str | None:
        """Take the training loss of update `step`; steps rise from call to call, and may leave some out."""
        if not math.isfinite(loss):
            return "not_finite"
        if self._initial is None:
            self._initial = loss
        self._losses.append(loss)
        if step - self._since < self._half or len(self._losses) < _LEAST_A_HALF:
            return None
        window, since = self._before + self._losses, self._before_since
        self._before, self._before_since = self._losses, self._since
        self._losses, self._since = [], step
        if len(window) < 2 * _LEAST_A_HALF:
            return None
        self._noises.append(_noise(window))
        if since < self._begins:
            return None
        margin = max(_MARGIN * statistics.median(self._noises), _ROUNDING * abs(self._initial))
        return "loss_rose" if statistics.median(window) > self._initial + margin else None


def _noise(losses: list[float]) -> float:
    jumps = sum(abs(after - before) for before, after in pairwise(losses))
    return math.sqrt(math.pi) / 2 * jumps / (len(losses) - 1)
