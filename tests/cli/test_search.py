"""`lrsearch search` and `lrsearch resume`: what they print and where, how they end, and how they go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook

import lrsearch
from lrsearch.core.study_plan import STAGES
from tests.conftest import Command
from tests.imports import loaded_by
from tests.tracking.store import Store

TASKS = """
import time
import torch
from torch import nn
import lrsearch

inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
targets = (inputs[:, 0] + 0.3 * inputs[:, 1] > 0).long()
batches = [(inputs[k : k + 8], targets[k : k + 8]) for k in range(0, 64, 8)]

def sgd(parameters, lr):
    return torch.optim.SGD(parameters, lr=lr)

def make(**changed):
    parts = dict(
        model=lambda: nn.Linear(4, 2), optimizer=sgd, loss=nn.CrossEntropyLoss(),
        train_loader=batches, val_loader=batches,
    )
    return lrsearch.Task(**{**parts, **changed})

def small():
    print("building")
    return make()

def no_validation():
    return make(val_loader=None)

def metric_of_text():
    return make(metrics={"grade": lambda outputs, targets: "good"})

def another_each_time():
    generator = torch.Generator().manual_seed(0)

    def model():
        net = nn.Linear(4, 2)
        nn.init.normal_(net.weight, generator=generator)
        return net

    return make(model=model)

class Tired(nn.Linear):  # does something else after so many batches
    def __init__(self, batches, then):
        super().__init__(4, 2)
        self.left, self.then = batches, then

    def forward(self, rows):
        self.left -= self.training
        outputs = super().forward(rows)
        return outputs if self.left >= 0 else self.then(outputs)

def explodes():
    return make(model=lambda: Tired(5, lambda outputs: outputs * float("nan")))

class NoLuckError(Exception):
    pass

def no_luck(outputs):
    raise NoLuckError("out of luck")

def raises():
    return make(model=lambda: Tired(105, no_luck))  # more than a sweep takes

def interrupt(outputs):
    raise KeyboardInterrupt

def interrupted():
    return make(model=lambda: Tired(105, interrupt))

def untrained():
    return make(step=lambda model, batch: 0.0 * model(batch[0]).sum() + 1.0, loss=None)

class Slow:
    def __iter__(self):
        for batch in batches:
            time.sleep(0.004)
            yield batch

    def __len__(self):
        return len(batches)

def slow():
    return make(train_loader=Slow())

def train(trial, width: int = 4):
    loop(trial, width)

def learn(what: lrsearch.Trial):
    loop(what, 4)

def loop(trial, width):
    torch.manual_seed(trial.seed)
    model = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))
    optimizer = sgd(model.parameters(), trial.lr)
    scheduler = trial.schedule.build(optimizer, trial.steps)
    for step in range(1, trial.steps + 1):
        rows, labels = batches[step % 8]
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(rows), labels)
        loss.backward()
        optimizer.step()
        scheduler.step()
        trial.report(step, train_loss=loss)
    trial.report(trial.steps, val_loss=nn.functional.cross_entropy(model(inputs), targets))
"""

NOWHERE = ("--tracking-uri", "http://127.0.0.1:9", "--sync-timeout", "0")
QUICK = ("--steps", "40", "--plan", "quick", *NOWHERE)
LONGER = ("--steps", "120", "--plan", "quick", *NOWHERE)
"""Than a sweep."""


@pytest.fixture(autouse=True)
def tasks(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)


@pytest.fixture
def updates() -> Iterator[list[object]]:
    """Every step that any optimizer takes."""
    taken: list[object] = []
    hook = register_optimizer_step_post_hook(lambda optimizer, *_: taken.append(optimizer))
    yield taken
    hook.remove()


def program(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("lrsearch")), *words]


def same(said: dict[str, Any]) -> dict[str, Any]:
    """What two studies of one seed have in common: all but their names and places."""
    return {key: value for key, value in said.items() if key not in ("name", "folder", "run_id", "tracking")}


def trials(name: str) -> list[dict[str, Any]]:
    """What was trained, and what came of it."""
    frame = lrsearch.load(name).trials.drop(columns="seconds")
    return json.loads(frame.to_json(orient="records"))  # type: ignore[no-any-return]


# --- the answer -------------------------------------------------------------------------------------------


def test_the_installed_command_searches_digits_and_prints_one_object(store: Store) -> None:
    words = ["search", "digits", "--name", "demo", "--epochs", "2", "--plan", "quick", "--json"]
    done = subprocess.run(
        program(*words, "--tracking-uri", store.uri, "--sync-timeout", "60"),
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    said = json.loads(done.stdout)
    asked = {
        "lr",
        "schedule",
        "interval",
        "tolerance",
        "objective",
        "noise",
        "warnings",
        "cost_run_equivalents",
    }
    assert done.returncode == 0, done.stderr
    assert {*asked, "stages"} <= said.keys()
    assert 0.01 < said["lr"] < 1
    assert said["objective"] < 0.5
    assert said["cost_run_equivalents"] <= 10.5
    assert [stage["stage"] for stage in said["stages"]] == list(STAGES)
    assert said["tracking"] == "synced"
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines if line.split(":")[0] in STAGES] == list(STAGES)
    assert "at most 10.2 run-equivalents, that is 918 updates" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_answer_is_three_lines_then_the_stages_and_the_code(cli: Command, home: Path) -> None:
    answer = cli("search", "tasks.py:small", "--name", "a", *QUICK)
    lines = answer.out.splitlines()
    assert answer.code == 0
    assert [line.split()[0] for line in lines[:3]] == ["lr", "schedule", "cost"]
    assert lines[3] == ""
    assert [line.split()[0] for line in lines if line.strip() and line.split()[0] in STAGES] == list(STAGES)
    assert f"folder  {home / 'a'}" in lines
    assert "MLflow  lrsearch ui a   (http://127.0.0.1:9)" in lines
    assert "scheduler" in lines[-2]
    remarks = lrsearch.load("a").warnings
    assert remarks
    assert [name for name, text in remarks.items() if f"{name}: {text}" not in lines] == []
    assert answer.err.count("lrsearch sync a") == 1
    assert "http://127.0.0.1:9: ConnectionRefusedError: " in answer.err


def test_one_seed_under_two_names_gives_the_same_trials_and_the_same_answer(
    cli: Command, updates: list[object]
) -> None:
    words = ["search", "tasks.py:small", *QUICK, "--seed", "3", "--json"]
    first, second = (json.loads(cli(*words, "--name", name).out) for name in ("first", "second"))
    assert same(first) == same(second)
    assert trials("first") == trials("second")
    # A finished study is answered from its record.
    updates.clear()
    again = json.loads(cli("resume", "first", "--json").out)
    assert (same(again), updates) == (same(first), [])


def test_plan_file_objective_and_quiet_are_heeded(cli: Command) -> None:
    Path("my.toml").write_text('preset = "quick"\nsteps = 30\n[coarse]\npoints = 3\nextensions = 0\n')
    words = ["--plan", "my.toml", "--objective", "train/loss", "--quiet", "--json"]
    answer = cli("search", "tasks.py:small", "--name", "a", *words, *NOWHERE)
    said = json.loads(answer.out)
    plan = lrsearch.load("a").config.plan
    assert (said["metric"], plan.objective.metric) == ("train/loss", "train/loss")
    assert (plan.steps, plan.coarse.points, plan.budget) == (30, 3, 12.4)
    assert [line for line in answer.err.splitlines() if "lrsearch sync a" not in line] == ["building"]


# --- before it ---------------------------------------------------------------------------------------------


def test_a_dry_run_prints_the_plan_and_leaves_nothing(
    cli: Command, home: Path, updates: list[object]
) -> None:
    answer = cli("search", "digits", "--name", "a", "--epochs", "2", "--plan", "quick", "--dry-run")
    text = " ".join(answer.out.split())
    assert (answer.code, answer.err) == (0, "")
    assert [stage for stage in STAGES if stage not in text] == []
    assert (
        "at most 10.2 run-equivalents, that is 918 updates (a full training: 90 updates, 2 epochs of 45)"
        in text
    )
    assert updates == []
    assert not home.exists()


def test_a_dry_run_as_json_is_the_plan_and_its_costs(cli: Command, home: Path) -> None:
    answer = cli("search", "tasks.py:small", "--name", "a", *QUICK, "--dry-run", "--json")
    said = json.loads(answer.out)
    assert (said["plan"]["preset"], said["plan"]["steps"], said["steps"]) == ("quick", 40, 40)
    assert (said["cost_run_equivalents"], said["cost_steps"]) == (11.5, 460)
    assert sum(stage["least"] for stage in said["stages"]) <= said["cost_run_equivalents"]
    assert not home.exists()


def test_a_direction_that_is_given_is_planned(cli: Command) -> None:
    words = ["--name", "a", "--objective", "val/bce", "--direction", "minimize", "--dry-run", "--json"]
    plan = json.loads(cli("search", "tasks.py:train", *QUICK, *words).out)["plan"]
    assert plan["objective"] == {"metric": "val/bce", "direction": "minimize", "use": "final"}


def test_a_dry_run_finds_what_is_wrong_too(cli: Command) -> None:
    answer = cli("search", "tasks.py:no_validation", "--name", "a", *QUICK, "--dry-run")
    assert (answer.code, answer.out) == (2, "")
    assert "val_loader" in answer.err


def test_the_help_of_every_option_costs_next_to_nothing(
    cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    options = (
        "name epochs steps plan objective direction seed device set tag tracking-uri experiment "
        "checkpoint-every sync-timeout dry-run json quiet debug"
    )
    text = cli("search", "--help").out
    assert [option for option in options.split() if f"--{option} " not in text] == []
    code = "from lrsearch.cli import app\ntry: app(['search', '--help'])\nexcept SystemExit: pass"
    assert loaded_by(code) <= {"rich", "typer", "pydantic"}


# --- bad input --------------------------------------------------------------------------------------------

PLANS = {
    "unknown.toml": "points = 3",
    "nested.toml": "[coarse]\npionts = 3",
    "poor.toml": "budget = 0",
    "scarce.toml": "budget = 3",
    "empty.toml": "[decay]\nfamilies = []",
    "range.toml": '[decay]\nfamilies = [{name = "wsd", decay = 1.5}]',
    "nobody.toml": '[decay]\nfamilies = ["lineal"]',
    "broken.toml": "budget = = 3",
}
BAD = [
    ("no validation data", ["tasks.py:no_validation"], ["val_loader=None", "val/loss", "train/loss"]),
    ("a metric that nobody reports", ["digits", "--objective", "val/f1"], ["'val/f1'", "val/accuracy"]),
    (
        "a direction that no name says",
        ["tasks.py:train", "--steps", "40", "--objective", "val/bce"],
        ["'val/bce'", "--direction"],
    ),
    ("another model each time", ["tasks.py:another_each_time"], ["Task.model", "one seed"]),
    ("a plan with an unknown key", ["digits", "--plan", "unknown.toml"], ["points=3", "unknown"]),
    ("a stage with an unknown key", ["digits", "--plan", "nested.toml"], ["coarse.pionts=3", "points"]),
    ("no budget", ["digits", "--plan", "poor.toml"], ["budget=0", "above 0"]),
    ("too small a budget", ["digits", "--plan", "scarce.toml"], ["budget=3.0", "raise it"]),
    ("no families", ["digits", "--plan", "empty.toml"], ["decay.families=()", "at least one"]),
    ("a parameter out of range", ["digits", "--plan", "range.toml"], ["1.5"]),
    ("an unknown family", ["digits", "--plan", "nobody.toml"], ["'lineal'", "linear"]),
    ("a plan that is no TOML", ["digits", "--plan", "broken.toml"], ["'broken.toml'", "TOML"]),
    ("no such plan file", ["digits", "--plan", "lost.toml"], ["'lost.toml'", "check the path"]),
    ("no such preset", ["digits", "--plan", "slow"], ["plan='slow'", "quick, default, thorough"]),
    ("epochs and steps", ["digits", "--epochs", "2", "--steps", "90"], ["steps=90", "epochs=2"]),
    ("no epochs", ["digits", "--epochs", "0"], ["epochs=0", "at least 1"]),
    ("too few steps", ["digits", "--steps", "9"], ["steps=9", "at least 20"]),
    ("a negative seed", ["digits", "--seed", "-1"], ["seed=-1", "from 0"]),
    ("no checkpoints", ["digits", "--checkpoint-every", "0"], ["checkpoint_every=0.0", "above 0"]),
    ("a name that is no file name", ["digits", "--name", "a/b"], ["name='a/b'", "use letters"]),
    ("no name at all", ["digits", "--name", ""], ["name=''", "empty"]),
    ("no such device", ["digits", "--device", "abacus"], ["device='abacus'", "cpu"]),
    ("no such task", ["digit"], ["TASK", "digits, fashion-mnist, mnist"]),
    ("a tag without a value", ["digits", "--tag", "team"], ["--tag", "NAME=VALUE"]),
    ("a loop that has no epochs", ["tasks.py:train", "--epochs", "2"], ["epochs=2", "give steps"]),
    ("--set that it does not take", ["tasks.py:train", "--set", "depth=2"], ["'depth=2'", "it takes width"]),
    ("--set of the trial", ["tasks.py:train", "--set", "trial=2"], ["'trial=2'", "it takes width"]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), [pytest.param(w, s, id=name) for name, w, s in BAD])
def test_bad_input_is_one_line_before_any_training(
    words: list[str], said: list[str], cli: Command, home: Path, updates: list[object]
) -> None:
    for name, text in PLANS.items():
        Path(name).write_text(text)
    answer = cli("search", *([] if "--name" in words else ["--name", "a"]), *words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("lrsearch: ")
    assert answer.err.count("\n") == 1
    assert [part for part in said if part not in answer.err] == []
    assert updates == []
    assert not home.exists() or not list(home.iterdir())


def test_without_a_name_nothing_begins(cli: Command) -> None:
    answer = cli("search", "digits")
    assert (answer.code, answer.out) == (2, "")
    assert "--name" in answer.err


def test_a_name_that_exists_says_how_to_resume_or_rename(cli: Command, home: Path) -> None:
    (home / "a").mkdir(parents=True)
    (home / "a" / "something").touch()
    answer = cli("search", "tasks.py:small", "--name", "a", *QUICK)
    assert (answer.code, answer.out) == (2, "")
    assert "name='a'" in answer.err
    assert "resume it, or take another name" in answer.err


@pytest.mark.parametrize(("task", "said"), [
    ("explodes", ["every lr from", "diverged"]),
    ("untrained", ["every lr from", "gave the same val/loss"]),
    ("raises", ["trials raised", "out of luck"]),
])  # fmt: skip
def test_a_study_that_cannot_go_on_is_one_line_and_code_1(task: str, said: list[str], cli: Command) -> None:
    answer = cli("search", f"tasks.py:{task}", "--name", "a", *LONGER, "--quiet")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.count("\n") == 1
    assert [part for part in said if part not in answer.err] == []


def test_a_metric_that_is_no_number_is_named(cli: Command) -> None:
    answer = cli("search", "tasks.py:metric_of_text", "--name", "a", *QUICK, "--quiet")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "grade" in answer.err


@pytest.mark.parametrize(("words", "code", "said"), [
    (["lost"], 2, ["name='lost'", "there are sweep"]),
    (["?"], 2, ["name='?'", "use letters"]),
    (["sweep"], 1, ["no study there"]),
])  # fmt: skip
def test_what_cannot_be_resumed_is_said(
    words: list[str], code: int, said: list[str], cli: Command, home: Path
) -> None:
    (home / "sweep" / "journal").mkdir(parents=True)  # as a range test leaves it
    answer = cli("resume", *words)
    assert (answer.code, answer.out, answer.err.count("\n")) == (code, "", 1)
    assert [part for part in said if part not in answer.err] == []


# --- a loop of one's own ----------------------------------------------------------------------------------


def test_a_training_function_is_searched(cli: Command) -> None:
    words = ["--steps", "200", "--plan", "quick", "--set", "width=8", "--json"]
    answer = cli("search", "tasks.py:train", "--name", "a", *words, *NOWHERE)
    said = json.loads(answer.out)
    assert (answer.code, said["task"]) == (0, "train")
    assert said["lr"] > 1e-3


def test_a_training_function_is_swept_with_its_settings(cli: Command) -> None:
    words = ["range-test", "tasks.py:train", "--steps", "100", "--no-tracking", "--json"]
    answers = [cli(*words, *more) for more in ([], ["--set", "width=4"], ["--set", "width=16"])]
    first, same_width, wider = (json.loads(answer.out) for answer in answers)
    annotated = json.loads(cli("range-test", "tasks.py:learn", *words[2:]).out)
    assert first == same_width
    assert (annotated["rules"], annotated["task"]) == (first["rules"], "learn")
    assert first["rules"] != wider["rules"]
    assert first["task"] == "train"


# --- interruption -----------------------------------------------------------------------------------------


def end(words: list[str], number: signal.Signals, when: str) -> tuple[int, str, str]:
    """Ends a command by a signal, once a run of this name has points."""
    process = subprocess.Popen(
        program(*words),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    journal = Path(os.environ["LRSEARCH_HOME"]) / "cut" / "journal"
    while not any(b"points" in path.read_bytes() for path in journal.glob(f"{when}*.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_an_interrupted_study_says_how_to_go_on_and_does(cli: Command) -> None:
    begin = ["search", "tasks.py:slow", "--name", "cut", *QUICK]
    for words, number, when, code, word in (
        (begin, signal.SIGINT, "coarse-01", 130, "interrupted"),
        (["resume", "cut", *NOWHERE], signal.SIGTERM, "confirm-00", 143, "terminated"),
    ):
        returncode, out, err = end(words, number, when)
        assert (returncode, out) == (code, "")
        assert err.splitlines()[-1] == f"lrsearch: {word}; continue with: lrsearch resume cut"
        assert "Traceback" not in err

    resumed = cli("resume", "cut", *NOWHERE, "--json")
    whole = cli("search", "tasks.py:slow", "--name", "whole", *QUICK, "--json")
    assert (resumed.code, whole.code) == (0, 0)
    assert same(json.loads(resumed.out)) == same(json.loads(whole.out))
    assert trials("cut") == trials("whole")


MAX_TIME = "10"
"""Seconds: by then the study is past its imports, which leave files open where they are cut short."""


def test_a_study_stops_when_its_time_is_over(cli: Command) -> None:
    endless = ("--steps", "10000000", "--plan", "quick", *NOWHERE)
    answer = cli("search", "tasks.py:slow", "--name", "long", *endless, "--max-time", MAX_TIME)
    assert (answer.code, answer.out) == (130, "")
    assert "lrsearch: interrupted; " in answer.err
    assert cli("search", "tasks.py:slow", "--name", "none", *endless, "--max-time", "0").code == 2


def test_time_is_over_also_in_the_background_of_a_script(cli: Command) -> None:
    """There a shell has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        endless = ("--steps", "10000000", "--plan", "quick", *NOWHERE)
        answer = cli("search", "tasks.py:slow", "--name", "long", *endless, "--max-time", MAX_TIME)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (answer.code, answer.out) == (143, "")
    assert "lrsearch: terminated; " in answer.err


def test_a_changed_task_is_refused_with_the_difference(cli: Command) -> None:
    stopped = cli("search", "tasks.py:interrupted", "--name", "a b", *LONGER)
    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.err.splitlines()[-1] == "lrsearch: interrupted; continue with: lrsearch resume 'a b'"
    Path("tasks.py").write_text(TASKS.replace("lr=lr)", "lr=lr, momentum=0.5)"))
    refused = cli("resume", "a b", *NOWHERE)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "momentum" in refused.err
    assert "--accept-changes" in refused.err


def test_before_the_study_begins_there_is_nothing_to_resume(cli: Command) -> None:
    Path("stops.py").write_text("def task():\n    raise KeyboardInterrupt\n")
    answer = cli("search", "stops.py:task", "--name", "a", *QUICK)
    assert (answer.code, answer.out) == (130, "")
    assert answer.err == "lrsearch: interrupted; the study had not begun\n"
