"""Studies that are cut short and go on: killed in every stage, interrupted, changed, or finished already."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from filelock import FileLock
from optuna.trial import TrialState
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, TensorDataset

import lrsearch
from lrsearch import InputError, RecordError, StudyResult, Task
from lrsearch.core.study_plan import STAGES
from lrsearch.study.config import load_config
from lrsearch.study.gather import gather
from lrsearch.study.task_source import load_task
from lrsearch.tracking.folder import StudyFolder, find_folder
from tests.conftest import CHECKOUT
from tests.study.tasks import (
    LOOKED_AT,
    NOWHERE,
    PLAN,
    SWEEP,
    Ends,
    Raising,
    Untracked,
    digits,
    interrupt,
    points_of,
    rows,
    runs,
    study,
    trainings,
    wait_for_mirror,
)
from tests.tracking.store import Store

EACH_STEP = 1e-9
"""Seconds between checkpoints: one after every step."""
CHECKPOINTED = ("fine", "decay", "confirm")
"""The stages that are killed after a checkpoint."""

# --- processes of their own -------------------------------------------------------------------------------

SERVER = """
import json, os, sys
from pathlib import Path
import lrsearch.report.plots.study, lrsearch.study.run, torch._dynamo
from torch.optim.optimizer import register_optimizer_step_post_hook
from tests.study.tasks import EVERY_STAGE, Ends, Untracked, digits, kill_this_process, study

def work(home, name, uri, built, stage, mirror, resume, every):
    os.environ["LRSEARCH_HOME"] = home
    updates = Path(home, "updates").open("ab", buffering=0)
    register_optimizer_step_post_hook(lambda *_: updates.write(b"."))
    if stage:
        observer = Ends(stage, kill_this_process, None if mirror else name)
    else:
        observer = False if mirror else Untracked(name)
    task = digits(Path(built))
    settings = dict(tracking_uri=uri, progress=observer, resume=resume, checkpoint_every=every)
    study(task, name, plan=EVERY_STAGE, epochs=None, **settings)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            work(**json.loads(line))
        except BaseException:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs studies, each in a process of its own that need not import everything again."""


class Processes:
    """Runs a study in a new process; returns its exit code, which is -9 where it was killed."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        command = [sys.executable, "-c", SERVER]
        self._server = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self,
        place: Path,
        *,
        uri: str = NOWHERE,
        kill_in: str | None = None,
        mirror: bool = False,
        resume: bool = False,
        every: float = 60.0,
    ) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        job: dict[str, Any] = {"home": str(place), "name": "study", "built": str(place / "built.txt")}
        job |= {"uri": uri, "stage": kill_in, "mirror": mirror, "resume": resume, "every": every}
        place.mkdir(exist_ok=True)
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def close(self) -> None:
        self._server.__exit__(None, None, None)


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    started = Processes()
    yield started
    started.close()


@dataclass(frozen=True)
class Run:
    """What a study has left."""

    place: Path

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.place / "study")

    @property
    def result(self) -> StudyResult:
        found: StudyResult = lrsearch.load(str(self.folder.path))
        return found

    @property
    def built(self) -> Counter[float]:
        """How many optimizers were made, by their lr."""
        return Counter(float(line) for line in (self.place / "built.txt").read_text().splitlines())

    @property
    def updates(self) -> int:
        """How many updates were taken, in every process."""
        return (self.place / "updates").stat().st_size

    @property
    def points(self) -> dict[str, dict[str, list[tuple[int, float]]]]:
        return points_of(runs(self.folder))


@pytest.fixture(scope="module")
def undisturbed(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("undisturbed"))
    assert processes.run(run.place) == 0
    return run


# --- killed in each of the five stages --------------------------------------------------------------------


@dataclass(frozen=True)
class Killed(Run):
    stage: str
    lr: float
    store: Store


@pytest.fixture(scope="module", params=STAGES)
def killed(
    request: pytest.FixtureRequest,
    undisturbed: Run,
    processes: Processes,
    migrated: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Killed:
    """Killed in the middle of the second training of a stage, and resumed in another process.

    In two stages the first process's mirror outlives it; in the others it dies too.
    """
    stage = str(request.param)
    place = tmp_path_factory.mktemp(stage)
    store = Store(Path(shutil.copy(migrated, place / "mlflow.db")))
    outlives = stage in ("range-test", "decay")
    every = EACH_STEP if stage in CHECKPOINTED else 60.0
    assert processes.run(place, uri=store.uri, kill_in=stage, mirror=outlives, every=every) == -9
    assert not (place / "study/result.json").exists()
    assert processes.run(place, uri=store.uri, mirror=True, resume=True) == 0
    wait_for_mirror(StudyFolder(place / "study"))
    trained = [stage.trials for stage in undisturbed.result.stages][STAGES.index(stage)]
    return Killed(place, stage, trained[1].spec.lr if trained else SWEEP, store)


def test_after_a_kill_the_trials_are_the_same(killed: Killed, undisturbed: Run) -> None:
    assert trainings(killed.result) == trainings(undisturbed.result)


def test_after_a_kill_every_stage_is_on_record_once(killed: Killed) -> None:
    (parent,) = [run for run in runs(killed.result.folder) if run.start.kind == "study"]
    assert [values["stage"] for values in parent.stages] == list(STAGES)


def test_after_a_kill_the_answer_is_the_same(killed: Killed, undisturbed: Run) -> None:
    assert killed.result.answer == undisturbed.result.answer
    assert killed.result.cost == undisturbed.result.cost
    found = [[stage.found for stage in run.result.stages] for run in (killed, undisturbed)]
    assert found[0] == found[1]


def test_after_a_kill_nothing_finished_is_trained_again(killed: Killed, undisturbed: Run) -> None:
    assert killed.built - undisturbed.built == Counter([*LOOKED_AT, killed.lr])


def test_after_a_kill_only_what_came_after_the_checkpoint_is_taken_again(
    killed: Killed, undisturbed: Run
) -> None:
    """It is killed in the twelfth update, before its checkpoint."""
    repeated = 1 if killed.stage in CHECKPOINTED else 12
    assert killed.updates - undisturbed.updates == repeated


def test_after_its_end_no_checkpoint_is_left(killed: Killed) -> None:
    assert not [path for path in killed.folder.checkpoints.iterdir() if path.suffix != ".pt"]


def test_after_a_kill_the_journal_has_every_point_once(killed: Killed, undisturbed: Run) -> None:
    assert killed.points == undisturbed.points


def test_after_a_kill_mlflow_has_every_run_once(killed: Killed, undisturbed: Run) -> None:
    rows = killed.store.rows("SELECT name, status FROM runs ORDER BY name")
    assert rows == sorted((name, "FINISHED") for name in undisturbed.points)


def test_after_a_kill_mlflow_has_every_point_once(killed: Killed, undisturbed: Run) -> None:
    expected = undisturbed.points
    for run in runs(killed.folder):
        name = "study" if run.start.kind == "study" else run.start.name
        for metric, points in expected[name].items():
            shown = [(step, value) for step, value, _ in killed.store.points(run.start.key, metric)]
            assert shown == points, f"{metric} of {name}"


def test_after_a_kill_mlflow_has_every_summary_once(killed: Killed) -> None:
    for run in runs(killed.folder):
        for name, value in run.summary.items():
            shown = [v for _, v, _ in killed.store.points(run.start.key, name)]
            assert shown == [value], f"{name} of {run.start.name}"


def test_after_a_kill_optuna_has_every_trial_once(killed: Killed) -> None:
    assert in_optuna(killed) == in_result(killed)


def in_optuna(run: Run) -> dict[str, list[tuple[Any, ...]]]:
    """What Optuna's own tools find of every stage; a trial that was cut short is FAIL there."""
    storage = f"sqlite:///{run.folder.optuna_db}"
    found: dict[str, list[tuple[Any, ...]]] = {}
    for stage in STAGES[1:]:
        trials = optuna.load_study(study_name=f"study/{stage}", storage=storage).trials
        assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.FAIL}
        found[stage] = [
            (t.params["lr"], t.params["schedule"], t.params["seed"], t.value, t.constraints)
            for t in trials
            if t.state == TrialState.COMPLETE
        ]
    return found


def in_result(run: Run) -> dict[str, list[tuple[Any, ...]]]:
    told = {"diverged": -1.0}
    trained = rows(run.result)
    return {
        stage: [(r.lr, r.schedule, r.seed, r.objective, told) for r in trained if r.stage == stage]
        for stage in STAGES[1:]
    }


# --- killed, and Optuna's database is gone ----------------------------------------------------------------


def remove(database: Path) -> None:
    database.unlink()


def overwrite(database: Path) -> None:
    database.write_bytes(b"no database at all" * 500)


def cut_off(database: Path) -> None:
    """As where the disk was full: SQLite still knows the file by its head."""
    os.truncate(database, database.stat().st_size // 3)


@pytest.fixture(scope="module")
def cut_short(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cut-short")
    assert processes.run(place, kill_in="decay") == -9
    return place


@pytest.mark.parametrize("damage", [remove, overwrite, cut_off])
def test_a_lost_database_is_made_again(
    damage: Callable[[Path], None], cut_short: Path, undisturbed: Run, processes: Processes, tmp_path: Path
) -> None:
    run = Run(Path(shutil.copytree(cut_short, tmp_path / "copy")))
    damage(run.folder.optuna_db)
    assert processes.run(run.place, resume=True) == 0
    assert run.result.answer == undisturbed.result.answer
    assert trainings(run.result) == trainings(undisturbed.result)
    assert in_optuna(run) == in_result(run)


def test_a_finished_study_is_not_trained_again(
    undisturbed: Run, processes: Processes, tmp_path: Path
) -> None:
    run = Run(Path(shutil.copytree(undisturbed.place, tmp_path / "copy")))
    assert processes.run(run.place, resume=True) == 0
    assert run.built - undisturbed.built == Counter(LOOKED_AT)
    assert run.result.answer == undisturbed.result.answer
    assert run.points == undisturbed.points


def test_a_study_killed_between_its_result_and_its_end_is_ended_by_a_resume(
    undisturbed: Run, processes: Processes, tmp_path: Path
) -> None:
    """result.json is written, and the study's run does not have the answer yet."""
    run = Run(Path(shutil.copytree(undisturbed.place, tmp_path / "copy")))
    (parent,) = [r for r in runs(run.folder) if r.start.kind == "study"]
    lines = parent.path.read_bytes().splitlines(keepends=True)
    parent.path.write_bytes(b"".join(lines[:2]))  # its start, which stands there twice
    assert processes.run(run.place, resume=True) == 0
    (ended,) = [r for r in runs(run.folder) if r.start.kind == "study"]
    assert ended.end is not None
    assert ended.end.status == "FINISHED"
    assert ended.summary == parent.summary
    assert {"lr", "schedule"} <= ended.params.keys()


# --- interrupted ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """The usual study of digits, in one piece."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRSEARCH_HOME", str(tmp_path_factory.mktemp("whole")))
        return study(digits(), "whole")


class OnceInterrupted:
    """Ctrl-C at the twentieth update of the training at an lr, the first time only."""

    def __init__(self, lr: float) -> None:
        self.lr, self.done = lr, False

    def __call__(self, lr: float, calls: int) -> BaseException | None:
        if self.done or lr != self.lr or calls < 20:
            return None
        self.done = True
        return KeyboardInterrupt()


@pytest.mark.parametrize("stage", ["range-test", "decay"])
def test_ctrl_c_ends_the_runs_as_killed_and_a_resume_finishes(
    stage: str, whole: StudyResult, home: Path
) -> None:
    trained = next(s.trials for s in whole.stages if s.stage == stage)
    task = Raising(OnceInterrupted(trained[0].spec.lr if trained else SWEEP)).task()
    with pytest.raises(KeyboardInterrupt):
        study(task, "cut")
    folder = StudyFolder(home / "cut")
    ended = {run.start.name: run.end and run.end.status for run in runs(folder)}
    cut = [name for name in ended if name.startswith(stage)]
    assert {ended["cut"], *(ended[name] for name in cut)} == {"KILLED"}
    assert all(status == "FINISHED" for name, status in ended.items() if name not in ("cut", *cut))

    result = study(task, "cut", resume=True)
    assert result.answer == whole.answer
    assert trainings(result) == trainings(whole)
    assert {run.end.status for run in runs(folder) if run.end} == {"FINISHED"}


def test_an_unfinished_study_cannot_be_loaded() -> None:
    with pytest.raises(KeyboardInterrupt):
        study(digits(), "cut", progress=Ends("coarse", interrupt, "cut"))
    with pytest.raises(RecordError, match="not finished"):
        lrsearch.load("cut")


def test_a_study_begun_on_the_command_line_is_resumed_by_its_name(whole: StudyResult) -> None:
    source = ("digits", ["hidden=16"])
    with pytest.raises(KeyboardInterrupt):
        study(load_task(*source), "cut", source=source, progress=Ends("confirm", interrupt, "cut"))
    result = lrsearch.resume("cut", tracking_uri=NOWHERE, progress=Untracked("cut"))
    assert result.answer == whole.answer


# --- interrupted in a training, which goes on -------------------------------------------------------------


@pytest.fixture
def updates() -> Iterator[list[int]]:
    """One entry an update, of whatever is trained in the test."""
    taken: list[int] = []
    hook = register_optimizer_step_post_hook(lambda *_: taken.append(1))
    yield taken
    hook.remove()


def interrupted(task: Task, stage: str) -> StudyFolder:
    """A study that gets SIGINT in the twelfth update of the second training of a stage."""
    how = partial(signal.raise_signal, signal.SIGINT)
    # What is started in the background may ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            study(task, "cut", progress=Ends(stage, how, "cut"))
    finally:
        signal.signal(signal.SIGINT, before)
    return find_folder("cut")


def checkpoints(folder: StudyFolder) -> list[Path]:
    return list(folder.checkpoints.glob("*.ckpt"))


def recorded_updates(folder: StudyFolder) -> int:
    return sum(len(run.metric("train/loss")[0]) for run in runs(folder))


def test_a_signal_leaves_a_checkpoint_from_which_a_resume_goes_on(
    whole: StudyResult, updates: list[int]
) -> None:
    folder = interrupted(digits(), "decay")
    (checkpoint,) = checkpoints(folder)
    assert checkpoint.name.split("-")[1] == "12"
    assert checkpoint.name.split("-")[0] in {run.start.tags.get("lrsearch.trial_key") for run in runs(folder)}
    result = study(digits(), "cut", resume=True)
    assert result.answer == whole.answer
    assert trainings(result) == trainings(whole)
    assert len(updates) == recorded_updates(folder)
    assert not checkpoints(folder)


def test_on_other_terms_a_training_begins_anew(updates: list[int]) -> None:
    folder = interrupted(digits(), "decay")
    study(digits(), "cut", plan={**PLAN, "delta": 0.02}, resume=True, accept_changes=True)
    assert len(updates) == recorded_updates(folder) + 12


def lose(journal: Path) -> None:
    journal.unlink()


def flip_a_bit(journal: Path) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    at = next(k for k, line in enumerate(lines) if b"train/loss" in line)
    lines[at] = lines[at].replace(b"1", b"0", 1)
    journal.write_bytes(b"".join(lines))


def leave_half_a_line(journal: Path) -> None:
    """As a kill does; what stands there came after the checkpoint."""
    with journal.open("ab") as file:
        file.write(b"half a li")


@pytest.mark.parametrize(("spoil", "repeated"), [(lose, 12), (flip_a_bit, 12), (leave_half_a_line, 0)])
@pytest.mark.filterwarnings("ignore:.*the rest is used")
def test_a_training_whose_points_are_lost_begins_anew(
    spoil: Callable[[Path], None], repeated: int, whole: StudyResult, updates: list[int]
) -> None:
    folder = interrupted(digits(), "decay")
    (cut,) = [run for run in runs(folder) if run.end and run.end.status == "KILLED" and run.start.stage]
    spoil(cut.path)
    result = study(digits(), "cut", resume=True)
    assert trainings(result) == trainings(whole)
    assert len(updates) == recorded_updates(folder) + repeated


def test_a_damaged_checkpoint_is_said_and_the_training_begins_anew(whole: StudyResult) -> None:
    folder = interrupted(digits(), "decay")
    (checkpoint,) = checkpoints(folder)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="damaged and passed over"):
        result = study(digits(), "cut", resume=True)
    assert result.answer == whole.answer


def test_a_checkpoint_that_cannot_be_written_stops_the_study_and_is_named(
    whole: StudyResult, home: Path
) -> None:
    folder = interrupted(digits(), "coarse")
    (checkpoint,) = checkpoints(folder)
    moved = checkpoint.replace(folder.path / checkpoint.name)
    folder.checkpoints.rmdir()
    folder.checkpoints.write_text("in the way")
    with pytest.raises(RecordError, match=r"the checkpoint of step 1 cannot be written in .*checkpoints"):
        study(digits(), "cut", resume=True, checkpoint_every=EACH_STEP)
    folder.checkpoints.unlink()
    moved.unlink()
    result = study(digits(), "cut", resume=True)
    assert result.answer == whole.answer
    assert {run.end.status for run in runs(folder) if run.end} == {"FINISHED"}


class Passes:
    """A loader of the user's, of which nobody knows whether its passes come out the same again."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)

    def __len__(self) -> int:
        return 45


def test_the_record_says_where_checkpoints_are_made_between_passes_only() -> None:
    task = digits()
    folder = interrupted(replace(task, train_loader=Passes(task.train_loader)), "coarse")
    said = [run.params.get("checkpoints") for run in runs(folder) if run.start.kind == "trial"]
    assert said == ["where the training loader starts again, and nowhere else"] * 2
    assert not checkpoints(folder)


def test_a_time_between_checkpoints_that_is_none_is_refused_before_anything_begins(home: Path) -> None:
    with pytest.raises(InputError, match=r"checkpoint_every=0.*above 0"):
        study(digits(), "cut", checkpoint_every=0)
    assert not home.exists()


# --- resumed on other terms -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The place of a study of digits that was interrupted in its confirm stage."""
    place = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRSEARCH_HOME", str(place))
        with pytest.raises(KeyboardInterrupt):
            study(named(digits()), "begun", progress=Ends("confirm", interrupt, "begun"))
    return place


@pytest.fixture
def resumable(begun: Path, home: Path) -> StudyFolder:
    """A copy of it, which a test may go on with."""
    shutil.copytree(begun, home)
    return StudyFolder(home / "begun")


def named(task: Task, **arguments: Any) -> Task:
    return replace(task, arguments={"hidden": 16, "augment": "none", **arguments})


def with_other_labels() -> Task:
    task = named(digits())
    assert isinstance(task.train_loader, DataLoader)
    images, labels = task.train_loader.dataset[:]
    sampler = task.train_loader.sampler
    changed = TensorDataset(images, torch.roll(labels, 1))
    return replace(task, train_loader=DataLoader(changed, sampler=sampler, batch_size=None))


CHANGES: Mapping[str, tuple[Callable[[], Task], dict[str, Any], str]] = {
    "plan": (lambda: named(digits()), {"plan": {**PLAN, "delta": 0.02}}, r"plan\.delta=0\.02: .*0\.002"),
    "seed": (lambda: named(digits()), {"seed": 1}, r"plan\.seed=1: .*0"),
    "length": (lambda: named(digits()), {"epochs": 3}, r"plan\.epochs=3: .*2"),
    "objective": (lambda: named(digits()), {"objective": "val/accuracy"}, r"val/accuracy.*val/loss"),
    "argument": (lambda: named(digits(), augment="flip"), {}, r"arguments\.augment='flip': .*'none'"),
    "model": (lambda: named(digits(hidden=32)), {}, r"32|parameters|model"),
    "data": (with_other_labels, {}, r"data\.train\.fingerprint="),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_refused_with_the_difference(change: str, resumable: StudyFolder) -> None:
    make, arguments, said = CHANGES[change]
    before = resumable.plan.read_bytes()
    with pytest.raises(InputError, match=said) as raised:
        study(make(), "begun", resume=True, **arguments)
    assert "\n" not in str(raised.value)
    assert "accept" in str(raised.value)
    assert resumable.plan.read_bytes() == before


def test_a_fingerprint_that_is_unknown_is_the_same_whatever_the_reason(resumable: StudyFolder) -> None:
    terms = load_config(resumable)
    unknown = {"name": "Frames", "items": None, "fingerprint": None}
    before, now = (
        replace(terms, data={"train": unknown | {"fingerprint_reason": reason}}) for reason in ("then", "now")
    )
    assert now.differences(before) == {}
    assert list(terms.differences(before)) != []


@pytest.mark.parametrize("change", ["plan", "argument", "data"])
def test_an_accepted_change_goes_on_and_is_recorded(change: str, resumable: StudyFolder) -> None:
    make, arguments, _ = CHANGES[change]
    finished = {run.start.name for run in runs(resumable) if run.end and run.end.status == "FINISHED"}
    result = study(make(), "begun", resume=True, accept_changes=True, **arguments)
    assert finished < {run.start.name for run in runs(resumable)}
    if "plan" in arguments:
        assert result.config.plan.delta == 0.02
    (parent,) = [run for run in runs(resumable) if run.start.kind == "study"]
    kept = f"{resumable.plan.read_text()} {resumable.result.read_text()} {parent.tags} {parent.params}"
    what = {"plan": "plan.delta", "argument": "arguments.augment", "data": "data.train.fingerprint"}
    assert what[change] in kept, "nothing says that the study was begun on other terms"
    assert what[change] in result.warnings["changes_accepted"]
    resumable.result.unlink()
    retold = gather(resumable).answer
    assert retold is not None
    assert retold.warnings == result.warnings


def test_a_trial_that_only_waited_when_its_process_died_is_no_hindrance(resumable: StudyFolder) -> None:
    storage = f"sqlite:///{resumable.optuna_db}"
    (name, *_) = optuna.get_all_study_names(storage)
    optuna.load_study(study_name=name, storage=storage).enqueue_trial({"lr": 0.1})
    study(named(digits()), "begun", resume=True)
    for name in optuna.get_all_study_names(storage):
        ended = {trial.state for trial in optuna.load_study(study_name=name, storage=storage).trials}
        assert ended <= {TrialState.COMPLETE, TrialState.FAIL}


def test_a_resume_without_a_change_goes_on_under_the_same_plan(resumable: StudyFolder) -> None:
    result = study(named(digits()), "begun", resume=True)
    assert result.config.plan.preset == "quick"


def test_the_mend_that_a_resume_by_name_gives_works(resumable: StudyFolder) -> None:
    """It says: call lrsearch.search(task, 'begun', resume=True), of which the plan is no part."""
    with pytest.raises(InputError, match=r"lrsearch\.search\(task, 'begun', resume=True\)"):
        lrsearch.resume("begun")
    result = lrsearch.search(
        named(digits()), "begun", resume=True, tracking_uri=NOWHERE, progress=Untracked("begun")
    )
    assert result.config.total_steps == 90


def test_only_one_process_works_on_a_study(resumable: StudyFolder) -> None:
    lock = FileLock(resumable.path / "study.lock")
    with lock, pytest.raises(InputError, match="another process is at work on this study"):
        study(named(digits()), "begun", resume=True)


def test_what_is_not_there_cannot_be_resumed(resumable: StudyFolder) -> None:
    with pytest.raises(InputError, match="no such study; there are begun"):
        study(named(digits()), "begin", resume=True)
    with pytest.raises(InputError, match="no such study"):
        lrsearch.resume("begin")
