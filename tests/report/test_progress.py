"""A study as it goes on: live in a terminal, a line a stage elsewhere, and next to no cost."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import pytest

from lrsearch.core.answer import StageResult
from lrsearch.core.observer import Observer
from lrsearch.core.study_plan import StudyPlan
from lrsearch.core.trial import TrialResult
from lrsearch.report import progress as module
from lrsearch.report.progress import StudyProgress, SweepProgress
from lrsearch.testing import ObserverSuite
from tests.report.studies import STEPS, plan_of, stages_of, trial

PLAN = plan_of()


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True

    def frames(self) -> list[str]:
        """What was shown one after the other, without the codes that move the cursor."""
        plain = re.sub(r"\x1b\[[0-9;]*m|\r", "", self.getvalue())
        frames = re.split(r"(?:\x1b\[[0-9;?]*[a-zA-Z])+", plain)
        return [frame for frame in frames if "run-equivalents" in frame]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(module, "_REFRESH_S", 0.0)  # every event is drawn
    return Terminal()


@contextmanager
def shown(terminal: Terminal, plan: StudyPlan = PLAN) -> Iterator[StudyProgress]:
    with redirect_stderr(terminal), StudyProgress(plan, STEPS) as progress:
        yield progress


def run(progress: StudyProgress, result: TrialResult, number: int) -> None:
    """A training, as the search tells of it."""
    progress.trial_begins(result.spec, number)
    for step in range(1, result.steps_done + 1, 50):
        progress.trial_step(step)
    progress.trial_step(result.steps_done)
    progress.trial_ends(result)


def sweep(progress: StudyProgress, seed: int, steps: int) -> None:
    progress.sweep_begins(seed, steps, {})
    progress.sweep_step(seed, steps, 0.1, 2.3)


def last(terminal: Terminal) -> str:
    return " ".join(terminal.frames()[-1].split())


# --- in a terminal ----------------------------------------------------------------------------------------


def test_the_plan_and_its_cost_come_first(terminal: Terminal) -> None:
    with shown(terminal):
        pass
    assert "at most 16 run-equivalents, that is 3,200 updates" in terminal.getvalue()


def test_stage_training_and_best_are_shown(terminal: Terminal) -> None:
    with shown(terminal) as progress:
        progress.stage_begins("coarse")
        run(progress, trial("coarse", "constant", 0.05), 0)
        progress.trial_begins(trial("coarse", "linear", 0.15, seed=3).spec, 1)
        progress.trial_step(60)
        assert "coarse 2 · lr 0.15 linear · seed 3, step 60/200 · best val/loss 0.3600 at 0.05" in last(
            terminal
        )


def test_a_sweep_has_no_lr(terminal: Terminal) -> None:
    with shown(terminal) as progress:
        progress.stage_begins("range-test")
        sweep(progress, 7, 60)
        assert "range-test · seed 7, step 60/60" in last(terminal)


@pytest.mark.parametrize(("trials", "best"), [
    ([("constant", 0.15, 200), ("constant", 0.05, 200), ("constant", 0.0375, 200)], "0.3600 at 0.05"),
    ([("constant", 0.05, 50), ("constant", 0.15, 200)], "0.435"),  # a longer training counts for more
    ([("constant", 0.05, 200), ("linear", 0.1, 50)], "0.3600 at 0.05"),
    ([("constant", 0.15, 200), ("constant", 0.6, 200)], "0.435"),  # a diverged one counts for nothing
])  # fmt: skip
def test_the_best_is_the_best_of_the_longest(
    trials: list[tuple[str, float, int]], best: str, terminal: Terminal
) -> None:
    with shown(terminal) as progress:
        progress.stage_begins("coarse")
        for number, (name, lr, steps) in enumerate(trials):
            run(progress, trial("coarse", name, lr, steps=steps), number)
        assert f"best val/loss {best}" in last(terminal)


def test_of_an_accuracy_the_best_is_the_highest(terminal: Terminal) -> None:
    with shown(terminal, plan_of("val/accuracy")) as progress:
        progress.stage_begins("coarse")
        for number, lr in enumerate((0.15, 0.05, 0.0375)):
            run(progress, trial("coarse", "constant", lr, metric="val/accuracy"), number)
        assert "best val/accuracy 0.8200 at 0.05" in last(terminal)


def test_the_baseline_is_no_candidate(terminal: Terminal) -> None:
    with shown(terminal) as progress:
        progress.stage_begins("confirm")
        run(progress, trial("confirm", "constant", 1e-3, optimizer="adam", loss=0.1), 0)
        assert "best" not in last(terminal)


def test_what_is_spent_counts_sweeps_trainings_and_the_one_that_runs(terminal: Terminal) -> None:
    with shown(terminal) as progress:
        progress.stage_begins("range-test")
        sweep(progress, 0, 100)
        sweep(progress, 1, 100)
        assert "1.0 of at most 16 run-equivalents" in last(terminal)
        progress.stage_ends(StageResult("range-test", (), 1.5, stages_of()[0].found))
        progress.stage_begins("coarse")
        run(progress, trial("coarse", "constant", 0.05), 0)
        progress.trial_ends(trial("coarse", "constant", 0.05))  # asked for again: it is on record
        progress.trial_begins(trial("coarse", "constant", 0.15).spec, 1)
        progress.trial_step(100)
        assert "3.0 of at most 16 run-equivalents" in last(terminal)


def test_the_time_left_is_that_of_the_budget_at_the_speed_until_now(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with shown(terminal) as progress:
        progress.stage_begins("coarse")
        progress.trial_ends(trial("coarse", "constant", 0.0375))  # found in the record, so it took no time
        assert "left" not in last(terminal)
        progress.trial_begins(trial("coarse", "constant", 0.05).spec, 1)
        now = 10.0
        progress.trial_step(100)  # half a training in 10 s, 14.5 more at most
        assert "at most 4 min 50 s left" in last(terminal)


def test_late_in_a_study_no_more_is_left_than_its_stages_may_take(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    plan = plan_of(confirm={"seeds": 1, "max_seeds": 1})
    with shown(terminal, plan) as progress:
        progress.stage_begins("confirm")
        progress.trial_begins(trial("confirm", "constant", 0.05).spec, 0)
        now = 60.0
        progress.trial_step(200)  # one of three in a minute
        assert "at most 2 min left" in last(terminal)


def test_nothing_of_it_stays_on_the_screen(terminal: Terminal) -> None:
    with shown(terminal) as progress:
        progress.stage_begins("coarse")
        run(progress, trial("coarse", "constant", 0.05), 0)
    assert terminal.getvalue().endswith("\x1b[2K")
    assert "best lr" not in terminal.getvalue()


def test_what_a_task_prints_stands_above(terminal: Terminal) -> None:
    with shown(terminal) as progress:
        progress.stage_begins("coarse")
        print("epoch done", file=sys.stderr)
    assert "epoch done" in terminal.getvalue()


def test_it_is_drawn_at_most_ten_times_a_second(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REFRESH_S", 0.1)
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with shown(terminal) as progress:
        progress.stage_begins("coarse")
        before = len(terminal.frames())
        for step in range(1000):
            now = step / 1000
            progress.trial_begins(trial("coarse", "constant", 0.05).spec, step)
            progress.trial_step(step)
            progress.trial_ends(trial("coarse", "constant", 0.05))
        assert 5 <= len(terminal.frames()) - before <= 10


# --- elsewhere --------------------------------------------------------------------------------------------


def test_without_a_terminal_a_finished_stage_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with StudyProgress(PLAN, STEPS) as progress:
        capsys.readouterr()
        for stage in stages_of():
            progress.stage_begins(stage.stage)
            for number, result in enumerate(stage.trials):
                run(progress, result, number)
            progress.stage_ends(stage)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "range-test: bracket 0.0012 to 1.2 (ok); 1 run-equivalents, 1 so far",
        "coarse: best lr 0.0494, noise 0.0021; 5.12 run-equivalents, 6.12 so far",
        "fine: best lr 0.05; 1 run-equivalents, 7.12 so far",
        "decay: best first: linear at 0.1, cosine at 0.1; 5.12 run-equivalents, 12.2 so far",
        "confirm: linear at 0.1; 10 run-equivalents, 22.2 so far",
    ]


def test_a_step_costs_less_than_two_microseconds() -> None:
    with StudyProgress(PLAN, STEPS) as progress:
        progress.stage_begins("coarse")
        progress.trial_begins(trial("coarse", "constant", 0.05).spec, 0)
        best = float("inf")
        for _ in range(20):
            started = time.perf_counter()
            for step in range(1000):
                progress.trial_step(step)
            best = min(best, (time.perf_counter() - started) / 1000)
    assert best < 2e-6


class TestStudyProgress(ObserverSuite):
    def make(self) -> Observer:
        return StudyProgress(plan_of(), STEPS)


class TestSweepProgress(ObserverSuite):
    def make(self) -> Observer:
        return SweepProgress(1)
