"""Two processes and one study: the second is told who holds it and leaves; what a dead one held is free."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Barrier

import pytest

import lrsearch
from lrsearch import InputError
from lrsearch.study.task_source import load_task
from lrsearch.tracking.folder import StudyFolder, create_folder
from lrsearch.tracking.lock import hold
from tests.conftest import CHECKOUT, Command

NOWHERE = ("--tracking-uri", "http://127.0.0.1:9", "--sync-timeout", "0")
TASK = """
import time
from pathlib import Path
import torch
from torch import nn
import lrsearch

numbers = torch.Generator().manual_seed(0)
rows = torch.randn(64, 4, generator=numbers)
batches = [(part, (part[:, 0] > 0).long()) for part in rows.split(8)]

class Waiting:  # after so many batches, until nobody asks it to
    drawn = 0

    def __iter__(self):
        for batch in batches:
            Waiting.drawn += 1
            if Waiting.drawn > 100 and Path("wait").exists():
                Path("waiting").touch()
                while Path("wait").exists():
                    time.sleep(0.01)
            yield batch

    def __len__(self):
        return len(batches)

def task():
    return lrsearch.Task(
        model=lambda: nn.Linear(4, 2),
        optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        loss=nn.CrossEntropyLoss(),
        train_loader=Waiting(),
        val_loader=batches,
    )
"""


# --- a study in another process ---------------------------------------------------------------------------


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of a study's training, where it stays."""
    (tmp_path / "small.py").write_text(TASK)
    (tmp_path / "wait").touch()
    words = ["search", "small.py:task", "--name", "busy", "--steps", "40", "--plan", "quick", *NOWHERE]
    code = f"import sys; sys.argv = ['lrsearch', *{words!r}]; from lrsearch.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "waiting", process)
    with process:
        yield process
        process.kill()


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def contents(folder: Path) -> dict[str, bytes]:
    """All that is in a study's folder, but what its mirror writes."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes() for name, path in found.items() if not name.startswith(("mirror", ".mirror"))
    }


def test_the_second_is_told_who_holds_it_and_takes_over_when_that_has_died(
    at_work: subprocess.Popen[str], cli: Command, home: Path
) -> None:
    before = contents(home / "busy")
    since = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    held = f"process {at_work.pid} on {re.escape(socket.gethostname())} since {since}"

    resumed = cli("resume", "busy", *NOWHERE)
    assert (resumed.code, resumed.out, resumed.err.count("\n")) == (2, "", 1)
    assert re.search(f"another process is at work on this study: {held}; wait for its end", resumed.err)
    for accept in (False, True):
        with pytest.raises(InputError, match=held):
            lrsearch.search(load_task("small.py:task"), "busy", resume=True, accept_changes=accept)
    searched = cli("search", "small.py:task", "--name", "busy", *NOWHERE)
    assert (searched.code, searched.err.count("\n")) == (2, 1)
    assert "is already in use; resume it, or take another name" in searched.err
    assert cli("rm", "busy", "--yes").code == 2
    assert contents(home / "busy") == before
    assert at_work.poll() is None

    at_work.kill()
    at_work.wait()
    Path("wait").unlink()
    done = cli("resume", "busy", *NOWHERE, "--json", "--quiet")
    assert done.code == 0, done.err
    assert json.loads(done.out)["name"] == "busy"


# --- the lock ---------------------------------------------------------------------------------------------

HOLD = """
import os, sys, time
from pathlib import Path
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.lock import hold

with hold(StudyFolder(Path(sys.argv[1]))):
    if sys.argv[2] == "forks" and os.fork() != 0:
        time.sleep(60)
    print("held", flush=True)  # the fork lives on, as a loader's worker may
    time.sleep(60)
"""


@contextmanager
def holding(folder: StudyFolder, how: str = "alone") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path), how],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def folder() -> StudyFolder:
    return create_folder("study")


def refused(folder: StudyFolder) -> str:
    with pytest.raises(InputError) as raised, hold(folder):
        pass
    assert "\n" not in str(raised.value)
    return str(raised.value)


def forge(folder: StudyFolder, **changed: object) -> None:
    """Somebody's word that they hold the folder."""
    writer = {"host": socket.gethostname(), "pid": os.getpid(), "created": 1.0, **changed}
    folder.holder.write_text(json.dumps({"writer": writer, "since": 0.0}))


@pytest.mark.parametrize("how", ["alone", "forks"])
def test_a_lock_left_by_a_dead_process_is_taken_over(how: str, folder: StudyFolder) -> None:
    with holding(folder, how) as process:
        assert f"process {process.pid} on {socket.gethostname()} since" in refused(folder)
        process.kill()
        process.wait()
        with hold(folder):
            assert f"process {os.getpid()} " in refused(folder)


def test_a_number_that_another_process_has_now_holds_nothing(folder: StudyFolder) -> None:
    forge(folder, created=-100.0)
    with hold(folder):
        assert f"process {os.getpid()} " in refused(folder)


def test_a_holder_on_another_machine_counts_as_alive(folder: StudyFolder) -> None:
    forge(folder, host="node-7", pid=4711)
    before = contents(folder.path)
    said = refused(folder)
    assert "process 4711 on node-7 since 1970-01-01 00:00:00 UTC" in said
    assert str(folder.holder) in said
    assert {**contents(folder.path), "study.lock": b""} == {**before, "study.lock": b""}
    folder.holder.unlink()  # as it says
    with hold(folder):
        pass


@pytest.mark.parametrize("text", ["", '{"writer": {"ho', "[]", '{"writer": {}, "since": 1}', "\xff"])
def test_a_word_that_was_cut_off_holds_nothing(text: str, folder: StudyFolder) -> None:
    folder.holder.write_text(text, encoding="latin-1")
    with hold(folder):
        assert f"process {os.getpid()} " in refused(folder)


def test_nobody_holds_a_folder_that_was_let_go(folder: StudyFolder) -> None:
    with pytest.raises(ZeroDivisionError), hold(folder):
        raise ZeroDivisionError
    assert folder.holder.read_bytes() == b""
    with hold(folder):
        pass


def test_of_processes_that_begin_one_study_at_once_one_has_it() -> None:
    at_once = Barrier(8)

    def begin(name: str) -> str:
        at_once.wait()
        try:
            return create_folder(name).name
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(8) as threads:
        for attempt in range(20):
            name = f"study-{attempt}"
            said = list(threads.map(begin, [name] * 8))
            said.remove(name)
            assert all("is already in use; resume it" in line for line in said), said
