"""What a range test costs once, before and after its steps; each in a fresh interpreter where imports count."""

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
_CLOCK = "import time; t = time.perf_counter(); "
_PRINT = "; print(time.perf_counter() - t)"
_IMPORTS = {
    "import lrsearch over import torch": "import torch; {clock}import lrsearch{print}",
    "lrsearch.range_test over import torch": "import torch; {clock}import lrsearch; lrsearch.range_test{print}",
    "import of matplotlib for the plot": "import lrsearch.search.range_test; {clock}import lrsearch.report.plots{print}",
    "imports of the mirror's process (mlflow)": "{clock}import lrsearch.tracking.server{print}",
}
_STORE_SETUP = (
    "from lrsearch.tracking.server import Server; from lrsearch.tracking.destination import Destination; "
    "{clock}Server(Destination({uri!r}, 'bench')){print}"
)
Costs = dict[str, list[float]]
"""Seconds of each cost, by its name."""


def measure(place: Path, rounds: int) -> Costs:
    """Imports, the store's set-up, `--help` and the artifacts, alternating; leaves a store ready in `place`."""
    found: Costs = defaultdict(list)
    for k in range(rounds):
        for name, seconds in _round(place, k):
            found[name].append(seconds)
    return dict(found)


def _round(place: Path, k: int) -> Iterator[tuple[str, float]]:
    for name, code in _IMPORTS.items():
        yield name, _timed_code(code.format(clock=_CLOCK, print=_PRINT))
    folder = place / f"store-{k}"
    folder.mkdir()
    setup = _STORE_SETUP.format(uri=store(folder), clock=_CLOCK, print=_PRINT)
    yield "set-up of a fresh SQLite store", _timed_code(setup)
    yield "lrsearch --help", _help()
    work = Workload(width=8, steps=1000)
    model = work.model()
    result = range_test(work, model, work.optimizer(model))
    study = create_folder("artifacts", folder / "artifacts")
    begin = time.perf_counter()
    write_curves(study, "bench", result.curves, result.suggestion)
    yield "artifacts of 1,000 steps: curve.csv, curve.json, curve.png", time.perf_counter() - begin


def _timed_code(code: str) -> float:
    """The last line that a fresh interpreter prints, a number of seconds."""
    environment = os.environ | {"PYTHONPATH": str(_CHECKOUT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{code}\n{done.stderr}")
    return float(done.stdout.split()[-1])


def _help() -> float:
    begin = time.perf_counter()
    script = Path(sysconfig.get_path("scripts")) / "lrsearch"
    subprocess.run([script, "--help"], check=True, capture_output=True)
    return time.perf_counter() - begin
