"""How the lr of each param group follows the lr that a task's factory, or a training function, is given."""

from __future__ import annotations

import math
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lrsearch.core.trial import TrialSpec
from lrsearch.errors import InputError, StopTrial
from lrsearch.schedules import Constant, Schedule
from lrsearch.schedules.base import FloatArray
from lrsearch.training.averaging import averaging
from lrsearch.training.compilation import terms
from lrsearch.training.optimizers import group_lrs
from lrsearch.training.random_state import preserve_random_state, seed_everything
from lrsearch.training.task import Task, check_parts
from lrsearch.training.trial import TrainFunction, Trial, TrialSchedule
from lrsearch.training.update import Training

UNSCALED = "unscaled_groups"
"""In `model_info`: the param groups whose lr is not in proportion to the one the optimizer is made with."""
_LOOKS = 5
"""At so many lrs a factory is asked."""
_SAME = 1e-4
"""How far rounding may move the ratio of two lrs."""
_HALVINGS = 6
"""How often the range is halved around a bend, such as that of a cap: to a factor 1.4 of 8 decades."""


@dataclass(frozen=True)
class TaskLook:
    """What a task trains, and whether every param group's lr is in proportion to the one it is made with."""

    model_info: dict[str, Any]

    @property
    def is_scaled(self) -> bool:
        """Whether all groups are."""
        return UNSCALED not in self.model_info


def look_at(task: Task, lrs: tuple[float, float], device: torch.device) -> TaskLook:
    """Look at a task through a model that is thrown away, and its optimizer at two lrs and between them.

    Raises InputError for parts that cannot be trained together, and for an optimizer that ignores its lr.
    """
    asked = np.geomspace(*lrs, _LOOKS).tolist()
    with task.preserve():
        model = task.build_model(device)
        optimizers = [task.make_optimizer(model, lr) for lr in asked]
        check_parts(model, task.loss, optimizers[-1])
        if task.ema is not None:
            averaging(model, optimizers[-1], task.ema)
        made = np.array([group_lrs(optimizer) for optimizer in optimizers])
    if np.all(made == made[0]):
        raise InputError(
            "Task.optimizer",
            task.optimizer,
            f"ignores the lr that it is given: its lr is always {made[0, 0]:.3g}",
            "make the optimizer with lr=lr",
        )
    training = Training(
        model,
        optimizers[-1],
        task.train_loader,
        task.loss,
        task.step,
        task.accumulate,
        task.clip,
        task.precision,
        device,
    )
    unscaled = _unscaled(asked, made)
    return TaskLook(
        {**training.model_info(), **terms(task, device), **({UNSCALED: unscaled} if unscaled else {})}
    )


def courses(task: Task, model: nn.Module, lrs: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """Of every param group the lr that the task's optimizer gives it at each lr, over that at the last."""
    with task.preserve():
        return _over_last(np.array([group_lrs(task.make_optimizer(model, lr)) for lr in lrs]))


def warn_of_unscaled(maker: str, groups: Sequence[int]) -> None:
    """Warn of param groups whose lr does not follow the lr that a factory or a loop is given."""
    if groups:
        numbers = ", ".join(map(str, groups))
        warnings.warn(
            f"the lr that {maker} gives param group {numbers} is not in proportion to the lr that it is "
            "given: the range test and a search train each group at the lr that it makes",
            UserWarning,
            stacklevel=3,
        )


@dataclass(frozen=True)
class LoopLook:
    """What lrs a training function gives its param groups, by the lr that it was run at.

    `made` has a row an lr, a column a group. Between those lrs, the log of a group's lr is a
    straight line in the log of the lr given. `steps` is the length that it builds its schedule for, which
    may be less than it was given: the whole epochs therein.
    """

    asked: tuple[float, ...]
    made: tuple[tuple[float, ...], ...]
    steps: int

    @property
    def unscaled(self) -> list[int]:
        """The groups whose lr is not in proportion to the one given."""
        return _unscaled(self.asked, np.array(self.made))

    def at(self, lrs: Sequence[float]) -> tuple[tuple[float, ...], ...]:
        """Of every param group the lr at each lr, over that at the last."""
        x, known = np.log(lrs), np.log(self.asked)
        logs = np.log(np.maximum(np.array(self.made), sys.float_info.min))
        return _over_last(np.exp([np.interp(x, known, log) for log in logs.T]).T)


def look_at_loop(
    train: TrainFunction, lrs: tuple[float, float], steps: int, device: torch.device
) -> LoopLook | None:
    """Run a training function at two lrs up to its first update, and note the lrs of its optimizers.

    Where they are not in proportion to the lr given, lrs in between are tried until straight lines in log lr
    go through all, or a bend is known to within a factor of 1.4. None where it builds no schedule. Raises
    InputError for a function that ignores the lr, and lets through what it raises itself.
    """
    found: dict[float, list[float]] = {}
    lengths = [steps]

    def look(lr: float) -> bool:
        if lr not in found and (built := _until_its_first_update(train, lr, steps, device)).lrs:
            _check_as_many(train, {**found, lr: built.lrs})
            found[lr] = built.lrs
            lengths.append(built.length)
        return lr in found

    def seen() -> LoopLook:
        asked = tuple(sorted(found))
        return LoopLook(asked, tuple(tuple(found[lr]) for lr in asked), min(lengths))

    def halve(low: float, high: float, left: int) -> None:
        middle = math.sqrt(low * high)
        expected = LoopLook((low, high), (tuple(found[low]), tuple(found[high])), steps).at([middle, high])
        if left == 0 or not look(middle):
            return
        made = np.array([found[middle], found[high]])
        if not np.allclose(_over_last(made), expected, rtol=_SAME, atol=0):
            halve(low, middle, left - 1)
            halve(middle, high, left - 1)

    if not all(look(lr) for lr in lrs):
        return None
    if found[lrs[0]] == found[lrs[1]]:
        raise InputError(
            "train",
            train,
            f"makes its optimizer with the same lr at every trial.lr: {found[lrs[0]][0]:.3g}",
            "make it with trial.lr",
        )
    if seen().unscaled:
        halve(*lrs, _HALVINGS)
    return seen()


def _check_as_many(train: TrainFunction, found: Mapping[float, Sequence[float]]) -> None:
    counts = {lr: len(lrs) for lr, lrs in found.items()}
    low, high = min(counts), max(counts)
    if len({*counts.values()}) > 1:
        raise InputError(
            "train",
            train,
            f"schedules {counts[low]} param groups at trial.lr {low:.3g} and {counts[high]} at {high:.3g}",
            "make the same groups at every lr",
        )


class _LookedAt(StopTrial):
    """Ends a training function before its first update."""


class _Look(TrialSchedule):
    """Notes the lrs of every optimizer that it is built on, and the length that it is built for."""

    def __init__(self, value: Schedule, lr: float, steps: int) -> None:
        super().__init__(value, lr, steps)
        self.lrs: list[float] = []
        self.length = steps

    def build(
        self, optimizer: Optimizer, total_steps: int, steps_per_epoch: int | None = None
    ) -> LRScheduler:
        """Note them first."""
        self.lrs += group_lrs(optimizer)
        self.length = total_steps
        return super().build(optimizer, total_steps, steps_per_epoch)


def _until_its_first_update(train: TrainFunction, lr: float, steps: int, device: torch.device) -> _Look:
    spec = TrialSpec("range-test", lr, Constant().to_dict(), seed=0, steps=steps)
    thread = threading.get_ident()

    def end(*_: object) -> None:
        if threading.get_ident() == thread:  # another one's trainings are none of this one's
            raise _LookedAt("the optimizer's lrs were looked at")

    trial = Trial(spec, device, record=end, monitor=end, objective="train/loss")
    trial.schedule = look = _Look(trial.schedule.value, lr, steps)
    hook = register_optimizer_step_pre_hook(end)
    with preserve_random_state():
        seed_everything(spec.seed)
        try:
            train(trial)
        except StopTrial:
            pass  # it was about to make its first update, or reported without one
        except Exception as error:
            error.add_note(f"before the range test, at trial.lr {lr:.3g}")
            raise
        finally:
            hook.remove()
    return look


def _unscaled(asked: Sequence[float], made: FloatArray) -> list[int]:
    ratios = made / np.array(asked)[:, None]
    found: list[int] = np.flatnonzero(
        ~np.isclose(ratios, ratios[-1], rtol=_SAME, atol=0).all(axis=0)
    ).tolist()
    return found


def _over_last(made: FloatArray) -> tuple[tuple[float, ...], ...]:
    last = np.where(made[-1] == 0, 1.0, made[-1])
    return tuple(map(tuple, (made / last).T.tolist()))
