"""Compiled models; where there is no compiler, the model as it is."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from lrsearch.errors import InputError, first_line
from lrsearch.training.random_state import preserve_random_state
from lrsearch.training.task import Task

_FAULTS: dict[tuple[str, str], str | None] = {}
"""Why nothing can be compiled, by device and options; None where it can."""


def compiled(model: nn.Module, task: Task, device: torch.device) -> None:
    """Compile a model where the task asks for it and there is a compiler; it stays the same module."""
    if task.compile is not False and _fault(task, device) is None:
        # Not model.compile(), which leaves a module of torch's own, such as nn.Sequential, as it is.
        model.forward = torch.compile(model.forward, **_options(task))


def terms(task: Task, device: torch.device) -> dict[str, Any]:
    """What the task says of its training, as it is carried out on this device."""
    said = task.settings.terms
    return (
        {**said, "compile": _fault(task, device) is None and said["compile"]} if "compile" in said else said
    )


def warn_of_missing_compiler(task: Task, device: torch.device) -> None:
    """Warn where a task asks for a compiler that is not there."""
    if task.compile is not False and (fault := _fault(task, device)) is not None:
        warnings.warn(
            f"Task(compile=…): no compiler works here ({fault}), so that the model is trained as it is",
            UserWarning,
            stacklevel=3,
        )


def _options(task: Task) -> dict[str, Any]:
    return {} if isinstance(task.compile, bool) else dict(task.compile)


def _fault(task: Task, device: torch.device) -> str | None:
    """What the compiler says to a tiny model; InputError for options that it does not know."""
    options = _options(task)
    key = (device.type, repr(options))
    if key not in _FAULTS:
        # torch's compiler warns of torch's own parts
        with preserve_random_state(), warnings.catch_warnings(action="ignore"):
            probe = nn.Sequential(nn.Linear(2, 2), nn.Tanh()).to(device)
            try:
                probe.forward = torch.compile(probe.forward, **options)  # type: ignore[method-assign]
            except Exception as error:
                mend = "give True, or the arguments of torch.compile as a dict"
                raise InputError("compile", task.compile, first_line(error), mend) from error
            try:
                probe(torch.ones(1, 2, device=device)).sum().backward()
                _FAULTS[key] = None
            except Exception as error:
                cause = getattr(error, "inner_exception", error)  # what the backend raised
                _FAULTS[key] = f"{type(cause).__name__}: {first_line(cause)}"
    return _FAULTS[key]
