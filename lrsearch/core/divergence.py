"""When a training has diverged: judged from its training losses alone."""

from __future__ import annotations

import math

import numpy as np

_WINDOW = 0.05
_GRACE = 0.10


class DivergenceMonitor:
    """Fed each training loss in turn; says when the training is lost.

    A training of T updates has diverged when a loss is not finite, or when the median loss of any window of
    5% of T, after the first 10% of T, lies above the loss before the first update. A spike that recovers
    within half a window is no divergence.
    """

    def __init__(self, total_steps: int) -> None:
        self._window = max(1, round(_WINDOW * total_steps))
        self._grace = math.ceil(_GRACE * total_steps)
        self._losses: list[float] = []
        self._steps = 0
        self.initial: float | None = None

    def __call__(self, loss: float) -> str | None:
        """Takes the next loss; a text is the reason why the training has diverged."""
        self._steps += 1
        if not math.isfinite(loss):
            return f"the loss of step {self._steps} is not finite"
        if self.initial is None:
            self.initial = loss
        if self._steps <= self._grace:
            return None
        self._losses.append(loss)
        if len(self._losses) < self._window:
            return None
        self._losses = self._losses[-self._window :]
        # A median at every step would cost more than a small step: only a loss above the start tips it.
        if loss <= self.initial or float(np.median(self._losses)) <= self.initial:
            return None
        first = self._steps - self._window + 1
        return (
            f"the median loss of steps {first} to {self._steps} is above the initial loss {self.initial:.4g}"
        )
