"""What each stage found, for the record and for whoever reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lrsearch.core.suggestion import Suggestion


@dataclass(frozen=True)
class Bracket:
    """Where the best lr is to be looked for; `high` is None where the loss never left its minimum."""

    low: float
    high: float | None


@dataclass(frozen=True)
class SweepFindings:
    """What the range test found: its suggestion, without the rules behind it."""

    lr: float | None
    bracket: Bracket | None
    verdict: str
    reason: str

    @classmethod
    def of(cls, suggestion: Suggestion) -> SweepFindings:
        """Take them from the suggestion."""
        return cls(suggestion.lr, suggestion.bracket, suggestion.verdict, suggestion.reason)


@dataclass(frozen=True)
class CoarseFindings:
    """The base lr, the standard deviation between seeds, and what was learned beside.

    `runs_differ` is the difference between two equal trainings, None where they are the same bit for bit.
    """

    lr: float
    noise: float | None
    needs_warmup: bool
    runs_differ: float | None


@dataclass(frozen=True)
class FineFindings:
    """The base lr, and the side on which the best is still the last lr tried."""

    lr: float
    on_edge: Literal["low", "high"] | None


@dataclass(frozen=True)
class RankedSchedule:
    """A schedule by name, and the lr that is expected to be its best."""

    schedule: str
    lr: float


@dataclass(frozen=True)
class DecayFindings:
    """The schedules that were tried, best first."""

    order: tuple[RankedSchedule, ...]


@dataclass(frozen=True)
class ConfirmFindings:
    """The name of the finalist that won, and why."""

    winner: str
    reason: str


Findings = SweepFindings | CoarseFindings | FineFindings | DecayFindings | ConfirmFindings
