"""Runs to record in tests, and how fast a journal is."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from lrsearch.tracking.entries import DataInput, Param, RunStart
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.journal import RunJournal
from lrsearch.tracking.reading import read_run
from lrsearch.tracking.sync import Mirror

CHECKOUT = Path(__file__).parents[2]


def trial(
    name: str = "trial 0", parent: str | None = None, params: dict[str, Param] | None = None
) -> RunStart:
    return RunStart(
        name=name,
        kind="trial",
        study="study",
        stage="coarse",
        parent=parent,
        params={"lr": 0.1, "seed": 0} if params is None else params,
        tags={"team": "vision"},
        inputs=(DataInput("digits", "train", "0123456789abcdef" * 4, {"shape": [1797, 64]}),),
        provenance={"user": "ada", "command": "train.py --lr 1", "git": {"commit": "c0ffee"}},
    )


def metrics_at(step: int) -> dict[str, float]:
    return {
        "train/loss": 1 / (step + 1),
        "lr": 1e-7 * 1.01**step,
        "train/loss_smoothed": math.exp(-step / 100),
    }


def record(folder: StudyFolder, points: int, start: RunStart | None = None) -> RunJournal:
    """A run with its points, not ended."""
    journal = RunJournal.create(folder, start or trial())
    for step in range(1, points + 1):
        journal.point(step, metrics_at(step))
    journal.flush()
    return journal


def finished(folder: StudyFolder, points: int, start: RunStart | None = None) -> RunJournal:
    """A run that has ended well."""
    journal = record(folder, points, start)
    journal.summary({"objective": 0.25})
    journal.end("FINISHED")
    journal.close()
    return journal


def trouble(mirror: Mirror) -> str:
    """The mirror's error, once it has one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state = mirror.status()
        if state is not None and state.error is not None:
            return state.error
        time.sleep(0.02)
    raise TimeoutError("the mirror said nothing")


def wait_until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    """Until it is so; TimeoutError where that does not come."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come")
        time.sleep(0.02)


def end_mirrors(place: Path) -> None:
    """End the mirrors that still serve a folder in here: those whose server never comes back."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "lrsearch.tracking.mlflow.mirror" in words and words[-1].startswith(str(place)):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def in_python(code: str, cwd: Path, **environment: str) -> str:
    """What a program prints that runs in a process of its own; its failure is ours."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code],
        env=inherited | {"PYTHONPATH": str(CHECKOUT), "MLFLOW_DISABLE_TELEMETRY": "true"} | environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "ResourceWarning" not in done.stderr, done.stderr
    return done.stdout


def journal_speed(folder: StudyFolder, points: int) -> dict[str, float]:
    """Seconds to write and to read a run with three metrics a point, and microseconds a point."""
    before = time.perf_counter()
    journal = record(folder, 0)
    metrics = metrics_at(7)
    for step in range(points):
        journal.point(step, metrics)
    journal.end("FINISHED")
    journal.close()
    written = time.perf_counter()
    count = len(read_run(journal.path).metric("lr")[0])
    read = time.perf_counter()
    if count != points:
        raise ValueError(f"{count} of {points} points came back")
    return {
        "write_s": written - before,
        "read_s": read - written,
        "point_us": (written - before) / points * 1e6,
    }
