"""Studies replayed on the oracle: the real stages, on trainings that are read off the tables.

Means and residuals of the table are interpolated in log lr (PCHIP, which invents no minimum between two lrs).
A fresh seed's loss is the mean plus a combination of the table's residuals with Gaussian weights, one set of
weights a seed: noise keeps its size and its correlation across lrs and schedules, and no two seeds are the
same. Where some of the table's seeds diverged, a seed diverges with that share, the same ones at all higher
lrs. What the answer is worth is read off the means, which no study sees.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from lrsearch.core.answer import Answer, StageResult
from lrsearch.core.budget import Budget
from lrsearch.core.confirm import Confirmed
from lrsearch.core.curve import Array
from lrsearch.core.executor import ImmediateExecutor
from lrsearch.core.observer import Observer
from lrsearch.core.presets import load_plan
from lrsearch.core.procedure import bracket_of, run_stages
from lrsearch.core.stages import Base
from lrsearch.core.suggest import combine
from lrsearch.core.suggestion import Suggestion
from lrsearch.core.trial import MetricSummary, TrialResult, TrialSpec
from lrsearch.errors import StudyError
from lrsearch.schedules import schedule_name
from lrsearch.study.config import StudyConfig
from lrsearch.study.optuna_study import propose
from lrsearch.study.prepare import with_whole_schedules
from tests.bench.regret.oracle import SCHEDULES, Cell, noted, read_cells, read_sweeps
from tests.bench.regret.tasks import CASES, Case

_CLIFF = 3.0
"""Neighbours whose excesses are further apart than this tell no vertex."""
_NO_CHANGES: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Choice:
    """What a contestant takes, and what it spent on it; `covered`: its interval holds the oracle's optimum.

    `lr` is None where it found none.
    """

    lr: float | None
    schedule: str
    cost: float
    covered: bool | None = None


class Oracle:
    """A task's table: the loss at any lr and schedule, for the mean and for any seed."""

    def __init__(self, case: Case, cells: Sequence[Cell]) -> None:
        self.case = case
        self.seeds = case.seeds
        self.trivial = float(noted(case.name)["trivial loss"])
        self.lrs: Array = np.array(sorted({cell.lr for cell in cells}))
        self.steps = max(cell.steps for cell in cells)
        self.initial = float(np.mean([cell.by_epoch[0] for cell in cells]))
        self.tables = {name: _table(cells, name, self.lrs, self.seeds) for name in SCHEDULES}
        self.best = self._cross_fitted()
        self._cells = {cell.key: cell for cell in cells}

    def diverges(self, lr: float, schedule: str) -> float:
        """The share of seeds that diverge there."""
        return self.tables[schedule].diverges(lr)

    def expected(self, lr: float, schedule: str) -> float:
        """The mean validation loss; a diverged training counts as the best constant predictor."""
        table = self.tables[schedule]
        lost = table.diverges(lr)
        kept = min(table.mean(lr), self.trivial) if lost < 1 else self.trivial
        return (1 - lost) * kept + lost * self.trivial

    def regret(self, lr: float | None, schedule: str) -> float:
        """The share of the achievable improvement that is lost; 1 where more seeds than not diverge."""
        if lr is None or self.diverges(lr, schedule) > 0.5:
            return 1.0
        return (self.expected(lr, schedule) - self.best) / (self.trivial - self.best)

    def best_lr(self, schedule: str) -> float:
        """The lr with the lowest mean: the vertex through the grid's best and its neighbours."""
        losses = [self.expected(float(lr), schedule) for lr in self.lrs]
        k = int(np.argmin(losses))
        at = float(self.lrs[k])
        if not 0 < k < len(losses) - 1:
            return at
        below, above = losses[k - 1] - losses[k], losses[k + 1] - losses[k]
        if max(below, above) > _CLIFF * min(below, above):
            return at  # no parabola's
        return at * float(np.exp(np.log(self.lrs[1] / self.lrs[0]) * (below - above) / (2 * (below + above))))

    def truncated(self, share: float, lr: float, schedule: str, seed: int) -> float:
        """The validation loss after this share of the epochs, at the nearest lr of the grid.

        Infinite where it had diverged by then.
        """
        at = float(self.lrs[np.argmin(np.abs(np.log(self.lrs / lr)))])
        losses = self._cells[at, schedule, seed].by_epoch
        epoch = max(1, round(share * self.case.epochs))
        return losses[epoch] if epoch < len(losses) else math.inf

    @property
    def best_schedule(self) -> str:
        """The schedule with the lowest mean, at its own best lr."""
        return min(SCHEDULES, key=lambda name: self.expected(self.best_lr(name), name))

    def noise(self, schedule: str) -> float:
        """Standard deviation between seeds at the schedule's best lr."""
        return float(np.std(self.tables[schedule].column(self.best_lr(schedule)), ddof=1))

    def _cross_fitted(self) -> float:
        """The best cell chosen on all seeds but one and read off that one, averaged over which."""
        found = []
        losses = np.stack([self._whole(name) for name in SCHEDULES])  # (schedules, lrs, seeds)
        for k in range(self.seeds):
            others = np.delete(losses, k, axis=2).mean(axis=2)
            found.append(losses[..., k].flat[np.argmin(others)])
        return float(np.mean(found))

    def _whole(self, schedule: str) -> Array:
        losses = np.array(self.tables[schedule].losses)
        return np.where(np.isnan(losses), self.trivial, np.minimum(losses, self.trivial))


class _Table:
    """One schedule: losses of shape (lrs, seeds), NaN where diverged, with what is interpolated of them."""

    def __init__(self, lrs: Array, losses: Array, steps: Array) -> None:
        self.losses = losses
        self._x = np.log(lrs)
        self._lost = np.isnan(losses).mean(axis=1)
        alive = self._lost < 1
        self._alive = self._x[alive]
        mean = np.nanmean(losses[alive], axis=1)
        residuals = np.nan_to_num(losses[alive] - mean[:, None])
        spread = np.sqrt(np.maximum(np.sum(~np.isnan(losses[alive]), axis=1) - 1, 1))
        self._mean = PchipInterpolator(self._alive, mean)
        self._residuals = PchipInterpolator(self._alive, residuals / spread[:, None])
        self._steps = steps

    def diverges(self, lr: float) -> float:
        return float(np.interp(np.log(lr), self._x, self._lost))

    def mean(self, lr: float) -> float:
        return float(self._mean(self._inside(lr)))

    def loss(self, lr: float, weights: Array) -> float:
        """The mean with a seed's noise."""
        return self.mean(lr) + float(self._residuals(self._inside(lr)) @ weights)

    def steps_diverged(self, lr: float) -> int:
        """Updates until a training diverges there."""
        return max(1, round(float(np.interp(np.log(lr), self._x, self._steps))))

    def column(self, lr: float) -> Array:
        """The losses of the grid's lr nearest to this one."""
        return np.array(self.losses[np.argmin(np.abs(self._x - np.log(lr)))])

    def _inside(self, lr: float) -> float:
        return float(np.clip(np.log(lr), self._alive[0], self._alive[-1]))


@cache
def oracle(name: str) -> Oracle:
    """A task's oracle, read once."""
    return Oracle(CASES[name], read_cells(name))


@cache
def _sweeps(name: str, preset: str) -> list[tuple[Suggestion, float]]:
    return [(Suggestion.from_dict(s["suggestion"]), s["cost"]) for s in read_sweeps(name)[preset]]


@cache
def config_of(name: str, preset: str, changes: str) -> StudyConfig:
    """What a study of a task is begun with, as the oracle's notes have it: the data are not needed."""
    known = noted(name)
    epochs, steps = known["epochs"], known["steps a training"]
    plan = load_plan(preset).with_changes(epochs=epochs, **json.loads(changes))
    return StudyConfig(
        plan=with_whole_schedules(plan, steps, steps // epochs),
        task=name,
        model_info=known["model_info"],
        task_kwargs={},
        data=known["data"],
        total_steps=steps,
        steps_per_epoch=steps // epochs,
    )


class OracleExecutor(ImmediateExecutor):
    """Trainings of one replayed study: the same seed gives the same loss, another study's seeds others."""

    def __init__(self, oracle: Oracle, number: int) -> None:
        self.oracle = oracle
        self._number = number

    def run(self, spec: TrialSpec) -> TrialResult:
        """The training as the table has it; a warmup changes nothing, and the baseline learns nothing."""
        oracle = self.oracle
        first = oracle.initial
        name = schedule_name(spec.schedule).removeprefix("warmup+")
        if spec.optimizer is not None:
            return _complete(spec, first, oracle.trivial)
        rng = self.rng(spec.seed)
        weights, luck = rng.standard_normal(oracle.seeds), rng.uniform()
        if luck < oracle.diverges(spec.lr, name):
            steps = oracle.tables[name].steps_diverged(spec.lr)
            return TrialResult(spec, "diverged", steps, 0.0, first, cause="loss_rose")
        return _complete(spec, first, oracle.tables[name].loss(spec.lr, weights))

    def loss(self, lr: float, schedule: str, seed: int) -> float:
        """The final loss of a training, infinite where it diverges."""
        spec = TrialSpec("oracle", lr, {"name": schedule}, seed, self.oracle.steps)
        result = self.run(spec)
        return result.metrics["val/loss"].final if result.status == "complete" else np.inf

    def loss_after(self, share: float, lr: float, schedule: str, seed: int) -> float:
        """The loss of a training when this share of it is done, at the oracle's nearest lr."""
        return self.oracle.truncated(share, lr, schedule, seed % self.oracle.seeds)

    def rng(self, seed: int) -> np.random.Generator:
        """Random numbers of one seed of this study."""
        return np.random.default_rng([zlib.crc32(self.oracle.case.name.encode()), self._number, seed])


def swept(name: str, preset: str, number: int, repeats: int) -> tuple[Suggestion, float]:
    """A range test of so many seeds, drawn from those on record, and its cost."""
    pool = _sweeps(name, "quick" if preset == "quick" else "default")
    rng = np.random.default_rng([number, zlib.crc32(preset.encode())])
    drawn = [pool[k] for k in rng.choice(len(pool), repeats, replace=False)]
    return combine([suggestion for suggestion, _ in drawn]), sum(cost for _, cost in drawn)


@dataclass(frozen=True)
class Replayed:
    """A study whose trainings were read off the oracle; without base and answer where it could find none."""

    task: str
    stages: tuple[StageResult, ...]
    cost: float
    base: Base | None = None
    confirmed: Confirmed | None = None
    answer: Answer | None = None

    @property
    def choice(self) -> Choice:
        """What the study answers."""
        if self.answer is None:
            return Choice(None, "constant", self.cost)
        schedule = schedule_name(self.answer.schedule).removeprefix("warmup+")
        interval, best = self.answer.interval, oracle(self.task).best_lr(schedule)
        above = interval.low_open or interval.low <= best
        below = interval.high_open or best <= interval.high
        return Choice(self.answer.lr, schedule, self.cost, above and below)


def replay(
    task: str,
    number: int,
    preset: str = "default",
    changes: Mapping[str, Any] = _NO_CHANGES,
    *,
    sweeps: bool = True,
) -> Replayed:
    """A whole study of a task under a preset with changes; without `sweeps` it has no range test."""
    config = config_of(task, preset, json.dumps(changes))
    suggestion, cost = swept(task, preset, number, config.sweep.repeats) if sweeps else (None, 0.0)
    budget = Budget(config.plan, config.total_steps)
    budget.spent = cost
    bracket = bracket_of(suggestion)
    stages: list[StageResult] = []
    executor = OracleExecutor(oracle(task), number)
    try:
        base, confirmed = run_stages(budget, executor, partial(propose, seed=number), bracket, Keeper(stages))
    except StudyError:
        return Replayed(task, tuple(stages), budget.spent)
    answer = config.conclude(stages, bracket, base, confirmed)
    return Replayed(task, tuple(stages), budget.spent, base, confirmed, answer)


class Keeper(Observer):
    """Keeps the stages that have ended."""

    def __init__(self, stages: list[StageResult]) -> None:
        self._stages = stages

    def stage_ends(self, result: StageResult) -> None:
        """Keep it."""
        self._stages.append(result)


def _complete(spec: TrialSpec, first: float, final: float) -> TrialResult:
    metric = MetricSummary(first, final, min(first, final), max(first, final), 2)
    return TrialResult(spec, "complete", spec.steps, 0.0, first, {"val/loss": metric})


def _table(cells: Sequence[Cell], schedule: str, lrs: Array, seeds: int) -> _Table:
    losses, steps = np.full((len(lrs), seeds), np.nan), np.zeros((len(lrs), seeds))
    for cell in cells:
        if cell.schedule == schedule:
            at = int(np.argmin(np.abs(lrs - cell.lr))), cell.seed
            losses[at] = np.nan if cell.loss is None else cell.loss
            steps[at] = cell.steps
    return _Table(lrs, losses, steps.mean(axis=1))
