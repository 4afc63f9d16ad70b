"""What a person hands over, with its name and its data."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from lrsearch.errors import InputError, a_kind_of
from lrsearch.tracking.provenance import redact
from lrsearch.training.custom_loop import CustomLoop
from lrsearch.training.fingerprint import describe_data
from lrsearch.training.subjects import FromTask, ModelInUse, is_task_function, may_be_task_function
from lrsearch.training.task import Task


def called(given: Any) -> tuple[Any, str]:
    """The model, task or training function, with its name; a function without arguments returns a Task.

    A decorator may hide what a function takes: it is then a task's where it can be called without arguments.
    """
    _check_callable(given)
    own_name = getattr(given, "__name__", type(given).__name__)
    if is_task_function(given) or may_be_task_function(given):
        try:
            made = given()
        except (TypeError, IndexError) as error:
            if not may_be_task_function(given) or not _misses_argument(error):
                raise
            return given, own_name
        if not isinstance(made, Task):
            raise InputError(
                "task",
                given,
                f"returned {a_kind_of(made)} when it was called without arguments",
                "return an lrsearch.Task; a training function takes an argument called trial",
            )
        return made, made.name or own_name
    if isinstance(given, Task):
        return given, given.name or getattr(given.model, "__name__", "task").strip("<>")
    return given, own_name


def _check_callable(given: Any) -> None:
    """Raise InputError for what looks like a function and trains nothing when it is called."""
    if isinstance(given, type):
        raise InputError("task", given, "is a class", "hand over an object of it")
    function = getattr(given, "func", given)
    for is_kind, kind in (
        (inspect.iscoroutinefunction, "coroutine"),
        (inspect.isgeneratorfunction, "generator"),
        (inspect.isasyncgenfunction, "generator"),
    ):
        if is_kind(function):
            raise InputError(
                "task", given, f"is a {kind} function: a call does not run it", "hand over a plain function"
            )


def _misses_argument(error: Exception) -> bool:
    """Whether a function was called without what it needs: by name, or as the first of its ``*args``."""
    return isinstance(error, IndexError) or "required positional argument" in str(error)


def kwargs_of(given: Any) -> dict[str, Any]:
    """The arguments that made a task, or that a training function was bound to; URLs without passwords."""
    bound = given.keywords if isinstance(given, partial) else {}
    arguments = given.arguments if isinstance(given, Task) else bound
    return {name: redact(value) if isinstance(value, str) else value for name, value in arguments.items()}


def data_of(subject: ModelInUse | FromTask | CustomLoop) -> dict[str, Any]:
    """What is known of the training and validation data; nothing of a loop of one's own."""
    match subject:
        case ModelInUse():
            found = {"train": describe_data(subject.train_loader)}
        case FromTask():
            task = subject.task
            found = {"train": describe_data(task.train_loader), "val": describe_data(task.val_loader)}
        case CustomLoop():
            found = {}
    for described in found.values():
        if described is not None and "fingerprint_reason" in described:  # the text of an error may hold a URL
            described["fingerprint_reason"] = redact(described["fingerprint_reason"])
    return found
