"""What can be swept: a model in use, a task, a training loop of one's own."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.optim import Optimizer

from lrsearch.core.plan import SweepPlan
from lrsearch.core.results import TrialSpec
from lrsearch.errors import InputError, StopTrial
from lrsearch.training.data import batch_count, check_batches
from lrsearch.training.loaders import is_one_shot, seed_loaders
from lrsearch.training.loop import Observer, Outcome, fit
from lrsearch.training.lr_scaling import UNSCALED, TaskLook, courses, look_at
from lrsearch.training.optimizers import group_lrs, set_group_lrs, train_mode
from lrsearch.training.schedules import Sweep
from lrsearch.training.state import (
    Keep,
    preserve_random_state,
    preserve_state,
    seed_everything,
)
from lrsearch.training.task import (
    LossFunction,
    StepFunction,
    Task,
    check_loss,
    check_parts,
    choose_device,
    device_of,
    follow,
)
from lrsearch.training.trial import Trial
from lrsearch.training.untrained import BadBatch, rebuilt, rewound, speaks_of_numbers
from lrsearch.training.update import Training

Begin = Callable[[Mapping[str, Any]], None]
"""Called with what is trained, as plain JSON, before the first update."""
FIRST_STEPS = 10
"""Steps in which a sweep's lr has done nothing yet."""
TrainFunction = Callable[[Trial], None]
TaskFunction = Callable[[], Task]


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
        with preserve_state(whole, self.optimizer, loaders=(self.train_loader,), keep=self.keep) as kept:
            seed_everything(order.seed)
            seed_loaders((self.train_loader,), order.seed)
            if not self.model.training:
                self.model.train()
            follow(self.loss, order.device)
            set_group_lrs(self.optimizer, [order.plan.max_lr * ratio for ratio in self.ratios])
            train_mode(self.optimizer)
            training = _training(self.model, self.optimizer, self.loss, self.train_loader, self.step, order)
            training.untrained = rewound(self.model, kept)
            order.begin(training.facts())
            return fit(training, order.schedule, self.steps(order.plan), order.observe)


@dataclass(frozen=True)
class Fresh:
    """A task: a new model for every seed. The lr that is swept is the one that its optimizer is made with."""

    task: Task
    _looks: dict[tuple[float, float], TaskLook] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def check(self, plan: SweepPlan, device: str | torch.device | None) -> torch.device:
        """Raises InputError for what cannot be swept; returns the device to train on.

        Warns of param groups whose lr does not follow the lr that the optimizer is made with.
        """
        _check_loader(self.task.train_loader, plan)
        chosen = choose_device(device)
        unscaled = self.look(plan, chosen).facts.get(UNSCALED)
        if unscaled:
            numbers = ", ".join(map(str, unscaled))
            warnings.warn(
                f"the lr that Task.optimizer gives param group {numbers} is not in proportion to the lr that "
                "it is given: the range test and a search train each group at the lr that it makes",
                UserWarning,
                stacklevel=2,
            )
        return chosen

    def look(self, plan: SweepPlan, device: torch.device) -> TaskLook:
        """What is trained, told from a model that is thrown away and its optimizer at each end of the sweep.

        Raises InputError for parts that cannot be trained together, and for an optimizer that ignores its lr.
        """
        ends = (plan.min_lr, plan.max_lr)
        if ends not in self._looks:
            self._looks[ends] = look_at(self.task, ends, device)
        return self._looks[ends]

    def steps(self, plan: SweepPlan) -> int:
        """Steps of the sweep."""
        return plan.steps_for(batch_count(self.task.train_loader))

    def run(self, order: SweepOrder) -> Outcome:
        """One sweep of the seed's model, whose parts in eval mode stay so where it comes in train mode.

        The random states, and what a loss that is a module carries, are put back afterwards.
        """
        task = self.task
        with task.preserve((task.train_loader,)):
            seed_everything(order.seed)
            seed_loaders((task.train_loader,), order.seed)
            model, schedule = task.build_model(order.device), order.schedule
            look = self.look(order.plan, order.device)
            if not look.is_scaled:
                lrs = schedule.curve(order.plan.max_lr, self.steps(order.plan)).tolist()
                schedule = replace(schedule, courses=courses(task, model, lrs))
            optimizer = task.optimizer(model.parameters(), order.plan.max_lr)
            check_parts(model, task.loss, optimizer)
            if not model.training:
                model.train()
            train_mode(optimizer)
            training = _training(model, optimizer, task.loss, task.train_loader, task.step, order)
            training.untrained = rebuilt(partial(task.build_model, order.device), order.seed)
            order.begin(look.facts)
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
        with preserve_random_state():
            seed_everything(order.seed)
            raised: Exception | None = None
            try:
                self.train(trial)
            except StopTrial:
                pass  # the watch knows why it stopped
            except Exception as error:
                if watch.steps < FIRST_STEPS or not speaks_of_numbers(error):
                    raise
                watch.raised(error)
                raised = error
        found = trial.left_out(raised)
        if found:
            raise InputError(
                "train",
                self.train,
                found[0],
                "make the optimizer with trial.lr, build trial.schedule; at each update, call its step() and "
                "trial.report(step, train_loss=…)",
            )
        return watch.ended(spec.steps)


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


class _SweepWatch:
    """Turns a trial's reports into the sweep's points, one a step.

    A loss that is not finite ends the sweep with the next such loss: where one is finite again in between,
    the weights have survived, and it was the batch.
    """

    def __init__(self, observe: Observer) -> None:
        self._observe = observe
        self._step = 0
        self._reason: str | None = None
        self._waiting: int | None = None
        self._passed_over: list[BadBatch] = []
        self._outcome: Outcome | None = None

    @property
    def steps(self) -> int:
        """Updates reported so far."""
        return self._step

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hands a point on, and keeps what the sweep says to it."""
        if "train/loss" not in metrics or "lr" not in metrics:
            return
        if step != self._step + 1:
            raise InputError("step", step, f"follows step {self._step}", "report every step of a range test")
        self._step = step
        self._reason = self._observe(step, metrics["lr"], metrics["train/loss"])

    def monitor(self, step: int, loss: float) -> str | None:
        """The reason to stop, if any, after the report of a training loss."""
        if not math.isfinite(loss):
            if self._waiting is not None:
                self._outcome = Outcome(self._waiting - 1, self._waiting, "not_finite")
            else:
                self._waiting = self._step = step
            return "not_finite"
        if self._waiting is not None:
            self._passed_over.append(BadBatch(self._waiting, self._waiting))
            self._waiting = None
        if self._reason is not None:
            self._outcome = Outcome(self._step, self._step, self._reason)
        return self._reason

    def raised(self, error: Exception) -> None:
        """The training function raised after its last report."""
        self._outcome = Outcome(self._step, self._step + 1, "raised", error)

    def ended(self, steps: int) -> Outcome:
        """How the sweep went."""
        found = self._outcome or Outcome(steps)
        if self._outcome is None and self._waiting is not None:
            found = Outcome(self._waiting - 1, self._waiting, "not_finite")
        return replace(found, passed_over=tuple(self._passed_over))


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
        guarded=FIRST_STEPS,
        seed=order.seed,
    )
