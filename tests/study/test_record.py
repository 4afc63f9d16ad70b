"""What stands in MLflow while a study is recorded, interrupted, killed and resumed; nothing is trained."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import pytest

from lrsearch.core.answer import Answer, Finalist
from lrsearch.core.curve import RangeTestCurve
from lrsearch.core.objective import Objective
from lrsearch.core.presets import load_plan
from lrsearch.core.response import Interval, Tolerance
from lrsearch.core.stats import Gain
from lrsearch.core.suggest import combine, suggest
from lrsearch.core.sweep_plan import SweepPlan
from lrsearch.core.trial import MetricSummary, TrialResult, TrialSpec
from lrsearch.errors import RecordError
from lrsearch.schedules.sweep import sweep_lrs
from lrsearch.study.record import About, StudyRecord
from lrsearch.study.sweep_record import read_range_test
from lrsearch.tracking.folder import StudyFolder, create_folder
from lrsearch.tracking.journal import RunJournal
from lrsearch.tracking.progress import load_state
from lrsearch.tracking.reading import RunRecord, read_run
from lrsearch.tracking.sync import Destination
from tests.tracking.runs import CHECKOUT
from tests.tracking.store import Store

STEPS = 120
TIMEOUT = 60.0
ABOUT: About = {
    "task": "toy",
    "objective": Objective(metric="val/accuracy"),
    "params": {"model": "Net", "optimizer": "SGD", "batch_size": 16, "hidden": [8, 4]},
    "tags": {"team": "vision"},
    "data": {"train": {"name": "Toy", "items": 64, "batches": 4, "fingerprint": "0123456789abcdef"}},
    "steps_per_epoch": 30,
}
FACTS = {"model": "Net", "optimizer": "Adam", "batch_size": 16, "weight_decay": 1e-4, "momentum": None}
SWEEP = SweepPlan(min_lr=1e-4, max_lr=1.0, steps=60, repeats=2)
WARMUP = {"name": "warmup", "fraction": 0.05, "inner": {"name": "step", "milestones": [0.5, 0.75]}}
PLAN = load_plan("quick")
TRACEBACK = "Traceback (most recent call last):\nValueError: bad batch"


def spec(lr: float, stage: str = "coarse", schedule: dict[str, Any] | None = None) -> TrialSpec:
    return TrialSpec(stage, lr, schedule or {"name": "constant"}, seed=7, steps=STEPS)


def result(of: TrialSpec, **changes: Any) -> TrialResult:
    metrics = {
        "train/loss": MetricSummary(2.3, 0.4, 0.3, 2.3),
        "val/accuracy": MetricSummary(0.1, 0.8, 0.1, 0.9),
    }
    done = TrialResult(of, "complete", STEPS, seconds=1.5, initial_loss=2.3, metrics=metrics)
    return replace(done, **changes)


def loss_at(step: int) -> float:
    return 2.3 * 0.99**step


def train(record: StudyRecord, of: TrialSpec, number: int, pause_at: int | None = None) -> None:
    """What a training tells its record; at a step it may wait for its end."""
    with record.trial(of, number) as trial:
        trial.begin(FACTS)
        trial.record(0, {"val/accuracy": 0.1, "epoch": 0.0})
        for step in range(1, of.steps + 1):
            trial.record(step, {"train/loss": loss_at(step), "lr": of.lr})
            if step == pause_at:
                wait_for_the_end()
            if step % 30 == 0:
                trial.record(step, {"val/accuracy": step / 200, "epoch": step / 30})
        trial.finish(result(of))


def sweep(record: StudyRecord, pause_at: int | None = None) -> None:
    """A range test of two seeds, which may wait for its end at a step of the second."""
    lrs = sweep_lrs(SWEEP.min_lr, SWEEP.max_lr, 60)
    curves = []
    with record.range_test(SWEEP) as range_test:
        for seed in (0, 1):
            losses = [2.0 - math.tanh(k / 15) + max(0, k - 45) ** 2 / 10 + 0.01 * seed for k in range(60)]
            range_test.sweep_begins(seed, 60, FACTS)
            for step, (lr, loss) in enumerate(zip(lrs.tolist(), losses, strict=True), start=1):
                range_test.sweep_step(seed, step, lr, loss)
                if seed == 1 and step == pause_at:
                    wait_for_the_end()
            curves.append(RangeTestCurve(lrs, np.array(losses), seed))
        range_test.finish(curves, combine([suggest(curve) for curve in curves]))


def wait_for_the_end(*_: object) -> None:
    print("waiting", flush=True)
    time.sleep(TIMEOUT)


@contextmanager
def interrupting() -> Iterator[None]:
    """Ctrl-C where it waits."""
    patched = mock.patch(f"{__name__}.wait_for_the_end", side_effect=KeyboardInterrupt)
    with patched, pytest.raises(KeyboardInterrupt):
        yield


def answer(gain: Gain | None = None, **changes: Any) -> Answer:
    finalists = (
        Finalist("linear", 0.2, {"name": "linear", "final": 0.0}, {8: 0.9, 9: 0.92}),
        Finalist("constant", 0.1, {"name": "constant"}, {8: 0.8, 9: 0.82}, gain=gain),
    )
    found = Answer(
        lr=0.2,
        schedule=finalists[0].schedule,
        base_lr=0.1,
        objective=0.91,
        metric="val/accuracy",
        reason="It beats constant.",
        interval=Interval(0.15, 0.3, 0.9, low_open=False, high_open=True),
        tolerance=Tolerance(0.1, 0.4, low_open=False, high_open=False),
        noise=0.01,
        margin=0.004,
        finalists=finalists,
    )
    return replace(found, **changes)


@dataclass
class Recorded:
    """A study's folder, and the store that has it all."""

    folder: StudyFolder
    store: Store
    finished: dict[str, TrialResult] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)  # of runs that were killed

    def run(self, name: str) -> RunRecord:
        runs = [read_run(path) for path in self.folder.journals()]
        (found,) = [run for run in runs if run.start.name == name]
        return found

    def key(self, name: str) -> str:
        return self.run(name).start.key

    def names(self) -> dict[str, str]:
        """The name of every run in the store, and its status."""
        return dict(self.store.rows("SELECT name, status FROM runs"))

    def steps(self, name: str, metric: str) -> list[int]:
        return [step for step, _, _ in self.store.points(self.key(name), metric)]

    def value(self, name: str, metric: str) -> float:
        ((_, value, _),) = self.store.points(self.key(name), metric)
        return float(value)


def wait_for_mirror(folder: StudyFolder) -> None:
    """Until a mirror has sent everything, whichever of them: those of killed processes still run."""
    deadline = time.monotonic() + TIMEOUT
    while (state := load_state(folder)) is None or not state.covers(folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def end_mirrors(place: Path) -> None:
    """End the mirrors that still serve a folder there."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "lrsearch.tracking.mlflow.mirror" in words and words[-1].startswith(f"{place}{os.sep}"):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def new_study(migrated: Path, place: Path) -> tuple[StudyFolder, Store, Destination]:
    store = Store(Path(shutil.copy(migrated, place / "mlflow.db")))
    return create_folder("study", out=place / "study"), store, Destination(store.uri, "lrsearch/toy")


# --- a study in which trials end in every way -------------------------------------------------------------

COMPLETE, DIVERGED, FAILED, INTERRUPTED = spec(0.1), spec(1.0), spec(0.2), spec(0.3)
WARM = spec(0.2, "decay", WARMUP)


@pytest.fixture(scope="module")
def recorded(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder, store, destination = new_study(migrated, tmp_path_factory.mktemp("recorded"))
    with StudyRecord.create(folder, destination, **ABOUT) as record:
        sweep(record)
        train(record, COMPLETE, 0)
        with record.trial(DIVERGED, 1) as trial:
            trial.begin(FACTS)
            trial.record(1, {"train/loss": 2.3, "lr": 1.0})
            trial.finish(result(DIVERGED, status="diverged", cause="loss_rose", steps_done=13))
        with record.trial(FAILED, 2) as trial:
            trial.finish(result(FAILED, status="failed", cause="ValueError", error=TRACEBACK, metrics={}))
        with interrupting():
            train(record, INTERRUPTED, 3, pause_at=75)
        train(record, WARM, 0)
        (folder.path / "weights.pt").write_bytes(b"weights")
        (folder.path / "plots").mkdir()
        (folder.path / "plots" / "response.png").write_bytes(b"png")
        record.mark_winner([COMPLETE.key])
        record.mark_winner([WARM.key])
        record.attach(WARM.key, "weights.pt")
        record.conclude(PLAN, answer(), {"best_lr": 0.2}, ["plots/response.png"])
    assert record.mirror.wait(TIMEOUT)
    return Recorded(folder, store, finished=record.finished)


def test_every_run_has_a_name_and_its_true_end(recorded: Recorded) -> None:
    assert recorded.names() == {
        "study": "FINISHED",
        "range-test": "FINISHED",
        "range-test/seed-0": "FINISHED",
        "range-test/seed-1": "FINISHED",
        "coarse-00": "FINISHED",
        "coarse-01": "FINISHED",
        "coarse-02": "FAILED",
        "coarse-03": "KILLED",
        "decay-00": "FINISHED",
    }


def test_all_runs_are_flat_children_of_the_study(recorded: Recorded) -> None:
    parent = recorded.store.run_id(recorded.key("study"))
    parents = {
        name: recorded.store.tags(recorded.key(name)).get("mlflow.parentRunId") for name in recorded.names()
    }
    assert parents.pop("study") is None
    assert set(parents.values()) == {parent}


def test_the_tags_say_what_a_run_is(recorded: Recorded) -> None:
    tags = recorded.store.tags(recorded.key("coarse-00"))
    expected = {
        "lrsearch.kind": "trial",
        "lrsearch.study": "study",
        "lrsearch.stage": "coarse",
        "team": "vision",
    }
    assert tags.items() >= {**expected, "lrsearch.trial_key": COMPLETE.key}.items()
    assert recorded.store.tags(recorded.key("study"))["lrsearch.kind"] == "study"


def test_a_trial_shows_its_params(recorded: Recorded) -> None:
    assert recorded.store.params(recorded.key("decay-00")) == {
        "task": "toy",
        "stage": "decay",
        "trial": "0",
        "seed": "7",
        "lr": "0.2",
        "steps": "120",
        "epochs": "4",
        "schedule": "warmup",
        "schedule.fraction": "0.05",
        "schedule.inner": "step",
        "schedule.inner.milestones": "[0.5, 0.75]",
        "model": "Net",
        "optimizer": "Adam",  # what was trained with, not what the task says
        "weight_decay": "0.0001",
        "batch_size": "16",
        "hidden": "[8, 4]",
    }


def test_a_trial_shows_its_points_by_step(recorded: Recorded) -> None:
    points = recorded.store.points(recorded.key("coarse-00"), "train/loss")
    assert [(step, value) for step, value, _ in points] == [(k, loss_at(k)) for k in range(1, STEPS + 1)]
    assert recorded.steps("coarse-00", "lr") == list(range(1, STEPS + 1))
    assert recorded.steps("coarse-00", "val/accuracy") == [0, 30, 60, 90, 120]
    assert recorded.steps("coarse-00", "epoch") == [0, 30, 60, 90, 120]


def test_a_trial_shows_its_summaries(recorded: Recorded) -> None:
    expected = {
        "objective": 0.8,
        "diverged": 0.0,
        "seconds": 1.5,
        "steps_done": 120.0,
        "train/loss_final": 0.4,
        "train/loss_best": 0.3,
        "val/accuracy_final": 0.8,
        "val/accuracy_best": 0.9,
    }
    assert {name: recorded.value("coarse-00", name) for name in expected} == expected


@pytest.mark.parametrize(
    ("objective", "best"), [(Objective(), None), (Objective(metric="val/score", direction="minimize"), 0.2)]
)
def test_a_metric_has_a_best_where_its_direction_is_known(
    folder: StudyFolder, objective: Objective, best: float | None
) -> None:
    score = MetricSummary(0.5, 0.4, 0.2, 0.7, 3)
    about: About = {**ABOUT, "objective": objective}
    with StudyRecord.create(folder, NOWHERE, **about) as record, record.trial(spec(0.1), 0) as trial:
        trial.finish(result(spec(0.1), metrics={"val/score": score}))
    (run,) = [found for path in folder.journals() if (found := read_run(path)).start.kind == "trial"]
    assert run.summary.get("val/score_best") == best
    assert run.summary["val/score_final"] == 0.4


def test_a_diverged_trial_is_no_failure_and_has_no_objective(recorded: Recorded) -> None:
    assert recorded.value("coarse-01", "diverged") == 1
    assert recorded.store.tags(recorded.key("coarse-01"))["lrsearch.cause"] == "loss_rose"
    assert recorded.steps("coarse-01", "objective") == []


def test_a_trial_that_failed_before_it_began_has_a_run_with_its_traceback(recorded: Recorded) -> None:
    assert recorded.store.tags(recorded.key("coarse-02"))["lrsearch.error"] == TRACEBACK
    assert recorded.store.params(recorded.key("coarse-02"))["lr"] == "0.2"


def test_an_interrupted_trial_has_no_result(recorded: Recorded) -> None:
    assert set(recorded.finished) == {COMPLETE.key, DIVERGED.key, FAILED.key, WARM.key}


def test_the_winner_is_tagged_and_no_other(recorded: Recorded) -> None:
    tags = {name: recorded.store.tags(recorded.key(name)).get("lrsearch.winner") for name in recorded.names()}
    assert {name for name, tag in tags.items() if tag == "true"} == {"decay-00"}


def test_an_artifact_comes_to_a_run_that_has_ended(recorded: Recorded) -> None:
    weights = recorded.store.artifacts(recorded.key("decay-00")) / "weights.pt"
    assert weights.read_bytes() == b"weights"


def test_the_study_shows_the_answer(recorded: Recorded) -> None:
    key = recorded.key("study")
    assert recorded.store.params(key) == {
        "task": "toy",
        "model": "Net",
        "optimizer": "SGD",
        "batch_size": "16",
        "hidden": "[8, 4]",
        "objective": "val/accuracy",
        "direction": "maximize",
        "lr": "0.2",
        "schedule": "linear",
        "schedule.final": "0.0",
    }
    assert recorded.value("study", "best_lr") == 0.2
    assert recorded.steps("study", "noise") == []
    assert (recorded.store.artifacts(key) / "plots" / "response.png").is_file()


def test_the_studys_description_links_its_runs(recorded: Recorded) -> None:
    text = recorded.store.tags(recorded.key("study"))["mlflow.note.content"]
    page = f"#/experiments/1/runs/{recorded.store.run_id(recorded.key('range-test'))}"
    assert f"[range test]({page}?" in text
    assert "{run:" not in text


def test_the_views_that_the_description_links_are_in_the_experiment(recorded: Recorded) -> None:
    key = recorded.key("study")
    text = recorded.store.tags(key)["mlflow.note.content"]
    views = {str(name) for (name,) in recorded.store.rows("SELECT key FROM experiment_tags")}
    linked = {f"mlflow.sharedViewState.{name}" for name in re.findall(r"viewStateShareKey=([\w-]+)", text)}
    assert linked == {f"mlflow.sharedViewState.{key}-{name}" for name in ("trials", "range-test")}
    assert linked <= views


def test_the_range_test_shows_its_curves_and_suggestion(recorded: Recorded) -> None:
    assert recorded.steps("range-test/seed-1", "train/loss") == list(range(1, 61))
    assert recorded.steps("range-test", "train/loss") == []
    assert recorded.value("range-test", "suggested_lr") > 0
    artifacts = recorded.store.artifacts(recorded.key("range-test"))
    assert {path.name for path in artifacts.iterdir()} == {"curve.csv", "curve.json", "curve.png"}


@pytest.mark.parametrize(
    ("plan", "changes", "found"),
    [
        (SWEEP, {}, True),
        (SWEEP.model_copy(update={"repeats": 3}), {}, False),
        (SWEEP, {"end": None}, False),
    ],
)
def test_a_range_test_is_found_again_where_it_finished_under_the_plan(
    recorded: Recorded, plan: SweepPlan, changes: dict[str, Any], found: bool
) -> None:
    known = read_range_test(replace(recorded.run("range-test"), **changes), plan)
    assert (known is not None) == found
    if known is not None:
        curves, suggestion = known
        assert suggestion == combine([suggest(curve) for curve in curves])
        assert [curve.seed for curve in curves] == [0, 1]


# --- a study that is interrupted and killed ---------------------------------------------------------------

TRIALS = [spec(lr) for lr in (0.1, 0.2, 0.4)]


def whole_study(
    folder: StudyFolder, destination: Destination, pauses: dict[str, int]
) -> dict[str, TrialResult]:
    """A study as it is begun and resumed; returns what was finished before.

    `pauses` say at which step of which run it waits for its end.
    """
    open_record = StudyRecord.resume if folder.journals() else StudyRecord.create
    with open_record(folder, destination, **ABOUT) as record:
        found = dict(record.finished)
        if record.finished_range_test(SWEEP) is None:
            sweep(record, pauses.get("range-test"))
        for number, of in enumerate(TRIALS):
            if of.key not in record.finished:
                train(record, of, number, pauses.get(f"coarse-{number:02d}"))
        record.conclude(PLAN, answer(), {"best_lr": 0.2})
    return found


def killed_study(place: str, uri: str, pauses: dict[str, int], ends: bool) -> None:
    """What the process does that is killed; it waits in mid-run, or before the end of any trial's run."""
    end = RunJournal.end if ends else wait_for_the_end
    with mock.patch.object(RunJournal, "end", end):
        whole_study(StudyFolder(Path(place)), Destination(uri, "lrsearch/toy"), pauses)


def kill(recorded: Recorded, pauses: dict[str, int], ends: bool = True) -> None:
    """Let a process go on with the study, and kill it where it waits."""
    arguments = f"{str(recorded.folder.path)!r}, {recorded.store.uri!r}, {pauses!r}, {ends!r}"
    code = f"from tests.study.test_record import killed_study; killed_study({arguments})"
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        process.kill()


def wait_until_killed(recorded: Recorded, name: str) -> str:
    """The id of a run, once MLflow says that it was killed."""
    key = recorded.key(name)
    deadline = time.monotonic() + TIMEOUT
    while (
        (state := load_state(recorded.folder)) is None or key not in state.runs or not state.runs[key].ended
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert recorded.store.status(key) == "KILLED"
    return recorded.store.run_id(key)


@pytest.fixture(scope="module")
def resumed(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """A study killed in the range test, interrupted in its first trial, killed in the second (which leaves
    half a line), killed once more between the second's result and its end, then done, and resumed when done.
    """
    folder, store, destination = new_study(migrated, tmp_path_factory.mktemp("resumed"))
    recorded = Recorded(folder, store)
    kill(recorded, {"range-test": 55})
    with interrupting():
        whole_study(folder, destination, {"coarse-00": 75})
    kill(recorded, {"coarse-01": 75})
    with recorded.run("coarse-01").path.open("ab") as file:
        file.write(b'01234567 {"type":"points",' + b"1" * 3000)
    recorded.ids = {name: wait_until_killed(recorded, name) for name in ("study", "coarse-01")}
    kill(recorded, {}, ends=False)
    recorded.finished = whole_study(folder, destination, {})
    whole_study(folder, destination, {})  # done already, and resumed all the same
    wait_for_mirror(folder)
    yield recorded
    end_mirrors(folder.path.parent)


def test_what_was_killed_and_resumed_ends_well(resumed: Recorded) -> None:
    names = (
        "study",
        "range-test",
        "range-test/seed-0",
        "range-test/seed-1",
        "coarse-00",
        "coarse-01",
        "coarse-02",
    )
    assert sorted(resumed.store.rows("SELECT name, status FROM runs")) == sorted(
        (n, "FINISHED") for n in names
    )


def test_a_resumed_run_is_the_same_run(resumed: Recorded) -> None:
    assert {name: resumed.store.run_id(resumed.key(name)) for name in resumed.ids} == resumed.ids


@pytest.mark.parametrize("name", ["coarse-00", "coarse-01", "coarse-02"])
def test_every_point_of_a_resumed_trial_is_there_once(resumed: Recorded, name: str) -> None:
    points = resumed.store.points(resumed.key(name), "train/loss")
    assert [(step, value) for step, value, _ in points] == [(k, loss_at(k)) for k in range(1, STEPS + 1)]
    assert resumed.steps(name, "val/accuracy") == [0, 30, 60, 90, 120]


@pytest.mark.parametrize("seed", [0, 1])
def test_every_point_of_a_resumed_range_test_is_there_once(resumed: Recorded, seed: int) -> None:
    assert resumed.steps(f"range-test/seed-{seed}", "train/loss") == list(range(1, 61))


@pytest.mark.parametrize(("name", "metric"), [("study", "best_lr"), ("coarse-01", "objective")])
def test_every_summary_of_a_resumed_run_is_there_once(resumed: Recorded, name: str, metric: str) -> None:
    assert resumed.steps(name, metric) == [0]


def test_a_trial_killed_after_its_result_is_finished(resumed: Recorded) -> None:
    assert resumed.finished == {of.key: result(of) for of in TRIALS[:2]}


def test_a_resumed_run_no_longer_shows_the_interruption(resumed: Recorded) -> None:
    assert resumed.store.tags(resumed.key("coarse-00"))["lrsearch.error"] == ""


# --- without a store --------------------------------------------------------------------------------------

NOWHERE = Destination("http://127.0.0.1:9", "lrsearch/toy")


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return create_folder("study", out=tmp_path / "study")


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (ValueError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_the_study_ends_as_it_really_ended(
    folder: StudyFolder, error: BaseException | None, status: str
) -> None:
    try:
        with StudyRecord.create(folder, NOWHERE, **ABOUT):
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    end = read_run(folder.journals()[0]).end
    assert end is not None
    assert end.status == status


def test_a_trial_that_failed_can_be_tried_again_in_a_run_of_its_own(folder: StudyFolder) -> None:
    of = spec(0.1)
    with StudyRecord.create(folder, NOWHERE, **ABOUT) as record:
        with record.trial(of, 0) as trial:
            trial.finish(result(of, status="failed", error=TRACEBACK, metrics={}))
        train(record, of, 0)
    with StudyRecord.resume(folder, NOWHERE, **ABOUT) as again:
        assert again.finished == {of.key: result(of)}
    assert [path.name[:9] for path in folder.journals()] == [
        "coarse-00",
        "coarse-00",
        "study-" + record.key[:3],
    ]


def test_a_range_test_without_a_finite_loss_is_recorded_all_the_same(folder: StudyFolder) -> None:
    lrs = sweep_lrs(SWEEP.min_lr, SWEEP.max_lr, 60)
    curves = [RangeTestCurve(lrs, np.array([]), seed, 0.98, 1, "not_finite") for seed in (0, 1)]
    with StudyRecord.create(folder, NOWHERE, **ABOUT) as record, record.range_test(SWEEP) as range_test:
        range_test.finish(curves, combine([suggest(curve) for curve in curves]))
    tags = Recorded(folder, Store(Path())).run("range-test").tags
    assert tags["lrsearch.verdict"] == "too_few_points"


def test_a_winner_of_before_the_resume_loses_its_tag(folder: StudyFolder) -> None:
    first, second = spec(0.1), spec(0.2)
    with StudyRecord.create(folder, NOWHERE, **ABOUT) as record:
        train(record, first, 0)
        train(record, second, 1)
        record.mark_winner([first.key])
    with StudyRecord.resume(folder, NOWHERE, **ABOUT) as again:
        again.mark_winner([second.key])
    recorded = Recorded(folder, Store(Path()))
    tags = [recorded.run(name).tags["lrsearch.winner"] for name in ("coarse-00", "coarse-01")]
    assert tags == ["false", "true"]


def test_a_study_killed_before_its_first_line_begins_anew(folder: StudyFolder) -> None:
    (folder.journal / "study-01234567.jsonl").write_bytes(b"01234567 {")
    with StudyRecord.resume(folder, NOWHERE, **ABOUT) as record:
        train(record, spec(0.1), 0)
    assert len(record.finished) == 1
    assert "has no beginning" in record.damage[0]


def test_a_folder_that_has_lost_the_studys_run_is_refused(folder: StudyFolder) -> None:
    with StudyRecord.create(folder, NOWHERE, **ABOUT) as record:
        train(record, spec(0.1), 0)
    next(folder.journal.glob("study-*")).write_bytes(b"lost")
    with pytest.raises(RecordError, match=r"no study is recorded in .*study; .*has no beginning"):
        StudyRecord.resume(folder, NOWHERE, **ABOUT)


@pytest.fixture(autouse=True)
def no_mirror_stays(tmp_path: Path) -> Iterator[None]:
    """Of those whose server never comes."""
    yield
    end_mirrors(tmp_path)
