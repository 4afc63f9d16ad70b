"""From a curve to a learning rate, a bracket and a verdict, on curves with known answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsearch.core.curve import Array, RangeTestCurve
from lrsearch.core.findings import Bracket
from lrsearch.core.suggest import _longest_decrease, combine, read_shape, suggest
from lrsearch.core.suggestion import RULES, Suggestion, Verdict
from lrsearch.schedules.sweep import sweep_lrs
from tests.core.curves import (
    FALL,
    WALL,
    default_lrs,
    falling_losses,
    nan_tail,
    noise,
    rising_losses,
    u_curve,
    u_losses,
)

PROPERTY = settings(derandomize=True, deadline=None, max_examples=60)

NUMBERED = ("ok", "rules_disagree")


def curve_of(losses: Array) -> RangeTestCurve:
    return RangeTestCurve(default_lrs(len(losses)), losses)


# The six curves of the peers' table, and one more.

WITH_A_NUMBER = {"clean U": u_curve(), "noisy U": u_curve(sd=0.3), "NaN tail": nan_tail()}
WITHOUT: dict[str, tuple[RangeTestCurve, Verdict, str]] = {
    "constant": (curve_of(np.full(100, 2.3)), "flat", "raise max_lr"),
    "only rising": (curve_of(rising_losses(default_lrs())), "only_rising", "lower min_lr"),
    "12 points": (u_curve(steps=12), "too_few_points", "at least 20 steps"),
    "never diverged": (curve_of(falling_losses(default_lrs())), "never_diverged", "raise max_lr"),
}


@pytest.mark.parametrize("curve", WITH_A_NUMBER.values(), ids=WITH_A_NUMBER.keys())
def test_a_valley_gets_a_number_between_its_walls(curve: RangeTestCurve) -> None:
    suggestion = suggest(curve)
    assert suggestion.verdict in NUMBERED
    assert suggestion.lr is not None
    assert FALL < suggestion.lr < WALL / 3


@pytest.mark.parametrize(("curve", "verdict", "mend"), WITHOUT.values(), ids=WITHOUT.keys())
def test_another_shape_gets_its_verdict_its_mend_and_no_number(
    curve: RangeTestCurve, verdict: Verdict, mend: str
) -> None:
    suggestion = suggest(curve)
    assert (suggestion.lr, suggestion.verdict) == (None, verdict)
    assert mend in suggestion.reason
    assert "\n" not in suggestion.reason


def test_the_first_nan_is_the_edge_where_nothing_rose_before() -> None:
    curve = nan_tail(kept=78)
    assert read_shape(curve).edge == curve.lrs[78]


def test_a_rise_before_the_nan_is_the_edge() -> None:
    curve = nan_tail(kept=92)
    assert read_shape(curve).edge == read_shape(u_curve()).edge


def test_a_nan_before_any_fall_is_a_rise() -> None:
    curve = RangeTestCurve(default_lrs(), 2.3 + noise(60, 0.1), stopped_at=61, stop_reason="not_finite")
    assert (suggest(curve).lr, suggest(curve).verdict) == (None, "only_rising")


def test_a_sweep_that_died_early_is_told_so_and_not_to_take_20_steps() -> None:
    suggestion = suggest(nan_tail(kept=15))
    assert (suggestion.lr, suggestion.verdict) == (None, "too_few_points")
    assert "ended at lr 1.63e-06" in suggestion.reason
    assert "lower min_lr" in suggestion.reason


def test_never_diverged_keeps_the_low_end_of_the_bracket() -> None:
    bracket = suggest(curve_of(falling_losses(default_lrs()))).bracket
    assert bracket is not None
    assert bracket.high is None
    assert bracket.low == pytest.approx(FALL, rel=0.25)


# The rules on a clean valley of 400 points, whose answers are known.


def test_the_steepest_fall_is_where_half_of_it_is_done() -> None:
    assert suggest(u_curve(steps=400)).rules["steepest"] == pytest.approx(FALL, rel=0.25)


def test_the_minimum_rule_is_a_tenth_of_the_smoothed_minimum() -> None:
    curve = replace(u_curve(steps=400), smoothing=0.0)
    lowest = curve.lrs[np.argmin(curve.losses)]
    assert suggest(curve).rules["minimum"] == pytest.approx(lowest / 10)


def test_the_valley_rule_lies_down_the_slope_before_the_bottom() -> None:
    curve = u_curve(steps=400)
    bottom = curve.lrs[np.argmin(curve.losses)]
    assert FALL < suggest(curve).rules["valley"] < bottom / 3


# Noise.


def test_noise_moves_the_suggestion_by_less_than_a_factor_3_in_fifty_seeds() -> None:
    clean = suggest(u_curve()).lr
    noisy = [suggest(u_curve(sd=0.3, seed=seed)).lr for seed in range(50)]
    assert clean is not None
    assert all(lr is not None and 1 / 3 < lr / clean < 3 for lr in noisy)


@pytest.mark.parametrize("steps", [20, 100, 400])
@pytest.mark.parametrize("trend", [np.ones_like, rising_losses], ids=["constant", "rising"])
def test_noise_without_a_valley_makes_no_number(trend: Callable[[Array], Array], steps: int) -> None:
    losses = trend(default_lrs(steps))
    numbers = [suggest(curve_of(losses + noise(steps, 0.1, seed))).lr for seed in range(100)]
    assert sum(lr is not None for lr in numbers) <= 2


@pytest.mark.parametrize(
    "at", [slice(0, 4), slice(12, 14), slice(40, 42), slice(80, 81)], ids=["start", "12", "40", "rise"]
)
def test_a_spike_that_recovers_does_not_fool_the_suggestion(at: slice) -> None:
    curve = u_curve(sd=0.05)
    spiked = curve.losses.copy()
    spiked[at] = 50
    usual, lr = suggest(curve).lr, suggest(curve_of(spiked)).lr
    assert usual is not None
    assert lr == pytest.approx(usual, rel=0.25)


@pytest.mark.parametrize(("fall", "wall"), [(1e-4, 0.3), (FALL, WALL), (1e-2, 2.0)])
def test_the_number_of_steps_moves_neither_edge_nor_suggestion_by_more_than_a_quarter(
    fall: float, wall: float
) -> None:
    edges, lrs = [], []
    for steps in (100, 400, 1000):
        at = default_lrs(steps)
        suggestion = suggest(curve_of(u_losses(at, fall, wall) + noise(steps, 0.02)))
        assert suggestion.bracket is not None
        edges.append(suggestion.bracket.high or np.nan)
        lrs.append(suggestion.lr or np.nan)
    assert max(edges) <= 1.25 * min(edges)
    assert max(lrs) <= 1.25 * min(lrs)


# Properties of any curve.

KINDS = ("valley", "falling", "rising", "constant", "walk", "NaN tail")


@st.composite
def curves(draw: st.DrawFn) -> RangeTestCurve:
    """A curve of some kind with noise on it, log or linear, whole or cut at a NaN."""
    kind, seed = draw(st.sampled_from(KINDS)), draw(st.integers(0, 10_000))
    steps, sd = draw(st.sampled_from([20, 37, 100, 150])), draw(st.floats(0.005, 0.3))
    lrs = sweep_lrs(1e-6, draw(st.floats(1, 100)), steps, draw(st.sampled_from(["log", "log", "linear"])))
    trend = {
        "falling": falling_losses(lrs),
        "rising": rising_losses(lrs),
        "constant": np.full(steps, 2.3),
        "walk": np.cumsum(noise(steps, 1, seed + 1)),
    }.get(kind, u_losses(lrs))
    losses = trend + noise(steps, sd, seed)
    if kind != "NaN tail":
        return RangeTestCurve(lrs, losses)
    kept = draw(st.integers(steps // 2, steps - 1))
    return RangeTestCurve(lrs, losses[:kept], stopped_at=kept + 1, stop_reason="not_finite")


def assert_same(left: Suggestion, right: Suggestion, factor: float = 1.0) -> None:
    """Equal but for rounding (1e-9), the lrs of `right` being those of `left` times `factor`."""
    assert left.verdict == right.verdict
    expected = {name: factor * lr for name, lr in left.rules.items()}
    assert right.rules == pytest.approx(expected, rel=1e-9)
    for one, other in ((left.lr, right.lr), *zip(ends(left), ends(right), strict=True)):
        assert (one is None) == (other is None)
        assert one is None or other == pytest.approx(factor * one, rel=1e-9)


def ends(suggestion: Suggestion) -> tuple[float | None, float | None]:
    bracket = suggestion.bracket
    return (bracket.low, bracket.high) if bracket else (None, None)


@PROPERTY
@given(curves(), st.floats(-100, 100))
def test_a_constant_added_to_the_loss_changes_nothing(curve: RangeTestCurve, offset: float) -> None:
    # Beyond ±100 the resolution of a 32-bit loss, 1e-5 of its level, comes near the noise drawn here.
    assert_same(suggest(curve), suggest(replace(curve, losses=curve.losses + offset)))


@PROPERTY
@given(curves(), st.floats(1e-6, 1e6))
def test_the_unit_of_the_loss_changes_nothing(curve: RangeTestCurve, scale: float) -> None:
    assert_same(suggest(curve), suggest(replace(curve, losses=curve.losses * scale)))


@PROPERTY
@given(curves(), st.floats(1e-4, 1e4))
def test_scaled_learning_rates_scale_every_answer(curve: RangeTestCurve, scale: float) -> None:
    assert_same(suggest(curve), suggest(replace(curve, lrs=curve.lrs * scale)), factor=scale)


@PROPERTY
@given(curves())
def test_there_is_a_number_exactly_where_the_verdict_says_so(curve: RangeTestCurve) -> None:
    suggestion = suggest(curve)
    assert (suggestion.lr is not None) == (suggestion.verdict in NUMBERED)


@PROPERTY
@given(curves())
def test_the_suggestion_lies_inside_its_bracket(curve: RangeTestCurve) -> None:
    suggestion = suggest(curve)
    if suggestion.lr is not None:
        low, high = ends(suggestion)
        assert low is not None
        assert high is not None
        assert low <= suggestion.lr < high


@PROPERTY
@given(curves())
def test_the_walls_lie_either_side_of_the_bottom(curve: RangeTestCurve) -> None:
    shape = read_shape(curve)
    bottom = curve.lrs[shape.bottom]
    assert shape.descent is None or shape.descent <= bottom
    assert shape.edge is None or shape.edge > bottom


@PROPERTY
@given(curves())
def test_a_suggestion_survives_json(curve: RangeTestCurve) -> None:
    suggestion = suggest(curve)
    written = json.dumps(suggestion.to_dict(), allow_nan=False)
    assert Suggestion.from_dict(json.loads(written)) == suggestion


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(st.integers(-20, 20), min_size=1, max_size=60))
def test_the_longest_decrease_is_as_long_as_the_exhaustive_one(values: list[int]) -> None:
    start, end = _longest_decrease(np.array(values, dtype=np.float64))
    longest = max(max(decreases_from(values, i).values()) for i in range(len(values)))
    assert decreases_from(values, start)[end] == longest


def decreases_from(values: list[int], start: int) -> dict[int, int]:
    """Length of the longest strictly decreasing subsequence from `start` to each index it can end at."""
    lengths = {start: 1}
    for i in range(start + 1, len(values)):
        before = [length for j, length in lengths.items() if values[j] > values[i]]
        if before:
            lengths[i] = 1 + max(before)
    return lengths


# Several seeds.


def numbered(lr: float, edge: float = 1.0) -> Suggestion:
    rules = {"walls": lr, "minimum": 2 * lr, "steepest": lr / 2, "valley": lr}
    return Suggestion(lr, "walls", Bracket(lr / 10, edge), "ok", "a valley", rules)


def unnumbered(verdict: Verdict, low: float | None = None) -> Suggestion:
    return Suggestion(None, "walls", Bracket(low, None) if low else None, verdict, f"it is {verdict}", {})


@pytest.mark.parametrize("one", [numbered(0.01), unnumbered("flat"), unnumbered("never_diverged", 0.1)])
def test_one_curve_passes_through_unchanged(one: Suggestion) -> None:
    assert combine([one]) == one


@pytest.mark.parametrize(
    ("lrs", "middle"),
    [([0.001, 0.1], 0.01), ([0.02, 0.01, 5.0], 0.02), ([0.01] * 5, 0.01), ([1e-4, 1e-3, 1e-1, 1.0], 1e-2)],
)
def test_the_answer_of_several_curves_is_the_median_in_log_lr(lrs: list[float], middle: float) -> None:
    assert combine([numbered(lr) for lr in lrs]).lr == pytest.approx(middle)


def test_every_rule_and_both_ends_of_the_bracket_are_medians() -> None:
    combined = combine([numbered(0.01, edge=1), numbered(0.03, edge=4), numbered(0.02, edge=2)])
    assert combined.rules == pytest.approx({"walls": 0.02, "minimum": 0.04, "steepest": 0.01, "valley": 0.02})
    assert ends(combined) == pytest.approx((0.002, 2))


def test_the_spread_is_the_lowest_and_highest_of_the_numbered_curves() -> None:
    combined = combine([numbered(0.02), unnumbered("flat"), numbered(0.01), numbered(0.07)])
    assert combined.spread == (0.01, 0.07)
    assert "median of 3 of 4 curves" in combined.reason


OK, FLAT, RISING = numbered(0.01), unnumbered("flat"), unnumbered("only_rising")
OPEN = [unnumbered("never_diverged", low) for low in (0.01, 0.04, 0.02)]
MIXTURES: list[tuple[list[Suggestion], Verdict]] = [
    ([OK, OK, FLAT], "ok"),
    ([FLAT, OK], "ok"),  # half is enough
    ([OK, FLAT, FLAT], "flat"),
    ([RISING, OK, RISING], "only_rising"),
    ([FLAT, RISING, RISING, OK, FLAT, RISING], "only_rising"),
    ([OK, FLAT, *OPEN], "never_diverged"),
]


@pytest.mark.parametrize(("mixture", "verdict"), MIXTURES, ids=[str(i) for i in range(len(MIXTURES))])
def test_the_verdict_of_several_curves_is_the_commonest(mixture: list[Suggestion], verdict: Verdict) -> None:
    combined = combine(mixture)
    assert combined.verdict == verdict
    assert (combined.lr is not None) == (verdict == "ok")


def test_a_common_verdict_says_how_common_and_why() -> None:
    assert combine([FLAT, OK, FLAT]).reason == "2 of 3 curves: it is flat"


def test_curves_that_never_diverged_keep_the_median_low_end() -> None:
    low, high = ends(combine(OPEN))
    assert high is None
    assert low == pytest.approx(0.02)


@PROPERTY
@given(st.permutations([numbered(0.01), numbered(0.05, 3), numbered(0.02, 0.5), FLAT]))
def test_the_order_of_the_seeds_plays_no_part(mixture: list[Suggestion]) -> None:
    assert combine(mixture) == combine([numbered(0.01), numbered(0.05, 3), numbered(0.02, 0.5), FLAT])


def test_several_noisy_seeds_come_nearer_to_the_clean_answer_than_the_worst_of_them() -> None:
    clean = suggest(u_curve()).lr
    several = combine([suggest(u_curve(sd=0.3, seed=seed)) for seed in range(9)])
    assert clean is not None
    assert several.lr is not None
    assert several.lr == pytest.approx(clean, rel=0.25)


def test_a_combined_suggestion_survives_json() -> None:
    combined = combine([numbered(0.01), numbered(0.05), FLAT])
    assert Suggestion.from_dict(json.loads(json.dumps(combined.to_dict(), allow_nan=False))) == combined


def test_rules_far_apart_are_a_verdict_of_their_own_with_the_number_kept() -> None:
    apart = [replace(numbered(lr), rules={**numbered(lr).rules, "minimum": 40 * lr}) for lr in (0.01, 0.02)]
    combined = combine(apart)
    assert combined.verdict == "rules_disagree"
    assert combined.lr == pytest.approx(0.01 * 2**0.5)
    assert "confirm the lr by training" in combined.reason


def test_the_rules_stand_side_by_side_and_the_first_is_the_suggestion() -> None:
    suggestion = suggest(u_curve())
    assert tuple(suggestion.rules) == RULES
    assert suggestion.lr == suggestion.rules[suggestion.rule]
