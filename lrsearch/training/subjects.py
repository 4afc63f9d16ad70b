"""What can be swept: a model in use, a task, a training loop of one's own."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.optim import Optimizer

from lrsearch.core.sweep_plan import SweepPlan
from lrsearch.errors import InputError
from lrsearch.schedules import Sweep
from lrsearch.training.compilation import compiled, warn_of_missing_compiler
from lrsearch.training.data import batch_count, check_batches
from lrsearch.training.loaders import is_one_shot, seed_loaders
from lrsearch.training.loop import Observe, Outcome, fit
from lrsearch.training.lr_scaling import UNSCALED, TaskLook, courses, look_at, warn_of_unscaled
from lrsearch.training.optimizers import group_lrs, set_group_lrs, train_mode
from lrsearch.training.precision import check_precision
from lrsearch.training.random_state import seed_everything
from lrsearch.training.snapshot import Keep, preserve_state
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
from lrsearch.training.trial import TrainFunction
from lrsearch.training.untrained import rebuilt, rewound
from lrsearch.training.update import Training

Begin = Callable[[Mapping[str, Any]], None]
"""Called with what is trained, as plain JSON, before the first update."""
FIRST_STEPS = 10
"""Steps in which a sweep's lr has done nothing yet."""
TaskFunction = Callable[[], Task]


@dataclass(frozen=True)
class SweepOrder:
    """One sweep to be run: what to do, and whom to tell."""

    plan: SweepPlan
    schedule: Sweep
    seed: int
    device: torch.device
    begin: Begin
    observe: Observe


@dataclass(frozen=True)
class ModelInUse:
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
            order.begin(training.model_info())
            return fit(training, order.schedule, self.steps(order.plan), order.observe)


@dataclass(frozen=True)
class FromTask:
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
        check_precision(plan.precision, chosen)
        warn_of_missing_compiler(self.task, chosen)
        warn_of_unscaled("Task.optimizer", self.look(plan, chosen).model_info.get(UNSCALED, []))
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
            optimizer = task.make_optimizer(model, order.plan.max_lr)
            check_parts(model, task.loss, optimizer)
            if not model.training:
                model.train()
            train_mode(optimizer)
            compiled(model, task, order.device)
            training = _training(model, optimizer, task.loss, task.train_loader, task.step, order)
            training.untrained = rebuilt(partial(task.build_model, order.device), order.seed)
            order.begin(look.model_info)
            return fit(training, schedule, self.steps(order.plan), order.observe)


def is_task_function(value: object) -> TypeGuard[TaskFunction]:
    """Whether a value is a function that is called without arguments, and so makes a task.

    One whose first argument is called ``trial`` is a training function, whatever its default.
    """
    return _is_function(value) and not _takes_any(value) and _may_be_called_bare(value)


def may_be_task_function(value: object) -> TypeGuard[TaskFunction]:
    """Whether only a call tells if a function makes a task: a decorator has hidden what it takes."""
    return _is_function(value) and _takes_any(value) and _may_be_called_bare(value)


def is_train_function(value: object) -> TypeGuard[TrainFunction]:
    """Whether a value is a training loop of one's own: a function, and no model."""
    return _is_function(value)


def _is_function(value: object) -> TypeGuard[Callable[..., Any]]:
    return callable(value) and not isinstance(value, (nn.Module, type))


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def _takes_any(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_POSITIONAL for p in _parameters(function))


def _may_be_called_bare(function: Callable[..., Any]) -> bool:
    parameters = _parameters(function)
    takes_trial = bool(parameters) and parameters[0].name == "trial"
    return not takes_trial and all(map(_may_be_left_out, parameters))


def _may_be_left_out(parameter: inspect.Parameter) -> bool:
    return parameter.default is not parameter.empty or parameter.kind in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


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
