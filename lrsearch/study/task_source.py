"""From the name of a task, as typed on the command line, to the task."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, update_wrapper
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from lrsearch.errors import InputError, LrsearchError, a_kind_of, first_line
from lrsearch.examples import BUILT_IN
from lrsearch.training.task import Task
from lrsearch.training.trial import TrainFunction, Trial


def load_task(source: str, settings: Sequence[str] = ()) -> Task | TrainFunction:
    """Calls the task function that `source` names, with `settings` such as ``batch_size=128`` as keyword
    arguments; a training function ``train(trial)`` is given back with them.

    `source` is a built-in name (``digits``), ``path/to/file.py:function`` or ``package.module:function``.
    Values are converted to the types of the function's annotations. All arguments, the defaults too, become
    ``task.arguments``. A training function's only argument without a default is called ``trial``, or
    annotated as `lrsearch.Trial`. Raises InputError for whatever is wrong with it.
    """
    place, _, name = BUILT_IN.get(source, source).partition(":")
    if not place or not name:
        known = ", ".join(BUILT_IN)
        raise InputError(
            "TASK",
            source,
            "is no built-in task",
            f"choose from {known}, or give FILE.py:FUNCTION or MODULE:FUNCTION",
        )
    function = getattr(_import(source, place), name, None)
    if function is None:
        raise InputError("TASK", source, f"{place} has no {name!r}", "name a function that it defines")
    if not callable(function):
        raise InputError(
            "TASK", source, f"{name!r} is not callable", "name a function that returns an lrsearch.Task"
        )
    trial = _trial_parameter(function)
    arguments = _arguments(function, settings, handed=trial)
    if trial is not None:
        return update_wrapper(partial(function, **arguments), function)
    try:
        task = function(**arguments)
    except LrsearchError:
        raise
    except Exception as error:
        problem = f"raised {type(error).__name__}: {first_line(error)}"
        raise InputError("TASK", source, problem, "call the function in Python to see where") from error
    if not isinstance(task, Task):
        problem = f"returned {a_kind_of(task)}"
        mend = "return an lrsearch.Task, or call the argument of a training function trial"
        raise InputError("TASK", source, problem, mend)
    own_name = source if source in BUILT_IN else name
    return replace(task, name=task.name or own_name, arguments={**arguments, **task.arguments})


def built_in_tasks() -> dict[str, Any]:
    """What each built-in task is, and the settings it takes, with their defaults."""
    found = {}
    for name, source in BUILT_IN.items():
        place, _, attribute = source.partition(":")
        function = getattr(importlib.import_module(place), attribute)
        found[name] = {
            "what": inspect.getdoc(function),
            "settings": {p.name: p.default for p in inspect.signature(function).parameters.values()},
        }
    return found


def _import(source: str, place: str) -> ModuleType:
    try:
        if place.endswith(".py"):
            return _import_file(Path(place))
        if "" not in sys.path:
            sys.path.insert(0, "")  # a module in the working directory is found, as with python -m
        return importlib.import_module(place)
    except Exception as error:
        problem = f"cannot be imported ({type(error).__name__}: {first_line(error)})"
        raise InputError("TASK", source, problem, "check the path, and that Python can import it") from error


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # its neighbours are found, as when it runs as a script
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _trial_parameter(function: Callable[..., Any]) -> str | None:
    """The argument through which a training function is handed its trial; None for a task's function."""
    parameters = inspect.signature(function).parameters.values()
    needed = [p.name for p in parameters if _is_needed(p)]
    if len(needed) != 1:
        return None
    (name,) = needed
    return name if name == "trial" or get_type_hints(function).get(name) is Trial else None


def _is_needed(parameter: inspect.Parameter) -> bool:
    variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not variadic


def _arguments(
    function: Callable[..., Any], settings: Sequence[str], handed: str | None = None
) -> dict[str, Any]:
    """All keyword arguments of the call, without the one that is `handed` over: those set, converted, and the
    defaults of the others.
    """
    parameters = {name: p for name, p in inspect.signature(function).parameters.items() if name != handed}
    hints = get_type_hints(function)
    given: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InputError("--set", setting, "has no value", "write NAME=VALUE, e.g. batch_size=128")
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            raise InputError("--set", setting, f"the task takes no argument {name!r}", f"it takes {known}")
        given[name] = _convert(setting, text, hints.get(name, str))
    missing = [p.name for p in parameters.values() if _is_needed(p) and p.name not in given]
    if missing:
        raise InputError(
            "TASK",
            getattr(function, "__name__", "task"),
            f"needs the argument {missing[0]!r}",
            f"add --set {missing[0]}=VALUE",
        )
    defaults = {p.name: p.default for p in parameters.values() if p.default is not p.empty}
    return {**defaults, **given}


def _convert(setting: str, text: str, annotation: Any) -> Any:
    """The text as a value of the annotated type; ``none`` is None where the type allows it."""
    adapter = TypeAdapter(annotation)
    value = None if text.lower() == "none" and type(None) in get_args(annotation) else text
    try:
        return adapter.validate_python(value) if value is None else adapter.validate_strings(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise InputError(
            "--set", setting, message[0].lower() + message[1:], "give a value of that type"
        ) from None
