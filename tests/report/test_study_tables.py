"""What the screen says of a study: plan and cost before, the answer in three lines and the table after."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from lrsearch.core.answer import Answer, StageResult
from lrsearch.core.findings import (
    CoarseFindings,
    ConfirmFindings,
    DecayFindings,
    Findings,
    FineFindings,
    RankedSchedule,
    SweepFindings,
)
from lrsearch.core.response import Interval, Tolerance
from lrsearch.core.stats import Gain
from lrsearch.core.study_plan import PRESETS, STAGES, load_plan
from lrsearch.core.suggest import Bracket
from lrsearch.report.study_tables import (
    answer_lines,
    plan_dict,
    plan_rows,
    plan_table,
    remark_lines,
    stage_found,
    study_html,
    study_table,
    warning_lines,
)
from tests.report.studies import answer_of, plan_of, stages_of, with_gain
from tests.report.test_tables import Reader

STAGE_RESULTS = stages_of()
ANSWER = answer_of(STAGE_RESULTS)
ATTACK = "<script>alert('&')</script> [red]"


def printed(table: Table, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def words(text: str) -> str:
    """The text with its line breaks and columns undone."""
    return " ".join(text.split())


def changed(**values: Any) -> Answer:
    return replace(ANSWER, **values)


# --- the plan ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_a_plan_says_what_it_costs_in_trainings_and_in_updates(preset: str) -> None:
    plan = load_plan(preset)
    text = words(printed(plan_table(plan, 1_000, 200)))
    assert f"at most {plan.budget:.3g} run-equivalents, that is {plan.budget * 1_000:,.0f} updates" in text
    assert "a full training: 1,000 updates, 5 epochs" in text
    assert [stage for stage in STAGES if stage not in text] == []


@pytest.mark.parametrize(("stage", "said"), [
    ("range-test", ("3 sweeps from lr 1e-07 to 10, each up to 33% of a training", "1")),
    ("coarse", (
        "3 lrs a factor of 8 apart, 3 more where the best is at an end; 1 further seed at the best", "4 to 6"
    )),
    ("fine", ("no further lr", "0")),
    ("decay", ("linear, wsd, one_cycle; the best is followed octave by octave", "4 to 6")),
    ("confirm", ("the best 2, on 2 to 4 fresh seeds, and Adam at 1e-3 once", "5 to 7")),
])  # fmt: skip
def test_each_stage_is_told_in_a_few_words(stage: str, said: tuple[str, str]) -> None:
    assert {name: rest for name, *rest in plan_rows(load_plan("default"))}[stage] == list(said)


@pytest.mark.parametrize(("changes", "stage", "said"), [
    ({"fine": {"trials": 3}}, "fine", "up to 3 lrs around the best"),
    ({"fine": {"trials": 1}}, "fine", "up to 1 lr around the best"),
    ({"proxy": 0.5}, "coarse", "at 50% of the full length"),
    ({"proxy": 0.5}, "fine", "the best and both its neighbours in full"),
    ({"decay": {"families": ["constant"]}}, "decay", "no other schedule"),
    ({"decay": {"extended": 2}}, "decay", "the best 2 are followed"),
    ({"confirm": {"seeds": 3, "max_seeds": 3}}, "confirm", "on 3 fresh seeds"),
    ({"coarse": {"replicates": 1, "extensions": 0}}, "coarse", "apart; 1 further seed at"),
])  # fmt: skip
def test_what_a_plan_changes_is_said(changes: dict[str, Any], stage: str, said: str) -> None:
    rows = {name: does for name, does, _ in plan_rows(plan_of(**changes))}
    assert said in rows[stage]


def test_no_stage_may_take_more_than_the_others_leave() -> None:
    plan = load_plan("quick")
    costs = plan_dict(plan, 100, None)["stages"]
    needed = sum(cost["least"] for cost in costs)
    assert [cost for cost in costs if cost["most"] - cost["least"] > plan.budget - needed + 1e-9] == []


def test_the_plan_as_json_can_be_read_back() -> None:
    plan = plan_of(metric="val/accuracy")
    said = json.loads(json.dumps(plan_dict(plan, 200, 50), allow_nan=False))
    assert load_plan(said["plan"]) == plan
    assert (said["cost_run_equivalents"], said["cost_steps"], said["steps"]) == (16.0, 3200, 200)
    assert [cost["stage"] for cost in said["stages"]] == list(STAGES)


def test_what_is_optimised_is_said() -> None:
    plan = load_plan({"objective": {"metric": "val/accuracy", "use": "best"}})
    assert "maximize the best val/accuracy" in printed(plan_table(plan, 100, None))


# --- the answer -------------------------------------------------------------------------------------------


def test_the_answer_is_three_lines() -> None:
    answer = with_gain(ANSWER, "constant", Gain(0.0301, 0.0276, 0.0326, 0.9, "worse"))
    answer = replace(answer, interval=Interval(0.071, 0.142, 0.9, low_open=False, high_open=False))
    assert answer_lines(answer, 22.25) == [
        "lr        0.1, 90% interval 0.071 to 0.142",
        "schedule  linear: val/loss 0.0301 better than without decay (90% bounds 0.0276 to 0.0326)",
        "cost      22.2 run-equivalents",
    ]


@pytest.mark.parametrize(("low_open", "high_open", "said"), [
    (False, False, "0.05 to 0.2"),
    (True, False, "0.05 or lower to 0.2"),
    (False, True, "0.05 to 0.2 or higher"),
    (True, True, "0.05 or lower to 0.2 or higher"),
])  # fmt: skip
def test_an_open_side_is_said(low_open: bool, high_open: bool, said: str) -> None:
    interval = Interval(0.05, 0.2, 0.9, low_open, high_open)
    assert answer_lines(changed(interval=interval), 1.0)[0].endswith(f"interval {said}")


@pytest.mark.parametrize(("gain", "said"), [
    (Gain(0.0301, None, None, 0.9, "one_seed"), "better than without decay (undecided: a single seed)"),
    (
        Gain(-0.002, -0.04, 0.03, 0.9, "undecided"),
        "0.002 worse than without decay (90% bounds -0.04 to 0.03: undecided)",
    ),
    (
        Gain(0.004, 0.001, 0.007, 0.9, "not_worse"),
        "0.004 better than without decay (90% bounds 0.001 to 0.007: less than the margin)",
    ),
    (None, "not compared with no decay"),
])  # fmt: skip
def test_the_gain_is_said_with_what_is_known_of_it(gain: Gain | None, said: str) -> None:
    assert said in answer_lines(with_gain(ANSWER, "constant", gain), 1.0)[1]


def test_that_no_decay_is_needed_is_said() -> None:
    answer = answer_of(STAGE_RESULTS, winner="constant")
    assert answer_lines(answer, 1.0)[1] == "schedule  constant: no decay is needed"


def test_that_constant_diverged_is_said() -> None:
    finalists = tuple(
        replace(finalist, diverged=True, gain=None) if finalist.schedule["name"] == "constant" else finalist
        for finalist in ANSWER.finalists
    )
    line = answer_lines(changed(finalists=finalists), 1.0)[1]
    assert line == "schedule  linear: without decay it diverged"


def test_a_warmup_is_part_of_the_name() -> None:
    schedule = {"name": "warmup", "inner": {"name": "linear"}, "fraction": 0.05}
    first, *others = ANSWER.finalists
    answer = changed(schedule=schedule, finalists=(first, replace(others[0], schedule=schedule), *others[1:]))
    assert answer_lines(answer, 1.0)[1].startswith("schedule  warmup+linear: ")


def test_remarks_tell_how_forgiving_and_how_noisy() -> None:
    answer = changed(
        tolerance=Tolerance(0.062, 0.15, low_open=False, high_open=True),
        gain_over_baseline=-0.0123,
        test={"winner": {"test/loss": 0.34567, "test/accuracy": 0.9}},
    )
    assert remark_lines(answer) == [
        "tolerance: 0.062 to 0.15 or higher costs less than 0.00985",
        "noise: 0.00213 between seeds",
        "baseline: 0.0123 worse than Adam at 1e-3 on the same seed",
        "test, winner: test/loss 0.3457, test/accuracy 0.9",
    ]


def test_a_warning_is_a_line_with_its_name() -> None:
    warnings = {"edge": "the best lr is the highest", "own_loop": "it never reported"}
    assert warning_lines(changed(warnings=warnings)) == [
        "edge: the best lr is the highest",
        "own_loop: it never reported",
    ]


def test_what_is_undecided_is_said_in_a_sentence() -> None:
    open_ = with_gain(ANSWER, "cosine", Gain(0.001, -0.02, 0.03, 0.9, "undecided"))
    assert remark_lines(open_)[0] == (
        "undecided: whether cosine at 0.1 differs from the winner, linear at 0.1, by more than the margin, "
        "0.00985, is open on these seeds"
    )
    assert not [line for line in remark_lines(ANSWER) if "undecided" in line]


# --- the stages -------------------------------------------------------------------------------------------


def test_a_row_a_stage_says_trials_divergences_cost_and_find() -> None:
    rows = [line.split("   ") for line in printed(study_table(ANSWER, STAGE_RESULTS)).splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    table = [row for row in cells if len(row) >= 4][1:]
    assert table == [
        ["range-test", "–", "–", "1", "bracket 0.0012 to 1.2 (ok)"],
        ["coarse", "6", "1", "5.12", "best lr 0.0494, noise 0.0021"],
        ["fine", "1", "0", "1", "best lr 0.05"],
        ["decay", "6", "1", "5.12", "best first: linear at 0.1, cosine at 0.1"],
        ["confirm", "10", "0", "10", "linear at 0.1"],
        ["all", "23", "2", "22.2"],
    ]


@pytest.mark.parametrize(("stage", "found", "said"), [
    ("range-test", SweepFindings(None, None, "flat", ""), "no bracket (flat)"),
    ("range-test", SweepFindings(None, Bracket(0.1, None), "ok", ""), "bracket 0.1 to open (ok)"),
    ("coarse", CoarseFindings(0.1, None, needs_warmup=True, runs_differ=None), "best lr 0.1, needs warmup"),
    ("fine", FineFindings(0.1, "low"), "best lr 0.1, the lowest tried"),
    ("decay", DecayFindings(()), "no other schedule was tried"),
    ("decay", DecayFindings((RankedSchedule("linear", 0.1),) * 4), "linear at 0.1, …"),
])  # fmt: skip
def test_other_finds_are_told_too(stage: Any, found: Findings, said: str) -> None:
    assert said in printed(study_table(ANSWER, [StageResult(stage, (), 0.5, found)]))


@pytest.mark.parametrize("winner", ["constant", "linear"])
def test_the_notebook_shows_the_same(winner: str) -> None:
    answer = replace(answer_of(STAGE_RESULTS, winner=winner), warnings={"edge": "look there"})
    page = Reader(study_html(answer, STAGE_RESULTS, "digits"))
    shown = words(page.text)
    lines = [line.split(maxsplit=1)[1] for line in answer_lines(answer, 22.25)]
    lines += [*remark_lines(answer), *warning_lines(answer)]
    lines += ["study digits", "bracket 0.0012 to 1.2 (ok)", "best first: linear at 0.1, cosine at 0.1"]
    assert page.open == []
    assert [line for line in lines if line not in shown] == []


@pytest.mark.parametrize("stage", STAGE_RESULTS, ids=lambda stage: str(stage.stage))
def test_a_stage_shows_itself_in_a_notebook(stage: StageResult) -> None:
    page = Reader(stage._repr_html_())
    assert page.open == []
    assert f"{stage.stage}: {stage_found(stage)}; {stage.cost:.3g} run-equivalents" in page.text
    for trial in stage.trials:
        for value in (f"{trial.spec.lr:.3g}", trial.status, *trial.metrics):
            assert value in page.text


def test_a_stage_that_is_not_finished_says_so() -> None:
    assert "coarse: not finished; 0.5" in StageResult("coarse", (), 0.5)._repr_html_()


def test_what_comes_from_outside_is_escaped_in_html() -> None:
    answer = changed(metric=ATTACK, warnings={"own_loop": ATTACK}, test={ATTACK: {ATTACK: 1.0}})
    stages = [StageResult("confirm", (), 1.0, ConfirmFindings(ATTACK, ATTACK))]
    page = study_html(answer, stages, ATTACK)
    assert "<script" not in page
    assert Reader(page).text.count(ATTACK) == 6


def test_what_comes_from_outside_is_no_markup_in_the_terminal() -> None:
    answer = changed(metric="[red]", reason="[/] [bold]")
    assert "[red] 0.3316: [/] [bold]" in printed(study_table(answer, STAGE_RESULTS))


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_shows_the_costs_whole(width: int) -> None:
    tables = [plan_table(load_plan("default"), 1_000, 200), study_table(ANSWER, STAGE_RESULTS)]
    for table, cost in zip(tables, ("5 to 7", "5.12"), strict=True):
        text = printed(table, width)
        assert cost in text
        assert max(len(line) for line in text.splitlines()) <= width
