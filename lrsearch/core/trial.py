"""What trials are given and give back: frozen, and plain JSON both ways."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

from lrsearch.errors import InputError

_NAME = re.compile(r"[\w\-. :/]+")
_LONGEST_NAME = 250 - len("_final")

T = TypeVar("T")
TrialStatus = Literal["complete", "diverged", "failed"]
Direction = Literal["minimize", "maximize"]
Use = Literal["final", "best"]


def is_loss(metric: str) -> bool:
    """Whether a metric is called a loss, so that the first training loss says where it began."""
    return metric.rsplit("/", 1)[-1].lower().endswith("loss")


@dataclass(frozen=True)
class Configuration:
    """What a study chooses between: a peak `lr` under a schedule, given as its `to_dict`."""

    lr: float
    schedule: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The same for the same configuration: canonical JSON."""
        return json.dumps([self.lr, dict(self.schedule)], sort_keys=True)

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True)
class TrialSpec:
    """One training: the peak `lr`, the schedule as its `to_dict`, the seed and the number of updates.

    `log_every` thins what is recorded of the training losses: every so many steps, and always the last.
    `optimizer` is None for the task's own; ``adam`` is the baseline's. `again` is 1 for the second run of an
    equal training, which tells how far equal runs differ.
    """

    stage: str
    lr: float
    schedule: Mapping[str, Any]
    seed: int
    steps: int
    log_every: int = 1
    optimizer: str | None = None
    again: int = 0

    @property
    def configuration(self) -> Configuration | None:
        """What is trained; None of the baseline, which has an optimizer of its own."""
        return Configuration(self.lr, self.schedule) if self.optimizer is None else None

    @property
    def key(self) -> str:
        """The same for the same training, whatever stage asks for it: 16 hexadecimal digits."""
        what = {
            "lr": self.lr,
            "schedule": dict(self.schedule),
            "seed": self.seed,
            "steps": self.steps,
            "optimizer": self.optimizer,
            "again": self.again,
        }
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {**asdict(self), "schedule": dict(self.schedule)}


@dataclass(frozen=True)
class MetricSummary:
    """A metric over a trial: its first, final, lowest and highest value, and how many there were.

    `untrained` is that of the untrained model where it was measured; it is the first then, and neither the
    lowest nor the highest.
    """

    first: float
    final: float
    low: float
    high: float
    count: int = 1
    untrained: float | None = None

    def read(self, use: Use, direction: Direction) -> float:
        """The final value, or the best in this direction."""
        if use == "final":
            return self.final
        return self.low if direction == "minimize" else self.high


@dataclass(frozen=True)
class TrialResult:
    """How a trial went: a diverged one is no failure.

    `initial_loss` is the training loss of the first update, `steps_done` the updates taken, `cause` why it
    ended early: what made it diverge (``not_finite``, ``loss_rose``, ``raised``), or the kind of the error
    (``out_of_memory``, else its type; ``no_objective`` where it reported none). `error` holds the traceback
    of one that raised, or says what is missing. `warnings` say what the training left out, `bad_data` which
    batches it passed over.
    """

    spec: TrialSpec
    status: TrialStatus
    steps_done: int
    seconds: float
    initial_loss: float | None = None
    metrics: Mapping[str, MetricSummary] = field(default_factory=dict)
    cause: str | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()
    bad_data: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialResult:
        """Return the result that `to_dict` wrote; ValueError for what it cannot have written."""
        return from_plain(TrialResult, values)


def from_plain(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return the dataclass that its `asdict` wrote; ValueError for what it cannot have written."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    made: T = _ADAPTERS[kind].validate_python(values)
    return made


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}
"""Made once: that takes longer than to read with them."""


def check_name(argument: str, name: object) -> None:
    """Raise InputError for a metric or a param that MLflow would refuse for its name.

    Source: MLflow, `mlflow/utils/validation.py`; a metric's name comes with ``_final``, too.
    """
    fits = isinstance(name, str) and _NAME.fullmatch(name) is not None and len(name) <= _LONGEST_NAME
    # MLflow may take a name for a path, and wants one that leads nowhere else.
    if not fits or posixpath.normpath(str(name)) != name or str(name).startswith(("/", "..")) or name == ".":
        raise InputError(
            argument,
            name,
            "is no name that MLflow takes",
            f"choose letters, digits and _ - . : / or spaces, at most {_LONGEST_NAME} of them",
        )
