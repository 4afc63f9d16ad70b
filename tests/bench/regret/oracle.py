"""The oracle: every lr of a grid under every schedule with several seeds, trained once and kept as tables.

`python -m tests.bench regret --oracle` trains what the tables in `results/oracle/` lack, on all cores, a
torch thread each; it can be stopped and started again. Beside the grid it keeps range tests of many seeds, as
the presets sweep, for the replay draws its brackets from them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lrsearch.core.observer import Observer
from lrsearch.core.presets import load_plan
from lrsearch.core.suggest import suggest
from lrsearch.core.trial import TrialSpec
from lrsearch.schedules import schedule_from_dict
from lrsearch.study.config import StudyConfig
from lrsearch.study.prepare import PreparedStudy, prepare
from lrsearch.training.run_trial import run_trial
from lrsearch.training.sweep import sweep
from tests.bench.regret.table import Floats, Table
from tests.bench.regret.tasks import CASES, Case

FOLDER = Path(__file__).parent.parent / "results" / "oracle"
SCHEDULES = ("constant", "linear", "cosine", "wsd", "step", "one_cycle")
"""Constant, and the decays that are most used."""
SEEDS = tuple(range(5))
"""Of whatever is trained beside the grid on the tasks with as many seeds."""
STEPS_A_DECADE = 3
SWEEPS = 24
"""Range tests by preset: the replay draws from so many seeds."""
SWEPT_PRESETS = ("default", "quick")


@dataclass(frozen=True)
class Cell:
    """One training of the grid: its final validation loss, and those before: at the start, after each epoch.

    `loss` is None where it diverged; `steps` are the updates that it took.
    """

    lr: float
    schedule: str
    seed: int
    diverged: bool
    steps: int
    loss: float | None
    by_epoch: Floats

    @property
    def key(self) -> tuple[float, str, int]:
        return self.lr, self.schedule, self.seed


def grid(case: Case) -> list[float]:
    """The lrs of a task's oracle: a factor 10^(1/3) apart."""
    count = case.decades * STEPS_A_DECADE + 1
    return [float(f"{case.lowest * 10 ** (k / STEPS_A_DECADE):.4g}") for k in range(count)]


def asked(case: Case) -> Iterator[tuple[float, str, int]]:
    """Every cell of a task's table."""
    return itertools.product(grid(case), SCHEDULES, range(case.seeds))


def compute() -> None:
    """Trains what is missing of every table, and writes what they were made with."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, _one_thread) as pool:
        for case in CASES.values():
            begin = time.monotonic()
            have = {cell.key for cell in read_cells(case.name)}
            missing = [key for key in asked(case) if key not in have]
            jobs = [pool.submit(train_cell, case.name, *key) for key in missing]
            for done, job in enumerate(as_completed(jobs), start=1):
                _table(case.name).append(job.result())
                if done % 50 == 0:
                    print(f"{case.name}: {done} of {len(missing)} trainings", flush=True)
            swept = _sweeps_path(case.name)
            if not swept.is_file():
                found = {
                    preset: list(pool.map(_sweep, *zip(*_sweep_jobs(case, preset), strict=True)))
                    for preset in SWEPT_PRESETS
                }
                swept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            if missing:
                _note(case, len(missing), (time.monotonic() - begin) / 60)


def setting_of(case: Case, preset: str = "default", **changes: Any) -> PreparedStudy:
    """A study of a task before it begins."""
    return prepare(case.task, load_plan(preset).with_changes(epochs=case.epochs, **changes))


@cache
def _config(name: str) -> StudyConfig:
    return setting_of(CASES[name]).config


def train_cell(name: str, lr: float, schedule: str, seed: int) -> Cell:
    """One full training."""
    case = CASES[name]
    config = _config(name)
    whole = schedule_from_dict({"name": schedule}).to_dict()
    spec = TrialSpec("oracle", lr, whole, seed, config.total_steps)
    heard = _Validations()
    result = run_trial(case.task, spec, torch.device("cpu"), heard, objective="val/loss")
    complete = result.status == "complete"
    return Cell(
        lr=lr,
        schedule=schedule,
        seed=seed,
        diverged=not complete,
        steps=result.steps_done,
        loss=float(f"{result.metrics['val/loss'].final:.7g}") if complete else None,
        by_epoch=tuple(float(f"{loss:.5g}") for step, loss in heard.losses if step < spec.steps),
    )


def read_cells(name: str) -> list[Cell]:
    """The table of a task as far as it goes."""
    return _table(name).read()


def read_sweeps(name: str) -> dict[str, list[dict[str, Any]]]:
    """By preset the suggestions of single sweeps, as `Suggestion.to_dict` gives them, with their cost."""
    found: dict[str, list[dict[str, Any]]] = json.loads(_sweeps_path(name).read_text(encoding="utf-8"))
    return found


def noted(name: str) -> dict[str, Any]:
    """What a task's table was made with: so much is known of the task without its data."""
    notes: dict[str, dict[str, Any]] = json.loads((FOLDER / "oracle.json").read_text(encoding="utf-8"))
    return notes[name]


def whole_tasks() -> list[str]:
    """The tasks whose tables are whole: what is replayed."""
    return [
        name
        for name, case in CASES.items()
        if len(read_cells(name)) == len(list(asked(case))) and _sweeps_path(name).is_file()
    ]


def fingerprint(name: str) -> str:
    """Of a task's table: 16 hexadecimal digits."""
    return hashlib.sha256(_table(name).path.read_bytes()).hexdigest()[:16]


class Unheard:
    """Keeps nothing of a training."""

    def begin(self, model_info: Mapping[str, Any]) -> None:
        """What is trained."""

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """What was measured."""


class _Validations(Unheard):
    """Keeps the validation losses of a training."""

    def __init__(self) -> None:
        self.losses: list[tuple[int, float]] = []

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        if "val/loss" in metrics:
            self.losses.append((step, metrics["val/loss"]))


def _table(name: str) -> Table[Cell]:
    return Table(FOLDER / f"{name}.csv", Cell)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _sweep_jobs(case: Case, preset: str) -> Iterator[tuple[str, str, int]]:
    return ((case.name, preset, seed) for seed in range(SWEEPS))


def _sweep(name: str, preset: str, seed: int) -> dict[str, Any]:
    setting = setting_of(CASES[name], preset)
    plan = setting.config.sweep.model_copy(update={"repeats": 1, "seed": seed})
    (curve,) = sweep(setting.subject, plan, setting.device, Observer())
    return {
        "seed": seed,
        "cost": curve.steps / setting.config.total_steps,
        "repeats": setting.config.sweep.repeats,
        "suggestion": suggest(curve).to_dict(),
    }


def _note(case: Case, trainings: int, minutes: float) -> None:
    """Sorts the finished table, and notes in `oracle.json` what it was made with."""
    cells = sorted(read_cells(case.name), key=lambda cell: (cell.schedule, cell.lr, cell.seed))
    _table(case.name).replace(cells)
    path = FOLDER / "oracle.json"
    notes = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    config = setting_of(case).config
    notes[case.name] = {
        "trainings": len(cells),
        "trained in this run": trainings,
        "minutes of this run": round(minutes, 1),
        "steps a training": config.total_steps,
        "epochs": case.epochs,
        "trivial loss": case.trivial,
        "seeds": list(range(case.seeds)),
        "model_info": dict(config.model_info),
        "data": {context: dict(described) for context, described in config.data.items()},
        "versions": {package: version(package) for package in ("lrsearch", "torch", "numpy")},
        "table": fingerprint(case.name),
    }
    path.write_text(json.dumps(notes, indent=1, default=str) + "\n", encoding="utf-8")


def _sweeps_path(name: str) -> Path:
    return FOLDER / f"{name}-sweeps.json"
