"""Small tasks and loops for whole studies, and observers that end one in the middle."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import lrsearch
from lrsearch import StudyResult, Task, Trial
from lrsearch.core.observer import Observer
from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.examples.digits import task as whole_digits
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.progress import load_state
from lrsearch.tracking.reading import RunRecord, read_run

PLAN: dict[str, Any] = {
    "preset": "quick",
    "budget": 11.0,
    "range_test": {"repeats": 1, "share": 0.7},
    "coarse": {"points": 3, "extensions": 1},
    "confirm": {"max_seeds": 1},
}
"""About eight trainings; the fine stage has none."""
EVERY_STAGE: dict[str, Any] = {
    **PLAN,
    "epochs": 3,
    "budget": 16.0,
    "proxy": 0.7,
    "range_test": {"repeats": 2, "share": 1.0},
    "fine": {"trials": 1},
    "decay": {"extended": 1, "families": ["constant", "linear", "step"]},
}
"""Every stage trains at least twice."""
SWEEP = 10.0
"""The lr with which a sweep's optimizer is made."""
LOOKED_AT: tuple[float, ...] = tuple(np.geomspace(1e-7, SWEEP, 5).tolist())
"""The lrs of the optimizers that are made once a study, only to be looked at."""
NOWHERE = "http://127.0.0.1:9"
"""A tracking server that is away."""


# --- tasks ------------------------------------------------------------------------------------------------


def digits(built: Path | None = None, *, hidden: int = 16) -> Task:
    """Digits with a tiny net; every optimizer that is made leaves its lr as a line in `built`."""
    task = whole_digits(hidden=hidden)
    if built is None:
        return task
    return replace(task, optimizer=partial(_noted, built, task.optimizer))


def _noted(
    built: Path, make: Callable[..., Optimizer], parameters: Iterator[nn.Parameter], lr: float
) -> Optimizer:
    with built.open("a") as file:
        file.write(f"{lr!r}\n")
    return make(parameters, lr)


Loss = Callable[[Tensor, Tensor], Tensor]


class Raising:
    """A task of which a part raises: `optimizer` notes the lr, `loss` asks what to raise at it."""

    def __init__(self, error: Callable[[float, int], BaseException | None]) -> None:
        self.lr = math.nan
        self.calls = 0
        self._error = error
        self._inner = digits()

    def task(self) -> Task:
        return replace(self._inner, optimizer=self._optimizer, loss=self._loss)

    def _optimizer(self, parameters: Iterator[nn.Parameter], lr: float) -> Optimizer:
        self.lr, self.calls = lr, 0
        return self._inner.optimizer(parameters, lr)

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        error = self._error(self.lr, self.calls)
        if error is not None:
            raise error
        return nn.functional.cross_entropy(outputs, targets)


# --- a loop of one's own, whose losses are known ----------------------------------------------------------


class Known:
    """A training function whose losses are a function of the lr, the schedule and the seed.

    The final loss is a parabola in log lr around `best`, and around `shift` times that where the lr came down
    to less than half of its peak, which also lowers it by `gain`. Above `edge` the loss explodes. Like the
    loop in the design's text, it reports its validation once, at the end.
    """

    def __init__(
        self,
        *,
        best: float = 0.1,
        gain: float = 0.0,
        shift: float = 1.0,
        noise: float = 0.002,
        edge: float = 0.7,
        first_validation: bool = False,
        sign: int = 1,
    ) -> None:
        self.best, self.gain, self.shift = best, gain, shift
        self.noise, self.edge = noise, edge
        self.first_validation, self.sign = first_validation, sign
        self.__name__ = "known"

    def __call__(self, trial: Trial) -> None:
        weight = nn.Parameter(torch.ones(1))
        optimizer = torch.optim.SGD([weight], lr=trial.lr)
        scheduler = trial.schedule.build(optimizer, trial.steps)
        work, excess, lrs = 0.0, 0.0, []
        for step in range(1, trial.steps + 1):
            lr = float(optimizer.param_groups[0]["lr"])
            lrs.append(lr)
            work += lr / self.best
            excess = 2 * excess + 0.1 if lr > self.edge else excess
            if step == 1 and self.first_validation:
                trial.report(step, val_loss=self.sign * 2.3)
            optimizer.step()
            scheduler.step()
            trial.report(step, train_loss=0.5 + 1.8 * math.exp(-work / 10) + excess)
        trial.report(trial.steps, val_loss=self.sign * (self.final(lrs, trial.seed) + excess))

    def final(self, lrs: list[float], seed: int) -> float:
        """The final loss of a training at these lrs."""
        peak = max(lrs)
        decayed = lrs[-1] < peak / 2
        octaves = math.log2(peak / (self.best * (self.shift if decayed else 1.0)))
        drawn = torch.Generator().manual_seed(hash((seed, round(math.log(peak) * 1e6), decayed)) % 2**31)
        noise = self.noise * float(torch.randn(1, generator=drawn))
        return 0.5 + 0.04 * octaves**2 - (self.gain if decayed else 0.0) + noise


# --- observers --------------------------------------------------------------------------------------------


class Untracked(Observer):
    """Ends a study's mirror before it has loaded MLflow: that costs more than the whole study."""

    def __init__(self, name: str) -> None:
        self._name = name

    def stage_begins(self, stage: str) -> None:
        if stage == "range-test":
            end_own_mirror(self._name)


class Ends(Observer):
    """Ends a study in the middle of the second training of a stage, once its first points are recorded.

    `without_mirror` names the study whose mirror is ended at the beginning.
    """

    AT = 12

    def __init__(self, stage: str, how: Callable[[], None], without_mirror: str | None = None) -> None:
        self._stage, self._how, self._without_mirror = stage, how, without_mirror
        self._now = ""
        self._trials = 0

    def stage_begins(self, stage: str) -> None:
        self._now, self._trials = stage, 0
        if self._without_mirror and stage == "range-test":
            end_own_mirror(self._without_mirror)

    def sweep_begins(self, seed: int, steps: int, model_info: Mapping[str, Any]) -> None:
        self._trials += 1

    def sweep_step(self, seed: int, step: int, lr: float, loss: float) -> None:
        self.trial_step(step)

    def trial_begins(self, spec: TrialSpec, number: int) -> None:
        self._trials += 1

    def trial_step(self, step: int) -> None:
        if self._now != self._stage or self._trials != 2:
            return
        if step == self.AT - 2:
            time.sleep(0.6)  # longer than a point waits for its block, which the next point then fills
        if step >= self.AT:
            self._how()


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    raise KeyboardInterrupt


def end_own_mirror(name: str) -> None:
    """End the mirror that this very process has started for a study; killed, it would start again."""
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            words = process.cmdline()
            if "lrsearch.tracking.mlflow.mirror" in words and Path(words[-1]).name == name:
                process.terminate()


# --- what is asked of a study -----------------------------------------------------------------------------


def study(task: Any, name: str, **arguments: Any) -> StudyResult:
    """A small study, quiet and without MLflow unless told otherwise."""
    usual = {"epochs": 2, "plan": PLAN, "progress": Untracked(name), "tracking_uri": NOWHERE}
    if not isinstance(task, Task):
        usual = {**usual, "epochs": None, "steps": 100}
    result: StudyResult = lrsearch.search(task, name, **{**usual, **arguments})
    return result


def trainings(result: StudyResult) -> list[TrialResult]:
    """Every training of a study, but for how long it took."""
    return [replace(trial, seconds=0.0) for stage in result.stages for trial in stage.trials]


def rows(result: StudyResult) -> list[Any]:
    """The rows of the table of trials."""
    return list(result.trials.itertuples())


def runs(folder: StudyFolder) -> list[RunRecord]:
    """Every run that a study has recorded, in the order of their files."""
    return [read_run(path) for path in folder.journals()]


def points_of(recorded: list[RunRecord]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Every point of every run, by the run's name and the metric."""
    return {
        "study" if run.start.kind == "study" else run.start.name: {
            name: sorted(zip(*run.metric(name), strict=True)) for name in run.metric_names()
        }
        for run in recorded
    }


def wait_for_mirror(folder: StudyFolder) -> None:
    """Until a mirror, whichever it is, has sent everything."""
    deadline = time.monotonic() + 120
    while (state := load_state(folder)) is None or state.state != "synced" or not state.covers(folder):
        assert time.monotonic() < deadline, folder.mirror_log.read_text()
        time.sleep(0.05)


TASK = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import lrsearch

def task(scale: float = 1.0) -> lrsearch.Task:
    numbers = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 8, generator=numbers) * scale
    targets = (inputs[:, 0] > 0).long()
    data = TensorDataset(inputs, targets)
    return lrsearch.Task(
        model=lambda: nn.Linear(8, 2),
        optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        loss=nn.CrossEntropyLoss(),
        train_loader=DataLoader(data, batch_size=20, shuffle=True),
        val_loader=DataLoader(data, batch_size=200),
    )
"""
