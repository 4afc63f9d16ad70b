"""What decay does to the best lr, and whether short trainings tell which lr and schedule win in full.

The first is read off the oracle's tables. For the second every lr within a decade of a task's best ones is
trained under every schedule for about a quarter of the epochs, with the schedule complete; that is compared
with what the full trainings had reached by then. For the intervals the five seeds are drawn with replacement
in every way there is, so that they need no random numbers.
"""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from lrsearch.core.curve import Array
from lrsearch.core.trial import TrialSpec
from lrsearch.schedules import schedule_from_dict
from lrsearch.training.run_trial import run_trial
from tests.bench.regret.oracle import (
    FOLDER,
    SCHEDULES,
    SEEDS,
    Cell,
    Unheard,
    fingerprint,
    grid,
    read_cells,
    setting_of,
    whole_tasks,
)
from tests.bench.regret.replay import Oracle, oracle
from tests.bench.regret.score import RESAMPLES
from tests.bench.regret.table import Table
from tests.bench.regret.tasks import CASES, Case

PATH = FOLDER.parent / "findings.json"
DECAYING = tuple(name for name in SCHEDULES if name != "constant")
SHARE = 0.25
"""Of the epochs, to the nearest whole one: that is where the full trainings were validated."""
NEIGHBOURS = 3
"""So many lrs of the grid beyond the best ones are compared: a decade to either side."""
LEVEL = 0.9
"""Of every interval."""
RATIOS = ("shift", "shift, short", "lr, short over full")

Figures = dict[str, dict[str, float]]
"""By group and name."""


@dataclass(frozen=True)
class Short:
    """One short training, its schedule complete: the final validation loss, None where it diverged."""

    task: str
    lr: float
    schedule: str
    seed: int
    steps: int
    loss: float | None


TABLE = Table(FOLDER / "short.csv", Short)


def compute() -> None:
    """Trains what the table lacks, on all cores. Under a constant lr that is nothing: full ones begin alike.

    The processes are new ones with one torch thread: how many threads standardise a task's data changes
    their last digits.
    """
    rows = {(row.task, row.lr, row.schedule, row.seed): row for row in TABLE.read()}
    known = len(rows)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, torch.set_num_threads, (1,)) as pool:
        for name in whole_tasks():
            keys = itertools.product([name], compared(name), DECAYING, SEEDS)
            asked = [key for key in keys if key not in rows]
            for row in pool.map(train, *zip(*asked, strict=True)) if asked else ():
                TABLE.append(row)
                rows[row.task, row.lr, row.schedule, row.seed] = row
            print(f"{name}: short trainings done", flush=True)
    if len(rows) > known:
        TABLE.replace(row for _, row in sorted(rows.items()))


def train(task: str, lr: float, schedule: str, seed: int) -> Short:
    """One short training, its schedule complete."""
    case = CASES[task]
    whole = schedule_from_dict({"name": schedule}).to_dict()
    steps = setting_of(case).config.total_steps * short_epochs(case) // case.epochs
    spec = TrialSpec("short", lr, whole, seed, steps)
    result = run_trial(case.task, spec, torch.device("cpu"), Unheard(), objective="val/loss")
    complete = result.status == "complete"
    loss = float(f"{result.metrics['val/loss'].final:.7g}") if complete else None
    return Short(task, lr, schedule, seed, steps, loss)


def short_epochs(case: Case) -> int:
    """The length of the short trainings."""
    return max(1, round(SHARE * case.epochs))


def compared(task: str) -> list[float]:
    """The lrs of the grid from a decade below the lowest best one of a schedule to one above the highest."""
    lrs = grid(CASES[task])
    best = [math.log(oracle(task).best_lr(name)) for name in SCHEDULES]
    at = [int(np.argmin(np.abs(np.log(lrs) - end))) for end in (min(best), max(best))]
    return lrs[max(0, at[0] - NEIGHBOURS) : at[1] + NEIGHBOURS + 1]


def report() -> None:
    """Writes what is found to `results/findings.json`, and prints it."""
    found = findings()
    PATH.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines(found)))


def findings() -> dict[str, Any]:
    """What `finding` tells, by task, and the means over all; of tasks whose short trainings are all there."""
    trained = Counter(row.task for row in TABLE.read())
    asked = {task: len(compared(task)) * len(DECAYING) * len(SEEDS) for task in whole_tasks()}
    tasks = [task for task, count in asked.items() if trained[task] == count]
    return {"tasks": {task: finding(task) for task in tasks}, "mean": over_tasks(tasks) if tasks else {}}


def finding(task: str) -> dict[str, Any]:
    """Of one task the `figures`, each with its interval, and what is chosen at the shorter horizons.

    ``regret by one seed`` is the mean over the choices by each seed alone; ``by epoch`` follows the choice by
    truncated trainings to their last but one epoch.
    """
    case, full = CASES[task], near_cells(task)
    part, steps = short_epochs(case), max(cell.steps for cell in full)
    seen, drawn = drawn_figures(task)
    alone = [one for one, times in drawn if times == 1]  # five times the same seed
    stages = _stages(task)
    lr = {kind: {name: known.best_lr(name) for name in SCHEDULES} for kind, known in stages.items()}
    return {
        "steps": steps,
        "short steps": steps * part // case.epochs,
        "oracle": fingerprint(task),
        "configurations": len(_means(stages["full"])),
        "best lr": {kind: {name: _rounded(lr[kind][name]) for name in SCHEDULES} for kind in stages},
        "exponent of the best lr in the steps": _rounded(
            -math.log(seen["lr, short over full"]["decaying"]) / math.log(case.epochs / part)
        ),
        **{
            group: {
                name: [_rounded(value), *_interval([one[group][name] for one, _ in drawn], _times(drawn))]
                for name, value in values.items()
            }
            for group, values in seen.items()
        },
        "regret by one seed": {
            kind: _rounded(sum(one["regret of the choice"][kind] for one in alone) / len(alone))
            for kind in stages
        },
        "choice": {kind: _choice(task, known) for kind, known in stages.items()},
        "by epoch": [_choice(task, Oracle(case, truncated(full, epoch))) for epoch in range(1, case.epochs)],
    }


def over_tasks(tasks: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """The mean of every figure over the tasks; its interval is over tasks and seeds, both drawn.

    Ratios have geometric means.
    """
    rng = np.random.default_rng(0)
    at_task = rng.integers(len(tasks), size=(RESAMPLES, len(tasks)))
    at_draw = rng.integers(len(SEEDS) ** len(SEEDS), size=(RESAMPLES, len(tasks)))
    by_task = [drawn_figures(task) for task in tasks]
    found: dict[str, dict[str, list[float]]] = {}
    for group, names in by_task[0][0].items():
        there, back = (np.log, np.exp) if group in RATIOS else (np.array, np.array)
        found[group] = {}
        for name in names:
            seen = np.array([here[group][name] for here, _ in by_task])
            drawn = np.array(
                [np.repeat([one[group][name] for one, _ in draws], _times(draws)) for _, draws in by_task]
            )
            ends = _interval(back(there(drawn)[at_task, at_draw].mean(axis=1)))
            found[group][name] = [_rounded(float(back(there(seen).mean()))), *ends]
    return found


@cache
def drawn_figures(task: str) -> tuple[Figures, list[tuple[Figures, int]]]:
    """The figures of a task, and those of every draw of its seeds, with how often it comes up."""
    cells = _cells(task)
    drawn = []
    for seeds, times in draws():
        one = {kind: Oracle(CASES[task], reseeded(those, seeds)) for kind, those in cells.items()}
        drawn.append((figures(task, **one), times))
    return figures(task, **_stages(task)), drawn


def figures(task: str, full: Oracle, short: Oracle, prefix: Oracle) -> Figures:
    """Of one task with one draw of its seeds; regrets in percent of the achievable improvement.

    ``shift`` is the best lr over that of constant, ``decay gains`` by how much regret falls from constant's
    best lr to the schedule at its own, ``keeping the lr loses`` how much of that is lost at constant's;
    ``best`` is the best schedule of either. ``rank of the best`` is that of the best configuration in full.
    """
    base = full.best_lr("constant")
    lr = {name: full.best_lr(name) for name in SCHEDULES}
    lr_short = {name: short.best_lr(name) for name in SCHEDULES}
    kept = {name: 100 * full.regret(base, name) for name in SCHEDULES}
    tuned = {name: 100 * full.regret(lr[name], name) for name in SCHEDULES}
    for regrets in (kept, tuned):
        regrets["best"] = min(regrets[name] for name in DECAYING)
    drift = {name: lr_short[name] / lr[name] for name in SCHEDULES}
    drift["decaying"] = math.prod(drift[name] for name in DECAYING) ** (1 / len(DECAYING))
    stages = {"full": full, "short": short, "prefix": prefix}
    choices = {kind: _choice(task, known) for kind, known in stages.items()}
    regret = {kind: choice["regret"] for kind, choice in choices.items()}
    rank = {kind: choice["rank of the best"] for kind, choice in choices.items()}
    for compared_by in (regret, rank):
        compared_by["prefix less short"] = compared_by["prefix"] - compared_by["short"]
    return {
        "shift": {name: lr[name] / base for name in DECAYING},
        "shift, short": {name: lr_short[name] / lr_short["constant"] for name in DECAYING},
        "decay gains": {name: tuned["constant"] - tuned[name] for name in (*DECAYING, "best")},
        "keeping the lr loses": {name: kept[name] - tuned[name] for name in (*DECAYING, "best")},
        "lr, short over full": drift,
        "regret of the choice": regret,
        "rank of the best": rank,
    }


def short_cells(task: str) -> list[Cell]:
    """The short trainings as an oracle's cells; under a constant lr they are prefixes of the full ones."""
    constant = [cell for cell in prefix_cells(task) if cell.schedule == "constant"]
    full = {cell.key: cell for cell in near_cells(task)}
    decaying = [
        replace(full[row.lr, row.schedule, row.seed], loss=row.loss, diverged=row.loss is None)
        for row in TABLE.read()
        if row.task == task
    ]
    return [*constant, *decaying]


def prefix_cells(task: str) -> list[Cell]:
    """The full trainings as they stood when the short ones are done."""
    return truncated(near_cells(task), short_epochs(CASES[task]))


def near_cells(task: str) -> list[Cell]:
    """The full trainings at the lrs that are compared."""
    lrs = compared(task)
    return [cell for cell in read_cells(task) if cell.lr in lrs]


def truncated(cells: Sequence[Cell], epoch: int) -> list[Cell]:
    """Full trainings as they stood after so many epochs; without a loss where they had diverged by then."""
    losses = [cell.by_epoch[epoch] if epoch < len(cell.by_epoch) else None for cell in cells]
    return [replace(cell, loss=loss, diverged=loss is None) for cell, loss in zip(cells, losses, strict=True)]


def reseeded(cells: Sequence[Cell], seeds: Sequence[int]) -> list[Cell]:
    """The cells of these seeds, which may come repeatedly, as if they were those of all seeds."""
    by_seed = {seed: [cell for cell in cells if cell.seed == seed] for seed in SEEDS}
    return [replace(cell, seed=k) for k, seed in enumerate(seeds) for cell in by_seed[seed]]


def draws() -> list[tuple[tuple[int, ...], int]]:
    """Every way to draw as many seeds as there are, with replacement, and how often it comes up."""
    drawn = itertools.product(SEEDS, repeat=len(SEEDS))
    return list(Counter(tuple(sorted(seeds)) for seeds in drawn).items())


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The figures as tables to print, with their intervals; the last row of each is the mean over tasks."""
    for group in found["mean"]:
        yield group.ljust(16) + "".join(name.rjust(22) for name in found["mean"][group])
        for task, one in (*found["tasks"].items(), ("mean", found["mean"])):
            yield task.ljust(16) + "".join(_shown(*values).rjust(22) for values in one[group].values())


def _cells(task: str) -> dict[str, list[Cell]]:
    """Full trainings, complete short ones and prefixes, at the lrs that are compared."""
    return {"full": near_cells(task), "short": short_cells(task), "prefix": prefix_cells(task)}


def _stages(task: str) -> dict[str, Oracle]:
    return {kind: Oracle(CASES[task], cells) for kind, cells in _cells(task).items()}


def _choice(task: str, here: Oracle) -> dict[str, Any]:
    """What has the lowest mean here, its regret in full, and the rank that the best in full has here."""
    known, means = oracle(task), _means(here)
    lr, schedule = min(means, key=lambda key: means[key])
    best = min(means, key=lambda key: known.expected(*key))
    return {
        "lr": lr,
        "schedule": schedule,
        "regret": _rounded(100 * known.regret(lr, schedule)),
        "rank of the best": 1 + sum(mean < means[best] for mean in means.values()),
    }


def _means(known: Oracle) -> dict[tuple[float, str], float]:
    """The mean loss of every configuration of the grid."""
    keys = itertools.product(map(float, known.lrs), SCHEDULES)
    return {(lr, name): known.expected(lr, name) for lr, name in keys}


def _times(drawn: Sequence[tuple[Figures, int]]) -> list[int]:
    return [times for _, times in drawn]


def _interval(values: Sequence[float] | Array, times: Sequence[int] | int = 1) -> list[float]:
    """The middle `LEVEL` of values that come up so many times each."""
    ends = np.quantile(np.repeat(values, times), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [_rounded(end) for end in ends]


def _shown(value: float, low: float, high: float) -> str:
    return f"{value:z.2f} ({low:z.2f}, {high:z.2f})"


def _rounded(value: float) -> float:
    return float(f"{value:.4g}") + 0.0  # turns -0.0 into 0.0
