"""Studies side by side: known differences are found, equal studies are not told apart, equal cost by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lrsearch.core.answer import StageResult
from lrsearch.core.comparison import ComparedStudy, compare_studies
from lrsearch.core.stats import compare
from lrsearch.core.trial import MetricSummary, TrialResult, TrialSpec
from lrsearch.errors import InputError
from tests.report.studies import answer_of, plan_of, stages_of

STEPS = 100
STAGES = stages_of()
LOSS = answer_of(STAGES)
ACCURACY = answer_of(stages_of("val/accuracy"), "val/accuracy")
SETTING = {"model": "Net", "optimizer": "SGD", "batch_size": 32}


def study(
    name: str, objectives: Sequence[float], *, metric: str = "val/loss", **changed: Any
) -> ComparedStudy:
    """A study whose winner came to these objectives, a fresh seed each."""
    answer = LOSS if metric == "val/loss" else ACCURACY
    winner = replace(answer.winner, objectives=dict(enumerate(objectives, start=1000)))
    values: dict[str, Any] = {
        "name": name,
        "task": "digits",
        "answer": replace(answer, finalists=(winner,)),
        "stages": STAGES,
        "plan": plan_of(metric),
        "total_steps": STEPS,
        "steps_per_epoch": 20,
        "params": SETTING,
        "data": {"val": {"fingerprint": "a"}},
    }
    return ComparedStudy(**{**values, **changed})


def equal(rng: np.random.Generator, n: int, *, seeds: int = 3) -> list[ComparedStudy]:
    """So many studies of which none is better than another."""
    return [study(f"s{k}", rng.normal(0.4, 0.01, seeds).tolist()) for k in range(n)]


# --- which differences are real ---------------------------------------------------------------------------


def test_the_best_is_that_of_the_lowest_mean_loss() -> None:
    found = compare_studies([study("a", [0.40, 0.42]), study("b", [0.37, 0.39]), study("c", [0.36, 0.44])])
    assert found.best.name == "b"
    assert found.best.objective == pytest.approx(0.38)
    assert found.best.behind is None


def test_a_metric_that_grows_is_best_where_it_is_highest() -> None:
    found = compare_studies([study(n, v, metric="val/accuracy") for n, v in [("a", [0.8]), ("b", [0.9])]])
    assert found.best.name == "b"
    behind = found.rows[0].behind
    assert behind is not None
    assert behind.mean == pytest.approx(0.1)  # positive is worse, whatever the direction


def test_a_difference_far_beyond_the_noise_is_real() -> None:
    found = compare_studies([study("a", [0.40, 0.41, 0.42]), study("b", [0.30, 0.31, 0.32])])
    assert [row.verdict for row in found.rows] == ["worse", "best"]


def test_a_difference_within_the_noise_is_not_told() -> None:
    found = compare_studies([study("a", [0.40, 0.41, 0.42]), study("b", [0.395, 0.41, 0.42])])
    assert [row.verdict for row in found.rows] == ["not_told_apart", "best"]


def test_two_studies_are_compared_by_welchs_interval() -> None:
    a, b = [0.40, 0.43, 0.41], [0.30, 0.31, 0.36, 0.33]
    behind = compare_studies([study("a", a), study("b", b)]).rows[0].behind
    expected = compare(a, b, paired=False, level=0.9)
    assert behind is not None
    assert (behind.mean, behind.low, behind.high) == (expected.difference, expected.low, expected.high)


def test_more_studies_widen_the_interval_to_hold_together() -> None:
    studies = [study("a", [0.40, 0.43, 0.41]), study("b", [0.30, 0.31, 0.36]), study("c", [0.5, 0.6, 0.7])]
    behind = compare_studies(studies).rows[0].behind
    expected = compare([0.40, 0.43, 0.41], [0.30, 0.31, 0.36], paired=False, level=1 - 0.1 / 3)
    assert behind is not None
    assert behind.low == pytest.approx(expected.low)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_of_equal_studies_hardly_one_comparison_in_ten_sees_a_difference(n: int) -> None:
    rng = np.random.default_rng(n)
    draws = 150
    wrong = sum(
        any(row.verdict == "worse" for row in compare_studies(equal(rng, n)).rows) for _ in range(draws)
    )
    assert wrong <= 0.1 * draws + 2 * (0.1 * 0.9 * draws) ** 0.5


@pytest.mark.parametrize(("a", "b"), [([0.9], [0.3, 0.31, 0.32]), ([0.9, 0.91], [0.3]), ([0.9], [0.3])])
def test_of_a_single_seed_nothing_is_told_however_large_the_difference(
    a: list[float], b: list[float]
) -> None:
    worse, best = compare_studies([study("a", a), study("b", b)]).rows
    assert (worse.verdict, best.verdict) == ("one_seed", "best")
    assert worse.behind is not None
    assert (worse.behind.low, worse.behind.high) == (None, None)


# --- at equal cost ----------------------------------------------------------------------------------------


def training(lr: float, loss: float | None, seed: int = 0, **changed: Any) -> TrialResult:
    """A training of full length; without a loss it diverges after half of it."""
    spec = TrialSpec("coarse", lr, {"name": "constant"}, seed, changed.pop("steps", STEPS), **changed)
    if loss is None:
        return TrialResult(spec, "diverged", STEPS // 2, 0.1)
    metrics = {"val/loss": MetricSummary(loss, loss, loss, loss)}
    return TrialResult(spec, "complete", spec.steps, 0.1, 2.3, metrics)


BY_HAND = (
    StageResult("range-test", (), 0.5),
    StageResult(
        "coarse",
        (
            training(0.1, 0.5),  # done at 1.5 run-equivalents
            training(0.2, 0.4),  # 2.5
            training(0.4, None),  # 3
            training(0.2, 0.44, seed=1),  # 4, which makes its mean 0.42
            training(0.3, 0.1, steps=STEPS // 2),  # 4.5, but half as long
            training(0.3, 0.2, optimizer="adam"),  # 5.5, but the baseline
        ),
        5.0,
    ),
    StageResult(
        "fine",
        (
            training(0.2, 0.4),  # counted before
            training(0.4, 0.1, seed=1),  # 6.5, but it diverged on another seed
            training(0.25, 0.39),  # 7.5
        ),
        2.0,
    ),
)


@pytest.mark.parametrize(
    ("cost", "best"),
    [(0.5, None), (1.4, None), (1.5, 0.5), (2.5, 0.4), (3.9, 0.4), (4.0, 0.42), (7.4, 0.42), (7.5, 0.39)],
)
def test_the_best_known_for_a_cost(cost: float, best: float | None) -> None:
    assert study("a", [0.4], stages=BY_HAND).best_within(cost) == pytest.approx(best)


def test_equal_cost_is_the_cheapest_studys() -> None:
    short = (BY_HAND[0], replace(BY_HAND[1], trials=BY_HAND[1].trials[:2], cost=2.0))
    found = compare_studies([study("long", [0.4], stages=BY_HAND), study("short", [0.4], stages=short)])
    assert found.equal_cost == 2.5
    assert [row.at_equal_cost for row in found.rows] == [0.4, 0.4]
    assert [row.cost for row in found.rows] == [7.5, 2.5]


# --- what differs -----------------------------------------------------------------------------------------


def test_only_the_settings_that_differ_are_named() -> None:
    other = study(
        "b", [0.4], params={**SETTING, "batch_size": 64, "momentum": 0.9}, plan=plan_of(confirm={"seeds": 3})
    )
    found = compare_studies([study("a", [0.4]), other])
    assert found.differing == {"batch_size": (32, 64), "momentum": (None, 0.9), "plan.confirm.seeds": (2, 3)}


@pytest.mark.parametrize(
    ("params", "differs"),
    [
        ({"batch_size": 64}, True),
        ({"batch_size": 64, "optimizer": "Adam"}, False),
        ({"batch_size": 64, "model": "Wide"}, False),
        ({"batch_size": None}, False),
        ({"momentum": 0.9}, False),
    ],
)
def test_the_batch_size_is_what_differs_only_where_model_and_optimizer_are_equal(
    params: dict[str, Any], differs: bool
) -> None:
    found = compare_studies([study("a", [0.4]), study("b", [0.4], params={**SETTING, **params})])
    assert found.batch_size_differs is differs


@pytest.mark.parametrize(
    ("changed", "caution"),
    [
        ({"data": {"val": {"fingerprint": "b"}}}, "the validation data are not the same"),
        ({"total_steps": 200}, "a full training is 5 to 10 epochs long"),
        ({"total_steps": 200, "steps_per_epoch": None}, "a full training is 100 to 200 updates long"),
        ({"total_steps": 50, "steps_per_epoch": 10}, None),
    ],
)
def test_what_makes_a_comparison_unfair_is_said(changed: dict[str, Any], caution: str | None) -> None:
    cautions = compare_studies([study("a", [0.4]), study("b", [0.4], **changed)]).cautions
    assert [text.startswith(caution or "nothing") for text in cautions] == [True] * bool(caution)


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ({"metric": "val/accuracy"}, "maximize the final val/accuracy"),
        ({"metric": "val/loss", "use": "best"}, "minimize the best val/loss"),
        ({"metric": "val/loss", "direction": "maximize"}, "maximize the final val/loss"),
    ],
)
def test_other_objectives_are_refused_naming_both_studies(objective: dict[str, Any], said: str) -> None:
    other = study("b", [0.4], plan=plan_of().with_changes(objective=objective))
    with pytest.raises(InputError) as refused:
        compare_studies([study("a", [0.4]), other])
    assert f"a was to minimize the final val/loss, b to {said}" in str(refused.value)


def test_the_same_objective_said_in_other_words_is_the_same() -> None:
    other = study("b", [0.4], plan=plan_of().with_changes(objective={"direction": "minimize"}))
    found = compare_studies([study("a", [0.5]), other])
    assert (found.best.name, found.differing) == ("b", {})


def test_a_single_study_is_nothing_to_compare() -> None:
    with pytest.raises(InputError, match="nothing to compare"):
        compare_studies([study("a", [0.4])])
