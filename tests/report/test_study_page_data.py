"""The tables of a study's page."""

from __future__ import annotations

import pytest

from lrsearch.report.study_page_data import cost_table, finalist_table, trial_table
from tests.report.studies import answer_of, plan_of, stages_of, with_losses


def test_the_finalists_are_compared_by_seed() -> None:
    answer = answer_of(stages_of())
    table = finalist_table(answer, plan_of())
    by_name = {finalist.name: finalist for finalist in answer.finalists}
    winner, other = by_name["linear at 0.1"].objectives, by_name["cosine at 0.1"].objectives
    column = table.columns.index("cosine at 0.1")
    assert [row[0] for row in table.rows] == ["1000", "1001", "1002"]
    for row in table.rows:
        seed = int(row[0])
        assert float(row[1]) == pytest.approx(winner[seed], rel=1e-3)
        assert float(row[column]) == pytest.approx(other[seed], rel=1e-3)
        assert float(row[column + 1]) == pytest.approx(other[seed] - winner[seed], rel=1e-2)
    mean, interval, verdict = table.foot
    low, high = map(float, interval[column + 1].split(" to "))
    assert low <= float(mean[column + 1]) <= high
    assert verdict[column + 1] == "worse"


@pytest.mark.parametrize("metric", ["val/loss", "val/accuracy"])
def test_a_difference_is_positive_where_the_winner_is_better(metric: str) -> None:
    table = finalist_table(answer_of(stages_of(metric), metric), plan_of(metric))
    column = table.columns.index("constant at 0.05") + 1
    assert all(row[column].startswith("+") for row in table.rows)


def test_unpaired_seeds_have_no_difference_each() -> None:
    table = finalist_table(answer_of(stages_of()), plan_of(confirm={"paired": False}))
    assert {row[3] for row in table.rows} == {"–"}
    assert " to " in table.foot[1][3]


def test_the_cost_tells_what_was_wasted() -> None:
    table = cost_table(with_losses())
    rows = {row[0]: row for row in (*table.rows, *table.foot)}
    # coarse: 7 trainings, of them lr 0.6 diverged after 25 of 200 updates, and one raised after 50
    assert rows["coarse"][1:6] == ("7", "1", "1", "5.12", "0.38")
    assert rows["decay"][1:6] == ("6", "1", "0", "5.12", "0.12")
    assert rows["range-test"][1] == "1"
    assert rows["range-test"][6] == "3.0 s"
    assert rows["all"][4] == f"{sum(stage.cost for stage in stages_of()):.2f}"
    assert rows["all"][5] == "0.50"


def test_every_training_has_a_row() -> None:
    data = with_losses()
    table = trial_table(data)
    trials = [t for stage in data.stages for t in stage.trials]
    assert [row[2] for row in table.rows] == [f"{t.spec.lr:.3g}" for t in trials]
    kinds = list(table.kinds)
    assert (kinds.count("diverged"), kinds.count("failed"), kinds.count("winner")) == (2, 1, 3)
    assert [row[6] for row in table.rows].count("complete") == kinds.count("")
