"""Optimizers that need no lr, trained on the tasks as their authors say; kept in `results/oracle/rivals.csv`.

Prodigy and D-Adaptation find the lr by themselves, Schedule-Free averages instead of decaying. They replace
the task's optimizer; momentum, weight decay and clipping are the task's own where they have a place for them.
Weights and batches of a seed are those of the oracle's trainings. Cost: one training; nothing is searched.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import nn

from lrsearch.core.divergence import DivergenceRule
from lrsearch.schedules import Constant, Cosine, Schedule
from lrsearch.training.loop import fit
from lrsearch.training.random_state import seed_everything, single_threaded
from lrsearch.training.task import Task
from lrsearch.training.update import Training
from lrsearch.training.validation import validate
from tests.bench.peers import quiet
from tests.bench.regret.oracle import FOLDER, SEEDS, setting_of, whole_tasks
from tests.bench.regret.peers import CLIP
from tests.bench.regret.replay import oracle
from tests.bench.regret.score import Row
from tests.bench.regret.table import Table
from tests.bench.regret.tasks import CASES, Case

_CPU = torch.device("cpu")
_WARMUP = 0.05
"""Schedule-Free recommends a warmup and names no length; so much of a training is that of its paper."""
_NORM_BATCHES = 50
"""Batches from which batch normalisation takes its statistics anew, as Schedule-Free's README has it."""


@dataclass(frozen=True)
class Own:
    """Of the task's own optimizer what a rival takes over."""

    adaptive: bool
    momentum: float
    weight_decay: float


@dataclass(frozen=True)
class Recipe:
    """An optimizer of a package, with its settings and the schedule of its lr."""

    package: str
    optimizer: str
    settings: dict[str, Any]
    schedule: Schedule


@dataclass(frozen=True)
class Trained:
    """One training of one rival; `loss` is None where it diverged."""

    task: str
    rival: str
    seed: int
    settings: str
    loss: float | None
    diverged: bool
    cost: float


TABLE = Table(FOLDER / "rivals.csv", Trained)


def prodigy(own: Own, steps: int, schedule: Schedule) -> Recipe:
    """Prodigy, which is an Adam for all tasks: lr 1, decoupled weight decay."""
    return Recipe("prodigyopt", "Prodigy", {"lr": 1.0, "weight_decay": own.weight_decay}, schedule)


def d_adaptation(own: Own, steps: int, schedule: Schedule) -> Recipe:
    """D-Adaptation's Adam or SGD, as the task has it: lr 1."""
    if not own.adaptive:
        return Recipe("dadaptation", "DAdaptSGD", {"lr": 1.0, "momentum": own.momentum}, schedule)
    settings = {"lr": 1.0, "weight_decay": own.weight_decay, "decouple": True}
    return Recipe("dadaptation", "DAdaptAdam", settings, schedule)


def schedule_free(own: Own, steps: int, schedule: Schedule) -> Recipe:
    """Schedule-Free AdamW or SGD, as the task has it, at the lr that is its default."""
    settings = {"warmup_steps": round(_WARMUP * steps), "weight_decay": own.weight_decay}
    if own.adaptive:
        return Recipe("schedulefree", "AdamWScheduleFree", {"lr": 0.0025, **settings}, schedule)
    return Recipe("schedulefree", "SGDScheduleFree", {"lr": 1.0, **settings}, schedule)


RIVALS: dict[str, tuple[Callable[[Own, int, Schedule], Recipe], Schedule]] = {
    "Prodigy + cosine": (prodigy, Cosine()),
    "Prodigy": (prodigy, Constant()),
    "D-Adaptation": (d_adaptation, Constant()),
    "D-Adaptation + cosine": (d_adaptation, Cosine()),
    "Schedule-Free": (schedule_free, Constant()),
}
"""Prodigy's README names cosine or no schedule; D-Adaptation's, the one that the problem has anyway."""


def compute() -> None:
    """Trains what the table lacks."""
    have = {(row.task, row.rival, row.seed) for row in TABLE.read()}
    with single_threaded():
        for case in CASES.values():
            steps = setting_of(case).config.total_steps
            for rival, seed in itertools.product(RIVALS, SEEDS):
                if (case.name, rival, seed) not in have:
                    TABLE.append(train(case, rival, seed, steps))
            print(f"{case.name}: {len(RIVALS)} rivals, {len(SEEDS)} seeds", flush=True)


def train(case: Case, rival: str, seed: int, steps: int) -> Trained:
    """One full training."""
    task, (recipe_for, schedule) = case.task, RIVALS[rival]
    recipe = recipe_for(_own(task), steps, schedule)
    seed_everything(seed)
    model = task.build_model(_CPU)
    with quiet():  # they print what they were asked for
        make = getattr(import_module(recipe.package), recipe.optimizer)
        optimizer: Any = make(model.parameters(), **recipe.settings)
    training = Training(model, optimizer, task.train_loader, task.loss, clip=CLIP.get(case.name), device=_CPU)
    diverges = DivergenceRule(steps)
    averages = recipe.package == "schedulefree"
    if averages:
        optimizer.train()
    outcome = fit(training, schedule, steps, lambda step, lr, loss: diverges(step, loss))
    loss = math.nan
    if outcome.reason is None:
        if averages:
            optimizer.eval()
            _renew_statistics(model, task)
        assert task.val_loader is not None
        loss = validate(task, model, task.val_loader, _CPU, part="val", seed=seed)["val/loss"]
    said = {"optimizer": recipe.optimizer, "schedule": schedule.name, **recipe.settings}
    kept = float(f"{loss:.7g}") if math.isfinite(loss) else None
    return Trained(case.name, rival, seed, json.dumps(said), kept, kept is None, 1.0)


def rows() -> list[Row]:
    """Every rival on every task, by its mean loss; a seed that diverged counts as the trivial predictor."""
    return list(_rows())


def _own(task: Task) -> Own:
    _, optimizer = task.build(1e-3, _CPU)
    group = optimizer.param_groups[0]
    adaptive = isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW)
    return Own(adaptive, group.get("momentum", 0.0), group["weight_decay"])


def _renew_statistics(model: nn.Module, task: Task) -> None:
    """Statistics of batch normalisation at the averaged weights, not where the gradients were taken."""
    model.train()
    with torch.no_grad():
        for inputs, _ in itertools.islice(task.train_loader, _NORM_BATCHES):
            model(inputs)


def _rows() -> Iterator[Row]:
    trained = TABLE.read()
    for rival, case in itertools.product(RIVALS, map(CASES.__getitem__, whole_tasks())):
        group = [row for row in trained if (row.rival, row.task) == (rival, case.name)]
        if not group:
            continue
        known = oracle(case.name)
        loss = float(np.mean([min(row.loss or known.trivial, known.trivial) for row in group]))
        settings = json.loads(group[0].settings)
        lost = 2 * sum(row.diverged for row in group) > len(group)
        yield Row(
            contestant=rival,
            task=case.name,
            seed=0,
            lr=None if lost else settings["lr"],
            schedule=settings["schedule"],
            loss=loss,
            regret=1.0 if lost else (loss - known.best) / (known.trivial - known.best),
            cost_run_equivalents=1.0,
            how="live",
        )
