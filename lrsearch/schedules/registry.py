"""The one list of schedule families: by name, the simpler first; families of one's own are registered."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType, MappingProxyType
from typing import Any, TypeVar

from lrsearch.errors import InputError, first_line
from lrsearch.schedules.base import Schedule, check_params
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
from lrsearch.schedules.functions import family_of
from lrsearch.schedules.phases import WSD, Warmup
from lrsearch.schedules.plateau import Plateau
from lrsearch.schedules.sweep import Sweep

_BUILT_IN: tuple[type[Schedule], ...] = (
    *(Constant, Linear, Cosine, Polynomial, Exponential, Step, MultiStep, InverseTime),
    *(TimeBased, Multiplicative, WSD, OneCycle, CosineRestarts, Cyclic, Plateau),
)
BUILT_IN = tuple(family.name for family in _BUILT_IN)
"""The decays that come with lrsearch, the simpler first."""
_NO_DECAYS: tuple[type[Schedule], ...] = (Warmup, Sweep)

_families: dict[str, type[Schedule]] = {family.name: family for family in (*_BUILT_IN, *_NO_DECAYS)}
FAMILIES: Mapping[str, type[Schedule]] = MappingProxyType(_families)
"""Every family by its name: the decays in the order in which one is kept where nothing tells them apart, the
simpler first, then the warmup in front of another, and the range test's sweep.
"""

_Family = TypeVar("_Family", bound=type[Schedule] | Callable[[float], float])


def register(family: _Family, after: str | None = None) -> _Family:
    """Make a family of one's own known under its name, in plans, studies, records and reports.

    It is a subclass of `Schedule`, or a plain function that takes the fraction of the training that is done,
    0 … 1, to the ratio of the lr to its peak, 0 … 1; that is known by the function's own name. Where nothing
    tells two schedules apart, the simpler is kept: `after` names the one that is just simpler than this, by
    default it is the least simple of all. Serves as a decorator, too. The same definition, run again,
    replaces the one before.

    A study that is resumed or reproduced in another process needs the family there: register it in the
    module of the task. Raises InputError for a name that is taken or is none, for a family that cannot be
    made without parameters, for a function that gives anything but finite numbers from 0 to 1 or cannot be
    written into a script, and for an unknown `after`.
    """
    name = _name_of(family)
    known = _families.get(name)
    if known is not None and _place(known) != _place(family):
        raise InputError("family", family, f"the name {name!r} is taken", "give it another name")
    others = [other for other in decay_names() if other != name]
    if after is not None and after not in others:
        raise InputError("after", after, "names no other decay", f"choose from {', '.join(others)}")
    entries = {**_families, name: _made(family)}
    if after is not None or known is None:
        others.insert(len(others) if after is None else others.index(after) + 1, name)
        order = [*others, *(family.name for family in _NO_DECAYS)]
    else:
        order = list(_families)
    _families.clear()
    _families.update((entry, entries[entry]) for entry in order)
    return family


def decay_names() -> list[str]:
    """The families that a study may try as they are, simplest first."""
    return [name for name, family in _families.items() if family not in _NO_DECAYS]


def schedule_name(schedule: Mapping[str, Any]) -> str:
    """The family's name of a schedule as data, with a warmup in front of it said: ``warmup+linear``."""
    if schedule["name"] == "warmup":
        return f"warmup+{schedule['inner']['name']}"
    return str(schedule["name"])


def schedule_names() -> list[str]:
    """All names that `schedule_name` gives to decays, simplest first."""
    names = decay_names()
    return [*names, *(f"warmup+{name}" for name in names)]


def schedule_from_dict(data: Mapping[str, Any], argument: str = "schedule") -> Schedule:
    """The schedule that `to_dict` wrote; a parameter that is left out has its default.

    Raises InputError, in which `argument` is where the data come from, for an unknown name or parameter, and
    for a value out of range.
    """
    if not isinstance(data, Mapping):
        raise InputError(argument, data, "is no table", 'give a table such as {"name": "cosine"}')
    params = dict(data)
    name = params.pop("name", None)
    if not isinstance(name, str) or name not in _families:
        raise InputError(
            f"{argument}.name",
            name,
            "names no schedule",
            f"choose from {', '.join(_families)}, or first import the module that registers it",
        )
    family = _families[name]
    check_params(family, params)
    if "inner" in params:
        params["inner"] = schedule_from_dict(params["inner"], f"{argument}.inner")
    return family(**params)


def _name_of(family: object) -> str:
    """What is to be registered is known by this name; InputError where it is no family, or has none."""
    if isinstance(family, FunctionType):
        name: object = family.__name__
    elif isinstance(family, type) and issubclass(family, Schedule):
        name = getattr(family, "name", None)
    else:
        raise InputError(
            "family", family, "is no schedule", "give a subclass of Schedule, or a function of the fraction"
        )
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError("family", family, f"its name {name!r} is none", "give it a name such as my_decay")
    return name


def _made(family: Any) -> type[Schedule]:
    """The family as a class; InputError where it cannot be made without parameters."""
    if isinstance(family, FunctionType):
        return family_of(family)
    made: type[Schedule] = family
    try:
        made()
    except TypeError as error:
        missing = "is abstract" if inspect.isabstract(made) else first_line(error)
        raise InputError(
            "family",
            made,
            f"cannot be made without parameters ({missing})",
            "make it a frozen dataclass with defaults, and define _ratios and _stages",
        ) from error
    return made


def _place(family: Any) -> tuple[str, str]:
    """Where it is defined."""
    return family.__module__, family.__qualname__
