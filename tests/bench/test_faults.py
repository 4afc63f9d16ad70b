"""The short form of the faults benchmark: ten kills, and two clean stops by each of two signals."""

from __future__ import annotations

import pytest

from tests.bench.faults import Outcome, line, measure


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return measure(kills=10, clean_stops=2)


def test_nothing_is_lost_and_nothing_is_double(outcomes: list[Outcome]) -> None:
    assert [(o.fault, o.tried >= 2, o.lost) for o in outcomes] == [
        ("SIGKILL", True, 0),
        ("SIGTERM", True, 0),
        ("SIGINT", True, 0),
    ], "\n".join(map(line, outcomes))


def test_a_clean_stop_repeats_nothing(outcomes: list[Outcome]) -> None:
    assert [o.repeated for o in outcomes if o.fault != "SIGKILL"] == [0, 0]
