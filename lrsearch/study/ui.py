"""MLflow's own UI on the store of a study."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from lrsearch.errors import InputError
from lrsearch.tracking import destination as destinations
from lrsearch.tracking.destination import find_destination
from lrsearch.tracking.folder import StudyFolder, find_folder
from lrsearch.tracking.progress import load_state
from lrsearch.tracking.provenance import redact
from lrsearch.tracking.reading import read_start

_HOST = "127.0.0.1"


def serve(name: str | None, tracking_uri: str | None, port: int, say: Callable[[str], object]) -> None:
    """Start `mlflow ui` for this machine alone and stay until it ends; a server that runs is only named.

    Raises InputError for an unknown name, and where the UI cannot be started.
    """
    folder = find_folder(name) if name is not None else None
    kept = destinations.load(folder) if folder is not None else None
    store = tracking_uri or (kept.tracking_uri if kept else find_destination("lrsearch").tracking_uri)
    if store.startswith(("http://", "https://")):
        say(f"{redact(store).rstrip('/')}/{_page(folder)}")
        return
    say(f"http://{_HOST}:{port}/{_page(folder)}   (Ctrl-C ends it)")
    command = [sys.executable, "-m", "mlflow", "ui", "--host", _HOST, "--port", str(port)]
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": store}  # its password is in no list of processes
    code = subprocess.run(command, env=environment, check=False).returncode
    if code not in (0, 130, -2):
        raise InputError(
            "port", port, f"mlflow ui ended with code {code}", "see what it said, or give --port"
        )


def _page(folder: StudyFolder | None) -> str:
    """The part of the address that shows the study's run; empty where MLflow does not have it yet."""
    kept = load_state(folder) if folder is not None else None
    if folder is None or kept is None or kept.experiment_id is None:
        return ""
    page = f"#/experiments/{kept.experiment_id}"
    machine_learning = "?workflowType=machine_learning"  # else MLflow opens its page on language models
    for path in folder.journals():
        start = read_start(path)
        run = kept.runs.get(start.key)
        if start.parent is None and run is not None and run.run_id is not None:
            return f"{page}/runs/{run.run_id}{machine_learning}"
    return page + machine_learning
