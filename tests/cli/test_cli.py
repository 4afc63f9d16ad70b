"""The command line: what it prints and where, and the codes it ends with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lrsearch.tracking.reading import read_run
from tests.conftest import Command

TASKS = """
import torch
from torch import nn
from lrsearch import Task
from beside import FEATURES

SEEDED = torch.Generator().manual_seed(0)
BATCHES = [
    (torch.randn(8, FEATURES, generator=SEEDED), torch.randint(3, (8,), generator=SEEDED)) for _ in range(4)
]

def task(hidden: int = 8, depth: float = 1.0, name: str | None = None, *, shuffle: bool = False):
    print("building")
    return Task(
        model=lambda: nn.Sequential(nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, 3)),
        optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
        loss=nn.CrossEntropyLoss(),
        train_loader=BATCHES,
    )

class BrokenError(Exception):
    pass

def breaking():
    calls = []

    def step(model, batch):
        calls.append(1)
        if len(calls) == 15:
            raise BrokenError("out of luck\\nand of lines")
        if len(calls) == 5:
            import warnings
            warnings.warn("be careful")
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    return Task(lambda: nn.Linear(FEATURES, 3), lambda p, lr: torch.optim.SGD(p, lr=lr), BATCHES, step=step)

def interrupted():
    def step(model, batch):
        raise KeyboardInterrupt

    return Task(lambda: nn.Linear(FEATURES, 3), lambda p, lr: torch.optim.SGD(p, lr=lr), BATCHES, step=step)
"""


@pytest.fixture(autouse=True)
def tasks(tmp_path: Path) -> None:
    (tmp_path / "my_tasks.py").write_text(TASKS)
    (tmp_path / "beside.py").write_text("FEATURES = 5")


RUN = ["range-test", "--steps", "40", "--no-tracking"]


def lrsearch(*words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    program = Path(sys.executable).with_name("lrsearch")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=120)


def test_the_installed_command_prints_one_object_and_nothing_else() -> None:
    done = lrsearch("range-test", "digits", "--steps", "60", "--repeats", "2", "--no-tracking", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"lr", "rule", "bracket", "verdict", "run_id", "steps", "tracking"} <= said.keys()
    assert (said["tracking"], said["run_id"], said["name"]) == ("off", None, None)
    assert [curve["seed"] for curve in said["curves"]] == [0, 1]
    assert said["steps"] == sum(curve["steps"] for curve in said["curves"])
    assert not Path("lrsearch-runs").exists()


def test_an_answer_without_a_number_holds_null_and_never_nan(cli: Command) -> None:
    answer = cli(*RUN, "digits", "--max-lr", "1e-6", "--json")
    said = json.loads(answer.out, parse_constant=lambda name: pytest.fail(name))
    assert answer.code == 0
    assert (said["lr"], said["bracket"], said["verdict"]) == (None, None, "flat")


def test_the_table_is_for_people_and_goes_to_stdout(cli: Command) -> None:
    answer = cli(*RUN, "digits", "--repeats", "2", "--steps", "100")
    assert (answer.code, answer.err) == (0, "")
    assert "range test of digits" in answer.out
    assert "verdict" in answer.out
    assert "seed 1" in answer.out


def test_quiet_says_nothing(cli: Command) -> None:
    answer = cli(*RUN, "digits", "--quiet")
    assert (answer.code, answer.out, answer.err) == (0, "", "")


@pytest.mark.parametrize("source", ["my_tasks.py:task", "./my_tasks.py:task", "my_tasks:task"])
def test_a_task_is_found_by_file_and_by_module(source: str, cli: Command) -> None:
    """And so are the modules beside it."""
    for module in ("my_tasks", "beside"):
        sys.modules.pop(module, None)
    answer = cli(*RUN, source, "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["task"] == "task"


def test_what_a_task_prints_does_not_spoil_the_json(cli: Command) -> None:
    answer = cli(*RUN, "my_tasks.py:task", "--json")
    assert json.loads(answer.out)["task"] == "task"
    assert answer.err == "building\n"


def test_settings_are_typed_by_the_signature_and_recorded(cli: Command, tmp_path: Path) -> None:
    settings = ["hidden=16", "depth=2", "name=none", "shuffle=yes"]
    words = [word for setting in settings for word in ("--set", setting)]
    place = tmp_path / "record"
    answer = cli(
        "range-test", "my_tasks.py:task", "--steps", "20", *words, "--out", str(place),
        "--tracking-uri", "http://127.0.0.1:9", "--sync-timeout", "0", "--json",
    )  # fmt: skip
    assert answer.code == 0
    params = read_run(next((place / "journal").iterdir())).params
    assert (params["hidden"], params["depth"], params["shuffle"]) == (16, 2.0, True)
    assert "name" not in params
    # A folder outside of the home is named by its path, which `sync` takes.
    assert answer.err.rstrip().endswith(f"lrsearch sync {place}")


@pytest.mark.filterwarnings("default:be careful")
def test_a_failure_in_mid_sweep_is_one_line_and_code_1(cli: Command) -> None:
    answer = cli(*RUN, "my_tasks.py:breaking")
    warning, line = answer.err.splitlines()
    assert (answer.code, answer.out) == (1, "")
    assert warning == "lrsearch: warning: be careful"
    assert line.startswith("lrsearch: BrokenError: out of luck (in the range test, after 14 steps")


@pytest.mark.filterwarnings("default:be careful")
def test_debug_shows_the_traceback(cli: Command) -> None:
    answer = cli(*RUN, "my_tasks.py:breaking", "--debug")
    assert answer.code == 1
    assert "Traceback" in answer.err
    assert "and of lines" in answer.err
    assert answer.out == ""


def test_ctrl_c_is_code_130(cli: Command) -> None:
    answer = cli(*RUN, "my_tasks.py:interrupted")
    assert (answer.code, answer.out, answer.err.count("\n")) == (130, "", 1)
    assert "interrupted" in answer.err


@pytest.mark.parametrize("words", [["--help"], ["range-test", "--help"], ["sync", "--help"]])
def test_help_is_on_stdout(words: list[str], cli: Command) -> None:
    answer = cli(*words)
    assert (answer.code, answer.err) == (0, "")
    assert "Usage" in answer.out


def test_every_option_of_the_range_test_is_in_its_help(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    options = "min-lr max-lr steps repeats seed set tracking-uri experiment out json quiet debug tag"
    text = cli("range-test", "--help").out
    assert [option for option in options.split() if f"--{option} " not in text] == []


def test_without_a_command_the_help_is_shown(cli: Command) -> None:
    answer = cli()
    assert answer.code == 2
    assert "Usage" in answer.out + answer.err
    assert "lrsearch: " not in answer.err


def test_python_and_the_command_line_agree(cli: Command) -> None:
    import lrsearch as package
    from lrsearch.examples.digits import task

    said = json.loads(cli("range-test", "digits", "--steps", "100", "--no-tracking", "--json").out)
    result = package.range_test(task(), steps=100, tracking=False)
    assert said["lr"] == result.lr
    assert said["rules"] == result.suggestion.rules
