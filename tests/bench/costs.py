"""What a range test costs once, before and after its steps; imports in fresh interpreters."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import lrsearch.report.plots.range_test  # noqa: F401 (its import is a cost of its own)
from lrsearch.study.sweep_record import write_curves
from lrsearch.tracking.folder import create_folder
from tests.bench.ours import range_test, store
from tests.bench.workload import Workload

TARGETS = {"import lrsearch over import torch": 0.05, "lrsearch --help": 0.5}
_CHECKOUT = Path(__file__).parents[2]
_FIRST_USE = {
    "import lrsearch over import torch": "import lrsearch",
    "then lrsearch.range_test, at its first use": "lrsearch.range_test",
    "then matplotlib, for the plot": "import lrsearch.report.plots.range_test",
}
"""What the training process imports, in this order, after torch."""
_MIRROR = {
    "imports of the mirror's process (mlflow)": "import lrsearch.tracking.mlflow.server as server",
    "set-up of a fresh SQLite store by the mirror": "server.Server(server.Destination({uri!r}, 'bench'))",
}
ROUNDS = 5
"""Each takes seconds; these figures are far from their targets or have none."""
Costs = dict[str, list[float]]
"""Seconds of each cost, by its name."""


def measure(place: Path, rounds: int) -> Costs:
    """Imports, the store's set-up, `--help` and the artifacts, alternating, with files below `place`."""
    found: Costs = defaultdict(list)
    for k in range(min(rounds, ROUNDS)):
        for name, seconds in _round(place, k):
            found[name].append(seconds)
    return dict(found)


def _round(place: Path, k: int) -> Iterator[tuple[str, float]]:
    folder = place / f"costs-{k}" if k else place  # the first store serves the sweeps afterwards
    folder.mkdir(exist_ok=True)
    yield from _timed("import torch", _FIRST_USE)
    yield from _timed("", {name: code.format(uri=store(folder)) for name, code in _MIRROR.items()})
    yield "lrsearch --help", _help()
    work = Workload(width=8, steps=1000)
    model = work.model()
    result = range_test(work, model, work.optimizer(model))
    study = create_folder("artifacts", folder / "artifacts")
    begin = time.perf_counter()
    write_curves(study, "bench", result.curves, result.suggestion)
    yield "artifacts of 1,000 steps (curve.csv, .json, .png)", time.perf_counter() - begin


def _timed(before: str, codes: dict[str, str]) -> Iterator[tuple[str, float]]:
    """Seconds of each piece of code, one after the other in a fresh interpreter, after `before`."""
    lines = [before, "import time"]
    for code in codes.values():
        lines += ["t = time.perf_counter()", code, "print(time.perf_counter() - t)"]
    environment = os.environ | {"PYTHONPATH": str(_CHECKOUT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    program = "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{program}\n{done.stderr}")
    yield from zip(codes, map(float, done.stdout.split()), strict=True)


def _help() -> float:
    begin = time.perf_counter()
    script = Path(sysconfig.get_path("scripts")) / "lrsearch"
    subprocess.run([script, "--help"], check=True, capture_output=True)
    return time.perf_counter() - begin
