"""A tracking server that is away, hangs or loses its answers: what the training notices, and what arrives."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.journal import RunJournal
from lrsearch.tracking.sync import Destination, start_mirror, sync
from tests.tracking.proxy import Proxy
from tests.tracking.runs import finished, metrics_at, record, trial, trouble
from tests.tracking.store import Store

TIMEOUT = 60.0
SECRET = "s3cr3t%40pw"


def test_a_server_that_comes_back_gets_everything_once(
    folder: StudyFolder, server: tuple[int, Store]
) -> None:
    port, store = server
    with Proxy(port, "refuse") as proxy:
        journal = RunJournal.create(folder, trial())
        mirror = start_mirror(folder, Destination(proxy.uri, "lrsearch/outage"))
        began = time.perf_counter()
        for step in range(1, 501):
            journal.point(step, metrics_at(step))
        journal.end("FINISHED")
        journal.close()
        assert time.perf_counter() - began < 1.0, "the training was held up"
        assert trouble(mirror)
        assert not mirror.synced()
        assert mirror.run_id(journal.key) is None
        proxy.mode = "pass"
        assert mirror.wait(TIMEOUT)
    assert [step for step, _, _ in store.points(journal.key, "lr")] == list(range(1, 501))


def test_answers_lost_after_the_server_has_stored_make_no_doubles(
    folder: StudyFolder, server: tuple[int, Store]
) -> None:
    port, store = server
    journal = record(folder, 300)
    with Proxy(port) as proxy:
        mirror = start_mirror(folder, Destination(proxy.uri, "lrsearch/outage"))
        assert mirror.run_id(journal.key, TIMEOUT)
        proxy.mode = "lose_answer"
        for step in range(301, 601):
            journal.point(step, metrics_at(step))
        journal.end("FINISHED")
        journal.close()
        trouble(mirror)
        proxy.mode = "pass"
        assert mirror.wait(TIMEOUT)
    assert [step for step, _, _ in store.points(journal.key, "lr")] == list(range(1, 601))
    assert store.status(journal.key) == "FINISHED"


def test_another_server_is_filled_while_the_first_hangs(
    folder: StudyFolder, server: tuple[int, Store], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with Proxy(server[0], "hang") as proxy:
        journal = finished(folder, 60)
        away = start_mirror(folder, Destination(proxy.uri, "lrsearch/outage"))
        while not proxy.connections:
            time.sleep(0.02)
        assert sync(folder, store.uri, timeout=TIMEOUT)
        assert not away.synced()
    assert len(store.points(journal.key, "lr")) == 60


def test_a_password_stands_in_no_file_of_the_folder(folder: StudyFolder, server: tuple[int, Store]) -> None:
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
