"""The mirror: `python -m lrsearch.tracking.mlflow.mirror FOLDER`, a niced process that fills MLflow.

It tails every journal of the folder, sends what is new, keeps how far it came in `mirror.json`, and ends
when every run has ended and is sent. A run whose process is gone is ended as KILLED. Where the server is
away it tries again with growing pauses, and gives up `GIVE_UP_S` after the last success once no process
writes any more; a later mirror goes on from there. It gives way to a later mirror that fills another place,
and, while its own server is away, to any later one.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from lrsearch.errors import LrsearchError, RecordError, first_line
from lrsearch.tracking.destination import DESTINATION_VARIABLE, Destination, from_json, load
from lrsearch.tracking.entries import RunStart
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.mlflow.forward import Forwarder
from lrsearch.tracking.progress import MirrorState, SentRun, load_state
from lrsearch.tracking.provenance import secrets_in
from lrsearch.tracking.reading import read_start

if TYPE_CHECKING:
    from lrsearch.tracking.mlflow.server import Server

GIVE_UP_S = 600.0
_LOCK_S = 15.0  # a mirror that ends or gives way holds the lock no longer
_POLL_S = (0.02, 0.25)  # while points come, and when nothing has come for a while
_RETRY_S = (0.25, 15.0)
_NICENESS = 10

log = logging.getLogger("lrsearch.mirror")


class FolderMirror:
    """Keeps MLflow equal to the journals of one folder."""

    def __init__(self, folder: StudyFolder, destination: Destination) -> None:
        """Go on from `mirror.json` where it is of the same server and experiment, else from the beginning."""
        self._folder = folder
        self._destination = destination
        self._secrets = secrets_in(destination.tracking_uri)
        self._forwarders: dict[str, Forwarder] = {}
        self._server: Server | None = None
        self._starter = os.getppid()
        self._asked = _changed(folder.destination)
        fresh, kept = MirrorState.of(destination), load_state(folder)
        self._state = kept if kept is not None and kept.same_place(fresh) else fresh
        self._state.pid, self._state.state, self._state.unreadable = os.getpid(), "pending", []
        self._unanswered: set[str] = set()  # keys of runs whose making was asked for and not answered
        self._save()

    def run(self) -> bool:
        """Mirror until everything is sent; False where the server stayed away too long."""
        poll, retry, last_success = _POLL_S[0], _RETRY_S[0], time.monotonic()
        while True:
            before = self._bytes_sent()
            try:
                progress = self._send_new()
                if finished := self._finished():
                    self._delete_ghosts()
            except Exception as error:  # whatever MLflow, its database, its network raise: said and repeated
                if not self._folder.journal.is_dir():
                    return False  # somebody removed the study
                self._server = None
                self._say(error)
                if self._bytes_sent() > before:
                    retry, last_success = _RETRY_S[0], time.monotonic()
                if time.monotonic() - last_success > GIVE_UP_S and not self._anyone_writes():
                    log.warning("gave up; `lrsearch sync %s` sends the rest", self._folder.name)
                    return False
                if self._pause(retry):
                    return False
                retry = min(2 * retry, _RETRY_S[1])
                continue
            retry, last_success = _RETRY_S[0], time.monotonic()
            if finished:
                self._state.state = "synced"
                self._save()
                return True
            if progress:
                self._save()
            elif self._other_place():
                return False
            poll = _POLL_S[0] if progress else min(poll * 1.3, _POLL_S[1])
            time.sleep(poll)

    def _pause(self, seconds: float) -> bool:
        """Wait, and say whether a later mirror wants the place meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if _changed(self._folder.destination) != self._asked:
                return True
            time.sleep(min(left, _POLL_S[1]))
        return False

    def _other_place(self) -> bool:
        wanted = load(self._folder)
        return wanted is not None and wanted.redacted() != self._destination.redacted()

    def _send_new(self) -> bool:
        server = self._server or self._connect()
        self._find_journals()
        progress = False
        for key, forwarder in list(self._forwarders.items()):
            if forwarder.done():
                continue
            try:
                progress |= self._forward(server, forwarder)
            except Exception:
                self._forwarders[key] = self._forwarders.pop(key)  # the others first, the next time
                raise
        self._state.error = server.refused
        return progress

    def _forward(self, server: Server, forwarder: Forwarder) -> bool:
        from lrsearch.tracking.mlflow.server import RunDeletedError

        try:
            run_id = self._run_id(server, forwarder)
            return forwarder.forward(server, run_id)
        except RunDeletedError as error:
            log.warning("%s", error)
            forwarder.sent.offset, forwarder.sent.ended = forwarder.path.stat().st_size, True
            return True

    def _run_id(self, server: Server, forwarder: Forwarder) -> str:
        sent = forwarder.sent
        if sent.run_id is None:
            parent = self._forwarders.get(forwarder.start.parent or "")
            if parent is None or parent is forwarder or parent.start.parent is not None:
                parent_run_id = self._destination.parent_run_id
            else:
                parent_run_id = self._run_id(server, parent)
            found = server.find_runs(forwarder.start.key)
            sent.run_id = found[0] if found else self._create_run(server, forwarder.start, parent_run_id)
            self._save()
        return sent.run_id

    def _create_run(self, server: Server, start: RunStart, parent_run_id: str | None) -> str:
        try:
            return server.create_run(start, parent_run_id)
        except Exception:
            self._unanswered.add(start.key)
            raise

    def _delete_ghosts(self) -> None:
        """Delete what came of a request to make a run that was done only after it had been repeated."""
        for key in list(self._unanswered):
            if self._server is not None:
                for run_id in self._server.find_runs(key):
                    if run_id != self._state.runs[key].run_id:
                        log.info("the run %s was made twice; %s is deleted", key, run_id)
                        self._server.delete_run(run_id)
            self._unanswered.discard(key)

    def _linked_run(self, server: Server, key: str) -> str | None:
        if key not in self._forwarders:
            self._find_journals()  # it may have begun since
        forwarder = self._forwarders.get(key)
        return None if forwarder is None else self._run_id(server, forwarder)

    def _connect(self) -> Server:
        from lrsearch.tracking.mlflow.server import Server

        if database := self._destination.sqlite_file():
            os.chdir(database.parent)  # MLflow puts the artifacts of a database file into ./mlruns
        server = Server(self._destination)
        self._state.experiment_id = server.experiment_id
        made = [sent for sent in self._state.runs.values() if sent.run_id is not None]
        there = server.existing([str(sent.run_id) for sent in made])
        for sent in made:
            if sent.run_id not in there and not server.has_run(str(sent.run_id)):
                log.warning("the server has no run %s any more; it is sent again", sent.run_id)
                sent.run_id, sent.offset, sent.points, sent.ended = None, 0, 0, False
        self._server = server
        return server

    def _find_journals(self) -> None:
        known = {forwarder.path.name for forwarder in self._forwarders.values()}
        for path in self._folder.journals():
            if path.name in known or path.name in self._state.unreadable:
                continue
            try:
                start = read_start(path)
            except RecordError as error:
                if time.time() - path.stat().st_mtime > 1:  # else it may just be begun
                    self._state.unreadable.append(path.name)
                    log.warning("%s", error)
                continue
            sent = self._state.runs.setdefault(start.key, SentRun(path.name))
            self._forwarders[start.key] = Forwarder(path, self._folder, start, sent, self._linked_run)

    def _finished(self) -> bool:
        if not self._folder.journals() and os.getppid() == self._starter:
            return False  # started before the first run
        return self._state.covers(self._folder)

    def _bytes_sent(self) -> int:
        return sum(sent.offset for sent in self._state.runs.values())

    def _anyone_writes(self) -> bool:
        runs = self._forwarders.values()
        return any(not run.sent.ended and run.writer.alive() is not False for run in runs)

    def _say(self, error: Exception) -> None:
        root = _root(error)
        line = _without(f"{type(root).__name__}: {first_line(root)}", self._secrets)[:500]
        if line != self._state.error:
            log.error("%s", line, exc_info=error)
        self._state.error = line
        self._save()

    def _save(self) -> None:
        """Keep how far it came; where the folder takes no writing, a later mirror sends some of it again."""
        try:
            self._state.save(self._folder)
        except RecordError as error:
            log.warning("%s", error)


class _Formatter(logging.Formatter):
    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return _without(super().format(record), self._secrets)


def _root(error: BaseException) -> BaseException:
    """What an error came from: a refused connection, say, and not the five errors made of it."""
    below = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error if below is None else _root(below)


def _without(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _prepare(destination: Destination, folder: StudyFolder) -> None:
    """Set what is this process's own: its priority, its log, and the variables that MLflow reads."""
    handler = logging.FileHandler(folder.mirror_log, encoding="utf-8")
    handler.setFormatter(_Formatter(secrets_in(destination.tracking_uri)))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    os.environ.update(
        MLFLOW_TRACKING_URI=destination.tracking_uri,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",  # the loop above tries again, and sees what it does
        MLFLOW_ENABLE_ASYNC_LOGGING="false",
        MLFLOW_DISABLE_TELEMETRY="true",
    )
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def main(arguments: Sequence[str]) -> int:
    """Mirror one folder; 0 when everything is sent, 1 when not."""
    folder = StudyFolder(Path(arguments[0]).absolute())
    given = os.environ.pop(DESTINATION_VARIABLE, None)
    destination = from_json(given) if given else load(folder)
    if destination is None:
        raise RecordError(f"{folder.destination} is missing: nobody said which server to fill")
    try:
        with FileLock(folder.mirror_lock).acquire(timeout=_LOCK_S):
            _prepare(destination, folder)
            return 0 if FolderMirror(folder, destination).run() else 1
    except Timeout:
        return 0  # another mirror does it


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LrsearchError as failure:
        sys.exit(str(failure))
