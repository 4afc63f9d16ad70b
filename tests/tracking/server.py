"""A real MLflow server for tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": str(CHECKOUT)}


@contextmanager
def serving(database: Path) -> Iterator[int]:
    """Serve a SQLite store from the folder it lies in; gives the port."""
    with serving_store(f"sqlite:///{database}", database.parent) as port:
        yield port


@contextmanager
def serving_store(uri: str, folder: Path, port: int | None = None) -> Iterator[int]:
    """Serve the store of this URI, with its artifacts in a folder; gives the port. It ends by SIGKILL."""
    if port is None:
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = int(free.getsockname()[1])
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", uri, "--artifacts-destination", "artifacts"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *store, *options],
        cwd=folder,
        env=os.environ | QUIET | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for_health(port)
        yield port
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
