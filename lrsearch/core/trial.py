"""What trials are given and give back: frozen, and plain JSON both ways."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lrsearch.errors import InputError

_NAME = re.compile(r"[\w\-. :/]+")
_LONGEST_NAME = 250 - len("_final")

TrialStatus = Literal["complete", "diverged", "failed"]
Direction = Literal["minimize", "maximize"]
Use = Literal["final", "best"]


def is_loss(metric: str) -> bool:
    """Whether a metric is called a loss, so that the first training loss says where it began."""
    return metric.rsplit("/", 1)[-1].lower().endswith("loss")


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
        """Plain JSON."""
        return {**asdict(self), "schedule": dict(self.schedule)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialSpec:
        """The spec that `to_dict` wrote."""
        return cls(**values)


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
    """How a trial went. A diverged one is no failure; a failed one raised, and `error` holds its traceback.

    `initial_loss` is the training loss of the first update, `steps_done` the updates taken, `cause` why it
    ended early: what made it diverge (``not_finite``, ``loss_rose``, ``raised``), or the kind of the error
    (``out_of_memory``, else its type). One that diverged by raising has an `error` too. `warnings` say what
    the training left out, `bad_data` which batches it passed over.
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
        """Plain JSON."""
        values = asdict(self)
        values["spec"] = self.spec.to_dict()
        values["warnings"] = list(self.warnings)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialResult:
        """The result that `to_dict` wrote."""
        parts = {
            "spec": TrialSpec.from_dict(values["spec"]),
            "metrics": {name: MetricSummary(**summary) for name, summary in values["metrics"].items()},
            "warnings": tuple(values["warnings"]),
        }
        return cls(**{**values, **parts})


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
