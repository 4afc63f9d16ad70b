"""A schedule that is a plain function of the fraction of the training: the family made of it, its code."""

from __future__ import annotations

import ast
import inspect
import math
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any, ClassVar

import numpy as np

from lrsearch.errors import InputError, first_line
from lrsearch.schedules.base import FloatArray, Horizon, Schedule, is_number
from lrsearch.schedules.recipe import Function, Stage

_PROBES = 100


@dataclass(frozen=True)
class FunctionSchedule(Schedule):
    """eta_n = eta_peak * function(n / T), where the function takes a fraction, 0 … 1, to a ratio, 0 … 1."""

    function: ClassVar[Callable[[float], object]]
    script: ClassVar[str]
    """The lines that define the function in a script, or import it."""

    @classmethod
    def ratio(cls, fraction: float) -> float:
        """What the function gives; InputError where that is no ratio to the peak."""
        try:
            given = cls.function(fraction)
        except Exception as error:
            problem = f"raised {type(error).__name__} at the fraction {fraction!r} ({first_line(error)})"
            raise InputError(cls.name, cls.function, problem, "give a ratio from 0 to 1") from error
        value = given.item() if isinstance(given, np.generic) else given
        if not isinstance(value, int | float) or not is_number(value) or not 0 <= value <= 1:
            problem = f"is no ratio to the peak at the fraction {fraction!r}"
            raise InputError(f"{cls.name}({fraction!r})", given, problem, "give a finite number from 0 to 1")
        return float(value)

    def _ratios(self, horizon: Horizon) -> FloatArray:
        return np.array([self.ratio(n / horizon.steps) for n in range(horizon.steps)])

    def _stages(self, horizon: Horizon) -> list[Stage]:
        steps = horizon.steps
        factor = Function(
            f"lambda n: {self.name}(min(n / {steps}, 1))",
            lambda n: self.ratio(min(n / steps, 1)),
            needs=(self.script,),
        )
        return [Stage(steps, "LambdaLR", {"lr_lambda": factor})]


def family_of(given: FunctionType) -> type[FunctionSchedule]:
    """The family of the function's name.

    Raises InputError for a function that gives no ratio, and for one that `code` could not write down.
    """

    class Family(FunctionSchedule):
        name = given.__name__
        function = staticmethod(given)

    Family.__name__, Family.__qualname__ = given.__name__, given.__qualname__
    Family.__module__, Family.__doc__ = given.__module__, given.__doc__ or FunctionSchedule.__doc__
    for fraction in np.linspace(0, 1, _PROBES + 1).tolist():
        Family.ratio(fraction)
    Family.script = _script(given)
    return Family


def _script(function: FunctionType) -> str:
    """The function's source with what that refers to; else its import."""
    written = _source(function)
    if written is not None:
        return written
    module = sys.modules.get(function.__module__)
    found = module is not None and function.__module__ != "__main__" and vars(module) is function.__globals__
    if not found or function.__qualname__ != function.__name__:
        raise InputError(
            "family",
            function,
            "cannot be written into a training script",
            "define it at the top level of a module, so that the script can import it",
        )
    return f"from {function.__module__} import {function.__name__}"


def _source(function: FunctionType) -> str | None:
    """The lines that define the function anywhere; None where it takes more than they could bring along."""
    if function.__defaults__ or function.__kwdefaults__ or hasattr(function, "__wrapped__"):
        return None
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, SyntaxError, ValueError):
        return None  # typed into an interpreter, or a lambda in the middle of something
    if not isinstance(node, ast.FunctionDef):
        return None
    node.decorator_list = []
    for part in ast.walk(node):  # an annotation would have to be imported too, and does nothing
        if isinstance(part, ast.arg):
            part.annotation = None
        elif isinstance(part, ast.FunctionDef):
            part.returns = None
    lines = [_definition(name, value) for name, value in _relied_on(function).items()]
    if None in lines:
        return None
    return "\n".join([*map(str, lines), *([""] if lines else []), ast.unparse(node), ""])


def _relied_on(function: FunctionType) -> dict[str, Any]:
    """The globals and the variables around it that the function may read."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    around = {name: cell.cell_contents for name, cell in cells}
    known = function.__globals__
    found = {name: known[name] for name in _names(function.__code__) if name in known}
    return {name: value for name, value in {**found, **around}.items() if value is not function}


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _definition(name: str, value: object) -> str | None:
    """The line that gives a script this name; None where no line does."""
    if isinstance(value, ModuleType):
        alias = "" if value.__name__ == name else f" as {name}"
        return f"import {value.__name__}{alias}"
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return f"{name} = {value!r}"
    module, own = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if (
        module in (None, "__main__")
        or own is None
        or getattr(sys.modules.get(module), own, None) is not value
    ):
        return None
    return f"from {module} import {own}{'' if own == name else f' as {name}'}"
