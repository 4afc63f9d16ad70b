from __future__ import annotations

import json
from pathlib import Path

import pytest

import lrsearch
from lrsearch.errors import InputError, RecordError
from lrsearch.study.reproduce import reproduce
from lrsearch.study.status import overview
from lrsearch.tracking.folder import find_folder
from tests.study.tasks import TASK

PLAN = {"preset": "quick", "decay": {"families": ["constant", "linear"]}}


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of a task in a file, begun as the command line begins it."""
    place = tmp_path_factory.mktemp("reproduce")
    (place / "small.py").write_text(TASK, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("LRSEARCH_HOME", str(place / "runs"))
        from lrsearch.study.task_source import load_task

        source = "small.py:task"
        task = load_task(source)
        lrsearch.search(task, "done", epochs=3, plan=PLAN, progress=False, source=(source, ()))
        lrsearch.search(task, "by-hand", epochs=3, plan=PLAN, progress=False)
    return place


@pytest.fixture
def here(studied: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(studied)
    monkeypatch.setenv("LRSEARCH_HOME", str(studied / "runs"))
    return studied


def test_the_winner_comes_out_the_same(here: Path) -> None:
    again = reproduce("done")
    assert (again.verdict, again.first, dict(again.changes)) == ("identical", None, {})
    assert again.points > 100
    assert again.now == again.recorded


def test_changed_data_are_said_and_where_it_first_differs(here: Path) -> None:
    file = here / "small.py"
    try:
        file.write_text(TASK.replace("manual_seed(0)", "manual_seed(1)"), encoding="utf-8")
        again = reproduce("done")
    finally:
        file.write_text(TASK, encoding="utf-8")
    assert again.verdict != "identical"
    assert again.first is not None
    assert again.first.step == 0
    assert "data.train.fingerprint" in again.changes


def test_a_changed_version_is_said(here: Path) -> None:
    folder = find_folder("done")
    kept = {path: path.read_bytes() for path in folder.journals()}
    try:
        for path in kept:
            _rewrite_version(path)
        again = reproduce("done")
    finally:
        for path, data in kept.items():
            path.write_bytes(data)
    assert again.verdict == "identical"
    assert again.changes["versions.torch"][0] == "1.0"


def test_a_missing_task_file_is_said(here: Path) -> None:
    file = here / "small.py"
    file.rename(here / "away.py")
    try:
        with pytest.raises(InputError, match=r"small\.py"):
            reproduce("done")
    finally:
        (here / "away.py").rename(file)


def test_a_task_from_python_is_asked_for(here: Path) -> None:
    with pytest.raises(InputError, match=r"lrsearch\.reproduce\('by-hand', task\)"):
        reproduce("by-hand")


def test_a_lost_journal_is_said(here: Path) -> None:
    from lrsearch.study.task_source import load_task

    folder = find_folder("by-hand")
    for path in folder.journal.glob("confirm-*"):
        path.unlink()
    with pytest.raises(RecordError, match="journal of the winner's training is gone"):
        reproduce("by-hand", load_task("small.py:task"))


def test_overview_says_how_far_each_is(here: Path) -> None:
    found = {entry.name: entry for entry in overview()}
    done = found["done"]
    assert (done.kind, done.state, done.stage) == ("study", "finished", None)
    assert done.lr == lrsearch.load("done").lr
    assert json.loads(json.dumps(done.to_dict()))["trials"] > 5


def test_overview_of_a_stopped_and_a_damaged_study(here: Path) -> None:
    folder = find_folder("by-hand")
    text = folder.result.read_text(encoding="utf-8")
    folder.result.write_text("{", encoding="utf-8")
    assert {e.name: e.state for e in overview()}["by-hand"] == "damaged"
    folder.result.unlink()
    stopped = next(e for e in overview() if e.name == "by-hand")
    folder.result.write_text(text, encoding="utf-8")
    # Its process, this one, is alive: it may still be at work on it.
    assert (stopped.state, stopped.stage) == ("running", "decay")


def _rewrite_version(path: Path) -> None:
    from lrsearch.tracking.entries import RunStart, from_line, to_line

    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines):
        record = from_line(line.rstrip(b"\n"))
        if isinstance(record, RunStart):
            versions = {**record.provenance["versions"], "torch": "1.0"}
            provenance = {**record.provenance, "versions": versions}
            lines[number] = to_line(RunStart(**{**vars(record), "provenance": provenance}))
    path.write_bytes(b"".join(lines))
