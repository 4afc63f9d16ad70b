"""Noise, comparisons and decisions, against scipy.stats and by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsearch.core.curve import Array
from lrsearch.core.stats import (
    Candidate,
    Decision,
    Noise,
    compare,
    decide,
    noise,
)
from lrsearch.errors import InputError

PROPERTY = settings(derandomize=True, deadline=None, max_examples=50)
SIMPLICITY = ["constant", "linear", "cosine"]


def samples(seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 8))
    common = rng.normal(size=n)
    return common + rng.normal(0.3, 1, n), common + rng.normal(0, 2, n)


# Noise.


def test_noise_pools_the_spread_within_groups() -> None:
    assert noise([[1.0, 3.0], [10.0, 11.0, 12.0], [7.0]]) == Noise(math.sqrt((2 + 2) / 3), 3)


@pytest.mark.parametrize("groups", [[], [[]], [[1.0], [2.0]]])
def test_without_replicates_there_is_no_noise_to_tell(groups: list[list[float]]) -> None:
    assert noise(groups) is None


def test_equal_replicates_have_no_noise() -> None:
    assert noise([[0.5, 0.5, 0.5]]) == Noise(0.0, 2)


# Comparisons.


@pytest.mark.parametrize("seed", range(5))
def test_the_paired_comparison_is_students(seed: int) -> None:
    a, b = samples(seed)
    found = compare(a.tolist(), b.tolist())
    expected = scipy.stats.ttest_rel(a, b).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("seed", range(5))
def test_the_unpaired_comparison_is_welchs(seed: int) -> None:
    a, b = samples(seed)
    found = compare(a.tolist(), b[:-1].tolist(), paired=False)
    expected = scipy.stats.ttest_ind(a, b[:-1], equal_var=False).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("paired", [True, False])
def test_the_one_sided_bounds_are_those_of_the_one_sided_tests(paired: bool) -> None:
    a, b = samples(7)
    found = compare(a.tolist(), b.tolist(), paired=paired)

    def interval(alternative: Literal["less", "greater"]) -> Any:
        if paired:
            return scipy.stats.ttest_rel(a, b, alternative=alternative).confidence_interval(0.9)
        return scipy.stats.ttest_ind(a, b, equal_var=False, alternative=alternative).confidence_interval(0.9)

    assert found.upper == pytest.approx(interval("less").high)
    assert found.lower == pytest.approx(interval("greater").low)


def test_the_correlation_of_the_seeds_is_pearsons() -> None:
    a, b = samples(3)
    assert compare(a.tolist(), b.tolist()).correlation == pytest.approx(scipy.stats.pearsonr(a, b).statistic)


@pytest.mark.parametrize(("a", "b"), [([1.0, 2.0], [1.0, 3.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])])
def test_there_is_no_correlation_of_two_pairs_or_without_spread(a: list[float], b: list[float]) -> None:
    assert compare(a, b).correlation is None


@pytest.mark.parametrize("paired", [True, False])
def test_a_single_seed_bounds_nothing(paired: bool) -> None:
    found = compare([1.0], [0.0], paired=paired)
    assert (found.difference, found.lower, found.upper) == (1.0, -math.inf, math.inf)


@pytest.mark.parametrize("paired", [True, False])
def test_equal_values_differ_by_nothing(paired: bool) -> None:
    found = compare([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], paired=paired)
    assert (found.low, found.upper) == (0.0, 0.0)


VALUES = st.lists(st.floats(-100, 100), min_size=4, max_size=4)


@given(VALUES, VALUES, st.booleans())
@PROPERTY
def test_swapping_the_candidates_mirrors_the_comparison(a: list[float], b: list[float], paired: bool) -> None:
    one, other = compare(a, b, paired=paired), compare(b, a, paired=paired)
    assert (one.difference, one.low, one.upper) == pytest.approx(
        (-other.difference, -other.high, -other.lower)
    )


# Decisions.


def candidate(schedule: str, objectives: list[float], lr: float = 0.1, diverged: bool = False) -> Candidate:
    return Candidate(f"{schedule} {lr:g}", schedule, lr, dict(enumerate(objectives)), diverged)


def decided(*candidates: Candidate, delta: float = 0.05, paired: bool = True) -> Decision:
    return decide(candidates, delta, simplicity=SIMPLICITY, paired=paired)


LINEAR = candidate("linear", [0.30, 0.32, 0.31])


@pytest.mark.parametrize(
    ("constant", "winner", "undecided"),
    [
        ([0.31, 0.33, 0.32], "constant 0.1", ()),  # worse, by less than delta
        ([0.30, 0.32, 0.31], "constant 0.1", ()),  # equal
        ([0.20, 0.22, 0.21], "constant 0.1", ()),  # better
        ([0.40, 0.42, 0.41], "linear 0.1", ()),  # worse by more
        ([0.30, 0.43, 0.32], "linear 0.1", ("constant 0.1",)),  # cannot be told
    ],
)
def test_the_simpler_wins_where_it_is_not_worse_by_delta(
    constant: list[float], winner: str, undecided: tuple[str, ...]
) -> None:
    decision = decided(candidate("constant", constant), LINEAR)
    assert (decision.winner.name, decision.undecided) == (winner, undecided)


def test_the_order_of_the_candidates_does_not_matter() -> None:
    constant, cosine = candidate("constant", [0.31, 0.33, 0.32]), candidate("cosine", [0.30, 0.31, 0.32])
    assert decided(constant, LINEAR, cosine) == decided(cosine, LINEAR, constant)


def test_the_lower_lr_breaks_ties_within_one_schedule() -> None:
    high, low = candidate("linear", [0.30, 0.32, 0.31], 0.4), candidate("linear", [0.31, 0.33, 0.32], 0.1)
    assert decided(high, low).winner is low


def test_a_lower_lr_does_not_make_a_fuller_schedule_simpler() -> None:
    constant, cosine = (
        candidate("constant", [0.30, 0.32, 0.31], 1.0),
        candidate("cosine", [0.30, 0.32, 0.31], 0.1),
    )
    assert decided(constant, cosine).winner is constant


@pytest.mark.parametrize("paired", [True, False])
def test_with_one_seed_the_best_stands_undecided(paired: bool) -> None:
    decision = decided(candidate("constant", [0.31]), candidate("linear", [0.30]), paired=paired)
    assert (decision.winner.schedule, decision.settled) == ("linear", False)


def test_more_seeds_settle_what_three_left_open() -> None:
    three = [0.30, 0.38, 0.31]
    linear = [0.30, 0.30, 0.30]
    more = [0.31, 0.30, 0.32]
    open_, settled = (
        decided(candidate("constant", c), candidate("linear", li))
        for c, li in ((three, linear), (three + more, linear * 2))
    )
    assert (open_.settled, settled.settled, settled.winner.schedule) == (False, True, "constant")


def test_pairs_are_formed_of_the_seeds_both_have() -> None:
    constant = Candidate("c", "constant", 0.1, {1: 0.31, 2: 0.33, 3: 0.32})
    linear = Candidate("l", "linear", 0.1, {2: 0.32, 3: 0.31, 1: 0.30, 9: 0.31})
    assert decided(constant, linear).winner is constant


def test_a_diverged_candidate_cannot_win() -> None:
    decision = decided(candidate("constant", [0.1, 0.1, 0.1], diverged=True), LINEAR)
    assert (decision.winner, decision.undecided) == (LINEAR, ())


def test_the_reason_says_what_was_found() -> None:
    assert "at most +0.01" in decided(candidate("constant", [0.31, 0.33, 0.32]), LINEAR).reason


EXACT = st.lists(st.integers(-640, 640).map(lambda v: v / 64), min_size=4, max_size=4)


@given(EXACT, EXACT, st.integers(-10, 10), st.sampled_from([0.25, 4.0]))
@PROPERTY
def test_the_unit_and_the_zero_of_the_objective_do_not_matter(
    a: list[float], b: list[float], shift: int, scale: float
) -> None:
    plain = decided(candidate("constant", a), candidate("linear", b), delta=0.0507)
    moved = [[scale * (v + shift) for v in values] for values in (a, b)]
    other = decided(candidate("constant", moved[0]), candidate("linear", moved[1]), delta=scale * 0.0507)
    assert (other.winner.name, other.undecided) == (plain.winner.name, plain.undecided)


def settled_wrongly(rng: np.random.Generator, seeds: int, paired: bool) -> bool:
    """Constant is worse by exactly delta = 1; the noise has sd 1, correlated 0.3 between candidates."""
    common = rng.normal(0, math.sqrt(0.3), seeds)
    own = rng.normal(0, math.sqrt(0.7), (2, seeds))
    constant, linear = (
        candidate("constant", list(1 + common + own[0])),
        candidate("linear", list(common + own[1])),
    )
    decision = decided(constant, linear, delta=1.0, paired=paired)
    return decision.settled and decision.winner is constant


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("seeds", [3, 6])
def test_a_simpler_candidate_worse_by_delta_is_settled_on_in_at_most_10_percent(
    seeds: int, paired: bool
) -> None:
    rng = np.random.default_rng(seeds)
    wrong = float(np.mean([settled_wrongly(rng, seeds, paired) for _ in range(2000)]))
    assert wrong < 0.10 + 3 * math.sqrt(0.09 / 2000), f"{wrong:.1%}"


def test_looking_after_each_seed_from_three_to_six_errs_in_at_most_20_percent() -> None:
    """Each look has its own 10%, so four looks together have more: said, not hidden."""
    rng = np.random.default_rng(0)

    def errs() -> bool:
        noise = rng.normal(size=(2, 6))
        for seeds in range(3, 7):
            constant, linear = (
                candidate(name, list(shift + row[:seeds]))
                for name, shift, row in (("constant", 1.0, noise[0]), ("linear", 0.0, noise[1]))
            )
            decision = decided(constant, linear, delta=1.0)
            if decision.settled:
                break
        return decision.winner is constant

    wrong = float(np.mean([errs() for _ in range(2000)]))
    assert 0.10 < wrong < 0.20, f"{wrong:.1%}"


# Bad input.

BAD: dict[str, Callable[[], object]] = {
    "groups": lambda: noise([[1.0, math.nan]]),
    "sd": lambda: Noise(math.nan, 2),
    "df": lambda: Noise(1.0, 0),
    "a": lambda: compare([math.nan, 1.0], [1.0, 2.0]),
    "b": lambda: compare([1.0, 2.0], [1.0]),
    "level": lambda: compare([1.0], [1.0], level=1.0),
    "delta": lambda: decided(LINEAR, delta=0.0),
    "candidates": lambda: decided(),
    "schedule": lambda: decided(candidate("zigzag", [1.0])),
    "objectives": lambda: decided(candidate("linear", [])),
    "objectives of linear 0.1": lambda: decided(candidate("linear", [math.nan])),
}


@pytest.mark.parametrize(("argument", "call"), BAD.items(), ids=BAD.keys())
def test_bad_input_is_refused_by_name(argument: str, call: Callable[[], object]) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.argument == argument


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(InputError, match="holds no value"):
        compare([], [1.0])


def test_two_candidates_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="name twice"):
        decided(LINEAR, LINEAR)


def test_where_all_diverged_nobody_wins() -> None:
    with pytest.raises(InputError, match="all diverged"):
        decided(candidate("linear", [], diverged=True))
