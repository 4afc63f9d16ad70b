"""Real studies of the five tasks: do they end where the replays do?

Three studies a task and preset, with seeds of their own; the answer is then trained on five further seeds,
and judged by their mean against the oracle's best. `results/oracle/live.csv` keeps them; what is there is not
run again.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np
import torch

import lrsearch
from lrsearch.core.trial import TrialSpec
from lrsearch.schedules import schedule_name
from lrsearch.training.run_trial import run_trial
from tests.bench.regret.oracle import FOLDER, Unheard
from tests.bench.regret.replay import oracle
from tests.bench.regret.score import Row
from tests.bench.regret.table import Table
from tests.bench.regret.tasks import CASES

PRESETS = ("default", "quick")
STUDIES = 3
_FIRST_SEED = 100
_JUDGING_SEEDS = range(9000, 9005)
_PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class LiveRow(Row):
    """A real study, with the names of the warnings that its answer carries, or ``none``."""

    warnings: str


TABLE = Table(FOLDER / "live.csv", LiveRow)


def compute() -> None:
    """Runs the studies that are missing."""
    have = {(row.contestant, row.task, row.seed) for row in rows()}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, torch.set_num_threads, (1,)) as pool:
        jobs = [
            pool.submit(study, preset, task, _FIRST_SEED + k)
            for preset in PRESETS
            for task in CASES
            for k in range(STUDIES)
            if (preset, task, _FIRST_SEED + k) not in have
        ]
        for job in as_completed(jobs):
            TABLE.append(job.result())
            print(job.result(), flush=True)


def study(preset: str, task: str, seed: int) -> LiveRow:
    """One study, and what its answer is worth."""
    case = CASES[task]
    with tempfile.TemporaryDirectory() as home:
        os.environ["LRSEARCH_HOME"] = home
        store = f"sqlite:///{home}/mlflow.db"
        found = lrsearch.search(
            case.task,
            name="live",
            plan=preset,
            epochs=case.epochs,
            seed=seed,
            tracking_uri=store,
            progress=False,
        )
        found.wait(_PATIENCE_S)
    schedule = found.schedule.to_dict()
    steps = found.config.total_steps
    known = oracle(task)
    losses = []
    for judge in _JUDGING_SEEDS:
        spec = TrialSpec("judge", found.lr, schedule, judge, steps)
        result = run_trial(case.task, spec, torch.device("cpu"), Unheard(), objective="val/loss")
        losses.append(result.metrics["val/loss"].final if result.status == "complete" else case.trivial)
    loss = float(np.mean(losses))
    interval = found.interval
    name = schedule_name(schedule).removeprefix("warmup+")
    best = known.best_lr(name)
    return LiveRow(
        contestant=preset,
        task=task,
        seed=seed,
        lr=found.lr,
        schedule=schedule_name(schedule),
        loss=loss,
        regret=(loss - known.best) / (known.trivial - known.best),
        cost_run_equivalents=found.cost,
        how="live",
        covered=(interval.low_open or interval.low <= best) and (interval.high_open or best <= interval.high),
        warnings=" ".join(found.warnings) or "none",
    )


def rows() -> list[LiveRow]:
    """The studies on record."""
    return TABLE.read()


def warned() -> float:
    """The share of the studies on record that carry a warning."""
    known = rows()
    return sum(row.warnings != "none" for row in known) / len(known)
