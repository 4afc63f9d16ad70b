"""What the mirror has sent so far: written by the mirror, read by whoever wants to know."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from lrsearch.files import write_json
from lrsearch.tracking.destination import Destination
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.provenance import redact


@dataclass
class SentRun:
    """How much of one journal MLflow has."""

    file: str
    run_id: str | None = None
    offset: int = 0  # bytes of the journal that are sent
    points: int = 0  # metric values among them
    ended: bool = False


@dataclass
class MirrorState:
    """The mirror's state; `runs` by the key of the run. `error` is the last trouble, in one line.

    `pid` is the mirror that wrote it last; `unreadable` are journals that do not say what run they are of.
    """

    tracking_uri: str
    experiment: str
    experiment_id: str | None = None
    pid: int = 0
    state: Literal["pending", "synced"] = "pending"
    error: str | None = None
    runs: dict[str, SentRun] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, destination: Destination) -> MirrorState:
        """Nothing sent yet to a destination."""
        return cls(redact(destination.tracking_uri), destination.experiment, destination.experiment_id)

    def same_place(self, other: MirrorState) -> bool:
        """Whether both speak of the same server and experiment."""
        same_id = other.experiment_id in (None, self.experiment_id)
        return same_id and (self.tracking_uri, self.experiment) == (other.tracking_uri, other.experiment)

    def save(self, folder: StudyFolder) -> None:
        """Write it to the folder."""
        write_json(folder.mirror_state, asdict(self))

    def covers(self, folder: StudyFolder) -> bool:
        """Whether every run of the folder has ended and is in MLflow to its last byte."""
        sent = {run.file: run for run in self.runs.values()}
        for path in folder.journals():
            run = sent.get(path.name)
            if path.name in self.unreadable:
                continue
            if run is None or not run.ended or run.offset < path.stat().st_size:
                return False
        return True


def load_state(folder: StudyFolder) -> MirrorState | None:
    """The state in a folder; None where there is none or it is damaged; all is then sent again."""
    try:
        data = json.loads(folder.mirror_state.read_text(encoding="utf-8"))
        runs = {key: SentRun(**run) for key, run in data.pop("runs").items()}
        return MirrorState(**data, runs=runs)
    except (FileNotFoundError, ValueError, TypeError, AttributeError, KeyError):
        return None
