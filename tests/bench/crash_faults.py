"""What a kill costs: studies that are killed or stopped again and again.

A study of thirty short trainings of the digits task runs in a process of its own, with its mirror on MLflow's
SQLite store, and a checkpoint is kept every tenth of a second. It is ended at a random moment, goes
on, is ended again, and so on, until it ends by itself; then comes the next study, until every kind of end has
been tried often enough. Each finished study is held against one that nobody disturbed: trials and answer bit
for bit, and every run and point, in the journal and in MLflow, once.

Repeated work is what was trained between the last checkpoint and the end: the seconds from its first update
to its last. Sweeps of the range test have no checkpoints and are taken again.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from lrsearch.core.observer import Observer
from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.study.load import load_study
from lrsearch.study.result import StudyResult
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.reading import RunRecord
from tests.study.tasks import digits, points_of, runs, study, trainings, wait_for_mirror
from tests.tracking.store import Store, empty_store

KILLS, CLEAN_STOPS = 100, 20
CHECKPOINT_S = 0.1
_PLAN: dict[str, Any] = {
    "preset": "default",
    "budget": 60.0,
    "fine": {"trials": 3},
    "decay": {"extended": 2},
    "confirm": {"candidates": 3, "seeds": 5, "max_seeds": 5},
}
_ENDINGS = {signal.SIGKILL: -9, signal.SIGTERM: -15, signal.SIGINT: 130}
_KILLS_A_STUDY = 3
"""About so many at least: no process lives longer than this part of a whole study."""
_PATIENCE_S = 300.0


@dataclass
class Outcome:
    """One fault: how often it was tried, on how many records, and what of them was lost or double.

    `repeated` are the updates that each end made to be taken again, without the range test's, and
    `repeated_s` their time. `held_up_s` is for how long a training stood still for its record, at most. They
    are None where they are not measured.
    `problems` are what happened and should not have.
    """

    fault: str
    tried: int = 0
    records: int = 0
    wrong_trials: int = 0
    wrong_answers: int = 0
    wrong_runs: int = 0
    wrong_points: int = 0
    never_ended: int = 0
    repeated: list[int] | None = None
    repeated_s: list[float] | None = None
    held_up_s: float | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """All that is not as it was without the fault."""
        return self.wrong_trials + self.wrong_answers + self.wrong_runs + self.wrong_points + self.never_ended


def measure(kills: int = KILLS, clean_stops: int = CLEAN_STOPS, seed: int = 0) -> list[Outcome]:
    """Ends studies by each signal so many times, and compares."""
    rng = random.Random(seed)
    # A mirror may still be at its last file when its study is settled.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        empty = empty_store(place / "empty.db")
        whole = Study(place / "whole", empty)
        started = time.monotonic()
        whole.work(None)
        seconds = time.monotonic() - started
        whole.settle()
        return [
            _ended_by(number, times, whole, seconds, rng, lambda name: Study(place / name, empty))
            for number, times in (
                (signal.SIGKILL, kills),
                (signal.SIGTERM, clean_stops),
                (signal.SIGINT, clean_stops),
            )
        ]


def _ended_by(
    number: signal.Signals,
    times: int,
    whole: Study,
    seconds: float,
    rng: random.Random,
    make: Callable[[str], Study],
) -> Outcome:
    outcome = Outcome(number.name)
    outcome.repeated, outcome.repeated_s = [], []
    while outcome.tried < times:
        one = make(f"{number.name}-{outcome.records}")
        outcome.records += 1
        while True:
            moment = rng.uniform(0, seconds / _KILLS_A_STUDY) if outcome.tried < times else None
            before, kept = one.taken, one.kept
            code = one.work(moment, number)
            if code == 0:
                break
            if code != _ENDINGS[number]:
                raise RuntimeError(f"{one.place}: ended with {code}: {one.said}")
            outcome.tried += 1
            own = one.updates[before:]
            again = own[len(own) - max(0, len(own) - (one.kept - kept)) :]
            outcome.repeated.append(len(again))
            outcome.repeated_s.append(round(again[-1] - again[0], 4) if again else 0.0)
        one.settle()
        compare(one, whole, outcome)
    return outcome


def compare(one: Study, whole: Study, outcome: Outcome) -> None:
    """Count what is not as in the study that was left alone."""
    expected, found = whole.result, one.result
    pairs = zip(_padded(trainings(found), trainings(expected)), trainings(expected), strict=True)
    outcome.wrong_trials += sum(a != b for a, b in pairs)
    outcome.wrong_trials += max(0, len(trainings(found)) - len(trainings(expected)))
    outcome.wrong_answers += found.answer != expected.answer
    points, right = points_of(one.runs), points_of(whole.runs)
    outcome.wrong_runs += len(points.keys() ^ right.keys())
    outcome.wrong_points += sum(points[name] != right[name] for name in points.keys() & right.keys())
    hold_against_mlflow(outcome, one.runs, one.store, "lrsearch/digits")


def hold_against_mlflow(outcome: Outcome, recorded: list[RunRecord], store: Store, experiment: str) -> None:
    """Count the runs and points that an experiment lacks or has twice, and its runs that never ended."""
    shown = store.rows(
        "SELECT runs.run_uuid, status, tags.value FROM runs JOIN experiments USING (experiment_id) "
        "LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'lrsearch.key' "
        "WHERE experiments.name = ? AND runs.lifecycle_stage = 'active'",
        experiment,
    )
    ids = {key: run_id for run_id, _, key in shown}
    outcome.wrong_runs += _differing([key for _, _, key in shown], [run.start.key for run in recorded])
    outcome.never_ended += sum(status != "FINISHED" for _, status, _ in shown)
    for run in recorded:
        points = [
            (name, *point) for name in run.metric_names() for point in zip(*run.metric(name), strict=True)
        ]
        points += [(name, 0, value) for name, value in run.summary.items()]
        there = store.rows(
            "SELECT key, step, value FROM metrics WHERE run_uuid = ?", ids.get(run.start.key, "")
        )
        outcome.wrong_points += _differing(there, points)


def _differing(found: list[Any], expected: list[Any]) -> int:
    """How many are missing, plus how many are too many."""
    a, b = Counter(found), Counter(expected)
    return (a - b).total() + (b - a).total()


def _padded(found: list[TrialResult], expected: list[TrialResult]) -> list[TrialResult | None]:
    return [*found, *[None] * len(expected)][: len(expected)]


class Spoiler:
    """What spoils a study in the middle of a training, in its process; nothing here does."""

    said = ""
    """What the study then says on stderr; nothing where it goes on."""

    @contextmanager
    def place(self, one: Study) -> Iterator[None]:
        """Where the study lies, while it is spoilt and mended."""
        yield

    @contextmanager
    def process(self) -> Iterator[None]:
        """What holds for the process."""
        yield

    def spoil(self, folder: StudyFolder) -> None: ...

    def mend(self, one: Study) -> None: ...


class Study:
    """A study in a folder of its own, worked on by one process after the other."""

    def __init__(self, place: Path, empty: Path, plan: Mapping[str, Any] = _PLAN) -> None:
        place.mkdir()
        self.place = place
        self.home = place / "home"
        self._plan = plan
        self.store = Store(Path(shutil.copy(empty, place / "mlflow.db")))
        self._updates = place / "updates"
        self._updates.touch()

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.home / "study")

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
    def updates(self) -> Sequence[float]:
        """When each update of a trial was done, in seconds, in every process."""
        whole = array("d")
        whole.frombytes(self._updates.read_bytes())
        return whole

    @property
    def taken(self) -> int:
        """Updates that trials took, in every process."""
        return len(self.updates)

    @property
    def kept(self) -> int:
        """Updates that need not be taken again: of what has ended, and up to the newest checkpoints."""
        if not self.folder.journal.is_dir():
            return 0
        ended: dict[str, int] = {}
        for path in self.folder.journals():
            run = _readable(path)
            if run is None or run.start.kind != "trial" or run.start.stage == "range-test":
                continue
            if run.result is not None and run.end is not None:
                key = TrialResult.from_dict(run.result).spec.key
                ended[key] = max(run.metric("train/loss")[0], default=0)
        newest: dict[str, int] = {}
        for path in self.folder.checkpoints.glob("*.ckpt"):
            key, step, _ = path.stem.split("-")
            if key not in ended:  # it is removed after the journal's end
                newest[key] = max(newest.get(key, 0), int(step))
        return sum(ended.values()) + sum(newest.values())

    def work(
        self,
        moment: float | None,
        number: signal.Signals = signal.SIGKILL,
        spoiler: Spoiler = Spoiler(),  # noqa: B008
    ) -> int:
        """Begins or goes on in a process of its own, which is ended at a moment, or spoilt in a training.

        Returns its exit code.
        """
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            self._train(spoiler)
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

    def _train(self, spoiler: Spoiler) -> NoReturn:
        """What the study's process does."""
        from torch.optim.optimizer import register_optimizer_step_post_hook

        os.setsid()
        os.environ["LRSEARCH_HOME"] = str(self.home)
        errors = os.open(self.place / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(errors, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        file = self._updates.open("ab", buffering=0)
        stage = _Stage(lambda: spoiler.spoil(self.folder))

        def note(*_: object) -> None:
            if stage.now != "range-test":
                file.write(struct.pack("d", time.monotonic()))

        register_optimizer_step_post_hook(note)
        code = 1
        try:
            with spoiler.process():
                study(
                    digits(),
                    "study",
                    plan=self._plan,
                    epochs=8,
                    tracking_uri=self.store.uri,
                    progress=stage,
                    resume=self.folder.plan.is_file(),
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


class _Stage(Observer):
    """Knows which stage a study is in, and does something in the second training of the coarse one."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.now = ""
        self._act = act
        self._trials = 0

    def stage_begins(self, stage: str) -> None:
        self.now, self._trials = stage, 0

    def trial_begins(self, spec: TrialSpec, number: int) -> None:
        self._trials += 1

    def trial_step(self, step: int) -> None:
        if (self.now, self._trials, step) == ("coarse", 2, 12):
            self._act()


def _readable(path: Path) -> RunRecord | None:
    """A journal's run; None where the process was killed before its first line was whole."""
    from lrsearch.errors import RecordError
    from lrsearch.tracking.reading import read_run

    try:
        return read_run(path)
    except RecordError:
        return None
