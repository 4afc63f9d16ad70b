"""What a full disk, a read-only folder and a clock that is set back cost a study.

It comes upon a small study in the middle of a training. Where the study stops, that must be with code 1 and a
word why; mended, it goes on. Then it is held against one that nobody disturbed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lrsearch.tracking.folder import StudyFolder
from tests.bench.crash_faults import Outcome, Spoiler, Study, compare
from tests.study.faults import DAY, Clock, bound_by_permissions, fill, mounted_disk
from tests.study.tasks import PLAN
from tests.tracking.store import empty_store

TRIES = 5


class _FullDisk(Spoiler):
    said = "No space left on device"

    @contextmanager
    def place(self, one: Study) -> Iterator[None]:
        with mounted_disk(one.home, 32):
            yield

    def spoil(self, folder: StudyFolder) -> None:
        fill(folder.path.parent, 0)

    def mend(self, one: Study) -> None:
        (one.home / "filler").unlink()


class _ReadOnly(Spoiler):
    said = "cannot be written: Permission denied"

    @contextmanager
    def process(self) -> Iterator[None]:
        with bound_by_permissions():
            yield

    def spoil(self, folder: StudyFolder) -> None:
        for path in (folder.path, folder.journal):
            path.chmod(0o500)

    def mend(self, one: Study) -> None:
        for path in (one.folder.path, one.folder.journal):
            path.chmod(0o700)


class _ClockBack(Spoiler):
    @contextmanager
    def process(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            self._clock = Clock(patch)
            yield

    def spoil(self, folder: StudyFolder) -> None:
        self._clock.behind = DAY


SPOILERS = {"full disk": _FullDisk(), "read-only folder": _ReadOnly(), "clock set back a day": _ClockBack()}


def measure(tries: int = TRIES, faults: Iterable[str] = SPOILERS) -> list[Outcome]:
    """Spoils the disk, the folder, and the clock of so many studies each, and compares."""
    # A mirror may still be at its last file when its study is settled.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        empty = empty_store(place / "empty.db")
        whole = Study(place / "whole", empty, PLAN)
        whole.work(None)
        whole.settle()
        outcomes = [Outcome(fault) for fault in faults]
        for outcome in outcomes:
            for number in range(tries):
                _spoil(outcome, Study(place / f"{outcome.fault}-{number}", empty, PLAN), whole)
    return outcomes


def _spoil(outcome: Outcome, one: Study, whole: Study) -> None:
    spoiler = SPOILERS[outcome.fault]
    with ExitStack() as stack:
        try:
            stack.enter_context(spoiler.place(one))
        except OSError as error:
            outcome.problems.append(f"not tried: {error}")
            return
        outcome.tried += 1
        outcome.records += 1
        code = one.work(None, spoiler=spoiler)
        if code != (1 if spoiler.said else 0) or spoiler.said not in one.said:
            outcome.problems.append(f"ended with {code}: {one.said}")
        spoiler.mend(one)
        if code and one.work(None):
            outcome.problems.append(f"did not go on: {one.said}")
        one.settle()
        compare(one, whole, outcome)
