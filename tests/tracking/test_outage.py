"""A tracking server that is away, fails or loses its answers: what the training notices, and what arrives."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from lrsearch.core.objective import Objective
from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.study.record import About, StudyRecord
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.reading import read_run
from lrsearch.tracking.sync import Destination, Mirror, start_mirror, sync
from tests.tracking.outage import TIMEOUT, Stopwatch
from tests.tracking.postgres import PostgresStore
from tests.tracking.proxy import Mode, Proxy
from tests.tracking.runs import finished, metrics_at, record, trouble, wait_until
from tests.tracking.server import serving, serving_store
from tests.tracking.store import Store

HELD_UP_S = 1.0
SECRET = "s3cr3t%40pw"
ABOUT: About = {
    "task": "toy",
    "objective": Objective(metric="val/loss"),
    "params": {"model": "Net", "batch_size": 16},
    "tags": {"team": "vision"},
    "data": {"train": {"name": "Toy", "items": 64, "batches": 4, "fingerprint": "0123456789abcdef"}},
    "steps_per_epoch": 30,
}
SQLITE, POSTGRESQL = "server", "postgres_server"

Backend = tuple[int, Store]


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Backend:
    """The server that a test's parameter names: its port, and what reads its database."""
    found: Backend = request.getfixturevalue(request.param)
    return found


def train(study: StudyRecord, number: int, steps: int, watch: Stopwatch) -> None:
    """A trial of a millisecond a step."""
    spec = TrialSpec("coarse", 0.1 / (1 + number), {"name": "constant"}, seed=0, steps=steps)
    with study.trial(spec, number) as one:
        with watch.running():
            one.begin({"optimizer": "SGD"})
        for step in range(1, steps + 1):
            time.sleep(0.001)
            with watch.running():
                one.record(step, {"train/loss": 2.3 * 0.99**step, "lr": spec.lr})
        with watch.running():
            one.finish(TrialResult(spec, "complete", steps, seconds=0.5))


def assert_all_once(store: Store, folder: StudyFolder, experiment: str) -> None:
    """Every run and every point of the folder stands in the database, once, as it was recorded."""
    runs = [read_run(path) for path in folder.journals()]
    active = "SELECT run_uuid FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = ?"
    ids = {row[0] for row in store.rows(f"{active} AND runs.lifecycle_stage = 'active'", experiment)}
    assert ids == {store.run_id(run.start.key) for run in runs}
    for run in runs:
        assert run.end is not None
        assert store.status(run.start.key) == run.end.status
        points = [
            (step, value, ms)
            for group in run.groups
            if "lr" in group.metrics
            for step, value, ms in zip(group.steps, group.metrics["lr"], group.ms, strict=True)
        ]
        assert store.points(run.start.key, "lr") == points
        assert {name: len(store.points(run.start.key, name)) for name in run.summary} == dict.fromkeys(
            run.summary, 1
        )


# --- faults while a study goes on -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "fault"),
    [
        (SQLITE, "refuse"),
        (SQLITE, "hang"),
        (SQLITE, "error"),
        (SQLITE, "lose_answer"),
        (SQLITE, "slow"),
        (POSTGRESQL, "refuse"),
        (POSTGRESQL, "lose_answer"),
    ],
    indirect=["backend"],
)
def test_no_fault_holds_the_training_up_and_all_arrives_once(
    folder: StudyFolder, backend: Backend, fault: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1" if fault == "hang" else "10")
    port, store = backend
    watch, experiment = Stopwatch(), f"lrsearch/{fault}"
    with Proxy(port) as proxy:
        with watch.running():
            study = StudyRecord.create(folder, Destination(proxy.uri, experiment), **ABOUT)
        with study:
            assert study.mirror.run_id(study.key, TIMEOUT)
            proxy.mode = fault
            for number in range(1 if fault == "slow" else 3):
                train(study, number, 400, watch)
        if fault != "slow":  # that is over only when all has come
            trouble(study.mirror)
            assert not study.mirror.synced()
            proxy.mode = "pass"
        assert study.mirror.wait(TIMEOUT)
    assert_all_once(store, folder, experiment)
    assert watch.seconds < HELD_UP_S


@pytest.mark.parametrize("backend", [SQLITE, POSTGRESQL], indirect=True)
def test_a_run_whose_making_was_not_answered_is_found_and_used(folder: StudyFolder, backend: Backend) -> None:
    port, store = backend
    journal = finished(folder, 60)
    with Proxy(port, "lose_answer", only="runs/create") as proxy:
        mirror = start_mirror(folder, Destination(proxy.uri, "lrsearch/ghost"))
        assert mirror.wait(TIMEOUT)
        assert proxy.count("runs/create") == 1
    assert mirror.run_id(journal.key) == store.run_id(journal.key)
    assert_all_once(store, folder, "lrsearch/ghost")


def test_a_run_that_was_made_late_and_twice_is_there_once(
    folder: StudyFolder, server: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    port, store = server
    journal = record(folder, 60)
    with Proxy(port, "late", only="runs/create") as proxy:
        mirror = start_mirror(folder, Destination(proxy.uri, "lrsearch/late"))
        wait_until(lambda: proxy.count("runs/create") == 1)
        proxy.mode = "pass"
        wait_until(lambda: len(store.run_ids(journal.key)) == 2)
        journal.end("FINISHED")
        journal.close()
        assert mirror.wait(TIMEOUT)
    kept = mirror.run_id(journal.key)
    active = (
        "SELECT run_uuid FROM runs JOIN tags USING (run_uuid) WHERE value = ? AND lifecycle_stage = 'active'"
    )
    assert store.rows(active, journal.key) == [(kept,)]
    assert len(store.rows("SELECT * FROM metrics WHERE run_uuid = ? AND key = 'lr'", kept)) == 60


def test_a_database_that_takes_no_writing_for_a_while_loses_nothing(
    folder: StudyFolder, postgres_server: tuple[int, PostgresStore]
) -> None:
    """As after a failover: what is asked is answered, what is written is refused."""
    port, store = postgres_server
    journal = record(folder, 300)
    with Proxy(port) as proxy:
        mirror = start_mirror(folder, Destination(proxy.uri, "lrsearch/read-only"))
        assert mirror.run_id(journal.key, TIMEOUT)
        wait_until(lambda: len(store.points(journal.key, "lr")) == 300)
        with read_only(store):
            for step in range(301, 601):
                journal.point(step, metrics_at(step))
            journal.flush()
            trouble(mirror)
        journal.end("FINISHED")
        journal.close()
        assert mirror.wait(TIMEOUT)
    assert_all_once(store, folder, "lrsearch/read-only")


@contextmanager
def read_only(store: PostgresStore) -> Iterator[None]:
    """The database refuses to write; the connections that there are break at its beginning and its end."""
    end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    store.execute("ALTER ROLE postgres SET default_transaction_read_only = on")
    store.execute(f"{end_all} AND backend_type = 'client backend'")
    yield
    store.execute("ALTER ROLE postgres RESET ALL")
    store.execute(f"{end_all} AND backend_type = 'client backend'")


def test_an_empty_server_that_takes_the_place_of_a_full_one_is_filled(
    folder: StudyFolder, server: Backend, postgres_server: Backend
) -> None:
    journal = record(folder, 300)
    with Proxy(server[0]) as proxy:
        mirror = start_mirror(folder, Destination(proxy.uri, "lrsearch/moved"))
        wait_until(lambda: server[1].run_ids(journal.key) and len(server[1].points(journal.key, "lr")) == 300)
        proxy.target_port = postgres_server[0]
        for step in range(301, 601):
            journal.point(step, metrics_at(step))
        journal.end("FINISHED")
        journal.close()
        assert mirror.wait(TIMEOUT)
    assert_all_once(postgres_server[1], folder, "lrsearch/moved")


# --- a long outage ----------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_what_waits(folder: StudyFolder, server: Backend) -> None:
    """The journal is the buffer: 100,000 points wait in it, and the first of them are sent."""
    port, store = server
    journal = record(folder, 1000)
    with Proxy(port, "error", only="runs/log-batch") as proxy:
        mirror = start_mirror(folder, Destination(proxy.uri, "lrsearch/waiting"))
        trouble(mirror)
        before = memory(mirror), memory()
        for step in range(1001, 100_001):
            journal.point(step, {"lr": 1e-7 * step})
        journal.flush()
        refused = proxy.count("runs/log-batch")
        wait_until(lambda: proxy.count("runs/log-batch") >= refused + 2)
        waiting = memory(mirror), memory()
        proxy.mode = "pass"
        most = waiting[0]
        arrived = "SELECT count(*) FROM metrics WHERE run_uuid = ? AND key = 'lr'"
        while store.rows(arrived, store.run_id(journal.key))[0][0] < 20_000:
            most = max(most, memory(mirror))
            time.sleep(0.2)
        os.kill(mirror.pid, signal.SIGTERM)
        journal.close()
    assert waiting[0] - before[0] < 10, "MB, of the mirror"
    assert waiting[1] - before[1] < 5, "MB, of the training process"
    assert most - before[0] < 40, "MB, of the mirror while it sends"


def memory(mirror: Mirror | None = None) -> float:
    """What the mirror's process or ours has in memory, in MB."""
    return float(psutil.Process(mirror.pid if mirror else None).memory_info().rss) / 1e6


def test_what_never_arrived_is_sent_later_to_another_server(
    folder: StudyFolder, server: Backend, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the mirror of the first, which hangs, has not given up."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with Proxy(server[0], "hang") as proxy:
        finished(folder, 60)
        away = start_mirror(folder, Destination(proxy.uri, "lrsearch/outage"))
        wait_until(lambda: proxy.requests)
        assert sync(folder, store.uri, timeout=TIMEOUT)
        assert not away.synced()
    assert_all_once(store, folder, "lrsearch/outage")


def test_a_server_that_is_killed_and_started_again_has_all_once(folder: StudyFolder, store: Store) -> None:
    journal = record(folder, 300)
    with serving(store.database) as port:
        mirror = start_mirror(folder, Destination(f"http://127.0.0.1:{port}", "lrsearch/killed"))
        wait_until(lambda: store.run_ids(journal.key) and store.points(journal.key, "lr"))
        for step in range(301, 1001):
            journal.point(step, metrics_at(step))
    trouble(mirror)
    journal.end("FINISHED")
    journal.close()
    with serving_store(store.uri, store.database.parent, port):
        assert mirror.wait(TIMEOUT)
    assert_all_once(store, folder, "lrsearch/killed")


def test_a_password_stands_in_no_file_of_the_folder(folder: StudyFolder, server: Backend) -> None:
    port, store = server
    with Proxy(port, "refuse") as proxy:
        journal = finished(folder, 5)
        uri = f"http://ada:{SECRET}@127.0.0.1:{proxy.port}"
        mirror = start_mirror(folder, Destination(uri, "lrsearch/password"))
        trouble(mirror)
        proxy.mode = "pass"
        assert mirror.wait(TIMEOUT)
    files = [path for path in folder.path.rglob("*") if path.is_file()]
    assert {folder.destination, folder.mirror_state, folder.mirror_log} <= set(files)
    assert not [path for path in files if _holds_secret(path)]
    assert len(store.points(journal.key, "lr")) == 5


def _holds_secret(path: Path) -> bool:
    text = path.read_text(errors="replace")
    return SECRET in text or "s3cr3t@pw" in text
