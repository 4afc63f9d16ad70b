"""What a study found: its stages, its finalists and its answer; frozen, and plain JSON both ways.

Objectives stand here in the metric's own sign, as the user reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lrsearch.core import text
from lrsearch.core.findings import Findings
from lrsearch.core.response import Interval, Tolerance
from lrsearch.core.stats import Gain, Noise
from lrsearch.core.study_plan import StageName
from lrsearch.core.table import Table
from lrsearch.core.trial import Configuration, TrialResult, from_plain
from lrsearch.schedules import schedule_name

WarningName = Literal[
    "no_bracket",
    "edge",
    "needs_warmup",
    "objectives_disagree",
    "overfitting",
    "lr_and_weight_decay_tuned_together",
    "untrained",
    "unstable",
    "baseline_better",
    "bad_data",
    "trials_failed",
    "own_loop",
    "runs_differ",
    "changes_accepted",
]


@dataclass(frozen=True)
class StageResult:
    """One stage: its trials in order, its cost in run-equivalents, and what it found.

    `found` is None of a stage that did not come to its end.
    """

    stage: StageName
    trials: tuple[TrialResult, ...]
    cost: float
    found: Findings | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StageResult:
        """Return the stage that `to_dict` wrote; ValueError for what it cannot have written."""
        return from_plain(StageResult, values)

    def to_table(self) -> Table:
        """A row a trial, with its final metrics, under what the stage found and cost."""
        metrics = sorted({name for trial in self.trials for name in trial.metrics})
        rows = []
        for number, trial in enumerate(self.trials):
            spec = trial.spec
            finals = [trial.metrics[name].final if name in trial.metrics else None for name in metrics]
            what = (str(number), text.number(spec.lr), schedule_name(spec.schedule), str(spec.seed))
            rows.append((*what, trial.status, *map(text.amount, finals)))
        columns = ("trial", "lr", "schedule", "seed", "status", *metrics)
        found = text.stage_found(self.found)
        title = f"{self.stage}: {found}; {text.number(self.cost)} run-equivalents"
        return Table(rows, columns, title, numbers=(0, 1, 3, *range(5, len(columns))))

    def _repr_html_(self) -> str:
        return self.to_table().to_html()


@dataclass(frozen=True)
class Finalist:
    """A configuration in the confirm stage, with its objective by seed; `name` is unique.

    `gain` is the winner's over it; None of the winner itself, of one that diverged, and where no seed is
    common to both.
    """

    name: str
    lr: float
    schedule: Mapping[str, Any]
    objectives: Mapping[int, float]
    diverged: bool = False
    gain: Gain | None = None

    @property
    def configuration(self) -> Configuration:
        """Its lr and schedule."""
        return Configuration(self.lr, self.schedule)

    @property
    def mean(self) -> float | None:
        """Mean objective over its seeds; None without any."""
        return sum(self.objectives.values()) / len(self.objectives) if self.objectives else None


@dataclass(frozen=True)
class Answer:
    """The learning rate and the schedule, and how sure they are.

    `base_lr` is the best lr under the base schedule, before decay moved it. `interval` is the
    confidence set of the optimal lr under the chosen schedule, `tolerance` the lrs that
    stay within the margin, `noise` the standard deviation between seeds, in the objective's unit, None where
    no configuration was trained with two; `margin` is that margin. `warnings` map a name to a sentence that
    says what was seen and what to do.
    """

    lr: float
    schedule: Mapping[str, Any]
    base_lr: float
    objective: float
    metric: str
    reason: str
    interval: Interval
    tolerance: Tolerance
    noise: float | None
    margin: float
    finalists: tuple[Finalist, ...]
    gain_over_baseline: float | None = None
    warnings: Mapping[WarningName, str] = field(default_factory=dict)
    test: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def winner(self) -> Finalist:
        """The finalist that was chosen."""
        chosen = Configuration(self.lr, self.schedule)
        return next(f for f in self.finalists if f.configuration == chosen)

    @property
    def constant(self) -> Finalist | None:
        """The finalist without decay; None where there was none."""
        return next((f for f in self.finalists if f.schedule["name"] == "constant"), None)

    @property
    def gain_over_constant(self) -> Gain | None:
        """What decay brings; None where constant won, and where it cannot be compared."""
        return self.constant.gain if self.constant is not None else None

    @property
    def spread(self) -> Noise | None:
        """The noise as the fit takes it."""
        return None if self.noise is None else Noise(self.noise)

    @property
    def undecided(self) -> tuple[str, ...]:
        """The finalists that may differ from the winner by more than the margin, or less."""
        winner = self.winner if self.finalists else None
        others = [f for f in self.finalists if f is not winner and not f.diverged]
        return tuple(f.name for f in others if f.gain is None or f.gain.is_open)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            **asdict(self),
            "finalists": [
                {**asdict(f), "objectives": {str(seed): value for seed, value in f.objectives.items()}}
                for f in self.finalists
            ],
            "undecided": list(self.undecided),
            "gain_over_constant": None if (gain := self.gain_over_constant) is None else asdict(gain),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Answer:
        """Return the answer that `to_dict` wrote; ValueError for what it cannot have written."""
        return from_plain(Answer, values)
