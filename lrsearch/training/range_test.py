"""The sweep: `fit` under a sweep schedule, once a seed, with everything put back afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from lrsearch.core.curve import RangeTestCurve
from lrsearch.core.plan import SweepPlan
from lrsearch.core.stopping import make_stop_rule
from lrsearch.errors import InputError
from lrsearch.training.data import batch_count
from lrsearch.training.loop import Training, fit
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


class SweepObserver(Protocol):
    """Hears of a sweep as it goes on."""

    def begin(self, seed: int, steps: int, facts: dict[str, Any]) -> None:
        """A seed's sweep of at most `steps` steps is about to begin; `facts` say what is trained, as plain
        JSON.
        """

    def point(self, seed: int, step: int, lr: float, loss: float) -> None:
        """A step gave a finite loss."""


@dataclass(frozen=True)
class Observers:
    """Several observers as one."""

    each: Sequence[SweepObserver]

    def begin(self, seed: int, steps: int, facts: dict[str, Any]) -> None:
        """Tells each."""
        for observer in self.each:
            observer.begin(seed, steps, facts)

    def point(self, seed: int, step: int, lr: float, loss: float) -> None:
        """Tells each."""
        for observer in self.each:
            observer.point(seed, step, lr, loss)


@dataclass(frozen=True)
class Parts:
    """A model in use with its optimizer, loss and loader: swept from its present weights, and put back."""

    model: nn.Module
    optimizer: Optimizer
    loss: LossFunction | None
    train_loader: Iterable[Any]
    step: StepFunction | None = None
    keep: Keep = "device"

    def check(self, device: str | torch.device | None) -> torch.device:
        """Raises InputError for parts that cannot be trained together; returns the model's device."""
        check_loss(self.loss, self.step)
        check_parts(self.model, self.loss, self.optimizer)
        here = device_of(self.model)
        if device is not None and choose_device(device).type != here.type:
            raise InputError(
                "device",
                str(device),
                f"the model is on {here}",
                f"move it with model.to({str(device)!r}) before making the optimizer",
            )
        return here

    @contextmanager
    def prepared(self, plan: SweepPlan, seed: int, device: torch.device) -> Iterator[Training]:
        """The parts, seeded and in train mode; a model that is in train mode keeps its frozen parts in eval
        mode.
        """
        whole = nn.ModuleList([self.model, self.loss]) if isinstance(self.loss, nn.Module) else self.model
        with preserve_state(whole, self.optimizer, loaders=(self.train_loader,), keep=self.keep):
            seed_everything(seed)
            seed_loaders((self.train_loader,), seed)
            if not self.model.training:
                self.model.train()
            yield _training(self.model, self.optimizer, self.loss, self.train_loader, self.step, plan, device)


@dataclass(frozen=True)
class Fresh:
    """A task: a new model for every seed."""

    task: Task

    @property
    def train_loader(self) -> Iterable[Any]:
        """The task's."""
        return self.task.train_loader

    def check(self, device: str | torch.device | None) -> torch.device:
        """The device to train on."""
        return choose_device(device)

    @contextmanager
    def prepared(self, plan: SweepPlan, seed: int, device: torch.device) -> Iterator[Training]:
        """The seed's model, in train mode, with the global random state put back afterwards."""
        task = self.task
        with preserve_random_state(loaders=(task.train_loader,)):
            seed_everything(seed)
            seed_loaders((task.train_loader,), seed)
            model, optimizer = task.build(plan.max_lr, device)
            check_parts(model, task.loss, optimizer)
            model.train()
            yield _training(model, optimizer, task.loss, task.train_loader, task.step, plan, device)


def sweep(
    subject: Parts | Fresh, plan: SweepPlan, device: torch.device, observer: SweepObserver
) -> Iterator[RangeTestCurve]:
    """Sweeps the lr once a seed, and yields each seed's curve; `device` is what `check` returned.

    Seeds are ``plan.seed … plan.seed + plan.repeats - 1``. Raises InputError for anything that cannot be
    trained, before the first update; what the model, the loss or the loader raise later passes through, with
    a note of the step. The model, the optimizer and all random generators are put back bit for bit in every
    case.
    """
    steps = plan.steps_for(batch_count(subject.train_loader))
    schedule = Sweep(min_lr=plan.min_lr, max_lr=plan.max_lr, spacing=plan.spacing)
    for seed in range(plan.seed, plan.seed + plan.repeats):
        yield _sweep_once(subject, plan, schedule, steps, seed, device, observer)


def _sweep_once(
    subject: Parts | Fresh,
    plan: SweepPlan,
    schedule: Sweep,
    steps: int,
    seed: int,
    device: torch.device,
    observer: SweepObserver,
) -> RangeTestCurve:
    lrs = schedule.curve(plan.max_lr, steps)
    losses: list[float] = []
    stop = make_stop_rule(plan.stop, lrs, plan.smoothing)

    def observe(step: int, lr: float, loss: float) -> str | None:
        losses.append(loss)
        observer.point(seed, step, lr, loss)
        return stop(loss)

    with subject.prepared(plan, seed, device) as training:
        observer.begin(seed, steps, training.facts())
        try:
            outcome = fit(training, schedule, steps, observe)
        except BaseException as error:
            if not isinstance(error, InputError):
                error.add_note(f"in the range test, after {len(losses)} steps with seed {seed}")
            raise
    return RangeTestCurve(
        lrs=lrs,
        losses=np.array(losses),
        seed=seed,
        smoothing=plan.smoothing,
        stopped_at=outcome.stopped_at,
        stop_reason=outcome.reason,
    )


def check(subject: Parts | Fresh, plan: SweepPlan, device: str | torch.device | None) -> torch.device:
    """Raises InputError for what can be seen to be wrong before a batch is drawn; returns the device to train
    on.

    Warns where the loader is a generator, whose batches cannot be put back.
    """
    _check_loader(subject.train_loader, plan)
    return subject.check(device)


def _check_loader(loader: Iterable[Any], plan: SweepPlan) -> None:
    if not isinstance(loader, Iterable):
        raise InputError("train_loader", loader, "is not iterable", "hand over a DataLoader")
    batches = batch_count(loader)
    if batches is not None and batches < 2:
        raise InputError(
            "train_loader",
            loader,
            f"has {batches} batches" if batches != 1 else "has a single batch",
            "hand over at least two; a smaller batch_size makes more",
        )
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
    plan: SweepPlan,
    device: torch.device,
) -> Training:
    return Training(
        model=model,
        optimizer=optimizer,
        train_loader=loader,
        loss=loss,
        step=step,
        accumulate=plan.accumulate,
        clip=plan.clip,
        precision=plan.precision,
        device=device,
    )
