"""A schedule's torch scheduler, made from the schedule's recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, SupportsFloat

from torch import Tensor
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau, SequentialLR

from lrsearch.errors import InputError
from lrsearch.schedules import Schedule
from lrsearch.schedules.base import FloatArray
from lrsearch.schedules.recipe import Function, HasMomentum, Peaks, Stage, milestones, rise


def build(
    schedule: Schedule, optimizer: Optimizer, total_steps: int, steps_per_epoch: int | None = None
) -> LRScheduler:
    """The torch scheduler on `optimizer`; call its `step()` once after every `optimizer.step()`.

    The optimizer's present lrs are the peaks; groups of different lr keep their ratios. Families that act at
    epoch ends do so where `steps_per_epoch` is given. Raises InputError for a horizon that is no count of
    updates, or too short for the family, and for a recipe that names no scheduler of torch.
    """
    stages = schedule.recipe(total_steps, steps_per_epoch)
    classes = [_class_of(schedule, stage) for stage in stages]
    peaks = _take_peaks(optimizer)
    # The last stage is built first: it decides the lr that the stages before it lead up to (one-cycle and
    # cyclic begin below the peak).
    schedulers: list[LRScheduler] = []
    for stage, scheduler in zip(reversed(stages), reversed(classes), strict=True):
        arguments = {name: _made(argument, optimizer, peaks) for name, argument in stage.arguments.items()}
        schedulers.insert(0, scheduler(optimizer, **arguments))
    if len(schedulers) == 1:
        return schedulers[0]
    return SequentialLR(optimizer, schedulers, milestones=milestones(stages))


class TorchSchedule:
    """A schedule that builds its torch scheduler; `value` is the schedule itself."""

    def __init__(self, value: Schedule) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)

    @property
    def name(self) -> str:
        """The family's name."""
        return self.value.name

    def build(
        self, optimizer: Optimizer, total_steps: int, steps_per_epoch: int | None = None
    ) -> LRScheduler:
        """The torch scheduler on `optimizer`; call its `step()` once after every `optimizer.step()`.

        The optimizer's present lrs are the peaks. Raises InputError as `lrsearch.training.schedulers.build`.
        """
        return build(self.value, optimizer, total_steps, steps_per_epoch)

    def curve(self, lr: float, total_steps: int, steps_per_epoch: int | None = None) -> FloatArray:
        """The lr of every update, shape (total_steps,), for a peak `lr`: what the built scheduler yields."""
        return self.value.curve(lr, total_steps, steps_per_epoch)

    def code(self, lr: float, total_steps: int, steps_per_epoch: int | None = None) -> str:
        """The lines that build this scheduler on `optimizer` in a training script, with torch alone."""
        return self.value.code(lr, total_steps, steps_per_epoch)

    def to_dict(self) -> dict[str, Any]:
        """The schedule as plain JSON data: its name and its parameters."""
        return self.value.to_dict()


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


def _class_of(schedule: Schedule, stage: Stage) -> type[LRScheduler]:
    if stage.scheduler == PlateauLR.__name__:
        return PlateauLR
    found = getattr(lr_scheduler, stage.scheduler, None)
    if not isinstance(found, type) or not issubclass(found, LRScheduler):
        raise InputError(
            f"the recipe of {schedule.name}",
            stage.scheduler,
            "is no scheduler of torch",
            "name a class of torch.optim.lr_scheduler, such as 'LambdaLR'",
        )
    return found


def _made(argument: Any, optimizer: Optimizer, peaks: Sequence[float]) -> Any:
    """An argument of a recipe as torch takes it."""
    match argument:
        case Function():
            return argument.value
        case Peaks(ratio):
            return [ratio * lr for lr in peaks]
        case HasMomentum():
            return _has_momentum(optimizer)
        case list():
            return [_made(part, optimizer, peaks) for part in argument]
        case _:
            return argument


def _has_momentum(optimizer: Optimizer) -> bool:
    """Whether every group already has a momentum, or a beta1, above 0: then a cycle may move it.

    Where torch does not find it in the optimizer's `defaults`, it cannot cycle it.
    """
    for group in optimizer.param_groups:
        if "betas" in optimizer.defaults:
            momentum = (group["betas"] or (0,))[0]
        elif "momentum" in optimizer.defaults:
            momentum = group["momentum"]
        else:
            return False
        if (momentum or 0) <= 0:
            return False
    return True


def _take_peaks(optimizer: Optimizer) -> list[float]:
    """The groups' present lrs; an `initial_lr` that an earlier scheduler left, torch would use instead."""
    for group in optimizer.param_groups:
        group.pop("initial_lr", None)
    return [float(group["lr"]) for group in optimizer.param_groups]
