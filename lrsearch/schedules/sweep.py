"""The range test's schedule: from a low lr to a high one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lrsearch.schedules.base import FloatArray, Horizon, Schedule, is_number
from lrsearch.schedules.recipe import Function, Stage


@dataclass(frozen=True)
class Sweep(Schedule):
    """The lr rises to its peak, from `min_lr` to `max_lr` where the peak is `max_lr`; both are used.

    With N updates, i = 0 … N-1, and q = min_lr / max_lr: log spacing eta_i = eta_peak * q**(1 - i / (N-1));
    linear spacing eta_i = eta_peak * (q + (1 - q) * i / (N-1)). Of a group that does not follow the lr which
    the optimizer is made with in proportion, `courses` says how it does: of every group the ratio of each
    update's lr to the last one. Without `courses` all groups move alike. Horizons agree at equal i/(N-1).
    Source: Smith 2015, "Cyclical Learning Rates for Training Neural Networks".
    """

    name: ClassVar[str] = "sweep"

    min_lr: float = 1e-7
    max_lr: float = 10.0
    spacing: Literal["log", "linear"] = "log"
    courses: tuple[tuple[float, ...], ...] = ()

    def _check(self) -> None:
        self._require("min_lr", is_number(self.min_lr) and self.min_lr > 0, "a finite number above 0")
        above = is_number(self.max_lr) and self.max_lr > self.min_lr and self._start >= sys.float_info.min
        self._require("max_lr", above, f"a finite number above min_lr={self.min_lr!r}")
        self._require("spacing", self.spacing in ("log", "linear"), '"log" or "linear"')
        courses = isinstance(self.courses, tuple) and all(
            isinstance(course, tuple) and course and all(map(is_number, course)) for course in self.courses
        )
        self._require("courses", courses, "numbers, one an update, for every param group")

    @property
    def min_steps(self) -> int:
        """Both ends of the range are used."""
        return 2

    @property
    def _start(self) -> float:
        """The first lr as a ratio to the peak."""
        return self.min_lr / self.max_lr

    def _ratios(self, horizon: Horizon) -> FloatArray:
        return sweep_lrs(self.min_lr, self.max_lr, horizon.steps, self.spacing) / self.max_lr

    def _stages(self, horizon: Horizon) -> list[Stage]:
        ratios = self._ratios(horizon)
        last = horizon.steps - 1
        if self.spacing == "log":
            formula = f"{self._start!r} ** (1 - min(n, {last}) / {last})"
        else:
            formula = f"({self._start!r} + {1 - self._start!r} * min(n, {last}) / {last})"
        factor = Function(f"lambda n: {formula}", lambda n: float(ratios[min(n, last)]))
        courses = [_along(course) for course in self.courses]
        return [Stage(horizon.steps, "LambdaLR", {"lr_lambda": courses or factor})]


def _along(course: Sequence[float]) -> Function:
    last = len(course) - 1
    return Function(f"lambda n: {list(course)!r}[min(n, {last})]", lambda n: course[min(n, last)])


def sweep_lrs(min_lr: float, max_lr: float, steps: int, spacing: str = "log") -> FloatArray:
    """Learning rates of a sweep, one a step, from `min_lr` to `max_lr`.

    ``log``: ``lr_i = min_lr * q**i`` with ``q = (max_lr / min_lr) ** (1 / (steps - 1))``, i = 0 … steps - 1;
    ``linear``: evenly spaced. Source: Smith 2015; Gugger 2018.
    """
    fraction = np.arange(steps) / (steps - 1)
    if spacing == "log":
        return np.asarray(min_lr * (max_lr / min_lr) ** fraction, dtype=np.float64)
    return np.asarray(min_lr + (max_lr - min_lr) * fraction, dtype=np.float64)
