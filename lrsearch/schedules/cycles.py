"""Schedules that rise again: cyclic, one-cycle, cosine with warm restarts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lrsearch.schedules.base import FloatArray, Horizon, Schedule
from lrsearch.schedules.recipe import HasMomentum, Peaks, Stage


@dataclass(frozen=True)
class Cyclic(Schedule):
    """Triangles between `base` times the peak and the peak, from trough to trough.

    With x_n = n / (T-1) * cycles, c = floor(x_n) and h_n = 1 - |2 * (x_n - c) - 1|:
    eta_n = eta_peak * (base + (1 - base) * h_n * a_n), where a_n is 1 (triangular), 2**-c (triangular2) or
    end**(n / (T-1)) (exp_range, whose triangles shrink to `end` of their height). The first and the last
    update run at a trough. Horizons agree at equal n/(T-1). Momentum, where there is any, is cycled inversely
    between 0.9 and 0.8. Source: Smith 2015, "Cyclical Learning Rates for Training Neural Networks".
    """

    name: ClassVar[str] = "cyclic"

    cycles: int = 4
    base: float = 0.25
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    end: float = 0.1

    def _check(self) -> None:
        self._require_count("cycles", 1, 100)
        self._require_fraction("base", "end")
        modes = ("triangular", "triangular2", "exp_range")
        self._require("mode", self.mode in modes, "triangular, triangular2 or exp_range")

    def _ratios(self, horizon: Horizon) -> FloatArray:
        done = horizon.n / max(horizon.steps - 1, 1)
        cycle = np.floor(done * self.cycles)
        height = 1 - np.abs(2 * (done * self.cycles - cycle) - 1)
        scale = {"triangular": np.ones_like(done), "triangular2": 2.0**-cycle, "exp_range": self.end**done}
        return self.base + (1 - self.base) * height * scale[self.mode]

    def _stages(self, horizon: Horizon) -> list[Stage]:
        last = max(horizon.steps - 1, 1)
        arguments: dict[str, object] = {
            "base_lr": Peaks(self.base),
            "max_lr": Peaks(),
            "step_size_up": last / self.cycles / 2,
            "mode": self.mode,
            "cycle_momentum": HasMomentum(),
        }
        if self.mode == "exp_range":
            arguments["gamma"] = self.end ** (1 / last)
        return [Stage(horizon.steps, "CyclicLR", arguments)]


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up from `start` times the peak to the peak, then down to `final` times the peak, both along a cosine.

    With r = rise * T - 1 (at least 1) the update of the peak: eta_n moves from `start` to 1 with n/r for
    n <= r, then from 1 to `final` with (n-r) / (T-1-r), where from a to b with p means
    b + (a - b) * (1 + cos(pi * p)) / 2. The first update runs at `start`, the last at `final`.
    Horizons agree to within O(1/T). Momentum, where there is any, is cycled inversely between 0.95 and 0.85.
    Source: Smith and Topin 2017, "Super-Convergence".
    """

    name: ClassVar[str] = "one_cycle"

    rise: float = 0.3
    start: float = 0.04
    final: float = 4e-6

    def _check(self) -> None:
        self._require_fraction("rise", "start", "final")

    @property
    def min_steps(self) -> int:
        """Start, peak and end."""
        return 3

    def _ratios(self, horizon: Horizon) -> FloatArray:
        top = self._rise(horizon) * horizon.steps - 1
        last = horizon.steps - 1
        up = _cosine(self.start, 1.0, horizon.n / top)
        down = _cosine(1.0, self.final, (horizon.n - top) / (last - top))
        return np.where(horizon.n <= top, up, down)

    def _stages(self, horizon: Horizon) -> list[Stage]:
        arguments = {
            "max_lr": Peaks(),
            "total_steps": horizon.steps,
            "pct_start": self._rise(horizon),
            "div_factor": 1 / self.start,
            "final_div_factor": self.start / self.final,
            "cycle_momentum": HasMomentum(),
        }
        return [Stage(horizon.steps, "OneCycleLR", arguments)]

    def _rise(self, horizon: Horizon) -> float:
        """The share of the rise, at least the two updates and at most all but one that torch needs."""
        return min(max(self.rise, 2 / horizon.steps), 1 - 1 / horizon.steps)


@dataclass(frozen=True)
class CosineRestarts(Schedule):
    """Half cosines to zero, each starting at the peak again: eta_n = eta_0 * (1 + cos(pi * t / T_i)) / 2.

    t counts the updates since the last restart. T_i = T_0 * growth**i is the length of cycle i, and
    T_0 = T / (1 + growth + … + growth**(cycles-1)), rounded up to whole updates: the last cycle may be cut a
    few updates short, and no restart falls on the very end. Horizons agree to within that rounding. Source:
    Loshchilov and Hutter 2016, "SGDR: Stochastic Gradient Descent with Warm Restarts".
    """

    name: ClassVar[str] = "cosine_restarts"

    cycles: int = 4
    growth: int = 1

    def _check(self) -> None:
        self._require_count("cycles", 1, 20)
        self._require_count("growth", 1, 4)

    def _ratios(self, horizon: Horizon) -> FloatArray:
        lengths = self._first(horizon) * np.float64(self.growth) ** np.arange(self.cycles)
        starts = np.cumsum(lengths) - lengths
        cycle = np.searchsorted(starts, horizon.n, side="right") - 1
        return (1 + np.cos(math.pi * (horizon.n - starts[cycle]) / lengths[cycle])) / 2

    def _stages(self, horizon: Horizon) -> list[Stage]:
        arguments = {"T_0": self._first(horizon), "T_mult": self.growth}
        return [Stage(horizon.steps, "CosineAnnealingWarmRestarts", arguments)]

    def _first(self, horizon: Horizon) -> int:
        units: int = sum(self.growth**cycle for cycle in range(self.cycles))
        return math.ceil(horizon.steps / units)


def _cosine(start: float, end: float, progress: FloatArray) -> FloatArray:
    return end + (start - end) * (1 + np.cos(math.pi * progress)) / 2
