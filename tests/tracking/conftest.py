from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lrsearch.tracking.folder import StudyFolder, create_folder
from lrsearch.tracking.sync import Destination
from tests.tracking.store import Store

CHECKOUT = Path(__file__).parents[2]
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": str(CHECKOUT)}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StudyFolder]:
    made = create_folder("study", out=tmp_path / "study")
    yield made
    _end_mirrors(tmp_path)


@pytest.fixture
def destination(store: Store) -> Destination:
    return Destination(store.uri, "lrsearch/test")


@pytest.fixture(scope="session")
def server(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Store]]:
    """A real MLflow server: its port, and the database behind it."""
    place = tmp_path_factory.mktemp("server")
    database = Path(shutil.copy(migrated, place / "mlflow.db"))
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    options = [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--artifacts-destination",
        "artifacts",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}", *options],
        cwd=place,
        env=os.environ | QUIET | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for_health(port)
        yield port, Store(database)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for_health(port: int) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _end_mirrors(place: Path) -> None:
    """End the mirrors that still serve a folder of this test: those whose server never comes back."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "lrsearch.tracking.mirror" in words and words[-1].startswith(str(place)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
