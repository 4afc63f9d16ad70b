"""The range test's schedule: from a low lr to a high one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch.optim.lr_scheduler import LambdaLR

from lrsearch.core.curve import sweep_lrs
from lrsearch.schedules.base import FloatArray, Horizon, Schedule, is_number
from lrsearch.schedules.recipe import Argument, Stage


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

        if not self.courses:
            factor = Argument(f"lambda n: {formula}", lambda *_: lambda n: float(ratios[min(n, last)]))
            return [Stage(horizon.steps, LambdaLR, {"lr_lambda": factor})]

        def along(course: Sequence[float]) -> Callable[[int], float]:
            return lambda n: course[min(n, len(course) - 1)]

        sources = [f"lambda n: {list(course)!r}[min(n, {len(course) - 1})]" for course in self.courses]
        factors = Argument(f"[{', '.join(sources)}]", lambda *_: [along(course) for course in self.courses])
        return [Stage(horizon.steps, LambdaLR, {"lr_lambda": factors})]
