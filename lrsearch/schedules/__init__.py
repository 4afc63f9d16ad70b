"""Every decay method as data: build, curve, search space, code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrsearch.errors import InputError
from lrsearch.schedules.base import Choice, Range, Schedule, SearchSpace, check_params
from lrsearch.schedules.cycles import CosineRestarts, Cyclic, OneCycle
from lrsearch.schedules.decays import (
    Constant,
    Cosine,
    Exponential,
    InverseTime,
    Linear,
    Multiplicative,
    MultiStep,
    Polynomial,
    Step,
    TimeBased,
)
from lrsearch.schedules.phases import WSD, Warmup
from lrsearch.schedules.plateau import Plateau, PlateauLR
from lrsearch.schedules.sweep import Sweep

__all__ = [
    "FAMILIES",
    "WSD",
    "Choice",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "Exponential",
    "InverseTime",
    "Linear",
    "MultiStep",
    "Multiplicative",
    "OneCycle",
    "Plateau",
    "PlateauLR",
    "Polynomial",
    "Range",
    "Schedule",
    "SearchSpace",
    "Step",
    "Sweep",
    "TimeBased",
    "Warmup",
    "schedule_from_dict",
]

FAMILIES: dict[str, type[Schedule]] = {
    family.name: family
    for family in (
        Constant,
        Step,
        MultiStep,
        Exponential,
        TimeBased,
        InverseTime,
        Multiplicative,
        Polynomial,
        Plateau,
        Cyclic,
        OneCycle,
        Cosine,
        CosineRestarts,
        Linear,
        WSD,
        Warmup,
        Sweep,
    )
}


def schedule_from_dict(data: Mapping[str, Any]) -> Schedule:
    """The schedule that `to_dict` wrote; a parameter that is left out has its default.

    Raises InputError for an unknown name or parameter, and for a value out of range.
    """
    if not isinstance(data, Mapping):
        raise InputError("schedule", data, "is no table", 'give a table such as {"name": "cosine"}')
    params = dict(data)
    name = params.pop("name", None)
    if not isinstance(name, str) or name not in FAMILIES:
        raise InputError("schedule.name", name, "names no schedule", f"choose from {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    check_params(family, params)
    if "inner" in params:
        params["inner"] = schedule_from_dict(params["inner"])
    return family(**params)
