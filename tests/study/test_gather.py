"""The report of real studies: finished, half done, damaged, of a newer version, and with secrets about."""

from __future__ import annotations

import json
import math
import shutil
import socket
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import pytest

from lrsearch import InputError, RecordError, StudyError, StudyResult
from lrsearch.core.study_plan import STAGES, StageName
from lrsearch.core.trial import MetricSummary, TrialResult, TrialSpec
from lrsearch.report.page import page
from lrsearch.report.study_page_data import ReportData
from lrsearch.study.files import FILES, write_files
from lrsearch.study.gather import gather, write_page, write_report
from lrsearch.study.load import load_study
from lrsearch.tracking.entries import RunStart
from lrsearch.tracking.folder import StudyFolder, find_folder
from lrsearch.tracking.journal import RunJournal
from lrsearch.tracking.provenance import clean
from lrsearch.tracking.reading import read_run
from tests.study.tasks import NOWHERE, Ends, Known, digits, interrupt, study

PASSWORD = "correct-horse-battery"
SERVER = NOWHERE.replace("//", f"//ada:{PASSWORD}@")
PLAN: dict[str, Any] = {
    "preset": "quick",
    "budget": 14.0,
    "range_test": {"repeats": 2, "share": 1.0},
    "coarse": {"points": 3, "extensions": 1},
    "confirm": {"seeds": 2, "max_seeds": 2},
}
CURVES = 2


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """A finished study of digits, begun on a command line with a password in it."""
    place = tmp_path_factory.mktemp("studied")
    task = digits()
    words = ["bin/lrsearch", "search", "gone.py:task", "--name", "one", "--tracking-uri", SERVER]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRSEARCH_HOME", str(place / "home"))
        patch.setattr(sys, "argv", words)
        return study(
            replace(task, test_loader=task.val_loader),
            "one",
            epochs=3,
            plan=PLAN,
            tracking_uri=SERVER,
            tags={"team": "a"},
            source=("gone.py:task", ()),
        )


@pytest.fixture
def folder(studied: StudyResult, home: Path) -> StudyFolder:
    """A copy of its folder, to be damaged."""
    return StudyFolder(Path(shutil.copytree(studied.folder.path, home / "one")))


def read(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    html5lib.HTMLParser(strict=True).parse(text)
    return text


def words(text: str) -> str:
    """What is read on a page."""
    parsed: Element = html5lib.parse(text, namespaceHTMLElements=False)
    (body,) = parsed.iter("body")
    return " ".join("".join(body.itertext()).split())


def said_of(data: ReportData) -> str:
    """What is read in a report, whose plots are left out: they take the most time."""
    text = page(data, {}, clean)
    html5lib.HTMLParser(strict=True).parse(text)
    return words(text)


def journal_of(folder: StudyFolder, name: str) -> Path:
    """The journal of the run of this name."""
    return next(path for path in folder.journals() if path.name.startswith(f"{name}-"))


def spoil(path: Path, word: bytes) -> None:
    """Damage the last line that holds a word."""
    lines = path.read_bytes().splitlines(keepends=True)
    at = max(k for k, line in enumerate(lines) if word in line)
    lines[at] = lines[at].replace(word, word.swapcase())
    path.write_bytes(b"".join(lines))


# --- a finished study -------------------------------------------------------------------------------------


def test_a_finished_study_has_its_report(studied: StudyResult) -> None:
    text = words(read(studied.folder.report))
    assert f"a peak learning rate of {studied.lr:.3g} with the schedule {studied.schedule.name}" in text
    assert studied.code().splitlines()[-1] in text
    assert "not finished" not in text
    assert "damaged" not in text


def test_mlflow_is_shown_the_report(studied: StudyResult) -> None:
    artifacts = next(
        run.artifacts for path in studied.folder.journals() if (run := read_run(path)).start.kind == "study"
    )
    assert "report.html" in artifacts
    assert artifacts == list(FILES)


def test_a_later_report_is_the_same_page(
    studied: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRSEARCH_HOME", str(studied.folder.path.parent))
    assert studied.report(tmp_path / "a.html") == tmp_path / "a.html"
    assert write_report(studied.folder, "b.html") == tmp_path / "b.html"
    at_its_end = read(studied.folder.report)
    assert read(tmp_path / "a.html") == at_its_end
    assert read(tmp_path / "b.html") == at_its_end


def test_the_report_has_the_numbers_of_the_result(studied: StudyResult) -> None:
    text = words(read(studied.folder.report))
    for finalist in studied.answer.finalists:
        assert len(finalist.objectives) == 2
        for objective in finalist.objectives.values():
            assert f"{objective:#.4g}" in text
    for value in studied.trials["objective"]:
        assert f"{value:#.4g}" in text
    assert f"{studied.cost:.2f}" in text
    assert f"{studied.answer.test['winner']['test/loss']:#.4g}" in text
    assert studied.config.data["train"]["fingerprint"] in text
    assert "tag team" in text


def test_it_has_a_curve_of_every_sweep_and_of_both_finalists(studied: StudyResult) -> None:
    data = gather(studied.folder)
    assert len(data.curves) == CURVES
    assert data.sweep_seconds > 0
    assert data.learning.keys() == {"val/loss", "train/loss"}
    steps, losses = data.learning["train/loss"][studied.answer.winner.name]
    assert len(steps) == len(losses) == studied.config.total_steps


def test_it_says_what_was_typed_and_how_to_run_it_again(folder: StudyFolder) -> None:
    text = said_of(gather(folder))
    assert "lrsearch reproduce one" in text
    assert f"lrsearch search gone.py:task --name one --tracking-uri {NOWHERE.replace('//', '//ada@')}" in text


def test_no_password_is_in_it(studied: StudyResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)  # what is kept without a password finds it here again
    for text in (read(studied.folder.report), read(studied.report(tmp_path / "again.html"))):
        assert NOWHERE.replace("//", "//ada@") in text
        assert PASSWORD not in text


def test_no_token_of_the_environment_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-of-mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "k3y-of-mine")
    said = clean("401 for t0ken-of-mine and k3y-of-mine at https://ada:pw@host/?token=xyz in /work")
    assert said == "401 for *** and *** at https://ada@host/?token= in /work"


# --- half done --------------------------------------------------------------------------------------------


def test_a_half_done_study_shows_what_there_is(studied: StudyResult) -> None:
    task = replace(digits(), test_loader=digits().val_loader)
    with pytest.raises(KeyboardInterrupt):
        study(task, "half", epochs=3, plan=PLAN, progress=Ends("decay", interrupt, "half"))
    folder = find_folder("half")
    data = gather(folder)
    whole = {stage.stage: stage for stage in studied.stages}
    assert [stage.stage for stage in data.stages] == ["range-test", "coarse", "fine", "decay"]
    assert [stage.found for stage in data.stages[:3]] == [
        whole[stage.stage].found for stage in data.stages[:3]
    ]
    assert (data.stages[3].found, len(data.stages[3].trials)) == (None, 1)
    text = words(read(write_report(folder)))
    assert "This study is not finished: it was interrupted." in text
    assert "lrsearch.search(task, name='half', resume=True)" in text
    assert "There is no answer yet. So far, the best learning rate under the schedule constant" in text
    for trial in data.stages[1].trials:
        assert f"{trial.metrics['val/loss'].final:#.4g}" in text
    assert read(folder.report).count("<img ") == 2  # the range test and the response


def test_a_study_of_the_command_line_goes_on_by_a_command(folder: StudyFolder) -> None:
    cut_short(folder, after="coarse")
    assert "To continue where it stopped: lrsearch resume one" in said_of(gather(folder))


def test_a_range_test_that_was_cut_short_is_drawn_as_far_as_it_came(folder: StudyFolder) -> None:
    cut_short(folder, after="range-test")
    (folder.path / "curve.json").unlink()
    path = journal_of(folder, "range-test")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b'"result"' not in line))
    data = gather(folder)
    assert (data.state, len(data.curves), data.answer) == ("interrupted", CURVES, None)
    assert [stage.found for stage in data.stages] == [None]
    assert "There is no answer yet" in words(read(write_report(folder)))
    assert read(folder.report).count("<img ") == 1


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (None, ["it is running"]),
        ("far-away", ["Whether it still runs on far-away cannot be told from here.", "lrsearch resume one"]),
    ],
)
def test_a_study_without_an_end_may_still_run(host: str | None, said: list[str], folder: StudyFolder) -> None:
    folder.result.unlink()
    path = journal_of(folder, "one")
    lines = [line[9:] for line in path.read_bytes().splitlines() if b'"type":"end"' not in line]
    if host is not None:
        own = json.dumps(socket.gethostname()).encode()
        lines = [line.replace(b'"host":' + own, b'"host":"%s"' % host.encode()) for line in lines]
    path.write_bytes(b"".join(map(line_of, lines)))
    text = said_of(gather(folder))
    assert [part for part in said if part not in text] == []


def test_a_study_that_failed_says_why() -> None:
    with pytest.raises(StudyError) as raised:
        study(Known(edge=1e-9), "hopeless")
    text = said_of(gather(find_folder("hopeless")))
    assert "This study is not finished: it failed." in text
    assert str(raised.value) in text


def cut_short(folder: StudyFolder, after: StageName) -> None:
    """Take away what a study recorded after a stage; it was ended there by Ctrl-C."""
    folder.result.unlink()
    for path in folder.journals():
        run = read_run(path)
        if run.start.kind == "study":
            *lines, end = path.read_bytes().splitlines(keepends=True)
            later = [f'"stage":"{stage}"'.encode() for stage in STAGES[STAGES.index(after) :]]
            kept = [line for line in lines if not any(word in line for word in (b'"type":"result"', *later))]
            path.write_bytes(b"".join([*kept, line_of(end[9:].rstrip().replace(b"FINISHED", b"KILLED"))]))
        elif run.start.stage not in ("range-test", after):
            path.unlink()


def line_of(text: bytes) -> bytes:
    """A journal's line with its checksum."""
    return b"%08x %s\n" % (zlib.crc32(text), text)


# --- damaged ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_text('{"format": 3, "answer": {'), "result.json is damaged"),
        (lambda path: path.write_text('{"format": 3, "answer": {}, "stages": []}'), "result.json is damaged"),
        (lambda path: path.unlink(), "result.json is missing"),
    ],
)
def test_without_its_result_the_journals_give_the_same_answer(
    damage: Callable[[Path], Any], said: str, studied: StudyResult, folder: StudyFolder
) -> None:
    damage(folder.result)
    data = gather(folder)
    assert data.state == "finished"
    assert data.answer == studied.answer
    assert tuple(data.stages) == studied.stages
    text = said_of(data)
    assert said in text
    assert "this page was made from the journals" in text
    assert f"a peak learning rate of {studied.lr:.3g}" in text


@pytest.mark.parametrize("name", ["coarse-01", "confirm-00", "range-test"])
def test_a_damaged_line_is_said_and_the_rest_is_used(
    name: str, studied: StudyResult, folder: StudyFolder
) -> None:
    path = journal_of(folder, name)
    spoil(path, b"result")
    data = gather(folder)
    assert [path.name in line for line in data.damage] == [True]
    assert (data.answer, tuple(data.stages), len(data.curves)) == (studied.answer, studied.stages, CURVES)
    assert f"{path.name}: the line at byte" in said_of(data)


def test_a_journal_without_a_beginning_is_said(studied: StudyResult, folder: StudyFolder) -> None:
    path = journal_of(folder, "coarse-01")
    path.write_bytes(b"nothing\n" + path.read_bytes()[:20])
    data = gather(folder)
    assert data.answer == studied.answer
    assert any(path.name in line and "no beginning" in line for line in data.damage)


def test_with_result_and_a_trial_lost_the_others_are_shown(studied: StudyResult, folder: StudyFolder) -> None:
    folder.result.unlink()
    spoil(journal_of(folder, "coarse-01"), b"result")
    data = gather(folder)
    assert data.answer == studied.answer
    assert [stage.found for stage in data.stages] == [stage.found for stage in studied.stages]
    whole = {trial.spec.key for stage in studied.stages for trial in stage.trials}
    shown = {trial.spec.key for stage in data.stages for trial in stage.trials}
    assert len(whole - shown) == 1
    assert "coarse-01" in said_of(data)


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "age"), [(99, "a newer"), (2, "an older"), (None, "an older")])
def test_a_study_of_another_version_is_refused_in_one_line(
    form: int | None, age: str, folder: StudyFolder
) -> None:
    plan = json.loads(folder.plan.read_text())
    folder.plan.write_text(json.dumps({**plan, "format": form}))
    for ask in (write_report, load_study):
        with pytest.raises(RecordError, match=rf"plan\.json was written by {age} lrsearch") as raised:
            ask(folder)
        assert "\n" not in str(raised.value)


def test_a_folder_without_a_study_is_refused(folder: StudyFolder) -> None:
    folder.plan.unlink()
    with pytest.raises(RecordError, match="no study there"):
        write_report(folder)


def test_a_path_that_cannot_be_written_is_one_line(studied: StudyResult) -> None:
    with pytest.raises(InputError, match="cannot be written") as raised:
        studied.report("missing/report.html")
    assert "\n" not in str(raised.value)
    assert "choose another place" in str(raised.value)


def test_a_folder_is_no_place_for_a_page(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_page("", tmp_path)


# --- size and speed ---------------------------------------------------------------------------------------

STEPS, TRIALS = 1000, 100


def large(name: str) -> StudyFolder:
    """A finished study of long trainings, which more were put to."""
    result = study(Known(gain=0.05, first_validation=True), name, steps=STEPS)
    more = TRIALS - sum(len(stage.trials) for stage in result.stages)
    first, coarse, *others = result.stages
    trials = [added(result, float(f"{1e-2 * 1.05**k:.3g}"), k) for k in range(more)]
    grown = replace(coarse, trials=(*coarse.trials, *trials))
    stages = (first, grown, *others)
    data = gather(result.folder, (result.answer, stages))
    write_files(result.folder, result.answer, stages, "", data)
    return result.folder


def added(result: StudyResult, lr: float, number: int) -> TrialResult:
    """The record of one more training."""
    spec = TrialSpec("coarse", lr, {"name": "constant"}, seed=number + 10, steps=STEPS)
    tags = {"lrsearch.trial_key": spec.key}
    start = RunStart(f"more-{number:02d}", "trial", result.name, "coarse", result.key, tags=tags)
    final = 0.3 + 0.05 * math.log2(lr / 0.1) ** 2
    with RunJournal.create(result.folder, start) as journal:
        for step in range(1, STEPS + 1):
            journal.point(step, {"train/loss": final + 2 / step, "lr": lr})
        metrics = {"val/loss": MetricSummary(2.3, final, final, 2.3)}
        trial = TrialResult(spec, "complete", STEPS, 9.0, 2.3, metrics)
        journal.result(trial.to_dict())
    return trial


def test_a_report_of_a_hundred_trials_is_small(capsys: pytest.CaptureFixture[str]) -> None:
    folder = large("large")
    began, cpu = time.perf_counter(), time.process_time()
    path = write_report(folder)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    size = path.stat().st_size
    with capsys.disabled():
        print(
            f"\n{TRIALS} trials of {STEPS} steps: {seconds:.2f} s ({cpu:.2f} s of CPU), {size / 1e6:.2f} MB"
        )
    assert size <= 2e6
    assert read(path).count("<img ") == 5
    assert read(path).count('<td class="name">coarse</td>') >= TRIALS / 2
