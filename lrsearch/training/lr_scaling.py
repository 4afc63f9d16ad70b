"""How the lr of each param group follows the lr that a task's optimizer is made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from lrsearch.errors import InputError
from lrsearch.training.optimizers import group_lrs
from lrsearch.training.task import Task, check_parts
from lrsearch.training.update import Training

UNSCALED = "unscaled_groups"
"""Among the facts: the param groups whose lr is not in proportion to the one the optimizer is made with."""
_LOOKS = 5
_SAME = 1e-4
"""How far rounding may move the ratio of two lrs."""


@dataclass(frozen=True)
class TaskLook:
    """What a task trains, and whether every param group's lr is in proportion to the one it is made with."""

    facts: dict[str, Any]

    @property
    def is_scaled(self) -> bool:
        """Whether all groups are."""
        return UNSCALED not in self.facts


def look_at(task: Task, lrs: tuple[float, float], device: torch.device) -> TaskLook:
    """Look at a task through a model that is thrown away, and its optimizer at two lrs and between them.

    Raises InputError for parts that cannot be trained together, and for an optimizer that ignores its lr.
    """
    asked = np.geomspace(*lrs, _LOOKS).tolist()
    with task.preserve():
        model = task.build_model(device)
        optimizers = [task.optimizer(model.parameters(), lr) for lr in asked]
        check_parts(model, task.loss, optimizers[-1])
        made = np.array([group_lrs(optimizer) for optimizer in optimizers])
    if np.all(made == made[0]):
        raise InputError(
            "Task.optimizer",
            task.optimizer,
            f"ignores the lr that it is given: its lr is always {made[0, 0]:.3g}",
            "make the optimizer with lr=lr",
        )
    training = Training(model, optimizers[-1], task.train_loader, task.loss, task.step, device=device)
    ratios = made / np.array(asked)[:, None]
    unscaled = np.flatnonzero(~np.isclose(ratios, ratios[-1], rtol=_SAME, atol=0).all(axis=0)).tolist()
    return TaskLook({**training.facts(), **({UNSCALED: unscaled} if unscaled else {})})


def courses(task: Task, model: nn.Module, lrs: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """Of every param group the lr that the task's optimizer gives it at each lr, over that at the last."""
    with task.preserve():
        made = np.array([group_lrs(task.optimizer(model.parameters(), lr)) for lr in lrs])
    last = np.where(made[-1] == 0, 1.0, made[-1])
    return tuple(map(tuple, (made / last).T.tolist()))
