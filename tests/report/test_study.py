"""What is said of a study: its plan and cost, its answer and stages, its description in MLflow."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lrsearch.core.answer import Answer, StageResult
from lrsearch.core.findings import ConfirmFindings
from lrsearch.core.presets import PRESETS, load_plan
from lrsearch.core.response import Interval, Tolerance
from lrsearch.core.stats import Gain
from lrsearch.core.study_plan import STAGES
from lrsearch.core.text import stage_found
from lrsearch.report.study import (
    answer_lines,
    describe_study,
    plan_dict,
    plan_table,
    remark_lines,
    study_html,
    study_table,
    warning_lines,
)
from tests.report.shown import Reader, printed, words
from tests.report.studies import answer_of, plan_of, stages_of, with_gain

STAGE_RESULTS = stages_of()
ANSWER = answer_of(STAGE_RESULTS)
ATTACK = "<script>alert('&')</script> [red]"


def changed(**values: Any) -> Answer:
    return replace(ANSWER, **values)


# --- the plan ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_a_plan_says_what_it_costs_in_trainings_and_in_updates(preset: str) -> None:
    plan = load_plan(preset)
    text = words(printed(plan_table(plan, 1_000, 200)))
    assert f"at most {plan.budget:.3g} run-equivalents, that is {plan.budget * 1_000:,.0f} updates" in text
    assert "a full training: 1,000 updates, 5 epochs of 200" in text
    assert [stage for stage in STAGES if stage not in text] == []


def test_each_stage_has_its_cost() -> None:
    rows = {stage: cost for stage, _, cost in plan_table(load_plan("default"), 1_000, None).rows}
    assert rows == {
        "range-test": "1",
        "coarse": "4 to 6",
        "fine": "0",
        "decay": "4 to 6",
        "confirm": "5 to 7",
    }


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
        "schedule  linear: 0.0301 better than without decay (90% bounds +0.0276 to +0.0326)",
        "cost      22.2 run-equivalents",
    ]


def test_that_nothing_was_compared_is_said() -> None:
    line = answer_lines(with_gain(ANSWER, "constant", None), 1.0)[1]
    assert line == "schedule  linear: not compared with training without decay"


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
        "tolerance: any lr from 0.062 to 0.15 or higher is expected to come within 0.00985 of the best "
        "val/loss",
        "noise: the standard deviation between seeds is 0.00213",
        "baseline: 0.0123 worse than Adam at lr 0.001 on the same seed",
        "test data, winner: test/loss 0.3457, test/accuracy 0.9000",
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
        "undecided: these seeds leave open whether cosine at 0.1 differs from the winner, linear at 0.1, by "
        "more than the margin, 0.00985"
    )
    assert not [line for line in remark_lines(ANSWER) if "undecided" in line]


# --- the stages -------------------------------------------------------------------------------------------


def test_a_row_a_stage_says_trials_divergences_cost_and_find() -> None:
    table = study_table(ANSWER, STAGE_RESULTS)
    assert table.rows == [
        ("range-test", "–", "–", "1", "bracket 0.0012 to 1.2 (ok)"),
        ("coarse", "6", "1", "5.12", "best lr 0.0494, noise 0.0021"),
        ("fine", "1", "0", "1", "best lr 0.05"),
        ("decay", "6", "1", "5.12", "best first: linear at 0.1, cosine at 0.1"),
        ("confirm", "10", "0", "10", "linear at 0.1"),
    ]
    assert table.foot == [("all", "23", "2", "22.2", "")]


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
    assert f"{stage.stage}: {stage_found(stage.found)}; {stage.cost:.3g} run-" in page.text
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
    assert Reader(page).text.count(ATTACK) == 7


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_shows_the_costs_whole(width: int) -> None:
    tables = [plan_table(load_plan("default"), 1_000, 200), study_table(ANSWER, STAGE_RESULTS)]
    for table, cost in zip(tables, ("5 to 7", "5.12"), strict=True):
        text = printed(table, width)
        assert cost in text
        assert max(len(line) for line in text.splitlines()) <= width


# --- in MLflow --------------------------------------------------------------------------------------------


def test_the_description_says_the_answer_and_how_sure_it_is() -> None:
    gain = Gain(0.1, -0.05, 0.25, 0.9, "undecided")
    interval = Interval(0.15, 0.3, 0.9, low_open=False, high_open=True)
    tolerance = Tolerance(0.1, 0.4, low_open=False, high_open=False)
    answer = replace(with_gain(ANSWER, "constant", gain), interval=interval, tolerance=tolerance)
    answer = replace(answer, warnings={"edge": "The best is the last."})
    assert describe_study(answer, plan_of(), {"winner": "{run:1a}"}).split("\n\n")[:7] == [
        "**Learning rate 0.1, schedule linear**: val/loss 0.3316, lowest mean val/loss.",
        "Learning rate: 90% interval 0.15 to 0.3 or higher.",
        "Decay: 0.1 better than without decay (90% bounds -0.0500 to +0.250: undecided).",
        "Undecided: these seeds leave open whether constant at 0.05 differs from the winner, linear at 0.1, "
        "by more than the margin, 0.00985.",
        "Tolerance: any lr from 0.1 to 0.4 is expected to come within 0.00985 of the best val/loss.",
        "Noise: the standard deviation between seeds is 0.00213.",
        "- `edge`: The best is the last.",
    ]


def test_the_description_says_the_plan() -> None:
    *_, plan, table = describe_study(ANSWER, load_plan("quick"), {}).split("\n\n")
    assert plan.startswith("**Plan** quick: a full training is 5 epochs, the budget is 10 run-equivalents")
    assert [line.split(" | ")[0] for line in table.splitlines()] == [
        "| stage",
        "| ---",
        *(f"| {stage}" for stage in STAGES),
    ]
