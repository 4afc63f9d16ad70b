"""Damaged records, bad data, full disks, read-only folders, clocks that jump: said, and nothing is lost."""

from __future__ import annotations

import io
import math
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import lrsearch
from lrsearch import InputError, RecordError, StudyResult, Task
from lrsearch.core.answer import StageResult
from lrsearch.core.observer import Observer
from lrsearch.core.presets import load_plan
from lrsearch.core.trial import TrialResult, TrialSpec
from lrsearch.report import progress as shown_progress
from lrsearch.report.progress import StudyProgress
from lrsearch.study.task_source import load_task
from lrsearch.tracking.folder import StudyFolder, find_folder
from lrsearch.training.run_trial import run_trial
from tests.conftest import CHECKOUT, Command
from tests.study.faults import DAY, Clock, bound_by_permissions, fill, mounted_disk
from tests.study.tasks import (
    LOOKED_AT,
    NOWHERE,
    PLAN,
    Ends,
    Untracked,
    digits,
    end_own_mirror,
    interrupt,
    runs,
    study,
    trainings,
)

SOURCE = ("digits", ["hidden=16"])
WORDS = ("--tracking-uri", NOWHERE, "--sync-timeout", "0")


class UpTo(Untracked):
    """Keeps what a study begins and finds, and ends it with a stage: the files of the answer cost a second.

    Its mirror is ended at the beginning.
    """

    def __init__(self, name: str, stage: str) -> None:
        super().__init__(name)
        self.begun: set[str] = set()
        self.trainings: list[TrialResult] = []
        self._stage = stage

    def trial_begins(self, spec: TrialSpec, number: int) -> None:
        self.begun.add(spec.key)

    def stage_ends(self, result: StageResult) -> None:
        self.trainings += [replace(trial, seconds=0.0) for trial in result.trials]
        if result.stage == self._stage:
            raise KeyboardInterrupt


def named_digits() -> Task:
    """The digits task as the command line makes it: a study of it can be resumed by its name."""
    task = load_task(*SOURCE)
    assert isinstance(task, Task)
    return task


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """The study that nothing disturbs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRSEARCH_HOME", str(tmp_path_factory.mktemp("whole")))
        return study(named_digits(), "study", source=SOURCE)


def assert_goes_on(whole: StudyResult) -> set[str]:
    """A resume gives what the study that nothing disturbs gave; returns the keys of what it trained."""
    observer = UpTo("study", "confirm")
    with pytest.raises(KeyboardInterrupt):
        study(named_digits(), "study", source=SOURCE, resume=True, progress=observer)
    assert observer.trainings == trainings(whole)
    return observer.begun


# --- a damaged journal ------------------------------------------------------------------------------------

BEGIN = """
from tests.study.tasks import Ends, kill_this_process, study
from tests.study.test_faults import SOURCE, named_digits
study(named_digits(), "study", source=SOURCE, progress=Ends("confirm", kill_this_process, "study"))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a study whose process was killed in the confirm stage."""
    home = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "LRSEARCH_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", BEGIN], env=environment, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    return home


@pytest.fixture
def cut(killed: Path, home: Path) -> StudyFolder:
    """A copy of it, which a test may damage."""
    shutil.copytree(killed, home)
    return StudyFolder(home / "study")


def cut_tail(data: bytes) -> bytes:
    return data[:-40]


def flip_in(what: bytes) -> Callable[[bytes], bytes]:
    """One bit, in the middle of the first line of this kind."""

    def flip(data: bytes) -> bytes:
        at = data.index(b'{"type":"' + what) + 60
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return flip


def half_a_block(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    at = next(k for k, line in enumerate(lines) if b'"points"' in line)
    lines[at] = lines[at][: len(lines[at]) // 2] + b"\n"
    return b"".join(lines)


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes], str, int]] = {
    # which journal, how, what is said, and how many finished trainings must run again
    "the tail of a finished training": ("coarse-00", cut_tail, "last line, at byte .* unfinished", 0),
    "a bit of its points": ("coarse-00", flip_in(b"points"), "line at byte .* damaged .*checksum", 0),
    "half a block of its points": ("coarse-01", half_a_block, "line at byte .* damaged .*checksum", 0),
    "a bit of its result": ("coarse-01", flip_in(b"result"), "line at byte .* damaged .*checksum", 1),
    "a bit of its beginning": ("coarse-01", flip_in(b"start"), "line at byte 0 .* damaged", 0),
    "the tail of the study's own": ("study", cut_tail, "line at byte .* damaged|last line", 0),
    "a bit of the range test": ("range-test", flip_in(b"points"), "line at byte .* damaged", 0),
    "the whole beginning": ("coarse-01", lambda data: b"\xff" * 20 + data[2000:], "no beginning", 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_a_journal_is_said_and_the_rest_used(
    damage: str, cut: StudyFolder, whole: StudyResult
) -> None:
    name, harm, said, again = DAMAGES[damage]
    (path,) = cut.journal.glob(f"{name}-*.jsonl")
    before = finished_keys(cut)
    path.write_bytes(harm(path.read_bytes()))
    with pytest.warns(UserWarning, match=f"{path.name}.*{said}"):
        begun = assert_goes_on(whole)
    assert len(before & begun) == again


def finished_keys(folder: StudyFolder) -> set[str]:
    """The trainings whose results are on record."""
    return {run.start.tags["lrsearch.trial_key"] for run in runs(folder) if "spec" in (run.result or {})}


@pytest.mark.filterwarnings("always")
def test_damage_is_said_on_stderr_and_in_the_report(
    cut: StudyFolder, cli: Command, whole: StudyResult
) -> None:
    (path,) = cut.journal.glob("coarse-00-*.jsonl")
    path.write_bytes(half_a_block(path.read_bytes()))
    said = f"{path.name}: the line at byte"
    assert cli("report", "study").code == 0
    assert said in cut.report.read_text()
    answer = cli("resume", "study", *WORDS)
    assert answer.code == 0
    assert f"lrsearch: warning: {said}" in answer.err
    assert said in cut.report.read_text()
    assert lrsearch.load("study").answer == whole.answer


# --- a damaged database -----------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["trials", "trial_params"])
def test_a_database_damaged_inside_is_made_again(table: str, cut: StudyFolder, whole: StudyResult) -> None:
    """It opens, and would fail at the first look at a training."""
    with closing(sqlite3.connect(cut.optuna_db)) as database:
        query = "SELECT rootpage FROM sqlite_master WHERE type = 'table' AND name = ?"
        (page,) = database.execute(query, (table,)).fetchone()
    data = bytearray(cut.optuna_db.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    cut.optuna_db.write_bytes(data)
    assert_goes_on(whole)
    assert cut.optuna_db.with_suffix(".damaged").is_file()


# --- bad data ---------------------------------------------------------------------------------------------

Batch = tuple[Tensor, Tensor]
Spoil = Callable[[int, int, Batch], Batch]


class Spoiled(Dataset[Any]):
    """Digits, of which every batch goes through ``spoil(training, batch, rows)``, both counted from 1.

    Sweeps are no trainings, and neither are the optimizers that are only looked at.
    """

    def __init__(self, spoil: Spoil) -> None:
        self._inner = digits()
        assert isinstance(self._inner.train_loader, DataLoader)
        self._loader = self._inner.train_loader
        self._spoil = spoil
        self._training = self._batch = 0
        self._trains = False

    def task(self) -> Task:
        loader = DataLoader(self, sampler=self._loader.sampler, batch_size=None)
        return replace(self._inner, train_loader=loader, optimizer=self._optimizer)

    def _optimizer(self, parameters: Iterator[nn.Parameter], lr: float) -> Any:
        self._trains = lr not in LOOKED_AT
        self._training += self._trains
        self._batch = 0
        return self._inner.optimizer(parameters, lr)

    def __len__(self) -> int:
        return len(self._loader.dataset)  # type: ignore[arg-type]

    def __getitem__(self, rows: Any) -> Batch:
        batch: Batch = self._loader.dataset[rows]
        self._batch += 1
        return self._spoil(self._training, self._batch, batch) if self._trains else batch


def second(training: int, number: int, at: int) -> bool:
    """The second training's batch `at`."""
    return training == 2 and number == at


def nan_at(at: int) -> Spoil:
    return lambda t, n, batch: (batch[0] * math.nan, batch[1]) if second(t, n, at) else batch


class BrokenError(Exception):
    """What a user's loader may raise."""


def raising_at(at: int) -> Spoil:
    def spoil(training: int, number: int, batch: Batch) -> Batch:
        if second(training, number, at):
            raise BrokenError("the disk with the images is gone")
        return batch

    return spoil


def mislabelled_at(at: int) -> Spoil:
    return lambda t, n, batch: (batch[0], batch[1] + 10) if second(t, n, at) else batch


FOUR = {**PLAN, "budget": 12.0, "coarse": {"points": 4, "extensions": 1}}
"""One of its first four trials may fail: that is not a third."""
SPOILED: dict[str, tuple[Spoil, str, str | None, str | None]] = {
    # what the second training then is, why, and what stands in its run
    "NaN in the middle": (nan_at(20), "complete", None, None),
    "NaN in the first batch": (nan_at(1), "complete", None, None),
    "a loader that raises": (raising_at(20), "failed", "BrokenError", "the disk with the images is gone"),
    "labels out of range": (mislabelled_at(20), "failed", "IndexError", "Target 1[0-9] is out of bounds"),
}


@pytest.mark.parametrize("fault", SPOILED)
def test_bad_data_cost_a_batch_or_one_training_and_the_study_goes_on(fault: str) -> None:
    spoil, status, cause, said = SPOILED[fault]
    bad, *others = coarse(Spoiled(spoil).task(), plan=FOUR)
    bad, others = others[0], [bad, *others[1:]]
    assert (bad.status, bad.cause) == (status, cause)
    assert (bad.bad_data is not None) is (status == "complete")
    assert {trial.status for trial in others} == {"complete"}
    (run,) = [
        run for run in runs(find_folder("bad")) if run.start.tags.get("lrsearch.trial_key") == bad.spec.key
    ]
    assert run.end is not None
    assert run.end.status == ("FAILED" if status == "failed" else "FINISHED")
    if said is not None:
        assert "Traceback" in (run.end.error or "")
        assert re.search(said, run.end.error or "")


def coarse(task: Task, **arguments: Any) -> list[TrialResult]:
    """The trainings of the coarse stage of a study, `bad`."""
    observer = UpTo("bad", "coarse")
    with pytest.raises(KeyboardInterrupt):
        study(task, "bad", progress=observer, **arguments)
    return observer.trainings


class Sometimes:
    """A metric that is NaN at each fourth call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        self.calls += 1
        return math.nan if self.calls % 4 == 0 else float((outputs.argmax(dim=1) == targets).float().mean())


def test_a_metric_that_is_sometimes_nan_is_left_out_there_and_the_study_goes_on() -> None:
    metric = Sometimes()
    trials = coarse(replace(digits(), metrics={"odd": metric}))
    assert {trial.status for trial in trials} == {"complete"}
    recorded = [run.metric("val/odd")[1] for run in runs(find_folder("bad")) if "spec" in (run.result or {})]
    assert 0 < sum(map(len, recorded)) < metric.calls
    assert all(math.isfinite(value) for values in recorded for value in values)


def test_an_objective_that_is_nan_at_the_end_of_a_training_costs_that_training() -> None:
    task = replace(digits(), metrics={"odd": Sometimes()})
    trials = coarse(task, plan=FOUR, objective="val/odd", direction="maximize")
    diverged = [trial for trial in trials if trial.status == "diverged"]
    assert {trial.cause for trial in diverged} == {"not_finite"}
    assert 0 < len(diverged) < len(trials)


class Silent:
    """A trial's observer that keeps nothing."""

    def begin(self, facts: Any) -> None: ...

    def record(self, step: int, metrics: Any) -> None: ...


def train(loss: Callable[[Tensor, Tensor], Any]) -> TrialResult:
    spec = TrialSpec("coarse", 0.05, {"name": "linear"}, 7, 45)
    task = replace(digits(), loss=loss, metrics={})
    return run_trial(task, spec, torch.device("cpu"), Silent(), objective="val/loss")


def plain(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets)


def test_a_loss_of_shape_1_trains_as_a_scalar_does() -> None:
    one = train(lambda outputs, targets: plain(outputs, targets).reshape(1))
    assert one.metrics == train(plain).metrics


def test_a_loss_in_float64_trains() -> None:
    double = train(lambda outputs, targets: plain(outputs.double(), targets))
    expected = train(plain)
    assert double.status == "complete"
    assert double.metrics["val/loss"].final == pytest.approx(expected.metrics["val/loss"].final, rel=1e-3)


class Becomes:
    """A loss that becomes something else at its tenth training batch."""

    def __init__(self, other: Callable[[Tensor], Any]) -> None:
        self._calls, self._other = 0, other

    def __call__(self, outputs: Tensor, targets: Tensor) -> Any:
        self._calls += outputs.requires_grad
        loss = plain(outputs, targets)
        return self._other(loss) if outputs.requires_grad and self._calls == 10 else loss


def test_a_loss_that_becomes_a_number_is_a_typed_error() -> None:
    with pytest.raises(InputError, match=r"loss=3: returned an int; return a scalar tensor"):
        train(Becomes(lambda loss: 3))
    task = replace(digits(), loss=Becomes(lambda loss: loss.item()), metrics={})
    with pytest.raises(InputError, match=r"loss=.*: returned a float; return a scalar tensor"):
        lrsearch.range_test(task, steps=30, tracking=False, progress=False)


def test_a_loss_that_changes_its_shape_or_type_goes_on() -> None:
    reshaped = train(Becomes(lambda loss: loss.reshape(1, 1)))
    assert reshaped.metrics == train(plain).metrics
    assert train(Becomes(lambda loss: loss.double())).status == "complete"


# --- a loader that hangs ----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[Terminal, io.StringIO], ids=["terminal", "log"])
def shown(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is watched often, and written wide."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(shown_progress, "_WATCH_S", 0.02)
    kind: type[io.StringIO] = request.param
    return kind()


def test_a_loader_that_hangs_is_said_with_since_when(
    shown: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown_progress, "_STALLED_S", 1000.0)

    def hang(training: int, number: int, batch: Batch) -> Batch:
        if not second(training, number, 20):
            return batch
        monkeypatch.setattr(shown_progress, "_STALLED_S", 0.2)
        deadline = time.monotonic() + 20
        while "no step for" not in shown.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        raise KeyboardInterrupt

    with redirect_stderr(shown), pytest.raises(KeyboardInterrupt):
        study(Spoiled(hang).task(), "hanging", progress=True)
    end_own_mirror("hanging")
    said = shown.getvalue()
    assert re.search(r"coarse 2 .*step 19/90, no step for 0\.\d s \(since \d\d:\d\d:\d\d UTC\)", said)
    assert "no step" not in said[: said.index("step 19/90")]
    assert "lrsearch-progress" not in {thread.name for thread in threading.enumerate()}


def test_a_loader_that_hangs_in_a_range_test_is_said_too(
    shown: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging:
        def __iter__(self) -> Iterator[Batch]:
            for _ in range(12):
                yield torch.ones(4, 3), torch.ones(4, 1)
            monkeypatch.setattr(shown_progress, "_STALLED_S", 0.2)
            deadline = time.monotonic() + 20
            while "no step for" not in shown.getvalue() and time.monotonic() < deadline:
                time.sleep(0.01)
            raise KeyboardInterrupt

    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with redirect_stderr(shown), pytest.raises(KeyboardInterrupt):
        lrsearch.range_test(
            model, optimizer, nn.MSELoss(), Hanging(), steps=40, tracking=False, progress=True
        )
    said = shown.getvalue()
    assert re.search(r"1[12]/40.*no step for 0\.\d s \(since \d\d:\d\d:\d\d UTC\)", said)
    assert "lrsearch-progress" not in {thread.name for thread in threading.enumerate()}


def test_in_a_log_a_silence_is_said_each_time_it_has_doubled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shown_progress, "_WATCH_S", 0.001)
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with StudyProgress(load_plan({"steps": 90}), 90) as progress:
        progress.stage_begins("coarse")
        progress.trial_begins(TrialSpec("coarse", 0.1, {"name": "constant"}, 7, 90), 0)
        for step in range(1, 4):
            began = now
            while now - began < 70:
                now += 0.5
                threading.Event().wait(0.005)
            progress.trial_step(step)
    lines = [line for line in capsys.readouterr().err.splitlines() if "no step" in line]
    assert [re.findall(r"step (\d)/90, no step for (.*?) \(", line) for line in lines] == [
        [("0", "30 s")],
        [("0", "1 min")],
    ]


# --- a full disk ------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    with ExitStack() as stack:
        try:
            stack.enter_context(mounted_disk(tmp_path / "disk", 8))
        except OSError as error:
            pytest.skip(str(error))
        yield tmp_path / "disk"


class Fills(Untracked):
    """Fills the disk in the second training of a stage: when it begins, or at its twelfth step."""

    def __init__(self, disk: Path, stage: str, at: int, leave: int) -> None:
        super().__init__("study")
        self._disk, self._stage, self._at, self._leave = disk, stage, at, leave
        self._now, self._trials = "", 0

    def stage_begins(self, stage: str) -> None:
        super().stage_begins(stage)
        self._now, self._trials = stage, 0
        if self._at < 0:
            self._fill_in(stage)

    def trial_begins(self, spec: TrialSpec, number: int) -> None:
        self._trials += 1
        if self._trials == 2 and self._at == 0:
            self._fill_in(self._now)

    def trial_step(self, step: int) -> None:
        if self._trials == 2 and step == self._at > 0:
            self._fill_in(self._now)

    def _fill_in(self, stage: str) -> None:
        if stage == self._stage:
            fill(self._disk, self._leave)


FULL = {
    # in which stage, at which step of its second training (0: when it begins), how many bytes are left
    "in the range test": ("range-test", -1, 0),
    "before a training": ("coarse", 0, 0),
    "in a training": ("coarse", 12, 0),
    "before the weights": ("confirm", 12, 8192),
}


@pytest.mark.parametrize("where", FULL)
def test_a_full_disk_stops_the_study_cleanly_and_nothing_is_lost(
    where: str, small_disk: Path, whole: StudyResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRSEARCH_HOME", str(small_disk / "home"))
    with pytest.raises(RecordError, match=r"cannot (be written|write)") as raised:
        study(named_digits(), "study", source=SOURCE, progress=Fills(small_disk, *FULL[where]))
    assert "\n" not in str(raised.value)
    folder = find_folder("study")
    finished = finished_keys(folder)
    assert {run.end.status for run in runs(folder) if run.end} <= {"FINISHED"}
    (small_disk / "filler").unlink()
    assert not finished & assert_goes_on(whole)


@pytest.mark.parametrize("leave", [0, 60_000])
def test_a_disk_that_is_full_at_the_end_costs_no_training(
    leave: int, small_disk: Path, killed: Path, whole: StudyResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the answer's files some are written, the last ones not."""
    monkeypatch.setenv("LRSEARCH_HOME", str(shutil.copytree(killed, small_disk / "home")))
    with pytest.raises(RecordError, match="cannot be written: No space left on device"):
        study(named_digits(), "study", source=SOURCE, resume=True, progress=FillsAtTheEnd(small_disk, leave))
    folder = find_folder("study")
    finished = finished_keys(folder)
    assert not folder.result.exists()
    assert not list(folder.path.rglob("*.tmp"))
    (small_disk / "filler").unlink()
    result = study(named_digits(), "study", source=SOURCE, resume=True)
    assert result.answer == whole.answer
    assert finished_keys(folder) == finished


class FillsAtTheEnd(Untracked):
    """Fills the disk when the last stage has ended."""

    def __init__(self, disk: Path, leave: int) -> None:
        super().__init__("study")
        self._disk, self._leave = disk, leave

    def stage_ends(self, result: StageResult) -> None:
        if result.stage == "confirm":
            fill(self._disk, self._leave)


def test_a_full_disk_is_code_1_and_says_how_to_go_on(
    small_disk: Path, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRSEARCH_HOME", str(small_disk / "home"))
    monkeypatch.setenv("FILL", str(small_disk))
    Path("filling.py").write_text(FILLING)
    words = ("search", "filling.py:task", "--name", "full", "--steps", "40", "--plan", "quick", *WORDS)
    answer = cli(*words, "--quiet")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.count("\n") == 1
    assert "cannot be written: No space left on device" in answer.err
    assert answer.err.endswith("; once that is fixed, continue with: lrsearch resume full\n")
    (small_disk / "filler").unlink()
    monkeypatch.delenv("FILL")
    assert cli("resume", "full", *WORDS, "--quiet").code == 0


FILLING = """
import os
from pathlib import Path
import torch
from tests.study.test_faults import digits, fill, replace

calls = 0

def task():
    inner = digits()

    def loss(outputs, targets):
        global calls
        calls += outputs.requires_grad
        if calls == 150 and "FILL" in os.environ:
            calls += 1
            fill(Path(os.environ["FILL"]), 0)
        return inner.loss(outputs, targets)

    return replace(inner, loss=loss)
"""


class Limits(Untracked):
    """Lets no file grow any more, from a step of the second coarse training on."""

    def __init__(self) -> None:
        super().__init__("study")
        self._trials, self._now = 0, ""

    def stage_begins(self, stage: str) -> None:
        super().stage_begins(stage)
        self._now = stage

    def trial_begins(self, spec: TrialSpec, number: int) -> None:
        self._trials += self._now == "coarse"

    def trial_step(self, step: int) -> None:
        if self._now == "coarse" and self._trials == 2 and step == 12:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))


def test_a_journal_that_cannot_grow_stops_the_study_and_nothing_is_lost(
    whole: StudyResult, home: Path
) -> None:
    """As on a full disk, where none can be mounted."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(RecordError, match=r"coarse-01-.*\.jsonl cannot be written: File too large"):
            study(named_digits(), "study", source=SOURCE, progress=Limits())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_goes_on(whole)


def test_a_range_test_on_a_full_disk_says_so(small_disk: Path) -> None:
    class Filling(Observer):
        def sweep_step(self, seed: int, step: int, lr: float, loss: float) -> None:
            if step == 10:
                fill(small_disk, 0)

    with pytest.raises(RecordError, match="cannot be written: No space left on device"):
        lrsearch.range_test(digits(), steps=60, out=small_disk / "sweep", progress=Filling())
    end_own_mirror("sweep")


# --- a read-only folder -----------------------------------------------------------------------------------


@contextmanager
def read_only(*folders: Path) -> Iterator[None]:
    with bound_by_permissions():
        for folder in folders:
            folder.chmod(0o500)
        try:
            yield
        finally:
            for folder in folders:
                folder.chmod(0o700)


class Locks(Ends):
    """Makes a study's folder read-only in the middle of the second coarse training."""

    def __init__(self, folder: StudyFolder) -> None:
        super().__init__("coarse", self._lock, "study")
        self._folder = folder

    def _lock(self) -> None:
        self._folder.path.chmod(0o500)
        self._folder.journal.chmod(0o500)


def test_a_folder_that_becomes_read_only_stops_the_study_and_nothing_is_lost(
    whole: StudyResult, home: Path
) -> None:
    folder = StudyFolder(home / "study")
    with bound_by_permissions(), pytest.raises(RecordError, match="cannot be written: Permission denied"):
        study(named_digits(), "study", source=SOURCE, progress=Locks(folder))
    for path in (folder.path, folder.journal):
        path.chmod(0o700)
    finished = finished_keys(folder)
    assert finished
    assert not finished & assert_goes_on(whole)


def test_a_read_only_folder_is_not_resumed_and_not_changed(cut: StudyFolder, cli: Command) -> None:
    cut.lock.unlink()
    before = {path: path.read_bytes() for path in cut.path.rglob("*") if path.is_file()}
    with read_only(cut.path, cut.journal):
        answer = cli("resume", "study", *WORDS)
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
    assert "cannot be written: Permission denied" in answer.err
    assert {path: path.read_bytes() for path in cut.path.rglob("*") if path.is_file()} == before


def test_a_study_is_not_begun_in_a_read_only_place(home: Path, cli: Command) -> None:
    home.mkdir()
    with read_only(home):
        answer = cli("search", "digits", "--name", "a", *WORDS)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "cannot be written (Permission denied); choose another place" in answer.err


# --- a clock that jumps back ------------------------------------------------------------------------------


class JumpsBack(Ends):
    """Sets the clock back by a day in the second coarse training, and ends in the second of decay."""

    def __init__(self, clock: Clock) -> None:
        super().__init__("decay", interrupt, "study")
        self._clock = clock

    def trial_step(self, step: int) -> None:
        if self._now == "coarse" and self._trials == 2:
            self._clock.behind = DAY
        super().trial_step(step)


def test_a_clock_that_jumps_back_changes_neither_points_nor_answer(
    whole: StudyResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        study(named_digits(), "study", source=SOURCE, progress=JumpsBack(clock))
    clock.behind = 2 * DAY
    assert_goes_on(whole)
    recorded = runs(find_folder("study"))
    for run in recorded:
        for group in run.groups:
            assert list(group.steps) == sorted(set(group.steps)), run.start.name
            assert list(group.ms) == sorted(group.ms), run.start.name
        assert run.end is not None
        assert run.end.ms >= max([run.start.started, *(ms for group in run.groups for ms in group.ms)])
    points = {run.start.name: len(run.metric("lr")[0]) for run in recorded}
    assert points == {run.start.name: len(run.metric("lr")[0]) for run in runs(whole.folder)}
