"""What faults cost: studies that are killed at random moments, again and again, against one left alone.

A study of about thirty short trainings of the digits task runs in a process of its own, with its mirror on
MLflow's SQLite store, and a checkpoint is kept every fifth of a second. It is ended at a random moment, goes
on, is ended again, and so on, until it ends by itself; then comes the next study, until every kind of end has
been tried often enough. Each finished study is held against one that nobody disturbed: trials and answer bit
for bit, and every run and point, in the journal and in MLflow, once.

Repeated work is what was trained between the last checkpoint and the end, counted in updates; sweeps of the
range test have no checkpoints and are taken again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lrsearch.core.results import TrialResult
from lrsearch.search.study_result import StudyResult, load_study
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.reading import RunRecord
from tests.bench.overhead import RESULTS
from tests.search.tasks import Observer, digits, points_of, runs, study, trainings, wait_for_mirror
from tests.tracking.store import Store, empty_store

KILLS, CLEAN_STOPS = 100, 20
CHECKPOINT_S = 0.2
_PLAN: dict[str, Any] = {"preset": "default", "budget": 34.0, "confirm": {"seeds": 5, "max_seeds": 5}}
_ENDINGS = {signal.SIGKILL: -9, signal.SIGTERM: -15, signal.SIGINT: 130}
_PATIENCE_S = 300.0


@dataclass
class Outcome:
    """One kind of end: how often it was tried, in how many studies, and what of them was lost or double.

    `repeated` are the updates that were taken again, `most` by a single end, both without the range test's.
    """

    fault: str
    tried: int = 0
    studies: int = 0
    wrong_trials: int = 0
    wrong_answers: int = 0
    wrong_runs: int = 0
    wrong_points: int = 0
    never_ended: int = 0
    repeated: int = 0
    most: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """All that is not as it was without the fault."""
        return self.wrong_trials + self.wrong_answers + self.wrong_runs + self.wrong_points + self.never_ended


def main(arguments: list[str]) -> None:
    """Measures, prints a line a fault, and writes `results/faults.json` (not with ``--short``)."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--short", action="store_true", help="ten kills, two clean stops; nothing is written")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    given = parser.parse_args(arguments)
    begin = time.monotonic()
    outcomes = measure(*((10, 2) if given.short else (KILLS, CLEAN_STOPS)), given.seed)
    for outcome in outcomes:
        print(line(outcome))
    if not given.short:
        summary = {
            "command": " ".join(["python -m tests.bench faults", *arguments]),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "minutes": round((time.monotonic() - begin) / 60, 1),
            "checkpoint every, s": CHECKPOINT_S,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("lrsearch", "torch", "mlflow", "optuna")},
            "outcomes": [asdict(outcome) | {"lost": outcome.lost} for outcome in outcomes],
        }
        (RESULTS / "faults.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    if any(outcome.lost for outcome in outcomes):
        raise SystemExit(1)


def line(outcome: Outcome) -> str:
    """What is printed of an outcome."""
    said = (
        f"{outcome.fault}: {outcome.tried} times in {outcome.studies} studies; lost {outcome.lost} "
        f"(trials {outcome.wrong_trials}, answers {outcome.wrong_answers}, runs {outcome.wrong_runs}, "
        f"points {outcome.wrong_points}, runs never ended {outcome.never_ended}); "
        f"updates taken again {outcome.repeated}, at most {outcome.most} by one end"
    )
    return "\n  ".join([said, *outcome.problems])


def measure(kills: int, clean_stops: int, seed: int = 0) -> list[Outcome]:
    """Ends studies by each signal so many times, and compares."""
    rng = random.Random(seed)
    # A mirror may still be at its last file when its study is settled.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        empty = empty_store(place / "empty.db")
        whole = _Study(place / "whole", empty)
        started = time.monotonic()
        whole.work(None)
        seconds = time.monotonic() - started
        whole.settle()
        return [
            _ended_by(number, times, whole, seconds, rng, lambda name: _Study(place / name, empty))
            for number, times in (
                (signal.SIGKILL, kills),
                (signal.SIGTERM, clean_stops),
                (signal.SIGINT, clean_stops),
            )
        ]


def _ended_by(
    number: signal.Signals,
    times: int,
    whole: _Study,
    seconds: float,
    rng: random.Random,
    make: Callable[[str], _Study],
) -> Outcome:
    outcome = Outcome(number.name)
    while outcome.tried < times:
        one = make(f"{number.name}-{outcome.studies}")
        outcome.studies += 1
        while True:
            moment = rng.uniform(0, seconds) if outcome.tried < times else None
            before = one.taken, one.kept
            code = one.work(moment, number)
            if code == 0:
                break
            if code != _ENDINGS[number]:
                raise RuntimeError(f"{one.place}: ended with {code}: {one.said}")
            outcome.tried += 1
            repeated = max(0, (one.taken - before[0]) - (one.kept - before[1]))
            outcome.repeated += repeated
            outcome.most = max(outcome.most, repeated)
        one.settle()
        _compare(one, whole, outcome)
    return outcome


def _compare(one: _Study, whole: _Study, outcome: Outcome) -> None:
    """Count what is not as in the study that was left alone."""
    expected, found = whole.result, one.result
    pairs = zip(_padded(trainings(found), trainings(expected)), trainings(expected), strict=True)
    outcome.wrong_trials += sum(a != b for a, b in pairs)
    outcome.wrong_trials += max(0, len(trainings(found)) - len(trainings(expected)))
    outcome.wrong_answers += found.answer != expected.answer
    points, right = points_of(one.runs), points_of(whole.runs)
    outcome.wrong_runs += len(points.keys() ^ right.keys())
    outcome.wrong_points += sum(points[name] != right[name] for name in points.keys() & right.keys())
    shown = [row[0] for row in one.store.rows("SELECT name FROM runs WHERE lifecycle_stage = 'active'")]
    names = {run.start.name for run in one.runs}
    outcome.wrong_runs += len(shown) - len(set(shown)) + len(set(shown) ^ names)
    outcome.never_ended += len(one.store.rows("SELECT 1 FROM runs WHERE status <> 'FINISHED'"))
    for run in one.runs:
        for metric in run.metric_names():
            steps, values = run.metric(metric)
            there = [(step, value) for step, value, _ in one.store.points(run.start.key, metric)]
            outcome.wrong_points += there != sorted(zip(steps, values, strict=True))


def _padded(found: list[TrialResult], expected: list[TrialResult]) -> list[TrialResult | None]:
    return [*found, *[None] * len(expected)][: len(expected)]


class _Study:
    """A study in a folder of its own, worked on by one process after the other."""

    def __init__(self, place: Path, empty: Path) -> None:
        place.mkdir()
        self.place = place
        self.store = Store(Path(shutil.copy(empty, place / "mlflow.db")))
        self._updates = place / "updates"
        self._updates.touch()

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.place / "study")

    @property
    def said(self) -> str:
        """What the last process wrote on stderr."""
        return (self.place / "stderr").read_text(encoding="utf-8")[-2000:]

    @property
    def result(self) -> StudyResult:
        return load_study(self.folder)

    @property
    def runs(self) -> list[RunRecord]:
        return runs(self.folder)

    @property
    def taken(self) -> int:
        """Updates that trials took, in every process."""
        return self._updates.stat().st_size

    @property
    def kept(self) -> int:
        """Updates that need not be taken again: of what has ended, and up to the newest checkpoints."""
        if not self.folder.journal.is_dir():
            return 0
        ended = 0
        for path in self.folder.journals():
            run = _readable(path)
            if run is None or run.start.kind != "trial":
                continue
            if run.result is not None and run.end is not None:
                ended += max(run.metric("train/loss")[0], default=0)
        newest: dict[str, int] = {}
        for path in self.folder.checkpoints.glob("*.ckpt"):
            key, step, _ = path.stem.split("-")
            newest[key] = max(newest.get(key, 0), int(step))
        return ended + sum(newest.values())

    def work(self, moment: float | None, number: signal.Signals = signal.SIGKILL) -> int:
        """Begins or goes on in a process of its own, which is ended at a moment; returns its exit code."""
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            _work(self.place, self.store.uri, self._updates, self.folder.plan.is_file())
        deadline = time.monotonic() + (_PATIENCE_S if moment is None else moment)
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(pid, number if moment is not None else signal.SIGKILL)
                deadline = time.monotonic() + _PATIENCE_S
                moment = None
            time.sleep(0.002)

    def settle(self) -> None:
        """Wait until MLflow has everything."""
        wait_for_mirror(self.folder)


class _Stage(Observer):
    """Knows which stage a study is in."""

    now = ""

    def stage_begins(self, stage: str) -> None:
        self.now = stage


def _work(place: Path, uri: str, updates: Path, resumes: bool) -> None:
    """What the study's process does; it never returns."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    os.setsid()
    os.environ["LRSEARCH_HOME"] = str(place)
    errors = os.open(place / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(errors, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = updates.open("ab", buffering=0)

    stage = _Stage()

    def note(*_: object) -> None:
        if stage.now != "range-test":
            file.write(b".")

    register_optimizer_step_post_hook(note)
    code = 1
    try:
        study(
            digits(),
            "study",
            plan=_PLAN,
            epochs=2,
            tracking_uri=uri,
            progress=stage,
            resume=resumes,
            checkpoint_every=CHECKPOINT_S,
        )
        code = 0
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def _readable(path: Path) -> RunRecord | None:
    """A journal's run; None where the process was killed before its first line was whole."""
    from lrsearch.errors import RecordError
    from lrsearch.tracking.reading import read_run

    try:
        return read_run(path)
    except RecordError:
        return None
