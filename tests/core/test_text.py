"""Numbers, ranges, gains, plans and findings in words."""

from __future__ import annotations

from typing import Any

import pytest

from lrsearch.core import text
from lrsearch.core.findings import (
    Bracket,
    CoarseFindings,
    DecayFindings,
    Findings,
    FineFindings,
    RankedSchedule,
    SweepFindings,
)
from lrsearch.core.presets import load_plan
from lrsearch.core.response import Interval
from lrsearch.core.stats import Gain
from lrsearch.core.study_plan import StageName


@pytest.mark.parametrize(("seconds", "said", "roughly"), [
    (0.34, "0.3 s", "0 s"),
    (10, "10 s", "10 s"),
    (59.6, "1 min", "1 min"),
    (290, "4 min 50 s", "5 min"),
    (3599.7, "1 h", "1 h"),
    (7500, "2 h 5 min", "2 h"),
    (200_000, "2 d 8 h", "2 d"),
])  # fmt: skip
def test_a_duration_is_said_in_two_units_at_most(seconds: float, said: str, roughly: str) -> None:
    assert (text.duration(seconds), text.duration(seconds, roughly=True)) == (said, roughly)


def test_numbers_have_three_or_four_digits_and_none_is_a_dash() -> None:
    assert [text.number(value) for value in (0.123456, 1e-7, 10, None)] == ["0.123", "1e-07", "10", "–"]
    assert [text.amount(value) for value in (0.9, 1234.0, None)] == ["0.9000", "1234", "–"]
    assert [text.signed(value) for value in (0.5, -0.01234)] == ["+0.500", "-0.0123"]


def test_names_are_listed_as_in_a_sentence() -> None:
    assert [text.listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a and b",
        "a, b and c",
    ]


@pytest.mark.parametrize(("low_open", "high_open", "said"), [
    (False, False, "0.05 to 0.2"),
    (True, False, "0.05 or lower to 0.2"),
    (False, True, "0.05 to 0.2 or higher"),
    (True, True, "0.05 or lower to 0.2 or higher"),
])  # fmt: skip
def test_an_open_side_is_said(low_open: bool, high_open: bool, said: str) -> None:
    assert text.interval(Interval(0.05, 0.2, 0.9, low_open, high_open)) == f"90% interval {said}"


@pytest.mark.parametrize(("gain", "said"), [
    (Gain(0.0301, None, None, 0.9, "one_seed"), "0.0301 better than it (undecided: a single seed)"),
    (Gain(0.03, 0.02, 0.04, 0.9, "worse"), "0.03 better than it (90% bounds +0.0200 to +0.0400)"),
    (
        Gain(-0.002, -0.04, 0.03, 0.9, "undecided"),
        "0.002 worse than it (90% bounds -0.0400 to +0.0300: undecided)",
    ),
    (
        Gain(0.004, 0.001, 0.007, 0.9, "not_worse"),
        "0.004 better than it (90% bounds +0.00100 to +0.00700: less than the margin)",
    ),
])  # fmt: skip
def test_a_gain_is_said_with_what_is_known_of_it(gain: Gain, said: str) -> None:
    assert text.gain(gain, "it") == said


def test_a_schedule_is_said_with_its_settings() -> None:
    warmup = {"name": "warmup", "inner": {"name": "wsd", "decay": 0.2}, "fraction": 0.05}
    assert text.schedule(warmup) == "warmup+wsd (decay 0.2, fraction 0.05)"
    assert text.schedule({"name": "constant"}) == "constant"


@pytest.mark.parametrize(("changes", "stage", "said"), [
    ({}, "range-test", "3 sweeps from lr 1e-07 to 10, each up to 33% of a training"),
    (
        {},
        "coarse",
        "3 lrs, a factor of 8 apart, up to 3 more if the best is at an end; 1 further seed at the best",
    ),
    ({}, "fine", "no further lr"),
    ({}, "decay", "linear, wsd, one_cycle; the lr of the best is then moved octave by octave"),
    ({}, "confirm", "the best 2, on 2 to 4 fresh seeds; Adam at lr 0.001, once"),
    ({"fine": {"trials": 3}}, "fine", "up to 3 lrs around the best"),
    ({"fine": {"trials": 1}}, "fine", "up to 1 lr around the best"),
    ({"proxy": 0.5}, "coarse", "at 50% of the full length"),
    ({"proxy": 0.5}, "fine", "the best and its two neighbours at full length"),
    ({"decay": {"families": ["constant"]}}, "decay", "no other schedule"),
    ({"decay": {"extended": 2}}, "decay", "the lrs of the best 2 are then moved"),
    ({"confirm": {"seeds": 3, "max_seeds": 3}}, "confirm", "on 3 fresh seeds"),
    ({"coarse": {"replicates": 1, "extensions": 0}}, "coarse", "apart; 1 further seed at"),
])  # fmt: skip
def test_each_stage_of_a_plan_is_told_in_a_few_words(
    changes: dict[str, Any], stage: StageName, said: str
) -> None:
    told = text.plan_stages(load_plan({"steps": 200, **changes}))[stage]
    assert said in told if changes else said == told


@pytest.mark.parametrize(("found", "said"), [
    (SweepFindings(None, None, "flat", ""), "no bracket (flat)"),
    (SweepFindings(None, Bracket(0.1, None), "ok", ""), "bracket 0.1 upwards (ok)"),
    (CoarseFindings(0.1, None, needs_warmup=True, runs_differ=None), "best lr 0.1, needs warmup"),
    (FineFindings(0.1, "low"), "best lr 0.1, the lowest tried"),
    (DecayFindings(()), "no other schedule was tried"),
    (
        DecayFindings((RankedSchedule("linear", 0.1),) * 4),
        "best first: linear at 0.1, linear at 0.1, linear at 0.1, …",
    ),
    (None, "not finished"),
])  # fmt: skip
def test_what_a_stage_found_is_told(found: Findings | None, said: str) -> None:
    assert text.stage_found(found) == said
