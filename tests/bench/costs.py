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

import lrsearch.report.plots  # noqa: F401 (its import is a cost of its own)
from lrsearch.search.recording import write_curves
from lrsearch.tracking.folder import create_folder
from tests.bench.ours import range_test, store
from tests.bench.workload import Workload

TARGETS = {"import lrsearch over import torch": 0.05, "lrsearch --help": 0.5}
_CHECKOUT = Path(__file__).parents[2]
_IMPORTS = {
    "import lrsearch over import torch": ("import torch", "import lrsearch"),
    "lrsearch.range_test over import torch": ("import torch", "import lrsearch; lrsearch.range_test"),
    "import of matplotlib for the plot": ("import lrsearch.search.recording", "import lrsearch.report.plots"),
    "imports of the mirror's process (mlflow)": ("import time", "import lrsearch.tracking.server"),
}
"""By name: what is imported before the clock starts, and what is timed."""
_STORE = "from lrsearch.tracking.server import Server; from lrsearch.tracking.destination import Destination"
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
    for name, (before, code) in _IMPORTS.items():
        yield name, _timed_code(before, code)
    folder = place / f"costs-{k}" if k else place  # the first store serves the sweeps afterwards
    folder.mkdir(exist_ok=True)
    setup = f"Server(Destination({store(folder)!r}, 'bench'))"
    yield "set-up of a fresh SQLite store (mirror's process)", _timed_code(_STORE, setup)
    yield "lrsearch --help", _help()
    work = Workload(width=8, steps=1000)
    model = work.model()
    result = range_test(work, model, work.optimizer(model))
    study = create_folder("artifacts", folder / "artifacts")
    begin = time.perf_counter()
    write_curves(study, "bench", result.curves, result.suggestion)
    yield "artifacts of 1,000 steps: curve.csv, curve.json, curve.png", time.perf_counter() - begin


def _timed_code(before: str, code: str) -> float:
    """Seconds that `code` takes in a fresh interpreter, after `before`."""
    program = f"{before}; import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
    environment = os.environ | {"PYTHONPATH": str(_CHECKOUT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{program}\n{done.stderr}")
    return float(done.stdout.split()[-1])


def _help() -> float:
    begin = time.perf_counter()
    script = Path(sysconfig.get_path("scripts")) / "lrsearch"
    subprocess.run([script, "--help"], check=True, capture_output=True)
    return time.perf_counter() - begin
