"""The training process's side: where to record, and that starting a mirror leaves it as it was."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lrsearch.errors import InputError, RecordError
from lrsearch.tracking.destination import load
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.progress import load_state
from lrsearch.tracking.sync import Destination, find_destination, start_mirror, sync
from tests.tracking.runs import finished, in_python, trouble
from tests.tracking.store import Store

VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")


@pytest.mark.parametrize(
    ("environment", "arguments", "expected"),
    [
        ({}, (), Destination("sqlite:///{cwd}/mlflow.db", "lrsearch/digits")),
        ({}, ("sqlite:///other.db",), Destination("sqlite:///{cwd}/other.db", "lrsearch/digits")),
        ({}, ("http://host:5000", "mine"), Destination("http://host:5000", "mine")),
        ({"MLFLOW_TRACKING_URI": "http://env"}, (), Destination("http://env", "lrsearch/digits")),
        (
            {"MLFLOW_TRACKING_URI": "http://env"},
            ("http://arg",),
            Destination("http://arg", "lrsearch/digits"),
        ),
        ({"MLFLOW_EXPERIMENT_NAME": "env"}, (), Destination("sqlite:///{cwd}/mlflow.db", "env")),
        ({"MLFLOW_EXPERIMENT_NAME": "env"}, (None, "arg"), Destination("sqlite:///{cwd}/mlflow.db", "arg")),
        ({"MLFLOW_EXPERIMENT_ID": "7"}, (), Destination("sqlite:///{cwd}/mlflow.db", "lrsearch/digits", "7")),
        ({"MLFLOW_EXPERIMENT_ID": "7"}, (None, "arg"), Destination("sqlite:///{cwd}/mlflow.db", "arg")),
    ],
)
def test_the_argument_counts_before_the_environment_and_that_before_the_default(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    arguments: tuple[str | None, ...],
    expected: Destination,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = find_destination("lrsearch/digits", *arguments)
    uri = expected.tracking_uri.format(cwd=tmp_path)
    assert vars(found) == {**vars(expected), "tracking_uri": uri}


def test_an_active_run_of_the_user_becomes_the_parent(folder: StudyFolder, store: Store) -> None:
    code = f"""
import mlflow
from pathlib import Path
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.sync import find_destination, start_mirror
from tests.tracking.runs import finished
mlflow.set_tracking_uri({store.uri!r})
mlflow.set_experiment("the user's own")
with mlflow.start_run() as run:
    folder = StudyFolder(Path({str(folder.path)!r}))
    journal = finished(folder, 3)
    mirror = start_mirror(folder, find_destination("lrsearch/digits"))
    assert mirror.wait(60)
    assert mlflow.active_run().info.run_id == run.info.run_id
    elsewhere = find_destination("lrsearch/digits", "http://elsewhere")
print(journal.key, run.info.run_id, elsewhere.parent_run_id, elsewhere.experiment)
"""
    key, run_id, parent_elsewhere, experiment_elsewhere = in_python(code, folder.path.parent).split()[-4:]
    assert store.tags(key)["mlflow.parentRunId"] == run_id
    assert store.experiment(key) == "the user's own"
    assert (parent_elsewhere, experiment_elsewhere) == ("None", "lrsearch/digits")


def test_the_training_process_stays_as_it_was(folder: StudyFolder, store: Store) -> None:
    code = f"""
import os, sys, threading, time
from pathlib import Path
import psutil
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.sync import find_destination, start_mirror
from tests.tracking.runs import finished
before, directory = dict(os.environ), os.getcwd()
folder = StudyFolder(Path({str(folder.path)!r}))
journal = finished(folder, 3)
mirror = start_mirror(folder, find_destination("lrsearch/digits", {store.uri!r}))
assert os.getsid(mirror.pid) == mirror.pid, "Ctrl-C would reach the mirror"
assert mirror.wait(60)
for _ in range(500):
    if not psutil.Process().children() and threading.active_count() == 1:
        break
    time.sleep(0.01)
unchanged = (dict(os.environ), os.getcwd()) == (before, directory)
print(psutil.Process().children(), unchanged, "mlflow" in sys.modules)
"""
    assert in_python(code, folder.path.parent).strip() == "[] True False"


def test_a_process_that_ends_first_leaves_the_work_to_the_mirror(folder: StudyFolder, store: Store) -> None:
    code = f"""
from pathlib import Path
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.sync import find_destination, start_mirror
from tests.tracking.runs import finished
folder = StudyFolder(Path({str(folder.path)!r}))
print(finished(folder, 3).key)
start_mirror(folder, find_destination("lrsearch/digits", {store.uri!r}))
"""
    key = in_python(code, folder.path.parent).strip()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state = load_state(folder)
        if state is not None and state.state == "synced":
            break
        time.sleep(0.02)
    assert len(store.points(key, "lr")) == 3


def test_the_password_is_kept_out_of_the_folder_and_taken_from_the_environment(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Destination("http://ada:pw@host", "e").save(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert load(folder) == Destination("http://ada@host", "e")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:pw@host")
    assert load(folder) == Destination("http://ada:pw@host", "e")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:pw@another")
    assert load(folder) == Destination("http://ada@host", "e")


def test_a_folder_that_names_no_server_says_so(folder: StudyFolder) -> None:
    finished(folder, 1)
    with pytest.raises(InputError, match="give --tracking-uri"):
        sync(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"tracking_uri": 1', '{"password": "x"}'])
def test_a_damaged_description_of_the_server_is_said(folder: StudyFolder, text: str) -> None:
    folder.destination.write_text(text)
    with pytest.raises(RecordError, match="damaged"):
        load(folder)


def test_a_store_that_cannot_be_made_is_said_and_nothing_is_lost(folder: StudyFolder, tmp_path: Path) -> None:
    finished(folder, 1)
    mirror = start_mirror(folder, Destination(f"sqlite:///{tmp_path}/missing/mlflow.db", "e"))
    assert "No such file" in trouble(mirror)
    assert not mirror.synced()
