"""From journals to a SQLite store, through real mirror processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from lrsearch.tracking.entries import RunStart, Tags, to_line
from lrsearch.tracking.folder import StudyFolder, create_folder
from lrsearch.tracking.journal import RunJournal
from lrsearch.tracking.reading import read_run
from lrsearch.tracking.sync import Destination, start_mirror, sync
from tests.tracking.runs import CHECKOUT, finished, metrics_at, record, trial, wait_until
from tests.tracking.store import Store

TIMEOUT = 60.0


def test_a_study_arrives_as_it_was_recorded(
    folder: StudyFolder, destination: Destination, store: Store
) -> None:
    parent = RunJournal.create(folder, RunStart("study", "study", "study"))
    mirror = start_mirror(folder, destination)
    child = record(folder, 1234, trial(parent=parent.key))
    (folder.path / "plots").mkdir()
    (folder.path / "plots" / "curve.txt").write_text("a curve")
    child.artifact("plots/curve.txt")
    child.summary({"objective": 0.25})
    child.tags({"lrsearch.winner": "true"})
    child.end("FINISHED")
    child.close()
    parent.params({"schedule": "cosine"})
    parent.end("FAILED", "Traceback: out of memory")
    parent.close()
    assert mirror.wait(TIMEOUT)

    run = read_run(child.path)
    recorded = list(zip(*run.metric("lr"), run.groups[0].ms, strict=True))
    assert store.points(child.key, "lr") == recorded
    assert (
        len(store.points(child.key, "train/loss"))
        == len(store.points(child.key, "train/loss_smoothed"))
        == 1234
    )
    assert [value for _, value, _ in store.points(child.key, "objective")] == [0.25]
    assert store.params(child.key) == {"lr": "0.1", "seed": "0"}
    assert store.params(parent.key) == {"schedule": "cosine"}
    assert store.experiment(child.key) == "lrsearch/test"
    tags = store.tags(child.key)
    assert (
        tags.items()
        >= {
            "lrsearch.kind": "trial",
            "lrsearch.study": "study",
            "lrsearch.stage": "coarse",
            "lrsearch.winner": "true",
            "team": "vision",
            "mlflow.user": "ada",
            "mlflow.source.name": "train.py --lr 1",
            "mlflow.source.git.commit": "c0ffee",
            "mlflow.parentRunId": store.run_id(parent.key),
            "mlflow.runName": "trial 0",
        }.items()
    )
    assert (store.status(child.key), store.status(parent.key)) == ("FINISHED", "FAILED")
    assert "out of memory" in store.tags(parent.key)["lrsearch.error"]
    assert store.rows("SELECT name, digest FROM datasets") == [("digits", ("0123456789abcdef" * 4)[:36])]
    assert (store.artifacts(child.key) / "plots" / "curve.txt").read_text() == "a curve"
    assert store.artifacts(child.key).is_relative_to(store.database.parent)
    assert run.end is not None
    times = store.rows("SELECT start_time, end_time FROM runs WHERE run_uuid = ?", store.run_id(child.key))
    assert times == [(run.start.started, run.end.ms)]
    assert mirror.run_id(child.key) == store.run_id(child.key)
    state = mirror.status()
    assert state is not None
    assert (state.state, state.error, state.runs[child.key].points) == ("synced", None, 3 * 1234 + 1)


def test_everything_sent_again_is_stored_once(
    folder: StudyFolder, destination: Destination, store: Store
) -> None:
    journal = finished(folder, 120)
    rows = []
    for _ in range(2):
        assert start_mirror(folder, destination).wait(TIMEOUT)
        rows.append(store.rows("SELECT * FROM metrics"))
        folder.mirror_state.unlink()  # it remembers nothing, and sends all of it again
    assert rows[0] == rows[1]
    assert len(rows[0]) == 3 * 120 + 1
    assert len(store.run_ids(journal.key)) == 1


def test_a_killed_writer_leaves_a_killed_run_with_all_it_wrote(
    folder: StudyFolder, destination: Destination, store: Store, tmp_path: Path
) -> None:
    code = f"""
import sys, time
from pathlib import Path
from lrsearch.tracking.folder import StudyFolder
from tests.tracking.runs import record
journal = record(StudyFolder(Path({str(folder.path)!r})), 130)
print(journal.key, flush=True)
time.sleep(60)
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(CHECKOUT)}
    )
    with writer:
        assert writer.stdout is not None
        key = writer.stdout.readline().decode().strip()
        mirror = start_mirror(folder, destination)
        assert mirror.run_id(key, TIMEOUT)
        assert not mirror.synced()
        writer.kill()
    (path,) = folder.journals()
    with path.open("ab") as file:
        file.write(b"12345678 {half a line")
    assert mirror.wait(TIMEOUT)
    assert store.status(key) == "KILLED"
    assert len(store.points(key, "lr")) == 130

    with RunJournal.resume(path, folder) as again:
        for step in range(101, 201):
            again.point(step, metrics_at(step))
    assert sync(folder, timeout=TIMEOUT)
    assert store.status(key) == "FINISHED"
    assert [step for step, _, _ in store.points(key, "lr")] == list(range(1, 201))


def test_a_mirror_that_is_killed_starts_again_while_the_run_goes_on(
    folder: StudyFolder, destination: Destination, store: Store
) -> None:
    journal = record(folder, 500)
    mirror = start_mirror(folder, destination)
    assert mirror.run_id(journal.key, TIMEOUT)
    pids = [mirror.pid]
    for last in (1000, 1500):  # the first is killed at work, the second as it begins
        os.kill(mirror.pid, signal.SIGKILL)
        for step in range(last - 499, last + 1):
            journal.point(step, metrics_at(step))
        wait_until(lambda: mirror.pid != pids[-1])
        pids.append(mirror.pid)
    journal.end("FINISHED")
    journal.close()
    assert mirror.wait(TIMEOUT)
    assert [step for step, _, _ in store.points(journal.key, "lr")] == list(range(1, 1501))
    assert store.status(journal.key) == "FINISHED"


def test_a_mirror_that_is_killed_after_the_run_is_replaced_by_sync(
    folder: StudyFolder, destination: Destination, store: Store
) -> None:
    journal = finished(folder, 500)
    mirror = start_mirror(folder, destination)
    wait_until(folder.mirror_state.exists)
    os.kill(mirror.pid, signal.SIGKILL)
    assert sync(folder, timeout=TIMEOUT)
    assert [step for step, _, _ in store.points(journal.key, "lr")] == list(range(1, 501))


@pytest.mark.parametrize("later_s", [0.0, 1.0])
def test_a_mirror_that_is_killed_as_the_run_ends_starts_again_where_it_is_waited_for(
    later_s: float, folder: StudyFolder, destination: Destination, store: Store
) -> None:
    """Also where it was given up by then."""
    journal = record(folder, 500)
    mirror = start_mirror(folder, destination)
    wait_until(folder.mirror_state.exists)
    os.kill(mirror.pid, signal.SIGKILL)
    journal.end("FINISHED")
    journal.close()
    time.sleep(later_s)
    assert mirror.wait(TIMEOUT)
    assert [step for step, _, _ in store.points(journal.key, "lr")] == list(range(1, 501))
    assert store.status(journal.key) == "FINISHED"


def test_a_mirror_that_is_told_to_end_does_not_start_again(
    folder: StudyFolder, destination: Destination
) -> None:
    with RunJournal.create(folder, trial()):
        mirror = start_mirror(folder, destination)
        os.kill(mirror.pid, signal.SIGTERM)
        assert not mirror.wait(TIMEOUT)


def bytes_of(paths: Iterable[Path]) -> int:
    """How large the files are together; SQLite's journal comes and goes meanwhile."""
    total = 0
    for path in paths:
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def test_a_mirror_that_is_killed_as_it_makes_the_store_leaves_no_half_of_one(
    folder: StudyFolder, tmp_path: Path
) -> None:
    fresh = Store(tmp_path / "mlflow.db")
    journal = finished(folder, 40)
    mirror = start_mirror(folder, Destination(fresh.uri, "lrsearch/test"))
    wait_until(lambda: bytes_of(tmp_path.glob("mlflow.db*")) > 200_000)
    os.kill(mirror.pid, signal.SIGKILL)
    assert not fresh.database.exists()
    assert sync(folder, timeout=TIMEOUT)
    assert len(fresh.points(journal.key, "lr")) == 40


def test_sync_fills_another_store_and_an_emptied_one(
    folder: StudyFolder, destination: Destination, store: Store, migrated: Path, tmp_path: Path
) -> None:
    journal = finished(folder, 60)
    assert start_mirror(folder, destination).wait(TIMEOUT)
    second = Store(Path(shutil.copy(migrated, tmp_path / "second.db")))
    assert sync(folder, second.uri, timeout=TIMEOUT)
    assert second.rows("SELECT key, value, timestamp, step FROM metrics") == store.rows(
        "SELECT key, value, timestamp, step FROM metrics"
    )
    assert second.experiment(journal.key) == "lrsearch/test"
    shutil.copy(migrated, second.database)
    assert sync(folder, timeout=TIMEOUT)
    assert len(second.points(journal.key, "lr")) == 60


def test_two_first_uses_of_one_fresh_store_both_succeed(tmp_path: Path) -> None:
    fresh = Store(tmp_path / "mlflow.db")
    folders = [create_folder(name, out=tmp_path / name) for name in ("a", "b")]
    journals = [finished(folder, 40) for folder in folders]
    mirrors = [start_mirror(folder, Destination(fresh.uri, "lrsearch/same")) for folder in folders]
    assert [mirror.wait(TIMEOUT) for mirror in mirrors] == [True, True]
    assert [len(fresh.points(journal.key, "lr")) for journal in journals] == [40, 40]
    assert fresh.rows("SELECT count(*) FROM experiments WHERE name = 'lrsearch/same'") == [(1,)]


def test_what_mlflow_refuses_is_left_out_and_said(
    folder: StudyFolder, destination: Destination, store: Store
) -> None:
    journal = record(
        folder, 60, trial(params={"good": 1, "bad=name?": 2, "long": "x" * 7000, "half": "\ud800"})
    )
    journal.end("FINISHED")
    journal.close()
    mirror = start_mirror(folder, destination)
    assert mirror.wait(TIMEOUT)
    assert store.params(journal.key) == {"good": "1", "long": "x" * 6000, "half": "?"}
    assert len(store.points(journal.key, "lr")) == 60
    state = mirror.status()
    assert state is not None
    assert "bad=name?" in (state.error or "")


def test_a_damaged_block_and_a_forged_file_name_cost_nothing_else(
    folder: StudyFolder, destination: Destination, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    journal = finished(folder, 150)
    forged = b'{"type":"artifact","path":"../secret.txt"}'
    lines = journal.path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"points", b"pointz")
    lines.insert(2, b"%08x %s\n" % (zlib.crc32(forged), forged))
    journal.path.write_bytes(b"".join(lines))
    (folder.journal / "headless.jsonl").write_bytes(to_line(Tags({"a": "b"})))
    os.utime(folder.journal / "headless.jsonl", (1, 1))
    assert start_mirror(folder, destination).wait(TIMEOUT)
    assert len(store.points(journal.key, "lr")) == 100
    assert store.status(journal.key) == "FINISHED"
    assert not list(store.database.parent.glob("mlruns/**/secret.txt"))
    told = folder.mirror_log.read_text()
    assert "is damaged" in told
    assert "headless.jsonl has no beginning" in told
    assert "not a file inside" in told
