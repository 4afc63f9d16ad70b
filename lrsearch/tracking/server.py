"""Everything that is said to MLflow; only the mirror imports this, in a process of its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    BAD_REQUEST,
    INVALID_PARAMETER_VALUE,
    INVALID_STATE,
    PERMISSION_DENIED,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)

from lrsearch.errors import TrackingError
from lrsearch.tracking.destination import Destination
from lrsearch.tracking.records import DataInput, RunStart, Status
from lrsearch.tracking.views import views

_METRICS, _PARAMS, _TAGS = 1000, 50, 100  # a call; 100 params of full length would pass 1 MB
_REFUSED = {ErrorCode.Name(code) for code in (BAD_REQUEST, INVALID_PARAMETER_VALUE, INVALID_STATE)}
_EXISTS = ErrorCode.Name(RESOURCE_ALREADY_EXISTS)
_DENIED = ErrorCode.Name(PERMISSION_DENIED)
_ABSENT = ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)

_NO_PLACE = (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError)

log = logging.getLogger("lrsearch.mirror")
T = TypeVar("T")


class RunDeletedError(TrackingError):
    """Somebody deleted the run in MLflow."""


class Server:
    """An experiment on an MLflow server, addressed with explicit ids and no global state."""

    def __init__(self, destination: Destination) -> None:
        """Connect, and find or make the experiment; one process at a time sets up a SQLite store."""
        uri = destination.tracking_uri
        if database := destination.sqlite_file():
            with FileLock(f"{database}.lock"):
                self._client = MlflowClient(uri, registry_uri=uri)
                self._client.search_experiments(max_results=1)
        else:
            self._client = MlflowClient(uri, registry_uri=uri)
        self.experiment_id = self._find_experiment(destination)
        self.refused: str | None = None

    def find_run(self, key: str) -> str | None:
        """The id of the run that carries the idempotency key."""
        found = self._client.search_runs(
            [self.experiment_id], f"tags.`lrsearch.key` = '{key}'", max_results=1
        )
        return found[0].info.run_id if found else None

    def has_run(self, run_id: str) -> bool:
        """Whether the run still exists and is not deleted."""
        try:
            return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == _ABSENT:
                return False
            raise

    def create_run(self, start: RunStart, parent_run_id: str | None) -> str:
        """Make the run with its tags and its true start time; returns its id."""
        tags = _start_tags(start)
        if parent_run_id:
            tags["mlflow.parentRunId"] = parent_run_id
        run = self._client.create_run(self.experiment_id, start.started, tags, start.name)
        return str(run.info.run_id)

    def log(
        self,
        run_id: str,
        metrics: Sequence[tuple[str, float, int, int]],
        params: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> None:
        """Send metrics (name, value, ms, step), params and tags, within the server's limits a call."""
        for metric_part in _parts([Metric(*metric) for metric in metrics], _METRICS):
            self._send(run_id, metric_part, lambda part: self._client.log_batch(run_id, metrics=part))
        entries = [Param(name, _clean(value)[:6000]) for name, value in params.items()]
        for param_part in _parts(entries, _PARAMS):
            self._send(run_id, param_part, lambda part: self._client.log_batch(run_id, params=part))
        run_tags = [RunTag(name, _clean(value)[:8000]) for name, value in tags.items()]
        for tag_part in _parts(run_tags, _TAGS):
            self._send(run_id, tag_part, lambda part: self._client.log_batch(run_id, tags=part))

    def log_inputs(self, run_id: str, inputs: Sequence[DataInput]) -> None:
        """Send the descriptions of the data, the fingerprint as digest."""
        datasets = [_dataset(data) for data in inputs]
        if datasets:
            self._send(run_id, datasets, lambda part: self._client.log_inputs(run_id, part))

    def save_views(self, run_id: str, start: RunStart) -> None:
        """Keep the views of a study's run in the experiment's tags, where they are allowed."""
        for name, view in views(start, run_id).items():
            try:
                self._client.set_experiment_tag(self.experiment_id, name, view)
            except MlflowException as error:
                if error.error_code not in {*_REFUSED, _DENIED}:
                    raise
                log.warning("the view %s is not kept: %s", name, error)

    def log_artifact(self, run_id: str, file: Path, folder: str | None) -> None:
        """Send a file; one whose place in the artifact store cannot be written is left out and said."""
        try:
            self._client.log_artifact(run_id, str(file), folder)
        except _NO_PLACE as error:
            self.refused = f"the artifact {file.name} cannot be stored: {error}"
            log.warning("%s", self.refused)

    def end_run(self, run_id: str, status: Status, ms: int) -> None:
        """End the run."""
        self._client.set_terminated(run_id, status, ms)

    def reopen_run(self, run_id: str) -> None:
        """Set an ended run running again."""
        self._client.update_run(run_id, "RUNNING")

    def _send(self, run_id: str, items: Sequence[T], call: Callable[[Sequence[T]], object]) -> None:
        """Send items; one that the server will never take is left out and said, so that the rest arrives."""
        try:
            call(items)
        except MlflowException as error:
            if error.error_code not in _REFUSED:
                raise
            if not self.has_run(run_id):
                raise RunDeletedError(f"run {run_id} was deleted in MLflow") from error
            if len(items) == 1:
                self.refused = f"MLflow refused {items[0]}: {error}"
                log.warning("%s", self.refused)
                return
            middle = len(items) // 2
            self._send(run_id, items[:middle], call)
            self._send(run_id, items[middle:], call)

    def _find_experiment(self, destination: Destination) -> str:
        if destination.experiment_id is not None:
            try:
                return str(self._client.get_experiment(destination.experiment_id).experiment_id)
            except MlflowException as error:
                if error.error_code != _ABSENT:  # an emptied server: the name still says which
                    raise
        found = self._client.get_experiment_by_name(destination.experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(destination.experiment))
            except MlflowException as error:
                found = self._client.get_experiment_by_name(destination.experiment)
                if error.error_code != _EXISTS or found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"the experiment {destination.experiment!r} is deleted in MLflow; restore it or name another"
            )
        return str(found.experiment_id)


def _start_tags(start: RunStart) -> dict[str, str]:
    origin = start.provenance
    known = {
        "lrsearch.key": start.key,
        "lrsearch.kind": start.kind,
        "lrsearch.study": start.study,
        "lrsearch.stage": start.stage,
        "mlflow.user": origin.get("user"),
        "mlflow.source.name": origin.get("command"),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": (origin.get("git") or {}).get("commit"),
    }
    return {
        **start.tags,
        **{name: _clean(value)[:8000] for name, value in known.items() if value is not None},
    }


def _clean(value: object) -> str:
    """As text that a database takes: a file name may hold half a surrogate pair."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _dataset(data: DataInput) -> DatasetInput:
    dataset = Dataset(
        name=data.name[:500],
        digest=data.digest[:36],
        source_type="code",
        source=json.dumps({"tags": {}}),
        profile=json.dumps(dict(data.profile)) if data.profile else None,
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", data.context[:500])])


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
