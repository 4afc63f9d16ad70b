"""One trial, as a training function sees it: what it is given, and where it reports."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, SupportsFloat

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrsearch.core.results import MetricSummary, TrialResult, TrialSpec, TrialStatus
from lrsearch.errors import InputError, StopTrial
from lrsearch.training.optimizers import group_lrs
from lrsearch.training.schedules import PlateauLR, Schedule, schedule_from_dict
from lrsearch.training.schedules.base import FloatArray
from lrsearch.training.validation import as_number

Record = Callable[[int, Mapping[str, float]], None]
"""Called as ``record(step, metrics)`` with everything that is to be kept."""
Monitor = Callable[[int, float], str | None]
"""Called as ``monitor(step, loss)`` with every training loss; a text returned is the reason to stop."""

_LR_TOLERANCE = 1e-6
_NOTHING: Mapping[str, float] = {}


class TrialLog:
    """What a trial has shown so far: summarised, watched for divergence, and handed on thinned."""

    def __init__(self, spec: TrialSpec, record: Record, monitor: Monitor, objective: str) -> None:
        self.spec = spec
        self.steps_done = 0
        self.stopped: str | None = None
        """Why the trial has diverged."""
        self.objective: float | None = None
        """The objective as it was last measured, finite or not."""
        self._objective_name = objective
        self._record = record
        self._monitor = monitor
        self._initial_loss: float | None = None
        self._metrics: dict[str, _Running] = {}
        self._started = time.monotonic()

    def add(
        self, step: int, values: Mapping[str, float], beside: Mapping[str, float] = _NOTHING
    ) -> str | None:
        """Takes what was measured after `step` updates; returns why the trial is to stop, if it is.

        Only finite values are kept. What stands `beside` them is recorded too, but not summarised.
        """
        self.steps_done = max(self.steps_done, step)
        kept = {}
        for name, value in values.items():
            if math.isfinite(value):
                kept[name] = value
                running = self._metrics.get(name)
                if running is None:
                    self._metrics[name] = _Running(value)
                else:
                    running.add(value)
        if self._objective_name in values:
            self.objective = values[self._objective_name]
        if kept and (self._is_due(step) or any(name.startswith("val/") for name in kept)):
            kept.update(beside)
            self._record(step, kept)
        loss = values.get("train/loss")
        if loss is None:
            return None
        if self._initial_loss is None:
            self._initial_loss = kept.get("train/loss")
        self.stopped = self._monitor(step, loss)
        return self.stopped

    def add_update(self, step: int, lr: float, loss: float) -> str | None:
        """Takes the finite loss and the lr of one update, just as `add` would: this is done at every step."""
        self.steps_done = step
        running = self._metrics.get("train/loss")
        if running is None:
            self._initial_loss = loss
            self._metrics["train/loss"] = _Running(loss)
        else:
            running.add(loss)
        if self._objective_name == "train/loss":
            self.objective = loss
        if self._is_due(step):
            self._record(step, {"train/loss": loss, "lr": lr})
        self.stopped = self._monitor(step, loss)
        return self.stopped

    def stop(self, step: int, reason: str) -> None:
        """The training ended at this step, diverged."""
        self.steps_done = step
        self.stopped = reason

    def state(self) -> dict[str, Any]:
        """What it has seen so far, as plain data."""
        return {
            "steps_done": self.steps_done,
            "objective": self.objective,
            "initial_loss": self._initial_loss,
            "metrics": {name: asdict(running.summary()) for name, running in self._metrics.items()},
            "seconds": time.monotonic() - self._started,
        }

    def put_back(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state` was taken."""
        self.steps_done = state["steps_done"]
        self.objective = state["objective"]
        self._initial_loss = state["initial_loss"]
        self._metrics = {name: _Running.of(MetricSummary(**kept)) for name, kept in state["metrics"].items()}
        self._started = time.monotonic() - state["seconds"]

    def result(self, error: Exception | None = None, warnings: tuple[str, ...] = ()) -> TrialResult:
        """How the trial went, now that it has ended; `error` is what it raised.

        A trial that has diverged has done so whatever it raised afterwards.
        """
        status, cause, text = self._judge(error)
        return TrialResult(
            spec=self.spec,
            status=status,
            steps_done=self.steps_done,
            seconds=time.monotonic() - self._started,
            initial_loss=self._initial_loss,
            metrics={name: running.summary() for name, running in self._metrics.items()},
            cause=cause,
            error=text,
            warnings=warnings,
        )

    def _judge(self, error: Exception | None) -> tuple[TrialStatus, str | None, str | None]:
        if self.stopped is not None:
            return "diverged", self.stopped, None
        if error is not None:
            return "failed", _kind(error), "".join(traceback.format_exception(error))
        if self.objective is not None and not math.isfinite(self.objective):
            return "diverged", "not_finite", None
        if self.objective is None:
            reported = ", ".join(self._metrics) or "nothing"
            text = f"{self._objective_name} is the objective and was never reported; reported: {reported}"
            return "failed", "no_objective", text
        return "complete", None, None

    def _is_due(self, step: int) -> bool:
        """Whether what the training measures at this step is recorded; validations always are."""
        return step % self.spec.log_every == 0 or step == self.spec.steps


class _Running:
    """A metric's summary as it grows: this is touched at every step, and a frozen one is slow to make."""

    __slots__ = ("_count", "_final", "_first", "_high", "_low")

    def __init__(self, value: float) -> None:
        self._first = self._final = self._low = self._high = value
        self._count = 1

    def add(self, value: float) -> None:
        """Takes one more value."""
        self._final = value
        self._count += 1
        if value < self._low:
            self._low = value
        elif value > self._high:
            self._high = value

    @classmethod
    def of(cls, summary: MetricSummary) -> _Running:
        """One that has come as far as `summary`."""
        running = cls(summary.first)
        running._final, running._low, running._high = summary.final, summary.low, summary.high
        running._count = summary.count
        return running

    def summary(self) -> MetricSummary:
        """The metric so far."""
        return MetricSummary(self._first, self._final, self._low, self._high, self._count)


class TrialSchedule:
    """The trial's schedule; remembers what it built, so that its lr and its plateau can be followed.

    All lrs are in units of the trial's: the optimizer may be made with a multiple of it.
    """

    def __init__(self, schedule: Schedule, lr: float) -> None:
        self.schedule = schedule
        self.scheduler: LRScheduler | None = None
        self.scale = 1.0
        """The trial's lr over that of the optimizer's first group with an lr above 0, when it was built."""
        self._lr = lr
        self._lr_used: float | None = None
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
        self.scheduler = self.schedule.build(optimizer, total_steps, steps_per_epoch)
        self._planned = self.schedule.curve(self._lr, total_steps, steps_per_epoch)

        def note_lr(optimizer: Optimizer, *_: Any) -> None:
            self._lr_used = scale * float(optimizer.param_groups[number]["lr"])

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
        """What is wrong with the lr of the last update, which was update `step`."""
        if self._lr_used is None or self._planned is None:
            return None
        planned = float(self._planned[min(step, len(self._planned)) - 1])
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
        self, spec: TrialSpec, device: torch.device, *, record: Record, monitor: Monitor, objective: str
    ) -> None:
        self.spec = spec
        self.seed = spec.seed
        self.steps = spec.steps
        self.device = device
        self.schedule = TrialSchedule(schedule_from_dict(spec.schedule), spec.lr)
        self._objective = objective
        self._log = TrialLog(spec, record, monitor, objective)
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
        step or a metric that is no number.
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


def _metric_name(name: str) -> str:
    """``train_loss`` as ``train/loss``, ``val_top5`` as ``val/top5``; other names as they are."""
    for part in ("train", "val", "test"):
        if name.startswith(f"{part}_"):
            return f"{part}/{name.removeprefix(f'{part}_')}"
    return name


def _kind(error: Exception) -> str:
    """``out_of_memory``, else the error's type."""
    said = str(error)
    # The allocators of the CPU and of MPS raise a plain RuntimeError.
    out_of_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in said or "out of memory" in said)
    )
    return "out_of_memory" if out_of_memory else type(error).__name__
