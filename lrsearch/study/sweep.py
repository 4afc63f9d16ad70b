"""The range test as a person calls it: validated, swept, recorded, judged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from lrsearch.core.divergence import Divergence
from lrsearch.core.observer import Observer, Observers
from lrsearch.core.suggest import combine, suggest
from lrsearch.core.sweep_plan import Precision, Spacing, Stop, SweepPlan, validated
from lrsearch.errors import InputError
from lrsearch.study.subject import called, data_of, kwargs_of
from lrsearch.study.sweep_record import RangeTestRecord
from lrsearch.study.sweep_result import RangeTest
from lrsearch.tracking.destination import find_destination
from lrsearch.tracking.folder import create_folder, range_test_name
from lrsearch.training.custom_loop import CustomLoop
from lrsearch.training.subjects import FromTask, ModelInUse, is_train_function
from lrsearch.training.sweep import sweep
from lrsearch.training.task import Task

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import Optimizer

    from lrsearch.training.snapshot import Keep
    from lrsearch.training.subjects import TaskFunction
    from lrsearch.training.task import LossFunction, StepFunction
    from lrsearch.training.trial import TrainFunction


def range_test(
    model: nn.Module | Task | TrainFunction | TaskFunction,
    optimizer: Optimizer | None = None,
    loss: LossFunction | None = None,
    train_loader: Iterable[Any] | None = None,
    *,
    step: StepFunction | None = None,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    steps: int | None = None,
    spacing: Spacing = "log",
    smoothing: float = 0.98,
    repeats: int = 1,
    seed: int = 0,
    stop: Stop = "auto",
    divergence: Divergence = "auto",
    accumulate: int = 1,
    clip: float | None = None,
    precision: Precision = "32",
    device: str | torch.device | None = None,
    tracking: bool = True,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    tags: Mapping[str, str] | None = None,
    out: str | os.PathLike[str] | None = None,
    keep: Keep = "device",
    progress: Observer | bool = True,
) -> RangeTest:
    """Trains while the lr rises from `min_lr` to `max_lr`, and reads a learning rate off the losses.

    Takes a model with its optimizer, loss and loader, or a `Task` (or the function that makes it) alone, or a
    training function ``train(trial)``. The model, the optimizer, the loader's generator and all random states
    are put back bit for bit, whatever happens.

    `steps` updates, by default one epoch, at least 100 and at most 1,000. `spacing` of the lrs is ``log``
    or ``linear``; `smoothing` is the running average's beta. `repeats` seeds, from `seed` on, give
    several curves and one answer: with a model they vary the order of the data and the dropout, with a
    Task the initial weights too. `stop` ends the sweep early: ``auto`` once the loss has risen for good,
    ``4x`` by the classic rule, or ``none``; a loss that is not finite always ends it. Where the training
    loss may rise without harm (a GAN's, a curriculum's), `divergence` ``not_finite`` takes nothing else
    for the edge. A batch whose loss is not finite on the untrained model either is passed over, and
    named. `accumulate` batches make one update; `clip` limits the gradient's norm; `precision` is ``32``,
    ``16`` (autocast and a GradScaler) or ``bf16``. A `step(model, batch)` returns the loss where batches
    are not ``(inputs, targets)``.

    All lrs, from `min_lr` to the suggestion, are those that a Task's optimizer is made with, or `trial.lr`;
    with a model and its optimizer they are param group 0's, and ``suggestion.groups`` has every group's.
    Several param groups keep the ratios of their lrs, but for those of a Task that do not follow its lr.

    With `tracking` the record goes to a folder of its own (`out`, else below ``LRSEARCH_HOME``) and from
    there to MLflow, without the training waiting for it. `keep` says where the copy of the model's state lies
    meanwhile: ``device``, ``cpu`` or ``disk``. `progress` shows a bar in a terminal.

    Raises InputError for a wrong argument, before any training; what the model or the loader raise in
    mid-sweep passes through.
    """
    plan = validated(
        SweepPlan,
        min_lr=min_lr,
        max_lr=max_lr,
        steps=steps,
        spacing=spacing,
        smoothing=smoothing,
        repeats=repeats,
        seed=seed,
        stop=stop,
        divergence=divergence,
        accumulate=accumulate,
        clip=clip,
        precision=precision,
    )
    given, name = called(model)
    subject = _subject(given, optimizer, loss, train_loader, step, keep)
    chosen = subject.check(plan, device)
    with ExitStack() as stack, ExitStack() as shown:
        observers: list[Observer] = []
        record = None
        if tracking:
            data = data_of(subject)  # before the folder is made: the user's data set may raise
            record = RangeTestRecord(
                folder=create_folder(range_test_name(name), out),
                destination=find_destination(f"lrsearch/{name}", tracking_uri, experiment),
                task=name,
                plan=plan,
                params=kwargs_of(given),
                tags=tags or {},
                data=data,
            )
            observers.append(stack.enter_context(record))
        if not isinstance(progress, bool):
            observers.append(progress)
        elif progress:
            from lrsearch.report.progress import SweepProgress

            observers.append(shown.enter_context(SweepProgress(plan.repeats)))
        curves = tuple(sweep(subject, plan, chosen, Observers(*observers)))
        shown.close()
        suggestion = combine([suggest(curve) for curve in curves])
        if isinstance(subject, ModelInUse):
            suggestion = suggestion.with_groups(subject.ratios)
        if record is not None:
            record.finish(curves, suggestion)
    if record is None:
        return RangeTest(curves, suggestion, task=name)
    return RangeTest(
        curves, suggestion, task=name, folder=record.folder, mirror=record.mirror, key=record.key
    )


def _subject(
    model: nn.Module | Task | TrainFunction,
    optimizer: Optimizer | None,
    loss: LossFunction | None,
    train_loader: Iterable[Any] | None,
    step: StepFunction | None,
    keep: Keep,
) -> ModelInUse | FromTask | CustomLoop:
    if isinstance(model, Task) or is_train_function(model):
        given = {"optimizer": optimizer, "loss": loss, "train_loader": train_loader, "step": step}
        for argument, value in given.items():
            if value is not None:
                owner = "a Task" if isinstance(model, Task) else "a training function"
                raise InputError(
                    argument, value, f"is given beside {owner}, which has its own", "leave it out"
                )
        return FromTask(model) if isinstance(model, Task) else CustomLoop(model)
    if optimizer is None:
        raise InputError(
            "optimizer", None, "is missing", "hand over model, optimizer, loss and train_loader, or a Task"
        )
    if train_loader is None:
        raise InputError("train_loader", None, "is missing", "hand over a DataLoader")
    return ModelInUse(model, optimizer, loss, train_loader, step, keep)  # type: ignore[arg-type]  # its check tells
