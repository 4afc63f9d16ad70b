"""Reduce on plateau: the one schedule that reads the validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, SupportsFloat

import numpy as np
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lrsearch.schedules.base import FloatArray, Horizon, Range, Schedule, SearchSpace
from lrsearch.schedules.recipe import Stage, code_lines, rise, rising_stage, scaled_peaks


class PlateauLR(ReduceLROnPlateau):
    """torch's ReduceLROnPlateau for a loop that steps every scheduler once an update.

    `step()` comes after every `optimizer.step()` and only counts (and warms up); `report(value)` comes after
    each validation and is what may reduce the lr, from the next update on. `patience` is in updates, so the
    validations may come at any distance.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        mode: Literal["min", "max"],
        factor: float,
        patience: int,
        min_lr: Sequence[float],
        warmup: int = 0,
    ) -> None:
        """Take the groups' present lrs as peaks; during the first `warmup` updates the lr rises to them."""
        # Any improvement counts: torch's relative threshold is not the same for a value and its negative. And
        # torch's eps would leave an lr below 1e-8 / (1 - factor) where it is.
        super().__init__(optimizer, mode, factor, patience, threshold=0.0, min_lr=list(min_lr), eps=0.0)
        self.peaks = [float(group["lr"]) for group in optimizer.param_groups]
        self.warmup = warmup
        self.warmup_ratios = [*rise(warmup).tolist(), 1.0]
        self.updates = 0
        self.updates_at_report = warmup
        self._warm_up()

    def report(self, value: SupportsFloat) -> None:
        """Read a validation's objective (NaN: no improvement); in the warmup it is not read."""
        if self.updates < self.warmup:
            return
        # torch counts one bad epoch a call; here it is the updates since the report before.
        self.num_bad_epochs += max(self.updates - self.updates_at_report, 1) - 1
        self.updates_at_report = self.updates
        super().step(value)

    def step(self) -> None:  # type: ignore[override]
        """Count an update; call it once after every `optimizer.step()`."""
        self.updates += 1
        self._warm_up()

    def _warm_up(self) -> None:
        if self.updates > self.warmup:
            return
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            lr = peak * self.warmup_ratios[self.updates]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        self._last_lr = [float(group["lr"]) for group in self.optimizer.param_groups]


@dataclass(frozen=True)
class Plateau(Schedule):
    """The lr times `factor` when the objective has not improved for more than `patience` * T updates.

    eta_n = max(eta_0 * factor**(reductions before n), eta_0 * floor). The scheduler that `build` returns is a
    `PlateauLR`: hand it the objective with `report(value)` after each validation; `step()` comes once an
    update as everywhere. `mode` is the objective's direction, which a study
    puts there. The reductions are not known beforehand, so
    `curve` is the peak throughout. In `code`, patience counts validations, one at each epoch's end.
    """

    name: ClassVar[str] = "plateau"

    factor: float = 0.3
    patience: float = 0.1
    floor: float = 1e-3
    mode: Literal["min", "max"] = "min"

    def _check(self) -> None:
        self._require_fraction("factor", "patience", "floor")
        self._require("mode", self.mode in ("min", "max"), '"min" or "max"')

    def search_space(self) -> SearchSpace:
        """How far the lr falls, and after how long."""
        return {"factor": Range(0.05, 0.7, log=True), "patience": Range(0.02, 0.3, log=True)}

    def stage(self, horizon: Horizon, warmup: int = 0) -> Stage:
        """The scheduler, with `warmup` updates of rising lr in front of the horizon."""
        arguments = {
            "mode": self.mode,
            "factor": self.factor,
            "patience": horizon.at(self.patience),
            "min_lr": scaled_peaks(self.floor),
            "warmup": warmup,
        }
        return Stage(warmup + horizon.steps, PlateauLR, arguments)

    def code_lines(self, horizon: Horizon, warmup: int = 0) -> list[str]:
        """The same with torch alone, which has no scheduler that does both: the loop steps two."""
        arguments = {
            "mode": self.mode,
            "factor": self.factor,
            "patience": horizon.at(self.patience) // (horizon.epoch or 1),
            "threshold": 0.0,
            "min_lr": scaled_peaks(self.floor),
            "eps": 0.0,
        }
        lines = code_lines([Stage(horizon.steps, ReduceLROnPlateau, arguments)])
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
