"""What can be swept: a model in use, a task, a training loop of one's own."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.optim import Optimizer

from lrsearch.core.plan import SweepPlan
from lrsearch.core.results import TrialSpec
from lrsearch.errors import InputError, StopTrial
from lrsearch.training.data import batch_count, check_batches
from lrsearch.training.loop import Observer, Outcome, Training, fit
from lrsearch.training.optimizers import group_lrs, set_group_lrs, train_mode
from lrsearch.training.schedules import Sweep
from lrsearch.training.state import (
    Keep,
    is_one_shot,
    preserve_random_state,
    preserve_state,
    seed_everything,
    seed_loaders,
)
from lrsearch.training.task import (
    LossFunction,
    StepFunction,
    Task,
    check_loss,
    check_parts,
    choose_device,
    device_of,
)
from lrsearch.training.trial import Trial

Begin = Callable[[Mapping[str, Any]], None]
"""Called with what is trained, as plain JSON, before the first update."""
TrainFunction = Callable[[Trial], None]
TaskFunction = Callable[[], Task]

_UNSCALED = "unscaled_groups"
"""Among the facts: the param groups whose lr is not in proportion to the one the optimizer is made with."""
_SAME_POWER = 1e-4
"""How far rounding may move the exponent of an lr."""


@dataclass(frozen=True)
class SweepOrder:
    """One sweep to be run: what to do, and whom to tell."""

    plan: SweepPlan
    schedule: Sweep
    seed: int
    device: torch.device
    begin: Begin
    observe: Observer


@dataclass(frozen=True)
class Parts:
    """A model in use with its optimizer, loss and loader: swept from its present weights, and put back."""

    model: nn.Module
    optimizer: Optimizer
    loss: LossFunction | None
    train_loader: Iterable[Any]
    step: StepFunction | None = None
    keep: Keep = "device"

    def check(self, plan: SweepPlan, device: str | torch.device | None) -> torch.device:
        """Raises InputError for parts that cannot be trained together; returns the model's device."""
        check_loss(self.loss, self.step)
        check_parts(self.model, self.loss, self.optimizer)
        _check_loader(self.train_loader, plan)
        here = device_of(self.model)
        if device is not None and choose_device(device).type != here.type:
            raise InputError(
                "device",
                str(device),
                f"the model is on {here}",
                f"move it with model.to({str(device)!r}) before making the optimizer",
            )
        return here

    def steps(self, plan: SweepPlan) -> int:
        """Steps of the sweep."""
        return plan.steps_for(batch_count(self.train_loader))

    @property
    def ratios(self) -> tuple[float, ...]:
        """The lr of every param group as a ratio to that of group 0, whose lr is swept."""
        first, *others = group_lrs(self.optimizer)
        return (1.0, *(lr / first for lr in others))

    def run(self, order: SweepOrder) -> Outcome:
        """One sweep, after which everything is as before; a model in train mode keeps its frozen parts in
        eval mode.
        """
        whole = nn.ModuleList([self.model, self.loss]) if isinstance(self.loss, nn.Module) else self.model
        with preserve_state(whole, self.optimizer, loaders=(self.train_loader,), keep=self.keep):
            seed_everything(order.seed)
            seed_loaders((self.train_loader,), order.seed)
            if not self.model.training:
                self.model.train()
            set_group_lrs(self.optimizer, [order.plan.max_lr * ratio for ratio in self.ratios])
            train_mode(self.optimizer)
            training = _training(self.model, self.optimizer, self.loss, self.train_loader, self.step, order)
            order.begin(training.facts())
            return fit(training, order.schedule, self.steps(order.plan), order.observe)


@dataclass(frozen=True)
class _Look:
    """What a task trains, and how each param group's lr follows the lr that the optimizer is made with.

    It goes as that lr to the group's power: 1 is in proportion, as all are where there are no `powers`; 0 is
    not at all.
    """

    facts: dict[str, Any]
    powers: tuple[float, ...] = ()


@dataclass(frozen=True)
class Fresh:
    """A task: a new model for every seed. The lr that is swept is the one that its optimizer is made with."""

    task: Task
    _looks: dict[tuple[float, float], _Look] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def check(self, plan: SweepPlan, device: str | torch.device | None) -> torch.device:
        """Raises InputError for what cannot be swept; returns the device to train on.

        Warns of param groups whose lr does not follow the lr that the optimizer is made with.
        """
        _check_loader(self.task.train_loader, plan)
        chosen = choose_device(device)
        unscaled = self.look(plan, chosen).facts.get(_UNSCALED)
        if unscaled:
            numbers = ", ".join(map(str, unscaled))
            warnings.warn(
                f"Task.optimizer does not scale the lr of param group {numbers} with the lr it is given; "
                "neither does the range test, nor a search",
                UserWarning,
                stacklevel=2,
            )
        return chosen

    def look(self, plan: SweepPlan, device: torch.device) -> _Look:
        """What is trained, told from a model that is thrown away and its optimizer at each end of the sweep.

        Raises InputError for parts that cannot be trained together, and for an optimizer that ignores its lr.
        """
        ends = (plan.min_lr, plan.max_lr)
        if ends not in self._looks:
            self._looks[ends] = _look(self.task, ends, device)
        return self._looks[ends]

    def steps(self, plan: SweepPlan) -> int:
        """Steps of the sweep."""
        return plan.steps_for(batch_count(self.task.train_loader))

    def run(self, order: SweepOrder) -> Outcome:
        """One sweep of the seed's model, whose parts in eval mode stay so where it comes in train mode.

        The random states are put back afterwards.
        """
        task = self.task
        with preserve_random_state(loaders=(task.train_loader,)):
            seed_everything(order.seed)
            seed_loaders((task.train_loader,), order.seed)
            model, optimizer = task.build(order.plan.max_lr, order.device)
            check_parts(model, task.loss, optimizer)
            if not model.training:
                model.train()
            train_mode(optimizer)
            training = _training(model, optimizer, task.loss, task.train_loader, task.step, order)
            look = self.look(order.plan, order.device)
            order.begin(look.facts)
            schedule = replace(order.schedule, powers=look.powers)
            return fit(training, schedule, self.steps(order.plan), order.observe)


@dataclass(frozen=True)
class OwnLoop:
    """A training function ``train(trial)``, which is handed the sweep as its schedule."""

    train: TrainFunction

    def check(self, plan: SweepPlan, device: str | torch.device | None) -> torch.device:
        """Raises InputError for a setting that a loop of one's own decides itself; returns the device to
        train on.
        """
        defaults = SweepPlan()
        for name in ("accumulate", "clip", "precision"):
            value = getattr(plan, name)
            if value != getattr(defaults, name):
                raise InputError(name, value, "is the business of your training function", "leave it out")
        return choose_device(device)

    def steps(self, plan: SweepPlan) -> int:
        """Steps of the sweep."""
        return plan.steps_for(None)

    def run(self, order: SweepOrder) -> Outcome:
        """One sweep; random states are put back afterwards, all else is the function's own.

        Raises InputError where the function never reports a training loss, leaves steps out, does not build
        the schedule, or trains at other lrs.
        """
        watch = _SweepWatch(order.observe)
        spec = TrialSpec(
            stage="range-test",
            lr=order.plan.max_lr,
            schedule=order.schedule.to_dict(),
            seed=order.seed,
            steps=self.steps(order.plan),
        )
        trial = Trial(spec, order.device, record=watch.record, monitor=watch.monitor, objective="train/loss")
        order.begin({"device": str(order.device)})
        with preserve_random_state(), suppress(StopTrial):  # the watch knows why it stopped
            seed_everything(order.seed)
            self.train(trial)
        found = trial.left_out()
        if found:
            raise InputError(
                "train",
                self.train,
                found[0],
                "make the optimizer with trial.lr, build trial.schedule; at each update, call its step() and "
                "trial.report(step, train_loss=…)",
            )
        return watch.outcome or Outcome(spec.steps)


def is_task_function(value: object) -> TypeGuard[TaskFunction]:
    """Whether a value is a function that is called without arguments, and so makes a task."""
    return _is_function(value) and not _takes_any(value) and all(map(_may_be_left_out, _parameters(value)))


def may_be_task_function(value: object) -> TypeGuard[TaskFunction]:
    """Whether only a call tells if a function makes a task: a decorator has hidden what it takes."""
    return _is_function(value) and _takes_any(value) and all(map(_may_be_left_out, _parameters(value)))


def is_train_function(value: object) -> TypeGuard[TrainFunction]:
    """Whether a value is a training loop of one's own: a function, and no model."""
    return _is_function(value)


def _is_function(value: object) -> TypeGuard[Callable[..., Any]]:
    return callable(value) and not isinstance(value, (nn.Module, type))


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def _takes_any(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_POSITIONAL for p in _parameters(function))


def _may_be_left_out(parameter: inspect.Parameter) -> bool:
    return parameter.default is not parameter.empty or parameter.kind in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def _look(task: Task, lrs: tuple[float, float], device: torch.device) -> _Look:
    with preserve_random_state():
        model = task.build_model(device)
        low, high = (task.optimizer(model.parameters(), lr) for lr in lrs)
    check_parts(model, task.loss, high)
    of_groups = list(zip(group_lrs(low), group_lrs(high), strict=True))
    powers = [_power(*pair, span=math.log(lrs[1] / lrs[0])) for pair in of_groups]
    if not any(powers):
        raise InputError(
            "Task.optimizer",
            task.optimizer,
            f"ignores the lr that it is given: its lr is always {of_groups[0][0]:.3g}",
            "make the optimizer with lr=lr",
        )
    facts = Training(model, high, task.train_loader, task.loss, task.step, device=device).facts()
    unscaled = [number for number, power in enumerate(powers) if power != 1]
    if not unscaled:
        return _Look(facts)
    return _Look({**facts, _UNSCALED: unscaled}, tuple(powers))


def _power(low: float, high: float, span: float) -> float:
    """The p of lr**p, which goes from `low` to `high` over this `span` of log lr."""
    if low <= 0 or high <= 0:
        return 1.0 if low == high else 0.0
    power = math.log(high / low) / span
    whole = round(power)
    return float(whole) if abs(power - whole) < _SAME_POWER else power


class _SweepWatch:
    """Turns a trial's reports into the sweep's points, one a step."""

    def __init__(self, observe: Observer) -> None:
        self.outcome: Outcome | None = None
        self._observe = observe
        self._step = 0
        self._reason: str | None = None

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hands a point on, and keeps what the sweep says to it."""
        if "train/loss" not in metrics or "lr" not in metrics:
            return
        if step != self._step + 1:
            raise InputError("step", step, f"follows step {self._step}", "report every step of a range test")
        self._step = step
        self._reason = self._observe(step, metrics["lr"], metrics["train/loss"])

    def monitor(self, _step: int, loss: float) -> str | None:
        """The reason to stop, if any, after the report of a training loss."""
        if not math.isfinite(loss):
            self.outcome = Outcome(self._step, stopped_at=self._step + 1, reason="not_finite")
            return "not_finite"
        if self._reason is not None:
            self.outcome = Outcome(self._step, stopped_at=self._step, reason=self._reason)
        return self._reason


def _check_loader(loader: Iterable[Any], plan: SweepPlan) -> None:
    check_batches(loader)
    if is_one_shot(loader):
        if plan.repeats > 1:
            raise InputError(
                "repeats",
                plan.repeats,
                "the loader is a generator, which can be read once only",
                "give repeats=1 or a DataLoader",
            )
        warnings.warn(
            "train_loader is a generator: the batches that the sweep reads cannot be put back",
            UserWarning,
            stacklevel=2,
        )


def _training(
    model: nn.Module,
    optimizer: Optimizer,
    loss: LossFunction | None,
    loader: Iterable[Any],
    step: StepFunction | None,
    order: SweepOrder,
) -> Training:
    return Training(
        model=model,
        optimizer=optimizer,
        train_loader=loader,
        loss=loss,
        step=step,
        accumulate=order.plan.accumulate,
        clip=order.plan.clip,
        precision=order.plan.precision,
        device=order.device,
    )
