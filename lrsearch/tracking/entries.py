"""What a journal holds: the records, and a checked line of text for each.

A line is the CRC-32 of the JSON text as 8 hexadecimal digits, a space, and the JSON object:
`1c291ca3 {"type":"summary",...}`. All times are milliseconds since the epoch, UTC.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
import time
import uuid
import zlib
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import psutil

FORMAT = 2
"""Of a journal; those of format 1 have no stages, and are read too."""

Kind = Literal["study", "range_test", "trial"]
Status = Literal["FINISHED", "FAILED", "KILLED"]
Param = str | int | float | bool | None

ERROR_TAG = "lrsearch.error"
"""Where MLflow shows the `error` of a run's end."""

_KINDS = ("study", "range_test", "trial")
_STATUSES = ("FINISHED", "FAILED", "KILLED")
_KEY = re.compile(r"[0-9A-Za-z_-]{1,64}")


@dataclass(frozen=True)
class Writer:
    """The process that writes a journal."""

    host: str
    pid: int
    created: float  # seconds from the machine's start to the process's: no clock change moves it

    @classmethod
    def this_process(cls) -> Writer:
        """The writer that we are."""
        process = psutil.Process()
        return cls(socket.gethostname(), os.getpid(), process.create_time() - psutil.boot_time())

    def alive(self) -> bool | None:
        """Whether the process still runs; None where it is another machine's."""
        if self.host != socket.gethostname():
            return None
        try:
            process = psutil.Process(self.pid)
            created = process.create_time() - psutil.boot_time()
            return bool(abs(created - self.created) < 2 and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class DataInput:
    """A data set that a run reads: `context` is train or val, `digest` its fingerprint."""

    name: str
    context: str
    digest: str
    profile: Mapping[str, Any] = field(default_factory=dict)


def now_ms() -> int:
    """The time in milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class RunStart:
    """A run begins. `key` is unique in the world; `parent` is the key of the run it belongs to."""

    name: str
    kind: Kind
    study: str
    stage: str | None = None
    parent: str | None = None
    params: Mapping[str, Param] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[DataInput, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: int = field(default_factory=now_ms)
    writer: Writer = field(default_factory=Writer.this_process)


@dataclass(frozen=True)
class Resumed:
    """A run that had stopped goes on in another process."""

    writer: Writer
    ms: int


@dataclass(frozen=True)
class Points:
    """A block of points of the same metrics: one step, one time and one value a metric for each."""

    steps: array[int]
    ms: array[int]
    metrics: Mapping[str, array[float]]


@dataclass(frozen=True)
class Summary:
    """Metrics of the run as a whole."""

    metrics: Mapping[str, float]
    ms: int


@dataclass(frozen=True)
class Params:
    """Params that are known only later, such as the answer."""

    params: Mapping[str, Param]


@dataclass(frozen=True)
class Tags:
    """Tags set while the run is on, or after it."""

    tags: Mapping[str, str]


@dataclass(frozen=True)
class Artifact:
    """A file of the run, named relative to the study's folder with forward slashes."""

    path: str


@dataclass(frozen=True)
class Result:
    """What the run gave, as plain JSON: for whoever resumes the study; the mirror passes over it."""

    values: Mapping[str, Any]


@dataclass(frozen=True)
class StageEnd:
    """A stage of a study has ended, with what it found, as plain JSON; the mirror passes over it."""

    values: Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """The run has ended; `error` is the traceback or reason of one that failed."""

    status: Status
    error: str | None
    ms: int


Record = RunStart | Resumed | Points | Summary | Params | Tags | Artifact | Result | StageEnd | End


def as_params(values: Mapping[str, Any]) -> dict[str, Param]:
    """Any values as params: lists and mappings as JSON text, other objects as text; None is left out."""
    return {name: _as_param(value) for name, value in values.items() if value is not None}


def _as_param(value: Any) -> Param:
    if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return json.dumps(value, default=str) if isinstance(value, list | tuple | dict) else str(value)


def to_line(record: Record) -> bytes:
    """The line of a record; ValueError for what JSON cannot hold (NaN, infinity, other objects)."""
    try:
        text = json.dumps(_to_json(record), allow_nan=False, separators=(",", ":")).encode("ascii")
    except TypeError as error:
        raise ValueError(str(error)) from error
    return b"%08x %s\n" % (zlib.crc32(text), text)


def from_line(line: bytes) -> Record:
    """The record of a line; ValueError for one that is damaged or that no journal would hold."""
    text = line[9:].rstrip(b"\n")
    if line[:9] != b"%08x " % zlib.crc32(text):
        raise ValueError("the checksum does not fit")
    try:
        return _from_json(json.loads(text, parse_constant=_refuse_constant))
    except (KeyError, TypeError, OverflowError, RecursionError, AttributeError) as error:
        raise ValueError(f"no record of ours: {error!r}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _to_json(record: Record) -> dict[str, Any]:
    match record:
        case Points():
            metrics = {name: values.tolist() for name, values in record.metrics.items()}
            return {
                "type": "points",
                "step": record.steps.tolist(),
                "ms": record.ms.tolist(),
                "metrics": metrics,
            }
        case Summary():
            return {"type": "summary", "metrics": dict(record.metrics), "ms": record.ms}
        case Params():
            return {"type": "params", "params": dict(record.params)}
        case Tags():
            return {"type": "tags", "tags": dict(record.tags)}
        case Artifact():
            return {"type": "artifact", "path": record.path}
        case Result():
            return {"type": "result", "values": dict(record.values)}
        case StageEnd():
            return {"type": "stage", "values": dict(record.values)}
        case End():
            return {"type": "end", "status": record.status, "error": record.error, "ms": record.ms}
        case Resumed():
            return {"type": "resumed", "writer": vars(record.writer), "ms": record.ms}
        case RunStart():
            inputs = [{**vars(data), "profile": dict(data.profile)} for data in record.inputs]
            plain = {
                "writer": vars(record.writer),
                "params": dict(record.params),
                "tags": dict(record.tags),
                "inputs": inputs,
                "provenance": dict(record.provenance),
            }
            return {"type": "start", "format": FORMAT, **vars(record), **plain}


def _from_json(data: Any) -> Record:
    kind = data["type"]
    if kind == "points":
        return _points(data["step"], data["ms"], data["metrics"])
    if kind == "summary":
        return Summary({str(k): _finite(v) for k, v in data["metrics"].items()}, int(data["ms"]))
    if kind == "params":
        return Params(_params(data["params"]))
    if kind == "tags":
        return Tags(_texts(data["tags"]))
    if kind == "artifact":
        return Artifact(_text(data["path"]))
    if kind in ("result", "stage"):
        if not isinstance(data["values"], dict):
            raise TypeError(f"{data['values']!r} is no object")
        return Result(data["values"]) if kind == "result" else StageEnd(data["values"])
    if kind == "end":
        status, error = data["status"], data["error"]
        if status not in _STATUSES:
            raise ValueError(f"status {status!r}")
        return End(status, None if error is None else _text(error), int(data["ms"]))
    if kind == "resumed":
        return Resumed(_writer(data["writer"]), int(data["ms"]))
    if kind == "start":
        return _start(data)
    raise ValueError(f"record of type {kind!r}")


def _start(data: Mapping[str, Any]) -> RunStart:
    if not (isinstance(data["format"], int) and 1 <= data["format"] <= FORMAT):
        raise ValueError(f"journal of format {data['format']!r}, not {FORMAT}")
    if data["kind"] not in _KINDS or not _KEY.fullmatch(data["key"]):
        raise ValueError(f"run of kind {data['kind']!r} with key {data['key']!r}")
    if data["parent"] is not None and not _KEY.fullmatch(data["parent"]):
        raise ValueError(f"parent {data['parent']!r}")
    return RunStart(
        name=_text(data["name"]),
        kind=data["kind"],
        study=_text(data["study"]),
        stage=None if data["stage"] is None else _text(data["stage"]),
        parent=data["parent"],
        params=_params(data["params"]),
        tags=_texts(data["tags"]),
        inputs=tuple(
            DataInput(_text(d["name"]), _text(d["context"]), _text(d["digest"]), dict(d["profile"]))
            for d in data["inputs"]
        ),
        provenance=dict(data["provenance"]),
        key=data["key"],
        started=int(data["started"]),
        writer=_writer(data["writer"]),
    )


def _points(steps: Any, ms: Any, metrics: Any) -> Points:
    points = Points(array("q", steps), array("q", ms), {str(k): array("d", v) for k, v in metrics.items()})
    for name, values in metrics.items():
        if len(values) != len(steps) or not all(map(math.isfinite, values)):
            raise ValueError(f"block of {name} is not whole")
    if not steps or len(ms) != len(steps):
        raise ValueError("block of times is not whole")
    return points


def _writer(data: Mapping[str, Any]) -> Writer:
    return Writer(_text(data["host"]), int(data["pid"]), float(data["created"]))


def _params(data: Mapping[str, Any]) -> dict[str, Param]:
    if not all(value is None or isinstance(value, str | int | float) for value in data.values()):
        raise ValueError("a param is neither text nor number")
    return dict(data)


def _texts(data: Mapping[str, Any]) -> dict[str, str]:
    return {key: _text(value) for key, value in data.items()}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _finite(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is not finite")
    return float(value)
