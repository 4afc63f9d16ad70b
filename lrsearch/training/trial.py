"""One trial, as a training function sees it: what it is given, and where it reports."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, SupportsFloat

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrsearch.core.results import MetricSummary, TrialResult, TrialSpec, TrialStatus
from lrsearch.errors import InputError, StopTrial, first_line
from lrsearch.training.schedules import PlateauLR, Schedule, schedule_from_dict
from lrsearch.training.schedules.base import FloatArray

Record = Callable[[int, Mapping[str, float]], None]
"""Called as ``record(step, metrics)`` with everything that is to be kept."""

_LOWER_IS_BETTER = ("loss", "error", "perplexity", "rmse", "mae", "mse")
_LR_TOLERANCE = 1e-6


class TrialSchedule:
    """The trial's schedule; remembers what it built, so that its lr and its plateau can be followed."""

    def __init__(self, schedule: Schedule, lr: float, objective: str) -> None:
        self.schedule = schedule
        self.scheduler: LRScheduler | None = None
        self.lr_used: float | None = None
        self.planned: FloatArray | None = None
        self._objective = objective
        self._lr = lr

    def build(
        self, optimizer: Optimizer, total_steps: int, steps_per_epoch: int | None = None
    ) -> LRScheduler:
        """The torch scheduler on `optimizer`; call its `step()` once after every `optimizer.step()`.

        The optimizer's lr at this moment is the peak: make it with `trial.lr`.
        """
        self.scheduler = self.schedule.build(optimizer, total_steps, steps_per_epoch)
        self.planned = self.schedule.curve(self._lr, total_steps, steps_per_epoch)
        # After the update and before the scheduler moves on, the group holds the lr of this very update.
        optimizer.register_step_post_hook(self._note_lr)
        return self.scheduler

    def hear(self, metrics: Mapping[str, float]) -> None:
        """Hands the objective to a schedule that reads it."""
        if isinstance(self.scheduler, PlateauLR) and self._objective in metrics:
            self.scheduler.report(metrics[self._objective])

    def _note_lr(self, optimizer: Optimizer, *_: Any) -> None:
        self.lr_used = float(optimizer.param_groups[0]["lr"])


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
        monitor: Callable[[float], str | None],
        objective: str = "val/loss",
    ) -> None:
        self.spec = spec
        self.lr = spec.lr
        self.seed = spec.seed
        self.steps = spec.steps
        self.device = device
        self.schedule = TrialSchedule(schedule_from_dict(spec.schedule), spec.lr, objective)
        self._record = record
        self._monitor = monitor
        self._metrics: dict[str, MetricSummary] = {}
        self._initial_loss: float | None = None
        self._stopped: str | None = None
        self._done = 0
        self._off_plan: str | None = None
        self._started = time.monotonic()

    def report(self, step: int, **metrics: SupportsFloat) -> None:
        """Reports metrics after `step` updates, counted from 1: ``train_x`` becomes ``train/x``, ``val_x``
        ``val/x``.

        Raises StopTrial when the training has diverged, which is to be let through. Raises InputError for a
        step or a metric that is no number.
        """
        if isinstance(step, bool) or not isinstance(step, int) or not 1 <= step <= self.steps:
            raise InputError(
                "step", step, "is no count of updates done", f"give a whole number from 1 to {self.steps}"
            )
        values = {_metric_name(name): _number(name, value) for name, value in metrics.items()}
        self._done = max(self._done, step)
        if self._stopped is not None:
            raise StopTrial(self._stopped)
        loss = values.get("train/loss")
        kept = {name: value for name, value in values.items() if math.isfinite(value)}
        for name, value in kept.items():
            self._summarize(name, value)
        if loss is not None:
            self._check_lr(step)
        self._keep(step, kept)
        self.schedule.hear(values)
        if loss is None:
            return
        if self._initial_loss is None:
            self._initial_loss = loss
        self._stopped = self._monitor(loss)
        if self._stopped is not None:
            raise StopTrial(self._stopped)

    def result(self, error: str | None = None) -> TrialResult:
        """How the trial went, once the training function has returned or raised."""
        status: TrialStatus = "failed" if error else "diverged" if self._stopped else "complete"
        return TrialResult(
            spec=self.spec,
            status=status,
            steps_done=self._done,
            seconds=time.monotonic() - self._started,
            initial_loss=self._initial_loss,
            metrics=self._metrics,
            error=error,
            warnings=self._warnings(status),
        )

    def _keep(self, step: int, values: Mapping[str, float]) -> None:
        if not values:
            return
        validation = any(name.startswith("val/") for name in values)
        if not validation and step % self.spec.log_every and step != self.steps:
            return
        lr = self.schedule.lr_used
        self._record(step, values if lr is None or "train/loss" not in values else {"lr": lr, **values})

    def _summarize(self, name: str, value: float) -> None:
        before = self._metrics.get(name)
        better = min if any(word in name for word in _LOWER_IS_BETTER) else max
        self._metrics[name] = MetricSummary(value, better(before.best, value) if before else value)

    def _check_lr(self, step: int) -> None:
        used, planned = self.schedule.lr_used, self.schedule.planned
        if (
            used is None
            or planned is None
            or self._off_plan
            or isinstance(self.schedule.scheduler, PlateauLR)
        ):
            return
        expected = float(planned[min(step, len(planned)) - 1])
        if abs(used - expected) > _LR_TOLERANCE * abs(expected):
            self._off_plan = f"at step {step} the lr was {used:.3g}, not the schedule's {expected:.3g}"

    def _warnings(self, status: TrialStatus) -> tuple[str, ...]:
        found = []
        if status == "complete" and self._done == 0:
            found.append("it never reported")
        elif status == "complete" and self._done < self.steps:
            found.append(f"its last report was of step {self._done} of {self.steps}")
        if self._done and self.schedule.scheduler is None:
            found.append("it did not build the trial's schedule")
        if self._off_plan:
            found.append(self._off_plan)
        return tuple(found)


def _metric_name(name: str) -> str:
    """``train_loss`` as ``train/loss``, ``val_top5`` as ``val/top5``; other names as they are."""
    for part in ("train", "val", "test"):
        if name.startswith(f"{part}_"):
            return f"{part}/{name.removeprefix(f'{part}_')}"
    return name


def _number(name: str, value: SupportsFloat) -> float:
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            name, value, f"is no number ({first_line(error)})", "report a number, e.g. loss.item()"
        ) from error
