"""What is to be done, validated before anything is done."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from lrsearch.core.divergence import Divergence
from lrsearch.errors import InputError

Stop = Literal["auto", "4x", "none"]
Spacing = Literal["log", "linear"]
Precision = Literal["32", "16", "bf16"]

_LearningRate = Annotated[
    float, Field(gt=0, allow_inf_nan=False, description="give a finite lr above 0, e.g. 1e-7")
]

_STEPS_OF_AN_UNKNOWN_EPOCH = 300
"""Enough for an edge that no longer moves with the number of steps, few enough for a slow model."""


class PlanPart(BaseModel):
    """Settings: frozen, without unknown names, without NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class UpdateSettings(PlanPart):
    """How an update is made: the batches that it takes, the largest gradient, the precision."""

    accumulate: int = Field(1, ge=1, description="give the number of batches a step, at least 1")
    clip: (
        Annotated[float, Field(gt=0, description="give the largest gradient norm, above 0, or None")] | None
    ) = None
    precision: Precision = Field("32", description="choose '32', '16' or 'bf16'")

    def said(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return self.model_dump(include=set(UpdateSettings.model_fields), exclude_defaults=True)


class TrainingSettings(UpdateSettings):
    """What a Task says of its training beside its parts; every field is one of the Task's."""

    val_every: Annotated[int, Field(ge=1, description="give a number of updates, at least 1")] | None = None
    epochs: Annotated[int, Field(ge=1, description="give a whole number, at least 1")] | None = None
    steps: Annotated[int, Field(ge=1, description="give a whole number, at least 1")] | None = None
    ema: (
        Annotated[float, Field(gt=0, lt=1, description="give a decay between 0 and 1, e.g. 0.999")] | None
    ) = None
    compile: bool | dict[str, Any] = False

    @field_validator("compile", mode="before")
    @classmethod
    def _is_switch_or_options(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return dict(value)
        if not isinstance(value, bool):
            mend = "give True, or the arguments of torch.compile as a dict"
            raise InputError("compile", value, "is no switch and no options", mend)
        return value

    @model_validator(mode="after")
    def _has_one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise InputError("steps", self.steps, f"is given beside epochs={self.epochs}", "give one of them")
        return self

    @property
    def terms(self) -> dict[str, Any]:
        """What differs from the defaults, but for the length, which a study's plan has."""
        return self.model_dump(exclude={"epochs", "steps"}, exclude_defaults=True)


class SweepPlan(UpdateSettings):
    """The settings of a range test; every field is an argument of `lrsearch.range_test`."""

    min_lr: _LearningRate = 1e-7
    max_lr: _LearningRate = 10.0
    steps: (
        Annotated[int, Field(ge=10, description="give at least 10 steps; 100 to 1,000 are usual")] | None
    ) = None
    spacing: Spacing = Field("log", description="choose 'log' or 'linear'")
    smoothing: float = Field(
        0.98, ge=0, lt=1, description="give a number from 0 (no smoothing) to below 1, e.g. 0.98"
    )
    repeats: int = Field(1, ge=1, description="give the number of seeds, at least 1")
    seed: int = Field(0, ge=0, lt=2**32, description="give a whole number from 0 to 2**32 - 1")
    stop: Stop = Field("auto", description="choose 'auto', '4x' or 'none'")
    divergence: Divergence = Field("auto", description="choose 'auto', 'not_finite' or 'loss_rose'")

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if self.min_lr >= self.max_lr:
            raise InputError(
                "min_lr", self.min_lr, f"is not below max_lr={self.max_lr}", "swap them or widen the range"
            )
        if not math.isfinite(self.max_lr / self.min_lr):
            raise InputError(
                "min_lr", self.min_lr, f"is too far below max_lr={self.max_lr}", "narrow the range"
            )
        return self

    @property
    def seeds(self) -> range:
        """The seeds to sweep with."""
        return range(self.seed, self.seed + self.repeats)

    def steps_for(self, batches: int | None) -> int:
        """Steps of the sweep: as asked, else one epoch of `batches`, at least 100 and at most 1,000.

        300 where the length of an epoch is unknown.
        """
        if self.steps is not None:
            return self.steps
        if batches is None:
            return _STEPS_OF_AN_UNKNOWN_EPOCH
        return min(max(batches // self.accumulate, 100), 1000)


_Plan = TypeVar("_Plan", bound=BaseModel)


def validated(plan: type[_Plan], **values: Any) -> _Plan:
    """Makes a plan; its first wrong value is raised as an InputError that names field, value and mend."""
    try:
        return plan(**values)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InputError):
            raise cause from None
        name = ".".join(str(part) for part in first["loc"])
        owner, mend = _look_up(plan, first["loc"])
        if first["type"] == "extra_forbidden":
            mend = f"choose from {', '.join(owner.model_fields)}"
            raise InputError(name, first["input"], "is unknown", mend) from None
        problem = first["msg"][0].lower() + first["msg"][1:]
        raise InputError(name, first["input"], problem, mend) from None


def _look_up(plan: type[BaseModel], location: Sequence[int | str]) -> tuple[type[BaseModel], str]:
    """The (nested) plan that a wrong value belongs to, and what its field asks for."""
    mend = "see the documentation of this argument"
    for name in location:
        field = plan.model_fields.get(str(name))
        if field is None:
            break
        described = [field.description, *(getattr(m, "description", None) for m in _parts(field))]
        mend = next((text for text in described if text), "give a table of its settings")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            plan = field.annotation
    return plan, mend


def _parts(field: FieldInfo) -> list[Any]:
    """Field descriptions nested in an optional type, such as ``Annotated[int, Field(…)] | None``."""
    types = getattr(field.annotation, "__args__", ())
    return [*field.metadata, *(m for part in types for m in getattr(part, "__metadata__", ()))]
