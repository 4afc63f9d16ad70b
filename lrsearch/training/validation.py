"""Validation: the loss and the metrics of a model over a loader, with nothing changed by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, SupportsFloat

import torch
from torch import Tensor, nn

from lrsearch.errors import InputError, first_line
from lrsearch.training.data import count_rows, to_device
from lrsearch.training.state import preserve_random_state, seed_everything
from lrsearch.training.task import Task, forward


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

    Each is the mean over the batches, weighted by their rows. The model (and a loss that is a module) is in
    eval mode meanwhile, and every part of it has its own mode back afterwards; random numbers are those of
    `seed` at each validation, and the random states are put back. Raises InputError for a loader without a
    batch, and for a metric that is no number.
    """
    columns: dict[str, list[float | Tensor]] = {name: [] for name in ("loss", *task.metrics)}
    rows: list[int] = []
    modules = [module for module in (model, task.loss) if isinstance(module, nn.Module)]
    with torch.no_grad(), preserve_random_state(), _eval_mode(modules):
        seed_everything(seed)
        for drawn in loader:
            batch = drawn if device.type == "cpu" else to_device(drawn, device)
            found = forward(model, task.loss, task.step, batch)
            columns["loss"].append(_scalar(f"{part} loss", found.loss))
            for name, metric in task.metrics.items():
                value = _scalar(f"metrics[{name!r}]", metric(found.outputs, found.targets))
                columns[name].append(value)
            rows.append(count_rows(batch))
    if not rows:
        raise InputError(f"{part}_loader", loader, "yields no batch", "hand over a loader with data")
    return {f"{part}/{name}": _mean(values, rows) for name, values in columns.items()}


def as_number(name: str, value: object) -> float:
    """A metric's value as a float; raises InputError for what is no single number."""
    if not isinstance(value, SupportsFloat):
        raise _no_number(name, value, f"a {type(value).__name__}")
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_number(name, value, first_line(error)) from error


def _scalar(name: str, value: object) -> float | Tensor:
    """A number; a tensor stays where it is, so that an accelerator is not stalled at every batch."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return value.detach()
    return as_number(name, value)


def _no_number(name: str, value: object, reason: str) -> InputError:
    return InputError(name, value, f"is no number ({reason})", "give a number, e.g. a mean with .item()")


def _mean(values: Sequence[float | Tensor], rows: Sequence[int]) -> float:
    return sum(float(value) * n for value, n in zip(values, rows, strict=True)) / sum(rows)


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
