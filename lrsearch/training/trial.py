"""One trial, as a training function sees it: what it is given, and where it reports."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any, SupportsFloat, SupportsIndex
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import register_optimizer_step_post_hook

from lrsearch.core.divergence import Divergence
from lrsearch.core.trial import Direction, TrialResult, TrialSpec, check_name
from lrsearch.errors import InputError, StopTrial
from lrsearch.schedules import Schedule, Sweep, schedule_from_dict
from lrsearch.schedules.base import FloatArray
from lrsearch.training.metrics import as_number
from lrsearch.training.optimizers import group_lrs
from lrsearch.training.schedulers import PlateauLR, TorchSchedule, build
from lrsearch.training.trial_log import Monitor, Record, TrialLog

_LR_TOLERANCE = 1e-6
_NOTHING: Mapping[str, float] = {}


class TrialSchedule(TorchSchedule):
    """The trial's schedule; remembers what it built, so that its lr and its plateau can be followed.

    A training with several optimizers builds it once on each. A sweep always has the trial's length, whatever
    a loop makes of its own counting.
    """

    def __init__(self, value: Schedule, lr: float, steps: int) -> None:
        super().__init__(value)
        self._lr = lr
        self._steps = steps
        self._built: list[_Built] = []
        self._updates: WeakKeyDictionary[Optimizer, int] = WeakKeyDictionary()
        self._faults: list[str] = []

    def build(
        self, optimizer: Optimizer, total_steps: int, steps_per_epoch: int | None = None
    ) -> LRScheduler:
        """Build the torch scheduler on an optimizer.

        Call its ``step()`` once after every ``optimizer.step()``. The optimizer's lr at this moment is the
        peak: make it with `trial.lr`, or with multiples of that.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            The optimizer.
        total_steps : int
            The number of updates of the training.
        steps_per_epoch : int, optional
            The number of updates of an epoch, for the schedules that count epochs.

        Returns
        -------
        torch.optim.lr_scheduler.LRScheduler
            The scheduler.

        Raises
        ------
        InputError
            If it was built on this optimizer before: the lr would be scheduled twice.
        """
        if any(built.optimizer is optimizer for built in self._built):
            raise InputError(
                "trial.schedule",
                self.value,
                f"is built twice on one {type(optimizer).__name__}, whose lr would be scheduled twice",
                "build it once on each optimizer",
            )
        if updates := self._updates.get(optimizer):
            self._faults.append(f"it built the trial's schedule after {updates} updates of its optimizer")
        if total_steps != self._steps and not isinstance(self.value, Sweep):
            self._faults.append(
                f"it built the trial's schedule for {total_steps} updates, and trial.steps is {self._steps}"
            )
        value = self.value
        if isinstance(value, Sweep):
            total_steps = self._steps
            if value.courses:  # those of all optimizers, one after the other
                first = sum(len(built.optimizer.param_groups) for built in self._built)
                last = first + len(optimizer.param_groups)
                value = replace(value, courses=value.courses[first:last])
        lrs = group_lrs(optimizer)
        scheduler = build(value, optimizer, total_steps, steps_per_epoch)
        built = _Built(value, optimizer, scheduler, lrs, self._lr, total_steps, steps_per_epoch)
        self._built.append(built)
        return scheduler

    @property
    def is_built(self) -> bool:
        """Whether the training has built it."""
        return bool(self._built)

    @property
    def scale(self) -> float:
        """The trial's lr over that which the first optimizer was made with."""
        return self._built[0].scale if self._built else 1.0

    @property
    def lr_used(self) -> Mapping[str, float]:
        """The first optimizer's lr at its last update, as it is recorded; empty while there is none."""
        lr = self._built[0].lr_used if self._built else None
        return _NOTHING if lr is None else {"lr": lr}

    def hear(self, objective: float) -> None:
        """Hands the objective to a schedule that reads it."""
        for built in self._built:
            if isinstance(built.scheduler, PlateauLR):
                built.scheduler.report(objective)

    def faults(self) -> list[str]:
        """What was wrong with the way in which it was built."""
        return self._faults

    def off_plan(self, step: int) -> str | None:
        """What is wrong with the lr of the last update of an optimizer, which was update `step`."""
        return next((found for built in self._built if (found := built.off_plan(step))), None)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts the updates of every optimizer, so that a schedule that comes too late is noticed."""

        def count(optimizer: Optimizer, *_: Any) -> None:
            self._updates[optimizer] = self._updates.get(optimizer, 0) + 1

        hook = register_optimizer_step_post_hook(count)
        try:
            yield
        finally:
            hook.remove()


class _Built:
    """A schedule on one optimizer, whose lr is followed through the optimizer's updates.

    All lrs are in units of the trial's: the optimizer may be made with a multiple of it. `number` is its
    first group with an lr above 0.
    """

    def __init__(
        self,
        value: Schedule,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        lrs: Sequence[float],
        trial_lr: float,
        total_steps: int,
        steps_per_epoch: int | None,
    ) -> None:
        self.optimizer = optimizer
        self.scheduler = scheduler
        number = next((k for k, lr in enumerate(lrs) if lr > 0), 0)
        self.scale = scale = trial_lr / lrs[number] if lrs[number] > 0 else 1.0
        self.lr_used: float | None = None
        self._updates = self._checked = 0
        lr = optimizer.param_groups[number]["lr"]
        self._rounding = torch.finfo(lr.dtype).eps if isinstance(lr, torch.Tensor) else 0.0
        if isinstance(value, Sweep) and value.courses:
            self._planned: FloatArray = trial_lr * np.array(value.courses[number])
        else:
            self._planned = value.curve(trial_lr, total_steps, steps_per_epoch)

        def note_lr(optimizer: Optimizer, *_: Any) -> None:
            self.lr_used = scale * float(optimizer.param_groups[number]["lr"])
            self._updates += 1

        # After the update and before the scheduler moves on, the group holds the lr of this very update.
        optimizer.register_step_post_hook(note_lr)

    def off_plan(self, step: int) -> str | None:
        """What is wrong with the lr of the last update, which was update `step`.

        A guard may skip an update, and the schedule's step with it.
        """
        if self.lr_used is None or self._updates == self._checked:
            return None
        self._checked = self._updates
        places = {min(step, len(self._planned)), min(self._updates, len(self._planned))}
        for planned in (float(self._planned[place - 1]) for place in sorted(places)):
            excess = self.lr_used - planned
            if isinstance(self.scheduler, PlateauLR):
                excess = max(excess, 0.0)  # how far it has come down was not known beforehand
            # An lr that is a tensor is rounded anew at every step.
            if abs(excess) <= (_LR_TOLERANCE + self._rounding * (step + 1)) * abs(planned):
                return None
        return f"at step {step} the lr was {self.lr_used:.3g}, not the schedule's {planned:.3g}"


class Trial:
    """A single training, as a training function sees it.

    Take `lr`, `seed`, `steps` and `device` from it; make the scheduler with
    ``trial.schedule.build(optimizer, total_steps, steps_per_epoch)``, call its ``step()`` once per update,
    and pass the metrics to `report`. The parameters are lrsearch's own business: it makes the trial.

    Parameters
    ----------
    spec : TrialSpec
        What is to be trained.
    device : torch.device
        Where to train.
    record : callable
        Told of every point.
    monitor : callable
        Asked after every point whether to stop.
    objective : str
        The metric that is optimised.
    direction : {"minimize", "maximize"}
        Which way it is better.
    divergence : {"auto", "not_finite", "loss_rose"}
        What makes the training diverged.

    Attributes
    ----------
    spec : TrialSpec
        What is to be trained.
    seed : int
        The seed to use. The random states of Python, NumPy and torch are seeded with it already.
    steps : int
        The number of updates to do.
    device : torch.device
        Where to train.
    schedule : TrialSchedule
        Makes the torch scheduler.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> import lrsearch
    >>> def train(trial):
    ...     model = nn.Linear(4, 1).to(trial.device)
    ...     optimizer = torch.optim.SGD(model.parameters(), lr=trial.lr)
    ...     scheduler = trial.schedule.build(optimizer, trial.steps)
    ...     for step in range(1, trial.steps + 1):
    ...         inputs = torch.randn(16, 4, device=trial.device)
    ...         targets = inputs.sum(1, keepdim=True) + 0.1 * torch.randn(16, 1, device=trial.device)
    ...         loss = (model(inputs) - targets).square().mean()
    ...         optimizer.zero_grad()
    ...         loss.backward()
    ...         optimizer.step()
    ...         scheduler.step()
    ...         trial.report(step, train_loss=loss)
    >>> found = lrsearch.range_test(train, min_lr=1e-3, steps=200, tracking=False)
    >>> found.suggestion.verdict, 0.01 < found.lr < 1
    ('ok', True)
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
        self.schedule = TrialSchedule(schedule_from_dict(spec.schedule), spec.lr, spec.steps)
        self._objective = objective
        self._log = TrialLog(spec, record, monitor, objective, direction, divergence)
        self._off_plan: str | None = None
        self._lr_was_read = False

    @property
    def lr(self) -> float:
        """The peak learning rate, with which the optimizer is to be made."""
        self._lr_was_read = True
        return self.spec.lr

    def report(self, step: SupportsIndex, **metrics: SupportsFloat) -> None:
        """Report metrics after a number of updates.

        Parameters
        ----------
        step : int
            The number of updates done so far, from 1 to `steps`.
        **metrics : number
            The metrics: ``train_x`` is recorded as ``train/x``, ``val_x`` as ``val/x``.

        Raises
        ------
        StopTrial
            If the training has diverged. Let it pass through.
        InputError
            For a step that is no count of updates, a metric that is no number, and a name that MLflow would
            refuse.
        """
        step = self._checked_step(step)
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

    def _checked_step(self, step: SupportsIndex) -> int:
        number = -1 if isinstance(step, bool) or not hasattr(step, "__index__") else operator.index(step)
        if not 1 <= number <= self.steps:
            raise InputError(
                "step", step, "is no count of updates done", f"give a whole number from 1 to {self.steps}"
            )
        return number

    def raised(self, error: Exception) -> None:
        """Note that the training function raised because its numbers failed: the training has diverged.

        Parameters
        ----------
        error : Exception
            What it raised.
        """
        if self._log.stopped is None and self._log.steps_done:
            self._log.stop(self._log.steps_done, "raised", error)

    def left_out(self, error: Exception | None = None) -> tuple[str, ...]:
        """Return what the training function left out.

        Parameters
        ----------
        error : Exception, optional
            What the training function raised, if it did.

        Returns
        -------
        tuple of str
            One line for each omission.
        """
        found = []
        done = self._log.steps_done
        if error is None and self._log.stopped is None:
            if done == 0:
                found.append("it never reported")
            elif done < self.steps:
                found.append(f"its last report was of step {done} of {self.steps}")
        found += self.schedule.faults()
        if done and not self.schedule.is_built:
            found.append("it did not build the trial's schedule")
        elif self.schedule.scale != 1.0 and not self._lr_was_read:
            found.append(f"it made its optimizer without reading trial.lr, which is {self.spec.lr:.3g}")
        if self._off_plan:
            found.append(self._off_plan)
        return tuple(found)

    def result(self, error: Exception | None = None) -> TrialResult:
        """Return how the trial went, once the training function has returned or raised.

        Parameters
        ----------
        error : Exception, optional
            What it raised, if it did.

        Returns
        -------
        TrialResult
            The status, the metrics and what was left out.
        """
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
