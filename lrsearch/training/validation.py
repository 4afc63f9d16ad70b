"""Validation: the loss and the metrics of a model over a loader, with nothing changed by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, SupportsFloat

import torch
from torch import Tensor, nn

from lrsearch.errors import InputError, first_line
from lrsearch.training.data import count_targets, to_device
from lrsearch.training.loaders import epoch_number, epoch_setters, preserve_epochs
from lrsearch.training.metrics import as_number, gathered, scalar, weighted_mean
from lrsearch.training.precision import autocast, in_full
from lrsearch.training.random_state import preserve_random_state, seed_everything
from lrsearch.training.snapshot import preserve_buffers
from lrsearch.training.task import Batch, Forward, Task, forward


def validate(
    task: Task,
    model: nn.Module,
    loader: Iterable[Any],
    device: torch.device,
    *,
    part: Literal["val", "test"],
    seed: int,
) -> dict[str, float]:
    """The loss and every metric of the task on a loader, as ``val/loss``, ``val/<metric>``.

    The loss is the mean over the batches, weighted by their targets (see `Task`), and so is a metric that is
    a plain function. The model (and a loss that is a module) is in eval mode meanwhile, and every part of it
    has its own mode back afterwards; where a function of the user's own is called with the model, so do its
    buffers and gradients. Random numbers are those of `seed` at each validation, and the random states are
    put back. Raises InputError for a loader without a batch, for a metric that is no number, and where a
    `val_step` is needed; MetricError for a metric that cannot be computed.
    """
    modules = [module for module in (model, task.loss) if isinstance(module, nn.Module)]
    own_step = task.val_step is not None or task.step is not None
    losses: list[tuple[float | Tensor, float]] = []
    with (
        torch.no_grad(),
        preserve_random_state(),
        preserve_epochs((loader,)),
        preserve_buffers(modules) if own_step else nullcontext(),
        _eval_mode(modules),
    ):
        seed_everything(seed)
        for set_epoch in epoch_setters((loader,)):
            set_epoch(epoch_number(seed, 0))
        metrics = {
            name: gathered(f"metrics[{name!r}]", metric, device) for name, metric in task.metrics.items()
        }
        for drawn in loader:
            weight = _weight(task, drawn)
            batch = drawn if device.type == "cpu" else to_device(drawn, device)
            with autocast(task.precision, device):
                found = _forward(task, model, batch)
            losses.append((_loss(task, part, found.loss), weight))
            for metric in metrics.values():
                metric.add(in_full(found.outputs), found.targets, weight)
        if not losses:
            raise InputError(f"{part}_loader", loader, "yields no batch", "hand over a loader with data")
        loss = weighted_mean([(float(value), weight) for value, weight in losses if weight])
        return {f"{part}/loss": loss} | {f"{part}/{name}": m.value() for name, m in metrics.items()}


def _weight(task: Task, batch: Batch) -> float:
    if task.rows is None:
        ignored = getattr(task.loss, "ignore_index", None)
        return count_targets(batch, ignored) if isinstance(ignored, int) else count_targets(batch)
    rows = task.rows(batch)
    if not isinstance(rows, SupportsFloat) or not (0 <= (number := as_number("Task.rows", rows)) < torch.inf):
        raise InputError("Task.rows", rows, "is no number of rows", "return a whole number for each batch")
    return number


def _forward(task: Task, model: nn.Module, batch: Batch) -> Forward:
    if task.val_step is not None:
        model.eval()  # it may have left train mode on at the batch before
        with torch.enable_grad():
            return Forward(task.val_step(model, batch))
    try:
        return forward(model, task.loss, task.step, batch)
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
        raise InputError(
            "val_step",
            None,
            f"is missing, and validation needs gradients ({first_line(error)})",
            "hand over Task(val_step=…): val_step(model, batch) -> loss is called with gradients",
        ) from error


def _loss(task: Task, part: str, value: object) -> float | Tensor:
    """A batch's loss, which a model may give in train mode only."""
    makes_none = not isinstance(value, (Tensor, SupportsFloat))
    if makes_none and task.val_step is None and (task.loss is None or task.step is not None):
        raise InputError(
            "val_step",
            None,
            f"is missing, and in eval mode the model gives no loss (but a {type(value).__name__})",
            "hand over Task(val_step=…): val_step(model, batch) -> loss may call model.train()",
        )
    return scalar(f"{part} loss", value)


@contextmanager
def _eval_mode(modules: Sequence[nn.Module]) -> Iterator[None]:
    before = [(part, part.training) for module in modules for part in module.modules()]
    roots = [(module, module.training) for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, training in roots:  # by train(), which a module may have made its own
            module.train(training)
        for part, training in before:
            part.training = training
