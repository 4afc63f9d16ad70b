"""How good is each rule's lr? Sweeps of real tasks, judged by full trainings at constant lr over a grid.

A rule's regret at a task and a horizon is the share of the achievable improvement that its lr loses: ``(L(lr)
- L*) / (L_trivial - L*)``, L the mean validation loss of two seeds, interpolated in log lr and never worse
than the trivial loss ln 10, L* the grid's best. Tuned on: the rule `walls` and its cap were chosen on these
very tasks.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lrsearch.core.curve import Array
from lrsearch.core.observer import Observer
from lrsearch.core.suggest import suggest
from lrsearch.core.suggestion import RULES
from lrsearch.core.sweep_plan import SweepPlan
from lrsearch.examples import digits, fashion_mnist
from lrsearch.schedules import Constant
from lrsearch.training.loop import fit
from lrsearch.training.random_state import seed_everything
from lrsearch.training.subjects import FromTask
from lrsearch.training.sweep import sweep
from lrsearch.training.task import Task
from lrsearch.training.update import Training

RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")
GRID = np.logspace(-4.5, 1, 23)
TRAINING_SEEDS = (100, 101)
SWEEP_SEEDS = range(5)
TRIVIAL = math.log(10)

_OPTIMIZERS: tuple[dict[str, Any], ...] = (
    {"optimizer": "sgd", "momentum": 0.0},
    {"optimizer": "sgd", "momentum": 0.9},
    {"optimizer": "adam"},
    {"optimizer": "rmsprop"},
    {"optimizer": "adagrad"},
)


@dataclass(frozen=True)
class Case:
    """A task with the lengths of its trainings and of its sweeps, in steps."""

    name: str
    task: Task
    horizons: tuple[int, ...]
    sweeps: tuple[int, ...]


def cases() -> Iterator[Case]:
    """Digits with five optimizers, with and without batch normalisation; Fashion-MNIST with three."""
    for settings in _OPTIMIZERS:
        name = settings["optimizer"] + ("-momentum" if settings.get("momentum") else "")
        for batch_norm in (False, True):
            task = digits.task(**settings, batch_norm=batch_norm)
            yield Case(f"digits {name}{' bn' if batch_norm else ''}", task, (220, 880), (100, 400, 1000))
        if settings["optimizer"] in ("sgd", "adam"):
            yield Case(f"fashion-mnist {name}", fashion_mnist.task(**settings), (938,), (100, 300, 938))


def main(arguments: list[str]) -> None:
    """Runs the benchmark, prints the table, writes `rules.csv` and `rules.json`."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench rules", description=__doc__)
    parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = [row for case in cases() for row in judge(case)]
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "rules.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    summary = summarize(rows)
    (RESULTS / "rules.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    for rule, figures in summary.items():
        print(f"{rule:10}", "  ".join(f"{name} {value:.3g}" for name, value in figures.items()))


def judge(case: Case) -> Iterator[dict[str, Any]]:
    """One row a horizon, sweep length, seed and rule."""
    losses = {horizon: grid_losses(case.task, horizon) for horizon in case.horizons}
    for steps in case.sweeps:
        plan = SweepPlan(steps=steps, repeats=len(SWEEP_SEEDS), seed=SWEEP_SEEDS[0])
        for curve in sweep(FromTask(case.task), plan, CPU, Observer()):
            for rule, lr in suggest(curve).rules.items():
                for horizon, grid in losses.items():
                    yield {
                        "case": case.name,
                        "horizon": horizon,
                        "sweep_steps": steps,
                        "seed": curve.seed,
                        "rule": rule,
                        "lr": lr,
                        "regret_percent": regret(lr, grid),
                    }
    best = ", ".join(f"{GRID[np.argmin(grid)]:.2g} in {horizon} steps" for horizon, grid in losses.items())
    print(f"{case.name}: best lr {best}", flush=True)


def grid_losses(task: Task, horizon: int) -> Array:
    """Mean validation loss after a full training at each lr of the grid."""
    losses = [np.mean([train(task, float(lr), horizon, seed) for seed in TRAINING_SEEDS]) for lr in GRID]
    return np.array(losses, dtype=np.float64)


def train(task: Task, lr: float, steps: int, seed: int) -> float:
    """Validation loss after a training at constant lr; the trivial loss where it is not finite."""
    seed_everything(seed)
    model, optimizer = task.build(lr, CPU)
    model.train()
    training = Training(model, optimizer, task.train_loader, task.loss)
    outcome = fit(training, Constant(), steps, lambda *_: None)
    loss = validation_loss(model, task) if outcome.stopped_at is None else math.inf
    return loss if math.isfinite(loss) else TRIVIAL


@torch.no_grad()
def validation_loss(model: nn.Module, task: Task) -> float:
    """Mean loss over the validation images."""
    model.eval()
    total, images = 0.0, 0
    for inputs, targets in task.val_loader or ():
        total += nn.functional.cross_entropy(model(inputs), targets, reduction="sum").item()
        images += len(targets)
    return total / images


def regret(lr: float, losses: Array) -> float:
    """Percent of the achievable improvement that is lost at `lr`."""
    loss = float(np.interp(math.log(lr), np.log(GRID), losses))
    best = float(losses.min())
    return 100 * (loss - best) / (TRIVIAL - best)


def summarize(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each rule: median, mean, 90th percentile of the regret, and how far five seeds lie apart."""
    regrets: dict[str, list[float]] = defaultdict(list)
    lrs: dict[str, dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        regrets[row["rule"]].append(row["regret_percent"])
        lrs[row["rule"]][row["case"], row["sweep_steps"]].append(row["lr"])
    return {
        rule: {
            "median": float(np.median(regrets[rule])),
            "mean": float(np.mean(regrets[rule])),
            "p90": float(np.percentile(regrets[rule], 90)),
            "seeds_apart": float(np.median([max(group) / min(group) for group in lrs[rule].values()])),
        }
        for rule in RULES
    }
