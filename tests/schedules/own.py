"""A family of schedules that the package does not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lrsearch.schedules import Schedule
from lrsearch.schedules.base import FloatArray, Horizon
from lrsearch.schedules.recipe import Function, Stage


@dataclass(frozen=True)
class InverseRoot(Schedule):
    """eta_n = eta_0 / sqrt(1 + sharpness * n / T)."""

    name: ClassVar[str] = "inverse_root"

    sharpness: float = 8.0

    def _ratios(self, horizon: Horizon) -> FloatArray:
        return (1 + self.sharpness * horizon.n / horizon.steps) ** -0.5

    def _stages(self, horizon: Horizon) -> list[Stage]:
        a, steps = self.sharpness, horizon.steps
        factor = Function(
            f"lambda n: (1 + {a!r} * n / {steps}) ** -0.5", lambda n: (1 + a * n / steps) ** -0.5
        )
        return [Stage(steps, "LambdaLR", {"lr_lambda": factor})]
