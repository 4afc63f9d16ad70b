"""When a training has diverged: asked with every training loss that is reported."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any, Literal

Divergence = Literal["auto", "not_finite", "loss_rose"]
"""What makes a training diverged: losses or weights that are not finite always do; a training loss that rose
does under ``loss_rose``, and under ``auto`` where the objective is no better than the untrained model's.
"""

_WINDOW = 0.05
"""A window's share of the steps."""
_PASSED_OVER = 0.1
"""The share of the steps at the beginning in which a rise is no divergence yet."""
_LEAST_A_HALF = 3
"""Losses in half a window at least: where they are few, the window grows."""
_MARGIN = 5.0
_ROUNDING = 1e-3
_RARE = 60
"""Fewer than one loss in so many is as low as the first: that is hardly chance."""
_MARGIN_IF_RARE = 1.5


class DivergenceRule:
    """Says why a training of `steps` updates has diverged: ``not_finite``, ``loss_rose``, or None.

    ``not_finite``: the loss is not finite. ``loss_rose``: after the first 10% of the steps, the median m of a
    window's losses is above the first loss L1 by more than noise explains, which is one of two:

    - ``m > L1 + max(5 * s, 0.001 * |L1|)``, s the median of the standard deviations within all windows so
      far: a blow-up that has settled;
    - ``m > L1 + max(|L1|, 1.5 * s')``, s' the standard deviation within this window, where of at least 60
      losses so far fewer than one in 60 was as low as L1: a blow-up that goes on, whose noise is so large
      that the first test cannot tell.

    A window is 5% of the steps, or more where those hold fewer than six losses; one ends every half window.
    The margins are there because L1 is a single loss, which is as noisy as the others: without them half of
    the trainings whose lr is too low to do anything would be called diverged.
    """

    def __init__(self, steps: int) -> None:
        self._half = steps * _WINDOW / 2
        self._begins = steps * _PASSED_OVER
        self._initial: float | None = None
        self._count = self._as_low = 0
        self._spreads: list[float] = []
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
        else:
            self._count += 1
            self._as_low += loss <= self._initial
        self._losses.append(loss)
        if step - self._since < self._half or len(self._losses) < _LEAST_A_HALF:
            return None
        window, since = self._before + self._losses, self._before_since
        self._before, self._before_since = self._losses, self._since
        self._losses, self._since = [], step
        if len(window) < 2 * _LEAST_A_HALF:
            return None
        self._spreads.append(_spread(window))
        return "loss_rose" if since >= self._begins and self._has_risen(window, self._initial) else None

    def state_dict(self) -> dict[str, Any]:
        """What it has seen, as plain data."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state` was taken, of a rule for as many steps."""
        vars(self).update(state)

    def _has_risen(self, window: list[float], initial: float) -> bool:
        rise = statistics.median_low(window) - initial  # the lower one: half a window of spikes is no rise
        if rise > max(_MARGIN * statistics.median(self._spreads), _ROUNDING * abs(initial)):
            return True
        rare = self._count >= _RARE and _RARE * self._as_low < self._count
        return rare and rise > max(abs(initial), _MARGIN_IF_RARE * self._spreads[-1])


def _spread(losses: list[float]) -> float:
    mean = sum(losses) / len(losses)
    return math.dist(losses, [mean] * len(losses)) / math.sqrt(len(losses) - 1)
