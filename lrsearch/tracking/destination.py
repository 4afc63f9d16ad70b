"""Which MLflow server and experiment a study's record goes to. MLflow itself is not imported here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrsearch.errors import RecordError
from lrsearch.files import write_json
from lrsearch.tracking.folder import StudyFolder
from lrsearch.tracking.provenance import redact

DESTINATION_VARIABLE = "LRSEARCH_MIRROR_DESTINATION"  # how the mirror is told; the password stands in no file

_SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Destination:
    """A tracking server and an experiment on it.

    `experiment_id`, where given, is used instead of the name; `parent_run_id` is a run of the user's under
    which our runs are shown.
    """

    tracking_uri: str
    experiment: str
    experiment_id: str | None = None
    parent_run_id: str | None = None

    def redacted(self) -> Destination:
        """The same without passwords."""
        return replace(self, tracking_uri=redact(self.tracking_uri))

    def sqlite_file(self) -> Path | None:
        """The database file, where the server is one."""
        if not self.tracking_uri.startswith(_SQLITE):
            return None
        return Path(self.tracking_uri[len(_SQLITE) :].split("?", 1)[0])

    def to_json(self) -> str:
        """As JSON text, with the password."""
        return json.dumps(vars(self))

    def save(self, folder: StudyFolder) -> None:
        """Keep it in the folder, without passwords."""
        write_json(folder.destination, vars(self.redacted()))


def from_json(text: str) -> Destination:
    """A destination from its JSON text; RecordError where it is damaged."""
    try:
        data: Mapping[str, Any] = json.loads(text)
        found = Destination(**data)
        redact(found.tracking_uri)  # a TypeError where it is no text
    except (ValueError, TypeError, RecursionError) as error:
        raise RecordError(f"the description of the tracking server is damaged: {error}") from error
    return found


def load(folder: StudyFolder) -> Destination | None:
    """The destination kept in a folder, with its password where the environment still has it."""
    try:
        kept = from_json(folder.destination.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    return replace(kept, tracking_uri=given) if redact(given) == kept.tracking_uri else kept


def find_destination(
    default_experiment: str, tracking_uri: str | None = None, experiment: str | None = None
) -> Destination:
    """Decide where to record: the arguments, else the user's MLflow, else the environment, else a local file.

    The user's MLflow is looked at only where it is loaded already: its tracking URI, and its active run,
    which becomes the parent and whose experiment is used. The local file is `mlflow.db` in the working
    directory.
    """
    mlflow = sys.modules.get("mlflow")
    active, users_uri = None, None
    if mlflow is not None and hasattr(mlflow, "active_run"):
        active = mlflow.active_run()
        if active is not None or mlflow.is_tracking_uri_set():
            users_uri = _absolute(mlflow.get_tracking_uri())
    default_uri = users_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    uri = _absolute(tracking_uri or default_uri)
    if active is not None and uri == users_uri:
        found = Destination(uri, default_experiment, active.info.experiment_id, active.info.run_id)
    elif tracking_uri and uri != _absolute(default_uri):
        found = Destination(uri, default_experiment)  # the environment's experiment is another server's
    elif name := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        found = Destination(uri, name)
    else:
        found = Destination(uri, default_experiment, os.environ.get("MLFLOW_EXPERIMENT_ID"))
    return replace(found, experiment=experiment, experiment_id=None) if experiment else found


def _absolute(uri: str) -> str:
    if uri.startswith(_SQLITE) and not uri.startswith(f"{_SQLITE}:memory:"):
        file, mark, query = uri[len(_SQLITE) :].partition("?")
        return f"{_SQLITE}{Path(file).absolute()}{mark}{query}"
    return uri
