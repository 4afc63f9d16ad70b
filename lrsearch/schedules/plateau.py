"""Reduce on plateau: the one schedule that reads the validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from lrsearch.schedules.base import FloatArray, Horizon, Schedule
from lrsearch.schedules.recipe import Peaks, Stage, code_lines, rising_stage


@dataclass(frozen=True)
class Plateau(Schedule):
    """The lr times `factor` when the objective has not improved for more than `patience` * T updates.

    eta_n = max(eta_0 * factor**(reductions before n), eta_0 * floor). The scheduler is a `PlateauLR` (in
    `lrsearch.training.schedulers`): hand it the objective with `report(value)` after each validation;
    `step()` comes once an update as everywhere. `mode` is the objective's direction, which a study puts
    there. The reductions are not known beforehand, so `curve` is the peak throughout. In `code`, patience
    counts validations, one at each epoch's end.
    """

    name: ClassVar[str] = "plateau"

    factor: float = 0.3
    patience: float = 0.1
    floor: float = 1e-3
    mode: Literal["min", "max"] = "min"

    def _check(self) -> None:
        self._require_fraction("factor", "patience", "floor")
        self._require("mode", self.mode in ("min", "max"), '"min" or "max"')

    def stage(self, horizon: Horizon, warmup: int = 0) -> Stage:
        """The scheduler, with `warmup` updates of rising lr in front of the horizon."""
        arguments = {
            "mode": self.mode,
            "factor": self.factor,
            "patience": horizon.at(self.patience),
            "min_lr": Peaks(self.floor),
            "warmup": warmup,
        }
        return Stage(warmup + horizon.steps, "PlateauLR", arguments)

    def code_lines(self, horizon: Horizon, warmup: int = 0) -> list[str]:
        """The same with torch alone, which has no scheduler that does both: the loop steps two."""
        arguments = {
            "mode": self.mode,
            "factor": self.factor,
            "patience": horizon.at(self.patience) // (horizon.epoch or 1),
            "threshold": 0.0,
            "min_lr": Peaks(self.floor),
            "eps": 0.0,
        }
        lines = code_lines([Stage(horizon.steps, "ReduceLROnPlateau", arguments)])
        every = f"one every {horizon.epoch or 1} updates"
        if not warmup:
            return [*lines, f"# scheduler.step(validation_objective) after each validation, {every}"]
        return [
            *lines,
            f"warmup = {rising_stage(warmup).code()}",
            "# warmup.step() once after every optimizer.step()",
            f"# scheduler.step(validation_objective) after each validation, {every}, from update {warmup} on",
        ]

    def _ratios(self, horizon: Horizon) -> FloatArray:
        return np.ones(horizon.steps)

    def _stages(self, horizon: Horizon) -> list[Stage]:
        return [self.stage(horizon)]

    def _code_lines(self, horizon: Horizon) -> list[str]:
        return self.code_lines(horizon)
