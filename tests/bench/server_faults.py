"""What a tracking server costs that is away, fails, or takes its time: range tests during which it does.

A range test of the digits task with two seeds is recorded as any other, and mirrored to a real `mlflow
server` behind a proxy. Between the sweeps, when MLflow has its run, the fault begins; in the middle of the
second the training waits until the mirror is in trouble, and goes on. Afterwards every run and point of the
journals is looked for in the server's database: there once, and ended. What is slow to arrive does so while
the next fault's range test trains.

Held up is the training for as long as it stands in its record; that of the curves' files is not counted:
they are drawn there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lrsearch
from lrsearch import RangeTest
from lrsearch.study import sweep as range_tests
from lrsearch.study import sweep_record
from lrsearch.study.sweep_record import RangeTestRecord
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.sync import Mirror
from tests.bench.crash_faults import Outcome, hold_against_mlflow
from tests.study.tasks import digits, runs
from tests.tracking.outage import TIMEOUT, Stopwatch
from tests.tracking.postgres import serving_postgres
from tests.tracking.proxy import Mode, Proxy
from tests.tracking.runs import end_mirrors, trouble, wait_until
from tests.tracking.server import serving, serving_store
from tests.tracking.store import Store, empty_store

AWAY_S = 60.0
SQLITE, POSTGRESQL = 4, 1
"""How often each fault is tried on either database."""


@dataclass(frozen=True)
class Server:
    """A real MLflow server, what reads its database, and how another one like it is started, empty."""

    port: int
    store: Store
    another: Callable[[Path], AbstractContextManager[Server]]


class Try:
    """A range test during which its server is in a mode, from between its sweeps to the training's end."""

    def __init__(self, outcome: Outcome, server: Server, proxy: Proxy, place: Path, away_s: float) -> None:
        self.outcome, self.server, self.proxy, self.place, self.away_s = outcome, server, proxy, place, away_s
        self.mode = FAULTS[outcome.fault][1]
        self.in_record, self.drawing = Stopwatch(), Stopwatch()
        self.experiment = f"lrsearch/{place.name}"

    def train(self) -> None:
        """The range test, with the fault in it; how long its training was held up."""
        # A server that hangs is given up after 10 seconds; so long nobody waits here.
        timeout = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "1" if self.mode == "hang" else "10"}
        with patch.dict(os.environ, timeout):
            self.tested = self._train()
        self.after_training()
        self.outcome.tried += 1
        self.outcome.records += 1
        held_up_s = self.in_record.seconds - self.drawing.seconds
        self.outcome.held_up_s = max(self.outcome.held_up_s or 0.0, held_up_s)

    def _train(self) -> RangeTest:
        write_curves = sweep_record.write_curves

        def draw(*arguments: Any) -> None:
            with self.drawing.running():
                write_curves(*arguments)

        with (
            patch.object(range_tests, "RangeTestRecord", partial(_Record, self)),
            patch.object(sweep_record, "write_curves", draw),
        ):
            return lrsearch.range_test(
                digits(),
                steps=100,
                repeats=2,
                tracking_uri=self.proxy.uri,
                experiment=self.experiment,
                out=self.place,
                progress=False,
            )

    def trains(self, record: RangeTestRecord, seed: int, step: int) -> None:
        """The training has come so far."""
        if (seed, step) == (1, 0):
            mirror = mirror_of(record)
            if record.key is None or not mirror.run_id(record.key, TIMEOUT):
                raise TimeoutError(f"{self.place}: the mirror did not begin")
            self.begin(mirror)
        elif (seed, step) == (1, 20):
            self.notice(mirror_of(record))

    def begin(self, mirror: Mirror) -> None:
        self.proxy.mode = self.mode

    def notice(self, mirror: Mirror) -> None:
        trouble(mirror)

    def after_training(self) -> None:
        self.proxy.mode = "pass"

    def arrive(self) -> None:
        """Wait until MLflow has everything, and count what it has not."""
        mirror = mirror_of(self.tested)
        if not mirror.wait(TIMEOUT):
            self.outcome.problems.append(f"not everything arrived within {TIMEOUT:g} s: {mirror.status()}")
        self.count(self.server.store)

    def count(self, store: Store) -> None:
        hold_against_mlflow(self.outcome, runs(StudyFolder(self.place)), store, self.experiment)


def mirror_of(one: RangeTestRecord | RangeTest) -> Mirror:
    if one.mirror is None:
        raise RuntimeError("no mirror was started")
    return one.mirror


class _Record(RangeTestRecord):
    """A record that knows how long the training stands in it, and says when a sweep begins."""

    def __init__(self, one: Try, **arguments: Any) -> None:
        self._one = one
        with one.in_record.running():
            super().__init__(**arguments)

    def sweep_begins(self, seed: int, steps: int, model_info: Mapping[str, Any]) -> None:
        with self._one.in_record.running():
            super().sweep_begins(seed, steps, model_info)
        self._one.trains(self, seed, 0)

    def sweep_step(self, seed: int, step: int, lr: float, loss: float) -> None:
        with self._one.in_record.running():
            super().sweep_step(seed, step, lr, loss)
        self._one.trains(self, seed, step)

    def finish(self, *arguments: Any) -> None:
        with self._one.in_record.running():
            super().finish(*arguments)

    def __exit__(self, *arguments: Any) -> None:
        with self._one.in_record.running():
            super().__exit__(*arguments)


class Slow(Try):
    """Nobody is in trouble, and it is over only when all has arrived."""

    def notice(self, mirror: Mirror) -> None:
        wait_until(lambda: self.proxy.requests)

    def after_training(self) -> None:
        """It stays as slow."""


class AwayAndBack(Try):
    """The server comes back in the middle of the training."""

    def begin(self, mirror: Mirror) -> None:
        super().begin(mirror)
        self._back = time.monotonic() + self.away_s

    def notice(self, mirror: Mirror) -> None:
        super().notice(mirror)
        time.sleep(max(0.0, self._back - time.monotonic()))
        self.proxy.mode = "pass"


class NeverBack(Try):
    """`lrsearch sync` sends everything to another server, which is empty."""

    def after_training(self) -> None:
        """It stays away."""

    def arrive(self) -> None:
        with self.server.another(self.place.with_name(f"{self.place.name}-empty")) as empty:
            words = ["sync", str(self.place), "--tracking-uri", f"http://127.0.0.1:{empty.port}"]
            command = Path(sys.executable).with_name("lrsearch")
            done = subprocess.run([command, *words], capture_output=True, text=True, timeout=2 * TIMEOUT)
            if done.returncode or self.tested.tracking == "synced":
                self.outcome.problems.append(f"lrsearch sync: {done.returncode}: {done.stderr.strip()}")
            self.count(empty.store)


class MirrorKilled(Try):
    """Not the server, but what fills it: killed at work, and again as soon as it has started again."""

    def begin(self, mirror: Mirror) -> None:
        self._kill(mirror)

    def notice(self, mirror: Mirror) -> None:
        self._kill(mirror)

    def _kill(self, mirror: Mirror) -> None:
        pid = mirror.pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: mirror.pid != pid)


FAULTS: dict[str, tuple[type[Try], Mode]] = {
    "server slow by 2 s a call": (Slow, "slow"),
    "server refuses connections": (Try, "refuse"),
    "server hangs": (Try, "hang"),
    "server answers 500": (Try, "error"),
    "server dies after it committed, unanswered": (Try, "lose_answer"),
    "server away and back": (AwayAndBack, "refuse"),
    "server never back, sync into an empty one": (NeverBack, "refuse"),
    "mirror killed": (MirrorKilled, "pass"),
}


def measure(
    sqlite: int = SQLITE,
    postgresql: int = POSTGRESQL,
    away_s: float = AWAY_S,
    faults: Iterable[str] = FAULTS,
) -> list[Outcome]:
    """Tries each fault so many times on either database, and counts."""
    outcomes = {fault: Outcome(fault, held_up_s=0.0) for fault in faults}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        empty = empty_store(place / "empty.db")
        for kind, times, start in (
            ("sqlite", sqlite, partial(_on_sqlite, empty)),
            ("postgresql", postgresql, _on_postgresql),
        ):
            if not times:
                continue
            with start(place / kind) as server:
                for number in range(times):
                    _try_each(outcomes, server, place / f"{kind}-{number}", away_s)
    return list(outcomes.values())


def _try_each(outcomes: dict[str, Outcome], server: Server, place: Path, away_s: float) -> None:
    with ExitStack() as stack:
        stack.callback(end_mirrors, place)
        tries = []
        for fault in outcomes:
            make, _ = FAULTS[fault]
            proxy = stack.enter_context(Proxy(server.port))
            name = f"{place.name}-{fault.replace(' ', '-').replace(',', '')}"
            one = make(outcomes[fault], server, proxy, place / name, away_s)
            one.train()
            tries.append(one)
        for one in reversed(tries):  # the slow one's last
            one.arrive()


@contextmanager
def _on_sqlite(empty: Path, place: Path) -> Iterator[Server]:
    place.mkdir()
    database = Path(shutil.copy(empty, place / "mlflow.db"))
    with serving(database) as port:
        yield Server(port, Store(database), partial(_on_sqlite, empty))


@contextmanager
def _on_postgresql(place: Path) -> Iterator[Server]:
    place.mkdir()
    with serving_postgres() as store, serving_store(store.uri, place) as port:
        yield Server(port, store, _on_postgresql)
