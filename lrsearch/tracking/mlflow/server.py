"""Everything that is said to MLflow; only the mirror imports this, in a process of its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
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
from lrsearch.tracking.entries import DataInput, RunStart, Status
from lrsearch.tracking.mlflow.views import views

_METRICS, _PARAMS, _TAGS = 900, 50, 50  # a call takes 1000 in all; 100 params of full length would pass 1 MB
_RUNS = 200  # asked for at once
_INVALID = {ErrorCode.Name(code) for code in (INVALID_PARAMETER_VALUE, INVALID_STATE)}
_BAD_REQUEST = ErrorCode.Name(BAD_REQUEST)  # also what a database says that takes no writing for a while
_EXISTS = ErrorCode.Name(RESOURCE_ALREADY_EXISTS)
_DENIED = ErrorCode.Name(PERMISSION_DENIED)
_ABSENT = ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)

_NO_PLACE = (PermissionError, FileNotFoundError, FileExistsError, NotADirectoryError)

log = logging.getLogger("lrsearch.mirror")
T = TypeVar("T")
Entry = Metric | Param | RunTag


class RunDeletedError(TrackingError):
    """Somebody deleted the run in MLflow."""


class Server:
    """An experiment on an MLflow server, addressed with explicit ids and no global state."""

    def __init__(self, destination: Destination) -> None:
        """Connect, and find or make the experiment; one process at a time sets up a SQLite store."""
        uri = destination.tracking_uri
        if database := destination.sqlite_file():
            with FileLock(f"{database}.lock"):
                if not database.exists() or not database.stat().st_size:
                    _make_store(database)
                self._client = MlflowClient(uri, registry_uri=uri)
                self._client.search_experiments(max_results=1)
        else:
            self._client = MlflowClient(uri, registry_uri=uri)
        self.experiment_id = self._find_experiment(destination)
        self.refused: str | None = None

    def find_runs(self, key: str) -> list[str]:
        """The ids of the runs that carry the idempotency key: one, but for requests that came twice."""
        found = self._client.search_runs([self.experiment_id], f"tags.`lrsearch.key` = '{key}'")
        return [run.info.run_id for run in found]

    def delete_run(self, run_id: str) -> None:
        """Delete a run; MLflow keeps it among the deleted."""
        self._client.delete_run(run_id)

    def existing(self, run_ids: Sequence[str]) -> set[str]:
        """Those of the runs that are in the experiment and not deleted, with few calls."""
        found: set[str] = set()
        for part in _parts(run_ids, _RUNS):
            quoted = ", ".join(f"'{run_id}'" for run_id in part)
            condition = f"attributes.run_id IN ({quoted})"
            runs = self._client.search_runs([self.experiment_id], condition, max_results=len(part))
            found.update(run.info.run_id for run in runs)
        return found

    def has_run(self, run_id: str) -> bool:
        """Whether the run still exists and is not deleted."""
        try:
            return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == _ABSENT:
                return False
            raise

    def users_tags(self, start: RunStart) -> dict[str, str]:
        """The tags that a run begins with, but for those of ours that make it; MLflow may refuse some."""
        return {name: text for name, text in start.tags.items() if name not in _own_tags(start)}

    def create_run(self, start: RunStart, parent_run_id: str | None) -> str:
        """Make the run with our tags and its true start time; returns its id."""
        tags = _own_tags(start)
        if parent_run_id:
            tags["mlflow.parentRunId"] = parent_run_id
        run = self._client.create_run(self.experiment_id, start.started, tags, _clean(start.name))
        return str(run.info.run_id)

    def log(
        self,
        run_id: str,
        metrics: Sequence[tuple[str, float, int, int]],
        params: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> None:
        """Send metrics (name, value, ms, step), params and tags, with as few calls as the limits allow."""
        points = [Metric(*metric) for metric in metrics]
        entries = [Param(name, _clean(value)[:6000]) for name, value in params.items()]
        run_tags = [RunTag(name, _clean(value)[:8000]) for name, value in tags.items()]
        for batch in _batches(points, entries, run_tags):
            self._send(run_id, batch, lambda part: self._log_batch(run_id, part))

    def _log_batch(self, run_id: str, batch: Sequence[Entry]) -> None:
        self._client.log_batch(
            run_id,
            metrics=[entry for entry in batch if isinstance(entry, Metric)],
            params=[entry for entry in batch if isinstance(entry, Param)],
            tags=[entry for entry in batch if isinstance(entry, RunTag)],
        )

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
                if error.error_code not in {*_INVALID, _BAD_REQUEST, _DENIED}:
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
            if error.error_code not in {*_INVALID, _BAD_REQUEST}:
                raise
            if not self.has_run(run_id):
                raise RunDeletedError(f"run {run_id} was deleted in MLflow") from error
            if len(items) == 1:
                if error.error_code == _BAD_REQUEST and isinstance(items[0], Metric):
                    raise  # a point of ours is never bad: the database was, and takes it later
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


def _own_tags(start: RunStart) -> dict[str, str]:
    origin = start.provenance
    own = {
        "lrsearch.key": start.key,
        "lrsearch.kind": start.kind,
        "lrsearch.study": start.study,
        "lrsearch.stage": start.stage,
        "mlflow.user": origin.get("user"),
        "mlflow.source.name": origin.get("command"),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": (origin.get("git") or {}).get("commit"),
    }
    return {name: _clean(value)[:8000] for name, value in own.items() if value is not None}


def _clean(value: object) -> str:
    """As text that a database takes: no half of a surrogate pair, no NUL."""
    return str(value).encode("utf-8", "replace").decode("utf-8").replace("\0", "?")


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


def _batches(
    metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
) -> Iterator[list[Entry]]:
    """What a call takes of each, until nothing is left."""
    parts = zip_longest(_parts(metrics, _METRICS), _parts(params, _PARAMS), _parts(tags, _TAGS), fillvalue=())
    for some_metrics, some_params, some_tags in parts:
        yield [*some_metrics, *some_params, *some_tags]


def _make_store(database: Path) -> None:
    """Make a fresh store beside its place and put it there whole: a kill half way would spoil it for ever."""
    new = database.with_name(f"{database.name}.new")
    for left in (new, new.with_name(f"{new.name}-journal")):
        left.unlink(missing_ok=True)  # of one that was killed
    uri = f"sqlite:///{new}"
    MlflowClient(uri, registry_uri=uri).search_experiments(max_results=1)
    new.replace(database)
