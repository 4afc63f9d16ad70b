"""`lrsearch status`, `reproduce`, `tasks`, `ui` and `rm`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import lrsearch
from lrsearch.core.observer import Observer
from lrsearch.examples import BUILT_IN
from lrsearch.tracking.destination import Destination
from lrsearch.tracking.entries import RunStart
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.journal import RunJournal
from tests.conftest import Answer, Command
from tests.study.tasks import TASK, Known
from tests.tracking.store import Store

SMALL = (
    'preset = "quick"\nbudget = 7\ncoarse = { extensions = 0 }\n[decay]\nfamilies = ["constant", "linear"]\n'
)


@pytest.fixture
def study(tmp_path: Path, cli: Command, store: Store) -> Answer:
    """A finished study of a small task in a file."""
    (tmp_path / "small.py").write_text(TASK, encoding="utf-8")
    (tmp_path / "plan.toml").write_text(SMALL.replace("budget = 7", "budget = 9"), encoding="utf-8")
    words = ("search", "small.py:task", "--name", "small", "--plan", "plan.toml", "--epochs", "2")
    return cli(*words, "--tracking-uri", store.uri, "--json", "--quiet")


def test_nothing_yet_is_said(cli: Command, home: Path) -> None:
    assert cli("status").out == f"there is nothing in {home}\n"


def test_a_study_is_listed_reproduced_and_removed(study: Answer, cli: Command, home: Path) -> None:
    found = json.loads(study.out)
    listed = json.loads(cli("status", "--json").out)["records"]
    assert [(r["name"], r["state"], r["lr"]) for r in listed] == [("small", "finished", found["lr"])]
    table = cli("status", "small").out
    assert "small" in table
    assert "finished" in table

    again = cli("reproduce", "small")
    assert (again.code, again.out.splitlines()[0]) == (0, "small: identical in every recorded point")
    changed = home.parent / "small.py"
    changed.write_text(TASK.replace("manual_seed(0)", "manual_seed(9)"), encoding="utf-8")
    answer = cli("reproduce", "small", "--json")
    different = json.loads(answer.out)
    assert different["verdict"] != "identical"
    assert answer.code == (1 if different["verdict"] == "different" else 0)
    assert different["first"]["step"] == 0
    assert "data.train.fingerprint" in different["changes"]

    refused = cli("rm", "small")  # nobody is there to answer
    assert refused.code != 0
    assert (home / "small").is_dir()
    assert cli("rm", "small", "--yes").code == 0
    assert not (home / "small").exists()


def test_the_name_of_a_study_does_not_say_its_stage(cli: Command, home: Path) -> None:
    class Interrupts(Observer):
        def stage_begins(self, stage: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lrsearch.search(Known(), "fine-tuning-bert", steps=20, plan="quick", progress=Interrupts())
    (status,) = json.loads(cli("status", "fine-tuning-bert", "--json").out)["records"]
    assert (status["stage"], status["trials"]) == (None, 0)


def test_removing_what_is_at_work_is_refused(cli: Command, home: Path) -> None:
    folder = StudyFolder(home / "busy")
    folder.journal.mkdir(parents=True)
    with RunJournal.create(folder, RunStart("busy", "range_test", "busy")):
        answer = cli("rm", "busy", "--yes")
    assert (answer.code, folder.path.is_dir()) == (2, True)
    assert "a process is at work on it" in answer.err


@pytest.mark.parametrize("command", ["reproduce", "rm", "status", "ui"])
def test_an_unknown_name_is_one_line(command: str, cli: Command) -> None:
    answer = cli(command, "nobody")
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
    assert "no such study" in answer.err


def test_a_range_test_cannot_be_reproduced(cli: Command, home: Path) -> None:
    folder = StudyFolder(home / "sweep")
    folder.journal.mkdir(parents=True)
    answer = cli("reproduce", "sweep")
    assert (answer.code, len(answer.err.splitlines())) == (1, 1)


def test_every_built_in_task_is_listed(cli: Command) -> None:
    assert set(json.loads(cli("tasks", "--json").out)) == set(BUILT_IN)
    assert "--set batch_size=32" in cli("tasks").out


def test_a_hundred_studies_are_listed_at_once(cli: Command, home: Path) -> None:
    for number in range(100):
        folder = StudyFolder(home / f"study-{number:03d}")
        folder.journal.mkdir(parents=True)
        with RunJournal.create(folder, RunStart("sweep", "range_test", folder.name)):
            pass
    assert len(json.loads(cli("status", "--json").out)["records"]) == 100


def test_a_server_that_runs_already_is_only_named(cli: Command, home: Path) -> None:
    folder = StudyFolder(home / "sweep")
    folder.journal.mkdir(parents=True)
    Destination("http://user:secret@tracking.example:5000", "there").save(folder)
    answer = cli("ui", "sweep")
    assert answer.code == 0
    assert answer.out.startswith("http://user@tracking.example:5000/")
    assert "secret" not in answer.out


def test_the_ui_is_started_on_this_machine_alone(tmp_path: Path, store: Store) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = "from lrsearch.cli import main; main()"
    words = ["ui", "--tracking-uri", store.uri, "--port", str(port)]
    code = f"import sys; sys.argv = ['lrsearch', *{words!r}]; {script}"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        assert _answers(f"http://127.0.0.1:{port}/health")
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=2)  # another address of this machine
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(address: str) -> bool:
    deadline = time.monotonic() + 240  # a server of four processes, on a busy machine
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.2)
    return False
