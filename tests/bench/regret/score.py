"""From choices to figures: regret, its spread, its cost, and which differences are real."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lrsearch.core.curve import Array
from tests.bench.regret.replay import Choice, oracle

RESAMPLES = 2_000
TARGETS = {"default": (0.3, 1.5), "quick": (0.8, 3.0)}
"""Median and 90th percentile of the regret, in percent."""
COVERAGE = (0.85, 0.95)


@dataclass(frozen=True)
class Row:
    """One contestant's choice in one study of one task; `how` is ``replay`` or ``live``.

    `loss` is the mean validation loss of the choice, `regret` the share of the achievable improvement that it
    lost; `lr` is None where none was found.
    """

    contestant: str
    task: str
    seed: int
    lr: float | None
    schedule: str
    loss: float
    regret: float
    cost_run_equivalents: float
    how: str
    covered: bool | None = None


@dataclass(frozen=True)
class Score:
    """All studies of one contestant: regrets in percent, each with its standard error.

    `in_noise` is the median loss above the best in standard deviations between seeds, `octaves` the median
    distance of the lr from the best one under its schedule, `covered` the share of intervals that hold it.
    `behind` is by how much the median regret is above the default's, with a 95% interval over tasks and
    studies.
    """

    contestant: str
    how: str
    studies: int
    median: float
    median_error: float
    p90: float
    p90_error: float
    worst_task: float
    diverged: float
    in_noise: float
    octaves: float
    cost: float
    covered: float | None
    behind: tuple[float, float, float] | None = None


def judged(contestant: str, task: str, seed: int, choice: Choice, how: str = "replay") -> Row:
    """A replayed choice, judged by the oracle."""
    known = oracle(task)
    return Row(
        contestant=contestant,
        task=task,
        seed=seed,
        lr=choice.lr,
        schedule=choice.schedule,
        loss=known.trivial if choice.lr is None else known.expected(choice.lr, choice.schedule),
        regret=known.regret(choice.lr, choice.schedule),
        cost_run_equivalents=choice.cost,
        how=how,
        covered=choice.covered,
    )


def score(rows: Sequence[Row], against: Sequence[Row] | None = None) -> Score:
    """The figures of one contestant; `against` are the default's rows."""
    by_task = _by_task(rows)
    draws = [100 * _drawn(by_task, rng) for rng in _streams()]
    regrets = 100 * np.concatenate(list(by_task.values()))
    covered = [row.covered for row in rows if row.covered is not None]
    return Score(
        contestant=rows[0].contestant,
        how=rows[0].how,
        studies=len(rows),
        median=float(np.median(regrets)),
        median_error=float(np.std([np.median(draw) for draw in draws])),
        p90=float(np.percentile(regrets, 90)),
        p90_error=float(np.std([np.percentile(draw, 90) for draw in draws])),
        worst_task=max(100 * float(np.median(values)) for values in by_task.values()),
        diverged=float(np.mean([row.lr is None or row.regret >= 1 for row in rows])),
        in_noise=float(np.median([_in_noise(row) for row in rows])),
        octaves=float(np.median([_octaves(row) for row in rows])),
        cost=float(np.mean([row.cost_run_equivalents for row in rows])),
        covered=float(np.mean(covered)) if covered else None,
        behind=_behind(by_task, _by_task(against)) if against else None,
    )


def medians(rows: Iterable[Row]) -> Mapping[str, float]:
    """By task the median regret in percent."""
    return {task: 100 * float(np.median(values)) for task, values in _by_task(rows).items()}


def _by_task(rows: Iterable[Row]) -> dict[str, Array]:
    """Regrets by task, in the order of the studies' numbers."""
    found: dict[str, list[float]] = {}
    for row in sorted(rows, key=lambda row: (row.task, row.seed)):
        found.setdefault(row.task, []).append(row.regret)
    return {task: np.array(values) for task, values in found.items()}


def _drawn(by_task: Mapping[str, Array], rng: np.random.Generator) -> Array:
    """The studies of every task drawn anew; the tasks are what they are."""
    return np.concatenate([rng.choice(values, len(values)) for values in by_task.values()])


def _behind(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> tuple[float, float, float]:
    """How far the first median lies above the second, in percent, with a paired bootstrap's 95% interval.

    Tasks are drawn anew, then the studies within them, the same ones for both.
    """
    tasks = sorted(ours.keys() & theirs.keys())
    found = []
    for rng in _streams():
        drawn = [(task, _positions(ours[task], theirs[task], rng)) for task in rng.choice(tasks, len(tasks))]
        a, b = (np.concatenate([side[task][at] for task, at in drawn]) for side in (ours, theirs))
        found.append(100 * float(np.median(a) - np.median(b)))
    seen = [np.median(np.concatenate([side[task] for task in tasks])) for side in (ours, theirs)]
    low, high = np.percentile(found, [2.5, 97.5])
    return 100 * float(seen[0] - seen[1]), float(low), float(high)


def _positions(a: Array, b: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    count = min(len(a), len(b))
    return rng.integers(count, size=count)


@cache
def _seeds() -> tuple[np.random.SeedSequence, ...]:
    return tuple(np.random.SeedSequence(0).spawn(RESAMPLES))


def _streams() -> Iterable[np.random.Generator]:
    """The same random numbers for every contestant."""
    return (np.random.default_rng(seed) for seed in _seeds())


def _in_noise(row: Row) -> float:
    known = oracle(row.task)
    return (row.loss - known.best) / known.noise(known.best_schedule)


def _octaves(row: Row) -> float:
    if row.lr is None:
        return math.inf
    return abs(math.log2(row.lr / oracle(row.task).best_lr(row.schedule)))
