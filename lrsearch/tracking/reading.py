"""What journals say: read whole, or followed while they grow; what is damaged is said and passed over."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrsearch.errors import RecordError
from lrsearch.tracking.entries import (
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
    Summary,
    Tags,
    Writer,
    from_line,
)
from lrsearch.tracking.folder import StudyFolder

_CHUNK = 1 << 20


@dataclass
class RunRecord:
    """What a journal says. `groups` holds the points, one group for each set of metrics reported together."""

    path: Path
    start: RunStart
    groups: list[Points] = field(default_factory=list)
    summary: dict[str, float] = field(default_factory=dict)
    params: dict[str, Param] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)
    result: Mapping[str, Any] | None = None
    stages: list[Mapping[str, Any]] = field(default_factory=list)
    writer: Writer | None = None
    end: End | None = None
    damage: list[str] = field(default_factory=list)
    torn_at: int | None = None  # where an unfinished last line begins

    def metric(self, name: str) -> tuple[array[int], array[float]]:
        """The steps and the values of a metric, both empty where there is none."""
        steps, values = array("q"), array("d")
        for group in self.groups:
            if name in group.metrics:
                steps.extend(group.steps)
                values.extend(group.metrics[name])
        return steps, values

    def metric_names(self) -> list[str]:
        """The names of all metrics that have points."""
        return sorted({name for group in self.groups for name in group.metrics})


class Tail:
    """Reads a journal that may still grow, from a byte offset on; damaged lines are said and passed over."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        """Begin at a byte offset where a line begins."""
        self.path = path
        self.offset = offset
        self.damage: list[str] = []

    def read(self) -> Iterator[tuple[Record, int]]:
        """The records there are now, each with the offset behind it; an unfinished last line is left."""
        rest = b""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while chunk := file.read(_CHUNK):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    at = self.offset
                    self.offset += len(line) + 1
                    if not line.strip():  # was unfinished when the run was resumed
                        continue
                    try:
                        record = from_line(line)
                    except ValueError as error:
                        self.damage.append(f"{self.path.name}: the line at byte {at} is damaged ({error})")
                    else:
                        yield record, self.offset

    def torn(self) -> bool:
        """Whether an unfinished line stands at the end of what was read."""
        return self.path.stat().st_size > self.offset


def read_run(path: Path) -> RunRecord:
    """Read a journal: everything whole in it, and in `damage` what is not.

    An unfinished last line is no damage while the process that writes it lives.
    Raises RecordError where the file cannot be read or says not even what run it is.
    """
    tail = Tail(path)
    run: RunRecord | None = None
    groups: dict[tuple[str, ...], Points] = {}
    try:
        for record, _ in tail.read():
            if isinstance(record, RunStart):
                run = run or RunRecord(path, record, writer=record.writer)
            elif run is not None:
                _add(run, groups, record)
        torn = tail.torn()
    except OSError as error:
        raise RecordError(f"the journal {path} cannot be read: {error.strerror or error}") from error
    if run is None:
        raise RecordError(f"the journal {path} has no beginning: {'; '.join(tail.damage) or 'it is empty'}")
    run.params = {**run.start.params, **run.params}
    run.tags = {**run.start.tags, **run.tags}
    run.groups = list(groups.values())
    if torn:
        run.torn_at = tail.offset
        if run.end is not None or run.writer is None or run.writer.alive() is False:
            tail.damage.append(f"{path.name}: the last line, at byte {tail.offset}, is unfinished")
    run.damage = tail.damage
    return run


def read_runs(folder: StudyFolder) -> tuple[list[RunRecord], list[str]]:
    """Read all runs of a folder, in the order in which they began, and say what cannot be read."""
    runs, damage = [], []
    for path in folder.journals():
        try:
            runs.append(read_run(path))
        except RecordError as error:
            damage.append(str(error))
    return sorted(runs, key=lambda run: run.start.started), damage


def read_start(path: Path) -> RunStart:
    """Return what run a journal is of; RecordError where it does not say."""
    with path.open("rb") as file:
        for line in file:
            try:
                record = from_line(line)
            except ValueError:
                continue
            if isinstance(record, RunStart):
                return record
    raise RecordError(f"the journal {path} has no beginning")


def last_writer(path: Path) -> Writer | None:
    """The process that resumed a run last; None where it was never resumed."""
    writer = None
    for record, _ in Tail(path).read():
        if isinstance(record, Resumed):
            writer = record.writer
    return writer


def _add(run: RunRecord, groups: dict[tuple[str, ...], Points], record: Record) -> None:
    match record:
        case Points():
            group = groups.setdefault(tuple(record.metrics), record)
            if group is not record:
                group.steps.extend(record.steps)
                group.ms.extend(record.ms)
                for name, values in record.metrics.items():
                    group.metrics[name].extend(values)
        case Summary():
            run.summary.update(record.metrics)
        case Params():
            run.params.update(record.params)
        case Tags():
            run.tags.update(record.tags)
        case Artifact() if record.path not in run.artifacts:
            run.artifacts.append(record.path)
        case Result():
            run.result = record.values
        case StageEnd():
            run.stages.append(record.values)
        case Resumed():
            run.writer, run.end = record.writer, None
        case End():
            run.end = record
