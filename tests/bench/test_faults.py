"""The faults benchmark in its shortest form: a few kills, and a fault of either other kind.

Every fault of the machine and of the server has tests of its own in `study/test_faults.py` and
`tracking/test_outage.py`.
"""

from __future__ import annotations

import pytest

from tests.bench import crash_faults, machine_faults, server_faults
from tests.bench.crash_faults import Outcome
from tests.bench.faults import SHORT_AWAY_S, line

HELD_UP_S = 1.0
SPOILER, FAULT = "full disk", "mirror killed"


@pytest.fixture(scope="module")
def ended() -> list[Outcome]:
    return crash_faults.measure(kills=4, clean_stops=1)


@pytest.fixture(scope="module")
def spoilt() -> list[Outcome]:
    return machine_faults.measure(tries=1, faults=[SPOILER])


@pytest.fixture(scope="module")
def served() -> list[Outcome]:
    return server_faults.measure(sqlite=1, postgresql=0, away_s=SHORT_AWAY_S, faults=[FAULT])


def test_nothing_is_lost_and_nothing_is_double(ended: list[Outcome]) -> None:
    assert [(o.fault, o.tried >= 1, o.lost) for o in ended] == [
        ("SIGKILL", True, 0),
        ("SIGTERM", True, 0),
        ("SIGINT", True, 0),
    ], "\n".join(map(line, ended))


def test_a_clean_stop_repeats_nothing(ended: list[Outcome]) -> None:
    assert [sum(o.repeated or ()) for o in ended if o.fault != "SIGKILL"] == [0, 0]


def test_what_a_disk_spoils_goes_on(spoilt: list[Outcome]) -> None:
    (outcome,) = spoilt
    if not outcome.tried:
        pytest.skip(outcome.problems[0])
    assert (outcome.tried, outcome.lost, outcome.problems) == (1, 0, []), line(outcome)


def test_no_fault_of_the_server_loses_or_doubles_anything(served: list[Outcome]) -> None:
    found = [(o.fault, o.tried, o.lost, o.problems) for o in served]
    assert found == [(FAULT, 1, 0, [])], "\n".join(map(line, served))


def test_no_fault_of_the_server_holds_the_training_up(served: list[Outcome]) -> None:
    assert {o.fault: o.held_up_s for o in served if (o.held_up_s or 0.0) >= HELD_UP_S} == {}
    assert all(o.held_up_s for o in served)
