"""How a command ends: also where the signal that is to end it was lost on its way."""

from __future__ import annotations

import signal
import sys
import time
import weakref
from collections.abc import Iterator
from types import FrameType

import pytest
import typer

from lrsearch.cli.console import TerminatedError, limited, reporting

AT_MOST_S = 30.0


class Thing:
    """Something to refer to weakly."""


def drop(error: type[BaseException]) -> None:
    """What a signal raises in a weakref's callback is dropped by Python."""

    def callback(_: object) -> None:
        raise error

    thing = Thing()
    reference = weakref.ref(thing, callback)
    del thing
    assert reference() is None


def lose_and_go_on(error: type[BaseException]) -> None:
    """A command at work."""
    with reporting(debug=False):
        drop(error)
        time.sleep(2 * AT_MOST_S)


@pytest.fixture(autouse=True)
def terminates() -> Iterator[None]:
    """SIGTERM raises, as in every command."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, terminate)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [(KeyboardInterrupt, 130, "interrupted; "), (TerminatedError, 143, "terminated; ")],
)
def test_a_signal_that_was_lost_in_a_callback_comes_again(
    error: type[BaseException], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = time.monotonic()
    with pytest.raises(typer.Exit) as ended:
        lose_and_go_on(error)
    assert ended.value.exit_code == code
    assert f"lrsearch: {said}" in capsys.readouterr().err
    assert time.monotonic() - begin < AT_MOST_S


def test_one_that_was_lost_as_the_work_ended_does_not_come_any_more() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        with reporting(debug=False):
            drop(KeyboardInterrupt)
        time.sleep(0.5)
    finally:
        signal.signal(signal.SIGINT, before)
    assert came == []


def test_another_exception_that_is_dropped_is_said_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: said.append(unraisable.exc_type))
    with reporting(debug=False):
        drop(ZeroDivisionError)
    assert said == [ZeroDivisionError]


def test_a_time_limit_ends_a_wait() -> None:
    begin = time.monotonic()
    with pytest.raises(typer.Exit) as ended, reporting(debug=False), limited(0.2):
        time.sleep(2 * AT_MOST_S)
    assert ended.value.exit_code == 130
    assert time.monotonic() - begin < AT_MOST_S
