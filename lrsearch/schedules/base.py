"""What every schedule has in common: its data, its curve, its recipe for torch, its code."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from lrsearch.errors import InputError
from lrsearch.schedules.recipe import Stage, code_lines

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Horizon:
    """How long the training is: `steps` updates, `epoch` of them in one epoch (None: not known)."""

    steps: int
    epoch: int | None = None

    def __post_init__(self) -> None:
        """Check both counts."""
        if not is_int(self.steps) or self.steps < 1:
            raise InputError(
                "total_steps", self.steps, "is no count of updates", "give a whole number, at least 1"
            )
        if self.epoch is not None and (not is_int(self.epoch) or self.epoch < 1):
            raise InputError(
                "steps_per_epoch",
                self.epoch,
                "is no count of updates",
                "give a whole number, at least 1, or None",
            )

    @property
    def n(self) -> FloatArray:
        """The index of every update, 0 … steps-1."""
        return np.arange(self.steps, dtype=np.float64)

    def at(self, fraction: float) -> int:
        """The first update at or after this fraction of the horizon."""
        return math.ceil(fraction * self.steps - 1e-9)

    def at_epoch_end(self, fraction: float) -> int:
        """The first update after the nearest epoch end; `at` where that would be the horizon's own end."""
        if self.epoch is not None:
            nearest = math.floor(fraction * self.steps / self.epoch + 0.5) * self.epoch
            if 0 < nearest < self.steps:
                return nearest
        return max(1, self.at(fraction))


@dataclass(frozen=True)
class Schedule(ABC):
    """How the lr moves over a training of T updates; a subclass is a family, its fields the parameters.

    Update n (n = 0 … T-1) runs at `curve(lr, T)[n]`, where lr is the peak. Parameters are fractions of the
    horizon T and ratios to the peak, so that one schedule has the same shape at every horizon: where a
    docstring says nothing else, `curve(lr, T)` and `curve(lr, 10 * T)` agree at equal n/T.

    A family of one's own is a frozen dataclass whose fields all have defaults, with a `name`, `_ratios` and
    `_stages`; `_check` may raise InputError for a parameter. `lrsearch.schedules.register` makes it known.
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        """Turn what numpy or JSON handed over into plain Python values, and check the parameters."""
        for field in fields(self):
            object.__setattr__(self, field.name, _builtin(getattr(self, field.name)))
        self._check()

    @property
    def min_steps(self) -> int:
        """The shortest horizon on which the family makes sense, in updates."""
        return 1

    def recipe(self, total_steps: int, steps_per_epoch: int | None = None) -> list[Stage]:
        """The torch schedulers, named, that run one after the other over `total_steps` updates.

        Families that act at epoch ends do so where `steps_per_epoch` is given. Raises InputError for a
        horizon that is no count of updates, or too short for the family.
        """
        return self._stages(self._horizon(total_steps, steps_per_epoch))

    def curve(self, lr: float, total_steps: int, steps_per_epoch: int | None = None) -> FloatArray:
        """The lr of every update, shape (total_steps,), for a peak `lr`: what the built scheduler yields."""
        _check_lr(lr)
        return lr * self._ratios(self._horizon(total_steps, steps_per_epoch))

    def code(self, lr: float, total_steps: int, steps_per_epoch: int | None = None) -> str:
        """The lines that build this scheduler on `optimizer` in a training script, with torch alone."""
        _check_lr(lr)
        peak = f"# The optimizer is made first, with the schedule's peak: lr={float(lr)!r}"
        lines = self._code_lines(self._horizon(total_steps, steps_per_epoch))
        return "\n".join(["from torch.optim import lr_scheduler", "", peak, *lines, ""])

    def to_dict(self) -> dict[str, Any]:
        """The schedule as plain JSON data: its name and its parameters."""
        return {"name": self.name} | {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @abstractmethod
    def _stages(self, horizon: Horizon) -> list[Stage]:
        """The torch schedulers that run one after the other, over the whole horizon."""

    @abstractmethod
    def _ratios(self, horizon: Horizon) -> FloatArray:
        """The lr of every update as a ratio to the peak, in closed form, shape (steps,)."""

    def _check(self) -> None:  # noqa: B027 (a family may have nothing to check)
        """Raise InputError for a parameter out of range."""

    def _code_lines(self, horizon: Horizon) -> list[str]:
        return [*code_lines(self._stages(horizon)), "# scheduler.step() once after every optimizer.step()"]

    def _horizon(self, total_steps: int, steps_per_epoch: int | None) -> Horizon:
        horizon = Horizon(total_steps, steps_per_epoch)
        self._check_horizon(horizon)
        return horizon

    def _check_horizon(self, horizon: Horizon) -> None:
        if horizon.steps < self.min_steps:
            raise InputError(
                "total_steps",
                horizon.steps,
                f"the schedule {self.name} needs at least {self.min_steps} updates",
                "train for more updates or choose another schedule",
            )

    def _require(self, parameter: str, condition: bool, must_be: str) -> None:
        """Raise InputError unless the parameter fulfils the condition."""
        if not condition:
            value = getattr(self, parameter)
            raise InputError(f"{self.name}.{parameter}", value, "is out of range", f"choose {must_be}")

    def _require_fraction(self, *parameters: str) -> None:
        for parameter in parameters:
            self._require(parameter, is_fraction(getattr(self, parameter)), "a number between 0 and 1")

    def _require_count(self, parameter: str, low: int, high: int) -> None:
        value = getattr(self, parameter)
        self._require(parameter, is_int(value) and low <= value <= high, f"a whole number, {low} to {high}")


def check_params(family: type[Schedule], params: dict[str, Any]) -> None:
    """Raise InputError for a parameter that the family does not have."""
    known = [field.name for field in fields(family)]
    for key, value in params.items():
        if key not in known:
            mend = f"choose from {', '.join(known)}" if known else "leave it out"
            raise InputError(f"{family.name}.{key}", value, "the schedule has no such parameter", mend)


def is_number(value: object) -> bool:
    """Whether `value` is a finite int or float (a bool is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_fraction(value: Any) -> bool:
    """Whether `value` is a number strictly between 0 and 1."""
    return is_number(value) and 0 < value < 1


def is_int(value: object) -> bool:
    """Whether `value` is an int (a bool is none)."""
    return isinstance(value, int) and not isinstance(value, bool)


def _check_lr(lr: float) -> None:
    if not is_number(lr) or lr <= 0:
        raise InputError("lr", lr, "is no learning rate", "choose a finite number above 0")


def _builtin(value: object) -> object:
    if isinstance(value, list | tuple):
        return tuple(_builtin(item) for item in value)
    return value.item() if isinstance(value, np.generic) else value


def _plain(value: object) -> object:
    if isinstance(value, Schedule):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value
