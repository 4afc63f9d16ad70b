"""One process at a time works on a study: a lock of the operating system's, and beside it who holds it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from filelock import FileLock, Timeout

from lrsearch.errors import InputError, RecordError
from lrsearch.files import writing
from lrsearch.tracking.entries import Writer
from lrsearch.tracking.folder import StudyFolder


@contextmanager
def hold(folder: StudyFolder) -> Iterator[None]:
    """Hold a study's folder; InputError where another process does, with its machine, its number and since
    when.

    The system frees the lock of a process that has died, and the next one takes it over. One on another
    machine that has not let go counts as alive, whatever the lock says: not every file system locks across
    machines. Raises RecordError where the folder cannot be written.
    """
    lock = FileLock(folder.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise _held(folder, _read(folder), "wait for its end, or stop it") from error
    except OSError as error:
        raise RecordError(f"{folder.lock} cannot be written: {error.strerror or error}") from error
    try:
        before = _read(folder)
        if before is not None and before.writer.alive() is None:
            mend = f"wait for its end, or stop it; where that machine is gone, remove {folder.holder}"
            raise _held(folder, before, mend)
        with _signed(folder):
            yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _Holder:
    """The process that holds a folder, and since when, in seconds since the epoch."""

    writer: Writer
    since: float

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        return f"process {self.writer.pid} on {self.writer.host} since {since}"


@contextmanager
def _signed(folder: StudyFolder) -> Iterator[None]:
    """Say that we hold the folder, as long as we do; the file stays, for a folder may become read-only."""
    with writing(folder.holder):
        file = folder.holder.open("wb", buffering=0)
    with file:
        text = json.dumps({"writer": vars(Writer.this_process()), "since": time.time()})
        with writing(folder.holder):
            file.write(text.encode())
        try:
            yield
        finally:
            file.truncate(0)


def _read(folder: StudyFolder) -> _Holder | None:
    """Who holds the folder, or died while holding it; None where nobody says so."""
    try:
        values = json.loads(folder.holder.read_text(encoding="utf-8"))
        return _Holder(Writer(**values["writer"]), float(values["since"]))
    except (OSError, ValueError, KeyError, TypeError):  # none yet, emptied, or cut off by a full disk
        return None


def _held(folder: StudyFolder, holder: _Holder | None, mend: str) -> InputError:
    who = "which one it has not said" if holder is None else str(holder)
    return InputError("name", folder.name, f"another process is at work on this study: {who}", mend)
