"""Metrics: how a task's are gathered from the batches of a validation."""

from __future__ import annotations

import copy
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, SupportsFloat, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lrsearch.errors import InputError, LrsearchError, first_line, is_out_of_memory
from lrsearch.training.data import describe, entries, has_a_row_each, rebuilt

MetricFunction = Callable[[Any, Any], float | Tensor]


@runtime_checkable
class MetricObject(Protocol):
    """A metric that gathers by itself, such as a ``torchmetrics.Metric``."""

    def update(self, outputs: Any, targets: Any, /) -> object:
        """Takes a batch."""

    def compute(self) -> Any:
        """The value over all that was taken."""

    def reset(self) -> object:
        """Forgets what was taken."""


@dataclass(frozen=True)
class Whole:
    """A metric of the whole set, see `whole`."""

    function: MetricFunction


def whole(function: MetricFunction) -> Whole:
    """Make a metric of the whole validation set, for ``Task(metrics=...)``: AUC, RMSE, F1, correlations.

    Parameters
    ----------
    function : callable
        ``function(outputs, targets)`` returns a number. It is called once per validation, with the outputs
        and targets of all batches, on the CPU: tensors are joined along their first dimension, lists with one
        entry per row end to end. Tuples, mappings and other lists are joined entry by entry.

    Returns
    -------
    Whole
        The metric, to be given to a `Task`.

    Raises
    ------
    InputError
        If `function` is not callable.

    Examples
    --------
    >>> import lrsearch
    >>> def rmse(outputs, targets):
    ...     return (outputs - targets).square().mean().sqrt()
    >>> metrics = {"rmse": lrsearch.whole(rmse)}
    """
    if not callable(function):
        raise InputError(
            "whole", function, "is not callable", "hand over a function of all outputs and targets"
        )
    return Whole(function)


Metric = MetricFunction | MetricObject | Whole


class MetricError(Exception):
    """A metric cannot be computed on any batch, or on the whole set."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name, self.problem = name, problem


class Gathered(ABC):
    """One metric over the batches of a validation; those on which it cannot be computed are left out."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._taken = 0
        self._failed: Exception | None = None

    def add(self, outputs: Any, targets: Any, weight: float) -> None:
        """Takes a batch, or leaves it out where the metric raises."""
        try:
            self._add(outputs, targets, weight)
            self._taken += 1
        except Exception as error:
            if not _is_of_the_batch(error):
                raise
            self._failed = error

    def value(self) -> float:
        """The metric; raises MetricError where it cannot be computed. What was left out is warned of."""
        if self._failed is not None and not self._taken:
            raise MetricError(self._name, f"cannot be computed on any batch ({_reason(self._failed)})")
        try:
            value = self._value()
        except Exception as error:
            if not _is_of_the_batch(error):
                raise
            raise MetricError(self._name, f"cannot be computed ({_reason(error)})") from error
        if self._failed is not None:
            self._warn(_reason(self._failed))
        return value

    def _warn(self, reason: str) -> None:
        warnings.warn(
            f"{self._name} leaves out the batches on which it cannot be computed ({reason}); a metric of the "
            "whole set is lrsearch.whole(fn)",
            UserWarning,
            stacklevel=3,
        )

    @abstractmethod
    def _add(self, outputs: Any, targets: Any, weight: float) -> None: ...

    @abstractmethod
    def _value(self) -> float: ...


class Mean(Gathered):
    """The mean of a function's values over the batches, by their weights."""

    def __init__(self, name: str, function: MetricFunction) -> None:
        super().__init__(name)
        self._function = function
        self._values: list[float | Tensor] = []
        self._weights: list[float] = []

    def _add(self, outputs: Any, targets: Any, weight: float) -> None:
        self._values.append(scalar(self._name, self._function(outputs, targets)))
        self._weights.append(weight)

    def _value(self) -> float:
        weighed = [(float(v), w) for v, w in zip(self._values, self._weights, strict=True) if w]
        numbers = [(value, weight) for value, weight in weighed if not math.isnan(value)]
        if 0 < len(numbers) < len(weighed):
            self._warn("NaN")
        return weighted_mean(numbers)


class OfWhole(Gathered):
    """A function of all outputs and targets."""

    def __init__(self, name: str, function: MetricFunction) -> None:
        super().__init__(name)
        self._function = function
        self._batches: list[tuple[Any, Any]] = []

    def _add(self, outputs: Any, targets: Any, weight: float) -> None:  # noqa: ARG002
        self._batches.append((_on_cpu(outputs), _on_cpu(targets)))

    def _value(self) -> float:
        outputs, targets = (_joined(parts) for parts in zip(*self._batches, strict=True))
        return as_number(self._name, self._function(outputs, targets))


class OfObject(Gathered):
    """A metric object of the user's, of which a copy is used."""

    def __init__(self, name: str, metric: MetricObject, device: torch.device) -> None:
        super().__init__(name)
        copied = copy.deepcopy(metric)
        moved = copied.to(device) if hasattr(copied, "to") else None
        self._metric: MetricObject = copied if moved is None else moved
        self._metric.reset()

    def _add(self, outputs: Any, targets: Any, weight: float) -> None:  # noqa: ARG002
        self._metric.update(outputs, targets)

    def _value(self) -> float:
        return as_number(self._name, self._metric.compute())


def gathered(name: str, metric: Metric, device: torch.device) -> Gathered:
    """What gathers a metric over the batches of one validation."""
    if isinstance(metric, Whole):
        return OfWhole(name, metric.function)
    if isinstance(metric, MetricObject):
        return OfObject(name, metric, device)
    return Mean(name, metric)


def as_number(name: str, value: object) -> float:
    """A metric's value as a float; raises InputError for what is no single number."""
    if not isinstance(value, SupportsFloat):
        raise _no_number(name, value, f"a {type(value).__name__}")
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_number(name, value, first_line(error)) from error


def scalar(name: str, value: object) -> float | Tensor:
    """A number; a tensor stays where it is, so that an accelerator is not stalled at every batch."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return value.detach()
    return as_number(name, value)


def weighted_mean(values: Sequence[tuple[float, float]]) -> float:
    """The mean of the values, each with its weight; NaN where no weight is above 0."""
    weighed = [(value, weight) for value, weight in values if weight]
    total = sum(weight for _, weight in weighed)
    return sum(value * weight for value, weight in weighed) / total if total else math.nan


def _is_of_the_batch(error: Exception) -> bool:
    """Whether an error says that the metric is not defined there: one class only, a division by zero."""
    expected = isinstance(error, (ValueError, RuntimeError, ArithmeticError))
    return expected and not isinstance(error, LrsearchError) and not is_out_of_memory(error)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _no_number(name: str, value: object, reason: str) -> InputError:
    return InputError(name, value, f"is no number ({reason})", "give a number, e.g. a mean with .item()")


def _on_cpu(value: Any) -> Any:
    """A copy on the CPU: a loader or a model may use its memory again for the next batch."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, np.ndarray):
        return value.copy()
    held = entries(value)
    return value if held is None else rebuilt(value, {key: _on_cpu(inner) for key, inner in held.items()})


def _joined(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Tensor):
        shapes = {part.shape[1:] for part in parts}
        if len(shapes) > 1:
            raise ValueError(f"batches of unlike shapes cannot be joined: {describe(list(parts[:3]))}")
        return torch.cat(tuple(parts)) if first.ndim else torch.stack(tuple(parts))
    if isinstance(first, np.ndarray):
        return np.concatenate(parts) if first.ndim else np.stack(parts)
    if has_a_row_each(first):
        return list(chain.from_iterable(parts))
    held = [entries(part) for part in parts]
    if held[0] is not None:
        return rebuilt(first, {key: _joined([one[key] for one in held if one]) for key in held[0]})
    return None if first is None else list(parts)
