"""One journal on its way to one run in MLflow; used by the mirror alone."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lrsearch.errors import InputError
from lrsearch.tracking.entries import (
    ERROR_TAG,
    Artifact,
    End,
    Params,
    Points,
    Record,
    Resumed,
    RunStart,
    Summary,
    Tags,
)
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.mlflow.views import run_page, view_page
from lrsearch.tracking.progress import SentRun
from lrsearch.tracking.reading import Tail, last_writer

if TYPE_CHECKING:
    from lrsearch.tracking.mlflow.server import Server

_BATCH = 900  # metric values that are sent together: many are cheap
_ENOUGH = 300  # of what is there now, so many do not wait for more: few are left at the end
_LINK = re.compile(r"\{(run|view):([\w-]+)\}")
_LINGER_S = 5.0  # points alone wait so long for a full batch

log = logging.getLogger("lrsearch.mirror")


class Forwarder:
    """Sends what is new in a journal; `sent` says how far it came and is what survives a kill.

    The offset moves on only behind what the server has taken. What is sent again after a fault is the same
    to the last bit, timestamps too, and the server stores it once.
    """

    def __init__(
        self,
        path: Path,
        folder: StudyFolder,
        start: RunStart,
        sent: SentRun,
        run_id_of: Callable[[Server, str], str | None],
    ) -> None:
        """Go on from `sent.offset`; `run_id_of` is MLflow's id of a key's run, None where unknown."""
        self.path = path
        self.start = start
        self.sent = sent
        resumed = last_writer(path) if sent.offset and not sent.ended else None
        self.writer = resumed or start.writer
        self._folder = folder
        self._run_id_of = run_id_of
        self._metrics: list[tuple[str, float, int, int]] = []
        self._params: dict[str, object] = {}
        self._tags: dict[str, str] = {}
        self._damage: set[str] = set()
        self._only_points = True
        self._delivered = float("-inf")  # the first points go at once
        self._seen = 0

    def done(self) -> bool:
        """Whether the run has ended and is sent to the last byte."""
        return self.sent.ended and self.sent.offset >= self.path.stat().st_size

    def forward(self, server: Server, run_id: str) -> bool:
        """Send what is new; whether there was anything."""
        writer = self.writer
        gone = writer.alive() is False  # asked before reading: what it wrote last is then read
        before = at = self.sent.offset
        size, waited = self.path.stat().st_size, time.monotonic() - self._delivered >= _LINGER_S
        if size == self._seen and not waited and not gone:
            return False
        self._metrics, self._params, self._tags, self._only_points = [], {}, {}, True
        tail = Tail(self.path, before)
        for record, offset in tail.read():
            self._take(server, run_id, record, at)
            at = offset
            if len(self._metrics) >= _BATCH:
                self._deliver(server, run_id, at)
        if waited or gone or not self._only_points or len(self._metrics) >= _ENOUGH:
            self._deliver(server, run_id, tail.offset)
        if gone and self.writer is writer and not self.sent.ended:
            self._end_killed(server, run_id, tail, size)
        for damage in tail.damage:
            if damage not in self._damage:
                log.warning("%s", damage)
        self._damage.update(tail.damage)
        self._seen = size
        return self.sent.offset > before

    def _take(self, server: Server, run_id: str, record: Record, at: int) -> None:
        self._only_points &= isinstance(record, Points)
        match record:
            case RunStart():
                self._params.update(record.params)
                self._tags.update(server.users_tags(record))
                server.log_inputs(run_id, record.inputs)
                server.save_views(run_id, record)
            case Points():
                for name, values in record.metrics.items():
                    self._metrics += zip([name] * len(values), values, record.ms, record.steps, strict=True)
            case Summary():
                self._metrics += [(name, value, record.ms, 0) for name, value in record.metrics.items()]
            case Params():
                self._params.update(record.params)
            case Tags():
                self._tags.update({name: self._linked(server, text) for name, text in record.tags.items()})
            case Artifact():
                self._deliver(server, run_id, at)
                self._send_artifact(server, run_id, record.path)
            case Resumed():
                server.reopen_run(run_id)
                self.writer, self.sent.ended = record.writer, False
            case End():
                if record.error:
                    self._tags[ERROR_TAG] = record.error
                self._deliver(server, run_id, at)
                server.end_run(run_id, record.status, record.ms)
                self.sent.ended = True

    def _linked(self, server: Server, text: str) -> str:
        """A text with MLflow's own addresses for ``{run:KEY}`` and, of this run, ``{view:NAME}``."""

        def address(found: re.Match[str]) -> str:
            kind, name = found.groups()
            if kind == "view":
                return view_page(server.experiment_id, self.start.key, name)
            linked = self._run_id_of(server, name)
            return found[0] if linked is None else run_page(server.experiment_id, linked)

        return _LINK.sub(address, text)

    def _deliver(self, server: Server, run_id: str, offset: int) -> None:
        server.log(run_id, self._metrics, self._params, self._tags)
        self.sent.points += len(self._metrics)
        if self._metrics:
            self._delivered = time.monotonic()
        self.sent.offset = offset
        self._metrics, self._params, self._tags = [], {}, {}

    def _end_killed(self, server: Server, run_id: str, tail: Tail, size: int) -> None:
        """End a run that is `size` bytes long without its process; what is behind them, another has added."""
        if size > tail.offset:
            tail.damage.append(f"{self.path.name}: the last line, at byte {tail.offset}, is unfinished")
        server.end_run(run_id, "KILLED", int(self.path.stat().st_mtime * 1e3))
        self.sent.ended, self.sent.offset = True, max(size, tail.offset)
        log.info("%s: its process is gone; ended as KILLED", self.path.name)

    def _send_artifact(self, server: Server, run_id: str, path: str) -> None:
        try:
            file = self._folder.inside(path)
        except InputError as error:
            log.warning("%s: %s", self.path.name, error)
            return
        if not file.is_file():
            log.warning("%s: the artifact %s is gone", self.path.name, path)
            return
        parent = Path(path).parent.as_posix()
        server.log_artifact(run_id, file, None if parent == "." else parent)
