"""The range test's schedule: from a low lr to a high one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch.optim.lr_scheduler import LambdaLR

from lrsearch.core.curve import sweep_lrs
from lrsearch.training.schedules.base import FloatArray, Horizon, Schedule, is_number
from lrsearch.training.schedules.recipe import Argument, Stage


@dataclass(frozen=True)
class Sweep(Schedule):
    """The lr rises to its peak, from `min_lr` to `max_lr` where the peak is `max_lr`; both are used.

    With N updates, i = 0 … N-1, and q = min_lr / max_lr: log spacing eta_i = eta_peak * q**(1 - i / (N-1));
    linear spacing eta_i = eta_peak * (q + (1 - q) * i / (N-1)). Of a group that does not follow the lr which
    the optimizer is made with, `powers` says how it does: the group's own ratios are these, each to its
    power; 0 stands still. Without `powers` all groups move alike. Horizons agree at equal i/(N-1). Source:
    Smith 2015, "Cyclical Learning Rates for Training Neural Networks".
    """

    name: ClassVar[str] = "sweep"

    min_lr: float = 1e-7
    max_lr: float = 10.0
    spacing: Literal["log", "linear"] = "log"
    powers: tuple[float, ...] = ()

    def _check(self) -> None:
        self._require("min_lr", is_number(self.min_lr) and self.min_lr > 0, "a finite number above 0")
        above = is_number(self.max_lr) and self.max_lr > self.min_lr and self._start >= sys.float_info.min
        self._require("max_lr", above, f"a finite number above min_lr={self.min_lr!r}")
        self._require("spacing", self.spacing in ("log", "linear"), '"log" or "linear"')
        powers = isinstance(self.powers, tuple) and all(map(is_number, self.powers))
        self._require("powers", powers, "numbers, one a param group")

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

        def ratio(power: float) -> Callable[[int], float]:
            return lambda n: float(ratios[min(n, last)]) ** power

        powers = self.powers or (1.0,)
        sources = [f"lambda n: {formula}" if p == 1 else f"lambda n: ({formula}) ** {p!r}" for p in powers]
        factors = [ratio(p) for p in powers]
        source, value = (f"[{', '.join(sources)}]", factors) if self.powers else (sources[0], factors[0])
        return [Stage(horizon.steps, LambdaLR, {"lr_lambda": Argument(source, lambda *_: value)})]
