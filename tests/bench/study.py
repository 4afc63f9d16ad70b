"""What a study costs beside its trainings: in the coordinator a trial, at a sampler's proposal, and a point.

The trainings are a training function that computes nothing but reports every step; what it takes is measured
inside of it and taken off. A trial's cost holds Optuna's ask and tell on SQLite, and the journal
with its fsync; MLflow is filled by the mirror meanwhile, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lrsearch
from lrsearch.core.answer import StageResult
from lrsearch.core.observer import Observer
from lrsearch.core.response import Observation
from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.study.optuna_study import propose

RESULTS = Path(__file__).parent / "results"
STEPS = 1000
PROPOSALS = 15
TARGETS = {"coordinator a trial": 0.15, "sampler's proposal": 0.5, "a point": 2e-5}


class Clock(Observer):
    """Observes a study: seconds of every trial from its beginning to the next decision, and in training."""

    def __init__(self) -> None:
        self.trials: list[float] = []
        self.points: list[float] = []
        self._begun = 0.0
        self._training = 0.0

    def train(self, trial: lrsearch.Trial) -> None:
        """A training of which the losses alone are left: a valley in log lr, with noise between seeds."""
        begin = time.perf_counter()
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([parameter], lr=trial.lr)
        scheduler = trial.schedule.build(optimizer, trial.steps)
        noise = np.random.default_rng(trial.seed).normal(0, 0.01, trial.steps)
        valley = 0.01 * (np.log2(trial.lr / 0.02)) ** 2
        reports = 0.0
        for step in range(1, trial.steps + 1):
            optimizer.step()
            lr = optimizer.param_groups[0]["lr"]
            rise = 3.0 if lr > 0.5 else 0.0
            scheduler.step()
            loss = 2.3 * 0.5 ** (min(lr, 0.1) * step) + rise + float(noise[step - 1])
            before = time.perf_counter()
            trial.report(step, train_loss=loss)
            reports += time.perf_counter() - before
        trial.report(trial.steps, val_loss=0.4 + valley + float(noise[0]))
        self.points.append(reports / trial.steps)
        self._training = time.perf_counter() - begin

    def stage_begins(self, stage: str) -> None:
        """Nothing to time."""

    def trial_begins(self, spec: TrialSpec, number: int) -> None:
        self._begun = time.perf_counter()

    def trial_step(self, step: int) -> None:
        """Nothing to time."""

    def trial_ends(self, result: TrialResult) -> None:
        self.trials.append(time.perf_counter() - self._begun - self._training)

    def stage_ends(self, result: StageResult) -> None:
        """Nothing to time."""


def proposals() -> list[float]:
    """Seconds of a Gaussian process's proposal among four to eighteen observations."""
    taken = []
    for n in range(4, 4 + PROPOSALS):
        lrs = np.geomspace(1e-3, 0.3, n)
        seen = [Observation(float(lr), 0.4 + 0.01 * float(np.log2(lr / 0.02)) ** 2) for lr in lrs]
        begin = time.perf_counter()
        propose(seen, 1e-3, 0.3, seed=n)
        taken.append(time.perf_counter() - begin)
    return taken


def main(arguments: list[str]) -> None:
    """Measures, prints, and writes `results/study.json`."""
    argparse.ArgumentParser(prog="python -m tests.bench study", description=__doc__).parse_args(arguments)
    clock = Clock()
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            result = lrsearch.search(clock.train, "bench", steps=STEPS, progress=clock)
            result.wait(120)
        finally:
            os.chdir(before)
    measured = dict(zip(TARGETS, (clock.trials, proposals(), clock.points), strict=True))
    figures: dict[str, dict[str, Any]] = {}
    for name, seconds in measured.items():
        figures[name] = {
            "n": len(seconds),
            "median_s": statistics.median(seconds),
            "most_s": max(seconds),
            "target_s": TARGETS[name],
        }
        reached = "reached" if figures[name]["median_s"] <= TARGETS[name] else "MISSED"
        line = f"median {figures[name]['median_s']:.3g} s, most {max(seconds):.3g} s"
        print(f"{name:22} {line} of {len(seconds)}; target {TARGETS[name]:g} s {reached}")
    summary = {
        "command": "python -m tests.bench study",
        "date": time.strftime("%Y-%m-%d"),
        "figures": figures,
    }
    (RESULTS / "study.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
