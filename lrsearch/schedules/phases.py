"""Schedules made of phases: a warmup in front of any other, and warmup-stable-decay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from lrsearch.schedules.base import FloatArray, Horizon, Schedule, is_number
from lrsearch.schedules.decays import Constant
from lrsearch.schedules.plateau import Plateau
from lrsearch.schedules.recipe import Stage, lead_in, rise
from lrsearch.schedules.sweep import Sweep


@dataclass(frozen=True)
class WSD(Schedule):
    """Warmup, stable, decay: a linear rise, the peak, a linear fall to zero.

    With w = `warmup` * T and c = `cooldown` * T, in whole updates: eta_n = eta_peak * (0.01 + 0.99 * n / w)
    for n < w; then eta_peak; from n = T - c on eta_peak * (T - n) / c. Horizons agree to within the rounding
    of w and c. Source: Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training
    Beyond Fixed Training Durations".
    """

    name: ClassVar[str] = "wsd"

    warmup: float = 0.05
    cooldown: float = 0.2

    def _check(self) -> None:
        warm = is_number(self.warmup) and 0 <= self.warmup < 1
        self._require("warmup", warm, "a number from 0 to below 1")
        self._require_fraction("cooldown")
        together = self.warmup + self.cooldown <= 1
        self._require("cooldown", together, f"at most {1 - self.warmup:g}, what the warmup leaves")

    def _ratios(self, horizon: Horizon) -> FloatArray:
        warmup, stable, cooldown = self._phases(horizon)
        down = np.arange(cooldown, 0, -1) / cooldown
        return np.concatenate([rise(warmup), np.ones(stable), down])

    def _stages(self, horizon: Horizon) -> list[Stage]:
        warmup, stable, cooldown = self._phases(horizon)
        stages = [
            Stage(cooldown, "LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": cooldown})
        ]
        if stable:
            stages.insert(0, Stage(stable, "ConstantLR", {"factor": 1.0, "total_iters": 0}))
        return lead_in(warmup, stages) if warmup else stages

    def _phases(self, horizon: Horizon) -> tuple[int, int, int]:
        """The updates of the three phases; the last always has one."""
        falls_at = min(horizon.at(1 - self.cooldown), horizon.steps - 1)
        warmup = min(horizon.at(self.warmup), falls_at)
        return warmup, falls_at - warmup, horizon.steps - falls_at


@dataclass(frozen=True)
class Warmup(Schedule):
    """A linear rise in front of another: inner_0 * (0.01 + 0.99 * n / w) for n < w, then inner_{n-w}.

    w = `fraction` * T, rounded up to whole updates; `inner` runs over the other T - w updates, its epochs
    counted from the end of the warmup, and starts at inner_0: the peak, but for one-cycle and cyclic. In
    front of a WSD this warmup takes the place of that one's own. Horizons agree to within the rounding of w,
    and as the inner schedule's do. A sweep or a warmup inside is an InputError.
    """

    name: ClassVar[str] = "warmup"

    inner: Schedule = Constant()  # noqa: RUF009 (a frozen value)
    fraction: float = 0.05

    def _check(self) -> None:
        fits = isinstance(self.inner, Schedule) and not isinstance(self.inner, (Warmup, Sweep))
        self._require("inner", fits, "a schedule that is neither a sweep nor a warmup")
        self._require_fraction("fraction")

    @property
    def min_steps(self) -> int:
        """One update for the rise, and what the inner schedule needs."""
        return 1 + self.inner.min_steps

    def _ratios(self, horizon: Horizon) -> FloatArray:
        warmup, rest = self._split(horizon)
        inner = self._cold_inner()._ratios(rest)
        return np.concatenate([inner[0] * rise(warmup), inner])

    def _stages(self, horizon: Horizon) -> list[Stage]:
        warmup, rest = self._split(horizon)
        if isinstance(self.inner, Plateau):  # torch's SequentialLR takes no ReduceLROnPlateau
            return [self.inner.stage(rest, warmup)]
        return lead_in(warmup, self._cold_inner()._stages(rest))

    def _code_lines(self, horizon: Horizon) -> list[str]:
        if isinstance(self.inner, Plateau):
            warmup, rest = self._split(horizon)
            return self.inner.code_lines(rest, warmup)
        return super()._code_lines(horizon)

    def _cold_inner(self) -> Schedule:
        return replace(self.inner, warmup=0.0) if isinstance(self.inner, WSD) else self.inner

    def _split(self, horizon: Horizon) -> tuple[int, Horizon]:
        """The updates of the warmup, and the inner schedule's horizon."""
        warmup = min(max(1, horizon.at(self.fraction)), horizon.steps - self.inner.min_steps)
        return warmup, Horizon(horizon.steps - warmup, horizon.epoch)
