"""Our own range test on the benchmark's workload, untracked and tracked, and a plain trial of the search.

Untracked, the timed section is the whole call ``lrsearch.range_test(..., tracking=False)``: checks, the copy
of model, optimizer and random states, the sweep, everything put back, the rules and the suggestion.

Tracked, it is the same call with a `RangeTestRecord` that hears of every step. It begins before the study's
folder is made and the data are described; it ends when the run has ended, the journal is on the disk (fsync)
and the mirror says that MLflow's SQLite store has committed every point (`lr`, `train/loss` and
`train/loss_smoothed` of every step). The clock stands still from the first step's record until the new run
is in MLflow: there the journal is begun, the provenance collected, the mirror's process started, and its
imports and its connection to a store that has its tables are waited for. That is a cost of its own, and so
are the curve's files, which come after the points; the run's summary is in neither.

The trial is `run_trial` at a constant lr, on a task without a validation loader, whole but for the making of
the model, which lies outside of everybody's timed section.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import lrsearch
from lrsearch.core.observer import Observer
from lrsearch.core.sweep_plan import SweepPlan
from lrsearch.core.trial import TrialSpec
from lrsearch.errors import TrackingError
from lrsearch.study.sweep_record import RangeTestRecord
from lrsearch.tracking.destination import Destination
from lrsearch.tracking.folder import create_folder, range_test_name
from lrsearch.tracking.sync import Mirror
from lrsearch.training.fingerprint import describe_data
from lrsearch.training.run_trial import run_trial
from lrsearch.training.task import Task
from tests.bench.workload import MAX_LR, MIN_LR, Sample, Workload

METRICS_A_POINT = 3
_PATIENCE_S = 120.0
_POLL_S = 0.005


@dataclass(frozen=True)
class TrackedSample(Sample):
    """A timed, tracked sweep, and what of it was timed apart."""

    opening_s: float
    """Until the new run was in MLflow; not part of `seconds`."""
    tail_s: float
    """From the sweep's end until all points were committed; part of `seconds`."""


def untracked(work: Workload) -> Sample:
    """`lrsearch.range_test(..., tracking=False)`."""
    model = work.model()
    optimizer = work.optimizer(model)
    begin = time.perf_counter()
    result = range_test(work, model, optimizer)
    return Sample(time.perf_counter() - begin, result.curves[0].steps)


def tracked(work: Workload, place: Path) -> TrackedSample:
    """The same, recorded in a folder below `place` and in its `mlflow.db`."""
    model = work.model()
    optimizer = work.optimizer(model)
    begin = time.perf_counter()
    record = RangeTestRecord(
        folder=create_folder(name := range_test_name("bench"), place / name),
        destination=Destination(store(place), "bench"),
        task="bench",
        plan=SweepPlan(min_lr=MIN_LR, max_lr=MAX_LR, steps=work.steps, stop="none"),
        params={},
        tags={},
        data={"train": describe_data(work.loader)},
    )
    observer = OpeningApart(record)
    with record:
        result = range_test(work, model, optimizer, progress=observer)
        swept = time.perf_counter()
    mirror, key = _of(record)
    _wait_for_points(mirror, key, METRICS_A_POINT * work.steps)
    committed = time.perf_counter()
    if not mirror.wait(_PATIENCE_S):  # nothing of it may disturb the next contestant
        raise TrackingError("the mirror did not come to its end")
    seconds = committed - begin - observer.opening_s
    return TrackedSample(seconds, result.curves[0].steps, observer.opening_s, committed - swept)


def trial(work: Workload) -> Sample:
    """A training as a study runs it; its points go nowhere."""
    model = work.model()
    loss = nn.CrossEntropyLoss()
    task = Task(model=lambda: model, optimizer=_optimizer, loss=loss, train_loader=work.loader)
    spec = TrialSpec("coarse", MIN_LR, {"name": "constant"}, seed=0, steps=work.steps)
    begin = time.perf_counter()
    result = run_trial(task, spec, torch.device("cpu"), _Nowhere(), objective="train/loss")
    return Sample(time.perf_counter() - begin, result.steps_done)


def _optimizer(parameters: Iterator[nn.Parameter], lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


class _Nowhere:
    def begin(self, model_info: Mapping[str, Any]) -> None:
        """Nothing is kept."""

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing is kept."""


def range_test(
    work: Workload,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Observer | bool = False,
) -> lrsearch.RangeTest:
    """The benchmark's range test, without tracking of its own."""
    return lrsearch.range_test(
        model,
        optimizer,
        nn.CrossEntropyLoss(),
        work.loader,
        min_lr=MIN_LR,
        max_lr=MAX_LR,
        steps=work.steps,
        stop="none",
        tracking=False,
        progress=progress,
    )


def store(place: Path) -> str:
    """The address of the SQLite store in a folder."""
    return f"sqlite:///{place}/mlflow.db"


class OpeningApart(Observer):
    """Hands a sweep on to its record, and times the first point, which opens the run, until MLflow has it."""

    def __init__(self, record: RangeTestRecord) -> None:
        self._record = record
        self.opening_s = 0.0

    def sweep_begins(self, seed: int, steps: int, model_info: Mapping[str, Any]) -> None:
        self._record.sweep_begins(seed, steps, model_info)

    def sweep_step(self, seed: int, step: int, lr: float, loss: float) -> None:
        if step > 1:
            self._record.sweep_step(seed, step, lr, loss)
            return
        begin = time.perf_counter()
        self._record.sweep_step(seed, step, lr, loss)
        mirror, key = _of(self._record)
        if mirror.run_id(key, timeout=_PATIENCE_S) is None:
            raise TrackingError("the mirror did not make the run")
        self.opening_s = time.perf_counter() - begin


def _of(record: RangeTestRecord) -> tuple[Mirror, str]:
    if record.mirror is None or record.key is None:
        raise TrackingError("no run was recorded")
    return record.mirror, record.key


def _wait_for_points(mirror: Mirror, key: str, points: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while (state := mirror.status()) is None or state.runs[key].points < points:
        if time.monotonic() > deadline:
            raise TrackingError(f"{points} points did not arrive within {_PATIENCE_S:.0f} s")
        time.sleep(_POLL_S)
