"""The training process's side of the mirror: start it, ask it, wait for it. MLflow is not imported here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import lrsearch
from lrsearch.errors import InputError, TrackingError
from lrsearch.tracking import destination as destinations
from lrsearch.tracking.destination import DESTINATION_VARIABLE, Destination, find_destination
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.journal import being_written
from lrsearch.tracking.progress import MirrorState, load_state
from lrsearch.tracking.provenance import redact

__all__ = ["Destination", "Mirror", "find_destination", "start_mirror", "sync"]

_POLL_S = 0.01
_RESTART_S = (0.5, 60.0)  # before a mirror that was killed is started again: at first, and at most


class Mirror:
    """A mirror at work on a folder; the process is not ours to keep, it ends by itself."""

    def __init__(self, folder: StudyFolder, destination: Destination) -> None:
        """Start the mirror's process."""
        self._folder = folder
        self._destination = destination
        self._place = MirrorState.of(destination)
        self._process = _launch(folder, destination)
        self._lock = threading.Lock()  # of the next two, which decide whether somebody keeps the mirror alive
        self._waiting = 0
        self._is_kept = True
        self._keeper = self._start_keeper()

    def _start_keeper(self) -> threading.Thread:
        keeper = threading.Thread(target=self._keep, name="lrsearch-mirror", daemon=True)
        keeper.start()
        return keeper

    def _keep(self) -> None:
        """Take the exit status; start again what was killed, but by SIGTERM, while we write the folder or
        wait for MLflow.
        """
        first, most = _RESTART_S
        pause, started = first, time.monotonic()
        while self._was_killed():
            if time.monotonic() - started > most:
                pause = first
            time.sleep(pause)
            pause = min(2 * pause, most)
            with self._lock:
                self._is_kept = self._waiting > 0 or being_written(self._folder)
            if not self._is_kept:
                return
            started = time.monotonic()
            with suppress(TrackingError):  # it is tried again, after a longer pause
                self._process = _launch(self._folder, self._destination)

    def _was_killed(self) -> bool:
        status = self._process.wait()
        return status < 0 and status != -signal.SIGTERM

    @property
    def pid(self) -> int:
        """The mirror's process."""
        return self._process.pid

    def status(self) -> MirrorState | None:
        """What it has sent to this destination so far; None where nothing."""
        state = load_state(self._folder)
        return state if state is not None and state.same_place(self._place) else None

    def synced(self) -> bool:
        """Whether MLflow has everything and every run has ended."""
        state = self.status()
        if state is None or state.state != "synced":
            return False
        verified = (
            state.pid == self.pid or self._process.returncode == 0
        )  # not what an earlier mirror believed
        return verified and state.covers(self._folder)

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until everything is sent; whether it is."""
        with self._lock:
            self._waiting += 1
            if not self._is_kept:  # it was killed when nobody needed it
                self._is_kept, self._keeper = True, self._start_keeper()
        try:
            return self._until(timeout, self.synced)
        finally:
            with self._lock:
                self._waiting -= 1

    def run_id(self, key: str, timeout: float = 0.0) -> str | None:
        """MLflow's id of the run with this key, waiting at most `timeout` seconds; None while pending."""

        self._until(timeout, lambda: self._run_id(key) is not None)
        return self._run_id(key)

    def _run_id(self, key: str) -> str | None:
        state = self.status()
        run = state.runs.get(key) if state is not None else None
        return run.run_id if run is not None else None

    def _until(self, timeout: float, condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            failed = not self._keeper.is_alive() and self._process.returncode != 0
            if left <= 0 or failed:  # it ends with 0 also where another mirror does it
                return condition()
            time.sleep(min(_POLL_S, left))
        return True


def start_mirror(folder: StudyFolder, destination: Destination) -> Mirror:
    """Start the mirror of a folder, detached: neither Ctrl-C nor our end stops it.

    The folder keeps the destination without its password. Nothing in our environment changes.
    """
    destination.save(folder)
    return Mirror(folder, destination)


def _launch(folder: StudyFolder, destination: Destination) -> subprocess.Popen[bytes]:
    environment = {**os.environ, DESTINATION_VARIABLE: destination.to_json()}
    source = Path(lrsearch.__file__).parents[1]
    if source.name not in ("site-packages", "dist-packages"):  # a checkout that is not installed
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(source))))
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "lrsearch.tracking.mlflow.mirror", str(folder.path)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise TrackingError(f"the mirror cannot be started: {error.strerror or error}") from error


def sync(
    folder: StudyFolder, tracking_uri: str | None = None, experiment: str | None = None, timeout: float = 60.0
) -> bool:
    """Send to MLflow what it has not got of a folder, also to another or an emptied server.

    Returns whether all is there within `timeout` seconds; if not, the mirror goes on by itself.
    Raises InputError where neither the folder nor the caller names a server.
    """
    kept = destinations.load(folder)
    if tracking_uri is not None:
        destination = find_destination(kept.experiment if kept else f"lrsearch/{folder.name}", tracking_uri)
        if kept is not None and redact(destination.tracking_uri) == redact(kept.tracking_uri):
            destination = replace(kept, tracking_uri=destination.tracking_uri)
    elif kept is not None:
        destination = kept
    else:
        raise InputError(
            "tracking_uri", None, f"{folder.path} does not say which server", "give --tracking-uri"
        )
    if experiment is not None:
        destination = replace(destination, experiment=experiment, experiment_id=None)
    return start_mirror(folder, destination).wait(timeout)
