"""One trial, as a training function sees it: what it is given, and where it reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, SupportsFloat

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrsearch.core.divergence import Divergence
from lrsearch.core.trial import Direction, TrialResult, TrialSpec, check_name
from lrsearch.errors import InputError, StopTrial
from lrsearch.schedules import Schedule, Sweep, schedule_from_dict
from lrsearch.schedules.base import FloatArray
from lrsearch.training.metrics import as_number
from lrsearch.training.optimizers import group_lrs
from lrsearch.training.schedulers import PlateauLR, TorchSchedule
from lrsearch.training.trial_log import Monitor, Record, TrialLog

_LR_TOLERANCE = 1e-6
_NOTHING: Mapping[str, float] = {}


class TrialSchedule(TorchSchedule):
    """The trial's schedule; remembers what it built, so that its lr and its plateau can be followed.

    All lrs are in units of the trial's: the optimizer may be made with a multiple of it.
    """

    def __init__(self, value: Schedule, lr: float) -> None:
        super().__init__(value)
        self.scheduler: LRScheduler | None = None
        self.scale = 1.0
        """The trial's lr over that of the optimizer's first group with an lr above 0, when it was built."""
        self._lr = lr
        self._lr_used: float | None = None
        self._updates = self._checked = 0
        self._rounding = 0.0
        self._planned: FloatArray | None = None

    def build(
        self, optimizer: Optimizer, total_steps: int, steps_per_epoch: int | None = None
    ) -> LRScheduler:
        """The torch scheduler on `optimizer`; call its `step()` once after every `optimizer.step()`.

        The optimizer's lr at this moment is the peak: make it with `trial.lr`, or with multiples of that.
        """
        lrs = group_lrs(optimizer)
        number = next((k for k, lr in enumerate(lrs) if lr > 0), 0)
        self.scale = scale = self._lr / lrs[number] if lrs[number] > 0 else 1.0
        lr = optimizer.param_groups[number]["lr"]
        self._rounding = torch.finfo(lr.dtype).eps if isinstance(lr, torch.Tensor) else 0.0
        self.scheduler = super().build(optimizer, total_steps, steps_per_epoch)
        if isinstance(self.value, Sweep) and self.value.courses:
            self._planned = self._lr * np.array(self.value.courses[number])
        else:
            self._planned = self.curve(self._lr, total_steps, steps_per_epoch)

        def note_lr(optimizer: Optimizer, *_: Any) -> None:
            self._lr_used = scale * float(optimizer.param_groups[number]["lr"])
            self._updates += 1

        # After the update and before the scheduler moves on, the group holds the lr of this very update.
        optimizer.register_step_post_hook(note_lr)
        return self.scheduler

    @property
    def lr_used(self) -> Mapping[str, float]:
        """The lr of the last update, as it is recorded; empty while there is none."""
        return _NOTHING if self._lr_used is None else {"lr": self._lr_used}

    def hear(self, objective: float) -> None:
        """Hands the objective to a schedule that reads it."""
        if isinstance(self.scheduler, PlateauLR):
            self.scheduler.report(objective)

    def off_plan(self, step: int) -> str | None:
        """What is wrong with the lr of the last update, which was update `step`.

        A guard may skip an update, and the schedule's step with it.
        """
        if self._lr_used is None or self._planned is None or self._updates == self._checked:
            return None
        self._checked = self._updates
        places = {min(step, len(self._planned)), min(self._updates, len(self._planned))}
        for planned in (float(self._planned[place - 1]) for place in sorted(places)):
            excess = self._lr_used - planned
            if isinstance(self.scheduler, PlateauLR):
                excess = max(excess, 0.0)  # how far it has come down was not known beforehand
            # An lr that is a tensor is rounded anew at every step.
            if abs(excess) <= (_LR_TOLERANCE + self._rounding * (step + 1)) * abs(planned):
                return None
        return f"at step {step} the lr was {self._lr_used:.3g}, not the schedule's {planned:.3g}"


class Trial:
    """What a training function is handed.

    `lr` is the peak learning rate, `schedule.build(optimizer, total_steps, steps_per_epoch)` makes the
    scheduler, `seed` and `steps` are to be used, `device` is where to train. `report` takes the metrics.
    """

    def __init__(
        self,
        spec: TrialSpec,
        device: torch.device,
        *,
        record: Record,
        monitor: Monitor,
        objective: str,
        direction: Direction = "minimize",
        divergence: Divergence = "auto",
    ) -> None:
        self.spec = spec
        self.seed = spec.seed
        self.steps = spec.steps
        self.device = device
        self.schedule = TrialSchedule(schedule_from_dict(spec.schedule), spec.lr)
        self._objective = objective
        self._log = TrialLog(spec, record, monitor, objective, direction, divergence)
        self._off_plan: str | None = None
        self._lr_was_read = False

    @property
    def lr(self) -> float:
        """The peak learning rate, with which the optimizer is to be made."""
        self._lr_was_read = True
        return self.spec.lr

    def report(self, step: int, **metrics: SupportsFloat) -> None:
        """Reports metrics after `step` updates, counted from 1: ``train_x`` becomes ``train/x``, ``val_x``
        ``val/x``.

        Raises StopTrial when the training has diverged, which is to be let through. Raises InputError for a
        step or a metric that is no number, and for a metric that MLflow would refuse for its name.
        """
        if isinstance(step, bool) or not isinstance(step, int) or not 1 <= step <= self.steps:
            raise InputError(
                "step", step, "is no count of updates done", f"give a whole number from 1 to {self.steps}"
            )
        values = {_metric_name(name): as_number(name, value) for name, value in metrics.items()}
        if self._log.stopped is None:
            lr = self.schedule.lr_used if "train/loss" in values else _NOTHING
            if lr and self._off_plan is None:
                self._off_plan = self.schedule.off_plan(step)
            self._log.add(step, values, lr)
        if self._log.stopped is not None:
            raise StopTrial(self._log.stopped)
        if self._objective in values:
            self.schedule.hear(values[self._objective])

    def raised(self, error: Exception) -> None:
        """The training function raised in mid-training as its numbers failed: it has diverged."""
        if self._log.stopped is None and self._log.steps_done:
            self._log.stop(self._log.steps_done, "raised", error)

    def left_out(self, error: Exception | None = None) -> tuple[str, ...]:
        """What the training function left out, a line each; `error` is what it raised."""
        found = []
        done = self._log.steps_done
        if error is None and self._log.stopped is None:
            if done == 0:
                found.append("it never reported")
            elif done < self.steps:
                found.append(f"its last report was of step {done} of {self.steps}")
        if done and self.schedule.scheduler is None:
            found.append("it did not build the trial's schedule")
        elif self.schedule.scale != 1.0 and not self._lr_was_read:
            found.append(f"it made its optimizer without reading trial.lr, which is {self.spec.lr:.3g}")
        if self._off_plan:
            found.append(self._off_plan)
        return tuple(found)

    def result(self, error: Exception | None = None) -> TrialResult:
        """How the trial went, once the training function has returned or raised."""
        return self._log.result(error, self.left_out(error))


TrainFunction = Callable[[Trial], None]
"""A training loop of one's own."""


@lru_cache(maxsize=1024)  # the same few at every step
def _metric_name(name: str) -> str:
    """``train_loss`` as ``train/loss``, ``val_top5`` as ``val/top5``; other names as they are.

    Raises InputError for one that MLflow would refuse.
    """
    for part in ("train", "val", "test"):
        if name.startswith(f"{part}_"):
            name = f"{part}/{name.removeprefix(f'{part}_')}"
            break
    check_name("metric", name)
    return name
