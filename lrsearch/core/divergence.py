"""When a training has diverged: judged from its training losses alone."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

_WINDOW = 0.05
_FEWEST_LOSSES = 5
_GRACE = 0.10
_NOISE_WINDOWS = 5  # one window alone tells its noise too badly
_NOISE_MARGIN = 4.0


class DivergenceMonitor:
    """Fed each training loss in turn; says when the training is lost.

    A training of T updates has diverged when a loss is not finite, or when after the first 10% of T the
    median loss of a window of 5% of T (at least five losses) stands out above the loss before the first
    update: by more than four times the noise of a loss, ``1.4826 * median |loss_{i+1} - loss_i| / sqrt(2)``.
    A spike that recovers within half a window is no divergence. Without the noise, every other training at
    too low an lr would count as diverged, for its losses scatter around the first.
    """

    def __init__(self, total_steps: int) -> None:
        self._window = max(_FEWEST_LOSSES, round(_WINDOW * total_steps))
        self._grace = math.ceil(_GRACE * total_steps)
        self._losses: deque[float] = deque(maxlen=_NOISE_WINDOWS * self._window)
        self._steps = 0
        self._initial: float | None = None

    def __call__(self, loss: float) -> str | None:
        """Takes the next loss; a text is the reason why the training has diverged."""
        self._steps += 1
        if not math.isfinite(loss):
            return f"the loss of step {self._steps} is not finite"
        if self._initial is None:
            self._initial = loss
        if self._steps <= self._grace:
            return None
        self._losses.append(loss)
        # A median at every step would cost more than a small step: only a loss above the start tips it.
        if len(self._losses) < self._window or loss <= self._initial:
            return None
        losses = np.array(self._losses)
        noise = 1.4826 * float(np.median(np.abs(np.diff(losses)))) / math.sqrt(2)
        if float(np.median(losses[-self._window :])) <= self._initial + _NOISE_MARGIN * noise:
            return None
        first = self._steps - self._window + 1
        return (
            f"the median loss of steps {first} to {self._steps} is above the initial loss {self._initial:.4g}"
        )
