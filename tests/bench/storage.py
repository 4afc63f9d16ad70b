"""How fast and how small the record is: a journal written and read, a study sent to an empty MLflow store.

A point has two metrics, as every step of a trial has. The journal is written and read by a fresh process
each, whose memory is its peak, the interpreter and the imports among it. The store is a SQLite file that does
not exist yet; its time is that of `lrsearch sync`, from the start of the mirror's process and its import of
mlflow to the last run's end. What has arrived is counted.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from lrsearch.tracking.entries import DataInput, RunStart
from lrsearch.tracking.folder import StudyFolder, create_folder
from lrsearch.tracking.journal import RunJournal
from lrsearch.tracking.reading import read_run
from lrsearch.tracking.sync import Destination, start_mirror

RESULTS = Path(__file__).parent / "results"
POINTS = 1_000_000
RUNS = 100
POINTS_A_RUN = 1_000
SHORT = 20
"""How many times smaller all of it is with ``--short``."""
_CHECKOUT = Path(__file__).parents[2]
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Figure:
    """What was measured, and what it may be at most; None where nothing is promised."""

    name: str
    value: float
    unit: str
    target: float | None

    @property
    def reached(self) -> bool:
        return self.target is None or self.value <= self.target

    def __str__(self) -> str:
        line = f"{self.name:45} {self.value:8.1f} {self.unit:2}"
        if self.target is None:
            return line
        return f"{line}  target {self.target:g} {self.unit} {'reached' if self.reached else 'MISSED'}"


def main(arguments: list[str]) -> None:
    """Measures, prints, and writes `results/storage.json` (not with ``--short``)."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench storage", description=__doc__)
    parser.add_argument("--short", action="store_true", help=f"1/{SHORT} of the sizes; nothing is written")
    smaller = SHORT if parser.parse_args(arguments).short else 1
    figures = []
    for figure in measure(POINTS // smaller, RUNS // smaller):
        print(figure, flush=True)
        figures.append(figure)
    if smaller == 1:
        write(figures, RESULTS)


def measure(points: int, runs: int) -> Iterator[Figure]:
    """The figures of a journal of so many points, and of a study of so many runs."""
    with tempfile.TemporaryDirectory() as place:
        folder = create_folder("journal", Path(place) / "journal")
        for what, seconds in (("written", 5), ("read", 10)):
            taken, peak = _in_a_fresh_process(what, folder, points)
            yield Figure(f"{points:,} points {what}", taken, "s", seconds)
            yield Figure(f"{points:,} points {what}, memory", peak, "MB", 100)
        study = create_folder("study", Path(place) / "study")
        record_study(study, runs)
        database = Path(place) / "mlflow.db"
        taken, peak = _send(study, database)
        _check(database, runs)
        name = f"{runs:,} runs with {runs * POINTS_A_RUN:,} points sent"
        yield Figure(name, taken, "s", 60)
        yield Figure(f"{name}, the mirror's memory", peak, "MB", None)


def write(figures: list[Figure], folder: Path) -> None:
    """Writes `storage.json`, with the date, the machine and the versions."""
    from tests.bench.overhead import _machine

    summary = {
        "command": "python -m tests.bench storage",
        "date": time.strftime("%Y-%m-%d"),
        "machine": _machine(),
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in ("lrsearch", "mlflow", "SQLAlchemy")},
        "metrics a point": 2,
        "figures": [asdict(figure) for figure in figures],
    }
    (folder / "storage.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


# --- the journal, in a process of its own -----------------------------------------------------------------


def written(folder: StudyFolder, points: int) -> float:
    """Seconds to write a journal, from its beginning to its end on the disk."""
    values = [0.5 + math.sin(k) / 3 for k in range(1000)]
    begin = time.perf_counter()
    journal = RunJournal.create(folder, RunStart("trial", "trial", folder.name))
    for step in range(1, points + 1):
        journal.point(step, {"train/loss": values[step % 1000], "lr": values[step % 999]})
    journal.end("FINISHED")
    journal.close()
    return time.perf_counter() - begin


def read(folder: StudyFolder, points: int) -> float:
    """Seconds to read it, and to have a metric's steps and values."""
    begin = time.perf_counter()
    steps, _ = read_run(folder.journals()[0]).metric("train/loss")
    taken = time.perf_counter() - begin
    if len(steps) != points:
        raise ValueError(f"{len(steps)} of {points} points came back")
    return taken


def child(what: str, folder: str, points: str) -> None:
    """What the fresh process does: prints the seconds and its peak of memory in MB."""
    taken = {"written": written, "read": read}[what](StudyFolder(Path(folder)), int(points))
    print(json.dumps([taken, _peak("self")]))


def _in_a_fresh_process(what: str, folder: StudyFolder, points: int) -> tuple[float, float]:
    program = f"import sys; from {__name__} import child; child(*sys.argv[1:])"
    words = [sys.executable, "-c", program, what, str(folder.path), str(points)]
    done = subprocess.run(words, cwd=_CHECKOUT, check=True, stdout=subprocess.PIPE)
    taken, peak = json.loads(done.stdout)
    return taken, peak


def _peak(process: int | str) -> float:
    """The most memory that a process has had, in MB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0  # one that has ended has none


# --- a study, sent to a store -----------------------------------------------------------------------------


def record_study(folder: StudyFolder, runs: int) -> None:
    """A study's folder with so many finished trials, as a search leaves it."""
    study = RunJournal.create(folder, RunStart("study", "study", folder.name))
    for number in range(runs):
        start = RunStart(
            name=f"coarse-{number:02d}",
            kind="trial",
            study=folder.name,
            stage="coarse",
            parent=study.key,
            params={
                "lr": 10 ** -(1 + number % 4),
                "seed": number,
                "schedule": "linear",
                "steps": POINTS_A_RUN,
            },
            inputs=(DataInput("digits", "train", "0123456789abcdef"),),
        )
        with RunJournal.create(folder, start) as trial:
            for step in range(1, POINTS_A_RUN + 1):
                trial.point(step, {"train/loss": 2.3 * math.exp(-step / 300), "lr": 0.1 * (1 - step / 1000)})
            trial.summary({"objective": 0.25, "diverged": 0.0, "seconds": 1.5})
    study.end("FINISHED")
    study.close()


def _send(folder: StudyFolder, database: Path) -> tuple[float, float]:
    """Seconds until a store that is not there yet has a study, and the mirror's peak of memory in MB."""
    peak, begin = 0.0, time.perf_counter()
    mirror = start_mirror(folder, Destination(f"sqlite:///{database}", "lrsearch/bench"))
    while not mirror.wait(0.5):
        if time.perf_counter() - begin > _TIMEOUT_S:
            raise TimeoutError(folder.mirror_log.read_text())
        with suppress(OSError):  # it has just ended
            peak = max(peak, _peak(mirror.pid))
    return time.perf_counter() - begin, peak


def _check(database: Path, runs: int) -> None:
    """Raises where the store has not got every run and every point once."""
    with closing(sqlite3.connect(database)) as store:
        ended = store.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone()[0]
        points = store.execute("SELECT count(*) FROM metrics").fetchone()[0]
    expected = (runs + 1, runs * (2 * POINTS_A_RUN + 3))
    if (ended, points) != expected:
        raise ValueError(f"{(ended, points)} runs and values arrived, not {expected}")
