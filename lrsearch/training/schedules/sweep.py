"""The range test's schedule: from a low lr to a high one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lrsearch.core.curve import sweep_lrs
from lrsearch.errors import InputError
from lrsearch.training.schedules.base import FloatArray, Horizon, Schedule, is_number
from lrsearch.training.schedules.recipe import Argument, Stage


@dataclass(frozen=True)
class Sweep(Schedule):
    """The lr rises from `min_lr` to `max_lr`, both of which are used.

    With N updates, i = 0 … N-1: log spacing lr_i = min_lr * q**i, q = (max_lr / min_lr)**(1 / (N-1)); linear
    spacing lr_i = min_lr + (max_lr - min_lr) * i / (N-1). These are absolute lrs, of the optimizer's group 0;
    the other groups keep the ratio to group 0 that they have at `build`, and the `lr` of `curve` and `code`
    plays no part. Horizons agree at equal i/(N-1). Source: Smith 2015, "Cyclical Learning Rates for Training
    Neural Networks".
    """

    name: ClassVar[str] = "sweep"
    absolute: ClassVar[bool] = True

    min_lr: float = 1e-7
    max_lr: float = 10.0
    spacing: Literal["log", "linear"] = "log"

    def _check(self) -> None:
        self._require("min_lr", is_number(self.min_lr) and self.min_lr > 0, "a finite number above 0")
        above = is_number(self.max_lr) and self.max_lr > self.min_lr and is_number(self.max_lr / self.min_lr)
        self._require("max_lr", above, f"a finite number above min_lr={self.min_lr!r}")
        self._require("spacing", self.spacing in ("log", "linear"), '"log" or "linear"')

    @property
    def min_steps(self) -> int:
        """Both ends of the range are used."""
        return 2

    def _ratios(self, horizon: Horizon) -> FloatArray:
        return sweep_lrs(self.min_lr, self.max_lr, horizon.steps, self.spacing)

    def _stages(self, horizon: Horizon) -> list[Stage]:
        lrs = self._ratios(horizon)
        last = horizon.steps - 1
        if self.spacing == "log":
            formula = f"{self.min_lr!r} * {self.max_lr / self.min_lr!r} ** (min(n, {last}) / {last})"
        else:
            formula = f"({self.min_lr!r} + {self.max_lr - self.min_lr!r} * min(n, {last}) / {last})"

        def factor(_optimizer: Optimizer, peaks: Sequence[float]) -> Callable[[int], float]:
            if peaks[0] <= 0:
                raise InputError(
                    "optimizer", peaks[0], "group 0 has no lr to scale", "give group 0 an lr above 0"
                )
            return lambda n: float(lrs[min(n, last)]) / peaks[0]

        arguments = {"lr_lambda": Argument(f"lambda n: {formula} / peaks[0]", factor)}
        return [Stage(horizon.steps, LambdaLR, arguments)]
