"""Schedules that start at the peak and never rise: constant, drops, and the smooth decays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lrsearch.schedules.base import FloatArray, Horizon, Schedule, is_fraction, is_number
from lrsearch.schedules.recipe import Function, Stage


@dataclass(frozen=True)
class Constant(Schedule):
    """No decay: eta_n = eta_0."""

    name: ClassVar[str] = "constant"

    def _ratios(self, horizon: Horizon) -> FloatArray:
        return np.ones(horizon.steps)

    def _stages(self, horizon: Horizon) -> list[Stage]:
        return [Stage(horizon.steps, "ConstantLR", {"factor": 1.0, "total_iters": 0})]


@dataclass(frozen=True)
class Step(Schedule):
    """A drop at equal distances: eta_n = eta_0 * gamma**floor(n / s).

    s = `every` * T, rounded up to whole updates, or to the nearest epoch end where the epochs are known and
    one lies inside the horizon. Horizons agree to within that rounding.
    """

    name: ClassVar[str] = "step"

    every: float = 0.25
    gamma: float = 0.3

    def _check(self) -> None:
        self._require_fraction("every", "gamma")

    def _ratios(self, horizon: Horizon) -> FloatArray:
        return self.gamma ** (horizon.n // horizon.at_epoch_end(self.every))

    def _stages(self, horizon: Horizon) -> list[Stage]:
        arguments = {"step_size": horizon.at_epoch_end(self.every), "gamma": self.gamma}
        return [Stage(horizon.steps, "StepLR", arguments)]


@dataclass(frozen=True)
class MultiStep(Schedule):
    """A drop at each milestone: eta_n = eta_0 * gamma**(milestones at or before n).

    Milestones are fractions of the horizon, rounded as in `Step`. Horizons agree to within that rounding.
    """

    name: ClassVar[str] = "multi_step"

    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1

    def _check(self) -> None:
        given = self.milestones
        rising = (
            isinstance(given, tuple)
            and len(given) > 0
            and all(is_fraction(value) for value in given)
            and list(given) == sorted(set(given))
        )
        self._require("milestones", rising, "fractions between 0 and 1 in rising order")
        self._require_fraction("gamma")

    def _ratios(self, horizon: Horizon) -> FloatArray:
        drops = np.searchsorted(self._updates(horizon), horizon.n, side="right")
        return np.power(self.gamma, drops, dtype=np.float64)

    def _stages(self, horizon: Horizon) -> list[Stage]:
        arguments = {"milestones": self._updates(horizon), "gamma": self.gamma}
        return [Stage(horizon.steps, "MultiStepLR", arguments)]

    def _updates(self, horizon: Horizon) -> list[int]:
        return [horizon.at_epoch_end(fraction) for fraction in self.milestones]


@dataclass(frozen=True)
class Exponential(Schedule):
    """eta_n = eta_0 * exp(-d * n), with d = -ln(final) / T: `final` of the peak is left after T updates."""

    name: ClassVar[str] = "exponential"

    final: float = 0.01

    def _check(self) -> None:
        self._require_fraction("final")

    def _ratios(self, horizon: Horizon) -> FloatArray:
        return np.exp(math.log(self.final) * horizon.n / horizon.steps)

    def _stages(self, horizon: Horizon) -> list[Stage]:
        return [Stage(horizon.steps, "ExponentialLR", {"gamma": self.final ** (1 / horizon.steps)})]


@dataclass(frozen=True)
class TimeBased(Schedule):
    """eta_{n+1} = eta_n / (1 + d * n), that is eta_n = eta_0 / prod_{k<n} (1 + d * k).

    d is solved for so that after T updates `final` of the peak is left. Exact at every horizon are n = 0 and
    n = T; in between the curve tends to eta_0 * final**((n/T)**2) as T grows, and two horizons agree at equal
    n/T to within O(ln(final)**2 / T).
    """

    name: ClassVar[str] = "time_based"

    final: float = 0.1

    def _check(self) -> None:
        self._require_fraction("final")

    def _ratios(self, horizon: Horizon) -> FloatArray:
        logs = np.log1p(self._d(horizon) * horizon.n)
        ratios: FloatArray = np.exp(logs - np.cumsum(logs))
        return ratios

    def _stages(self, horizon: Horizon) -> list[Stage]:
        d = self._d(horizon)
        factor = Function(f"lambda n: 1 / (1 + {d!r} * max(n - 1, 0))", lambda n: 1 / (1 + d * max(n - 1, 0)))
        return [Stage(horizon.steps, "MultiplicativeLR", {"lr_lambda": factor})]

    def _d(self, horizon: Horizon) -> float:
        """The d with sum_{k<T} ln(1 + d * k) = -ln(final); 0 at T = 1, where no d shows."""
        if horizon.steps == 1:
            return 0.0
        k = horizon.n
        target = -math.log(self.final)
        d = target / float(k.sum())
        # The sum is concave in d and below the target here, so Newton's steps rise to the root from below.
        for _ in range(100):
            step = (target - float(np.log1p(d * k).sum())) / float((k / (1 + d * k)).sum())
            d += step
            if step <= 1e-10 * d:
                break
        return d


@dataclass(frozen=True)
class InverseTime(Schedule):
    """eta_n = eta_0 / (1 + d * n), d = (1 / final - 1) / T: `final` of the peak is left after T updates."""

    name: ClassVar[str] = "inverse_time"

    final: float = 0.1

    def _check(self) -> None:
        self._require_fraction("final")

    def _ratios(self, horizon: Horizon) -> FloatArray:
        return 1 / (1 + self._d(horizon) * horizon.n)

    def _stages(self, horizon: Horizon) -> list[Stage]:
        d = self._d(horizon)
        factor = Function(f"lambda n: 1 / (1 + {d!r} * n)", lambda n: 1 / (1 + d * n))
        return [Stage(horizon.steps, "LambdaLR", {"lr_lambda": factor})]

    def _d(self, horizon: Horizon) -> float:
        return (1 / self.final - 1) / horizon.steps


@dataclass(frozen=True)
class Multiplicative(Schedule):
    """The same factor after every epoch: eta_n = eta_0 * q**floor(n / s), q = final**(s / T).

    s is the updates in one epoch, or 1 where the epochs are not known: then it is `Exponential`. `final` of
    the peak is left after T updates. Horizons of equally many epochs agree at equal n/T.
    """

    name: ClassVar[str] = "multiplicative"

    final: float = 0.01

    def _check(self) -> None:
        self._require_fraction("final")

    def _ratios(self, horizon: Horizon) -> FloatArray:
        every = horizon.epoch or 1
        return np.exp(math.log(self.final) * (horizon.n // every) * every / horizon.steps)

    def _stages(self, horizon: Horizon) -> list[Stage]:
        every = horizon.epoch or 1
        q = self.final ** (every / horizon.steps)
        factor = Function(
            f"lambda n: {q!r} if n > 0 and n % {every} == 0 else 1.0",
            lambda n: q if n > 0 and n % every == 0 else 1.0,
        )
        return [Stage(horizon.steps, "MultiplicativeLR", {"lr_lambda": factor})]


@dataclass(frozen=True)
class Polynomial(Schedule):
    """eta_n = eta_0 * (1 - n / T)**power."""

    name: ClassVar[str] = "polynomial"

    power: float = 2.0

    def _check(self) -> None:
        self._require("power", is_number(self.power) and self.power > 0, "a finite number above 0")

    def _ratios(self, horizon: Horizon) -> FloatArray:
        return (1 - horizon.n / horizon.steps) ** self.power

    def _stages(self, horizon: Horizon) -> list[Stage]:
        return [Stage(horizon.steps, "PolynomialLR", {"total_iters": horizon.steps, "power": self.power})]


@dataclass(frozen=True)
class Linear(Schedule):
    """Linear to zero: eta_n = eta_0 * (1 - n / T)."""

    name: ClassVar[str] = "linear"

    def _ratios(self, horizon: Horizon) -> FloatArray:
        return 1 - horizon.n / horizon.steps

    def _stages(self, horizon: Horizon) -> list[Stage]:
        arguments = {"start_factor": 1.0, "end_factor": 0.0, "total_iters": horizon.steps}
        return [Stage(horizon.steps, "LinearLR", arguments)]


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine to zero: eta_n = eta_0 * (1 + cos(pi * n / T)) / 2.

    Source: Loshchilov and Hutter 2016, "SGDR: Stochastic Gradient Descent with Warm Restarts".
    """

    name: ClassVar[str] = "cosine"

    def _ratios(self, horizon: Horizon) -> FloatArray:
        return (1 + np.cos(math.pi * horizon.n / horizon.steps)) / 2

    def _stages(self, horizon: Horizon) -> list[Stage]:
        return [Stage(horizon.steps, "CosineAnnealingLR", {"T_max": horizon.steps})]
