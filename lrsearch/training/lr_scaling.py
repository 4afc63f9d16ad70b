"""How the lr of each param group follows the lr that a task's optimizer is made with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from lrsearch.errors import InputError
from lrsearch.training.optimizers import group_lrs
from lrsearch.training.task import Task, check_parts
from lrsearch.training.update import Training

UNSCALED = "unscaled_groups"
"""Among the facts: the param groups whose lr is not in proportion to the one the optimizer is made with."""
_SAME_POWER = 1e-4
"""How far rounding may move the exponent of an lr."""


@dataclass(frozen=True)
class TaskLook:
    """What a task trains, and how each param group's lr follows the lr that the optimizer is made with.

    It goes as that lr to the group's power: 1 is in proportion, as all are where there are no `powers`; 0 is
    not at all.
    """

    facts: dict[str, Any]
    powers: tuple[float, ...] = ()


def look_at(task: Task, lrs: tuple[float, float], device: torch.device) -> TaskLook:
    """Look at a task through a model that is thrown away, and its optimizer at each of two lrs.

    Raises InputError for parts that cannot be trained together, and for an optimizer that ignores its lr.
    """
    with task.preserve():
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
        return TaskLook(facts)
    return TaskLook({**facts, UNSCALED: unscaled}, tuple(powers))


def _power(low: float, high: float, span: float) -> float:
    """The p of lr**p, which goes from `low` to `high` over this `span` of log lr."""
    if low <= 0 or high <= 0:
        return 1.0 if low == high else 0.0
    power = math.log(high / low) / span
    whole = round(power)
    return float(whole) if abs(power - whole) < _SAME_POWER else power
