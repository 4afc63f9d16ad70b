"""The local record of a run: append-only, each line with its checksum; the only truth.

One process writes a journal, one thread of it at a time. `flush` hands the points to the operating
system, from where a killed process cannot take them back; `end` waits until the disk has them.
"""

from __future__ import annotations

import math
import os
import re
import time
import traceback
from array import array
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakValueDictionary

from lrsearch.errors import InputError, RecordError
from lrsearch.files import whole_file
from lrsearch.tracking.entries import (
    ERROR_TAG,
    Artifact,
    End,
    Param,
    Params,
    Points,
    Record,
    Result,
    Resumed,
    RunStart,
    StageEnd,
    Status,
    Summary,
    Tags,
    Writer,
    to_line,
)
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.reading import read_run

BLOCK = 50  # points a line
FLUSH_S = 0.5  # and a point waits no longer than this for its block to fill
_METRIC_NAME = re.compile(r"(?!/|\.\.?(/|$))[\w.\- /:]{1,250}")


class RunJournal:
    """The journal of one run, open for writing."""

    def __init__(self, path: Path, folder: StudyFolder, start: RunStart) -> None:
        """Open the file at its end; use `create` or `resume`."""
        self.path = path
        self.key = start.key
        self._folder = folder
        self._rows: dict[tuple[str, ...], list[tuple[float, ...]]] = {}
        self._count = 0
        self._flushed = time.monotonic()
        self._clock_ms = time.time() * 1e3 - time.monotonic() * 1e3  # no clock change moves a later point
        self._recorded: defaultdict[str, set[int]] = defaultdict(set)  # of a resumed run: steps by metric
        self._summarized: Mapping[str, float] = {}
        self._ended = False
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._failed(error) from error
        _opened[id(self)] = self

    @classmethod
    def create(cls, folder: StudyFolder, start: RunStart) -> RunJournal:
        """Begin the journal of a new run in `folder`; RecordError where it cannot be written."""
        word = re.sub(r"[^0-9A-Za-z_.]+", "-", start.name).strip("-.")[:60] or start.kind
        path = folder.journal / f"{word}-{start.key[:8]}.jsonl"
        try:
            line = to_line(start)
            with whole_file(path) as file:  # whoever sees the file sees what run it is of
                file.write(2 * line)  # twice: without it no other line has a home
        except ValueError as error:
            raise RecordError(f"{path}: {type(start).__name__} cannot be recorded: {error}") from error
        except OSError as error:
            raise RecordError(f"the journal {path} cannot be written: {error.strerror or error}") from error
        return cls(path, folder, start)

    @classmethod
    def resume(cls, path: Path, folder: StudyFolder) -> RunJournal:
        """Go on with a run that had stopped: what is recorded stays, and is not recorded again."""
        run = read_run(path)
        journal = cls(path, folder, run.start)
        for group in run.groups:
            for name in group.metrics:
                journal._recorded[name].update(group.steps)
        journal._summarized = run.summary
        journal._blank(run.torn_at)
        # The clock may have been set back since: no point is older than those before it.
        last = max((group.ms[-1] for group in run.groups), default=run.start.started)
        journal._clock_ms = max(journal._clock_ms, last - time.monotonic() * 1e3)
        journal._append(Resumed(Writer.this_process(), journal._now_ms()))
        if run.end is not None and run.end.error:
            journal.tags({ERROR_TAG: ""})  # it is not how the run will end
        return journal

    @classmethod
    def amend(cls, path: Path, folder: StudyFolder) -> RunJournal:
        """Add tags, params or artifacts to a run that has ended; it stays ended."""
        run = read_run(path)
        journal = cls(path, folder, run.start)
        journal._ended = True
        journal._blank(run.torn_at)
        return journal

    def point(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record metrics after `step` updates; its time is fixed now.

        Raises RecordError for a value that is not finite and where the journal cannot be written, and
        InputError for a metric's name that MLflow could not show.
        """
        if self._recorded:
            metrics = {name: value for name, value in metrics.items() if step not in self._recorded[name]}
            if not metrics:
                return
        now = time.monotonic()
        row: list[float] = [step, int(self._clock_ms + now * 1e3)]
        for value in metrics.values():
            number = float(value)
            if not math.isfinite(number):
                raise RecordError(f"{self.path}: step {step} has a value that is not finite: {dict(metrics)}")
            row.append(number)
        names = tuple(metrics)
        rows = self._rows.get(names)
        if rows is None:
            check_metric_names(names)
            rows = self._rows[names] = []
        rows.append(tuple(row))
        self._count += 1
        if self._count >= BLOCK or now - self._flushed > FLUSH_S:
            self.flush()

    def summary(self, metrics: Mapping[str, float]) -> None:
        """Record metrics of the run as a whole; RecordError for a value that is not finite.

        What a resumed run has recorded already, with the same value, is not recorded again.
        """
        check_metric_names(metrics)
        known = self._summarized
        if new := {name: float(value) for name, value in metrics.items() if known.get(name) != float(value)}:
            self._append(Summary(new, self._now_ms()))

    def params(self, params: Mapping[str, Param]) -> None:
        """Record params that were not known at the start."""
        self._append(Params(params))

    def tags(self, tags: Mapping[str, str]) -> None:
        """Record tags; a later value of the same tag replaces the earlier."""
        self._append(Tags(tags))

    def artifact(self, path: str) -> None:
        """Record a file of the run, named relative to the study's folder; it must be written already."""
        if not self._folder.inside(path).is_file():
            raise InputError(
                "path", path, f"no such file in {self._folder.path}", "write it before recording it"
            )
        self._append(Artifact(path.replace(os.sep, "/")))

    def result(self, values: Mapping[str, Any]) -> None:
        """Record what the run gave, as plain JSON; a later result replaces the earlier.

        Raises RecordError for what JSON cannot hold, NaN and infinity among it.
        """
        self._append(Result(values))

    def stage(self, values: Mapping[str, Any]) -> None:
        """Record that a stage of the study has ended, and what it found, as plain JSON."""
        self._append(StageEnd(values))

    def end(self, status: Status, error: str | None = None) -> None:
        """Record how the run ended; what comes after is the mirror's work."""
        self._append(End(status, error, self._now_ms()))
        self._ended = True
        self.sync()

    def sync(self) -> None:
        """Wait until the disk has all that is recorded so far; RecordError where it cannot."""
        self.flush()
        try:
            os.fsync(self._file.fileno())
        except OSError as fault:
            raise self._failed(fault) from fault

    def flush(self) -> None:
        """Write the points that still wait for their block to fill."""
        self._flushed = time.monotonic()
        if not self._count:
            return
        lines = b"".join(_block_line(names, rows) for names, rows in self._rows.items() if rows)
        self._count = 0
        for rows in self._rows.values():
            rows.clear()
        self._write(lines)

    def close(self) -> None:
        """Write what waits and close the file; a run that has not ended may be resumed."""
        if not self._file.closed:
            try:
                self.flush()
            finally:
                self._file.close()

    def writes_to(self, folder: StudyFolder) -> bool:
        """Whether it is open, and of this folder."""
        return self._folder == folder and not self._file.closed

    def __enter__(self) -> RunJournal:
        """The journal itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run as it ended, unless that is recorded already, and close."""
        try:
            if not self._ended and not isinstance(error, RecordError):
                if error is None:
                    self.end("FINISHED")
                elif isinstance(error, Exception):
                    self.end("FAILED", "".join(traceback.format_exception(error)))
                else:
                    self.end("KILLED", type(error).__name__)
        finally:
            self.close()

    def _now_ms(self) -> int:
        return int(self._clock_ms + time.monotonic() * 1e3)

    def _blank(self, torn_at: int | None) -> None:
        """Blank an unfinished last line; its bytes stay, for a mirror that has passed over them."""
        if torn_at is None:
            return
        try:
            with self.path.open("r+b") as file:
                length = file.seek(0, os.SEEK_END) - torn_at
                file.seek(torn_at)
                file.write(b" " * (length - 1) + b"\n")
        except OSError as error:
            raise self._failed(error) from error

    def _append(self, record: Record) -> None:
        self.flush()
        try:
            line = to_line(record)
        except ValueError as error:
            raise RecordError(f"{self.path}: {type(record).__name__} cannot be recorded: {error}") from error
        self._write(line)

    def _write(self, data: bytes) -> None:
        whole = os.fstat(self._file.fileno()).st_size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            try:
                os.ftruncate(self._file.fileno(), whole)  # half a line would spoil the next one too
            finally:
                raise self._failed(error) from error

    def _failed(self, error: OSError) -> RecordError:
        return RecordError(f"the journal {self.path} cannot be written: {error.strerror or error}")


_opened: WeakValueDictionary[int, RunJournal] = WeakValueDictionary()


def being_written(folder: StudyFolder) -> bool:
    """Whether this process has a journal of the folder open."""
    journals = [reference() for reference in _opened.valuerefs()]  # a copy: another thread may open one
    return any(journal is not None and journal.writes_to(folder) for journal in journals)


def check_metric_names(names: Mapping[str, float] | tuple[str, ...]) -> None:
    """Raise InputError for a metric's name that MLflow would refuse."""
    for name in names:
        if not _METRIC_NAME.fullmatch(name) or "//" in name or name.endswith("/"):
            raise InputError(
                "metric", name, "MLflow cannot show this name", "use letters, digits, and _ - . / :"
            )


def _block_line(names: tuple[str, ...], rows: list[tuple[float, ...]]) -> bytes:
    steps, ms, *columns = zip(*rows, strict=True)
    metrics = {name: array("d", column) for name, column in zip(names, columns, strict=True)}
    return to_line(Points(array("q", steps), array("q", ms), metrics))
