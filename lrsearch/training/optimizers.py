"""What is to be known of an optimizer, whoever wrote it: its lrs, its settings, its modes, its closure."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import AdamW, Optimizer

from lrsearch.errors import InputError


def group_lrs(optimizer: Optimizer) -> list[float]:
    """The lr of every param group; InputError for a group that has none."""
    lrs = [_as_number(group.get("lr")) for group in optimizer.param_groups]
    for number, lr in enumerate(lrs):
        if lr is None:
            raise InputError(
                "optimizer",
                type(optimizer).__name__,
                f"the lr of param group {number} is {optimizer.param_groups[number].get('lr')!r}, no number",
                "give every group an lr",
            )
    return [lr for lr in lrs if lr is not None]


def set_group_lrs(optimizer: Optimizer, lrs: Sequence[float]) -> None:
    """Give every param group its lr; an lr that is a tensor stays the same one."""
    for group, lr in zip(optimizer.param_groups, lrs, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def settings(optimizer: Optimizer) -> dict[str, Any]:
    """Weight decay, momentum and betas of the first group, as plain JSON; what is no number is left out."""
    group = optimizer.param_groups[0]
    found: dict[str, Any] = {
        name: number
        for name in ("weight_decay", "momentum")
        if (number := _as_number(group.get(name))) is not None
    }
    betas = group.get("betas")
    if isinstance(betas, Sequence) and not isinstance(betas, str):
        found["betas"] = str(tuple(map(_as_number, betas)))
    if group.get("decoupled_weight_decay") or isinstance(optimizer, AdamW):
        found["decoupled_weight_decay"] = True
    return found


def train_mode(optimizer: Optimizer) -> None:
    """Call ``train()`` where the optimizer has it: a schedule-free one trains other weights than it hands
    over.
    """
    if _has_modes(optimizer):
        optimizer.train()  # type: ignore[attr-defined]


def eval_mode(optimizer: Optimizer) -> None:
    """Call ``eval()`` where the optimizer has it: the weights are then those to evaluate and to keep."""
    if _has_modes(optimizer):
        optimizer.eval()  # type: ignore[attr-defined]


@contextmanager
def evaluating(optimizer: Optimizer) -> Iterator[None]:
    """The optimizer in eval mode meanwhile, and in train mode afterwards."""
    eval_mode(optimizer)
    try:
        yield
    finally:
        train_mode(optimizer)


def needs_closure(optimizer: Optimizer) -> bool:
    """Whether `step` has to be handed the closure, as LBFGS's has."""
    try:
        parameters = list(inspect.signature(type(optimizer).step).parameters.values())[1:]
    except (TypeError, ValueError):  # of no function in Python
        return False
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.default is p.empty and p.kind in by_position for p in parameters)


def asks_for_closure(error: Exception) -> bool:
    """Whether a `step` without a closure raised because it needs one, as SAM's does."""
    said = f"{type(error).__name__} {error}".lower()
    return "closure" in said or "'nonetype' object is not callable" in said


def _has_modes(optimizer: Optimizer) -> bool:
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


def _as_number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        return None
