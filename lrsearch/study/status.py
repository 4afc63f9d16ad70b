"""The studies and range tests there are, and how far each has come."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lrsearch.core import text
from lrsearch.core.study_plan import STAGES
from lrsearch.core.table import Row, Table
from lrsearch.errors import RecordError
from lrsearch.schedules import schedule_name
from lrsearch.tracking.entries import RunStart
from lrsearch.tracking.folder import StudyFolder, home
from lrsearch.tracking.progress import load_state
from lrsearch.tracking.reading import last_writer, read_start

State = Literal["finished", "running", "stopped", "damaged"]


@dataclass(frozen=True)
class Status:
    """A study or a range test. `stage` and `trials` say how far it is; lr and schedule stand in a finished
    one. `changed` is when it was last written to, in seconds since the epoch.
    """

    name: str
    kind: Literal["study", "range_test"]
    state: State
    stage: str | None
    trials: int
    lr: float | None
    schedule: str | None
    metric: str | None
    objective: float | None
    tracking: str
    changed: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    def cells(self) -> Row:
        """A row of a table: name, state, how far, answer, objective, in MLflow, when."""
        far = text.count(self.trials, "trial") if self.kind == "study" else "range test"
        state = self.state if self.stage is None else f"{self.state} in {self.stage}"
        schedule = f", {self.schedule}" if self.schedule else ""
        answer = text.NONE if self.lr is None else f"lr {text.number(self.lr)}{schedule}"
        objective = text.NONE
        if self.objective is not None:
            objective = f"{self.metric} {text.amount(self.objective)}"
        ago = f"{text.duration(max(0.0, time.time() - self.changed), roughly=True)} ago"
        return self.name, state, far, answer, objective, self.tracking, ago


def status_table(found: Sequence[Status]) -> Table:
    """A row a study or range test."""
    columns = ("name", "state", "trials", "answer", "objective", "MLflow", "last written")
    return Table([entry.cells() for entry in found], columns)


def overview() -> list[Status]:
    """Everything below `LRSEARCH_HOME`, the last changed first."""
    found = [status(StudyFolder(path.parent)) for path in home().glob("*/journal") if path.is_dir()]
    return sorted(found, key=lambda entry: -entry.changed)


def status(folder: StudyFolder) -> Status:
    """How far a study or range test has come."""
    is_study = folder.plan.is_file()
    starts = _starts(folder)
    stages = Counter(start.stage for start in starts.values())
    state, answer = _state(folder, is_study, starts)
    reached = [stage for stage in STAGES if stages[stage]]
    kept = load_state(folder)
    synced = kept is not None and kept.state == "synced" and kept.covers(folder)
    return Status(
        name=folder.name,
        kind="study" if is_study else "range_test",
        state=state,
        stage=None if state == "finished" or not is_study or not reached else reached[-1],
        trials=sum(stages[stage] for stage in STAGES if stage != "range-test") if is_study else 0,
        lr=answer.get("lr"),
        schedule=answer.get("schedule"),
        metric=answer.get("metric"),
        objective=answer.get("objective"),
        tracking="synced" if synced else "pending",
        changed=max((path.stat().st_mtime for path in folder.journals()), default=0.0),
    )


def _starts(folder: StudyFolder) -> dict[Path, RunStart]:
    """How every run began; those left out may just be begun, or are damaged."""
    starts = {}
    for path in folder.journals():
        with suppress(RecordError):
            starts[path] = read_start(path)
    return starts


def _state(
    folder: StudyFolder, is_study: bool, starts: Mapping[Path, RunStart]
) -> tuple[State, dict[str, Any]]:
    path = folder.result if is_study else folder.path / "curve.json"
    if not path.is_file():
        return ("running" if _is_running(is_study, starts) else "stopped"), {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = _answer(values["answer"]) if is_study else {"lr": _number(values["suggestion"]["lr"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "damaged", {}
    return "finished", found


def _answer(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "lr": _number(values["lr"]),
        "schedule": schedule_name(values["schedule"]),
        "metric": str(values["metric"]),
        "objective": _number(values["objective"]),
    }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _is_running(is_study: bool, starts: Mapping[Path, RunStart]) -> bool:
    kind = "study" if is_study else "range_test"
    own = [path for path, start in starts.items() if start.kind == kind]
    writers = [last_writer(path) or starts[path].writer for path in own[:1]]
    return any(writer.alive() is not False for writer in writers)
